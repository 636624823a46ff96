//! A Redis as the bus: what one pgweir publishes reaches the listeners of another once and in order, or they are told
//! that it may not have.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Wake, Waker};

use bytes::Bytes;
use futures_util::StreamExt;
use pgweir::config::{BusSettings, Notify, Secret, WhenDown};
use pgweir::testing::notify::bus::redis::RedisBus;
use pgweir::testing::notify::exchange::Exchange;
use pgweir::testing::notify::hub::Hub;
use pgweir::testing::notify::mailbox::{Closing, Mailbox};
use pgweir::testing::notify::notification::Notification;
use pgweir::testing::notify::pending::Change;
use pgweir::testing::notify::stats::Gap;
use pgweir::testing::pool::in_use::InUse;
use redis::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{Link, Pki, Postgres, Proxy, Redis, Toward, Wire, eventually, frontend, proxy, tags};

// ## The bus alone: exchanges in this process, each with connections of its own

#[tokio::test]
async fn what_is_published_here_is_heard_there_once_and_in_order_with_its_pid() {
    let redis = Redis::without_memory().await;
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let (ear, own) = (there.listens("jobs").await, here.listens("jobs").await);
    for number in 0..1000 {
        here.publish(7, "jobs", &number.to_string());
    }
    let expected: Vec<_> = (0..1000).map(|number| format!("7 jobs {number}")).collect();
    ear.hears(&expected).await;
    // Its own were delivered when they were published; the echo is nothing.
    own.hears(&expected).await;
    there.publish(8, "jobs", "back");
    own.hears(&["8 jobs back"]).await;
    assert_eq!(ear.heard(), ["8 jobs back"]);
}

#[tokio::test]
async fn databases_do_not_hear_each_other() {
    let redis = Redis::without_memory().await;
    let here = Process::new(&redis.url());
    let (one, other) = (here.database("one"), here.database("other"));
    let there = Process::new(&redis.url());
    let (ear_one, ear_other) =
        (there.database("one").listens("jobs").await, there.database("other").listens("jobs").await);
    one.publish(1, "jobs", "for one");
    other.publish(2, "jobs", "for the other");
    ear_one.hears(&["1 jobs for one"]).await;
    ear_other.hears(&["2 jobs for the other"]).await;
}

#[tokio::test]
async fn programs_without_pgweir_see_the_documented_format() {
    let redis = Redis::without_memory().await;
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let client = ::redis::Client::open(redis.url()).expect("a URL");
    let mut subscriber = client.get_async_pubsub().await.expect("it answers");
    subscriber.subscribe("pgweir:notify:app:jobs").await.expect("it may");
    let mut messages = subscriber.on_message();

    here.publish(7, "jobs", "é\n");
    let message = messages.next().await.expect("it came");
    assert_eq!(message.get_payload_bytes(), "é\n".as_bytes());
    drop(messages);

    let entries = read(&redis, "pgweir:notify:app").await;
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    let field = |name| entry.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice());
    let names: Vec<_> = entry.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["channel", "payload", "pid", "from", "seq"]);
    assert_eq!(field("channel"), Some(&b"jobs"[..]));
    assert_eq!(field("payload"), Some("é\n".as_bytes()));
    assert_eq!(field("pid"), Some(&b"7"[..]));
    assert_eq!(field("seq"), Some(&b"1"[..]));
    assert_eq!(field("from").map(<[u8]>::len), Some(16));

    // What others put there is passed by.
    let ear = there.listens("jobs").await;
    let mut connection = redis.connect().await;
    let foreign = ::redis::cmd("XADD").arg("pgweir:notify:app").arg("*").arg("channel").arg("jobs").take();
    foreign.exec_async(&mut connection).await.expect("it may");
    here.publish(7, "jobs", "after");
    ear.hears(&["7 jobs after"]).await;
}

