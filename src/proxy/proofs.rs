//! Pass-through passwords: proved at a login, and renewed while their pools are in use.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::Proxy;
use crate::admission::fair_queue::Caller;
use crate::auth::Credential;
use crate::config::{Auth, Secret};
use crate::error::LoginFault;
use crate::pool::core::FailureKind;
use crate::pool::in_use::CountUses;
use crate::pool::open::OpenError;
use crate::pool::pool::Pool;
use crate::wire::build;

impl Proxy {
    /// Checks the password of a pass-through client: it is right if the server has accepted it lately, or does so now.
    /// A few checks per database run at a time, [`Self::turn_to_ask`].
    pub(crate) async fn prove(
        &self,
        pool: &Pool,
        password: &Secret,
        caller: Caller,
        worker: usize,
    ) -> Result<(), LoginFault> {
        let is_proved = || {
            let config = self.config.load();
            config.role(&pool.name.role).is_some_and(|role| pool.is_proved(password, role.access.proof_age_max))
        };
        if is_proved() {
            return Ok(());
        }
        let _turn = self.turn_to_ask(&pool.name.database, caller).await;
        // Another client may have proved the same password while this one waited.
        if is_proved() {
            return Ok(());
        }
        let checked = self.check(pool, password, worker).await;
        checked.map_err(|error| error.refusal().map_or_else(|| error.into(), LoginFault::Server))
    }

    /// Asks the servers again about passwords whose proofs are getting old. Only on a worker's thread.
    pub(super) fn renew_proofs(self: &Arc<Self>, worker: usize) {
        let config = self.config.load();
        for pool in self.pools.all().into_iter().filter(|pool| pool.has_proof() && !pool.is_dedicated()) {
            let role = config.role(&pool.name.role).filter(|role| role.auth == Auth::Passthrough);
            let is_used = || !pool.uses().is_none() || self.has_backends(&pool);
            let due = role.filter(|_| is_used()).and_then(|role| pool.begin_renewal(role.access.proof_age_max));
            if let Some(password) = due {
                let proxy = Arc::clone(self);
                tokio::task::spawn_local(async move { proxy.renew(&pool, &password, worker).await });
            }
        }
    }

    async fn renew(&self, pool: &Pool, password: &Secret, worker: usize) {
        let _turn = self.turn_to_ask(&pool.name.database, Caller::OWN).await;
        if let Err(error) = self.check(pool, password, worker).await {
            tracing::debug!(
                database = %pool.name.database, role = %pool.name.role, %error,
                "the proof of a password is not renewed"
            );
            pool.end_renewal();
        }
    }

    fn has_backends(&self, pool: &Pool) -> bool {
        self.pools.core().pool(pool.id).is_some_and(|view| view.counts.live() > 0)
    }

    /// Asks the server whether it takes the password of a pass-through client.
    ///
    /// The backend is not one of the pool's, and is closed at once: the pool's own may all be busy, and a wrong
    /// password must not count as the pool's refusal.
    async fn check(&self, pool: &Pool, password: &Secret, worker: usize) -> Result<(), OpenError> {
        let since = Instant::now();
        match self.pools.opener().check(pool, &Credential::Unproved(password.clone()), worker).await {
            Ok(mut backend) => {
                let _ = backend.stream.write_all(build::TERMINATE).await;
            }
            // CONNECTION LIMIT is looked at after the password, and our own backends may be those that reach it.
            Err(error) if FailureKind::from(&error) == FailureKind::Full && self.has_backends(pool) => {}
            Err(error) => {
                // A guess says nothing about the password that is in use.
                if error.is_denial() && pool.forget_proof(Some(password)) {
                    self.directory.revoke(pool, worker, &error);
                }
                return Err(error);
            }
        }
        self.directory.set_proof(pool, password, since, worker);
        Ok(())
    }
}
