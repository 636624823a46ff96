//! Random steps: what clients say, and in which company they say it.

use fastrand::Rng;

use crate::model::CLIENTS;
use crate::operation::{Message, Operation, Role, Step};
use crate::texts::{
    BOUNDS, COPIES, CROWD, DDL, FORMS, NOTIFICATIONS, PARAMETERS, SERVER_SETTINGS, SETTINGS, SHARED, SHOW, STARTUP,
    WORK,
};

const NAMES: &[&str] = &["s0", "s1", "s2"];
const PORTALS: &[&str] = &["", "", "p0", "p1"];

/// Parts of texts behind which a client may hold its backend between transactions.
const HOLDING: [&str; 15] = [
    "{huge}",
    "TEMP",
    "advisory",
    "PREPARE s",
    "HOLD",
    "set_config",
    "AUTHORIZATION",
    "items",
    "DO ",
    "CALL",
    "EXECUTE",
    "val(",
    "DEALLOCATE",
    "EXPLAIN",
    "pg_settings",
];

/// How a client gives back what it holds.
#[derive(Clone, Copy)]
enum Debt {
    /// The end of a transaction.
    End(&'static str),
    /// The end of a transaction, if there is one, and then of everything.
    Rollback,
    Discard,
    Leave,
}

impl Debt {
    fn paid(self) -> Operation {
        let sql = match self {
            Self::End(sql) => sql,
            Self::Rollback => "ROLLBACK",
            Self::Discard => "DISCARD ALL",
            Self::Leave => return Operation::Reconnect(Role::Owner, Vec::new()),
        };
        Operation::Send(vec![Message::Query(sql.to_owned())])
    }

