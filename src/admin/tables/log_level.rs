//! SHOW LOG_LEVEL.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("LOG_LEVEL", "the least level that is logged", lines);

struct LogLevelLine {
    level: String,
}

columns! { LogLevelLine;
    "log_level" text = |it| &it.level,
}

fn lines(proxy: &Proxy) -> Vec<LogLevelLine> {
    vec![LogLevelLine { level: proxy.log_level.in_force() }]
}
