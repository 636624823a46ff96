//! The server understands every question of the watch, from a member of `pg_monitor`; the culprit of a finding is to
//! blame, and the SQL it names ends it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgweir::config::{self, OnConvoy, OnIdleHolder, Secret, pool_settings};
use pgweir::testing::auth::Credential;
use pgweir::testing::auth::secrets::Secrets;
use pgweir::testing::metrics::PoolStats;
use pgweir::testing::pool::address::ServerAddress;
use pgweir::testing::pool::core::{DatabaseId, PoolId};
use pgweir::testing::pool::in_use::InUse;
use pgweir::testing::pool::open::Opener;
use pgweir::testing::pool::pool::{Pool, PoolKind, PoolName};
use pgweir::testing::state::settings::SettingsRegistry;
use pgweir::testing::watch::asking::Process;
use pgweir::testing::watch::convoy::ConvoyState;
use pgweir::testing::watch::core::WatchCore;
use pgweir::testing::watch::detectors::DetectorId;
use pgweir::testing::watch::finding::{Finding, FindingKind};
use pgweir::testing::watch::incidents::IncidentChange;
use pgweir::testing::watch::monitor::Monitor;
use pgweir::testing::watch::own_backends::OwnBackends;
use pgweir::testing::watch::question::Question;
use pgweir::testing::watch::reaction::IdleHolder;
use pgweir::testing::watch::row::AnswerRow;
use pgweir::testing::watch::settings::{HorizonThresholds, WatchSettings};
use pgweir::testing::watch::sql;
use pgweir::testing::watch::watches::Watches;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::support::{Link, Postgres, Wire, eventually, password_of};

/// Thresholds so low that nothing here waits.
const SETTINGS: WatchSettings = WatchSettings {
    convoy_waiters: 20,
    blocked: Duration::from_millis(1),
    idle_in_transaction: Duration::from_millis(1),
    long_statement: Duration::from_secs(600),
    horizon: HorizonThresholds { age: Duration::from_secs(600), transactions: 5 },
    dead_tuples: 1000,
    outside_max: None,
    on_convoy: OnConvoy::Observe,
    on_idle_holder: OnIdleHolder::Observe,
};

/// A core with a connection, and a clock that runs ahead: it is never waited for.
struct Watch {
    core: WatchCore,
    wire: Wire,
    now: Instant,
    /// Told, and not asked for yet.
    told: Vec<IncidentChange<Finding>>,
}

impl Watch {
    async fn of(postgres: &Postgres, database: &str, attributes: &str) -> Self {
        let role = postgres.own_role(attributes).await;
        let mut wire = Wire::login(&postgres.endpoint(database), &role).await;
        wire.query(sql::SESSION).await;
        let now = Instant::now();
        Self { core: WatchCore::new(SETTINGS, 0.0, now), wire, now, told: Vec::new() }
    }

    async fn ask(&mut self, question: &Question) -> Vec<IncidentChange<Finding>> {
        let sql = self.core.sql(question);
        let frames = self.wire.query(&sql).await;
        assert!(frames.iter().all(|frame| frame.tag != 'E'), "{question:?}: {frames:?}");
        let rows = frames.iter().filter(|frame| frame.tag == 'D').map(|frame| AnswerRow::new(&frame.body));
        let rows: Vec<_> = rows.map(|row| row.expect("a whole row")).collect();
        self.core
            .answer(question, &rows, &OwnBackends::default(), Duration::ZERO, self.now)
            .expect("what was asked for")
    }

    /// The next report of `kind`.
    async fn told(&mut self, kind: FindingKind) -> IncidentChange<Finding> {
        for _ in 0..1000 {
            let of_kind = |change: &IncidentChange<Finding>| match change {
                IncidentChange::Opened(finding) | IncidentChange::Closed(finding, _) => finding.kind == kind,
            };
            if let Some(place) = self.told.iter().position(of_kind) {
                return self.told.remove(place);
            }
            let (question, at) = self.core.next();
            self.now = self.now.max(at);
            let told = self.ask(&question).await;
            self.told.extend(told);
        }
        panic!("nothing is told of {kind:?}");
    }

    async fn opened(&mut self, kind: FindingKind) -> Finding {
        match self.told(kind).await {
            IncidentChange::Opened(finding) => finding,
            closed @ IncidentChange::Closed(..) => panic!("{closed:?}"),
        }
    }

