//! The names of servers, and the addresses last found for them.
//!
//! Nothing here is a cache: a name is looked up for each new connection, because after a failover it leads elsewhere,
//! and every few seconds where a primary is followed. The last answers are kept for SHOW DNS_HOSTS.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// Hosts by name, with their last answers. There are as many as the configuration names.
#[derive(Debug, Default)]
pub(crate) struct HostNames(Mutex<BTreeMap<String, LastAnswer>>);

/// The last answer for a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LastAnswer {
    /// Empty if the name could not be looked up.
    pub(crate) addresses: Vec<IpAddr>,
    /// When the name is looked up again, connections or not.
    due: Option<Instant>,
}

impl LastAnswer {
    /// Time until the name is looked up again; zero: with the next connection.
    pub(crate) fn due_in(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }
}

impl HostNames {
    /// Looks up a name, for a connection.
    pub(crate) async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.resolve(host, port).await;
        self.remember(host, &found, None);
        found
    }

    /// Looks up a name that is followed, and will be again after `interval`.
    pub(crate) async fn follow(&self, host: &str, port: u16, interval: Duration) -> io::Result<Vec<SocketAddr>> {
        let found = self.resolve(host, port).await;
        self.remember(host, &found, Some(Instant::now() + interval));
        found
    }

    /// All names that were looked up, in their order.
    pub(crate) fn all(&self) -> Vec<(String, LastAnswer)> {
        self.answers().iter().map(|(host, answer)| (host.clone(), answer.clone())).collect()
    }

    /// Forgets the names that nobody uses any more.
    pub(crate) fn retain(&self, is_used: impl Fn(&str) -> bool) {
        self.answers().retain(|host, _| is_used(host));
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    fn remember(&self, host: &str, found: &io::Result<Vec<SocketAddr>>, due: Option<Instant>) {
        // An address is its own answer.
        if host.parse::<IpAddr>().is_ok() {
            return;
        }
        let mut answers = self.answers();
        let answer = answers.entry(host.to_owned()).or_default();
        answer.addresses = found.iter().flatten().map(SocketAddr::ip).collect();
        answer.due = due.or(answer.due);
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<String, LastAnswer>> {
        self.0.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_names_are_remembered_and_a_failure_is_no_address() {
        let names = HostNames::default();
        assert!(names.look_up("127.0.0.1", 1).await.is_ok());
        assert!(names.look_up("localhost", 1).await.is_ok());
        assert!(names.look_up("no-such-host.invalid", 1).await.is_err());
        let all = names.all();
        let hosts: Vec<_> = all.iter().map(|(host, answer)| (host.as_str(), answer.addresses.is_empty())).collect();
        assert_eq!(hosts, [("localhost", false), ("no-such-host.invalid", true)]);
        names.retain(|host| host == "localhost");
        assert_eq!(names.all().len(), 1);
    }

    #[tokio::test]
    async fn a_followed_name_is_due_again_and_a_connection_does_not_change_that() {
        let (names, now) = (HostNames::default(), Instant::now());
        names.look_up("localhost", 1).await.expect("it is known");
        assert_eq!(names.all()[0].1.due_in(now), Duration::ZERO);
        names.follow("localhost", 1, Duration::from_secs(60)).await.expect("it is known");
        names.look_up("localhost", 1).await.expect("it is known");
        assert!(names.all()[0].1.due_in(now) >= Duration::from_secs(60));
        assert_eq!(names.all()[0].1.due_in(now + Duration::from_secs(600)), Duration::ZERO);
    }
}
