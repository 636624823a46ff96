//! Prometheus's text format.
//!
//! The functions that format lines are those of `metrics-exporter-prometheus`. Its recorder is not used: it takes
//! histograms sample by sample, and ours are counts of buckets.

use std::fmt::Display;
use std::time::Duration;

use metrics::Key;
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use smallvec::SmallVec;

use super::label::{LabelValues, values as values_of};
use crate::metrics::{Distribution, Metric, bound};

/// The shortest bound that is written is 2^7 µs, the longest 2^26 µs: 128 µs to 67 s. Shorter durations are counted
/// under the first.
const FIRST_BOUND: usize = 7;

/// One answer to a scrape. Series may be put in any order; those of one metric stand together, as the format wants.
#[derive(Debug)]
pub(super) struct Exposition {
    series: Vec<String>,
}

impl Default for Exposition {
    fn default() -> Self {
        Self { series: vec![String::new(); Metric::ALL.len()] }
    }
}

/// The metric's labels with their values.
fn labels(metric: Metric, values: &[&str]) -> LabelSet {
    debug_assert_eq!(metric.labels().len(), values.len(), "{metric:?}");
    let labels = metric.labels().iter().zip(values).map(|(label, value)| {
        debug_assert!(
            !matches!(values_of(*label), LabelValues::Words(words) if !words.contains(value)),
            "{metric:?}: {label:?} says {value}"
        );
        metrics::Label::new(label.name(), (*value).to_owned())
    });
    LabelSet::from_key_and_global(&Key::from_parts("", labels.collect::<Vec<_>>()), &Default::default())
}

impl Exposition {
    /// One value of a counter or gauge; `values` are those of its labels, in their order.
    pub(super) fn put(&mut self, metric: Metric, values: &[&str], value: impl Display) {
        let out = &mut self.series[metric as usize];
        write_metric_line(out, metric.name(), None, &labels(metric, values), None::<(_, &str)>, value, None);
    }

    /// Every counter of a list; the word of its label, if it has one, comes after `values`.
    pub(super) fn put_counters(
        &mut self,
        values: &[&str],
        counters: impl IntoIterator<Item = ((Metric, &'static str), u64)>,
    ) {
        for ((metric, word), count) in counters {
            let word = (!word.is_empty()).then_some(word);
            let values: SmallVec<[&str; 3]> = values.iter().copied().chain(word).collect();
            self.put(metric, &values, count);
        }
    }

    pub(super) fn put_distribution(&mut self, metric: Metric, values: &[&str], distribution: &Distribution) {
        let (out, name, labels) = (&mut self.series[metric as usize], metric.name(), &labels(metric, values));
        let (last, bounded) = distribution.buckets.split_last().expect("there are buckets");
        let mut count = 0;
        for (n, bucket) in bounded.iter().enumerate() {
            count += bucket;
            if n >= FIRST_BOUND {
                let bound = bound(n).as_secs_f64();
                write_metric_line(out, name, Some("bucket"), labels, Some(("le", bound)), count, None);
            }
        }
        count += last;
        write_metric_line(out, name, Some("bucket"), labels, Some(("le", "+Inf")), count, None);
        let sum = Duration::from_micros(distribution.sum_micros).as_secs_f64();
        write_metric_line(out, name, Some("sum"), labels, None::<(_, &str)>, sum, None);
        write_metric_line(out, name, Some("count"), labels, None::<(_, &str)>, count, None);
    }

    /// The text of all metrics that have series.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for (metric, series) in Metric::ALL.iter().zip(&self.series).filter(|(_, series)| !series.is_empty()) {
            write_help_line(&mut out, metric.name(), None, None, metric.help());
            write_type_line(&mut out, metric.name(), None, None, metric.kind().name());
            out.push_str(series);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{PoolHistogram, PoolStats};

    #[test]
    fn series_of_one_metric_stand_together_under_their_help() {
        let mut exposition = Exposition::default();
        exposition.put(Metric::Queries, &["a", "r"], 1);
        exposition.put(Metric::StartTime, &[], 2.5);
        exposition.put(Metric::Queries, &["b \"c\"", "r"], 3);
        let text = exposition.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[3..],
            [
                "# HELP pgweir_queries_total Cycles ended: a Query, or a Sync with what came before it.",
                "# TYPE pgweir_queries_total counter",
                "pgweir_queries_total{database=\"a\",role=\"r\"} 1",
                "pgweir_queries_total{database=\"b \\\"c\\\"\",role=\"r\"} 3",
            ]
        );
    }

    #[test]
    fn buckets_add_up_and_end_in_infinity() {
        let stats = PoolStats::new(2);
        for (worker, micros) in [(0, 0), (1, 128), (0, 900), (1, 3_000_000_000)] {
            stats.worker(worker).record(PoolHistogram::Wait, Duration::from_micros(micros));
        }
        let mut exposition = Exposition::default();
        exposition.put_distribution(Metric::Wait, &["d", "r"], stats.totals().durations(PoolHistogram::Wait));
        let text = exposition.text();
        let series: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("pgweir_pool_wait_seconds_")).collect();
        assert_eq!(series[0], "bucket{database=\"d\",role=\"r\",le=\"0.000128\"} 2");
        assert_eq!(series[2], "bucket{database=\"d\",role=\"r\",le=\"0.000512\"} 2");
        assert_eq!(series[3], "bucket{database=\"d\",role=\"r\",le=\"0.001024\"} 3");
        assert_eq!(
            series[19..],
            [
                "bucket{database=\"d\",role=\"r\",le=\"67.108864\"} 3",
                "bucket{database=\"d\",role=\"r\",le=\"+Inf\"} 4",
                "sum{database=\"d\",role=\"r\"} 3000.001028",
                "count{database=\"d\",role=\"r\"} 4",
            ]
        );
    }

    #[test]
    #[should_panic(expected = "ReloadOutcome says perhaps")]
    fn a_label_says_what_the_table_says_it_may() {
        labels(Metric::Reloads, &["perhaps"]);
    }
}
