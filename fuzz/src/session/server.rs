//! A server as a script: the protocol of Postgres with few statements, and answers that follow from what one session
//! was told alone. It stands behind pgweir, and beside it to say what a client's messages deserve.

use std::collections::BTreeMap;

/// Statements that clients send; [`Session`] knows what they do.
pub(crate) const TEXTS: &[&str] = &[
    "SELECT r1b1",
    "SELECT r3b20",
    "SELECT r0b0",
    "SELECT r5b30000",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SET app.a = 'one'",
    "SET app.a = 'two'",
    "SET app.b = 'three'",
    "RESET app.a",
    "SHOW app.a",
    "SHOW app.b",
    "SET LOCAL app.l = 'here'",
    "SHOW app.l",
    "FAIL",
    "",
    "SELECT notice",
    "COPY t FROM STDIN",
    "COPY bad FROM STDIN",
    "COPY t TO STDOUT",
    "DISCARD ALL",
    "SELECT die",
    "SELECT junk",
];

/// Kinds of [`junk`].
pub(crate) const JUNK: usize = 10;

pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// What a server that is out of its mind says.
fn junk(kind: usize) -> Vec<u8> {
    match kind % JUNK {
        0 => frame(b'?', b"what"),
        1 => vec![b'D', 0xff, 0xff, 0xff, 0xff, 1, 2, 3],
        2 => vec![b'D', 0x3f, 0xff, 0xff, 0xff, 1, 2, 3],
        3 => vec![b'C', 0, 0, 0, 3],
        4 => frame(b'Z', b"?"),
        5 => [frame(b'Z', b"I"), frame(b'Z', b"I")].concat(),
        6 => frame(b'Z', b""),
        7 => frame(b'G', b""),
        8 => frame(b'E', b"C"),
        _ => [frame(b'1', b""), frame(b'S', b"no end"), frame(b'A', b"\0"), frame(b't', b"\xff\xff")].concat(),
    }
}

/// What becomes of a connection after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    GoesOn,
    Closes,
}

/// Why a statement failed: its SQLSTATE, or the end of the connection.
enum Failure {
    Error(&'static str),
    End,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Status {
    #[default]
    Idle,
    Transaction,
    Failed,
}

#[derive(Debug)]
struct Portal {
    text: String,
    /// Rows that were fetched; `None` for what is done.
    fetched: Option<usize>,
}

/// COPY FROM STDIN.
#[derive(Debug, Clone)]
struct CopyIn {
    is_extended: bool,
    is_bad: bool,
    /// A Sync came while it ran.
    has_sync: bool,
    /// What is behind it in its text.
    rest: Vec<String>,
}

type Settings = BTreeMap<String, String>;

/// One session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    settings: Settings,
    /// Those before the transaction that is open.
    before: Option<Settings>,
    statements: BTreeMap<Vec<u8>, String>,
    portals: BTreeMap<Vec<u8>, Portal>,
    status: Status,
    is_skipping: bool,
    copy: Option<CopyIn>,
    /// Data has just made a COPY fail, and nothing but data came since.
    is_behind_copy: bool,
    /// Messages were skipped since the unnamed statement was parsed.
    is_unnamed_doubtful: bool,
    junk_kind: usize,
    /// Something happened after which nothing is foretold.
    pub(crate) is_out_of_mind: bool,
    /// A client was told of an end that is not its fault.
    pub(crate) has_died: bool,
    /// Cycles of the client that are to be answered: a message of a unit has come, and no Sync.
    pub(crate) is_unsynced: bool,
}

impl Session {
    /// Junk begins with this kind of it.
    pub(crate) fn new(junk_kind: usize) -> Self {
        Self { junk_kind, ..Self::default() }
    }

    pub(crate) fn is_copying(&self) -> bool {
        self.copy.is_some()
    }

    /// Whether pgweir may take the statement that this message is about for another: an unnamed one that an error may
    /// have saved from its end, or any, if the message is the first behind the data that made a COPY fail.
    pub(crate) fn is_about_doubtful_statement(&self, tag: u8, body: &[u8]) -> bool {
        if self.is_behind_copy && b"PBDC".contains(&tag) {
            return true;
        }
        let is_unnamed = match tag {
            b'B' => body.split(|byte| *byte == 0).nth(1) == Some(b""),
            b'D' => body == b"S\0",
            _ => false,
        };
        is_unnamed && self.is_unnamed_doubtful
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.status == Status::Idle
    }

