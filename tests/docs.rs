//! The book in `docs/` is true: its links lead somewhere, what it names exists, and its examples are configuration that
//! pgweir takes.
//!
//! `docs/CONFIG.md`, `docs/METRICS.md` and `docs/SQLSTATES.md` are printed from the code and held by tests there; here
//! they say what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pgweir::config;
use pgweir::testing::metrics::Metric;

/// Names like those of metrics that are none: a schema that does not exist, and the role of examples.
const NO_METRICS: [&str; 2] = ["pgweir_undo_reset", "pgweir_watch"];

// ## Links

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut wrong = Vec::new();
    for (page, text) in &pages {
        for link in links(text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.clone() } else { beside(page, path) };
            if !target.exists() {
                wrong.push(format!("{}: {link}: there is no such file", page.display()));
            } else if !anchor.is_empty() && !pages.get(&target).is_some_and(|text| anchors(text).contains(anchor)) {
                wrong.push(format!("{}: {link}: there is no such heading", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_found_from_the_index() {
    let pages = pages();
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from("docs/README.md")];
    while let Some(page) = open.pop() {
        if let Some(text) = pages.get(&page)
            && found.insert(page.clone())
        {
            open.extend(links(text).iter().map(|link| beside(&page, link.split('#').next().unwrap_or_default())));
        }
    }
    let lost: Vec<&PathBuf> = pages.keys().filter(|page| !found.contains(*page)).collect();
    assert!(lost.is_empty(), "no link leads to {lost:?}");
}

#[test]
fn every_page_says_where_to_go_next() {
    for (page, text) in pages() {
        let is_chapter = page.parent() == Some(Path::new("docs")) && !page.ends_with("README.md");
        assert!(!is_chapter || text.contains("\nNext: "), "{}", page.display());
    }
}

// ## Names

#[test]
fn settings_that_are_named_exist() {
    let config = &pages()[Path::new("docs/CONFIG.md")];
    let keys: Vec<&str> = config.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(keys.contains(&"pool.size") && keys.contains(&"roles.*.transactions_max"), "{keys:?}");
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let exists = |path: &str| keys.iter().any(|key| *key == path || key.starts_with(&format!("{path}.")));
    for (page, text) in pages() {
        for word in spans(&text).flat_map(|span| span.split(|c: char| !is_of_path(c))) {
            let parts: Vec<&str> = word.trim_matches('.').split('.').collect();
            if parts.len() < 2 || !sections.contains(parts[0]) {
                continue;
            }
            let path = match *parts.as_slice() {
                [section @ ("databases" | "roles"), _, ref rest @ ..] => [&[section, "*"], rest].concat().join("."),
                _ => parts.join("."),
            };
            assert!(exists(&path), "{}: {word}: there is no setting {path}", page.display());
        }
    }
}

#[test]
fn metrics_that_are_named_exist() {
    let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    for (page, text) in pages() {
        for word in text.split(|c: char| !is_of_path(c)).map(|word| word.trim_end_matches('.')) {
            let exists = match word.strip_suffix('*') {
                Some(start) => names.iter().any(|name| name.starts_with(start)),
                None => {
                    let stem = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
                    names.contains(&word) || stem.is_some_and(|stem| names.contains(&stem))
                }
            };
            let is_metric = word.starts_with("pgweir_") && !NO_METRICS.contains(&word);
            assert!(exists || !is_metric, "{}: there is no metric {word}", page.display());
        }
    }
}

#[test]
fn files_that_are_named_exist() {
    let of_ours = ["src/", "tests/", "benches/", "deploy/", "scripts/"];
    for (page, text) in pages() {
        for word in spans(&text).flat_map(str::split_whitespace) {
            let is_ours = of_ours.iter().any(|start| word.starts_with(start));
            assert!(!is_ours || Path::new(word).exists(), "{}: there is no file {word}", page.display());
        }
    }
}

// ## Examples

/// A page may show a part of a file: a database and a login are added where it has none. Files that it names are the
/// reader's.
#[test]
fn every_example_is_taken() {
    let secret = |_: &str| Some("a secret of more than 16 characters".to_owned());
    let mut count = 0;
    for (page, text) in pages() {
        for example in text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block)
        {
            count += 1;
            let mut whole = example.to_owned();
            if !example.contains("[databases.") {
                whole += "\n[databases.\"*\"]\nhost = \"127.0.0.1\"\n";
            }
            if !example.contains("[roles.\"*\"]") {
                whole += "\n[roles.\"*\"]\nauth = \"passthrough\"\n";
            }
            if let Err(mistakes) = config::parse(&whole, &page, &secret) {
                let is_ours = |mistake: &&config::Mistake| !mistake.text.starts_with("cannot read ");
                let ours: Vec<String> = mistakes.list.iter().filter(is_ours).map(ToString::to_string).collect();
                assert!(ours.is_empty(), "{}\n{whole}", ours.join("\n"));
            }
        }
    }
    assert!(count > 5, "{count} examples");
}

// ## Reading Markdown

/// Every page with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "fuzz/README.md", "docs"];
    let mut open = Vec::from(top.map(PathBuf::from));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).expect("readable");
            pages.insert(path, text);
        }
    }
    pages
}

/// Lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What stands in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Targets of links and pictures, but for those on other hosts.
fn links(text: &str) -> Vec<String> {
    let words = prose(text).map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join("code"));
    let targets = words.flat_map(|line| {
        let parts = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        parts.map(|(target, _)| target.to_owned()).collect::<Vec<_>>()
    });
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors that GitHub gives to headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().chars().flat_map(char::to_lowercase);
            kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
        })
        .collect()
}

fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '*' | '/')
}

/// A path as written on a page, from the top of the repository.
fn beside(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().expect("a directory").to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {link} leads out of the repository", page.display()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}
