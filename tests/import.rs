//! PgBouncer's configurations as people have them, and what becomes of them.
//!
//! `tests/import/x.ini` becomes `x.toml`, with `x.notes` on stderr; `UPDATE_EXPECTED=1 cargo test --test import` writes
//! both anew.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgweir::config::{self, Auth, Config, PasswordSource, PoolMode};
use pgweir::pgbouncer::{Import, Kind, import};

const DIR: &str = "tests/import";

fn cases() -> Vec<PathBuf> {
    let listed = fs::read_dir(DIR).expect("it is there").map(|entry| entry.expect("readable").path());
    let is_case =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "ini") && !path.to_string_lossy().contains("-more");
    let mut cases: Vec<PathBuf> = listed.filter(is_case).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// Files are found beside the first one, wherever they are said to be; but nothing is /nowhere.
fn translated(ini: &Path) -> Import {
    let beside = |path: &Path| match path.starts_with("/nowhere") {
        true => Err(io::ErrorKind::NotFound.into()),
        false => fs::read_to_string(Path::new(DIR).join(path.file_name().expect("a file"))),
    };
    import(Path::new(ini.file_name().expect("a file")), &beside).expect("PgBouncer reads it, too")
}

fn valid(import: &Import) -> Config {
    let named = Path::new(DIR).join("proxy.toml");
    config::parse(&import.toml, &named, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}\n{}", import.toml))
}

fn refused(import: &Import) -> String {
    let named = Path::new(DIR).join("proxy.toml");
    config::parse(&import.toml, &named, &|_| None).expect_err(&import.toml).to_string()
}

fn compare(file: &Path, is: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(file, is).expect("our own directory");
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    assert!(is == expected, "{}: is\n{is}\nand not\n{expected}", file.display());
}

#[test]
fn real_files_become_what_is_expected() {
    for ini in cases() {
        let import = translated(&ini);
        let mut notes: Vec<String> = import.notes.iter().map(|note| format!("{:?}: {note}\n", note.kind)).collect();
        notes.push(format!("not needed: {}\n", import.unneeded.join(", ")));
        compare(&ini.with_extension("toml"), &import.toml);
        compare(&ini.with_extension("notes"), &notes.concat());
        // Who could log in is not known there, so nobody can.
        match ini.ends_with("hopeless.ini") {
            true => assert!(refused(&import).contains("roles: there is none"), "{}", import.toml),
            false => drop(valid(&import)),
        }
    }
}

#[test]
fn secrets_are_written_to_the_file_and_told_to_nobody() {
    for ini in cases() {
        let import = translated(&ini);
        for note in &import.notes {
            assert!(!note.to_string().contains("s3cret") && !note.to_string().contains("SCRAM-SHA-256$"), "{note}");
        }
    }
    let import = translated(Path::new("one-owner.ini"));
    let config = valid(&import);
    for database in config.databases.values() {
        assert_eq!(database.login_as.as_deref(), Some("shop"));
        assert_eq!(
            database.password.as_ref().and_then(PasswordSource::known).expect("it is given").expose(),
            "it's s3cret"
        );
    }
    assert_eq!(config.roles["anna"].login_as, None);
}

#[test]
fn nobody_gets_in_more_easily_than_before() {
    for ini in cases() {
        let (import, text) = (translated(&ini), fs::read_to_string(&ini).expect("readable"));
        let trusted = text.contains("auth_type = trust") || text.contains("auth_type = any");
        if ini.ends_with("hopeless.ini") {
            continue;
        }
        for (name, role) in valid(&import).roles {
            // Its HBA file lets this one in so.
            let is_let_in = ini.ends_with("hba.ini") && &*name == "worker";
            assert!(trusted || is_let_in || role.auth != Auth::Trust, "{}: {name}", ini.display());
        }
    }
}

#[test]
fn lines_of_an_hba_file_become_rules_of_roles_or_errors_with_their_line() {
    let import = translated(Path::new("hba.ini"));
    let unsafe_lines = import.notes.iter().filter(|note| note.kind == Kind::Unsafe);
    let places: Vec<_> = unsafe_lines.map(|note| note.place.as_ref().expect("a line").to_string()).collect();
    assert_eq!(places, ["hba.rules:6", "hba.rules:9", "hba.rules:10"]);
    let roles = valid(&import).roles;
    let names: Vec<_> = roles.keys().map(|name| &**name).collect();
    assert_eq!(names, ["ops", "web", "worker"], "who has no lines, or none that can be said, is left out");
}