#[tokio::test]
async fn the_stream_keeps_about_as_much_as_it_should() {
    let redis = Redis::without_memory().await;
    let here = Process::with(Notify { stream_max: 100, ..settings(&redis.url()) });
    for number in 0..2000 {
        here.publish(7, "jobs", &number.to_string());
    }
    here.sent().await;
    let kept = read(&redis, "pgweir:notify:app").await.len();
    assert!((100..400).contains(&kept), "{kept}");
}

#[tokio::test]
async fn restart_of_a_redis_with_memory_loses_nothing() {
    let mut redis = Redis::with_memory().await;
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "before");
    ear.hears(&["7 jobs before"]).await;
    redis.stop();
    for number in 0..300 {
        here.publish(7, "jobs", &number.to_string());
    }
    redis.start().await;
    let expected: Vec<_> = (0..300).map(|number| format!("7 jobs {number}")).collect();
    ear.hears(&expected).await;
    assert_eq!(ear.mailbox.closing(), None);
}

#[tokio::test]
async fn restart_of_a_redis_with_memory_before_anything_was_published_is_no_loss() {
    let mut redis = Redis::with_memory().await;
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let ear = there.listens("jobs").await;
    redis.stop();
    redis.start().await;
    here.publish(7, "jobs", "after");
    ear.hears(&["7 jobs after"]).await;
    assert_eq!(ear.mailbox.closing(), None);
}

#[tokio::test]
async fn listeners_are_told_of_a_redis_that_forgot() {
    for is_used in [false, true] {
        let mut redis = Redis::without_memory().await;
        let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
        let ear = there.listens("jobs").await;
        if is_used {
            here.publish(7, "jobs", "before");
            ear.hears(&["7 jobs before"]).await;
        }
        redis.stop();
        redis.start().await;
        ear.is_closed(Closing::Gap(Gap::Bus)).await;
        // Who comes after that hears again, without another gap.
        let next = there.listens("jobs").await;
        here.publish(7, "jobs", "after");
        next.hears(&["7 jobs after"]).await;
        assert_eq!(next.mailbox.closing(), None);
    }
}

#[tokio::test]
async fn connection_that_was_cut_goes_on_where_it_was() {
    let redis = Redis::without_memory().await;
    let (up, down) = (Link::to(redis.addr).await, Link::to(redis.addr).await);
    let (here, there) =
        (Process::new(&format!("redis://{}", up.addr)), Process::new(&format!("redis://{}", down.addr)));
    let ear = there.listens("jobs").await;
    let mut expected = Vec::new();
    for round in 0..20 {
        for number in 0..50 {
            here.publish(7, "jobs", &format!("{round}.{number}"));
            expected.push(format!("7 jobs {round}.{number}"));
        }
        // The answer to what is under way is lost, or the way there, and the reader loses its place in the middle.
        [&up, &down][round % 2].cut();
        tokio::task::yield_now().await;
    }
    ear.hears(&expected).await;
    assert_eq!(ear.mailbox.closing(), None);
}

#[tokio::test]
async fn batch_whose_answer_is_lost_is_published_again_and_heard_once() {
    let redis = Redis::without_memory().await;
    let link = Link::to(redis.addr).await;
    let (here, there) = (Process::new(&format!("redis://{}", link.addr)), Process::new(&redis.url()));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "first");
    ear.hears(&["7 jobs first"]).await;
    here.sent().await;
    link.pause_toward(Toward::Frontend);
    here.publish(7, "jobs", "twice");
    ear.hears(&["7 jobs twice"]).await;
    link.cut();
    link.resume();
    here.publish(7, "jobs", "last");
    ear.hears(&["7 jobs last"]).await;
    let entries = read(&redis, "pgweir:notify:app").await;
    let payloads: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry[1].1).into_owned()).collect();
    assert_eq!(payloads, ["first", "twice", "twice", "last"]);
}

#[tokio::test]
async fn reader_that_comes_back_too_late_tells() {
    let redis = Redis::without_memory().await;
    let link = Link::to(redis.addr).await;
    let capped = |url: &str| Process::with(Notify { stream_max: 100, ..settings(url) });
    let (here, there) = (capped(&redis.url()), capped(&format!("redis://{}", link.addr)));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "before");
    ear.hears(&["7 jobs before"]).await;
    link.refuse(true);
    link.cut();
    for number in 0..1000 {
        here.publish(7, "jobs", &number.to_string());
    }
    here.sent().await;
    link.refuse(false);
    ear.is_closed(Closing::Gap(Gap::Bus)).await;
}