    async fn closed(&mut self, kind: FindingKind) -> Finding {
        match self.told(kind).await {
            IncidentChange::Closed(finding, _) => finding,
            opened @ IncidentChange::Opened(_) => panic!("{opened:?}"),
        }
    }
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("it is connected").get(0)
}

/// Runs in the background; it may be ended.
async fn start(postgres: &Postgres, database: &str, sql: &'static str) {
    let client = postgres.admin(database).await;
    tokio::spawn(async move { client.batch_execute(sql).await });
}

async fn waiters(admin: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    admin.query_one(sql, &[]).await.expect("a count").get(0)
}

async fn end(admin: &Client, finding: &Finding) {
    admin.batch_execute(finding.remedy.as_ref().expect("a remedy")).await.expect("it ends what it says");
}

#[tokio::test]
async fn a_convoy_is_seen_with_its_lock_and_ended_by_what_is_said_to_end_it() {
    let postgres = Postgres::private(&[]);
    let database = postgres.database().await;
    let admin = postgres.admin(&database).await;
    let holder = postgres.admin(&database).await;
    holder.batch_execute("SET application_name = 'forgotten'; SELECT pg_advisory_lock(77)").await.unwrap();
    for _ in 0..60 {
        start(&postgres, &database, "SELECT pg_advisory_xact_lock(77)").await;
    }
    eventually(async || waiters(&admin).await == 60).await;

    let mut watch = Watch::of(&postgres, &database, "IN ROLE pg_monitor").await;
    let start = watch.now;
    let finding = watch.opened(FindingKind::Convoy).await;
    assert!(finding.what.starts_with("up to 60 sessions wait for locks"), "{finding:?}");
    assert!(finding.what.ends_with("most for advisory lock 77"), "{finding:?}");
    let culprit = finding.culprit.as_ref().expect("it is there");
    assert_eq!(culprit.pid(), Some(pid(&holder).await));
    assert!(culprit.to_string().contains("forgotten"), "{culprit}");
    assert!(watch.now - start < Duration::from_secs(2));

    end(&admin, &finding).await;
    eventually(async || waiters(&admin).await == 0).await;
    watch.closed(FindingKind::Convoy).await;
}

#[tokio::test]
async fn who_keeps_others_waiting_and_holds_the_horizon_is_named_and_ended() {
    let postgres = Postgres::private(&["wal_level=logical", "autovacuum=off"]);
    let database = postgres.database().await;
    let admin = postgres.admin(&database).await;
    admin.batch_execute("CREATE TABLE \"Jobs\" AS SELECT g AS id FROM generate_series(1, 2) g").await.unwrap();
    // The oldest: no session at all.
    let prepare = "BEGIN; UPDATE \"Jobs\" SET id = 1 WHERE id = 1; PREPARE TRANSACTION 'it''s'";
    admin.batch_execute(prepare).await.unwrap();
    let holder = postgres.admin(&database).await;
    holder.batch_execute("BEGIN; UPDATE \"Jobs\" SET id = 2 WHERE id = 2").await.unwrap();
    for _ in 0..3 {
        start(&postgres, &database, "UPDATE \"Jobs\" SET id = 2 WHERE id = 2").await;
    }
    start(&postgres, &database, "UPDATE \"Jobs\" SET id = 1 WHERE id = 1").await;
    eventually(async || waiters(&admin).await == 4).await;
    for _ in 0..10 {
        admin.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    }

    let mut watch = Watch::of(&postgres, &database, "IN ROLE pg_monitor").await;
    let horizon = watch.opened(FindingKind::Horizon).await;
    assert_eq!(horizon.remedy.as_deref(), Some("ROLLBACK PREPARED 'it''s'"));
    let idle = watch.opened(FindingKind::IdleInTransaction).await;
    assert_eq!(idle.culprit.as_ref().and_then(|culprit| culprit.pid()), Some(pid(&holder).await));
    watch.opened(FindingKind::Blocker).await;
    let remedies = |watch: &Watch| -> Vec<_> {
        let open = watch.core.blockers().open();
        open.iter().map(|open| (open.value.waiters, open.value.culprit.remedy(), open.value.lock.kind())).collect()
    };
    let terminate = format!("SELECT pg_terminate_backend({})", pid(&holder).await);
    assert_eq!(remedies(&watch), [(3, terminate, "row"), (1, "ROLLBACK PREPARED 'it''s'".to_owned(), "row")]);

    end(&admin, &horizon).await;
    assert_eq!(watch.closed(FindingKind::Horizon).await.remedy, horizon.remedy);
    end(&admin, &idle).await;
    eventually(async || waiters(&admin).await == 0).await;
    watch.closed(FindingKind::IdleInTransaction).await;
    assert!(watch.core.blockers().is_empty());
}

