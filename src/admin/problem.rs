//! Problems: things that are wrong now, in words, and a log of earlier ones. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::facts::{DatabaseFacts, RoleFacts, StatusFacts};
use crate::admission::limiter::LimiterState;
use crate::fleet::lease::holder::LeaseState;
use crate::pool::core::EndpointView;
use crate::watch::finding::{Finding, FindingKind};
use crate::watch::watches::listed;

/// A wait that is long enough to be a problem.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Share of `listen.clients_max` that is large enough to be a problem.
const CLIENTS_SHARE: f64 = 0.9;

/// Seconds within which a problem that comes again counts as one that was never over.
const GRACE: u64 = 5;

/// Problems that are remembered.
const LOG_MAX: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProblemLevel {
    Bad,
    /// Clients may suffer soon, or somebody wanted it so.
    Warning,
    /// Good to know.
    Note,
}

impl ProblemLevel {
    fn word(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something that is wrong, or good to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) level: ProblemLevel,
    /// Its identity from second to second.
    about: String,
    /// One sentence, without its period.
    pub(super) what: String,
    /// Its size; the log remembers the largest of one problem.
    size: u64,
}

impl Problem {
    fn new(level: ProblemLevel, kind: &str, whose: &str, what: String) -> Self {
        Self { level, about: format!("{kind} {whose}"), what, size: 0 }
    }

    fn of_size(self, size: impl Into<u64>) -> Self {
        Self { size: size.into(), ..self }
    }
}

/// All problems, the worst first.
pub(super) fn problems(facts: &StatusFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    process(facts, &mut problems);
    if let Some((state, lost_for)) = facts.leases {
        leases(state, lost_for, &mut problems);
    }
    facts.databases.iter().for_each(|of| database(of, &mut problems));
    facts.roles.iter().for_each(|of| role(of, &mut problems));
    problems.extend(facts.findings.iter().map(|(databases, finding)| found(databases, finding)));
    problems.sort_by_key(|problem| (problem.level, std::cmp::Reverse(problem.size)));
    problems
}

/// The headline: level and text of the worst problem, and how many more there are.
pub(super) fn headline(problems: &[Problem]) -> Value {
    let Some(worst) = problems.first().filter(|worst| worst.level < ProblemLevel::Note) else {
        return json!({ "level": "ok", "text": "Nothing is wrong." });
    };
    let others = problems.iter().filter(|problem| problem.level < ProblemLevel::Note).count() - 1;
    let text = match others {
        0 => format!("{}.", capital(&worst.what)),
        n => format!("{}; and {n} more.", capital(&worst.what)),
    };
    json!({ "level": worst.level.word(), "text": text })
}

/// As the page has them.
pub(super) fn shown(problems: &[Problem]) -> Value {
    let one = |problem: &Problem| json!({ "level": problem.level.word(), "what": capital(&problem.what) });
    problems.iter().map(one).collect()
}

fn process(facts: &StatusFacts, problems: &mut Vec<Problem>) {
    if facts.is_draining {
        let what = format!("pgweir shuts down; {} left", count(facts.clients, "client is", "clients are"));
        problems.push(Problem::new(ProblemLevel::Warning, "draining", "", what));
    }
    let (connections, max) = (facts.connections, facts.clients_max as usize);
    if connections as f64 >= max as f64 * CLIENTS_SHARE {
        let level = if connections >= max { ProblemLevel::Bad } else { ProblemLevel::Warning };
        let what = format!("{connections} of {max} connections of clients are taken (listen.clients_max)");
        problems.push(Problem::new(level, "clients", "", what).of_size(connections as u64));
    }
}

fn leases(state: LeaseState, lost_for: Duration, problems: &mut Vec<Problem>) {
    let now = match state {
        LeaseState::Granted => return,
        LeaseState::Shrunk | LeaseState::Even => "it keeps to an even part of the limits",
        LeaseState::Smallest => "it keeps to one of each limit",
        LeaseState::Lapsed => "it lets nothing in",
    };
    let silence = lost_for.as_secs();
    let what = format!("this instance has no leases (the Redis of fleet.url has not answered for {silence} s): {now}");
    problems.push(Problem::new(ProblemLevel::Warning, "leases", "", what).of_size(silence));
}

fn database(of: &DatabaseFacts, problems: &mut Vec<Problem>) {
    let name = &of.name;
    match of.endpoint {
        EndpointView::Up => {}
        EndpointView::Busy => {
            let what = format!("the server of database {name} takes no more connections");
            problems.push(Problem::new(ProblemLevel::Bad, "busy", name, what));
        }
        EndpointView::Down(_) => {
            let silence = of.down_for.as_secs();
            let what = format!("the server of database {name} has not answered for {silence} s");
            problems.push(Problem::new(ProblemLevel::Bad, "down", name, what).of_size(silence));
        }
    }
    if of.is_paused {
        let what = format!("database {name} is paused; {}", count(of.waiting as usize, "client waits", "clients wait"));
        problems.push(Problem::new(ProblemLevel::Warning, "paused", name, what).of_size(of.waiting));
    }
    if of.is_unproved {
        let waiting = count(of.waiting as usize, "client waits", "clients wait");
        let what = format!("no primary of database {name} is known (SHOW TOPOLOGY says why); {waiting}");
        problems.push(Problem::new(ProblemLevel::Bad, "unproved", name, what).of_size(of.waiting));
    }
    if of.is_disabled {
        let what = format!("database {name} is disabled: it takes no new clients");
        problems.push(Problem::new(ProblemLevel::Warning, "disabled", name, what));
    }
}

