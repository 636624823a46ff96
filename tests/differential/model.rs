//! Which steps may be taken: none that would wait for another client, whom nobody goes on with meanwhile, and none that
//! is known to go wrong.
//!
//! It is told only what the direct connection answered, so a step is left out or taken the same way in every run.

use crate::operation::{Message, Operation, Pool, Role, Step};

/// Clients of one run.
pub(crate) const CLIENTS: usize = 3;

/// A client as the direct connection sees it.
#[derive(Clone, Debug)]
pub(crate) struct ClientModel {
    pub(crate) role: Role,
    /// Of its last ReadyForQuery.
    pub(crate) status: char,
    /// It may keep its backend between transactions.
    pub(crate) may_be_pinned: bool,
    /// It keeps its backend until it leaves.
    pub(crate) is_pinned_for_good: bool,
    /// It may have a value that another encoding has no characters for.
    has_set_beyond_ascii: bool,
    /// It listens, or did.
    pub(crate) listens: bool,
    /// It said startup parameters beside user and database.
    pub(crate) has_parameters: bool,
    /// Its transaction has changed settings.
    pub(crate) has_set: bool,
    /// It has named statements.
    pub(crate) has_names: bool,
    /// Its transaction has run a Query, which leaves a portal if it fails.
    has_queried: bool,
    /// Its transaction has said DEALLOCATE.
    has_deallocated: bool,
    /// It may speak another encoding than the server, which then converts what it notifies of.
    has_encoding: bool,
    /// It has prepared an EXECUTE.
    has_executing: bool,
    /// Its transaction has locked tables, and would go on to do so if it were prepared.
    has_locked: bool,
    /// Its transaction has run a DO or CALL.
    has_called: bool,
    /// Its transaction has said LISTEN.
    has_said_listen: bool,
}

impl ClientModel {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            status: 'I',
            may_be_pinned: false,
            is_pinned_for_good: false,
            has_set_beyond_ascii: false,
            listens: false,
            has_parameters: false,
            has_set: false,
            has_names: false,
            has_queried: false,
            has_deallocated: false,
            has_encoding: false,
            has_executing: false,
            has_locked: false,
            has_called: false,
            has_said_listen: false,
        }
    }

    /// It has a backend, or may have one.
    pub(crate) fn holds(&self) -> bool {
        self.status != 'I' || self.may_be_pinned || self.is_pinned_for_good
    }
}

/// All clients.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) pool: Pool,
    pub(crate) clients: Vec<ClientModel>,
    /// Settings of the server differ from those with which it started.
    pub(crate) is_server_changed: bool,
    /// Tables differ from those with which the run began.
    pub(crate) are_tables_changed: bool,
    /// A transaction that a client prepared may hold locks on its tables.
    has_prepared: [bool; CLIENTS],
}

/// Parts of texts that may pin a client to its backend, in transaction mode.
const PINS: [&str; 22] = [
    "F_SETS",
    "{HUGE}",
    "TEMP",
    "ADVISORY",
    "PREPARE ",
    "WITH HOLD",
    "SET_CONFIG",
    "AUTHORIZATION",
    "LOAD ",
    "SETSEED",
    "NEXTVAL",
    "CURRVAL",
    "LASTVAL",
    "ITEMS",
    "SEED",
    "DO ",
    "CALL ",
    "EXECUTE ",
    "DEALLOCATE",
    "EXPLAIN",
    "COPY (SELECT SET",
    "PG_SETTINGS",
];

/// Parts of texts that take a lock for which another client's transaction could make it wait.
const LOCKS: [&str; 9] = [
    "LOCK TABLE",
    "VACUUM",
    "CREATE OR REPLACE",
    "ALTER TABLE",
    "CREATE TABLE",
    "DROP TABLE IF",
    "CREATE INDEX",
    "TRUNCATE",
    "REINDEX",
];

impl Model {
    pub(crate) fn new(pool: Pool) -> Self {
        let clients = vec![ClientModel::new(Role::Owner); CLIENTS];
        Self { pool, clients, is_server_changed: false, are_tables_changed: false, has_prepared: [false; CLIENTS] }
    }

