//! Forms of single values: from what TOML allows to what a key allows, and back to text.
//!
//! A form returns the value typed, or the mistake and what is allowed. It can read all that it writes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};
use toml::de::DeValue;

use super::{CertificatePattern, ClientSource, FLEET_NAME_MAX, ListenAddr, PeerName};
use crate::words::Word;

/// Longer than this is a typing mistake; `"0s"` is how to say never.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// As many backends as any Postgres allows connections (`max_connections` ends at 262143).
pub(super) const BACKENDS_MAX: u32 = 262_143;

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

pub(super) type Checked<T> = Result<T, String>;

/// The type of a value, for mistakes; never the value itself.
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

/// The values that a key allows.
pub(super) trait KeyForm<T> {
    /// The value, or what is wrong with it.
    fn read(&self, value: &DeValue<'_>) -> Checked<T>;

    /// The value as the file would say it, without quotes.
    fn text(&self, value: &T) -> String;

    /// The allowed values in words, such as "a duration, at most …".
    fn allowed(&self) -> String;

    /// The allowed values as a JSON schema, as far as it can say them.
    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// A string of digits and one of these units.
fn number_with_unit<'a>(between: &str, units: impl Iterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "pattern": format!("^[0-9]+{between}({})$", units.collect::<Vec<_>>().join("|")) })
}

/// A form of values that their `Display` writes.
pub(super) struct PlainForm<T> {
    read: fn(&DeValue<'_>) -> Checked<T>,
    allowed: &'static str,
}

impl<T: Display> KeyForm<T> for PlainForm<T> {
    fn read(&self, value: &DeValue<'_>) -> Checked<T> {
        (self.read)(value)
    }

    fn text(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }
}

/// A string that is not empty and can go into a C string, as all of the protocol's are.
pub(super) fn text() -> PlainForm<String> {
    PlainForm { read: read_text, allowed: "a string" }
}

/// `true` or `false`.
pub(super) struct Truth;

/// `true` or `false`.
pub(super) const fn truth() -> Truth {
    Truth
}

impl KeyForm<bool> for Truth {
    fn read(&self, value: &DeValue<'_>) -> Checked<bool> {
        match value {
            DeValue::Boolean(truth) => Ok(*truth),
            other => Err(format!("{} is not true or false", shown(other))),
        }
    }

    fn text(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "boolean" })
    }
}

/// A host name, an IP address, or the directory of a Unix socket.
pub(super) fn host() -> PlainForm<String> {
    PlainForm { read: read_host, allowed: "a host name, an IP address or a directory" }
}

/// The name of a host as browsers write it, without scheme and port.
pub(super) fn url_host() -> PlainForm<String> {
    let read = |value: &DeValue<'_>| {
        let name = read_text(value)?;
        match name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_')) {
            true => Ok(name),
            false => Err(format!("{name:?} is not the name of a host alone, in lower case")),
        }
    };
    PlainForm { read, allowed: "the name of a host alone, in lower case" }
}

/// An IP address and a port.
pub(super) fn socket_addr() -> PlainForm<SocketAddr> {
    PlainForm { read: read_socket_addr, allowed: "an IP address and a port" }
}

/// The name of a fleet.
pub(super) fn fleet_name() -> PlainForm<String> {
    let read = |value: &DeValue<'_>| {
        let name = read_text(value)?;
        match name.len() <= FLEET_NAME_MAX && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            true => Ok(name),
            false => Err(format!("{name:?} is not of letters, digits and \"-_.\" only, {FLEET_NAME_MAX} at most")),
        }
    };
    PlainForm { read, allowed: "letters, digits and \"-_.\", 32 at most" }
}

/// A host name or an IP address, and a port.
pub(super) fn peer() -> PlainForm<PeerName> {
    PlainForm { read: read_peer, allowed: "a host name or an IP address, and a port" }
}

/// The address of a REST API.
pub(super) fn http_url() -> PlainForm<String> {
    let allowed = "a URL such as \"http://10.0.0.1:8008\", without a path";
    let read = |value: &DeValue<'_>| {
        let url = read_text(value)?;
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        match rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '@', '?', '#', ' '])) {
            true => Ok(url),
            false => Err(format!("{url:?} is no URL such as \"http://10.0.0.1:8008\", without a path")),
        }
    };
    PlainForm { read, allowed }
}

