//! One side of the comparison: a connection that blocks, and what it heard as text that can be compared.
//!
//! It blocks because a lane is a thread that does one thing after another; so a message costs two system calls.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, BytesMut};

use crate::operation::Message;
use crate::support::{Frame, PATIENCE, frontend};

/// Closing a statement of this name, which nobody has, marks the end of an exchange whose cycles cannot be counted.
const FENCE: &str = "fence";

/// A connection, logged in or refused.
pub(crate) struct Peer {
    addr: SocketAddr,
    stream: TcpStream,
    unread: BytesMut,
    /// Process id and secret, as a cancel request says them.
    key: Vec<u8>,
    /// The last value of each ParameterStatus.
    pub(crate) parameters: BTreeMap<String, String>,
    /// Some have come since [`parameters_changed`](Self::parameters_changed) was asked.
    has_news: bool,
    /// Notifications, in order.
    pub(crate) notified: Vec<String>,
    /// Of the last ReadyForQuery.
    pub(crate) status: char,
    /// It ended, or answered nothing for as long as it may.
    pub(crate) is_over: bool,
    /// An ErrorResponse came, and no ReadyForQuery since.
    is_skipping: bool,
}

impl Peer {
    /// Logs in; what was answered, up to ReadyForQuery or the end.
    pub(crate) fn login(addr: SocketAddr, parameters: &[(&str, &str)]) -> (Self, Vec<String>) {
        Self::login_within(PATIENCE / 6, addr, parameters)
    }

    /// The same with a server that may be silent for so long.
    pub(crate) fn login_within(
        patience: Duration,
        addr: SocketAddr,
        parameters: &[(&str, &str)],
    ) -> (Self, Vec<String>) {
        let stream = TcpStream::connect(addr).expect("it accepts");
        stream.set_nodelay(true).expect("a TCP socket has TCP_NODELAY");
        stream.set_read_timeout(Some(patience)).expect("longer than nothing");
        let mut peer = Self {
            addr,
            stream,
            unread: BytesMut::with_capacity(16 * 1024),
            key: Vec::new(),
            parameters: BTreeMap::new(),
            has_news: false,
            notified: Vec::new(),
            status: 'I',
            is_over: false,
            is_skipping: false,
        };
        peer.write(&frontend::startup(frontend::PROTOCOL_3_0, parameters));
        let answers = peer.until(1);
        (peer, answers)
    }

    /// Writes bytes as they are; the end of a connection shows when it is read.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A simple query and its answers.
    pub(crate) fn query(&mut self, sql: &str) -> Vec<String> {
        self.write(&frontend::query(sql));
        self.until(1)
    }

    /// A query of the driver's own that must succeed; the first column of its last row.
    pub(crate) fn value(&mut self, sql: &str) -> String {
        let answers = self.query(sql);
        let is_answered = answers.iter().any(|answer| answer.starts_with('Z'));
        assert!(is_answered && !answers.iter().any(|answer| answer.starts_with('E')), "{sql}: {answers:?}");
        let row = answers.iter().rev().find_map(|answer| answer.strip_prefix("D[")).unwrap_or_default();
        row.trim_end_matches(']').trim_start_matches("Some(\"").trim_end_matches("\")").to_owned()
    }

    /// Answers up to so many ReadyForQuery.
    pub(crate) fn until(&mut self, mut cycles: usize) -> Vec<String> {
        let mut answers = Vec::new();
        while cycles > 0 && !self.is_over {
            if self.next(&mut answers) == Some('Z') {
                cycles -= 1;
            }
        }
        answers
    }

    /// Answers to messages that end with Flush: so many cycles, then so many messages carried out, or an error.
    pub(crate) fn until_flushed(&mut self, cycles: usize, mut carried_out: usize) -> Vec<String> {
        let mut answers = self.until(cycles);
        while carried_out > 0 && !self.is_skipping && !self.is_over {
            if self.next(&mut answers).is_some_and(|tag| "123TnCIsG".contains(tag)) {
                carried_out -= 1;
            }
        }
        answers
    }

    /// Answers up to those of [`fence`]: they belong to no message of the operation.
    pub(crate) fn until_fence(&mut self) -> Vec<String> {
        let mut answers = Vec::new();
        while !self.is_over && self.next(&mut answers) != Some('3') {}
        if !self.is_over {
            self.next(&mut answers);
        }
        answers
    }

    /// Waits until so many notifications came, or none more comes.
    pub(crate) fn until_notified(&mut self, count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        while self.notified.len() < count && !self.is_over {
            self.next(&mut answers);
        }
        answers
    }

