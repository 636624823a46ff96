//! What the server says about the backends of one role, five times a second, from a connection opened before.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::session::Session;

/// The function, not the view pg_stat_activity: that joins catalogs, and hangs when the lock manager does.
const COUNTS: &str = "
SELECT count(*) FILTER (WHERE wait_event_type = 'Lock' OR wait_event = 'LockManager'),
       count(*) FILTER (WHERE state = 'active'),
       count(*) FILTER (WHERE state <> 'idle')
FROM pg_stat_get_activity(NULL) WHERE usesysid = ";

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);

/// A server that has just come up, or is stormed, takes its time.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// One look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was asked for.
    pub(crate) at: Instant,
    /// Backends in the queue of a lock, or checking it for a deadlock.
    pub(crate) waiting: u64,
    /// Backends that run a statement.
    pub(crate) active: u64,
    /// Backends that run a statement or have a transaction open.
    pub(crate) busy: u64,
}

/// A sampler that runs, on a thread of its own.
pub(crate) struct Sampler {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Begins to look at the backends of `role` at the server on `port`. It may stop and start meanwhile.
    pub(crate) async fn start(port: u16, role: &'static str) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let admin = Session::login(port, "postgres").await.expect("connections are reserved for the superuser");
        let oid = admin
            .number(&format!("SELECT oid FROM pg_roles WHERE rolname = '{role}'"))
            .await
            .expect("the role is there");
        drop(admin);
        let (begin, begun) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            crate::runtime().block_on(async {
                let mut samples = Vec::new();
                let sql = format!("{COUNTS}{oid}");
                let looking = look(port, &sql, begin, &mut samples);
                tokio::select! {
                    () = looking => {}
                    _ = &mut stopped => {}
                }
                samples
            })
        });
        begun.await.expect("the sampler logs in");
        Self { stop, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Vec<Sample> {
        // A thread that has ended tells why below.
        let _ = self.stop.send(());
        self.thread.join().expect("the sampler does not panic")
    }
}

async fn look(port: u16, sql: &str, begin: oneshot::Sender<()>, samples: &mut Vec<Sample>) {
    let mut session = Session::login(port, "postgres").await.ok();
    begin.send(()).expect("somebody starts it");
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = Instant::now();
        let Some(open) = &session else {
            session = timeout(LOGIN_TIMEOUT, Session::login(port, "postgres")).await.ok().and_then(Result::ok);
            continue;
        };
        match open.row(sql).await {
            Ok(row) => {
                let count = |column: usize| row[column].parse().expect("a count");
                samples.push(Sample { at, waiting: count(0), active: count(1), busy: count(2) });
            }
            Err(_) => session = None,
        }
    }
}
