//! How the status page writes figures.

use std::time::Duration;

use serde_json::{Value, json};

/// Seconds, to a tenth of a millisecond: enough for people.
pub(super) fn seconds(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 1e4).round() / 1e4)
}

/// A count of so many seconds as a rate, to a tenth.
pub(super) fn per_second(count: u64, seconds: u64) -> f64 {
    (count as f64 / seconds as f64 * 10.0).round() / 10.0
}
