//! Limits held by leases: the script at a real Redis keeps the book as its model does, and instances share by it.

use std::time::Duration;

use fastrand::Rng;
use pgweir::testing::fleet::lease::book::LeaseBook;
use pgweir::testing::fleet::lease::engine::{BookErrand, KeptOrder, RULES, arguments, key, read};
use pgweir::testing::fleet::lease::{LeaseRequest, LeaseWant};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use rustix::process::Signal;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::frontend::query;
use crate::support::{Link, Postgres, Proxy, Redis, Sessions, Wire, eventually, proxy, root};

// ## The script

/// The script, which is told the time.
struct Script {
    connection: MultiplexedConnection,
    book: String,
}

impl Script {
    async fn call(&mut self, arguments: &[String], wall: Duration) -> Result<String, RedisError> {
        let mut ask = cmd("EVAL");
        ask.arg(format!("local wall = tonumber(KEYS[2])\n{RULES}")).arg(2);
        ask.arg(&self.book).arg(wall.as_millis().to_string()).arg(arguments);
        ask.query_async(&mut self.connection).await
    }
}

/// A request of a member that has these limits, at random.
fn request(rng: &mut Rng, seq: u64) -> LeaseRequest {
    let mut request = LeaseRequest { seq, weight: rng.u32(1..4), knows: rng.u32(0..4), ..LeaseRequest::default() };
    for name in ["role app", "role batch", "total"] {
        if rng.u8(0..4) > 0 {
            let want =
                LeaseWant { limit: rng.u32(0..41), want: rng.u32(0..50), cap: rng.u32(0..20), used: rng.u32(0..20) };
            request.wants.insert(name.to_owned(), want);
        }
    }
    request
}

#[tokio::test]
async fn the_script_keeps_the_book_as_its_model_does() {
    let redis = Redis::without_memory().await;
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut script = Script { connection: redis.connect().await, book: key(&seed.to_string()) };
        let (mut book, mut wall, mut seq) = (LeaseBook::default(), Duration::from_millis(1_800_000_000_000), 0);
        for step in 0..80 {
            wall = match rng.u8(0..20) {
                0 => wall - Duration::from_millis(rng.u64(0..20_000)),
                1 => wall + Duration::from_millis(rng.u64(0..20_000)),
                _ => wall + Duration::from_millis(rng.u64(0..900)),
            };
            let id = format!("{:016x}", rng.u64(0..5));
            if rng.u8(0..20) == 0 {
                let mut bye = arguments(&id, &BookErrand::default());
                bye.push("bye".to_owned());
                seq += 1;
                bye[1] = seq.to_string();
                script.call(&bye, wall).await.expect("it leaves");
                book.leave(&id, wall);
                continue;
            }
            // Sometimes one that was late.
            seq += 1;
            let late = rng.u64(0..3).min(seq - 1);
            let errand = BookErrand { request: request(&mut rng, seq - late), ..BookErrand::default() };
            let answer = script.call(&arguments(&id, &errand), wall).await;
            let expected = book.refresh(&id, &errand.request, wall);
            match expected {
                Some(expected) => {
                    let answer = read(&answer.expect("granted")).expect("readable").book;
                    assert_eq!(answer, expected, "seed {seed}, step {step}, {errand:?}");
                }
                None => assert!(answer.expect_err("refused").to_string().contains("later request")),
            }
        }
    }
}

#[tokio::test]
async fn the_later_order_for_a_role_holds_and_is_put_back_where_it_was_forgotten() {
    let redis = Redis::without_memory().await;
    let mut script = Script { connection: redis.connect().await, book: key("orders") };
    let order = |text: &str, since| ("app".to_owned(), KeptOrder { text: text.to_owned(), since });
    let mut seq = 0;
    let mut give = async |orders: Vec<(String, KeptOrder)>, wall: u64| {
        seq += 1;
        let errand = BookErrand {
            request: LeaseRequest { seq, weight: 1, ..LeaseRequest::default() },
            orders,
            ..BookErrand::default()
        };
        let answer = script.call(&arguments("a", &errand), Duration::from_millis(wall)).await.expect("granted");
        read(&answer).expect("readable").orders.remove("app")
    };
    assert_eq!(give(vec![], 1000).await, None);
    assert_eq!(give(vec![order("first", 0)], 2000).await, Some(order("first", 2000).1));
    // Its clock went back.
    assert_eq!(give(vec![order("second", 0)], 1500).await, Some(order("second", 2001).1));
    assert_eq!(give(vec![order("first", 2000)], 3000).await, Some(order("second", 2001).1));
    assert_eq!(give(vec![order("put back", 2500)], 3000).await, Some(order("put back", 2500).1));
}

// ## Instances

