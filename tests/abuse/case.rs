//! A row of the table, and how it is done.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::frontend::{PROTOCOL_3_0, query, sasl_initial, startup};
use crate::support::{Endpoint, Frame, Proxy, Wire, password_of};

/// Silence of this length is the end of an answer that is longer than expected.
const SILENCE: Duration = Duration::from_millis(300);

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who is abused.
pub(crate) struct Target<'a> {
    pub(crate) proxy: &'a Proxy,
    pub(crate) endpoint: &'a Endpoint,
}

/// How far the client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has connected.
    Connected,
    /// Its SSLRequest was taken.
    Tls,
    /// It was asked to begin SCRAM.
    Sasl,
    /// It was asked for its proof.
    SaslProof,
    /// It is logged in.
    Ready,
    /// In a transaction.
    Transaction,
    /// In COPY FROM STDIN.
    Copying,
    /// Logged in to the console.
    Console,
    /// It has connected to the admin address; the answer is the status of the response.
    Http,
}

impl Stage {
    /// Postgres has it, too.
    pub(crate) fn is_of_postgres(self) -> bool {
        !matches!(self, Self::Console | Self::Http)
    }
}

type Run = dyn for<'a> Fn(&'a Target<'a>) -> Pin<Box<dyn Future<Output = String> + 'a>>;

pub(crate) enum Abuse {
    /// It behaves up to a stage, and then sends this.
    Bytes(Stage, Vec<u8>),
    /// Anything else; returns what came back.
    Run(Box<Run>),
}

/// One row.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) abuse: Abuse,
    pub(crate) answer: &'static str,
}

/// A row of bytes.
pub(crate) fn row(name: impl Into<String>, stage: Stage, bytes: impl Into<Vec<u8>>, answer: &'static str) -> Case {
    Case { name: name.into(), abuse: Abuse::Bytes(stage, bytes.into()), answer }
}

/// A row of anything else.
pub(crate) fn run(
    name: impl Into<String>,
    answer: &'static str,
    run: impl for<'a> Fn(&'a Target<'a>) -> Pin<Box<dyn Future<Output = String> + 'a>> + 'static,
) -> Case {
    Case { name: name.into(), abuse: Abuse::Run(Box::new(run)), answer }
}

impl Case {
    pub(crate) async fn run(&self, target: &Target<'_>) -> String {
        match &self.abuse {
            Abuse::Bytes(Stage::Http, bytes) => http(target, bytes).await,
            Abuse::Bytes(stage, bytes) => {
                let mut wire = at(target, *stage).await;
                // One that has closed already does not read all of it.
                let _ = timeout(PATIENCE, wire.try_send(bytes)).await;
                let expected = self.answer.split_whitespace().count();
                let came = answer(&mut wire, *stage == Stage::Connected, expected).await;
                // Every other one goes without a word.
                if self.name.len().is_multiple_of(2) {
                    wire.reset();
                }
                came
            }
            Abuse::Run(run) => run(target).await,
        }
    }

    /// It waits for a time limit: all of these run at once.
    pub(crate) fn is_slow(&self) -> bool {
        match self.abuse {
            Abuse::Bytes(Stage::Http, _) => self.answer == "end",
            Abuse::Bytes(..) => ["E57014", "silence"].iter().any(|wait| self.answer.contains(wait)),
            Abuse::Run(_) => false,
        }
    }
}

/// A client that has behaved so far.
pub(crate) async fn at(target: &Target<'_>, stage: Stage) -> Wire {
    let params = [("user", "app"), ("database", target.endpoint.dbname.as_str())];
    match stage {
        Stage::Connected => Wire::open(target.endpoint.addr).await,
        Stage::Tls => {
            let mut wire = Wire::open(target.endpoint.addr).await;
            wire.send(crate::support::frontend::ssl_request()).await;
            wire.byte().await;
            wire
        }
        Stage::Sasl | Stage::SaslProof => {
            let mut wire = Wire::open(target.endpoint.addr).await;
            wire.send(startup(PROTOCOL_3_0, &params)).await;
            assert_eq!(token(&wire.frame().await), "R10");
            if stage == Stage::SaslProof {
                let password = password_of("app");
                let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                wire.send(sasl_initial(SCRAM_SHA_256, scram.message())).await;
                assert_eq!(token(&wire.frame().await), "R11");
            }
            wire
        }
        Stage::Ready => target.endpoint.wire("app").await,
        Stage::Transaction => {
            let mut wire = target.endpoint.wire("app").await;
            wire.query("BEGIN").await;
            wire.query("SELECT 1").await;
            wire
        }
        Stage::Copying => {
            let mut wire = target.endpoint.wire("app").await;
            wire.query("CREATE TABLE IF NOT EXISTS copied (n int)").await;
            wire.send(query("COPY copied FROM STDIN")).await;
            wire.expect("G").await;
            wire
        }
        Stage::Console => target.proxy.database("pgweir").wire("ops").await,
        Stage::Http => Wire::over(TcpStream::connect(target.proxy.admin).await.expect("it accepts")),
    }
}

/// What comes back: as many messages as are expected, and more if they were others.
pub(crate) async fn answer(wire: &mut Wire, may_be_a_byte: bool, expected: usize) -> String {
    let mut came = Vec::new();
    loop {
        let patience = if came.len() < expected { PATIENCE } else { SILENCE };
        if came.len() == expected && came.last().is_some_and(|last: &String| last.starts_with('Z')) {
            break;
        }
        match timeout(patience, wire.next_or_byte(may_be_a_byte)).await {
            Ok(Some(Ok(frame))) => came.push(token(&frame)),
            Ok(Some(Err(byte))) => came.push(char::from(byte).to_string()),
            Ok(None) => {
                came.push("end".to_owned());
                break;
            }
            Err(_) if came.len() < expected => {
                came.push("silence".to_owned());
                break;
            }
            Err(_) => break,
        }
        if came.len() > 40 {
            break;
        }
    }
    came.join(" ")
}

pub(crate) fn token(frame: &Frame) -> String {
    match frame.tag {
        'E' => format!("E{}", frame.sqlstate()),
        'Z' => format!("Z{}", frame.text()),
        'R' => format!(
            "R{}",
            frame.body.last().copied().map_or(0, |_| i32::from_be_bytes(frame.body[..4].try_into().unwrap()))
        ),
        tag => tag.to_string(),
    }
}

/// Sends bytes to the admin address; the status of its answer, or `end`.
pub(crate) async fn http(target: &Target<'_>, bytes: &[u8]) -> String {
    use tokio::io::AsyncReadExt;
    let mut stream = TcpStream::connect(target.proxy.admin).await.expect("it accepts");
    let _ = stream.write_all(bytes).await;
    let mut head = [0; 12];
    match timeout(PATIENCE, stream.read_exact(&mut head)).await {
        Ok(Ok(_)) => String::from_utf8_lossy(&head[9..]).into_owned(),
        Ok(Err(_)) => "end".to_owned(),
        Err(_) => "silence".to_owned(),
    }
}
