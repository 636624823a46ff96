//! Debian's Redis, which keeps nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::route::answers;
use crate::supervisor::{Owner, Server, Stop};

/// One that can be stopped and started again; dropped, it has ended.
pub(crate) struct RedisServer {
    port: u16,
    dir: PathBuf,
    server: Option<Server>,
}

impl RedisServer {
    /// A running one, with its files in `dir`.
    pub(crate) async fn start_in(dir: &Path) -> Self {
        let mut redis = Self { port: crate::free_port(), dir: dir.to_owned(), server: None };
        redis.start().await;
        redis
    }

    /// Starts it where it was.
    pub(crate) async fn start(&mut self) {
        let (port, log) = (self.port.to_string(), self.dir.join("redis.log"));
        let mut program = Command::new("/usr/bin/redis-server");
        program.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir"]);
        program.arg(&self.dir);
        self.server = Some(Server::start(&program, Owner::Ourselves, Stop::Term, &log));
        answers(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), "Redis", &log).await;
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    /// Has it forget everything.
    pub(crate) async fn forget(&self) {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it runs");
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("anybody may");
    }

    /// As pgweir's file has it.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