    /// Nobody is in a transaction.
    fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| client.status == 'I')
    }

    /// The step ends without another client's doing, and the server stays up.
    pub(crate) fn may(&self, step: &Step) -> bool {
        let me = &self.clients[step.client];
        match &step.operation {
            Operation::Send(messages) => {
                let locks = step.texts().any(|sql| has_one_of(sql, &LOCKS));
                self.has_backend_for(step.client)
                    && !((locks || me.has_locked) && step.texts().any(|sql| sql.contains("PREPARE TRANSACTION")))
                    && !(locks && (messages.len() > 5 || !self.is_quiet() || self.has_prepared[step.client]))
                    && !crashes_server(messages, me)
                    && is_well_formed(messages)
            }
            // None has a backend, so all of them get one when the transaction ends.
            Operation::Crowd(_) => {
                let is_free = |client: &ClientModel| client.status == 'I' && !client.holds();
                self.clients.iter().all(|client| is_free(client) && client.role == me.role)
            }
            Operation::Reconnect(role, _) => {
                let mut after = self.clone();
                after.clients[step.client] = ClientModel::new(*role);
                after.has_backend_for(step.client)
            }
            Operation::CancelRunning | Operation::KillRunning => self.has_backend_for(step.client) && me.status != 'E',
            Operation::CancelNothing | Operation::Kill | Operation::ReloadPgweir(_) => true,
            Operation::ReloadServer(_) => true,
            Operation::Ddl(_) => self.is_quiet() && !self.has_prepared.contains(&true),
        }
    }

    /// A backend is free for this client, or it has one.
    fn has_backend_for(&self, client: usize) -> bool {
        let role = self.clients[client].role;
        let others = self.clients.iter().enumerate().filter(|(at, other)| *at != client && other.role == role);
        self.clients[client].holds() || others.filter(|(_, other)| other.holds()).count() < self.pool.size()
    }

    /// Takes note of what a step did, by the direct connection's state after it.
    pub(crate) fn after(&mut self, step: &Step, status: char) {
        let me = &mut self.clients[step.client];
        match &step.operation {
            Operation::Reconnect(role, more) => {
                let has_encoding = more.iter().any(|(name, _)| name == "client_encoding");
                *me = ClientModel { has_encoding, has_parameters: !more.is_empty(), ..ClientModel::new(*role) };
            }
            Operation::Crowd(others) => {
                for (client, messages) in others {
                    self.after(&Step { client: *client, operation: Operation::Send(messages.clone()) }, 'I');
                }
            }
            Operation::ReloadServer(_) => self.is_server_changed = true,
            Operation::Ddl(_) => self.are_tables_changed = true,
            _ => {}
        }
        let me = &mut self.clients[step.client];
        me.status = status;
        for sql in step.texts() {
            let sql = sql.to_ascii_uppercase();
            me.may_be_pinned |= PINS.iter().any(|pin| sql.contains(pin));
            me.is_pinned_for_good |= sql.contains("SEED") || sql.contains("LOAD ");
            me.listens |= sql.contains("LISTEN");
            me.has_set |= sql.contains("SET");
            me.has_deallocated |= sql.contains("DEALLOCATE");
            me.has_encoding |= sql.contains("CLIENT_ENCODING") || sql.contains("SET NAMES");
            me.has_set_beyond_ascii |= sql.contains("SET") && !sql.is_ascii();
            me.may_be_pinned |= me.has_encoding && me.has_set_beyond_ascii;
            me.has_locked |= has_one_of(&sql, &LOCKS);
            me.has_called |= sql.contains("DO $$") || sql.contains("CALL ");
            me.has_said_listen |= sql.contains("LISTEN");
            self.has_prepared[step.client] |= sql.contains("PREPARE TRANSACTION");
            self.are_tables_changed |=
                sql.contains("ALTER TABLE") || sql.contains("CREATE TABLE") || sql.contains("VIEW");
        }
        let executes = |it: &Message| matches!(it, Message::Parse(_, sql) if sql.contains("EXECUTE "));
        me.has_executing |= step.messages().iter().any(executes);
        me.has_set &= status != 'I';
        me.has_deallocated &= status != 'I';
        me.has_locked &= status != 'I';
        me.has_called &= status != 'I';
        me.has_queried |= step.messages().iter().any(|message| matches!(message, Message::Query(_)));
        me.has_queried &= status != 'I';
        me.has_said_listen &= status != 'I';
        me.has_names |=
            step.messages().iter().any(|message| matches!(message, Message::Parse(name, _) if !name.is_empty()));
        let is_discarded = matches!(step.messages(), [Message::Query(sql)] if sql == "DISCARD ALL") && status == 'I';
        if is_discarded {
            let ClientModel { has_parameters, is_pinned_for_good, role, .. } = *me;
            *me = ClientModel { has_parameters, is_pinned_for_good, status, ..ClientModel::new(role) };
        }
    }
}

/// A text has one of these parts, in upper or lower case.
fn has_one_of(sql: &str, parts: &[&str]) -> bool {
    let sql = sql.to_ascii_uppercase();
    parts.iter().any(|part| sql.contains(part))
}

/// Postgres itself crashes when the portal that a failed Query left in a transaction is executed.
fn crashes_server(messages: &[Message], me: &ClientModel) -> bool {
    if me.status == 'I' && !messages.iter().any(|message| message.sql().is_some_and(begins)) {
        return false;
    }
    // A Bind that fails is followed by nothing in its unit.
    let (mut is_bound, mut has_queried) = (false, me.has_queried);
    for message in messages {
        match message {
            Message::Bind(portal, ..) if portal.is_empty() => is_bound = true,
            Message::Sync => is_bound = false,
            Message::Query(_) => (is_bound, has_queried) = (false, true),
            Message::Execute(portal, _) | Message::DescribePortal(portal)
                if portal.is_empty() && !is_bound && has_queried =>
            {
                return true;
            }
            _ => {}
        }
    }
    false
}

