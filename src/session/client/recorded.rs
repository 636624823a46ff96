//! A client's transactions as the recording gets them, where there is one.

use tokio::time::Instant;

use crate::error::{Fault, LaneRefusal};
use crate::lanes::LaneOf;
use crate::pool::core::PoolId;
use crate::recorder::{Flight, FlightLog, RecordedOutcome};
use crate::session::leased::Leased;
use crate::session::session::Session;

/// It gives its backend back, or has lost it.
#[cold]
pub(super) fn record_served(log: &FlightLog<PoolId>, session: &Session, leased: &Leased, now: Instant) {
    let times = &leased.cycle.times;
    log.record(&Flight {
        lane: leased.lane_name(),
        asked: times.since.checked_sub(times.queued).unwrap_or(times.since),
        waited: times.queued,
        served: now.saturating_duration_since(times.since),
        ..flight(session, RecordedOutcome::Served)
    });
}

/// It asked then, in that lane, and gets no backend.
#[cold]
pub(super) fn record_unserved(
    log: &FlightLog<PoolId>,
    session: &Session,
    lane: Option<&LaneOf>,
    since: Instant,
    fault: &Fault,
) {
    let outcome = match fault {
        Fault::WaitTimeout { .. } | Fault::Lane { refusal: LaneRefusal::InVain(_), .. } => RecordedOutcome::TimedOut,
        Fault::Canceled => RecordedOutcome::Left,
        _ => RecordedOutcome::Refused,
    };
    let lane = match lane {
        Some(LaneOf::File(lane)) => Some(&*lane.name),
        _ => None,
    };
    let waited = since.elapsed();
    log.record(&Flight { lane, asked: since, waited, ..flight(session, outcome) });
}

/// The parts that depend on the client.
fn flight(session: &Session, outcome: RecordedOutcome) -> Flight<'_, PoolId> {
    Flight {
        pool: session.pool.id,
        database: &session.pool.name.database,
        role: &session.pool.name.role,
        lane: None,
        asked: Instant::now(),
        waited: Default::default(),
        served: Default::default(),
        outcome,
        digest: session.entry.statement().0,
    }
}
