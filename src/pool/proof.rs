//! Proofs of pass-through passwords, which only a server can check: they age, and are renewed beside the pool.
//!
//! A server may take a password back without a word to the connections it has: another password, NOLOGIN, VALID UNTIL,
//! a token whose time is up. So a proof counts for `roles.*.proof_age_max`, and while the pool is in use the server is
//! asked again before that. A refusal closes the backends that the password opened, and lets nobody in with it.

use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::config::Secret;

/// A password that the server has accepted.
#[derive(Debug)]
pub(super) struct PasswordProof {
    password: Secret,
    pub(super) since: Instant,
    /// When the server was last asked, or began to be.
    asked: Instant,
    pub(super) is_renewing: bool,
}

impl PasswordProof {
    pub(super) fn new(password: Secret, since: Instant) -> Self {
        Self { password, since, asked: since, is_renewing: false }
    }

    pub(super) fn is_of(&self, password: &Secret) -> bool {
        self.password.expose().as_bytes().ct_eq(password.expose().as_bytes()).into()
    }

    /// The password, if the server is to be asked again: early enough that logins need not wait for the answer.
    pub(super) fn begin_renewal(&mut self, age_max: Duration, now: Instant) -> Option<Secret> {
        if self.is_renewing || now.saturating_duration_since(self.asked) < age_max * 3 / 4 {
            return None;
        }
        (self.asked, self.is_renewing) = (now, true);
        Some(self.password.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_asked_again_before_the_proof_is_too_old_and_once_at_a_time() {
        let (start, age_max) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut proof = PasswordProof::new(Secret::new("pencil"), start);
        assert_eq!(proof.begin_renewal(age_max, at(44)), None);
        assert_eq!(proof.begin_renewal(age_max, at(45)), Some(Secret::new("pencil")));
        assert_eq!(proof.begin_renewal(age_max, at(1000)), None, "it is under way");
        proof.is_renewing = false;
        assert_eq!(proof.begin_renewal(age_max, at(89)), None, "a server that did not answer is not asked at once");
        assert!(proof.begin_renewal(age_max, at(90)).is_some());
    }
}
