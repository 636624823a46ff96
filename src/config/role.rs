//! `[roles.NAME]`: how a role logs in, and what holds for it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::admission::{RateKeys, RoleAdmission};
use super::database::{PoolMode, ResetWhen};
use super::form::{BACKENDS_MAX, count, duration, postgres_timeout, text, word};
use super::keys::section;
use super::listen::CLIENTS_MAX;
use super::raw::SectionReader;
use super::raw::Shape;
use super::role_access::RoleAccess;
use super::{PasswordSource, Secret};
use crate::words::words;

/// A SHA-256 digest.
const KEY_BYTES: usize = 32;

/// `[roles.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// How clients of this role log in.
    pub auth: Auth,
    /// Role towards the server, if not its own name.
    pub login_as: Option<String>,
    /// Password towards the server, if not the client's.
    pub backend_password: Option<PasswordSource>,
    /// Who may come in as this role.
    pub access: RoleAccess,
    /// Its limits, which do not depend on how it logs in.
    pub limits: RoleLimits,
}

/// How a client proves its role.
#[derive(Debug, Clone, PartialEq)]
pub enum Auth {
    /// SCRAM-SHA-256 (or MD5 when `md5` is set) against this secret: plain text or a SCRAM verifier.
    Password {
        /// Plain text, `SCRAM-SHA-256$…` or `md5…`.
        secret: Secret,
        /// Ask old drivers for MD5 instead of SCRAM.
        md5: bool,
    },
    /// The secret is asked of the database's `auth_query`.
    AuthQuery,
    /// The client's own login opens its backends.
    Passthrough,
    /// No proof is asked.
    Trust,
    /// The TLS client certificate's common name must be the role.
    Certificate,
}

words! {
    /// `roles.*.auth`.
    pub(super) enum AuthMethod {
        Password = "password",
        Md5 = "md5",
        AuthQuery = "auth-query",
        Passthrough = "passthrough",
        Trust = "trust",
        Certificate = "certificate",
    }
}

section! {
    /// The keys of a role. A named one begins with [`RoleKeys::inherited`] from `[roles."*"]`.
    pub(super) struct RoleKeys {
        auth: Option<AuthMethod> = None => maybe(word());
        password: Option<Secret> = None => secret();
        login_as: Option<String> = None => maybe(text());
        backend_password: Option<PasswordSource> = None => password();
        access: RoleAccess = RoleAccess::default() => inline();
        limits: RoleLimits = RoleLimits::default() => inline();
    }
}

section! {
    /// The limits of a role; `Default` is the shipped file. Named roles begin with those of `[roles."*"]`.
    pub struct RoleLimits {
        /// Overrides the database's mode.
        pub mode: Option<PoolMode> = None => maybe(word());
        /// Overrides the database's reset.
        pub reset: Option<ResetWhen> = None => maybe(word());
        /// Overrides the database's size.
        pub size: Option<u32> = None => maybe(count(1..=BACKENDS_MAX));
        /// Clients of this role connected at once.
        pub clients_max: Option<u32> = None => maybe(count(1..=CLIENTS_MAX));
        /// How long a pinned client may idle outside a transaction; zero: for ever.
        pub pin_timeout: Duration = Duration::ZERO => key(duration());
        /// Clients of this role that are pinned at once.
        pub pins_max: Option<u32> = None => maybe(count(1..=CLIENTS_MAX));
        /// Injected into each backend's StartupMessage; `None`: the server's own value.
        pub timeouts: Timeouts = Timeouts::default() => inline();
        /// Limits of a client's own SET of such a timeout.
        pub set_override as "override": Override = Override::Any => key(word());
        /// How many of its transactions may run, and how they are let in.
        pub admission: RoleAdmission = RoleAdmission::default() => inline();
    }
}

section! {
    /// Limits that Postgres enforces itself, sent as startup parameters; zero: no limit, as in Postgres.
    #[derive(Copy, Eq)]
    pub struct Timeouts {
        /// `statement_timeout`.
        pub statement as "statement_timeout": Option<Duration> = None => maybe(postgres_timeout());
        /// `lock_timeout`.
        pub lock as "lock_timeout": Option<Duration> = None => maybe(postgres_timeout());
        /// `idle_in_transaction_session_timeout`.
        pub idle_in_transaction as "idle_in_transaction_timeout": Option<Duration> = None => maybe(postgres_timeout());
        /// `transaction_timeout`, sent only to servers that have it (17 and later).
        pub transaction as "transaction_timeout": Option<Duration> = None => maybe(postgres_timeout());
    }
}