#[tokio::test]
async fn what_was_dropped_shows_elsewhere_as_a_hole() {
    let mut redis = Redis::with_memory().await;
    let few = Notify { bus_queue: 10, when_down: WhenDown::Drop, ..settings(&redis.url()) };
    let (here, there) = (Process::with(few), Process::new(&redis.url()));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "before");
    ear.hears(&["7 jobs before"]).await;
    here.sent().await;
    redis.stop();
    for number in 0..20 {
        here.publish(7, "jobs", &number.to_string());
    }
    assert_eq!(here.exchange.outbox().depth(), 10);
    redis.start().await;
    let kept: Vec<_> = (0..10).map(|number| format!("7 jobs {number}")).collect();
    ear.hears(&kept).await;
    here.sent().await;
    here.publish(7, "jobs", "after");
    ear.is_closed(Closing::Gap(Gap::Hole)).await;
}

#[tokio::test]
async fn stream_that_may_not_be_read_or_written_is_no_other_databases_trouble() {
    let redis = Redis::without_memory().await;
    let mut connection = redis.connect().await;
    let keys = ["pgweir:notify:unread", "pgweir:notify:unwritten"];
    for key in keys {
        let spoil = ::redis::cmd("SET").arg(key).arg("by others").take();
        spoil.exec_async(&mut connection).await.expect("it may");
    }
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let unread = there.database("unread");
    let waits = unread.asks_for("jobs");
    let unwritten = here.database("unwritten");
    unwritten.publish(7, "jobs", "held up");
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "goes on");
    ear.hears(&["7 jobs goes on"]).await;
    assert!(!waits.mailbox.is_in_place());
    assert_eq!(unwritten.exchange.outbox().depth(), 1);

    let mend = ::redis::cmd("DEL").arg(&keys).take();
    mend.exec_async(&mut connection).await.expect("it may");
    unwritten.sent().await;
    waits.is_in_place().await;
    let writes = here.database("unread");
    writes.publish(7, "jobs", "at last");
    waits.hears(&["7 jobs at last"]).await;
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let redis = Redis::without_memory().await;
    let url = format!("unix://{}", redis.socket().display());
    let (here, there) = (Process::new(&url), Process::new(&redis.url()));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "one");
    ear.hears(&["7 jobs one"]).await;
}

/// What docs/NOTIFY.md says a user of the Redis needs.
const PERMISSIONS: &str = "~pgweir:notify:* &pgweir:notify:* +multi +exec +exists +xadd +publish +xread +xinfo|stream \
                           +xgroup|create +xgroup|destroy";

#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let user: Vec<_> = ["--user", "pgweir", "on", ">right"].into_iter().chain(PERMISSIONS.split(' ')).collect();
    let redis = Redis::with(&user).await;
    let url = format!("redis://pgweir:right@{}", redis.addr);
    let (here, there) = (Process::new(&url), Process::new(&url));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "one");
    ear.hears(&["7 jobs one"]).await;
}

#[tokio::test]
async fn resp3_says_the_same() {
    let redis = Redis::without_memory().await;
    let url = format!("{}?protocol=resp3", redis.url());
    let (here, there) = (Process::new(&url), Process::new(&url));
    let ear = there.listens("jobs").await;
    here.publish(7, "jobs", "one");
    here.publish(7, "jobs", "two");
    ear.hears(&["7 jobs one", "7 jobs two"]).await;
}

