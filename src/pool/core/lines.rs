//! The queue of a pool: a line for those in no lane, and one for each lane in which somebody of the pool waits.
//!
//! Everybody in it waits for the same backends, so it decides whose turn it is: `interactive` lines before `batch`,
//! which has every eighth turn, and among those of one class each by its weight. Within a line the order is that of
//! [`WaitQueue`](crate::admission::wait_queue::WaitQueue).

use std::cmp::Ordering;

use tokio::time::Instant;

use super::queue_id::{LineId, RoleQueueId};
use super::waiter::{Ticket, TicketQueue};
use crate::config::Priority;

/// While interactive lines wait, all batch lines together have one turn of this many.
const BATCH_TURN: u32 = 8;

/// Whose turn it is among the lines of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineShare {
    pub priority: Priority,
    pub weight: u32,
}

impl Default for LineShare {
    fn default() -> Self {
        Self { priority: Priority::Interactive, weight: 1 }
    }
}

#[derive(Debug, Default)]
pub(super) struct PoolQueue {
    own: Line,
    lanes: Vec<(RoleQueueId, Line)>,
    /// Turns that each line had, by weight, when it had the last one: a line that comes begins there.
    turns: f64,
    /// Turns of interactive lines since a batch line had one.
    since_batch: u32,
    /// Batches of lanes have numbers from this on: a waiter may come back to a line that was empty meanwhile.
    numbers: u64,
}

#[derive(Debug, Default)]
struct Line {
    queue: TicketQueue,
    /// Turns that it had, by its weight.
    turns: f64,
}

