//! Bystanders: a statement at a steady pace, whatever becomes of the ones before. Latency counts from the planned time,
//! so that a server that answers nothing for ten seconds shows ten seconds of late answers, not one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::session::{Failure, Session};

/// Before it tries again after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// What they do.
#[derive(Clone)]
pub(crate) struct OpenLoop {
    /// Where they log in.
    pub(crate) port: u16,
    /// As whom.
    pub(crate) role: &'static str,
    /// Connections, each for one statement at a time.
    pub(crate) sessions: usize,
    /// Statements per second.
    pub(crate) rate: u32,
    /// The statement.
    pub(crate) sql: &'static str,
}

/// One statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// When it was to be sent.
    pub(crate) planned: Instant,
    /// Until its answer; without one, until the end.
    pub(crate) latency: Duration,
}

/// All statements, in planned order.
#[derive(Default)]
pub(crate) struct Beats {
    /// Each, answered or not.
    pub(crate) all: Vec<Beat>,
    /// What went wrong, how often. A statement is tried again until it succeeds.
    pub(crate) failures: BTreeMap<Failure, u32>,
}

impl Beats {
    /// Latencies of those planned in a span of time.
    pub(crate) fn latencies(&self, from: Instant, to: Instant) -> Vec<Duration> {
        self.all.iter().filter(|beat| (from..to).contains(&beat.planned)).map(|beat| beat.latency).collect()
    }
}

/// An open loop that runs, on a thread of its own so that the load's work does not show as its latency.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Beats>,
}

impl OpenLoop {
    /// Logs in, then begins.
    pub(crate) async fn start(self) -> Running {
        let (stop, stopped) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let thread = std::thread::spawn(move || crate::runtime().block_on(self.beat(begin, stopped)));
        begun.await.expect("the bystanders log in");
        Running { stop, thread }
    }

    async fn beat(self, begin: oneshot::Sender<()>, stopped: oneshot::Receiver<()>) -> Beats {
        let sessions = Session::crowd(self.port, self.role, self.sessions).await;
        for session in &sessions {
            // A first answer fills caches and opens what a pool needs.
            session.run(self.sql).await.expect("nothing is wrong yet");
        }
        let gap = Duration::from_secs(1) / self.rate;
        let (first, next) = (Instant::now() + gap, Rc::new(Cell::new(0)));
        let answers: Rc<RefCell<Vec<Option<Duration>>>> = Rc::default();
        let failures: Rc<RefCell<BTreeMap<Failure, u32>>> = Rc::default();
        let workers = LocalSet::new();
        for mut session in sessions {
            let (next, answers, failures) = (Rc::clone(&next), Rc::clone(&answers), Rc::clone(&failures));
            let Self { port, role, sql, .. } = self;
            workers.spawn_local(async move {
                loop {
                    let number = next.replace(next.get() + 1);
                    let planned = first + gap * number;
                    sleep_until(planned).await;
                    while let Err(failure) = session.run(sql).await {
                        let lost = failure == Failure::Connection;
                        *failures.borrow_mut().entry(failure).or_default() += 1;
                        sleep(PAUSE).await;
                        if lost && let Ok(new) = Session::login(port, role).await {
                            session = new;
                        }
                    }
                    let index = number as usize;
                    let mut answers = answers.borrow_mut();
                    if answers.len() <= index {
                        answers.resize(index + 1, None);
                    }
                    answers[index] = Some(planned.elapsed());
                }
            });
        }
        begin.send(()).expect("somebody starts it");
        // Whether told to stop or forgotten, it is over.
        let _ = workers.run_until(stopped).await;
        let end = Instant::now();
        drop(workers);
        let answered = answers.take();
        let planned = |number| first + gap * number;
        let all = (0..).map_while(|number| (planned(number) < end).then(|| (number as usize, planned(number))));
        let beat = |(index, planned): (usize, Instant)| {
            let latency = answered.get(index).copied().flatten().unwrap_or(end - planned);
            Beat { planned, latency }
        };
        Beats { all: all.map(beat).collect(), failures: failures.take() }
    }
}

impl Running {
    /// Ends it; what has no answer yet counts with its age.
    pub(crate) fn stop(self) -> Beats {
        // A thread that has ended tells why below.
        let _ = self.stop.send(());
        self.thread.join().expect("bystanders do not panic")
    }
}
