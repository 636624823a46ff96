//! State that the tasks of one worker thread share, and the way for other threads to reach it.
//!
//! Clients never move between workers, backends may. Work for a worker's own thread (dials, closes, new clients)
//! reaches it through its [`Inbox`]. `run::worker` starts the threads.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::proxy::Proxy;
use crate::session::cycle::CycleState;
use crate::workload::Recorder;

/// Bytes read at once. Larger saves calls on wide results, smaller stays in the first-level cache.
const READ_SIZE: usize = 16 * 1024;

/// Copies larger than this are freed after use.
const COPY_KEPT: usize = 64 * 1024;

/// States of cycles kept for the next leases.
const SPARE_CYCLES: usize = 64;

/// Buffers of one poll. Nothing in them survives it.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Bytes of the current read.
    pub read: Box<[u8]>,
    /// Output that differs from the read.
    pub copy: Vec<u8>,
}

/// State that the tasks of one thread share.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its number, from 0.
    pub id: usize,
    pub proxy: Arc<Proxy>,
    /// Counts statements; `None`: nobody does.
    pub recorder: Option<Recorder>,
    buffers: RefCell<Buffers>,
    #[expect(clippy::vec_box, reason = "they are handed out boxed")]
    cycles: RefCell<Vec<Box<CycleState>>>,
}

impl Worker {
    /// Worker `id`, counted from 0, with buffers of its own.
    pub(crate) fn new(id: usize, proxy: Arc<Proxy>) -> Self {
        let buffers = Buffers { read: vec![0; READ_SIZE].into(), copy: Vec::new() };
        let recorder = proxy.workload.as_ref().map(|workload| Recorder::new(id, Arc::clone(workload)));
        Self { id, proxy, recorder, buffers: RefCell::new(buffers), cycles: RefCell::default() }
    }

    /// The buffers, for one poll.
    #[inline]
    pub(crate) fn buffers(&self) -> RefMut<'_, Buffers> {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.copy.capacity() > COPY_KEPT {
            buffers.copy = Vec::new();
        }
        buffers
    }

    /// Cycle state for a new lease.
    #[inline]
    pub(crate) fn cycle(&self) -> Box<CycleState> {
        self.cycles.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the cycle state of an ended lease back.
    #[inline]
    pub(crate) fn keep_cycle(&self, mut cycle: Box<CycleState>) {
        let mut spare = self.cycles.borrow_mut();
        if spare.len() < SPARE_CYCLES && cycle.recycle() {
            spare.push(cycle);
        }
    }
}

/// One connection in the count of its worker, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

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

/// Work for a worker on its own thread.
pub(crate) type Job = Box<dyn FnOnce(Rc<Worker>) + Send>;

/// A worker as others see it.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    jobs: mpsc::Sender<Job>,
    connections: Arc<AtomicUsize>,
}

impl Inbox {
    /// The sending end of a worker's queue of jobs.
    pub(crate) fn new(jobs: mpsc::Sender<Job>) -> Self {
        Self { jobs, connections: Arc::default() }
    }

    /// Number of connections the worker serves.
    pub(crate) fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts one more connection that the worker serves.
    pub(crate) fn count(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Runs a job on the worker's own thread. A worker that is gone runs nothing: the process is going down.
    pub(crate) async fn send(&self, job: impl FnOnce(Rc<Worker>) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job)).await;
    }

    /// Runs a job on the worker's thread and waits for its result; `None` if the worker is gone.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Rc<Worker>) -> R + Send + 'static,
    ) -> Option<R> {
        let (tell, told) = oneshot::channel();
        let job = move |worker: Rc<Worker>| {
            let _ = tell.send(work(&worker));
        };
        self.jobs.send(Box::new(job)).await.ok()?;
        told.await.ok()
    }
}
