//! One connection: over TCP or a Unix socket, in clear text or under TLS.
//!
//! A stream belongs to the reactor of the worker that opened it; [`Stream::adopt`] moves it to the current one.

use std::future::poll_fn;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::listen::Accepted;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop;
use tokio_rustls::{client, server};

/// Longest time a peer gets to read its last message. Closing with bytes unread would reset the connection, and the
/// message might be lost.
pub(crate) const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// A socket in clear text.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// On its way to another reactor; never seen outside [`Stream::adopt`], or its registration failed.
    Lost,
}

/// What the task that holds a connection knows of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    #[default]
    Unknown,
    /// There was none, and the reactor wakes the task when some comes.
    Awaited,
}

impl Input {
    /// After the reactor said that there is none. Without cooperative budget it says so as well, and keeps no waker.
    #[inline]
    pub fn pending() -> Self {
        if coop::has_budget_remaining() { Self::Awaited } else { Self::Unknown }
    }
}

/// A connection with a client or a backend.
#[derive(Debug)]
pub enum Stream {
    /// Clear text.
    Plain(Socket),
    /// We are the TLS server: a client.
    Client(Box<server::TlsStream<Socket>>),
    /// We are the TLS client: a backend.
    Backend(Box<client::TlsStream<Socket>>),
}

fn lost() -> io::Error {
    io::Error::from(io::ErrorKind::NotConnected)
}

impl Socket {
    /// Registers an accepted connection with the current reactor; also returns the address it came from.
    pub fn open(accepted: Accepted) -> io::Result<(Self, String)> {
        Ok(match accepted {
            Accepted::Tcp(stream, peer) => (Self::Tcp(TcpStream::from_std(stream)?), peer.to_string()),
            Accepted::Unix(stream) => (Self::Unix(UnixStream::from_std(stream)?), "unix".to_owned()),
        })
    }

