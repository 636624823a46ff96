//! Checks of single values: from what TOML allows to what a key allows.
//!
//! Each takes a value and returns it typed, or says what is wrong with it and what is allowed. Durations are written
//! and read back here, so that both sides agree.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::{ListenAddr, Word};

/// Longer than this is a typing mistake; `"0s"` is how to say never.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Postgres keeps its timeouts as milliseconds in an int (guc_tables.c).
const POSTGRES_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// `sun_path` holds 108 bytes on Linux, a terminating zero included (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

const UNITS: [(&str, u64); 5] =
    [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

/// Seconds of what a rate may be written in, the shortest first.
const RATE_UNITS: [(&str, u32); 3] = [("s", 1), ("m", 60), ("h", 60 * 60)];

/// Bytes of what a size may be written in, the largest first.
const SIZE_UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A rate above this is none.
const RATE_MAX: f64 = 1e6;

type Checked<T> = Result<T, String>;

/// What a value is, for mistakes; never the value itself.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The value as written where it is short, else its kind.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => kind(value).to_owned(),
    }
}

/// A string that is not empty and can go into a C string, as all of the protocol's are.
pub(super) fn text(value: &DeValue<'_>) -> Checked<String> {
    match value {
        DeValue::String(text) if text.is_empty() => Err("is empty".to_owned()),
        DeValue::String(text) if text.contains('\0') => Err("holds a zero byte".to_owned()),
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("{} is not a string", shown(other))),
    }
}

/// As [`text`], for values that must not be repeated.
pub(super) fn secret_text(value: &DeValue<'_>) -> Checked<String> {
    match value {
        DeValue::String(_) => text(value),
        other => {
            Err(format!("{} is no secret; write a string, {{ env = \"NAME\" }} or {{ file = \"path\" }}", kind(other)))
        }
    }
}

/// A string or a list of strings, each through `check`, none twice.
pub(super) fn list<T: Ord>(value: &DeValue<'_>, check: impl Fn(&DeValue<'_>) -> Checked<T>) -> Checked<Vec<T>> {
    let DeValue::Array(items) = value else {
        return Ok(vec![check(value)?]);
    };
    let (mut list, mut wrong) = (Vec::new(), Vec::new());
    for item in items {
        match check(item.get_ref()) {
            Ok(checked) => list.push((shown(item.get_ref()), checked)),
            Err(text) => wrong.push(text),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let mut seen = BTreeSet::new();
    if let Some((twice, _)) = list.iter().find(|(_, item)| !seen.insert(item)) {
        return Err(format!("{twice} is written twice"));
    }
    Ok(list.into_iter().map(|(_, item)| item).collect())
}

/// As [`list`], with at least one entry.
pub(super) fn some<T: Ord>(value: &DeValue<'_>, check: impl Fn(&DeValue<'_>) -> Checked<T>) -> Checked<Vec<T>> {
    let list = list(value, check)?;
    match list.is_empty() {
        true => Err("the list is empty; it needs one entry or more".to_owned()),
        false => Ok(list),
    }
}

/// The name of a host as browsers write it, without scheme and port.
pub(super) fn url_host(value: &DeValue<'_>) -> Checked<String> {
    let name = text(value)?;
    match name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_')) {
        true => Ok(name),
        false => Err(format!("{name:?} is not the name of a host alone, in lower case")),
    }
}

/// A whole number within `allowed`.
pub(super) fn count(allowed: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> Checked<u32> {
    move |value| {
        let number = match value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            other => return Err(format!("{} is not a whole number", shown(other))),
        };
        number.and_then(|number| u32::try_from(number).ok()).filter(|number| allowed.contains(number)).ok_or_else(
            || {
                let (low, high) = (allowed.start(), allowed.end());
                format!("{} is not between {low} and {high}", shown(value))
            },
        )
    }
}

/// A port to dial.
pub(super) fn port(value: &DeValue<'_>) -> Checked<u16> {
    count(1..=u32::from(u16::MAX))(value).map(|port| u16::try_from(port).expect("count kept it within u16"))
}

/// `true` or `false`.
pub(super) fn truth(value: &DeValue<'_>) -> Checked<bool> {
    match value {
        DeValue::Boolean(truth) => Ok(*truth),
        other => Err(format!("{} is not true or false", shown(other))),
    }
}

