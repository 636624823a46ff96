//! Carries out what the console is told.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::command::Command;
use super::console::{Answer, Console, End, MESSAGE_MAX, Stop, heed};
use super::fault::ConsoleFault;
use crate::config::{self, CONSOLE_NAMES};
use crate::pool::core::{DatabaseId, LaneId};
use crate::run::Order;
use crate::session::registry::Signal;
use crate::wire::build::{self, Report};

/// How often PAUSE looks whether everything is closed.
const LOOK: Duration = Duration::from_millis(20);

impl Console {
    /// Does what a command says; its rows and tag come back, its notices are on their way.
    pub(super) async fn carry_out(&mut self, command: &Command) -> Result<Answer, Stop> {
        let worker = Rc::clone(&self.worker);
        let proxy = &worker.proxy;
        if !matches!(command, Command::Show(_) | Command::Value(..) | Command::Nothing(_)) {
            tracing::info!(client.addr = %self.place.addr, role = %self.place.role, ?command, "console");
        }
        let meant = |name: &Option<String>| {
            let name = name.as_deref();
            proxy.meant(name).ok_or_else(|| ConsoleFault::NoDatabase(name.unwrap_or_default().to_owned()))
        };
        let known = |name: &String| meant(&Some(name.clone())).map(drop);
        let tag = match command {
            Command::Show(show) => return Ok(Answer::of(show.rows(proxy), "SHOW")),
            Command::Value(_, cell) => return Ok(Answer::of(vec![vec![cell.clone()]], "SELECT")),
            Command::Nothing(tag @ ("DISCARD ALL" | "DEALLOCATE ALL")) => {
                self.statements.clear();
                tag
            }
            Command::Nothing(tag) => tag,
            Command::Reload => {
                self.reload().await?;
                "RELOAD"
            }
            Command::Pause(name) => {
                let databases = meant(name)?;
                proxy.pause_newcomers(name.is_none() || proxy.is_paused());
                proxy.pause(worker.id, &databases);
                if let Err(stop) = self.drained(&databases).await {
                    if let Stop::Fault(ConsoleFault::PauseCanceled) = stop {
                        self.resume(name.is_none(), &databases);
                    }
                    return Err(stop);
                }
                "PAUSE"
            }
            Command::Resume(name) => {
                let databases = meant(name)?;
                let is_paused =
                    |database: &DatabaseId| proxy.pools.core().database(*database).is_some_and(|it| it.is_paused);
                if !(databases.iter().any(is_paused) || name.is_none() && proxy.is_paused()) {
                    return Err(ConsoleFault::NotPaused.into());
                }
                self.resume(name.is_none(), &databases);
                "RESUME"
            }
            Command::Reconnect(name) => {
                meant(name)?.into_iter().for_each(|database| proxy.retire(worker.id, database));
                "RECONNECT"
            }
            Command::Kill(name) => {
                let databases = meant(name)?;
                proxy.pause_newcomers(name.is_none() || proxy.is_paused());
                proxy.pause(worker.id, &databases);
                self.kill(name.as_deref());
                "KILL"
            }
            Command::KillClient(id) => {
                let clients = proxy.clients.all();
                let client = clients.iter().find(|entry| entry.pid == *id).ok_or(ConsoleFault::NoClient(*id))?;
                client.signal(Signal::Kill);
                "KILL_CLIENT"
            }
            Command::Disable(name) => {
                known(name)?;
                proxy.set_disabled(name, true);
                "DISABLE"
            }
            Command::Enable(name) => {
                known(name)?;
                proxy.set_disabled(name, false);
                "ENABLE"
            }
            Command::Limit { role, max, over } => {
                let lane = self.lane(role)?;
                let now = Instant::now();
                proxy.pools.decide(worker.id, |core, out| core.limit_lane(lane, Some(*max), *over, now, out));
                "LIMIT"
            }
            Command::Unlimit(role) => {
                let lane = self.lane(role)?;
                let now = Instant::now();
                proxy.pools.decide(worker.id, |core, out| core.unlimit_lane(lane, now, out));
                "LIMIT"
            }
            Command::Ramp { role, over } => {
                let lane = self.lane(role)?;
                let own = || config::lane_settings(&proxy.config.load(), role)?.ramp;
                let now = Instant::now();
                if proxy.pools.core().lane(lane, now).is_none_or(|lane| lane.gate.limit.is_none()) {
                    return Err(ConsoleFault::NoLimit(role.clone()).into());
                }
                let over = over.or_else(own).ok_or_else(|| ConsoleFault::NoRamp(role.clone()))?;
                proxy.pools.decide(worker.id, |core, out| core.ramp_lane(lane, over, now, out));
                "RAMP"
            }
            Command::Shutdown { now } => {
                let order = Order::Shutdown { now: *now };
                proxy.orders.send(order).await.map_err(|_| ConsoleFault::GoingDown)?;
                "SHUTDOWN"
            }
        };
        Ok(Answer::of(Vec::new(), tag))
    }

