//! The connection of the watch: asks the core's questions, and logs the findings.
//!
//! It is opened at the start and kept: in a convoy new logins hang for as long as the convoy lasts, so silence alone
//! does not end it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::census::Census;
use super::convoy::BLIND_AFTER;
use super::finding::Finding;
use super::incidents::IncidentChange;
use super::monitor::{Monitor, close};
use super::own_backends::OwnBackends;
use super::question::Question;
use super::reaction::{IdleHolder, ReactionStep};
use super::row::AnswerRow;
use super::sql;
use super::stats::Reaction;
use super::watches::{Watches, listed};
use crate::fleet::count::EVERY;
use crate::pool::address::ServerAddress;
use crate::pool::backoff::Backoff;
use crate::pool::core::FailureKind;
use crate::pool::in_use::InUse;
use crate::pool::link::{BACKOFF_MAX, Link, LinkError, Said};
use crate::pool::open::Opener;
use crate::pool::pool::Pool;
use crate::wire::build::{self, ServerError};

/// A silent connection may come back within this time; afterwards it counts as dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A server that refuses the login has to be set up otherwise first, and it logs each refusal.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// The rest of the process, as far as a watch has to do with it.
pub trait Process: Sync {
    /// The watches of all databases.
    fn watches(&self) -> &Watches;

    /// The processes of a server that are pgweir's, and the clients that have them.
    fn own_backends(&self, server: &ServerAddress) -> OwnBackends;

    /// Counts the instances of the fleet, if that is wanted.
    fn census(&self) -> Option<&Census> {
        None
    }

    /// Lowers the limit of transactions at once of this role; returns the new limit, if it is lower than before.
    fn tighten(&self, role: &str) -> Option<u32>;

    /// Ends the transaction of a client. False: the client does not have that process of the server any more.
    fn cancel(&self, server: &ServerAddress, holder: &IdleHolder) -> bool;
}

/// State that outlives a connection.
struct Kept {
    /// When the server answered last.
    heard: Instant,
    /// Advice about the server's settings that the log has already.
    advice: Vec<String>,
    /// Roles that were tightened in the convoy that is open: one record for each is enough.
    tightened: BTreeSet<Arc<str>>,
}

impl Monitor {
    /// Watches with the login of `pool`, for ever.
    pub async fn run(&self, opener: &Opener, pool: &InUse<Pool>, process: &impl Process) {
        // Another run may have been cut off.
        self.stats.set_connected(false);
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        let mut kept = Kept { heard: Instant::now(), advice: Vec::new(), tightened: BTreeSet::new() };
        let mut is_told = false;
        loop {
            let error = match self.open(opener, pool, process.census()).await {
                Ok(link) => {
                    backoff.succeeded();
                    is_told = false;
                    self.stats.set_connected(true);
                    let error = self.attend(link, pool, process, &mut kept).await;
                    self.stats.set_connected(false);
                    process.watches().lost(self);
                    error
                }
                Err(error) => error,
            };
            let now = Instant::now();
            let change = self.core().silent(kept.heard, now);
            self.tell(process, change);
            let wait = if is_refused(&error) { REFUSED_AGAIN } else { backoff.failed(fastrand::f64()) };
            let database = &*self.database;
            // A login that is refused concerns one database, a server that is away all of them.
            let is_news = if is_refused(&error) { !is_told } else { self.core().is_gone() };
            is_told |= is_refused(&error);
            match is_news {
                true => tracing::warn!(database, %error, "the server is not watched"),
                false => tracing::debug!(database, %error, ?wait, "the server is still not watched"),
            }
            sleep(wait).await;
        }
    }

    async fn open(&self, opener: &Opener, pool: &InUse<Pool>, census: Option<&Census>) -> Result<Link, LinkError> {
        let name = census.map_or("pgweir watch", |census| census.application_name.as_str());
        let mut link = Link::open(opener, pool.clone(), name).await?;
        link.ask(sql::SESSION.as_bytes(), |_| ()).await?.map_err(LinkError::Server)?;
        tracing::info!(database = &*self.database, server = %link.address(), pid = link.pid(), "watching");
        self.core().connected(Instant::now());
        Ok(link)
    }

