//! Limits on how clients may change their role's timeouts: `roles.*.override`.
//!
//! A value that may not stand is replaced in the text that sets it, so that it never takes effect. Values that a
//! session still comes to keep of its own are judged again when they are adopted, and when the configuration changes.

use super::settings::Values;
use super::timeout::{Timeout, whole};
use crate::config::{Override, PoolSettings, Timeouts, duration_text};
use crate::sql::{Milliseconds, Substitute, Value, milliseconds};
use crate::wire::build::Report;

/// The timeouts of a role and how its clients may change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    timeouts: Timeouts,
    set_override: Override,
}

impl From<&PoolSettings> for Limits {
    fn from(settings: &PoolSettings) -> Self {
        Self { timeouts: settings.timeouts, set_override: settings.set_override }
    }
}

impl Limits {
    /// Every value may stand.
    pub fn allow_all(&self) -> bool {
        self.set_override == Override::Any
    }

    /// The substitute for a value that a client gives to a setting; `None`: the value may stand, or the setting is none
    /// of ours.
    pub fn substitute(&self, setting: &str, value: &Value) -> Option<Substitute> {
        let limit = Timeout::of_setting(setting)?.limit(&self.timeouts);
        let wanted = match milliseconds(value) {
            // Postgres reports it itself.
            Milliseconds::Refused => return None,
            Milliseconds::Known(wanted) => Some(wanted),
            Milliseconds::Unread => None,
        };
        let most = limit.map(whole);
        let may_stand = match self.set_override {
            Override::Any => true,
            Override::Lower => {
                most.is_none_or(|most| most == 0 || wanted.is_some_and(|wanted| 0 < wanted && wanted <= most))
            }
            Override::None => most.is_some() && wanted == most,
        };
        (!may_stand).then(|| most.map_or(Substitute::Default, Substitute::Milliseconds))
    }

    /// Takes out values that may not stand, and values that are the role's anyway: then the session follows its role.
    /// Returns the settings whose values may not stand.
    pub fn judge(&self, values: &mut Values) -> Vec<&'static str> {
        let mut refused = Vec::new();
        if self.allow_all() {
            return refused;
        }
        for timeout in Timeout::ALL {
            let Some(value) = values.get(timeout.setting()) else { continue };
            let is_refused = self.substitute(timeout.setting(), value).is_some();
            let most = timeout.limit(&self.timeouts).map(whole);
            let is_role_s = matches!(milliseconds(value), Milliseconds::Known(own) if Some(own) == most);
            if is_refused || is_role_s {
                values.remove(timeout.setting());
            }
            refused.extend(is_refused.then_some(timeout.setting()));
        }
        refused
    }

    /// The warning to a client whose value did not stand.
    pub fn warning(&self, setting: &str, role: &str) -> Report {
        let timeout = Timeout::of_setting(setting);
        let limit = timeout.and_then(|timeout| timeout.limit(&self.timeouts));
        let value = limit.map_or_else(|| "its default".to_owned(), duration_text);
        let key = timeout.zip(limit).map_or_else(String::new, |(timeout, limit)| {
            format!(" and roles.{role}.{} = {}", timeout.key(), duration_text(limit))
        });
        let word = self.set_override.word();
        Report {
            severity: "WARNING",
            code: "01000".into(),
            message: format!("{setting} was set to {value} instead"),
            detail: None,
            hint: Some(format!("roles.{role}.override = {word:?}{key} in pgweir's configuration.")),
            routine: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(set_override: Override, statement: Option<u64>) -> Limits {
        let timeouts = Timeouts { statement: statement.map(Duration::from_millis), ..Timeouts::default() };
        Limits { timeouts, set_override }
    }

    fn text(value: &'static str) -> Value {
        Value::Text(value.as_bytes().into())
    }

    #[test]
    fn any_value_stands_where_any_may() {
        let limits = limits(Override::Any, Some(5000));
        assert_eq!(limits.substitute("statement_timeout", &text("0")), None);
    }

    #[test]
    fn a_value_may_be_lowered_and_zero_is_infinite() {
        let limits = limits(Override::Lower, Some(5000));
        let stand_in = Some(Substitute::Milliseconds(5000));
        for (value, expected) in [("1s", None), ("5s", None), ("5001", stand_in), ("0", stand_in), ("400us", stand_in)]
        {
            assert_eq!(limits.substitute("statement_timeout", &text(value)), expected, "{value}");
        }
        let unread = Value::Raw(b"U&'1s'"[..].into());
        assert_eq!(limits.substitute("statement_timeout", &unread), stand_in);
        assert_eq!(limits.substitute("statement_timeout", &text("soon")), None);
        assert_eq!(limits.substitute("lock_timeout", &text("0")), None);
        assert_eq!(limits.substitute("work_mem", &text("0")), None);
    }

    #[test]
    fn no_value_stands_where_none_may_but_the_roles_own() {
        let with = limits(Override::None, Some(5000));
        assert_eq!(with.substitute("statement_timeout", &text("1s")), Some(Substitute::Milliseconds(5000)));
        assert_eq!(with.substitute("statement_timeout", &text("5s")), None);
        let without = limits(Override::None, None);
        assert_eq!(without.substitute("statement_timeout", &text("1s")), Some(Substitute::Default));
    }

    #[test]
    fn a_session_keeps_of_its_own_what_is_lower() {
        let judged = |set_override, value: &'static str| {
            let mut values: Values =
                [("statement_timeout".to_owned(), text(value)), ("work_mem".to_owned(), text("0"))].into();
            let refused = limits(set_override, Some(5000)).judge(&mut values);
            (values.contains_key("statement_timeout"), values.contains_key("work_mem"), refused.len())
        };
        assert_eq!(judged(Override::Any, "9s"), (true, true, 0));
        assert_eq!(judged(Override::Lower, "1s"), (true, true, 0));
        assert_eq!(judged(Override::Lower, "5s"), (false, true, 0));
        assert_eq!(judged(Override::Lower, "9s"), (false, true, 1));
        assert_eq!(judged(Override::None, "1s"), (false, true, 1));
    }

    #[test]
    fn a_warning_names_both_keys() {
        let warning = limits(Override::Lower, Some(5000)).warning("statement_timeout", "web");
        assert_eq!(warning.message, "statement_timeout was set to 5s instead");
        let hint = "roles.web.override = \"lower\" and roles.web.statement_timeout = 5s in pgweir's configuration.";
        assert_eq!(warning.hint.as_deref(), Some(hint));
    }
}
