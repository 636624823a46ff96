//! The table of `docs/FROM_PGBOUNCER.md`, printed from `keys`. `UPDATE_EXPECTED=1 cargo test --lib pgbouncer` writes it
//! anew.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::keys::{Fate, KEYS, KnownKey, Section};
use super::{Import, import};
use crate::printed::assert_printed;

const PAGE: &str = "docs/FROM_PGBOUNCER.md";
const BEGIN: &str = "<!-- keys -->\n";
const END: &str = "<!-- end of keys -->\n";

fn table() -> String {
    let mut out = String::new();
    for (section, title) in [
        (Section::General, "[pgbouncer]"),
        (Section::Database, "[databases]"),
        (Section::User, "[users]"),
        (Section::Peer, "[peers]"),
    ] {
        out += &format!("\n### {title}\n\n| PgBouncer | pgweir | |\n|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section == section) {
            let (setting, fate) = match key.fate {
                Fate::Same(setting) => (format!("`{setting}`"), ""),
                Fate::Different("—") => ("—".to_owned(), "**differs**"),
                Fate::Different(setting) => (format!("`{setting}`"), "**differs**"),
                Fate::Missing => ("—".to_owned(), "**no equivalent**"),
                Fate::Unsafe => ("—".to_owned(), "**no equivalent**, needs `--force`"),
                Fate::Unneeded => ("—".to_owned(), "not needed"),
            };
            let what: Vec<&str> = [fate, key.says].into_iter().filter(|text| !text.is_empty()).collect();
            out += &format!("| `{}` | {setting} | {} |\n", key.name, what.join(": "));
        }
    }
    out + "\n"
}

#[test]
fn the_document_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let written = std::fs::read_to_string(&path).expect("it is there");
    let (head, rest) = written.split_once(BEGIN).expect("where the table begins");
    let (_, tail) = rest.split_once(END).expect("where the table ends");
    assert_printed(PAGE, &format!("{head}{BEGIN}{}{END}{tail}", table()), "pgbouncer");
}

#[test]
fn no_key_is_there_twice() {
    let mut seen = BTreeSet::new();
    for key in KEYS {
        assert!(seen.insert((key.section, key.name)), "{}", key.name);
    }
}

/// A file in which `line` is the only one of its kind, with what other keys need to matter.
fn with(key: &KnownKey, value: Option<&str>) -> Import {
    let own = value.map(|value| format!("{} = {value}\n", key.name)).unwrap_or_default();
    let word = value.map(|value| format!("{}={value} ", key.name)).unwrap_or_default();
    let needs = match (key.section, key.name) {
        (Section::General, name) if name.starts_with("client_tls") && name != "client_tls_sslmode" => {
            "client_tls_sslmode = verify-ca\n"
        }
        (Section::General, "server_tls_ca_file") => "server_tls_sslmode = verify-ca\n",
        (Section::General, "auth_query" | "auth_dbname") => "auth_user = lookup\n",
        (Section::General, "auth_hba_file") => "auth_type = hba\n",
        _ => "",
    };
    let (mut general, mut database, mut user, mut peer) =
        (needs.to_owned(), "host=h ".to_owned(), String::new(), String::new());
    match key.section {
        Section::General => general += &own,
        Section::Database if key.name == "host" => database = word,
        Section::Database => {
            database += &word;
            match key.name {
                "password" => database += "user=owner",
                "auth_query" | "auth_dbname" => database += "auth_user=lookup",
                _ => {}
            }
        }
        Section::User => user = word,
        Section::Peer => peer = word,
    }
    let auth = if own.starts_with("auth_file") || key.name == "auth_file" { "" } else { "auth_file = web.txt\n" };
    let ini = format!(
        "[databases]\ndb = {database}\n[users]\nweb = {user}\n[peers]\n1 = {peer}\n[pgbouncer]\n{auth}{general}"
    );
    let look = |path: &Path| match path.to_str() {
        Some("pgbouncer.ini") => Ok(ini.clone()),
        Some("/etc/pgbouncer/hba.conf") => Ok("host all all 10.0.0.0/8 md5\n".to_owned()),
        Some("web.txt" | "users.txt") => Ok("\"web\" \"s3cret\"\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    import(Path::new("pgbouncer.ini"), &look).expect("a valid file")
}

#[test]
fn every_key_does_what_its_row_says() {
    for key in KEYS {
        let (without, with_it) = (with(key, None), with(key, Some(key.example)));
        let place = |import: &Import| import.notes.iter().map(|note| note.text.clone()).collect::<Vec<_>>();
        let is_noted = place(&without) != place(&with_it);
        let is_written = without.toml != with_it.toml;
        let is_unneeded = with_it.unneeded.contains(&key.name);
        let did = (is_written, is_noted, is_unneeded);
        match key.fate {
            Fate::Same(_) => assert!(is_written && !is_unneeded, "{key:?}: {did:?}\n{}", with_it.toml),
            Fate::Different("—") | Fate::Missing | Fate::Unsafe => {
                assert_eq!(did, (false, true, false), "{key:?}\n{}", with_it.toml)
            }
            // The meaning of a list of hosts is noted whether or not the key is there.
            Fate::Different("databases.*.host") => assert_eq!((is_written, is_noted), (false, true), "{key:?}"),
            Fate::Different(_) => assert!(is_written && is_noted && !is_unneeded, "{key:?}: {did:?}\n{}", with_it.toml),
            Fate::Unneeded => assert_eq!(did, (false, false, true), "{key:?}\n{}", with_it.toml),
        }
        for off in key.off {
            let (off, kept) = (with(key, Some(off)), place(&without));
            assert!(
                off.unneeded.is_empty() && (key.section != Section::General || place(&off).len() <= kept.len() + 1)
            );
        }
    }
}