    /// Asks over this connection until it is of no use.
    async fn attend(&self, mut link: Link, pool: &InUse<Pool>, process: &impl Process, kept: &mut Kept) -> LinkError {
        let leave = link.leave();
        let mut count_at = Instant::now();
        loop {
            let over = process.watches().settle(self, Instant::now());
            self.tell(process, over);
            let unnamed = std::mem::take(&mut *self.unnamed.lock().expect("no panic while held"));
            if !unnamed.is_empty() {
                if let Err(error) = self.name_relations(&mut link, &unnamed, process).await {
                    return error;
                }
                continue;
            }
            let (question, mut at) = self.core().next();
            let census = process.census().filter(|_| count_at < at);
            if census.is_some() {
                at = count_at;
            }
            tokio::select! {
                () = leave.notified() => return LinkError::Left,
                () = self.wake.notified() => continue,
                () = sleep_until(at) => {}
            }
            if let Some(census) = census {
                count_at = Instant::now() + EVERY;
                if let Err(error) = self.count(&mut link, census, process).await {
                    return error;
                }
                continue;
            }
            if link.has_moved() {
                return LinkError::Moved;
            }
            let sql = self.core().sql(&question);
            let asked = Instant::now();
            let answer = match self.ask(&mut link, &sql, asked, process).await {
                Ok(answer) => answer,
                Err(error) => return error,
            };
            let now = Instant::now();
            self.stats.asked(now - asked);
            match answer {
                Ok(rows) => {
                    kept.heard = now;
                    let names_processes = !rows.is_empty() && self.core().names_processes(&question);
                    let own =
                        if names_processes { process.own_backends(link.address()) } else { OwnBackends::default() };
                    let outcome = self.core().answer(&question, &rows, &own, now - asked, now);
                    match outcome {
                        Ok(changes) => self.tell(process, changes),
                        Err(error) => self.refuse(&question, &error, now),
                    }
                    let steps = self.core().react(&question, &own);
                    self.take(steps, process, link.address(), kept);
                    match question {
                        Question::Server => {
                            let over = process.watches().settle(self, now);
                            self.tell(process, over);
                            self.advise(pool.settings().backends_max, &mut kept.advice);
                        }
                        Question::Locks => self.ask_for_names(process, now),
                        Question::Activity | Question::Names(_) | Question::Detector(_) => {}
                    }
                }
                Err(error) => {
                    self.refuse(&question, &format_args!("{}: {}", error.code, error.message), now);
                    // The question was cancelled by its timeout: the error that says so is no answer.
                    if question == Question::Activity {
                        let change = self.core().silent(kept.heard, now);
                        self.tell(process, change);
                    }
                }
            }
        }
    }

    /// Counts the instances once more.
    async fn count(&self, link: &mut Link, census: &Census, process: &impl Process) -> Result<(), LinkError> {
        let asked = Instant::now();
        let answer = self.ask(link, &census.sql, asked, process).await?;
        let now = Instant::now();
        self.stats.asked(now - asked);
        let answered = match answer {
            Ok(rows) => census.answer(&self.database, &rows, now).map_err(|error| error.to_string()),
            Err(error) => Err(format!("{}: {}", error.code, error.message)),
        };
        if let Err(error) = answered {
            tracing::debug!(database = &*self.database, error, "the instances were not counted");
        }
        Ok(())
    }

    /// Has relations of other databases named by the watches of those.
    fn ask_for_names(&self, process: &impl Process, now: Instant) {
        let foreign = self.core().foreign();
        for database in process.watches().ask_for(self, foreign) {
            let named = self.core().named(database, Vec::new(), now);
            self.tell(process, named.unwrap_or_default());
        }
    }

    /// Names relations of its database, for the watch that asks for the server.
    async fn name_relations(
        &self,
        link: &mut Link,
        relations: &BTreeSet<u32>,
        process: &impl Process,
    ) -> Result<(), LinkError> {
        let asked = Instant::now();
        let answer = self.ask(link, &sql::relations(relations), asked, process).await?;
        let now = Instant::now();
        self.stats.asked(now - asked);
        let name = |row: &AnswerRow| Some((row.value(0).ok()?, row.text(1).ok()?.to_owned()));
        let names = answer.unwrap_or_default().iter().filter_map(name).collect();
        let Some(database) = self.core().server().map(|server| server.database) else { return Ok(()) };
        if let Some(leader) = process.watches().leader(&self.database) {
            let named = leader.core().named(database, names, now);
            leader.tell(process, named.unwrap_or_default());
            leader.wake.notify_one();
        }
        Ok(())
    }

