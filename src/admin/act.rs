//! Carries out what operators order, in the console or over HTTP.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::command::Command;
use super::console::{Answer, Console, End, MESSAGE_MAX, Stop, heed};
use crate::clients::Signal;
use crate::config::{self, Access, CONSOLE_NAMES};
use crate::error::ConsoleFault;
use crate::orders::Order;
use crate::pool::core::{DatabaseId, LaneId};
use crate::proxy::Proxy;
use crate::session::context::Worker;
use crate::wire::build::{self, Report};

/// How often PAUSE looks whether everything is closed.
const LOOK: Duration = Duration::from_millis(20);

/// What an order leaves to be done.
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// Wait until these databases have no backend.
    Drain(Vec<DatabaseId>),
    /// Wait until these databases have no backend that is to be replaced.
    Replace(Vec<DatabaseId>),
    /// Have the file read.
    Reload,
    /// Have the process end.
    Shutdown {
        /// Without waiting for transactions.
        now: bool,
    },
}

/// Does of a command what takes no time. Only on a worker's thread.
pub(super) fn begin(worker: &Worker, command: &Command) -> Result<Rest, ConsoleFault> {
    let proxy = &*worker.proxy;
    let meant = |name: &Option<String>| {
        let name = name.as_deref();
        proxy.meant(name).ok_or_else(|| ConsoleFault::NoDatabase(name.unwrap_or_default().to_owned()))
    };
    let known = |name: &String| meant(&Some(name.clone())).map(drop);
    match command {
        Command::Show(_) | Command::Value(..) | Command::Nothing(_) => {}
        Command::Reload => return Ok(Rest::Reload),
        Command::Shutdown { now } => return Ok(Rest::Shutdown { now: *now }),
        Command::Pause(name) => {
            let databases = meant(name)?;
            proxy.pause_newcomers(name.is_none() || proxy.is_paused());
            proxy.pause(worker.id, &databases);
            return Ok(Rest::Drain(databases));
        }
        Command::Resume(name) => {
            let databases = meant(name)?;
            let is_paused =
                |database: &DatabaseId| proxy.pools.core().database(*database).is_some_and(|it| it.is_paused);
            if !(databases.iter().any(is_paused) || name.is_none() && proxy.is_paused()) {
                return Err(ConsoleFault::NotPaused);
            }
            resume(worker, name.is_none(), &databases);
        }
        Command::Reconnect(name) => {
            meant(name)?.into_iter().for_each(|database| proxy.retire(worker.id, database));
        }
        Command::WaitClose(name) => return Ok(Rest::Replace(meant(name)?)),
        Command::Kill(name) => {
            let databases = meant(name)?;
            proxy.pause_newcomers(name.is_none() || proxy.is_paused());
            proxy.pause(worker.id, &databases);
            kill(proxy, name.as_deref());
        }
        Command::KillClient(id) => {
            let clients = proxy.clients.all();
            let client = clients.iter().find(|entry| entry.pid == *id).ok_or(ConsoleFault::NoClient(*id))?;
            client.signal(Signal::Kill);
        }
        Command::Disable(name) => {
            known(name)?;
            proxy.set_disabled(name, true);
        }
        Command::Enable(name) => {
            known(name)?;
            proxy.set_disabled(name, false);
        }
        Command::Limit { role, max, over } => {
            let lane = lane(proxy, role)?;
            let now = Instant::now();
            proxy.pools.decide(worker.id, |core, out| core.limit_lane(lane, Some(*max), *over, now, out));
        }
        Command::Unlimit(role) => {
            let lane = lane(proxy, role)?;
            let now = Instant::now();
            proxy.pools.decide(worker.id, |core, out| core.unlimit_lane(lane, now, out));
        }
        Command::Ramp { role, over } => {
            let lane = lane(proxy, role)?;
            let own = || config::lane_settings(&proxy.config.load(), role)?.ramp;
            let now = Instant::now();
            if proxy.pools.core().lane(lane, now).is_none_or(|lane| lane.gate.limit.is_none()) {
                return Err(ConsoleFault::NoLimit(role.clone()));
            }
            let over = over.or_else(own).ok_or_else(|| ConsoleFault::NoRamp(role.clone()))?;
            proxy.pools.decide(worker.id, |core, out| core.ramp_lane(lane, over, now, out));
        }
    }
    Ok(Rest::Nothing)
}

/// Has the file read; tells what changed.
pub(super) async fn reload(proxy: &Proxy) -> Result<Vec<String>, ConsoleFault> {
    let (tell, told) = oneshot::channel();
    proxy.orders.send(Order::Reload(tell)).await.map_err(|_| ConsoleFault::GoingDown)?;
    told.await.map_err(|_| ConsoleFault::GoingDown)?.map_err(ConsoleFault::Reload)
}

