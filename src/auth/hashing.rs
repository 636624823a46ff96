//! PBKDF2 kept off the I/O threads: a job the driver runs elsewhere, and a cache so that it rarely must.
//!
//! Keys are cached by (secret, salt, iterations). While several logins want the same keys, one job computes and the
//! others wait for it, so that a thousand clients that come at once cost one hash.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock};

use ring::hmac;

use super::random::random;
use super::scram::Keys;
use crate::config::Secret;

/// Keys held at most, in two generations of half as many: one per role and server, so hundreds are usual. 250 bytes
/// each.
const ENTRIES_MAX: usize = 8192;

/// HMAC of (secret, salt, iterations) under a key of this process, so that the cache holds no passwords.
type Fingerprint = [u8; 32];
type Cell = Arc<OnceLock<Keys>>;

/// Keys by (secret, salt, iterations).
pub(crate) struct KeyCache {
    fingerprint_key: hmac::Key,
    generations: Mutex<Generations>,
}

/// The cache's answer to a lookup.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Derived before.
    Known(Keys),
    /// To be derived; the cache learns it when the job is run.
    Unknown(HashJob),
}

/// One PBKDF2, milliseconds of CPU: run it with `spawn_blocking`.
#[derive(Debug)]
#[must_use = "the login waits for these keys"]
pub struct HashJob {
    password: Secret,
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    cell: Cell,
}

/// Young entries are looked up first; when they are too many they become the old ones, and the old ones are forgotten.
/// An entry that is used at least once in a generation stays.
#[derive(Default)]
struct Generations {
    young: HashMap<Fingerprint, Cell>,
    old: HashMap<Fingerprint, Cell>,
}

impl KeyCache {
    pub(super) fn new() -> Self {
        Self { fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()), generations: Mutex::default() }
    }

    /// The keys of `password`, or the job that derives them.
    pub(super) fn lookup(&self, password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Lookup {
        let fingerprint = self.fingerprint(password, salt, iterations);
        let cell = self.generations.lock().expect("no panic while it is held").cell(fingerprint);
        match cell.get() {
            Some(keys) => Lookup::Known(keys.clone()),
            None => Lookup::Unknown(HashJob { password: password.clone(), salt: salt.into(), iterations, cell }),
        }
    }

    fn fingerprint(&self, password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.fingerprint_key);
        context.update(&iterations.get().to_be_bytes());
        context.update(&(salt.len() as u64).to_be_bytes());
        context.update(salt);
        context.update(password.expose().as_bytes());
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

impl Generations {
    fn cell(&mut self, fingerprint: Fingerprint) -> Cell {
        if let Some(cell) = self.young.get(&fingerprint) {
            return cell.clone();
        }
        let cell = self.old.remove(&fingerprint).unwrap_or_default();
        if self.young.len() >= ENTRIES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, cell.clone());
        cell
    }
}

impl HashJob {
    /// A job that leaves no trace in the cache, for passwords nobody vouches for: guesses must not crowd out real keys.
    pub(super) fn uncached(password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Self {
        Self { password: password.clone(), salt: salt.into(), iterations, cell: Cell::default() }
    }

    /// Derives the keys. Blocks while another thread derives the same ones.
    pub fn run(self) -> Keys {
        self.cell.get_or_init(|| Keys::derive(self.password.expose(), &self.salt, self.iterations)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn job(cache: &KeyCache, password: &str, salt: &[u8], iterations: u32) -> Option<HashJob> {
        match cache.lookup(&Secret::new(password), salt, iterations.try_into().unwrap()) {
            Lookup::Known(keys) => {
                assert_eq!(keys, Keys::derive(password, salt, iterations.try_into().unwrap()));
                None
            }
            Lookup::Unknown(job) => Some(job),
        }
    }

    #[test]
    fn keys_are_derived_once() {
        let cache = KeyCache::new();
        let keys = job(&cache, "secret", b"salt", 2).expect("nothing is known yet").run();
        assert_eq!(keys, Keys::derive("secret", b"salt", 2.try_into().unwrap()));
        assert!(job(&cache, "secret", b"salt", 2).is_none());
    }

    #[test]
    fn another_secret_salt_or_count_is_another_entry() {
        let cache = KeyCache::new();
        let _ = job(&cache, "secret", b"salt", 2).unwrap().run();
        for (password, salt, iterations) in
            [("secres", &b"salt"[..], 2), ("secret", b"salu", 2), ("secret", b"salt", 3), ("tsecret", b"sal", 2)]
        {
            assert!(job(&cache, password, salt, iterations).is_some(), "{password} {iterations}");
        }
    }

    #[test]
    fn jobs_for_the_same_keys_share_one_result() {
        let cache = KeyCache::new();
        let (first, second) = (job(&cache, "a", b"b", 1).unwrap(), job(&cache, "a", b"b", 1).unwrap());
        assert!(Arc::ptr_eq(&first.cell, &second.cell));
    }

    #[test]
    fn uncached_job_teaches_the_cache_nothing() {
        let cache = KeyCache::new();
        let _ = HashJob::uncached(&Secret::new("a"), b"b", ONE).run();
        assert!(job(&cache, "a", b"b", 1).is_some());
    }

    #[test]
    fn cache_is_bounded_and_keeps_what_is_used() {
        let cache = KeyCache::new();
        let _ = job(&cache, "used", b"salt", 1).unwrap().run();
        for n in 0..3 * ENTRIES_MAX {
            let _ = job(&cache, &n.to_string(), b"salt", 1);
            if n % 1000 == 0 {
                assert!(job(&cache, "used", b"salt", 1).is_none(), "after {n}");
            }
        }
        let generations = cache.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= ENTRIES_MAX);
    }
}
