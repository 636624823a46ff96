//! Secrets of roles, as far as known, and secrets of this process that make unknown roles look like known ones.

use std::num::NonZeroU32;
use std::sync::Mutex;

use ring::hmac;

use super::Credential;
use super::hashing::{HashJob, KeyCache, Lookup};
use super::md5::Md5Hash;
use super::random::random;
use super::scram::{ITERATIONS, Verifier};
use crate::config::Secret;

/// Bytes of a salt, as in Postgres.
pub(super) const SALT_LEN: usize = 16;

/// A role's secret, as configured or as `auth_query` returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The password itself.
    Plain(Secret),
    /// A SCRAM verifier.
    Verifier(Verifier),
    /// An MD5 hash.
    Md5(Md5Hash),
}

/// `SCRAM-SHA-256$…` that is not a verifier. Without this error a typing mistake would become the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret starts like a SCRAM verifier but is none")]
pub struct BadVerifier;

impl Stored {
    /// Tells the three forms apart as Postgres's `get_password_type` does.
    pub fn parse(secret: &Secret) -> Result<Self, BadVerifier> {
        let text = secret.expose();
        if let Some(hash) = Md5Hash::parse(text) {
            Ok(Self::Md5(hash))
        } else if text.starts_with("SCRAM-SHA-256$") {
            Verifier::parse(text).map(Self::Verifier).ok_or(BadVerifier)
        } else {
            Ok(Self::Plain(secret.clone()))
        }
    }

    /// The credential that this secret alone gives for a backend, for `backend_password`: a verifier opens nothing.
    pub fn credential(&self) -> Credential {
        match self {
            Self::Plain(password) => Credential::Password(password.clone()),
            Self::Verifier(_) => Credential::Nothing,
            Self::Md5(hash) => Credential::Md5(hash.clone()),
        }
    }
}

/// Random keys and the cache of derived keys, one per process. Keep it over a reload.
pub struct Secrets {
    role_key: Mutex<hmac::Key>,
    cache: KeyCache,
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new()
    }
}

impl Secrets {
    /// With new random keys.
    pub fn new() -> Self {
        let role_key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
        Self { role_key: Mutex::new(role_key), cache: KeyCache::new() }
    }

    /// Makes salts of this secret: they are the same after a restart, and in every process that has it.
    pub(crate) fn set_salt_key(&self, secret: &Secret) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        *self.role_key.lock().expect("no panic while held") = key;
    }

    /// The salt shown to clients of a role whose password is known in clear text, and of a role that does not exist:
    /// the same at every try, so a client cannot distinguish the two (Postgres: `scram_mock_salt`).
    pub(super) fn salt(&self, role: &str) -> [u8; SALT_LEN] {
        *self.derived("salt", role).first_chunk().expect("16 of 32 bytes")
    }

    /// A verifier that no password fits, for a role that does not exist. A salt of the usual length is the one that the
    /// role would have if it existed.
    pub(super) fn mock(&self, role: &str, iterations: NonZeroU32, salt_len: usize) -> Verifier {
        let salt = self.derived("salt", role);
        Verifier {
            iterations,
            salt: salt.iter().copied().cycle().take(salt_len).collect(),
            stored_key: self.derived("stored key", role),
            server_key: self.derived("server key", role),
        }
    }

    /// The keys of a known password, or the job that derives and caches them.
    pub(super) fn keys(&self, password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Lookup {
        self.cache.lookup(password, salt, iterations)
    }

    /// Derives the keys of a role's configured password, for logins to come.
    pub(crate) fn derive(&self, role: &str, password: &Secret) {
        if let Lookup::Unknown(job) = self.keys(password, &self.salt(role), ITERATIONS) {
            job.run();
        }
    }

    /// The job for a password nobody vouches for; it is not cached.
    pub(super) fn unproved_keys(&self, password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Lookup {
        Lookup::Unknown(HashJob::uncached(password, salt, iterations))
    }

    fn derived(&self, purpose: &str, role: &str) -> [u8; 32] {
        let key = self.role_key.lock().expect("no panic while held").clone();
        let tag = hmac::sign(&key, format!("{purpose}\0{role}").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Stored, BadVerifier> {
        Stored::parse(&Secret::new(text))
    }

    #[test]
    fn the_three_forms_are_told_apart() {
        let verifier = Verifier::new("pencil", b"salt", NonZeroU32::MIN);
        assert_eq!(parse(&verifier.to_string()), Ok(Stored::Verifier(verifier)));
        assert!(matches!(parse("md5f6100b06df553dbff70d9a6a8a6d9295"), Ok(Stored::Md5(_))));
        assert_eq!(parse("md5rocks"), Ok(Stored::Plain(Secret::new("md5rocks"))));
        assert_eq!(parse("SCRAM-SHA-256$4096:oops"), Err(BadVerifier));
    }

    #[test]
    fn a_verifier_alone_opens_no_backend() {
        let verifier = Verifier::new("pencil", b"salt", NonZeroU32::MIN);
        assert_eq!(Stored::Verifier(verifier).credential(), Credential::Nothing);
        assert_eq!(parse("pencil").unwrap().credential(), Credential::Password(Secret::new("pencil")));
    }

    #[test]
    fn mock_of_a_role_is_the_same_at_every_try_and_differs_elsewhere() {
        let (here, elsewhere) = (Secrets::new(), Secrets::new());
        let mock = |secrets: &Secrets, role| secrets.mock(role, NonZeroU32::MIN, SALT_LEN);
        assert_eq!(mock(&here, "web"), mock(&here, "web"));
        assert_ne!(mock(&here, "web").salt, mock(&here, "wec").salt);
        assert_ne!(mock(&here, "web").salt, mock(&elsewhere, "web").salt);
        assert_eq!(*mock(&here, "web").salt, here.salt("web"));
        let key = Secret::new("the same everywhere");
        here.set_salt_key(&key);
        elsewhere.set_salt_key(&key);
        assert_eq!(mock(&here, "web"), mock(&elsewhere, "web"));
    }
}
