//! First packets of a connection, before the protocol version is agreed.
//!
//! Pure and strict, since every byte here comes from someone who has not logged in: [`framing`] says how long the
//! packet is, [`parse`] takes exactly that many bytes, and the `build` functions make the packets pgweir sends to
//! Postgres. The rules are those of `ProcessStartupPacket` in Postgres's `backend_startup.c`. The listener decides
//! about TLS and must drop a connection that has bytes waiting behind [`First::Ssl`].

use std::fmt;

use super::build;
use super::peer::{PEER_CODE, PeerQuestion};

/// Longest first packet, length word included (Postgres: `MAX_STARTUP_PACKET_LENGTH`).
pub(crate) const PACKET_MAX: usize = 10_000;

/// The newest minor version of protocol 3 spoken here.
pub(crate) const MINOR_MAX: u16 = 2;

/// Shortest and longest secret of a cancel key.
pub(crate) const CANCEL_SECRET: std::ops::RangeInclusive<usize> = 4..=256;

/// The packet that asks for TLS; the answer is one byte, `S` or `N`.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Major and minor "version" of a CancelRequest.
const CANCEL_CODE: (u16, u16) = (1234, 5678);
/// Major and minor "version" of an SSLRequest.
const SSL_CODE: (u16, u16) = (1234, 5679);
/// Major and minor "version" of a GSSENCRequest.
const GSS_CODE: (u16, u16) = (1234, 5680);

/// First byte of a TLS record that carries a handshake: direct TLS, no SSLRequest.
const TLS_HANDSHAKE: u8 = 0x16;

/// The kind of the first packet of a connection, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Too few bytes to tell.
    Partial,
    /// A TLS handshake without SSLRequest.
    DirectTls,
    /// A packet of this many bytes, length word included: `8..=PACKET_MAX`.
    Packet(usize),
}

/// A whole first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest; nothing is answered.
    Cancel(CancelKey),
    /// A question of another pgweir.
    Peer(PeerQuestion),
    /// StartupMessage.
    Startup(Startup),
}

/// Key of a cancel, as BackendKeyData hands it out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// Process id of the backend.
    pub pid: i32,
    /// [`CANCEL_SECRET`] bytes; compare in constant time.
    pub secret: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// A checked StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version asked for; answer with [`Startup::negotiation`].
    pub minor: u16,
    /// `user`, never empty.
    pub user: String,
    /// `database`; the user's name where the client gave none, as in Postgres.
    pub database: String,
    /// `options` as sent; see [`split_options`].
    pub options: Option<String>,
    /// `replication`.
    pub replication: Replication,
    /// Everything else, in the client's order; of two with one name the later counts.
    pub parameters: Vec<(String, String)>,
    /// Names that start with `_pq_.`: protocol extensions, none of which exist here.
    pub unknown_pq: Vec<String>,
}

/// The replication protocol that a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// None: an ordinary connection.
    No,
    Physical,
    /// A walsender bound to a database.
    Logical,
}

/// Reason to refuse a first packet. The texts are Postgres's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Outside 8 to [`PACKET_MAX`], or an SSLRequest that is longer than its code (08P01).
    #[error("invalid length of startup packet")]
    Length(u32),
    /// Neither protocol 3 nor a request code (0A000).
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u16, u16),
    /// Odd count, no terminator, or bytes behind it (08P01).
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A parameter that identifies the client comes twice (08P01).
    #[error("startup packet names \"{0}\" twice")]
    Duplicate(&'static str),
    /// A name or value is not UTF-8 (08P01).
    #[error("startup packet is not UTF-8")]
    NotUtf8,
    /// No `user` (28000).
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// `replication` is neither a boolean nor `database` (22023).
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
    /// The secret is shorter or longer than [`CANCEL_SECRET`] (08P01).
    #[error("invalid length of cancel key in cancel request packet")]
    CancelSecret(usize),
}

/// Reason to refuse `options`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadOptions {
    /// Not `-c name=value` or `--name=value`.
    #[error("invalid command-line argument for server process: {0}")]
    Unknown(String),
    /// `-c` or `--` without `name=value`.
    #[error("{0} requires a value")]
    NoValue(String),
}

