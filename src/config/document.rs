//! `docs/CONFIG.md`, the table form of `proxy.toml`. `UPDATE_EXPECTED=1 cargo test --lib config` writes it anew.
//!
//! No fact has a second home: the keys, their bounds and defaults are those of `section!`, the sentences are the
//! comments of `proxy.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::show::{KeyFacts, default_rows};
use crate::printed::assert_printed;

const PROXY_TOML: &str = include_str!("../../proxy.toml");

const HEAD: &str = "\
# Configuration

Every setting, with its meaning, its allowed values and its default. [`proxy.toml`](../proxy.toml) has the same as a file
to copy from; most installations need ten lines of it ([START.md](START.md)). `SHOW CONFIG` in the console shows the
settings in force.

A `*` in a key stands for a name, as in `roles.web.size`. A saved change takes effect at once, except for the few keys
that need a restart and say so. A file with a mistake changes nothing, and `pgweir check proxy.toml` lists all mistakes.
";

const FOOT: &str = "
Next: [PROTECTION.md](PROTECTION.md), the key that prevents each incident, and [TIMEOUTS.md](TIMEOUTS.md).

This file is printed from `proxy.toml` and the code: `UPDATE_EXPECTED=1 cargo test --lib config`.
";

// ## The comments of `proxy.toml`

/// The comment of a key in the file.
#[derive(Debug, Clone, Default)]
struct Remark {
    text: String,
    /// Where the line is.
    line: usize,
    /// The text behind the `=`.
    value: String,
}

#[derive(Debug, Default)]
struct Reference {
    /// The comment for all sections.
    preamble: String,
    /// Sections in their order, such as `roles.*`, and the comment of each.
    sections: Vec<(String, String)>,
    keys: BTreeMap<String, Remark>,
}

/// The comment above keys is of the first of them; the others refer to it. What follows on the line is of its key
/// alone.
fn reference() -> Reference {
    let mut reference = Reference::default();
    let (mut block, mut first) = (String::new(), None);
    let mut section = String::new();
    for (line, text) in PROXY_TOML.lines().enumerate() {
        // A section of which there are none by default is commented out as a whole.
        let header = text.strip_prefix("# [").filter(|name| name.starts_with('[')).or_else(|| text.strip_prefix('['));
        if let Some(name) = header.and_then(|name| name.strip_suffix(']')) {
            let list = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
            section = list.map_or_else(|| name.replace("\"*\"", "*"), |list| format!("{list}.*"));
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
            let said = Remark { text, line, value: value.to_owned() };
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
    /// The comment of a key: at its own line, at that of the table it stands in, or in `[pool]`.
    fn of(&self, path: &str) -> Remark {
        let (parent, name) = path.rsplit_once('.').expect("keys are in sections");
        if let Some(said) = self.keys.get(path).filter(|said| !said.text.is_empty()) {
            return said.clone();
        }
        if let Some(said) = self.keys.get(parent) {
            let (_, table) = parent.rsplit_once('.').expect("tables are in sections");
            // The first of the table's keys carries its comment.
            let is_first = said.value.contains(&format!("{{ {name} = "));
            let text = if is_first { said.text.clone() } else { format!("See `{table}` above.") };
            return Remark { text, ..said.clone() };
        }
        let said = self.keys.get(&format!("pool.{name}")).unwrap_or_else(|| panic!("{path} is not in proxy.toml"));
        Remark { text: format!("As `pool.{name}`, for this database."), line: 100_000 + said.line, ..said.clone() }
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

/// Every key, in general, such as `roles.*.size`.
fn keys() -> Vec<KeyFacts> {
    let star = || ["*"].into_iter();
    let keys = default_rows(star(), star(), star()).keys;
    keys.into_iter().map(|key| KeyFacts { path: key.path.replace("\"*\"", "*"), ..key }).collect()
}

fn document() -> String {
    let reference = reference();
    let all = keys();
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
            let default = match &key.default {
                Some(_) if of_pool != key.path && reference.keys.contains_key(&of_pool) => format!("`{of_pool}`"),
                Some(value) if !value.is_empty() => format!("`{value}`"),
                _ => "–".to_owned(),
            };
            let row =
                format!("| `{}` | {} | {} | {} |\n", key.path, cell(&key.allowed), cell(&default), cell(&said.text));
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
    assert_printed("docs/CONFIG.md", &document(), "config");
}

#[test]
fn the_shipped_file_has_a_section_for_every_key() {
    let reference = reference();
    for KeyFacts { path, .. } in keys() {
        let has_section = |(section, _): &(String, String)| path.starts_with(&format!("{section}."));
        assert!(reference.sections.iter().any(has_section), "{path} has no section in proxy.toml");
    }
}

#[test]
fn the_shipped_file_says_which_keys_need_a_restart() {
    let reference = reference();
    for KeyFacts { path, needs_restart, .. } in keys() {
        let text = reference.of(&path).text;
        assert_eq!(text.contains("Needs a restart."), needs_restart, "{path}: {text}");
    }
}