/// Has the process end.
pub(super) async fn shutdown(proxy: &Proxy, now: bool) -> Result<(), ConsoleFault> {
    proxy.orders.send(Order::Shutdown { now }).await.map_err(|_| ConsoleFault::GoingDown)
}

/// The lane of a role, which begins to exist if nobody has logged in as it so far.
fn lane(proxy: &Proxy, role: &str) -> Result<LaneId, ConsoleFault> {
    // "*" stands for roles, and is none.
    let lane = (role != "*").then(|| proxy.lane(role)).flatten();
    lane.ok_or_else(|| ConsoleFault::NoRole(role.to_owned()))
}

fn resume(worker: &Worker, is_all: bool, databases: &[DatabaseId]) {
    if is_all {
        worker.proxy.pause_newcomers(false);
    }
    worker.proxy.resume(worker.id, databases);
}

/// Drops the clients of a database, or all; consoles stay.
fn kill(proxy: &Proxy, database: Option<&str>) {
    for entry in proxy.clients.all() {
        let is_meant = database.is_none_or(|database| *entry.database == *database);
        if is_meant && !CONSOLE_NAMES.contains(&&*entry.database) {
            entry.signal(Signal::Kill);
        }
    }
}

impl Console {
    /// Does what a command says; its rows and tag come back, its notices are on their way.
    pub(super) async fn carry_out(&mut self, command: &Command) -> Result<Answer, Stop> {
        // Asked each time: a reload that takes a role its rights takes them from its consoles, too.
        let role = || self.place.role.to_string();
        match (self.worker.proxy.config.load().admin.access(&self.place.role), command.needs()) {
            (None, _) => return Err(ConsoleFault::NoLongerAllowed(role()).into()),
            (Some(Access::Look), Access::Act) => return Err(ConsoleFault::MayOnlyLook(role()).into()),
            (Some(Access::Look), Access::Look) | (Some(Access::Act), _) => {}
        }
        let rows = match command {
            Command::Show(table) => (table.rows)(&self.worker.proxy),
            Command::Value(_, cell) => vec![vec![cell.clone()]],
            Command::Nothing(tag) => {
                self.follow(tag);
                Vec::new()
            }
            order => {
                self.obey(order).await?;
                Vec::new()
            }
        };
        Ok(Answer::of(rows, command.tag()))
    }

    async fn obey(&mut self, order: &Command) -> Result<(), Stop> {
        tracing::info!(client.addr = %self.place.addr, role = %self.place.role, command = ?order, "console");
        let worker = Rc::clone(&self.worker);
        match begin(&worker, order)? {
            Rest::Nothing => {}
            Rest::Drain(databases) => {
                let core = || worker.proxy.pools.core();
                let is_open = |id| core().database(id).is_some_and(|database| database.counts.open() > 0);
                let drained = self.until_none(&databases, is_open, ConsoleFault::PauseCanceled).await;
                if let Err(Stop::Fault(ConsoleFault::PauseCanceled)) = drained {
                    resume(&worker, *order == Command::Pause(None), &databases);
                }
                drained?;
            }
            Rest::Replace(databases) => {
                let has_retired = |id| worker.proxy.pools.core().has_retired(id);
                self.until_none(&databases, has_retired, ConsoleFault::WaitCanceled).await?;
            }
            Rest::Reload => {
                for message in reload(&worker.proxy).await? {
                    let notice = Report { severity: "NOTICE", code: "00000", message, ..Report::default() };
                    build::notice_response(&mut self.out, &notice);
                }
            }
            Rest::Shutdown { now } => shutdown(&worker.proxy, now).await?,
        }
        Ok(())
    }

    /// Waits until this holds of none of the databases, or somebody cancels. Who goes away meanwhile leaves everything as it is.
    async fn until_none(
        &mut self,
        databases: &[DatabaseId],
        holds: impl Fn(DatabaseId) -> bool,
        canceled: ConsoleFault,
    ) -> Result<(), Stop> {
        self.place.set_waiting();
        let ended = self.look_until_none(databases, holds, canceled).await;
        self.place.set_idle();
        ended
    }

    async fn look_until_none(
        &mut self,
        databases: &[DatabaseId],
        holds: impl Fn(DatabaseId) -> bool,
        canceled: ConsoleFault,
    ) -> Result<(), Stop> {
        loop {
            if !databases.iter().any(|database| holds(*database)) {
                return Ok(());
            }
            if self.input.len() > MESSAGE_MAX {
                return Err(End::Fatal(ConsoleFault::TooLong(self.input.len())).into());
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                heard = self.hear() => match heard? {
                    Some(signals) if signals & Signal::Cancel as u8 != 0 => return Err(canceled.into()),
                    Some(signals) => heed(signals)?,
                    None => {}
                },
            }
        }
    }
}
