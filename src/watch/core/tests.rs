//! When a server is asked, and which findings are reported of its answers.

use proptest::prelude::*;

use std::collections::HashSet;

use super::*;
use crate::watch::convoy::ConvoyState;
use crate::watch::finding::FindingKind;
use crate::watch::locks::Locker;

const SETTINGS: WatchSettings = WatchSettings::TYPICAL;

/// A server that answers each question of the core when it is due; each answer takes a millisecond.
struct CoreModel {
    core: WatchCore,
    now: Instant,
    start: Instant,
    waiters: u32,
    lock_manager: u32,
    /// Process 7 idles in a transaction since then, others wait for it.
    holder: Option<Instant>,
    asked: Vec<(Question, Instant)>,
    told: Vec<(&'static str, FindingKind, Option<String>, Instant)>,
}

impl CoreModel {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            core: WatchCore::new(SETTINGS, 0.5, now),
            now,
            start: now,
            waiters: 0,
            lock_manager: 0,
            holder: None,
            asked: Vec::new(),
            told: Vec::new(),
        }
    }

    fn rows(&self, question: &Question) -> Vec<AnswerRow> {
        let ms = |since: Instant| (self.now - since).as_millis().to_string();
        match question {
            Question::Server => {
                vec![AnswerRow::of(
                    &["150020", "f", "t", "1000", "0", "0", "on", "100", "5", "1700000000000000", "5432"].map(Some),
                )]
            }
            Question::Activity => {
                let waiters: Vec<_> = (100..100 + self.waiters).map(|pid| format!("{pid} tuple 5")).collect();
                let (busy, waiters) = (self.lock_manager.to_string(), waiters.join(","));
                let waiters = (self.waiters > 0).then_some(waiters.as_str());
                vec![AnswerRow::of(&[Some(&busy), Some("0"), Some("0"), Some("9"), waiters])]
            }
            Question::Locks if self.waiters > 0 => {
                let waiters = (100..100 + self.waiters).map(|pid| format!(",{pid} ShareLock f 6000"));
                let claims = format!("7 ExclusiveLock t{}", waiters.collect::<String>());
                let mut row = [None; 12];
                (row[0], row[6], row[11]) = (Some("transactionid"), Some("744"), Some(claims.as_str()));
                vec![AnswerRow::of(&row)]
            }
            Question::Names(lockers) => {
                assert_eq!(lockers, &[Locker::Process(7)]);
                let row = ["7", "1", "1", "9000", "9000", "9000", "idle in transaction", "worker", "10.0.0.7"];
                vec![AnswerRow::of(&row.map(Some))]
            }
            Question::Detector(DetectorId::Sessions) => {
                let since = self.holder.filter(|since| self.now - *since >= SETTINGS.idle_in_transaction);
                let row = |since| {
                    let age = ms(since);
                    let mut row = ["7", "1", "1", "0", "0", &age, "idle in transaction", "worker", "10.0.0.7"];
                    (row[3], row[4]) = (&age, &age);
                    AnswerRow::of(&row.map(Some))
                };
                since.map(row).into_iter().collect()
            }
            Question::Detector(DetectorId::Horizon) => {
                vec![AnswerRow::of(&[Some("next"), None, None, None, Some("1000"), None, None, None, None])]
            }
            Question::Detector(DetectorId::NotifyQueue) => vec![AnswerRow::of(&[Some("0")])],
            Question::Detector(DetectorId::Demotion) => vec![AnswerRow::of(&[Some("f")])],
            Question::Locks
            | Question::Detector(DetectorId::Outside | DetectorId::DeadTuples | DetectorId::Wraparound) => Vec::new(),
        }
    }

    fn step(&mut self) {
        let (question, at) = self.core.next();
        self.now = self.now.max(at);
        self.asked.push((question.clone(), self.now));
        let rows = self.rows(&question);
        self.now += Duration::from_millis(1);
        let cost = Duration::from_millis(1);
        let changes = self.core.answer(&question, &rows, &OwnBackends::default(), cost, self.now).unwrap();
        for change in changes {
            let (word, finding) = match change {
                IncidentChange::Opened(finding) => ("opened", finding),
                IncidentChange::Closed(finding, _) => ("closed", finding),
            };
            self.told.push((word, finding.kind, finding.remedy, self.now));
        }
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.core.next().1 < end {
            self.step();
        }
        self.now = end;
    }

    fn count(&self, question: &Question) -> usize {
        self.asked.iter().filter(|(asked, _)| asked == question).count()
    }
}

#[test]
fn a_calm_server_is_asked_what_it_is_asked_as_often_as_it_should() {
    let mut model = CoreModel::new();
    model.pass(120);
    assert_eq!(model.asked[0].0, Question::Server);
    assert_eq!(model.count(&Question::Server), 1);
    assert!((110..=120).contains(&model.count(&Question::Activity)));
    assert!((23..=24).contains(&model.count(&Question::Detector(DetectorId::Sessions))));
    assert_eq!(model.count(&Question::Detector(DetectorId::Horizon)), 8);
    assert_eq!(model.count(&Question::Detector(DetectorId::DeadTuples)), 2, "after half a minute, and a minute later");
    assert_eq!(model.count(&Question::Locks), 0);
    assert!(model.told.is_empty());
}

#[test]
fn a_convoy_is_told_with_its_root_within_two_seconds() {
    let mut model = CoreModel::new();
    model.pass(30);
    let start = model.now;
    model.waiters = 300;
    model.pass(2);
    let Some(("opened", FindingKind::Convoy, Some(remedy), at)) = model.told.last() else { panic!("{:?}", model.told) };
    assert_eq!(remedy, "SELECT pg_terminate_backend(7)");
    assert!(*at - start < Duration::from_secs(2));
}

