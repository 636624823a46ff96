//! The protocol by hand, for what no driver would send: any frame out, every frame in, nothing hidden.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Endpoint, password_of, soon};

/// One frame as it came: its tag and what follows the length.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) tag: char,
    pub(crate) body: Bytes,
}

impl Frame {
    /// The fields of an ErrorResponse or NoticeResponse by their letter: `C` is the SQLSTATE, `M` the text.
    pub(crate) fn fields(&self) -> BTreeMap<char, String> {
        assert!("EN".contains(self.tag), "{self:?} has no fields");
        self.body
            .split(|&byte| byte == 0)
            .filter_map(|field| {
                let (&letter, text) = field.split_first()?;
                Some((letter.into(), String::from_utf8_lossy(text).into_owned()))
            })
            .collect()
    }

    /// SQLSTATE of an ErrorResponse or NoticeResponse.
    pub(crate) fn sqlstate(&self) -> String {
        self.fields().remove(&'C').expect("every error has a SQLSTATE")
    }

    /// The columns of a DataRow as text; NULL is `None`.
    pub(crate) fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, 'D', "{self:?} is no row");
        let mut body = self.body.clone();
        (0..body.get_i16())
            .map(|_| {
                let length = usize::try_from(body.get_i32()).ok()?;
                Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
            })
            .collect()
    }

    /// The C string that is the whole body: a CommandComplete's tag.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.body.strip_suffix(&[0]).unwrap_or(&self.body)).into_owned()
    }

    /// Name and value of a ParameterStatus.
    pub(crate) fn parameter(&self) -> (String, String) {
        assert_eq!(self.tag, 'S', "{self:?} is no ParameterStatus");
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let (name, value) =
            text.trim_end_matches('\0').split_once('\0').unwrap_or_else(|| (text.trim_end_matches('\0'), ""));
        (name.to_owned(), value.to_owned())
    }

    fn describe(&self) -> String {
        match self.tag {
            'E' | 'N' => format!("{} {:?}", self.tag, self.fields()),
            'C' => format!("C {:?}", self.text()),
            'Z' => format!("Z {}", self.text()),
            tag => format!("{tag} ({} bytes)", self.body.len()),
        }
    }
}

/// Tags of `frames` in the notation of [`Wire::expect`]: `"T D D C Z"`.
pub(crate) fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag.to_string()).collect::<Vec<_>>().join(" ")
}

/// SQLSTATEs of the errors in `frames`.
pub(crate) fn errors(frames: &[Frame]) -> Vec<String> {
    frames.iter().filter(|frame| frame.tag == 'E').map(Frame::sqlstate).collect()
}

/// A connection that speaks only when told to, over TCP unless made with [`Wire::over`].
pub(crate) struct Wire<S = TcpStream> {
    stream: S,
    unread: BytesMut,
    /// Process id and secret of BackendKeyData, once logged in.
    pub(crate) key: Option<(u32, Bytes)>,
}

