//! A client: what it does, what it hears, and what it should.

use std::io;

use pgweir::testing::run::InProcess;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::server::{After, Session, frame};
use super::wire::tokens;
use super::{Choices, PATIENCE, text};

/// One step of one client.
#[derive(Debug)]
pub(crate) enum Operation {
    /// A message, which the client will send.
    Message(u8, Vec<u8>),
    /// It sends so much of what it has to send; 0: all.
    Send(usize),
    /// It reads what has come.
    Read,
    /// It is gone.
    Leave,
    /// So many rounds for everybody else.
    Rest(usize),
}

const STATEMENTS: [&str; 3] = ["", "s", "t"];
const PORTALS: [&str; 2] = ["", "p"];

fn strings(strings: &[&str]) -> Vec<u8> {
    strings.iter().flat_map(|string| [string.as_bytes(), b"\0"].concat()).collect()
}

impl Operation {
    pub(crate) fn choose(choices: &mut Choices<'_>) -> Self {
        let kind = choices.next(32);
        let mut statement = || STATEMENTS[choices.next(STATEMENTS.len())];
        match kind {
            0..=6 => Self::Message(b'Q', strings(&[&text(choices)])),
            7..=9 => {
                let name = statement();
                Self::Message(b'P', [strings(&[name, &text(choices)]), vec![0, 0]].concat())
            }
            10..=12 => {
                let name = statement();
                let portal = PORTALS[choices.next(PORTALS.len())];
                Self::Message(b'B', [strings(&[portal, name]), vec![0; 6]].concat())
            }
            13 => Self::Message(b'D', [b"S".to_vec(), strings(&[statement()])].concat()),
            14 => Self::Message(b'D', [b"P".to_vec(), strings(&[PORTALS[choices.next(PORTALS.len())]])].concat()),
            15..=17 => {
                let portal = PORTALS[choices.next(PORTALS.len())];
                let most = [0, 0, 1, 2][choices.next(4)];
                Self::Message(b'E', [strings(&[portal]), vec![0, 0, 0, most]].concat())
            }
            18 => Self::Message(b'C', [b"S".to_vec(), strings(&[statement()])].concat()),
            19 => Self::Message(b'C', [b"P".to_vec(), strings(&[PORTALS[choices.next(PORTALS.len())]])].concat()),
            20 | 21 => Self::Message(b'S', Vec::new()),
            22 => Self::Message(b'H', Vec::new()),
            23 => Self::Message(b'd', b"1\n".repeat(1 + choices.next(40) * 100)),
            24 => Self::Message(b'c', Vec::new()),
            25 => Self::Message(b'f', b"no more\0".to_vec()),
            26 | 27 => Self::Send(choices.next(256)),
            28 => Self::Read,
            29 if choices.next(4) == 0 => Self::Leave,
            // A long text: a comment is nothing to the server.
            29 => Self::Message(b'Q', strings(&[&format!("SELECT r1b1;{}", " ".repeat(1 + choices.next(3) * 40_000))])),
            _ => Self::Rest(1 + choices.next(20)),
        }
    }
}

/// One client, and the server beside it that hears what it says.
pub(crate) struct Client {
    stream: Option<UnixStream>,
    /// Bytes that it has still to send.
    out: Vec<u8>,
    heard: Vec<u8>,
    script: Session,
    /// What it should hear.
    deserved: Vec<u8>,
    /// The server has ended its session.
    is_over: bool,
    /// Its messages, for whoever reads a failure.
    said: Vec<String>,
}

impl Client {
    pub(crate) async fn log_in(proxy: &InProcess, junk_kind: usize) -> Self {
        let stream = UnixStream::from_std(proxy.connect().expect("a socket pair")).expect("a reactor");
        let script = Session::new(junk_kind);
        let mut client = Self {
            stream: Some(stream),
            out: frame(b' ', b"\0\x03\0\0user\0app\0database\0app\0\0")[1..].to_vec(),
            heard: Vec::new(),
            script,
            deserved: Vec::new(),
            is_over: false,
            said: Vec::new(),
        };
        while !tokens(&client.heard).0.iter().any(|token| token == "ZI") {
            assert!(client.exchange().await, "the login ends: {:?}", tokens(&client.heard));
        }
        client.heard.clear();
        client
    }

