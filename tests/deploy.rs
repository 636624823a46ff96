//! What is shipped in `deploy/` is configuration that pgweir takes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pgweir::config::{self, Config, FleetMode};

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Checks a text; files that it names, which are the user's, are left out, and secrets become words.
fn checked(text: &str, from: &str) -> Config {
    let text = text.replace("{ file = \"/etc/pgweir-secrets/", "{ env = \"");
    let lines = text.lines().map(|line| match line.contains("mode = \"verify-full\"") {
        true => "tls = { mode = \"verify-full\" }",
        false => line,
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let secret = |name: &str| if name == "redis" { "redis://:secret@redis:6379" } else { "secret" };
    config::parse(&text, Path::new(from), &|name| Some(secret(name).to_owned()))
        .unwrap_or_else(|mistakes| panic!("{from}: {mistakes}\n{text}"))
}

/// The block under `key: |`, without its indentation.
fn block(yaml: &str, key: &str) -> String {
    let lines = yaml.lines().skip_while(|line| line.trim() != format!("{key}: |")).skip(1);
    let indented = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    indented.flat_map(|line| [line.strip_prefix("    ").unwrap_or(line), "\n"]).collect()
}

fn number_after(text: &str, key: &str) -> u64 {
    let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("{key}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key}"))
}

/// How long a shutdown may take with this configuration.
fn shutdown(config: &Config) -> Duration {
    let cancel = config.databases.values().map(|database| database.pool.cancel_timeout).max().expect("a database");
    config.listen.linger + config.listen.shutdown_timeout + 2 * cancel
}

#[test]
fn kubernetes_gives_pgweir_the_time_it_takes() {
    let yaml = read("deploy/kubernetes/pgweir.yaml");
    let config = checked(&block(&yaml, "proxy.toml"), "deploy/kubernetes/pgweir.yaml");
    let (grace, pre_stop) =
        (number_after(&yaml, "terminationGracePeriodSeconds:"), number_after(&yaml, "sleep: { seconds:"));
    assert!(
        Duration::from_secs(grace - pre_stop) > shutdown(&config),
        "{grace} s, of which {pre_stop} s pass before SIGTERM"
    );
    // Probes and clients come from outside the container.
    assert!(config.admin.addr.is_some_and(|addr| addr.ip().is_unspecified()));
}

#[test]
fn instances_hold_one_limit_and_reach_each_other() {
    let yaml = read("deploy/kubernetes/pgweir.yaml");
    let config = checked(&block(&yaml, "proxy.toml"), "deploy/kubernetes/pgweir.yaml");
    let compose = checked(&read("deploy/compose/pgweir/proxy.toml"), "deploy/compose/pgweir/proxy.toml");
    for fleet in [&config.fleet, &compose.fleet] {
        assert_eq!((fleet.mode, fleet.peers.len()), (FleetMode::Redis, 1));
    }
    let (peer, addr) = (&config.fleet.peers[0], config.fleet.addr.expect("of its own"));
    assert_eq!(peer.port, addr.port());
    let service = yaml.split("---").find(|part| part.contains(&format!("name: {}\n", peer.host)));
    let service = service.expect("a service of that name");
    // Those that drain are reached as well.
    assert!(service.contains("clusterIP: None") && service.contains("publishNotReadyAddresses: true"));
    assert_eq!(number_after(service, "port:"), u64::from(peer.port));
    assert_eq!(number_after(&yaml, "name: peers, containerPort:"), u64::from(peer.port));
}

#[test]
fn compose_gives_pgweir_the_time_it_takes() {
    let config = checked(&read("deploy/compose/pgweir/proxy.toml"), "deploy/compose/pgweir/proxy.toml");
    let grace = number_after(&read("deploy/compose/compose.yaml"), "stop_grace_period:");
    assert!(Duration::from_secs(grace) > shutdown(&config));
    assert!(config.admin.addr.is_some_and(|addr| addr.ip().is_unspecified()));
}

/// A file that is not there would be made a directory by Docker, without a word.
#[test]
fn compose_mounts_files_that_are_there_where_they_are_looked_for() {
    let yaml = read("deploy/compose/compose.yaml");
    let mounts: Vec<(&str, &str)> = yaml
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.strip_suffix(":ro")?.split_once(':'))
        .filter(|(from, _)| from.starts_with('.'))
        .collect();
    for (from, _) in &mounts {
        assert!(Path::new("deploy/compose").join(from).exists(), "{from}");
    }
    let place_of = |file: &str| mounts.iter().find(|(from, _)| from.ends_with(file)).map(|(_, to)| *to);
    let rules =
        place_of("/alerts.yml").expect("mounted").strip_prefix("/etc/prometheus/").expect("beside prometheus.yml");
    assert!(read("deploy/compose/prometheus.yml").contains(&format!("rule_files:\n  - {rules}\n")));
    let dashboards = Path::new(place_of("/pgweir.json").expect("mounted")).parent().expect("a directory");
    let provider = read("deploy/compose/grafana-dashboards.yaml");
    assert!(provider.contains(&format!("path: {}\n", dashboards.display())));
}

#[test]
fn systemd_gives_pgweir_the_time_it_takes() {
    let config = checked(&read("proxy.toml"), "proxy.toml");
    for unit in ["deploy/systemd/pgweir.service", "deploy/systemd/pgweir@.service"] {
        let limit = Duration::from_secs(number_after(&read(unit), "TimeoutStopSec="));
        assert!(limit > shutdown(&config), "{unit}");
    }
}

#[test]
fn units_differ_in_nothing_that_matters() {
    let settings = |unit: &str| -> Vec<String> {
        let text = read(unit);
        let is_own = |line: &&str| {
            ["Description=", "Sockets=", "RuntimeDirectory=", "WantedBy=", "[Install]"]
                .iter()
                .any(|own| line.starts_with(own))
        };
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !is_own(line));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(settings("deploy/systemd/pgweir.service"), settings("deploy/systemd/pgweir@.service"));
}

#[test]
fn what_is_deployed_has_no_rights_that_it_does_not_use() {
    let unit = read("deploy/systemd/pgweir.service");
    for line in [
        "CapabilityBoundingSet=",
        "LimitCORE=0",
        "NoNewPrivileges=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectProc=invisible",
        "RestartPreventExitStatus=1",
        "RestrictSUIDSGID=yes",
        "UMask=0007",
    ] {
        assert!(unit.lines().any(|is| is == line), "{line}");
    }
    let yaml = read("deploy/kubernetes/pgweir.yaml");
    for part in ["kind: NetworkPolicy", "automountServiceAccountToken: false", "readOnlyRootFilesystem: true"] {
        assert!(yaml.contains(part), "{part}");
    }
    // Whom the policy lets in is whom the Service and the probes lead to.
    let (_, policy) = yaml.split_once("kind: NetworkPolicy").expect("found");
    for port in ["port: postgres", "port: admin"] {
        assert!(policy.contains(port), "{port}");
    }
}
