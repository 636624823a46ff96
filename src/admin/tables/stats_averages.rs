//! SHOW STATS_AVERAGES.

use super::counted::by_database;
use super::stats_totals::NumbersLine;
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("STATS_AVERAGES", "the averages of STATS alone", lines);

fn lines(proxy: &Proxy) -> Vec<NumbersLine> {
    let all = by_database(proxy).into_iter();
    all.map(|line| NumbersLine { database: line.database, numbers: line.average }).collect()
}