/// One of the words of a mode.
pub(super) fn word<W: Word>(value: &DeValue<'_>) -> Checked<W> {
    if let DeValue::String(text) = value
        && let Some((_, mode)) = W::WORDS.iter().find(|(word, _)| word == text)
    {
        return Ok(*mode);
    }
    let words: Vec<String> = W::WORDS.iter().map(|(word, _)| format!("{word:?}")).collect();
    Err(format!("{} is not one of {}", shown(value), words.join(", ")))
}

/// A duration, `"0s"` included.
pub(super) fn duration(value: &DeValue<'_>) -> Checked<Duration> {
    let DeValue::String(text) = value else {
        let example = match value {
            DeValue::Integer(number) => {
                format!("has no unit; write for example \"{number}s\" or \"{number}ms\"")
            }
            _ => "is not a duration; write for example \"250ms\", \"5s\", \"10m\"".to_owned(),
        };
        return Err(format!("{} {example}", shown(value)));
    };
    let duration = read_duration(text)
        .ok_or_else(|| format!("{text:?} is not a duration; write for example \"250ms\", \"5s\", \"10m\""))?;
    if duration > DURATION_MAX {
        return Err(format!("{text:?} is too long; at most \"365d\""));
    }
    Ok(duration)
}

/// A duration that cannot be switched off.
pub(super) fn duration_above_zero(value: &DeValue<'_>) -> Checked<Duration> {
    let duration = duration(value)?;
    match duration.is_zero() {
        true => Err(format!("{} is too short; it must be above zero", shown(value))),
        false => Ok(duration),
    }
}

/// A duration that Postgres takes as a timeout.
pub(super) fn postgres_timeout(value: &DeValue<'_>) -> Checked<Duration> {
    let duration = duration(value)?;
    match duration > POSTGRES_TIMEOUT_MAX {
        true => Err(format!("{} is too long for Postgres; at most \"24d\", or \"0s\" for no limit", shown(value))),
        false => Ok(duration),
    }
}

/// Reads a duration as the file says it, such as `250ms`; `None`: it is none.
pub fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(*millis)?))
}

/// A duration as the file would say it, in the largest unit that leaves no rest.
pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, size) = UNITS
        .iter()
        .find(|(_, size)| millis.is_multiple_of(*size))
        .expect("every whole number is a multiple of one millisecond");
    format!("{}{unit}", millis / size)
}

/// How many per second, such as `"400/s"`; `None` for `"off"`.
pub(super) fn rate(value: &DeValue<'_>) -> Checked<Option<f64>> {
    let example = "write for example \"400/s\", \"90/m\", or \"off\" for no limit";
    let DeValue::String(text) = value else {
        return Err(format!("{} is not a rate; {example}", shown(value)));
    };
    if text == "off" {
        return Ok(None);
    }
    let per_second = read_rate(text).ok_or_else(|| format!("{text:?} is not a rate; {example}"))?;
    match per_second {
        0.0 => Err(format!("{text:?} lets nobody in; {example}")),
        1.0e-3..=RATE_MAX => Ok(Some(per_second)),
        _ => Err(format!("{text:?} is not between \"4/h\" and \"{RATE_MAX}/s\"")),
    }
}

fn read_rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let (_, seconds) = RATE_UNITS.iter().find(|(name, _)| *name == unit)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some(is_number.then_some(number)?.parse::<f64>().ok()? / f64::from(*seconds))
}

/// A rate as the file would say it, in the shortest unit that makes it a whole number.
pub(super) fn rate_text(rate: Option<f64>) -> String {
    let Some(per_second) = rate else {
        return "off".to_owned();
    };
    let (unit, number) = RATE_UNITS
        .iter()
        .map(|(unit, seconds)| (unit, per_second * f64::from(*seconds)))
        .find(|(_, number)| (number - number.round()).abs() < 1e-6)
        .expect("a rate is read as a whole number of some unit");
    format!("{}/{unit}", number.round())
}

