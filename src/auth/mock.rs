//! How a login looks that is bound to fail, because there is no such role: as most others do.
//!
//! Method, iterations and length of the salt are those of most roles, as configured or as they were looked up; the
//! salt itself stays the same at every try ([`Secrets`](super::secrets::Secrets)). Otherwise a stranger could ask which
//! roles there are.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard};

use super::scram::ITERATIONS;
use super::secrets::{SALT_LEN, Stored};
use crate::config::{Auth, Config, Secret};

/// Roles whose forms are remembered; more of them change nothing about most.
const ROLES_MAX: usize = 1000;

/// The part of a secret's form that shows before the secret does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretForm {
    /// MD5.
    Md5,
    /// SCRAM, as of a password or a verifier.
    Scram {
        /// PBKDF2's.
        iterations: NonZeroU32,
        /// Bytes of the salt.
        salt_len: usize,
    },
}

impl Default for SecretForm {
    /// The form of a password in clear text, and of Postgres's own verifiers.
    fn default() -> Self {
        Self::Scram { iterations: ITERATIONS, salt_len: SALT_LEN }
    }
}

impl SecretForm {
    /// That of a secret, for which old drivers may be asked for MD5.
    pub(crate) fn of(secret: &Stored, md5: bool) -> Self {
        match secret {
            Stored::Verifier(verifier) => {
                Self::Scram { iterations: verifier.iterations, salt_len: verifier.salt.len() }
            }
            Stored::Md5(_) => Self::Md5,
            Stored::Plain(_) if md5 => Self::Md5,
            Stored::Plain(_) => Self::default(),
        }
    }

    /// The one that is there most often.
    fn most_common(forms: impl Iterator<Item = Self>) -> Self {
        let mut tally: HashMap<Self, usize> = HashMap::new();
        forms.for_each(|form| *tally.entry(form).or_default() += 1);
        // Of equals the same one at every try.
        tally.into_iter().max_by_key(|(form, count)| (*count, *form)).map_or_else(Self::default, |(form, _)| form)
    }
}

/// How most roles of a configuration log in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UsualLogin {
    /// The way of most; a password stands for all of them.
    pub(crate) auth: Auth,
    /// The form of most secrets that are configured.
    pub(crate) form: SecretForm,
}

impl UsualLogin {
    /// Roles without a secret count for nothing: they are told apart by getting in.
    pub(crate) fn of(config: &Config) -> Self {
        let password = Auth::Password { secret: Secret::new(""), md5: false };
        let is_alike = |a: &Auth, b: &Auth| std::mem::discriminant(a) == std::mem::discriminant(b);
        let count = |kind: &Auth| config.roles.values().filter(|role| is_alike(&role.auth, kind)).count();
        // Of equals the last wins: a password costs no server anything.
        let auth = [Auth::Passthrough, Auth::AuthQuery, password].into_iter().max_by_key(count);
        let forms = config.roles.values().filter_map(|role| match &role.auth {
            Auth::Password { secret, md5 } => Some(SecretForm::of(&Stored::parse(secret).ok()?, *md5)),
            Auth::AuthQuery | Auth::Passthrough | Auth::Trust | Auth::Certificate => None,
        });
        Self { auth: auth.expect("there are three"), form: SecretForm::most_common(forms) }
    }
}

/// The forms of secrets that were looked up at servers, by role.
#[derive(Debug, Default)]
pub(crate) struct LookedUpForms(Mutex<HashMap<String, SecretForm>>);

impl LookedUpForms {
    /// The secret of a role was found.
    pub(crate) fn note(&self, role: &str, form: SecretForm) {
        let mut forms = self.forms();
        if forms.len() < ROLES_MAX || forms.contains_key(role) {
            forms.insert(role.to_owned(), form);
        }
    }

    /// The form of most roles.
    pub(crate) fn most_common(&self) -> SecretForm {
        SecretForm::most_common(self.forms().values().copied())
    }

    fn forms(&self) -> MutexGuard<'_, HashMap<String, SecretForm>> {
        self.0.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_most_wins() {
        let scram = |iterations: u32| SecretForm::Scram { iterations: iterations.try_into().unwrap(), salt_len: 16 };
        assert_eq!(SecretForm::most_common([].into_iter()), scram(4096));
        let mixed = [scram(4096), SecretForm::Md5, scram(9000), scram(9000)];
        assert_eq!(SecretForm::most_common(mixed.into_iter()), scram(9000));
        assert_eq!(SecretForm::most_common([SecretForm::Md5, scram(3)].into_iter()), scram(3));
        let looked_up = LookedUpForms::default();
        for (role, form) in [("a", SecretForm::Md5), ("a", SecretForm::Md5), ("b", scram(3)), ("c", scram(3))] {
            looked_up.note(role, form);
        }
        assert_eq!(looked_up.most_common(), scram(3), "a role counts once");
        (0..2000).for_each(|n| looked_up.note(&n.to_string(), scram(4)));
        assert_eq!(looked_up.forms().len(), ROLES_MAX);
    }
}
