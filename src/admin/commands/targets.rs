//! Databases and roles that a command names.

use crate::error::ConsoleFault;
use crate::pool::core::{DatabaseId, RoleQueueId};
use crate::proxy::Proxy;

/// The database of this name, or all that there are.
pub(super) fn databases(proxy: &Proxy, name: Option<&str>) -> Result<Vec<DatabaseId>, ConsoleFault> {
    proxy.directory.meant(name).ok_or_else(|| ConsoleFault::NoDatabase(name.unwrap_or_default().to_owned()))
}

/// The queue of a role, which begins to exist if nobody has logged in as it so far.
pub(super) fn role(proxy: &Proxy, role: &str) -> Result<RoleQueueId, ConsoleFault> {
    // "*" stands for roles, and is none.
    let role_queue = (role != "*").then(|| proxy.directory.role_queue(role)).flatten();
    role_queue.ok_or_else(|| ConsoleFault::NoRole(role.to_owned()))
}
