//! The commands of the console that change something, one file each.

mod disable;
mod enable;
mod kill;
mod kill_client;
mod limit;
mod pause;
mod ramp;
mod reconnect;
mod reload;
mod reset;
mod resume;
pub(super) mod set_log_level;
mod shutdown;
mod statement;
mod wait_close;

mod targets;

use super::command::CommandKind;

/// All of them, in the order of HELP.
pub(super) static ALL: &[CommandKind] = &[
    CommandKind::of::<reload::Reload>(),
    CommandKind::of::<pause::Pause>(),
    CommandKind::of::<resume::Resume>(),
    CommandKind::of::<reconnect::Reconnect>(),
    CommandKind::of::<wait_close::WaitClose>(),
    CommandKind::of::<kill::Kill>(),
    CommandKind::of::<kill_client::KillClient>(),
    CommandKind::of::<disable::Disable>(),
    CommandKind::of::<enable::Enable>(),
    CommandKind::of::<limit::LimitCommand>(),
    CommandKind::of::<statement::BlockStatement>(),
    CommandKind::of::<statement::UnblockStatement>(),
    CommandKind::of::<statement::CancelStatement>(),
    CommandKind::of::<ramp::RampRole>(),
    CommandKind::of::<reset::Reset>(),
    CommandKind::of::<set_log_level::SetLogLevel>(),
    CommandKind::of::<shutdown::Shutdown>(),
];