/// Of `app`, over all instances.
const LIMIT: u32 = 12;

/// An instance of a fleet with this limit.
async fn instance(redis: &Redis, dbname: &str, lines: &str) -> Proxy {
    let fleet = format!("[fleet]\nmode = \"redis\"\nurl = \"{}\"", redis.url());
    let limit = format!("[roles.app]\ntransactions_max = {LIMIT}\n[admission]\nmode = \"off\"");
    proxy().dbname(dbname).pool_size(40).wait_timeout("1d").toml(&fleet).toml(&limit).toml(lines).start().await
}

/// The part of `app` that an instance has.
fn part(proxy: &Proxy) -> f64 {
    proxy.metric("pgweir_fleet_role_part", &["role=\"app\""])
}

fn state(proxy: &Proxy, state: &str) -> bool {
    proxy.metric("pgweir_fleet_lease_state", &[&format!("state=\"{state}\"")]) == 1.0
}

/// Clients of an instance that keep a transaction each as soon as they may.
async fn crowd(proxy: &Proxy, count: u32) -> Vec<Wire> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut wire = proxy.wire("app").await;
        wire.send(query("BEGIN")).await;
        crowd.push(wire);
    }
    crowd
}

async fn open(sessions: &Sessions) -> i64 {
    sessions.count("state = 'idle in transaction'").await
}

#[tokio::test]
async fn a_busy_instance_has_all_but_one_each_and_two_have_half() {
    let redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let sessions = Sessions::of(Postgres::shared(), &dbname).await;
    let fleet = [instance(&redis, &dbname, "").await, instance(&redis, &dbname, "").await];
    // A new book knows nobody, so each begins with one.
    eventually(async || fleet.iter().map(part).sum::<f64>() == f64::from(LIMIT)).await;
    let here = crowd(&fleet[0], LIMIT + 3).await;
    eventually(async || fleet.iter().map(part).eq([11.0, 1.0])).await;
    eventually(async || open(&sessions).await == 11).await;
    let there = crowd(&fleet[1], LIMIT + 3).await;
    eventually(async || open(&sessions).await == 12).await;
    // Others come in as those that are in leave.
    drop(here);
    eventually(async || fleet.iter().map(part).eq([1.0, 11.0])).await;
    eventually(async || open(&sessions).await == 11).await;
    drop(there);

    let lines = fleet[0].console("SHOW FLEET").await;
    assert_eq!(lines.len(), 2);
    assert_eq!((&*lines[0]["self"], &*lines[1]["self"]), ("1", "0"));
    assert_eq!(lines[0]["state"], "granted");
    assert!(lines[1]["shares"].contains("role app "), "{lines:?}");
}

/// As docs/FLEET.md has them.
const PERMISSIONS: &str = "~pgweir:fleet:* +evalsha +script|load +time +hget +hset +hgetall +hdel +select";

#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let page = std::fs::read_to_string(root().join("docs/FLEET.md")).expect("our own checkout");
    assert!(page.contains(&format!("ACL SETUSER pgweir on >secret {PERMISSIONS}\n")));
    let user: Vec<_> = ["--user", "pgweir", "on", ">secret"].into_iter().chain(PERMISSIONS.split(' ')).collect();
    let redis = Redis::with(&user).await;
    let url = format!("[fleet]\nurl = \"redis://pgweir:secret@{}/1\"", redis.addr);
    let dbname = Postgres::shared().database().await;
    let (stays, mut leaves) = (instance(&redis, &dbname, &url).await, instance(&redis, &dbname, &url).await);
    eventually(async || part(&stays) + part(&leaves) == f64::from(LIMIT)).await;
    stays.console("LIMIT app 6").await;
    eventually(async || limit(&leaves).await.0 == "6").await;
    leaves.signal(Signal::TERM);
    assert!(leaves.ended().await);
    eventually(async || part(&stays) == 6.0).await;
}

#[tokio::test]
async fn an_even_part_is_left_when_the_redis_is_lost_and_leases_are_back_with_it() {
    let mut redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let fleet = [instance(&redis, &dbname, "").await, instance(&redis, &dbname, "").await];
    let _clients = crowd(&fleet[0], LIMIT).await;
    eventually(async || fleet.iter().map(part).eq([11.0, 1.0])).await;
    // Each has learnt by how many it is to divide.
    for one in &fleet {
        let answered = || one.metric("pgweir_fleet_refreshes_total", &["outcome=\"answered\""]);
        let before = answered();
        eventually(async || answered() >= before + 3.0).await;
    }
    redis.stop();
    eventually(async || fleet.iter().all(|one| state(one, "even"))).await;
    eventually(async || fleet.iter().map(part).eq([6.0, 6.0])).await;
    for one in &fleet {
        one.logged("the Redis of fleet.url cannot be used").await;
        one.logged("no leases are to be had: this instance keeps to an even part of the limits").await;
        assert_eq!(one.console("SHOW FLEET").await[0]["state"], "even");
    }
    // It cannot know how many there are.
    let late = instance(&redis, &dbname, "").await;
    eventually(async || state(&late, "smallest") && part(&late) == 1.0).await;
    drop(late);
    redis.start().await;
    eventually(async || fleet.iter().all(|one| state(one, "granted"))).await;
    eventually(async || fleet.iter().map(part).eq([11.0, 1.0])).await;
    for one in &fleet {
        one.logged("the Redis of fleet.url is back").await;
    }
}

