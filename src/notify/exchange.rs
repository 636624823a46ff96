//! One database, by the name that clients ask for: its listeners in this process, and where its notifications go.
//!
//! A published notification reaches the listeners here at once and the bus through the outbox, both under one lock:
//! every listener sees the same order, and the bus has it, too. Nobody is woken under that lock. A channel can be heard
//! only after work elsewhere, which is asked for with [`Exchange::wants`] and reported with [`Exchange::set_in_place`]
//! and [`Exchange::set_bus_ready`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::Notify as Alarm;
use tokio::time::Instant;

use super::mailbox::{Closing, Mailbox, Woken};
use super::nature::BusNature;
use super::notification::{Frame, Notification};
use super::outbox::Outbox;
use super::pending::Change;
use super::stats::{Dropped, Gap, Stats};
use crate::auth::random::random;
use crate::config::{Bus, Notify, NotifyMode, OnGap, WhenDown};
use crate::pool::in_use::{CountUses, InUse, Uses};
use crate::pool::pool::Pool;

/// Listeners and outgoing notifications of one database.
#[derive(Debug)]
pub struct Exchange {
    /// The name that clients ask for.
    pub database: Arc<str>,
    /// Distinguishes this exchange's numbers from those of every other, and from its own before a restart.
    pub origin: u64,
    /// Counters so far.
    pub stats: Arc<Stats>,
    intercepts: AtomicBool,
    state: Mutex<ExchangeState>,
    outbox: Outbox,
    /// Notifications for Postgres, while the bus takes nothing.
    overflow: Outbox,
    /// The channels that are wanted have changed.
    wanted: Alarm,
    /// The hub does not have it any more.
    forgotten: Alarm,
    /// Somebody has come to listen.
    listened: Alarm,
    /// Notifications wait behind those of the server.
    queued: Alarm,
    login: ArcSwapOption<InUse<Pool>>,
    uses: Uses,
}

/// Everything under the one lock.
#[derive(Debug)]
struct ExchangeState {
    rules: Rules,
    /// Channels count as in place only when somebody has said so.
    is_bridged: bool,
    is_bus_ready: bool,
    channels: HashMap<Bytes, ChannelState>,
    /// Channels that may have to be listened to at the server, or no longer.
    changed: HashSet<Bytes>,
    members: HashMap<i32, Member>,
    /// Times that a client came to listen to a channel.
    listened: u64,
    /// Notifications of clients that also notify at the server, oldest first: the server's go before them.
    behind: VecDeque<Followers>,
}

/// Transactions whose notifications wait behind the server's. With more the server has fallen silent, and they no
/// longer wait.
const BEHIND_MAX: usize = 16 * 1024;

/// Notifications of one transaction that wait behind the server's.
#[derive(Debug)]
struct Followers {
    pid: i32,
    notifications: Vec<Notification>,
    /// Who came to listen later does not hear them.
    listened: u64,
    delivery: Arc<Delivery>,
}

/// Delivery of notifications that wait behind the server's. Their client waits with them: what it notifies of at the
/// server next must not overtake them.
#[derive(Debug)]
pub struct Delivery {
    is_done: AtomicBool,
    waker: Option<Waker>,
}

impl Delivery {
    /// The listeners here have the notifications.
    pub fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    bus: Bus,
    nature: BusNature,
    listener_queue: usize,
    bus_queue: usize,
    when_down: WhenDown,
    on_gap: OnGap,
}

#[derive(Debug, Default)]
struct ChannelState {
    listeners: HashMap<i32, ChannelListener>,
    /// The server's notifications on this channel are heard.
    is_in_place: bool,
}

/// A client that listens.
#[derive(Debug)]
struct Member {
    mailbox: Arc<Mailbox>,
    channels: HashSet<Bytes>,
    /// Number of those that are not in place.
    missing: usize,
    /// Its channels were all in place at least once: from then on gaps must be reported to it.
    is_served: bool,
}

/// A client on a channel.
#[derive(Debug)]
struct ChannelListener {
    mailbox: Arc<Mailbox>,
    /// Of all that ever listened: the order in which a client came to listen to its channels.
    number: u64,
    since: SystemTime,
}

