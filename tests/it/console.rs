//! The console: PgBouncer's tables and commands, over both protocols, for those who may.

use futures_util::future::join;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, SimpleQueryMessage};

use crate::support::{Proxy, Row, Wire, eventually, frontend, proxy, soon, tags};

/// The one row of `table` whose cells contain these.
fn find<'a>(table: &'a [Row], cells: &[(&str, &str)]) -> Option<&'a Row> {
    table.iter().find(|row| cells.iter().all(|(name, value)| row[*name] == *value))
}

async fn pool(proxy: &Proxy) -> Row {
    let pools = proxy.console("SHOW POOLS").await;
    find(&pools, &[("database", "app"), ("user", "app")]).expect("the pool of app").clone()
}

/// Column names of a command's answer, in order.
async fn columns(proxy: &Proxy, command: &str) -> Vec<String> {
    let client = proxy.database("pgweir").connect("ops").await;
    let statement = client.prepare(command).await.expect("a command");
    statement.columns().iter().map(|column| column.name().to_owned()).collect()
}

#[tokio::test]
async fn columns_are_those_of_pgbouncer_in_its_order() {
    // PgBouncer 1.25, src/admin.c and src/stats.c.
    let proxy = proxy().start().await;
    let socket = "type user database replication state addr port local_addr local_port connect_time request_time wait \
                  wait_us close_needed ptr link remote_pid tls application_name prepared_statements id";
    let counted = "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
                   wait_time client_parse_count server_parse_count bind_count";
    let expected = [
        (
            "SHOW POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
             sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
        ),
        ("SHOW CLIENTS", socket),
        ("SHOW SERVERS", socket),
        (
            "SHOW STATS",
            "database total_server_assignment_count total_xact_count total_query_count total_received total_sent \
             total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count \
             total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent \
             avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
        ),
        ("SHOW STATS_TOTALS", counted),
        (
            "SHOW STATS_AVERAGES",
            "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
             wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
        ),
        ("SHOW TOTALS", "name value"),
        (
            "SHOW DATABASES",
            "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode \
             load_balance_hosts max_connections current_connections max_client_connections \
             current_client_connections paused disabled",
        ),
        (
            "SHOW USERS",
            "name pool_size reserve_pool_size pool_mode max_user_connections current_connections \
             max_user_client_connections current_client_connections",
        ),
        ("SHOW DNS_HOSTS", "hostname ttl addrs"),
        ("SHOW DNS_ZONES", "zonename serial count"),
        ("SHOW PEERS", "peer_id host port pool_size"),
        ("SHOW PEER_POOLS", "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"),
        ("SHOW LISTS", "list items"),
        ("SHOW CONFIG", "key value default changeable"),
        ("SHOW STATE", "key value"),
        ("SHOW VERSION", "version"),
        ("SHOW LOG_LEVEL", "log_level"),
    ];
    for (command, names) in expected {
        let names: Vec<_> = names.split_whitespace().collect();
        assert_eq!(columns(&proxy, command).await, names, "{command}");
    }
}

#[tokio::test]
async fn the_level_of_the_log_is_set_without_a_restart() {
    let proxy = proxy().start().await;
    let level = async || proxy.console("SHOW LOG_LEVEL").await[0]["log_level"].clone();
    assert_eq!(level().await, "info");
    proxy.console("SET log_level = 'debug'").await;
    assert_eq!(level().await, "debug");
    assert!(proxy.try_connect("nobody").await.is_err());
    assert_eq!(proxy.logged("login failed").await["role"], "nobody");
    proxy.console("set log_level to 'info,pgweir::pool=trace'").await;
    assert_eq!(level().await, "info,pgweir::pool=trace");
    let client = proxy.database("pgweir").connect("ops").await;
    let refused = client.simple_query("SET log_level = loud").await.expect_err("no level");
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PARAMETER_VALUE));
    assert_eq!(level().await, "info,pgweir::pool=trace");
    client.simple_query("SET extra_float_digits = 3").await.expect("drivers send that to every server");
}

