//! From the file as written to a checked [`Config`], or every mistake in it.
//!
//! One file per section reads its keys and holds its rules; rules over several sections are here.

mod admission;
mod database;
mod listen;
mod notify;
mod role;
mod secret;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::mistake::{Mistake, Mistakes};
use super::raw::{Section, Source, read_file};
use super::value::{list, socket_addr, text, url_host};
use super::{Admin, Auth, Config, Database, ListenAddr, Role};
use role::Others;

/// As many backends as any Postgres allows connections (`max_connections` ends at 262143).
const BACKENDS_MAX: u32 = 262_143;

/// Clients in line hold memory; a line longer than this never moves in time.
const WAITERS_MAX: u32 = 1_000_000;

/// More clients than this have more sockets than one process gets.
const CLIENTS_MAX: u32 = 1_000_000;

/// Characters of `admin.token`: what `openssl rand -hex 8` prints.
const TOKEN_MIN: usize = 16;

/// Reads and checks a configuration file and the files it names.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let unreadable = |text: String| Mistakes {
        list: vec![Mistake { file: path.to_path_buf(), place: None, key: String::new(), text }],
        files: Vec::new(),
    };
    let bytes = read_file(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8".to_owned()))?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// Checks the text of a configuration file. `path` is what mistakes call it, and its directory is where relative paths
/// begin; `env` looks up environment variables.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Mistakes> {
    let source = Source::new(path, text, env);
    let table = source.table()?;
    let mut root = source.root(&table);

    let (listen, certificates) = listen::read(&mut root);
    let (pool, backends_total_max) = database::read_defaults(&mut root);
    let (databases, auth_query) = database::read(&mut root, &pool);
    let wait_max = longest_wait(&databases);
    let roles = role::read(&mut root, &Others { certificates, auth_query, wait_max });
    let admission = admission::read(&mut root, listen.login_timeout);
    let notify = notify::read(&mut root);
    let watch = watch::read(&mut root);
    let admin = admin(&mut root, &listen.addr, &|role| match roles.get(role).or_else(|| roles.get("*")) {
        None => Login::Nowhere,
        Some(Some(Role { auth: Auth::Passthrough | Auth::AuthQuery, .. })) => Login::AtServer,
        Some(_) => Login::Here,
    });
    root.finish();

    if !source.is_clean() {
        return Err(source.mistakes());
    }
    Ok(Config {
        listen,
        admin,
        backends_total_max,
        databases: whole(databases),
        roles: whole(roles),
        admission,
        notify,
        watch,
        files: source.files(),
    })
}

/// Who checks what a role proves itself with.
enum Login {
    Nowhere,
    AtServer,
    Here,
}

fn admin(root: &mut Section<'_>, listen: &[ListenAddr], logins: &dyn Fn(&str) -> Login) -> Admin {
    let default = Admin::default();
    let mut section = root.section_or_empty("admin");
    let addr = section.take("addr", |value| match text(value)?.as_str() {
        "off" => Ok(None),
        _ => socket_addr(value).map(Some),
    });
    let mut roles = |key: &'static str| {
        let roles = section.take(key, |value| list(value, text)).unwrap_or_default();
        for role in &roles {
            match logins(role) {
                Login::Nowhere => section.blame(key, format!("{role:?} cannot log in; add [roles.{role}]")),
                Login::AtServer => section.blame(
                    key,
                    format!(
                        "{role:?} proves itself to a server, and the console has none; give [roles.{role}] a password"
                    ),
                ),
                Login::Here => {}
            }
        }
        roles
    };
    let (roles, stats_roles) = (roles("roles"), roles("stats_roles"));
    if let Some(Some(addr)) = addr
        && addr.port() != 0
        && listen.contains(&ListenAddr::Tcp(addr))
    {
        section.blame("addr", format!("\"{addr}\" is taken by listen.addr"));
    }
    let token = secret::read(&mut section, "token");
    if token.as_ref().is_some_and(|token| token.expose().len() < TOKEN_MIN) {
        section.blame("token", format!("is too easy to guess; it needs {TOKEN_MIN} characters or more"));
    }
    let hosts = section.take("hosts", |value| list(value, url_host));
    section.finish();
    Admin { addr: addr.unwrap_or(default.addr), roles, stats_roles, token, hosts: hosts.unwrap_or(default.hosts) }
}

/// The longest `wait_timeout`; unknown while a database has mistakes.
fn longest_wait(databases: &BTreeMap<String, Option<Database>>) -> Option<Duration> {
    let waits: Option<Vec<Duration>> =
        databases.values().map(|database| Some(database.as_ref()?.pool.wait_timeout)).collect();
    waits?.into_iter().max()
}

/// What was read without a mistake; all of it, where the file has none.
fn whole<T>(read: impl IntoIterator<Item = (String, Option<T>)>) -> BTreeMap<String, T> {
    read.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
