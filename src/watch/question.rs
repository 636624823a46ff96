//! The questions a watch asks a server.

use super::detectors::DetectorId;
use super::locks::Locker;

/// One question. The first four come from the core itself, the others from the detectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// [`sql::SERVER`](super::sql::SERVER): how it is set up.
    Server,
    /// [`sql::ACTIVITY`](super::sql::ACTIVITY): how many wait for locks.
    Activity,
    /// [`sql::LOCKS`](super::sql::LOCKS): who waits for whom.
    Locks,
    /// [`sql::sessions`](super::sql::sessions) and [`sql::PREPARED`](super::sql::PREPARED): who stands at the root of
    /// lock queues.
    Names(Vec<Locker>),
    /// The question of a detector.
    Detector(DetectorId),
}
