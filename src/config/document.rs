//! `docs/CONFIG.md`, the table form of `proxy.toml`. `UPDATE_EXPECTED=1 cargo test --lib config` writes it anew.
//!
//! No fact has a second home: the parser is asked for its keys and what they may be, by giving it what it refuses; the
//! sentences are the comments of `proxy.toml`; the defaults are what is in force when a file says nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{defaults, needs_restart, parse};

const PROXY_TOML: &str = include_str!("../../proxy.toml");

const HEAD: &str = "\
# Configuration

Every setting: what it does, what it may be, and what it is when nobody says. [`proxy.toml`](../proxy.toml) says the same as a file to copy from; most
installations need ten lines of it ([START.md](START.md)). `SHOW CONFIG` in the console shows what is in force.

A `*` in a key stands for a name, as in `roles.web.size`. A saved change takes effect at once, except for the few keys that need a restart and say so; a
file with a mistake changes nothing, and `pgweir check proxy.toml` lists all of them.
";

const FOOT: &str = "
Next: [PROTECTION.md](PROTECTION.md), which of these keys keeps which incident away, and [TIMEOUTS.md](TIMEOUTS.md).

This file is printed from `proxy.toml` and the code: `UPDATE_EXPECTED=1 cargo test --lib config`.
";

/// Its default is the machine's; the comment says which.
const OF_THE_MACHINE: &str = "listen.workers";

// ## What the parser takes

/// A key as it would be named in general, such as `roles.*.size`, and how to ask for it.
#[derive(Debug)]
struct Key {
    path: String,
    /// The table of a file that it stands in, and its name there.
    table: String,
    name: String,
}

impl Key {
    /// What the parser says to this value; `None`: it takes it, as far as the value goes.
    fn told(&self, value: &str) -> Option<String> {
        let Self { table, name, .. } = self;
        told(&format!("[{table}]\n{name} = {value}"), &format!("{table}.{name}"))
    }

    /// What the key may be, in the words of the check that refuses something else.
    fn allowed(&self) -> String {
        let odd = self.told("-1").unwrap_or_else(|| panic!("{}: -1 is taken", self.path));
        let after = |text: &str, words| text.split_once(words).map(|(_, rest)| rest.to_owned());
        let word = self.told("\"?\"");
        let kind = match (&word, after(&odd, "is not ")) {
            (Some(text), _) if text.starts_with("cannot read") => "a file".to_owned(),
            (_, Some(range)) if range.starts_with("between ") => format!("a number {range}"),
            (text, kind) => {
                let better = text.as_ref().and_then(|text| after(text, "is not "));
                better.or(kind).unwrap_or("a secret".to_owned())
            }
        };
        let (kind, examples) = kind.split_once("; write for example ").unwrap_or((&kind, ""));
        let bounds: &[&[&str]] = match kind {
            "a duration" => &[&["\"0s\""], &["\"25d\"", "\"366d\""]],
            "a size in bytes" => &[&["\"0B\""]],
            _ => &[],
        };
        let mut allowed = kind.to_owned();
        for values in bounds {
            let bound = values.iter().find_map(|value| {
                let text = self.told(value)?;
                after(&text, "; it must be ").or(after(&text, "; ")).or(after(&text, "is not "))
            });
            allowed.extend(bound.map(|bound| format!(", {bound}")));
        }
        // A word that means none, such as "off".
        if examples.contains(", or ") {
            write!(allowed, ", such as {examples}").expect("a string takes all");
        }
        if self.told("[-1]").is_some_and(|text| text == odd) {
            allowed += ", or a list of these";
        }
        allowed
    }
}

/// What the parser says of one key in a file.
fn told(text: &str, key: &str) -> Option<String> {
    let mistakes = parse(text, Path::new("proxy.toml"), &|_| None).err()?;
    mistakes.list.into_iter().find(|mistake| mistake.key == key).map(|mistake| mistake.text)
}

/// The names that the parser allows in a table; `None`: any, for it is a table of tables.
fn names(table: &str) -> Option<Vec<String>> {
    let (text, key) = match table {
        "" => ("\"?\" = 0".to_owned(), "\"?\"".to_owned()),
        table => (format!("[{table}]\n\"?\" = 0"), format!("{table}.\"?\"")),
    };
    let text = told(&text, &key).expect("nobody knows this key");
    let names = text.strip_prefix("unknown key; allowed here: ")?;
    Some(names.split(", ").map(str::to_owned).collect())
}

