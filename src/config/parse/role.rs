//! `[roles.NAME]`: how a role logs in, and what holds for it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::admission::RoleKeys;
use super::{BACKENDS_MAX, CLIENTS_MAX, secret};
use crate::config::raw::Section;
use crate::config::value::{count, postgres_timeout, text, word};
use crate::config::{Auth, Override, PoolMode, Role, Secret, Timeouts, Word};

const VERIFIER_START: &str = "SCRAM-SHA-256$";

/// A SHA-256 digest.
const KEY_BYTES: usize = 32;

/// What other sections say that matters to roles.
pub(super) struct Others {
    /// `listen.tls` asks clients for certificates.
    pub(super) certificates: bool,
    /// Some database has an `auth_query`.
    pub(super) auth_query: bool,
    /// The longest `wait_timeout`, if it is known.
    pub(super) wait_max: Option<Duration>,
}

/// `roles.*.auth`.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    Password,
    Md5,
    AuthQuery,
    Passthrough,
    Trust,
    Certificate,
}

impl Word for Method {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("password", Self::Password),
        ("md5", Self::Md5),
        ("auth-query", Self::AuthQuery),
        ("passthrough", Self::Passthrough),
        ("trust", Self::Trust),
        ("certificate", Self::Certificate),
    ];
}

/// What named roles take over from `[roles."*"]`. Not who it is towards Postgres: that belongs to one role.
#[derive(Default)]
struct Shared {
    auth: Option<Method>,
    /// `auth` is written, right or wrong.
    has_auth: bool,
    mode: Option<PoolMode>,
    size: Option<u32>,
    clients_max: Option<u32>,
    timeouts: Timeouts,
    set_override: Option<Override>,
    admission: RoleKeys,
}

/// Every role that may log in, `None` for one with mistakes. `"*"` is among them if it says how to log in; without
/// `auth` it only holds defaults, and roles not named are refused.
pub(super) fn read(root: &mut Section<'_>, others: &Others) -> BTreeMap<String, Option<Role>> {
    let mut sections: BTreeMap<String, Option<Section<'_>>> = root.children("roles").into_iter().collect();
    if sections.is_empty() {
        root.blame("roles", "there is none; add [roles.\"*\"] with auth = \"passthrough\", for example");
    }
    let mut roles = BTreeMap::new();
    let mut defaults = Shared::default();
    match sections.remove("*") {
        Some(Some(mut section)) => {
            defaults = read_shared(&mut section, &Shared::default());
            let role = read_star(section, &defaults, others);
            if defaults.has_auth {
                roles.insert("*".to_owned(), role);
            }
        }
        Some(None) => {
            // Whatever it was meant to be, it may have said how to log in.
            defaults.has_auth = true;
            roles.insert("*".to_owned(), None);
        }
        None => {}
    }
    for (name, section) in sections {
        let role = section.and_then(|section| read_named(&name, section, &defaults, others));
        roles.insert(name, role);
    }
    roles
}

fn read_star(mut section: Section<'_>, shared: &Shared, others: &Others) -> Option<Role> {
    let _ = secret::read(&mut section, "password");
    if section.has("password") {
        section.blame(
            "password",
            "one password would open every role; use auth \"passthrough\" or \"auth-query\", or name the roles",
        );
    } else if let Some(method @ (Method::Password | Method::Md5)) = shared.auth {
        section.blame("auth", format!("{:?} needs a password, and \"*\" cannot have one", method.word()));
    }
    finish(section, shared, None, others)
}

fn read_named(name: &str, mut section: Section<'_>, defaults: &Shared, others: &Others) -> Option<Role> {
    if name.is_empty() {
        section.blame_all("a role needs a name");
    }
    let has_auth = section.has("auth");
    let has_password = section.has("password");
    let password = secret::read(&mut section, "password");
    let mut shared = read_shared(&mut section, defaults);
    if has_password && !has_auth {
        shared.auth = Some(Method::Password);
    }
    match shared.auth {
        Some(method @ (Method::Password | Method::Md5)) if !has_password => {
            section.blame("password", format!("is missing; auth {:?} needs it", method.word()))
        }
        Some(Method::Password | Method::Md5) => {}
        Some(method) if has_password => {
            section.blame("password", format!("auth {:?} does not use it; remove one of them", method.word()))
        }
        None if !shared.has_auth => {
            section.blame_all("cannot log in: it needs a password, or auth = \"passthrough\", for example");
        }
        Some(_) | None => {}
    }
    if let Some(password) = &password {
        check_stored(&section, shared.auth, password);
    }
    finish(section, &shared, password, others)
}

