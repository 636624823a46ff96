//! pgweir as users run it: the real binary with a `proxy.toml` of the test's own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::SimpleQueryMessage;
use toml::Table;

use super::process::bound_to_this_thread;
use super::{Endpoint, Postgres, eventually, password_of};

/// A row of the console by column name.
pub(crate) type Row = BTreeMap<String, String>;

/// pgweir in front of the shared Postgres, until told otherwise: `proxy().pool_size(1).wait_timeout("50ms").start()`.
/// Clients find there the database `app`, new and empty, and the roles `app` and `ops` (who may use the console).
pub(crate) fn proxy() -> Builder<'static> {
    proxy_before(Postgres::shared())
}

/// The same in front of this server.
pub(crate) fn proxy_before(postgres: &Postgres) -> Builder<'_> {
    Builder {
        postgres,
        dbname: None,
        roles: vec!["app".to_owned()],
        config: Table::new(),
        log_level: "info",
        env: Vec::new(),
        socket: None,
        descriptors: None,
    }
    // Hundreds of logins at once take long on a machine that has other work; tests of the timeout set their own.
    .toml("[listen]\naddr = [\"127.0.0.1:0\"]\nstartup_timeout = \"60s\"\nlogin_timeout = \"60s\"\n[admin]\naddr = \"127.0.0.1:0\"\nroles = [\"ops\"]")
    .toml(&format!("[roles.app]\npassword = \"{}\"", password_of("app")))
    .toml(&format!("[roles.ops]\npassword = \"{}\"", password_of("ops")))
}

/// A proxy about to start.
pub(crate) struct Builder<'a> {
    postgres: &'a Postgres,
    dbname: Option<String>,
    roles: Vec<String>,
    config: Table,
    log_level: &'static str,
    env: Vec<(&'static str, OsString)>,
    socket: Option<TcpListener>,
    descriptors: Option<u32>,
}

