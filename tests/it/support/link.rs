//! A TCP forwarder that does to a connection what networks do: delay, stall, cut, half-close, lose the end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which way bytes flow: to whom the link connects, or back to who connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    Backend,
    Frontend,
}

/// What happens to bytes; connections that exist obey a change at once.
#[derive(Clone, Debug, Default)]
struct Weather {
    /// Before every write.
    delay: Duration,
    /// Nothing moves in this direction (or in both).
    paused: Option<Option<Toward>>,
    /// One byte per write.
    drip: bool,
    /// In this direction a connection is reset after so many bytes.
    truncate: Option<(Toward, usize)>,
    /// In this direction the end of the stream is sent without its source having ended.
    half_closed: Option<Toward>,
    /// Connections of an older generation are reset.
    generation: u32,
    /// New connections are reset at once.
    refusing: bool,
}

/// A forwarder on a port of its own; dropped, it resets what it carries.
pub(crate) struct Link {
    pub(crate) addr: SocketAddr,
    weather: watch::Sender<Weather>,
    open: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// A link to `backend`.
    pub(crate) async fn to(backend: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), backend).await
    }

    /// A link to `backend` at an address of this machine.
    pub(crate) async fn at(address: IpAddr, backend: SocketAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let weather = watch::Sender::new(Weather::default());
        let (seen, open) = (weather.subscribe(), Arc::new(AtomicUsize::new(0)));
        let sent = Arc::new(AtomicUsize::new(0));
        let (count, counter) = (open.clone(), sent.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((frontend, _)) = listener.accept().await {
                let (seen, open, sent) = (seen.clone(), count.clone(), counter.clone());
                open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    carry(frontend, backend, seen, &sent).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, weather, open, sent, accepting }
    }

    /// Connections it carries now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Writes that reached the backend so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// Every write waits this long first.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Nothing moves, in either direction, until [`resume`](Self::resume).
    pub(crate) fn pause(&self) {
        self.weather.send_modify(|weather| weather.paused = Some(None));
    }

    /// Nothing moves in this direction until [`resume`](Self::resume).
    pub(crate) fn pause_toward(&self, toward: Toward) {
        self.weather.send_modify(|weather| weather.paused = Some(Some(toward)));
    }

    /// What was held back flows on.
    pub(crate) fn resume(&self) {
        self.weather.send_modify(|weather| weather.paused = None);
    }

    /// One byte per segment.
    pub(crate) fn drip(&self) {
        self.weather.send_modify(|weather| weather.drip = true);
    }

    /// Every connection is reset when so many bytes of it went that way, counted from its start.
    pub(crate) fn truncate_after(&self, toward: Toward, bytes: usize) {
        self.weather.send_modify(|weather| weather.truncate = Some((toward, bytes)));
    }

    /// This side sees the end of the stream; the other direction lives on.
    pub(crate) fn half_close(&self, toward: Toward) {
        self.weather.send_modify(|weather| weather.half_closed = Some(toward));
    }

    /// Resets every connection there is; new ones are carried.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    /// Resets every new connection, or carries them again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.weather.send_modify(|weather| weather.refusing = refusing);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// Closing this socket resets the connection instead of ending it.
pub(super) fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("a socket has SO_LINGER");
}

async fn carry(
    mut frontend: TcpStream,
    backend: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    sent: &AtomicUsize,
) {
    let Weather { refusing, generation, .. } = *weather.borrow_and_update();
    if refusing {
        return reset_on_close(&frontend);
    }
    let Ok(mut backend) = TcpStream::connect(backend).await else {
        return reset_on_close(&frontend);
    };
    for stream in [&frontend, &backend] {
        stream.set_nodelay(true).expect("a TCP socket has TCP_NODELAY");
    }
    let (from_frontend, to_frontend) = frontend.split();
    let (from_backend, to_backend) = backend.split();
    let up = pump(Toward::Backend, from_frontend, to_backend, weather.clone(), sent);
    let received = AtomicUsize::new(0);
    let down = pump(Toward::Frontend, from_backend, to_frontend, weather.clone(), &received);
    let ended_by_itself = tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.is_ok(),
        _ = weather.wait_for(|weather| weather.generation != generation) => false,
    };
    if !ended_by_itself {
        reset_on_close(&frontend);
        reset_on_close(&backend);
    }
}

/// Copies one direction until its end; an error ends both.
async fn pump(
    toward: Toward,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    chunks: &AtomicUsize,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    let mut carried = 0;
    loop {
        let read = tokio::select! {
            read = from.read(&mut chunk) => read?,
            _ = weather.wait_for(|weather| weather.half_closed == Some(toward)) => 0,
        };
        if read == 0 {
            return to.shutdown().await;
        }
        chunks.fetch_add(1, Ordering::SeqCst);
        let mut rest = &chunk[..read];
        while !rest.is_empty() {
            let now = weather.wait_for(|weather| !weather.stalls(toward)).await.map_err(io::Error::other)?.clone();
            tokio::time::sleep(now.delay).await;
            let room = now.room(toward, carried);
            let size = if now.drip { 1 } else { rest.len() }.min(room);
            to.write_all(&rest[..size]).await?;
            carried += size;
            if size == room {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            rest = &rest[size..];
        }
    }
}

impl Weather {
    fn stalls(&self, toward: Toward) -> bool {
        self.paused.is_some_and(|only| only.is_none_or(|only| only == toward))
    }

    /// Bytes that may still pass on a connection that carried so many.
    fn room(&self, toward: Toward, carried: usize) -> usize {
        match self.truncate {
            Some((direction, bytes)) if direction == toward => bytes.saturating_sub(carried),
            _ => usize::MAX,
        }
    }
}