#[tokio::test]
async fn the_share_of_one_that_stands_still_is_for_others_and_it_lets_nobody_in_when_it_goes_on() {
    let redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let sessions = Sessions::of(Postgres::shared(), &dbname).await;
    let fleet = [instance(&redis, &dbname, "").await, instance(&redis, &dbname, "").await];
    eventually(async || fleet.iter().map(part).sum::<f64>() == f64::from(LIMIT)).await;
    let first = crowd(&fleet[0], 6).await;
    eventually(async || open(&sessions).await == 6).await;
    drop(first);
    eventually(async || open(&sessions).await == 0).await;
    fleet[0].signal(Signal::STOP);
    let _clients = crowd(&fleet[1], LIMIT).await;
    // All of it: nobody else is there.
    eventually(async || open(&sessions).await == i64::from(LIMIT)).await;
    fleet[0].signal(Signal::CONT);
    let _late = crowd(&fleet[0], 3).await;
    // What the other is asked to give back it still uses.
    eventually(async || part(&fleet[1]) == 9.0).await;
    assert_eq!((open(&sessions).await, part(&fleet[0])), (i64::from(LIMIT), 0.0));
}

#[tokio::test]
async fn one_that_is_cut_off_alone_has_an_even_part_at_most_and_the_others_have_the_rest() {
    let redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let link = Link::to(redis.addr).await;
    let by_link = format!("[fleet]\nurl = \"redis://{}\"", link.addr);
    let fleet = [instance(&redis, &dbname, "").await, instance(&redis, &dbname, &by_link).await];
    eventually(async || fleet.iter().map(part).sum::<f64>() == f64::from(LIMIT)).await;
    let _clients = crowd(&fleet[1], LIMIT).await;
    eventually(async || fleet.iter().map(part).eq([1.0, 11.0])).await;
    // Nothing is refused, and nothing comes through.
    link.pause();
    let _others = crowd(&fleet[0], LIMIT).await;
    eventually(async || fleet.iter().map(part).eq([12.0, 6.0])).await;
    eventually(async || state(&fleet[1], "even")).await;
    assert_eq!(fleet.iter().map(part).collect::<Vec<_>>(), [12.0, 6.0]);
    assert_eq!(fleet[0].console("SHOW FLEET").await.len(), 1, "it is alone in the book");
    link.resume();
    eventually(async || fleet.iter().map(part).sum::<f64>() <= f64::from(LIMIT)).await;
}

/// Looks, time and again, how many transactions of the database are open; the most at any look.
struct Most {
    stop: CancellationToken,
    task: JoinHandle<i64>,
}

impl Most {
    async fn of(dbname: &str) -> Self {
        let sessions = Sessions::of(Postgres::shared(), dbname).await;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut most = 0;
            while !stopped.is_cancelled() {
                most = most.max(sessions.count("state <> 'idle'").await);
            }
            most
        });
        Self { stop, task }
    }

    async fn seen(self) -> i64 {
        self.stop.cancel();
        self.task.await.expect("it does not panic")
    }
}

/// Clients of an instance that run one short transaction after the other, until they are dropped or it is killed.
async fn traffic(proxy: &Proxy) -> JoinSet<()> {
    let mut traffic = JoinSet::new();
    for _ in 0..LIMIT + 3 {
        let wire = proxy.wire("app").await;
        traffic.spawn(async move {
            let mut wire = wire;
            loop {
                for sql in ["BEGIN; SELECT pg_sleep(0.01)", "COMMIT"] {
                    if wire.try_send(&query(sql)).await.is_err() || !until_ready(&mut wire).await {
                        return;
                    }
                }
            }
        });
    }
    traffic
}

