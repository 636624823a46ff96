//! A configuration with some keys set otherwise, for trying them out: `roles.web.transactions_max=30`.

use std::path::Path;

use thiserror::Error;
use toml::{Table, Value};

use super::Config;
use super::mistake::Mistakes;
use super::parse::{load, parse, read_text};

/// Why there is no such configuration.
#[derive(Debug, Error)]
pub enum SetError {
    /// A change has no `=`, or no value.
    #[error("{0:?} is no change; write for example roles.web.transactions_max=30")]
    Form(String),
    /// The file has mistakes, or the changes are some.
    #[error("{0}")]
    Mistakes(#[from] Mistakes),
}

/// Reads and checks a configuration file as if it said these things, too: each is a line of TOML, in which a bare word
/// is a text. Lanes go by their names, as roles do.
pub fn load_with(path: &Path, changes: &[String]) -> Result<Config, SetError> {
    let as_it_is = load(path)?;
    if changes.is_empty() {
        return Ok(as_it_is);
    }
    with(&read_text(path)?, path, changes)
}

fn with(text: &str, path: &Path, changes: &[String]) -> Result<Config, SetError> {
    let mut table: Table = text.parse().unwrap_or_default();
    for change in changes {
        merge(&mut table, change_of(change).ok_or_else(|| SetError::Form(change.clone()))?);
    }
    parse(&table.to_string(), path, &|name| std::env::var(name).ok()).map_err(|mut mistakes| {
        // Lines of a text that nobody has seen.
        mistakes.list.iter_mut().for_each(|mistake| mistake.position = None);
        mistakes.into()
    })
}

fn change_of(change: &str) -> Option<Table> {
    let (path, value) = change.split_once('=')?;
    let quoted = || format!("{path} = {:?}", value.trim()).parse().ok();
    change.parse().ok().or_else(quoted).filter(|_| !value.trim().is_empty())
}

fn merge(into: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (into.get_mut(&key), change) {
            (Some(Value::Table(table)), Value::Table(changes)) => merge(table, changes),
            (Some(Value::Array(named)), Value::Table(changes)) => merge_named(named, changes),
            (_, change) => drop(into.insert(key, change)),
        }
    }
}

fn merge_named(named: &mut Vec<Value>, changes: Table) {
    for (name, change) in changes {
        let Value::Table(mut change) = change else { continue };
        let has_name = |table: &&mut Table| table.get("name").and_then(Value::as_str) == Some(&name);
        match named.iter_mut().filter_map(Value::as_table_mut).find(has_name) {
            Some(table) => merge(table, change),
            None => {
                change.insert("name".to_owned(), name.into());
                named.push(change.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[databases.app]\nhost = \"h\"\n[roles.web]\npassword = \"p\"\n[[lanes]]\nname = \"x\"\nmatch = { role = \"web\" }\n\
                        transactions_max = 9\n";

    fn set(changes: &[&str]) -> Result<Config, SetError> {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        with(FILE, Path::new("proxy.toml"), &changes)
    }

    #[test]
    fn a_key_is_set_as_the_file_would_say_it() {
        let changes = [
            "roles.web.transactions_max=30",
            "roles.web.jitter = spread",
            "databases.app.wait_timeout=\"2s\"",
            "lanes.x.transactions_max=3",
        ];
        let expected = FILE
            .replace("\"h\"\n", "\"h\"\nwait_timeout = \"2s\"\n")
            .replace("\"p\"\n", "\"p\"\ntransactions_max = 30\njitter = \"spread\"\n")
            .replace("= 9", "= 3");
        let expected = parse(&expected, Path::new("proxy.toml"), &|_| None).expect("valid");
        assert_eq!(set(&changes).expect("valid"), expected);
    }

    #[test]
    fn what_cannot_be_set_is_told_by_its_key() {
        for change in ["roles.web.size", "roles.web.size=", "=3"] {
            assert!(matches!(set(&[change]), Err(SetError::Form(_))), "{change}");
        }
        for (change, key) in [("roles.web.speed=9", "roles.web.speed"), ("roles.web.size=many", "roles.web.size")] {
            let Err(SetError::Mistakes(mistakes)) = set(&[change]) else { panic!("{change}") };
            assert_eq!(mistakes.list.len(), 1, "{mistakes}");
            assert!(mistakes.to_string().contains(key), "{mistakes}");
        }
    }
}
