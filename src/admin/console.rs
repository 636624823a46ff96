//! One console from its login to its end: the simple and the extended protocol over the statements of the console.
//!
//! The console owns its connection and runs on the worker that accepted it, so that its decisions about pools happen on
//! a worker's thread. It is a client like others to a drain, to KILL_CLIENT and to a CancelRequest, which ends PAUSE.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;

use super::body::{Body, lossy};
use super::command::{Action, FollowUp};
use super::connection::{ConsoleConnection, ConsoleEnd, WaitEnd};
use super::drivers::{DriverStatement, PARAMETERS};
use super::statement::{self, ConsoleStatement};
use super::table::{self, Formats, TableRow};
use crate::clients::ClientFacts;
use crate::config::Access;
use crate::error::ConsoleFault;
use crate::error::sqlstate;
use crate::net::stream::Stream;
use crate::session::context::Worker;
use crate::wire::build::{self, Report};
use crate::wire::expected::TransactionStatus;

/// Statements and portals that one console may hold, each.
const NAMES_MAX: usize = 256;

/// Serves a console whose user is known and allowed, up to its end. AuthenticationOk was sent.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Stream, facts: ClientFacts) {
    let handle = worker.proxy.clients.admit(facts, worker.proxy.clock.second());
    tracing::info!(client.addr = %handle.addr, role = %handle.role, "console opened");
    let mut console = Console {
        worker,
        connection: ConsoleConnection::new(handle, stream),
        statements: HashMap::new(),
        portals: HashMap::new(),
        transaction: TransactionStatus::Idle,
        is_skipping: false,
    };
    console.greet();
    let end = console.run().await;
    if let ConsoleEnd::Fatal(fault) = end {
        build::error_response(&mut console.connection.out, &sqlstate::console(&fault));
        console.connection.close().await;
    }
}

/// The reason a message was not answered as it asks.
#[derive(Debug)]
enum ConsoleStop {
    /// The client gets an error, and stays.
    Fault(ConsoleFault),
    End(ConsoleEnd),
}

