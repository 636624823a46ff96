//! A client of which nothing is read, because something else has to move first: its server does not read, it waits with
//! much sent, or too many of its messages are unanswered.
//!
//! Its end stands behind bytes that nobody reads, so it is looked for in the kernel now and then.

use std::future::Future;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Client, End};

/// Time between two looks. Each is a system call.
const LOOK: Duration = Duration::from_millis(200);

impl Client {
    /// Ends a client that is gone, and has its task look again.
    #[cold]
    pub(super) fn look_for_end(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            if self.stream.has_ended() {
                return Err(End::Gone);
            }
            look.as_mut().reset(Instant::now() + LOOK);
        }
        Ok(())
    }
}
