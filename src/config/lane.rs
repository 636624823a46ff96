//! `[[lanes]]`: transactions of one kind that have a limit of their own, whatever their role.
//!
//! The lanes of a file stand in an order: a transaction belongs to the first that matches it. A lane that comes behind
//! one that takes all of its transactions is a mistake.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use super::admission::{Priority, RateKeys, RoleAdmission};
use super::database::WAITERS_MAX;
use super::form::{
    BACKENDS_MAX, KeyForm, count, digest, duration_above_zero, postgres_timeout, read_text, some, text, word,
};
use super::keys::section;
use super::raw::SectionReader;
use super::{ClientSource, Config, Database, RoleQueueSettings};
use crate::words::words;

/// A share finer than this cannot be told from none.
const WEIGHT_MAX: u32 = 1000;

/// Each transaction is compared with them one by one.
const LANES_MAX: usize = 100;

section! {
    /// An entry of `[[lanes]]`.
    pub struct LaneKeys {
        /// Names it in SHOW LANES, metrics, errors and the log.
        pub name: String = String::new() => required(text());
        /// The transactions that are in it.
        pub matches as "match": LaneMatch = LaneMatch::default() => table();
        /// What happens to a transaction that its limits would hold back.
        pub mode: LaneMode = LaneMode::Queue => key(word());
        /// Transactions at once over all pools; zero lets nobody start, `None`: not limited.
        pub transactions_max: Option<u32> = None => maybe(count(0..=BACKENDS_MAX));
        /// Transactions that wait at once; `None`: `pool.waiters_max` bounds them.
        pub waiters_max: Option<u32> = None => maybe(count(0..=WAITERS_MAX));
        /// Longest wait, in the place of that of the database.
        pub wait_timeout: Option<Duration> = None => maybe(duration_above_zero());
        /// A statement that takes longer is canceled, if its role does not allow even less.
        pub statement_timeout: Option<Duration> = None => maybe(postgres_timeout());
        /// Goes before or after others that wait for the same pool.
        pub priority as "class": Priority = Priority::Interactive => key(word());
        /// Share among those of one class that wait for the same pool.
        pub weight: u32 = 1 => key(count(1..=WEIGHT_MAX));
        /// Starts per second.
        pub rate: RateKeys = RateKeys::default() => inline();
    } lane_rules
}

section! {
    /// `lanes.*.match`: everything that is written must hold.
    pub struct LaneMatch {
        /// Roles.
        pub roles as "role": Vec<String> = Vec::new() => key(some(text()));
        /// Databases, as clients name them.
        pub databases as "database": Vec<String> = Vec::new() => key(some(text()));
        /// Values of `application_name` at the login.
        pub applications as "application_name": Vec<String> = Vec::new() => key(some(text()));
        /// Addresses of clients.
        pub addresses as "address": Vec<ClientSource> = Vec::new() => key(some(super::form::client_source()));
        /// Tags in the SQLCommenter comment of the first statement.
        pub tags as "tag": BTreeMap<String, String> = BTreeMap::new() => key(TagsForm);
        /// Digests of the first statement.
        pub digests as "digest": Vec<String> = Vec::new() => key(some(digest()));
    }
}

words! {
    /// `lanes.*.mode`.
    pub enum LaneMode {
        /// They wait.
        Queue = "queue",
        /// They are refused.
        Refuse = "refuse",
        /// They go on, and it is counted what would have happened.
        Observe = "observe",
    }
}

/// A table of keys and values, such as `{ job = "export" }`.
struct TagsForm;

impl KeyForm<BTreeMap<String, String>> for TagsForm {
    fn read(&self, value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
        let example = "write for example { job = \"export\" }";
        let DeValue::Table(table) = value else { return Err(format!("is no table of tags; {example}")) };
        if table.is_empty() {
            return Err(format!("has no tag; {example}"));
        }
        let tag = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            Ok((key.to_string(), read_text(value.get_ref()).map_err(|wrong| format!("{key:?} {wrong}; {example}"))?))
        };
        table.iter().map(tag).collect()
    }

    fn text(&self, value: &BTreeMap<String, String>) -> String {
        value.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    }

    fn allowed(&self) -> String {
        "a table of tags and their values, such as `{ job = \"export\" }`".to_owned()
    }

    fn schema(&self) -> serde_json::Value {
        serde_json::json!({
            "type": "object", "additionalProperties": { "type": "string", "minLength": 1 }, "minProperties": 1,
        })
    }
}

impl LaneKeys {
    /// The rules of its limiter.
    pub fn queue(&self, config: &Config) -> RoleQueueSettings {
        let Self { transactions_max, waiters_max, rate, .. } = *self;
        let limits = RoleAdmission { transactions_max, waiters_max, rate, ..RoleAdmission::default() };
        let settings = RoleQueueSettings::of(&config.admission, &limits);
        match self.mode {
            // Whoever would wait for a slow start is refused otherwise.
            LaneMode::Refuse => settings.limits_only(),
            LaneMode::Queue => settings,
            LaneMode::Observe => RoleQueueSettings { observes: true, ..settings },
        }
    }
}