    /// Switches Nagle off and keepalive on: a reply must not wait for a delayed ACK, a dead peer must be noticed.
    pub fn tune(&self) -> io::Result<()> {
        if let Self::Tcp(tcp) = self {
            tcp.set_nodelay(true)?;
            let keepalive =
                TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
            let socket = SockRef::from(tcp);
            socket.set_tcp_keepalive(&keepalive)?;
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(Duration::from_secs(90)))?;
        }
        Ok(())
    }

    /// Our end of a TCP connection.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(_) | Self::Lost => None,
        }
    }

    /// The peer is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().is_ok_and(|a| a.ip().to_canonical().is_loopback()),
            Self::Unix(_) => true,
            Self::Lost => false,
        }
    }

    fn adopt(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Tcp(tcp) => Self::Tcp(TcpStream::from_std(tcp.into_std()?)?),
            Self::Unix(unix) => Self::Unix(UnixStream::from_std(unix.into_std()?)?),
            Self::Lost => return Err(lost()),
        };
        Ok(())
    }

    #[inline]
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
            Self::Lost => Poll::Ready(Err(lost())),
        }
    }

    #[inline]
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx),
            Self::Unix(unix) => unix.poll_write_ready(cx),
            Self::Lost => Poll::Ready(Err(lost())),
        }
    }

    /// Reads if the reactor has seen input; `None` where it has not, and still holds the waker it was given.
    #[inline]
    fn read_seen(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut read = None;
        let mut attempt = |mut socket: &socket2::Socket| {
            let outcome = read.insert(socket.read(buffer));
            match outcome {
                // It took less than there was room for: the socket is empty, and the next input is a new event.
                Ok(n) if *n > 0 && *n < buffer.len() => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => Err(error.kind().into()),
                Ok(_) => Ok(()),
            }
        };
        let _: io::Result<()> = match self {
            Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || attempt(&SockRef::from(tcp))),
            Self::Unix(unix) => unix.try_io(Interest::READABLE, || attempt(&SockRef::from(unix))),
            Self::Lost => return Some(Err(lost())),
        };
        read
    }

    #[inline]
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Unix(unix) => unix.try_write(bytes),
            Self::Lost => Err(lost()),
        }
    }

    /// Writes as much as the socket takes now, and has its reactor wake the task for the rest.
    #[inline]
    fn write_some(&self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_now(&bytes[done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.poll_writable(cx) {
                    Poll::Ready(writable) => writable?,
                    Poll::Pending => break,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Bytes wait in the kernel, or the peer is gone. One system call, needed where the reactor may not have looked
    /// yet.
    pub fn has_input(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peek = match self {
            Self::Tcp(tcp) => SockRef::from(tcp).peek(&mut byte),
            Self::Unix(unix) => SockRef::from(unix).peek(&mut byte),
            Self::Lost => return true,
        };
        !matches!(peek, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Lost => Poll::Ready(Err(lost())),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Lost => Poll::Ready(Err(lost())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}

impl Stream {
    /// Reads once into `buffer`; 0 is the end.
    #[inline]
    pub fn poll_read_once(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buffer);
        ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Reads like [`Self::poll_read_once`]. `input` is what the holder's task knows, and is kept here: input that is
    /// awaited already costs next to nothing to ask for.
    #[inline]
    pub fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        input: &mut Input,
    ) -> Poll<io::Result<usize>> {
        let Self::Plain(socket) = self else {
            if *input == Input::Awaited && !self.is_readable(cx) {
                return Poll::Pending;
            }
            *input = Input::Unknown;
            return self.poll_read_once(cx, buffer);
        };
        loop {
            if let Some(read) = socket.read_seen(buffer) {
                *input = Input::Unknown;
                if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                    return Poll::Ready(read);
                }
            }
            if *input == Input::Awaited {
                return Poll::Pending;
            }
            match socket.poll_readable(cx) {
                Poll::Ready(readable) => readable?,
                Poll::Pending => {
                    *input = Input::pending();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes as much as the socket takes now, under TLS flushed as far as possible; returns the number of bytes taken.
    #[inline]
    pub fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        if let Self::Plain(socket) = self {
            return socket.write_some(cx, bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            match Pin::new(&mut *self).poll_write(cx, &bytes[done..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => done += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = Pin::new(self).poll_flush(cx) {
            return Err(error);
        }
        Ok(done)
    }

    /// Under TLS: sends records that were accepted but did not fit into the socket.
    #[inline]
    pub fn flush_records(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if matches!(self, Self::Plain(_)) {
            return Ok(());
        }
        match Pin::new(self).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Ends our side with a last word, without waiting for the peer to make room for either.
    pub async fn hang_up(&mut self, goodbye: &[u8]) {
        let is_told = poll_fn(|cx| {
            let _ = self.poll_write_some(cx, goodbye);
            Poll::Ready(Pin::new(&mut *self).poll_shutdown(cx).is_ready())
        });
        if !is_told.await {
            // No room for the last record of TLS: the end comes without it.
            let _ = match self.socket() {
                Socket::Tcp(tcp) => SockRef::from(tcp).shutdown(Shutdown::Write),
                Socket::Unix(unix) => SockRef::from(unix).shutdown(Shutdown::Write),
                Socket::Lost => Ok(()),
            };
        }
    }

    /// Closes at once: a TCP peer gets a reset, and can neither answer nor wait for an answer to be read.
    pub fn reset(&mut self) {
        if let Socket::Tcp(tcp) = std::mem::replace(self.socket_mut(), Socket::Lost) {
            let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// Moves the socket to the current thread's reactor.
    pub fn adopt(&mut self) -> io::Result<()> {
        self.socket_mut().adopt()
    }

    /// The reactor has seen input (or the end) that nobody read.
    #[inline]
    pub fn is_readable(&self, cx: &mut Context<'_>) -> bool {
        self.socket().poll_readable(cx).is_ready()
    }

    /// After a read that took `n` bytes where there was room for `room`: has the reactor wake the task at the next
    /// input of a socket that this emptied.
    #[inline]
    pub fn await_input(&self, cx: &mut Context<'_>, n: usize, room: usize) -> Input {
        match self {
            Self::Plain(socket) if n < room && socket.poll_readable(cx).is_pending() => Input::pending(),
            _ => Input::Unknown,
        }
    }

    /// As [`Self::is_readable`], but asks the kernel.
    pub fn has_input(&self) -> bool {
        self.socket().has_input()
    }

    /// The peer has ended the connection, although bytes from before may be unread. Asks the kernel.
    pub fn has_ended(&self) -> bool {
        let socket = match self.socket() {
            Socket::Tcp(tcp) => tcp.as_fd(),
            Socket::Unix(unix) => unix.as_fd(),
            Socket::Lost => return true,
        };
        let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut asked, Some(&Timespec::default())).is_ok() && asked[0].revents().intersects(ends)
    }

    /// Waits until the peer has closed (or reset) the connection, dropping all bytes it still sends.
    pub async fn closed(&mut self) {
        let socket = self.socket_mut();
        let mut sink = [0; 512];
        loop {
            let ready = match socket {
                Socket::Tcp(tcp) => tcp.ready(Interest::READABLE).await.map(|_| tcp.try_read(&mut sink)),
                Socket::Unix(unix) => unix.ready(Interest::READABLE).await.map(|_| unix.try_read(&mut sink)),
                Socket::Lost => return,
            };
            match ready {
                Ok(Ok(n)) if n > 0 => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    /// Waits until the peer has ended the connection, without reading anything. Bytes that arrive meanwhile are left
    /// for the next reader, and hide the end until they are read.
    pub async fn ended(&self) {
        let peek = |socket: SockRef<'_>| socket.peek(&mut [std::mem::MaybeUninit::uninit()]);
        let said = match self.socket() {
            Socket::Tcp(tcp) => tcp.async_io(Interest::READABLE, || peek(SockRef::from(tcp))).await,
            Socket::Unix(unix) => unix.async_io(Interest::READABLE, || peek(SockRef::from(unix))).await,
            Socket::Lost => return,
        };
        if said.is_ok_and(|n| n > 0) {
            std::future::pending().await
        }
    }

    /// The socket under it.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Client(tls) => tls.get_ref().0,
            Self::Backend(tls) => tls.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Client(tls) => tls.get_mut().0,
            Self::Backend(tls) => tls.get_mut().0,
        }
    }

    /// Under TLS.
    pub fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Client(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Backend(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Client(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Backend(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Client(tls) => Pin::new(tls).poll_flush(cx),
            Self::Backend(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Client(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Backend(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