/// Reason why a StartupMessage cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// An empty name, or a NUL in name or value: Postgres would read other parameters than were meant.
    #[error("startup parameter \"{0}\" is empty or contains a NUL")]
    Parameter(String),
    /// Longer than [`PACKET_MAX`].
    #[error("startup packet of {0} bytes exceeds {PACKET_MAX}")]
    TooLong(usize),
}

/// The kind of the packet that starts with `bytes`, and its length. Needs at most four bytes.
pub fn framing(bytes: &[u8]) -> Result<Framing, Malformed> {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Framing::DirectTls);
    }
    let Some(length) = bytes.first_chunk::<4>() else {
        return Ok(Framing::Partial);
    };
    let length = u32::from_be_bytes(*length);
    match length {
        8..=10_000 => Ok(Framing::Packet(length as usize)),
        _ => Err(Malformed::Length(length)),
    }
}

/// Parses one whole first packet, as long as [`framing`] said.
pub fn parse(packet: &[u8]) -> Result<First, Malformed> {
    let wrong_length = || Malformed::Length(u32::try_from(packet.len()).unwrap_or(u32::MAX));
    let (&[l0, l1, l2, l3, j0, j1, n0, n1], body) = packet.split_first_chunk::<8>().ok_or_else(wrong_length)?;
    if framing(&[l0, l1, l2, l3])? != Framing::Packet(packet.len()) {
        return Err(wrong_length());
    }
    match (u16::from_be_bytes([j0, j1]), u16::from_be_bytes([n0, n1])) {
        SSL_CODE if body.is_empty() => Ok(First::Ssl),
        GSS_CODE if body.is_empty() => Ok(First::Gss),
        SSL_CODE | GSS_CODE => Err(wrong_length()),
        CANCEL_CODE => parse_cancel(body).map(First::Cancel),
        PEER_CODE => PeerQuestion::parse(body).map(First::Peer).ok_or_else(wrong_length),
        (3, minor) => parse_startup(minor, body).map(First::Startup),
        (major, minor) => Err(Malformed::Version(major, minor)),
    }
}

fn parse_cancel(body: &[u8]) -> Result<CancelKey, Malformed> {
    let (pid, secret) = body.split_first_chunk::<4>().ok_or(Malformed::CancelSecret(0))?;
    if !CANCEL_SECRET.contains(&secret.len()) {
        return Err(Malformed::CancelSecret(secret.len()));
    }
    Ok(CancelKey { pid: i32::from_be_bytes(*pid), secret: secret.into() })
}

fn parse_startup(minor: u16, body: &[u8]) -> Result<Startup, Malformed> {
    let body = std::str::from_utf8(body).map_err(|_| Malformed::NotUtf8)?;
    let body = body.strip_suffix('\0').ok_or(Malformed::Layout)?;
    let (mut user, mut database, mut options, mut replication) = (None, None, None, None);
    let (mut parameters, mut unknown_pq) = (Vec::new(), Vec::new());

    // The rest is `name NUL value NUL` any number of times; an empty name would end the list early.
    let mut fields = body.split_terminator('\0');
    while let Some(name) = fields.next() {
        let value = fields.next().filter(|_| !name.is_empty()).ok_or(Malformed::Layout)?;
        match name {
            "user" => once(&mut user, "user", value)?,
            "database" => once(&mut database, "database", value)?,
            "options" => once(&mut options, "options", value)?,
            "replication" => once(&mut replication, "replication", value)?,
            _ if name.starts_with("_pq_.") => unknown_pq.push(name.to_owned()),
            _ => parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    if !body.is_empty() && !body.ends_with('\0') {
        return Err(Malformed::Layout);
    }

    let user = user.filter(|user| !user.is_empty()).ok_or(Malformed::NoUser)?;
    let database = database.filter(|database| !database.is_empty()).unwrap_or_else(|| user.clone());
    let replication = replication.as_deref().map_or(Ok(Replication::No), parse_replication)?;
    Ok(Startup { minor, user, database, options, replication, parameters, unknown_pq })
}

/// Postgres takes the last of two; here a second name that identifies the client must be a mistake or a trick.
fn once(slot: &mut Option<String>, name: &'static str, value: &str) -> Result<(), Malformed> {
    match slot.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(Malformed::Duplicate(name)),
    }
}

/// `database`, or a boolean as `parse_bool` reads it: any prefix that is not ambiguous.
fn parse_replication(value: &str) -> Result<Replication, Malformed> {
    let lower = value.to_ascii_lowercase();
    let prefix_of = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if value == "database" {
        Ok(Replication::Logical)
    } else if lower == "1" || prefix_of("true", 1) || prefix_of("yes", 1) || lower == "on" {
        Ok(Replication::Physical)
    } else if lower == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) {
        Ok(Replication::No)
    } else {
        Err(Malformed::Replication(value.to_owned()))
    }
}

