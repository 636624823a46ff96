//! One worker's way to the records: from texts to digests, and from digests to records, mostly without a lock.

use std::cell::RefCell;
use std::sync::Arc;

use super::caller::StatementCaller;
use super::record::StatementRecord;
use super::run::StatementRun;
use super::slow_log;
use super::store::StatementStore;
use crate::sql::{self, Context, Digest, Digests};

/// Places for the fingerprints of texts of one worker, and for records; two that share a place take turns.
const PLACES: usize = 2048;

/// Longest text with a fingerprint: reading a longer one costs little beside moving it.
const FINGERPRINTED_MAX: usize = 16 * 1024;

/// One worker's.
#[derive(Debug)]
pub(crate) struct Recorder {
    worker: usize,
    workload: Arc<StatementStore>,
    known: RefCell<RecentRecords>,
}

/// What is known of a text at first look.
pub(crate) struct Glance {
    /// Of its statements; each has a record from here on.
    pub digests: Digests,
    /// It is one statement that leaves its session as it was, see [`sql::is_plain`].
    pub is_plain: bool,
}

/// What the texts of a fingerprint have in common, all of one statement.
#[derive(Debug, Clone, Copy)]
struct KnownText {
    fingerprint: u64,
    digest: Digest,
    is_plain: bool,
}

#[derive(Debug)]
struct RecentRecords {
    texts: Box<[KnownText]>,
    records: Box<[Option<Arc<StatementRecord>>]>,
}

impl RecentRecords {
    /// The record of this digest, if it is at hand.
    #[inline]
    fn record(&self, digest: Digest) -> Option<&Arc<StatementRecord>> {
        let record = self.records[place(digest.0)].as_ref()?;
        (record.digest == digest && !record.is_gone()).then_some(record)
    }
}

#[inline]
fn place(number: u64) -> usize {
    number as usize % PLACES
}

impl Recorder {
    pub(crate) fn new(worker: usize, workload: Arc<StatementStore>) -> Self {
        let known = RecentRecords {
            texts: vec![KnownText { fingerprint: 0, digest: Digest(0), is_plain: false }; PLACES].into(),
            records: (0..PLACES).map(|_| None).collect(),
        };
        Self { worker, workload, known: RefCell::new(known) }
    }

    /// Looks at a text that is about to run. `second`: of the process.
    #[inline]
    pub(crate) fn glance(&self, text: &[u8], context: Context, second: u32) -> Glance {
        let fingerprint = match text.len() <= FINGERPRINTED_MAX {
            true => sql::fingerprint(text, context, self.workload.seed()),
            false => None,
        };
        if let Some(fingerprint) = fingerprint {
            let known = self.known.borrow();
            let text = known.texts[place(fingerprint)];
            if text.fingerprint == fingerprint && known.record(text.digest).is_some() {
                return Glance { digests: Digests::from_elem(text.digest, 1), is_plain: text.is_plain };
            }
        }
        self.read(text, context, fingerprint, second)
    }

    fn read(&self, text: &[u8], context: Context, fingerprint: Option<u64>, second: u32) -> Glance {
        let (digests, is_plain) = (sql::digests(text, context), sql::is_plain(text, context));
        digests.iter().for_each(|digest| self.admit(*digest, text, context, second));
        if let (Some(fingerprint), &[digest]) = (fingerprint, &digests[..]) {
            let text = KnownText { fingerprint, digest, is_plain };
            self.known.borrow_mut().texts[place(fingerprint)] = text;
        }
        Glance { digests, is_plain }
    }

    /// True if this worker has the record of a statement at hand.
    #[inline]
    pub(crate) fn knows(&self, digest: Digest) -> bool {
        self.known.borrow().record(digest).is_some()
    }

    /// Sees to it that a statement which is about to run has a record. `text`: one that has the statement.
    #[inline]
    pub(crate) fn admit(&self, digest: Digest, text: &[u8], context: Context, second: u32) {
        if self.knows(digest) {
            return;
        }
        let normalized = || sql::normalized(text, context, digest).unwrap_or_default();
        let record = self.workload.admit(digest, normalized, second);
        self.known.borrow_mut().records[place(digest.0)] = Some(record);
    }

    /// True if slow statements are logged, with what is known of a text.
    #[inline]
    pub(crate) fn logs_slow(&self) -> bool {
        self.workload.logs_slow()
    }

    /// Counts a run of a statement. `note`: more of its text for the log.
    #[inline]
    pub(crate) fn count(
        &self,
        digest: Digest,
        run: &StatementRun<'_>,
        second: u32,
        note: Option<&str>,
        caller: impl Fn() -> StatementCaller,
    ) {
        self.with(digest, |record| record.count(self.worker, run, second, &caller));
        if self.workload.is_slow(run.server + run.waited) {
            self.log(digest, run, note, &caller());
        }
    }

    /// Counts a statement that was refused before it came to a backend.
    pub(crate) fn count_refusal(&self, digest: Digest, run: &StatementRun<'_>, second: u32, caller: StatementCaller) {
        self.with(digest, |record| record.count_refusal(self.worker, run, second, caller));
    }

