//! A role's limit over time: as configured, as the console says, or on its way from one value to another.

use std::time::Duration;

use tokio::time::Instant;

/// Transactions that may be active at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The pools bound them.
    Unlimited,
    Fixed(u32),
    /// Linear from `from` at `start` to `to` after `over`.
    Moving {
        from: u32,
        to: u32,
        start: Instant,
        over: Duration,
    },
}

impl Limit {
    pub(super) fn new(max: Option<u32>) -> Self {
        max.map_or(Self::Unlimited, Self::Fixed)
    }

    pub(super) fn at(&self, now: Instant) -> u32 {
        match *self {
            Self::Unlimited => u32::MAX,
            Self::Fixed(max) => max,
            Self::Moving { from, to, start, over } => {
                let part = now.saturating_duration_since(start).as_secs_f64() / over.as_secs_f64();
                let moved = (f64::from(to) - f64::from(from)) * part.min(1.0);
                (f64::from(from) + moved) as u32
            }
        }
    }

    /// The limit that holds, or the one that it moves to.
    pub(super) fn target(&self) -> Option<u32> {
        match *self {
            Self::Unlimited => None,
            Self::Fixed(max) | Self::Moving { to: max, .. } => Some(max),
        }
    }

    /// When the limit will have arrived at its target.
    pub(super) fn moves_until(&self, now: Instant) -> Option<Instant> {
        match *self {
            Self::Moving { start, over, .. } => Some(start + over).filter(|end| *end > now),
            Self::Unlimited | Self::Fixed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_linearly_and_stays_where_it_arrives() {
        let start = Instant::now();
        let limit = Limit::Moving { from: 8, to: 108, start, over: Duration::from_secs(10) };
        let at = [0, 1, 5, 10, 60].map(|s| limit.at(start + Duration::from_secs(s)));
        assert_eq!(at, [8, 18, 58, 108, 108]);
        assert_eq!(limit.moves_until(start), Some(start + Duration::from_secs(10)));
        assert_eq!(limit.moves_until(start + Duration::from_secs(10)), None);
    }

    #[test]
    fn moves_down_as_well() {
        let start = Instant::now();
        let limit = Limit::Moving { from: 40, to: 0, start, over: Duration::from_secs(4) };
        assert_eq!([0, 1, 4].map(|s| limit.at(start + Duration::from_secs(s))), [40, 30, 0]);
    }
}
