//! SHOW FLEET: the instances, as they say of themselves by way of the lease book; or this one alone.

use std::time::Duration;

use tokio::time::Instant;

use crate::admin::table::{ConsoleTable, columns, table};
use crate::fleet::lease::Grant;
use crate::fleet::lease::engine::SeenMember;
use crate::fleet::lease::facts::MemberFacts;
use crate::fleet::lease::leases::LeasesView;
use crate::proxy::Proxy;

pub(in crate::admin) const TABLE: ConsoleTable =
    table!("FLEET", "the instances of the fleet, what each has of its limits, and when it was seen last", lines);

#[derive(Clone)]
struct MemberLine {
    instance: String,
    is_self: bool,
    facts: MemberFacts,
    age: Option<Duration>,
    lag: Option<Duration>,
    lost: Option<Duration>,
    notes: Vec<String>,
}

columns! { MemberLine;
    "instance" text = |it| &it.instance,
    "self" int = |it| it.is_self,
    "version" text = |it| &it.facts.version,
    "addr" text = |it| &it.facts.address,
    "state" text = |it| &it.facts.state,
    "clients" long = |it| it.facts.clients,
    "active" int = |it| it.facts.active,
    "waiting" int = |it| it.facts.waiting,
    "shares" text = |it| shares(&it.facts),
    "last_seen_ms" long = |it| it.age.map(|age| age.as_millis()),
    "lag_us" long = |it| it.lag.map(|lag| lag.as_micros()),
    "lost_ms" long = |it| it.lost.map(|lost| lost.as_millis()),
    "notes" text = |it| it.notes.join("; "),
}

fn lines(proxy: &Proxy) -> Vec<MemberLine> {
    let now = Instant::now();
    let (me, own) = (proxy.instance(), proxy.fleet_facts(&proxy.fleet_uses(now), now));
    let view = proxy.leases.as_ref().map(|leases| leases.view(now));
    let of_others = |member: SeenMember| {
        let facts = MemberFacts::read(&member.facts);
        let notes = (facts.version != own.version).then(|| "another version".to_owned());
        MemberLine {
            instance: member.id,
            is_self: false,
            age: Some(member.age),
            lag: None,
            lost: None,
            notes: notes.into_iter().collect(),
            facts,
        }
    };
    let others: Vec<_> = view.iter().flat_map(|view| view.others(&me, now)).map(of_others).collect();
    let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
    let line = MemberLine {
        instance: me,
        is_self: true,
        age: since(view.as_ref().and_then(|view| view.answered)),
        lag: view.as_ref().and_then(|view| view.answered.and(Some(view.lag))),
        lost: since(view.as_ref().and_then(|view| view.lost_since)),
        notes: view.iter().flat_map(|view| lower_limits(view, &own)).collect(),
        facts: own,
    };
    [vec![line], others].concat()
}

/// Limits of ours that are lower at another instance.
fn lower_limits(view: &LeasesView, own: &MemberFacts) -> Vec<String> {
    let lower = |(name, grant): (&String, &Grant)| {
        let (_, limit) = *own.limits.get(name)?;
        (grant.limit < limit).then(|| format!("{name}: the {} of another instance holds, not {limit}", grant.limit))
    };
    view.grants.iter().filter_map(lower).collect()
}

/// Each limit with the part of it: `role app 13/40`.
fn shares(facts: &MemberFacts) -> String {
    let share = |(name, (part, limit)): (&String, &(u32, u32))| format!("{name} {part}/{limit}");
    facts.limits.iter().map(share).collect::<Vec<_>>().join(", ")
}
