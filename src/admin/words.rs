//! The words of a command, and how names and durations are read from them.

use std::time::Duration;

use crate::config;

/// Cuts a statement at blanks that are not inside of quotes.
pub(super) fn cut(text: &str) -> Vec<&str> {
    let mut quote = None;
    let is_cut = |c: char| {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        quote.is_none() && c.is_ascii_whitespace()
    };
    text.split(is_cut).filter(|word| !word.is_empty()).collect()
}

/// A name as it is meant; unlike in SQL, its case counts even without quotes, as in PgBouncer.
pub(super) fn unquoted(word: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = word.strip_prefix(quote).and_then(|word| word.strip_suffix(quote)) {
            let twice = format!("{quote}{quote}");
            return inner.replace(&twice, &quote.to_string());
        }
    }
    word.to_owned()
}

/// A duration as the file has it, in quotes or without.
pub(super) fn duration(word: &str) -> Option<Duration> {
    config::read_duration(&unquoted(word))
}

/// The words behind a command's first.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandArguments<'a> {
    written: &'a [&'a str],
    folded: &'a [&'a str],
}

impl<'a> CommandArguments<'a> {
    /// The same words as they were written and in lower case.
    pub(super) fn new(written: &'a [&'a str], folded: &'a [&'a str]) -> Self {
        Self { written, folded }
    }

    /// In lower case, quotes and all.
    pub(super) fn folded(&self) -> &'a [&'a str] {
        self.folded
    }

    /// The name at this place, as it was written.
    pub(super) fn name(&self, index: usize) -> Option<String> {
        self.written.get(index).map(|word| unquoted(word))
    }

    pub(super) fn none(&self) -> Option<()> {
        self.written.is_empty().then_some(())
    }

    /// There is one, a name.
    pub(super) fn one_name(&self) -> Option<String> {
        if self.written.len() == 1 { self.name(0) } else { None }
    }

    /// A name, or nothing for all.
    pub(super) fn name_or_all(&self) -> Option<Option<String>> {
        match self.written {
            [] => Some(None),
            [_] => Some(self.name(0)),
            _ => None,
        }
    }
}
