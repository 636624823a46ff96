//! What a recording would set: limits, pools and timeouts, each with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::recorder::{RecordedOutcome, RecordedTransaction, Recording};

/// Microseconds of a minute, whose busiest decides.
const MINUTE: u64 = 60 * 1_000_000;

/// Need on a good day, times this, is a limit (docs/PROTECTION.md).
const MARGIN: f64 = 3.0;

/// Limits beyond these do harm, or help nobody.
const LIMIT_MIN: u64 = 10;
const LIMIT_MAX: u64 = 100;

/// The facts of some transactions.
#[derive(Debug, Default)]
struct RecordedLoad {
    /// Microseconds with a backend, by minute.
    busy: BTreeMap<u64, u64>,
    served: Vec<u32>,
}

impl RecordedLoad {
    fn add(&mut self, of: &RecordedTransaction) {
        *self.busy.entry(of.arrival / MINUTE).or_default() += u64::from(of.served);
        self.served.push(of.served);
    }

    /// Backends in use on average in the busiest minute.
    fn need(&self) -> f64 {
        self.busy.values().max().map_or(0.0, |busy| *busy as f64 / MINUTE as f64)
    }

    fn limit(&self) -> u64 {
        ((self.need() * MARGIN).ceil() as u64).clamp(LIMIT_MIN, LIMIT_MAX)
    }

    /// Seconds that all but one of a thousand kept to.
    fn longest(&mut self) -> f64 {
        let at = (self.served.len() as f64 * 0.999) as usize;
        let at = at.min(self.served.len().saturating_sub(1));
        if self.served.is_empty() { 0.0 } else { f64::from(*self.served.select_nth_unstable(at).1) / 1e6 }
    }
}

/// Keys for `proxy.toml`, as comments say why.
pub(super) fn suggestions(recording: &Recording) -> String {
    let (mut roles, mut pools) =
        (BTreeMap::<&str, RecordedLoad>::new(), BTreeMap::<&(String, String), RecordedLoad>::new());
    for of in recording.transactions.iter().filter(|of| of.outcome == RecordedOutcome::Served) {
        let Some(name) = recording.names.pools.get(usize::from(of.pool)) else { continue };
        roles.entry(&name.1).or_default().add(of);
        pools.entry(name).or_default().add(of);
    }
    let mut out = format!("# From {} transactions.\n", recording.transactions.len());
    for (role, load) in &mut roles {
        let (need, limit, longest) = (load.need(), load.limit(), load.longest());
        let sizes = pools.iter().filter(|((_, of), _)| of == role).map(|(_, load)| load.limit());
        let size = sizes.max().unwrap_or(limit).min(limit);
        let timeout = (longest * MARGIN).ceil().max(1.0);
        let _ = write!(
            out,
            "\n[roles.{role:?}]\n\
             transactions_max = {limit}  # {need:.1} in its busiest minute, x {MARGIN}, within {LIMIT_MIN} and {LIMIT_MAX}\n\
             size = {size}  # the same for its busiest database\n\
             statement_timeout = \"{timeout}s\"  # 999 of 1,000 transactions took {longest:.3} s, x {MARGIN}\n\
             lock_timeout = \"800ms\"  # below the server's deadlock_timeout\n",
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::recorder::RecordedNames;

    #[test]
    fn a_limit_is_three_times_the_need_of_the_busiest_minute() {
        let of = |n: u64| RecordedTransaction {
            arrival: n * 10_000,
            wait: 0,
            served: 100_000,
            pool: 0,
            lane: 0,
            outcome: RecordedOutcome::Served,
            digest: 1,
        };
        let names = RecordedNames { pools: vec![("app".into(), "web".into())], lanes: Vec::new() };
        let recording = Recording { names, transactions: (0..12_000).map(of).collect(), torn: 0 };
        let text = suggestions(&recording);
        assert!(text.contains("transactions_max = 30  # 10.0 in its busiest minute"), "{text}");
        assert!(text.contains("statement_timeout = \"1s\""), "{text}");
        let file = format!("[databases.app]\nhost = \"h\"\n{text}password = \"p\"\n");
        config::parse(&file, std::path::Path::new("proxy.toml"), &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
