//! Packets before a StartupMessage: TLS, refusals of requests that are not supported, CancelRequests and what other
//! instances ask, which end here.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use super::cancel::Sender;
use super::head_clock::HeadClock;
use crate::admission::arrival_list::PeerOrigin;
use crate::admission::fair_queue::Caller;
use crate::error::LoginFault;
use crate::net::stream::{Socket, Stream};
use crate::net::tls::{ALPN, ServerTls};
use crate::proxy::Proxy;
use crate::wire::proxy_header;
use crate::wire::startup::{First, Framing, Malformed, Startup, framing, parse};

/// Reads first packets up to a StartupMessage. `None`: it was a CancelRequest, which is dealt with, or there is nothing
/// more to say to a peer.
pub(super) async fn packet(
    proxy: &Arc<Proxy>,
    stream: &mut Stream,
    mut sender: Sender,
    tls: Option<&ServerTls>,
    head: &mut HeadClock,
) -> Result<Option<Startup>, LoginFault> {
    if let (Stream::Plain(Socket::Tcp(tcp)), Some(tls)) = (&*stream, tls) {
        let mut first = [0];
        if head.hear(tcp.peek(&mut first)).await? > 0 && framing(&first)? == Framing::DirectTls {
            encrypt(proxy, stream, sender.origin(), tls, head).await?;
            require_alpn(stream)?;
        }
    }
    let (mut may_ask_ssl, mut may_ask_gss) = (!stream.is_tls(), true);
    loop {
        let packet = read_packet(stream, head).await?;
        match parse(&packet)? {
            First::Startup(_) if !matches!(sender, Sender::Client(_)) => return Ok(None),
            First::Startup(startup) => return Ok(Some(startup)),
            First::Cancel(key) => {
                sender.cancel(proxy, stream, &key).await?;
                return Ok(None);
            }
            First::Peer(question) => {
                if !sender.question(proxy, stream, question).await? {
                    return Ok(None);
                }
            }
            First::Ssl if std::mem::take(&mut may_ask_ssl) => match tls {
                Some(tls) => {
                    if stream.has_input() {
                        return Err(LoginFault::Injected);
                    }
                    stream.write_all(b"S").await?;
                    encrypt(proxy, stream, sender.origin(), tls, head).await?;
                }
                None => stream.write_all(b"N").await?,
            },
            First::Gss if std::mem::take(&mut may_ask_gss) => {
                stream.write_all(b"N").await?;
            }
            // The request came twice; the answer is Postgres's.
            First::Ssl => return Err(Malformed::Version(1234, 5679).into()),
            First::Gss => return Err(Malformed::Version(1234, 5680).into()),
        }
    }
}

async fn read_packet(stream: &mut Stream, head: &HeadClock) -> Result<Vec<u8>, LoginFault> {
    let mut start = [0; 4];
    head.hear(stream.read_exact(&mut start)).await?;
    if proxy_header::is_header(&start) {
        return Err(LoginFault::ForeignProxyHeader);
    }
    let Framing::Packet(length) = framing(&start)? else { return Err(LoginFault::NoTls) };
    let mut packet = start.to_vec();
    packet.resize(length, 0);
    head.hear(stream.read_exact(&mut packet[4..])).await?;
    Ok(packet)
}

/// Does the TLS handshake. The peer is waited for here; only the computation for its first message (the key exchange,
/// our signature) waits for its turn, on a thread of its own.
async fn encrypt(
    proxy: &Arc<Proxy>,
    stream: &mut Stream,
    origin: PeerOrigin,
    tls: &ServerTls,
    head: &mut HeadClock,
) -> Result<(), LoginFault> {
    let Stream::Plain(socket) = std::mem::replace(stream, Stream::Plain(Socket::Lost)) else {
        return Err(LoginFault::Injected);
    };
    let hello = head.hear(LazyConfigAcceptor::new(Acceptor::default(), socket)).await?;
    let config = Arc::clone(&tls.config);
    let caller = Caller::unnamed(origin);
    let answer = proxy.entrance.compute(caller, move || hello.into_stream(config));
    let answered = head.stopped_for(answer).await?;
    *stream = Stream::Client(Box::new(head.hear(answered).await?));
    Ok(())
}

fn require_alpn(stream: &Stream) -> Result<(), LoginFault> {
    match stream {
        Stream::Client(tls) if tls.get_ref().1.alpn_protocol() == Some(ALPN) => Ok(()),
        _ => Err(LoginFault::NoAlpn),
    }
}
