//! Histograms of durations, by powers of two of microseconds.

use std::time::Duration;

/// How many buckets a histogram has. Bucket `n` counts durations over 2^(n-1) and up to 2^n µs; the last everything
/// over 2^26 µs.
pub(crate) const BUCKETS: usize = 28;

/// The bucket of a duration, and its microseconds.
#[inline]
pub(crate) fn bucket(duration: Duration) -> (usize, u64) {
    let nanos = duration.subsec_nanos();
    let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(nanos / 1000));
    // A bound belongs to its bucket, so only a duration over it, if by less than a microsecond, goes to the next.
    let below = micros.saturating_sub(u64::from(nanos.is_multiple_of(1000)));
    ((u64::BITS - below.leading_zeros()).min(BUCKETS as u32 - 1) as usize, micros)
}

/// The longest duration in bucket `n`; the last bucket has no bound.
pub(crate) fn bound(n: usize) -> Duration {
    Duration::from_micros(1 << n)
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Counts by powers of two of microseconds: the first is of 1 µs and less, the last but one of up to 67 s, the last
    /// of what is longer.
    pub buckets: [u64; BUCKETS],
    /// Sum of all recorded durations, in microseconds.
    pub sum_micros: u64,
}

impl Distribution {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let (bucket, micros) = bucket(duration);
        self.buckets[bucket] += 1;
        self.sum_micros += micros;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.sum_micros += other.sum_micros;
    }

    /// The difference to `before`, an earlier moment of the same.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (bucket, before) in since.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.saturating_sub(before);
        }
        since.sum_micros = since.sum_micros.saturating_sub(before.sum_micros);
        since
    }

    /// A bound that this part of the durations does not exceed; that of the last but one bucket where there is none.
    pub fn quantile(&self, part: f64) -> Duration {
        let count = self.count();
        // Counts are far below 2^53.
        let wanted = ((count as f64 * part).ceil() as u64).max(1);
        let mut so_far = 0;
        let found = self.buckets.iter().position(|bucket| {
            so_far += bucket;
            so_far >= wanted
        });
        found.filter(|_| count > 0).map_or(Duration::ZERO, |n| bound(n.min(BUCKETS - 2)))
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_a_longer_duration_to_the_next() {
        assert_eq!(bucket(Duration::ZERO).0, 0);
        for n in 0..BUCKETS - 1 {
            assert_eq!(bucket(bound(n)).0, n);
            assert_eq!(bucket(bound(n) + Duration::from_nanos(1)).0, n + 1);
        }
        assert_eq!(bucket(Duration::MAX), (BUCKETS - 1, u64::MAX));
    }
}
