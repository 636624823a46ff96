//! For tests: a proxy that watches one database, on which something is the matter or nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config;
use crate::proxy::Proxy;
use crate::watch::detectors::DetectorId;
use crate::watch::monitor::Monitor;
use crate::watch::own_backends::OwnBackends;
use crate::watch::question::Question;
use crate::watch::row::AnswerRow;
use crate::watch::settings::WatchSettings;

/// So many in wait for process 7.
const WAITERS: u32 = 150;

pub(super) struct Trouble {
    pub(super) proxy: Proxy,
    pub(super) monitor: Arc<Monitor>,
    now: Instant,
}

impl Trouble {
    /// Its watch has no connection yet.
    pub(super) fn unreached() -> Self {
        let text = "[databases.app]\nhost = \"127.0.0.1\"\n[roles.\"*\"]\nauth = \"trust\"\n";
        let config = config::parse(text, Path::new("proxy.toml"), &|_| None).expect("a configuration");
        let proxy = Proxy::new(config, mpsc::channel(1).0).expect("no certificates");
        let now = Instant::now();
        let monitor = Arc::new(Monitor::new("app".into(), WatchSettings::TYPICAL, 0.0, now));
        proxy.watches.add(Arc::clone(&monitor), "127.0.0.1:5432".into(), now);
        Self { proxy, monitor, now }
    }

    /// Nothing is the matter.
    pub(super) fn calm() -> Self {
        let mut trouble = Self::unreached();
        trouble.monitor.stats.set_connected(true);
        trouble.hear(
            &Question::Server,
            &[&["150020", "f", "t", "1000", "0", "0", "on", "100", "5", "1700000000000000", "5432"].map(Some)],
        );
        trouble.hear(&Question::Activity, &[&[Some("0"), Some("1"), Some("0"), Some("9"), None]]);
        trouble
    }

    /// Many wait for one that idles in a transaction.
    pub(super) fn convoy() -> Self {
        let mut trouble = Self::calm();
        let waiters: Vec<_> = (100..100 + WAITERS).map(|pid| format!("{pid} transactionid 5")).collect();
        let waiters = waiters.join(",");
        for _ in 0..3 {
            trouble.hear(&Question::Activity, &[&[Some("1"), Some("151"), Some("1"), Some("160"), Some(&waiters)]]);
            trouble.now += Duration::from_secs(3);
        }
        let claims = (100..100 + WAITERS).map(|pid| format!(",{pid} ShareLock f 6000"));
        let claims = format!("7 ExclusiveLock t{}", claims.collect::<String>());
        let mut lock = [None; 12];
        (lock[0], lock[6], lock[11]) = (Some("transactionid"), Some("744"), Some(claims.as_str()));
        trouble.hear(&Question::Locks, &[&lock]);
        let holder = ["7", "1", "1", "90000", "80000", "80000", "idle in transaction", "worker", "10.0.0.7"].map(Some);
        trouble.hear(&Question::Names(Vec::new()), &[&holder]);
        trouble.hear(&Question::Detector(DetectorId::Sessions), &[&holder]);
        trouble
    }

    /// A slot that nobody reads, a young transaction, and a table whose dead rows vacuum leaves.
    pub(super) fn horizon() -> Self {
        let mut trouble = Self::calm();
        let next = [Some("next"), None, None, None, Some("9000000"), None, None, None, None];
        let slot = [Some("slot"), Some("cdc"), None, None, Some("2000000"), None, Some("logical"), None, None];
        let session =
            [Some("backend"), None, Some("8"), Some("1"), Some("40"), Some("9000"), Some("active"), None, None];
        trouble.hear(&Question::Detector(DetectorId::Horizon), &[&next, &slot, &session]);
        for (dead, vacuums) in [("20000", "1"), ("30000", "2"), ("40000", "3"), ("50000", "4")] {
            trouble.hear(
                &Question::Detector(DetectorId::DeadTuples),
                &[&["77", "public.jobs", "500", dead, vacuums].map(Some)],
            );
        }
        trouble
    }

    fn hear(&mut self, question: &Question, rows: &[&[Option<&str>]]) {
        let rows: Vec<_> = rows.iter().map(|row| AnswerRow::of(row)).collect();
        let answer = self.monitor.core().answer(question, &rows, &OwnBackends::default(), Duration::ZERO, self.now);
        self.monitor.tell(&self.proxy, answer.expect("what was asked for"));
    }
}
