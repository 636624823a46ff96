//! NOTIFY and LISTEN between pgweir and its server: what others notify of, and what others hear.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Notification};

use crate::support::{Endpoint, Link, Postgres, Proxy, Sessions, Toward, Wire, eventually, proxy, soon, tags};

const BRIDGE: &str = "application_name = 'pgweir listen'";
const SENDER: &str = "application_name = 'pgweir notify'";

/// A client that listens to `c`, and what it hears.
struct Listener {
    client: Client,
    messages: mpsc::Receiver<AsyncMessage>,
}

impl Listener {
    async fn of(endpoint: &Endpoint) -> Self {
        let (client, messages) = endpoint.connect_and_hear("app").await;
        soon(client.batch_execute("LISTEN c")).await.expect("LISTEN");
        Self { client, messages }
    }

    async fn next(&mut self) -> Notification {
        loop {
            match soon(self.messages.recv()).await.expect("the connection lives") {
                AsyncMessage::Notification(notification) => return notification,
                AsyncMessage::Notice(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The payloads up to `last`, which is one of its own.
    async fn up_to(&mut self, last: &str) -> Vec<String> {
        let mut payloads = Vec::new();
        loop {
            let notification = self.next().await;
            if notification.payload() == last {
                return payloads;
            }
            payloads.push(notification.payload().to_owned());
        }
    }
}

async fn notify(client: &Client, payload: &str) {
    soon(client.batch_execute(&format!("NOTIFY c, '{payload}'"))).await.expect("NOTIFY");
}

/// A proxy, and the server behind it for those who go there directly.
async fn started(bus: &str) -> (Proxy, Endpoint, Sessions) {
    let proxy = proxy().toml(&format!("[notify]\nbus = \"{bus}\"")).start().await;
    let direct = Postgres::shared().endpoint(&proxy.dbname);
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    (proxy, direct, sessions)
}

/// Ends the backend of the bridge or the sender.
async fn kill(postgres: &Postgres, dbname: &str, which: &str) {
    let sql =
        format!("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '{dbname}' AND {which}");
    assert!(!postgres.admin("postgres").await.query(&sql, &[]).await.expect("the superuser may").is_empty());
}

/// Waits until the connection is ended, and says why.
async fn told(wire: &mut Wire) -> (String, String) {
    let frames = wire.rest().await;
    let error = frames.iter().find(|frame| frame.tag == 'E').expect("the reason");
    let fields = error.fields();
    (fields[&'S'].clone(), fields[&'C'].clone())
}

#[tokio::test]
async fn what_pgweir_does_not_see_reaches_its_listeners() {
    let (proxy, direct, _) = started("postgres").await;
    let mut listener = Listener::of(&proxy).await;
    let outside = direct.connect("app").await;
    let pid: i32 = outside.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    notify(&outside, "from outside").await;
    let heard = listener.next().await;
    assert_eq!((heard.channel(), heard.payload(), heard.process_id()), ("c", "from outside", pid));

    let client = proxy.connect("app").await;
    let trigger = "CREATE TABLE job (id int);
        CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_notify('c', 'job ' || NEW.id); RETURN NULL; END $$;
        CREATE TRIGGER told AFTER INSERT ON job FOR EACH ROW EXECUTE FUNCTION told()";
    client.batch_execute(trigger).await.unwrap();
    client.batch_execute("INSERT INTO job SELECT generate_series(1, 3)").await.unwrap();
    client.batch_execute("DO $$ BEGIN NOTIFY c, 'done'; END $$").await.unwrap();
    assert_eq!(listener.up_to("done").await, ["job 1", "job 2", "job 3"]);
}

#[tokio::test]
async fn channels_have_any_name() {
    let (proxy, direct, _) = started("postgres").await;
    let (client, mut messages) = proxy.connect_and_hear("app").await;
    let outside = direct.connect("app").await;
    for channel in ["\"Mixed Case\"", "\"a\"\"b;--\"", "\"gr\u{fc}n\"", "folded"] {
        soon(client.batch_execute(&format!("LISTEN {channel}"))).await.unwrap();
        outside.batch_execute(&format!("NOTIFY {channel}, 'x'")).await.unwrap();
        let message = soon(messages.recv()).await;
        let Some(AsyncMessage::Notification(heard)) = message else { panic!("{channel}: {message:?}") };
        let name = channel.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(channel);
        assert_eq!(heard.channel(), name.replace("\"\"", "\""));
    }
}

#[tokio::test]
async fn listeners_elsewhere_hear_each_notification_once_and_in_order() {
    let (proxy, direct, sessions) = started("postgres").await;
    let (mut here, mut there) = (Listener::of(&proxy).await, Listener::of(&direct).await);
    let client = proxy.connect("app").await;
    // Of seven payloads each comes again and again: Postgres folds equal ones only within one transaction.
    let mut expected: Vec<_> = (0..1000).map(|i| (i % 7).to_string()).collect();
    for payload in &expected {
        notify(&client, payload).await;
    }
    client.batch_execute("BEGIN; NOTIFY c, 'a'; NOTIFY c, 'b'; NOTIFY c, 'a'; NOTIFY c, 'a'; COMMIT").await.unwrap();
    expected.extend(["a".to_owned(), "b".to_owned()]);
    notify(&client, "last").await;
    assert_eq!(there.up_to("last").await, expected);
    assert_eq!(here.up_to("last").await, expected);
    assert_eq!(sessions.count(SENDER).await, 1);
    // What was counted as accepted by the bus is what was published.
    let published = proxy.metric("pgweir_notify_published_total", &["database=\"app\""]);
    assert_eq!(published, expected.len() as f64 + 1.0);
    assert_eq!(proxy.metric("pgweir_notify_queue", &["database=\"app\""]), 0.0);
    assert_eq!(proxy.metric("pgweir_notify_bus_seconds_count", &["database=\"app\""]), published);
}

#[tokio::test]
async fn two_pgweirs_and_the_server_tell_each_other_everything_once() {
    let (one, direct, _) = started("postgres").await;
    let two = proxy().dbname(&one.dbname).toml("[notify]\nbus = \"postgres\"").start().await;
    let endpoints = [&*one, &*two, &direct];
    let mut listeners = join_all(endpoints.map(Listener::of)).await;
    join_all(["one", "two", "direct"].into_iter().zip(endpoints).map(async |(name, endpoint)| {
        let client = endpoint.connect("app").await;
        for i in 0..200 {
            notify(&client, &format!("{name} {i}")).await;
        }
        notify(&client, &format!("{name} last")).await;
    }))
    .await;
    for listener in &mut listeners {
        let mut heard = Vec::new();
        for _ in 0..603 {
            heard.push(listener.next().await.payload().to_owned());
        }
        for name in ["one", "two", "direct"] {
            let of_it: Vec<_> = heard.iter().filter_map(|payload| payload.strip_prefix(name)).collect();
            let expected = (0..200).map(|i| format!(" {i}")).chain([" last".to_owned()]);
            assert_eq!(of_it, expected.collect::<Vec<_>>(), "from {name}");
        }
    }
    // Nothing came twice.
    notify(&listeners[2].client, "marker").await;
    for listener in &mut listeners {
        assert_eq!(listener.next().await.payload(), "marker");
    }
}

#[tokio::test]
async fn when_the_bridge_is_lost_listeners_are_told_and_the_next_hear_again() {
    let (proxy, direct, _) = started("postgres").await;
    let (mut wire, mut bystander) = (proxy.wire("app").await, proxy.wire("app").await);
    assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
    kill(Postgres::shared(), &proxy.dbname, BRIDGE).await;
    assert_eq!(told(&mut wire).await, ("FATAL".to_owned(), "08006".to_owned()));
    assert_eq!(bystander.value("SELECT 1").await, "1");
    assert_eq!(proxy.metric("pgweir_notify_gaps_total", &["cause=\"bridge\""]), 1.0);

    let mut listener = Listener::of(&proxy).await;
    notify(&direct.connect("app").await, "again").await;
    assert_eq!(listener.next().await.payload(), "again");
}

#[tokio::test]
async fn listeners_that_stay_over_a_gap_hear_again_by_themselves() {
    let (proxy, direct, sessions) = started("postgres").await;
    proxy.reload("[notify]\non_gap = \"count\"").await;
    let mut listener = Listener::of(&proxy).await;
    let before = sessions.pids().await;
    kill(Postgres::shared(), &proxy.dbname, BRIDGE).await;
    let pid = before.iter().map(|pid| format!("pid <> {pid}")).collect::<Vec<_>>().join(" AND ");
    sessions.until(format!("{BRIDGE} AND {pid} AND state = 'idle' AND query LIKE 'LISTEN%'"), 1).await;
    notify(&direct.connect("app").await, "again").await;
    assert_eq!(listener.next().await.payload(), "again");
    assert_eq!(proxy.metric("pgweir_notify_gaps_total", &["cause=\"bridge\""]), 1.0);
}

#[tokio::test]
async fn a_sender_that_is_lost_again_and_again_loses_nothing() {
    let (proxy, direct, _) = started("postgres").await;
    let (mut here, mut there) = (Listener::of(&proxy).await, Listener::of(&direct).await);
    let client = proxy.connect("app").await;
    for i in 0..1000 {
        notify(&client, &i.to_string()).await;
        if i % 200 == 100 {
            eventually(async || proxy.metric("pgweir_notify_bus_seconds_count", &[]) > f64::from(i - 100)).await;
            kill(Postgres::shared(), &proxy.dbname, SENDER).await;
        }
    }
    notify(&client, "last").await;
    let expected: Vec<_> = (0..1000).map(|i| i.to_string()).collect();
    assert_eq!(here.up_to("last").await, expected, "here nothing comes twice");
    let mut heard = there.up_to("last").await;
    let mut seen = BTreeSet::new();
    heard.retain(|payload| seen.insert(payload.clone()));
    assert_eq!(heard, expected, "elsewhere what was under way may");
}

#[tokio::test]
async fn what_the_server_never_confirmed_is_sent_again() {
    let link = Link::to(Postgres::shared().endpoint("").addr).await;
    let settings = "[notify]\nbus = \"postgres\"\n[pool]\nconnect_timeout = \"1500ms\"";
    let proxy = proxy().backend(link.addr).toml(settings).start().await;
    let direct = Postgres::shared().endpoint(&proxy.dbname);
    let mut there = Listener::of(&direct).await;
    let client = proxy.connect("app").await;
    notify(&client, "before").await;
    eventually(async || proxy.metric("pgweir_notify_bus_seconds_count", &[]) == 1.0).await;
    link.pause_toward(Toward::Frontend);
    notify(&client, "x").await;
    assert_eq!(there.up_to("x").await, ["before"]);
    eventually(async || proxy.log_text().contains("no answer within 9s")).await;
    link.resume();
    notify(&client, "last").await;
    assert_eq!(there.up_to("last").await, ["x"]);
}

#[tokio::test]
async fn what_is_notified_while_the_server_is_out_of_reach_is_sent_later() {
    let link = Link::to(Postgres::shared().endpoint("").addr).await;
    let proxy = proxy().backend(link.addr).toml("[notify]\nbus = \"postgres\"").start().await;
    let mut there = Listener::of(&Postgres::shared().endpoint(&proxy.dbname)).await;
    let client = proxy.connect("app").await;
    notify(&client, "before").await;
    assert_eq!(there.next().await.payload(), "before");
    eventually(async || proxy.metric("pgweir_notify_bus_seconds_count", &[]) == 1.0).await;
    link.refuse(true);
    link.cut();
    eventually(async || link.open() == 0).await;
    for i in 0..500 {
        notify(&client, &i.to_string()).await;
    }
    eventually(async || proxy.metric("pgweir_notify_queue", &[]) == 500.0).await;
    link.refuse(false);
    notify(&client, "last").await;
    assert_eq!(there.up_to("last").await, (0..500).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_link_that_breaks_in_the_middle_of_anything_is_a_gap_and_no_more() {
    let link = Link::to(Postgres::shared().endpoint("").addr).await;
    let proxy = proxy().backend(link.addr).toml("[notify]\nbus = \"postgres\"").start().await;
    let direct = Postgres::shared().endpoint(&proxy.dbname);
    let mut there = Listener::of(&direct).await;
    let client = proxy.connect("app").await;
    for round in 0..5 {
        let mut wire = proxy.wire("app").await;
        assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
        for i in 0..50 {
            notify(&client, &format!("{round} {i}")).await;
        }
        link.cut();
        assert_eq!(told(&mut wire).await, ("FATAL".to_owned(), "08006".to_owned()));
        notify(&client, &format!("end of {round}")).await;
        let mut heard = there.up_to(&format!("end of {round}")).await;
        let mut seen = BTreeSet::new();
        heard.retain(|payload| payload.starts_with(&round.to_string()) && seen.insert(payload.clone()));
        assert_eq!(heard, (0..50).map(|i| format!("{round} {i}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_silent_server_is_noticed() {
    let link = Link::to(Postgres::shared().endpoint("").addr).await;
    let proxy = proxy().backend(link.addr).toml("[pool]\nconnect_timeout = \"1s\"").start().await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
    link.pause();
    // Nothing is asked of the server by anybody: pgweir asks by itself.
    assert_eq!(told(&mut wire).await, ("FATAL".to_owned(), "08006".to_owned()));
}

#[tokio::test]
async fn a_server_that_was_restarted_is_listened_to_again() {
    let mut postgres = Postgres::private(&[]);
    let proxy = proxy().postgres(&postgres).toml("[notify]\nbus = \"postgres\"").start().await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
    let client = proxy.connect("app").await;
    notify(&client, "before").await;
    assert_eq!(wire.frame().await.tag, 'A');
    eventually(async || proxy.metric("pgweir_notify_bus_seconds_count", &[]) == 1.0).await;
    postgres.stop();
    assert_eq!(told(&mut wire).await, ("FATAL".to_owned(), "08006".to_owned()));
    postgres.start();
    let direct = postgres.endpoint(&proxy.dbname);
    let (mut here, mut there) = (Listener::of(&proxy).await, Listener::of(&direct).await);
    notify(&client, "through pgweir").await;
    assert_eq!(there.up_to("through pgweir").await, [""; 0]);
    assert_eq!(here.up_to("through pgweir").await, [""; 0]);
    notify(&there.client, "directly").await;
    assert_eq!(here.next().await.payload(), "directly");
}

#[tokio::test]
async fn a_reload_that_leads_to_another_server_moves_bridge_and_sender() {
    let (proxy, direct, sessions) = started("postgres").await;
    let mut there = Listener::of(&direct).await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
    let client = proxy.connect("app").await;
    notify(&client, "before").await;
    assert_eq!(there.next().await.payload(), "before");
    let link = Link::to(direct.addr).await;
    proxy.reload(&format!("[databases.app]\nport = {}", link.addr.port())).await;
    assert_eq!(wire.frame().await.tag, 'A');
    assert_eq!(told(&mut wire).await, ("FATAL".to_owned(), "08006".to_owned()));
    let mut here = Listener::of(&proxy).await;
    notify(&client, "after").await;
    assert_eq!(there.up_to("after").await, [""; 0]);
    assert_eq!(here.next().await.payload(), "after");
    notify(&there.client, "directly").await;
    assert_eq!(here.next().await.payload(), "directly");
    assert_eq!((sessions.count(BRIDGE).await, sessions.count(SENDER).await), (1, 1));
    // Both are behind the link now.
    link.refuse(true);
    link.cut();
    sessions.until(format!("{BRIDGE} OR {SENDER}"), 0).await;
}

#[tokio::test]
async fn any_number_of_listeners_and_channels_takes_two_backends() {
    let proxy = proxy().pool_size(1).toml("[notify]\nbus = \"postgres\"").start().await;
    let direct = Postgres::shared().endpoint(&proxy.dbname);
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut wires = join_all((0..400).map(|_| proxy.wire("app"))).await;
    join_all(wires.iter_mut().enumerate().map(async |(i, wire)| {
        assert_eq!(tags(&wire.query(&format!("LISTEN channel_{}", i % 200)).await), "C Z");
    }))
    .await;
    let client = proxy.connect("app").await;
    client.batch_execute("NOTIFY channel_7, 'x'").await.unwrap();
    assert_eq!(tags(&[wires[7].frame().await, wires[207].frame().await]), "A A");
    sessions.until(SENDER, 1).await;
    // The third is the pool's, and nobody holds it.
    assert_eq!((sessions.count(BRIDGE).await, sessions.open().await), (1, 3));
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);

    // Each has its own, wherever it came from.
    let outside = direct.connect("app").await;
    outside.batch_execute("SELECT pg_notify('channel_' || i, i::text) FROM generate_series(0, 199) i").await.unwrap();
    for (i, wire) in wires.iter_mut().enumerate() {
        let frame = wire.frame().await;
        assert_eq!((frame.tag, &frame.body[4..]), ('A', format!("channel_{0}\0{0}\0", i % 200).as_bytes()));
    }
    drop(wires);
    let left = "query LIKE 'UNLISTEN%' OR query LIKE 'LISTEN%'";
    eventually(async || proxy.metric("pgweir_notify_channels", &[]) == 0.0).await;
    sessions.until(format!("{BRIDGE} AND ({left})"), 1).await;
}

#[tokio::test]
async fn in_memory_nothing_is_sent_to_the_server() {
    let (proxy, direct, sessions) = started("memory").await;
    let (mut here, mut there) = (Listener::of(&proxy).await, Listener::of(&direct).await);
    let client = proxy.connect("app").await;
    notify(&client, "here").await;
    notify(&there.client, "everywhere").await;
    assert_eq!(here.up_to("everywhere").await, ["here"]);
    assert_eq!(there.next().await.payload(), "everywhere");
    assert_eq!((sessions.count(BRIDGE).await, sessions.count(SENDER).await), (1, 0));
}

#[tokio::test]
async fn another_bus_takes_over_what_is_left() {
    let (proxy, direct, sessions) = started("memory").await;
    let mut there = Listener::of(&direct).await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
    proxy.reload("[notify]\nbus = \"postgres\"").await;
    assert_eq!(told(&mut wire).await, ("FATAL".to_owned(), "08006".to_owned()));
    let client = proxy.connect("app").await;
    for i in 0..200 {
        notify(&client, &i.to_string()).await;
    }
    proxy.reload("[notify]\nbus = \"memory\"").await;
    for i in 0..200 {
        assert_eq!(there.next().await.payload(), i.to_string());
    }
    sessions.until(SENDER, 0).await;
    notify(&client, "nowhere").await;
    notify(&there.client, "directly").await;
    assert_eq!(there.next().await.payload(), "directly");
}

#[tokio::test]
async fn what_was_committed_is_sent_before_pgweir_ends() {
    let link = Link::to(Postgres::shared().endpoint("").addr).await;
    let mut proxy = proxy().backend(link.addr).toml("[notify]\nbus = \"postgres\"").start().await;
    let mut there = Listener::of(&Postgres::shared().endpoint(&proxy.dbname)).await;
    let client = proxy.connect("app").await;
    notify(&client, "0").await;
    assert_eq!(there.next().await.payload(), "0");
    link.pause();
    for i in 1..=300 {
        notify(&client, &i.to_string()).await;
    }
    proxy.signal(Signal::TERM);
    proxy.logged("drained").await;
    link.resume();
    assert!(proxy.ended().await);
    for i in 1..=300 {
        assert_eq!(there.next().await.payload(), i.to_string());
    }
}

#[tokio::test]
async fn a_role_without_pg_notify_sends_for_everybody() {
    let (proxy, direct, _) = started("postgres").await;
    let admin = Postgres::shared().admin(&proxy.dbname).await;
    admin.batch_execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC").await.expect("a superuser may");
    let mut there = Listener::of(&direct).await;
    let client = proxy.connect("app").await;
    for payload in ["a", "b", "b", "it''s", r"a\b", "c"] {
        notify(&client, payload).await;
    }
    assert_eq!(there.up_to("c").await, ["a", "b", "b", "it's", r"a\b"]);
    assert_eq!(proxy.metric("pgweir_notify_dropped_total", &["cause=\"bus\""]), 0.0);
}

#[tokio::test]
async fn no_timeout_of_the_role_ends_what_listens_and_sends() {
    let limits = "statement_timeout = \"10ms\"\nlock_timeout = \"10ms\"\nidle_in_transaction_timeout = \"10ms\"";
    let postgres = Postgres::private(&[]);
    let proxy = proxy().postgres(&postgres).role("hasty", limits).toml("[notify]\nbus = \"postgres\"").start().await;
    let admin = postgres.admin("postgres").await;
    admin.batch_execute("ALTER ROLE hasty SET idle_session_timeout = '100ms'").await.unwrap();
    let (client, mut messages) = proxy.connect_and_hear("hasty").await;
    client.batch_execute("LISTEN c").await.unwrap();
    client.batch_execute("NOTIFY c, 'x'").await.unwrap();
    assert!(matches!(soon(messages.recv()).await, Some(AsyncMessage::Notification(_))));
    let sessions = Sessions::of(&postgres, &proxy.dbname).await;
    sessions.until(format!("{BRIDGE} OR {SENDER}"), 2).await;
    let logins = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgweir %' ORDER BY pid";
    let pids = async || admin.query(logins, &[]).await.unwrap().iter().map(|row| row.get(0)).collect::<Vec<i32>>();
    let before = pids().await;
    // A session of this role that does nothing is ended, and those two, which were there before it, are not.
    let idle = postgres.endpoint(&proxy.dbname).connect("hasty").await;
    eventually(async || idle.is_closed()).await;
    assert_eq!((pids().await, before.len()), (before, 2));
}

#[tokio::test]
async fn bytes_pass_in_the_encoding_of_the_server() {
    let postgres = Postgres::private(&[]);
    postgres.role("app").await;
    let admin = postgres.admin("postgres").await;
    admin
        .batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .await
        .unwrap();
    admin.batch_execute("ALTER ROLE app SET client_encoding = 'UTF8'").await.unwrap();
    let proxy = proxy().postgres(&postgres).dbname("latin").start().await;
    let (mut wire, _) = Wire::login_with(&proxy, "app", &[("client_encoding", "LATIN1")]).await;
    assert_eq!(tags(&wire.query("LISTEN c").await), "C Z");
    let outside = postgres.endpoint("latin").connect("app").await;
    outside.batch_execute("SET client_encoding = 'UTF8'; NOTIFY c, '\u{e9}'").await.unwrap();
    assert_eq!(&wire.frame().await.body[4..], b"c\0\xe9\0");
}
