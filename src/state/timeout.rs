//! The four timeouts that Postgres enforces and pgweir owns per role: the name of each, here and in Postgres.

use std::time::Duration;

use crate::config::{Timeouts, duration_text};
use crate::sql::Value;
use crate::words::words;

words! {
    /// One of them.
    pub enum Timeout {
        /// `statement_timeout`.
        Statement = "statement",
        /// `lock_timeout`.
        Lock = "lock",
        /// `idle_in_transaction_session_timeout`.
        IdleInTransaction = "idle_in_transaction",
        /// `transaction_timeout`, of Postgres 17 and later.
        Transaction = "transaction",
    }
}

/// A client's own values in milliseconds, in the order of [`Timeout::ALL`]; zero is no limit, or a value that cannot be
/// read.
pub(crate) type OwnTimeouts = [Option<u32>; Timeout::ALL.len()];

/// A limit in milliseconds; the configuration allows no more than Postgres takes.
pub(crate) fn whole(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}

impl Timeout {
    /// Postgres's name of the setting.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Statement => "statement_timeout",
            Self::Lock => "lock_timeout",
            Self::IdleInTransaction => "idle_in_transaction_session_timeout",
            Self::Transaction => "transaction_timeout",
        }
    }

    /// The key of a role's section.
    pub fn key(self) -> &'static str {
        match self {
            Self::IdleInTransaction => "idle_in_transaction_timeout",
            other => other.setting(),
        }
    }

    /// The SQLSTATE that Postgres reports when it is over. The first two have other causes, too: a CancelRequest,
    /// NOWAIT.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::Statement => "57014",
            Self::Lock => "55P03",
            Self::IdleInTransaction => "25P03",
            Self::Transaction => "25P04",
        }
    }

    /// The timeout that has this SQLSTATE.
    pub fn of_sqlstate(code: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|timeout| timeout.sqlstate().as_bytes() == code)
    }

    /// The timeout of a setting by its name, folded to lower case.
    pub fn of_setting(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timeout| timeout.setting() == name)
    }

    /// The configured limit; `None`: not configured, and zero: no limit.
    pub fn limit(self, timeouts: &Timeouts) -> Option<Duration> {
        match self {
            Self::Statement => timeouts.statement,
            Self::Lock => timeouts.lock,
            Self::IdleInTransaction => timeouts.idle_in_transaction,
            Self::Transaction => timeouts.transaction,
        }
    }

    /// A limit as a setting; whole milliseconds, so every server takes it.
    pub fn value(limit: Duration) -> Value {
        Value::Text(limit.as_millis().to_string().into_bytes().into())
    }

    /// The HINT of a client's error: it names the key that set the limit, if the limit is ours.
    pub fn hint(self, role: &str, timeouts: &Timeouts) -> Option<String> {
        let limit = self.limit(timeouts).filter(|limit| !limit.is_zero())?;
        Some(format!("roles.{role}.{} = {} in pgweir's configuration.", self.key(), duration_text(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_the_key_and_its_value_if_there_is_a_limit() {
        let timeouts = Timeouts {
            statement: Some(Duration::from_secs(5)),
            lock: Some(Duration::ZERO),
            idle_in_transaction: Some(Duration::from_millis(90_000)),
            transaction: None,
        };
        let hint = |timeout: Timeout| timeout.hint("web", &timeouts);
        let expected = "roles.web.statement_timeout = 5s in pgweir's configuration.";
        assert_eq!(hint(Timeout::Statement).as_deref(), Some(expected));
        let expected = "roles.web.idle_in_transaction_timeout = 90s in pgweir's configuration.";
        assert_eq!(hint(Timeout::IdleInTransaction).as_deref(), Some(expected));
        assert_eq!((hint(Timeout::Lock), hint(Timeout::Transaction)), (None, None));
    }

    #[test]
    fn names_lead_back() {
        for timeout in Timeout::ALL {
            assert_eq!(Timeout::of_setting(timeout.setting()), Some(timeout));
            assert_eq!(Timeout::of_sqlstate(timeout.sqlstate().as_bytes()), Some(timeout));
        }
    }
}