words! {
    /// `roles.*.override`: what a client's own SET, SET LOCAL or startup option of a timeout in [`Timeouts`] may do.
    pub enum Override {
        /// Anything, as without pgweir.
        Any = "any",
        /// Only lower it; zero counts as infinity.
        Lower = "lower",
        /// Nothing.
        None = "none",
    }
}

impl Shape for Role {
    type Parts = RoleKeys;

    fn parts(&self) -> RoleKeys {
        let Self { auth, login_as, backend_password, access, limits } = self.clone();
        let (auth, password) = match auth {
            Auth::Password { secret, md5: false } => (AuthMethod::Password, Some(secret)),
            Auth::Password { secret, md5: true } => (AuthMethod::Md5, Some(secret)),
            Auth::AuthQuery => (AuthMethod::AuthQuery, None),
            Auth::Passthrough => (AuthMethod::Passthrough, None),
            Auth::Trust => (AuthMethod::Trust, None),
            Auth::Certificate => (AuthMethod::Certificate, None),
        };
        RoleKeys { auth: Some(auth), password, login_as, backend_password, access, limits }
    }

    fn whole(keys: RoleKeys) -> Option<Self> {
        let RoleKeys { auth, password, login_as, backend_password, access, limits } = keys;
        let auth = match auth? {
            AuthMethod::Password => Auth::Password { secret: password?, md5: false },
            AuthMethod::Md5 => Auth::Password { secret: password?, md5: true },
            AuthMethod::AuthQuery => Auth::AuthQuery,
            AuthMethod::Passthrough => Auth::Passthrough,
            AuthMethod::Trust => Auth::Trust,
            AuthMethod::Certificate => Auth::Certificate,
        };
        Some(Self { auth, login_as, backend_password, access, limits })
    }
}

/// Facts of other sections that the rules of roles need.
pub(super) struct OtherSections {
    /// `listen.tls` asks clients for certificates.
    pub(super) certificates: bool,
    /// Some database has an `auth_query`.
    pub(super) auth_query: bool,
    /// The longest `wait_timeout`, if it is known.
    pub(super) wait_max: Option<Duration>,
}

impl RoleKeys {
    /// The shipped keys. The longest delay of a rate gives way to the longest wait.
    fn shipped(wait_max: Option<Duration>) -> Self {
        let default = RateKeys::default();
        let delay_max = wait_max.map_or(default.delay_max, |wait| default.delay_max.min(wait / 2));
        let mut keys = Self::default();
        keys.limits.admission.rate.delay_max = delay_max;
        keys
    }

    /// A named role takes over everything from `[roles."*"]` but who it is: passwords and `login_as`.
    fn inherited(&self) -> Self {
        let Self { auth, password: _, login_as: _, backend_password: _, access, limits } = self.clone();
        Self { auth, access, limits, ..Self::default() }
    }

    /// The password's own method, where the role does not name one.
    fn infer_auth(&mut self, section: &SectionReader<'_>) {
        if section.has("auth") && section.is_blamed("auth") {
            self.auth = None;
        } else if section.has("password") && !section.has("auth") {
            self.auth = Some(AuthMethod::Password);
        }
    }
}

/// Every role that may log in, `None` for one with mistakes. `"*"` is among them if it says how to log in; without
/// `auth` it only holds defaults, and roles not named are refused.
pub(super) fn read(root: &mut SectionReader<'_>, others: &OtherSections) -> BTreeMap<String, Option<Role>> {
    let mut sections: BTreeMap<String, Option<SectionReader<'_>>> = root.children("roles").into_iter().collect();
    if sections.is_empty() {
        root.blame("roles", "there is none; add [roles.\"*\"] with auth = \"passthrough\", for example");
    }
    let mut roles = BTreeMap::new();
    let mut star = Star { keys: RoleKeys::shipped(others.wait_max), has_auth: false, has_rate: false };
    match sections.remove("*") {
        Some(Some(section)) => {
            let role = star.read(section, others);
            if star.has_auth {
                roles.insert("*".to_owned(), role);
            }
        }
        Some(None) => {
            // No table, but meant as one: it may have been meant to say how to log in.
            star.has_auth = true;
            roles.insert("*".to_owned(), None);
        }
        None => {}
    }
    for (name, section) in sections {
        let role = section.and_then(|section| star.read_named(&name, section, others));
        roles.insert(name, role);
    }
    roles
}

