//! Roles and how they log in: `auth_type`, `auth_file`, `auth_user`, `[users]` and the `user=` of databases.

use std::path::Path;

use super::toml::{Table, TomlValue, inline, plain, text};
use super::translation::{Translation, Words, integer, seconds};
use super::words;
use super::{Files, Kind};

/// `auth_type`, as far as the translation depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthType {
    /// `md5`, `plain`, and the most likely meaning of `hba`.
    Password,
    Scram,
    Trust,
    Any,
    Certificate,
    /// `ldap` and `pam`: Postgres has to ask them.
    Elsewhere,
}

/// A secret of `auth_file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSecret<'a> {
    None,
    Plain(&'a str),
    Md5(&'a str),
    Verifier(&'a str),
}

impl<'a> FileSecret<'a> {
    fn of(text: &'a str) -> Self {
        let is_md5 = |digest: &str| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text {
            "" => Self::None,
            verifier if verifier.starts_with("SCRAM-SHA-256$") => Self::Verifier(verifier),
            hash if hash.strip_prefix("md5").is_some_and(is_md5) => Self::Md5(hash),
            password => Self::Plain(password),
        }
    }

    /// The secret that opens a backend; a verifier does not.
    fn opens(self) -> Option<&'a str> {
        match self {
            Self::Plain(secret) | Self::Md5(secret) => Some(secret),
            Self::None | Self::Verifier(_) => None,
        }
    }
}

/// The roles as they will be.
pub(super) struct Logins {
    pub(super) tables: Vec<Table>,
    /// Names of the roles that prove themselves to pgweir.
    proved_here: Vec<String>,
    /// `auth_user`, `auth_query` and `auth_dbname` in general.
    auth_user: Option<String>,
    auth_query: Option<String>,
    auth_dbname: Option<String>,
    users: Vec<(String, String)>,
    is_looked_up: bool,
    is_passed_through: bool,
}

impl Logins {
    pub(super) fn may_use_console(&self, role: &str) -> bool {
        self.proved_here.iter().any(|name| name == role)
    }

    /// The secret of `auth_file` that opens a backend of this user.
    fn opens(&self, user: &str) -> Option<&str> {
        let (_, secret) = self.users.iter().find(|(name, _)| name == user)?;
        FileSecret::of(secret).opens()
    }

    /// The user that everybody logs in as at a database, and its password.
    pub(super) fn forced<'a>(&'a self, database: &'a Words) -> Option<(&'a str, Option<&'a str>)> {
        let user = database.get("user").filter(|_| !self.is_passed_through)?;
        Some((user, database.get("password").or_else(|| self.opens(user))))
    }

    /// `auth_query` of a database.
    pub(super) fn lookup(&self, database: &Words) -> Option<TomlValue> {
        let role = database.get("auth_user").or(self.auth_user.as_deref()).filter(|_| self.is_looked_up)?;
        let mut pairs = vec![("role", text(role))];
        pairs.extend(self.opens(role).map(|secret| ("password", text(secret))));
        pairs.extend(database.get("auth_dbname").or(self.auth_dbname.as_deref()).map(|name| ("dbname", text(name))));
        pairs.extend(database.get("auth_query").or(self.auth_query.as_deref()).map(|query| ("query", text(query))));
        Some(inline(&pairs))
    }
}

