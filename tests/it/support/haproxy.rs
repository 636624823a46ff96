//! Debian's haproxy in front of pgweirs: each connection goes to the next of them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::postgres::free_port;
use super::process::bound_to_this_thread;
use super::{Endpoint, Proxy, eventually};

/// A running balancer; dropped, it is killed.
pub(crate) struct Haproxy {
    addr: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Haproxy {
    /// Before these, with more words for each of its servers (`send-proxy-v2`).
    pub(crate) async fn before(proxies: &[Proxy], words: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let servers =
            proxies.iter().enumerate().map(|(number, proxy)| format!(" server {number} {} {words}\n", proxy.addr));
        let config = format!(
            "defaults\n mode tcp\n timeout connect 60s\n timeout client 1d\n timeout server 1d\n\
             listen pg\n bind {addr}\n balance roundrobin\n{}",
            servers.collect::<String>()
        );
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, config).expect("our own directory");
        let mut haproxy = bound_to_this_thread("haproxy");
        haproxy.arg("-db").arg("-f").arg(&file);
        haproxy.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = haproxy.spawn().expect("haproxy is installed");
        let haproxy = Self { addr, child, _dir: dir };
        eventually(async || TcpStream::connect(addr).await.is_ok()).await;
        haproxy
    }

    /// Where clients log in.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { addr: self.addr, dbname: "app".to_owned() }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}
