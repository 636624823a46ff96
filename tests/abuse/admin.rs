//! The console and the admin address.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::case::Stage::{Console, Http};
use crate::case::{Case, http, row, run};
use crate::support::frontend::{
    bind, copy_data, execute, extended, frame, function_call, parse, password, query, sync,
};

fn long(n: usize) -> String {
    "x".repeat(n)
}

/// A request for this path with these lines in its head.
fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

/// An action with this head and body.
fn action(lines: &str, body: &str) -> String {
    let head = format!("POST /actions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    format!("{head}{lines}\r\n{body}")
}

pub(crate) fn cases() -> Vec<Case> {
    [console(), requests(), actions(), connections()].into_iter().flatten().collect()
}

fn console() -> Vec<Case> {
    vec![
        row("console: SQL", Console, query("SELECT * FROM pg_authid"), "E0A000 ZI"),
        row("console: a command with SQL behind it", Console, query("SHOW POOLS; DROP TABLE abused"), "E0A000 ZI"),
        row("console: a quote that does not end", Console, query("SHOW 'POOLS"), "E42601 ZI"),
        row("console: nothing", Console, query(""), "I ZI"),
        row("console: semicolons", Console, query(&";".repeat(10_000)), "I ZI"),
        row("console: an unknown database", Console, query("PAUSE nowhere"), "E3D000 ZI"),
        row("console: a limit that is no number", Console, query("LIMIT app many"), "E42601 ZI"),
        row("console: a client that is none", Console, query("KILL_CLIENT 18446744073709551616"), "E42601 ZI"),
        row("console: a command of 60,000 bytes", Console, query(&format!("SHOW {}", long(60_000))), "E42601 ZI"),
        row("console: a command of 100,000 bytes", Console, query(&long(100_000)), "E54000 end"),
        row("console: what is no text", Console, frame(b'Q', b"SHOW \xff\xfe\0"), "E42601 ZI"),
        row("console: a Query without its end", Console, frame(b'Q', b"SHOW POOLS"), "E08P01 end"),
        row("console: an unknown type", Console, frame(b'z', b""), "E08P01 end"),
        row("console: a negative length", Console, [b'Q', 0xff, 0xff, 0xff, 0xff], "E08P01 end"),
        row("console: a message of 2 GiB", Console, [b'Q', 0x7f, 0xff, 0xff, 0xff], "E08P01 end"),
        row("console: a password", Console, password("x"), "E08P01 end"),
        row("console: CopyData", Console, [copy_data(b"1\n"), query("SHOW VERSION")].concat(), "E08P01 end"),
        row("console: Function call", Console, function_call(1, &[]), "E08P01 end"),
        row("console: Bind of no statement", Console, [bind("", "no", &[]), sync()].concat(), "E26000 ZI"),
        row("console: Execute of no portal", Console, [execute("no", 0), sync()].concat(), "E34000 ZI"),
        row("console: a Parse without a body", Console, [frame(b'P', b""), sync()].concat(), "E08P01 end"),
        row(
            "console: a Bind without counts",
            Console,
            [parse("", "SHOW VERSION", &[]), frame(b'B', b"\0\0"), sync()].concat(),
            "1 E08P01 end",
        ),
        row(
            "console: an Execute without a number",
            Console,
            [extended("SHOW VERSION", &[]), frame(b'E', b"\0"), sync()].concat(),
            "1 2 T D C E08P01 end",
        ),
        row("console: commands in a row", Console, query("SHOW VERSION").repeat(8), "T D C ZI"),
    ]
}

fn requests() -> Vec<Case> {
    vec![
        row("http: garbage", Http, "\x01\x02\x03\x04\r\n\r\n", "400"),
        row("http: zeroes", Http, [0; 100], "400"),
        row("http: a StartupMessage", Http, [0, 0, 0, 8, 4, 210, 22, 47, 13, 10, 13, 10], "400"),
        row("http: an unknown method", Http, "BREW /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        row("http: an unknown version", Http, "GET /metrics HTTP/9.9\r\nHost: localhost\r\n\r\n", "400"),
        row("http: an unknown path", Http, get("/../../etc/passwd", ""), "404"),
        row("http: a path of 10,000 bytes", Http, get(&format!("/{}", long(10_000)), ""), "404"),
        row("http: a path of 100,000 bytes", Http, get(&format!("/{}", long(100_000)), ""), "431"),
        row("http: no host", Http, "GET /metrics HTTP/1.1\r\n\r\n", "403"),
        row("http: another host", Http, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403"),
        row("http: another host, for a probe", Http, "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", "200"),
        row("http: two hosts", Http, "GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "403"),
        row("http: a header of 100,000 bytes", Http, get("/healthz", &format!("X: {}\r\n", long(100_000))), "431"),
        row("http: 10,000 headers", Http, get("/healthz", &"X: y\r\n".repeat(10_000)), "431"),
        row("http: a header without a name", Http, get("/healthz", ": x\r\n"), "400"),
        row("http: a newline in a header", Http, get("/healthz", "X: a\n b\r\n"), "400"),
        row("http: two lengths", Http, get("/healthz", "Content-Length: 1\r\nContent-Length: 2\r\n"), "400"),
        row("http: a negative length", Http, get("/healthz", "Content-Length: -1\r\n"), "400"),
        row(
            "http: a length and chunks",
            Http,
            get("/healthz", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            "200",
        ),
        row("http: half a head", Http, "GET /healthz HT", "end"),
        row("http: silence", Http, "", "end"),
        row("http: CONNECT", Http, "CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
    ]
}

fn actions() -> Vec<Case> {
    const TOKEN: &str = "Authorization: Bearer a-token-of-24-characters\r\n";
    const JSON: &str = "Content-Type: application/json\r\n";
    vec![
        row("actions: no token", Http, action(JSON, "{}"), "401"),
        row(
            "actions: a wrong token",
            Http,
            action(&format!("{JSON}Authorization: Bearer a-token-of-24-characterS\r\n"), "{}"),
            "401",
        ),
        row(
            "actions: a token of 10,000 bytes",
            Http,
            action(&format!("{JSON}Authorization: Bearer {}\r\n", long(10_000)), "{}"),
            "401",
        ),
        row("actions: no JSON", Http, action(&format!("{JSON}{TOKEN}"), "nonsense"), "400"),
        row("actions: another type", Http, action(&format!("Content-Type: text/plain\r\n{TOKEN}"), "{}"), "400"),
        row("actions: deep JSON", Http, action(&format!("{JSON}{TOKEN}"), &"[".repeat(4000)), "400"),
        row("actions: a body of 1 MB", Http, action(&format!("{JSON}{TOKEN}"), &long(1_000_000)), "400"),
        row(
            "actions: another origin",
            Http,
            action(&format!("{JSON}{TOKEN}Origin: http://evil.example\r\n"), "{}"),
            "403",
        ),
        row(
            "actions: a body that never ends",
            Http,
            format!("POST /actions HTTP/1.1\r\nHost: localhost\r\n{JSON}{TOKEN}Content-Length: 10\r\n\r\n{{"),
            "end",
        ),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        run("http: 300 silent connections", "200", |target| {
            Box::pin(async move {
                let mut silent = Vec::new();
                for _ in 0..300 {
                    silent.push(TcpStream::connect(target.proxy.admin).await.unwrap());
                }
                http(target, get("/healthz", "").as_bytes()).await
            })
        }),
        run("http: 200 heads at a byte a time", "200", |target| {
            Box::pin(async move {
                let mut slow = Vec::new();
                for _ in 0..200 {
                    slow.push(TcpStream::connect(target.proxy.admin).await.unwrap());
                }
                for byte in get("/metrics", "").as_bytes().iter().take(20) {
                    for stream in &mut slow {
                        let _ = stream.write_all(&[*byte]).await;
                    }
                }
                http(target, get("/readyz", "").as_bytes()).await
            })
        }),
        run("http: 100 that ask for everything and read nothing", "200", |target| {
            Box::pin(async move {
                let mut deaf = Vec::new();
                for n in 0..100 {
                    let mut stream = TcpStream::connect(target.proxy.admin).await.unwrap();
                    let path = ["/events", "/metrics", "/status", "/"][n % 4];
                    let _ = stream.write_all(get(path, "").as_bytes()).await;
                    deaf.push(stream);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                http(target, get("/healthz", "").as_bytes()).await
            })
        }),
    ]
}