/// Every role.
pub(super) fn logins(translation: &mut Translation, files: Files<'_>) -> Logins {
    let users = auth_file(translation, files);
    let method = method(translation);
    let auth_user = translation.given("auth_user").map(str::to_owned);
    let has_auth_user = auth_user.is_some() || translation.databases.iter().any(|one| one.get("auth_user").is_some());
    let is_looked_up = has_auth_user && matches!(method, AuthType::Password | AuthType::Scram | AuthType::Trust);
    if is_looked_up && method == AuthType::Trust {
        let text = "with auth_type = trust only asks whether a role exists; here its password is asked, too";
        translation.note_on("auth_user", Kind::Different, text);
    }
    if method == AuthType::Certificate && has_auth_user {
        let text = "roles that are not in auth_file get in with a certificate, and have no password for Postgres: give them backend_password";
        translation.note_on("auth_user", Kind::Different, text);
    }

    let mut star = Table::of("roles", "*");
    let star_auth = match method {
        AuthType::Any => Some(("trust", "auth_type = any")),
        AuthType::Elsewhere => Some(("passthrough", "auth_type: Postgres is asked")),
        AuthType::Certificate if has_auth_user => Some(("certificate", "auth_type = cert")),
        _ if is_looked_up => Some(("auth-query", "auth_user")),
        _ => None,
    };
    let mut proved_here = Vec::new();
    let mut named = Vec::new();
    if let Some((auth, why)) = star_auth {
        star.line("auth", &text(auth), why);
    }
    let is_passed_through = method == AuthType::Elsewhere;
    if is_passed_through && translation.databases.iter().any(|database| database.get("user").is_some()) {
        let text = "user= of a database: passthrough logs in as the client itself; give roles passwords for it";
        translation.note_on("auth_type", Kind::Missing, text);
    }
    common(translation, &mut star);

    for (name, secret) in &users {
        let mut table = Table::of("roles", name);
        match proof(translation, &mut table, name, FileSecret::of(secret), method) {
            Proof::Here => proved_here.push(name.clone()),
            Proof::AsAllOthers => {}
            Proof::Never => continue,
        }
        own(translation, &mut table, name);
        named.push(table);
    }
    let strangers: Vec<usize> = (0..translation.users.len())
        .filter(|at| !users.iter().any(|(name, _)| *name == translation.users[*at].name))
        .collect();
    for at in strangers {
        let name = translation.users[at].name.clone();
        if star_auth.is_none() {
            let place = translation.users[at].place.clone();
            translation.note(Some(&place), Kind::Missing, &name, "is not in auth_file, so it cannot log in; left out");
            continue;
        }
        let mut table = Table::of("roles", &name);
        own(translation, &mut table, &name);
        named.push(table);
    }
    if named.is_empty() && star_auth.is_none() {
        let text =
            "nobody can log in, as with PgBouncer; add [roles.…], or auth = \"passthrough\" for all of the server's";
        translation.note_on("auth_file", Kind::Missing, text);
    }
    let auth_query = translation.given("auth_query").map(str::to_owned);
    let auth_dbname = translation.given("auth_dbname").map(str::to_owned);
    let tables = std::iter::once(star).chain(named).collect();
    Logins { tables, proved_here, auth_user, auth_query, auth_dbname, users, is_looked_up, is_passed_through }
}

fn auth_file(translation: &mut Translation, files: Files<'_>) -> Vec<(String, String)> {
    let Some(path) = translation.given("auth_file").map(str::to_owned) else { return Vec::new() };
    let listed = match files(Path::new(&path)) {
        Ok(listed) => listed,
        Err(error) => {
            let text = format!("cannot be read ({error}), so its roles are missing: {path}");
            translation.note_on("auth_file", Kind::Unsafe, &text);
            return Vec::new();
        }
    };
    let (users, broken) = words::users(&listed);
    if let Some(line) = broken {
        let text = format!("is broken at line {line}, and its rest is left out, as PgBouncer does: {path}");
        translation.note_on("auth_file", Kind::Missing, &text);
    }
    // The later line of a user holds.
    let mut last: Vec<(String, String)> = Vec::new();
    for user in users {
        last.retain(|(name, _)| *name != user.0);
        last.push(user);
    }
    last
}

fn method(translation: &mut Translation) -> AuthType {
    match translation.value("auth_type").to_ascii_lowercase().as_str() {
        "scram-sha-256" => AuthType::Scram,
        "trust" => AuthType::Trust,
        "any" => AuthType::Any,
        "cert" => AuthType::Certificate,
        elsewhere @ ("ldap" | "pam") => {
            let text = format!(
                "there is no {elsewhere}: passwords are passed on to Postgres (passthrough), which can ask it; roles of auth_file, too"
            );
            translation.note_on("auth_type", Kind::Missing, &text);
            AuthType::Elsewhere
        }
        "hba" => {
            let text =
                "there are no HBA files: every role of auth_file logs in with its password, wherever it comes from";
            translation.note_on("auth_type", Kind::Unsafe, text);
            AuthType::Password
        }
        _ => AuthType::Password,
    }
}

