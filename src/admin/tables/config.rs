//! SHOW CONFIG.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::config;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("CONFIG", "every setting in force", lines);

struct SettingLine {
    key: String,
    value: String,
    default: Option<String>,
    needs_restart: bool,
}

columns! { SettingLine;
    "key" text = |it| &it.key,
    "value" text = |it| &it.value,
    "default" text = |it| it.default.as_ref(),
    "changeable" text = |it| if it.needs_restart { "no" } else { "yes" },
}

fn lines(proxy: &Proxy) -> Vec<SettingLine> {
    let config = proxy.config.load();
    let defaults = config::defaults(&config);
    let line = |(key, setting): (String, config::ConfigSetting)| {
        let default = defaults.get(&key).map(config::ConfigSetting::to_string);
        SettingLine { key, value: setting.to_string(), default, needs_restart: setting.needs_restart }
    };
    config::entries(&config).into_iter().map(line).collect()
}