#[tokio::test]
async fn tables_show_clients_backends_and_waiters() {
    let proxy = proxy().pool_size(1).start().await;
    let (busy, idle, waiting) = (proxy.connect("app").await, proxy.connect("app").await, proxy.connect("app").await);
    busy.batch_execute("BEGIN").await.expect("a transaction");
    let backend: i32 = busy.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0);
    let waits = tokio::spawn(async move { waiting.batch_execute("SELECT 1").await });
    eventually(async || pool(&proxy).await["cl_waiting"] == "1").await;

    let row = pool(&proxy).await;
    for (column, value) in [("cl_active", "2"), ("sv_active", "1"), ("sv_idle", "0"), ("pool_mode", "transaction")] {
        assert_eq!(row[column], value, "{column}: {row:?}");
    }
    let clients = proxy.console("SHOW CLIENTS").await;
    let of_app: Vec<_> = clients.iter().filter(|row| row["user"] == "app").collect();
    let mut states: Vec<_> = of_app.iter().map(|row| row["state"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["active", "idle", "waiting"]);
    assert!(find(&clients, &[("user", "ops"), ("database", "pgweir")]).is_some(), "the console itself: {clients:?}");

    let servers = proxy.console("SHOW SERVERS").await;
    assert_eq!(servers.len(), 1);
    let client = find(&clients, &[("state", "active"), ("user", "app")]).expect("the busy one");
    assert_eq!(servers[0]["remote_pid"], backend.to_string());
    assert_eq!((&servers[0]["link"], &servers[0]["ptr"]), (&client["ptr"], &client["link"]));
    assert_eq!((servers[0]["state"].as_str(), servers[0]["user"].as_str()), ("active", "app"));

    busy.batch_execute("COMMIT").await.expect("an end");
    soon(waits).await.expect("no panic").expect("its turn came");
    eventually(async || proxy.console("SHOW SERVERS").await[0]["state"] == "idle").await;
    drop((busy, idle));
    eventually(async || pool(&proxy).await["cl_active"] == "0").await;
}

#[tokio::test]
async fn stats_count_what_clients_did() {
    let proxy = proxy().start().await;
    let client = proxy.connect("app").await;
    client.batch_execute("SELECT 1").await.expect("a query");
    client.batch_execute("BEGIN; SELECT 1").await.expect("a query");
    client.batch_execute("COMMIT").await.expect("a query");
    let number = |row: &Row, column: &str| row[column].parse::<i64>().expect("a number");
    eventually(async || number(&proxy.console("SHOW STATS").await[0], "total_query_count") == 3).await;
    let stats = proxy.console("SHOW STATS").await;
    assert_eq!(stats[0]["database"], "app");
    assert_eq!(number(&stats[0], "total_xact_count"), 2);
    for column in ["total_received", "total_sent", "total_xact_time"] {
        assert!(number(&stats[0], column) > 0, "{column}: {stats:?}");
    }
    let totals = proxy.console("SHOW STATS_TOTALS").await;
    assert_eq!(totals[0]["bytes_received"], stats[0]["total_received"]);
    assert_eq!(proxy.console("SHOW STATS_AVERAGES").await[0]["database"], "app");
    let all = proxy.console("SHOW TOTALS").await;
    assert!(find(&all, &[("name", "total_xact_count"), ("value", "2")]).is_some(), "{all:?}");
    assert!(find(&all, &[("name", "avg_client_bytes")]).is_some(), "{all:?}");
}

#[tokio::test]
async fn the_console_is_a_pool_as_in_pgbouncer_so_that_no_table_is_empty() {
    let proxy = proxy().start().await;
    let pools = proxy.console("SHOW POOLS").await;
    assert_eq!(pools.len(), 1);
    for (column, value) in [("database", "pgbouncer"), ("user", "pgbouncer"), ("cl_active", "1"), ("sv_idle", "0")] {
        assert_eq!(pools[0][column], value, "{column}");
    }
    for table in ["STATS", "STATS_TOTALS", "STATS_AVERAGES"] {
        assert_eq!(proxy.console(&format!("SHOW {table}")).await[0]["database"], "pgbouncer", "{table}");
    }
}

