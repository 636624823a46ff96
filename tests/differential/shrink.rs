//! Makes the steps that show a difference fewer, and their messages, as long as they show one.

use tokio::time::Instant;

use crate::lane::Lane;
use crate::operation::{Message, Operation, Pool, Step};
use crate::run::{Divergence, run};
use crate::support::PATIENCE;

/// The shortest that was found within twice [`PATIENCE`].
pub(crate) fn shrink(lane: &mut Lane, pool: Pool, found: Divergence, lets_known: Option<&str>) -> Divergence {
    let mut shrinking = Shrinking { lane, pool, lets_known, best: found, ends: Instant::now() + PATIENCE * 2 };
    loop {
        let before = shrinking.best.steps.clone();
        shrinking.leave_out_steps();
        shrinking.leave_out_messages();
        if shrinking.best.steps == before || shrinking.is_late() {
            return shrinking.best;
        }
    }
}

struct Shrinking<'a> {
    lane: &'a mut Lane,
    pool: Pool,
    lets_known: Option<&'a str>,
    best: Divergence,
    ends: Instant,
}

impl Shrinking<'_> {
    fn is_late(&self) -> bool {
        Instant::now() > self.ends
    }

    /// Keeps `steps` if they show a difference of the same kind, and are fewer or shorter.
    fn accepts(&mut self, steps: &[Step]) -> bool {
        let outcome = run(self.lane, self.pool, steps, self.lets_known);
        let better = outcome
            .divergence
            .filter(|found| found.kind == self.best.kind && size(&found.steps) < size(&self.best.steps));
        let is_better = better.is_some();
        self.best = better.unwrap_or_else(|| self.best.clone());
        is_better
    }

    fn leave_out_steps(&mut self) {
        let mut length = self.best.steps.len() / 2;
        while length >= 1 {
            let mut at = 0;
            while at < self.best.steps.len() && !self.is_late() {
                let end = (at + length).min(self.best.steps.len());
                let fewer = [&self.best.steps[..at], &self.best.steps[end..]].concat();
                if !self.accepts(&fewer) {
                    at += length;
                }
            }
            length /= 2;
        }
    }

    fn leave_out_messages(&mut self) {
        let mut step = 0;
        while step < self.best.steps.len() {
            let mut at = 0;
            while at < self.best.steps.get(step).map_or(0, |step| step.messages().len()) && !self.is_late() {
                let mut messages: Vec<Message> = self.best.steps[step].messages().to_vec();
                messages.remove(at);
                let mut steps = self.best.steps.clone();
                steps[step].operation = Operation::Send(messages);
                if !self.accepts(&steps) {
                    at += 1;
                }
            }
            step += 1;
        }
    }
}

/// Steps and messages.
fn size(steps: &[Step]) -> usize {
    steps.iter().map(|step| 1 + step.messages().len()).sum()
}