#[test]
fn amid_deadlock_checks_only_activity_is_asked() {
    let mut model = CoreModel::new();
    model.pass(30);
    (model.waiters, model.lock_manager) = (600, 300);
    model.pass(2);
    let since = model.asked.len();
    model.pass(60);
    assert!(model.asked[since..].iter().all(|(question, _)| *question == Question::Activity));
    assert_eq!(model.core.convoy().state(), ConvoyState::Convoy);
    (model.waiters, model.lock_manager) = (0, 0);
    model.pass(30);
    assert!(matches!(&model.told[..], [("opened", FindingKind::Convoy, None, _), ("closed", FindingKind::Convoy, ..)]));
}

#[test]
fn who_keeps_one_session_waiting_is_told_after_five_seconds_and_when_it_lets_go() {
    let mut model = CoreModel::new();
    model.pass(10);
    model.waiters = 1;
    model.pass(20);
    assert!(
        matches!(&model.told[..], [("opened", FindingKind::Blocker, Some(_), at)] if *at - model.start < Duration::from_secs(17))
    );
    assert!(model.count(&Question::Locks) <= 4, "the lock table is asked every five seconds");
    model.waiters = 0;
    model.pass(5);
    assert!(matches!(&model.told[1..], [("closed", FindingKind::Blocker, ..)]));
}

#[test]
fn an_idle_transaction_is_told_within_thirty_seconds() {
    let mut model = CoreModel::new();
    model.pass(7);
    model.holder = Some(model.now);
    model.pass(30);
    assert!(matches!(&model.told[..], [("opened", FindingKind::IdleInTransaction, Some(_), _)]), "{:?}", model.told);
    model.holder = None;
    model.pass(6);
    assert!(matches!(&model.told[1..], [("closed", FindingKind::IdleInTransaction, ..)]));
}

#[test]
fn a_lock_table_that_shows_nothing_is_not_asked_over_and_over() {
    let mut model = CoreModel::new();
    model.pass(10);
    for _ in 0..4000 {
        let (question, at) = model.core.next();
        model.now = model.now.max(at);
        model.waiters = if question == Question::Locks { 0 } else { 60 };
        model.step();
    }
    let seconds = (model.now - model.start).as_secs() as usize;
    assert!(model.count(&Question::Locks) <= seconds);
}

#[test]
fn what_the_server_refuses_is_asked_again_when_it_is_due() {
    let mut model = CoreModel::new();
    model.step();
    for _ in 0..100 {
        let (question, at) = model.core.next();
        model.now = model.now.max(at);
        model.core.refused(&question, model.now);
    }
    assert!(model.now - model.start > Duration::from_secs(30));
}

#[test]
fn a_new_connection_asks_everything_anew_and_forgets_nothing() {
    let mut model = CoreModel::new();
    model.holder = Some(model.now);
    model.pass(40);
    model.core.silent(model.now, model.now + Duration::from_secs(9));
    model.now += Duration::from_secs(9);
    model.core.connected(model.now);
    let asked = model.asked.len();
    model.pass(3);
    let again: HashSet<_> = model.asked[asked..].iter().map(|(question, _)| format!("{question:?}")).collect();
    assert!(
        ["Server", "Activity", "Sessions", "Horizon", "Outside", "NotifyQueue", "Demotion"]
            .iter()
            .all(|of| again.iter().any(|again| again.contains(of)))
    );
    let told: Vec<_> = model.told.iter().map(|(word, kind, ..)| (*word, *kind)).collect();
    assert_eq!(told, [("opened", FindingKind::IdleInTransaction), ("closed", FindingKind::Blind)]);
}

#[test]
fn an_answer_without_its_row_is_an_error() {
    let mut model = CoreModel::new();
    let answer = model.core.answer(&Question::Server, &[], &OwnBackends::default(), Duration::ZERO, model.now);
    assert!(answer.is_err());
    assert!(model.core.server().is_none());
}

proptest! {
    // Each case is minutes of looks.
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_kind_opens_and_closes_in_turn_and_time_goes_on(
        events in prop::collection::vec((0_u32..130, 0_u32..12, any::<bool>(), 1_u64..30), 1..12)
    ) {
        let mut model = CoreModel::new();
        for (waiters, lock_manager, holds, seconds) in events {
            model.waiters = if waiters < 100 { waiters / 20 } else { waiters };
            model.lock_manager = lock_manager;
            model.holder = holds.then(|| model.holder.unwrap_or(model.now));
            let asked = model.asked.len();
            model.pass(seconds);
            prop_assert!(model.asked.len() - asked <= seconds as usize * 12 + 12, "too many questions");
        }
        let now = model.now;
        for change in model.core.end(now) {
            let IncidentChange::Closed(finding, _) = change else { panic!("opened at the end") };
            model.told.push(("closed", finding.kind, None, now));
        }
        for kind in FindingKind::ALL {
            let words = model.told.iter().filter(|(_, of, ..)| *of == kind).map(|(word, ..)| *word);
            for (i, word) in words.enumerate() {
                prop_assert_eq!(word, if i % 2 == 0 { "opened" } else { "closed" }, "{:?}", kind);
            }
            let count = model.told.iter().filter(|(_, of, ..)| *of == kind).count();
            prop_assert!(count % 2 == 0, "{:?} is left open", kind);
        }
    }
}
