//! Percentiles, and how durations are written in tables.

use std::time::Duration;

/// The value that so many of a hundred do not exceed; none of none.
pub(crate) fn percentile(values: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// "12 ms", "3.4 s"; "–" for none.
pub(crate) fn spell(duration: Option<Duration>) -> String {
    match duration {
        None => "–".to_owned(),
        Some(duration) if duration < Duration::from_millis(10) => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        Some(duration) if duration < Duration::from_secs(1) => format!("{:.0} ms", duration.as_secs_f64() * 1e3),
        Some(duration) => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// "0.02 MB", "65 MB".
pub(crate) fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 10.0 { format!("{megabytes:.2} MB") } else { format!("{megabytes:.0} MB") }
}