#[tokio::test]
async fn lists_users_databases_and_config_agree_with_the_file() {
    let proxy = proxy().pool_size(7).toml("[roles.app]\nclients_max = 9").start().await;
    let _client = proxy.connect("app").await;
    let databases = proxy.console("SHOW DATABASES").await;
    let app = find(&databases, &[("name", "app")]).expect("it is configured");
    for (column, value) in
        [("database", &*proxy.dbname), ("pool_size", "7"), ("paused", "0"), ("current_client_connections", "1")]
    {
        assert_eq!(app[column], value, "{column}");
    }
    let users = proxy.console("SHOW USERS").await;
    assert!(find(&users, &[("name", "app"), ("max_user_client_connections", "9")]).is_some(), "{users:?}");
    let config = proxy.console("SHOW CONFIG").await;
    let size = [("key", "databases.app.size"), ("value", "7"), ("default", "20"), ("changeable", "yes")];
    assert!(find(&config, &size).is_some(), "{config:?}");
    assert!(find(&config, &[("key", "databases.app.host"), ("default", "")]).is_some(), "it has none: {config:?}");
    assert!(find(&config, &[("key", "listen.workers"), ("changeable", "no")]).is_some());
    assert!(find(&config, &[("key", "roles.app.password"), ("value", "***")]).is_some());
    let lists = proxy.console("SHOW LISTS").await;
    assert!(find(&lists, &[("list", "used_clients"), ("items", "2")]).is_some(), "{lists:?}");
}

#[tokio::test]
async fn dns_hosts_shows_names_of_servers_with_the_addresses_last_found() {
    let proxy = proxy().toml("[databases.app]\nhost = [\"no-such-host.invalid\", \"localhost\"]").start().await;
    proxy.connect("app").await.batch_execute("SELECT 1").await.expect("the second host answers");
    let hosts = proxy.console("SHOW DNS_HOSTS").await;
    let known: Vec<_> = hosts.iter().map(|row| (row["hostname"].as_str(), row["ttl"].as_str())).collect();
    assert_eq!(known, [("localhost", "0"), ("no-such-host.invalid", "0")], "the next connection looks them up again");
    assert!(hosts[0]["addrs"].split(',').any(|address| address == "127.0.0.1"), "{hosts:?}");
    assert_eq!(hosts[1]["addrs"], "", "it has none");
    let lists = proxy.console("SHOW LISTS").await;
    assert!(find(&lists, &[("list", "dns_names"), ("items", "2")]).is_some(), "{lists:?}");

    proxy.reload("[databases.app]\nhost = \"127.0.0.1\"").await;
    assert!(proxy.console("SHOW DNS_HOSTS").await.is_empty(), "an address is no name");
}

#[tokio::test]
async fn pins_tell_who_keeps_a_backend_and_why() {
    let proxy = proxy().start().await;
    let client = proxy.connect("app").await;
    assert!(proxy.console("SHOW PINS").await.is_empty());
    client.batch_execute("CREATE TEMP TABLE t (a int)").await.expect("a table");
    eventually(async || proxy.console("SHOW PINS").await.len() == 1).await;
    assert_eq!(proxy.console("SHOW PINS").await[0]["reasons"], "temp");
    assert!((proxy.metric("pgweir_pins", &["reason=\"temp\""]) - 1.0).abs() < f64::EPSILON);
    client.batch_execute("DROP TABLE t").await.expect("no table");
    eventually(async || proxy.console("SHOW PINS").await.is_empty()).await;
}

#[tokio::test]
async fn extended_protocol_gives_text_or_binary_as_asked_and_rows_in_portions() {
    let proxy = proxy().start().await;
    let client = proxy.database("pgbouncer").connect("ops").await;
    // tokio-postgres asks for binary results and checks the types it is told.
    let rows = client.query("SHOW LISTS", &[]).await.expect("rows");
    let used = rows.iter().find(|row| row.get::<_, &str>("list") == "used_clients").expect("a row");
    assert_eq!(used.get::<_, i32>("items"), 1);
    assert_eq!(client.query_one("SELECT 1", &[]).await.expect("a row").get::<_, i32>(0), 1);
    let _client = proxy.connect("app").await;
    let stats = client.query("SHOW STATS", &[]).await.expect("rows");
    assert_eq!(stats[0].get::<_, i64>("total_query_count"), 0);
    let error = client.query("SHOW LISTS", &[&1_i32]).await;
    assert!(error.is_err(), "no parameters");

    let mut wire = proxy.database("pgweir").wire("ops").await;
    let bound = [frontend::parse("", "SHOW HELP", &[]), frontend::bind("", "", &[])].concat();
    let execute = |most: i32| frontend::frame(b'E', &[&[0], &most.to_be_bytes()[..]].concat());
    wire.send([bound, execute(2), execute(1), execute(0), frontend::frame(b'S', b"")].concat()).await;
    let frames = wire.cycle().await;
    assert!(tags(&frames).starts_with("1 2 D D s D s D "), "{}", tags(&frames));
    assert!(tags(&frames).ends_with(" D C Z"), "{}", tags(&frames));

    wire.send(
        [frontend::parse("", "SHOW NOTHING", &[]), frontend::bind("", "", &[]), frontend::frame(b'S', b"")].concat(),
    )
    .await;
    assert_eq!(tags(&wire.cycle().await), "E Z", "what follows an error is skipped up to Sync");
}