/// A client on a channel, as others see it.
#[derive(Debug, Clone)]
pub struct ListenerView {
    /// Process id of the client.
    pub pid: i32,
    /// Channel it listens to.
    pub channel: Bytes,
    /// Since when.
    pub since: SystemTime,
    /// Bytes that wait for the client, over all its channels.
    pub queued_bytes: usize,
}

/// The part that is not in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// LISTEN on the server.
    Server,
    Bus {
        /// Hint for the client: where to look.
        hint: &'static str,
    },
}

impl Exchange {
    pub(super) fn new(database: Arc<str>, settings: &Notify, is_bridged: bool) -> Self {
        let stats = Arc::<Stats>::default();
        Self {
            database,
            // Random bytes of the operating system: two processes whose clocks agree must not have the same number.
            origin: u64::from_ne_bytes(random()),
            intercepts: AtomicBool::new(settings.mode == NotifyMode::Intercept),
            state: Mutex::new(ExchangeState {
                rules: Rules::of(settings),
                is_bridged,
                is_bus_ready: !BusNature::of(settings.bus.kind()).must_be_ready,
                channels: HashMap::new(),
                changed: HashSet::new(),
                listened: 0,
                members: HashMap::new(),
                behind: VecDeque::new(),
            }),
            outbox: Outbox::new(Arc::clone(&stats)),
            overflow: Outbox::new(Arc::clone(&stats)),
            wanted: Alarm::new(),
            forgotten: Alarm::new(),
            listened: Alarm::new(),
            queued: Alarm::new(),
            login: ArcSwapOption::empty(),
            uses: Uses::default(),
            stats,
        }
    }

    pub(super) fn set(&self, settings: &Notify) {
        self.intercepts.store(settings.mode == NotifyMode::Intercept, Ordering::Relaxed);
        let mut woken = Woken::default();
        let mut state = self.state();
        let before = std::mem::replace(&mut state.rules, Rules::of(settings));
        if before.bus != settings.bus.kind() {
            state.is_bus_ready = !state.rules.nature.must_be_ready;
            state.look_again(&mut woken);
        }
    }

    // ---- sessions -------------------------------------------------------------------------------

    /// New NOTIFYs and LISTENs are kept from the server.
    #[inline]
    pub fn intercepts(&self) -> bool {
        self.intercepts.load(Ordering::Relaxed)
    }

    /// New NOTIFYs are refused: the bus takes nothing, and `notify.when_down` says to refuse them then.
    pub fn refuses(&self) -> bool {
        let rules = self.state().rules;
        rules.nature.carries && rules.when_down == WhenDown::Error && self.outbox.is_full(rules.bus_queue)
    }

    /// A client's transaction has committed these: they go to the listeners here now, then to the bus.
    pub fn publish(&self, pid: i32, notifications: &[Notification]) {
        if notifications.is_empty() {
            return;
        }
        self.stats.published(notifications.len());
        let mut woken = Woken::default();
        let state = self.state();
        for notification in notifications {
            self.tell(&state, pid, notification, &mut woken);
        }
        self.carry(state, pid, notifications);
    }

    /// As [`Self::publish`], for a client that may have notified at the server before: the listeners here hear that
    /// first. `None`: there was nothing to wait for. `waker` is the client's.
    pub fn publish_behind(
        &self,
        pid: i32,
        notifications: &[Notification],
        waker: Option<Waker>,
    ) -> Option<Arc<Delivery>> {
        self.stats.published(notifications.len());
        let mut woken = Woken::default();
        let mut state = self.state();
        let waits = notifications.iter().any(|notification| state.is_heard(&notification.channel));
        let delivery = waits.then(|| Arc::new(Delivery { is_done: AtomicBool::new(false), waker }));
        match &delivery {
            Some(delivery) => {
                if state.behind.len() >= BEHIND_MAX {
                    self.release_first(&mut state, BEHIND_MAX, &mut woken);
                }
                let (notifications, delivery) = (notifications.to_vec(), Arc::clone(delivery));
                let listened = state.listened;
                state.behind.push_back(Followers { pid, notifications, listened, delivery });
                self.queued.notify_one();
            }
            None => notifications.iter().for_each(|notification| self.tell(&state, pid, notification, &mut woken)),
        }
        self.carry(state, pid, notifications);
        delivery
    }