#[tokio::test]
async fn what_others_publish_for_nobody_here_is_read_once_at_most() {
    let redis = Redis::without_memory().await;
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let (ear, forgotten) = (there.listens("jobs").await, there.database("forgotten"));
    let leaver = forgotten.listens("jobs").await;
    forgotten.exchange.leave(&leaver.mailbox);
    let gone = Arc::downgrade(&forgotten.exchange);
    drop(forgotten);
    eventually(async || {
        there.hub.forget_unused(|name| name == "forgotten");
        gone.strong_count() == 0
    })
    .await;
    let here_forgotten = here.database("forgotten");
    here_forgotten.publish(7, "jobs", "for nobody");
    here_forgotten.sent().await;
    here.publish(7, "jobs", "for somebody");
    ear.hears(&["7 jobs for somebody"]).await;

    // It waits for more, instead of asking for the same again and again.
    let known = tokio::sync::Mutex::new((redis.connect().await, None));
    eventually(async || {
        let (connection, before) = &mut *known.lock().await;
        let info = ::redis::cmd("INFO").arg("commandstats").take();
        let stats: String = info.query_async(connection).await.expect("it may");
        let reads = stats.lines().find(|line| line.starts_with("cmdstat_xread:")).map(str::to_owned);
        assert!(reads.is_some(), "{stats}");
        std::mem::replace(before, reads.clone()) == reads
    })
    .await;
}

#[tokio::test]
async fn one_connection_reads_and_one_publishes_however_many_databases() {
    let redis = Redis::without_memory().await;
    let (here, there) = (Process::new(&redis.url()), Process::new(&redis.url()));
    let names: Vec<_> = (0..20).map(|number| format!("db{number}")).collect();
    for name in &names {
        let (here, there) = (here.database(name), there.database(name));
        let ear = there.listens("jobs").await;
        here.publish(7, "jobs", name);
        ear.hears(&[format!("7 jobs {name}")]).await;
    }
    let mut connection = redis.connect().await;
    let clients: String = ::redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("it may");
    // One of each process, and this one.
    assert_eq!(clients.lines().count(), 3, "{clients}");
}

// ## Whole processes, in front of one database

/// Two pgweir on one bus.
async fn two(redis: &Redis, toml: &str) -> [Proxy; 2] {
    let dbname = Postgres::shared().database().await;
    let one = || proxy().dbname(&dbname).toml(&redis.bus()).toml(toml).start();
    [one().await, one().await]
}

/// A client that listens to `jobs`.
async fn listener(proxy: &Proxy) -> Wire {
    let mut wire = Wire::login(proxy, "app").await;
    wire.value("LISTEN jobs").await;
    wire
}

/// The next notification, as `pid channel payload`.
async fn notification(wire: &mut Wire) -> String {
    let frame = wire.expect("A").await.remove(0);
    let (pid, texts) = frame.body.split_at(4);
    let pid = u32::from_be_bytes(pid.try_into().expect("four"));
    let texts = texts.strip_suffix(b"\0").expect("a string");
    format!("{pid} {}", String::from_utf8_lossy(texts).replace('\0', " "))
}

/// The error that ends a listener's connection.
async fn closed(wire: &mut Wire) -> String {
    let frame = wire.rest().await.pop().expect("it is told why");
    assert_eq!(frame.fields()[&'S'], "FATAL");
    frame.sqlstate()
}

fn pid(wire: &Wire) -> u32 {
    wire.key.as_ref().expect("logged in").0
}

#[tokio::test]
async fn notify_through_one_pgweir_reaches_the_listeners_of_another() {
    let redis = Redis::without_memory().await;
    let [here, there] = two(&redis, "").await;
    let (mut ear, mut near) = (listener(&there).await, listener(&here).await);
    let mut client = Wire::login(&here, "app").await;
    let mut expected = Vec::new();
    for number in 0..100 {
        client.value(&format!("NOTIFY jobs, 'alone {number}'")).await;
        client
            .value(&format!("BEGIN; SELECT pg_notify('jobs', 'in {number}'); NOTIFY jobs, 'it {number}'; COMMIT"))
            .await;
        expected.extend(["alone", "in", "it"].map(|text| format!("{} jobs {text} {number}", pid(&client))));
    }
    client.value("BEGIN; NOTIFY jobs, 'never'; ROLLBACK").await;
    client.value("NOTIFY jobs, 'last'").await;
    expected.push(format!("{} jobs last", pid(&client)));
    for ear in [&mut ear, &mut near] {
        for expected in &expected {
            assert_eq!(notification(ear).await, *expected);
        }
        // Nothing came twice.
        assert_eq!(tags(&ear.query("SELECT 1").await), "T D C Z");
    }
    eventually(async || here.metric("pgweir_notify_bus_seconds_count", &["database=\"app\""]) == 301.0).await;
    assert_eq!(here.metric("pgweir_notify_queue", &[]), 0.0);
    assert_eq!(there.metric("pgweir_notify_delivered_total", &[]), 301.0);
    assert_eq!(there.metric("pgweir_notify_gaps_total", &[]), 0.0);
}

