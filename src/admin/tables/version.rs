//! SHOW VERSION.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("VERSION", "the version of pgweir", lines);

struct VersionLine;

columns! { VersionLine;
    "version" text = |_it| concat!("pgweir ", env!("CARGO_PKG_VERSION")),
}

fn lines(_: &Proxy) -> Vec<VersionLine> {
    vec![VersionLine]
}