impl<'a> Builder<'a> {
    /// In front of this server.
    pub(crate) fn postgres<'b>(self, postgres: &'b Postgres) -> Builder<'b> {
        let Self { dbname, roles, config, log_level, env, socket, descriptors, .. } = self;
        Builder { postgres, dbname, roles, config, log_level, env, socket, descriptors }
    }

    /// `app` is this database of the server, which exists.
    pub(crate) fn dbname(mut self, dbname: &str) -> Self {
        self.dbname = Some(dbname.to_owned());
        self
    }

    /// Backends are dialled here: a [`Link`](super::Link) to the server.
    pub(crate) fn backend(self, addr: SocketAddr) -> Self {
        self.toml(&format!("[databases.app]\nhost = \"{}\"\nport = {}", addr.ip(), addr.port()))
    }

    /// `pool.size`.
    pub(crate) fn pool_size(self, size: u32) -> Self {
        self.toml(&format!("[pool]\nsize = {size}"))
    }

    /// `pool.mode`.
    pub(crate) fn mode(self, mode: &str) -> Self {
        self.toml(&format!("[pool]\nmode = \"{mode}\""))
    }

    /// `pool.wait_timeout`.
    pub(crate) fn wait_timeout(self, duration: &str) -> Self {
        self.toml(&format!("[pool]\nwait_timeout = \"{duration}\""))
    }

    /// One more role, which exists at the server too, with these lines in its section.
    pub(crate) fn role(mut self, role: &str, lines: &str) -> Self {
        self.roles.push(role.to_owned());
        self.toml(&format!("[roles.{role}]\npassword = \"{}\"", password_of(role)))
            .toml(&format!("[roles.{role}]\n{lines}"))
    }

    /// Any other part of `proxy.toml`; a key written before is replaced.
    pub(crate) fn toml(mut self, text: &str) -> Self {
        merge(&mut self.config, parse(text));
        self
    }

    /// A role without a password of its own: these lines are its whole section. It exists at the server, too.
    pub(crate) fn bare_role(mut self, role: &str, lines: &str) -> Self {
        self.roles.push(role.to_owned());
        self.toml(&format!("[roles.{role}]\n{lines}"))
    }

    /// `--log-level`.
    pub(crate) fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// One more variable in its environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// It is handed this socket, as systemd does it.
    pub(crate) fn socket(mut self, socket: &TcpListener) -> Self {
        self.socket = Some(socket.try_clone().expect("a descriptor more"));
        self
    }

    /// It may open no more files than this.
    pub(crate) fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self) -> Proxy {
        for role in &self.roles {
            self.postgres.role(role).await;
        }
        let dbname = match &self.dbname {
            Some(dbname) => dbname.clone(),
            None => self.postgres.database().await,
        };
        let server = format!("host = \"127.0.0.1\"\nport = {}\ndbname = \"{dbname}\"", self.postgres.port);
        let mut config = parse(&format!("[databases.app]\n{server}"));
        merge(&mut config, self.config);

        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("proxy.toml");
        fs::write(&file, config.to_string()).expect("our own directory");
        let (log, from_child) = (Log::default(), std::io::pipe().expect("a pipe"));
        let mut command = match self.socket {
            None => {
                let mut command = match self.descriptors {
                    None => bound_to_this_thread(env!("CARGO_BIN_EXE_pgweir")),
                    Some(most) => {
                        let mut command = bound_to_this_thread("prlimit");
                        command.arg(format!("--nofile={most}:{most}")).arg(env!("CARGO_BIN_EXE_pgweir"));
                        command
                    }
                };
                command.stdin(Stdio::null());
                command
            }
            // The first that is handed over is descriptor 3.
            Some(socket) => {
                let mut command = bound_to_this_thread("sh");
                command.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null"]);
                command.arg(env!("CARGO_BIN_EXE_pgweir")).stdin(Stdio::from(OwnedFd::from(socket)));
                command
            }
        };
        command.envs(self.env).arg("--config").arg(&file);
        command.args(["--log-format", "json", "--log-level", self.log_level]);
        command.stdout(from_child.1.try_clone().expect("a pipe")).stderr(from_child.1);
        let mut child = command.spawn().expect("pgweir is built");
        drop(command); // or the pipe would stay open on our side
        let reader = log.keep(from_child.0);

        let listening = |kind: &str| log.records().iter().find_map(|record| record.listens_as(kind));
        let ready = || listening("postgres").is_some() && listening("admin").is_some();
        let exited = Mutex::new(&mut child);
        let exited = || exited.lock().is_ok_and(|mut child| child.try_wait().is_ok_and(|status| status.is_some()));
        eventually(async || ready() || exited()).await;
        let (Some(addr), Some(admin)) = (listening("postgres"), listening("admin")) else {
            reader.join().expect("it only reads");
            panic!("pgweir did not start:\n{config}\n{}", log.text());
        };
        let endpoint = Endpoint { addr, dbname: "app".to_owned() };
        Proxy { endpoint, admin, dbname, config: Mutex::new(config), file, _dir: dir, child, log, reader: Some(reader) }
    }
}

/// A running pgweir; to clients it is an [`Endpoint`]. Dropped, it is killed, and in a failing test shows its log.
pub(crate) struct Proxy {
    endpoint: Endpoint,
    /// Where `/metrics` is.
    pub(crate) admin: SocketAddr,
    /// What clients call `app`, at the server.
    pub(crate) dbname: String,
    config: Mutex<Table>,
    file: PathBuf,
    _dir: TempDir,
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
}

impl Deref for Proxy {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Proxy {
    /// What the console answers to one command.
    pub(crate) async fn console(&self, command: &str) -> Vec<Row> {
        let client = self.database("pgweir").connect("ops").await;
        let answer = client.simple_query(command).await;
        let answer = answer.unwrap_or_else(|error| panic!("console: {command}: {error:?}"));
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let cell = |row: &tokio_postgres::SimpleQueryRow, at: usize| row.get(at).unwrap_or_default().to_owned();
        let cells = |row| columns(row).into_iter().enumerate().map(move |(at, name)| (name, cell(row, at)));
        rows.map(|row| cells(row).collect()).collect()
    }