/// Every key below a table.
fn keys(table: &str, path: &str, found: &mut Vec<Key>) {
    let join = |to: &str, name: &str| format!("{to}.{name}").trim_start_matches('.').to_owned();
    let Some(names) = names(table) else {
        return keys(&join(table, "any"), &join(path, "*"), found);
    };
    for name in names {
        let key = Key { path: join(path, &name), table: table.to_owned(), name };
        let is_table = match table {
            "" => true,
            _ => key.told("-1").is_some_and(|text| text.contains("not a table such as")),
        };
        match is_table {
            true => keys(&join(table, &key.name), &key.path, found),
            false => found.push(key),
        }
    }
}

// ## What `proxy.toml` says

/// What the file says of a key.
#[derive(Debug, Clone, Default)]
struct Said {
    text: String,
    /// Where the line is.
    line: usize,
    /// What stands behind the `=`.
    value: String,
}

#[derive(Debug, Default)]
struct Reference {
    /// What holds for all of them.
    preamble: String,
    /// Sections in their order, such as `roles.*`, and what is said of each.
    sections: Vec<(String, String)>,
    keys: BTreeMap<String, Said>,
}

/// The comment above keys is of the first of them; the others refer to it. What follows on the line is of its key alone.
fn reference() -> Reference {
    let mut reference = Reference::default();
    let (mut block, mut first) = (String::new(), None);
    let mut section = String::new();
    for (line, text) in PROXY_TOML.lines().enumerate() {
        if let Some(name) = text.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            section = name.replace("\"*\"", "*");
            reference.sections.push((section.clone(), std::mem::take(&mut block)));
            first = None;
        } else if let Some((name, value, mut said)) = key_line(text) {
            // Indented lines show a whole section; what they have to say of a key stands behind it.
            let is_indented = text.starts_with("#   ");
            match first {
                _ if is_indented => {}
                None => {
                    said.insert(said.len().min(1), std::mem::take(&mut block));
                    first = Some(name);
                }
                Some(first) => said.insert(said.len().min(1), format!("See `{first}`.")),
            }
            if text.starts_with('#') && !is_indented && value.len() < 100 {
                said.push(example(name, value));
            }
            let text = said.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
            let said = Said { text, line, value: value.to_owned() };
            reference.keys.entry(format!("{section}.{name}")).or_insert(said);
        } else {
            let comment = text.trim_start_matches(['#', ' ']);
            if comment.is_empty() || first.is_some() {
                if reference.sections.is_empty() && !block.is_empty() {
                    reference.preamble.clone_from(&block);
                }
                (block, first) = (String::new(), None);
            }
            if !comment.is_empty() {
                block = format!("{block} {comment}").trim_start().to_owned();
            }
        }
    }
    reference
}

/// A line such as `key = value  # remark`, commented out or not: the parts, the remark as sentences.
fn key_line(line: &str) -> Option<(&str, &str, Vec<String>)> {
    let (name, rest) = line.trim_start_matches(['#', ' ']).split_once(" = ")?;
    if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        return None;
    }
    let (value, remark) = rest.split_once(" # ").unwrap_or((rest, ""));
    let remark = match (remark.strip_prefix("for example "), remark.chars().next()) {
        (Some(value), _) => vec![String::new(), example(name, value)],
        (None, Some(first)) => vec![format!("{}{}.", first.to_ascii_uppercase(), &remark[first.len_utf8()..])],
        (None, None) => vec![],
    };
    Some((name, value.trim(), remark))
}

fn example(name: &str, value: &str) -> String {
    match value.starts_with('{') {
        true => format!("For example `{name} = {value}`."),
        false => format!("For example `{value}`."),
    }
}

