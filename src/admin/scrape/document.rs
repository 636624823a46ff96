//! `docs/METRICS.md`, printed from the table. `UPDATE_EXPECTED=1 cargo test --lib scrape` writes it anew.

use super::label::{LabelValues, values};
use crate::metrics::{Label, Metric, MetricKind};
use crate::printed::assert_printed;

const HEAD: &str = "\
# Metrics

What `/metrics` on the admin address shows, in Prometheus's text format. `deploy/grafana/pgweir.json` is a dashboard over it,
`deploy/prometheus/alerts.yml` has the alerts.

Counters only grow; look at `rate()` of them. Gauges are as they are at the scrape. Every histogram has the same bounds, from 128 µs
to 67 s, each twice the one before: `histogram_quantile()` is never off by more than that. Histograms with both labels
`database` and `role` are summed over databases, unless `metrics.per` says otherwise; `database` is empty then. A counter by
`reason`, `timeout` or `kind` of a pool begins with its first event.

This file is printed from `src/metrics/table.rs`: `UPDATE_EXPECTED=1 cargo test --lib scrape`.
";

/// The unit that a metric's name ends in.
fn unit(metric: Metric) -> &'static str {
    let name = metric.name().trim_end_matches("_total");
    let units = ["seconds", "bytes", "transactions", "ratio"];
    units.into_iter().find(|unit| name.rsplit('_').next() == Some(*unit)).unwrap_or_default()
}

fn labels(metric: Metric) -> String {
    metric.labels().iter().map(|label| format!("`{}`", label.name())).collect::<Vec<_>>().join(", ")
}

fn document() -> String {
    let mut out = HEAD.to_owned();
    let mut section = "";
    for metric in Metric::ALL {
        if metric.section() != section {
            section = metric.section();
            out += &format!(
                "\n## {section}\n\n| metric | kind | unit | labels | what it says | when it moves |\n|---|---|---|---|---|---|\n"
            );
        }
        let (name, kind, help, advice) = (metric.name(), metric.kind().name(), metric.help(), metric.advice());
        out += &format!("| `{name}` | {kind} | {} | {} | {help} | {advice} |\n", unit(*metric), labels(*metric));
    }
    out += "\n## Labels\n\n| label | of | says | at most |\n|---|---|---|---|\n";
    for label in Label::ALL {
        let (what, bound) = match values(label) {
            LabelValues::Words(words) => {
                (words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "), words.len().to_string())
            }
            LabelValues::Open { what, bound } => (what.to_owned(), bound.to_owned()),
        };
        let of = match label {
            Label::Database | Label::Role => "most".to_owned(),
            _ => {
                let uses = Metric::ALL.iter().filter(|metric| metric.labels().contains(&label));
                uses.map(|metric| format!("`{}`", metric.name())).collect::<Vec<_>>().join(", ")
            }
        };
        out += &format!("| `{}` | {of} | {what} | {bound} |\n", label.name());
    }
    out + "\nNext: [PROTECTION.md](PROTECTION.md#what-you-see-in-the-metrics), what they look like when it matters.\n"
}

#[test]
fn the_document_says_what_the_table_says() {
    assert_printed("docs/METRICS.md", &document(), "scrape");
}

#[test]
fn every_label_is_used() {
    for label in Label::ALL {
        assert!(Metric::ALL.iter().any(|metric| metric.labels().contains(&label)), "{label:?}");
    }
}

#[test]
fn every_histogram_is_in_seconds() {
    for metric in Metric::ALL {
        assert!(metric.kind() != MetricKind::Histogram || unit(*metric) == "seconds", "{}", metric.name());
    }
}
