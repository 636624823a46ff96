//! A server of its own with two databases that are the same, and a pgweir of its own in front of one of them. Lanes run
//! side by side, and none sees another's reloads, notifications or prepared transactions.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::operation::{Pool, Role};
use crate::peer::Peer;
use crate::support::{PATIENCE, Postgres, Proxy, proxy_before};

/// The database behind pgweir, and the one that is asked directly.
pub(crate) const DATABASES: [&str; 2] = ["mine", "twin"];

/// Roles, once for the server.
const ROLES: &str = "
    CREATE ROLE owner LOGIN IN ROLE login_trust; CREATE ROLE guest LOGIN IN ROLE login_trust;
    CREATE ROLE boss LOGIN IN ROLE login_trust; CREATE ROLE web; CREATE ROLE nobody; GRANT web TO owner";

/// Settings and tables, once for each database.
const SCHEMA: &str = "
    CREATE SCHEMA ta AUTHORIZATION owner; CREATE SCHEMA tb AUTHORIZATION owner;
    GRANT ALL ON SCHEMA public, ta, tb TO owner, web; GRANT USAGE ON SCHEMA ta TO guest;
    CREATE TABLE public.t (id int, who text); CREATE TABLE ta.t (id int, who text); CREATE TABLE tb.t (id int, who text);
    CREATE TABLE public.c0 (v text); CREATE TABLE public.c1 (v text); CREATE TABLE public.c2 (v text);
    CREATE TABLE public.unique0 (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE public.unique1 (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE public.unique2 (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE public.items (id serial PRIMARY KEY, v text); CREATE TABLE public.ddl (a int);
    CREATE TABLE public.planned AS SELECT generate_series(1, 100) a; CREATE TABLE public.secret (a int);
    GRANT ALL ON public.t, ta.t, tb.t, public.items, public.ddl, public.planned TO owner, web;
    GRANT ALL ON SEQUENCE public.items_id_seq TO owner, web; GRANT SELECT ON public.t, ta.t, public.items TO guest;
    ALTER TABLE public.c0 OWNER TO owner; ALTER TABLE public.c1 OWNER TO owner; ALTER TABLE public.c2 OWNER TO owner;
    ALTER TABLE public.unique0 OWNER TO owner; ALTER TABLE public.unique1 OWNER TO owner;
    ALTER TABLE public.unique2 OWNER TO owner;
    CREATE FUNCTION public.f_sets(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('TimeZone', $1, false) $$;
    CREATE FUNCTION public.f_with() RETURNS text LANGUAGE sql SET TimeZone = 'Asia/Tokyo' SET a.x = 'with'
        AS $$ SELECT current_setting('TimeZone') || current_setting('a.x') $$;
    CREATE FUNCTION public.f_redefined() RETURNS text LANGUAGE sql AS $$ SELECT 'first' $$;
    CREATE VIEW public.seen AS SELECT 0 AS n; ALTER VIEW public.seen OWNER TO owner;
    CREATE PROCEDURE public.p_commit() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; COMMIT; PERFORM 2; END $$;
    CREATE PROCEDURE public.p_rollback() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; ROLLBACK; PERFORM 2; END $$;
    CREATE PROCEDURE public.p_commit_fail() LANGUAGE plpgsql AS
        $$ BEGIN PERFORM 1; COMMIT; RAISE EXCEPTION 'late'; END $$";

/// The rows as a run finds them. To truncate would make files.
const CLEAN: &str = "
    DELETE FROM public.t; DELETE FROM ta.t; DELETE FROM tb.t; DELETE FROM public.c0; DELETE FROM public.c1;
    DELETE FROM public.c2; DELETE FROM public.unique0; DELETE FROM public.unique1; DELETE FROM public.unique2;
    DELETE FROM public.items; SELECT setval('public.items_id_seq', 1, false); DELETE FROM public.ddl;
    INSERT INTO public.t VALUES (0, 'public'); INSERT INTO ta.t VALUES (1, 'ta'); INSERT INTO tb.t VALUES (2, 'tb')";

/// The tables, if the run before changed them.
const RESTORE: &str = "
    DROP TABLE IF EXISTS public.new0, public.new1, public.new2; DROP TABLE public.ddl; CREATE TABLE public.ddl (a int);
    GRANT ALL ON public.ddl TO owner, web; DROP INDEX IF EXISTS public.planned_a;
    ALTER TABLE public.c0 DROP COLUMN IF EXISTS z; ALTER TABLE public.c1 DROP COLUMN IF EXISTS z;
    ALTER TABLE public.c2 DROP COLUMN IF EXISTS z; REVOKE ALL ON public.secret FROM guest;
    DROP FUNCTION public.f_redefined(); CREATE OR REPLACE VIEW public.seen AS SELECT 0 AS n;
    CREATE FUNCTION public.f_redefined() RETURNS text LANGUAGE sql AS $$ SELECT 'first' $$";

/// The tables, at times: dead rows and dropped columns add up.
const REMAKE: &str = "
    DROP TABLE public.c0, public.c1, public.c2;
    TRUNCATE public.t, ta.t, tb.t, public.unique0, public.unique1, public.unique2, public.items;
    CREATE TABLE public.c0 (v text); CREATE TABLE public.c1 (v text); CREATE TABLE public.c2 (v text);
    ALTER TABLE public.c0 OWNER TO owner; ALTER TABLE public.c1 OWNER TO owner; ALTER TABLE public.c2 OWNER TO owner";

/// Runs after which they are.
const RUNS: u32 = 200;

/// Backends of clients: neither those of the driver nor the two with which pgweir hears and sends notifications.
const CLIENT_BACKENDS: &str =
    "FROM pg_stat_activity WHERE datname IN ('mine', 'twin') AND usename IN ('owner', 'guest')
    AND application_name NOT IN ('pgweir listen', 'pgweir notify')";

/// A server and a pgweir.
pub(crate) struct Lane {
    proxy: Proxy,
    _postgres: Postgres,
    server: SocketAddr,
    /// The superuser in both databases.
    admins: [Peer; 2],
    /// pgweir's.
    console: Peer,
    is_server_changed: bool,
    are_tables_changed: bool,
    runs: u32,
}

impl Lane {
    pub(crate) async fn start() -> Self {
        let postgres = Postgres::private(&[
            "max_worker_processes=0",
            "jit=off",
            "autovacuum=off",
            "max_connections=100",
            "timezone=UTC",
            "shared_buffers=8MB",
        ]);
        let server = postgres.endpoint("postgres").addr;
        let mut root = admin(server, "postgres");
        root.value(ROLES);
        let [mut mine, mut twin] = DATABASES.map(|dbname| {
            root.value(&format!("CREATE DATABASE {dbname}"));
            admin(server, dbname)
        });
        for admin in [&mut mine, &mut twin] {
            // The server's own may be changed by a run.
            admin.value("SET default_transaction_read_only = off");
            admin.value(SCHEMA);
        }
        let mut builder = proxy_before(&postgres).dbname("mine");
        for role in ["owner", "guest", "boss"] {
            builder = builder.bare_role(role, "auth = \"trust\"");
        }
        for (pool, lines) in
            [(Pool::One, "size = 1"), (Pool::Two, "size = 2"), (Pool::Session, "size = 6\nmode = \"session\"")]
        {
            let (name, port) = (pool.dbname(), server.port());
            let section =
                format!("[databases.{name}]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"mine\"\n{lines}");
            builder = builder.toml(&section);
        }
        let builder = builder
            .toml("[admin]\nroles = [\"boss\"]")
            .toml("[listen]\nworkers = 1")
            // A step that waits for ever fails its run, a machine that stands still for some seconds does not.
            .toml("[pool]\nwait_timeout = \"60s\"\nconnect_timeout = \"60s\"")
            .toml("[notify]\nbus = \"memory\"")
            .toml("[admission]\ncancel_rate_per_address = \"off\"\nlogin_rate = \"off\"\nnotice_after = \"0s\"");
        let proxy = builder.start().await;
        let (console, _) = Peer::login(proxy.addr, &[("user", "boss"), ("database", "pgweir")]);
        let admins = [mine, twin];
        Self {
            proxy,
            _postgres: postgres,
            server,
            admins,
            console,
            is_server_changed: false,
            are_tables_changed: false,
            runs: 0,
        }
    }

    /// Nothing of the run before is left: backends, prepared transactions, rows.
    pub(crate) fn clean(&mut self) {
        for pool in [Pool::One, Pool::Two, Pool::Session] {
            self.console(&format!("RECONNECT {}", pool.dbname()));
        }
        // A prepared transaction may hold a lock that a client's last statement waits for.
        while self.admins[0].value(&format!("SELECT count(*) {CLIENT_BACKENDS}")) != "0" {
            self.admins.iter_mut().for_each(roll_back_prepared);
        }
        if std::mem::take(&mut self.is_server_changed) {
            self.reload_server("RESET ALL");
            self.is_server_changed = false;
        }
        self.runs += 1;
        let is_changed = std::mem::take(&mut self.are_tables_changed);
        for admin in &mut self.admins {
            roll_back_prepared(admin);
            if is_changed {
                admin.value(RESTORE);
            }
            if self.runs.is_multiple_of(RUNS) {
                admin.value(REMAKE);
            }
            admin.value(CLEAN);
        }
    }

    /// Logs a client in, directly or through pgweir.
    pub(crate) fn login(&self, pool: Option<Pool>, role: Role, more: &[(String, String)]) -> (Peer, Vec<String>) {
        let (addr, dbname) = match pool {
            None => (self.server, DATABASES[1]),
            Some(pool) => (self.proxy.addr, pool.dbname()),
        };
        let mut parameters = vec![("user", role.name()), ("database", dbname)];
        parameters.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Peer::login(addr, &parameters)
    }

    /// Ends all backends of pgweir's clients, and waits until pgweir knows.
    pub(crate) fn kill_backends(&mut self) {
        let condition = CLIENT_BACKENDS.replace("IN ('mine', 'twin')", "= 'mine'");
        let pids = self.admins[0].value(&format!("SELECT coalesce(string_agg(pid::text, ','), '') {condition}"));
        self.admins[0].value(&format!("SELECT count(pg_terminate_backend(pid)) {condition}"));
        let is_shown = |row: &String| pids.split(',').any(|pid| row.contains(&format!("Some(\"{pid}\")")));
        while self.console("SHOW SERVERS").iter().any(is_shown) {
            std::thread::yield_now();
        }
    }

    /// Waits until pgweir has asked the backend of this client what the client left there. A backend that ends before
    /// it has answered takes the session with it.
    pub(crate) fn settle(&mut self, pgweir: &Peer) {
        let id = format!("Some(\"{}\")", pgweir.process());
        let is_active = |row: &String| row.contains(&id) && row.contains("Some(\"active\")");
        let since = Instant::now();
        while since.elapsed() < PATIENCE && self.console("SHOW CLIENTS").iter().any(is_active) {
            std::thread::yield_now();
        }
    }

    /// pgweir reads its configuration, in which something is another.
    pub(crate) fn reload_pgweir(&mut self, number: u32) {
        self.proxy.rewrite(&format!("[listen]\nclients_max = {number}"));
        self.console("RELOAD");
    }

    /// The server's configuration is changed. A new connection sees the change when all others have been told to look.
    pub(crate) fn reload_server(&mut self, change: &str) {
        self.is_server_changed = true;
        let generation = self.admins[0].value("SELECT pg_conf_load_time()");
        self.admins[0].value(&format!("ALTER SYSTEM {change}"));
        self.admins[0].value("SELECT pg_reload_conf()");
        while admin(self.server, "postgres").value("SELECT pg_conf_load_time()") == generation {
            std::thread::yield_now();
        }
    }

    /// The superuser changes both databases.
    pub(crate) fn ddl(&mut self, sql: &str) {
        self.are_tables_changed = true;
        for admin in &mut self.admins {
            admin.query(sql);
        }
    }

    /// The run changed tables by itself.
    pub(crate) fn note_changes(&mut self, are_tables_changed: bool) {
        self.are_tables_changed |= are_tables_changed;
    }

    /// What the console answers.
    fn console(&mut self, command: &str) -> Vec<String> {
        let answers = self.console.query(command);
        assert!(!answers.iter().any(|answer| answer.starts_with('E')), "{command}: {answers:?}");
        answers
    }
}

fn admin(server: SocketAddr, dbname: &str) -> Peer {
    // A database is copied file by file, beside others.
    Peer::login_within(2 * PATIENCE, server, &[("user", "postgres"), ("database", dbname)]).0
}

fn roll_back_prepared(admin: &mut Peer) {
    loop {
        let gid = admin.value("SELECT min(gid) FROM pg_prepared_xacts WHERE database = current_database()");
        if gid == "None" {
            break;
        }
        admin.value(&format!("ROLLBACK PREPARED '{gid}'"));
    }
}