fn role(of: &RoleFacts, problems: &mut Vec<Problem>) {
    let RoleFacts { name, waiting, oldest, turned_away, wait_timeout, .. } = of;
    if *turned_away > 0 {
        let turned_away = count(*turned_away as usize, "transaction was", "transactions were");
        let what = format!("role {name}: {turned_away} refused or waited too long in the last minute");
        problems.push(Problem::new(ProblemLevel::Bad, "refused", name, what).of_size(of.turned_away));
    }
    let queue = format!("{waiting} waiting, the first for {}", seconds(*oldest));
    let (level, what) = match of.state {
        LimiterState::Stuck => {
            (ProblemLevel::Bad, format!("role {name} is full and none of its transactions ends; {queue}"))
        }
        LimiterState::Closed if *waiting > 0 => {
            (ProblemLevel::Warning, format!("role {name} is closed: its limit is 0; {queue}"))
        }
        LimiterState::Closed => (ProblemLevel::Warning, format!("role {name} is closed: its limit is 0")),
        LimiterState::Burst | LimiterState::Calm if *oldest >= LONG_WAIT => {
            let is_bad = *oldest >= *wait_timeout / 2;
            (if is_bad { ProblemLevel::Bad } else { ProblemLevel::Warning }, format!("role {name}: {queue}"))
        }
        LimiterState::Burst => (ProblemLevel::Note, format!("role {name}: a burst is let in step by step; {queue}")),
        LimiterState::Calm => return,
    };
    problems.push(Problem::new(level, "queue", name, what).of_size(*waiting));
}

fn found(databases: &[Arc<str>], finding: &Finding) -> Problem {
    let Finding { kind, what, culprit, .. } = finding;
    let level = match kind {
        FindingKind::Convoy | FindingKind::Blind | FindingKind::ServerRole => ProblemLevel::Bad,
        _ => ProblemLevel::Warning,
    };
    let kind = kind.word();
    let whose = match databases {
        [] => String::new(),
        [one] => format!("database {one}: "),
        all => format!("databases {}: ", listed(all)),
    };
    let mut text = format!("{whose}{}: {what}", kind.replace('_', " "));
    if let Some(culprit) = culprit {
        text.push_str(&format!("; by {culprit}"));
    }
    let who = culprit.as_ref().and_then(|culprit| culprit.pid()).unwrap_or_default();
    // What reaches more databases as it goes on is the same.
    let first = databases.first().map_or("", |first| &**first);
    Problem::new(level, kind, &format!("{first} {who}"), text)
}

/// A number with its noun and verb.
fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds => format!("{seconds} s"),
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if !text.starts_with("pgweir") => first.to_uppercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

/// The problems of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<LogEntry>);

#[derive(Debug)]
struct LogEntry {
    problem: Problem,
    since: u64,
    last: u64,
}

impl Log {
    /// Takes the problems of this second.
    pub(super) fn take(&mut self, second: u64, problems: &[Problem]) {
        for problem in problems {
            let is_same = |entry: &&mut LogEntry| entry.problem.about == problem.about && second <= entry.last + GRACE;
            match self.0.iter_mut().find(is_same) {
                Some(entry) => {
                    entry.last = second;
                    let known = &entry.problem;
                    if (problem.level, std::cmp::Reverse(problem.size)) <= (known.level, std::cmp::Reverse(known.size))
                    {
                        entry.problem = problem.clone();
                    }
                }
                None => self.0.push_front(LogEntry { problem: problem.clone(), since: second, last: second }),
            }
        }
        self.0.truncate(LOG_MAX);
    }

