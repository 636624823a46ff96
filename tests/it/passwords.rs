//! Passwords that commands print: fetched before they are too old, and when a server refuses one; a command that fails
//! or hangs takes nothing away.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::frontend::{PROTOCOL_3_0, startup};
use crate::support::{Endpoint, Frame, Postgres, Proxy, Sessions, Wire, eventually, password_of, proxy, tags};

/// A file with the password of a role of its own, beside scripts.
struct Keeper {
    dir: TempDir,
    role: String,
}

impl Keeper {
    async fn new() -> Self {
        let keeper = Self { dir: tempfile::tempdir().unwrap(), role: Postgres::shared().own_role("").await };
        keeper.keep(&password_of(&keeper.role));
        keeper
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The commands print this from now on.
    fn keep(&self, password: &str) {
        fs::write(self.path("new"), format!("{password}\n")).unwrap();
        fs::rename(self.path("new"), self.path("password")).unwrap();
    }

    /// It is this at the server, too.
    async fn change(&self, password: &str) {
        let alter = format!("ALTER ROLE {} PASSWORD '{password}'", self.role);
        Postgres::shared().admin("postgres").await.batch_execute(&alter).await.unwrap();
        self.keep(password);
    }

    /// As a value in `proxy.toml`: a script in the directory of the password.
    fn command(&self, script: &str, keys: &str) -> String {
        let script = format!("cd {}; {script}", self.dir.path().display());
        format!("{{ command = [\"sh\", \"-c\", {script:?}], {keys} }}")
    }

    /// The role `front` of clients logs in as this one.
    fn role_lines(&self, password: &str) -> String {
        format!("login_as = \"{}\"\nbackend_password = {password}", self.role)
    }
}

/// Several clients at once, each of which needs a backend that is opened for it.
async fn open_backends(proxy: &Proxy, count: usize) {
    proxy.console("RECONNECT").await;
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut wire = proxy.wire("front").await;
        assert_eq!(tags(&wire.query("BEGIN").await), "C Z");
        clients.push(wire);
    }
}

fn runs(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("pgweir_password_runs_total", &[&format!("outcome=\"{outcome}\"")])
}

async fn told_nothing_of(proxy: &Proxy, secrets: &[&str]) {
    let config = format!("{:?}", proxy.console("SHOW CONFIG").await);
    for secret in secrets {
        assert!(!config.contains(secret), "{config}");
        assert!(!proxy.log_text().contains(secret), "{secret} in the log");
        assert!(!proxy.metrics().contains(secret));
    }
}

#[tokio::test]
async fn a_password_that_the_server_refuses_is_fetched_anew() {
    let keeper = Keeper::new().await;
    let password = keeper.command("cat password", "refresh = \"1h\"");
    let proxy = proxy().pool_size(4).role("front", &keeper.role_lines(&password)).start().await;
    open_backends(&proxy, 2).await;
    assert_eq!(runs(&proxy, "succeeded"), 1.0, "one run for all");
    keeper.change("rotated-once").await;
    open_backends(&proxy, 3).await;
    keeper.change("rotated-twice").await;
    open_backends(&proxy, 4).await;
    assert!(!proxy.log_text().contains("cannot open a backend"), "nobody waited in vain");
    assert!(runs(&proxy, "succeeded") <= 4.0, "one run for all that were refused");
    assert_eq!(runs(&proxy, "failed"), 0.0);
    told_nothing_of(&proxy, &[&password_of(&keeper.role), "rotated-once", "rotated-twice", "cat password"]).await;
}

#[tokio::test]
async fn a_password_is_fetched_again_before_it_is_too_old() {
    let keeper = Keeper::new().await;
    let password = keeper.command("cat password; echo >> runs", "refresh = \"3s\", timeout = \"2s\"");
    let proxy = proxy().pool_size(2).role("front", &keeper.role_lines(&password)).start().await;
    // Nobody has asked for one.
    eventually(async || runs(&proxy, "succeeded") >= 2.0).await;
    keeper.change("rotated").await;
    let ran = || fs::read_to_string(keeper.path("runs")).unwrap().len();
    let before = ran();
    eventually(async || ran() > before + 1).await;
    open_backends(&proxy, 2).await;
    assert!(!proxy.log_text().contains("cannot open a backend"));
}

