use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

use super::*;
use crate::config::{Bus, BusSettings, OnGap, Secret, WhenDown};
use crate::notify::hub::Hub;

/// Counts how often its task is woken, and looks whether locks are held then.
#[derive(Default)]
struct Task {
    wakes: AtomicUsize,
    exchange: Mutex<Option<Arc<Exchange>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if let Some(exchange) = &*self.exchange.lock().expect("no panic") {
            assert!(exchange.state.try_lock().is_ok(), "woken under the lock");
        }
    }
}

struct TestListener {
    task: Arc<Task>,
    mailbox: Arc<Mailbox>,
    exchange: Arc<Exchange>,
}

impl TestListener {
    fn new(exchange: &Arc<Exchange>, pid: i32) -> Self {
        let task = Arc::new(Task::default());
        *task.exchange.lock().expect("no panic") = Some(Arc::clone(exchange));
        let mailbox = Mailbox::new(pid, Waker::from(Arc::clone(&task)));
        Self { task, mailbox, exchange: Arc::clone(exchange) }
    }

    fn listens(exchange: &Arc<Exchange>, pid: i32, channels: &[&'static str]) -> Self {
        let client = Self::new(exchange, pid);
        channels.iter().for_each(|channel| client.listen(channel));
        client
    }

    fn listen(&self, channel: &'static str) {
        self.exchange.change(&self.mailbox, &Change::Listen(channel.into()));
    }

    fn unlisten(&self, channel: &'static str) {
        self.exchange.change(&self.mailbox, &Change::Unlisten(channel.into()));
    }

    fn wakes(&self) -> usize {
        self.task.wakes.load(Ordering::SeqCst)
    }

    /// Everything that waits, as `pid channel payload`.
    fn read(&self) -> Vec<String> {
        let mut out = Vec::new();
        while self.mailbox.has_mail() {
            assert!(self.mailbox.take(&mut out, 100, false).expect("it stays") > 0);
        }
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
}

fn redis() -> BusSettings {
    BusSettings::Redis { url: Secret::new("redis://127.0.0.1") }
}

fn settings() -> Notify {
    Notify { bus: BusSettings::Memory, ..Notify::default() }
}

fn exchange(settings: &Notify) -> InUse<Exchange> {
    Hub::new(settings.clone()).exchange(&"app".into())
}

fn bridged(settings: &Notify) -> InUse<Exchange> {
    let hub = Hub::new(settings.clone());
    hub.attach_bridge();
    hub.exchange(&"app".into())
}

fn say(channel: &'static str, payload: impl ToString) -> Notification {
    Notification::new(channel, payload.to_string()).expect("short")
}

fn names(channels: &[&'static str]) -> Vec<Bytes> {
    channels.iter().map(|channel| Bytes::from_static(channel.as_bytes())).collect()
}

#[test]
fn everybody_on_a_channel_hears_it_and_nobody_else() {
    let exchange = exchange(&settings());
    let (a, b) = (TestListener::listens(&exchange, 1, &["x"]), TestListener::listens(&exchange, 2, &["x", "y"]));
    exchange.publish(9, &[say("x", 1), say("y", 2), say("z", 3), say("x", 4)]);
    assert_eq!(a.read(), ["9 x 1", "9 x 4"]);
    assert_eq!(b.read(), ["9 x 1", "9 y 2", "9 x 4"]);
    assert_eq!(exchange.stats.counts().published, 4);
}

#[test]
fn a_listener_is_woken_once_until_it_has_taken_everything() {
    let exchange = exchange(&settings());
    let client = TestListener::listens(&exchange, 1, &["x"]);
    exchange.publish(9, &[say("x", 1), say("x", 2)]);
    exchange.publish(9, &[say("x", 3)]);
    assert_eq!(client.wakes(), 1);
    let mut out = Vec::new();
    assert_eq!(client.mailbox.take(&mut out, 1, false), Ok(1), "one at least");
    exchange.publish(9, &[say("x", 4)]);
    assert_eq!(client.wakes(), 1, "it knows that there is more");
    assert_eq!(client.read().len(), 3);
    exchange.publish(9, &[say("x", 5)]);
    assert_eq!(client.wakes(), 2);
}

#[test]
fn the_frame_of_a_notification_is_shared() {
    let exchange = exchange(&settings());
    let clients: Vec<_> = (1..=1000).map(|pid| TestListener::listens(&exchange, pid, &["x"])).collect();
    exchange.publish(9, &[say("x", "p".repeat(7000))]);
    let queued: usize = exchange.listeners().iter().map(|listener| listener.queued_bytes).sum();
    assert_eq!(queued, 1000 * 7012);
    let frames: HashSet<_> =
        clients.iter().map(|client| client.mailbox.first_frame().expect("it waits").bytes().as_ptr()).collect();
    assert_eq!(frames.len(), 1);
}

#[test]
fn thousands_of_listeners_on_hundreds_of_channels_hear_their_own() {
    static CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
    let exchange = exchange(&settings());
    let clients: Vec<_> =
        (0..4000).map(|n| TestListener::listens(&exchange, n + 1, &[CHANNELS[n as usize % CHANNELS.len()]])).collect();
    assert_eq!(exchange.size(), (4000, 4));
    for channel in CHANNELS {
        exchange.publish(9, &[say(channel, channel)]);
    }
    for (n, client) in clients.iter().enumerate() {
        let channel = CHANNELS[n % CHANNELS.len()];
        assert_eq!(client.read(), [format!("9 {channel} {channel}")]);
    }
    clients.iter().for_each(|client| exchange.leave(&client.mailbox));
    assert_eq!(exchange.size(), (0, 0));
    assert!(exchange.state().channels.is_empty());
}

#[test]
fn unlisten_takes_one_channel_or_all() {
    let exchange = exchange(&settings());
    let client = TestListener::listens(&exchange, 1, &["x", "y", "z", "x"]);
    assert_eq!(exchange.channels_of(&client.mailbox), names(&["x", "y", "z"]));
    client.unlisten("y");
    client.unlisten("never");
    exchange.publish(9, &[say("x", 1), say("y", 2), say("z", 3)]);
    assert_eq!(client.read(), ["9 x 1", "9 z 3"]);
    exchange.change(&client.mailbox, &Change::UnlistenAll);
    exchange.publish(9, &[say("x", 1), say("y", 2), say("z", 3)]);
    assert_eq!(client.read(), [""; 0]);
    assert_eq!(exchange.size(), (0, 0));
    client.listen("y");
    exchange.deliver(7, &say("y", 4));
    assert_eq!(client.read(), ["7 y 4"]);
}

#[test]
fn what_waits_on_a_channel_goes_with_it() {
    let exchange = exchange(&settings());
    let client = TestListener::listens(&exchange, 1, &["x", "y"]);
    exchange.publish(9, &[say("x", 1), say("y", 2), say("x", 3)]);
    client.unlisten("x");
    assert_eq!(client.mailbox.queued_bytes(), "A----pid-y-2-".len());
    assert_eq!(client.read(), ["9 y 2"]);
    exchange.publish(9, &[say("y", 4)]);
    exchange.leave(&client.mailbox);
    assert!(!client.mailbox.has_mail());
    client.listen("y");
    exchange.publish(9, &[say("y", 5)]);
    assert_eq!((client.read(), client.wakes()), (vec!["9 y 5".to_owned()], 3));
}

#[test]
fn a_listener_that_does_not_read_has_to_go_and_others_hear_everything() {
    let exchange = exchange(&Notify { listener_queue: 1000, ..settings() });
    let (deaf, other) = (TestListener::listens(&exchange, 1, &["x"]), TestListener::listens(&exchange, 2, &["x"]));
    for n in 0..100 {
        exchange.publish(9, &[say("x", n)]);
        assert_eq!(other.read(), [format!("9 x {n}")]);
        assert!(deaf.mailbox.queued_bytes() <= 1000);
    }
    assert_eq!(deaf.mailbox.closing(), Some(Closing::Overflow));
    assert_eq!(deaf.mailbox.queued_bytes(), 0, "what it will never read is given up");
    assert_eq!(deaf.mailbox.take(&mut Vec::new(), 100, false), Err(Closing::Overflow));
    assert!(deaf.mailbox.has_mail());
    let [(_, dropped), ..] = exchange.stats.drops();
    assert_eq!(dropped, 100);
}

#[test]
fn one_that_reads_only_ascii_gets_what_came_before_and_has_to_go() {
    let exchange = exchange(&settings());
    let client = TestListener::listens(&exchange, 1, &["x"]);
    exchange.publish(9, &[say("x", 1), say("x", "é"), say("x", 2)]);
    let mut out = Vec::new();
    assert_eq!(client.mailbox.take(&mut out, 1000, true), Ok(1));
    assert!(client.mailbox.has_mail());
    assert_eq!(client.mailbox.take(&mut out, 1000, true), Err(Closing::Untranslatable));
}

#[test]
fn a_gap_is_told_to_everybody_who_listens() {
    let exchange = exchange(&settings());
    let (listening, not) = (TestListener::listens(&exchange, 1, &["x"]), TestListener::new(&exchange, 2));
    exchange.publish(9, &[say("x", 1)]);
    exchange.gap(Gap::Hole);
    assert_eq!(listening.mailbox.closing(), Some(Closing::Gap(Gap::Hole)));
    assert!(!not.mailbox.has_mail());
    assert_eq!(exchange.stats.gaps()[Gap::Hole as usize], ("hole", 1));
}

#[test]
fn a_gap_is_only_counted_if_so_configured() {
    let exchange = exchange(&Notify { on_gap: OnGap::Count, ..settings() });
    let client = TestListener::listens(&exchange, 1, &["x"]);
    exchange.gap(Gap::Bus);
    assert_eq!((client.mailbox.closing(), client.wakes()), (None, 0));
    assert_eq!(exchange.stats.gaps()[Gap::Bus as usize], ("bus", 1));
}

#[test]
fn a_listener_waits_until_its_channels_are_in_place() {
    let exchange = bridged(&settings());
    let (a, b) = (TestListener::listens(&exchange, 1, &["x"]), TestListener::listens(&exchange, 2, &["x", "y"]));
    assert!(!a.mailbox.is_in_place() && !b.mailbox.is_in_place());
    assert_eq!(exchange.missing(&a.mailbox), Some(Missing::Server));
    let (mut listen, unlisten) = exchange.difference();
    listen.sort();
    assert_eq!((listen, unlisten), (names(&["x", "y"]), vec![]));
    exchange.set_in_place(&names(&["x"]), true);
    assert!(a.mailbox.is_in_place() && !b.mailbox.is_in_place());
    assert_eq!((a.wakes(), b.wakes()), (1, 0));
    exchange.set_in_place(&names(&["y"]), true);
    assert!(b.mailbox.is_in_place());
    let c = TestListener::listens(&exchange, 3, &["y"]);
    assert!(c.mailbox.is_in_place(), "at once: somebody listens to it already");
    assert_eq!(exchange.difference(), (vec![], vec![]));
}

#[test]
fn nobody_waits_for_what_it_does_not_listen_to_any_more() {
    let exchange = bridged(&settings());
    let client = TestListener::listens(&exchange, 1, &["x"]);
    client.unlisten("x");
    assert!(client.mailbox.is_in_place());
    assert_eq!(client.wakes(), 1);
    assert_eq!(exchange.difference(), (vec![], vec![]));
}

#[test]
fn a_channel_that_is_left_is_taken_back_and_counts_as_gone_at_once() {
    let exchange = bridged(&settings());
    let a = TestListener::listens(&exchange, 1, &["x"]);
    exchange.set_in_place(&names(&["x"]), true);
    exchange.leave(&a.mailbox);
    assert_eq!(exchange.difference(), (vec![], names(&["x"])));
    let b = TestListener::listens(&exchange, 2, &["x"]);
    assert!(!b.mailbox.is_in_place(), "the UNLISTEN may be on its way");
    exchange.set_in_place(&names(&["x"]), false);
    assert_eq!(exchange.difference(), (names(&["x"]), vec![]));
}

#[test]
fn a_channel_left_while_it_was_being_put_in_place_is_taken_back() {
    let exchange = bridged(&settings());
    let client = TestListener::listens(&exchange, 1, &["x"]);
    assert_eq!(exchange.difference(), (names(&["x"]), vec![]));
    exchange.leave(&client.mailbox);
    exchange.set_in_place(&names(&["x"]), true);
    assert_eq!(exchange.difference(), (vec![], names(&["x"])));
    assert_eq!(exchange.difference(), (vec![], vec![]));
}

#[test]
fn a_lost_bridge_is_a_gap_for_those_who_were_served_and_a_wait_for_the_others() {
    let exchange = bridged(&settings());
    let served = TestListener::listens(&exchange, 1, &["x"]);
    exchange.set_in_place(&names(&["x"]), true);
    let waiting = TestListener::listens(&exchange, 2, &["y"]);
    let both = TestListener::listens(&exchange, 3, &["x"]);
    both.listen("y");
    exchange.lost();
    assert_eq!(served.mailbox.closing(), Some(Closing::Gap(Gap::Bridge)));
    assert_eq!(both.mailbox.closing(), Some(Closing::Gap(Gap::Bridge)));
    assert_eq!(waiting.mailbox.closing(), None);
    let (mut listen, unlisten) = exchange.difference();
    listen.sort();
    assert_eq!((listen, unlisten), (names(&["x", "y"]), vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_bridge_learns_what_is_wanted_and_nothing_twice() {
    let exchange = bridged(&settings());
    let wants = |millis| tokio::time::timeout(std::time::Duration::from_millis(millis), exchange.wants());
    let a = TestListener::listens(&exchange, 1, &["x"]);
    assert!(wants(1).await.is_ok());
    let b = TestListener::listens(&exchange, 2, &["x"]);
    exchange.set_in_place(&names(&["x"]), true);
    exchange.leave(&a.mailbox);
    assert!(wants(1).await.is_err(), "still one listener");
    exchange.leave(&b.mailbox);
    assert!(wants(1).await.is_ok());
}

#[test]
fn with_redis_a_listener_waits_for_the_bus_too() {
    let exchange = bridged(&Notify { bus: redis(), ..settings() });
    let client = TestListener::listens(&exchange, 1, &["x"]);
    exchange.set_in_place(&names(&["x"]), true);
    assert_eq!(exchange.missing(&client.mailbox), Some(Missing::Bus { hint: BusNature::of(Bus::Redis).hint }));
    exchange.set_bus_ready(true);
    assert!(client.mailbox.is_in_place());
    exchange.set_bus_ready(false);
    assert!(client.mailbox.is_in_place(), "what is lost later is a gap");
}

#[tokio::test]
async fn the_bus_gets_everything_in_order_and_keeps_what_it_has_not_accepted() {
    let exchange = exchange(&Notify { bus: BusSettings::Postgres, ..settings() });
    exchange.publish(7, &[say("x", 1), say("y", 2)]);
    exchange.publish(8, &[say("x", 3)]);
    let batch = exchange.outbox().next_batch(2).await;
    let told: Vec<_> = batch.iter().map(|entry| (entry.sequence, entry.pid, entry.notification.clone())).collect();
    assert_eq!(told, [(1, 7, say("x", 1)), (2, 7, say("y", 2))]);
    assert_eq!(exchange.outbox().next_batch(2).await, batch, "nothing was accepted");
    exchange.outbox().accepted(2);
    assert_eq!(exchange.outbox().depth(), 1);
    assert_eq!(exchange.outbox().next_batch(2).await[0].sequence, 3);
    assert_eq!(exchange.stats.bus().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_empty_outbox_makes_the_bus_wait() {
    let exchange = exchange(&Notify { bus: BusSettings::Postgres, ..settings() });
    exchange.publish(7, &[say("x", 1)]);
    exchange.outbox().accepted(1);
    let batch = tokio::time::timeout(std::time::Duration::from_secs(1), exchange.outbox().next_batch(9));
    assert!(batch.await.is_err());
}

#[test]
fn nothing_is_kept_for_a_bus_that_does_not_exist() {
    let exchange = exchange(&settings());
    exchange.publish(7, &[say("x", 1)]);
    assert_eq!(exchange.outbox().depth(), 0);
}

#[test]
fn a_full_outbox_drops_and_leaves_a_hole_in_the_numbers() {
    for (bus, when_down) in [(BusSettings::Postgres, WhenDown::Postgres), (redis(), WhenDown::Drop)] {
        let exchange = exchange(&Notify { bus, when_down, bus_queue: 2, ..settings() });
        exchange.publish(7, &[say("x", 1), say("x", 2), say("x", 3)]);
        assert_eq!((exchange.outbox().depth(), exchange.overflow().depth()), (2, 0));
        assert_eq!(exchange.stats.drops()[Dropped::Bus as usize], ("bus", 1));
        assert!(!exchange.refuses());
        exchange.outbox().accepted(2);
        exchange.publish(7, &[say("x", 4)]);
        assert_eq!(exchange.outbox().first(1)[0].sequence, 4);
    }
}

#[test]
fn a_full_outbox_goes_by_way_of_postgres_without_a_hole() {
    let exchange = exchange(&Notify { bus: redis(), bus_queue: 2, ..settings() });
    exchange.publish(7, &[say("x", 1), say("x", 2), say("x", 3)]);
    assert_eq!((exchange.outbox().depth(), exchange.overflow().depth()), (2, 1));
    assert_eq!(exchange.overflow().first(9)[0].notification, say("x", 3));
    exchange.outbox().accepted(2);
    exchange.publish(7, &[say("x", 4)]);
    assert_eq!(exchange.outbox().first(1)[0].sequence, 3);
}

#[test]
fn new_notifications_are_refused_while_the_outbox_is_full_if_so_configured() {
    let exchange = exchange(&Notify { bus: redis(), when_down: WhenDown::Error, bus_queue: 1, ..settings() });
    assert!(!exchange.refuses());
    exchange.publish(7, &[say("x", 1)]);
    assert!(exchange.refuses());
    exchange.outbox().accepted(1);
    assert!(!exchange.refuses());
}

// The server's notification of an earlier transaction is on its way while the client's next is committed here.
#[test]
fn what_a_client_notifies_of_at_the_server_is_heard_before_its_next_here() {
    let exchange = bridged(&settings());
    let listener = TestListener::listens(&exchange, 1, &["x"]);
    assert!(exchange.publish_behind(9, &[say("x", "nobody to wait for")], None).is_none());
    assert_eq!(listener.read(), ["9 x nobody to wait for"]);
    exchange.set_in_place(&names(&["x"]), true);
    let waker = Waker::from(Arc::clone(&listener.task));
    let delivery = exchange.publish_behind(9, &[say("x", "2"), say("y", "unheard")], Some(waker)).expect("it waits");
    exchange.publish_behind(9, &[say("x", "3")], None);
    exchange.publish(8, &[say("x", "another's")]);
    assert_eq!(listener.read(), ["8 x another's"]);
    let count = exchange.behind();
    exchange.publish_behind(9, &[say("x", "4")], None);
    assert!(!delivery.is_done());
    exchange.deliver(77, &say("x", "1"));
    exchange.release(count);
    assert_eq!(listener.read(), ["77 x 1", "9 x 2", "9 x 3"]);
    assert!(delivery.is_done() && listener.wakes() > 0);
    exchange.release(exchange.behind());
    assert_eq!(listener.read(), ["9 x 4"]);
    // Without the connection nothing of the server's can come any more.
    exchange.publish_behind(9, &[say("x", "7")], None);
    exchange.lost();
    assert_eq!(exchange.behind(), 0);
}

#[test]
fn exchanges_of_names_outside_the_configuration_are_forgotten_when_nobody_has_them() {
    let hub = Hub::new(settings());
    let exchange = hub.exchange(&"app".into());
    hub.exchange(&"named".into());
    let is_named = |name: &str| name != "named";
    hub.forget_unused(is_named);
    assert_eq!(hub.all().len(), 2, "somebody has it");
    drop(exchange);
    hub.forget_unused(is_named);
    assert_eq!(hub.all().iter().map(|exchange| &*exchange.database).collect::<Vec<_>>(), ["named"]);
}

/// A thread in the place of a client's task.
struct Parked(std::thread::Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn threads_that_sleep_until_they_are_woken_hear_everything_in_one_order() {
    const NOTIFIERS: i32 = 3;
    const EACH: usize = 2000;
    let exchange = exchange(&settings());
    let ready = std::sync::Barrier::new(4 + NOTIFIERS as usize);
    let heard: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let listen = |pid| {
            let (exchange, ready) = (&exchange, &ready);
            move || {
                let waker = Waker::from(Arc::new(Parked(std::thread::current())));
                let mailbox = Mailbox::new(pid, waker);
                exchange.change(&mailbox, &Change::Listen("x".into()));
                ready.wait();
                let (mut out, mut count) = (Vec::new(), 0);
                while count < NOTIFIERS as usize * EACH {
                    match mailbox.has_mail() {
                        true => count += mailbox.take(&mut out, 500, false).expect("it reads") as usize,
                        // A wake-up that was lost would leave it here for ever.
                        false => std::thread::park(),
                    }
                }
                out
            }
        };
        let listeners: Vec<_> = (1..=4).map(|pid| scope.spawn(listen(pid))).collect();
        for pid in 101..=100 + NOTIFIERS {
            let (exchange, ready) = (&exchange, &ready);
            scope.spawn(move || {
                ready.wait();
                (0..EACH).for_each(|n| exchange.publish(pid, &[say("x", n)]));
            });
        }
        listeners.into_iter().map(|listener| listener.join().expect("no panic")).collect()
    });
    assert!(heard.iter().all(|all| *all == heard[0]));
}