impl Startup {
    /// The minor version both sides speak: 2 hands out long cancel keys, 0 and 1 four-byte ones.
    pub fn agreed_minor(&self) -> u16 {
        self.minor.min(MINOR_MAX)
    }

    /// The NegotiateProtocolVersion to send before anything else, if the client asked for more than there is. It is not
    /// sent for 3.1, and the connection goes on as 3.1, as Postgres 18 does.
    pub fn negotiation(&self) -> Option<Vec<u8>> {
        if self.minor <= MINOR_MAX && self.unknown_pq.is_empty() {
            return None;
        }
        let mut frame = Vec::new();
        let agreed = 3 << 16 | i32::from(self.agreed_minor());
        build::negotiate_protocol_version(&mut frame, agreed, &self.unknown_pq);
        Some(frame)
    }
}

/// Splits `options` into settings, as `pg_split_opts` and the switches of a backend do: words at unescaped white space,
/// `\` takes the next byte as it is, `-c name=value`, `-cname=value` and `--name=value` set, dashes of a name are
/// underscores. The other switches of `postgres` are refused.
pub(crate) fn split_options(options: &str) -> Result<Vec<(String, String)>, BadOptions> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") if word == "-c" => words.next().ok_or_else(|| BadOptions::NoValue(word.clone()))?,
            Some("") | None => return Err(BadOptions::Unknown(word)),
            Some(assignment) => assignment.to_owned(),
        };
        match assignment.split_once('=') {
            Some((name, value)) if !name.is_empty() => settings.push((name.replace('-', "_"), value.to_owned())),
            _ if word.starts_with("--") => return Err(BadOptions::NoValue(word)),
            _ => return Err(BadOptions::NoValue(format!("-c {assignment}"))),
        }
    }
    Ok(settings)
}

fn split_words(options: &str) -> Vec<String> {
    // isspace() of the C locale; Rust's `is_ascii_whitespace` lacks the vertical tab.
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let mut words = Vec::new();
    let mut rest = options.trim_start_matches(is_space).chars();
    while !rest.as_str().is_empty() {
        let mut word = String::new();
        while let Some(c) = rest.next().filter(|&c| !is_space(c)) {
            // A backslash at the very end is ignored.
            word.extend(if c == '\\' { rest.next() } else { Some(c) });
        }
        words.push(word);
        rest = rest.as_str().trim_start_matches(is_space).chars();
    }
    words
}

/// A StartupMessage towards Postgres.
pub fn build_startup<'a>(
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<u8>, Unsendable> {
    let mut packet = vec![0, 0, 0, 0, 0, 3];
    packet.extend(minor.to_be_bytes());
    for (name, value) in parameters {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return Err(Unsendable::Parameter(name.replace('\0', "\u{fffd}")));
        }
        for text in [name, value] {
            packet.extend(text.as_bytes());
            packet.push(0);
        }
    }
    packet.push(0);
    if packet.len() > PACKET_MAX {
        return Err(Unsendable::TooLong(packet.len()));
    }
    let length = word(packet.len());
    packet[..4].copy_from_slice(&length);
    Ok(packet)
}

/// A CancelRequest towards Postgres.
pub(crate) fn build_cancel(key: &CancelKey) -> Vec<u8> {
    let mut packet = Vec::with_capacity(12 + key.secret.len());
    packet.extend(word(12 + key.secret.len()));
    packet.extend(CANCEL_CODE.0.to_be_bytes());
    packet.extend(CANCEL_CODE.1.to_be_bytes());
    packet.extend(key.pid.to_be_bytes());
    packet.extend(&*key.secret);
    packet
}

