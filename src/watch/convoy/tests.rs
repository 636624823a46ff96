//! When a queue for locks is a convoy, and when it is over.

use proptest::prelude::*;

use super::*;

const THRESHOLDS: ConvoyThresholds = ConvoyThresholds { waiters: 50, deadlock_timeout: Duration::from_secs(1) };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A watch and its clock; looks come when the watch wants them.
struct ConvoyModel {
    watch: ConvoyWatch,
    now: Instant,
    start: Instant,
    /// Distinguishes the waiters of one look from those of another.
    pids: i32,
}

impl ConvoyModel {
    fn new() -> Self {
        let now = Instant::now();
        Self { watch: ConvoyWatch::new(THRESHOLDS), now, start: now, pids: 0 }
    }

    /// A look at waiters that did not wait before.
    fn see(&mut self, waiters: i32) -> Vec<ConvoyChange> {
        self.pids += 10_000;
        self.see_from(self.pids, waiters)
    }

    /// A look at the waiters of the last time, if there were as many then.
    fn see_same(&mut self, waiters: i32) -> Vec<ConvoyChange> {
        self.see_from(self.pids, waiters)
    }

    fn see_from(&mut self, first: i32, waiters: i32) -> Vec<ConvoyChange> {
        self.now += self.watch.interval(ms(1));
        let waiters = (first..first + waiters).map(|pid| (pid, LockKind::Extension)).collect();
        self.watch.look(ActivitySample { waiters, ..ActivitySample::default() }, self.now)
    }

    fn open_a_convoy(&mut self) {
        while self.watch.state() != ConvoyState::Convoy {
            self.see(120);
        }
    }
}