/// `[roles."*"]`, which the others begin with.
struct Star {
    keys: RoleKeys,
    /// `auth` is written, right or wrong.
    has_auth: bool,
    /// `rate` is written, right or wrong.
    has_rate: bool,
}

impl Star {
    fn read(&mut self, mut section: SectionReader<'_>, others: &OtherSections) -> Option<Role> {
        section.visit(&mut self.keys);
        self.keys.infer_auth(&section);
        (self.has_auth, self.has_rate) = (section.has("auth"), section.has("rate"));
        if section.has("password") {
            section.blame(
                "password",
                "one password would open every role; use auth \"passthrough\" or \"auth-query\", or name the roles",
            );
        } else if let Some(method @ (AuthMethod::Password | AuthMethod::Md5)) = self.keys.auth {
            section.blame("auth", format!("{:?} needs a password, and \"*\" cannot have one", method.word()));
        }
        if !self.has_auth {
            self.keys.auth = None;
        }
        self.finish(self.keys.clone(), section, others)
    }

    fn read_named(&self, name: &str, mut section: SectionReader<'_>, others: &OtherSections) -> Option<Role> {
        let mut keys = self.keys.inherited();
        section.visit(&mut keys);
        keys.infer_auth(&section);
        if name.is_empty() {
            section.blame_all("a role needs a name");
        }
        let has_password = section.has("password");
        match keys.auth {
            Some(method @ (AuthMethod::Password | AuthMethod::Md5)) if !has_password => {
                section.blame("password", format!("is missing; auth {:?} needs it", method.word()));
            }
            Some(AuthMethod::Password | AuthMethod::Md5) => {}
            Some(method) if has_password => {
                section.blame("password", format!("auth {:?} does not use it; remove one of them", method.word()));
            }
            None if !self.has_auth && !section.has("auth") => {
                section.blame_all("cannot log in: it needs a password, or auth = \"passthrough\", for example");
            }
            Some(_) | None => {}
        }
        if let Some(password) = &keys.password {
            check_stored(&section, keys.auth, password);
        }
        self.finish(keys, section, others)
    }

    /// The rules over several keys and other sections.
    fn finish(&self, keys: RoleKeys, section: SectionReader<'_>, others: &OtherSections) -> Option<Role> {
        section.needs_password("backend_password", keys.backend_password.as_ref());
        match keys.auth {
            Some(AuthMethod::Passthrough) => {
                for key in ["login_as", "backend_password"] {
                    if section.has(key) {
                        section.blame(
                            key,
                            "auth \"passthrough\" logs in as the client itself; use another auth, or remove this",
                        );
                    }
                }
            }
            Some(AuthMethod::Certificate) if !others.certificates => {
                section.blame("auth", "\"certificate\" needs listen.tls with mode = \"verify-client\"");
            }
            _ if section.is_sound("certificates") && !keys.access.certificates.is_empty() && !others.certificates => {
                section.blame("certificates", "needs listen.tls with mode = \"verify-client\"");
            }
            Some(AuthMethod::AuthQuery) if !others.auth_query => {
                section.blame("auth", "\"auth-query\" needs an auth_query in a database");
            }
            _ => {}
        }
        if self.has_auth || section.has("auth") || keys.auth.is_some() {
            keys.limits.admission.check(&section, others.wait_max, self.has_rate);
        }
        section.finish();
        Role::whole(keys)
    }
}

/// A stored hash decides how it can be proved.
fn check_stored(section: &SectionReader<'_>, method: Option<AuthMethod>, password: &Secret) {
    let stored = password.expose();
    if password.looks_like_verifier() {
        if !is_verifier(stored) {
            section.blame(
                "password",
                "begins like a SCRAM verifier and is none (a shell may have eaten its \"$\"); \
                 \"pgweir verifier\" prints one",
            );
        }
        if method == Some(AuthMethod::Md5) {
            section.blame("auth", "\"md5\" cannot be checked against a SCRAM verifier; use \"password\"");
        }
    } else if is_md5(stored) && method == Some(AuthMethod::Password) {
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
