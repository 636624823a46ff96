//! Actions over HTTP, as the status page sends them: one command of the console at a time, for those who know
//! `admin.token`.
//!
//! A page from elsewhere in an operator's browser neither knows the token nor can have it sent. It is refused by its
//! origin all the same, whatever name it got for this address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Uri};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::command::{Action, FollowUp};
use super::statement::{self, ConsoleStatement};
use crate::config::{Admin, Secret};
use crate::error::ConsoleFault;
use crate::error::sqlstate;
use crate::proxy::Proxy;
use crate::session::context::Inbox;

/// Actions at once: wrong guesses shall not take the places of those who scrape.
const ACTIONS_MAX: usize = 4;

/// Longest request.
const BODY_MAX: usize = 8 * 1024;

/// Time that a wrong guess costs.
const DELAY: Duration = Duration::from_millis(500);

/// The reason an action was refused.
#[derive(Debug, Error)]
pub(super) enum ActionRefusal {
    #[error("admin.token is not set, so nobody may act here")]
    Off,
    #[error("the token is wrong")]
    Token,
    #[error("pages from {0:?} may not act; if this is how pgweir is reached, name its host in admin.hosts")]
    Origin(String),
    #[error("too many actions at once")]
    TooMany,
    #[error(
        "an action is JSON (Content-Type: application/json) of up to {BODY_MAX} bytes: {{\"command\": \"PAUSE app\"}}"
    )]
    Body,
    #[error("one command at a time, and one that changes something: SHOW is for the console")]
    NoAction,
    #[error(transparent)]
    Fault(#[from] ConsoleFault),
}

impl ActionRefusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Off | Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Body | Self::NoAction => StatusCode::BAD_REQUEST,
            Self::Fault(ConsoleFault::GoingDown) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Fault(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// The error as the console would report it.
    pub(super) fn shown(&self) -> Value {
        match self {
            Self::Fault(fault) => {
                let report = sqlstate::console(fault);
                json!({ "error": report.message, "sqlstate": report.code, "detail": report.detail, "hint": report.hint })
            }
            other => json!({ "error": other.to_string() }),
        }
    }
}

/// Carries actions out, a few at once.
#[derive(Debug)]
pub(super) struct ActionHandler {
    inbox: Inbox,
    places: Semaphore,
}

impl ActionHandler {
    /// The worker of this inbox carries them out.
    pub(super) fn new(inbox: Inbox) -> Self {
        Self { inbox, places: Semaphore::new(ACTIONS_MAX) }
    }

