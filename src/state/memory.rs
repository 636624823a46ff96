//! Bytes that clients take: buffers, statements, settings. Each client has a share, which is counted in one sum for the
//! process and returned when the client is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A share below this is never too much: clients that need little are not the reason.
const SMALL: usize = 256 * 1024;

/// Changes of a share that are not worth telling the others.
const STEP: usize = 4 * 1024;

/// The memory of all clients.
#[derive(Debug, Default)]
pub(crate) struct ClientMemory {
    used: AtomicUsize,
    /// `listen.memory_max`.
    max: AtomicUsize,
    /// `listen.client_memory_max`.
    of_client: AtomicUsize,
}

/// The part of one client.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    memory: Arc<ClientMemory>,
    bytes: usize,
}

/// A client takes more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// By itself.
    Client,
    /// Together with all others.
    Process,
}

impl ClientMemory {
    /// The bounds in force from now on.
    pub(crate) fn set(&self, max: usize, of_client: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.of_client.store(of_client, Ordering::Relaxed);
    }

    /// Bytes that all clients take.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The share of a new client.
    pub(crate) fn share(self: &Arc<Self>) -> MemoryShare {
        MemoryShare { memory: Arc::clone(self), bytes: 0 }
    }
}

impl MemoryShare {
    /// The client takes so many bytes now.
    #[inline]
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), TooMuch> {
        if bytes.abs_diff(self.bytes) < STEP { Ok(()) } else { self.change(bytes) }
    }

    #[cold]
    fn change(&mut self, bytes: usize) -> Result<(), TooMuch> {
        let has_grown = bytes > self.bytes;
        // Wraps around for a share that shrinks, as the sum does.
        let change = bytes.wrapping_sub(self.bytes);
        let used = self.memory.used.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        self.bytes = bytes;
        if !has_grown || bytes < SMALL {
            return Ok(());
        }
        if bytes > self.memory.of_client.load(Ordering::Relaxed) {
            return Err(TooMuch::Client);
        }
        if used > self.memory.max.load(Ordering::Relaxed) { Err(TooMuch::Process) } else { Ok(()) }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_counted_until_it_is_dropped_and_only_large_ones_are_too_much() {
        let memory = Arc::new(ClientMemory::default());
        memory.set(4 * SMALL, 3 * SMALL);
        let (mut one, mut other) = (memory.share(), memory.share());
        assert_eq!((one.set(2 * SMALL), memory.used()), (Ok(()), 2 * SMALL));
        assert_eq!((one.set(2 * SMALL + 1), memory.used()), (Ok(()), 2 * SMALL));
        assert_eq!(one.set(3 * SMALL + STEP), Err(TooMuch::Client));
        assert_eq!(one.set(3 * SMALL), Ok(()), "it shrinks");
        assert_eq!(other.set(2 * SMALL), Err(TooMuch::Process));
        assert_eq!(other.set(SMALL - 1), Ok(()));
        drop(one);
        assert_eq!(memory.used(), SMALL - 1);
        drop(other);
        assert_eq!(memory.used(), 0);
    }
}
