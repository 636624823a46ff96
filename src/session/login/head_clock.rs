//! The time that a client has up to the end of its StartupMessage. Only the waits for the client count.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::error::LoginFault;

/// Runs while the client is waited for.
#[derive(Debug)]
pub(super) struct HeadClock {
    until: Instant,
}

impl HeadClock {
    pub(super) fn new(limit: Duration) -> Self {
        Self { until: Instant::now() + limit }
    }

    /// Waits for the client, up to the end of its time.
    pub(super) async fn hear<T>(&self, heard: impl Future<Output = io::Result<T>>) -> Result<T, LoginFault> {
        Ok(timeout_at(self.until, heard).await.map_err(|_| LoginFault::Silent)??)
    }

    /// Does our own part, for as long as it takes.
    pub(super) async fn stopped_for<T>(&mut self, work: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let done = work.await;
        self.until += since.elapsed();
        done
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_time_whatever_our_own_part_takes() {
        let mut clock = HeadClock::new(Duration::from_secs(2));
        let start = Instant::now();
        let slow = async {
            sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        clock.hear(slow).await.unwrap();
        clock.stopped_for(sleep(Duration::from_secs(60))).await;
        let heard = clock.hear(std::future::pending::<io::Result<()>>()).await;
        assert!(matches!(heard, Err(LoginFault::Silent)));
        assert_eq!(start.elapsed(), Duration::from_secs(62));
    }
}
