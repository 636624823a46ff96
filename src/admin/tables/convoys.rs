//! SHOW CONVOYS: one line for each watched server, because it is worth seeing that nothing is wrong, too.

use super::culprits::{NamedCulprit, Today, columns_to_culprit, each};
use super::format::wait;
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;
use crate::watch::convoy::ConvoyWatch;
use crate::watch::culprit::Culprit;
use crate::watch::finding::Reach;

pub(in crate::admin) const TABLE: ConsoleTable = table!(
    "CONVOYS",
    "waits for locks at every watched server, and the SQL that ends a convoy; client is what KILL_CLIENT takes",
    lines,
);

struct ConvoyLine {
    database: String,
    state: &'static str,
    since: Option<String>,
    waiters: usize,
    waiters_max: usize,
    longest: (u64, u32),
    lock: Option<String>,
    culprit: NamedCulprit,
    remedy: Option<String>,
}

columns_to_culprit! { ConvoyLine;
    "database" text = |it| &it.database,
    "state" text = |it| it.state,
    "since" text = |it| it.since.as_ref(),
    "waiters" int = |it| it.waiters,
    "waiters_max" int = |it| it.waiters_max,
    "maxwait" int = |it| it.longest.0,
    "maxwait_us" int = |it| it.longest.1,
    "lock" text = |it| it.lock.as_ref(),
}

fn lines(proxy: &Proxy) -> Vec<ConvoyLine> {
    let today = Today::now();
    each(proxy, |_, core, databases| {
        let line = || line(&today, databases(&Reach::Server), core.convoy());
        core.leads().then(line).into_iter().collect()
    })
}

fn line(today: &Today, database: String, watch: &ConvoyWatch) -> ConvoyLine {
    let (episode, sample) = (watch.convoy(), watch.sample());
    let waiters = sample.waiters.len();
    let site = episode.and_then(|episode| episode.site.as_ref());
    let culprit = site.and_then(|site| site.culprit.as_ref());
    // Until the lock table could be asked, only the kind is known.
    let kind = || sample.main_kind().map(|kind| kind.word().into());
    let since = episode.map(|episode| episode.since).or_else(|| watch.blind_since());
    ConvoyLine {
        database,
        state: watch.state().word(),
        since: since.map(|since| today.date(since)),
        waiters,
        waiters_max: episode.map_or(waiters, |episode| episode.waiters_max),
        longest: wait(Some(watch.longest())),
        lock: site.map(|site| site.lock.to_string()).or_else(kind),
        culprit: NamedCulprit::of(culprit),
        remedy: culprit.map(Culprit::remedy),
    }
}
