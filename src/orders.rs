//! Orders to the whole process. The console gives them, `run` carries them out; `given` knows their authors.

pub(crate) mod given;
pub(crate) mod log_level;

use tokio::sync::oneshot;

/// An order to the whole process, from the console.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read the file now, and tell what came of it.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    /// Drain and end; at once if `now`.
    Shutdown {
        /// Without waiting for transactions.
        now: bool,
    },
}