/// What is stored decides how it can be proved.
fn check_stored(section: &Section<'_>, method: Option<Method>, password: &Secret) {
    let stored = password.expose();
    if stored.starts_with(VERIFIER_START) {
        if !is_verifier(stored) {
            section.blame(
                "password",
                "begins like a SCRAM verifier and is none (a shell may have eaten its \"$\"); \
                 \"pgweir verifier\" prints one",
            );
        }
        if method == Some(Method::Md5) {
            section.blame("auth", "\"md5\" cannot be checked against a SCRAM verifier; use \"password\"");
        }
    } else if is_md5(stored) && method == Some(Method::Password) {
        section.blame("password", "is an md5 hash, which only auth = \"md5\" can check");
    }
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as `pg_authid.rolpassword` has it.
fn is_verifier(stored: &str) -> bool {
    let decoded = |text: &str| BASE64_STANDARD.decode(text).map_or(0, |bytes| bytes.len());
    let parts: Vec<&str> = stored.split(['$', ':']).collect();
    matches!(parts[..], [_, iterations, salt, stored_key, server_key]
        if iterations.parse::<NonZeroU32>().is_ok()
            && decoded(salt) > 0 && decoded(stored_key) == KEY_BYTES && decoded(server_key) == KEY_BYTES)
}

/// `md5` and 32 hex digits.
fn is_md5(stored: &str) -> bool {
    stored
        .strip_prefix("md5")
        .is_some_and(|digest| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn read_shared(section: &mut Section<'_>, default: &Shared) -> Shared {
    let mut timeout = |key, default: Option<_>| section.take(key, postgres_timeout).or(default);
    let timeouts = Timeouts {
        statement: timeout("statement_timeout", default.timeouts.statement),
        lock: timeout("lock_timeout", default.timeouts.lock),
        idle_in_transaction: timeout("idle_in_transaction_timeout", default.timeouts.idle_in_transaction),
        transaction: timeout("transaction_timeout", default.timeouts.transaction),
    };
    let has_auth = section.has("auth");
    let auth = section.take("auth", word);
    Shared {
        auth: if has_auth { auth } else { default.auth },
        has_auth: has_auth || default.has_auth,
        mode: section.take("mode", word).or(default.mode),
        size: section.take("size", count(1..=BACKENDS_MAX)).or(default.size),
        clients_max: section.take("clients_max", count(1..=CLIENTS_MAX)).or(default.clients_max),
        timeouts,
        set_override: section.take("override", word).or(default.set_override),
        admission: RoleKeys::read(section, &default.admission),
    }
}

/// The rest of a role, and the rules over its keys and other sections.
fn finish(mut section: Section<'_>, shared: &Shared, password: Option<Secret>, others: &Others) -> Option<Role> {
    let login_as = section.take("login_as", text);
    let backend_password = secret::read(&mut section, "backend_password");
    if backend_password.as_ref().is_some_and(|secret| secret.expose().starts_with(VERIFIER_START)) {
        section.blame("backend_password", "is a SCRAM verifier, which opens nothing; write the password itself");
    }
    match shared.auth {
        Some(Method::Passthrough) => {
            for key in ["login_as", "backend_password"] {
                if section.has(key) {
                    section.blame(
                        key,
                        "auth \"passthrough\" logs in as the client itself; use another auth, or remove this",
                    );
                }
            }
        }
        Some(Method::Certificate) if !others.certificates => {
            section.blame("auth", "\"certificate\" needs listen.tls with mode = \"verify-client\"");
        }
        Some(Method::AuthQuery) if !others.auth_query => {
            section.blame("auth", "\"auth-query\" needs an auth_query in a database");
        }
        _ => {}
    }
    if shared.has_auth || shared.auth.is_some() {
        shared.admission.check(&section, others.wait_max);
    }
    section.finish();
    let auth = match shared.auth? {
        Method::Password => Auth::Password { secret: password?, md5: false },
        Method::Md5 => Auth::Password { secret: password?, md5: true },
        Method::AuthQuery => Auth::AuthQuery,
        Method::Passthrough => Auth::Passthrough,
        Method::Trust => Auth::Trust,
        Method::Certificate => Auth::Certificate,
    };
    Some(Role {
        auth,
        login_as,
        backend_password,
        mode: shared.mode,
        size: shared.size,
        clients_max: shared.clients_max,
        timeouts: shared.timeouts,
        set_override: shared.set_override.unwrap_or_default(),
        admission: shared.admission.resolve(others.wait_max),
    })
}
