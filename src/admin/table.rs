//! A table of the console and its messages.

use crate::wire::build;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// `text`.
    Text(String),
    /// `int4` or `int8`, as its column says.
    Int(i64),
    /// NULL.
    Null,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<bool> for Cell {
    fn from(is: bool) -> Self {
        Self::Int(i64::from(is))
    }
}

macro_rules! whole_numbers {
    ($($number:ty)*) => {$(
        impl From<$number> for Cell {
            /// What does not fit is so large that it does not matter how large.
            fn from(number: $number) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}

whole_numbers!(i32 u16 u32 u64 u128 usize);

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// `text`.
    Text,
    /// `int4`.
    Int,
    /// `int8`.
    Long,
}

/// Name and type.
pub(super) type Column = (&'static str, Type);

/// One row, a cell for each column.
pub(super) type Row = Vec<Cell>;

/// Text or binary, as a Bind asks for each column.
#[derive(Debug, Clone, Default)]
pub(super) struct Formats(pub(super) Vec<i16>);

impl Formats {
    /// One format stands for all columns, none for text (manual: Bind).
    fn of(&self, column: usize) -> i16 {
        match self.0.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(column).copied().unwrap_or(0),
        }
    }
}

/// RowDescription.
pub(super) fn describe(out: &mut Vec<u8>, columns: &[Column], formats: &Formats) {
    build::row_description(
        out,
        columns.iter().enumerate().map(|(index, (name, kind))| {
            let (oid, size) = match kind {
                Type::Text => (build::TEXT_OID, -1),
                Type::Int => (build::INT4_OID, 4),
                Type::Long => (build::INT8_OID, 8),
            };
            (*name, oid, size, formats.of(index))
        }),
    );
}

/// DataRow. In binary `text` is its own bytes, a number big-endian.
pub(super) fn row(out: &mut Vec<u8>, columns: &[Column], cells: &[Cell], formats: &Formats) {
    let value = |(index, (cell, (_, kind))): (usize, (&Cell, &Column))| match (cell, kind) {
        (Cell::Null, _) => None,
        (Cell::Text(text), _) => Some(text.as_bytes().to_vec()),
        (Cell::Int(number), Type::Int) => {
            let number = i32::try_from(*number).unwrap_or(i32::MAX);
            Some(if formats.of(index) == 1 { number.to_be_bytes().to_vec() } else { number.to_string().into_bytes() })
        }
        (Cell::Int(number), _) if formats.of(index) == 1 => Some(number.to_be_bytes().to_vec()),
        (Cell::Int(number), _) => Some(number.to_string().into_bytes()),
    };
    build::data_row(out, cells.iter().zip(columns).enumerate().map(value));
}
