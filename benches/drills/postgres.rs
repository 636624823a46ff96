//! A Postgres server of the drill's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::process::{output_of, server_bin, server_program};
use crate::session::{DBNAME, Session};
use crate::slow_disk::SlowDisk;
use crate::supervisor::{Owner, Server, Stop};

/// Those who load it. None is a superuser.
pub(crate) const ROLES: [&str; 4] = ["burst", "web", "deploy", "report"];

/// Durability is left as it is: what a commit waits for is half of every incident.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "superuser_reserved_connections=10",
    "shared_buffers=256MB",
    "max_wal_size=2GB",
    "checkpoint_timeout=30min",
    "deadlock_timeout=1s",
    "log_lock_waits=on",
    "log_checkpoints=off",
    "dynamic_shared_memory_type=mmap",
    "log_line_prefix=%m [%p] ",
];

/// A server that can be stopped and started again.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    disk: Option<SlowDisk>,
    connections_max: u32,
    /// Where it listens.
    pub(crate) port: u16,
    server: Option<Server>,
}

impl Postgres {
    /// A fresh one below `dir`, running, with [`ROLES`].
    pub(crate) async fn start_in(dir: &Path, connections_max: u32, disk: Option<SlowDisk>) -> Self {
        let bin = server_bin();
        let dir = dir.to_owned();
        let mut initdb = server_program(&bin, "initdb");
        initdb.args(["--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]);
        initdb.arg(dir.join("data"));
        output_of(initdb);
        let mut postgres = Self { bin, dir, disk, connections_max, port: crate::free_port(), server: None };
        postgres.start().await;
        let mut psql = Command::new("psql");
        psql.args(["-Xqd", &format!("host=127.0.0.1 port={} user=postgres dbname=postgres", postgres.port)]);
        psql.args(["-c", &format!("CREATE DATABASE {DBNAME}")]);
        output_of(psql);
        let admin = postgres.admin().await;
        for role in ROLES {
            admin.run(&format!("CREATE ROLE {role} LOGIN")).await.expect("a new role");
        }
        admin.run("CREATE ROLE pgweir_watch LOGIN IN ROLE pg_monitor").await.expect("a new role");
        admin.run("GRANT ALL ON SCHEMA public TO PUBLIC").await.expect("the superuser may");
        postgres
    }

    /// Starts it, and waits until it lets the superuser in.
    pub(crate) async fn start(&mut self) {
        let mut program = Command::new(self.bin.join("postgres"));
        program.arg("-D").arg(self.dir.join("data")).args(["-p", &self.port.to_string()]);
        let connections_max = format!("max_connections={}", self.connections_max);
        for setting in SETTINGS.iter().copied().chain([connections_max.as_str()]) {
            program.args(["-c", setting]);
        }
        if let Some(disk) = &self.disk {
            disk.preload(&mut program);
        }
        self.server = Some(Server::start(&program, Owner::Postgres, Stop::Quit, &self.log()));
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || {
            let mut ask = Command::new("pg_isready");
            ask.args(["-qh", "127.0.0.1", "-p", &self.port.to_string()]);
            ask.status().is_ok_and(|status| status.success())
        };
        while !ready() {
            assert!(Instant::now() < deadline, "Postgres did not start: {}", self.said());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it at once, as a crash does.
    pub(crate) fn crash(&mut self) {
        self.server = None;
    }

    /// A session of the superuser.
    pub(crate) async fn admin(&self) -> Session {
        Session::login(self.port, "postgres").await.expect("connections are reserved for the superuser")
    }

    /// What is under it.
    pub(crate) fn disk(&self) -> Option<&SlowDisk> {
        self.disk.as_ref()
    }

    /// Its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").pid
    }

    /// Bytes of its log.
    pub(crate) fn log_size(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |log| log.len())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}
