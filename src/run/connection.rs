//! One connection from its first byte to its last: a login, then a client or a console.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::admin::console;
use crate::admission::places::ConnectionPlace;
use crate::net::listen::Accepted;
use crate::proxy::worker_load::Counted;
use crate::session::client::moving::Mover;
use crate::session::client::{Client, Departed};
use crate::session::context::{Inbox, Worker};
use crate::session::login::{Welcome, log_in};

/// Has a worker serve a connection, which counts as its load from now on.
pub(crate) async fn deal(inbox: &Inbox, accepted: Accepted) {
    let counted = inbox.count();
    inbox.send(|worker| begin(worker, accepted, counted)).await;
}

/// Serves a connection on the worker of this thread.
pub(super) fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    begin(Rc::clone(worker), accepted, Counted::new(Arc::clone(&worker.load)));
}

fn begin(worker: Rc<Worker>, accepted: Accepted, counted: Counted) {
    let stage = ConnectionStage::Login(Box::pin(log_in(Rc::clone(&worker), accepted)));
    tokio::task::spawn_local(ConnectionTask { worker, stage, _counted: counted });
}

/// The task of a connection. What is large is boxed, and gone before its client idles.
struct ConnectionTask {
    worker: Rc<Worker>,
    stage: ConnectionStage,
    _counted: Counted,
}

enum ConnectionStage {
    Login(Pin<Box<dyn Future<Output = Option<Welcome>>>>),
    /// From another worker.
    Arrival(Box<Mover>, ConnectionPlace),
    Client(Box<Client>, ConnectionPlace),
    /// A console, a goodbye, or the way to another worker.
    Rest(Pin<Box<dyn Future<Output = ()>>>),
    Ended,
}

impl Future for ConnectionTask {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                ConnectionStage::Client(client, _) => {
                    let departed = ready!(client.poll(cx));
                    self.end(departed);
                }
                ConnectionStage::Login(login) => {
                    let welcome = ready!(login.as_mut().poll(cx));
                    self.begin(welcome, cx);
                }
                ConnectionStage::Arrival(..) => self.arrive(cx),
                ConnectionStage::Rest(rest) => return rest.as_mut().poll(cx),
                ConnectionStage::Ended => return Poll::Ready(()),
            }
        }
    }
}

impl ConnectionTask {
    /// ## Login => (Client | Rest | Ended)
    fn begin(&mut self, welcome: Option<Welcome>, cx: &mut Context<'_>) {
        self.stage = match welcome {
            Some(Welcome::Client(client, place)) => {
                client.meet(cx.waker());
                ConnectionStage::Client(client, place)
            }
            Some(Welcome::Console(stream, facts, place)) => {
                let served = console::serve(Rc::clone(&self.worker), stream, facts);
                ConnectionStage::Rest(Box::pin(async move {
                    served.await;
                    drop(place);
                }))
            }
            None => ConnectionStage::Ended,
        };
    }

    /// ## Arrival => Client
    fn arrive(&mut self, cx: &mut Context<'_>) {
        let ConnectionStage::Arrival(mover, place) = std::mem::replace(&mut self.stage, ConnectionStage::Ended) else {
            return;
        };
        let client = mover.arrive(Rc::clone(&self.worker));
        client.meet(cx.waker());
        self.stage = ConnectionStage::Client(client, place);
    }

    /// ## Client => Rest
    fn end(&mut self, departed: Departed) {
        let ConnectionStage::Client(client, place) = std::mem::replace(&mut self.stage, ConnectionStage::Ended) else {
            return;
        };
        self.stage = ConnectionStage::Rest(match departed {
            Departed::Moves(to) => Box::pin(go_on(Rc::clone(&self.worker), to, Box::new(client.depart()), place)),
            Departed::Ends(end) => Box::pin(async move {
                client.finish(end).await;
                drop(place);
            }),
        });
    }
}

