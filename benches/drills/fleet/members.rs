//! The instances, and the clients of each.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::balancer::addresses;
use crate::postgres::Postgres;
use crate::route::{Pgweir, Route, Started};
use crate::session::Session;
use crate::supervisor::Scratch;

/// Of the role, over all instances.
pub(super) const LIMIT: u32 = 40;

/// Instances that there may be.
pub(super) const MOST: usize = 4;

/// Of each instance.
const CLIENTS: usize = 60;

/// Before a client tries to log in again.
const PAUSE: Duration = Duration::from_millis(100);

/// Clients are told how many of each instance are to work.
type Demand = [usize; MOST];

/// `application_name` of the clients of an instance.
fn name(member: usize) -> String {
    format!("of {}", member + 1)
}

/// Open transactions of each instance.
pub(super) fn counts(oid: u64) -> String {
    let count = |member| format!("count(*) FILTER (WHERE application_name = '{}')", name(member));
    let counts = (0..MOST).map(count).collect::<Vec<_>>().join(", ");
    // The backends' own table, not the view: that joins catalogs.
    format!("SELECT {counts} FROM pg_stat_get_activity(NULL) WHERE usesysid = {oid} AND state <> 'idle'")
}

/// The instances and their clients; dropped, all are gone.
pub(super) struct Members {
    route: Route,
    postgres: u16,
    dir: PathBuf,
    at: Vec<SocketAddr>,
    running: Vec<Option<Started>>,
    demand: watch::Sender<Demand>,
    clients: JoinSet<()>,
}

impl Members {
    /// So many, with this section in their files.
    pub(super) async fn start(count: usize, section: &str, postgres: &Postgres, files: &Scratch) -> Self {
        let pgweir = Pgweir {
            fleet: section.to_owned(),
            admission: "[admission]\nmode = \"off\"".to_owned(),
            ..Pgweir::capped(LIMIT)
        };
        let mut members = Self {
            route: Route::Pgweir(pgweir),
            postgres: postgres.port,
            dir: files.path.clone(),
            at: addresses(u8::try_from(MOST).expect("a few")),
            running: Vec::new(),
            demand: watch::channel(Demand::default()).0,
            clients: JoinSet::new(),
        };
        for _ in 0..count {
            members.join().await;
        }
        // They know of each other.
        sleep(Duration::from_secs(6)).await;
        members
    }

    /// One more, with its clients.
    pub(super) async fn join(&mut self) {
        let member = self.running.len();
        self.running.push(None);
        self.restart(member).await;
        let mut sessions = Vec::new();
        for _ in 0..CLIENTS {
            sessions.push(login(self.at[member], member).await);
        }
        for (client, session) in sessions.into_iter().enumerate() {
            let (at, demand) = (self.at[member], self.demand.subscribe());
            self.clients.spawn(work(at, member, client, session, demand));
        }
    }

    /// Starts one that has ended.
    pub(super) async fn restart(&mut self, member: usize) {
        self.running[member] = None;
        self.running[member] = Some(self.route.start(self.at[member], self.postgres, Path::new(&self.dir)).await);
    }

    /// Sends one a signal.
    pub(super) fn signal(&self, member: usize, signal: Signal) {
        let pid = self.running[member].as_ref().expect("it runs").server.pid;
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not 0");
        kill_process(pid, signal).expect("our own");
    }

    /// So many clients of each are to work.
    pub(super) fn demand(&self, of: &[usize]) {
        let mut demand = Demand::default();
        demand[..of.len()].copy_from_slice(of);
        self.demand.send_replace(demand);
    }
}

async fn login(at: SocketAddr, member: usize) -> Option<Session> {
    Session::login_as(at, "burst", Some(&name(member))).await.ok()
}

/// One transaction after the other, while it is told to.
async fn work(
    at: SocketAddr,
    member: usize,
    client: usize,
    mut session: Option<Session>,
    mut demand: watch::Receiver<Demand>,
) {
    loop {
        if demand.wait_for(|demand| client < demand[member]).await.is_err() {
            return;
        }
        if session.is_none() {
            session = login(at, member).await;
        }
        let is_done = match &session {
            Some(session) => transaction(session).await,
            None => false,
        };
        if !is_done {
            session = None;
            sleep(PAUSE).await;
        }
    }
}

async fn transaction(session: &Session) -> bool {
    for sql in ["BEGIN; SELECT pg_sleep(0.05)", "COMMIT"] {
        if session.run(sql).await.is_err() {
            return false;
        }
    }
    true
}
