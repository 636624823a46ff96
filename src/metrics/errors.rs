//! Errors sent to clients.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// How many codes are told apart. Postgres has some 260, but functions may raise any.
const CODES_MAX: usize = 256;

/// Counted for a code that is no SQLSTATE.
const NONE: [u8; 5] = *b"?????";

/// Counted for every further code once there are [`CODES_MAX`].
const OTHER: [u8; 5] = *b"other";

/// Errors sent to clients, by SQLSTATE.
#[derive(Debug, Default)]
pub(crate) struct ErrorCounts(Mutex<BTreeMap<[u8; 5], u64>>);

impl ErrorCounts {
    /// Counts one of pgweir's.
    pub(crate) fn count(&self, code: impl AsRef<str>) {
        self.count_bytes(code.as_ref().as_bytes());
    }

    /// Counts one of Postgres's.
    pub(crate) fn count_bytes(&self, code: &[u8]) {
        let is_code = |code: &[u8; 5]| code.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        let code = <[u8; 5]>::try_from(code).ok().filter(is_code).unwrap_or(NONE);
        let mut counts = self.0.lock().expect("no panic while held");
        let is_known = counts.len() < CODES_MAX || counts.contains_key(&code);
        *counts.entry(if is_known { code } else { OTHER }).or_default() += 1;
    }

    /// Counts by code.
    pub(crate) fn totals(&self) -> Vec<(String, u64)> {
        let counts = self.0.lock().expect("no panic while held");
        counts.iter().map(|(code, n)| (String::from_utf8_lossy(code).into_owned(), *n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_clients_make_up_get_no_series_each() {
        let errors = ErrorCounts::default();
        errors.count("22012");
        errors.count_bytes(b"a code");
        for n in 0..100_000 {
            errors.count(format!("{n:05}"));
        }
        let totals = errors.totals();
        assert_eq!(totals.len(), CODES_MAX + 1);
        let of = |code: &str| totals.iter().find(|(found, _)| found == code).map(|(_, count)| *count);
        assert_eq!(of("22012"), Some(2), "one that is told apart stays so");
        assert_eq!(of("?????"), Some(1));
        assert_eq!(totals.iter().map(|(_, count)| count).sum::<u64>(), 100_002);
    }
}
