//! Names of queues: of a role or a lane, and of a line in the queue of a pool.

use slotmap::new_key_type;

new_key_type! {
    /// Names a role queue, which may be a lane.
    pub struct RoleQueueId;
}

/// A line of a pool: that of a lane, or (`None`) of those in no lane.
pub(super) type LineId = Option<RoleQueueId>;
