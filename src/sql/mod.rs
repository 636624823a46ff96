//! The effects of a text of SQL on its session, read in one pass without a parser.
//!
//! [`classify()`] is the one entry for the relay: it counts statements, names the effects it can read exactly
//! ([`Effect`]) and raises a suspicion ([`StateFlags`]) where it cannot. [`replay`] is the way back: settings to text.
//! [`replace_values`] puts other values where a text has some, and [`stand_ins`] other statements for those about
//! channels. [`restore_startup`] puts a client's startup values where it resets, [`rename_statements`] other names for
//! prepared statements. [`digests`] groups statements by what they do, and [`fingerprint()`] spares most texts that;
//! [`tags()`] reads what a program says of itself in a comment.
//!
//! Lowest first: `state_flags` has the kinds of session state and all facts about each, `effect` the other results,
//! `encoding` names of encodings; `lex` cuts bytes into tokens as `scan.l` of Postgres does (`quick` spares most texts
//! that, `mask` makes others readable for it), `quote` decodes and encodes names and literals, `scan` cuts tokens into
//! statements; `read`, `set`, `set_config`, `statement_names` and `notify` understand the few statements that matter;
//! `classify` puts them together, and `stand_in` and `restore` stand above it.
//! No I/O; nothing here imports another module of ours.

mod alone;
mod classify;
mod digest;
pub(crate) mod effect;
mod encoding;
mod executed;
mod fingerprint;
mod keyword;
mod lex;
mod mask;
mod milliseconds;
mod notify;
mod quick;
mod quote;
mod read;
mod replace;
mod restore;
mod scan;
mod set;
mod set_config;
mod signal;
mod splice;
mod stand_in;
mod state_flags;
mod statement_names;
mod tags;
mod utility;

pub(crate) use alone::wants_alone;
pub use classify::classify;
pub(crate) use classify::is_plain;
pub(crate) use digest::normalized;
pub use digest::{Digest, Digests, digests};
pub(crate) use effect::{Argument, BoundText, Effect, Effects, Scope, Setting, StatementEffects};
pub use effect::{Context, Value};
pub use encoding::EncodingFamily;
pub(crate) use encoding::{encoding_family, folded_encoding};
pub(crate) use executed::replace_executes;
pub(crate) use fingerprint::fingerprint;
pub use milliseconds::{Milliseconds, milliseconds};
pub(crate) use quote::{quote_identifier, quote_literal};
pub(crate) use replace::{Substitute, replace_values};
pub(crate) use restore::{assume_one, restore_startup};
pub(crate) use scan::split;
pub(crate) use set::{assume, replay, replay_in};
pub(crate) use signal::{SignalCall, SignalTarget, signal};
pub use stand_in::stand_ins;
pub(crate) use stand_in::{CHANNEL_MAX, PAYLOAD_MAX, STAND_IN};
pub(crate) use state_flags::{KINDS, PIN_REASONS, StateFlags};
pub(crate) use statement_names::{NameUse, StatementName, rename_statements, statement_names};
pub(crate) use tags::{tags, without_trace};
pub(crate) use utility::is_read_when_run;
