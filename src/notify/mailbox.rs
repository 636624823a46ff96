//! Frames that one listening client has not been sent yet: a bounded queue of shared frames, and the waker of the
//! client's task.
//!
//! The exchange puts frames in, the client's task takes them out when it may have them. A client that does not read is
//! never skipped silently: past its limit the queue is given up, the loss reported, and the client closed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use super::notification::Frame;
use super::stats::Gap;

/// Why a listener has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It did not read, and more waited than `notify.listener_queue`.
    Overflow,
    /// Something may have been missed on the way here.
    Gap(Gap),
    /// A notification for it is not ASCII, and cannot be sent in its encoding.
    Untranslatable,
}

/// Frames that wait for one client, and the reason to close it, if any.
#[derive(Debug)]
pub struct Mailbox {
    /// Process id of the client.
    pub pid: i32,
    waker: Waker,
    /// There is something to take. Set under the lock of the queue, read without it.
    has_mail: AtomicBool,
    /// It listens to something that is not in place yet. Changed by the exchange only.
    is_awaited: AtomicBool,
    queue: Mutex<FrameQueue>,
}

#[derive(Debug, Default)]
struct FrameQueue {
    frames: VecDeque<Frame>,
    bytes: usize,
    closing: Option<Closing>,
}

impl Mailbox {
    /// The mailbox of the client with this process id, whose task has this waker.
    pub fn new(pid: i32, waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            pid,
            waker,
            has_mail: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            queue: Mutex::default(),
        })
    }

    /// There is something to take, or a reason to close the client.
    #[inline]
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Everything it listens to is in place: notifications from now on reach it, wherever they are made.
    #[inline]
    pub fn is_in_place(&self) -> bool {
        !self.is_awaited.load(Ordering::Acquire)
    }

    /// Why the client has to go, if it has.
    pub fn closing(&self) -> Option<Closing> {
        self.queue().closing
    }

    /// Bytes that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queue().bytes
    }

    /// Appends frames to `out`, in order, up to about `most` bytes, but at least one. Returns how many; with
    /// `only_ascii` it stops at the first that is not.
    pub fn take(&self, out: &mut Vec<u8>, most: usize, only_ascii: bool) -> Result<u32, Closing> {
        let mut queue = self.queue();
        let (mut taken, mut bytes) = (0, 0);
        while let Some(frame) = queue.frames.front() {
            let length = frame.bytes().len();
            if taken > 0 && bytes + length > most {
                return Ok(taken);
            }
            if only_ascii && !frame.is_ascii() {
                queue.close(Closing::Untranslatable);
                break;
            }
            out.extend_from_slice(frame.bytes());
            taken += 1;
            bytes += length;
            queue.bytes -= length;
            queue.frames.pop_front();
        }
        match queue.closing {
            None => {
                // An idle listener holds no memory for frames it has had.
                queue.frames = VecDeque::new();
                self.has_mail.store(false, Ordering::Release);
            }
            Some(closing) if taken == 0 => return Err(closing),
            Some(_) => {}
        }
        Ok(taken)
    }

    /// Adds a frame. Past `most` bytes the queue is given up. Returns the number of frames lost.
    pub(super) fn put(&self, frame: &Frame, most: usize, woken: &mut Woken) -> usize {
        let mut queue = self.queue();
        if queue.closing.is_some() {
            return 1;
        }
        let length = frame.bytes().len();
        let mut lost = 0;
        if queue.bytes + length > most {
            lost = 1 + queue.frames.len();
            queue.close(Closing::Overflow);
        } else {
            queue.frames.push_back(frame.clone());
            queue.bytes += length;
        }
        self.announce(woken);
        lost
    }

    /// The client no longer listens to this channel: waiting frames of it are not sent, as Postgres would not either.
    pub(super) fn forget(&self, channel: &[u8]) {
        self.keep(|frame| frame.channel() != channel);
    }

    /// The client listens to nothing any more.
    pub(super) fn forget_all(&self) {
        self.keep(|_| false);
    }

    fn keep(&self, keeps: impl Fn(&Frame) -> bool) {
        let mut queue = self.queue();
        if queue.frames.is_empty() {
            return;
        }
        queue.frames.retain(keeps);
        queue.bytes = queue.frames.iter().map(|frame| frame.bytes().len()).sum();
        if queue.frames.is_empty() && queue.closing.is_none() {
            self.has_mail.store(false, Ordering::Release);
        }
    }

    /// The client has to go, for this reason or an earlier one. Waiting frames are given up.
    pub(super) fn close(&self, closing: Closing, woken: &mut Woken) -> usize {
        let mut queue = self.queue();
        let lost = queue.frames.len();
        if queue.closing.is_none() {
            queue.close(closing);
        }
        self.announce(woken);
        lost
    }

    /// The client waits for something to be in place, or no more.
    pub(super) fn await_place(&self, is_awaited: bool, woken: &mut Woken) {
        if self.is_awaited.swap(is_awaited, Ordering::AcqRel) && !is_awaited {
            woken.0.push(self.waker.clone());
        }
    }

    /// Under the lock of the queue. The task is woken once until it has taken everything.
    fn announce(&self, woken: &mut Woken) {
        if !self.has_mail.swap(true, Ordering::AcqRel) {
            woken.0.push(self.waker.clone());
        }
    }

    #[cfg(test)]
    pub(super) fn first_frame(&self) -> Option<Frame> {
        self.queue().frames.front().cloned()
    }

    fn queue(&self) -> MutexGuard<'_, FrameQueue> {
        self.queue.lock().expect("no panic while held")
    }
}

impl FrameQueue {
    fn close(&mut self, closing: Closing) {
        *self = Self { closing: Some(closing), ..Self::default() };
    }
}

/// Tasks that have something to do: woken when this is dropped, which must be after every lock is.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Woken(Vec<Waker>);

impl Woken {
    /// One more task to wake.
    pub(super) fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}