    /// Waits for an answer of this kind, or the end of the connection.
    pub(crate) fn until_kind(&mut self, kind: char) -> Vec<String> {
        let mut answers = Vec::new();
        while !self.is_over && self.next(&mut answers) != Some(kind) {}
        answers
    }

    /// Process id, as it was told at the login.
    pub(crate) fn process(&self) -> u32 {
        self.key.first_chunk().map_or(0, |process| u32::from_be_bytes(*process))
    }

    /// Asks for a cancel of what it runs, and waits until the server has taken note.
    pub(crate) fn cancel(&self) {
        let Some((process, secret)) = self.key.split_first_chunk() else { return };
        let mut stream = TcpStream::connect(self.addr).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE / 6)).expect("longer than nothing");
        let request = frontend::cancel_request(u32::from_be_bytes(*process), secret);
        let _ = stream.write_all(&request).and_then(|()| stream.read(&mut [0]).map(drop));
    }

    /// Whether a ParameterStatus came since the last time this was asked.
    pub(crate) fn parameters_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Reads one message; its text goes to `answers` if it is one.
    fn next(&mut self, answers: &mut Vec<String>) -> Option<char> {
        let frame = match self.frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.end("CLOSED", answers),
            Err(_) => return self.end("NOTHING COMES", answers),
        };
        match frame.tag {
            'S' => {
                let (name, value) = frame.parameter();
                self.parameters.insert(name, value);
                self.has_news = true;
            }
            'A' => self.notified.push(notification(&frame)),
            'K' => self.key = frame.body.to_vec(),
            'R' => {}
            tag => {
                self.is_skipping = match tag {
                    'E' => true,
                    'Z' => false,
                    _ => self.is_skipping,
                };
                if tag == 'Z' {
                    self.status = frame.body[0].into();
                }
                answers.push(shown(&frame));
            }
        }
        Some(frame.tag)
    }

    fn end(&mut self, how: &str, answers: &mut Vec<String>) -> Option<char> {
        self.is_over = true;
        answers.push(how.to_owned());
        None
    }

    fn frame(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some(&[tag, a, b, c, d]) = self.unread.first_chunk() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                if self.unread.len() >= length {
                    let body = self.unread.split_to(length).freeze().slice(5..);
                    return Ok(Some(Frame { tag: tag.into(), body }));
                }
            }
            let mut some = [0; 8192];
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(None),
                Ok(length) => self.unread.extend_from_slice(&some[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(error),
                Err(_) => return Ok(None),
            }
        }
    }
}

/// What ends an exchange whose cycles depend on the answers: a COPY that may still wait for data ends here at the
/// latest, and so does a pipeline; then the answer comes that nothing else gives.
pub(crate) fn fence() -> Vec<u8> {
    let messages = [Message::CopyDone, Message::Sync, Message::CloseStatement(FENCE.to_owned()), Message::Sync];
    messages.iter().flat_map(Message::encoded).collect()
}

fn notification(frame: &Frame) -> String {
    let text = String::from_utf8_lossy(&frame.body[4..]).into_owned();
    let mut parts = text.split('\0');
    format!("A({}, {})", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// One answer as text. Object ids differ between databases, and lines of the server's source say nothing.
fn shown(frame: &Frame) -> String {
    match frame.tag {
        'E' | 'N' => {
            let fields = frame.fields();
            let shown =
                "SCMDHPpqWscdtn".chars().filter_map(|letter| Some(format!("{letter}:{}", fields.get(&letter)?)));
            format!("{}({})", frame.tag, shown.collect::<Vec<_>>().join(" "))
        }
        'D' => format!("D{:?}", frame.columns()),
        'C' => format!("C({})", frame.text()),
        'Z' => format!("Z{}", frame.text()),
        'T' => format!("T{:?}", columns(frame)),
        't' => {
            let mut body = frame.body.clone();
            let types: Vec<u32> = (0..body.get_i16()).map(|_| body.get_u32()).collect();
            format!("t{types:?}")
        }
        'd' => format!("d({})", frame.text().trim_end()),
        tag => tag.to_string(),
    }
}

/// Name, column number, type, width, modifier and format of each column.
fn columns(frame: &Frame) -> Vec<String> {
    let mut body = frame.body.clone();
    let mut columns = Vec::new();
    for _ in 0..body.get_i16() {
        let end = body.iter().position(|&byte| byte == 0).expect("a name ends with a zero");
        let name = String::from_utf8_lossy(&body.split_to(end)).into_owned();
        body.advance(5);
        let (number, kind, width, modifier, format) =
            (body.get_i16(), body.get_u32(), body.get_i16(), body.get_i32(), body.get_i16());
        columns.push(format!("{name} {number} {kind} {width} {modifier} {format}"));
    }
    columns
}