#[test]
fn hundreds_in_line_are_a_convoy_within_two_seconds() {
    let mut model = ConvoyModel::new();
    assert_eq!(model.see(300), []);
    assert_eq!(model.watch.state(), ConvoyState::Suspect);
    let changes = model.see(300);
    let [ConvoyChange::ConvoyOpened(episode)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((episode.waiters, episode.kind), (300, Some(LockKind::Extension)));
    assert!(model.now - model.start <= ms(1300));
}

#[test]
fn a_line_that_grows_is_a_convoy_and_one_that_does_not_is_suspect() {
    let mut model = ConvoyModel::new();
    (0..3).for_each(|_| assert_eq!(model.see(60), []));
    assert_eq!(model.watch.state(), ConvoyState::Suspect);
    (0..20).for_each(|_| assert_eq!(model.see(60), []));
    assert!(matches!(model.see(61)[..], [ConvoyChange::ConvoyOpened(_)]));
}

#[test]
fn thirty_whose_deadlock_checks_are_about_to_begin_are_a_convoy() {
    let mut model = ConvoyModel::new();
    (0..4).for_each(|_| assert_eq!(model.see(30), []));
    while model.watch.longest() < ms(750) {
        assert_eq!(model.see_same(30), []);
    }
    assert!(matches!(model.see_same(30)[..], [ConvoyChange::ConvoyOpened(_)]));
}

#[test]
fn a_moment_is_nothing() {
    let mut model = ConvoyModel::new();
    for _ in 0..20 {
        assert_eq!(model.see(60), []);
        assert_eq!(model.watch.interval(ms(1)), ALERT_INTERVAL, "a second look comes soon");
        assert_eq!(model.see(0), []);
        assert_eq!(model.watch.state(), ConvoyState::Calm);
    }
}

#[test]
fn a_convoy_is_over_after_two_quiet_seconds_and_closes_with_its_size() {
    let mut model = ConvoyModel::new();
    model.open_a_convoy();
    model.see(400);
    for _ in 0..8 {
        assert_eq!(model.see(19), []);
    }
    let changes = model.see(19);
    let [ConvoyChange::ConvoyClosed(episode, lasted)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((episode.waiters_max, *lasted), (400, ms(2500)));
    assert_eq!(model.watch.state(), ConvoyState::Recovered);
}

#[test]
fn a_lull_does_not_end_it() {
    let mut model = ConvoyModel::new();
    model.open_a_convoy();
    for _ in 0..50 {
        (0..7).for_each(|_| assert_eq!(model.see(0), []));
        assert_eq!(model.see(20), []);
    }
    assert_eq!(model.watch.state(), ConvoyState::Convoy);
}

#[test]
fn recovered_becomes_calm_and_can_become_a_convoy_again() {
    let mut model = ConvoyModel::new();
    model.open_a_convoy();
    while model.watch.state() != ConvoyState::Recovered {
        model.see(0);
    }
    let recovered = model.now;
    while model.watch.state() == ConvoyState::Recovered {
        model.see(0);
    }
    assert_eq!((model.watch.state(), model.now - recovered), (ConvoyState::Calm, ms(10_000)));
    model.open_a_convoy();
    while model.watch.state() != ConvoyState::Recovered {
        model.see(0);
    }
    model.see(300);
    assert!(matches!(model.see(300)[..], [ConvoyChange::ConvoyOpened(_)]));
}

#[test]
fn no_answer_for_two_seconds_is_blind_and_the_next_answer_ends_it() {
    let mut model = ConvoyModel::new();
    model.see(0);
    let asked = model.now;
    assert_eq!(model.watch.silent(asked, asked + ms(1999)), None);
    assert_eq!(model.watch.silent(asked, asked + ms(2000)), Some(ConvoyChange::BlindOpened(ms(2000))));
    assert_eq!(model.watch.state(), ConvoyState::Blind);
    assert_eq!(model.watch.silent(asked, asked + ms(9000)), None, "told once");
    model.now = asked + ms(9000);
    assert_eq!(model.see(0), [ConvoyChange::BlindClosed(ms(10_000))]);
    assert_eq!(model.watch.state(), ConvoyState::Calm);
}

#[test]
fn a_convoy_stays_open_while_nobody_can_see_it() {
    let mut model = ConvoyModel::new();
    model.open_a_convoy();
    let asked = model.now;
    model.watch.silent(asked, asked + ms(8000));
    assert!(model.watch.convoy().is_some());
    assert_eq!(model.see(300), [ConvoyChange::BlindClosed(ms(250))]);
    assert_eq!(model.watch.state(), ConvoyState::Convoy);
}

#[test]
fn the_lock_table_is_asked_once_and_not_amid_deadlock_checks() {
    let mut model = ConvoyModel::new();
    model.see(60);
    assert!(!model.watch.wants_locks());
    model.see(60);
    assert!(model.watch.wants_locks(), "suspect");
    let busy = ActivitySample { lock_manager: 8, ..model.watch.sample().clone() };
    model.watch.look(busy, model.now);
    assert!(!model.watch.wants_locks());
    model.see(60);
    let site = LockSite { lock: LockName::Notify, culprit: None };
    model.watch.locate(site.clone());
    assert!(!model.watch.wants_locks());
    model.see(110);
    assert_eq!(model.watch.convoy().and_then(|convoy| convoy.site.as_ref()), Some(&site), "known when it opens");
}

#[test]
fn a_few_who_wait_for_long_are_not_looked_at_more_often() {
    let mut model = ConvoyModel::new();
    (0..10).for_each(|_| assert_eq!(model.see_same(6), []));
    assert_eq!(model.watch.state(), ConvoyState::Suspect);
    assert_eq!(model.watch.interval(ms(1)), CALM_INTERVAL);
}

#[test]
fn looks_that_cost_much_are_rare() {
    let mut model = ConvoyModel::new();
    assert_eq!(model.watch.interval(ms(30)), ms(1500));
    model.open_a_convoy();
    assert_eq!(model.watch.interval(ms(25)), ALERT_INTERVAL);
    assert_eq!(model.watch.interval(ms(100)), ms(1000));
}

#[test]
fn a_convoy_is_told_with_its_lock_its_culprit_and_its_end() {
    let site = LockSite {
        lock: LockName::Extension("public.jobs".to_owned()),
        culprit: Some(Culprit::Prepared { gid: "tx".to_owned() }),
    };
    let mut episode = Episode {
        databases: BTreeSet::from([5]),
        since: Instant::now(),
        waiters: 412,
        waiters_max: 412,
        longest: Duration::from_millis(750),
        kind: Some(LockKind::Extension),
        site: Some(site),
    };
    let finding = Finding::from(&episode);
    assert_eq!(finding.what, "up to 412 sessions wait for locks, for up to 750 ms; most for extension of public.jobs");
    assert_eq!(finding.remedy.as_deref(), Some("ROLLBACK PREPARED 'tx'"));
    episode.site = None;
    let finding = Finding::from(&episode);
    assert!(finding.what.ends_with("most for locks of kind extension"), "the lock table could not be asked");
    assert_eq!(finding.remedy, None);
}

#[derive(Debug, Clone)]
enum ConvoyOperation {
    See(i32),
    SeeSame(i32),
    Silent(u64),
    Locate,
    End,
}

fn operation() -> impl Strategy<Value = ConvoyOperation> {
    let waiters = || prop_oneof![0..25, 0..130];
    prop_oneof![
        12 => waiters().prop_map(ConvoyOperation::See),
        8 => waiters().prop_map(ConvoyOperation::SeeSame),
        2 => (0_u64..5000).prop_map(ConvoyOperation::Silent),
        1 => Just(ConvoyOperation::Locate),
        1 => Just(ConvoyOperation::End),
    ]
}

/// All reports so far, which must make sense by themselves.
#[derive(Default)]
struct ConvoyReports {
    convoy: Option<Instant>,
    blind: bool,
    closed_at: Option<Instant>,
    quiet_since: Option<Instant>,
}

impl ConvoyReports {
    fn hear(&mut self, change: &ConvoyChange, now: Instant, is_end: bool) {
        match change {
            ConvoyChange::ConvoyOpened(_) => {
                assert!(self.convoy.replace(now).is_none(), "opened twice");
                let pause = self.closed_at.map(|closed| now - closed);
                assert!(pause.is_none_or(|pause| pause >= ALERT_INTERVAL), "flaps");
            }
            ConvoyChange::ConvoyClosed(episode, lasted) => {
                let since = self.convoy.take().expect("closed and not open");
                assert_eq!((now - since, episode.since), (*lasted, since));
                let quiet = self.quiet_since.map(|since| now - since);
                assert!(is_end || quiet.is_some_and(|quiet| quiet >= CALM_AFTER), "closed too soon");
                self.closed_at = Some(now);
            }
            ConvoyChange::BlindOpened(silence) => {
                assert!(!std::mem::replace(&mut self.blind, true));
                assert!(*silence >= BLIND_AFTER);
            }
            ConvoyChange::BlindClosed(_) => assert!(std::mem::replace(&mut self.blind, false)),
        }
    }
}

proptest! {
    #[test]
    fn it_opens_once_closes_once_and_never_before_it_was_quiet(
        operations in prop::collection::vec(operation(), 0..200)
    ) {
        let (mut model, mut reports) = (ConvoyModel::new(), ConvoyReports::default());
        for operation in operations {
            let before = model.watch.convoy().is_some();
            let changes = match operation {
                ConvoyOperation::See(waiters) => model.see(waiters),
                ConvoyOperation::SeeSame(waiters) => model.see_same(waiters),
                ConvoyOperation::Silent(silence) => {
                    let since = model.now;
                    model.now += ms(silence);
                    model.watch.silent(since, model.now).into_iter().collect()
                }
                ConvoyOperation::Locate => {
                    model.watch.locate(LockSite { lock: LockName::Notify, culprit: None });
                    Vec::new()
                }
                ConvoyOperation::End => model.watch.end(model.now),
            };
            if let ConvoyOperation::See(waiters) | ConvoyOperation::SeeSame(waiters) = operation {
                if waiters >= 20 {
                    reports.quiet_since = None;
                } else {
                    reports.quiet_since.get_or_insert(model.now);
                }
            }
            let is_end = matches!(operation, ConvoyOperation::End);
            changes.iter().for_each(|change| reports.hear(change, model.now, is_end));
            let is_open = model.watch.convoy().is_some();
            prop_assert_eq!(is_open, reports.convoy.is_some());
            prop_assert_eq!(model.watch.blind_since().is_some(), reports.blind);
            prop_assert!(is_open || !model.watch.wants_locks() || model.watch.state() == ConvoyState::Suspect);
            let has_seen = matches!(operation, ConvoyOperation::See(_) | ConvoyOperation::SeeSame(_));
            prop_assert!(before || !is_open || has_seen);
        }
        for _ in 0..40 {
            model.see(0).iter().for_each(|change| reports.hear(change, model.now, true));
        }
        prop_assert_eq!(model.watch.state(), ConvoyState::Calm, "everything ends");
        prop_assert!(reports.convoy.is_none() && !reports.blind);
    }
}
