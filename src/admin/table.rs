//! A table of the console: its columns beside their cells, and its messages.
//!
//! Each table is one file in `tables/`. There `columns!` says of each column its name, its type and its cell, so that
//! they cannot come apart, and `table!` gives the table its name and its line in HELP.

use crate::proxy::Proxy;
use crate::wire::build;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableCell {
    /// `text`.
    Text(String),
    /// `int4` or `int8`, as its column says.
    Int(i64),
    /// NULL.
    Null,
}

/// Marks the values that a column of type `text` can show.
pub(super) struct Texts;

/// Marks the values that a column of type `int4` or `int8` can show.
pub(super) struct Numbers;

/// A value that a column of kind `K` can show.
pub(super) trait CellOf<K> {
    fn cell(self) -> TableCell;
}

impl CellOf<Texts> for &str {
    fn cell(self) -> TableCell {
        TableCell::Text(self.to_owned())
    }
}

impl CellOf<Texts> for &String {
    fn cell(self) -> TableCell {
        TableCell::Text(self.clone())
    }
}

impl CellOf<Texts> for String {
    fn cell(self) -> TableCell {
        TableCell::Text(self)
    }
}

impl CellOf<Numbers> for bool {
    fn cell(self) -> TableCell {
        TableCell::Int(i64::from(self))
    }
}

impl<K, T: CellOf<K>> CellOf<K> for Option<T> {
    fn cell(self) -> TableCell {
        self.map_or(TableCell::Null, T::cell)
    }
}

macro_rules! whole_numbers {
    ($($number:ty)*) => {$(
        impl CellOf<Numbers> for $number {
            /// A number that does not fit is so large that it does not matter how large.
            fn cell(self) -> TableCell {
                TableCell::Int(i64::try_from(self).unwrap_or(i64::MAX))
            }
        }
    )*};
}

whole_numbers!(i32 i64 u16 u32 u64 u128 usize);

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    /// `text`.
    Text,
    /// `int4`.
    Int,
    /// `int8`.
    Long,
}

/// Name and type.
pub(super) type Column = (&'static str, ColumnType);

/// One row, a cell for each column.
pub(super) type TableRow = Vec<TableCell>;

/// One line of a table: knows its columns and their cells. `columns!` writes it.
pub(super) trait Columns {
    /// Names and types.
    const COLUMNS: &'static [Column];

    /// A cell for each of them.
    fn cells(&self) -> TableRow;
}

/// Implements [`Columns`] for a type: `"name" type = |line| cell`, in the order that clients see. A cell that is not of
/// the column's type does not compile.
macro_rules! columns {
    ($line:ty; $($name:literal $kind:ident = |$it:ident| $cell:expr,)*) => {
        impl $crate::admin::table::Columns for $line {
            const COLUMNS: &'static [$crate::admin::table::Column] =
                &[$(($name, $crate::admin::table::columns!(@type $kind)),)*];

            fn cells(&self) -> $crate::admin::table::TableRow {
                vec![$({
                    let $it = self;
                    $crate::admin::table::CellOf::<$crate::admin::table::columns!(@kind $kind)>::cell($cell)
                },)*]
            }
        }
    };
    (@type text) => { $crate::admin::table::ColumnType::Text };
    (@type int) => { $crate::admin::table::ColumnType::Int };
    (@type long) => { $crate::admin::table::ColumnType::Long };
    (@kind text) => { $crate::admin::table::Texts };
    (@kind $number:ident) => { $crate::admin::table::Numbers };
}
pub(super) use columns;

/// A table of SHOW.
#[derive(Debug)]
pub(super) struct ConsoleTable {
    /// The word behind SHOW.
    pub(super) name: &'static str,
    /// Its line in HELP.
    pub(super) help: &'static str,
    pub(super) columns: &'static [Column],
    /// Its rows at this moment.
    pub(super) rows: fn(&Proxy) -> Vec<TableRow>,
}

impl PartialEq for ConsoleTable {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ConsoleTable {}

/// A [`ConsoleTable`] from its name, its line in HELP, and the function that lists its lines.
macro_rules! table {
    ($name:literal, $help:literal, $lines:path $(,)?) => {
        $crate::admin::table::ConsoleTable {
            name: $name,
            help: $help,
            columns: $crate::admin::table::columns_of($lines),
            rows: |proxy| $lines(proxy).iter().map($crate::admin::table::Columns::cells).collect(),
        }
    };
}
pub(super) use table;

/// The columns of the lines that this function lists.
pub(super) const fn columns_of<L: Columns>(_: fn(&Proxy) -> Vec<L>) -> &'static [Column] {
    L::COLUMNS
}

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
                ColumnType::Text => (build::TEXT_OID, -1),
                ColumnType::Int => (build::INT4_OID, 4),
                ColumnType::Long => (build::INT8_OID, 8),
            };
            (*name, oid, size, formats.of(index))
        }),
    );
}

/// DataRow. In binary `text` is its own bytes, a number big-endian.
pub(super) fn row(out: &mut Vec<u8>, columns: &[Column], cells: &[TableCell], formats: &Formats) {
    debug_assert_eq!(cells.len(), columns.len(), "each column has its cell");
    let value = |(index, (cell, (_, kind))): (usize, (&TableCell, &Column))| match (cell, kind) {
        (TableCell::Null, _) => None,
        (TableCell::Text(text), _) => Some(text.as_bytes().to_vec()),
        (TableCell::Int(number), ColumnType::Int) => {
            let number = i32::try_from(*number).unwrap_or(i32::MAX);
            Some(if formats.of(index) == 1 { number.to_be_bytes().to_vec() } else { number.to_string().into_bytes() })
        }
        (TableCell::Int(number), _) if formats.of(index) == 1 => Some(number.to_be_bytes().to_vec()),
        (TableCell::Int(number), _) => Some(number.to_string().into_bytes()),
    };
    build::data_row(out, cells.iter().zip(columns).enumerate().map(value));
}
