//! Postgres servers of our own: one that all tests share, and private ones for tests that stop or break theirs.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::process::{output_of, server_bin, server_program};
use super::{Endpoint, password_of};

/// Who may log in how. Roles are asked for SCRAM unless they are members of one of the `login_…` roles.
const HBA: &str = "\
local all all                                trust
host  replication all           127.0.0.1/32 trust
host  all postgres,+login_trust 127.0.0.1/32 trust
hostssl all +login_cert         127.0.0.1/32 cert
host  all +login_md5            127.0.0.1/32 md5
host  all +login_password       127.0.0.1/32 password
host  all all                   127.0.0.1/32 scram-sha-256
host  replication all           127.0.0.1/32 scram-sha-256
";

/// In every database: all roles may create tables, as before Postgres 15.
const TEMPLATE: &str = "\
CREATE ROLE login_trust
CREATE ROLE login_md5
CREATE ROLE login_cert
CREATE ROLE login_password
GRANT ALL ON SCHEMA public TO PUBLIC
";

/// Throw-away servers need not survive a power cut.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=800",
    "max_prepared_transactions=10",
    "max_wal_size=2GB",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
];

/// A running server; dropped, it is gone with its files.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    settings: Vec<String>,
    /// Where it listens; another than 127.0.0.1 only for a standby.
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
    supervisor: Child,
}

