//! Counters of one database's watch: findings, reactions, and the time the server took to answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::finding::FindingKind;
use crate::metrics::Distribution;
use crate::words::words;

words! {
    /// A reaction to a finding, where the configuration asks for one.
    pub enum Reaction {
        /// Fewer transactions of those roles at once whose clients are most of a convoy.
        Tighten = "tighten",
        /// A client of ours that idles and keeps others waiting loses its transaction.
        Cancel = "cancel",
    }
}

/// Counters of one database.
#[derive(Debug, Default)]
pub struct WatchStats {
    is_connected: AtomicBool,
    findings: [AtomicU64; FindingKind::ALL.len()],
    reactions: [AtomicU64; Reaction::ALL.len()],
    cost: Mutex<Distribution>,
}

impl WatchStats {
    /// There is a connection from now on, or none.
    pub fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    /// There is a connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// A finding of this kind opened.
    pub fn found(&self, kind: FindingKind) {
        self.findings[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Something was done about one.
    pub fn reacted(&self, reaction: Reaction) {
        self.reactions[reaction as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// An answer took so long.
    pub fn asked(&self, cost: Duration) {
        self.cost.lock().expect("no panic while held").record(cost);
    }

    /// Findings of this kind so far, over or not.
    pub fn findings(&self, kind: FindingKind) -> u64 {
        self.findings[kind as usize].load(Ordering::Relaxed)
    }

    /// Reactions so far.
    pub fn reactions(&self) -> [(&'static str, u64); Reaction::ALL.len()] {
        Reaction::ALL.map(|reaction| (reaction.word(), self.reactions[reaction as usize].load(Ordering::Relaxed)))
    }

    /// Durations of answers.
    pub fn cost(&self) -> Distribution {
        self.cost.lock().expect("no panic while held").clone()
    }
}