#[test]
fn what_the_file_does_not_say_is_as_pgbouncer_has_it() {
    let empty = |path: &Path| match path.to_str() {
        Some("a.ini") => {
            Ok("[databases]\ndb = host=h\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_file = u.txt\n".to_owned())
        }
        Some("u.txt") => Ok("\"web\" \"s3cret\"\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let config = valid(&import(Path::new("a.ini"), &empty).expect("valid"));
    let pool = &config.databases["db"].pool;
    assert_eq!((pool.mode, pool.size, config.listen.clients_max), (PoolMode::Session, 20, 100));
    assert_eq!((pool.wait_timeout.as_secs(), pool.connect_timeout.as_secs()), (120, 15));
    assert_eq!((pool.idle_timeout.as_secs(), pool.lifetime.as_secs()), (600, 3600));
    assert_eq!((config.listen.login_timeout.as_secs(), config.admission.notice_after.as_secs()), (60, 5));
}

// ## The command

fn pgweir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgweir")).args(arguments).current_dir(DIR).output().expect("it is built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn command_writes_to_stdout_and_notes_to_stderr() {
    let output = pgweir(&["import", "aurora.ini"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), fs::read_to_string(Path::new(DIR).join("aurora.toml")).expect("expected"));
    let told = text(&output.stderr);
    for part in ["means something else:", "has no equivalent:", "not needed: ", "aurora.ini:14: peer_id: "] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn command_writes_over_nothing_unless_forced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("proxy.toml");
    let output = file.to_str().expect("text");
    assert!(pgweir(&["import", "ldap.ini", "--output", output]).status.success());
    let first = fs::read_to_string(&file).expect("written");
    assert_eq!(fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);

    let refused = pgweir(&["import", "any.ini", "--output", output]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--overwrite"), "{}", text(&refused.stderr));
    assert_eq!(fs::read_to_string(&file).expect("written"), first);

    assert!(pgweir(&["import", "any.ini", "--output", output, "--overwrite"]).status.success());
    assert_ne!(fs::read_to_string(&file).expect("written"), first);
}

#[test]
fn command_writes_nothing_that_is_less_safe_unless_forced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (ini, output) = (dir.path().join("pgbouncer.ini"), dir.path().join("proxy.toml"));
    let arguments = ["import", ini.to_str().expect("text"), "--output", output.to_str().expect("text")];
    let head = "[databases]\na = host=h\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = any\n";
    for line in
        ["auth_file = /nowhere/users.txt", "listen_addr = bouncer.internal", "disable_pqexec = 1", "auth_type = hba"]
    {
        fs::write(&ini, format!("{head}{line}\n")).expect("our own directory");
        let refused = pgweir(&arguments);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{line}: {told}");
        assert!(told.contains("not safe to leave out:") && told.contains("--force"), "{line}: {told}");
        assert!(!output.exists(), "{line}");
        pgweir(&[&arguments[..], &["--force"]].concat());
        fs::remove_file(&output).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn command_says_what_is_left_to_put_right() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ini = dir.path().join("pgbouncer.ini");
    let listen = "[databases]\na = host=h\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = any\n";
    fs::write(&ini, format!("{listen}client_tls_sslmode = require\n")).expect("our own directory");
    let output = pgweir(&["import", ini.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("listen.tls.cert: is missing"), "{}", text(&output.stderr));
    assert!(!output.stdout.is_empty(), "it is written all the same");

    fs::write(&ini, "listen_addr = *\n").expect("our own directory");
    let output = pgweir(&["import", ini.to_str().expect("text")]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(text(&output.stderr).ends_with("pgbouncer.ini:1: stands before the first [section]\n"));
}

#[test]
fn different_and_missing_are_told_apart() {
    let import = translated(Path::new("aurora.ini"));
    let kind = |about: &str| import.notes.iter().find(|note| note.about == about).map(|note| note.kind);
    assert_eq!(kind("so_reuseport"), Some(Kind::Different));
    assert_eq!(kind("peer_id"), Some(Kind::Missing));
    assert_eq!(kind("min_pool_size"), None);
    assert_eq!(kind("pool_mode"), None);
}