/// A host name with `?` in the place of an instance's identifier.
pub(super) fn instance_pattern() -> PlainForm<String> {
    let read = |value: &DeValue<'_>| {
        let pattern = read_text(value)?;
        match pattern.matches('?').count() {
            1 => Ok(pattern),
            _ => Err(format!("{pattern:?} has not one ? for the identifier of the instance")),
        }
    };
    PlainForm { read, allowed: "a host name with ? in the place of the instance's identifier" }
}

/// `host:port` in numbers, or `unix:/path`.
pub(super) fn listen_addr() -> PlainForm<ListenAddr> {
    PlainForm { read: read_listen_addr, allowed: "an IP address and a port, or \"unix:\" and a path" }
}

/// A network, an address, or Unix sockets.
pub(super) fn client_source() -> PlainForm<ClientSource> {
    let allowed = "a network such as \"10.0.0.0/8\", an IP address, or \"unix\"";
    let read = |value: &DeValue<'_>| match value {
        DeValue::String(text) => ClientSource::parse(text)
            .ok_or_else(|| format!("{text:?} is no network such as \"10.0.0.0/8\", no IP address and not \"unix\"")),
        other => Err(format!("{} is no network; write for example \"10.0.0.0/8\"", shown(other))),
    };
    PlainForm { read, allowed }
}

/// A network or an address.
pub(super) fn network() -> PlainForm<IpNet> {
    let allowed = "a network such as \"10.0.0.0/8\", or an IP address";
    let read = |value: &DeValue<'_>| match value {
        DeValue::String(text) => match ClientSource::parse(text) {
            Some(ClientSource::Network(network)) => Ok(network),
            _ => Err(format!("{text:?} is no network such as \"10.0.0.0/8\" and no IP address")),
        },
        other => Err(format!("{} is no network; write for example \"10.0.0.0/8\"", shown(other))),
    };
    PlainForm { read, allowed }
}

/// A field of a certificate and a pattern for it.
pub(super) fn certificate_pattern() -> PlainForm<CertificatePattern> {
    let example = "\"cn:\", \"dns:\", \"email:\" or \"uri:\", and a name in which \"*\" stands for any characters";
    let read = |value: &DeValue<'_>| match value {
        DeValue::String(text) => CertificatePattern::parse(text).ok_or_else(|| {
            format!(
                "{text:?} is none; write for example \"cn:web-*\", \"dns:*.web.internal\", \"uri:spiffe://prod/web\""
            )
        }),
        other => Err(format!("{} is not a string such as \"cn:web-*\"", shown(other))),
    };
    PlainForm { read, allowed: example }
}

/// A digest of SHOW STATEMENTS.
pub(super) fn digest() -> PlainForm<String> {
    let read = |value: &DeValue<'_>| {
        let text = read_text(value)?;
        match text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(text.to_ascii_lowercase()),
            false => Err(format!("{text:?} is no digest; SHOW STATEMENTS has them, of 16 digits of 0-9 and a-f")),
        }
    };
    PlainForm { read, allowed: "16 digits of 0-9 and a-f" }
}

/// A query with the name of a role as its parameter.
pub(super) fn role_query() -> PlainForm<String> {
    let read = |value: &DeValue<'_>| {
        let query = read_text(value)?;
        match query.contains("$1") {
            true => Ok(query),
            false => Err("has no $1, where the role's name goes".to_owned()),
        }
    };
    PlainForm { read, allowed: "a query with $1, the role" }
}

/// A whole number within bounds.
pub(super) struct Count(RangeInclusive<u32>);

/// A whole number within `allowed`.
pub(super) const fn count(allowed: RangeInclusive<u32>) -> Count {
    Count(allowed)
}

/// A port to dial.
pub(super) const fn port() -> Count {
    Count(1..=65_535)
}

