//! `[pool]` and `[databases.NAME]`: which servers, and how many backends of each.

use std::collections::BTreeMap;

use super::{BACKENDS_MAX, WAITERS_MAX, secret, watch};
use crate::config::defaults::{AUTH_QUERY, PORT, STANDING};
use crate::config::raw::Section;
use crate::config::value::{count, duration, duration_above_zero, host, port, some, text, word};
use crate::config::{AuthQuery, BackendTls, BackendTlsMode, CONSOLE_NAMES, Database, Pool, ServerIdentity, Word};

/// Each prepared statement takes memory of its backend.
const STATEMENTS_MAX: u32 = 100_000;

/// `[pool]`: the defaults of every database, and `backends_total_max`.
pub(super) fn read_defaults(root: &mut Section<'_>) -> (Pool, Option<u32>) {
    let mut section = root.section_or_empty("pool");
    let pool = read_pool(&mut section, &Pool::default());
    let backends_total_max = section.take("backends_total_max", count(1..=BACKENDS_MAX));
    section.finish();
    (pool, backends_total_max)
}

/// Every database, `None` for one with mistakes, and whether any has an `auth_query`.
pub(super) fn read(root: &mut Section<'_>, pool: &Pool) -> (BTreeMap<String, Option<Database>>, bool) {
    let sections = root.children("databases");
    if sections.is_empty() {
        root.blame("databases", "there is none; add [databases.\"*\"] with a host, for example");
    }
    let mut databases = BTreeMap::new();
    let mut auth_query = false;
    for (name, section) in sections {
        let database = section.and_then(|section| {
            auth_query |= section.has("auth_query");
            read_one(&name, section, pool)
        });
        databases.insert(name, database);
    }
    (databases, auth_query)
}

fn read_one(name: &str, mut section: Section<'_>, pool: &Pool) -> Option<Database> {
    if CONSOLE_NAMES.contains(&name) {
        section.blame_all("is the name of the console; choose another");
    }
    if name.is_empty() {
        section.blame_all("a database needs a name");
    }
    let hosts = section.require("host", |value| some(value, host));
    let auth_query = section.section("auth_query").and_then(read_auth_query);
    let watch = section.section("watch").and_then(watch::read_login);
    let tls = match section.section("tls") {
        Some(section) => read_tls(section),
        None => Some(BackendTls::default()),
    };
    let port = section.take("port", port);
    let dbname = section.take("dbname", text);
    let backends_max = section.take("backends_max", count(1..=BACKENDS_MAX));
    let standing = section.take("standing", word);
    let pool = read_pool(&mut section, pool);
    section.finish();
    Some(Database {
        hosts: hosts?,
        port: port.unwrap_or(PORT),
        dbname,
        backends_max,
        standing: standing.unwrap_or(STANDING),
        tls: tls?,
        auth_query,
        watch,
        pool,
    })
}

/// The keys of `[pool]` that a database may set too.
fn read_pool(section: &mut Section<'_>, default: &Pool) -> Pool {
    Pool {
        mode: section.take("mode", word).unwrap_or(default.mode),
        size: section.take("size", count(1..=BACKENDS_MAX)).unwrap_or(default.size),
        wait_timeout: section.take("wait_timeout", duration_above_zero).unwrap_or(default.wait_timeout),
        waiters_max: section.take("waiters_max", count(0..=WAITERS_MAX)).unwrap_or(default.waiters_max),
        statements_max: section.take("statements_max", count(1..=STATEMENTS_MAX)).unwrap_or(default.statements_max),
        idle_timeout: section.take("idle_timeout", duration).unwrap_or(default.idle_timeout),
        lifetime: section.take("lifetime", duration).unwrap_or(default.lifetime),
        connect_timeout: section.take("connect_timeout", duration_above_zero).unwrap_or(default.connect_timeout),
        cancel_timeout: section.take("cancel_timeout", duration_above_zero).unwrap_or(default.cancel_timeout),
    }
}

fn read_auth_query(mut section: Section<'_>) -> Option<AuthQuery> {
    let role = section.require("role", text);
    let password = secret::read(&mut section, "password");
    let query = section.take("query", |value| {
        let query = text(value)?;
        match query.contains("$1") {
            true => Ok(query),
            false => Err("has no $1, where the role's name goes".to_owned()),
        }
    });
    section.finish();
    Some(AuthQuery { role: role?, password, query: query.unwrap_or_else(|| AUTH_QUERY.to_owned()) })
}

fn read_tls(mut section: Section<'_>) -> Option<BackendTls> {
    let mode = section.require("mode", word::<BackendTlsMode>);
    let ca = section.file("ca");
    let (cert, key) = (section.file("cert"), section.file("key"));
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if section.has(one) && !section.has(other) {
            section.blame(other, format!("is missing; {one} needs it"));
        }
    }
    // libpq checks the chain as soon as a root certificate is there; here the mode alone decides, so say so.
    if let Some(unchecked @ (BackendTlsMode::Prefer | BackendTlsMode::Require)) = mode
        && section.has("ca")
    {
        section.blame(
            "ca",
            format!("mode {:?} checks no certificate; use \"verify-ca\" or \"verify-full\"", unchecked.word()),
        );
    }
    section.finish();
    Some(BackendTls { mode: mode?, ca, identity: cert.zip(key).map(|(cert, key)| ServerIdentity { cert, key }) })
}