impl PoolQueue {
    /// Everybody waiting, those held back included.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.own.queue.waiting() + self.lanes.iter().map(|(_, line)| line.queue.waiting()).sum::<u32>()
    }

    /// When the first waiter of any line came.
    pub(super) fn first_since(&self) -> Option<Instant> {
        self.all().filter_map(|(_, queue)| queue.first_since()).min()
    }

    /// When the first of those came whose line may be served.
    pub(super) fn first_servable(&self, may: impl Fn(RoleQueueId) -> bool) -> Option<Instant> {
        self.all().filter(|(id, _)| id.is_none_or(&may)).filter_map(|(_, queue)| queue.first_since()).min()
    }

    /// When the first waiter came that is in no lane, or in this.
    pub(super) fn first_of(&self, id: LineId) -> Option<Instant> {
        self.line(id)?.first_since()
    }

    /// How many may be served: of each lane no more than this function says.
    pub(super) fn ready(&self, most: impl Fn(RoleQueueId) -> u32) -> u32 {
        let of_lanes = self.lanes.iter().map(|(id, line)| line.queue.ready().min(most(*id)));
        self.own.queue.ready() + of_lanes.sum::<u32>()
    }

    /// Every line.
    pub(super) fn all(&self) -> impl Iterator<Item = (LineId, &TicketQueue)> {
        let lanes = self.lanes.iter().map(|(id, line)| (Some(*id), &line.queue));
        std::iter::once((None, &self.own.queue)).chain(lanes)
    }

    /// Everybody who joined by `then`, the dead included.
    pub(super) fn joined_by(&self, then: Instant) -> impl Iterator<Item = Ticket> {
        self.all().flat_map(move |(_, queue)| queue.joined_by(then))
    }

    pub(super) fn line(&self, id: LineId) -> Option<&TicketQueue> {
        match id {
            None => Some(&self.own.queue),
            Some(id) => self.lanes.iter().find(|(of, _)| *of == id).map(|(_, line)| &line.queue),
        }
    }

    /// A line for changes, made if it is the first of its lane; [`Self::tidy`] follows.
    pub(super) fn line_mut(&mut self, id: LineId) -> &mut TicketQueue {
        let line = match id {
            None => &mut self.own,
            Some(id) => {
                let at = self.lanes.iter().position(|(of, _)| *of == id).unwrap_or_else(|| {
                    let queue = TicketQueue::starting_at(self.numbers);
                    self.lanes.push((id, Line { queue, turns: 0.0 }));
                    self.lanes.len() - 1
                });
                &mut self.lanes[at].1
            }
        };
        if line.queue.ready() == 0 {
            // Time in which nobody waited gives no right to more turns.
            line.turns = line.turns.max(self.turns);
        }
        &mut line.queue
    }

    /// Forgets a line in which nobody waits.
    #[inline]
    pub(super) fn tidy(&mut self) {
        if !self.lanes.is_empty() {
            let numbers = &mut self.numbers;
            self.lanes.retain(|(_, line)| {
                *numbers = line.queue.next_number().max(*numbers);
                line.queue.waiting() > 0
            });
        }
    }

    /// The line whose turn it is. `share`: of a lane; `None`: nobody of it may be served now.
    pub(super) fn next(&self, share: impl Fn(RoleQueueId) -> Option<LineShare>) -> Option<LineId> {
        let is_own_ready = self.own.queue.ready() > 0;
        if self.lanes.is_empty() {
            return is_own_ready.then_some(None);
        }
        let lanes = self.lanes.iter().filter(|(_, line)| line.queue.ready() > 0);
        let lanes = lanes.filter_map(|(id, line)| Some((Some(*id), line, share(*id)?)));
        let own = is_own_ready.then_some((None, &self.own, LineShare::default()));
        let ready: Vec<_> = own.into_iter().chain(lanes).collect();
        let of = |priority| ready.iter().filter(move |(_, _, share)| share.priority == priority);
        let turn = |(_, a, _): &&(LineId, &Line, LineShare), (_, b, _): &&(LineId, &Line, LineShare)| {
            let by_turns = a.turns.partial_cmp(&b.turns).unwrap_or(Ordering::Equal);
            by_turns.then(a.queue.first_since().cmp(&b.queue.first_since()))
        };
        let (interactive, batch) = (of(Priority::Interactive).min_by(turn), of(Priority::Batch).min_by(turn));
        let first = match self.since_batch + 1 >= BATCH_TURN {
            true => batch.or(interactive),
            false => interactive.or(batch),
        };
        first.map(|(id, ..)| *id)
    }

    /// This line has its turn.
    pub(super) fn count_turn(&mut self, id: LineId, share: LineShare) {
        if self.lanes.is_empty() {
            return;
        }
        let is_batch = share.priority == Priority::Batch;
        self.since_batch = if is_batch { 0 } else { (self.since_batch + 1).min(BATCH_TURN) };
        let line = match id {
            None => &mut self.own,
            Some(id) => match self.lanes.iter_mut().find(|(of, _)| *of == id) {
                Some((_, line)) => line,
                None => return,
            },
        };
        self.turns = self.turns.max(line.turns);
        line.turns += 1.0 / f64::from(share.weight.max(1));
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    /// How many of so many turns each of these lanes gets, the last one being those in no lane.
    fn turns(shares: &[LineShare], turns: usize) -> Vec<usize> {
        let now = Instant::now();
        let (mut tickets, mut ids) = (SlotMap::<Ticket, ()>::with_key(), SlotMap::<RoleQueueId, usize>::with_key());
        let mut queue = PoolQueue::default();
        let lanes: Vec<_> = (0..shares.len()).map(|n| ids.insert(n)).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let share = |id: RoleQueueId| Some(shares[ids[id]]);
        let mut join = |queue: &mut PoolQueue, id: LineId| {
            queue.line_mut(id).join(tickets.insert(()), now, std::time::Duration::ZERO, false);
        };
        lanes.iter().map(|id| Some(*id)).chain([None]).for_each(|id| join(&mut queue, id));
        let mut had = vec![0; shares.len() + 1];
        for _ in 0..turns {
            let next = queue.next(share).expect("all wait");
            queue.count_turn(next, next.and_then(share).unwrap_or_default());
            join(&mut queue, next);
            queue.line_mut(next).pop(&mut rng, |_| true, |_| true).expect("it is not empty");
            had[next.map_or(shares.len(), |id| ids[id])] += 1;
        }
        had
    }

    fn weight(weight: u32) -> LineShare {
        LineShare { weight, ..LineShare::default() }
    }

    #[test]
    fn lines_of_one_class_have_turns_by_their_weights() {
        assert_eq!(turns(&[weight(1), weight(2)], 400), [100, 200, 100]);
    }

    #[test]
    fn batch_lines_have_every_eighth_turn_while_others_wait() {
        let batch = LineShare { priority: Priority::Batch, weight: 1 };
        assert_eq!(turns(&[batch, batch], 160), [10, 10, 140]);
    }
}
