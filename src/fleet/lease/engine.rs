//! The Redis that keeps the book: one connection, one script.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, cmd};
use serde_json::{Map, Value, json};

use super::{BookAnswer, Grant, LeaseRequest, TTL};
use crate::config::Secret;
use crate::net::redis::RedisServer;

/// Longest time to connect, and to get an answer: a grant outlives both.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The time of the book is the Redis's.
const CLOCK: &str = "local now = redis.call('TIME')\nlocal wall = now[1] * 1000 + math.floor(now[2] / 1000)\n";

/// The rules of the book, given `wall`.
pub const RULES: &str = include_str!("book.lua");

/// The key of a fleet's book.
pub fn key(fleet: &str) -> String {
    format!("pgweir:fleet:{fleet}")
}

/// The way of one instance to the book.
#[derive(Debug)]
pub(crate) struct LeaseEngine {
    server: RedisServer,
    key: String,
    id: String,
    /// The script is loaded there, under this name.
    connection: Option<(MultiplexedConnection, String)>,
}

/// What an instance has to say to the book and to the others.
#[derive(Debug, Clone, Default)]
pub struct BookErrand {
    /// What it wants.
    pub request: LeaseRequest,
    /// About itself, for the others.
    pub facts: String,
    /// Orders by role, with their times if they are older than this.
    pub orders: Vec<(String, KeptOrder)>,
}

/// An order as the book keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptOrder {
    /// The order; the book does not read it.
    pub text: String,
    /// Milliseconds by the Redis's clock; no two of one role are the same. 0: it is new.
    pub since: u64,
}

/// A member of the fleet, as the book knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMember {
    /// The id of the instance.
    pub id: String,
    /// What it says of itself.
    pub facts: String,
    /// How long ago it said so.
    pub age: Duration,
}

/// All that the book answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineAnswer {
    /// What is granted.
    pub book: BookAnswer,
    /// Everybody, ourselves included, in order of their ids.
    pub members: Vec<SeenMember>,
    /// The order in force for each role.
    pub orders: BTreeMap<String, KeptOrder>,
    /// The time of the Redis, in milliseconds.
    pub wall: u64,
}

impl LeaseEngine {
    /// Has no connection yet.
    pub(crate) fn new(url: &Secret, fleet: &str, id: &str) -> Self {
        let server = RedisServer::new("fleet.url", url, "hold the fleet's limits", ANSWER_MAX, ANSWER_MAX);
        Self { server, key: key(fleet), id: id.to_owned(), connection: None }
    }

    /// Brings this to the book.
    pub(crate) async fn refresh(&mut self, errand: &BookErrand) -> Result<EngineAnswer, RedisError> {
        let answer = self.call(&arguments(&self.id, errand)).await?;
        read(&answer).ok_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "not an answer of the script")))
    }

    /// Tells the book that nothing is in use any more.
    pub(crate) async fn leave(&mut self, seq: u64) -> Result<(), RedisError> {
        let mut arguments = arguments(&self.id, &BookErrand::default());
        arguments[1] = seq.to_string();
        arguments.push("bye".to_owned());
        self.call(&arguments).await.map(drop)
    }

    async fn call(&mut self, arguments: &[String]) -> Result<String, RedisError> {
        self.run(arguments).await.inspect_err(|error| {
            self.server.lost(error);
            // Refused, too: its name may lead to another by now.
            self.connection = None;
        })
    }

    async fn run(&mut self, arguments: &[String]) -> Result<String, RedisError> {
        let is_new = self.connection.is_none();
        if self.connection.is_none() {
            let mut connection = self.server.connect().await?;
            let name = load(&mut connection).await?;
            self.connection = Some((connection, name));
        }
        let (connection, name) = self.connection.as_mut().expect("just opened");
        let mut ask = cmd("EVALSHA");
        ask.arg(name.as_str()).arg(1).arg(&self.key).arg(arguments);
        let mut asked = ask.query_async(connection).await;
        if matches!(&asked, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
            load(connection).await?;
            asked = ask.query_async(connection).await;
        }
        if asked.is_ok() && is_new {
            self.server.found();
        }
        asked
    }
}

async fn load(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    cmd("SCRIPT").arg("LOAD").arg(format!("{CLOCK}{RULES}")).query_async(connection).await
}

/// The arguments of the script.
pub fn arguments(id: &str, errand: &BookErrand) -> Vec<String> {
    let request = &errand.request;
    let wants: Map<_, _> = request
        .wants
        .iter()
        .map(|(name, want)| (name.clone(), json!({"l": want.limit, "w": want.want, "c": want.cap, "u": want.used})))
        .collect();
    let orders: Vec<_> = errand.orders.iter().map(|(role, order)| json!([role, order.text, order.since])).collect();
    vec![
        id.to_owned(),
        request.seq.to_string(),
        TTL.as_millis().to_string(),
        request.weight.to_string(),
        errand.facts.clone(),
        Value::from(wants).to_string(),
        Value::from(orders).to_string(),
        request.knows.to_string(),
    ]
}

/// What the script answers; `None`: something else.
pub fn read(answer: &str) -> Option<EngineAnswer> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
    let count = |value: &Value| u32::try_from(number(value)?).ok();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let grant = |(name, grant): (&String, &Value)| {
        Some((name.clone(), Grant { most: count(&grant["g"])?, limit: count(&grant["l"])? }))
    };
    let member = |member: &Value| {
        let age = Duration::from_millis(number(&member[2]).unwrap_or(0));
        Some(SeenMember { id: text(&member[0])?, facts: text(&member[1])?, age })
    };
    let order = |(role, order): (&String, &Value)| {
        Some((role.clone(), KeptOrder { text: text(&order["text"])?, since: number(&order["since"])? }))
    };
    Some(EngineAnswer {
        book: BookAnswer {
            learns: answer["learns"].as_bool()?,
            knows: count(&answer["knows"])?,
            grants: answer["grants"].as_object()?.iter().map(grant).collect::<Option<_>>()?,
        },
        members: answer["members"].as_array()?.iter().map(member).collect::<Option<_>>()?,
        orders: answer["orders"].as_object()?.iter().map(order).collect::<Option<_>>()?,
        wall: number(&answer["wall"])?,
    })
}
