//! The figures of a run: its looks, cut into phases.

use std::time::Duration;

use tokio::time::Instant;

use super::members::{LIMIT, MOST};
use crate::chart::{Line, Panel, Scale, draw};
use crate::looks::Look;
use crate::report::Table;
use crate::seconds;
use crate::stats::spell;

/// 90 % of the limit.
const FULL: u64 = LIMIT as u64 * 9 / 10;

/// What is the case from one moment to the beginning of the next phase.
pub(super) struct Phase {
    name: &'static str,
    began: Instant,
    /// Instances whose clients work and are served.
    busy: Vec<bool>,
}

impl Phase {
    /// It begins now.
    pub(super) fn begin(name: &'static str, busy: &[bool]) -> Self {
        Self { name, began: Instant::now(), busy: busy.to_vec() }
    }

    fn is_busy(&self, member: usize) -> bool {
        self.busy.get(member).copied().unwrap_or(false)
    }

    fn of_busy(&self, look: &Look) -> u64 {
        (0..MOST).filter(|one| self.is_busy(*one)).map(|one| look.counts[one]).sum()
    }
}

/// A phase with its looks.
fn cut<'a>(phases: &'a [Phase], looks: &'a [Look]) -> impl Iterator<Item = (&'a Phase, &'a [Look])> {
    let start = |phase: &Phase| looks.partition_point(|look| look.at < phase.began);
    let ends = phases.iter().skip(1).map(start).chain([looks.len()]);
    phases.iter().zip(ends).map(move |(phase, end)| (phase, &looks[start(phase)..end]))
}

fn sum(look: &Look) -> u64 {
    look.counts.iter().sum()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Until so much of the limit is in use; none if it was not, or was already.
fn full_after(phase: &Phase, looks: &[Look]) -> Option<Duration> {
    let full = looks.iter().position(|look| phase.of_busy(look) >= FULL).filter(|first| *first > 0)?;
    Some(looks[full].at.saturating_duration_since(phase.began))
}

/// One row for each way to share.
pub(super) fn modes(of_modes: &[(&'static str, Vec<Phase>, Vec<Look>)]) -> Table {
    let rows = of_modes.iter().map(|(name, phases, looks)| {
        let cut: Vec<_> = cut(phases, looks).collect();
        let used = |at: usize| {
            let (_, looks) = cut[at];
            median(looks[looks.len() / 2..].iter().map(sum).collect()).to_string()
        };
        let most = |at: usize| cut[at].1.iter().map(sum).max().unwrap_or_default().to_string();
        vec![(*name).to_owned(), used(0), spell(full_after(cut[0].0, cut[0].1)), most(1), used(2), most(2)]
    });
    Table {
        title: format!("fleet.mode, three instances with a limit of {LIMIT}"),
        columns: &["", "one busy: used", "full after", "another busy: most", "all busy: used", "all busy: most"],
        rows: rows.collect(),
    }
}

/// One row for each phase.
pub(super) fn incidents(phases: &[Phase], looks: &[Look]) -> Table {
    let rows = cut(phases, looks).map(|(phase, looks)| {
        let most = looks.iter().max_by_key(|look| sum(look));
        let most_sum = most.map_or(0, sum);
        let paused = most.map_or(0, |look| if phase.name.contains("still") { look.counts[0] } else { 0 });
        let most_of_others = looks.iter().map(|look| phase.of_busy(look)).max().unwrap_or_default();
        let late = &looks[looks.len() / 2..];
        let of_one = (0..MOST).filter(|one| phase.is_busy(*one));
        let least = of_one.map(|one| median(late.iter().map(|look| look.counts[one]).collect())).min();
        vec![
            phase.name.to_owned(),
            looks.len().to_string(),
            most_sum.to_string(),
            paused.to_string(),
            most_of_others.to_string(),
            median(late.iter().map(|look| phase.of_busy(look)).collect()).to_string(),
            least.unwrap_or_default().to_string(),
            spell(full_after(phase, looks)),
        ]
    });
    Table {
        title: "fleet.mode = \"redis\"".to_owned(),
        columns: &["", "looks", "most", "of it paused", "most of the others", "used", "least of one", "full after"],
        rows: rows.collect(),
    }
}

/// All looks.
pub(super) fn picture(title: &str, phases: &[Phase], looks: &[Look]) -> String {
    let began = phases[0].began;
    let shown = || looks.iter().filter(|look| look.at >= began);
    let line = |name: String, of: &dyn Fn(&Look) -> u64| {
        let points = shown().map(|look| (seconds(look.at, began), of(look) as f64)).collect();
        Line { name, points }
    };
    let end = shown().next_back().map_or(0.0, |look| seconds(look.at, began));
    let limit = Line { name: "limit".into(), points: vec![(0.0, f64::from(LIMIT)), (end, f64::from(LIMIT))] };
    let of_members = (0..MOST).map(|one| line(format!("instance {}", one + 1), &move |look| look.counts[one]));
    let lines = of_members.chain([line("all".into(), &sum), limit]).collect();
    draw(title, "seconds", &[Panel { y: "open transactions", scale: Scale::Linear, lines }])
}
