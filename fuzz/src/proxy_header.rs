//! Any bytes in front of a connection: a header of the PROXY protocol is refused or understood, and what it says is
//! what a header written from it says, with whatever a balancer adds.

use std::net::{IpAddr, SocketAddr};

use crate::wire::proxy_header::{BadProxyHeader, HEAD_LEN, ProxyHead, head, is_header, source};
use crate::wire::startup::{Framing, framing};

/// Panics if it does not hold for `bytes`.
pub fn check(bytes: &[u8]) {
    let Some((start, rest)) = bytes.split_first_chunk() else { return };
    let Ok(head) = head(start) else { return };
    assert!(is_header(start.first_chunk().expect("it is longer")));
    assert!(!matches!(framing(bytes), Ok(Framing::Packet(_))), "a header may be taken for a first packet");
    assert!(head.rest <= 4096, "memory is taken for {} bytes", head.rest);
    // As they are read: no byte more than the header says.
    let Some(rest) = rest.get(..head.rest) else { return };
    match source(head, rest) {
        Ok(Some(client)) => {
            assert_eq!(start[12], 0x21, "only a client that is passed on has an address");
            let tail = rest.get(client_len(client)..).expect("the addresses are whole");
            assert_eq!(read(&written(client, tail)), Ok(Some(client)));
        }
        Ok(None) => assert!(start[12] == 0x20 || !matches!(start[13] >> 4, 1 | 2), "an address was dropped"),
        Err(error) => {
            assert_eq!(error, BadProxyHeader::CutOff);
            assert!(rest.len() < if start[13] >> 4 == 1 { 12 } else { 36 });
        }
    }
}

fn client_len(client: SocketAddr) -> usize {
    if client.is_ipv4() { 12 } else { 36 }
}

/// The header that a balancer sends for this client, with `tail` behind the addresses.
fn written(client: SocketAddr, tail: &[u8]) -> Vec<u8> {
    let mut addresses = vec![0xee; client_len(client)];
    match client.ip() {
        IpAddr::V4(ip) => addresses[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => addresses[..16].copy_from_slice(&ip.octets()),
    }
    let port = addresses.len() - 4;
    addresses[port..port + 2].copy_from_slice(&client.port().to_be_bytes());
    let length = u16::try_from(addresses.len() + tail.len()).expect("as long as the one that was read");
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length.to_be_bytes(), &addresses, tail].concat()
}

fn read(bytes: &[u8]) -> Result<Option<SocketAddr>, BadProxyHeader> {
    let (start, rest) = bytes.split_first_chunk::<HEAD_LEN>().expect("a whole head");
    let head: ProxyHead = head(start)?;
    source(head, &rest[..head.rest])
}
