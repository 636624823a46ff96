//! Orders for a role that hold over the fleet, as they are written into the book. Pure.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// What is to become of a role's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleChange {
    /// Another limit, at once or over some time; 0 closes the role.
    Limit { max: u32, over: Option<Duration> },
    /// The limit of the file again.
    Default,
    /// From `admission.initial` to the limit.
    Ramp { over: Duration },
}

impl RoleChange {
    /// How long it takes.
    pub(crate) fn over(self) -> Duration {
        match self {
            Self::Limit { over, .. } => over.unwrap_or_default(),
            Self::Default => Duration::ZERO,
            Self::Ramp { over } => over,
        }
    }
}

impl fmt::Display for RoleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { max, over: None } => write!(f, "LIMIT {max}"),
            Self::Limit { max, over: Some(over) } => write!(f, "LIMIT {max} OVER '{}ms'", over.as_millis()),
            Self::Default => f.write_str("LIMIT DEFAULT"),
            Self::Ramp { over } => write!(f, "RAMP OVER '{}ms'", over.as_millis()),
        }
    }
}

/// An order, with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleOrder {
    pub(crate) change: RoleChange,
    /// The limit of the file where it was given: the order ends where the file has another.
    pub(crate) file: Option<u32>,
    /// Who gave it.
    pub(crate) by: String,
    /// From where.
    pub(crate) from: String,
    /// At which instance.
    pub(crate) at: String,
}

impl fmt::Display for RoleOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, over) = match self.change {
            RoleChange::Limit { max, over } => (json!(max), over),
            RoleChange::Default => (json!("default"), None),
            RoleChange::Ramp { over } => (json!("ramp"), Some(over)),
        };
        let over = over.map(|over| u64::try_from(over.as_millis()).unwrap_or(u64::MAX));
        let Self { file, by, from, at, .. } = self;
        write!(f, "{}", json!({"limit": limit, "over_ms": over, "file": file, "by": by, "from": from, "at": at}))
    }
}

impl RoleOrder {
    /// An order of the book; `None`: one that another version gave.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let order: Value = serde_json::from_str(text).ok()?;
        let small = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
        let over = order["over_ms"].as_u64().map(Duration::from_millis);
        let change = match order["limit"].as_str() {
            Some("default") => RoleChange::Default,
            Some("ramp") => RoleChange::Ramp { over: over? },
            Some(_) => return None,
            None => RoleChange::Limit { max: small(&order["limit"])?, over },
        };
        Some(Self { change, file: small(&order["file"]), by: text("by"), from: text("from"), at: text("at") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_were_written() {
        let over = Duration::from_secs(60);
        let changes = [
            RoleChange::Limit { max: 0, over: None },
            RoleChange::Limit { max: 40, over: Some(over) },
            RoleChange::Default,
            RoleChange::Ramp { over },
        ];
        for (change, file) in changes.into_iter().zip([None, Some(12), None, Some(0)]) {
            let [by, from, at] = ["ops", "127.0.0.1:5000", "10.0.0.5:6432"].map(str::to_owned);
            let order = RoleOrder { change, file, by, from, at };
            assert_eq!(RoleOrder::read(&order.to_string()), Some(order));
        }
        assert_eq!(["", "{}", "{\"limit\": \"more\"}"].map(RoleOrder::read), [None, None, None]);
    }
}
