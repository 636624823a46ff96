//! Protection of the database from a crowd of clients.
//!
//! [`limiter`] decides whether a transaction may start now. One [`limiter::RoleLimiter`] per role decides, over all
//! databases of that role. Pure: time and chance are arguments. The limiter does not hold the waiters, a
//! [`wait_queue::WaitQueue`] per pool does, and `pool::core` brings the two together: a permit is held exactly as long
//! as a backend is with a client of the role. So a wait at the limiter and a wait for a backend are one wait with one
//! deadline, and a role's waiters for a database that is down keep no permit from those for another.
//!
//! A lane, which is for transactions of one kind whatever their role, has a limiter, too. A limit that is to be tried
//! holds a [`shadow::Shadow`] of each transaction back, and no transaction.
//!
//! [`login`] decides whether a client may log in now, or a cancel request pass. [`entrance`] waits and counts for it.
//! Those who wait for it are served by [`fair_queue`].
//! [`places`] has room for so many connections; where there is none, one of [`arrival_list`] gives way.

mod adaptive;
pub(crate) mod arrival_list;
mod burst;
pub(crate) mod entrance;
pub(crate) mod episodes;
pub(crate) mod fair_queue;
pub(crate) mod fair_turns;
pub(crate) mod fleet_share;
mod limit;
pub(crate) mod limiter;
mod loads;
pub(crate) mod login;
mod login_records;
pub(crate) mod places;
mod rate;
pub(crate) mod shadow;
mod slow_start;
mod throughput;
pub(crate) mod wait_queue;