#[tokio::test]
async fn dead_rows_that_vacuum_leaves_are_told_with_who_holds_them() {
    let postgres = Postgres::private(&["autovacuum=off"]);
    let database = postgres.database().await;
    let admin = postgres.admin(&database).await;
    admin.batch_execute("CREATE TABLE jobs AS SELECT g AS id FROM generate_series(1, 500) g").await.unwrap();
    let holder = postgres.admin(&database).await;
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM jobs").await.unwrap();

    let mut watch = Watch::of(&postgres, &database, "IN ROLE pg_monitor").await;
    let mut told = Vec::new();
    for _ in 0..5 {
        for sql in [
            "INSERT INTO jobs SELECT g FROM generate_series(1001, 3000) g",
            "DELETE FROM jobs WHERE id > 1000",
            "VACUUM jobs",
        ] {
            admin.batch_execute(sql).await.unwrap();
        }
        watch.ask(&Question::Detector(DetectorId::Horizon)).await;
        told.extend(watch.ask(&Question::Detector(DetectorId::DeadTuples)).await);
    }
    let [IncidentChange::Opened(finding)] = told.as_slice() else { panic!("{told:?}") };
    assert!(finding.what.starts_with("public.jobs has "), "{finding:?}");
    let terminate = format!("SELECT pg_terminate_backend({})", pid(&holder).await);
    assert_eq!(finding.remedy, Some(terminate));

    end(&admin, finding).await;
    eventually(async || admin.batch_execute("VACUUM jobs").await.is_ok() && dead(&admin).await == 0).await;
    assert!(matches!(watch.ask(&Question::Detector(DetectorId::DeadTuples)).await[..], [IncidentChange::Closed(..)]));
}

async fn dead(admin: &Client) -> i64 {
    admin.query_one("SELECT pg_stat_get_dead_tuples('jobs'::regclass)", &[]).await.expect("a count").get(0)
}

/// Gives out more than twice as many transaction ids as `autovacuum_freeze_max_age` may be at least.
const BURN: &str = "DO $$ BEGIN FOR i IN 1..210000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";

#[tokio::test]
async fn transaction_ids_that_run_out_are_told_with_who_keeps_vacuum_from_freezing() {
    let postgres = Postgres::private(&["autovacuum_freeze_max_age=100000", "autovacuum=off"]);
    let database = postgres.database().await;
    let admin = postgres.admin(&database).await;
    // Also without autovacuum the server freezes at that age, unless something old is in the way.
    admin.batch_execute("BEGIN; CREATE TABLE jobs (id int); PREPARE TRANSACTION 'forgotten'").await.unwrap();
    admin.batch_execute(BURN).await.unwrap();

    let mut watch = Watch::of(&postgres, &database, "IN ROLE pg_monitor").await;
    let finding = watch.opened(FindingKind::Wraparound).await;
    assert!(finding.what.contains(" that are not frozen, autovacuum should at 100000; "), "{finding:?}");
    assert_eq!(finding.remedy.as_deref(), Some("ROLLBACK PREPARED 'forgotten'"));

    end(&admin, &finding).await;
    admin.batch_execute("VACUUM (FREEZE)").await.unwrap();
    watch.closed(FindingKind::Wraparound).await;
}

#[tokio::test]
async fn a_slot_nobody_reads_holds_the_catalogs_and_a_running_vacuum_holds_nothing() {
    let postgres = Postgres::private(&["wal_level=logical", "autovacuum=off"]);
    let database = postgres.database().await;
    let admin = postgres.admin(&database).await;
    admin.batch_execute("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')").await.unwrap();
    let slow = "CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g; SET vacuum_cost_delay = '100ms'; SET vacuum_cost_limit = 1";
    let vacuum = postgres.admin(&database).await;
    vacuum.batch_execute(slow).await.unwrap();
    tokio::spawn(async move { vacuum.batch_execute("VACUUM t").await });
    let sees_vacuum = "SELECT count(*) FROM pg_stat_activity WHERE query = 'VACUUM t' AND backend_xmin IS NOT NULL";
    eventually(async || admin.query_one(sees_vacuum, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)).await;

    let mut watch = Watch::of(&postgres, &database, "IN ROLE pg_monitor").await;
    watch.ask(&Question::Detector(DetectorId::Horizon)).await;
    let holds: Vec<_> = watch.core.detectors().horizon.holds().collect();
    assert_eq!(holds.len(), 1, "{holds:?}");
    assert!(holds[0].is_catalog_only);
    assert_eq!(holds[0].culprit.remedy(), "SELECT pg_drop_replication_slot('cdc')");
}