async fn until_ready(wire: &mut Wire) -> bool {
    loop {
        match wire.next().await {
            Some(frame) if frame.tag == 'Z' => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

#[tokio::test]
async fn no_look_finds_more_than_the_limit_while_demand_moves_and_an_instance_and_the_book_are_lost() {
    let redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let mut fleet = Vec::new();
    for _ in 0..3 {
        fleet.push(instance(&redis, &dbname, "").await);
    }
    eventually(async || fleet.iter().map(part).sum::<f64>() == f64::from(LIMIT)).await;
    let most = Most::of(&dbname).await;
    let first = traffic(&fleet[0]).await;
    eventually(async || fleet.iter().map(part).eq([10.0, 1.0, 1.0])).await;
    let _second = traffic(&fleet[1]).await;
    drop(first);
    eventually(async || fleet.iter().map(part).eq([1.0, 10.0, 1.0])).await;
    let _third = traffic(&fleet[2]).await;
    eventually(async || part(&fleet[1]) + part(&fleet[2]) == 11.0 && part(&fleet[2]) >= 5.0).await;
    let _: () = cmd("FLUSHALL").query_async(&mut redis.connect().await).await.expect("it forgets");
    eventually(async || redis.holds(&key("main"), "clock").await).await;
    let _all = traffic(&fleet[0]).await;
    eventually(async || fleet.iter().map(part).eq([4.0, 4.0, 4.0])).await;
    // Killed.
    drop(fleet.pop());
    eventually(async || fleet.iter().map(part).eq([6.0, 6.0])).await;
    let most = most.seen().await;
    assert!((i64::from(LIMIT / 2)..=i64::from(LIMIT)).contains(&most), "{most}");
}

#[tokio::test]
async fn the_lower_of_two_limits_holds_and_is_said() {
    let redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let fleet =
        [instance(&redis, &dbname, "").await, instance(&redis, &dbname, "[roles.app]\ntransactions_max = 4").await];
    let notes = async || fleet[0].console("SHOW FLEET").await[0]["notes"].clone();
    eventually(async || notes().await == "role app: the 4 of another instance holds, not 12").await;
    eventually(async || fleet.iter().map(part).sum::<f64>() == 4.0).await;
}

#[tokio::test]
async fn one_that_ends_gives_its_share_back_at_once() {
    let redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let (stays, mut leaves) = (instance(&redis, &dbname, "").await, instance(&redis, &dbname, "").await);
    eventually(async || part(&stays) + part(&leaves) == f64::from(LIMIT)).await;
    assert_eq!(stays.metric("pgweir_fleet_instances", &[]), 2.0);
    leaves.signal(Signal::TERM);
    assert!(leaves.ended().await);
    let mut connection = redis.connect().await;
    let members: Vec<String> = cmd("HKEYS").arg(key("main")).query_async(&mut connection).await.expect("a book");
    assert_eq!(members.iter().filter(|name| name.starts_with("m:")).count(), 1, "{members:?}");
    eventually(async || part(&stays) == f64::from(LIMIT)).await;
}

/// The limit of `app` at an instance, and how it stands.
async fn limit(proxy: &Proxy) -> (String, String) {
    let roles = proxy.console("SHOW ROLES").await;
    let app = roles.iter().find(|role| role["role"] == "app").expect("it is in the file");
    (app["limit"].clone(), app["state"].clone())
}

#[tokio::test]
async fn an_order_holds_at_every_instance_and_at_those_that_come_later() {
    let mut redis = Redis::without_memory().await;
    let dbname = Postgres::shared().database().await;
    let mut fleet = vec![instance(&redis, &dbname, "").await, instance(&redis, &dbname, "").await];
    fleet[0].console("LIMIT app 0").await;
    let closed = ("0".to_owned(), "closed".to_owned());
    eventually(async || limit(&fleet[1]).await == closed).await;
    let orders = fleet[1].console("SHOW FLEET_ORDERS").await;
    assert_eq!((&*orders[0]["role"], &*orders[0]["order"], &*orders[0]["user"]), ("app", "LIMIT 0", "ops"));
    assert!(orders[0]["addr"].starts_with("127.0.0.1:") && orders[0]["since"].ends_with("UTC"), "{orders:?}");
    // The Redis forgets it, and is told again.
    redis.stop();
    redis.start().await;
    eventually(async || redis.holds(&key("main"), "o:app").await).await;
    fleet.push(instance(&redis, &dbname, "").await);
    eventually(async || limit(&fleet[2]).await == closed).await;
    // A file that says another limit keeps it.
    let other = instance(&redis, &dbname, "[roles.app]\ntransactions_max = 20").await;
    other.logged("the file has another limit than where an order was given: it stays").await;
    assert_eq!(limit(&other).await.0, "20");
    fleet[1].console("LIMIT app DEFAULT").await;
    for one in &fleet {
        eventually(async || limit(one).await.0 == "12").await;
    }
    fleet[2].console("RAMP app OVER '1h'").await;
    for one in &fleet {
        eventually(async || one.console("SHOW ROLES").await.iter().any(|role| !role["ramp_end"].is_empty())).await;
    }
}
