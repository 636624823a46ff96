//! The keys of `[roles.NAME]` about who may come in.

use std::time::Duration;

use super::form::duration_above_zero;
use super::keys::section;

section! {
    /// Who may come in as a role; `Default` is the shipped file. Named roles begin with those of `[roles."*"]`.
    pub struct RoleAccess {
        /// A pass-through password that the server has accepted counts as right for this long.
        pub proof_age_max: Duration = Duration::from_secs(60) => key(duration_above_zero());
    }
}