    /// Hands notifications to the bus, if there is one.
    fn carry(&self, state: MutexGuard<'_, ExchangeState>, pid: i32, notifications: &[Notification]) {
        if !state.rules.nature.carries {
            return;
        }
        let now = Instant::now();
        for notification in notifications {
            self.send(state.rules, pid, notification, now);
        }
        drop(state);
        self.outbox.announce();
        self.overflow.announce();
    }

    /// Something heard from the server or the bus: it goes to the listeners here only.
    pub fn deliver(&self, pid: i32, notification: &Notification) {
        let mut woken = Woken::default();
        self.tell(&self.state(), pid, notification, &mut woken);
    }

    /// Waits until notifications wait behind those of the server. One waits at a time; cancel-safe.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }

    /// How many transactions wait behind the notifications of the server.
    pub fn behind(&self) -> usize {
        self.state().behind.len()
    }

    /// The server's notifications that came before the first `count` transactions that wait have been delivered.
    pub fn release(&self, count: usize) {
        let mut woken = Woken::default();
        self.release_first(&mut self.state(), count, &mut woken);
    }

    fn release_first(&self, state: &mut ExchangeState, count: usize, woken: &mut Woken) {
        for _ in 0..count {
            let Some(Followers { pid, notifications, listened, delivery }) = state.behind.pop_front() else { break };
            notifications.iter().for_each(|notification| self.tell_until(listened, state, pid, notification, woken));
            delivery.is_done.store(true, Ordering::Release);
            if let Some(waker) = &delivery.waker {
                woken.push(waker.clone());
            }
        }
    }

    /// A client's transaction has committed this change. Until [`Mailbox::is_in_place`] the client may miss
    /// notifications of others.
    pub fn change(&self, mailbox: &Arc<Mailbox>, change: &Change) {
        let mut woken = Woken::default();
        let mut state = self.state();
        let is_wanted = match change {
            Change::Listen(channel) => state.listen(mailbox, channel),
            Change::Unlisten(channel) => state.unlisten(mailbox, channel),
            Change::UnlistenAll => state.leave(mailbox),
        };
        state.look_at(mailbox, &mut woken);
        drop(state);
        if is_wanted {
            self.wanted.notify_one();
            self.listened.notify_one();
        }
    }

    /// The part that is not in place for something this client listens to; `None`: it hears everything.
    pub fn missing(&self, mailbox: &Mailbox) -> Option<Missing> {
        if mailbox.is_in_place() {
            return None;
        }
        let state = self.state();
        let hint = state.rules.nature.hint;
        Some(if state.is_bus_ready { Missing::Server } else { Missing::Bus { hint } })
    }

    /// A client listens to nothing any more.
    pub fn leave(&self, mailbox: &Arc<Mailbox>) {
        self.change(mailbox, &Change::UnlistenAll);
    }

    /// Channels that a client listens to, in the order in which it began to.
    pub fn channels_of(&self, mailbox: &Mailbox) -> Vec<Bytes> {
        let state = self.state();
        let Some(member) = state.members.get(&mailbox.pid) else { return Vec::new() };
        let number = |name: &Bytes| Some(state.channels.get(name)?.listeners.get(&mailbox.pid)?.number);
        let mut channels: Vec<_> = member.channels.iter().map(|name| (number(name), name.clone())).collect();
        channels.sort_unstable_by_key(|(number, _)| *number);
        channels.into_iter().map(|(_, name)| name).collect()
    }

    /// Number of channels that a client listens to.
    pub fn channel_count(&self, mailbox: &Mailbox) -> usize {
        self.state().members.get(&mailbox.pid).map_or(0, |member| member.channels.len())
    }

    /// Bridge and sender log in as this pool does from now on: its role listens or notifies.
    pub fn use_login(&self, pool: &InUse<Pool>) {
        if !self.login.load().as_ref().is_some_and(|known| Arc::ptr_eq(&**known, pool)) {
            self.login.store(Some(Arc::new(pool.clone())));
        }
    }

    /// No client is left, and nothing has to be sent: nobody has to log in.
    pub(super) fn forget_login(&self) {
        self.login.store(None);
    }

    // ---- bridge and bus -------------------------------------------------------------------------