#[tokio::test]
async fn what_pgweir_does_not_see_reaches_everybody_as_ever() {
    let redis = Redis::without_memory().await;
    let [here, there] = two(&redis, "").await;
    let (mut ear, mut near) = (listener(&there).await, listener(&here).await);
    let mut client = Wire::login(&here, "app").await;
    client.value("DO $$ BEGIN NOTIFY jobs, 'within'; END $$").await;
    for ear in [&mut ear, &mut near] {
        let came = notification(ear).await;
        assert!(came.ends_with(" jobs within"), "{came}");
        assert_eq!(tags(&ear.query("SELECT 1").await), "T D C Z");
    }
}

#[tokio::test]
async fn listeners_of_a_redis_that_forgot_are_closed_as_by_a_failover() {
    let mut redis = Redis::without_memory().await;
    let [here, there] = two(&redis, "").await;
    let mut ear = listener(&there).await;
    redis.stop();
    redis.start().await;
    assert_eq!(closed(&mut ear).await, "08006");
    assert_eq!(there.metric("pgweir_notify_gaps_total", &["cause=\"bus\""]), 1.0);
    let mut ear = listener(&there).await;
    let mut client = Wire::login(&here, "app").await;
    client.value("NOTIFY jobs, 'after'").await;
    assert_eq!(notification(&mut ear).await, format!("{} jobs after", pid(&client)));
}

/// What a bus that is down leaves undone: so many wait, and no more.
const FEW: &str = "[notify]\nbus_queue = 5\n";

/// As long as the queue has room nobody notices.
async fn notify_until_full(proxy: &Proxy) -> Wire {
    let mut client = Wire::login(proxy, "app").await;
    for number in 0..5 {
        client.value(&format!("NOTIFY jobs, 'queued {number}'")).await;
    }
    assert_eq!(proxy.metric("pgweir_notify_queue", &[]), 5.0);
    client
}

async fn hears_what_was_queued(ear: &mut Wire, client: &Wire) {
    for number in 0..5 {
        assert_eq!(notification(ear).await, format!("{} jobs queued {number}", pid(client)));
    }
}

#[tokio::test]
async fn what_a_redis_that_is_down_cannot_take_goes_by_way_of_postgres() {
    let mut redis = Redis::with_memory().await;
    let [here, there] = two(&redis, &format!("{FEW}when_down = \"postgres\"")).await;
    let mut ear = listener(&there).await;
    let server = Postgres::shared().endpoint(&here.dbname);
    let mut direct = Wire::login(&server, "app").await;
    direct.value("LISTEN jobs").await;
    redis.stop();
    let mut client = notify_until_full(&here).await;
    client.value("NOTIFY jobs, 'by another way'").await;
    for ear in [&mut ear, &mut direct] {
        let came = notification(ear).await;
        assert!(came.ends_with(" jobs by another way"), "{came}");
    }
    redis.start().await;
    hears_what_was_queued(&mut ear, &client).await;
    eventually(async || here.metric("pgweir_notify_queue", &[]) == 0.0).await;
    client.value("NOTIFY jobs, 'as ever'").await;
    assert_eq!(notification(&mut ear).await, format!("{} jobs as ever", pid(&client)));
    assert_eq!(here.metric("pgweir_notify_dropped_total", &[]), 0.0);
    assert_eq!(there.metric("pgweir_notify_gaps_total", &[]), 0.0);
}

