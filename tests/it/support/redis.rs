//! A Redis of the test's own, which remembers what it was told or forgets it with every restart.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use redis::Client;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::postgres::free_port;
use super::process::bound_to_this_thread;
use super::{Pki, eventually};

/// In its directory.
const SOCKET: &str = "redis.sock";

/// A running server; dropped, it is killed.
pub(crate) struct Redis {
    pub(crate) addr: SocketAddr,
    dir: TempDir,
    arguments: Vec<String>,
    child: Child,
}

impl Redis {
    /// One that has everything on disk before it answers.
    pub(crate) async fn with_memory() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// One that begins anew whenever it starts.
    pub(crate) async fn without_memory() -> Self {
        Self::with(&["--appendonly", "no"]).await
    }

    /// One with these arguments.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let port = free_port();
        Self::at(port, &[&["--port", &port.to_string()], arguments].concat()).await
    }

    /// One that speaks TLS at [`addr`](Self::addr), and nothing else, with this certificate.
    pub(crate) async fn with_tls(pki: &Pki, name: &str) -> Self {
        let [cert, key, ca] =
            [format!("{name}.crt"), format!("{name}.key"), "ca.crt".to_owned()].map(|name| pki.path(&name));
        let [cert, key, ca] = [&cert, &key, &ca].map(|path| path.to_str().expect("UTF-8"));
        let files = ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca];
        let port = free_port();
        let ports = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
        Self::at(port, &[&files[..], &ports].concat()).await
    }

    async fn at(port: u16, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let own = ["--bind", "127.0.0.1", "--unixsocket", SOCKET, "--save", ""];
        let arguments: Vec<_> = own.iter().chain(arguments).map(|argument| argument.to_string()).collect();
        let child = start(&dir, &arguments);
        let redis = Self { addr: SocketAddr::from(([127, 0, 0, 1], port)), dir, arguments, child };
        redis.is_up().await;
        redis
    }

    /// As `notify.redis_url`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// As `[notify]`.
    pub(crate) fn bus(&self) -> String {
        format!("[notify]\nbus = \"redis\"\nredis_url = \"{}\"", self.url())
    }

    /// Its Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// Ends it, as an operator does.
    pub(crate) fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Starts it again at the same port.
    pub(crate) async fn start(&mut self) {
        self.child = start(&self.dir, &self.arguments);
        self.is_up().await;
    }

    /// A connection past every proxy.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let client = Client::open(self.url()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("it answers")
    }

    /// Whether the hash of this key has the field.
    pub(crate) async fn holds(&self, key: &str, field: &str) -> bool {
        let mut connection = self.connect().await;
        redis::cmd("HEXISTS").arg(key).arg(field).query_async(&mut connection).await.expect("it answers")
    }

    /// Waits until it has read what it remembers, and serves.
    async fn is_up(&self) {
        let log = self.dir.path().join("log");
        let serves = || fs::read_to_string(&log).is_ok_and(|log| log.contains("Ready to accept connections"));
        eventually(async || serves()).await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

fn start(dir: &TempDir, arguments: &[String]) -> Child {
    let log = File::create(dir.path().join("log")).expect("our own directory");
    let mut server = bound_to_this_thread("redis-server");
    server.args(arguments).current_dir(dir.path());
    server.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    server.spawn().expect("redis-server is installed")
}