    /// Waits until no client has it, and none ever will. One waits at a time; cancel-safe.
    pub async fn forgotten(&self) {
        self.forgotten.notified().await;
    }

    pub(super) fn forget(&self) {
        self.forgotten.notify_one();
    }

    /// The pool whose login bridge and sender use; `None` before anybody listened or notified.
    pub fn login(&self) -> Option<InUse<Pool>> {
        self.login.load().as_deref().cloned()
    }

    /// Waits until the channels that are wanted may differ from those in place. One waits at a time; cancel-safe.
    pub async fn wants(&self) {
        self.wanted.notified().await;
    }

    /// Channels to LISTEN to on the server, since they have listeners and are not in place, and channels to UNLISTEN.
    /// The latter count as gone from now on, so the caller has to do it.
    pub fn difference(&self) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut state = self.state();
        let ExchangeState { channels, changed, .. } = &mut *state;
        let (mut listen, mut unlisten) = (Vec::new(), Vec::new());
        changed.retain(|name| {
            let Some(channel) = channels.get(name) else { return false };
            let is_wanted = !channel.listeners.is_empty();
            let is_in_place = channel.is_in_place;
            match (is_wanted, is_in_place) {
                (true, false) => listen.push(name.clone()),
                (false, _) => {
                    channels.remove(name);
                    unlisten.push(name.clone());
                }
                (true, true) => {}
            }
            // It is asked for again until it is in place.
            is_wanted && !is_in_place
        });
        if changed.is_empty() {
            changed.shrink_to_fit();
        }
        (listen, unlisten)
    }

    /// These channels are listened to on the server, or are not any more.
    pub fn set_in_place(&self, channels: &[Bytes], is_in_place: bool) {
        let mut woken = Woken::default();
        let mut state = self.state();
        let mut is_wanted = false;
        for name in channels {
            is_wanted |= state.set_in_place(name, is_in_place, &mut woken);
        }
        drop(state);
        if is_wanted {
            self.wanted.notify_one();
        }
    }

    /// The connection that listens on the server is gone, and with it every channel.
    pub fn lost(&self) {
        {
            let mut woken = Woken::default();
            let mut state = self.state();
            self.release_first(&mut state, usize::MAX, &mut woken);
            state.lose_channels();
        }
        self.gap(Gap::Bridge);
        self.wanted.notify_one();
    }

    /// Something may have been missed: counts it, and closes the clients that relied on it, if `notify.on_gap` says so.
    pub fn gap(&self, why: Gap) {
        self.stats.gap(why);
        let mut woken = Woken::default();
        let state = self.state();
        if state.rules.on_gap == OnGap::Count {
            return;
        }
        for member in state.members.values().filter(|member| member.is_served) {
            member.mailbox.close(Closing::Gap(why), &mut woken);
        }
    }

    /// Notifications that the bus has to take.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Notifications that Postgres has to take instead, since the bus took nothing for too long. Its entries have no
    /// meaningful numbers.
    pub fn overflow(&self) -> &Outbox {
        &self.overflow
    }

    /// Waits until somebody listens. One waits at a time; cancel-safe.
    pub async fn listened(&self) {
        while !self.has_listeners() {
            self.listened.notified().await;
        }
    }

    /// Notifications of others are heard over the bus, or not any more.
    pub fn set_bus_ready(&self, is_ready: bool) {
        let mut woken = Woken::default();
        let mut state = self.state();
        // A bus that is being replaced may still report; the new one may need no waiting for.
        state.is_bus_ready = is_ready || !state.rules.nature.must_be_ready;
        state.look_again(&mut woken);
    }

    // ---- observers ------------------------------------------------------------------------------

    /// Somebody listens.
    pub fn has_listeners(&self) -> bool {
        !self.state().members.is_empty()
    }

    /// Clients that listen, and channels that they listen to.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state();
        let channels = state.channels.values().filter(|channel| !channel.listeners.is_empty()).count();
        (state.members.len(), channels)
    }

    /// Everybody on every channel, by channel and process id.
    pub fn listeners(&self) -> Vec<ListenerView> {
        let mut listeners: Vec<_> = {
            let state = self.state();
            let queued: HashMap<i32, usize> =
                state.members.iter().map(|(pid, member)| (*pid, member.mailbox.queued_bytes())).collect();
            let of = |(name, channel): (&Bytes, &ChannelState)| {
                let listener = |(pid, listener): (&i32, &ChannelListener)| ListenerView {
                    pid: *pid,
                    channel: name.clone(),
                    since: listener.since,
                    queued_bytes: queued.get(pid).copied().unwrap_or_default(),
                };
                channel.listeners.iter().map(listener).collect::<Vec<_>>()
            };
            state.channels.iter().flat_map(of).collect()
        };
        listeners.sort_by(|a, b| (&a.channel, a.pid).cmp(&(&b.channel, b.pid)));
        listeners
    }

    /// Nothing is on its way and nobody listens.
    pub(super) fn is_at_rest(&self) -> bool {
        self.outbox.depth() == 0 && self.overflow.depth() == 0 && !self.has_listeners()
    }

    fn tell(&self, state: &ExchangeState, pid: i32, notification: &Notification, woken: &mut Woken) {
        self.tell_until(u64::MAX, state, pid, notification, woken);
    }

    /// Tells those who came to listen among the first `listened`.
    fn tell_until(
        &self,
        listened: u64,
        state: &ExchangeState,
        pid: i32,
        notification: &Notification,
        woken: &mut Woken,
    ) {
        let Some(channel) = state.channels.get(&notification.channel).filter(|channel| !channel.listeners.is_empty())
        else {
            return;
        };
        let frame = Frame::new(pid, notification);
        let most = state.rules.listener_queue;
        let listeners = channel.listeners.values().filter(|listener| listener.number <= listened);
        let lost = listeners.map(|listener| listener.mailbox.put(&frame, most, woken)).sum();
        self.stats.dropped(Dropped::Listener, lost);
    }

    fn send(&self, rules: Rules, pid: i32, notification: &Notification, now: Instant) {
        if self.outbox.put(pid, notification, now, rules.bus_queue) {
            return;
        }
        let is_detoured = rules.nature.detours
            && rules.when_down == WhenDown::Postgres
            && self.overflow.put(pid, notification, now, rules.bus_queue);
        if !is_detoured {
            self.outbox.skip();
            self.stats.dropped(Dropped::Bus, 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, ExchangeState> {
        self.state.lock().expect("no panic while held")
    }
}

impl CountUses for Exchange {
    fn uses(&self) -> &Uses {
        &self.uses
    }
}

impl Rules {
    fn of(settings: &Notify) -> Self {
        Self {
            bus: settings.bus.kind(),
            nature: BusNature::of(settings.bus.kind()),
            listener_queue: settings.listener_queue,
            bus_queue: settings.bus_queue as usize,
            when_down: settings.when_down,
            on_gap: settings.on_gap,
        }
    }
}

impl ExchangeState {
    /// Somebody here listens to the channel, and hears the server's notifications on it.
    fn is_heard(&self, channel: &Bytes) -> bool {
        self.is_bridged
            && self.channels.get(channel).is_some_and(|channel| channel.is_in_place && !channel.listeners.is_empty())
    }

    /// Returns true if the set of wanted channels has changed.
    fn listen(&mut self, mailbox: &Arc<Mailbox>, name: &Bytes) -> bool {
        let channel = match self.channels.get_mut(name) {
            Some(channel) => channel,
            // The name may be a part of a long text, which must not live as long.
            None => self.channels.entry(Bytes::copy_from_slice(name)).or_default(),
        };
        channel.is_in_place |= !self.is_bridged;
        if channel.listeners.contains_key(&mailbox.pid) {
            return false;
        }
        self.listened += 1;
        let listener =
            ChannelListener { mailbox: Arc::clone(mailbox), number: self.listened, since: SystemTime::now() };
        channel.listeners.insert(mailbox.pid, listener);
        let (is_first, is_in_place) = (channel.listeners.len() == 1, channel.is_in_place);
        let (name, _) = self.channels.get_key_value(name).expect("it is there by now");
        let member = self.members.entry(mailbox.pid).or_insert_with(|| Member {
            mailbox: Arc::clone(mailbox),
            channels: HashSet::new(),
            missing: 0,
            is_served: false,
        });
        member.channels.insert(name.clone());
        member.missing += usize::from(!is_in_place);
        if is_first && !is_in_place {
            self.changed.insert(name.clone());
        }
        is_first
    }

    /// Returns true if the set of wanted channels has changed.
    fn unlisten(&mut self, mailbox: &Arc<Mailbox>, name: &Bytes) -> bool {
        let Some(member) = self.members.get_mut(&mailbox.pid) else { return false };
        if !member.channels.remove(name) {
            return false;
        }
        mailbox.forget(name);
        let is_wanted = self.unsubscribe(mailbox, name);
        if self.members.get(&mailbox.pid).is_some_and(|member| member.channels.is_empty()) {
            self.members.remove(&mailbox.pid);
        }
        is_wanted
    }

    /// Returns true if the set of wanted channels has changed.
    fn leave(&mut self, mailbox: &Arc<Mailbox>) -> bool {
        let Some(member) = self.members.remove(&mailbox.pid) else { return false };
        mailbox.forget_all();
        let mut has_changed = false;
        for channel in &member.channels {
            has_changed |= self.unsubscribe(mailbox, channel);
        }
        has_changed
    }

    fn unsubscribe(&mut self, mailbox: &Mailbox, name: &Bytes) -> bool {
        let Some(channel) = self.channels.get_mut(name) else { return false };
        channel.listeners.remove(&mailbox.pid);
        let (is_last, is_in_place) = (channel.listeners.is_empty(), channel.is_in_place);
        if let Some(member) = self.members.get_mut(&mailbox.pid).filter(|_| !is_in_place) {
            member.missing -= 1;
        }
        if is_last && self.is_bridged && is_in_place {
            self.changed.insert(name.clone());
        } else if is_last {
            self.channels.remove(name);
            self.changed.remove(name);
        }
        is_last
    }

    /// A channel is listened to on the server, or is not any more. Returns true if it should be otherwise.
    fn set_in_place(&mut self, name: &Bytes, is_in_place: bool, woken: &mut Woken) -> bool {
        // Its listeners may have left meanwhile: `difference` takes it back then.
        let channel = self.channels.entry(name.clone()).or_default();
        let has_changed = channel.is_in_place != is_in_place;
        channel.is_in_place = is_in_place;
        let is_wanted = channel.listeners.is_empty() == is_in_place;
        let listeners = channel.listeners.values().filter(|_| has_changed);
        let mailboxes: Vec<_> = listeners.map(|listener| Arc::clone(&listener.mailbox)).collect();
        if channel.listeners.is_empty() && !is_in_place {
            self.channels.remove(name);
        }
        if is_wanted {
            self.changed.insert(name.clone());
        }
        for mailbox in mailboxes {
            if let Some(member) = self.members.get_mut(&mailbox.pid) {
                member.missing = if is_in_place { member.missing - 1 } else { member.missing + 1 };
            }
            // For those whose channels were all in place a loss is a gap.
            if is_in_place {
                self.look_at(&mailbox, woken);
            }
        }
        is_wanted
    }

    /// No channel is listened to on the server any more.
    fn lose_channels(&mut self) {
        self.channels.retain(|_, channel| {
            channel.is_in_place = false;
            !channel.listeners.is_empty()
        });
        self.changed = self.channels.keys().cloned().collect();
        self.members.values_mut().for_each(|member| member.missing = member.channels.len());
    }

    /// Notes whether everything that this client listens to is in place, and wakes it if that is new.
    fn look_at(&mut self, mailbox: &Arc<Mailbox>, woken: &mut Woken) {
        let is_bus_ready = self.is_bus_ready;
        let member = self.members.get_mut(&mailbox.pid);
        let is_in_place = member.as_ref().is_none_or(|member| is_bus_ready && member.missing == 0);
        if let Some(member) = member {
            member.is_served |= is_in_place;
        }
        mailbox.await_place(!is_in_place, woken);
    }

    /// Looks at every client whose channels are not all in place. The others are left alone: for them, a loss is a gap.
    fn look_again(&mut self, woken: &mut Woken) {
        let waiting = self.members.values().filter(|member| !member.mailbox.is_in_place());
        let waiting: Vec<_> = waiting.map(|member| Arc::clone(&member.mailbox)).collect();
        for mailbox in waiting {
            self.look_at(&mailbox, woken);
        }
    }
}

#[cfg(test)]
mod tests;
