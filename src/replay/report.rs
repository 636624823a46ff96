//! What happened, and what would have: per role and lane.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::server::ServerModel;
use crate::pool::core::WaitError;
use crate::recorder::{RecordedOutcome, Recording};

/// The transactions of one role outside of lanes, or of one lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) timed_out: u64,
    /// They went before their turn, or nobody serves them.
    pub(super) left: u64,
    /// Microseconds of each that began.
    waits: Vec<u32>,
    under_way: u32,
    pub(super) most: u32,
}

impl Account {
    /// One begins after this wait.
    pub(super) fn began(&mut self, waited: u64) {
        self.waits.push(u32::try_from(waited).unwrap_or(u32::MAX));
        self.under_way += 1;
        self.most = self.most.max(self.under_way);
    }

    /// One ends.
    pub(super) fn ended(&mut self) {
        self.answered += 1;
        self.under_way -= 1;
    }

    pub(super) fn failed(&mut self, error: WaitError) {
        match error {
            WaitError::TimedOut(_) | WaitError::EndpointDown => self.timed_out += 1,
            _ => self.refused += 1,
        }
    }

    /// The wait that this part of those who began did not exceed.
    fn wait(&self, part: f64) -> f64 {
        let mut waits = self.waits.clone();
        if waits.is_empty() {
            return 0.0;
        }
        let at = ((waits.len() as f64 * part) as usize).min(waits.len() - 1);
        f64::from(*waits.select_nth_unstable(at).1) / 1000.0
    }

    fn row(&self, name: &str, kind: &str) -> String {
        let waited = self.waits.iter().filter(|wait| **wait > 0).count();
        format!(
            "{name:<24} {kind:<9} {:>10} {waited:>10} {:>10.1} {:>10.1} {:>9} {:>9} {:>8}\n",
            self.answered,
            self.wait(0.5),
            self.wait(0.99),
            self.refused,
            self.timed_out,
            self.most
        )
    }
}

/// All accounts, and the most transactions at the server at once.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By pool and lane.
    pub(super) by_kind: BTreeMap<(u16, u8), Account>,
    most: u32,
}

impl Accounts {
    /// The account of a transaction.
    pub(super) fn of(&mut self, recording: &Recording, index: usize) -> &mut Account {
        let of = &recording.transactions[index];
        self.by_kind.entry((of.pool, of.lane)).or_default()
    }

    pub(super) fn peak(&mut self, active: u32) {
        self.most = self.most.max(active);
    }
}

/// What the recording says.
pub(super) fn happened(recording: &Recording) -> Accounts {
    let mut accounts = Accounts::default();
    let mut moments = Vec::new();
    for (index, of) in recording.transactions.iter().enumerate() {
        let account = accounts.of(recording, index);
        match of.outcome {
            RecordedOutcome::Served => {
                let begin = of.arrival + u64::from(of.wait);
                moments.push((begin, true, index));
                moments.push((begin + u64::from(of.served).max(1), false, index));
            }
            RecordedOutcome::TimedOut => account.timed_out += 1,
            RecordedOutcome::Refused => account.refused += 1,
            RecordedOutcome::Left => account.left += 1,
        }
    }
    moments.sort_unstable();
    for (_, begins, index) in moments {
        let account = accounts.of(recording, index);
        match begins {
            true => account.began(recording.transactions[index].wait.into()),
            false => account.ended(),
        }
    }
    accounts
}

/// Both beside each other.
pub(super) fn table(recording: &Recording, happened: &Accounts, replayed: &Accounts, model: &ServerModel) -> String {
    let mut out = format!(
        "{:<24} {:<9} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>8}\n",
        "", "", "answered", "waited", "p50 ms", "p99 ms", "refused", "timeouts", "at once"
    );
    let none = Account::default();
    for (key, before) in &happened.by_kind {
        let after = replayed.by_kind.get(key).unwrap_or(&none);
        let name = name(recording, *key);
        out.push_str(&before.row(&name, "happened"));
        out.push_str(&after.row("", "replayed"));
    }
    let _ = writeln!(
        out,
        "most transactions at the server at once: {} happened, {} replayed; the server is known up to {}",
        model.most(),
        replayed.most,
        model.most()
    );
    if recording.torn > 0 {
        let _ = writeln!(out, "{} blocks of the recording are torn, and left out", recording.torn);
    }
    out
}

/// Database, role and lane.
pub(super) fn name(recording: &Recording, (pool, lane): (u16, u8)) -> String {
    let names = &recording.names;
    let (database, role) = names.pools.get(usize::from(pool)).cloned().unwrap_or_default();
    let lane = usize::from(lane).checked_sub(1).and_then(|lane| names.lanes.get(lane));
    match lane {
        None => format!("{database}/{role}"),
        Some(lane) => format!("{database}/{role} [{lane}]"),
    }
}
