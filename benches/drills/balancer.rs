//! Several poolers, each on a loopback address of its own, with Debian's haproxy in front of them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use crate::route::{Route, Started, answers};
use crate::supervisor::{Owner, Server, Stop};

/// The addresses of so many poolers: 127.0.0.1, 127.0.0.2 and so on, with one port.
pub(crate) fn addresses(count: u8) -> Vec<SocketAddr> {
    let port = crate::free_port();
    (1..=count).map(|host| SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port))).collect()
}

/// `fleet.peers`.
pub(crate) fn peers(addresses: &[SocketAddr]) -> String {
    format!("{:?}", addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>())
}

/// haproxy in front of poolers, which hands each connection to the next of them; dropped, all of it has ended.
pub(crate) struct Balanced {
    /// Where clients log in.
    pub(crate) port: u16,
    _haproxy: Server,
    _poolers: Vec<Started>,
}

impl Balanced {
    /// Starts a pooler at each of these addresses, and haproxy.
    pub(crate) async fn start(route: &Route, at: &[SocketAddr], postgres: u16, dir: &Path) -> Self {
        let mut poolers = Vec::new();
        for addr in at {
            poolers.push(route.start(*addr, postgres, dir).await);
        }
        let port = crate::free_port();
        let servers: String = at.iter().map(|addr| format!(" server {addr} {addr}\n")).collect();
        let config = format!(
            "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n\
             listen pg\n bind 127.0.0.1:{port}\n balance roundrobin\n{servers}"
        );
        let (file, log) = (dir.join("haproxy.cfg"), dir.join("haproxy.log"));
        fs::write(&file, config).expect("our own directory");
        let mut program = Command::new("haproxy");
        program.arg("-db").arg("-f").arg(file);
        let haproxy = Server::start(&program, Owner::Ourselves, Stop::Term, &log);
        answers(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "haproxy", &log).await;
        Self { port, _haproxy: haproxy, _poolers: poolers }
    }
}
