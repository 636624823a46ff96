//! A command of the console. Each is one file in `commands/`: its usage, its lines in HELP, the right it needs, how it
//! is read, and its action.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use super::words::CommandArguments;
use crate::config::Access;
use crate::error::ConsoleFault;
use crate::fleet::lease::order::RoleChange;
use crate::orders::given::{GivenOrder, OrderMark};
use crate::proxy::Proxy;
use crate::session::context::Worker;

/// A command, with its arguments as fields.
pub(super) trait ConsoleCommand: Debug + Send + Sync + Sized + 'static {
    /// Its first word, which is also the tag of its CommandComplete.
    const TAG: &'static str;

    /// Its lines in HELP: a way to write it, and what it does then.
    const USAGE: &'static [(&'static str, &'static str)];

    /// The right that its user needs.
    const ACCESS: Access = Access::Act;

    /// From the words behind the first. `None`: the words do not fit its usage.
    fn read(arguments: &CommandArguments<'_>) -> Option<Self>;

    /// Does the part that takes no time, on a worker's thread. `by`: who gave the command.
    fn run(&self, worker: &Worker, by: &str) -> Result<FollowUp, ConsoleFault>;

    /// The order that is in force from now on, or no longer.
    fn mark(&self) -> Option<OrderMark> {
        None
    }

    /// The role that it orders something for, which holds over the fleet.
    fn order(&self, _: &Proxy) -> Option<(&str, RoleChange)> {
        None
    }
}

/// The part of a command that takes time.
pub(super) enum FollowUp {
    Nothing,
    /// The console waits for something; an action over HTTP does not, and the page shows how it goes on.
    Wait(ActionWait),
    /// Something to await; the texts that come of it are notices for the user.
    Later(Pin<Box<dyn Future<Output = Result<Vec<String>, ConsoleFault>> + Send>>),
}

impl FollowUp {
    /// Awaits this, which gives no notices.
    pub(super) fn later<F>(task: F) -> Self
    where
        F: Future<Output = Result<Vec<String>, ConsoleFault>> + Send + 'static,
    {
        Self::Later(Box::pin(task))
    }
}

/// The notice of a wait that goes on; `None`: it is over.
type PendingNotice = Box<dyn Fn(&Proxy) -> Option<String> + Send>;

/// Something that a command waits for.
pub(super) struct ActionWait {
    /// The notice of the wait while it goes on; `None`: it is over.
    pub(super) pending: PendingNotice,
    /// A CancelRequest ends the wait with this fault, after `undo`.
    pub(super) canceled: ConsoleFault,
    pub(super) undo: Box<dyn FnOnce(&Worker) + Send>,
}

/// A kind of command, as the list of all has it.
pub(super) struct CommandKind {
    pub(super) tag: &'static str,
    pub(super) usage: &'static [(&'static str, &'static str)],
    pub(super) access: Access,
    read: fn(&CommandArguments<'_>) -> Option<Arc<dyn RunCommand>>,
}

impl CommandKind {
    pub(super) const fn of<C: ConsoleCommand>() -> Self {
        Self { tag: C::TAG, usage: C::USAGE, access: C::ACCESS, read: |arguments| Some(Arc::new(C::read(arguments)?)) }
    }

    /// A command of this kind, if it is written so.
    pub(super) fn read(&'static self, arguments: &CommandArguments<'_>, typed: &str) -> Option<Action> {
        Some(Action { kind: self, command: (self.read)(arguments)?, typed: typed.trim().into() })
    }
}

/// A command that was read, whatever its kind.
#[derive(Clone)]
pub(super) struct Action {
    pub(super) kind: &'static CommandKind,
    command: Arc<dyn RunCommand>,
    /// As its user wrote it, for the log.
    pub(super) typed: Arc<str>,
}

impl Action {
    /// Does it here; what is an order to the fleet goes to the others, with who gave it and from where.
    pub(super) fn run(&self, worker: &Worker, by: &str, from: &str) -> Result<FollowUp, ConsoleFault> {
        let follow_up = self.command.run(worker, by)?;
        if let Some(mark) = self.command.mark() {
            let (typed, at) = (self.typed.to_string(), SystemTime::now());
            let order = GivenOrder { typed, by: by.to_owned(), from: from.to_owned(), at };
            worker.proxy.given_orders.mark(mark, order);
        }
        if let Some((role, change)) = self.command.order(&worker.proxy) {
            worker.proxy.give_order(role, change, by, from);
        }
        Ok(follow_up)
    }
}

impl Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}

/// A [`ConsoleCommand`] whose type was forgotten.
trait RunCommand: Debug + Send + Sync {
    fn run(&self, worker: &Worker, by: &str) -> Result<FollowUp, ConsoleFault>;
    fn mark(&self) -> Option<OrderMark>;
    fn order(&self, proxy: &Proxy) -> Option<(&str, RoleChange)>;
}

impl<C: ConsoleCommand> RunCommand for C {
    fn run(&self, worker: &Worker, by: &str) -> Result<FollowUp, ConsoleFault> {
        ConsoleCommand::run(self, worker, by)
    }

    fn mark(&self) -> Option<OrderMark> {
        ConsoleCommand::mark(self)
    }

    fn order(&self, proxy: &Proxy) -> Option<(&str, RoleChange)> {
        ConsoleCommand::order(self, proxy)
    }
}
