//! State that the tasks of one worker thread share, and the way for other threads to reach it.
//!
//! Work for a worker's own thread (dials, closes, clients) reaches it through its [`Inbox`]. `run::worker` starts the
//! threads, `run::spread` decides how many of them serve, and which clients move.

use std::cell::{OnceCell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};

use crate::pool::core::PoolId;
use crate::proxy::Proxy;
use crate::proxy::worker_load::{Counted, WorkerLoad};
use crate::recorder::FlightLog;
use crate::session::cycle::CycleState;
use crate::session::stopwatch::LeaseTimes;
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
    /// How busy it is, and which clients it is to give away.
    pub load: Arc<WorkerLoad>,
    /// The ways to all workers, once they run.
    inboxes: OnceCell<Weak<[Inbox]>>,
    /// Counts statements; `None`: nobody does.
    pub recorder: Option<Recorder>,
    /// Records transactions; `None`: nobody does.
    pub flight: Option<FlightLog<PoolId>>,
    buffers: RefCell<Buffers>,
    #[expect(clippy::vec_box, reason = "they are handed out boxed")]
    cycles: RefCell<Vec<Box<CycleState>>>,
}

impl Worker {
    /// Worker `id`, counted from 0, with buffers of its own.
    pub(crate) fn new(id: usize, proxy: Arc<Proxy>) -> Self {
        let load = Arc::clone(&proxy.loads[id]);
        let buffers = Buffers { read: vec![0; READ_SIZE].into(), copy: Vec::new() };
        let recorder = proxy.workload.as_ref().map(|workload| Recorder::new(id, Arc::clone(workload)));
        let flight = proxy.recorder.as_ref().map(|recorder| FlightLog::new(Arc::clone(recorder)));
        let inboxes = OnceCell::new();
        Self { id, proxy, load, inboxes, recorder, flight, buffers: RefCell::new(buffers), cycles: RefCell::default() }
    }

    /// Introduces all workers, itself among them. The process keeps them; a worker alone keeps none alive.
    pub(crate) fn meet(&self, inboxes: &Arc<[Inbox]>) {
        let _ = self.inboxes.set(Arc::downgrade(inboxes));
    }

    /// The way to another worker; `None` while they are starting or going down.
    pub(crate) fn inbox(&self, id: usize) -> Option<Inbox> {
        self.inboxes.get()?.upgrade()?.get(id).cloned()
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
    pub(crate) fn cycle(&self, times: LeaseTimes) -> Box<CycleState> {
        let mut cycle = self.cycles.borrow_mut().pop().unwrap_or_default();
        cycle.times = times;
        cycle
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

/// Work for a worker on its own thread.
pub(crate) type Job = Box<dyn FnOnce(Rc<Worker>) + Send>;

/// A worker as others see it.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    jobs: mpsc::Sender<Job>,
    load: Arc<WorkerLoad>,
}

impl Inbox {
    /// The sending end of a worker's queue of jobs.
    pub(crate) fn new(jobs: mpsc::Sender<Job>, load: Arc<WorkerLoad>) -> Self {
        Self { jobs, load }
    }

    /// How busy the worker is.
    pub(crate) fn load(&self) -> &WorkerLoad {
        &self.load
    }

    /// Counts one more connection that the worker serves.
    pub(crate) fn count(&self) -> Counted {
        Counted::new(Arc::clone(&self.load))
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
