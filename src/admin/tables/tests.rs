use std::collections::HashMap;

use super::{blockers, convoys, findings, horizon, watch};
use crate::admin::fixtures::Trouble;
use crate::admin::table::{CellOf, ConsoleTable, TableCell};

/// The cells of one row by the names of their columns.
fn rows(table: &ConsoleTable, trouble: &Trouble) -> Vec<HashMap<&'static str, TableCell>> {
    let named = |row: Vec<TableCell>| table.columns.iter().map(|(name, _)| *name).zip(row).collect();
    (table.rows)(&trouble.proxy).into_iter().map(named).collect()
}

fn text(text: &str) -> TableCell {
    text.cell()
}

#[test]
fn a_calm_server_has_a_row_and_nobody_is_to_blame() {
    let trouble = Trouble::calm();
    let convoys = rows(&convoys::TABLE, &trouble);
    assert_eq!(convoys.len(), 1);
    assert_eq!((&convoys[0]["database"], &convoys[0]["state"]), (&text("app"), &text("calm")));
    assert_eq!((&convoys[0]["waiters"], &convoys[0]["lock"]), (&TableCell::Int(0), &TableCell::Null));
    assert!(rows(&horizon::TABLE, &trouble).is_empty() && rows(&blockers::TABLE, &trouble).is_empty());
    let servers = rows(&watch::TABLE, &trouble);
    assert_eq!((&servers[0]["up"], &servers[0]["server_role"]), (&TableCell::Int(1), &text("primary")));
    assert_eq!(servers[0]["findings"], TableCell::Int(0));
}

#[test]
fn a_server_that_was_never_reached_is_not_up_and_what_it_is_not_known() {
    let servers = rows(&watch::TABLE, &Trouble::unreached());
    assert_eq!((&servers[0]["up"], &servers[0]["server_role"]), (&TableCell::Int(0), &TableCell::Null));
}

#[test]
fn a_convoy_is_shown_with_its_lock_its_root_and_what_would_end_it() {
    let trouble = Trouble::convoy();
    let row = &rows(&convoys::TABLE, &trouble)[0];
    assert_eq!(
        (&row["state"], &row["waiters"], &row["waiters_max"]),
        (&text("convoy"), &TableCell::Int(150), &TableCell::Int(150))
    );
    assert_eq!((&row["maxwait"], &row["pid"]), (&TableCell::Int(6), &TableCell::Int(7)));
    assert_eq!(row["lock"], text("rows changed by transaction 744"));
    assert_eq!(row["culprit"], text("process 7, idle in transaction, application \"worker\", from 10.0.0.7"));
    assert_eq!(row["remedy"], text("SELECT pg_terminate_backend(7)"));
    assert_eq!(row["client"], TableCell::Null, "it is not ours");
    let blockers = rows(&blockers::TABLE, &trouble);
    let kinds: Vec<_> = blockers.iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds, [&text("blocker"), &text("idle_in_transaction")]);
    assert_eq!(
        (&blockers[0]["waiters"], &blockers[0]["transaction_seconds"]),
        (&TableCell::Int(150), &TableCell::Int(90))
    );
    assert!(blockers.iter().all(|row| row["remedy"] == text("SELECT pg_terminate_backend(7)")));
    let findings = rows(&findings::TABLE, &trouble);
    let kinds: Vec<_> = findings.iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds, [&text("convoy"), &text("blocker"), &text("idle_in_transaction")]);
    assert!(findings.iter().all(|row| row["pid"] == TableCell::Int(7) && row["since"] != TableCell::Null));
}

#[test]
fn the_horizon_shows_every_holder_and_the_tables_that_vacuum_does_not_help() {
    let trouble = Trouble::horizon();
    let rows = rows(&horizon::TABLE, &trouble);
    let kinds: Vec<_> = rows.iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds, [&text("slot"), &text("backend"), &text("dead_tuples")]);
    assert_eq!(
        (&rows[0]["age_transactions"], &rows[1]["age_transactions"]),
        (&TableCell::Int(2_000_000), &TableCell::Int(40))
    );
    let is_dated = |row: &HashMap<_, _>| row["since"] != TableCell::Null;
    assert_eq!(rows.iter().map(is_dated).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(rows[2]["culprit"], text("replication slot \"cdc\", which nobody reads"));
    assert_eq!(rows[2]["remedy"], text("SELECT pg_drop_replication_slot('cdc')"));
}