#[tokio::test]
async fn notify_is_refused_while_a_redis_that_is_down_can_take_no_more() {
    let mut redis = Redis::with_memory().await;
    let [here, there] = two(&redis, &format!("{FEW}when_down = \"error\"")).await;
    let mut ear = listener(&there).await;
    redis.stop();
    let mut client = notify_until_full(&here).await;
    assert_eq!(client.failure("NOTIFY jobs, 'refused'").await, "54000");
    assert_eq!(client.failure("SELECT pg_notify('jobs', 'refused')").await, "54000");
    assert_eq!(client.value("SELECT 'other statements are not'").await, "other statements are not");
    redis.start().await;
    hears_what_was_queued(&mut ear, &client).await;
    eventually(async || here.metric("pgweir_notify_queue", &[]) == 0.0).await;
    client.value("NOTIFY jobs, 'accepted'").await;
    assert_eq!(notification(&mut ear).await, format!("{} jobs accepted", pid(&client)));
    assert_eq!(here.metric("pgweir_notify_dropped_total", &[]), 0.0);
}

#[tokio::test]
async fn what_a_redis_that_is_down_cannot_take_is_dropped_and_counted() {
    let mut redis = Redis::with_memory().await;
    let [here, there] = two(&redis, &format!("{FEW}when_down = \"drop\"")).await;
    let (mut ear, mut near) = (listener(&there).await, listener(&here).await);
    redis.stop();
    let mut client = notify_until_full(&here).await;
    client.value("NOTIFY jobs, 'dropped'").await;
    assert_eq!(here.metric("pgweir_notify_dropped_total", &["cause=\"bus\""]), 1.0);
    // Nothing is lost on the way to who is here.
    hears_what_was_queued(&mut near, &client).await;
    assert_eq!(notification(&mut near).await, format!("{} jobs dropped", pid(&client)));
    redis.start().await;
    hears_what_was_queued(&mut ear, &client).await;
    eventually(async || here.metric("pgweir_notify_queue", &[]) == 0.0).await;
    client.value("NOTIFY jobs, 'after'").await;
    assert_eq!(closed(&mut ear).await, "08006");
    assert_eq!(there.metric("pgweir_notify_gaps_total", &["cause=\"hole\""]), 1.0);
}

#[tokio::test]
async fn wrong_password_is_logged_and_listen_says_that_the_bus_cannot_be_reached() {
    let redis = Redis::with(&["--requirepass", "right"]).await;
    let with = |login: &str| {
        let url = format!("redis://{login}@{}/2", redis.addr);
        proxy()
            .toml(&format!("[notify]\nbus = \"redis\"\nredis_url = \"{url}\"\n[pool]\nconnect_timeout = \"1s\""))
            .start()
    };
    let wrong = with(":s3cret-and-wrong").await;
    let mut client = Wire::login(&wrong, "app").await;
    client.send(frontend::query("LISTEN jobs")).await;
    let frame = client.rest().await.pop().expect("it is told why");
    let fields = frame.fields();
    assert_eq!((&*fields[&'S'], &*fields[&'C']), ("FATAL", "08006"));
    assert_eq!(fields[&'M'], "LISTEN failed: the notification bus cannot be reached");
    assert!(fields[&'H'].contains("notify.redis_url"), "{fields:?}");
    let record = wrong.logged("the Redis of notify.redis_url cannot be used").await;
    assert!(record["error"].as_str().is_some_and(|error| error.contains("authentication failed")), "{record}");
    assert!(!wrong.log_text().contains("s3cret-and-wrong"));

    let right = with(":right").await;
    let mut ear = listener(&right).await;
    ear.value("NOTIFY jobs").await;
    eventually(async || right.metric("pgweir_notify_bus_seconds_count", &[]) == 1.0).await;
}

