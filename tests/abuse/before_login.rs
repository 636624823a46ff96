//! Before a client is logged in: first packets, TLS, SASL.

use crate::case::Stage::{Connected, Sasl, SaslProof, Tls};
use crate::case::{Case, answer, at, row, run};
use crate::support::frontend::{
    PROTOCOL_3_0, cancel_request, frame, gss_request, password, query, sasl_initial, ssl_request, startup,
};

/// A first packet with this length in its head, and this behind it.
fn packet(length: i32, rest: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), rest].concat()
}

fn version(major: u16, minor: u16) -> Vec<u8> {
    startup(u32::from(major) << 16 | u32::from(minor), &[("user", "app"), ("database", "app")])
}

/// A StartupMessage with this body behind its version.
fn body(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 8).unwrap();
    packet(length, &[&PROTOCOL_3_0.to_be_bytes(), body].concat())
}

fn scram(message: &str) -> Vec<u8> {
    sasl_initial("SCRAM-SHA-256", message.as_bytes())
}

fn long(n: usize) -> String {
    "x".repeat(n)
}

pub(crate) fn cases() -> Vec<Case> {
    [first_packets(), startups(), tls(), sasl(), proofs(), cancels()].into_iter().flatten().collect()
}

fn first_packets() -> Vec<Case> {
    vec![
        row("nothing", Connected, "", "E57014 end"),
        row("an HTTP request", Connected, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "end"),
        row("an SSH greeting", Connected, "SSH-2.0-OpenSSH_9.2\r\n", "end"),
        row("zeroes", Connected, [0; 64], "end"),
        row("ones", Connected, [0xff; 64], "end"),
        row("a length of 0", Connected, packet(0, &[]), "end"),
        row("a length of 3", Connected, packet(3, &[]), "end"),
        row("a length of 4", Connected, packet(4, &[]), "end"),
        row("a length of 7", Connected, packet(7, &[0, 3, 0]), "end"),
        row("a negative length", Connected, packet(-1, &[0, 3, 0, 0]), "end"),
        row("the least length", Connected, packet(i32::MIN, &[0, 3, 0, 0]), "end"),
        row("the largest length", Connected, packet(i32::MAX, &[0, 3, 0, 0]), "end"),
        row("a length of 10,001", Connected, packet(10_001, &[0, 3, 0, 0]), "end"),
        row("half a length", Connected, [0, 0], "E57014 end"),
        row("a length and no more", Connected, packet(100, &[]), "E57014 end"),
        row("half a StartupMessage", Connected, &version(3, 0)[..20], "E57014 end"),
        row("a Query instead of a StartupMessage", Connected, query("SELECT 1"), "end"),
        row("a password instead of a StartupMessage", Connected, password("app"), "end"),
        row("protocol 0.0", Connected, version(0, 0), "E0A000 end"),
        row("protocol 1.0", Connected, version(1, 0), "E0A000 end"),
        row("protocol 2.0", Connected, version(2, 0), "E0A000 end"),
        row("protocol 4.0", Connected, version(4, 0), "E0A000 end"),
        row("protocol 65535.65535", Connected, version(65535, 65535), "E0A000 end"),
        row("an unknown request code", Connected, version(1234, 1), "E0A000 end"),
        row("protocol 3.9999 is negotiated", Connected, version(3, 9999), "v R10"),
    ]
}

