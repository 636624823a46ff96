//! Log records to stderr, for people or for machines.
//!
//! Nothing waits for stderr but one thread: a reader that stalls must not hang logins, and a stderr that is gone must
//! not end the process. Records beyond a bound are dropped and counted.

#![expect(clippy::disallowed_types, reason = "the writer is a thread of its own, which may block")]

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use pgweir::LogLevel;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::reload::Handle;

/// Records that wait for stderr at most.
const RECORDS_MAX: usize = 8192;

/// Bytes of them at most.
const BYTES_MAX: usize = 8 << 20;

/// Time that the last records get at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// How log records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Checks a filter when the command line is read; it is used as text later.
pub(super) fn filter(text: &str) -> Result<String, String> {
    // A word alone is taken for a module, whose records would be the only ones.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if let Some(word) = text.split(',').map(str::trim).find(|part| !part.contains('=') && !is_level(part)) {
        return Err(format!(
            "{word:?} is no level; \"error\", \"warn\", \"info\", \"debug\", \"trace\" and \"off\" are"
        ));
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging for the whole process. Dropped, the first result waits a moment for the last records; the second
/// changes the level.
pub(super) fn start(format: Format, level: &str) -> io::Result<(LogFlush, LogLevel)> {
    // A descriptor of its own: the lock of `io::stderr` would be held for as long as a reader stalls.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (queue, lines) = RecordQueue::new(RECORDS_MAX);
    let writer = queue.clone();
    std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(lines, stderr))?;
    let flush = LogFlush(queue.clone());
    let records = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(move || queue.clone());
    let level = match format {
        Format::Text => {
            let records =
                records.with_ansi(io::stderr().is_terminal()).fmt_fields(text_fields()).with_filter_reloading();
            let changeable = changeable(level, records.reload_handle());
            records.init();
            changeable
        }
        Format::Json => {
            let records = records.json().flatten_event(true).with_filter_reloading();
            let changeable = changeable(level, records.reload_handle());
            records.init();
            changeable
        }
    };
    // The hook of std writes to stderr itself, and would wait for its reader.
    panic::set_hook(Box::new(|panicked| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%backtrace, "{panicked}");
    }));
    Ok((flush, level))
}

fn changeable<S: 'static>(level: &str, log: Handle<EnvFilter, S>) -> LogLevel {
    LogLevel::new(level, move |level| {
        let level = filter(level)?;
        log.reload(EnvFilter::new(level)).map_err(|error| error.to_string())
    })
}

/// Fields as `name=value`. Values may come from anywhere, so one that could be taken for more than a value is quoted,
/// and no record holds control characters.
fn text_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => writer.write_str(&escaped(&value)),
            name if is_one_word(&value) || is_quoted(&value) => write!(writer, "{name}={value}"),
            name => write!(writer, "{name}={value:?}"),
        }
    })
    .delimited(" ")
}

fn escaped(text: &str) -> String {
    let control = |char: char| char.is_control().then(|| char.escape_default().to_string());
    text.chars().map(|char| control(char).unwrap_or_else(|| char.to_string())).collect()
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|char: char| char.is_control() || char.is_whitespace() || "\"=\\".contains(char))
}

/// As `Debug` writes a string: no quote inside is without a backslash.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut is_escape = false;
    let is_sound = inner.chars().all(|char| {
        let is_sound = !char.is_control() && (char != '"' || is_escape);
        is_escape = char == '\\' && !is_escape;
        is_sound
    });
    is_sound && !is_escape
}

/// Waits for the last records, as long as stderr takes them.
#[derive(Debug)]
pub(super) struct LogFlush(RecordQueue);

impl Drop for LogFlush {
    fn drop(&mut self) {
        let (written, all) = sync_channel(1);
        if self.0.queue.try_send(LogLine::Flush(written)).is_ok() {
            let _ = all.recv_timeout(FLUSH_MAX);
        }
    }
}

#[derive(Debug)]
enum LogLine {
    Record(Vec<u8>),
    /// Everything before it is written when this is answered.
    Flush(SyncSender<()>),
}

/// Records on their way to stderr.
#[derive(Debug, Clone)]
struct RecordQueue {
    queue: SyncSender<LogLine>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl RecordQueue {
    fn new(records_max: usize) -> (Self, Receiver<LogLine>) {
        let (queue, lines) = sync_channel(records_max);
        (Self { queue, bytes: Arc::default(), dropped: Arc::default() }, lines)
    }

    /// Writes for as long as there is somebody to log.
    fn write_all(&self, lines: Receiver<LogLine>, mut stderr: impl Write) {
        for line in lines {
            match line {
                LogLine::Record(record) => {
                    let written = stderr.write_all(&record);
                    self.bytes.fetch_sub(record.len(), Ordering::Relaxed);
                    if written.is_err() {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    match self.dropped.swap(0, Ordering::Relaxed) {
                        0 => {}
                        records => tracing::warn!(records, "log records were dropped: stderr did not take them"),
                    }
                }
                LogLine::Flush(written) => {
                    let _ = written.try_send(());
                }
            }
        }
    }
}

/// The subscriber writes each record with one call.
impl Write for RecordQueue {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let before = self.bytes.fetch_add(record.len(), Ordering::Relaxed);
        let is_taken =
            before + record.len() <= BYTES_MAX && self.queue.try_send(LogLine::Record(record.to_vec())).is_ok();
        if !is_taken {
            self.bytes.fetch_sub(record.len(), Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_is_one_value_stays_as_it_is() {
        for text in ["app", "127.0.0.1:6432", "größe", "1.5s"] {
            assert!(is_one_word(text), "{text}");
        }
        for text in ["", "a b", "a=b", "a\"b", "a\nb", "a\u{1b}[31m", "a\u{2028}b"] {
            assert!(!is_one_word(text), "{text:?}");
        }
        assert!(is_quoted(r#""a b""#) && is_quoted(r#""a \" b""#) && is_quoted(r#""a\\""#));
        assert!(!is_quoted(r#""a" role="b""#) && !is_quoted(r#""a\""#) && !is_quoted("\"a\nb\"") && !is_quoted("\""));
    }

    #[test]
    fn records_that_do_not_fit_are_dropped_and_counted() {
        let (mut queue, lines) = RecordQueue::new(2);
        for record in ["a\n", "b\n", "c\n"] {
            assert_eq!(queue.write(record.as_bytes()).unwrap(), 2);
        }
        assert_eq!((queue.dropped.load(Ordering::Relaxed), queue.bytes.load(Ordering::Relaxed)), (1, 4));
        assert!(lines.try_recv().is_ok());
        assert_eq!(queue.write(&vec![0; BYTES_MAX]).unwrap(), BYTES_MAX);
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 2, "too many bytes");
    }
}
