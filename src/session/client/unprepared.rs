//! A Parse while no backend is free.
//!
//! A program that prepares with one connection while others of its own hold all backends would wait for itself:
//! pgbench does that with `-M prepared`, one thread and more clients than backends. A statement that a backend analysed
//! moments ago is prepared without one. It then means what it meant at that analysis, as for a client that prepared it
//! a little earlier: the backend that runs it first compares the columns ([`prepare`](crate::session::prepare)).

use super::{Client, Phase};
use crate::config::PoolMode;
use crate::sql::classify;
use crate::wire::build;
use crate::wire::message::Request;
use crate::wire::tag::frontend as tag;

impl Client {
    /// ## Waiting => Idle: answers a Parse of a known statement with nothing but a Sync behind it. True if it did.
    pub(super) fn prepare_without_backend(&mut self, request: Request<'_>, behind: &[u8]) -> bool {
        let Request::Parse { name, rest, text: Some(text) } = request else { return false };
        let statements = &self.session.statements;
        let is_plain = self.session.mode == PoolMode::Transaction
            && behind.first() == Some(&tag::SYNC)
            && !name.is_empty()
            && !statements.is_full()
            && !statements.is_of_sql(name)
            && statements.find(name).is_none()
            && classify(text, self.session.lexer).means_the_same_everywhere();
        if !is_plain {
            return false;
        }
        let (pool, now) = (self.session.pool.key(), self.worker.proxy.clock.second());
        let meaning = self.session.settings.meaning();
        let Some(known) = self.worker.proxy.statements.recent(rest, pool, meaning, now) else { return false };
        self.phase = Phase::Idle;
        self.handle.set_idle();
        self.session.statements.insert(name, known);
        self.answer_alone(build::PARSE_COMPLETE);
        true
    }
}