/// How a role of `auth_file` proves itself.
enum Proof {
    Here,
    AsAllOthers,
    Never,
}

fn proof(
    translation: &mut Translation,
    table: &mut Table,
    name: &str,
    secret: FileSecret<'_>,
    method: AuthType,
) -> Proof {
    let mut refuse = |why: &str| {
        let place = translation.place("auth_file");
        translation.note(place.as_ref(), Kind::Missing, &format!("auth_file: {name}"), why);
        Proof::Never
    };
    match (method, secret) {
        (AuthType::Elsewhere, _) => return Proof::AsAllOthers,
        (AuthType::Any, _) => {}
        (AuthType::Trust, _) => table.line("auth", &text("trust"), "auth_type"),
        (AuthType::Certificate, _) => table.line("auth", &text("certificate"), "auth_type"),
        (_, FileSecret::None) => return refuse("has no password, so it cannot log in; left out"),
        (AuthType::Scram, FileSecret::Md5(_)) => {
            return refuse("has an md5 hash, which scram-sha-256 cannot use; left out");
        }
        (_, FileSecret::Md5(hash)) => {
            table.line("auth", &text("md5"), "only a hash is known");
            table.line("password", &text(hash), "opens backends only where the server asks for md5");
        }
        (_, FileSecret::Plain(secret) | FileSecret::Verifier(secret)) => table.line("password", &text(secret), ""),
    }
    if matches!(method, AuthType::Any | AuthType::Trust | AuthType::Certificate) {
        match (secret.opens(), secret) {
            (Some(password), _) => table.line("backend_password", &text(password), "auth_file"),
            (None, FileSecret::Verifier(_))
                if translation.databases.iter().any(|database| database.get("user").is_none()) =>
            {
                let place = translation.place("auth_file");
                let text = "a verifier opens no backend, and the client shows no password; add backend_password";
                translation.note(place.as_ref(), Kind::Missing, &format!("auth_file: {name}"), text);
            }
            (None, _) => {}
        }
    }
    Proof::Here
}

/// Settings of every role from `[pgbouncer]`.
fn common(translation: &mut Translation, star: &mut Table) {
    for (setting, key) in LIMITS {
        if let Some(value) = translation.given(key).and_then(|value| limit(setting, value)) {
            star.line(setting, &value, key);
        }
    }
}

/// Settings of one role from `[users]`.
fn own(translation: &mut Translation, table: &mut Table, name: &str) {
    let Some(words) = translation.users.iter().find(|words| words.name == name) else { return };
    if let Some(mode) = words.get("pool_mode") {
        table.line("mode", &text(&mode.to_ascii_lowercase()), "pool_mode");
    }
    for (setting, key) in [("size", "pool_size")].iter().chain(LIMITS) {
        if let Some(value) = words.get(key).and_then(|value| limit(setting, value)) {
            table.line(setting, &value, key);
        }
    }
}

/// Settings of roles that stand in `[pgbouncer]` and in `[users]`.
const LIMITS: &[(&str, &str)] = &[
    ("transactions_max", "max_user_connections"),
    ("clients_max", "max_user_client_connections"),
    ("statement_timeout", "query_timeout"),
    ("idle_in_transaction_timeout", "idle_transaction_timeout"),
    ("transaction_timeout", "transaction_timeout"),
];

/// A number or a time above zero: with PgBouncer zero is no limit, and so is nothing here.
fn limit(setting: &str, value: &str) -> Option<TomlValue> {
    if setting.ends_with("_timeout") {
        return seconds(value).filter(|duration| duration != "0s").map(|duration| text(&duration));
    }
    integer(value).filter(|number| *number > 0).map(plain)
}