#[tokio::test]
async fn listen_waits_for_a_redis_that_comes_up_in_time() {
    let mut redis = Redis::with_memory().await;
    redis.stop();
    let proxy = proxy().toml(&redis.bus()).toml("[pool]\nconnect_timeout = \"30s\"").start().await;
    let mut client = Wire::login(&proxy, "app").await;
    client.send(frontend::query("LISTEN jobs")).await;
    proxy.logged("the Redis of notify.redis_url cannot be used").await;
    redis.start().await;
    client.expect("C Z").await;
}

#[tokio::test]
async fn reload_brings_another_bus_and_listeners_are_told() {
    let redis = Redis::without_memory().await;
    let [here, there] = two(&redis, "[notify]\nbus = \"postgres\"").await;
    let mut ear = listener(&there).await;
    let mut client = Wire::login(&here, "app").await;
    client.value("NOTIFY jobs, 'by Postgres'").await;
    let came = notification(&mut ear).await;
    assert!(came.ends_with(" jobs by Postgres"), "{came}");
    for proxy in [&here, &there] {
        proxy.reload("[notify]\nbus = \"redis\"").await;
    }
    assert_eq!(closed(&mut ear).await, "08006");
    let mut ear = listener(&there).await;
    client.value("NOTIFY jobs, 'by the Redis'").await;
    assert_eq!(notification(&mut ear).await, format!("{} jobs by the Redis", pid(&client)));
    assert_eq!(read(&redis, "pgweir:notify:app").await.len(), 1);
    // And back again.
    for proxy in [&here, &there] {
        proxy.reload("[notify]\nbus = \"postgres\"").await;
    }
    assert_eq!(closed(&mut ear).await, "08006");
    listener(&there).await;
}

#[tokio::test]
async fn tls_is_checked_against_the_certificates_of_the_system() {
    let pki = Pki::new();
    pki.issue("redis", "127.0.0.1");
    let redis = Redis::with_tls(&pki, "redis").await;
    let with = |certificates: PathBuf, patience: &str| {
        let url = format!("rediss://{}", redis.addr);
        proxy()
            .toml(&format!("[notify]\nbus = \"redis\"\nredis_url = \"{url}\""))
            .toml(&format!("[pool]\nconnect_timeout = \"{patience}\""))
            .env("SSL_CERT_FILE", certificates)
            .start()
    };
    let trusts = with(pki.path("ca.crt"), "30s").await;
    let mut ear = listener(&trusts).await;
    ear.value("NOTIFY jobs").await;
    eventually(async || trusts.metric("pgweir_notify_bus_seconds_count", &[]) == 1.0).await;

    let other = Pki::new();
    let distrusts = with(other.path("ca.crt"), "1s").await;
    let mut client = Wire::login(&distrusts, "app").await;
    client.send(frontend::query("LISTEN jobs")).await;
    assert_eq!(closed(&mut client).await, "08006");
    let record = distrusts.logged("the Redis of notify.redis_url cannot be used").await;
    assert!(record["error"].as_str().is_some_and(|error| error.contains("certificate")), "{record}");
}

// ## Helpers

fn settings(url: &str) -> Notify {
    Notify { bus: BusSettings::Redis { url: Secret::new(url) }, ..Notify::default() }
}

/// What a pgweir has of the bus, for one database at a time.
struct Process {
    hub: Arc<Hub>,
    bus: Arc<RedisBus>,
    exchange: InUse<Exchange>,
    carrying: JoinHandle<()>,
    /// The process id of the next client.
    clients: AtomicI32,
}

impl Process {
    fn new(url: &str) -> Self {
        Self::with(settings(url))
    }

    fn with(settings: Notify) -> Self {
        let BusSettings::Redis { url } = settings.bus.clone() else { panic!("a Redis is the bus here") };
        let hub = Arc::new(Hub::new(settings.clone()));
        let (_, settings) = watch::channel(Arc::new(settings));
        Self::of(hub, Arc::new(RedisBus::new(&url, &settings)), "app")
    }

    fn database(&self, name: &str) -> Self {
        Self::of(Arc::clone(&self.hub), Arc::clone(&self.bus), name)
    }