impl<T: TryFrom<u32> + Display> KeyForm<T> for Count {
    fn read(&self, value: &DeValue<'_>) -> Checked<T> {
        let DeValue::Integer(number) = value else {
            return Err(format!("{} is not a whole number", shown(value)));
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| self.0.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (low, high) = (self.0.start(), self.0.end());
            format!("{} is not between {low} and {high}", shown(value))
        })
    }

    fn text(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a number between {} and {}", self.0.start(), self.0.end())
    }

    fn schema(&self) -> Value {
        json!({ "type": "integer", "minimum": self.0.start(), "maximum": self.0.end() })
    }
}

/// One of the words of a mode.
pub(super) struct WordForm;

/// One of the words of a mode.
pub(super) const fn word() -> WordForm {
    WordForm
}

impl<W: Word> KeyForm<W> for WordForm {
    fn read(&self, value: &DeValue<'_>) -> Checked<W> {
        if let DeValue::String(text) = value
            && let Some(mode) = W::all().iter().find(|mode| mode.word() == text)
        {
            return Ok(*mode);
        }
        Err(format!("{} is not {}", shown(value), KeyForm::<W>::allowed(self)))
    }

    fn text(&self, value: &W) -> String {
        value.word().to_owned()
    }

    fn allowed(&self) -> String {
        let words: Vec<String> = W::all().iter().map(|mode| format!("{:?}", mode.word())).collect();
        format!("one of {}", words.join(", "))
    }

    fn schema(&self) -> Value {
        json!({ "enum": W::all().iter().map(|mode| mode.word()).collect::<Vec<_>>() })
    }
}

/// A duration within bounds.
pub(super) enum Span {
    /// Zero included.
    Any,
    /// It cannot be switched off.
    AboveZero,
    /// It makes no sense below this.
    From(Duration),
    /// Up to the longest timeout of Postgres.
    Postgres,
}

/// A duration, `"0s"` included.
pub(super) const fn duration() -> Span {
    Span::Any
}

/// A duration that cannot be switched off.
pub(super) const fn duration_above_zero() -> Span {
    Span::AboveZero
}

/// A duration that is not shorter than this.
pub(super) const fn duration_from(least: Duration) -> Span {
    Span::From(least)
}

/// A duration that Postgres takes as a timeout.
pub(super) const fn postgres_timeout() -> Span {
    Span::Postgres
}

impl KeyForm<Duration> for Span {
    fn read(&self, value: &DeValue<'_>) -> Checked<Duration> {
        let example = "is not a duration; write for example \"250ms\", \"5s\", \"10m\"";
        let duration = match value {
            DeValue::String(text) => read_duration(text).ok_or_else(|| format!("{text:?} {example}"))?,
            DeValue::Integer(number) => {
                return Err(format!("{number} has no unit; write for example \"{number}s\" or \"{number}ms\""));
            }
            other => return Err(format!("{} {example}", shown(other))),
        };
        if let Self::From(least) = self
            && duration < *least
        {
            return Err(format!("{} is too short; at least {:?}", shown(value), duration_text(*least)));
        }
        let wrong = match self {
            _ if duration > DURATION_MAX => "is too long; at most \"365d\"",
            Self::Postgres if duration > POSTGRES_TIMEOUT_MAX => {
                "is too long for Postgres; at most \"24d\", or \"0s\" for no limit"
            }
            Self::AboveZero if duration.is_zero() => "is too short; it must be above zero",
            _ => return Ok(duration),
        };
        Err(format!("{} {wrong}", shown(value)))
    }

    fn text(&self, value: &Duration) -> String {
        duration_text(*value)
    }

    fn allowed(&self) -> String {
        let bounds = match self {
            Self::From(least) => return format!("a duration, from {:?} to \"365d\"", duration_text(*least)),
            Self::Any => "at most \"365d\"",
            Self::AboveZero => "above zero, at most \"365d\"",
            Self::Postgres => "at most \"24d\", or \"0s\" for no limit",
        };
        format!("a duration, {bounds}")
    }

    fn schema(&self) -> Value {
        number_with_unit("", UNITS.iter().map(|(unit, _)| *unit))
    }
}

/// How many per second.
pub(super) struct PerSecond;

/// How many per second, such as `"400/s"`, or `"off"` for no limit.
pub(super) const fn rate() -> OrWord<PerSecond> {
    or_off(PerSecond)
}

