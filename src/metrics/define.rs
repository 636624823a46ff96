//! `metrics!` makes enums of the table of all metrics: `Metric` of its lines, and of those that are counted by index
//! the indices.
//!
//! A line says how its metric is counted, then its variant, name, labels, one sentence on what it says, and one on what
//! to do when it moves. `PoolCounter` and `PoolHistogram` are counted by each worker for each pool, `ProcessCounter`
//! and `ProcessHistogram` for the whole process. A label of theirs, besides database and role, is the enum that the
//! variant holds: `Timeouts(Timeout)`. The values of `Counter`, `Gauge` and `Histogram` are kept elsewhere and looked
//! up at a scrape.

macro_rules! metrics {
    ($($table:tt)*) => {
        lines! { $($table)* }
        counted! { $($table)* }
    };
}

macro_rules! kind {
    (Gauge) => {
        MetricKind::Gauge
    };
    (Counter) => {
        MetricKind::Counter
    };
    (PoolCounter) => {
        MetricKind::Counter
    };
    (ProcessCounter) => {
        MetricKind::Counter
    };
    (Histogram) => {
        MetricKind::Histogram
    };
    (PoolHistogram) => {
        MetricKind::Histogram
    };
    (ProcessHistogram) => {
        MetricKind::Histogram
    };
}

macro_rules! lines {
    ($($section:literal {
        $($counted:ident $metric:ident $name:literal [$($label:ident)*] $help:literal $advice:literal)*
    })*) => {
        /// Everything `/metrics` shows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $($(#[doc = $help] $metric,)*)* }

        impl Metric {
            /// Every metric, in the order in which they are shown.
            pub const ALL: &[Self] = &[$($(Self::$metric,)*)*];
        }

        const LINES: &[MetricLine] = &[$($(MetricLine {
            section: $section,
            name: $name,
            kind: kind!($counted),
            labels: &[$(Label::$label),*],
            help: $help,
            advice: $advice,
        },)*)*];
    };
}

macro_rules! counted {
    ($($section:literal { $(
        $(PoolCounter $pool_counter:ident $n1:literal [Database Role $($pool_label:ident)?])?
        $(PoolHistogram $pool_histogram:ident $n2:literal [Database Role])?
        $(ProcessCounter $process_counter:ident $n3:literal [$($process_label:ident)?])?
        $(ProcessHistogram $process_histogram:ident $n4:literal [])?
        $(Counter $v5:ident $n5:literal $l5:tt)?
        $(Gauge $v6:ident $n6:literal $l6:tt)?
        $(Histogram $v7:ident $n7:literal $l7:tt)?
        $help:literal $advice:literal
    )* })*) => {
        counters! {
            /// Counters that each worker keeps for each pool.
            PoolCounter $($($({ $pool_counter $help $($pool_label)? })?)*)*
        }
        histograms! {
            /// Histograms that each worker keeps for each pool.
            PoolHistogram $($($({ $pool_histogram $help })?)*)*
        }
        counters! {
            /// Counters of the whole process.
            ProcessCounter $($($({ $process_counter $help $($process_label)? })?)*)*
        }
        histograms! {
            /// Histograms of the whole process.
            ProcessHistogram $($($({ $process_histogram $help })?)*)*
        }
    };
}

/// A counter has one slot, or one for each word of its label.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident $({ $counter:ident $help:literal $($label:ident)? })*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(unreachable_pub, reason = "benchmarks count by one of them, nobody outside by the others")]
        pub enum $name { $(#[doc = $help] $counter $(($label))?,)* }

        impl $name {
            const FAMILIES: &[Family] = &[$((Metric::$counter, first!($(&$label::WORDS,)? &[""]))),*];
            const LAYOUT: Layout = Layout::of(Self::FAMILIES);

            /// How many slots all of them have.
            pub(super) const SLOTS: usize = Self::LAYOUT.slots;

            /// Its place in an array of all.
            #[inline]
            pub(super) const fn slot(self) -> usize {
                match self {
                    $(Self::$counter $((word!(word $label)))? => {
                        Self::LAYOUT.first[Metric::$counter as usize] $(+ word!(word $label) as usize)?
                    })*
                }
            }

            /// The metric and the word of every slot; the word of one that has no label is empty.
            pub(super) fn series() -> impl Iterator<Item = (Metric, &'static str)> {
                Self::FAMILIES.iter().flat_map(|(metric, words)| words.iter().map(|word| (*metric, *word)))
            }
        }
    };
}

macro_rules! histograms {
    ($(#[$doc:meta])* $name:ident $({ $histogram:ident $help:literal })*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(unreachable_pub, reason = "methods that benchmarks reach take them")]
        pub enum $name { $(#[doc = $help] $histogram,)* }

        impl $name {
            /// The metrics of all of them, in order.
            pub(super) const METRICS: [Metric; [$(stringify!($histogram)),*].len()] = [$(Metric::$histogram),*];
        }
    };
}

/// The first of some expressions: the default comes last.
macro_rules! first {
    ($first:expr $(, $rest:expr)*) => {
        $first
    };
}

/// The word alone; the label is named only so that the word stands wherever the counter has one.
macro_rules! word {
    ($word:ident $label:ident) => {
        $word
    };
}
