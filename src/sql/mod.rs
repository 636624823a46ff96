//! What a text of SQL does to its session, read in one pass without a parser.
//!
//! [`classify`] is the one entry for the relay: it counts statements, names the effects it can read exactly ([`Effect`]) and raises a
//! suspicion ([`Suspects`]) where it cannot. [`replay`] is the way back: settings to text. [`replace_values`]
//! puts other values where a text has some, and [`stand_ins`] other statements for those about channels. Below them: `lex` cuts bytes into tokens as
//! `scan.l` of Postgres does (`quick` spares most texts that), `scan` cuts tokens into statements, `read` and `set` understand the few statements that matter, `quote`
//! decodes and encodes names and literals. No I/O; nothing here imports another module of ours.

mod class;
mod keyword;
mod lex;
mod milliseconds;
mod notify;
mod quick;
mod quote;
mod read;
mod replace;
mod scan;
mod set;
mod splice;

pub use class::{Argument, Class, Context, Discarded, Effect, Effects, Form, Suspects, classify};
pub use milliseconds::{Milliseconds, milliseconds};
pub use notify::stand_ins;
pub use quote::{quote_identifier, quote_literal};
pub use replace::{Replaced, Substitute, replace_values};
pub use scan::split;
pub use set::{Scope, Setting, Value, replay};