    /// Carries out the action of a request from `peer`; the outcome as JSON.
    pub(super) async fn handle(
        &self,
        proxy: &Arc<Proxy>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Result<Value, ActionRefusal> {
        let _place = self.places.try_acquire().map_err(|_| ActionRefusal::TooMany)?;
        if let Err(refusal) = check(request.headers(), &proxy.config.load().admin) {
            tracing::warn!(client.addr = %peer, %refusal, "action over HTTP refused");
            if matches!(refusal, ActionRefusal::Token) {
                sleep(DELAY).await;
            }
            return Err(refusal);
        }
        let is_json = text(request.headers(), &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        if !is_json {
            return Err(ActionRefusal::Body);
        }
        let body = Limited::new(request.into_body(), BODY_MAX).collect().await.map_err(|_| ActionRefusal::Body)?;
        let Some(action) = read(&body.to_bytes())? else { return Ok(json!({ "done": null, "notices": [] })) };
        tracing::info!(client.addr = %peer, command = &*action.typed, "action over HTTP");
        let tag = action.kind.tag;
        let ran = self.inbox.run(move |worker| action.run(worker, STATUS_PAGE, &peer.to_string())).await;
        let notices = match ran.ok_or(ConsoleFault::GoingDown)?? {
            FollowUp::Nothing => Vec::new(),
            FollowUp::Wait(wait) => (wait.pending)(proxy).into_iter().collect(),
            FollowUp::Later(task) => task.await?,
        };
        Ok(json!({ "done": tag, "notices": notices }))
    }
}

/// The author of orders that are given over HTTP: whoever has the token.
const STATUS_PAGE: &str = "the status page";

/// Whether a browser asks for this address under a name that is really its own. A page from elsewhere can have its own
/// name lead here and read the answers as its own; it cannot take an address or `localhost` as its name.
pub(super) fn has_known_host(headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut given = headers.get_all(HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let name = name_of(&host);
    is_sure(name) || hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The host without the brackets of IPv6.
fn name_of(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

/// No name server decides where it leads.
fn is_sure(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the sender may act.
fn check(headers: &HeaderMap, admin: &Admin) -> Result<(), ActionRefusal> {
    let token = admin.token.as_ref().ok_or(ActionRefusal::Off)?;
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        if !is_ours(&origin, text(headers, &HOST), &admin.hosts) {
            return Err(ActionRefusal::Origin(origin.into_owned()));
        }
    }
    match text(headers, &AUTHORIZATION).is_some_and(|given| knows(given, token)) {
        true => Ok(()),
        false => Err(ActionRefusal::Token),
    }
}

/// A page of this origin came from here. A name could have been made to lead here, so it has to be one of `hosts`; an
/// address cannot. A program that is no page sends no origin.
fn is_ours(origin: &str, host: Option<&str>, hosts: &[String]) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let Some(theirs) = origin.authority() else { return false };
    let name = name_of(theirs);
    hosts.iter().any(|known| known == name) || is_sure(name) && host == Some(theirs.as_str())
}

/// Compares in a time that tells nothing of the token, its length included.
fn knows(given: &str, token: &Secret) -> bool {
    let Some((scheme, given)) = given.split_once(' ') else { return false };
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    let is_same = hash(given.trim()).as_ref().ct_eq(hash(token.expose()).as_ref());
    scheme.eq_ignore_ascii_case("bearer") && bool::from(is_same)
}

/// `{"command": "PAUSE app"}`. An empty command does nothing; its answer says that the token is right.
fn read(body: &[u8]) -> Result<Option<Action>, ActionRefusal> {
    let request: Value = serde_json::from_slice(body).map_err(|_| ActionRefusal::Body)?;
    let text = request.get("command").and_then(Value::as_str).ok_or(ActionRefusal::Body)?;
    let mut statements = statement::parse(text)?;
    match (statements.pop(), statements.is_empty()) {
        (None, _) => Ok(None),
        (Some(ConsoleStatement::Act(action)), true) => Ok(Some(action)),
        _ => Err(ActionRefusal::NoAction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_came_from_here_may_act() {
        let hosts = ["pgweir.internal".to_owned()];
        let ours = [
            ("http://127.0.0.1:9432", "127.0.0.1:9432"),
            ("http://[::1]:9432", "[::1]:9432"),
            ("http://localhost:9432", "localhost:9432"),
            ("http://10.0.0.7", "10.0.0.7"),
            ("https://pgweir.internal", "pgweir.internal"),
            ("https://pgweir.internal", "127.0.0.1:9432"),
        ];
        for (origin, host) in ours {
            assert!(is_ours(origin, Some(host), &hosts), "{origin} {host}");
        }
        let others = [
            ("http://evil.example:9432", "evil.example:9432"),
            ("http://evil.example", "127.0.0.1:9432"),
            ("http://127.0.0.1:8080", "127.0.0.1:9432"),
            ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
            ("https://pgweir.internal.evil.example", "pgweir.internal"),
            ("null", "127.0.0.1:9432"),
            ("", "127.0.0.1:9432"),
        ];
        for (origin, host) in others {
            assert!(!is_ours(origin, Some(host), &hosts), "{origin} {host}");
        }
        assert!(!is_ours("http://127.0.0.1:9432", None, &hosts));
    }

    #[test]
    fn only_hosts_that_are_ours_get_an_answer() {
        let hosts = ["pgweir.internal".to_owned()];
        let is_known = |given: &[&str]| {
            let mut headers = HeaderMap::new();
            given
                .iter()
                .for_each(|host| assert!(!headers.append(HOST, host.parse().expect("text")) || given.len() > 1));
            has_known_host(&headers, &hosts)
        };
        for host in ["127.0.0.1:9432", "10.0.0.7", "[::1]:9432", "localhost", "LOCALHOST:1", "pgweir.internal:9432"] {
            assert!(is_known(&[host]), "{host}");
        }
        for host in ["evil.example:9432", "127.0.0.1.evil.example", "pgweir.internal.evil.example", "", "a b"] {
            assert!(!is_known(&[host]), "{host}");
        }
        assert!(!is_known(&[]) && !is_known(&["localhost", "evil.example"]));
    }

    #[test]
    fn nobody_acts_without_the_token() {
        let token = Secret::new("0123456789abcdef".to_owned());
        assert!(knows("Bearer 0123456789abcdef", &token));
        assert!(knows("bearer  0123456789abcdef ", &token));
        for wrong in ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "0123456789abcdef"] {
            assert!(!knows(wrong, &token), "{wrong}");
        }
    }

    #[test]
    fn an_action_is_one_command_that_changes_something() {
        let read = |body: &str| read(body.as_bytes());
        let action = read(r#"{"command": "PAUSE app"}"#).expect("it is one").expect("it is not empty");
        assert_eq!(format!("{action:?}"), r#"Pause { database: Some("app"), until_primary: None }"#);
        assert!(matches!(read(r#"{"command": " ; "}"#), Ok(None)));
        for body in ["", "PAUSE app", "{}", r#"{"command": 5}"#, r#"["PAUSE"]"#] {
            assert!(matches!(read(body), Err(ActionRefusal::Body)), "{body}");
        }
        for body in [r#"{"command": "SELECT 1"}"#, r#"{"command": "SHOW POOLS"}"#, r#"{"command": "PAUSE; RESUME"}"#] {
            assert!(matches!(read(body), Err(ActionRefusal::NoAction)), "{body}");
        }
        assert!(matches!(read(r#"{"command": "LIMIT web"}"#), Err(ActionRefusal::Fault(ConsoleFault::Usage(_)))));
    }
}