#[tokio::test]
async fn what_drivers_say_to_every_server_is_answered() {
    let proxy = proxy().start().await;
    let at = proxy.database("pgweir");
    let mut wire = at.wire("ops").await;
    for (sql, expected) in [
        ("SET extra_float_digits = 3; SET application_name = 'x'", "C C Z"),
        ("BEGIN", "C Z"),
        ("SELECT 1", "T D C Z"),
        ("SELECT version();", "T D C Z"),
        ("SHOW client_encoding", "T D C Z"),
        ("SHOW transaction_read_only", "T D C Z"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "T D C Z"),
        ("COMMIT", "C Z"),
        ("DISCARD ALL", "C Z"),
        ("", "I Z"),
    ] {
        assert_eq!(tags(&wire.query(sql).await), expected, "{sql}");
    }
    let frames = wire.query("SHOW STATE; nonsense; SHOW STATE").await;
    assert_eq!(tags(&frames), "E Z", "a text is read whole before any of it is done");
    assert_eq!(frames[0].sqlstate(), "42601");
    assert!(frames[0].fields()[&'H'].contains("SHOW HELP"));
    assert_eq!(tags(&wire.query("SHOW STATE; SHOW VERSION").await), "T D D D C T D C Z");
    assert_eq!(at.psql("ops", "show version;").await.trim(), concat!("pgweir ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn only_admins_get_in() {
    let proxy = proxy().start().await;
    for database in ["pgweir", "pgbouncer"] {
        let error = proxy.database(database).try_connect("app").await.map(drop).expect_err("app is no admin");
        assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
        proxy.database(database).connect("ops").await;
    }
}

#[tokio::test]
async fn what_is_no_command_is_told_what_to_do_instead() {
    let proxy = proxy().start().await;
    let mut wire = proxy.database("pgweir").wire("ops").await;
    for (sql, code, hint) in [
        ("SHOW POOL", "42601", "Did you mean SHOW POOLS?"),
        ("KILL_CLIENT all", "42601", "SHOW HELP"),
        ("SHOW FDS", "0A000", "listen.reuse_port"),
        ("SHUTDOWN WAIT_FOR_CLIENTS", "0A000", "listen.linger"),
        ("SET query_wait_timeout = 3", "0A000", "pool.wait_timeout"),
        ("SELECT * FROM pg_stat_activity", "0A000", "SHOW DATABASES"),
    ] {
        let frames = wire.query(sql).await;
        assert_eq!((tags(&frames).as_str(), frames[0].sqlstate().as_str()), ("E Z", code), "{sql}");
        assert!(frames[0].fields()[&'H'].contains(hint), "{sql}: {:?}", frames[0].fields());
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_end_the_console_with_an_error() {
    let proxy = proxy().start().await;
    let at = proxy.database("pgweir");
    for (bytes, code) in [
        (frontend::frame(b'Q', b"SHOW POOLS"), "08P01"),
        (frontend::frame(b'?', b""), "08P01"),
        (b"Q\xff\xff\xff\xff".to_vec(), "08P01"),
        (frontend::frame(b'B', b"\0\0\0"), "08P01"),
        (b"Q\x3f\0\0\0".to_vec(), "54000"),
    ] {
        let mut wire: Wire = at.wire("ops").await;
        wire.send(&bytes).await;
        let frames = wire.rest().await;
        assert_eq!(frames[0].sqlstate(), code, "{bytes:?}");
        assert_eq!(frames[0].fields()[&'S'], "FATAL");
    }
}

#[tokio::test]
async fn pause_waits_for_transactions_and_holds_everybody_until_resume() {
    let proxy = proxy().start().await;
    let (busy, other) = (proxy.connect("app").await, proxy.connect("app").await);
    busy.batch_execute("BEGIN").await.expect("a transaction");
    let console = proxy.database("pgweir").connect("ops").await;
    let pause = tokio::spawn(async move { console.batch_execute("PAUSE app").await });
    eventually(async || proxy.console("SHOW DATABASES").await.iter().any(|row| row["paused"] == "1")).await;
    assert!(!pause.is_finished(), "a transaction is open");
    busy.batch_execute("COMMIT").await.expect("it may end");
    soon(pause).await.expect("no panic").expect("drained");
    assert!(proxy.console("SHOW SERVERS").await.is_empty(), "every backend is closed");

    let waits = tokio::spawn(async move { other.batch_execute("SELECT 1").await });
    eventually(async || pool(&proxy).await["cl_waiting"] == "1").await;
    proxy.console("RESUME app").await;
    soon(waits).await.expect("no panic").expect("it went on");
    let error = proxy.database("pgweir").connect("ops").await.batch_execute("RESUME app").await;
    assert_eq!(error.expect_err("not paused").code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
}

#[tokio::test]
async fn pause_of_everything_holds_databases_that_nobody_has_asked_for_too() {
    let proxy = proxy().start().await;
    proxy.console("PAUSE").await;
    assert!(find(&proxy.console("SHOW STATE").await, &[("key", "paused"), ("value", "yes")]).is_some());
    let at = proxy.database("app");
    let login = tokio::spawn(async move { at.try_connect("app").await.map(drop) });
    eventually(async || proxy.metric("pgweir_waiters", &[]) > 0.5).await;
    proxy.console("RESUME").await;
    soon(login).await.expect("no panic").expect("a login");
}

#[tokio::test]
async fn cancel_ends_pause_and_resumes() {
    let proxy = proxy().start().await;
    let busy = proxy.connect("app").await;
    busy.batch_execute("BEGIN").await.expect("a transaction");
    let console = proxy.database("pgweir").connect("ops").await;
    let token = console.cancel_token();
    let cancelled = async {
        eventually(async || proxy.console("SHOW CLIENTS").await.iter().any(|row| row["state"] == "waiting")).await;
        token.cancel_query(tokio_postgres::NoTls).await.expect("a cancel");
    };
    let (paused, ()) = soon(join(console.batch_execute("PAUSE"), cancelled)).await;
    assert_eq!(paused.expect_err("cancelled").code(), Some(&SqlState::QUERY_CANCELED));
    proxy.connect("app").await.batch_execute("SELECT 1").await.expect("nothing is paused");
    console.batch_execute("SHOW STATE").await.expect("the console lives on");
}

#[tokio::test]
async fn a_console_that_leaves_during_pause_leaves_it_paused() {
    let proxy = proxy().start().await;
    let busy = proxy.connect("app").await;
    busy.batch_execute("BEGIN").await.expect("a transaction");
    let mut wire = proxy.database("pgweir").wire("ops").await;
    wire.send(frontend::query("PAUSE")).await;
    eventually(async || proxy.console("SHOW CLIENTS").await.iter().any(|row| row["state"] == "waiting")).await;
    drop(wire);
    eventually(async || proxy.console("SHOW CLIENTS").await.iter().all(|row| row["state"] != "waiting")).await;
    assert!(find(&proxy.console("SHOW STATE").await, &[("key", "paused"), ("value", "yes")]).is_some());
}

#[tokio::test]
async fn reconnect_replaces_backends_without_a_client_noticing() {
    let proxy = proxy().pool_size(1).start().await;
    let client = proxy.connect("app").await;
    let pid = async || client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get::<_, i32>(0);
    let before = pid().await;
    assert_eq!(pid().await, before);
    proxy.console("RECONNECT app").await;
    assert_ne!(pid().await, before);
}

#[tokio::test]
async fn wait_close_waits_until_all_are_replaced_or_somebody_cancels() {
    let proxy = proxy().pool_size(2).start().await;
    let busy = proxy.connect("app").await;
    busy.batch_execute("BEGIN").await.expect("a transaction");
    proxy.console("WAIT_CLOSE app").await;
    proxy.console("RECONNECT app").await;
    assert_eq!(proxy.console("SHOW SERVERS").await[0]["close_needed"], "1");

    let console = proxy.database("pgweir").connect("ops").await;
    let token = console.cancel_token();
    let is_waiting = async || proxy.console("SHOW CLIENTS").await.iter().any(|row| row["state"] == "waiting");
    let cancelled = async {
        eventually(is_waiting).await;
        token.cancel_query(tokio_postgres::NoTls).await.expect("a cancel");
    };
    let (waited, ()) = soon(join(console.batch_execute("WAIT_CLOSE"), cancelled)).await;
    assert_eq!(waited.expect_err("cancelled").code(), Some(&SqlState::QUERY_CANCELED));

    let waits = tokio::spawn(async move { console.batch_execute("WAIT_CLOSE app").await });
    eventually(is_waiting).await;
    busy.batch_execute("COMMIT").await.expect("it may end");
    soon(waits).await.expect("no panic").expect("it is replaced");
    busy.batch_execute("SELECT 1").await.expect("on another backend");
    assert_eq!(proxy.console("SHOW SERVERS").await[0]["close_needed"], "0");
}

#[tokio::test]
async fn kill_drops_clients_and_backends_and_new_clients_wait_for_resume() {
    let proxy = proxy().start().await;
    let mut victim = proxy.wire("app").await;
    victim.query("BEGIN").await;
    proxy.console("KILL app").await;
    assert_eq!(victim.rest().await[0].sqlstate(), "57P01");
    eventually(async || proxy.console("SHOW SERVERS").await.is_empty()).await;
    let newcomer = proxy.connect("app").await;
    let waits = tokio::spawn(async move { newcomer.batch_execute("SELECT 1").await });
    eventually(async || pool(&proxy).await["cl_waiting"] == "1").await;
    proxy.console("RESUME app").await;
    soon(waits).await.expect("no panic").expect("it went on");
}

#[tokio::test]
async fn kill_client_drops_one() {
    let proxy = proxy().start().await;
    let (mut one, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    let (id, _) = one.key.clone().expect("a key");
    proxy.console(&format!("KILL_CLIENT {id}")).await;
    assert_eq!(one.rest().await[0].sqlstate(), "57P01");
    assert_eq!(tags(&other.query("SELECT 1").await), "T D C Z");
    let error = proxy.database("pgweir").connect("ops").await.batch_execute("KILL_CLIENT 99999").await;
    assert_eq!(error.expect_err("nobody").code(), Some(&SqlState::UNDEFINED_OBJECT));
}

#[tokio::test]
async fn disabled_database_takes_no_new_clients() {
    let proxy = proxy().start().await;
    let client = proxy.connect("app").await;
    proxy.console("DISABLE app").await;
    client.batch_execute("SELECT 1").await.expect("who is in stays in");
    let error = proxy.try_connect("app").await.map(drop).expect_err("disabled");
    assert_eq!(error.code(), Some(&SqlState::INVALID_CATALOG_NAME));
    proxy.console("ENABLE app").await;
    proxy.connect("app").await;
    let error = proxy.database("pgweir").connect("ops").await.batch_execute("DISABLE nothing").await;
    assert_eq!(error.expect_err("no such database").code(), Some(&SqlState::INVALID_CATALOG_NAME));
}

#[tokio::test]
async fn an_order_in_force_is_seen_wherever_its_value_is() {
    let proxy = proxy().toml("[roles.app]\ntransactions_max = 40").start().await;
    let _client = proxy.connect("app").await;
    assert!(proxy.console("SHOW ORDERS").await.is_empty());
    for order in ["LIMIT app 3", "LIMIT ops 5", "DISABLE app"] {
        proxy.console(order).await;
    }
    let orders = proxy.console("SHOW ORDERS").await;
    for order in ["LIMIT 3", "DISABLE"] {
        let order = find(&orders, &[("target", "app"), ("order", order)]).expect("it is in force");
        assert_eq!((order["by"].as_str(), order["left_seconds"].as_str()), ("ops", ""), "{order:?}");
        assert!(order["addr"].starts_with("127.0.0.1:"), "{order:?}");
    }
    let value = async |key: &str| {
        let config = proxy.console("SHOW CONFIG").await;
        find(&config, &[("key", key)]).map(|row| row["value"].clone())
    };
    let of_app = value("roles.app.transactions_max").await.expect("it is in the file");
    assert!(of_app.starts_with("3 (ordered by ops from 127.0.0.1:"), "{of_app}");
    assert!(of_app.ends_with("; the file says 40)"), "{of_app}");
    let of_ops = value("roles.ops.transactions_max").await.expect("an order has set it");
    assert!(of_ops.starts_with("5 (ordered by ops ") && of_ops.ends_with("; the file says nothing)"), "{of_ops}");
    let (_, status) = proxy.http("/status");
    assert!(status.contains("\"order\": \"LIMIT 3\""), "{status}");

    for order in ["LIMIT app DEFAULT", "LIMIT ops DEFAULT", "ENABLE app"] {
        proxy.console(order).await;
    }
    assert!(proxy.console("SHOW ORDERS").await.is_empty());
    assert_eq!(value("roles.app.transactions_max").await.as_deref(), Some("40"));
    assert_eq!(value("roles.ops.transactions_max").await, None);
}

#[tokio::test]
async fn reload_tells_changes_as_notices_and_every_mistake_in_the_detail() {
    let proxy = proxy().pool_size(3).start().await;
    let (console, mut messages) = proxy.database("pgweir").connect_and_hear("ops").await;
    proxy.rewrite("[pool]\nsize = 4\n[listen]\nworkers = 3");
    console.batch_execute("RELOAD").await.expect("a valid file");
    let mut notices = Vec::new();
    while let Ok(AsyncMessage::Notice(notice)) = messages.try_recv() {
        notices.push(notice.message().to_owned());
    }
    assert!(notices.contains(&"databases.app.size: 3 -> 4".to_owned()), "{notices:?}");
    assert!(notices.contains(&"listen.workers takes effect after a restart".to_owned()), "{notices:?}");

    proxy.overwrite("[pool]\nsize = 0\nmode = \"x\"\n[databases.app]\nhost = \"h\"");
    let error = console.batch_execute("RELOAD").await.expect_err("two mistakes");
    let error = error.as_db_error().expect("an answer");
    assert_eq!(error.code().code(), "F0000");
    let detail = error.detail().expect("the mistakes");
    assert!(detail.contains("pool.size") && detail.contains("pool.mode"), "{detail}");
    let config = proxy.console("SHOW CONFIG").await;
    assert!(find(&config, &[("key", "databases.app.size"), ("value", "4")]).is_some(), "the old one stays in force");
    assert!((proxy.metric("pgweir_config_reloads_total", &["outcome=\"refused\""]) - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn shutdown_lets_transactions_end() {
    let mut proxy = proxy().start().await;
    let client = proxy.connect("app").await;
    client.batch_execute("BEGIN").await.expect("a transaction");
    let mut console = proxy.database("pgweir").wire("ops").await;
    let frames = console.query("SHUTDOWN").await;
    assert_eq!(tags(&frames), "C Z");
    assert_eq!(console.rest().await[0].sqlstate(), "57P01", "the console is told to go like everybody");
    let (status, why) = proxy.http("/readyz");
    assert_eq!((status, why.contains("\"draining\":true")), (503, true), "{why}");
    client.batch_execute("COMMIT").await.expect("it may end");
    assert!(proxy.ended().await);
}

#[tokio::test]
async fn shutdown_now_ends_at_once() {
    let mut proxy = proxy().start().await;
    let client = proxy.connect("app").await;
    client.batch_execute("BEGIN").await.expect("a transaction");
    let mut console = proxy.database("pgweir").wire("ops").await;
    console.send(frontend::query("SHUTDOWN NOW")).await;
    assert!(proxy.ended().await);
}

#[tokio::test]
async fn every_command_that_help_lists_is_known() {
    let proxy = proxy().start().await;
    let console = proxy.database("pgweir").connect("ops").await;
    let help = console.simple_query("SHOW HELP").await.expect("rows");
    let shows = help.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).filter(|command| command.starts_with("SHOW ")).map(str::to_owned),
        _ => None,
    });
    for show in shows {
        console.simple_query(&show).await.unwrap_or_else(|error| panic!("{show}: {error}"));
    }
}
