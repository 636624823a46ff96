//! Counts at the server, asked for time and again on a thread of their own, from a connection opened before. The server
//! may stop and start meanwhile.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::session::Session;

/// A server that has just come up, or is stormed, takes its time.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// One look.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// When it was asked for.
    pub(crate) at: Instant,
    /// One for each column.
    pub(crate) counts: Vec<u64>,
}

/// Somebody who looks.
pub(crate) struct Looks {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<Look>>,
}

impl Looks {
    /// Begins to ask the server on this port, as its superuser.
    pub(crate) async fn start(port: u16, sql: String, period: Duration) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let thread = thread::spawn(move || {
            crate::runtime().block_on(async {
                let mut looks = Vec::new();
                tokio::select! {
                    () = look(port, &sql, period, begin, &mut looks) => {}
                    _ = &mut stopped => {}
                }
                looks
            })
        });
        begun.await.expect("connections are reserved for the superuser");
        Self { stop, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Vec<Look> {
        // A thread that has ended tells why below.
        let _ = self.stop.send(());
        self.thread.join().expect("who looks does not panic")
    }
}

async fn look(port: u16, sql: &str, period: Duration, begin: oneshot::Sender<()>, looks: &mut Vec<Look>) {
    let mut session = Session::login(port, "postgres").await.ok();
    begin.send(()).expect("somebody starts it");
    let mut ticks = interval(period);
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
                let counts = row.iter().map(|count| count.parse().expect("a count")).collect();
                looks.push(Look { at, counts });
            }
            Err(_) => session = None,
        }
    }
}
