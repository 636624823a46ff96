//! From the file as written to a checked [`Config`], or every mistake in it.
//!
//! Sections are read in an order in which the later ones know what the earlier ones say; rules over several are here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::database::PoolSection;
use super::lane::LaneSurroundings;
use super::metrics::MetricsKeys;
use super::mistake::{Mistake, Mistakes};
use super::raw::KeyVisitor;
use super::raw::{SectionReader, Source, read_file};
use super::recorder::RecorderKeys;
use super::role::OtherSections;
use super::statements::StatementKeys;
use super::{
    Admin, Admission, Auth, ClientTls, Config, Database, Fleet, FleetMode, Listen, ListenAddr, Notify, Role, Watch,
};
use super::{database, lane, role};

/// Reads and checks a configuration file and the files it names.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    parse(&read_text(path)?, path, &|name| std::env::var(name).ok())
}

/// The text of a configuration file.
pub(super) fn read_text(path: &Path) -> Result<String, Mistakes> {
    let unreadable = |text: String| Mistakes {
        list: vec![Mistake { file: path.to_path_buf(), position: None, key: String::new(), text }],
        files: Vec::new(),
    };
    let bytes = read_file(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8".to_owned()))
}

/// Checks the text of a configuration file. `path` is what mistakes call it, and its directory is where relative paths
/// begin; `env` looks up environment variables.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Mistakes> {
    let source = Source::new(path, text, env);
    let table = source.table()?;
    let mut root = source.root(&table);

    let mut listen = Listen::default();
    root.table("listen", &mut listen);
    let mut pool = PoolSection::default();
    root.table("pool", &mut pool);
    let (databases, auth_query) = database::read(&mut root, &pool.pool);
    let others = OtherSections {
        certificates: source.is_blamed("listen.tls") || matches!(listen.tls, ClientTls::VerifyClient(..)),
        auth_query,
        wait_max: longest_wait(&databases).filter(|_| !source.is_blamed("databases")),
    };
    let roles = role::read(&mut root, &others);
    check_databases_of_roles(&roles, &databases, &root.view("roles"));
    check_logins_of_databases(&roles, &databases, &root.view("databases"));
    let mut admission = Admission::within(listen.login_timeout);
    root.table("admission", &mut admission);
    admission.check_delay(listen.login_timeout, &root.view("admission"));
    let mut notify = Notify::default();
    root.table("notify", &mut notify);
    let mut watch = Watch::default();
    root.table("watch", &mut watch);
    let mut statements = StatementKeys::default();
    root.table("statements", &mut statements);
    let mut recorder = RecorderKeys::default();
    root.table("recorder", &mut recorder);
    let mut metrics = MetricsKeys::default();
    root.table("metrics", &mut metrics);
    let around = LaneSurroundings {
        databases: &databases,
        roles: roles.keys().map(String::as_str).collect(),
        tracks: statements.track || source.is_blamed("statements"),
    };
    let lanes = lane::read(&mut root, &around);
    for (name, database) in &databases {
        let is_watched = watch.login.is_some() || source.is_blamed("watch");
        database::check_topology_login(database, is_watched, &root.view("databases").view(name));
    }
    let mut fleet = Fleet::default();
    root.table("fleet", &mut fleet);
    let is_watched = watch.login.is_some() || databases.values().any(|database| database.watch.is_some());
    if fleet.mode == FleetMode::Count && !is_watched && !source.is_blamed("watch") {
        root.view("fleet").blame("mode", "\"count\" needs watch.role: instances are counted by their watches");
    }
    let mut admin = Admin::default();
    root.table("admin", &mut admin);
    check_admin(&admin, &root.view("admin"), &listen.addr, &roles);
    root.finish();

    if !source.is_clean() {
        return Err(source.mistakes());
    }
    Ok(Config {
        listen,
        admin,
        backends_total_max: pool.backends_total_max,
        databases,
        roles: roles.into_iter().filter_map(|(name, role)| Some((name, role?))).collect(),
        admission,
        notify,
        watch,
        fleet,
        statements,
        recorder,
        metrics,
        lanes,
        files: source.files(),
        secret_files: source.secret_files(),
    })
}

/// The console has an address of its own, and checks its passwords itself.
fn check_admin(
    admin: &Admin,
    section: &SectionReader<'_>,
    listen: &[ListenAddr],
    roles: &BTreeMap<String, Option<Role>>,
) {
    if let Some(addr) = admin.addr
        && section.has("addr")
        && addr.port() != 0
        && listen.contains(&ListenAddr::Tcp(addr))
    {
        section.blame("addr", format!("\"{addr}\" is taken by listen.addr"));
    }
    for (key, names) in [("roles", &admin.roles), ("stats_roles", &admin.stats_roles)] {
        for name in names {
            match roles.get(name).or_else(|| roles.get("*")) {
                None => section.blame(key, format!("{name:?} cannot log in; add [roles.{name}]")),
                Some(Some(Role { auth: Auth::Passthrough | Auth::AuthQuery, .. })) => section.blame(
                    key,
                    format!(
                        "{name:?} proves itself to a server, and the console has none; give [roles.{name}] a password"
                    ),
                ),
                Some(_) => {}
            }
        }
    }
}

/// A role may be confined to databases that exist.
fn check_databases_of_roles(
    roles: &BTreeMap<String, Option<Role>>,
    databases: &BTreeMap<String, Database>,
    section: &SectionReader<'_>,
) {
    if databases.contains_key("*") {
        return;
    }
    for (name, role) in roles {
        let confined = role.iter().flat_map(|role| &role.access.databases);
        for unknown in confined.filter(|database| !databases.contains_key(*database)) {
            section.view(name).blame("databases", format!("{unknown:?} does not exist; add [databases.{unknown}]"));
        }
    }
}

/// A role that Postgres itself checks logs in as nobody else.
fn check_logins_of_databases(
    roles: &BTreeMap<String, Option<Role>>,
    databases: &BTreeMap<String, Database>,
    section: &SectionReader<'_>,
) {
    let section_of = |name: &String| if databases.contains_key(name) { name.clone() } else { "*".to_owned() };
    let passed_through = |database: &String| {
        let reaches =
            |confined: &[String]| confined.is_empty() || confined.iter().any(|name| section_of(name) == *database);
        let is = |role: &Role| matches!(role.auth, Auth::Passthrough) && reaches(&role.access.databases);
        roles.iter().find(|(_, role)| role.as_ref().is_some_and(is)).map(|(name, _)| name)
    };
    for name in databases.iter().filter(|(_, database)| database.login_as.is_some()).map(|(name, _)| name) {
        if let Some(role) = passed_through(name) {
            let text = format!(
                "role {role:?} has auth \"passthrough\", which logs in as the client itself; \
                 give it another auth, or name its databases without this one"
            );
            section.view(name).blame("login_as", text);
        }
    }
}

fn longest_wait(databases: &BTreeMap<String, Database>) -> Option<Duration> {
    databases.values().map(|database| database.pool.wait_timeout).max()
}