fn word(n: usize) -> [u8; 4] {
    u32::try_from(n).expect("packets built here are far below 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cancel_key::InstanceNumber;
    use proptest::prelude::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        [&word(8 + body.len()), &code.to_be_bytes(), body].concat()
    }

    fn startup(body: &[u8]) -> Result<Startup, Malformed> {
        match parse(&packet(0x0003_0000, body))? {
            First::Startup(startup) => Ok(startup),
            other => panic!("not a startup: {other:?}"),
        }
    }

    fn question(from: u64, random: u64) -> PeerQuestion {
        PeerQuestion { from, number: InstanceNumber::new(random) }
    }

    #[test]
    fn question_of_a_peer_has_one_length() {
        let whole = question(1, 2).packet();
        for length in 8..whole.len() {
            let mut packet = whole[..length].to_vec();
            packet[3] = u8::try_from(length).unwrap();
            assert!(matches!(parse(&packet), Err(Malformed::Length(_))), "{length}");
        }
    }

    #[test]
    fn length_is_known_after_four_bytes_and_bounded() {
        assert_eq!(framing(b""), Ok(Framing::Partial));
        assert_eq!(framing(&[0, 0, 0]), Ok(Framing::Partial));
        assert_eq!(framing(&[0, 0, 0, 8]), Ok(Framing::Packet(8)));
        assert_eq!(framing(&[0, 0, 0x27, 0x10, 9]), Ok(Framing::Packet(10_000)));
        assert_eq!(framing(&[0, 0, 0x27, 0x11]), Err(Malformed::Length(10_001)));
        assert_eq!(framing(&[0, 0, 0, 7]), Err(Malformed::Length(7)));
        assert_eq!(framing(b"GET / HTTP/1.1"), Err(Malformed::Length(0x4745_5420)));
        assert_eq!(framing(&[0xff; 4]), Err(Malformed::Length(u32::MAX)));
    }

    #[test]
    fn one_byte_tells_direct_tls() {
        assert_eq!(framing(&[0x16]), Ok(Framing::DirectTls));
        assert_eq!(framing(&[0x16, 3, 1, 2, 0]), Ok(Framing::DirectTls));
    }

    #[test]
    fn requests_are_recognised_and_carry_nothing() {
        assert_eq!(parse(&SSL_REQUEST), Ok(First::Ssl));
        assert_eq!(parse(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]), Ok(First::Gss));
        assert_eq!(parse(&packet(80_877_103, b"x")), Err(Malformed::Length(9)));
        assert_eq!(parse(&packet(80_877_104, &[0; 4])), Err(Malformed::Length(12)));
    }

    #[test]
    fn packet_must_be_as_long_as_it_says() {
        let mut glued = SSL_REQUEST.to_vec();
        glued.push(0);
        assert_eq!(parse(&glued), Err(Malformed::Length(9)));
        assert_eq!(parse(&SSL_REQUEST[..7]), Err(Malformed::Length(7)));
        assert_eq!(parse(&[]), Err(Malformed::Length(0)));
    }

    #[test]
    fn startup_is_split_into_its_parts() {
        let parsed = startup(b"user\0web\0database\0app\0options\0-c a=b\0application_name\0\0TimeZone\0UTC\0\0");
        let expected = Startup {
            minor: 0,
            user: "web".into(),
            database: "app".into(),
            options: Some("-c a=b".into()),
            replication: Replication::No,
            parameters: vec![("application_name".into(), "".into()), ("TimeZone".into(), "UTC".into())],
            unknown_pq: vec![],
        };
        assert_eq!(parsed, Ok(expected));
    }

    #[test]
    fn database_defaults_to_the_user() {
        assert_eq!(startup(b"user\0web\0\0").unwrap().database, "web");
        assert_eq!(startup(b"user\0web\0database\0\0\0").unwrap().database, "web");
    }

    #[test]
    fn startup_without_user_is_refused() {
        for body in [&b"\0"[..], b"database\0app\0\0", b"user\0\0\0"] {
            assert_eq!(startup(body), Err(Malformed::NoUser), "{body:?}");
        }
    }

    #[test]
    fn broken_layouts_are_refused() {
        for body in [
            &b""[..],
            b"user\0web\0",
            b"user\0web",
            b"user\0web\0x",
            b"user\0web\0x\0",
            b"user\0web\0x\0\0",
            b"user\0web\0\0\0",
            b"user\0web\0\0extra\0\0",
            b"user\0web\0\0a\0b\0\0",
            b"\0\0",
        ] {
            assert_eq!(startup(body), Err(Malformed::Layout), "{:?}", String::from_utf8_lossy(body));
        }
        assert_eq!(startup(b"user\0\xff\0\0"), Err(Malformed::NotUtf8));
    }

    #[test]
    fn identity_given_twice_is_refused_but_a_setting_is_not() {
        assert_eq!(startup(b"user\0a\0user\0b\0\0"), Err(Malformed::Duplicate("user")));
        assert_eq!(startup(b"user\0a\0database\0b\0database\0b\0\0"), Err(Malformed::Duplicate("database")));
        assert_eq!(startup(b"user\0a\0x\0one\0x\0two\0\0").unwrap().parameters.len(), 2);
    }

    #[test]
    fn other_protocols_are_refused_in_postgres_words() {
        for (code, named) in [(0x0002_0000, "2.0"), (0x0004_0001, "4.1"), (0x04d2_0001, "1234.1")] {
            let refusal = parse(&packet(code, b"user\0a\0\0")).unwrap_err().to_string();
            assert_eq!(refusal, format!("unsupported frontend protocol {named}: server supports 3.0 to 3.2"));
        }
    }

    #[test]
    fn replication_is_read_as_postgres_reads_it() {
        let read =
            |value: &str| startup(format!("user\0a\0replication\0{value}\0\0").as_bytes()).map(|s| s.replication);
        for value in ["true", "T", "yes", "on", "1"] {
            assert_eq!(read(value), Ok(Replication::Physical), "{value}");
        }
        for value in ["false", "n", "of", "0"] {
            assert_eq!(read(value), Ok(Replication::No), "{value}");
        }
        assert_eq!(read("database"), Ok(Replication::Logical));
        for value in ["", "o", "Database", "truex", "2"] {
            assert_eq!(read(value), Err(Malformed::Replication(value.into())), "{value}");
        }
    }

    #[test]
    fn newer_minor_is_negotiated_down_to_3_2() {
        let First::Startup(asked) = parse(&packet(0x0003_270f, b"user\0a\0\0")).unwrap() else { panic!() };
        assert_eq!((asked.minor, asked.agreed_minor()), (9999, 2));
        assert_eq!(asked.negotiation().unwrap(), b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0");
    }

    #[test]
    fn known_minors_need_no_negotiation() {
        for minor in 0..=2 {
            let First::Startup(asked) = parse(&packet(0x0003_0000 + minor, b"user\0a\0\0")).unwrap() else { panic!() };
            assert_eq!((u32::from(asked.agreed_minor()), asked.negotiation()), (minor, None));
        }
    }

    #[test]
    fn unknown_protocol_options_are_listed_back() {
        let asked = startup(b"user\0a\0_pq_.one\x001\0_pq_.two\0\0\0").unwrap();
        assert!(asked.parameters.is_empty());
        assert_eq!(asked.negotiation().unwrap(), b"v\0\0\0\x1e\0\x03\0\0\0\0\0\x02_pq_.one\0_pq_.two\0");
    }

    #[test]
    fn as_many_unknown_options_as_fit_are_listed_back() {
        let options = "_pq_.\0\0".repeat((PACKET_MAX - 20) / 7);
        let asked = startup(format!("user\0a\0{options}\0").as_bytes()).unwrap();
        assert_eq!(asked.unknown_pq.len(), 1425);
        assert_eq!(asked.negotiation().unwrap().len(), 13 + 1425 * 6);
    }

    #[test]
    fn cancel_keys_have_four_to_256_bytes() {
        let read = |secret: usize| parse(&packet(80_877_102, &[&7i32.to_be_bytes()[..], &vec![9; secret]].concat()));
        for length in [4, 32, 256] {
            assert_eq!(read(length), Ok(First::Cancel(CancelKey { pid: 7, secret: vec![9; length].into() })));
        }
        for length in [0, 3, 257] {
            assert_eq!(read(length), Err(Malformed::CancelSecret(length)));
        }
        assert_eq!(parse(&packet(80_877_102, &[1, 2])), Err(Malformed::CancelSecret(0)));
    }

    #[test]
    fn cancel_key_does_not_print_its_secret() {
        assert_eq!(format!("{:?}", CancelKey { pid: 7, secret: vec![42; 4].into() }), "CancelKey { pid: 7, .. }");
    }

    #[test]
    fn built_packets_parse_back() {
        let key = CancelKey { pid: -5, secret: vec![1; 32].into() };
        assert_eq!(parse(&build_cancel(&key)), Ok(First::Cancel(key)));
        let built = build_startup(2, [("user", "web"), ("database", "app"), ("x", "")]).unwrap();
        let First::Startup(parsed) = parse(&built).unwrap() else { panic!() };
        assert_eq!((parsed.minor, &*parsed.user, parsed.parameters.len()), (2, "web", 1));
    }

    #[test]
    fn a_nul_cannot_smuggle_a_parameter() {
        for bad in [("", "x"), ("a\0b", "x"), ("a", "x\0user")] {
            assert!(matches!(build_startup(0, [bad]), Err(Unsendable::Parameter(_))), "{bad:?}");
        }
        let fits = "x".repeat(PACKET_MAX - 12);
        assert_eq!(build_startup(0, [("a", &*fits)]).unwrap().len(), PACKET_MAX);
        assert_eq!(build_startup(0, [("ab", &*fits)]), Err(Unsendable::TooLong(PACKET_MAX + 1)));
    }

    #[test]
    fn options_are_split_as_postgres_splits_them() {
        let split = |options| split_options(options).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(split(""), []);
        assert_eq!(split(" \t\x0b "), []);
        assert_eq!(split("-c a=b  -cc=d --e-f=g-h "), [pair("a", "b"), pair("c", "d"), pair("e_f", "g-h")]);
        assert_eq!(split(r"-c search_path=a,\ b\\c"), [pair("search_path", r"a, b\c")]);
        assert_eq!(split(r"--a=\-\"), [pair("a", "-")]);
        assert_eq!(split("--a=b=c --d="), [pair("a", "b=c"), pair("d", "")]);
        assert_eq!(split("-c --a=b"), [pair("__a", "b")]);
    }

    #[test]
    fn options_that_set_nothing_are_refused() {
        for (options, why) in [
            ("-e", "invalid command-line argument for server process: -e"),
            ("a=b", "invalid command-line argument for server process: a=b"),
            ("--", "invalid command-line argument for server process: --"),
            ("-c", "-c requires a value"),
            ("-c a", "-c a requires a value"),
            ("-ca", "-c a requires a value"),
            ("--a", "--a requires a value"),
            ("-c =b", "-c =b requires a value"),
        ] {
            assert_eq!(split_options(options).unwrap_err().to_string(), why, "{options}");
        }
    }

    proptest! {
        #[test]
        fn question_of_a_peer_is_read_as_it_was_written(from: u64, random: u64) {
            let question = question(from, random);
            prop_assert_eq!(parse(&question.packet()), Ok(First::Peer(question)));
        }

        #[test]
        fn no_bytes_panic_and_what_parses_survives_a_rebuild(
            code in prop_oneof![Just(0x0003_0000u32), Just(80_877_102), any::<u32>()],
            body: Vec<u8>,
        ) {
            let _ = framing(&body);
            let _ = parse(&body);
            if let Ok(First::Startup(startup)) = parse(&packet(code, &body)) {
                prop_assert!(!startup.user.is_empty());
                let _ = startup.negotiation();
            }
        }

        #[test]
        fn no_options_panic(options in "[-c=a\\\\ \t]*") {
            let _ = split_options(&options);
        }

        #[test]
        fn any_parameters_go_through(pairs in prop::collection::vec(("[a-z]{5,9}x", "[^\0]{0,20}"), 0..9)) {
            let all = pairs.iter().map(|(n, v)| (&**n, &**v)).chain([("user", "u")]);
            let First::Startup(parsed) = parse(&build_startup(0, all).unwrap()).unwrap() else { panic!() };
            prop_assert_eq!(parsed.parameters, pairs);
        }
    }
}
