//! Every default, in one place. `proxy.toml` states the same values, and a test compares.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::available_parallelism;
use std::time::Duration;

use super::{Admin, BackendTls, BackendTlsMode, ClientTls, Listen, ListenAddr, Pool, PoolMode, Standing};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `databases.*.port`.
pub(super) const PORT: u16 = 5432;

/// `databases.*.standing`.
pub(super) const STANDING: Standing = Standing::Any;

/// `databases.*.auth_query.query`: the secret of a role that may log in, and none once it has expired.
pub(super) const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END \
     FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

impl Default for Listen {
    fn default() -> Self {
        Self {
            addr: vec![ListenAddr::Tcp(SocketAddr::new(LOOPBACK, 6432))],
            clients_max: 10_000,
            login_timeout: Duration::from_secs(15),
            idle_timeout: Duration::ZERO,
            workers: available_parallelism().map_or(1, usize::from),
            // Less than the 30 s that Kubernetes and docker-compose habits leave before SIGKILL.
            shutdown_timeout: Duration::from_secs(25),
            tls: ClientTls::Disable,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { addr: Some(SocketAddr::new(LOOPBACK, 9432)), roles: Vec::new() }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: PoolMode::Transaction,
            size: 20,
            wait_timeout: Duration::from_secs(30),
            waiters_max: 20_000,
            statements_max: 500,
            idle_timeout: Duration::from_secs(10 * 60),
            lifetime: Duration::from_secs(60 * 60),
            connect_timeout: Duration::from_secs(5),
            cancel_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for BackendTls {
    fn default() -> Self {
        Self { mode: BackendTlsMode::Prefer, ca: None, identity: None }
    }
}
