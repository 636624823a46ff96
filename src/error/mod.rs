//! Every fault that a client can meet, and the one table of the reports it gets.
//!
//! [`fault`] has the faults that end a cycle or a session, [`login`] those that end a login, [`console`] those of
//! console commands; [`sqlstate`] words them. They stand above all modules that raise them, so that no part of the
//! process depends on how another's errors are worded.

pub(crate) mod console;
pub(crate) mod fault;
pub(crate) mod login;
pub(crate) mod sqlstate;

pub(crate) use console::ConsoleFault;
pub(crate) use fault::{Fault, Holding, LaneRefusal, Lost, LostOutcome, OrderRefusal, Queue, WrongBind};
pub(crate) use login::{LoginFault, LookupError};