    /// Handles a message, and appends the answer.
    pub(crate) fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> After {
        if self.copy.is_some() {
            return self.copy_message(tag, out);
        }
        // Whether the server has read a Sync before the COPY failed can be seen by nobody but the server.
        self.is_out_of_mind |= self.is_behind_copy && tag == b'S';
        self.is_behind_copy &= b"dHS".contains(&tag);
        match tag {
            b'X' => return After::Closes,
            b'd' | b'c' | b'f' => return After::GoesOn,
            b'Q' if !self.is_skipping => {
                self.is_unsynced = false;
                self.statements.remove(&b""[..]);
                self.portals.remove(&b""[..]);
                let text = String::from_utf8_lossy(body.split_last().map_or(body, |(_, text)| text)).into_owned();
                let pieces: Vec<String> = text.split(';').map(|piece| piece.trim().to_owned()).collect();
                let pieces: Vec<String> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
                if pieces.is_empty() {
                    out.extend(frame(b'I', b""));
                }
                return self.run_text(pieces, out);
            }
            b'S' => {
                self.is_unsynced = false;
                self.is_skipping = false;
                self.end_unit();
                self.ready(out);
                return After::GoesOn;
            }
            _ => {}
        }
        self.is_unsynced = true;
        if self.is_skipping || tag == b'H' {
            self.is_unnamed_doubtful |= tag != b'H';
            return After::GoesOn;
        }
        self.begin_unit();
        match self.extended(tag, body, out) {
            Ok(()) => After::GoesOn,
            Err(Failure::End) => After::Closes,
            Err(Failure::Error(code)) => {
                self.fail(code, out);
                self.is_skipping = true;
                After::GoesOn
            }
        }
    }

    fn run_text(&mut self, pieces: Vec<String>, out: &mut Vec<u8>) -> After {
        let mut pieces = pieces.into_iter();
        while let Some(piece) = pieces.next() {
            self.begin_unit();
            match self.execute(&piece, out) {
                Ok(()) => {}
                Err(Failure::End) => return After::Closes,
                Err(Failure::Error(code)) => {
                    self.fail(code, out);
                    break;
                }
            }
            if let Some(copy) = &mut self.copy {
                copy.rest = pieces.collect();
                return After::GoesOn;
            }
        }
        self.end_unit();
        self.ready(out);
        After::GoesOn
    }

