//! Whether a lane matches: what is known at a client's login, and what its statements say.

use std::net::IpAddr;

use crate::config::LaneMatch;
use crate::sql::{self, Digest};

/// A client, as far as lanes look at it; it stays the same for as long as the client is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneCaller<'a> {
    pub role: &'a str,
    pub database: &'a str,
    /// As of its login.
    pub application_name: &'a str,
    /// One of a Unix socket has none.
    pub address: Option<IpAddr>,
}

/// The statements of a message, as far as lanes look at them.
#[derive(Debug)]
pub(crate) struct LaneSubject<'a> {
    pub digests: &'a [Digest],
    pub text: &'a [u8],
}

/// Everything that does not depend on statements holds.
pub(super) fn matches_caller(matches: &LaneMatch, caller: &LaneCaller<'_>) -> bool {
    let is = |allowed: &[String], value: &str| allowed.is_empty() || allowed.iter().any(|one| one == value);
    let LaneMatch { roles, databases, applications, addresses, tags: _, digests: _ } = matches;
    is(roles, caller.role)
        && is(databases, caller.database)
        && is(applications, caller.application_name)
        && (addresses.is_empty() || addresses.iter().any(|source| source.covers(caller.address)))
}

/// Everything that depends on statements holds. `digests` are those of the lane.
pub(super) fn matches_subject(matches: &LaneMatch, digests: &[Digest], subject: &LaneSubject<'_>) -> bool {
    let has_digest = digests.is_empty() || subject.digests.iter().any(|digest| digests.contains(digest));
    has_digest && (matches.tags.is_empty() || has_tags(matches, subject.text))
}

fn has_tags(matches: &LaneMatch, text: &[u8]) -> bool {
    let tags = sql::tags(text);
    matches.tags.iter().all(|(key, value)| tags.iter().any(|tag| tag.key == *key && tag.value == *value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: LaneCaller<'_> = LaneCaller {
        role: "web",
        database: "app",
        application_name: "shop",
        address: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7))),
    };

    fn of(matches: LaneMatch) -> bool {
        matches_caller(&matches, &CALLER)
    }

    #[test]
    fn a_client_is_matched_by_all_that_is_written() {
        let one = |name: &str| vec![name.to_owned()];
        assert!(of(LaneMatch { roles: vec!["jobs".into(), "web".into()], ..LaneMatch::default() }));
        assert!(!of(LaneMatch { roles: one("jobs"), ..LaneMatch::default() }));
        assert!(of(LaneMatch { databases: one("app"), applications: one("shop"), ..LaneMatch::default() }));
        assert!(!of(LaneMatch { databases: one("app"), applications: one("cron"), ..LaneMatch::default() }));
    }

    #[test]
    fn tags_and_digests_are_those_of_the_statement() {
        let tags = [("job".to_owned(), "export".to_owned())].into();
        let matches = LaneMatch { tags, ..LaneMatch::default() };
        let subject = |text: &'static str| LaneSubject { digests: &[Digest(7)], text: text.as_bytes() };
        assert!(matches_subject(&matches, &[], &subject("SELECT 1 /*job='export',x='y'*/")));
        assert!(!matches_subject(&matches, &[], &subject("SELECT 1 /*job='import'*/")));
        assert!(!matches_subject(&matches, &[], &subject("SELECT 'job=export'")));
        assert!(matches_subject(&LaneMatch::default(), &[Digest(7)], &subject("SELECT 1")));
        assert!(!matches_subject(&LaneMatch::default(), &[Digest(8)], &subject("SELECT 1")));
    }
}