#[tokio::test]
async fn a_command_that_fails_leaves_the_last_password_in_use() {
    let keeper = Keeper::new().await;
    let script = "cat password; if test -e broken; then echo 'no credentials' >&2; echo 'more' >&2; exit 3; fi";
    let password = keeper.command(script, "refresh = \"3s\", timeout = \"2s\"");
    let proxy = proxy().pool_size(2).role("front", &keeper.role_lines(&password)).start().await;
    open_backends(&proxy, 1).await;
    fs::write(keeper.path("broken"), "").unwrap();
    let told = proxy.told(|record| record["failure"] == "the command ended with exit status: 3").await;
    assert_eq!((&told["key"], &told["stderr"]), (&"roles.front.backend_password".into(), &"no credentials".into()));
    // A run that succeeded had begun before.
    let before = runs(&proxy, "failed");
    eventually(async || runs(&proxy, "failed") > before).await;
    keeper.keep("half-a-secret");
    let told = || proxy.records(|record| !record["failure"].is_null()).len() as f64;
    eventually(async || runs(&proxy, "failed") >= told() + 2.0).await;
    open_backends(&proxy, 2).await;
    keeper.change("rotated").await;
    fs::remove_file(keeper.path("broken")).unwrap();
    proxy.logged("the command prints a password again").await;
    open_backends(&proxy, 2).await;
    told_nothing_of(&proxy, &["half-a-secret", "rotated", &password_of(&keeper.role), "no credentials'"]).await;
}