    /// A transaction of the server's own begins, unless one is open.
    fn begin_unit(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.settings.clone());
        }
    }

    fn end_unit(&mut self) {
        if self.status == Status::Idle {
            self.end(true);
        }
    }

    fn end(&mut self, is_committed: bool) {
        let before = self.before.take();
        if !is_committed && let Some(before) = before {
            self.settings = before;
        }
        self.settings.remove("app.l");
        self.portals.clear();
        self.status = Status::Idle;
    }

    fn fail(&mut self, code: &str, out: &mut Vec<u8>) {
        out.extend(frame(b'E', format!("SERROR\0VERROR\0C{code}\0Mit failed\0\0").as_bytes()));
        match self.status {
            Status::Idle => {
                self.end(false);
            }
            _ => {
                if let Some(before) = self.before.clone() {
                    self.settings = before;
                }
                self.portals.clear();
                self.status = Status::Failed;
            }
        }
    }

    fn ready(&self, out: &mut Vec<u8>) {
        let status = match self.status {
            Status::Idle => b"I",
            Status::Transaction => b"T",
            Status::Failed => b"E",
        };
        out.extend(frame(b'Z', status));
    }

    fn extended(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut parts = body.split(|byte| *byte == 0);
        let mut part = || parts.next().unwrap_or_default();
        match tag {
            b'P' => {
                let (name, text) = (part(), String::from_utf8_lossy(part()).into_owned());
                let text = text.trim().to_owned();
                if text.contains(';') {
                    return Err(Failure::Error("42601"));
                }
                if text.contains("FAIL") {
                    return Err(Failure::Error("42601"));
                }
                self.check_status(&text)?;
                if !name.is_empty() && self.statements.contains_key(name) {
                    return Err(Failure::Error("42P05"));
                }
                self.statements.insert(name.to_vec(), text);
                self.is_unnamed_doubtful &= !name.is_empty();
                out.extend(frame(b'1', b""));
            }
            b'B' => {
                let (portal, name) = (part(), part());
                let text = self.statements.get(name).ok_or(Failure::Error("26000"))?.clone();
                self.check_status(&text)?;
                if !portal.is_empty() && self.portals.contains_key(portal) {
                    return Err(Failure::Error("42P03"));
                }
                self.portals.insert(portal.to_vec(), Portal { text, fetched: Some(0) });
                out.extend(frame(b'2', b""));
            }
            b'D' => {
                let (kind, name) = body.split_first().unwrap_or((&b'S', b""));
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                let text = if *kind == b'S' {
                    let text = self.statements.get(name).ok_or(Failure::Error("26000"))?;
                    if self.status == Status::Failed && has_rows(text) {
                        return Err(Failure::Error("25P02"));
                    }
                    out.extend(frame(b't', b"\0\0"));
                    text
                } else {
                    &self.portals.get(name).ok_or(Failure::Error("34000"))?.text
                };
                out.extend(if has_rows(text) { description() } else { frame(b'n', b"") });
            }
            b'E' => {
                let name = part().to_vec();
                let most = body.last_chunk::<4>().map_or(0, |most| u32::from_be_bytes(*most) as usize);
                let portal = self.portals.get_mut(&name).ok_or(Failure::Error("34000"))?;
                let text = portal.text.clone();
                let Some(fetched) = portal.fetched else { return Err(Failure::Error("55000")) };
                if let Some((rows, bytes)) = rows_of(&text).filter(|_| self.status != Status::Failed) {
                    let count = if most == 0 { rows - fetched } else { most.min(rows - fetched) };
                    portal.fetched = Some(fetched + count);
                    (0..count).for_each(|_| out.extend(row(&"x".repeat(bytes))));
                    if most > 0 && count == most {
                        out.extend(frame(b's', b""));
                    } else {
                        complete(&format!("SELECT {count}"), out);
                    }
                    return Ok(());
                }
                portal.fetched = None;
                if text.is_empty() {
                    out.extend(frame(b'I', b""));
                    return Ok(());
                }
                let begins_at = out.len();
                self.execute(&text, out)?;
                // Execute describes nothing.
                let description = description();
                let described = out[begins_at..].windows(description.len()).position(|bytes| bytes == description);
                if let Some(at) = described {
                    out.drain(begins_at + at..begins_at + at + description.len());
                }
                if let Some(copy) = &mut self.copy {
                    copy.is_extended = true;
                }
            }
            b'C' => {
                let (kind, name) = body.split_first().unwrap_or((&b'S', b""));
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if *kind == b'S' {
                    self.statements.remove(name);
                } else {
                    self.portals.remove(name);
                }
                out.extend(frame(b'3', b""));
            }
            _ => {
                self.is_out_of_mind = true;
                return Err(Failure::End);
            }
        }
        Ok(())
    }

    fn check_status(&self, text: &str) -> Result<(), Failure> {
        if self.status == Status::Failed && !["COMMIT", "ROLLBACK", ""].contains(&text) {
            return Err(Failure::Error("25P02"));
        }
        Ok(())
    }

    /// One statement.
    fn execute(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Failure> {
        if text.contains("FAIL") {
            return Err(Failure::Error("42601"));
        }
        self.check_status(text)?;
        if let Some((rows, bytes)) = rows_of(text) {
            out.extend(description());
            (0..rows).for_each(|_| out.extend(row(&"x".repeat(bytes))));
            complete(&format!("SELECT {rows}"), out);
            return Ok(());
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["BEGIN"] => {
                if self.status == Status::Transaction {
                    notice("25001", out);
                }
                self.status = Status::Transaction;
                complete("BEGIN", out);
            }
            ["COMMIT" | "ROLLBACK"] => {
                if self.status == Status::Idle {
                    notice("25P01", out);
                }
                let is_committed = text == "COMMIT" && self.status != Status::Failed;
                self.end(is_committed);
                complete(if is_committed { "COMMIT" } else { "ROLLBACK" }, out);
            }
            ["SET", "LOCAL", name, "=", value] => {
                self.settings.insert((*name).to_owned(), value.trim_matches('\'').to_owned());
                complete("SET", out);
            }
            ["SET", "TRANSACTION", ..] => complete("SET", out),
            ["SET", name, "=" | "TO", value] => {
                self.settings.insert(name.replace('"', ""), value.trim_matches('\'').to_owned());
                complete("SET", out);
            }
            ["RESET", name] => {
                self.settings.remove(&name.replace('"', ""));
                complete("RESET", out);
            }
            ["SHOW", name] => {
                let Some(value) = self.settings.get(*name) else { return Err(Failure::Error("42704")) };
                let value = value.clone();
                one_row(&value, "SHOW", out);
            }
            ["DISCARD", "ALL"] => {
                if self.status != Status::Idle {
                    return Err(Failure::Error("25001"));
                }
                self.settings.clear();
                self.before = Some(Settings::new());
                self.statements.clear();
                self.portals.clear();
                complete("DISCARD ALL", out);
            }
            ["SELECT", "notice"] => {
                notice("01000", out);
                one_row("noticed", "SELECT 1", out);
            }
            ["SELECT", "die"] => {
                self.has_died = true;
                out.extend(frame(b'E', b"SFATAL\0VFATAL\0C57P01\0Mit is over\0\0"));
                return Err(Failure::End);
            }
            ["SELECT", "junk"] => {
                self.is_out_of_mind = true;
                out.extend(junk(self.junk_kind));
                self.junk_kind += 1;
                complete("SELECT 0", out);
            }
            ["COPY", table, "FROM", "STDIN"] => {
                self.copy =
                    Some(CopyIn { is_extended: false, is_bad: *table == "bad", has_sync: false, rest: Vec::new() });
                out.extend(frame(b'G', b"\0\0\0"));
            }
            ["COPY", _, "TO", "STDOUT"] => {
                out.extend(frame(b'H', b"\0\0\0"));
                (0..3).for_each(|_| out.extend(frame(b'd', b"line\n")));
                out.extend(frame(b'c', b""));
                complete("COPY 3", out);
            }
            ["SELECT", call] if call.starts_with("pg_catalog.set_config(") => {
                let mut quoted = call.split('\'').skip(1).step_by(2);
                let (name, value) = (quoted.next().unwrap_or_default(), quoted.next().unwrap_or_default());
                self.settings.insert(name.to_owned(), value.to_owned());
                one_row(value, "SELECT 1", out);
            }
            // Questions of pgweir's own: nobody is there, nothing is held.
            _ => {
                out.extend(description());
                complete("SELECT 0", out);
            }
        }
        Ok(())
    }

    fn copy_message(&mut self, tag: u8, out: &mut Vec<u8>) -> After {
        let Some(copy) = self.copy.clone() else { return After::GoesOn };
        let outcome = match tag {
            b'd' if copy.is_bad => Err("22P02"),
            b'S' => {
                self.copy = Some(CopyIn { has_sync: true, ..copy });
                return After::GoesOn;
            }
            b'd' | b'H' => return After::GoesOn,
            b'c' => Ok(()),
            b'f' => Err("57014"),
            b'X' => return After::Closes,
            _ => {
                self.is_out_of_mind = true;
                return After::Closes;
            }
        };
        self.copy = None;
        match outcome {
            Ok(()) => {
                complete("COPY 1", out);
                if !copy.is_extended {
                    return self.run_text(copy.rest, out);
                }
            }
            Err(code) => {
                self.is_out_of_mind |= copy.has_sync;
                self.is_behind_copy = tag == b'd';
                self.fail(code, out);
                if copy.is_extended {
                    self.is_skipping = true;
                } else {
                    self.end_unit();
                    self.ready(out);
                }
            }
        }
        After::GoesOn
    }
}