    fn of(hub: Arc<Hub>, bus: Arc<RedisBus>, name: &str) -> Self {
        let exchange = hub.exchange(&name.into());
        let (carried, carrier) = (Arc::clone(&exchange), Arc::clone(&bus));
        let carrying = tokio::spawn(async move { carrier.carry(&carried).await });
        Self { hub, bus, exchange, carrying, clients: AtomicI32::new(1) }
    }

    fn publish(&self, pid: i32, channel: &'static str, payload: &str) {
        let notification = Notification::new(channel, Bytes::copy_from_slice(payload.as_bytes())).expect("short");
        self.exchange.publish(pid, &[notification]);
    }

    /// Everything is at the Redis.
    async fn sent(&self) {
        eventually(async || self.exchange.outbox().depth() == 0).await;
    }

    fn asks_for(&self, channel: &'static str) -> Ear {
        let mailbox = Mailbox::new(self.clients.fetch_add(1, Ordering::Relaxed), Waker::from(Arc::new(Nobody)));
        self.exchange.change(&mailbox, &Change::Listen(channel.into()));
        Ear { mailbox }
    }

    async fn listens(&self, channel: &'static str) -> Ear {
        let ear = self.asks_for(channel);
        ear.is_in_place().await;
        ear
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// It is looked after without being woken.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// A client that listens.
struct Ear {
    mailbox: Arc<Mailbox>,
}

impl Ear {
    async fn is_in_place(&self) {
        eventually(async || self.mailbox.is_in_place()).await;
    }

    /// What has come, as `pid channel payload`.
    fn heard(&self) -> Vec<String> {
        let mut out = Vec::new();
        while self.mailbox.has_mail() && self.mailbox.take(&mut out, usize::MAX, false).is_ok() {}
        let mut rest = &out[..];
        let mut heard = Vec::new();
        while let Some((head, tail)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes(head[1..5].try_into().expect("four")) as usize - 8;
            let pid = i32::from_be_bytes(head[5..9].try_into().expect("four"));
            let texts = tail[..length].strip_suffix(b"\0").expect("a string");
            heard.push(format!("{pid} {}", String::from_utf8_lossy(texts).replace('\0', " ")));
            rest = &tail[length..];
        }
        heard
    }

    /// These are the next to come, and nothing before or between them.
    #[track_caller]
    fn hears(&self, expected: &[impl AsRef<str>]) -> impl Future<Output = ()> {
        let expected: Vec<_> = expected.iter().map(|text| text.as_ref().to_owned()).collect();
        let heard = std::cell::RefCell::new(Vec::new());
        let ear = Self { mailbox: Arc::clone(&self.mailbox) };
        eventually(move || {
            heard.borrow_mut().extend(ear.heard());
            let (now, closing) = (heard.borrow().clone(), ear.mailbox.closing());
            assert!(now.iter().zip(&expected).all(|(came, due)| came == due), "{now:?}");
            assert!(now.len() <= expected.len(), "{now:?}");
            let is_all = now.len() == expected.len();
            assert!(is_all || closing.is_none(), "{closing:?} after {now:?}");
            async move { is_all }
        })
    }

    #[track_caller]
    fn is_closed(&self, why: Closing) -> impl Future<Output = ()> {
        let mailbox = Arc::clone(&self.mailbox);
        eventually(move || {
            let closing = mailbox.closing();
            assert!(closing.is_none_or(|closing| closing == why), "{closing:?}");
            async move { closing.is_some() }
        })
    }
}

/// An entry of a stream.
type Fields = Vec<(String, Vec<u8>)>;

/// Everything in a stream.
async fn read(redis: &Redis, key: &str) -> Vec<Fields> {
    let mut connection = redis.connect().await;
    let range = ::redis::cmd("XRANGE").arg(key).arg("-").arg("+").take();
    let entries: Vec<(Value, Fields)> = range.query_async(&mut connection).await.expect("a stream");
    entries.into_iter().map(|(_, fields)| fields).collect()
}
