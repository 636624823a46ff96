//! Times and addresses as the tables write them, and counts of clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use crate::clients::ClientEntry;
use crate::proxy::Proxy;

/// PgBouncer's name for its console and for the user of its pool.
pub(super) const CONSOLE: &str = "pgbouncer";

/// Whole seconds and the microseconds of the rest.
pub(super) fn wait(wait: Option<Duration>) -> (u64, u32) {
    wait.map_or((0, 0), |wait| (wait.as_secs(), wait.subsec_micros()))
}

/// A client's address as (host, port); a Unix socket has no port.
pub(super) fn address(text: &str) -> (String, u16) {
    match text.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip().to_canonical().to_string(), addr.port()),
        Err(_) => (text.to_owned(), 0),
    }
}

/// As PgBouncer writes it: `2026-01-31 23:59:59 UTC`.
pub(super) fn time(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// PgBouncer's `ptr` and `link`: names of sockets that agree between SHOW CLIENTS and SHOW SERVERS.
pub(super) fn pointer<T>(of: &Arc<T>) -> String {
    format!("{:p}", Arc::as_ptr(of))
}

/// Clients by one of their names.
pub(super) fn clients_by(proxy: &Proxy, name: impl Fn(&ClientEntry) -> &Arc<str>) -> HashMap<Arc<str>, u32> {
    let mut counts = HashMap::new();
    for entry in proxy.clients.all() {
        *counts.entry(Arc::clone(name(&entry))).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_pgbouncer_does() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn addresses_are_cut_at_their_port() {
        assert_eq!(address("127.0.0.1:5432"), ("127.0.0.1".into(), 5432));
        assert_eq!(address("[::1]:1"), ("::1".into(), 1));
        assert_eq!(address("unix"), ("unix".into(), 0));
    }
}