    /// Does what can be done at once.
    pub(crate) fn act(&mut self, operation: Operation) {
        match operation {
            Operation::Message(tag, body) => self.say(tag, &body),
            Operation::Send(0) => self.send(usize::MAX),
            Operation::Send(most) => self.send(most),
            Operation::Read => self.read(),
            Operation::Leave => self.stream = None,
            Operation::Rest(_) => {}
        }
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        if self.is_over {
            return;
        }
        // What Postgres takes for a violation of the protocol is not foretold here, and left to other tests.
        let is_copying = self.script.is_copying();
        if is_copying && !b"dcfHS".contains(&tag) || self.script.is_about_doubtful_statement(tag, body) {
            return;
        }
        self.out.extend(frame(tag, body));
        self.said.push(format!("{} {}", char::from(tag), body[..body.len().min(60)].escape_ascii()));
        self.is_over = self.script.message(tag, body, &mut self.deserved) == After::Closes;
    }

    fn send(&mut self, most: usize) {
        let Some(stream) = &self.stream else { return };
        let most = most.min(self.out.len());
        if let Ok(sent) = stream.try_write(&self.out[..most]) {
            self.out.drain(..sent);
        }
    }

    fn read(&mut self) {
        let mut buffer = vec![0; 65536];
        if let Some(stream) = &self.stream
            && let Ok(n) = stream.try_read(&mut buffer)
        {
            self.heard.extend(&buffer[..n]);
        }
    }

    /// Waits until something can be sent or has come; false at the end of the connection.
    async fn exchange(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        let mut buffer = vec![0; 65536];
        let wants = if self.out.is_empty() {
            tokio::io::Interest::READABLE
        } else {
            tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE
        };
        let Ok(ready) = stream.ready(wants).await else { return false };
        if ready.is_writable() {
            match stream.try_write(&self.out) {
                Ok(sent) => {
                    self.out.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What it was told before is still to be read.
                Err(_) => self.out.clear(),
            }
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => self.heard.extend(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }

    /// Nothing is foretold of what it hears.
    fn is_out_of_mind(&self) -> bool {
        self.script.is_out_of_mind
    }

    /// Ends what is open, hears all of its answers, and goes.
    pub(crate) async fn end(mut self) {
        if self.stream.is_none() {
            return;
        }
        if self.script.is_copying() {
            self.say(b'f', b"the end\0");
        }
        if self.script.is_unsynced {
            self.say(b'S', b"");
        }
        if !self.script.is_idle() {
            self.say(b'Q', b"ROLLBACK\0");
        }
        let has_lost = self.script.has_died || self.is_out_of_mind();
        let (deserved, _) = tokens(&self.deserved);
        let cycles = |tokens: &[String]| tokens.iter().filter(|token| token.starts_with('Z')).count();
        let due = cycles(&deserved);
        let mut is_open = true;
        // One that has lost its server may wait for an answer that nobody owes it.
        while is_open && !has_lost && (cycles(&tokens(&self.heard).0) < due || !self.out.is_empty()) {
            let Ok(exchanged) = timeout(PATIENCE, self.exchange()).await else {
                panic!("nothing comes behind {:?} of {deserved:?}; it said {:#?}", tokens(&self.heard), self.said);
            };
            is_open = exchanged;
        }
        if has_lost {
            self.send(usize::MAX);
            for _ in 0..50 {
                tokio::task::yield_now().await;
                self.read();
            }
        }
        let (heard, rest) = tokens(&self.heard);
        if !has_lost {
            let same = heard.iter().zip(&deserved).take_while(|(heard, deserved)| heard == deserved).count();
            assert!(
                heard == deserved,
                "behind {:?} a client heard {:?}, and deserves {:?}; it said {:#?}",
                &heard[same.saturating_sub(3)..same],
                heard.get(same..).map(|rest| &rest[..rest.len().min(5)]),
                &deserved[same.min(deserved.len())..][..(deserved.len() - same).min(5)],
                self.said
            );
            assert!(is_open, "its connection has ended");
        }
        if !has_lost || !self.is_out_of_mind() && !is_open {
            assert_eq!(rest, 0, "half a message: {:?}", self.heard[self.heard.len() - rest..].escape_ascii());
        }
        // It says goodbye, or does not.
        if self.heard.len().is_multiple_of(2) && self.out.is_empty() {
            self.out.extend(frame(b'X', b""));
            self.send(usize::MAX);
        }
    }
}