    #[inline]
    fn with(&self, digest: Digest, count: impl FnOnce(&StatementRecord)) {
        if let Some(record) = self.known.borrow().record(digest) {
            return count(record);
        }
        match self.workload.find(digest) {
            Some(record) => {
                count(&record);
                self.known.borrow_mut().records[place(digest.0)] = Some(record);
            }
            None => count(self.workload.others()),
        }
    }

    #[cold]
    fn log(&self, digest: Digest, run: &StatementRun<'_>, note: Option<&str>, caller: &StatementCaller) {
        if fastrand::u64(..).is_multiple_of(self.workload.slow_sample()) {
            slow_log::write(digest, &self.workload.text(digest).unwrap_or_default(), run, note, caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::run::{StatementRunError, role_bit};
    use super::*;
    use crate::config::StatementKeys;
    use crate::state::timeout::Timeout;

    fn workload(memory: usize) -> Arc<StatementStore> {
        Arc::new(StatementStore::new(1, &StatementKeys { memory, ..StatementKeys::default() }, 7))
    }

    fn caller() -> StatementCaller {
        StatementCaller { role: "web".into(), database: "app".into(), application_name: "".into(), addr: "".into() }
    }

    fn call(recorder: &Recorder, text: &str) {
        let run = StatementRun {
            rows: 2,
            server: Duration::from_millis(3),
            role_bit: role_bit("web"),
            ..StatementRun::default()
        };
        for digest in recorder.glance(text.as_bytes(), Context::default(), 1).digests {
            recorder.count(digest, &run, 1, None, caller);
        }
    }

    #[test]
    fn calls_of_one_statement_add_up_whatever_its_literals() {
        let workload = workload(1 << 20);
        let recorder = Recorder::new(0, Arc::clone(&workload));
        call(&recorder, "SELECT 1");
        call(&recorder, "select 2 -- x");
        call(&recorder, "SELECT a FROM t; SELECT 3");
        let views = workload.view();
        let one = views.iter().find(|view| view.text == "SELECT ?").expect("it has a record");
        assert_eq!((one.totals.calls, one.totals.rows, &*one.roles[0]), (3, 6, "web"));
        assert_eq!(one.totals.server_time(), Duration::from_millis(9));
        assert_eq!(views.len(), 3);
    }

    #[test]
    fn texts_that_differ_in_literals_are_plain_alike() {
        let recorder = Recorder::new(0, workload(1 << 20));
        for (text, is_plain) in
            [("SELECT 'a', 1", true), ("SELECT pg_sleep(1)", false), ("SELECT 'a'; SELECT 1", false)]
        {
            for text in [text.to_owned(), text.replace('1', "22").replace("'a'", "'it''s'")] {
                let glance = recorder.glance(text.as_bytes(), Context::default(), 1);
                assert_eq!(glance.is_plain, is_plain, "{text}");
            }
        }
    }

    #[test]
    fn a_flood_of_texts_that_come_once_keeps_to_its_memory_and_loses_no_call() {
        let workload = workload(256 * 1024);
        let recorder = Recorder::new(0, Arc::clone(&workload));
        for n in 0..5_000 {
            call(&recorder, &format!("SELECT a{n} FROM t"));
            call(&recorder, "SELECT steady");
        }
        let views = workload.view();
        assert!(views.len() < 300, "{}", views.len());
        assert_eq!(views.iter().map(|view| view.totals.calls).sum::<u64>(), 10_000);
        let steady = views.iter().find(|view| view.text == "SELECT steady").expect("it is called all the time");
        assert_eq!(steady.totals.calls, 5_000);
    }

    #[test]
    fn a_reset_forgets_and_goes_on() {
        let workload = workload(1 << 20);
        let recorder = Recorder::new(0, Arc::clone(&workload));
        call(&recorder, "SELECT 1");
        workload.reset();
        call(&recorder, "SELECT 1");
        let calls: Vec<_> = workload.view().iter().map(|view| view.totals.calls).collect();
        assert_eq!(calls, [1, 0]);
    }

    #[test]
    fn errors_are_counted_by_class_and_timeouts_by_kind() {
        let workload = workload(1 << 20);
        let recorder = Recorder::new(0, Arc::clone(&workload));
        let digest = recorder.glance(b"SELECT 1", Context::default(), 0).digests[0];
        let errors: [(&[u8], Option<Timeout>); 3] =
            [(b"57014", Some(Timeout::Statement)), (b"57014", None), (b"22012", None)];
        for (code, timeout) in errors {
            let run = StatementRun { error: Some(StatementRunError { code, timeout }), ..StatementRun::default() };
            recorder.count(digest, &run, 0, None, caller);
        }
        let totals = &workload.view()[0].totals;
        assert_eq!((totals.errors(), totals.timeouts(), totals.cancels), (3, 1, 1));
        assert_eq!(totals.errors[b"57"], 2);
    }
}
