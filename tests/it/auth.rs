//! Who may come in, and as whom pgweir goes on to the server.

use std::num::NonZeroU32;

use futures_util::future::join_all;
use pgweir::testing::auth::scram::Verifier;
use serde_json::Value;

use crate::support::frontend::{PROTOCOL_3_0, password, query, sasl_initial, startup};
use crate::support::{Endpoint, Frame, Postgres, Wire, eventually, password_of, proxy};

/// Logs in; the SQLSTATE is that of the refusal.
async fn log_in(at: &Endpoint, role: &str, password: &str) -> Result<Wire, String> {
    let mut wire = Wire::open(at.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", role), ("database", &at.dbname)])).await;
    let frames = wire.authenticate(role, password).await;
    match frames.last() {
        Some(frame) if frame.tag == 'Z' => Ok(wire),
        Some(frame) => {
            assert_eq!(frame.fields()[&'S'], "FATAL");
            Err(frame.sqlstate())
        }
        None => Err("a close".to_owned()),
    }
}

async fn refusal(at: &Endpoint, role: &str, password: &str) -> String {
    log_in(at, role, password).await.err().unwrap_or_else(|| panic!("{role} came in with {password}"))
}

/// The role at the server as which this client's queries run.
async fn user_of(wire: &mut Wire) -> String {
    let frames = wire.query("SELECT current_user").await;
    let row = frames.iter().find(|frame| frame.tag == 'D');
    row.unwrap_or_else(|| panic!("{frames:?}")).columns().remove(0).expect("a name")
}

/// Code of the first authentication request.
async fn asked(at: &Endpoint, role: &str) -> i32 {
    let mut wire = Wire::open(at.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", role), ("database", &at.dbname)])).await;
    let Frame { body, .. } = wire.frame().await;
    i32::from_be_bytes(body[..4].try_into().expect("a code"))
}

async fn sql(postgres: &Postgres, sql: &str) {
    postgres.admin("postgres").await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn verifier_of(role: &str) -> String {
    let iterations = NonZeroU32::new(4096).expect("not zero");
    Verifier::new(&password_of(role), b"sixteen bytes ok", iterations).to_string()
}

#[tokio::test]
async fn every_method_lets_the_right_password_in_and_no_other() {
    let postgres = Postgres::shared();
    let hash = format!("md5{}", md5_of(&format!("{}hashed", password_of("hashed"))));
    let verifier = verifier_of("keyed");
    let proxy = proxy()
        .role("old", "auth = \"md5\"")
        .bare_role("hashed", &format!("auth = \"md5\"\npassword = \"{hash}\"\nbackend_password = \"hashed-secret\""))
        .bare_role("keyed", &format!("password = \"{verifier}\""))
        .bare_role("open", "auth = \"trust\"\nlogin_as = \"app\"\nbackend_password = \"app-secret\"")
        .start()
        .await;
    sql(postgres, &format!("ALTER ROLE keyed PASSWORD '{verifier}'")).await;
    for (role, request, user) in
        [("app", 10, "app"), ("old", 5, "old"), ("hashed", 5, "hashed"), ("keyed", 10, "keyed"), ("open", 0, "app")]
    {
        assert_eq!(asked(&proxy, role).await, request, "{role}");
        let mut wire = log_in(&proxy, role, &password_of(role)).await.unwrap_or_else(|code| panic!("{role}: {code}"));
        assert_eq!(user_of(&mut wire).await, user);
        if role != "open" {
            for wrong in ["wrong", "", &password_of(role)[1..]] {
                assert_eq!(refusal(&proxy, role, wrong).await, "28P01", "{role} with {wrong:?}");
            }
        }
    }
}

fn md5_of(text: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn backends_log_in_as_the_configured_role_by_every_method_of_the_server() {
    let postgres = Postgres::shared();
    for group in ["", "IN ROLE login_md5", "IN ROLE login_password", "IN ROLE login_trust"] {
        let role = postgres.own_role(group).await;
        let lines = format!("login_as = \"{role}\"\nbackend_password = \"{}\"", password_of(&role));
        let proxy = proxy().role("front", &lines).start().await;
        let mut wire = log_in(&proxy, "front", &password_of("front")).await.expect(group);
        assert_eq!(user_of(&mut wire).await, role);
    }
}

#[tokio::test]
async fn a_wrong_backend_password_is_said_at_once_and_tried_seldom() {
    let proxy = proxy().role("broken", "backend_password = \"not-it\"").start().await;
    let refusals = join_all((0..60).map(|_| refusal(&proxy, "broken", "broken-secret"))).await;
    assert!(refusals.iter().all(|code| code == "28P01"), "{refusals:?}");
    let tries = || proxy.log_text().matches("cannot open a backend").count();
    eventually(async || tries() > 0).await;
    let tried = tries();
    assert!((1..20).contains(&tried), "{tried} logins at the server for 60 clients");
    assert!(log_in(&proxy, "app", "app-secret").await.is_ok(), "it is that role's own trouble");
}

#[tokio::test]
async fn a_changed_backend_password_is_used_without_a_restart() {
    let proxy = proxy().role("mended", "backend_password = \"not-it\"").start().await;
    assert_eq!(refusal(&proxy, "mended", "mended-secret").await, "28P01");
    proxy.rewrite("[roles.mended]\nbackend_password = \"mended-secret\"");
    eventually(async || log_in(&proxy, "mended", "mended-secret").await.is_ok()).await;
}

#[tokio::test]
async fn secrets_are_looked_up_at_the_server() {
    let postgres = Postgres::shared();
    let lookup = postgres.own_role("SUPERUSER").await;
    for role in ["aq_scram", "aq_md5", "aq_late"] {
        postgres.role(role).await;
    }
    sql(
        postgres,
        "GRANT login_md5 TO aq_md5; SET password_encryption = md5; ALTER ROLE aq_md5 PASSWORD 'aq_md5-secret'",
    )
    .await;
    sql(postgres, "ALTER ROLE aq_late VALID UNTIL '2001-01-01'").await;
    let auth_query = format!("auth_query = {{ role = \"{lookup}\", password = \"{}\" }}", password_of(&lookup));
    let proxy = proxy()
        .toml(&format!("[databases.app]\n{auth_query}"))
        .toml("[roles.\"*\"]\nauth = \"auth-query\"")
        .start()
        .await;
    for role in ["aq_scram", "aq_md5"] {
        // SCRAM keys of the login, and the MD5 hash, open the backend.
        let mut wire = log_in(&proxy, role, &password_of(role)).await.unwrap_or_else(|code| panic!("{role}: {code}"));
        assert_eq!(user_of(&mut wire).await, role);
        assert_eq!(refusal(&proxy, role, "wrong").await, "28P01");
    }
    assert_eq!(refusal(&proxy, "aq_late", "aq_late-secret").await, "28P01", "its time is up");
    assert_eq!(refusal(&proxy, "aq_nobody", "x").await, "28P01");
    assert_eq!((asked(&proxy, "aq_nobody").await, asked(&proxy, "aq_scram").await), (10, 10));

    // The secret is the server's: a change there holds at the next login.
    sql(postgres, "ALTER ROLE aq_scram PASSWORD 'another'").await;
    assert_eq!(refusal(&proxy, "aq_scram", "aq_scram-secret").await, "28P01");
    let mut wire = log_in(&proxy, "aq_scram", "another").await.expect("the new one");
    assert_eq!(user_of(&mut wire).await, "aq_scram");
}

/// The owner of a database puts a schema of his own in front of pg_catalog, with an operator that says as whom it runs.
async fn trap_in(postgres: &Postgres, database: &str) {
    let trap = format!(
        "CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap TO PUBLIC; CREATE TABLE trap.caught (who text); \
         GRANT ALL ON trap.caught TO PUBLIC; \
         CREATE FUNCTION trap.eq(name, name) RETURNS boolean LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END'; \
         CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = name, FUNCTION = trap.eq); \
         ALTER DATABASE \"{database}\" SET search_path = trap, pg_catalog"
    );
    postgres.admin(database).await.batch_execute(&trap).await.expect("a trap");
}

async fn caught_in(postgres: &Postgres, database: &str) -> i64 {
    let admin = postgres.admin(database).await;
    admin.query_one("SELECT count(*) FROM trap.caught", &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn a_look_up_runs_nothing_of_the_database_that_the_client_names() {
    let postgres = Postgres::shared();
    let lookup = postgres.own_role("SUPERUSER").await;
    // Both the shipped query, and one of an operator who wrote it without OPERATOR.
    let own = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1";
    for query in ["", &format!(", query = \"{own}\"")] {
        let login = format!("role = \"{lookup}\", password = \"{}\"{query}", password_of(&lookup));
        let proxy = proxy()
            .toml(&format!("[databases.app]\nauth_query = {{ {login} }}"))
            .toml("[roles.\"*\"]\nauth = \"auth-query\"")
            .start()
            .await;
        trap_in(postgres, &proxy.dbname).await;
        assert_eq!(refusal(&proxy, "aq_nobody_at_all", "x").await, "28P01");
        assert_eq!(caught_in(postgres, &proxy.dbname).await, 0, "{query}");
    }
}

#[tokio::test]
async fn secrets_are_looked_up_in_the_database_that_is_named_for_it() {
    let postgres = Postgres::shared();
    let lookup = postgres.own_role("").await;
    let login = format!("role = \"{lookup}\", password = \"{}\", dbname = \"aq_logins\"", password_of(&lookup));
    let query = "SELECT role, secret FROM public.secrets WHERE role = $1";
    let proxy = proxy()
        .toml(&format!("[databases.app]\nauth_query = {{ {login}, query = \"{query}\" }}"))
        .bare_role("elsewhere", "auth = \"auth-query\"")
        .start()
        .await;
    sql(postgres, "CREATE DATABASE aq_logins").await;
    let table = "CREATE TABLE secrets (role text, secret text); GRANT SELECT ON secrets TO PUBLIC; \
                 INSERT INTO secrets VALUES ('elsewhere', 'elsewhere-secret')";
    postgres.admin("aq_logins").await.batch_execute(table).await.expect("a table");
    let mut wire = log_in(&proxy, "elsewhere", "elsewhere-secret").await.expect("a login");
    assert_eq!(user_of(&mut wire).await, "elsewhere");
    assert_eq!(wire.query("SELECT current_database()").await[1].columns(), [Some(proxy.dbname.clone())]);
}

#[tokio::test]
async fn secrets_may_come_from_a_table_in_clear_text() {
    let postgres = Postgres::shared();
    let lookup = postgres.own_role("").await;
    let proxy = proxy()
        .toml(&format!(
            "[databases.app]\nauth_query = {{ role = \"{lookup}\", password = \"{}\", query = \"SELECT $1, secret FROM public.secrets WHERE role = $1\" }}",
            password_of(&lookup)
        ))
        .bare_role("tabled", "auth = \"auth-query\"")
        .bare_role("untabled", "auth = \"auth-query\"");
    let proxy = proxy.start().await;
    let admin = postgres.admin(&proxy.dbname).await;
    let before = refusal(&proxy, "tabled", "tabled-secret").await;
    assert_eq!(before, "57P03", "the query fails, and that is not the client's fault");
    eventually(async || proxy.log_text().contains("relation \\\"public.secrets\\\" does not exist")).await;
    let table = "CREATE TABLE secrets (role text, secret text); GRANT SELECT ON secrets TO PUBLIC; \
                 INSERT INTO secrets VALUES ('tabled', 'tabled-secret'), ('untabled', NULL)";
    admin.batch_execute(table).await.expect("a table");
    let mut wire = log_in(&proxy, "tabled", "tabled-secret").await.expect("a login");
    assert_eq!(user_of(&mut wire).await, "tabled");
    assert_eq!(refusal(&proxy, "untabled", "untabled-secret").await, "28P01");
}

#[tokio::test]
async fn pass_through_takes_what_the_server_takes() {
    let postgres = Postgres::shared();
    let proxy = proxy().toml("[roles.\"*\"]\nauth = \"passthrough\"").start().await;
    for group in ["", "IN ROLE login_md5", "IN ROLE login_password"] {
        let role = postgres.own_role(group).await;
        assert_eq!(refusal(&proxy, &role, "wrong").await, "28P01", "{group}");
        for _ in 0..2 {
            let mut wire = log_in(&proxy, &role, &password_of(&role)).await.expect(group);
            assert_eq!(user_of(&mut wire).await, role);
        }
        assert_eq!(refusal(&proxy, &role, "wrong").await, "28P01", "{group}");
    }
    assert_eq!(refusal(&proxy, "no_such_role", "x").await, "28P01");
    // A server that lets everybody in cannot tell whether the password is right.
    let trusted = postgres.own_role("IN ROLE login_trust").await;
    assert_eq!(refusal(&proxy, &trusted, &password_of(&trusted)).await, "28000");
}

#[tokio::test]
async fn pass_through_takes_a_token_of_eight_kilobytes() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("IN ROLE login_password").await;
    let token = "t0ken/".repeat(1400);
    sql(postgres, &format!("ALTER ROLE {role} PASSWORD '{token}'")).await;
    let proxy = proxy().toml("[roles.\"*\"]\nauth = \"passthrough\"").start().await;
    let mut wire = log_in(&proxy, &role, &token).await.expect("a login");
    assert_eq!(user_of(&mut wire).await, role);
    assert_eq!(refusal(&proxy, &role, &token[1..]).await, "28P01");
}

#[tokio::test]
async fn pass_through_follows_a_password_that_changes_at_the_server() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let proxy = proxy().pool_size(2).toml("[roles.\"*\"]\nauth = \"passthrough\"").start().await;
    let mut before = log_in(&proxy, &role, &password_of(&role)).await.expect("a login");
    sql(postgres, &format!("ALTER ROLE {role} PASSWORD 'second'")).await;
    let mut after = log_in(&proxy, &role, "second").await.expect("the new password");
    assert_eq!(refusal(&proxy, &role, &password_of(&role)).await, "28P01", "the old one is refused from now on");
    // New backends are opened with the new one, for clients of both.
    before.query("BEGIN").await;
    after.query("BEGIN").await;
    assert_eq!((user_of(&mut before).await, user_of(&mut after).await), (role.clone(), role.clone()));
}

#[tokio::test]
async fn pass_through_forgets_a_password_that_the_server_took_back() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let proxy = proxy().pool_size(1).toml("[roles.\"*\"]\nauth = \"passthrough\"").start().await;
    let mut wire = log_in(&proxy, &role, &password_of(&role)).await.expect("a login");
    wire.query("SELECT 1").await;
    sql(postgres, &format!("ALTER ROLE {role} PASSWORD 'second'")).await;
    // Its backend is gone, and no other can be opened: now pgweir knows.
    sql(postgres, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")).await;
    eventually(async || {
        let mut again = match log_in(&proxy, &role, &password_of(&role)).await {
            Ok(wire) => wire,
            Err(code) => return code == "28P01",
        };
        // Until a backend was refused, nobody knows.
        again.send(query("SELECT 1")).await;
        again.frame().await;
        false
    })
    .await;
    assert!(log_in(&proxy, &role, "second").await.is_ok());
}

/// Backends of a role at the server, by process id.
async fn backends_of(postgres: &Postgres, role: &str) -> Vec<i32> {
    let admin = postgres.admin("postgres").await;
    let rows = admin.query("SELECT pid FROM pg_stat_activity WHERE usename = $1", &[&role]).await;
    rows.expect("a list").iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn pass_through_notices_a_credential_that_the_server_takes_no_longer() {
    let postgres = Postgres::shared();
    let settings = "[roles.\"*\"]\nauth = \"passthrough\"\nproof_age_max = \"500ms\"\n[pool]\nlifetime = \"0s\"";
    let proxy = proxy().pool_size(2).toml(settings).start().await;
    for (change, sqlstate) in
        [("PASSWORD 'second'", "28P01"), ("NOLOGIN", "28000"), ("VALID UNTIL '2001-01-01'", "28P01")]
    {
        let role = postgres.own_role("").await;
        let mut wire = log_in(&proxy, &role, &password_of(&role)).await.expect("a login");
        assert_eq!(user_of(&mut wire).await, role);
        sql(postgres, &format!("ALTER ROLE {role} {change}")).await;
        // No backend had to end, no client had to come.
        eventually(async || backends_of(postgres, &role).await.is_empty()).await;
        assert_eq!(refusal(&proxy, &role, &password_of(&role)).await, sqlstate, "{change}");
        wire.send(query("SELECT 1")).await;
        assert_eq!(wire.frame().await.sqlstate(), sqlstate, "{change}");
        let is_told = |record: &Value| {
            let message = record["message"].as_str().unwrap_or_default();
            record["role"] == role.as_str() && message.starts_with("the server no longer takes the password")
        };
        proxy.told(is_told).await;
    }
}

#[tokio::test]
async fn pass_through_tries_a_password_again_without_its_backends() {
    let postgres = Postgres::shared();
    let settings = "[roles.\"*\"]\nauth = \"passthrough\"\nproof_age_max = \"1ms\"";
    let proxy = proxy().pool_size(1).toml(settings).start().await;
    let role = postgres.own_role("").await;
    let mut first = log_in(&proxy, &role, &password_of(&role)).await.expect("a login");
    let pid = first.query("SELECT pg_backend_pid()").await[1].columns();
    first.query("BEGIN").await;
    // The connection that tried the password may take its time to go.
    let (watched, own) = (postgres.admin("postgres").await, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1");
    eventually(async || watched.query_one(own, &[&role]).await.expect("a count").get::<_, i64>(0) == 1).await;
    sql(postgres, &format!("ALTER ROLE {role} CONNECTION LIMIT 1")).await;
    assert_eq!(refusal(&proxy, &role, "a guess").await, "28P01");
    // The server has no connection left for the role, but looks at the password before it says so.
    let mut second = log_in(&proxy, &role, &password_of(&role)).await.expect("a login");
    first.query("COMMIT").await;
    assert_eq!(second.query("SELECT pg_backend_pid()").await[1].columns(), pid, "a guess closes no backend");
}

#[tokio::test]
async fn pass_through_guesses_do_not_take_the_servers_connections() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let proxy = proxy().toml("[roles.\"*\"]\nauth = \"passthrough\"").start().await;
    let watched = postgres.admin("postgres").await;
    let most = std::sync::atomic::AtomicI64::new(0);
    let watch = async {
        loop {
            let count = watched.query_one("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", &[&role]).await;
            most.fetch_max(count.expect("a count").get(0), std::sync::atomic::Ordering::Relaxed);
        }
    };
    let guesses = join_all((0..100).map(async |n| refusal(&proxy, &role, &format!("guess {n}")).await));
    tokio::select! {
        () = watch => {}
        refusals = guesses => assert!(refusals.iter().all(|code| code == "28P01"), "{refusals:?}"),
    }
    let most = most.into_inner();
    assert!(most <= 8, "{most} at once");
    assert!(log_in(&proxy, &role, &password_of(&role)).await.is_ok());
}

#[tokio::test]
async fn pass_through_by_scram_keys_where_the_verifier_can_be_looked_up() {
    let postgres = Postgres::shared();
    let (lookup, role) = (postgres.own_role("SUPERUSER").await, postgres.own_role("").await);
    let proxy = proxy()
        .toml(&format!(
            "[databases.app]\nauth_query = {{ role = \"{lookup}\", password = \"{}\" }}",
            password_of(&lookup)
        ))
        .toml("[roles.\"*\"]\nauth = \"passthrough\"")
        .start()
        .await;
    assert_eq!(asked(&proxy, &role).await, 10, "the password itself is not asked for");
    let mut wire = log_in(&proxy, &role, &password_of(&role)).await.expect("a login");
    assert_eq!(user_of(&mut wire).await, role);
    assert_eq!(refusal(&proxy, &role, "wrong").await, "28P01");
    assert_eq!(refusal(&proxy, "no_such_role", "wrong").await, "28P01");
}

#[tokio::test]
async fn a_look_up_role_may_be_a_client_too() {
    let postgres = Postgres::shared();
    let lookup = postgres.own_role("SUPERUSER").await;
    // As a client it is somebody else at the server: look-ups must not be.
    let proxy = proxy()
        .toml(&format!(
            "[databases.app]\nauth_query = {{ role = \"{lookup}\", password = \"{}\" }}",
            password_of(&lookup)
        ))
        .bare_role("looked_up", "auth = \"auth-query\"")
        .toml(&format!(
            "[roles.{lookup}]\npassword = \"front\"\nlogin_as = \"app\"\nbackend_password = \"{}\"",
            password_of("app")
        ))
        .start()
        .await;
    for _ in 0..2 {
        let mut wire = log_in(&proxy, &lookup, "front").await.expect("a login");
        assert_eq!(user_of(&mut wire).await, "app");
        assert!(log_in(&proxy, "looked_up", &password_of("looked_up")).await.is_ok());
        // Nor does a reload put the one for the other.
        proxy.rewrite("[listen]\nlogin_timeout = \"14s\"");
        proxy.logged("configuration changed").await;
    }
}

#[tokio::test]
async fn a_database_may_have_one_login_for_all() {
    let postgres = Postgres::shared();
    let owner = postgres.own_role("").await;
    let login = format!("login_as = \"{owner}\"\npassword = \"{}\"", password_of(&owner));
    let server = postgres.endpoint("postgres").addr;
    let proxy = proxy()
        .toml(&format!(
            "[databases.owned]\nhost = \"{}\"\nport = {}\ndbname = \"postgres\"\n{login}",
            server.ip(),
            server.port()
        ))
        .role("other", "login_as = \"app\"\nbackend_password = \"wrong\"")
        .start()
        .await;
    let owned = proxy.database("owned");
    for role in ["app", "other"] {
        assert_eq!(user_of(&mut owned.wire(role).await).await, owner, "{role}");
    }
    assert_eq!(user_of(&mut proxy.wire("app").await).await, "app", "elsewhere it is itself");
}

/// Method, salt and iterations that a client is shown before it proves anything.
async fn shown_to(at: &Endpoint, role: &str) -> String {
    let mut wire = Wire::open(at.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", role), ("database", &at.dbname)])).await;
    let method = i32::from_be_bytes(wire.frame().await.body[..4].try_into().expect("a code"));
    if method != 10 {
        return method.to_string();
    }
    wire.send(sasl_initial("SCRAM-SHA-256", b"n,,n=,r=nonce")).await;
    let challenge = String::from_utf8(wire.frame().await.body[4..].to_vec()).expect("text");
    challenge.split_once(',').expect("nonce, salt and iterations").1.to_owned()
}

#[tokio::test]
async fn a_role_that_does_not_exist_looks_as_others_do_also_after_a_restart() {
    let salt_key = "[listen]\nsalt_key = \"0123456789abcdef\"";
    let (one, other) = (proxy().toml(salt_key).start().await, proxy().toml(salt_key).start().await);
    for role in ["app", "nobody"] {
        let shown = shown_to(&one, role).await;
        assert_eq!(shown, shown_to(&other, role).await, "{role}");
        assert!(shown.ends_with(",i=4096"), "{shown}");
    }
    // Verifiers with other iterations and a longer salt, as most roles here have them.
    let verifier = |role: &str| {
        let iterations = NonZeroU32::new(9000).expect("not zero");
        Verifier::new(&password_of(role), b"twenty-four bytes of sal", iterations)
    };
    let mut builder = proxy();
    for role in ["v1", "v2", "v3"] {
        builder = builder.bare_role(role, &format!("password = \"{}\"", verifier(role)));
    }
    let proxy = builder.start().await;
    let (known, nobody) = (shown_to(&proxy, "v1").await, shown_to(&proxy, "nobody").await);
    assert_eq!(known.len(), nobody.len(), "{known} {nobody}");
    assert!(known.ends_with(",i=9000") && nobody.ends_with(",i=9000") && known != nobody, "{known} {nobody}");
    // Where most are asked for MD5, so is nobody.
    let proxy = self::proxy().role("m1", "auth = \"md5\"").role("m2", "auth = \"md5\"").role("m3", "auth = \"md5\"");
    let proxy = proxy.start().await;
    assert_eq!((shown_to(&proxy, "m1").await, shown_to(&proxy, "nobody").await), ("5".to_owned(), "5".to_owned()));
    assert_eq!(refusal(&proxy, "nobody", "x").await, "28P01");
    // Where they are asked for the password itself, for the server to see, so is nobody.
    let through = "auth = \"passthrough\"";
    let proxy = self::proxy().bare_role("p1", through).bare_role("p2", through).bare_role("p3", through).start().await;
    assert_eq!((shown_to(&proxy, "p1").await, shown_to(&proxy, "nobody").await), ("3".to_owned(), "3".to_owned()));
    assert_eq!(refusal(&proxy, "nobody", "x").await, "28P01");
}

#[tokio::test]
async fn a_form_that_was_looked_up_is_nobodys_too() {
    let postgres = Postgres::shared();
    let lookup = postgres.own_role("SUPERUSER").await;
    let login = format!("auth_query = {{ role = \"{lookup}\", password = \"{}\" }}", password_of(&lookup));
    let proxy =
        proxy().toml(&format!("[databases.app]\n{login}")).toml("[roles.\"*\"]\nauth = \"auth-query\"").start().await;
    let role = postgres.own_role("").await;
    let iterations = NonZeroU32::new(5000).expect("not zero");
    let verifier = Verifier::new(&password_of(&role), b"sixteen bytes ok", iterations);
    sql(postgres, &format!("ALTER ROLE {role} PASSWORD '{verifier}'")).await;
    assert!(shown_to(&proxy, &role).await.ends_with(",i=5000"));
    assert!(shown_to(&proxy, "nobody_at_all").await.ends_with(",i=5000"));
}

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let postgres = Postgres::shared();
    let (lookup, through) = (postgres.own_role("SUPERUSER").await, postgres.own_role("IN ROLE login_password").await);
    let verifier = verifier_of("logged_keyed");
    let proxy = proxy()
        .log_level("trace")
        .toml(&format!(
            "[databases.app]\nauth_query = {{ role = \"{lookup}\", password = \"{}\" }}",
            password_of(&lookup)
        ))
        .role("logged_md5", "auth = \"md5\"")
        .bare_role("logged_keyed", &format!("password = \"{verifier}\""))
        .bare_role("logged_query", "auth = \"auth-query\"")
        .bare_role(&through, "auth = \"passthrough\"")
        .role("logged_broken", "backend_password = \"hush-hush\"")
        .start()
        .await;
    for role in ["app", "logged_md5", "logged_keyed", "logged_query", &through, "logged_broken"] {
        for password in [password_of(role), format!("{role}-guess")] {
            if let Ok(mut wire) = log_in(&proxy, role, &password).await {
                wire.query("SELECT 'my precious'").await;
            }
        }
    }
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", &through), ("database", "app")])).await;
    wire.frame().await;
    wire.send([password("hush-hush"), password("hush-hush")].concat()).await;
    wire.rest().await;
    proxy.rewrite("[roles.logged_broken]\nbackend_password = \"hush-hush-2\"");
    proxy.logged("configuration changed").await;
    let log = proxy.log_text();
    assert!(log.contains("\"level\":\"DEBUG\""), "the log says a lot");
    for secret in ["-secret", "-guess", "hush", "precious", "SCRAM-SHA-256$", &verifier[20..40]] {
        assert!(!log.contains(secret), "{secret:?} is in the log");
    }
}