fn startups() -> Vec<Case> {
    let with = |name: &str, value: &str| startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app"), (name, value)]);
    vec![
        row("no parameters", Connected, body(b"\0"), "E28000 end"),
        row("no end of the parameters", Connected, body(b"user\0app\0"), "E08P01 end"),
        row("no end of a name", Connected, body(b"user"), "E08P01 end"),
        row("no end of a value", Connected, body(b"user\0app"), "E08P01 end"),
        row("a name without a value", Connected, body(b"user\0app\0database\0\0"), "E08P01 end"),
        row("bytes behind the end", Connected, body(b"user\0app\0\0more\0\0"), "E08P01 end"),
        row("an empty user", Connected, body(b"user\0\0\0"), "E28000 end"),
        row("a user that is no text", Connected, body(b"user\0\xff\xfe\0\0"), "E08P01 end"),
        row("a user twice", Connected, body(b"user\0app\0user\0ops\0\0"), "E08P01 end"),
        row("an unknown user", Connected, startup(PROTOCOL_3_0, &[("user", "nobody"), ("database", "app")]), "R10"),
        row("a user of 9,000 bytes", Connected, startup(PROTOCOL_3_0, &[("user", &long(9000))]), "R10"),
        row("a user with a newline", Connected, startup(PROTOCOL_3_0, &[("user", "a\nERROR b\x1b[2J")]), "R10"),
        row("replication that is no word", Connected, with("replication", "perhaps"), "E22023 end"),
        row("options without a value", Connected, with("options", "-c"), "R10"),
        row("options of 9,000 bytes", Connected, with("options", &long(9000)), "R10"),
        row(
            "the console, by a client",
            Connected,
            startup(PROTOCOL_3_0, &[("user", "app"), ("database", "pgweir")]),
            "R10",
        ),
        run("4,000 parameters", "R10", |target| {
            Box::pin(async move {
                let mut wire = at(target, Connected).await;
                let names: Vec<_> = (0..1200).map(|n| format!("p{n}")).collect();
                let mut params = vec![("user", "app"), ("database", "app")];
                params.extend(names.iter().map(|name| (name.as_str(), "1")));
                let _ = wire.try_send(&startup(PROTOCOL_3_0, &params)).await;
                answer(&mut wire, false, 1).await
            })
        }),
    ]
}

