//! Prometheus's text format.
//!
//! Lines are written by the exporter's own formatting. Its recorder is not used: it takes histograms only sample by
//! sample, and ours come as bucket counts; with those written here, a registry filled anew for the counters at every
//! scrape would be a detour.

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};

use super::{Distribution, Kind, Metric};

/// Label names and values.
pub fn labels(labels: &[(&'static str, &str)]) -> LabelSet {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, value.to_string()));
    LabelSet::from_key_and_global(&Key::from_parts("", labels.collect::<Vec<_>>()), &Default::default())
}

/// One answer to a scrape. Series may be put in any order; those of one metric stand together, as the format wants.
#[derive(Debug)]
pub struct Page {
    series: Vec<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { series: vec![String::new(); Metric::ALL.len()] }
    }
}

impl Page {
    /// One value of a counter or gauge.
    pub fn put(&mut self, metric: Metric, labels: &LabelSet, value: impl std::fmt::Display) {
        let out = &mut self.series[metric as usize];
        write_metric_line(out, metric.name(), None, labels, None::<(_, &str)>, value, None);
    }

    /// One histogram.
    pub fn put_distribution(&mut self, metric: Metric, labels: &LabelSet, distribution: &Distribution) {
        let (out, name) = (&mut self.series[metric as usize], metric.name());
        let (last, bounded) = distribution.buckets.split_last().expect("there are buckets");
        let mut count = 0;
        for (power, bucket) in bounded.iter().enumerate() {
            count += bucket;
            let bound = seconds(1 << power);
            write_metric_line(out, name, Some("bucket"), labels, Some(("le", bound)), count, None);
        }
        count += last;
        write_metric_line(out, name, Some("bucket"), labels, Some(("le", "+Inf")), count, None);
        let sum = seconds(distribution.sum_micros);
        write_metric_line(out, name, Some("sum"), labels, None::<(_, &str)>, sum, None);
        write_metric_line(out, name, Some("count"), labels, None::<(_, &str)>, count, None);
    }

    /// All of it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (metric, series) in Metric::ALL.iter().zip(&self.series).filter(|(_, series)| !series.is_empty()) {
            let kind = match metric.kind() {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            write_help_line(&mut out, metric.name(), None, None, metric.help());
            write_type_line(&mut out, metric.name(), None, None, kind);
            out.push_str(series);
        }
        out
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::PoolStats;

    #[test]
    fn series_of_one_metric_stand_together_under_their_help() {
        let mut page = Page::default();
        page.put(Metric::Queries, &labels(&[("database", "a")]), 1);
        page.put(Metric::Uptime, &labels(&[]), 2.5);
        page.put(Metric::Queries, &labels(&[("database", "b \"c\"")]), 3);
        let text = page.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[3..],
            [
                "# HELP pgweir_queries_total Cycles ended: a Query, or a Sync with what came before it.",
                "# TYPE pgweir_queries_total counter",
                "pgweir_queries_total{database=\"a\"} 1",
                "pgweir_queries_total{database=\"b \\\"c\\\"\"} 3",
            ]
        );
    }

    #[test]
    fn buckets_add_up_and_end_in_infinity() {
        let stats = PoolStats::new(2);
        for (worker, micros) in [(0, 0), (1, 1), (0, 900), (1, 3_000_000_000)] {
            stats.cell(worker).waited(Duration::from_micros(micros));
        }
        let mut page = Page::default();
        page.put_distribution(Metric::Wait, &labels(&[("role", "r")]), &stats.totals().wait);
        let text = page.text();
        for line in [
            "pgweir_pool_wait_seconds_bucket{role=\"r\",le=\"0.000001\"} 1",
            "pgweir_pool_wait_seconds_bucket{role=\"r\",le=\"0.000002\"} 2",
            "pgweir_pool_wait_seconds_bucket{role=\"r\",le=\"0.000512\"} 2",
            "pgweir_pool_wait_seconds_bucket{role=\"r\",le=\"0.001024\"} 3",
            "pgweir_pool_wait_seconds_bucket{role=\"r\",le=\"67.108864\"} 3",
            "pgweir_pool_wait_seconds_bucket{role=\"r\",le=\"+Inf\"} 4",
            "pgweir_pool_wait_seconds_count{role=\"r\"} 4",
            "pgweir_pool_wait_seconds_sum{role=\"r\"} 3000.000901",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_say_what_they_are() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(name.starts_with("pgweir_") && metric.help().ends_with('.'), "{name}");
            assert_eq!(metric.kind() == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(metric.kind() != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }
}
