//! The connection of a console: its messages in, its bytes out, and the signals that come for it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::clients::{ClientHandle, Signal};
use crate::error::ConsoleFault;
use crate::net::stream::{GOODBYE_MAX, Stream};
use crate::wire::frame::{HEADER_LEN, header};

/// Longest body of a message; commands are short.
const MESSAGE_MAX: usize = 64 * 1024;

/// How often a command that waits looks whether it still has to.
const LOOK: Duration = Duration::from_millis(20);

/// Why a console ends.
#[derive(Debug)]
pub(super) enum ConsoleEnd {
    /// Terminate, or its socket closed or broke.
    Gone,
    /// An error that the client gets before the connection closes.
    Fatal(ConsoleFault),
}

impl From<std::io::Error> for ConsoleEnd {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    Over,
    Canceled,
}

pub(super) struct ConsoleConnection {
    pub(super) handle: ClientHandle,
    stream: Stream,
    /// Bytes of the client that were not looked at yet.
    input: BytesMut,
    /// Bytes that are due to the client.
    pub(super) out: Vec<u8>,
}

impl ConsoleConnection {
    pub(super) fn new(handle: ClientHandle, stream: Stream) -> Self {
        Self { handle, stream, input: BytesMut::new(), out: Vec::new() }
    }

    /// Takes a whole message off the input.
    pub(super) fn message(&mut self) -> Result<Option<(u8, Bytes)>, ConsoleFault> {
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
    pub(super) async fn listen(&mut self) -> Result<(), ConsoleEnd> {
        self.flush().await?;
        match self.hear().await? {
            Some(signals) => handle(signals),
            None => Ok(()),
        }
    }

    /// Waits while this holds, unless the client cancels. A client that goes away meanwhile leaves everything as it is.
    pub(super) async fn wait_while(&mut self, holds: impl Fn() -> bool) -> Result<WaitEnd, ConsoleEnd> {
        self.handle.set_waiting();
        let ended = self.look_while(holds).await;
        self.handle.set_idle();
        ended
    }

    async fn look_while(&mut self, holds: impl Fn() -> bool) -> Result<WaitEnd, ConsoleEnd> {
        while holds() {
            if self.input.len() > MESSAGE_MAX {
                return Err(ConsoleEnd::Fatal(ConsoleFault::TooLong(self.input.len())));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                heard = self.hear() => match heard? {
                    Some(signals) if signals & Signal::Cancel as u8 != 0 => return Ok(WaitEnd::Canceled),
                    Some(signals) => handle(signals)?,
                    None => {}
                },
            }
        }
        Ok(WaitEnd::Over)
    }

    /// Reads more of the client, or returns the signals that came meanwhile.
    async fn hear(&mut self) -> Result<Option<u8>, ConsoleEnd> {
        let handle = &self.handle;
        let signalled = poll_fn(|cx| {
            handle.set_waker(cx.waker());
            match handle.take_signals() {
                0 => Poll::Pending,
                signals => Poll::Ready(signals),
            }
        });
        tokio::select! {
            read = self.stream.read_buf(&mut self.input) => match read? {
                0 => Err(ConsoleEnd::Gone),
                _ => Ok(None),
            },
            signals = signalled => Ok(Some(signals)),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), ConsoleEnd> {
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        self.out = Vec::new();
        Ok(())
    }

    /// Sends what is due and closes, in the time that a client gets for its last message.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            let _ = self.flush().await;
            let _ = self.stream.shutdown().await;
            self.stream.closed().await;
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }
}

/// Handles the signals of a console.
fn handle(signals: u8) -> Result<(), ConsoleEnd> {
    let has = |signal: Signal| signals & signal as u8 != 0;
    if has(Signal::Drain) {
        return Err(ConsoleEnd::Fatal(ConsoleFault::Draining));
    }
    if has(Signal::Kill) {
        return Err(ConsoleEnd::Fatal(ConsoleFault::Killed));
    }
    Ok(())
}