    /// One metric: the sum over its series whose labels contain all of `labels` (`role="web"`); 0 when there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let series = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
        };
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        self.metrics().lines().filter(series).filter_map(value).sum()
    }

    /// `/metrics` as it stands.
    pub(crate) fn metrics(&self) -> String {
        let (status, body) = self.http("/metrics");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Status and body of an HTTP GET on the admin address.
    pub(crate) fn http(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the admin address accepts");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status line"), body.to_owned())
    }

    /// `proxy.toml`.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes `proxy.toml` anew, with `text` over what it said before, and leaves it to pgweir to notice.
    pub(crate) fn rewrite(&self, text: &str) {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut config, parse(text));
        fs::write(&self.file, config.to_string()).expect("our own directory");
    }

    /// Writes `proxy.toml` as it is given, valid or not.
    pub(crate) fn overwrite(&self, text: &str) {
        fs::write(&self.file, text).expect("our own directory");
    }

    /// [`rewrite`](Self::rewrite), then `RELOAD` in the console: in force on return.
    pub(crate) async fn reload(&self, text: &str) {
        self.rewrite(text);
        self.console("RELOAD").await;
    }

    /// Sends pgweir a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("our own child");
    }

    /// Waits until pgweir ended; returns whether it did with status 0.
    pub(crate) async fn ended(&mut self) -> bool {
        let child = Mutex::new(&mut self.child);
        let status = || child.lock().ok().and_then(|mut child| child.try_wait().expect("our own child"));
        eventually(async || status().is_some()).await;
        status().is_some_and(|status| status.success())
    }

    /// Its process id: `setpriv` became pgweir.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything pgweir logged so far.
    pub(crate) fn log_text(&self) -> String {
        self.log.text()
    }

    /// The fields of all records so far of which this holds.
    pub(crate) fn records(&self, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.log.records().iter().map(Record::fields).filter(|fields| is(fields)).cloned().collect()
    }

    /// Waits for a record of which this holds; returns the fields of the first.
    pub(crate) async fn told(&self, is: impl Fn(&Value) -> bool) -> Value {
        eventually(async || !self.records(&is).is_empty()).await;
        self.records(&is).swap_remove(0)
    }

    /// Waits until pgweir logged a record with this message; returns its fields.
    pub(crate) async fn logged(&self, message: &str) -> Value {
        let find = || self.log.records().into_iter().find(|record| record.fields()["message"] == message);
        eventually(async || find().is_some()).await;
        find().map(|record| record.fields().clone()).expect("it was there")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
        if std::thread::panicking() {
            let _ = self.reader.take().map(JoinHandle::join); // now the log is whole
            println!("pgweir's log:\n{}", self.log.text());
        }
    }
}

/// Lines pgweir wrote, JSON records and (if it panicked) others.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Collects lines, on the thread it returns, until the writer is gone.
    fn keep(&self, reader: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                log.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    fn records(&self) -> Vec<Record> {
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok().map(Record)).collect()
    }
}

/// One JSON log line.
struct Record(Value);

impl Record {
    /// What the event said; the formatter may nest it or not.
    fn fields(&self) -> &Value {
        self.0.get("fields").unwrap_or(&self.0)
    }

    fn listens_as(&self, kind: &str) -> Option<SocketAddr> {
        let fields = self.fields();
        let matches = fields["message"] == "listening" && fields["kind"] == kind;
        matches.then(|| fields["addr"].as_str()?.parse().ok()).flatten()
    }
}

fn columns(row: &tokio_postgres::SimpleQueryRow) -> Vec<String> {
    row.columns().iter().map(|column| column.name().to_owned()).collect()
}

#[track_caller]
fn parse(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Lays `over` over `base`, section by section.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}
