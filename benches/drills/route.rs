//! How clients reach Postgres in a run: straight, through PgBouncer, or through pgweir.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::postgres::{Postgres, ROLES};
use crate::process::root;
use crate::session::{DBNAME, OPERATOR};
use crate::supervisor::{Owner, Server, Stop};

/// Longer than any run, so that whoever waits is served or shows as unanswered.
const WAIT_TIMEOUT_SECONDS: u32 = 120;

/// One way.
#[expect(clippy::large_enum_variant, reason = "there are a few of them")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Each client has a backend.
    Direct,
    /// In transaction mode, with so many backends per role.
    PgBouncer(u32),
    /// pgweir.
    Pgweir(Pgweir),
}

/// pgweir's file, as far as drills differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pgweir {
    /// `pool.size`.
    pub(crate) size: u32,
    /// Lines under `[roles.burst]`.
    pub(crate) burst: String,
    /// Lines under `[roles.deploy]`.
    pub(crate) deploy: String,
    /// Lines under `[roles.report]`.
    pub(crate) report: String,
    /// The section `[admission]`.
    pub(crate) admission: String,
    /// The section `[notify]`.
    pub(crate) notify: String,
    /// The section `[watch]`.
    pub(crate) watch: String,
    /// The section `[fleet]`.
    pub(crate) fleet: String,
    /// Tables of `[[lanes]]`.
    pub(crate) lanes: String,
    /// What distinguishes it in tables.
    pub(crate) label: String,
}

impl Pgweir {
    /// A pool and nothing else.
    pub(crate) fn pool(size: u32) -> Self {
        let label = format!("pgweir, pool of {size}");
        let [burst, deploy, report, admission, notify, watch, fleet, lanes] = Default::default();
        Self { size, burst, deploy, report, admission, notify, watch, fleet, lanes, label }
    }

    /// The role of the burst may have so many transactions in the server.
    pub(crate) fn capped(transactions_max: u32) -> Self {
        Self {
            burst: format!("transactions_max = {transactions_max}"),
            label: format!("pgweir, transactions_max = {transactions_max}"),
            ..Self::pool(transactions_max)
        }
    }

    fn toml(&self, listen: SocketAddr, postgres: u16) -> String {
        let Self { size, burst, deploy, report, admission, notify, watch, fleet, lanes, label: _ } = self;
        format!(
            r#"
[listen]
addr = ["{listen}"]
shutdown_timeout = "1s"
[admin]
addr = "off"
roles = ["{OPERATOR}"]
[pool]
size = {size}
wait_timeout = "{WAIT_TIMEOUT_SECONDS}s"
[databases.{DBNAME}]
host = "127.0.0.1"
port = {postgres}
tls = {{ mode = "disable" }}
[roles."*"]
auth = "trust"
[roles.{OPERATOR}]
auth = "password"
password = "{OPERATOR}"
[roles.burst]
{burst}
[roles.deploy]
{deploy}
[roles.report]
{report}
{admission}
{notify}
{watch}
{fleet}
{lanes}
"#
        )
    }
}

/// A route that is open; dropped, it is closed.
pub(crate) struct Open {
    /// Where clients log in.
    pub(crate) port: u16,
    /// What the proxy writes, if there is one.
    pub(crate) log: Option<PathBuf>,
    _proxy: Option<Server>,
}

impl Route {
    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::PgBouncer(size) => format!("PgBouncer, pool of {size}"),
            Self::Pgweir(pgweir) => pgweir.label.clone(),
        }
    }

    /// Its name on the command line.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer(_) => "pgbouncer",
            Self::Pgweir(_) => "pgweir",
        }
    }

    /// Starts what it needs, with its files in `dir`.
    pub(crate) async fn open(&self, postgres: &Postgres, dir: &Path) -> Open {
        if *self == Self::Direct {
            return Open { port: postgres.port, log: None, _proxy: None };
        }
        let port = crate::free_port();
        let started = self.start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), postgres.port, dir).await;
        Open { port, log: Some(started.log), _proxy: Some(started.server) }
    }

    /// Starts a pooler that listens here; one that was here before must have ended.
    pub(crate) async fn start(&self, listen: SocketAddr, postgres: u16, dir: &Path) -> Started {
        let file = |end: &str| dir.join(format!("{listen}.{end}"));
        let log = file("log");
        let (program, owner) = match self {
            Self::Direct => panic!("there is no pooler on the straight way"),
            Self::PgBouncer(size) => {
                let (ini, users) = (file("ini"), file("users"));
                fs::write(&users, ROLES.map(|role| format!("\"{role}\" \"\"\n")).concat()).expect("our own directory");
                fs::write(&ini, pgbouncer_ini(*size, listen, postgres, &users)).expect("our own directory");
                let mut program = Command::new("/usr/sbin/pgbouncer");
                program.arg(ini);
                (program, Owner::Postgres)
            }
            Self::Pgweir(pgweir) => {
                let toml = file("toml");
                fs::write(&toml, pgweir.toml(listen, postgres)).expect("our own directory");
                let mut program = Command::new(root().join("target/release/pgweir"));
                program.args(["--log-format", "json", "--config"]).arg(toml);
                (program, Owner::Ourselves)
            }
        };
        let server = Server::start(&program, owner, Stop::Term, &log);
        answers(listen, &self.name(), &log).await;
        Started { server, log }
    }
}

/// A pooler that runs; dropped, it has ended.
pub(crate) struct Started {
    /// Its process.
    pub(crate) server: Server,
    log: PathBuf,
}

/// Waits until this server, which writes this log, accepts connections.
pub(crate) async fn answers(at: SocketAddr, name: &str, log: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(at).is_err() {
        let said = || fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline, "{name} did not start: {}", said());
        sleep(Duration::from_millis(20)).await;
    }
}

fn pgbouncer_ini(size: u32, listen: SocketAddr, postgres: u16, users: &Path) -> String {
    format!(
        "[databases]
{DBNAME} = host=127.0.0.1 port={postgres}
[pgbouncer]
listen_addr = {}
listen_port = {}
unix_socket_dir =
auth_type = trust
auth_file = {}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 10000
query_wait_timeout = {WAIT_TIMEOUT_SECONDS}
log_connections = 0
log_disconnections = 0
log_stats = 0
",
        listen.ip(),
        listen.port(),
        users.display()
    )
}
