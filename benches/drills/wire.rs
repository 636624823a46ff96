//! A connection without a driver: where a hundred clients and the server share two cores, what a driver costs would be
//! measured, too.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::session::DBNAME;

/// Read at once by a listener that was away for a while.
const BUFFER: usize = 16 * 1024;

/// A notification, as it came.
pub(crate) struct Notification(BytesMut);

impl Notification {
    /// Its channel and its payload.
    pub(crate) fn texts(&self) -> Option<(&str, &str)> {
        // Behind the process id, each ends with a zero byte.
        std::str::from_utf8(self.0.get(4..)?).ok()?.strip_suffix('\0')?.split_once('\0')
    }
}

/// A logged-in client.
pub(crate) struct Wire {
    stream: TcpStream,
    unread: BytesMut,
    /// For cancels: BackendKeyData.
    pub(crate) key: CancelKey,
}

/// Process id and secret, as they came.
pub(crate) type CancelKey = [u8; 8];

/// Sends a CancelRequest to a port of loopback, and waits until its connection is closed, as libpq does.
pub(crate) async fn cancel(port: u16, key: &CancelKey) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&[&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), key].concat()).await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

impl Wire {
    /// Logs in on a port of loopback as a role that needs no password.
    pub(crate) async fn login(port: u16, role: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, unread: BytesMut::new(), key: [0; 8] };
        let body =
            [&196_608_u32.to_be_bytes()[..], format!("user\0{role}\0database\0{DBNAME}\0\0").as_bytes()].concat();
        wire.stream.write_all(&[&length(&body), &body[..]].concat()).await?;
        wire.cycle().await?;
        Ok(wire)
    }

    /// Runs one Query message to its end; an error of the server is an error.
    pub(crate) async fn run(&mut self, sql: &str) -> io::Result<()> {
        self.send(sql).await?;
        self.cycle().await
    }

    /// Sends a Query message.
    pub(crate) async fn send(&mut self, sql: &str) -> io::Result<()> {
        self.stream.write_all(&message(b'Q', &[sql.as_bytes(), b"\0"].concat())).await
    }

    /// Sends messages as they are.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends the same until it is not taken for so long, and reads nothing.
    pub(crate) async fn stuff(&mut self, bytes: &[u8], stuck: Duration) -> io::Result<()> {
        while let Ok(written) = timeout(stuck, self.stream.write_all(bytes)).await {
            written?;
        }
        Ok(())
    }

    /// Sends bytes on a new connection and reads to its end.
    pub(crate) async fn say(port: u16, bytes: &[u8]) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(bytes).await?;
        stream.read_to_end(&mut Vec::new()).await.map(drop)
    }

    /// Reads up to ReadyForQuery.
    pub(crate) async fn cycle(&mut self) -> io::Result<()> {
        let mut said = Ok(());
        loop {
            match self.frame().await? {
                (b'Z', _) => return said,
                (b'K', body) => self.key = body[..].try_into().map_err(io::Error::other)?,
                (b'E', body) => said = Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
                _ => {}
            }
        }
    }

    /// Waits for a notice, which the server sends before it goes on.
    pub(crate) async fn notice(&mut self) -> io::Result<()> {
        while self.frame().await?.0 != b'N' {}
        Ok(())
    }

    /// Waits for notifications; returns all that have come.
    pub(crate) async fn notifications(&mut self) -> io::Result<Vec<Notification>> {
        let mut notifications = Vec::new();
        while notifications.is_empty() {
            self.read().await?;
            while let Some((tag, body)) = self.split() {
                if tag == b'A' {
                    notifications.push(Notification(body));
                }
            }
        }
        Ok(notifications)
    }

    async fn frame(&mut self) -> io::Result<(u8, BytesMut)> {
        loop {
            if let Some(frame) = self.split() {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        self.unread.reserve(BUFFER);
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn split(&mut self) -> Option<(u8, BytesMut)> {
        let &[tag, a, b, c, d] = self.unread.first_chunk()?;
        let end = u32::from_be_bytes([a, b, c, d]) as usize + 1;
        if self.unread.len() < end {
            return None;
        }
        let mut frame = self.unread.split_to(end);
        frame.advance(5);
        Some((tag, frame))
    }
}

/// A message of a client.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &length(body)[..], body].concat()
}

fn length(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len() + 4).expect("a short message").to_be_bytes()
}