#[tokio::test]
async fn without_the_privilege_the_watch_says_what_to_grant() {
    let postgres = Postgres::shared();
    let mut watch = Watch::of(postgres, "postgres", "").await;
    watch.ask(&Question::Server).await;
    let server = watch.core.server().expect("it was asked");
    assert!(server.advice(None)[0].contains("GRANT pg_monitor"));
    for _ in 0..20 {
        let (question, at) = watch.core.next();
        watch.now = watch.now.max(at);
        watch.ask(&question).await;
    }
}

/// No proxy is around.
#[derive(Default)]
struct Alone(Watches);

impl Process for Alone {
    fn watches(&self) -> &Watches {
        &self.0
    }

    fn own_backends(&self, _: &ServerAddress) -> OwnBackends {
        OwnBackends::default()
    }

    fn tighten(&self, _: &str) -> Option<u32> {
        None
    }

    fn cancel(&self, _: &ServerAddress, _: &IdleHolder) -> bool {
        false
    }
}

/// A monitor at work, without a proxy around it.
fn monitor(server: SocketAddr, database: &str, role: &str) -> Arc<Monitor> {
    let (host, port, password) = (server.ip(), server.port(), password_of(role));
    let text = format!(
        "[databases.{database}]\nhost = \"{host}\"\nport = {port}\ntls = {{ mode = \"disable\" }}\n\
         [roles.{role}]\npassword = \"{password}\"\n"
    );
    let config = config::parse(&text, Path::new("proxy.toml"), &|_| None).expect("a configuration");
    let settings = pool_settings(&config, database, role).expect("it serves both");
    let name = PoolName { database: database.into(), role: role.into(), kind: PoolKind::Ordinary };
    let credential = Credential::Password(Secret::new(password));
    let (id, in_core) = (PoolId::default(), DatabaseId::default());
    let pool = InUse::new(Arc::new(Pool::new(id, in_core, name, settings, credential, PoolStats::new(1))));
    let monitor = Arc::new(Monitor::new(database.into(), SETTINGS, 0.0, Instant::now()));
    let watching = Arc::clone(&monitor);
    tokio::spawn(async move {
        let opener = Opener::new(Arc::new(Secrets::new()), SettingsRegistry::default().none());
        watching.run(&opener, &pool, &Alone::default()).await;
    });
    monitor
}

#[tokio::test]
async fn a_monitor_whose_connection_is_ended_opens_another_and_knows_what_ended_meanwhile() {
    let postgres = Postgres::private(&[]);
    let database = postgres.database().await;
    let role = postgres.own_role("IN ROLE pg_monitor").await;
    let (admin, holder) = (postgres.admin(&database).await, postgres.admin(&database).await);
    holder.batch_execute("BEGIN").await.unwrap();
    let monitor = monitor(postgres.endpoint(&database).addr, &database, &role);
    let idle = async || monitor.core().detectors().sessions.open().len();
    eventually(async || idle().await == 1).await;

    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgweir watch'";
    assert_eq!(admin.query(end, &[]).await.unwrap().len(), 1, "one connection");
    holder.batch_execute("COMMIT").await.unwrap();
    eventually(async || idle().await == 0).await;
}

#[tokio::test]
async fn a_monitor_without_an_answer_is_blind_keeps_its_connection_and_sees_again() {
    let postgres = Postgres::private(&[]);
    let database = postgres.database().await;
    let role = postgres.own_role("IN ROLE pg_monitor").await;
    let link = Link::to(postgres.endpoint(&database).addr).await;
    let monitor = monitor(link.addr, &database, &role);
    eventually(async || monitor.core().server().is_some()).await;
    let pid = async || {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgweir watch'";
        postgres.admin(&database).await.query_one(sql, &[]).await.expect("one connection").get::<_, i32>(0)
    };
    let before = pid().await;
    link.pause();
    eventually(async || monitor.core().convoy().state() == ConvoyState::Blind).await;
    link.resume();
    eventually(async || monitor.core().convoy().state() == ConvoyState::Calm).await;
    assert_eq!(pid().await, before);
}
