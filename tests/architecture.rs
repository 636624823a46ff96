//! The floors of `src/`: a module imports only modules of lower floors, and no files import each other in a circle.
//!
//! [`FLOORS`] is the list that `docs/ARCHITECTURE.md` draws. A new module gets a place in it; an import that points
//! up fails here. The library's `testing` is on no floor: it only exports again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first; modules of one floor do not import each other.
const FLOORS: [&[&str]; 13] = [
    &["words"],
    &["wire", "sql", "config", "orders"],
    &["admission", "net", "pgbouncer", "recorder", "state"],
    &["auth", "metrics"],
    &["pool", "workload"],
    &["clients", "fleet", "lanes", "notify", "topology"],
    &["error", "replay", "watch"],
    &["proxy"],
    &["session"],
    &["admin"],
    &["run"],
    &["cli"],
    &["main"],
];

/// Files and folders that decide, and therefore know no socket, file or clock: what happens is told to them.
const PURE: [&str; 30] = [
    "wire",
    "sql",
    "pool/core",
    "pool/passwords/schedule.rs",
    "admission/adaptive.rs",
    "admission/burst.rs",
    "admission/limiter",
    "admission/fleet_share.rs",
    "admission/limit.rs",
    "admission/wait_queue.rs",
    "admission/login.rs",
    "admission/rate.rs",
    "admission/shadow.rs",
    "admission/slow_start.rs",
    "fleet/count",
    "fleet/lease/book.rs",
    "fleet/lease/facts.rs",
    "fleet/lease/holder",
    "fleet/lease/order.rs",
    "fleet/lease/peaks.rs",
    "lanes/matching.rs",
    "recorder/entry.rs",
    "recorder/ring.rs",
    "replay/server.rs",
    "replay/suggest.rs",
    "topology/core",
    "watch/core",
    "watch/convoy",
    "watch/detectors",
    "workload/baseline.rs",
];

/// How code reaches a socket, a file or a clock.
const IMPURE: [&str; 8] = [
    "tokio::net",
    "tokio::io",
    "tokio::fs",
    "tokio::time::sleep",
    "std::net::Tcp",
    "std::fs",
    "Instant::now()",
    "SystemTime::now()",
];

/// Names that several types may have. Associated types are not looked at: a trait gives them their name.
const SHARED_NAMES: [(&str, &str); 2] = [
    ("Operation", "random-operation tests: one step"),
    ("Model", "random-operation tests: a simple double of the code under test"),
];

/// Longest line of a source file, in characters.
const WIDTH: usize = 120;

/// Documents that a reader of the repository does not have.
const PRIVATE: [&str; 5] = ["DESIGN", "STYLE", "c-poolers", "modern-poolers", "architecture 4"];

#[test]
fn every_module_stands_on_a_floor() {
    let modules: BTreeSet<String> =
        sources().keys().map(|file| top(file)).filter(|name| name != "lib" && name != "testing").collect();
    let placed: BTreeSet<String> = FLOORS.iter().flat_map(|floor| floor.iter().map(ToString::to_string)).collect();
    assert_eq!(modules, placed);
}

