//! What operators see: the console, metrics and health.
//!
//! `command` reads a text, `help` says what is wrong with one, `console` speaks the protocol, `act` carries commands out,
//! `tables` has one file for each SHOW. `http`
//! answers scrapes and probes from `scrape` and `health`, and has the status page: `facts` are how everything is, `recent`
//! what was in the last minutes, `problem` what is wrong, `status` all that in JSON; `live` tells it once a second, and
//! `order` takes orders. The `page` itself is in `page/`.

mod act;
mod body;
mod command;
pub mod console;
mod facts;
#[cfg(test)]
mod fixtures;
mod group;
mod health;
mod help;
pub mod http;
mod live;
mod order;
mod page;
mod problem;
mod recent;
pub mod scrape;
mod status;
mod table;
mod tables;