/// Whether the process is gone, or a child of nobody's that only waits to be reaped.
fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn pids_in(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn refused(at: &Endpoint, role: &str) -> Frame {
    let mut wire = Wire::open(at.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", role), ("database", &at.dbname)])).await;
    wire.authenticate(role, &password_of(role)).await.pop().unwrap()
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let keeper = Keeper::new().await;
    // A run that is killed before it has said who it is leaves no line; there will be another.
    let script =
        "if test -e mended; then cat password; exit; fi; echo half-begun; sleep 1000 & echo $$ $! >> pids; wait";
    let password = keeper.command(script, "refresh = \"30s\", timeout = \"300ms\"");
    let proxy = proxy().pool_size(1).role("front", &keeper.role_lines(&password)).start().await;
    let error = refused(&proxy, "front").await;
    assert_eq!(error.sqlstate(), "57P03");
    let fields = error.fields();
    assert_eq!(
        fields[&'M'],
        "there is no password so far, roles.front.backend_password: the command did not end within 300ms"
    );
    assert_eq!(fields[&'H'], "The log of pgweir says more about the command.");
    eventually(async || !pids_in(&keeper.path("pids")).is_empty()).await;
    let line = pids_in(&keeper.path("pids")).swap_remove(0);
    let (leader, child) = line.split_once(' ').unwrap();
    let reaped = || !Path::new(&format!("/proc/{leader}")).exists();
    eventually(async || reaped() && is_gone(child)).await;
    assert!(runs(&proxy, "failed") >= 1.0);
    // Others are served, and this role as soon as the command is well.
    assert_eq!(tags(&proxy.wire("app").await.query("SELECT 1").await), "T D C Z");
    fs::write(keeper.path("mended"), "").unwrap();
    eventually(async || refused(&proxy, "front").await.tag == 'Z').await;
    told_nothing_of(&proxy, &["half-begun", &password_of(&keeper.role)]).await;
}

#[tokio::test]
async fn output_that_is_no_password_is_refused() {
    for (script, failure) in [
        ("exit 0", "the command printed nothing"),
        ("echo", "the command printed nothing"),
        ("head -c 65537 /dev/zero | tr '\\\\0' x", "the command printed more than 65536 bytes"),
        ("yes secret", "the command printed more than 65536 bytes"),
        ("printf 'a\\\\0b'", "the command printed what is no text"),
        ("exec ./none", "the command ended with exit status: 127"),
    ] {
        let keeper = Keeper::new().await;
        let script = script.replace("\\\\", "\\");
        let password = keeper.command(&script, "timeout = \"1m\"");
        let proxy = proxy().role("front", &keeper.role_lines(&password)).start().await;
        let told = proxy.told(|record| !record["failure"].is_null()).await;
        assert_eq!(told["failure"], failure, "{script}");
    }
    let keeper = Keeper::new().await;
    let lines = keeper.role_lines("{ command = [\"/no/such/program\", \"never-told\"] }");
    let proxy = proxy().role("front", &lines).start().await;
    let told = proxy.told(|record| !record["failure"].is_null()).await;
    assert_eq!(told["failure"], "the command cannot be run: entity not found");
    told_nothing_of(&proxy, &["never-told"]).await;
}

#[tokio::test]
async fn a_reload_runs_a_changed_command_and_no_other() {
    let keeper = Keeper::new().await;
    let password = keeper.command("cat password", "refresh = \"1h\"");
    let proxy = proxy().pool_size(2).role("front", &keeper.role_lines(&password)).start().await;
    open_backends(&proxy, 1).await;
    proxy.reload("[pool]\nsize = 3").await;
    open_backends(&proxy, 1).await;
    assert_eq!(runs(&proxy, "succeeded"), 1.0, "it keeps what it has");
    let changed = keeper.command("cat password; true", "refresh = \"1h\"");
    proxy.reload(&format!("[roles.front]\nbackend_password = {changed}")).await;
    open_backends(&proxy, 1).await;
    assert_eq!(runs(&proxy, "succeeded"), 2.0);
    // The one that runs no longer leaves nothing behind.
    let hanging = keeper.command("echo $$ > pids; exec sleep 1000", "refresh = \"1h\", timeout = \"50m\"");
    proxy.reload(&format!("[roles.front]\nbackend_password = {hanging}")).await;
    eventually(async || !pids_in(&keeper.path("pids")).is_empty()).await;
    let pid = pids_in(&keeper.path("pids")).swap_remove(0);
    proxy.reload(&format!("[roles.front]\nbackend_password = {password}")).await;
    open_backends(&proxy, 1).await;
    eventually(async || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

#[tokio::test]
async fn every_login_of_pgweir_may_have_a_command() {
    let postgres = Postgres::shared();
    let (owner, lookup, watch) = (Keeper::new().await, Keeper::new().await, Keeper::new().await);
    let admin = postgres.admin("postgres").await;
    admin.batch_execute(&format!("ALTER ROLE {} SUPERUSER", lookup.role)).await.unwrap();
    postgres.role("looked_up").await;
    let command = |keeper: &Keeper| keeper.command("cat password", "refresh = \"1h\"");
    let proxy = proxy()
        .toml(&format!("[databases.app]\nlogin_as = \"{}\"\npassword = {}", owner.role, command(&owner)))
        .toml(&format!("[databases.app.auth_query]\nrole = \"{}\"\npassword = {}", lookup.role, command(&lookup)))
        .toml(&format!("[watch]\nrole = \"{}\"\npassword = {}", watch.role, command(&watch)))
        .toml("[roles.\"*\"]\nauth = \"auth-query\"")
        .start()
        .await;
    let mut wire = proxy.wire("looked_up").await;
    assert_eq!(wire.value("SELECT current_user").await, owner.role);
    let sessions = Sessions::of(postgres, &proxy.dbname).await;
    sessions.until(format!("usename = '{}'", watch.role), 1).await;
    assert_eq!(runs(&proxy, "succeeded"), 3.0);
}