#[test]
fn imports_point_down() {
    let floor =
        |module: &str| FLOORS.iter().position(|floor| floor.contains(&module)).expect("every module has a floor");
    let mut wrong = Vec::new();
    for (file, imported) in imports() {
        let from = top(&file);
        for target in imported {
            let to = top(&target);
            if from != to && from != "lib" && from != "testing" && floor(&to) >= floor(&from) {
                wrong.push(format!("{file} imports {target}: {to} is not below {from}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports();
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reach(&imports, file))).collect();
    let mut circles: BTreeSet<Vec<&String>> = BTreeSet::new();
    for (file, targets) in &reached {
        let circle: Vec<_> = targets.iter().copied().filter(|target| reached[target].contains(file)).collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn cores_know_no_socket_file_or_clock() {
    let sources = sources();
    for pure in PURE {
        assert!(sources.keys().any(|file| is_within(file, pure)), "{pure} has moved");
    }
    let mut wrong = Vec::new();
    for (file, text) in sources {
        if PURE.iter().any(|pure| is_within(&file, pure)) {
            let found = IMPURE.iter().filter(|word| text.contains(*word));
            wrong.extend(found.map(|word| format!("{file}: {word}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file is `pure` itself, or stands in that folder.
fn is_within(file: &str, pure: &str) -> bool {
    file == pure || file.strip_suffix(".rs") == Some(pure) || file.starts_with(&format!("{pure}/"))
}

#[test]
fn every_type_has_a_name_of_its_own() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in files(&["src"]) {
        for name in text.lines().filter_map(type_name) {
            homes.entry(name.to_owned()).or_default().push(path.display().to_string());
        }
    }
    homes.retain(|_, files| files.len() > 1);
    for (name, _) in SHARED_NAMES {
        assert!(homes.remove(name).is_some(), "{name} is the name of one type: take it off the list");
    }
    assert!(homes.is_empty(), "{homes:#?}");
}

/// The name of the type that a line begins to define, tests included.
fn type_name(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let is_indented = code.len() < line.len();
    let code = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => code,
    };
    let (keyword, rest) = code.split_once(' ')?;
    let is_type = matches!(keyword, "struct" | "enum" | "trait") || keyword == "type" && !is_indented;
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    is_type.then_some(&rest[..length]).filter(|name| !name.is_empty())
}

#[test]
fn no_line_is_wider_than_the_screen() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"]) {
        if path.extension().is_some_and(|kind| kind == "rs") {
            let wide = wide_lines(&text).map(|at| format!("{}:{at}", path.display()));
            wrong.extend(wide);
        }
    }
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
}

/// The numbers of lines that are too wide, but for those with a text that a person is shown: a text is not cut.
fn wide_lines(text: &str) -> impl Iterator<Item = usize> {
    let mut is_in_text = false;
    let mut wide = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with("//");
        let quotes = line.replace("\\\"", "").replace("'\"'", "").matches('"').count();
        let has_text = is_in_text || !is_comment && quotes > 0;
        if !is_comment && quotes % 2 == 1 {
            is_in_text = !is_in_text;
        }
        if line.chars().count() > WIDTH && !has_text {
            wide.push(at + 1);
        }
    }
    wide.into_iter()
}

#[test]
fn nothing_refers_to_documents_that_are_not_here() {
    let mut wrong = Vec::new();
    for (path, text) in files(&["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets", "docs"]) {
        if path.ends_with("tests/architecture.rs") {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            let found = PRIVATE
                .iter()
                .filter(|name| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == **name));
            wrong.extend(found.map(|name| format!("{}:{}: {name}", path.display(), at + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// ## The tree

/// Every file of these folders that people write, with its text.
fn files(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> =
        folders.iter().map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("node_modules") {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "md") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The files of `src/` by their path in it, without their comments and tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_test = |file: &str| {
        file.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "random_operations.rs" | "simulation.rs"))
    };
    let mut sources = BTreeMap::new();
    for (path, text) in files(&["src"]) {
        let file = path.strip_prefix(&root).expect("below src").to_str().expect("ASCII").to_owned();
        let is_of_tests = is_test(&file) || is_declared_for_tests(&path);
        if file.ends_with(".rs") && !is_of_tests {
            sources.insert(file, code(&text));
        }
    }
    sources
}

/// Its parent declares it under `#[cfg(test)]`.
fn is_declared_for_tests(path: &Path) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_stem().and_then(|name| name.to_str())) else {
        return false;
    };
    let parents = [folder.join("mod.rs"), folder.with_extension("rs"), folder.join("lib.rs")];
    let declared = format!("#[cfg(test)]\nmod {name};");
    parents.iter().filter_map(|parent| fs::read_to_string(parent).ok()).any(|text| text.contains(&declared))
}

/// A text without comments and without the module of its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module of the top floor list that a file belongs to.
fn top(file: &str) -> String {
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// The path of a file as a module, from the root of the crate.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Which files each file names, by paths from `crate`, `super` or `self`. What a parent takes from its own children, or
/// exports again, is none of its imports: it is made of them.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let modules: BTreeMap<Vec<String>, &String> = sources.keys().map(|file| (module(file), file)).collect();
    let mut imports = BTreeMap::new();
    for (file, text) in &sources {
        let here = module(file);
        let mut targets = BTreeSet::new();
        for path in paths(text, &here) {
            // The longest part of the path that is a module with a file.
            let known = (0..=path.len()).rev().find_map(|length| modules.get(&path[..length]));
            if let Some(target) = known
                && *target != file
                && **target != "lib.rs"
            {
                targets.insert((*target).clone());
            }
        }
        imports.insert(file.clone(), targets);
    }
    imports
}

/// All paths that a text names, from the root of the crate.
fn paths(text: &str, here: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for keyword in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(keyword) {
            let before = text[..at].chars().next_back();
            let is_part = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            let line = text[..at].rsplit('\n').next().unwrap_or_default();
            if is_part || line.trim_start().starts_with("pub use") || line.trim_start().starts_with("pub(crate) use") {
                continue;
            }
            let mut start = match keyword {
                "crate::" => Vec::new(),
                "super::" => here[..here.len().saturating_sub(1)].to_vec(),
                _ => here.to_vec(),
            };
            let mut rest = &text[at + keyword.len()..];
            while let Some(further) = rest.strip_prefix("super::") {
                start.pop();
                rest = further;
            }
            expand(rest, &start, &mut found);
        }
    }
    found
}

/// The paths of one tree, as of a `use`, that begins at `text` below `start`. Returns what is behind it.
fn expand<'a>(text: &'a str, start: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = start.to_vec();
    let mut rest = text;
    loop {
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = expand(inner.trim_start(), &path, found).trim_start();
                match inner.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => inner = next,
                    Some(next) => return next.trim_start().strip_prefix('}').unwrap_or_default(),
                    None => return inner.strip_prefix('}').unwrap_or_default(),
                }
            }
        }
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length > 0 && &rest[..length] != "self" {
            path.push(rest[..length].to_owned());
        }
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(further) => rest = further,
            None => {
                found.push(path);
                let renamed = rest
                    .strip_prefix(" as ")
                    .map(|name| name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
                return renamed.unwrap_or(rest);
            }
        }
    }
}

/// What can be reached from a file by imports.
fn reach<'a>(imports: &'a BTreeMap<String, BTreeSet<String>>, file: &String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = imports[file].iter().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(&imports[next]);
        }
    }
    reached
}
