//! Differences that were found once, as they were printed. Each is held by a test of `tests/it`, too, which says what
//! the matter was; here they are kept as they came.

use crate::lane::Lane;
use crate::operation::Message::{self, Await, CopyDone, CopyFail, Flush, Sync};
use crate::operation::Operation::{self, CancelNothing, CancelRunning, Kill, KillRunning, ReloadPgweir};
use crate::operation::Role::{self, Owner};
use crate::operation::{Pool, Step};
use crate::run::run;

/// All steps can be taken, and both sides answer the same.
#[track_caller]
fn same(pool: Pool, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut lane = runtime.block_on(Lane::start());
    let outcome = run(&mut lane, pool, steps, Some(""));
    assert!(outcome.divergence.is_none(), "{:#?}", outcome.divergence);
    assert_eq!(outcome.taken, steps.len(), "a step would have waited for another client");
}

fn step(client: usize, operation: Operation) -> Step {
    Step { client, operation }
}

fn send(messages: &[Message]) -> Operation {
    Operation::Send(messages.to_vec())
}

fn crowd(others: &[(usize, &[Message])]) -> Operation {
    Operation::Crowd(others.iter().map(|&(client, messages)| (client, messages.to_vec())).collect())
}

fn reconnect(role: Role, more: &[(&str, &str)]) -> Operation {
    Operation::Reconnect(role, more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn reload_server(change: &str) -> Operation {
    Operation::ReloadServer(change.to_owned())
}

fn ddl(sql: &str) -> Operation {
    Operation::Ddl(sql.to_owned())
}

fn query(sql: &str) -> Message {
    Message::Query(sql.to_owned())
}

fn parse(name: &str, sql: &str) -> Message {
    Message::Parse(name.to_owned(), sql.to_owned())
}

fn bind(portal: &str, statement: &str, values: &[&str]) -> Message {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    Message::Bind(portal.to_owned(), statement.to_owned(), values)
}

fn describe_statement(name: &str) -> Message {
    Message::DescribeStatement(name.to_owned())
}

fn describe_portal(name: &str) -> Message {
    Message::DescribePortal(name.to_owned())
}

fn execute(portal: &str, rows: u32) -> Message {
    Message::Execute(portal.to_owned(), rows)
}

fn close_statement(name: &str) -> Message {
    Message::CloseStatement(name.to_owned())
}

fn close_portal(name: &str) -> Message {
    Message::ClosePortal(name.to_owned())
}

fn copy_data(data: &str) -> Message {
    Message::CopyData(data.to_owned())
}

/// Every kind of step and message, so that what is printed can be pasted here.
#[test]
fn each_kind_of_step_can_be_written_down() {
    same(
        Pool::One,
        &[
            step(0, reconnect(Owner, &[("application_name", "started")])),
            step(0, send(&[query("BEGIN"), query("SET LOCAL a.x = '1'")])),
            step(0, CancelNothing),
            step(0, send(&[query("COPY public.c0 FROM STDIN"), copy_data("1\n"), CopyDone])),
            step(0, send(&[query("COPY public.c0 FROM STDIN"), CopyFail])),
            step(0, send(&[query("ROLLBACK")])),
            step(1, send(&[parse("s0", "SELECT generate_series(1, 4)"), describe_statement("s0"), Flush, Await, Sync])),
            step(1, send(&[bind("p0", "s0", &[]), describe_portal("p0"), execute("p0", 2), execute("p0", 0), Sync])),
            step(
                2,
                crowd(&[(0, &[query("SELECT 1")]), (1, &[query("SET a.x = '1'"), query("SELECT 1 /* {long} */")])]),
            ),
            step(2, Kill),
            step(2, CancelRunning),
            step(1, send(&[bind("p0", "s0", &[]), close_portal("p0"), close_statement("s0"), Sync])),
            step(2, KillRunning),
            step(2, ReloadPgweir(105)),
            step(2, ddl("ALTER TABLE public.ddl ADD COLUMN IF NOT EXISTS b int")),
            step(2, reload_server("SET work_mem = '6MB'")),
            step(2, send(&[query("SELECT * FROM public.ddl")])),
        ],
    );
}

#[test]
fn a_prepare_transaction_outside_a_block_commits_what_stands_in_front_of_it() {
    let values = "SELECT nullif(current_setting('a.x', true), '')";
    same(
        Pool::Two,
        &[
            step(
                1,
                send(&[
                    parse("", "SELECT set_config('a.x', $1, false)"),
                    bind("", "", &["1"]),
                    execute("", 0),
                    parse("", "PREPARE TRANSACTION 'gid 1'"),
                    bind("", "", &[]),
                    execute("", 0),
                    query("SET TIME ZONE 'UTC'"),
                ]),
            ),
            step(2, send(&[query("DISCARD ALL")])),
            step(1, send(&[query(values)])),
        ],
    );
}

#[test]
fn a_prepare_transaction_outside_a_block_sends_what_was_notified() {
    same(
        Pool::Session,
        &[
            step(1, send(&[query("LISTEN ch1")])),
            step(
                1,
                send(&[
                    parse("", "SELECT pg_notify('ch1', NULL)"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "PREPARE TRANSACTION 'gid 1'"),
                    bind("", "", &[]),
                    execute("", 0),
                    Sync,
                ]),
            ),
        ],
    );
}

// DISCARD ALL is committed before the error behind it.
#[test]
fn a_discard_all_ends_listening_though_its_pipeline_fails() {
    same(
        Pool::Session,
        &[
            step(1, send(&[query("LISTEN ch1")])),
            step(1, send(&[parse("", "DISCARD ALL"), bind("", "", &[]), execute("", 0), execute("", 1), Sync])),
            step(1, send(&[query("SELECT pg_notify('ch1', NULL)")])),
        ],
    );
}

// The backend has another statement under that name.
#[test]
fn an_execute_runs_what_the_client_prepared() {
    for prepared in ["DEALLOCATE s1", "DEALLOCATE s0", "LISTEN ch1", "NOTIFY ch1", "DISCARD ALL"] {
        same(
            Pool::Two,
            &[
                step(0, send(&[query("LISTEN ch1")])),
                step(0, send(&[parse("s0", prepared), parse("s2", "SELECT 2"), Sync])),
                step(0, send(&[query("EXECUTE s0")])),
                step(0, send(&[query("EXECUTE s2")])),
                step(0, send(&[query("SELECT 1")])),
            ],
        );
    }
}

#[test]
fn a_deallocate_runs_once() {
    same(
        Pool::One,
        &[
            step(0, send(&[parse("s1", "DEALLOCATE s1"), Sync])),
            step(0, send(&[bind("", "s1", &[]), execute("", 2), execute("", 1), Sync])),
        ],
    );
}

#[test]
fn a_deallocate_whose_bind_was_skipped_has_no_portal() {
    let wrong = bind("p0", "s2", &["ch1", "v"]);
    same(
        Pool::Two,
        &[
            step(0, send(&[parse("s2", "DEALLOCATE s1"), Sync])),
            step(0, send(&[wrong, bind("p1", "s2", &[]), Sync, execute("p1", 0), Sync])),
        ],
    );
}

#[test]
fn what_a_failed_bind_left_is_executed_by_the_server() {
    let begins = [parse("", "BEGIN READ ONLY"), bind("", "", &[]), execute("", 0)];
    let fails = [parse("", "SELECT $1::int"), bind("", "", &["bad"])];
    let skipped = [parse("", "DEALLOCATE s1"), bind("", "", &[]), Sync];
    same(
        Pool::Two,
        &[step(0, send(&[&begins[..], &fails, &skipped].concat())), step(0, send(&[execute("", 0), Sync]))],
    );
}

#[test]
fn a_query_destroys_the_unnamed_statement_unless_it_is_skipped() {
    let none = execute("none", 0);
    for behind in [&[Sync, query("DISCARD PLANS")][..], &[query("SELECT 1"), Sync], &[Sync, query("SELECT 1/0")]] {
        let unit = [&[parse("", "SET work_mem = 5000"), none.clone(), parse("", "SELECT 2")], behind].concat();
        same(
            Pool::Two,
            &[
                step(0, send(&[parse("", "SELECT 'before'"), Sync])),
                step(0, send(&[std::slice::from_ref(&none), behind].concat())),
                step(0, send(&[bind("", "", &[]), execute("", 0), Sync])),
                step(0, send(&unit)),
                step(0, send(&[bind("", "", &[]), execute("", 0), Sync])),
            ],
        );
    }
}

#[test]
fn a_chained_transaction_that_listens_is_not_prepared() {
    let unit = |sql| [parse("", sql), bind("", "", &[]), execute("", 0)];
    for chain in ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        for failing in ["SELECT 1/0", "SELECT 1"] {
            same(
                Pool::One,
                &[
                    step(2, send(&[query("BEGIN")])),
                    step(2, send(&[query(failing)])),
                    step(
                        2,
                        send(
                            &[&unit(chain)[..], &unit("LISTEN ch1"), &unit("PREPARE TRANSACTION 'gid 2'"), &[Sync]]
                                .concat(),
                        ),
                    ),
                ],
            );
        }
    }
}

#[test]
fn a_text_that_is_none_leaves_the_unnamed_statement() {
    for unreadable in ["SELECT '{5c}'", "SET a.x = '{5c}'"] {
        same(
            Pool::Two,
            &[
                step(2, send(&[parse("", "SELECT 'before'"), Sync])),
                step(2, send(&[query(unreadable)])),
                step(2, send(&[bind("", "", &[]), execute("", 0), Sync])),
                step(2, send(&[parse("", unreadable), Sync])),
                step(2, send(&[bind("", "", &[]), execute("", 0), Sync])),
            ],
        );
    }
}

#[test]
fn a_statement_that_failed_is_not_restored_behind_one_that_was_skipped() {
    let (none, skipped) = (execute("none", 0), parse("", "SELECT 3"));
    same(
        Pool::Two,
        &[
            step(2, send(&[parse("", "SELECT 'before'"), Sync])),
            step(2, send(&[parse("", "SELECT $a$"), Sync, none.clone(), skipped.clone(), skipped.clone(), Sync])),
            step(2, send(&[bind("", "", &[]), Sync])),
            step(2, send(&[parse("", "SELECT 'before'"), Sync])),
            step(2, send(&[none, skipped.clone(), skipped, Sync])),
            step(2, send(&[bind("", "", &[]), execute("", 0), Sync])),
        ],
    );
}

#[test]
fn a_deallocate_whose_bind_failed_has_no_portal() {
    let fails = [parse("s0", "DEALLOCATE s1"), bind("", "s0", &["ch1", "v"]), Sync];
    let goes_on = [parse("", "ROLLBACK"), execute("", 1), Sync];
    same(Pool::One, &[step(0, send(&[&fails[..], &goes_on].concat()))]);
}

#[test]
fn a_statement_behind_the_end_of_a_failed_transaction_in_one_unit_is_in_none() {
    let ends = [parse("", "COMMIT"), bind("", "", &[]), execute("", 0)];
    let executes = [parse("", "EXECUTE s1 ('5')"), bind("", "", &[]), execute("", 1), Sync];
    let runs = [bind("", "s2", &[]), execute("", 0), Sync];
    for next in [&executes[..], &runs] {
        same(
            Pool::Two,
            &[
                step(1, send(&[parse("s1", "DEALLOCATE s1"), parse("s2", "SELECT 2"), Sync])),
                step(0, send(&[query("BEGIN")])),
                step(1, send(&[query("BEGIN; SELECT 1/0; COMMIT")])),
                step(1, send(&[&ends[..], next].concat())),
                step(0, send(&[query("COMMIT")])),
            ],
        );
    }
}

#[test]
fn an_unnamed_statement_behind_a_query_that_pins_is_there() {
    same(
        Pool::One,
        &[
            step(1, send(&[query("SET default_transaction_deferrable = on")])),
            step(1, send(&[query("DECLARE hc CURSOR WITH HOLD FOR SELECT 1"), parse("", "COMMIT"), Sync])),
            step(1, send(&[bind("", "", &["ch1", "v"]), Sync])),
        ],
    );
    let again = execute("", 0);
    let unit =
        [parse("", "SET default_transaction_deferrable = on"), Flush, bind("", "", &[]), again.clone(), again, Sync];
    same(
        Pool::One,
        &[
            step(0, send(&[query("SET default_transaction_deferrable = on")])),
            step(0, send(&unit)),
            step(0, send(&[bind("p0", "", &["5"]), Sync])),
        ],
    );
}

#[test]
fn a_table_that_is_made_again_is_the_same_to_who_prepared_before() {
    let again = "DROP TABLE public.ddl; CREATE TABLE public.ddl (a int); GRANT ALL ON public.ddl TO owner";
    for change in [
        again,
        "ALTER TABLE public.ddl ALTER COLUMN a TYPE bigint",
        "DROP TABLE public.ddl; CREATE TABLE public.ddl (b int)",
    ] {
        for sql in ["SELECT * FROM public.ddl", "INSERT INTO public.ddl VALUES (1)"] {
            for run in [
                &[parse("", "EXECUTE s1 (5)"), Sync][..],
                &[bind("", "s1", &[]), execute("", 0), Sync],
                &[describe_statement("s1"), Sync],
                &[query("EXECUTE s1")],
            ] {
                same(
                    Pool::Two,
                    &[
                        step(2, send(&[parse("s1", sql), Sync])),
                        step(1, send(&[query("DISCARD ALL")])),
                        step(2, ddl(change)),
                        step(2, send(run)),
                    ],
                );
            }
        }
    }
}

#[test]
fn a_statement_is_prepared_within_a_unit_under_another_encoding() {
    same(
        Pool::Two,
        &[
            step(0, send(&[parse("s1", "SELECT $1::text"), Sync])),
            step(0, send(&[query("SET client_encoding = 'GBK'")])),
            step(2, send(&[query("DISCARD ALL")])),
            step(0, send(&[query("SET a.x = '{5c}'")])),
            step(0, send(&[parse("", "ROLLBACK TO a"), bind("", "s1", &[]), Sync])),
            step(0, send(&[query("SELECT current_setting('a.x')")])),
        ],
    );
}

// What lets a statement be prepared under the settings of then may be no statement in front of it.
#[test]
fn a_statement_that_has_to_be_the_first_is_prepared_within_its_unit() {
    // A table that is missing is found after that.
    for sql in ["DISCARD ALL", "VACUUM missing", "CREATE INDEX CONCURRENTLY i ON missing (b)", "DROP DATABASE missing"]
    {
        same(
            Pool::Two,
            &[
                step(1, send(&[parse("s0", sql), Sync])),
                step(0, send(&[query("SELECT pg_try_advisory_lock(0)")])),
                step(1, send(&[query("SET a.x = '1'")])),
                step(1, send(&[parse("s1", "SELECT 1"), bind("", "s0", &[]), execute("", 0), Sync])),
            ],
        );
    }
}

#[test]
fn an_empty_text_is_described_in_a_failed_transaction_under_other_settings() {
    same(
        Pool::Two,
        &[
            step(0, send(&[parse("s0", ""), Sync])),
            step(0, send(&[query("SET datestyle = sql, dmy")])),
            step(2, send(&[query("DISCARD ALL")])),
            step(0, send(&[parse("", "BEGIN"), bind("", "", &[]), execute("", 0), execute("", 0), Sync])),
            step(0, send(&[describe_statement("s0"), Sync])),
        ],
    );
}