    /// Owed behind this.
    fn next(self) -> Option<Self> {
        matches!(self, Self::Rollback).then_some(Self::Discard)
    }
}

/// Makes steps.
pub(crate) struct Grammar {
    rng: Rng,
    client: usize,
    /// For each client: in how many of its steps it gives back what it holds, and how.
    owed: [Option<(u32, Debt)>; CLIENTS],
    /// Texts of the step that is being made.
    value: u32,
}

impl Grammar {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), client: 0, owed: [None; CLIENTS], value: 0 }
    }

    /// A run of so many steps.
    pub(crate) fn run(&mut self, steps: usize) -> Vec<Step> {
        (0..steps).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        if self.rng.u32(..10) < 5 {
            self.client = self.rng.usize(..CLIENTS);
        }
        let client = self.client;
        if let Some((steps, debt)) = self.owed[client] {
            self.owed[client] = if steps > 1 { Some((steps - 1, debt)) } else { debt.next().map(|next| (1, next)) };
            if steps <= 1 {
                return Step { client, operation: debt.paid() };
            }
        }
        let step = Step { client, operation: self.operation() };
        self.owe(&step);
        step
    }

    /// A client that holds a backend gives it back after a while, or nobody else would come on.
    fn owe(&mut self, step: &Step) {
        let text = step.texts().collect::<Vec<_>>().join(" ");
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let within = self.rng.u32(1..8);
        let owed = &mut self.owed[step.client];
        if has(&["seed"]) {
            *owed = Some((within, Debt::Leave));
        } else if matches!(owed, Some((_, Debt::Leave))) {
        } else if has(&HOLDING) {
            *owed = Some((within + 1, Debt::Rollback));
        } else if owed.is_none() && has(&["BEGIN", "START", "CHAIN"]) {
            let end = *self.rng.choice(&["COMMIT", "ROLLBACK", "END"]).expect("three");
            *owed = Some((within, Debt::End(end)));
        }
    }

    fn operation(&mut self) -> Operation {
        match self.rng.u32(..1000) {
            0..420 => Operation::Send(vec![Message::Query(self.any())]),
            420..470 => Operation::Send(self.copy()),
            470..690 => Operation::Send(self.units()),
            690..920 => Operation::Send(self.soup()),
            920..965 => Operation::Send((0..self.rng.usize(2..5)).map(|_| Message::Query(self.any())).collect()),
            // These take new processes at the server, and so the time of many others.
            965..972 => Operation::Crowd(self.crowd()),
            972..980 => {
                let role = if self.rng.u32(..5) == 0 { Role::Guest } else { Role::Owner };
                let more = self.pick_of(STARTUP).iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
                Operation::Reconnect(role, more.collect())
            }
            980..983 => Operation::CancelRunning,
            983..986 => Operation::CancelNothing,
            986..988 => Operation::Kill,
            988..990 => Operation::KillRunning,
            990..991 => Operation::ReloadPgweir(self.rng.u32(100..110)),
            991..994 => Operation::ReloadServer(self.pick(SERVER_SETTINGS)),
            _ => Operation::Ddl(self.pick(DDL)),
        }
    }

    /// The usual unit of a driver, sometimes several, sometimes with a Query between.
    fn units(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..*self.rng.choice(&[1, 1, 1, 2, 3]).expect("five") {
            if self.rng.u32(..8) == 0 {
                messages.push(Message::Query(self.any()));
                continue;
            }
            for _ in 0..*self.rng.choice(&[1, 1, 2, 3]).expect("four") {
                let sql = if self.rng.u32(..4) == 0 { self.pick(PARAMETERS) } else { self.single() };
                let values = self.values(&sql);
                messages.push(Message::Parse(String::new(), sql));
                if self.rng.u32(..12) == 0 {
                    messages.extend([Message::DescribeStatement(String::new()), Message::Flush, Message::Await]);
                }
                messages.push(Message::Bind(String::new(), String::new(), values));
                if self.rng.bool() {
                    messages.push(Message::DescribePortal(String::new()));
                }
                messages.push(Message::Execute(String::new(), u32::from(self.rng.u32(..5) == 0)));
                if self.rng.u32(..10) == 0 {
                    messages.push(Message::Flush);
                }
            }
            messages.push(Message::Sync);
        }
        messages
    }

    /// Messages in any order.
    fn soup(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..*self.rng.choice(&[1, 1, 2]).expect("three") {
            for _ in 0..self.rng.usize(1..8) {
                let message = match self.rng.u32(..100) {
                    0..30 => Message::Parse(self.pick_raw(NAMES), self.pick(SHARED)),
                    30..36 => Message::Parse(String::new(), self.single()),
                    36..60 => {
                        let values: &[&[&str]] = &[&[], &[], &["5"], &["ch1", "v"]];
                        let values = self.pick_of(values).iter().map(ToString::to_string).collect();
                        let name = if self.rng.u32(..8) == 0 { String::new() } else { self.pick_raw(NAMES) };
                        Message::Bind(self.pick_raw(PORTALS), name, values)
                    }
                    60..82 => Message::Execute(self.pick_raw(PORTALS), *self.rng.choice(&[0, 0, 1, 2]).expect("four")),
                    82..87 => Message::DescribeStatement(self.pick_raw(NAMES)),
                    87..91 => Message::DescribePortal(self.pick_raw(PORTALS)),
                    91..95 => Message::CloseStatement(self.pick_raw(NAMES)),
                    95..97 => Message::ClosePortal(self.pick_raw(PORTALS)),
                    97..98 => {
                        messages.push(Message::Flush);
                        Message::Await
                    }
                    _ => Message::Flush,
                };
                messages.push(message);
            }
            messages.push(Message::Sync);
        }
        messages
    }

    /// What all others say at once.
    fn crowd(&mut self) -> Vec<(usize, Vec<Message>)> {
        let me = self.client;
        let mut others = Vec::new();
        for other in (0..CLIENTS).filter(|other| *other != me) {
            self.client = other;
            let sql = self.pick(CROWD);
            let messages = match self.rng.u32(..4) {
                0 | 1 => vec![Message::Query(sql)],
                2 => vec![Message::Query(sql), Message::Query(self.pick(CROWD))],
                _ => {
                    // What the client has under another name might begin a transaction.
                    let name = "crowd".to_owned();
                    let bind = Message::Bind(String::new(), name.clone(), Vec::new());
                    let execute = Message::Execute(String::new(), 0);
                    vec![Message::Parse(name, self.pick(&CROWD[..4])), Message::Sync, bind, execute, Message::Sync]
                }
            };
            others.push((other, messages));
        }
        self.client = me;
        others
    }

    /// COPY from the client: well, with bad data, given up, interrupted; simple and extended; with more behind it.
    fn copy(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.rng.bool() {
            messages.push(Message::Query(self.pick(COPIES)));
        } else {
            messages.push(Message::Parse(String::new(), self.pick(&COPIES[..5])));
            messages
                .extend([Message::Bind(String::new(), String::new(), Vec::new()), Message::Execute(String::new(), 0)]);
            messages.extend((0..self.rng.usize(..3)).map(|_| Message::Sync));
        }
        for _ in 0..self.rng.usize(..3) {
            messages.push(match self.rng.u32(..12) {
                0 => Message::CopyData("a\tb\tc\n".to_owned()),
                1 => Message::Query(self.any()),
                2 => Message::Flush,
                3 => Message::Parse(String::new(), self.single()),
                _ => Message::CopyData(format!("{}\n", self.rng.u32(..20))),
            });
        }
        messages.push(if self.rng.u32(..4) == 0 { Message::CopyFail } else { Message::CopyDone });
        if self.rng.bool() {
            messages.push(Message::Sync);
        }
        if self.rng.u32(..4) == 0 {
            messages.push(Message::Query(self.any()));
        }
        messages
    }

    /// Any text.
    fn any(&mut self) -> String {
        match self.rng.u32(..100) {
            0..9 => SHOW.to_owned(),
            9..12 => FORMS.to_owned(),
            12..32 => self.pick(BOUNDS),
            32..57 => self.pick(SETTINGS),
            57..68 => self.pick(NOTIFICATIONS),
            _ => self.pick(WORK),
        }
    }

    /// A text of one statement.
    fn single(&mut self) -> String {
        loop {
            let sql = self.any();
            let is_single = !sql.contains(';') || sql.contains("$$");
            if is_single {
                return sql;
            }
        }
    }

    /// Values for the parameters of a text, seldom wrong ones.
    fn values(&mut self, sql: &str) -> Vec<String> {
        let count = (1..=2).filter(|number| sql.contains(&format!("${number}"))).count();
        let mut values = match (sql.contains("pg_notify"), sql.contains("set_config($1"), count) {
            (true, ..) => vec!["ch1".to_owned(), format!("par{}", self.rng.u32(..9))],
            (_, true, _) => vec!["a.x".to_owned(), format!("bound{}", self.rng.u32(..9))],
            _ => vec![self.rng.u32(..5).to_string(), "x".to_owned()],
        };
        values.truncate(count);
        if self.rng.u32(..12) == 0 {
            values = vec!["bad".to_owned()];
        }
        values
    }

    fn pick_of<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        self.rng.choice(from).expect("a list with something in it")
    }

    fn pick_raw(&mut self, from: &[&str]) -> String {
        self.pick_of(from).to_owned()
    }

    /// A text with its values and its client filled in.
    fn pick(&mut self, from: &[&str]) -> String {
        let mut text = self.pick_of(from);
        // A mebibyte takes the time of many steps.
        while text.contains("{huge}") && self.rng.u32(..8) > 0 {
            text = self.pick_of(from);
        }
        self.value = self.rng.u32(..30);
        let (client, value) = (self.client, self.value);
        text.replace("{i}", &client.to_string()).replace("{v}", &format!("v{value}")).replace("{n}", &value.to_string())
    }
}
