//! A server that is no Postgres: it lets everybody in and says what the test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::frontend::frame;

/// On a port of its own; dropped, it accepts nobody any more.
pub(crate) struct FakeServer {
    pub(crate) addr: SocketAddr,
    open: Arc<AtomicUsize>,
    said: broadcast::Sender<Vec<u8>>,
    accepting: JoinHandle<()>,
}

/// What to say to a frame, by its tag and body.
type Answer = dyn Fn(u8, &[u8]) -> Vec<u8> + Send + Sync;

impl FakeServer {
    /// After a login without a password every frame gets its `answer`, which may be nothing.
    pub(crate) async fn start(answer: impl Fn(u8, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_with(answer, None).await
    }

    /// It refuses logins with this parameter, in this way: `("pgweir.intercept", "08P01")`, as PgBouncer does.
    pub(crate) async fn refusing(
        refused: (&'static str, &'static str),
        answer: impl Fn(u8, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(answer, Some(refused)).await
    }

    async fn start_with(
        answer: impl Fn(u8, &[u8]) -> Vec<u8> + Send + Sync + 'static,
        refused: Option<(&'static str, &'static str)>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (open, answer): (_, Arc<Answer>) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let (said, _) = broadcast::channel(16);
        let (count, says) = (Arc::clone(&open), said.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, answer, said) = (Arc::clone(&count), Arc::clone(&answer), says.subscribe());
                tokio::spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = serve(stream, refused, &*answer, said).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, open, said, accepting }
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Says something on every connection, unasked.
    pub(crate) fn say(&self, bytes: &[u8]) {
        self.said.send(bytes.to_vec()).expect("somebody is connected");
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What Postgres answers to a query with one row of one text.
pub(crate) fn row(text: &str) -> Vec<u8> {
    let description = [&[0, 1][..], b"?column?\0", &[0; 6], &[0, 0, 0, 25], &[0xff; 6], &[0, 0]].concat();
    let length = u32::try_from(text.len()).expect("a short text");
    let data = [&[0, 1][..], &length.to_be_bytes(), text.as_bytes()].concat();
    [frame(b'T', &description), frame(b'D', &data), frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()
}

async fn serve(
    mut stream: TcpStream,
    refused: Option<(&str, &str)>,
    answer: &Answer,
    mut said: broadcast::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        let mut packet = vec![0; length as usize - 4];
        stream.read_exact(&mut packet).await?;
        match packet.first_chunk() {
            Some(&[4, 210, 22, 47]) => stream.write_all(b"N").await?, // SSLRequest
            Some(&[0, 3, _, _]) => {
                let Some((parameter, sqlstate)) = refused else { break };
                if !packet.split(|&byte| byte == 0).any(|text| text == parameter.as_bytes()) {
                    break;
                }
                let error = format!("SFATAL\0VFATAL\0C{sqlstate}\0Munsupported startup parameter\0\0");
                return stream.write_all(&frame(b'E', error.as_bytes())).await;
            }
            _ => return Ok(()),
        }
    }
    let parameters =
        [&b"server_version\x0015.0\0"[..], b"client_encoding\0UTF8\0", b"standard_conforming_strings\0on\0"];
    let parameters = parameters.map(|parameter| frame(b'S', parameter)).concat();
    let welcome = [frame(b'R', &[0; 4]), parameters, frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]), frame(b'Z', b"I")];
    stream.write_all(&welcome.concat()).await?;
    let (mut from, mut to) = stream.split();
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    let read = async {
        loop {
            let tag = from.read_u8().await?;
            let mut body = vec![0; from.read_u32().await? as usize - 4];
            from.read_exact(&mut body).await?;
            if tag == b'X' || tell.send(answer(tag, &body)).await.is_err() {
                return std::io::Result::Ok(());
            }
        }
    };
    let write = async {
        loop {
            let bytes = tokio::select! {
                Some(bytes) = told.recv() => bytes,
                Ok(bytes) = said.recv() => bytes,
                else => return std::io::Result::Ok(()),
            };
            to.write_all(&bytes).await?;
        }
    };
    tokio::select! {
        ended = read => ended,
        ended = write => ended,
    }
}