impl Postgres {
    /// The server of this test run, started by the first test that asks.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Postgres> = LazyLock::new(|| Postgres::private(&[]));
        &SHARED
    }

    /// A server for one test, with more settings: `["wal_level=logical"]`.
    pub(crate) fn private(settings: &[&str]) -> Self {
        let (bin, dir) = (server_bin(), scratch());
        let supervisor = supervise(&bin, &dir);
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(template()).arg(dir.join("data"));
        output_of(copy);
        let settings = SETTINGS.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        let mut postgres = Self { bin, dir, settings, host: Ipv4Addr::LOCALHOST, port: free_port(), supervisor };
        postgres.start();
        postgres
    }

    /// A standby of this server, which follows it: at 127.0.0.2, with the same port.
    pub(crate) fn standby(&self) -> Self {
        self.standby_at(2)
    }

    /// As [`Self::standby`], at 127.0.0.`number`.
    pub(crate) fn standby_at(&self, number: u8) -> Self {
        let (bin, dir) = (self.bin.clone(), scratch());
        let supervisor = supervise(&bin, &dir);
        let mut backup = server_program(&bin, "pg_basebackup");
        backup.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-R",
            "--checkpoint=fast",
            "-p",
            &self.port.to_string(),
            "-D",
        ]);
        backup.arg(dir.join("data"));
        output_of(backup);
        let host = Ipv4Addr::new(127, 0, 0, number);
        let settings = self.settings.iter().cloned().chain([format!("listen_addresses={host}")]).collect();
        let mut standby = Self { bin, dir, settings, host, port: self.port, supervisor };
        standby.start();
        standby
    }

    /// Makes a standby the primary.
    pub(crate) fn promote(&self) {
        output_of(self.pg_ctl("promote"));
    }

    /// Starts it again after [`stop`](Self::stop) or [`crash`](Self::crash), on the same port.
    pub(crate) fn start(&mut self) {
        let settings: Vec<_> = self.settings.iter().map(|setting| format!("-c {setting}")).collect();
        let options = format!("-p {} {}", self.port, settings.join(" "));
        let log = self.dir.join("log");
        let mut start = self.pg_ctl("start");
        start.arg("-o").arg(options).arg("-l").arg(&log);
        // The server inherits what pg_ctl has open: with a pipe here, waiting for its end would wait for the server's.
        let status = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let started = status.is_ok_and(|status| status.success());
        assert!(started, "{start:?}\n{}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Ends every session with 57P01, then the server.
    pub(crate) fn stop(&mut self) {
        let mut stop = self.pg_ctl("stop");
        stop.args(["-m", "fast"]);
        output_of(stop);
    }

    /// Ends every session at once, with 57P02 at best; the next start is a recovery.
    pub(crate) fn crash(&mut self) {
        let mut stop = self.pg_ctl("stop");
        stop.args(["-m", "immediate"]);
        output_of(stop);
    }

    /// Stops all its processes where they are: its sockets stay open, and nothing is answered until the guard is gone.
    pub(crate) fn freeze(&self) -> Frozen {
        let file = fs::read_to_string(self.dir.join("data/postmaster.pid")).expect("it runs");
        let postmaster = file.lines().next().expect("its process id");
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).expect("it runs");
        let pids = [postmaster].into_iter().chain(children.split_whitespace());
        let pids = pids.filter_map(|pid| Pid::from_raw(pid.parse().expect("a number"))).collect();
        let frozen = Frozen(pids);
        frozen.signal(Signal::STOP);
        frozen
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = server_program(&self.bin, "pg_ctl");
        command.args([action, "-s", "-w", "-t", "60", "-D"]).arg(self.dir.join("data"));
        command
    }

    /// Connects as the superuser.
    pub(crate) async fn admin(&self, dbname: &str) -> Client {
        let url = format!("postgres://postgres@{}:{}/{dbname}", self.host, self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("the superuser may log in");
        tokio::spawn(connection);
        client
    }

    /// A new, empty database, in which all roles may create schemas; returns its name.
    pub(crate) async fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = self.admin("postgres").await;
        for sql in [format!("CREATE DATABASE {name}"), format!("GRANT CREATE ON DATABASE {name} TO PUBLIC")] {
            admin.batch_execute(&sql).await.expect("a new database");
        }
        name
    }

    /// Creates `role` with the password [`password_of`] it, unless another test already did.
    pub(crate) async fn role(&self, role: &str) {
        let sql = format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{}'", password_of(role));
        match self.admin("postgres").await.batch_execute(&sql).await {
            Ok(()) => {}
            Err(error) if matches!(error.code(), Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION)) => {}
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// A role that no other test knows, with `attributes` such as `IN ROLE login_md5`; returns its name.
    pub(crate) async fn own_role(&self, attributes: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let role = format!("role_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let password = password_of(&role);
        let md5 = if attributes.contains("login_md5") { "SET password_encryption = md5;" } else { "" };
        let sql = format!("{md5} CREATE ROLE {role} LOGIN PASSWORD '{password}' {attributes}");
        self.admin("postgres").await.batch_execute(&sql).await.expect("a new role");
        role
    }

    /// The server itself, without pgweir.
    pub(crate) fn endpoint(&self, dbname: &str) -> Endpoint {
        Endpoint { addr: SocketAddr::from((self.host, self.port)), dbname: dbname.to_owned() }
    }
}

/// A server whose processes are stopped; dropped, they go on.
pub(crate) struct Frozen(Vec<Pid>);

impl Frozen {
    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // One that has ended meanwhile needs none.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().expect("the supervisor is our child");
    }
}

/// Waits, as a process of its own, for the end of ours, however that comes, then stops the server and removes `dir`.
/// (A static is never dropped, and a killed process drops nothing.)
fn supervise(bin: &Path, dir: &Path) -> Child {
    const SCRIPT: &str = r#"cat; "$0/pg_ctl" stop -s -m immediate -D "$1/data"; rm -rf "$1""#;
    let mut supervisor = server_program(Path::new("/bin"), "sh");
    supervisor.args(["-c", SCRIPT]).arg(bin).arg(dir);
    // A process group of its own, or Ctrl-C would end it together with us.
    supervisor.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    supervisor.spawn().expect("a shell")
}

/// A data directory fresh from initdb, made once per run, copied for every server.
fn template() -> &'static Path {
    static TEMPLATE_DIR: LazyLock<(PathBuf, Child)> = LazyLock::new(|| {
        let (bin, dir) = (server_bin(), scratch());
        let supervisor = supervise(&bin, &dir);
        let data = dir.join("data");
        let mut initdb = server_program(&bin, "initdb");
        initdb.args(["--no-sync", "--wal-segsize=1", "--username=postgres", "--auth=trust"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
        output_of(initdb);
        fs::write(data.join("pg_hba.conf"), HBA).expect("initdb made the directory");
        let mut single = server_program(&bin, "postgres");
        single.args(["--single", "-F", "-D"]).arg(&data).arg("template1");
        let mut single = single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let single = single.as_mut().expect("initdb ran");
        let mut stdin = single.stdin.take().expect("stdin is piped");
        stdin.write_all(TEMPLATE.as_bytes()).expect("the single-user backend reads");
        drop(stdin);
        assert!(single.wait().is_ok_and(|status| status.success()), "single-user backend");
        (data, supervisor)
    });
    &TEMPLATE_DIR.0
}

/// A directory that belongs to whom the server runs as; its supervisor removes it.
pub(super) fn scratch() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("pgweir-test-").tempdir().expect("a temporary directory").keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("our own directory");
    if rustix::process::geteuid().is_root() {
        let id = |flag| {
            let mut id = Command::new("id");
            id.args([flag, "postgres"]);
            output_of(id).trim().parse().expect("a number")
        };
        chown(&dir, Some(id("-u")), Some(id("-g"))).expect("root may");
    }
    dir
}

/// A port nobody listens on, below the range from which the kernel takes ports for outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let run = u16::try_from(std::process::id() % 100).expect("below 100");
        AtomicU16::new(20_000 + run * 100)
    });
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).expect("the iterator does not end")
}