/// Has another worker serve a client. It ends with workers that go down.
async fn go_on(worker: Rc<Worker>, to: usize, mover: Box<Mover>, place: ConnectionPlace) {
    let Some(inbox) = worker.inbox(to) else { return };
    let counted = inbox.count();
    let job = |worker: Rc<Worker>| {
        let stage = ConnectionStage::Arrival(mover, place);
        tokio::task::spawn_local(ConnectionTask { worker, stage, _counted: counted });
    };
    inbox.send(job).await;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::parse;
    use crate::proxy::Proxy;
    use crate::run::worker;

    /// Bytes of the body of an SSLRequest.
    const SSL_REQUEST: usize = 4;

    async fn message(stream: &mut TcpStream, has_tag: bool) -> Option<(u8, Vec<u8>)> {
        let tag = if has_tag { stream.read_u8().await.ok()? } else { 0 };
        let length = stream.read_u32().await.ok()? as usize;
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body).await.ok()?;
        Some((tag, body))
    }

    fn frame(tag: &[u8], body: &[u8]) -> Vec<u8> {
        [tag, &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    /// A server that completes each Query with the Query's text as its tag.
    async fn echo(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while message(&mut stream, false).await?.1.len() == SSL_REQUEST {
                    stream.write_all(b"N").await.ok()?;
                }
                let ready = frame(b"Z", b"I");
                let greeting = [frame(b"R", &[0; 4]), frame(b"K", &[0, 0, 0, 7, 0, 0, 0, 9]), ready.clone()].concat();
                stream.write_all(&greeting).await.ok()?;
                while let Some((b'Q', text)) = message(&mut stream, true).await {
                    stream.write_all(&[frame(b"C", &text), ready.clone()].concat()).await.ok()?;
                }
                Some(())
            });
        }
    }

    /// Two workers before that server.
    async fn workers(mode: &str) -> Arc<[Inbox]> {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = server.local_addr().expect("bound").port();
        tokio::spawn(echo(server));
        let text = format!(
            "[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {port}\n[roles.\"*\"]\nauth = \"trust\"\n\
             [pool]\nsize = 1\nmode = \"{mode}\"\n[listen]\nworkers = 2\n",
        );
        let config = parse(&text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
        let proxy = Arc::new(Proxy::new(config, mpsc::channel(1).0).expect("no certificates"));
        let mut inboxes = Vec::new();
        for id in 0..2 {
            inboxes.push(worker::start(id, Arc::clone(&proxy)).await.expect("a thread"));
        }
        let inboxes: Arc<[Inbox]> = inboxes.into();
        for inbox in inboxes.iter() {
            let all = Arc::clone(&inboxes);
            inbox.run(move |worker| worker.meet(&all)).await.expect("it runs");
        }
        inboxes
    }

    /// A client of the first worker that has logged in.
    async fn client(inboxes: &[Inbox]) -> TcpStream {
        let door = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(door.local_addr().expect("bound")).await.expect("it listens");
        let (accepted, peer) = door.accept().await.expect("it comes");
        deal(&inboxes[0], Accepted::Tcp(accepted.into_std().expect("a socket"), peer)).await;
        let startup = frame(b"", b"\0\x03\0\0user\0alice\0database\0app\0\0");
        client.write_all(&startup).await.expect("it is there");
        until_ready(&mut client).await;
        client
    }

    /// The tag of the answer that ends next, if there is one.
    async fn until_ready(client: &mut TcpStream) -> Vec<u8> {
        let mut completed = Vec::new();
        loop {
            match message(client, true).await.expect("the client is served") {
                (b'Z', _) => return completed,
                (b'C', body) => completed = body,
                (b'E', body) => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }

    fn query(text: &str) -> Vec<u8> {
        frame(b"Q", &[text.as_bytes(), b"\0"].concat())
    }

    async fn moves_back_and_forth(mode: &str) {
        let inboxes = workers(mode).await;
        let mut client = client(&inboxes).await;
        for turn in 0..200 {
            let (from, to) = (turn % 2, 1 - turn % 2);
            inboxes[from].load().send_away(1, to);
            // The second Query comes in two parts, of which the first may arrive while the client moves.
            let (first, second) = (query(&format!("SELECT {turn}")), query("SELECT 'second'"));
            let (head, rest) = second.split_at(turn % second.len());
            client.write_all(&[&first, head].concat()).await.expect("it is there");
            assert_eq!(until_ready(&mut client).await, format!("SELECT {turn}\0").as_bytes());
            client.write_all(rest).await.expect("it is there");
            assert_eq!(until_ready(&mut client).await, b"SELECT 'second'\0");
            while inboxes[from].load().connections() > 0 {
                client.write_all(&query("SELECT 'it rests'")).await.expect("it is there");
                assert_eq!(until_ready(&mut client).await, b"SELECT 'it rests'\0");
            }
            assert_eq!(inboxes[to].load().connections(), 1);
        }
    }

    #[test]
    fn task_of_an_idle_client_is_small() {
        assert!(size_of::<ConnectionTask>() <= 80, "{}", size_of::<ConnectionTask>());
        assert!(size_of::<Client>() <= 592, "{}", size_of::<Client>());
    }

    #[tokio::test]
    async fn client_goes_on_at_another_worker() {
        moves_back_and_forth("transaction").await;
    }

    #[tokio::test]
    async fn client_takes_its_backend_along_in_session_mode() {
        moves_back_and_forth("session").await;
    }
}
