//! The dashboard and the alerts in `deploy/` speak of metrics, labels and words that there are, in PromQL that
//! Prometheus takes; and every alert fires when it should.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use pgweir::testing::admin::scrape::{LabelValues, values};
use pgweir::testing::metrics::{Label, Metric, MetricKind};
use serde_json::Value;

/// Labels that Prometheus adds by itself.
const GIVEN: [&str; 4] = ["instance", "job", "le", "alertname"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Debian's package `prometheus` has it; `make install` installs it.
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output();
    let output = output.expect("promtool is installed: make install");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

/// Every value under this key, however deep.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| all(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/pgweir.json")).expect("JSON")
}

/// Queries of the dashboard, as Prometheus gets them.
fn queries() -> Vec<String> {
    let (dashboard, mut found) = (dashboard(), Vec::new());
    all(&dashboard, "expr", &mut found);
    let words = |query: &&str| query.replace("$__rate_interval", "5m").replace('$', "");
    found.iter().map(words).collect()
}

fn expressions() -> Vec<String> {
    let rules = read("deploy/prometheus/alerts.yml");
    rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect()
}

/// The metric that a series is of; those of histograms have suffixes.
fn metric(series: &str) -> Option<Metric> {
    Metric::ALL.iter().copied().find(|metric| match metric.kind() {
        MetricKind::Histogram => {
            ["_bucket", "_sum", "_count"].iter().any(|end| series.strip_suffix(end) == Some(metric.name()))
        }
        MetricKind::Counter | MetricKind::Gauge => series == metric.name(),
    })
}

/// Names of series with what stands in the braces behind them.
fn series(expression: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices("pgweir_").map(|(at, _)| &expression[at..]);
    let split = starts.map(|rest| rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len())));
    split
        .map(|(name, rest)| (name, rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or("")))
        .collect()
}

/// Lists of labels after `by`.
fn grouped(expression: &str) -> impl Iterator<Item = &str> {
    let lists = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(", "))
}

#[test]
fn names_labels_and_words_are_those_of_the_table() {
    let (queries, expressions) = (queries(), expressions());
    assert!(queries.len() > 50 && expressions.len() > 15);
    for expression in queries.iter().chain(&expressions) {
        let mut labels: BTreeSet<&str> = GIVEN.into();
        for (name, matchers) in series(expression) {
            let metric = metric(name).unwrap_or_else(|| panic!("{name}: {expression}"));
            for matcher in matchers.split(", ").filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once('=').expect("a matcher");
                let known = metric.labels().iter().find(|known| known.name() == label);
                assert!(known.is_some() || GIVEN.contains(&label), "{name} has no {label}: {expression}");
                let words = value.trim_start_matches('~').trim_matches('"').split('|');
                if let Some(LabelValues::Words(may)) = known.map(|label| values(*label)) {
                    words.for_each(|word| assert!(may.contains(&word), "{name}: {label} never says {word}"));
                }
            }
            labels.extend(metric.labels().iter().map(|label| label.name()));
        }
        grouped(expression).for_each(|label| assert!(labels.contains(label), "{label}: {expression}"));
    }
}

#[test]
fn variables_and_legends_name_labels_that_there_are() {
    let names: BTreeSet<&str> = Label::ALL.iter().map(|label| label.name()).chain(GIVEN).collect();
    let dashboard = dashboard();
    let mut found = Vec::new();
    all(&dashboard, "legendFormat", &mut found);
    let rules = read("deploy/prometheus/alerts.yml");
    let of_alerts = rules.split("$labels.").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default());
    let of_legends =
        found.iter().flat_map(|legend| legend.split("{{").skip(1)).filter_map(|rest| rest.split("}}").next());
    for label in of_legends.chain(of_alerts) {
        assert!(names.contains(label), "{label}");
    }
    let mut definitions = Vec::new();
    all(&dashboard, "definition", &mut definitions);
    assert_eq!(definitions.len(), 3);
    for definition in definitions {
        let (from, label) = definition.trim_end_matches(')').rsplit_once(", ").expect("label_values(series, label)");
        let series = series(from);
        let metric = metric(series[0].0).expect("a metric of ours");
        assert!(label == "instance" || metric.labels().iter().any(|known| known.name() == label), "{definition}");
    }
}

#[test]
fn the_dashboard_leaves_little_out() {
    let (queries, expressions) = (queries(), expressions());
    let shown: BTreeSet<&str> = queries
        .iter()
        .chain(&expressions)
        .flat_map(|text| series(text))
        .filter_map(|(name, _)| metric(name))
        .map(Metric::name)
        .collect();
    let not: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).filter(|name| !shown.contains(name)).collect();
    // What is of use when one knows already where to look.
    let asked_for_by_name = [
        "process_start_time_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "pgweir_build_info",
        "pgweir_draining",
        "pgweir_leases_total",
        "pgweir_pools_unlisted",
        "pgweir_recorder_lost_total",
        "pgweir_role_convoys_total",
        "pgweir_role_oldest_wait_seconds",
        "pgweir_role_limit_reverts_total",
        "pgweir_role_pace_overflow_total",
        "pgweir_watch_standby",
        "pgweir_notify_folded_total",
    ];
    assert_eq!(BTreeSet::from_iter(not), BTreeSet::from(asked_for_by_name));
}

#[test]
fn prometheus_takes_every_query_of_the_dashboard() {
    let mut file = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file");
    writeln!(file, "groups:\n  - name: dashboard\n    rules:").expect("room");
    for (n, query) in queries().iter().enumerate() {
        let query = Value::from(query.as_str());
        writeln!(file, "      - {{ record: \"dashboard:{n}\", expr: {query} }}").expect("room");
    }
    promtool(&["check", "rules", file.path().to_str().expect("UTF-8")]);
}

#[test]
fn prometheus_takes_the_alerts_and_each_fires_when_it_should() {
    promtool(&["check", "rules", "deploy/prometheus/alerts.yml"]);
    promtool(&["test", "rules", "deploy/prometheus/alerts_test.yml"]);
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("labels: '{{alertname=\"{alert}\"}}', value: 1")), "{alert} is not tested");
    }
}

#[test]
fn alerts_say_what_is_the_matter_and_which_setting_and_command_helps() {
    let (rules, reference) = (read("deploy/prometheus/alerts.yml"), read("proxy.toml"));
    let count = |key: &str| rules.lines().filter(|line| line.trim().starts_with(key)).count();
    let alerts = count("- alert: ");
    for key in ["summary: ", "description: ", "runbook: ", "labels: { severity: "] {
        assert_eq!(count(key), alerts, "{key}");
    }
    let sections = ["pool.", "listen.", "admin.", "admission.", "databases.", "roles.", "notify.", "watch.", "fleet."];
    for runbook in rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")) {
        let mut settings = 0;
        for word in runbook.split([' ', ',', ';', ':', '"']).map(|word| word.trim_end_matches('.')) {
            if sections.iter().any(|section| word.starts_with(section)) {
                let key = word.rsplit('.').next().unwrap_or_default();
                assert!(reference.contains(&format!("{key} = ")), "{word}: {runbook}");
                settings += 1;
            }
        }
        assert!(settings > 0 || runbook.contains("proxy.toml") || runbook.contains("memory limit"), "{runbook}");
        assert!(runbook.contains("SHOW ") || runbook.contains("/healthz"), "{runbook}");
    }
}