impl Reference {
    /// What is said of a key: at its own line, at that of the table it stands in, or in `[pool]`.
    fn of(&self, path: &str) -> Said {
        let (parent, name) = path.rsplit_once('.').expect("keys are in sections");
        if let Some(said) = self.keys.get(path).filter(|said| !said.text.is_empty()) {
            return said.clone();
        }
        if let Some(said) = self.keys.get(parent) {
            let (_, table) = parent.rsplit_once('.').expect("tables are in sections");
            // The first of the table's keys carries what is said of it.
            let is_first = said.value.contains(&format!("{{ {name} = "));
            let text = if is_first { said.text.clone() } else { format!("See `{table}` above.") };
            return Said { text, ..said.clone() };
        }
        let said = self.keys.get(&format!("pool.{name}")).unwrap_or_else(|| panic!("{path} is not in proxy.toml"));
        Said { text: format!("As `pool.{name}`, for this database."), line: 100_000 + said.line, ..said.clone() }
    }
}

// ## The page

/// Text in a cell of a table: what stands in backticks is as it is, and pages that are named are linked to.
fn cell(text: &str) -> String {
    let link = |word: &str| match word.strip_prefix("docs/") {
        Some(page) => format!("[{page}]({page})"),
        None => word.to_owned(),
    };
    let linked = |part: &str| part.split(' ').map(link).collect::<Vec<_>>().join(" ");
    let escaped = |(at, part): (usize, &str)| match at % 2 {
        0 => linked(part).replace('*', "\\*").replace('|', "\\|").replace('<', "\\<"),
        _ => part.replace('|', "\\|"),
    };
    text.split('`').enumerate().map(escaped).collect::<Vec<_>>().join("`")
}

fn document() -> String {
    let least = "[databases.\"*\"]\nhost = \"h\"\n[roles.\"*\"]\nauth = \"passthrough\"\n";
    let least = parse(least, Path::new("proxy.toml"), &|_| None).expect("valid");
    let defaults: BTreeMap<String, String> = defaults(&least)
        .into_iter()
        .map(|(key, value)| (key.replace("\"*\"", "*"), value.to_string()))
        .filter(|(key, value)| key != OF_THE_MACHINE && !value.is_empty())
        .collect();
    let reference = reference();
    let mut all = Vec::new();
    keys("", "", &mut all);
    let mut out = format!("{HEAD}\n{}\n", cell(&reference.preamble));
    for (section, intro) in &reference.sections {
        write!(out, "\n## [{section}]\n\n").expect("a string takes all");
        if !intro.is_empty() {
            write!(out, "{}\n\n", cell(intro)).expect("a string takes all");
        }
        out += "| key | allowed | default | |\n|---|---|---|---|\n";
        let at = format!("{section}.");
        let mut rows = Vec::new();
        for key in all.iter().filter(|key| key.path.starts_with(&at)) {
            let said = reference.of(&key.path);
            let of_pool = key.path.replacen("databases.*.", "pool.", 1);
            let as_pool = key.path.replacen("pool.", "databases.*.", 1);
            let default = match defaults.get(&key.path).or_else(|| defaults.get(&as_pool)) {
                Some(_) if of_pool != key.path && reference.keys.contains_key(&of_pool) => format!("`{of_pool}`"),
                Some(value) => format!("`{value}`"),
                None => "–".to_owned(),
            };
            let row =
                format!("| `{}` | {} | {} | {} |\n", key.path, cell(&key.allowed()), cell(&default), cell(&said.text));
            let within = said.value.find(&format!("{} = ", key.name)).unwrap_or(usize::MAX);
            rows.push(((said.line, within), row));
        }
        rows.sort();
        out.extend(rows.into_iter().map(|(_, row)| row));
    }
    out + FOOT
}

#[test]
fn the_document_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
    let document = document();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &document).expect("docs/ is there");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document,
        "docs/CONFIG.md is not what proxy.toml and the code say; run UPDATE_EXPECTED=1 cargo test --lib config"
    );
}

#[test]
fn the_shipped_file_has_a_section_for_every_key() {
    let (reference, mut all) = (reference(), Vec::new());
    keys("", "", &mut all);
    for Key { path, .. } in all {
        let has_section = |(section, _): &(String, String)| path.starts_with(&format!("{section}."));
        assert!(reference.sections.iter().any(has_section), "{path} has no section in proxy.toml");
    }
}

#[test]
fn the_shipped_file_says_which_keys_need_a_restart() {
    for (path, said) in reference().keys {
        assert_eq!(said.text.contains("Needs a restart."), needs_restart(&path), "{path}: {}", said.text);
    }
}