fn tls() -> Vec<Case> {
    let hello = [0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    vec![
        row("SSLRequest twice", Tls, ssl_request(), "end"),
        row("GSSENCRequest", Connected, gss_request(), "N"),
        row("GSSENCRequest twice", Connected, [gss_request(), gss_request()].concat(), "N E0A000 end"),
        row("GSSENCRequest and garbage", Connected, [gss_request(), vec![0xff; 100]].concat(), "N end"),
        row("SSLRequest and silence", Connected, ssl_request(), "S end"),
        row("plain text behind an SSLRequest", Connected, [ssl_request(), version(3, 0)].concat(), "end"),
        row("a Query behind an SSLRequest", Connected, [ssl_request(), query("SELECT 1")].concat(), "end"),
        row("zeroes for a ClientHello", Tls, [0; 512], "end"),
        row("random bytes for a ClientHello", Tls, (0..=255).cycle().take(4096).collect::<Vec<u8>>(), "end"),
        row("a StartupMessage for a ClientHello", Tls, version(3, 0), "end"),
        row("half a ClientHello", Tls, hello, "end"),
        row("an alert for a ClientHello", Tls, [0x15, 3, 1, 0, 2, 2, 40], "end"),
        row("a record of 65,535 bytes", Tls, [0x16, 3, 1, 0xff, 0xff, 1], "end"),
        row("an SSLv2 ClientHello", Tls, [0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], "end"),
        row("half a direct ClientHello", Connected, hello, "end"),
        row("a direct ClientHello that is none", Connected, [[0x16, 3, 1, 0, 5].as_slice(), &[9; 5]].concat(), "end"),
    ]
}

fn sasl() -> Vec<Case> {
    vec![
        row("SASL: silence", Sasl, "", "E57014 end"),
        row("SASL: a Query", Sasl, query("SELECT 1"), "E08P01 end"),
        row("SASL: a StartupMessage again", Sasl, version(3, 0), "E57014 end"),
        row("SASL: an empty message", Sasl, frame(b'p', b""), "E08P01 end"),
        row("SASL: no end of the mechanism", Sasl, frame(b'p', b"SCRAM-SHA-256"), "E08P01 end"),
        row("SASL: an unknown mechanism", Sasl, sasl_initial("PLAIN", b"x"), "E08P01 end"),
        row(
            "SASL: a mechanism that was not offered",
            Sasl,
            sasl_initial("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=x"),
            "E08P01 end",
        ),
        row("SASL: no response", Sasl, frame(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff"), "E08P01 end"),
        row(
            "SASL: a length beyond the message",
            Sasl,
            frame(b'p', b"SCRAM-SHA-256\0\0\0\xff\xffn,,n=,r=x"),
            "E08P01 end",
        ),
        row("SASL: a negative length", Sasl, frame(b'p', b"SCRAM-SHA-256\0\x80\0\0\0n,,n=,r=x"), "E08P01 end"),
        row("SASL: garbage", Sasl, scram("\u{1}\u{2}\u{3}"), "E08P01 end"),
        row("SASL: no nonce", Sasl, scram("n,,n="), "E08P01 end"),
        row("SASL: an empty nonce", Sasl, scram("n,,n=,r="), "E08P01 end"),
        row("SASL: an extension", Sasl, scram("n,,m=x,n=,r=abc"), "E08P01 end"),
        row("SASL: another identity", Sasl, scram("n,a=ops,n=,r=abc"), "E08P01 end"),
        row("SASL: channel binding that nobody offered", Sasl, scram("p=tls-unique,,n=,r=abc"), "E08P01 end"),
        row("SASL: a NUL in the nonce", Sasl, scram("n,,n=,r=a\0b"), "E08P01 end"),
        row("SASL: a name of 60,000 bytes", Sasl, scram(&format!("n,,n={},r=abc", long(60_000))), "R11"),
        row("SASL: a message of 100,000 bytes", Sasl, frame(b'p', &vec![b'x'; 100_000]), "E08P01 end"),
        row("SASL: a message of 2 GiB", Sasl, [b'p', 0x7f, 0xff, 0xff, 0xff, 1], "E08P01 end"),
        row("SASL: a negative message length", Sasl, [b'p', 0xff, 0xff, 0xff, 0xff], "E08P01 end"),
        row("SASL: a message length of 3", Sasl, [b'p', 0, 0, 0, 3], "E08P01 end"),
        row("SASL: half a message", Sasl, [b'p', 0, 0, 0, 90, b'S'], "E57014 end"),
    ]
}

fn proofs() -> Vec<Case> {
    let proof = |text: &str| frame(b'p', text.as_bytes());
    vec![
        row("proof: silence", SaslProof, "", "E57014 end"),
        row("proof: a Query", SaslProof, query("SELECT 1"), "E08P01 end"),
        row("proof: empty", SaslProof, proof(""), "E08P01 end"),
        row("proof: garbage", SaslProof, proof("\u{1}\u{2}"), "E08P01 end"),
        row(
            "proof: another nonce",
            SaslProof,
            proof("c=biws,r=other,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            "E08P01 end",
        ),
        row("proof: no proof", SaslProof, proof("c=biws,r=abc"), "E08P01 end"),
        row("proof: that is no base64", SaslProof, proof("c=biws,r=abc,p=***"), "E08P01 end"),
        row("proof: another binding", SaslProof, proof("c=eSws,r=abc,p=AAAA"), "E08P01 end"),
        row("proof: the first message again", SaslProof, scram("n,,n=,r=abc"), "E08P01 end"),
        row("proof: a plain password", SaslProof, password("app-secret"), "E08P01 end"),
        row(
            "proof: messages in a row",
            SaslProof,
            [proof("x"), query("SELECT 1"), query("SELECT 2")].concat(),
            "E08P01 end",
        ),
    ]
}

fn cancels() -> Vec<Case> {
    vec![
        row("a cancel of nobody", Connected, cancel_request(u32::MAX, &[1, 2, 3, 4]), "end"),
        row("a cancel without a secret", Connected, cancel_request(1, &[]), "end"),
        row("a cancel with a secret of 256 bytes", Connected, cancel_request(1, &[7; 256]), "end"),
        row("a cancel with a secret of 9,000 bytes", Connected, cancel_request(1, &[7; 9000]), "end"),
        row("half a cancel", Connected, &cancel_request(1, &[1, 2, 3, 4])[..9], "E57014 end"),
        row(
            "a cancel and a Query behind it",
            Connected,
            [cancel_request(1, &[0; 4]), query("SELECT 1")].concat(),
            "end",
        ),
    ]
}
