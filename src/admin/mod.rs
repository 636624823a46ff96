//! The views and levers of operators: the console, metrics and health, and the status page.
//!
//! The console: `console` speaks the protocol over a `connection`, `statement` reads a text, `help` explains the
//! mistake in one, `drivers` answers statements that are sent to every server. `tables/` has one file for each SHOW,
//! `commands/` one for each command; [`table`] and [`command`] say what these are. `http` answers scrapes and probes
//! from `scrape` and `health`, with `gzip`, over connections that may take their time by `conversation`, and has the
//! status page: `facts` are the state of everything, `recent` the last minutes,
//! `problem` the things that are wrong, `busiest` the statements, `status` all of that in JSON, `events` sends it once
//! a second, `actions` runs commands, and the page itself is in `page/`.

mod actions;
mod body;
mod busiest;
mod command;
mod commands;
mod connection;
pub(crate) mod console;
mod conversation;
mod drivers;
mod events;
mod facts;
mod figures;
#[cfg(test)]
mod fixtures;
mod group;
mod gzip;
mod health;
mod help;
pub(crate) mod http;
mod in_force;
mod page;
mod problem;
mod readers;
mod recent;
mod rows_wanted;
pub(crate) mod scrape;
mod statement;
mod statement_finding;
mod status;
mod table;
mod tables;
mod words;
