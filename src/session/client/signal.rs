//! `pg_cancel_backend` and `pg_terminate_backend` of a client with the id that another was told: the id becomes that of
//! the backend which works for it at this moment, and the server checks the rights.

use super::{Client, Phase};
use crate::pool::backend::CancelGuard;
use crate::sql::{SignalCall, SignalTarget, signal};
use crate::wire::bind;
use crate::wire::build;
use crate::wire::message::{Message, Request};

/// Prepared statements with such a call that are remembered for a client, the oldest first to go.
const PREPARED_MAX: usize = 16;

/// Such calls of a client.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Statements by name, with the number of the parameter that is the process id.
    prepared: Vec<(Box<[u8]>, u16)>,
    /// Backends that a call under way is about: no other client gets them before its answer.
    aims: Vec<CancelGuard>,
}

impl Client {
    /// Remembers a statement that acts on the process that its parameter names.
    #[inline]
    pub(super) fn note_signal(&mut self, request: Request<'_>) {
        let Request::Parse { name, text, .. } = request else { return };
        let call = text.and_then(|text| signal(text, self.session.lexer));
        if call.is_none() && self.signals.is_none() {
            return;
        }
        let prepared = &mut self.signals.get_or_insert_default().prepared;
        prepared.retain(|(known, _)| **known != *name);
        if let Some(SignalTarget::Parameter(number)) = call.map(|call| call.target) {
            prepared.truncate(PREPARED_MAX - 1);
            prepared.insert(0, (name.into(), number));
        }
    }

    /// The message to send instead of one that acts on a client of ours.
    #[inline]
    pub(super) fn redirect(&mut self, message: Message<'_>, request: Request<'_>) -> Option<Vec<u8>> {
        match request {
            Request::Query { text: Some(text) } => {
                let (call, process) = self.literal(text)?;
                let mut query = Vec::new();
                build::query(&mut query, &call.redirected(text, process));
                Some(query)
            }
            // A named statement may be executed again when the process works for another.
            Request::Parse { name: b"", rest, text: Some(text) } => {
                let (call, process) = self.literal(text)?;
                let mut parse = Vec::new();
                build::parse(&mut parse, b"", &[&call.redirected(text, process), &rest[text.len()..]].concat());
                Some(parse)
            }
            Request::Bind { statement, .. } if message.is_whole() => {
                let prepared = &self.signals.as_ref()?.prepared;
                let (_, number) = *prepared.iter().find(|(name, _)| **name == *statement)?;
                let process = self.aim(bind::integer(message.payload(), number)?)?;
                bind::with_integer(message.payload(), number, process)
            }
            _ => None,
        }
    }

    fn literal(&mut self, text: &[u8]) -> Option<(SignalCall, i32)> {
        let call = signal(text, self.session.lexer)?;
        let SignalTarget::Process(pid) = call.target else { return None };
        Some((call, self.aim(pid)?))
    }

    /// The process that works for a client of ours, which it goes on to do until the answer has come.
    fn aim(&mut self, pid: i32) -> Option<i32> {
        let Phase::Leased(leased) = &self.phase else { return None };
        let clients = &self.worker.proxy.clients;
        let (process, aim) = clients.signal_target(pid, &leased.lease.target.address, &self.handle.role)?;
        // A cancel that was asked for is no timeout.
        aim.target().clock.ask(self.worker.proxy.clock.ticks());
        self.signals.get_or_insert_default().aims.push(aim);
        Some(process)
    }

    /// A cycle has ended: if it was the last, everything that was asked is answered.
    #[inline]
    pub(super) fn signals_answered(&mut self) {
        let Some(signals) = &mut self.signals else { return };
        let is_asking = matches!(&self.phase, Phase::Leased(leased) if !leased.cycle.replies().is_empty());
        if !is_asking {
            signals.aims.clear();
        }
    }
}
