//! Which processes at the server are senders of ours.
//!
//! Their notifications were delivered to this process's listeners when they were published, so the bridge drops them
//! when it hears them.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Longest time after its connection ended for which a sender's notifications may be heard. Afterwards its process id
/// may be anybody's.
const ECHO_MAX: Duration = Duration::from_secs(60);

/// Process ids of the senders of one database, those of the last minute included.
#[derive(Debug, Default)]
pub(crate) struct Senders(Mutex<Vec<SenderProcess>>);

#[derive(Debug)]
struct SenderProcess {
    pid: i32,
    ended: Option<Instant>,
}

impl Senders {
    /// A sender is about to send its first batch.
    pub(crate) fn began(&self, pid: i32) {
        let mut senders = self.0.lock().expect("no panic while held");
        senders.retain(|sender| sender.pid != pid);
        senders.push(SenderProcess { pid, ended: None });
    }

    /// Its connection ended; the server may still be working on its last batch.
    pub(crate) fn ended(&self, pid: i32, now: Instant) {
        let mut senders = self.0.lock().expect("no panic while held");
        senders.retain(|sender| sender.ended.is_none_or(|ended| now < ended + ECHO_MAX));
        senders.iter_mut().filter(|sender| sender.pid == pid).for_each(|sender| sender.ended = Some(now));
    }

    /// This process at the server sends, or lately sent, for us.
    pub(crate) fn has(&self, pid: i32, now: Instant) -> bool {
        let senders = self.0.lock().expect("no panic while held");
        senders.iter().any(|sender| sender.pid == pid && sender.ended.is_none_or(|ended| now < ended + ECHO_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_known_until_a_minute_after_its_end() {
        let (senders, now) = (Senders::default(), Instant::now());
        assert!(!senders.has(7, now));
        senders.began(7);
        assert!(senders.has(7, now + 10 * ECHO_MAX) && !senders.has(8, now));
        senders.ended(7, now);
        senders.began(8);
        assert!(senders.has(7, now + ECHO_MAX / 2) && senders.has(8, now));
        assert!(!senders.has(7, now + ECHO_MAX), "its number may be anybody's by then");
    }

    #[test]
    fn a_number_that_comes_again_is_the_new_senders() {
        let (senders, now) = (Senders::default(), Instant::now());
        senders.began(7);
        senders.ended(7, now);
        senders.began(7);
        assert!(senders.has(7, now + 2 * ECHO_MAX));
    }

    #[test]
    fn those_long_gone_are_forgotten() {
        let (senders, now) = (Senders::default(), Instant::now());
        for pid in 0..1000 {
            senders.began(pid);
            senders.ended(pid, now + ECHO_MAX * u32::try_from(pid).unwrap());
        }
        assert!(senders.0.lock().unwrap().len() <= 2);
    }
}