impl Wire {
    /// Our end.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// Connects and sends nothing yet.
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the endpoint accepts");
        stream.set_nodelay(true).expect("a TCP socket has TCP_NODELAY");
        Self::over(stream)
    }

    /// Connects and logs in as `role`, up to the first ReadyForQuery.
    pub(crate) async fn login(endpoint: &Endpoint, role: &str) -> Self {
        let mut wire = Self::open(endpoint.addr).await;
        let params = [("user", role), ("database", &endpoint.dbname)];
        wire.send(frontend::startup(frontend::PROTOCOL_3_0, &params)).await;
        let frames = wire.authenticate(role, &password_of(role)).await;
        assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "login of {role}: {frames:?}");
        wire
    }

    /// Connects with more parameters in the startup message; returns what came behind AuthenticationOk too.
    pub(crate) async fn login_with(endpoint: &Endpoint, role: &str, more: &[(&str, &str)]) -> (Self, Vec<Frame>) {
        let mut wire = Self::open(endpoint.addr).await;
        let params = [&[("user", role), ("database", &endpoint.dbname)], more].concat();
        wire.send(frontend::startup(frontend::PROTOCOL_3_0, &params)).await;
        let frames = wire.authenticate(role, &password_of(role)).await;
        (wire, frames)
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        super::link::reset_on_close(&self.stream);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection that exists, with nothing read from it yet.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, unread: BytesMut::new(), key: None }
    }

    /// The connection itself, to go on with TLS; nothing may be unread.
    pub(crate) fn into_inner(self) -> S {
        assert!(self.unread.is_empty(), "unread: {:?}", self.unread);
        self.stream
    }

    /// Answers whatever the other side asks after a startup message; returns the frames behind AuthenticationOk up to
    /// ReadyForQuery, or the ErrorResponse that ended it.
    pub(crate) async fn authenticate(&mut self, role: &str, password: &str) -> Vec<Frame> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut after = Vec::new();
        loop {
            let frame = self.frame().await;
            let mut body = frame.body.clone();
            match frame.tag {
                'R' => match body.get_i32() {
                    0 => {}
                    3 => self.send(frontend::password(password)).await,
                    5 => {
                        let salt = <[u8; 4]>::try_from(&body[..4]).expect("four bytes of salt");
                        let hash = md5_hash(role.as_bytes(), password.as_bytes(), salt);
                        self.send(frontend::password(&hash)).await;
                    }
                    10 => self.send(frontend::sasl_initial(SCRAM_SHA_256, scram.message())).await,
                    11 => {
                        scram.update(&body).expect("a valid SCRAM challenge");
                        let message = scram.message().to_vec();
                        self.send(frontend::frame(b'p', &message)).await;
                    }
                    12 => scram.finish(&body).expect("the server proves that it knows the password"),
                    other => panic!("authentication request {other}"),
                },
                tag => {
                    if tag == 'K' {
                        self.key = Some((body.get_u32(), body));
                    }
                    after.push(frame);
                    if matches!(tag, 'Z' | 'E') {
                        return after;
                    }
                }
            }
        }
    }

    /// Writes bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.expect("the endpoint reads");
    }

    /// Writes bytes to somebody who may have closed already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads one frame, or where an SSLRequest may have been answered, its byte; `None` at the end.
    pub(crate) async fn next_or_byte(&mut self, may_be_a_byte: bool) -> Option<Result<Frame, u8>> {
        if may_be_a_byte {
            if self.unread.is_empty() && soon(self.stream.read_buf(&mut self.unread)).await.unwrap_or(0) == 0 {
                return None;
            }
            // No notice comes before a login.
            if matches!(self.unread.first(), Some(b'N' | b'S')) {
                return Some(Err(self.unread.get_u8()));
            }
        }
        self.next().await.map(Ok)
    }

    /// Reads one byte: the answer to an SSLRequest.
    pub(crate) async fn byte(&mut self) -> u8 {
        soon(self.stream.read_u8()).await.expect("one byte")
    }

    /// Reads one frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.next().await.expect("a frame, not the end of the connection")
    }

    /// Reads one frame; `None` when the connection ended, cleanly or by a reset.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(&[tag, a, b, c, d]) = self.unread.first_chunk() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                if self.unread.len() >= length {
                    let body = self.unread.split_to(length).freeze().slice(5..);
                    return Some(Frame { tag: tag.into(), body });
                }
            }
            if soon(self.stream.read_buf(&mut self.unread)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads up to and with the next ReadyForQuery.
    pub(crate) async fn cycle(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.frame().await);
            if frames.last().is_some_and(|frame| frame.tag == 'Z') {
                return frames;
            }
        }
    }

    /// Reads as many frames as `expected` names, `"1 2 T D C Z"`, and returns them; panics at the first that differs.
    pub(crate) async fn expect(&mut self, expected: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        for tag in expected.split_whitespace() {
            let frame = self.next().await;
            let came = frame.as_ref().map_or_else(|| "the end".to_owned(), |frame| frame.tag.to_string());
            frames.extend(frame);
            if came != tag {
                let seen: Vec<_> = frames.iter().map(Frame::describe).collect();
                panic!("expected {expected}, came {came} for {tag}: {seen:#?}");
            }
        }
        frames
    }

    /// Reads until the connection ends and returns what still came.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// A simple query and the frames of its cycle.
    pub(crate) async fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send(frontend::query(sql)).await;
        self.cycle().await
    }

    /// A simple query that succeeds; returns the first column of its last row, if it has one.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        let frames = self.query(sql).await;
        let seen: Vec<_> = frames.iter().map(Frame::describe).collect();
        assert!(frames.iter().all(|frame| frame.tag != 'E'), "{sql}: {seen:#?}");
        let row = frames.iter().rev().find(|frame| frame.tag == 'D');
        row.and_then(|row| row.columns().swap_remove(0)).unwrap_or_default()
    }

    /// A simple query that fails; returns the SQLSTATE.
    pub(crate) async fn failure(&mut self, sql: &str) -> String {
        let frames = self.query(sql).await;
        let error = frames.iter().find(|frame| frame.tag == 'E').unwrap_or_else(|| panic!("{sql} succeeds"));
        error.sqlstate()
    }

    /// Ends sending; the other side sees EOF and may still answer.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }
}