/// A number of bytes within `allowed`.
pub(super) fn size(allowed: RangeInclusive<usize>) -> impl Fn(&DeValue<'_>) -> Checked<usize> {
    move |value| {
        let example = "write for example \"64KiB\", \"1MiB\"";
        let bytes = match value {
            DeValue::String(text) => {
                read_size(text).ok_or_else(|| format!("{text:?} is not a size in bytes; {example}"))?
            }
            DeValue::Integer(_) => return Err(format!("{} has no unit; {example}", shown(value))),
            _ => return Err(format!("{} is not a size in bytes; {example}", shown(value))),
        };
        match allowed.contains(&bytes) {
            true => Ok(bytes),
            false => {
                let (low, high) = (size_text(*allowed.start()), size_text(*allowed.end()));
                Err(format!("{} is not between {low:?} and {high:?}", shown(value)))
            }
        }
    }
}

fn read_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<usize>().ok()?.checked_mul(*bytes)
}

/// A size as the file would say it, in the largest unit that leaves no rest.
pub(super) fn size_text(bytes: usize) -> String {
    let (unit, size) =
        SIZE_UNITS.iter().find(|(_, size)| bytes.is_multiple_of(*size)).expect("every size is a multiple of one byte");
    format!("{}{unit}", bytes / size)
}

/// `host:port` in numbers, or `unix:/path`.
pub(super) fn listen_addr(value: &DeValue<'_>) -> Checked<ListenAddr> {
    let text = text(value)?;
    let Some(path) = text.strip_prefix("unix:") else {
        return socket_addr(value).map(ListenAddr::Tcp);
    };
    if !path.starts_with('/') {
        return Err(format!("{text:?} has a path that does not start with \"/\""));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!("{text:?} has a path longer than {UNIX_PATH_BYTES_MAX} bytes"));
    }
    Ok(ListenAddr::Unix(PathBuf::from(path)))
}

/// An IP address and a port.
pub(super) fn socket_addr(value: &DeValue<'_>) -> Checked<SocketAddr> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        format!("{text:?} is not an IP address and a port; write for example \"127.0.0.1:6432\", \"0.0.0.0:6432\", \"[::1]:6432\"")
    })
}

/// A host name, an IP address, or the directory of a Unix socket.
pub(super) fn host(value: &DeValue<'_>) -> Checked<String> {
    let text = text(value)?;
    if text.starts_with('/') || text.parse::<IpAddr>().is_ok() {
        return Ok(text);
    }
    if text.contains(',') {
        return Err(format!("{text:?} holds a comma; write a list: [\"first\", \"second\"]"));
    }
    if text.contains("://") {
        return Err(format!("{text:?} is a URL; write the host alone"));
    }
    if text.contains(':') {
        return Err(format!("{text:?} holds a colon; the port is a key of its own"));
    }
    if text.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(format!("{text:?} is not a host name"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written_back() {
        for text in ["250ms", "5s", "10m", "3h", "2d", "0s"] {
            let duration = read_duration(text).expect(text);
            assert_eq!(duration_text(duration), text);
        }
        assert_eq!(duration_text(Duration::from_millis(90_000)), "90s");
    }

    #[test]
    fn every_rate_is_read_and_written_back() {
        for text in ["400/s", "1/s", "90/m", "7/m", "4/h", "3599/h"] {
            assert_eq!(rate_text(read_rate(text)), text);
        }
        assert_eq!(rate_text(read_rate("24000/m")), "400/s");
        assert_eq!(rate_text(None), "off");
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "400", "/s", "400/", "-1/s", "1.5/s", "1e3/s", "inf/s", "400 /s", "400/S", "400/s "] {
            assert_eq!(read_rate(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_size_is_read_and_written_back() {
        for text in ["1B", "1023B", "64KiB", "1MiB", "1025KiB", "2GiB"] {
            assert_eq!(size_text(read_size(text).expect(text)), text);
        }
        assert_eq!(size_text(2 * 1024 * 1024), "2MiB");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "5", "B", "5 B", "-5B", "1.5KiB", "5KB", "5kib", "5M", "99999999999999999999B", "99999999999GiB"]
        {
            assert_eq!(read_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5parsecs", "1h30m", "99999999999999999999s"] {
            assert_eq!(read_duration(text), None, "{text:?}");
        }
    }
}
