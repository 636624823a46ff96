//! `docs/PROGRAMS.md`, of which each row is held by the test that runs its program.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, PoisonError};

use super::root;

const PAGE: &str = "docs/PROGRAMS.md";

/// What stands around the rows.
const BEGIN: &str = "|---|---|---|\n";
const END: &str = "\n## ";

/// A row says this; with `UPDATE_EXPECTED=1` it is written anew. `file` is below `tests/drivers`. A version that is
/// pinned is held; others are those of the distribution, and held on the one that the page names.
pub(crate) fn hold_row(program: &str, version: &str, file: &str, steps: &[&str]) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);

    let (page, [head, rows, tail]) = read();
    let link = format!("| [{program}](../tests/drivers/{file}) | ");
    let mut rows: Vec<String> = rows.lines().map(str::to_owned).collect();
    let found = rows.iter().position(|row| row.starts_with(&link));
    let is_pinned = file.starts_with("node/") || file.starts_with("python/");
    let version = match found.map(|at| rows[at][link.len()..].split_once(" | ").expect("three cells").0.to_owned()) {
        Some(written) if !is_pinned && !is_debian_of(&page) => written,
        _ if is_pinned => version.to_owned(),
        _ => version.split('.').take(2).collect::<Vec<_>>().join("."),
    };
    let row = format!("{link}{version} | {} |", steps.join("; "));
    if found.is_some_and(|at| rows[at] == row) {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_EXPECTED").is_some(),
        "{PAGE} does not say what {program} does; run UPDATE_EXPECTED=1 cargo test --test it programs:: drivers::\n{row}"
    );
    match found {
        Some(at) => rows[at] = row,
        None => rows.push(row),
    }
    rows.sort_by_key(|row| row.to_lowercase());
    fs::write(root().join(PAGE), format!("{head}{}\n{tail}", rows.join("\n"))).expect("our own checkout");
}

/// The files that have a row.
pub(crate) fn listed_files() -> BTreeSet<String> {
    let (_, [_, rows, _]) = read();
    let file = |row: &str| Some(row.split_once("](../tests/drivers/")?.1.split_once(')')?.0.to_owned());
    rows.lines().filter_map(file).collect()
}

/// The page, and what stands before, in and behind its table.
fn read() -> (String, [String; 3]) {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page");
    let begin = page.find(BEGIN).expect("a table") + BEGIN.len();
    let end = begin + page[begin..].find(END).expect("a heading behind the table");
    let parts = [&page[..begin], &page[begin..end], &page[end..]].map(str::to_owned);
    (page, parts)
}

/// Whether this is the distribution whose versions the page has.
fn is_debian_of(page: &str) -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=\"")?.strip_suffix('"'));
    name.and_then(|name| name.split_once(" ("))
        .is_some_and(|(short, _)| page.contains(&short.replace("GNU/Linux ", "")))
}