/// `SELECT r3b20`: so many rows of so many bytes.
fn rows_of(text: &str) -> Option<(usize, usize)> {
    let (rows, bytes) = text.strip_prefix("SELECT r")?.split_once('b')?;
    Some((rows.parse().ok()?, bytes.parse().ok()?))
}

fn has_rows(text: &str) -> bool {
    (text.starts_with("SELECT") && text != "SELECT die") || text.starts_with("SHOW")
}

fn description() -> Vec<u8> {
    frame(b'T', &[&[0, 1][..], b"?column?\0", &[0; 6], &[0, 0, 0, 25], &[0xff; 6], &[0, 0]].concat())
}

fn row(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short");
    frame(b'D', &[&[0, 1][..], &length.to_be_bytes(), text.as_bytes()].concat())
}

fn one_row(text: &str, tag: &str, out: &mut Vec<u8>) {
    out.extend(description());
    out.extend(row(text));
    complete(tag, out);
}

fn complete(tag: &str, out: &mut Vec<u8>) {
    out.extend(frame(b'C', format!("{tag}\0").as_bytes()));
}

fn notice(code: &str, out: &mut Vec<u8>) {
    out.extend(frame(b'N', format!("SWARNING\0VWARNING\0C{code}\0Mnoticed\0\0").as_bytes()));
}