    /// The lane of a role, which begins to exist if nobody has logged in as it so far.
    fn lane(&self, role: &str) -> Result<LaneId, ConsoleFault> {
        // "*" stands for roles, and is none.
        let lane = (role != "*").then(|| self.worker.proxy.lane(role)).flatten();
        lane.ok_or_else(|| ConsoleFault::NoRole(role.to_owned()))
    }

    /// Has the file read; every change is a notice, every mistake a line of the error's detail.
    async fn reload(&mut self) -> Result<(), Stop> {
        let (tell, told) = oneshot::channel();
        let sent = self.worker.proxy.orders.send(Order::Reload(tell)).await;
        sent.map_err(|_| ConsoleFault::GoingDown)?;
        let outcome = told.await.map_err(|_| ConsoleFault::GoingDown)?;
        for message in outcome.map_err(ConsoleFault::Reload)? {
            let notice = Report { severity: "NOTICE", code: "00000", message, ..Report::default() };
            build::notice_response(&mut self.out, &notice);
        }
        Ok(())
    }

    /// Waits until the databases have no backend. Who goes away meanwhile leaves them paused; who cancels does not.
    async fn drained(&mut self, databases: &[DatabaseId]) -> Result<(), Stop> {
        self.place.set_waiting();
        let drained = self.look_until_drained(databases).await;
        self.place.set_idle();
        drained
    }

    async fn look_until_drained(&mut self, databases: &[DatabaseId]) -> Result<(), Stop> {
        loop {
            let is_open = |database: &DatabaseId| {
                self.worker.proxy.pools.core().database(*database).is_some_and(|database| database.counts.open() > 0)
            };
            if !databases.iter().any(is_open) {
                return Ok(());
            }
            if self.input.len() > MESSAGE_MAX {
                return Err(End::Fatal(ConsoleFault::TooLong(self.input.len())).into());
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                heard = self.hear() => match heard? {
                    Some(signals) if signals & Signal::Cancel as u8 != 0 => return Err(ConsoleFault::PauseCanceled.into()),
                    Some(signals) => heed(signals)?,
                    None => {}
                },
            }
        }
    }

    fn resume(&self, is_all: bool, databases: &[DatabaseId]) {
        let proxy = &self.worker.proxy;
        if is_all {
            proxy.pause_newcomers(false);
        }
        proxy.resume(self.worker.id, databases);
    }

    /// Drops the clients of a database, or all; consoles stay.
    fn kill(&self, database: Option<&str>) {
        for entry in self.worker.proxy.clients.all() {
            let is_meant = database.is_none_or(|database| *entry.database == *database);
            if is_meant && !CONSOLE_NAMES.contains(&&*entry.database) {
                entry.signal(Signal::Kill);
            }
        }
    }
}