    /// One question, however long its answer takes, as long as the connection may live.
    async fn ask(
        &self,
        link: &mut Link,
        sql: &str,
        asked: Instant,
        process: &impl Process,
    ) -> Result<Result<Vec<AnswerRow>, ServerError>, LinkError> {
        let mut query = Vec::new();
        build::query(&mut query, sql.as_bytes());
        link.send(&query).await?;
        let mut outcome = Ok(Vec::new());
        let mut look = asked + BLIND_AFTER;
        loop {
            tokio::select! {
                said = link.said() => match said? {
                    Said::Row(row) => if let Ok(rows) = &mut outcome {
                        rows.push(AnswerRow::new(&row).ok_or(LinkError::Protocol)?);
                    },
                    Said::Refused(error) => outcome = Err(error),
                    Said::Ready => return Ok(outcome),
                    Said::Heard(_) => {}
                },
                () = sleep_until(look) => {
                    let now = Instant::now();
                    let change = self.core().silent(asked, now);
                    self.tell(process, change);
                    if now >= asked + SILENCE_MAX {
                        return Err(LinkError::Silent(SILENCE_MAX));
                    }
                    look = asked + SILENCE_MAX;
                }
            }
        }
    }

    /// Carries out reactions to findings, and logs why.
    fn take(&self, steps: Vec<ReactionStep>, process: &impl Process, server: &ServerAddress, kept: &mut Kept) {
        let database = &*self.database;
        if self.core().convoy().convoy().is_none() {
            kept.tightened.clear();
        }
        for step in steps {
            match step {
                ReactionStep::Tighten(roles) => {
                    for role in roles {
                        let Some(effective) = process.tighten(&role) else { continue };
                        self.stats.reacted(Reaction::Tighten);
                        if kept.tightened.insert(Arc::clone(&role)) {
                            tracing::warn!(
                                database,
                                role = &*role,
                                effective,
                                "watch.on_convoy: fewer transactions of a role may start while its clients wait in a convoy"
                            );
                        }
                    }
                }
                ReactionStep::Cancel(holder) => {
                    if process.cancel(server, &holder) {
                        self.stats.reacted(Reaction::Cancel);
                        let (client, backend) = (&holder.client, holder.backend);
                        tracing::warn!(
                            database, %client, backend, reason = %holder,
                            "watch.on_idle_holder: a transaction is ended that idles while others wait for it"
                        );
                    }
                }
            }
        }
    }

    /// Logs advice on settings of the server, each once.
    fn advise(&self, backends_max: Option<u32>, said: &mut Vec<String>) {
        let core = self.core();
        let advice = core.server().filter(|_| core.leads()).map(|server| server.advice(backends_max));
        let advice = advice.unwrap_or_default();
        drop(core);
        for text in advice.iter().filter(|text| !said.contains(text)) {
            tracing::warn!(database = &*self.database, "{text}");
        }
        *said = advice;
    }

    fn refuse(&self, question: &Question, error: &dyn std::fmt::Display, now: Instant) {
        tracing::debug!(database = &*self.database, ?question, %error, "the watch was refused an answer");
        self.core().refused(question, now);
    }

    pub(crate) fn tell(&self, process: &impl Process, changes: impl IntoIterator<Item = IncidentChange<Finding>>) {
        for change in changes {
            let (IncidentChange::Opened(finding) | IncidentChange::Closed(finding, _)) = &change;
            let database = listed(&process.watches().reached(&self.database, &finding.reach));
            match change {
                IncidentChange::Opened(Finding { kind, what, culprit, remedy, .. }) => {
                    self.stats.found(kind);
                    let (kind, culprit) = (kind.word(), culprit.map(tracing::field::display));
                    tracing::warn!(database, kind, culprit, remedy, "{what}");
                }
                IncidentChange::Closed(finding, lasted) => close(&database, &finding, lasted, "over"),
            }
        }
    }
}

fn is_refused(error: &LinkError) -> bool {
    matches!(error, LinkError::Open(error) if FailureKind::from(error) == FailureKind::Refused)
}
