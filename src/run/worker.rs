//! One thread that serves clients: a current-thread runtime, an inbox, and buffers that all its tasks share.
//!
//! Clients never move between workers, backends may. What must run on a worker (dials, closes, new clients) reaches it
//! through its inbox.

use std::cell::{RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::net::listen::Accepted;
use crate::pool::clock::TICK;
use crate::pool::standing;
use crate::proxy::Proxy;
use crate::session::leased::Books;
use crate::session::login;

/// Bytes read at once. Larger saves calls on wide results, smaller stays in the first-level cache.
const READ_SIZE: usize = 16 * 1024;

/// Copies larger than this are given back after use.
const COPY_KEPT: usize = 64 * 1024;

/// Books kept for the next leases.
const SPARE_BOOKS: usize = 64;

/// Connections that may wait for a worker to take them in; beyond that the acceptor waits.
const INBOX: usize = 1024;

/// Buffers of one poll. Nothing in them survives it.
#[derive(Debug)]
pub struct Buffers {
    /// What a read returns.
    pub read: Box<[u8]>,
    /// Output that differs from the read.
    pub copy: Vec<u8>,
}

/// What the tasks of one thread share.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub id: usize,
    /// The process.
    pub proxy: Arc<Proxy>,
    buffers: RefCell<Buffers>,
    #[expect(clippy::vec_box, reason = "they are handed out boxed")]
    books: RefCell<Vec<Box<Books>>>,
}

impl Worker {
    fn new(id: usize, proxy: Arc<Proxy>) -> Self {
        let buffers = Buffers { read: vec![0; READ_SIZE].into(), copy: Vec::new() };
        Self { id, proxy, buffers: RefCell::new(buffers), books: RefCell::default() }
    }

    /// The buffers, for one poll.
    #[inline]
    pub fn buffers(&self) -> RefMut<'_, Buffers> {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.copy.capacity() > COPY_KEPT {
            buffers.copy = Vec::new();
        }
        buffers
    }

    /// Books for a new lease.
    #[inline]
    pub fn books(&self) -> Box<Books> {
        self.books.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the books of an ended lease back.
    #[inline]
    pub fn keep_books(&self, mut books: Box<Books>) {
        let mut spare = self.books.borrow_mut();
        if spare.len() < SPARE_BOOKS && books.ring.is_at_rest() {
            books.reset();
            spare.push(books);
        }
    }
}

/// One connection in a count, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something for a worker to do on its own thread.
type Job = Box<dyn FnOnce(Rc<Worker>) + Send>;

/// A worker as others see it.
#[derive(Debug, Clone)]
pub struct Inbox {
    jobs: mpsc::Sender<Job>,
    connections: Arc<AtomicUsize>,
}

impl Inbox {
    /// Connections it serves.
    pub fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Has the worker serve a connection from its first byte.
    pub async fn serve(&self, accepted: Accepted) {
        let counted = Counted::new(&self.connections);
        let job = |worker: Rc<Worker>| {
            tokio::task::spawn_local(async move {
                login::serve(worker, accepted).await;
                drop(counted);
            });
        };
        // A worker that is gone takes nobody in: the process is going down.
        let _ = self.jobs.send(Box::new(job)).await;
    }

    /// Runs something on the worker's thread and waits for what comes of it; `None` if the worker is gone.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce(&Rc<Worker>) -> R + Send + 'static) -> Option<R> {
        let (tell, told) = oneshot::channel();
        let job = move |worker: Rc<Worker>| {
            let _ = tell.send(work(&worker));
        };
        self.jobs.send(Box::new(job)).await.ok()?;
        told.await.ok()
    }
}

/// Threads for blocking work of one worker: password hashing and name resolution.
const BLOCKING_THREADS: usize = 4;

/// Starts worker `id` on a thread of its own. It ends when all its inboxes are dropped.
pub async fn start(id: usize, proxy: Arc<Proxy>) -> io::Result<Inbox> {
    let (jobs, inbox) = mpsc::channel::<Job>(INBOX);
    let (tell, started) = oneshot::channel();
    std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        let mut builder = Builder::new_current_thread();
        let built = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build_local(LocalOptions::default());
        match built {
            Ok(runtime) => {
                let _ = tell.send(Ok(()));
                runtime.block_on(work(Rc::new(Worker::new(id, proxy)), inbox));
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    })?;
    started.await.map_err(io::Error::other)??;
    Ok(Inbox { jobs, connections: Arc::default() })
}

async fn work(worker: Rc<Worker>, mut inbox: mpsc::Receiver<Job>) {
    tokio::task::spawn_local(keep(Rc::clone(&worker)));
    if worker.id == 0 {
        tokio::task::spawn_local(follow_names(Rc::clone(&worker)));
    }
    while let Some(job) = inbox.recv().await {
        job(Rc::clone(&worker));
    }
}

/// Failovers that only DNS tells of.
async fn follow_names(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(standing::RESOLVE_EVERY).await;
        standing::follow_names(&worker.proxy.pools, worker.id).await;
    }
}

/// The coarse clock of a worker: it looks after pools and idle backends.
async fn keep(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        worker.proxy.tick(worker.id);
    }
}