impl KeyForm<f64> for PerSecond {
    fn read(&self, value: &DeValue<'_>) -> Checked<f64> {
        let example = "write for example \"400/s\", \"90/m\", or \"off\" for no limit";
        let per_second = match value {
            DeValue::String(text) => read_rate(text),
            _ => None,
        };
        match per_second {
            None => Err(format!("{} is not a rate; {example}", shown(value))),
            Some(0.0) => Err(format!("{} lets nobody in; {example}", shown(value))),
            Some(rate @ 1.0e-3..=RATE_MAX) => Ok(rate),
            Some(_) => Err(format!("{} is not between \"4/h\" and \"{RATE_MAX}/s\"", shown(value))),
        }
    }

    /// In the shortest unit that makes it a whole number.
    fn text(&self, value: &f64) -> String {
        let (unit, number) = RATE_UNITS
            .iter()
            .map(|(unit, seconds)| (unit, value * f64::from(*seconds)))
            .find(|(_, number)| (number - number.round()).abs() < 1e-6)
            .expect("a rate is read as a whole number of some unit");
        format!("{}/{unit}", number.round())
    }

    fn allowed(&self) -> String {
        "a rate, such as \"400/s\", \"90/m\"".to_owned()
    }

    fn schema(&self) -> Value {
        number_with_unit("/", RATE_UNITS.iter().map(|(unit, _)| *unit))
    }
}

/// A value, or the word for none.
pub(super) struct OrWord<F> {
    form: F,
    word: &'static str,
    meaning: &'static str,
}

/// A value, or `"off"` for none.
pub(super) const fn or_off<F>(form: F) -> OrWord<F> {
    OrWord { form, word: "off", meaning: "none" }
}

/// A value, or `"auto"`, which leaves it to pgweir.
pub(super) const fn or_auto<F>(form: F) -> OrWord<F> {
    OrWord { form, word: "auto", meaning: "as many as the load needs" }
}

impl<T, F: KeyForm<T>> KeyForm<Option<T>> for OrWord<F> {
    fn read(&self, value: &DeValue<'_>) -> Checked<Option<T>> {
        match value {
            DeValue::String(text) if text == self.word => Ok(None),
            _ => self.form.read(value).map(Some),
        }
    }

    fn text(&self, value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| self.word.to_owned(), |value| self.form.text(value))
    }

    fn allowed(&self) -> String {
        format!("{}, or {:?} for {}", self.form.allowed(), self.word, self.meaning)
    }

    fn schema(&self) -> Value {
        json!({ "anyOf": [{ "const": self.word }, self.form.schema()] })
    }
}

/// A number of bytes within bounds.
pub(super) struct Bytes(RangeInclusive<usize>);

/// A number of bytes within `allowed`.
pub(super) const fn size(allowed: RangeInclusive<usize>) -> Bytes {
    Bytes(allowed)
}

impl Bytes {
    fn bounds(&self) -> String {
        format!("between {:?} and {:?}", size_text(*self.0.start()), size_text(*self.0.end()))
    }
}

impl KeyForm<usize> for Bytes {
    fn read(&self, value: &DeValue<'_>) -> Checked<usize> {
        let example = "write for example \"64KiB\", \"1MiB\"";
        let bytes = match value {
            DeValue::String(text) => read_size(text),
            DeValue::Integer(_) => return Err(format!("{} has no unit; {example}", shown(value))),
            _ => None,
        };
        match bytes {
            None => Err(format!("{} is not a size in bytes; {example}", shown(value))),
            Some(bytes) if self.0.contains(&bytes) => Ok(bytes),
            Some(_) => Err(format!("{} is not {}", shown(value), self.bounds())),
        }
    }

    fn text(&self, value: &usize) -> String {
        size_text(*value)
    }

    fn allowed(&self) -> String {
        format!("a size in bytes, {}", self.bounds())
    }

    fn schema(&self) -> Value {
        number_with_unit("", SIZE_UNITS.iter().map(|(unit, _)| *unit))
    }
}

/// One value or a list of them, none twice.
pub(super) struct List<F> {
    item: F,
    may_be_empty: bool,
}

/// One value or a list of them, none twice.
pub(super) const fn list<F>(item: F) -> List<F> {
    List { item, may_be_empty: true }
}

/// As [`list`], with at least one entry.
pub(super) const fn some<F>(item: F) -> List<F> {
    List { item, may_be_empty: false }
}