/// Frames a frontend sends.
pub(crate) mod frontend {
    pub(crate) const PROTOCOL_3_0: u32 = 3 << 16;
    pub(crate) const PROTOCOL_3_2: u32 = 3 << 16 | 2;

    /// Any tag with any body.
    pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![tag];
        frame.extend(untagged(body));
        frame
    }

    fn untagged(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a frame below 4 GiB");
        [&length.to_be_bytes(), body].concat()
    }

    fn cstr(text: &str) -> Vec<u8> {
        [text.as_bytes(), &[0]].concat()
    }

    pub(crate) fn startup(version: u32, params: &[(&str, &str)]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in params {
            body.extend(cstr(name));
            body.extend(cstr(value));
        }
        body.push(0);
        untagged(&body)
    }

    pub(crate) fn ssl_request() -> Vec<u8> {
        untagged(&(1234 << 16 | 5679_u32).to_be_bytes())
    }

    pub(crate) fn gss_request() -> Vec<u8> {
        untagged(&(1234 << 16 | 5680_u32).to_be_bytes())
    }

    pub(crate) fn cancel_request(process: u32, secret: &[u8]) -> Vec<u8> {
        untagged(&[&(1234 << 16 | 5678_u32).to_be_bytes(), &process.to_be_bytes(), secret].concat())
    }

    pub(crate) fn password(text: &str) -> Vec<u8> {
        frame(b'p', &cstr(text))
    }

    pub(crate) fn sasl_initial(mechanism: &str, message: &[u8]) -> Vec<u8> {
        let length = i32::try_from(message.len()).expect("a short message");
        frame(b'p', &[&cstr(mechanism), &length.to_be_bytes()[..], message].concat())
    }

    pub(crate) fn query(sql: &str) -> Vec<u8> {
        frame(b'Q', &cstr(sql))
    }

    pub(crate) fn parse(statement: &str, sql: &str, types: &[u32]) -> Vec<u8> {
        let mut body = [cstr(statement), cstr(sql)].concat();
        body.extend(count(types.len()));
        body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
        frame(b'P', &body)
    }

    /// Parameters and results in text format.
    pub(crate) fn bind(portal: &str, statement: &str, values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = [cstr(portal), cstr(statement)].concat();
        body.extend(count(0));
        body.extend(count(values.len()));
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).expect("a value below 2 GiB"));
            body.extend(length.to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body.extend(count(0));
        frame(b'B', &body)
    }

    pub(crate) fn describe_statement(name: &str) -> Vec<u8> {
        frame(b'D', &[b"S", &cstr(name)[..]].concat())
    }

    pub(crate) fn describe_portal(name: &str) -> Vec<u8> {
        frame(b'D', &[b"P", &cstr(name)[..]].concat())
    }

    /// `rows_max` 0 is all of them.
    pub(crate) fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
        frame(b'E', &[&cstr(portal)[..], &rows_max.to_be_bytes()].concat())
    }

    pub(crate) fn close_statement(name: &str) -> Vec<u8> {
        frame(b'C', &[b"S", &cstr(name)[..]].concat())
    }

    pub(crate) fn close_portal(name: &str) -> Vec<u8> {
        frame(b'C', &[b"P", &cstr(name)[..]].concat())
    }

    pub(crate) fn sync() -> Vec<u8> {
        frame(b'S', &[])
    }

    pub(crate) fn flush() -> Vec<u8> {
        frame(b'H', &[])
    }

    pub(crate) fn copy_data(data: &[u8]) -> Vec<u8> {
        frame(b'd', data)
    }

    pub(crate) fn copy_done() -> Vec<u8> {
        frame(b'c', &[])
    }

    pub(crate) fn copy_fail(reason: &str) -> Vec<u8> {
        frame(b'f', &cstr(reason))
    }

    /// Arguments and result in text format.
    pub(crate) fn function_call(oid: u32, arguments: &[&[u8]]) -> Vec<u8> {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend(count(0));
        body.extend(count(arguments.len()));
        for argument in arguments {
            body.extend(u32::try_from(argument.len()).expect("a short argument").to_be_bytes());
            body.extend(*argument);
        }
        body.extend(count(0));
        frame(b'F', &body)
    }

    pub(crate) fn terminate() -> Vec<u8> {
        frame(b'X', &[])
    }

    fn count(n: usize) -> [u8; 2] {
        u16::try_from(n).expect("at most 65535 of anything").to_be_bytes()
    }

    /// Parse, Bind, Describe, Execute of the unnamed statement and portal, without Sync.
    pub(crate) fn extended(sql: &str, values: &[Option<&[u8]>]) -> Vec<u8> {
        [parse("", sql, &[]), bind("", "", values), describe_portal(""), execute("", 0)].concat()
    }
}
