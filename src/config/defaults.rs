//! Every default, in one place. `proxy.toml` states the same values, and a test compares.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::available_parallelism;
use std::time::Duration;

use super::{
    Admin, Admission, AdmissionMode, BackendTls, BackendTlsMode, Bus, ClientTls, Jitter, Listen, ListenAddr, Notify,
    NotifyMode, OnConvoy, OnGap, OnIdleHolder, Pool, PoolMode, Priority, RateWhen, RoleAdmission, Standing, Watch,
    WhenDown,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `databases.*.port`.
pub(super) const PORT: u16 = 5432;

/// `databases.*.standing`.
pub(super) const STANDING: Standing = Standing::Any;

/// `databases.*.auth_query.query`: the secret of a role that may log in, and none once it has expired.
pub(super) const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END \
     FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

/// `roles.*.rate_burst`.
pub(super) const RATE_BURST: u32 = 20;

/// `roles.*.rate_delay_max`, unless half of the longest `wait_timeout` is shorter.
pub(super) const RATE_DELAY_MAX: Duration = Duration::from_secs(2);

/// `roles.*.rate_when`.
pub(super) const RATE_WHEN: RateWhen = RateWhen::Burst;

impl Default for Listen {
    fn default() -> Self {
        Self {
            addr: vec![ListenAddr::Tcp(SocketAddr::new(LOOPBACK, 6432))],
            reuse_port: false,
            clients_max: 10_000,
            login_timeout: Duration::from_secs(15),
            idle_timeout: Duration::ZERO,
            workers: available_parallelism().map_or(1, usize::from),
            linger: Duration::ZERO,
            // Less than the 30 s that Kubernetes and docker-compose habits leave before SIGKILL.
            shutdown_timeout: Duration::from_secs(25),
            tls: ClientTls::Disable,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        let addr = SocketAddr::new(LOOPBACK, 9432);
        Self { addr: Some(addr), roles: Vec::new(), stats_roles: Vec::new(), token: None, hosts: Vec::new() }
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

/// How long a login may be delayed by default: well below the time it has in all.
pub(super) fn login_delay_max(login_timeout: Duration) -> Duration {
    login_timeout * 2 / 3
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            mode: AdmissionMode::On,
            initial: 8,
            slow_start_idle: Duration::from_secs(1),
            jitter: Jitter::Soft,
            jitter_window: Duration::from_millis(250),
            spread_max: Duration::from_secs(1),
            notice_after: Duration::from_secs(5),
            // What one worker can log in, about: it does not slow down who connects for every query, and every client that
            // `clients_max` lets in has logged in again two seconds after a restart.
            login_rate: Some(5000.0),
            login_burst: 1000,
            login_delay_max: login_delay_max(Listen::default().login_timeout),
            login_concurrency: 32,
            login_rate_per_address: None,
            cancel_rate_per_address: Some(100.0),
            zombie_max: Duration::from_secs(60),
        }
    }
}

impl Default for RoleAdmission {
    fn default() -> Self {
        Self {
            transactions_max: None,
            transactions_min: 0,
            waiters_max: None,
            priority: Priority::Interactive,
            weight: 1,
            ramp: None,
            rate: None,
            adaptive: false,
            jitter: None,
            spread_max: None,
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            mode: NotifyMode::Intercept,
            bus: Bus::Postgres,
            redis_url: None,
            stream_max: 10_000,
            listener_queue: 1024 * 1024,
            bus_queue: 100_000,
            when_down: WhenDown::Postgres,
            on_gap: OnGap::Disconnect,
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            login: None,
            convoy_waiters: 50,
            blocked: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(20),
            long_statement: Duration::from_secs(5 * 60),
            horizon_age: Duration::from_secs(5 * 60),
            horizon_transactions: 1_000_000,
            dead_tuples: 10_000,
            outside_max: None,
            on_convoy: OnConvoy::Observe,
            on_idle_holder: OnIdleHolder::Observe,
        }
    }
}
