//! Roles and how they log in: `auth_type`, `auth_file`, `auth_hba_file`, `auth_user`, `[users]` and the `user=` of
//! databases.

use std::path::Path;

use super::hba::{HbaFile, HbaMethod, HbaRules, Unsayable};
use super::ini::Place;
use super::toml::{Table, TomlValue, inline, list, plain, text};
use super::translation::{Translation, Words, integer, seconds};
use super::words;
use super::{Files, Kind};

/// `auth_type`, as far as the translation depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthType {
    /// `md5` and `plain`.
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

impl AuthType {
    /// A role that is refused has no rules, and so no method.
    fn of(method: HbaMethod) -> Self {
        match method {
            HbaMethod::Password | HbaMethod::Reject => Self::Password,
            HbaMethod::Scram => Self::Scram,
            HbaMethod::Trust => Self::Trust,
            HbaMethod::Certificate => Self::Certificate,
        }
    }
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
    let hba = hba_file(translation, files);
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
    let rules_of_others = hba.as_ref().and_then(|hba| hba.rules(translation, None));
    let star_auth = star_auth.filter(|_| hba.is_none() || rules_of_others.is_some());
    let mut proved_here = Vec::new();
    let mut named = Vec::new();
    if let Some((auth, why)) = star_auth {
        star.line("auth", &text(auth), why);
        if let (Some(hba), Some(rules)) = (&hba, &rules_of_others) {
            confine(&mut star, rules);
            hba.check_looked_up(translation, rules);
        }
    }
    if let Some(hba) = &hba {
        hba.check_users(translation, &users, star_auth.is_some());
    }
    let is_passed_through = method == AuthType::Elsewhere;
    if is_passed_through && translation.databases.iter().any(|database| database.get("user").is_some()) {
        let text = "user= of a database: passthrough logs in as the client itself; give roles passwords for it";
        translation.note_on("auth_type", Kind::Missing, text);
    }
    common(translation, &mut star);

    for (name, secret) in &users {
        let mut table = Table::of("roles", name);
        let (method, rules) = match &hba {
            None => (method, None),
            Some(hba) => match hba.rules(translation, Some(name)) {
                None => continue,
                Some(rules) => (AuthType::of(rules.method), Some(rules)),
            },
        };
        match proof(translation, &mut table, name, FileSecret::of(secret), method) {
            Proof::Here => proved_here.push(name.clone()),
            Proof::AsAllOthers => {}
            Proof::Never => continue,
        }
        if let Some(rules) = &rules {
            confine(&mut table, rules);
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

/// The HBA file and its path.
struct Hba {
    file: HbaFile,
    path: String,
}

/// The file of `auth_type = hba`.
fn hba_file(translation: &mut Translation, files: Files<'_>) -> Option<Hba> {
    if !translation.value("auth_type").eq_ignore_ascii_case("hba") {
        return None;
    }
    let path = translation.given("auth_hba_file").unwrap_or_default().to_owned();
    let listed = files(Path::new(&path)).unwrap_or_else(|error| {
        let text = format!("cannot be read ({error}), so nobody gets in: {path}");
        translation.note_on("auth_hba_file", Kind::Unsafe, &text);
        String::new()
    });
    let (file, unsayable) = HbaFile::read(&listed);
    let hba = Hba { file, path };
    unsayable.into_iter().for_each(|unsayable| hba.tell(translation, unsayable));
    let is_required = ["require", "verify-ca", "verify-full"];
    let asked = translation.value("client_tls_sslmode").to_ascii_lowercase();
    if let Some(line) = hba.file.needs_tls().filter(|_| !is_required.contains(&&*asked)) {
        let why = "asks for TLS, which is asked of everybody or of nobody: set client_tls_sslmode = require";
        hba.tell(translation, Unsayable { line, why: why.to_owned() });
    }
    Some(hba)
}

impl Hba {
    fn tell(&self, translation: &mut Translation, Unsayable { line, why }: Unsayable) {
        let place = Place { file: self.path.clone().into(), line };
        translation.note(Some(&place), Kind::Unsafe, "HBA", &why);
    }

    /// The rules of a role, or of all that no line names. A role whose lines cannot be said does not come in.
    fn rules(&self, translation: &mut Translation, role: Option<&str>) -> Option<HbaRules> {
        let rules = self.file.rules(role);
        rules.unwrap_or_else(|unsayable| {
            self.tell(translation, unsayable);
            None
        })
    }

    fn place(&self) -> String {
        format!("auth_hba_file: {}", self.path)
    }

    /// Roles that are looked up have a password to prove.
    fn check_looked_up(&self, translation: &mut Translation, rules: &HbaRules) {
        if matches!(rules.method, HbaMethod::Trust | HbaMethod::Certificate) {
            let text = "roles that are looked up are asked for their password, whatever the file says";
            translation.note_on("auth_user", Kind::Different, &format!("{text} ({})", self.place()));
        }
    }

    /// A line for a role that is in no other file: where others are looked up, it would have their rules.
    fn check_users(&self, translation: &mut Translation, users: &[(String, String)], has_others: bool) {
        let unknown: Vec<_> = self
            .file
            .users()
            .filter(|(_, user)| has_others && !users.iter().any(|(name, _)| name == user))
            .map(|(line, user)| (line, user.to_owned()))
            .collect();
        for (line, user) in unknown {
            let why = format!("{user} is not in auth_file, and would have the rules of all others: give it a section");
            self.tell(translation, Unsayable { line, why });
        }
    }
}

/// Writes what the HBA file says of a role.
fn confine(table: &mut Table, rules: &HbaRules) {
    if !rules.from.is_empty() {
        table.line("from", &list(&rules.from), "auth_hba_file");
    }
    if let Some(databases) = &rules.databases {
        table.line("databases", &list(databases), "auth_hba_file");
    }
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
