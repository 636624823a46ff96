//! What operators see: the console, metrics and health.
//!
//! `command` reads a text, `help` says what is wrong with one, `console` speaks the protocol, `act` carries commands out,
//! `show` and `rows` make tables of what the process says about itself, `watched` of what goes on at the servers. `http`
//! answers scrapes and probes from `scrape` and `health`.

mod act;
mod body;
mod command;
pub mod console;
pub mod fault;
mod group;
mod health;
mod help;
pub mod http;
mod rows;
mod scrape;
mod show;
mod table;
#[cfg(test)]
mod trouble;
mod watched;
