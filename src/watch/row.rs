//! Rows of answers: a handful of texts, each of which may be NULL.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A column does not hold the value asked for: the server is none that this was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("column {column} of {columns} in the answer is not what was asked for")]
pub struct Unreadable {
    /// Counted from 1.
    pub column: usize,
    /// Columns in the row.
    pub columns: usize,
}

/// The values of a DataRow. Every value is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRow(Vec<Option<Box<str>>>);

impl AnswerRow {
    /// From the body of a DataRow; `None`: it is cut short or too long. Bytes that are no UTF-8, which a database
    /// without an encoding may have in names, are replaced.
    pub fn new(body: &[u8]) -> Option<Self> {
        let (count, mut rest) = body.split_first_chunk::<2>()?;
        let mut values = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            // -1 is NULL (manual: DataRow).
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                values.push(None);
                rest = tail;
                continue;
            };
            let (value, tail) = tail.split_at_checked(length)?;
            values.push(Some(String::from_utf8_lossy(value).into()));
            rest = tail;
        }
        rest.is_empty().then_some(Self(values))
    }

    /// Its number of columns.
    pub fn columns(&self) -> usize {
        self.0.len()
    }

    /// A text that may be NULL.
    pub fn text_or_null(&self, column: usize) -> Result<Option<&str>, Unreadable> {
        self.0.get(column).map(Option::as_deref).ok_or_else(|| self.unreadable(column))
    }

    /// A text.
    pub fn text(&self, column: usize) -> Result<&str, Unreadable> {
        self.text_or_null(column)?.ok_or_else(|| self.unreadable(column))
    }

    /// Something with a written form.
    pub fn value<T: FromStr>(&self, column: usize) -> Result<T, Unreadable> {
        self.text(column)?.parse().map_err(|_| self.unreadable(column))
    }

    /// As [`value`](Self::value), or NULL.
    pub fn value_or_null<T: FromStr>(&self, column: usize) -> Result<Option<T>, Unreadable> {
        let text = self.text_or_null(column)?;
        text.map(|text| text.parse().map_err(|_| self.unreadable(column))).transpose()
    }

    /// `t` or `f`.
    pub fn is(&self, column: usize) -> Result<bool, Unreadable> {
        Ok(self.text(column)? == "t")
    }

    /// Milliseconds. A moment can lie a little in the future: the server's clock is read twice.
    pub fn duration(&self, column: usize) -> Result<Duration, Unreadable> {
        self.value(column).map(milliseconds)
    }

    /// As [`duration`](Self::duration), or NULL.
    pub fn duration_or_null(&self, column: usize) -> Result<Option<Duration>, Unreadable> {
        Ok(self.value_or_null(column)?.map(milliseconds))
    }

    /// The error about a column.
    pub fn unreadable(&self, column: usize) -> Unreadable {
        Unreadable { column: column + 1, columns: self.columns() }
    }

    /// As a server would send it.
    #[cfg(test)]
    pub(crate) fn of(values: &[Option<&str>]) -> Self {
        let mut message = Vec::new();
        let values = values.iter().map(|value| value.map(|text| text.as_bytes().to_vec()));
        crate::wire::build::data_row(&mut message, values);
        Self::new(&message[5..]).expect("it is whole")
    }
}

fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The row of a question about counts, which has one whatever there is to count.
pub(super) fn only(rows: &[AnswerRow]) -> Result<&AnswerRow, Unreadable> {
    rows.first().ok_or(Unreadable { column: 0, columns: 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read_as_what_they_are() {
        let row = AnswerRow::of(&[Some("42"), None, Some(""), Some("t"), Some("-7")]);
        assert_eq!(row.value(0), Ok(42_u32));
        assert_eq!(row.value_or_null::<u32>(1), Ok(None));
        assert_eq!(row.text(2), Ok(""));
        assert_eq!(row.is(3), Ok(true));
        assert_eq!(row.duration(0), Ok(Duration::from_millis(42)));
        assert_eq!(row.duration(4), Ok(Duration::ZERO), "a clock read later than another");
    }

    #[test]
    fn what_is_missing_null_or_something_else_is_an_error_that_names_the_column() {
        let row = AnswerRow::of(&[None, Some("x")]);
        assert_eq!(row.text(0), Err(Unreadable { column: 1, columns: 2 }));
        assert_eq!(row.value::<u32>(1), Err(Unreadable { column: 2, columns: 2 }));
        assert_eq!(row.text_or_null(2), Err(Unreadable { column: 3, columns: 2 }));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(AnswerRow::new(b"\0\x01\0\0\0\x02a\xff").unwrap().text(0), Ok("a\u{fffd}"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_row_or_none(body in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(row) = AnswerRow::new(&body) {
                for column in 0..row.columns() {
                    prop_assert!(row.text_or_null(column).is_ok());
                }
            }
        }
    }
}
