//! The header with which a load balancer says whose connection it passes on: the PROXY protocol, version 2.
//!
//! Pure and strict, since it decides on addresses that rules and rates look at. [`head`] reads the fixed part, which
//! says how many bytes follow; [`source`] reads these. Version 1, a line of text, is not spoken. The format is section
//! 2.2 of HAProxy's `doc/proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the fixed part.
pub(crate) const HEAD_LEN: usize = 16;

/// Longest rest: addresses need 36 bytes, and what balancers add to them (TLVs) some hundred.
const REST_MAX: usize = 4096;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Whether the first bytes of a connection are those of such a header. No first packet of ours is as long as they say.
pub(crate) fn is_header(start: &[u8; 4]) -> bool {
    SIGNATURE.starts_with(start)
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadProxyHeader {
    /// Other bytes, or version 1.
    #[error("no PROXY protocol header of version 2")]
    Absent,
    /// Neither LOCAL nor PROXY.
    #[error("PROXY protocol header with command {0}")]
    Command(u8),
    /// More than any balancer has to say.
    #[error("PROXY protocol header of {0} bytes")]
    TooLong(usize),
    /// Too short for its addresses.
    #[error("PROXY protocol header is cut off")]
    CutOff,
}

/// The fixed part of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProxyHead {
    is_local: bool,
    family: u8,
    /// Bytes that follow.
    pub(crate) rest: usize,
}

/// Reads the fixed part.
pub(crate) fn head(bytes: &[u8; HEAD_LEN]) -> Result<ProxyHead, BadProxyHeader> {
    let [signature @ .., version_and_command, family, high, low] = bytes;
    if *signature != SIGNATURE || version_and_command >> 4 != 2 {
        return Err(BadProxyHeader::Absent);
    }
    let is_local = match version_and_command & 0xf {
        0 => true,
        1 => false,
        command => return Err(BadProxyHeader::Command(command)),
    };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    if rest > REST_MAX {
        return Err(BadProxyHeader::TooLong(rest));
    }
    Ok(ProxyHead { is_local, family: *family, rest })
}

/// The client that the balancer passes on. `None`: the connection is the balancer's own (a health check), or the client
/// has no IP address.
pub(crate) fn source(head: ProxyHead, rest: &[u8]) -> Result<Option<SocketAddr>, BadProxyHeader> {
    /// Address families in the high half of the byte.
    const INET: u8 = 1;
    const INET6: u8 = 2;
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    if head.is_local {
        return Ok(None);
    }
    // Source and destination address, source and destination port.
    let found = match head.family >> 4 {
        INET => rest.get(..12).and_then(|addresses| {
            let address: [u8; 4] = addresses.first_chunk().copied()?;
            Some((IpAddr::V4(Ipv4Addr::from(address)), port(8)?))
        }),
        INET6 => rest.get(..36).and_then(|addresses| {
            let address: [u8; 16] = addresses.first_chunk().copied()?;
            Some((IpAddr::V6(Ipv6Addr::from(address)), port(32)?))
        }),
        _ => return Ok(None),
    };
    found.map(|(address, port)| Some(SocketAddr::new(address, port))).ok_or(BadProxyHeader::CutOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn read(bytes: &[u8]) -> Result<Option<SocketAddr>, BadProxyHeader> {
        let (start, rest) = bytes.split_first_chunk().expect("a whole head");
        let head = head(start)?;
        source(head, &rest[..head.rest])
    }

    const V4: [u8; 12] = [10, 1, 2, 3, 10, 0, 0, 1, 0x12, 0x34, 0x19, 0x20];

    #[test]
    fn client_is_the_source_address() {
        assert_eq!(read(&header(0x21, 0x11, &V4)), Ok(Some("10.1.2.3:4660".parse().unwrap())));
        let with_more = [&V4[..], b"\x04\0\x01x"].concat();
        assert_eq!(read(&header(0x21, 0x11, &with_more)), Ok(Some("10.1.2.3:4660".parse().unwrap())));
        let mut v6 = [0; 36];
        (v6[15], v6[33]) = (1, 7);
        assert_eq!(read(&header(0x21, 0x21, &v6)), Ok(Some("[::1]:7".parse().unwrap())));
    }

    #[test]
    fn balancers_own_connection_has_no_other_source() {
        assert_eq!(read(&header(0x20, 0x00, b"")), Ok(None));
        assert_eq!(read(&header(0x20, 0x11, &V4)), Ok(None));
        assert_eq!(read(&header(0x21, 0x31, &[0; 216])), Ok(None), "Unix");
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(read(&header(0x11, 0x11, &V4)), Err(BadProxyHeader::Absent));
        assert_eq!(read(b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n"), Err(BadProxyHeader::Absent));
        assert_eq!(read(&header(0x22, 0x11, &V4)), Err(BadProxyHeader::Command(2)));
        assert_eq!(read(&header(0x21, 0x11, &V4[..11])), Err(BadProxyHeader::CutOff));
        assert_eq!(read(&header(0x21, 0x11, &[0; 4097])), Err(BadProxyHeader::TooLong(4097)));
        assert!(is_header(b"\r\n\r\n") && !is_header(b"\0\0\0\x08"));
    }
}