impl<T: Ord, F: KeyForm<T>> KeyForm<Vec<T>> for List<F> {
    fn read(&self, value: &DeValue<'_>) -> Checked<Vec<T>> {
        let DeValue::Array(items) = value else {
            return Ok(vec![self.item.read(value)?]);
        };
        if items.is_empty() && !self.may_be_empty {
            return Err("the list is empty; it needs one entry or more".to_owned());
        }
        let (mut list, mut wrong) = (Vec::new(), Vec::new());
        for item in items {
            match self.item.read(item.get_ref()) {
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

    fn text(&self, value: &Vec<T>) -> String {
        value.iter().map(|item| self.item.text(item)).collect::<Vec<_>>().join(", ")
    }

    fn allowed(&self) -> String {
        format!("{}, or a list of these", self.item.allowed())
    }

    fn schema(&self) -> Value {
        let (item, least) = (self.item.schema(), u8::from(!self.may_be_empty));
        json!({ "anyOf": [item, { "type": "array", "items": item, "minItems": least, "uniqueItems": true }] })
    }
}

/// A string that is not empty and can go into a C string.
pub(super) fn read_text(value: &DeValue<'_>) -> Checked<String> {
    match value {
        DeValue::String(text) if text.is_empty() => Err("is empty".to_owned()),
        DeValue::String(text) if text.contains('\0') => Err("holds a zero byte".to_owned()),
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("{} is not a string", shown(other))),
    }
}

/// As [`read_text`], for values that must not be repeated.
pub(super) fn read_secret(value: &DeValue<'_>) -> Checked<String> {
    match value {
        DeValue::String(_) => read_text(value),
        other => {
            Err(format!("{} is no secret; write a string, {{ env = \"NAME\" }} or {{ file = \"path\" }}", kind(other)))
        }
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

fn read_rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let (_, seconds) = RATE_UNITS.iter().find(|(name, _)| *name == unit)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some(is_number.then_some(number)?.parse::<f64>().ok()? / f64::from(*seconds))
}

fn read_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<usize>().ok()?.checked_mul(*bytes)
}

/// A size as the file would say it, in the largest unit that leaves no rest.
fn size_text(bytes: usize) -> String {
    let (unit, size) =
        SIZE_UNITS.iter().find(|(_, size)| bytes.is_multiple_of(*size)).expect("every size is a multiple of one byte");
    format!("{}{unit}", bytes / size)
}

fn read_listen_addr(value: &DeValue<'_>) -> Checked<ListenAddr> {
    let text = read_text(value)?;
    let Some(path) = text.strip_prefix("unix:") else {
        return read_socket_addr(value).map(ListenAddr::Tcp);
    };
    if !path.starts_with('/') {
        return Err(format!("{text:?} has a path that does not start with \"/\""));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!("{text:?} has a path longer than {UNIX_PATH_BYTES_MAX} bytes"));
    }
    Ok(ListenAddr::Unix(PathBuf::from(path)))
}

fn read_socket_addr(value: &DeValue<'_>) -> Checked<SocketAddr> {
    let text = read_text(value)?;
    text.parse().map_err(|_| {
        let examples = "write for example \"127.0.0.1:6432\", \"0.0.0.0:6432\", \"[::1]:6432\"";
        format!("{text:?} is not an IP address and a port; {examples}")
    })
}

fn read_peer(value: &DeValue<'_>) -> Checked<PeerName> {
    let text = read_text(value)?;
    let wrong = || {
        let examples = "write for example \"10.0.0.5:6432\", \"pgweir-peers:6432\", \"[fd00::5]:6432\"";
        format!("{text:?} is not a host and a port; {examples}")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
        None if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/:,".contains(c)) => {
            return Err(wrong());
        }
        None => host.to_owned(),
    };
    Ok(PeerName { host, port })
}

fn read_host(value: &DeValue<'_>) -> Checked<String> {
    let text = read_text(value)?;
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
            assert_eq!(rate().text(&read_rate(text)), text);
        }
        assert_eq!(rate().text(&read_rate("24000/m")), "400/s");
        assert_eq!(KeyForm::<Option<f64>>::text(&rate(), &None), "off");
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
