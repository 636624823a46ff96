//! What an instance says of itself to the others, by way of the book. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// An instance, as it describes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemberFacts {
    /// Of pgweir.
    pub(crate) version: String,
    /// Where clients reach it.
    pub(crate) address: String,
    /// By what it lets transactions in.
    pub(crate) state: String,
    /// Connected clients.
    pub(crate) clients: u64,
    /// Transactions of roles with a limit.
    pub(crate) active: u32,
    /// Clients of these roles that wait.
    pub(crate) waiting: u32,
    /// By the name of a limit, its part and the limit as its file or an order has it.
    pub(crate) limits: BTreeMap<String, (u32, u32)>,
}

impl fmt::Display for MemberFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = json!({
            "version": self.version,
            "address": self.address,
            "state": self.state,
            "clients": self.clients,
            "active": self.active,
            "waiting": self.waiting,
            "limits": self.limits,
        });
        write!(f, "{facts}")
    }
}

impl MemberFacts {
    /// What an instance said, of another version maybe: what is not there is empty.
    pub(crate) fn read(text: &str) -> Self {
        let facts: Value = serde_json::from_str(text).unwrap_or_default();
        let text = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let small = |value: &Value| u32::try_from(number(value)).unwrap_or(u32::MAX);
        let limits = facts["limits"].as_object().into_iter().flatten();
        Self {
            version: text("version"),
            address: text("address"),
            state: text("state"),
            clients: number(&facts["clients"]),
            active: small(&facts["active"]),
            waiting: small(&facts["waiting"]),
            limits: limits.map(|(name, of)| (name.clone(), (small(&of[0]), small(&of[1])))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_what_is_not_is_empty() {
        let facts = MemberFacts {
            version: "1.2.3".to_owned(),
            address: "127.0.0.1:6432".to_owned(),
            state: "granted".to_owned(),
            clients: 7,
            active: 2,
            waiting: 1,
            limits: [("role app".to_owned(), (13, 40))].into(),
        };
        assert_eq!(MemberFacts::read(&facts.to_string()), facts);
        assert_eq!(MemberFacts::read("{\"clients\": -1}"), MemberFacts::default());
        assert_eq!(MemberFacts::read("?"), MemberFacts::default());
    }
}
