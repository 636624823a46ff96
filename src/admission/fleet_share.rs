//! The part of the fleet's limits that is this instance's. Pure.

/// How a limit of the configuration, the console or a ramp is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FleetShare {
    /// There are no others.
    #[default]
    All,
    /// The number of others is not known yet: the smallest part that an instance may have.
    Smallest,
    /// The part of the one with this `rank` among so many, from 0.
    Part {
        /// What an even division leaves over goes to the first.
        rank: u32,
        /// Not 0.
        of: u32,
    },
    /// As much as was granted, of this limit alone.
    Granted {
        /// May be 0: the next grant is on its way.
        most: u32,
        /// Rates, and what is kept for some, are divided by this; not 0.
        of: u32,
    },
}

/// A limit of the fleet, and this instance's use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetUse {
    /// Of all instances together.
    pub limit: u32,
    /// Our part.
    pub cap: u32,
    /// In use.
    pub used: u32,
    /// In use, or waited for.
    pub wanted: u32,
}

impl FleetShare {
    /// Our part of a limit: at least one, or an instance would let nobody in at all; none of nothing. All parts
    /// together are the limit, or one each if there are more instances.
    #[inline]
    pub(crate) fn of(self, limit: u32) -> u32 {
        match self {
            // The limit of those who have none.
            _ if limit == u32::MAX => limit,
            Self::All => limit,
            Self::Smallest => limit.min(1),
            Self::Part { rank, of } => (limit / of + u32::from(rank < limit % of)).max(limit.min(1)),
            Self::Granted { most, .. } => limit.min(most),
        }
    }

    /// Our part of what is kept for some: together no more than was to be kept.
    pub(crate) fn kept(self, reserved: u32) -> u32 {
        match self {
            Self::All => reserved,
            Self::Smallest => 0,
            Self::Part { rank, of } => reserved / of + u32::from(rank < reserved % of),
            Self::Granted { of, .. } => reserved / of,
        }
    }

    /// Our part of a rate.
    pub(super) fn of_rate(self, per_second: f64) -> f64 {
        match self {
            Self::All => per_second,
            Self::Smallest => per_second.min(1.0),
            Self::Part { of, .. } | Self::Granted { of, .. } => per_second / f64::from(of),
        }
    }

    /// A part like everybody's: what is left over is nobody's.
    pub(crate) fn even(of: u32) -> Self {
        Self::Part { rank: of - 1, of }
    }

    /// How rates are divided: evenly, so that a grant which comes and goes does not begin them anew.
    pub(super) fn of_rates(self) -> Self {
        match self {
            Self::Granted { of, .. } => Self::even(of),
            Self::All | Self::Smallest | Self::Part { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_limit_or_to_one_each() {
        for of in 1..12 {
            for limit in 0..60 {
                let parts: Vec<_> = (0..of).map(|rank| FleetShare::Part { rank, of }.of(limit)).collect();
                let sum: u32 = parts.iter().sum();
                assert_eq!(sum, if limit == 0 { 0 } else { limit.max(of) }, "{limit} over {of}");
                assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
                let kept: u32 = (0..of).map(|rank| FleetShare::Part { rank, of }.kept(limit)).sum();
                assert_eq!(kept, limit);
                assert!(parts.iter().all(|part| FleetShare::Smallest.of(limit) <= *part));
            }
        }
    }

    #[test]
    fn no_limit_is_no_limit_for_anybody() {
        let shares = [FleetShare::All, FleetShare::Smallest, FleetShare::Part { rank: 2, of: 3 }];
        assert_eq!(shares.map(|share| share.of(u32::MAX)), [u32::MAX; 3]);
    }

    #[test]
    fn grant_bounds_its_limit_and_leaves_what_is_divided_evenly_alone() {
        let granted = FleetShare::Granted { most: 7, of: 2 };
        assert_eq!([0, 5, 40, u32::MAX].map(|limit| granted.of(limit)), [0, 5, 7, u32::MAX]);
        assert_eq!((granted.kept(5), granted.of_rate(10.0)), (2, 5.0));
        assert_eq!(granted.of_rates(), FleetShare::Part { rank: 1, of: 2 });
    }

    #[test]
    fn rate_is_divided_evenly() {
        assert_eq!(FleetShare::Part { rank: 2, of: 4 }.of_rate(10.0), 2.5);
        assert_eq!((FleetShare::Smallest.of_rate(10.0), FleetShare::Smallest.of_rate(0.5)), (1.0, 0.5));
    }
}
