//! Records of pgweir's watch, and when they came: the log, read as it is written by somebody who looks a hundred times
//! a second.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// A record about something that is the matter, or over.
#[derive(Clone, Debug)]
pub(crate) struct WatchRecord {
    /// When it could be read.
    pub(crate) at: Instant,
    /// The kind of finding, or "reaction".
    pub(crate) kind: String,
    /// It has begun; else it is over.
    pub(crate) is_open: bool,
    /// In words, with who is to blame and what would end it.
    pub(crate) words: String,
}

impl WatchRecord {
    /// A line of the log; none if it is about something else.
    fn read(line: &[u8], at: Instant) -> Option<Self> {
        let record: Value = serde_json::from_slice(line).ok()?;
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let message = text("message")?;
        // A reaction to a finding is recorded under the key that has it done.
        let kind = text("kind").or_else(|| message.starts_with("watch.").then_some("reaction"))?;
        // Another record of pgweir may have a kind, too.
        text("database")?;
        let rest = ["culprit", "remedy", "role", "client", "reason"].into_iter().filter_map(text);
        let rest = rest.map(|text| format!("; {text}"));
        let is_open = record.get("lasted").is_none();
        Some(Self { at, kind: kind.to_owned(), is_open, words: format!("{message}{}", rest.collect::<String>()) })
    }
}

/// Somebody who reads, on a thread of their own.
pub(crate) struct Reader {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<WatchRecord>>,
}

impl Reader {
    /// From here on.
    pub(crate) fn start(log: &Path) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let mut log = File::open(log).expect("pgweir writes it");
        log.seek(SeekFrom::End(0)).expect("it is a file");
        let thread = thread::spawn(move || {
            crate::runtime().block_on(async {
                let mut records = Vec::new();
                tokio::select! {
                    () = read(log, &mut records) => {}
                    _ = &mut stopped => {}
                }
                records
            })
        });
        Self { stop, thread }
    }

    /// All records since the start.
    pub(crate) fn stop(self) -> Vec<WatchRecord> {
        // A thread that has ended tells why below.
        let _ = self.stop.send(());
        self.thread.join().expect("the reader does not panic")
    }
}

async fn read(mut log: File, records: &mut Vec<WatchRecord>) {
    let mut unread = Vec::new();
    loop {
        log.read_to_end(&mut unread).expect("it is a file");
        let now = Instant::now();
        let whole = unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines: Vec<_> = unread.drain(..whole).collect();
        records.extend(lines.split(|byte| *byte == b'\n').filter_map(|line| WatchRecord::read(line, now)));
        sleep(PERIOD).await;
    }
}