fn begins(sql: &str) -> bool {
    has_one_of(sql, &["BEGIN", "START", "CHAIN"])
}

/// It ends, so that the driver knows when to go on, and the answers that it waits for come.
fn is_well_formed(messages: &[Message]) -> bool {
    let is_irregular = !has_counted_cycles(messages);
    let closes = messages.iter().any(|message| matches!(message, Message::CloseStatement(_) | Message::ClosePortal(_)));
    let awaits = messages.windows(2).all(|pair| pair[1] != Message::Await || pair[0] == Message::Flush)
        && messages.first() != Some(&Message::Await);
    let ends = messages.last().is_some_and(Message::ends_cycle);
    let waits_in_copy = is_irregular && messages.contains(&Message::Await);
    awaits && (is_irregular || ends) && !(is_irregular && closes) && !waits_in_copy && !messages.is_empty()
}

/// One ReadyForQuery comes for each Query and Sync: no COPY swallows a Sync, no error in a pipeline a Query.
pub(crate) fn has_counted_cycles(messages: &[Message]) -> bool {
    let mut is_open = false;
    for message in messages {
        match message {
            Message::Query(_) if is_open => return false,
            Message::Sync | Message::Query(_) => is_open = false,
            Message::Await => {}
            _ => is_open = true,
        }
        let copies = message.is_copy() || message.sql().is_some_and(|sql| has_one_of(sql, &["FROM STDIN"]));
        if copies {
            return false;
        }
    }
    true
}

/// The difference that a step meets for certain or by chance and that is documented or due to a race of the comparison
/// itself; none for nearly all steps. Those whose name contains `lets` are let in.
pub(crate) fn known_difference(step: &Step, model: &Model, lets: Option<&str>) -> Option<&'static str> {
    let me = &model.clients[step.client];
    let messages = step.messages();
    let has = |parts: &[&str]| step.texts().any(|sql| has_one_of(sql, parts));
    let transaction_mode = model.pool != Pool::Session;
    let units = messages.iter().filter(|message| message.ends_cycle()).count();
    let many = units > 1 || step.texts().count() > 1 || has(&[";"]);
    let notifies_by_server =
        step.texts().any(|sql| sql.contains("pg_notify") && (sql.contains("FROM") || sql.contains("DO")));
    let copies_twice = step.texts().any(|sql| sql.matches("FROM STDIN").count() > 1);
    let copies_extended = messages.iter().any(|it| matches!(it, Message::Parse(_, sql) if sql.contains("FROM STDIN")));
    let calls = me.has_called || has(&["DO $$", "CALL "]);
    let renames = |it: &Message| matches!(it, Message::Parse(name, _) if !name.is_empty());
    let renames = |it: &Message| renames(it) || matches!(it, Message::CloseStatement(_));
    let is_bind = |it: &Message| matches!(it, Message::Bind(..));
    let renames_bound = messages.iter().skip_while(|it| !is_bind(it)).any(renames);
    let differences: [(&str, bool); 10] = [
        ("a Sync inside a COPY: Postgres swallows it at a moment that nobody sees", copies_extended || copies_twice),
        (
            "a reload of the server: either side reports it with the next answer of its own backend",
            matches!(step.operation, Operation::ReloadServer(_)),
        ),
        (
            "pg_listening_channels with a row limit: its rows come from pgweir, all at once",
            has(&["LISTENING"]) && messages.iter().any(|it| matches!(it, Message::Execute(_, 1..))),
        ),
        (
            "DEALLOCATE in front of SET TRANSACTION: its stand-in is no query",
            (me.has_deallocated || has(&["DEALLOCATE"])) && has(&["ISOLATION"]),
        ),
        (
            "DISCARD ALL with more behind it in one unit: startup values are back with the next unit",
            me.has_parameters && has(&["DISCARD ALL"]) && messages.iter().any(|it| matches!(it, Message::Parse(..))),
        ),
        (
            "a prepared EXECUTE whose name changes between its Bind and its Execute: it runs what had the name at its Bind",
            me.has_executing && (renames_bound || has(&["DEALLOCATE", "DISCARD ALL"])),
        ),
        ("lastval and currval behind another client: 55000", has(&["LASTVAL", "CURRVAL"]) && transaction_mode),
        (
            "LISTEN or NOTIFY in front of a CALL in one unit: whether the procedure commits, nobody sees",
            has(&["CALL "]) && has(&["LISTEN", "NOTIFY"]) && messages.len() > 1,
        ),
        (
            "LISTEN in a transaction that notifies by way of the server: in force once it is committed",
            (calls || me.has_encoding) && (me.has_said_listen || has(&["LISTEN"])) && has(&["NOTIFY", "COMMIT", "END"]),
        ),
        (
            "notifications by way of the server among others: docs/NOTIFY.md",
            notifies_by_server && (many || me.status != 'I'),
        ),
    ];
    let is_let = |difference: &str| lets.is_some_and(|name| difference.contains(name));
    differences.into_iter().find_map(|(difference, is_met)| (is_met && !is_let(difference)).then_some(difference))
}