    /// As the page has it, the newest first: how many seconds ago it began, and ended if it did.
    pub(super) fn shown(&self, second: u64) -> Value {
        let one = |entry: &LogEntry| {
            let ended = (second > entry.last + GRACE).then(|| second - entry.last);
            json!({
                "level": entry.problem.level.word(),
                "what": capital(&entry.problem.what),
                "began": second.saturating_sub(entry.since),
                "ended": ended,
            })
        };
        self.0.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::core::SlotCounts;

    fn role(state: LimiterState, waiting: u32, oldest: u64, turned_away: u64) -> StatusFacts {
        let role = RoleFacts {
            name: Arc::from("web"),
            state,
            limit: Some(10),
            moves_for: None,
            effective: Some(10),
            active: 10,
            waiting,
            oldest: Duration::from_millis(oldest),
            wait_timeout: Duration::from_secs(30),
            starts: 0,
            turned_away,
        };
        StatusFacts { clients_max: 100, roles: vec![role], ..StatusFacts::default() }
    }

    fn database(endpoint: EndpointView, down_for: u64, is_paused: bool) -> DatabaseFacts {
        DatabaseFacts {
            name: Arc::from("app"),
            endpoint,
            down_for: Duration::from_secs(down_for),
            is_paused,
            is_unproved: false,
            is_disabled: false,
            waiting: 1,
            counts: SlotCounts::default(),
            backends_max: None,
        }
    }

    fn said(facts: &StatusFacts) -> Vec<(ProblemLevel, String)> {
        problems(facts).into_iter().map(|problem| (problem.level, problem.what)).collect()
    }

    #[test]
    fn nothing_is_said_of_what_is_well() {
        assert_eq!(said(&role(LimiterState::Calm, 3, 20, 0)), []);
        assert_eq!(headline(&[]), json!({ "level": "ok", "text": "Nothing is wrong." }));
    }

    #[test]
    fn a_queue_is_worth_a_word_when_its_first_waits_for_long() {
        for (state, oldest, level, what) in [
            (LimiterState::Calm, 1000, ProblemLevel::Warning, "role web: 412 waiting, the first for 1 s"),
            (LimiterState::Burst, 15_000, ProblemLevel::Bad, "role web: 412 waiting, the first for 15 s"),
            (
                LimiterState::Burst,
                93,
                ProblemLevel::Note,
                "role web: a burst is let in step by step; 412 waiting, the first for 93 ms",
            ),
            (
                LimiterState::Stuck,
                700,
                ProblemLevel::Bad,
                "role web is full and none of its transactions ends; 412 waiting, the first for 700 ms",
            ),
            (
                LimiterState::Closed,
                9000,
                ProblemLevel::Warning,
                "role web is closed: its limit is 0; 412 waiting, the first for 9 s",
            ),
        ] {
            assert_eq!(said(&role(state, 412, oldest, 0)), [(level, what.to_owned())]);
        }
    }

    #[test]
    fn the_worst_is_the_headline_and_the_others_are_counted() {
        let mut facts = role(LimiterState::Calm, 5, 2000, 1);
        facts.databases = vec![database(EndpointView::Down(tokio::time::Instant::now()), 12, true)];
        let problems = problems(&facts);
        assert_eq!(problems.len(), 4);
        let expected = "The server of database app has not answered for 12 s; and 3 more.";
        assert_eq!(headline(&problems), json!({ "level": "bad", "text": expected }));
        assert!(said(&facts).iter().any(|(_, what)| what == "database app is paused; 1 client waits"));
        let refused = "role web: 1 transaction was refused or waited too long in the last minute";
        assert!(said(&facts).iter().any(|(level, what)| *level == ProblemLevel::Bad && what == refused));
    }

    #[test]
    fn a_note_alone_is_no_headline() {
        let problems = problems(&role(LimiterState::Burst, 1, 5, 0));
        assert_eq!(headline(&problems)["level"], "ok");
        assert_eq!(shown(&problems)[0]["level"], "note");
    }

    #[test]
    fn clients_of_many_are_told_before_there_are_too_many() {
        for (connections, expected) in [(89, None), (90, Some(ProblemLevel::Warning)), (100, Some(ProblemLevel::Bad))] {
            let facts = StatusFacts { connections, clients_max: 100, ..StatusFacts::default() };
            assert_eq!(said(&facts).first().map(|(level, _)| *level), expected, "{connections}");
        }
    }

    #[test]
    fn what_the_watch_found_is_told_with_its_culprit() {
        let finding = Finding {
            kind: FindingKind::Blocker,
            what: "9 wait".to_owned(),
            culprit: None,
            remedy: None,
            reach: crate::watch::finding::Reach::Own,
        };
        let facts =
            StatusFacts { clients_max: 1, findings: vec![(vec!["app".into()], finding)], ..StatusFacts::default() };
        assert_eq!(said(&facts), [(ProblemLevel::Warning, "database app: blocker: 9 wait".to_owned())]);
    }

    #[test]
    fn what_comes_and_goes_is_one_entry_and_its_worst_is_kept() {
        let mut log = Log::default();
        for (second, waiting) in [(1, 5), (2, 400), (4, 7)] {
            log.take(second, &problems(&role(LimiterState::Calm, waiting, 1000, 0)));
        }
        for second in 5..=10 {
            log.take(second, &[]);
        }
        let shown = log.shown(10);
        assert_eq!(shown.as_array().map(Vec::len), Some(1));
        assert_eq!((&shown[0]["began"], &shown[0]["ended"]), (&json!(9), &json!(6)));
        assert_eq!(shown[0]["what"], "Role web: 400 waiting, the first for 1 s");
        log.take(20, &problems(&role(LimiterState::Calm, 1, 1000, 0)));
        assert_eq!(log.shown(20).as_array().map(Vec::len), Some(2));
        assert_eq!(log.shown(20)[0]["ended"], Value::Null);
        for second in 0..200 {
            log.take(100 + 10 * second, &problems(&role(LimiterState::Calm, 1, 1000, 0)));
        }
        assert_eq!(log.shown(3000).as_array().map(Vec::len), Some(LOG_MAX));
    }
}