impl From<ConsoleFault> for ConsoleStop {
    fn from(fault: ConsoleFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ConsoleEnd> for ConsoleStop {
    fn from(end: ConsoleEnd) -> Self {
        Self::End(end)
    }
}

struct Console {
    worker: Rc<Worker>,
    connection: ConsoleConnection,
    /// By name; `None` is the empty statement.
    statements: HashMap<Bytes, Option<ConsoleStatement>>,
    portals: HashMap<Bytes, ConsolePortal>,
    /// BEGIN groups nothing, but keeps portals: drivers fetch from them after a Sync.
    transaction: TransactionStatus,
    /// After an error in the extended protocol, up to Sync.
    is_skipping: bool,
}

struct ConsolePortal {
    statement: Option<ConsoleStatement>,
    formats: Formats,
    /// Once it ran.
    answer: Option<StatementAnswer>,
}

/// The rows of a statement, if it has columns, and its tag.
struct StatementAnswer {
    rows: std::vec::IntoIter<TableRow>,
    sent: usize,
    tag: &'static str,
}

impl Console {
    fn greet(&mut self) {
        for (name, value) in PARAMETERS {
            build::parameter_status(&mut self.connection.out, name, value);
        }
        build::backend_key_data(&mut self.connection.out, self.connection.handle.pid, self.connection.handle.secret());
        build::ready_for_query(&mut self.connection.out, TransactionStatus::Idle);
    }

    async fn run(&mut self) -> ConsoleEnd {
        loop {
            let served = match self.connection.message() {
                Ok(Some((tag, body))) => self.serve(tag, body).await,
                Ok(None) => self.connection.listen().await,
                Err(fault) => Err(ConsoleEnd::Fatal(fault)),
            };
            if let Err(end) = served {
                return end;
            }
        }
    }

    async fn serve(&mut self, tag: u8, body: Bytes) -> Result<(), ConsoleEnd> {
        match tag {
            b'X' => return Err(ConsoleEnd::Gone),
            b'S' => {
                self.is_skipping = false;
                if self.transaction == TransactionStatus::Idle {
                    self.portals.clear();
                }
                build::ready_for_query(&mut self.connection.out, self.transaction);
                return Ok(());
            }
            _ if self.is_skipping => return Ok(()),
            _ => {}
        }
        let served = match tag {
            b'Q' => self.query(body).await,
            b'P' => self.parse(body).map_err(ConsoleStop::from),
            b'B' => self.bind(body).map_err(ConsoleStop::from),
            b'D' => self.describe(body).map_err(ConsoleStop::from),
            b'E' => self.execute(body).await,
            b'C' => self.close(body).map_err(ConsoleStop::from),
            b'H' => self.connection.flush().await.map_err(ConsoleStop::from),
            _ => Err(ConsoleFault::Message(tag.into()).into()),
        };
        match served {
            Ok(()) => Ok(()),
            Err(ConsoleStop::Fault(fault @ (ConsoleFault::Message(_) | ConsoleFault::Frame(_)))) => {
                Err(ConsoleEnd::Fatal(fault))
            }
            Err(ConsoleStop::Fault(fault)) => {
                let report = sqlstate::console(&fault);
                self.worker.proxy.errors.count(&report.code);
                build::error_response(&mut self.connection.out, &report);
                if tag == b'Q' {
                    build::ready_for_query(&mut self.connection.out, self.transaction);
                } else {
                    self.is_skipping = true;
                }
                Ok(())
            }
            Err(ConsoleStop::End(end)) => Err(end),
        }
    }

    // ---- statements -----------------------------------------------------------------------------

    /// Runs a statement; its notices are on their way when its rows and tag come back.
    async fn answer(&mut self, statement: &ConsoleStatement) -> Result<StatementAnswer, ConsoleStop> {
        // Asked each time: a reload that takes a role its rights takes them from its consoles, too.
        let role = || self.connection.handle.role.to_string();
        match (self.worker.proxy.config.load().admin.access(&self.connection.handle.role), statement.access()) {
            (None, _) => return Err(ConsoleFault::NoLongerAllowed(role()).into()),
            (Some(Access::Look), Access::Act) => return Err(ConsoleFault::MayOnlyLook(role()).into()),
            (Some(Access::Look), Access::Look) | (Some(Access::Act), _) => {}
        }
        let rows = match statement {
            ConsoleStatement::Show(table, wanted) => wanted.of((table.rows)(&self.worker.proxy)),
            ConsoleStatement::Driver(DriverStatement::Value(_, cell)) => vec![vec![cell.clone()]],
            ConsoleStatement::Driver(DriverStatement::Nothing(tag)) => {
                self.follow(tag);
                Vec::new()
            }
            ConsoleStatement::Act(action) => {
                self.act(action).await?;
                Vec::new()
            }
        };
        Ok(StatementAnswer { rows: rows.into_iter(), sent: 0, tag: statement.tag() })
    }

    async fn act(&mut self, action: &Action) -> Result<(), ConsoleStop> {
        let (worker, handle) = (&self.worker, &self.connection.handle);
        tracing::info!(client.addr = %handle.addr, role = %handle.role, command = &*action.typed, "console");
        match action.run(worker, &handle.role, &handle.addr)? {
            FollowUp::Nothing => {}
            FollowUp::Wait(wait) => {
                let is_pending = || (wait.pending)(&worker.proxy).is_some();
                if self.connection.wait_while(is_pending).await? == WaitEnd::Canceled {
                    (wait.undo)(worker);
                    return Err(wait.canceled.into());
                }
            }
            FollowUp::Later(task) => {
                for message in task.await? {
                    let notice = Report { severity: "NOTICE", code: "00000".into(), message, ..Report::default() };
                    build::notice_response(&mut self.connection.out, &notice);
                }
            }
        }
        Ok(())
    }

    // ---- the simple protocol --------------------------------------------------------------------

    async fn query(&mut self, body: Bytes) -> Result<(), ConsoleStop> {
        let mut body = Body::new(b'Q', body);
        let text = body.text()?;
        let statements = statement::parse(&text)?;
        if statements.is_empty() {
            self.connection.out.extend_from_slice(build::EMPTY_QUERY);
        }
        for statement in statements {
            let answer = self.answer(&statement).await?;
            if let Some(columns) = statement.columns() {
                table::describe(&mut self.connection.out, &columns, &Formats::default());
            }
            let (statement, formats) = (Some(statement), Formats::default());
            ConsolePortal { statement, formats, answer: Some(answer) }.send(&mut self.connection.out, 0);
        }
        build::ready_for_query(&mut self.connection.out, self.transaction);
        Ok(())
    }

    // ---- the extended protocol ------------------------------------------------------------------

    fn parse(&mut self, body: Bytes) -> Result<(), ConsoleFault> {
        let mut body = Body::new(b'P', body);
        let (name, text) = (body.name()?, body.text()?);
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(ConsoleFault::DuplicateStatement(lossy(&name)));
        }
        let mut statements = statement::parse(&text)?;
        if statements.len() > 1 {
            return Err(ConsoleFault::SeveralCommands);
        }
        if self.statements.len() >= NAMES_MAX {
            return Err(ConsoleFault::TooMany);
        }
        self.statements.insert(name, statements.pop());
        self.connection.out.extend_from_slice(build::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: Bytes) -> Result<(), ConsoleFault> {
        let mut body = Body::new(b'B', body);
        let (portal, statement) = (body.name()?, body.name()?);
        body.numbers()?;
        if body.number()? != 0 {
            return Err(ConsoleFault::Parameters);
        }
        let formats = Formats(body.numbers()?);
        let named = self.statements.get(&statement);
        let statement = named.ok_or_else(|| ConsoleFault::NoStatement(lossy(&statement)))?.clone();
        if self.portals.len() >= NAMES_MAX {
            return Err(ConsoleFault::TooMany);
        }
        self.portals.insert(portal, ConsolePortal { statement, formats, answer: None });
        self.connection.out.extend_from_slice(build::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: Bytes) -> Result<(), ConsoleFault> {
        let mut body = Body::new(b'D', body);
        let (kind, name) = (body.byte()?, body.name()?);
        let text = Formats::default();
        let (statement, formats) = match kind {
            b'S' => {
                let statement = self.statements.get(&name).ok_or_else(|| ConsoleFault::NoStatement(lossy(&name)))?;
                self.connection.out.extend_from_slice(build::NO_PARAMETERS);
                (statement, &text)
            }
            _ => {
                let portal = self.portals.get(&name).ok_or_else(|| ConsoleFault::NoPortal(lossy(&name)))?;
                (&portal.statement, &portal.formats)
            }
        };
        match statement.as_ref().and_then(ConsoleStatement::columns) {
            Some(columns) => table::describe(&mut self.connection.out, &columns, formats),
            None => self.connection.out.extend_from_slice(build::NO_DATA),
        }
        Ok(())
    }

    async fn execute(&mut self, body: Bytes) -> Result<(), ConsoleStop> {
        let mut body = Body::new(b'E', body);
        let (name, most) = (body.name()?, body.long()?);
        let mut portal = self.portals.remove(&name).ok_or_else(|| ConsoleFault::NoPortal(lossy(&name)))?;
        if let (Some(statement), None) = (&portal.statement, &portal.answer) {
            portal.answer = Some(self.answer(statement).await?);
        }
        portal.send(&mut self.connection.out, most);
        self.portals.insert(name, portal);
        Ok(())
    }

    /// Updates transaction, portals and statements after the statement with this tag.
    fn follow(&mut self, tag: &str) {
        match tag {
            "BEGIN" | "START TRANSACTION" => self.transaction = TransactionStatus::InTransaction,
            "COMMIT" | "ROLLBACK" => {
                self.transaction = TransactionStatus::Idle;
                self.portals.clear();
            }
            "DISCARD ALL" | "DEALLOCATE ALL" => self.statements.clear(),
            _ => {}
        }
    }

    fn close(&mut self, body: Bytes) -> Result<(), ConsoleFault> {
        let mut body = Body::new(b'C', body);
        match (body.byte()?, body.name()?) {
            (b'S', name) => drop(self.statements.remove(&name)),
            (_, name) => drop(self.portals.remove(&name)),
        }
        self.connection.out.extend_from_slice(build::CLOSE_COMPLETE);
        Ok(())
    }
}

impl ConsolePortal {
    /// Sends at most so many rows, all if it is 0, and how that ended.
    fn send(&mut self, out: &mut Vec<u8>, most: usize) {
        let (Some(statement), Some(answer)) = (&self.statement, &mut self.answer) else {
            out.extend_from_slice(build::EMPTY_QUERY);
            return;
        };
        let columns = statement.columns().unwrap_or_default();
        let most = if most == 0 { usize::MAX } else { most };
        for cells in answer.rows.by_ref().take(most) {
            table::row(out, &columns, &cells, &self.formats);
            answer.sent += 1;
        }
        if answer.rows.len() > 0 {
            out.extend_from_slice(build::PORTAL_SUSPENDED);
        } else if matches!(statement, ConsoleStatement::Driver(DriverStatement::Value(..))) {
            build::command_complete(out, format!("{} {}", answer.tag, answer.sent).as_bytes());
        } else {
            build::command_complete(out, answer.tag.as_bytes());
        }
    }
}
