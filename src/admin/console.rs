//! One console from its login to its end: the simple and the extended protocol over `Command`s, which `act` carries out.
//!
//! The console owns its connection and runs on the worker that accepted it, so that what it decides about pools happens
//! on a worker's thread. It is a client like others to a drain, to KILL_CLIENT and to a CancelRequest, which ends PAUSE.

use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::body::{Body, lossy};
use super::command::{self, Command, PARAMETERS};
use super::table::{self, Column, ColumnType, Formats, Row};
use crate::clients::{Facts, Place, Signal};
use crate::error::ConsoleFault;
use crate::error::sqlstate;
use crate::net::stream::Stream;
use crate::session::context::Worker;
use crate::wire::build;
use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::ring::TransactionStatus;

/// Longest body of a message; commands are short.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;

/// Statements and portals that one console may hold, each.
const NAMES_MAX: usize = 256;

/// Longest time a client gets to read its last message.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves a console whose user is known and allowed, up to its end. AuthenticationOk was sent.
pub async fn serve(worker: Rc<Worker>, stream: Stream, facts: Facts) {
    let place = worker.proxy.clients.admit(facts, worker.proxy.second());
    tracing::info!(client.addr = %place.addr, role = %place.role, "console opened");
    let mut console = Console {
        worker,
        place,
        stream,
        input: BytesMut::new(),
        out: Vec::new(),
        statements: HashMap::new(),
        portals: HashMap::new(),
        transaction: TransactionStatus::Idle,
        is_skipping: false,
    };
    console.greet();
    let end = console.run().await;
    if let End::Fatal(fault) = end {
        build::error_response(&mut console.out, &sqlstate::console(&fault));
        let goodbye = async {
            let _ = console.flush().await;
            let _ = console.stream.shutdown().await;
            console.stream.closed().await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// Why a console ends.
#[derive(Debug)]
pub(super) enum End {
    /// Terminate, or its socket closed or broke.
    Gone,
    /// It is told why.
    Fatal(ConsoleFault),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// What keeps a command from its tag.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is told, and stays.
    Fault(ConsoleFault),
    /// The console ends.
    End(End),
}

impl From<ConsoleFault> for Stop {
    fn from(fault: ConsoleFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

pub(super) struct Console {
    pub(super) worker: Rc<Worker>,
    pub(super) place: Place,
    stream: Stream,
    /// What the client sent and was not looked at yet.
    pub(super) input: BytesMut,
    /// What is due to the client.
    pub(super) out: Vec<u8>,
    /// By name; `None` is the empty command.
    statements: HashMap<Bytes, Option<Command>>,
    portals: HashMap<Bytes, Portal>,
    /// What BEGIN began, which groups nothing, but keeps portals: drivers fetch from them after a Sync.
    transaction: TransactionStatus,
    /// After an error in the extended protocol, up to Sync.
    is_skipping: bool,
}

/// A bound command.
struct Portal {
    command: Option<Command>,
    formats: Formats,
    /// Once it ran.
    answer: Option<Answer>,
}

/// What came of a command: rows, if it has columns, and the tag.
pub(super) struct Answer {
    rows: std::vec::IntoIter<Row>,
    sent: usize,
    tag: &'static str,
}

impl Command {
    fn columns(&self) -> Option<Vec<Column>> {
        match self {
            Self::Show(table) => Some(table.columns.to_vec()),
            Self::Value(name, cell) => Some(vec![(
                *name,
                if matches!(cell, table::Cell::Int(_)) { ColumnType::Int } else { ColumnType::Text },
            )]),
            _ => None,
        }
    }
}

impl Console {
    fn greet(&mut self) {
        for (name, value) in PARAMETERS {
            build::parameter_status(&mut self.out, name, value);
        }
        build::backend_key_data(&mut self.out, self.place.pid, self.place.secret());
        build::ready_for_query(&mut self.out, TransactionStatus::Idle);
    }

    async fn run(&mut self) -> End {
        loop {
            let served = match self.message() {
                Ok(Some((tag, body))) => self.serve(tag, body).await,
                Ok(None) => self.listen().await,
                Err(fault) => Err(End::Fatal(fault)),
            };
            if let Err(end) = served {
                return end;
            }
        }
    }

    /// Takes a whole message off the input.
    fn message(&mut self) -> Result<Option<(u8, Bytes)>, ConsoleFault> {
        let Some(header) = header(&self.input)? else { return Ok(None) };
        if header.body > MESSAGE_MAX {
            return Err(ConsoleFault::TooLong(header.body));
        }
        if self.input.len() < HEADER_LEN + header.body {
            return Ok(None);
        }
        self.input.advance(HEADER_LEN);
        Ok(Some((header.tag, self.input.split_to(header.body).freeze())))
    }

    /// Sends what is due and waits for more from the client, or for a signal.
    async fn listen(&mut self) -> Result<(), End> {
        self.flush().await?;
        match self.hear().await? {
            Some(signals) => heed(signals),
            None => Ok(()),
        }
    }

    /// Reads more of the client, or tells the signals that came meanwhile.
    pub(super) async fn hear(&mut self) -> Result<Option<u8>, End> {
        let place = &self.place;
        let signalled = poll_fn(|cx| {
            place.set_waker(cx.waker());
            match place.take_signals() {
                0 => Poll::Pending,
                signals => Poll::Ready(signals),
            }
        });
        tokio::select! {
            read = self.stream.read_buf(&mut self.input) => match read? {
                0 => Err(End::Gone),
                _ => Ok(None),
            },
            signals = signalled => Ok(Some(signals)),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        self.out = Vec::new();
        Ok(())
    }

    async fn serve(&mut self, tag: u8, body: Bytes) -> Result<(), End> {
        match tag {
            b'X' => return Err(End::Gone),
            b'S' => {
                self.is_skipping = false;
                if self.transaction == TransactionStatus::Idle {
                    self.portals.clear();
                }
                build::ready_for_query(&mut self.out, self.transaction);
                return Ok(());
            }
            _ if self.is_skipping => return Ok(()),
            _ => {}
        }
        let served = match tag {
            b'Q' => self.query(body).await,
            b'P' => self.parse(body).map_err(Stop::from),
            b'B' => self.bind(body).map_err(Stop::from),
            b'D' => self.describe(body).map_err(Stop::from),
            b'E' => self.execute(body).await,
            b'C' => self.close(body).map_err(Stop::from),
            b'H' => self.flush().await.map_err(Stop::from),
            _ => Err(ConsoleFault::Message(tag.into()).into()),
        };
        match served {
            Ok(()) => Ok(()),
            Err(Stop::Fault(fault @ (ConsoleFault::Message(_) | ConsoleFault::Frame(_)))) => Err(End::Fatal(fault)),
            Err(Stop::Fault(fault)) => {
                let report = sqlstate::console(&fault);
                self.worker.proxy.errors.count(report.code);
                build::error_response(&mut self.out, &report);
                if tag == b'Q' {
                    build::ready_for_query(&mut self.out, self.transaction);
                } else {
                    self.is_skipping = true;
                }
                Ok(())
            }
            Err(Stop::End(end)) => Err(end),
        }
    }

    // ---- the simple protocol -------------------------------------------------------------------------------------

    async fn query(&mut self, body: Bytes) -> Result<(), Stop> {
        let mut body = Body::new(b'Q', body);
        let text = body.text()?;
        let commands = command::parse(&text)?;
        if commands.is_empty() {
            self.out.extend_from_slice(build::EMPTY_QUERY);
        }
        for command in commands {
            let answer = self.carry_out(&command).await?;
            if let Some(columns) = command.columns() {
                table::describe(&mut self.out, &columns, &Formats::default());
            }
            let mut portal = Portal { command: Some(command), formats: Formats::default(), answer: Some(answer) };
            portal.send(&mut self.out, 0);
        }
        build::ready_for_query(&mut self.out, self.transaction);
        Ok(())
    }

    // ---- the extended protocol -----------------------------------------------------------------------------------

    fn parse(&mut self, body: Bytes) -> Result<(), ConsoleFault> {
        let mut body = Body::new(b'P', body);
        let (name, text) = (body.name()?, body.text()?);
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(ConsoleFault::DuplicateStatement(lossy(&name)));
        }
        let mut commands = command::parse(&text)?;
        if commands.len() > 1 {
            return Err(ConsoleFault::SeveralCommands);
        }
        if self.statements.len() >= NAMES_MAX {
            return Err(ConsoleFault::TooMany);
        }
        self.statements.insert(name, commands.pop());
        self.out.extend_from_slice(build::PARSE_COMPLETE);
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
        let command = self.statements.get(&statement);
        let command = command.ok_or_else(|| ConsoleFault::NoStatement(lossy(&statement)))?.clone();
        if self.portals.len() >= NAMES_MAX {
            return Err(ConsoleFault::TooMany);
        }
        self.portals.insert(portal, Portal { command, formats, answer: None });
        self.out.extend_from_slice(build::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: Bytes) -> Result<(), ConsoleFault> {
        let mut body = Body::new(b'D', body);
        let (kind, name) = (body.byte()?, body.name()?);
        let text = Formats::default();
        let (command, formats) = match kind {
            b'S' => {
                let command = self.statements.get(&name).ok_or_else(|| ConsoleFault::NoStatement(lossy(&name)))?;
                self.out.extend_from_slice(build::NO_PARAMETERS);
                (command, &text)
            }
            _ => {
                let portal = self.portals.get(&name).ok_or_else(|| ConsoleFault::NoPortal(lossy(&name)))?;
                (&portal.command, &portal.formats)
            }
        };
        match command.as_ref().and_then(Command::columns) {
            Some(columns) => table::describe(&mut self.out, &columns, formats),
            None => self.out.extend_from_slice(build::NO_DATA),
        }
        Ok(())
    }

    async fn execute(&mut self, body: Bytes) -> Result<(), Stop> {
        let mut body = Body::new(b'E', body);
        let (name, most) = (body.name()?, body.long()?);
        let mut portal = self.portals.remove(&name).ok_or_else(|| ConsoleFault::NoPortal(lossy(&name)))?;
        if let (Some(command), None) = (&portal.command, &portal.answer) {
            portal.answer = Some(self.carry_out(command).await?);
        }
        portal.send(&mut self.out, most);
        self.portals.insert(name, portal);
        Ok(())
    }

    /// After the command with this tag.
    pub(super) fn follow(&mut self, tag: &str) {
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
        self.out.extend_from_slice(build::CLOSE_COMPLETE);
        Ok(())
    }
}

/// What a signal asks of a console that waits for its client.
pub(super) fn heed(signals: u8) -> Result<(), End> {
    let has = |signal: Signal| signals & signal as u8 != 0;
    if has(Signal::Drain) {
        return Err(End::Fatal(ConsoleFault::Draining));
    }
    if has(Signal::Kill) {
        return Err(End::Fatal(ConsoleFault::Killed));
    }
    Ok(())
}

impl Answer {
    pub(super) fn of(rows: Vec<Row>, tag: &'static str) -> Self {
        Self { rows: rows.into_iter(), sent: 0, tag }
    }
}

impl Portal {
    /// At most so many rows, all if it is 0, and how that ended.
    fn send(&mut self, out: &mut Vec<u8>, most: usize) {
        let (Some(command), Some(answer)) = (&self.command, &mut self.answer) else {
            out.extend_from_slice(build::EMPTY_QUERY);
            return;
        };
        let columns = command.columns().unwrap_or_default();
        let most = if most == 0 { usize::MAX } else { most };
        for cells in answer.rows.by_ref().take(most) {
            table::row(out, &columns, &cells, &self.formats);
            answer.sent += 1;
        }
        if answer.rows.len() > 0 {
            out.extend_from_slice(build::PORTAL_SUSPENDED);
        } else if matches!(command, Command::Value(..)) {
            build::command_complete(out, format!("{} {}", answer.tag, answer.sent).as_bytes());
        } else {
            build::command_complete(out, answer.tag.as_bytes());
        }
    }
}
