//! Clients that listen, and whether what they heard is what was committed: all of it, nothing else, in order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::wire::Wire;

/// As whom.
const ROLE: &str = "web";

/// Logins under way at once.
const LOGINS_MAX: usize = 48;

/// What is in no order: different ways to notify, different writers.
pub(crate) type Stream = (u8, u16);

/// The payload of the `number`th notification of a stream.
pub(crate) fn payload((way, writer): Stream, number: u32) -> String {
    format!("{way} {writer} {number}")
}

/// A notification as a listener got it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// In what order it belongs.
    pub(crate) stream: Stream,
    /// Its place there.
    pub(crate) number: u32,
    /// When.
    pub(crate) at: Instant,
}

impl Heard {
    fn read(payload: &str, at: Instant) -> Option<Self> {
        let mut words = payload.split(' ');
        let stream = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { stream, number: words.next()?.parse().ok()?, at })
    }
}

/// Listeners, on a thread of their own.
pub(crate) struct Listeners {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<Vec<Heard>>>,
    heard: Arc<AtomicUsize>,
    count: usize,
}

impl Listeners {
    /// So many of them log in on a port and listen to `channel`. Each rests between two reads, so that waking it up
    /// costs a shared machine less.
    pub(crate) async fn start(port: u16, count: usize, channel: &'static str, rest: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let heard = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            crate::runtime().block_on(async {
                let listeners = crowd(port, (0..count).map(|_| channel.to_owned())).await;
                begin.send(()).expect("somebody starts it");
                listen(listeners, rest, counter, stopped).await
            })
        });
        begun.await.expect("listeners log in");
        Self { stop, thread, heard, count }
    }

    /// Waits until all have heard so much, or no more comes; returns what each heard.
    pub(crate) async fn stop_after(self, expected: usize) -> Vec<Vec<Heard>> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let heard = self.heard.load(Ordering::Relaxed);
            if heard > before {
                (before, since) = (heard, Instant::now());
            }
            if heard >= expected * self.count || since.elapsed() > SILENCE {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        // What comes twice comes soon.
        sleep(Duration::from_millis(100)).await;
        let _ = self.stop.send(());
        self.thread.join().expect("listeners do not panic")
    }
}

/// Nothing more is on its way after this long.
const SILENCE: Duration = Duration::from_secs(5);

/// Clients that listen, each to its channel.
pub(crate) async fn crowd(port: u16, channels: impl Iterator<Item = String>) -> Vec<Wire> {
    let login = |channel: String| async move {
        let mut wire = Wire::login(port, ROLE).await?;
        wire.run(&format!("LISTEN {channel}")).await?;
        std::io::Result::Ok(wire)
    };
    let logins = iter(channels).map(login).buffer_unordered(LOGINS_MAX);
    logins.map(|wire| wire.unwrap_or_else(|error| panic!("a listener: {error}"))).collect().await
}

async fn listen(
    listeners: Vec<Wire>,
    rest: Duration,
    counter: Arc<AtomicUsize>,
    stopped: oneshot::Receiver<()>,
) -> Vec<Vec<Heard>> {
    let tasks = LocalSet::new();
    let mut heard: Vec<Rc<RefCell<Vec<Heard>>>> = Vec::new();
    for mut listener in listeners {
        let mine = Rc::<RefCell<Vec<Heard>>>::default();
        heard.push(Rc::clone(&mine));
        let counter = Arc::clone(&counter);
        tasks.spawn_local(async move {
            // One that is disconnected shows by what it did not hear.
            while let Ok(notifications) = listener.notifications().await {
                let at = Instant::now();
                counter.fetch_add(notifications.len(), Ordering::Relaxed);
                mine.borrow_mut().extend(notifications.iter().filter_map(|one| Heard::read(one.texts()?.1, at)));
                if !rest.is_zero() {
                    sleep(rest).await;
                }
            }
        });
    }
    // Whether told to stop or forgotten, it is over.
    let _ = tasks.run_until(stopped).await;
    heard.iter().map(|heard| heard.take()).collect()
}

/// How what listeners heard differs from what was committed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    /// Notifications that every listener should have heard.
    pub(crate) committed: usize,
    /// Not heard by some listener.
    pub(crate) lost: usize,
    /// Heard though never committed, or twice.
    pub(crate) surplus: usize,
    /// Heard before one that was committed earlier.
    pub(crate) early: usize,
}

impl Verdict {
    /// Compares what each listener heard with the numbers that were committed, in order, on each stream.
    pub(crate) fn new(committed: &BTreeMap<Stream, Vec<u32>>, heard: &[Vec<Heard>]) -> Self {
        let mut verdict = Self { committed: committed.values().map(Vec::len).sum(), ..Self::default() };
        for heard in heard {
            let mut streams: BTreeMap<Stream, Vec<u32>> = BTreeMap::new();
            for one in heard {
                streams.entry(one.stream).or_default().push(one.number);
            }
            for (stream, expected) in committed {
                let mut came = streams.remove(stream).unwrap_or_default();
                verdict.early += came.windows(2).filter(|pair| pair[0] > pair[1]).count();
                came.sort_unstable();
                let all = came.len();
                came.dedup();
                let known = came.iter().filter(|number| expected.binary_search(number).is_ok()).count();
                verdict.lost += expected.len() - known;
                verdict.surplus += all - known;
            }
            verdict.surplus += streams.values().map(Vec::len).sum::<usize>();
        }
        verdict
    }

    /// Of several runs together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            committed: self.committed + other.committed,
            lost: self.lost + other.lost,
            surplus: self.surplus + other.surplus,
            early: self.early + other.early,
        }
    }

    /// How many notifications some listener did not hear as it should.
    pub(crate) fn wrong(&self) -> usize {
        self.lost + self.surplus + self.early
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.committed)?;
        for (count, what) in [(self.lost, "lost"), (self.surplus, "surplus"), (self.early, "early")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