impl LaneMatch {
    /// It is looked at only when a transaction begins; everything else is known at the login.
    pub fn is_of_statements(&self) -> bool {
        !self.tags.is_empty() || !self.digests.is_empty()
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whatever `other` matches, this does.
    fn covers(&self, other: &Self) -> bool {
        fn holds<T>(ours: &[T], theirs: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
            ours.is_empty() || !theirs.is_empty() && theirs.iter().all(|b| ours.iter().any(|a| covers(a, b)))
        }
        holds(&self.roles, &other.roles, |a, b| a == b)
            && holds(&self.databases, &other.databases, |a, b| a == b)
            && holds(&self.applications, &other.applications, |a, b| a == b)
            && holds(&self.addresses, &other.addresses, |a, b| a.includes(b))
            && holds(&self.digests, &other.digests, |a, b| a == b)
            && self.tags.iter().all(|(key, value)| other.tags.get(key) == Some(value))
    }

    /// Something may match both.
    fn meets(&self, other: &Self) -> bool {
        fn meet<T>(ours: &[T], theirs: &[T], meets: impl Fn(&T, &T) -> bool) -> bool {
            ours.is_empty() || theirs.is_empty() || ours.iter().any(|a| theirs.iter().any(|b| meets(a, b)))
        }
        meet(&self.roles, &other.roles, |a, b| a == b)
            && meet(&self.databases, &other.databases, |a, b| a == b)
            && meet(&self.applications, &other.applications, |a, b| a == b)
            && meet(&self.addresses, &other.addresses, |a, b| a.includes(b) || b.includes(a))
            && meet(&self.digests, &other.digests, |a, b| a == b)
            && self.tags.iter().all(|(key, value)| other.tags.get(key).is_none_or(|theirs| theirs == value))
    }
}

impl fmt::Display for LaneMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roles, databases, applications, addresses, tags, digests } = self;
        let listed = |key, values: Vec<String>| (!values.is_empty()).then(|| format!("{key} {}", values.join("|")));
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let tags = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let parts = [
            listed("role", roles.clone()),
            listed("database", databases.clone()),
            listed("application_name", applications.clone()),
            listed("address", addresses),
            listed("tag", tags),
            listed("digest", digests.clone()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Rules between the keys of a lane.
fn lane_rules(lane: &LaneKeys, section: &SectionReader<'_>) {
    let is_unlimited = lane.transactions_max.is_none() && lane.rate.per_second.is_none();
    let is_written = section.has("transactions_max") || section.has("rate");
    if lane.mode != LaneMode::Queue && is_unlimited && !is_written {
        let mode = lane.mode.word();
        section.blame("mode", format!("{mode:?} needs transactions_max or rate: what is it to {mode}?"));
    }
    let is_ordered = section.has("statement_timeout") || section.has("class") || section.has("weight");
    if lane.mode == LaneMode::Queue && is_unlimited && !is_written && !is_ordered {
        section.blame_all("holds nothing back; add transactions_max, rate, statement_timeout, class or weight");
    }
    if !section.has("rate") {
        for key in ["rate_burst", "rate_delay_max", "rate_when"] {
            if section.has(key) {
                section.blame(key, "needs rate");
            }
        }
    }
    if lane.matches.is_empty() && !section.is_blamed("match") {
        let keys = "role, database, application_name, address, tag, digest";
        section.blame("match", format!("matches everything; write one or more of {keys}"));
    }
}

/// Facts of other sections that the rules of lanes need.
pub(super) struct LaneSurroundings<'a> {
    pub databases: &'a BTreeMap<String, Database>,
    /// The names of roles that may log in.
    pub roles: Vec<&'a str>,
    /// Statements are counted.
    pub tracks: bool,
}

/// Every lane, in the order of the file.
pub(super) fn read(root: &mut SectionReader<'_>, around: &LaneSurroundings<'_>) -> Vec<LaneKeys> {
    let sections = root.entries("lanes");
    if sections.len() > LANES_MAX {
        root.blame("lanes", format!("are {}; {LANES_MAX} are allowed", sections.len()));
    }
    let mut lanes: Vec<LaneKeys> = Vec::new();
    for mut section in sections {
        let mut lane = LaneKeys::default();
        section.visit(&mut lane);
        check_names(&lane, &section.view("match"), around);
        if section.is_sound("name") && lanes.iter().any(|other| other.name == lane.name) {
            section.blame("name", format!("{:?} is the name of two lanes", lane.name));
        }
        if section.is_sound("match")
            && let Some(before) = lanes.iter().find(|before| before.matches.covers(&lane.matches))
        {
            let text = format!("has no effect: all that it matches belongs to lane {:?} above", before.name);
            section.blame("match", text);
        }
        section.finish();
        lanes.push(lane);
    }
    lanes
}

/// Names in a match are those of something.
fn check_names(lane: &LaneKeys, section: &SectionReader<'_>, around: &LaneSurroundings<'_>) {
    let LaneMatch { roles, databases, digests, .. } = &lane.matches;
    if !around.databases.contains_key("*") {
        for name in databases.iter().filter(|name| !around.databases.contains_key(*name)) {
            section.blame("database", format!("{name:?} does not exist; add [databases.{name}]"));
        }
    }
    if !around.roles.contains(&"*") {
        for name in roles.iter().filter(|name| !around.roles.contains(&name.as_str())) {
            section.blame("role", format!("{name:?} cannot log in; add [roles.{name}]"));
        }
    }
    if !digests.is_empty() && !around.tracks {
        section.blame("digest", "needs statements.track: nobody else knows digests");
    }
}

/// Pairs of lanes of which both may match a transaction, which belongs to the first then: names, first and second.
pub fn overlaps(config: &Config) -> Vec<(&str, &str)> {
    let pairs = config.lanes.iter().enumerate().flat_map(|(at, second)| {
        config.lanes[..at].iter().filter(|first| first.matches.meets(&second.matches)).map(move |first| (first, second))
    });
    pairs.map(|(first, second)| (&*first.name, &*second.name)).collect()
}
