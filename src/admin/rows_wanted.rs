//! `ORDER BY column [ASC | DESC]` and `LIMIT n` behind a SHOW.

use std::cmp::Ordering;

use super::table::{ColumnType, ConsoleTable, TableCell, TableRow};

/// Which rows of a table are shown, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RowsWanted {
    /// The index of a column. `None`: as the table lists its rows.
    order: Option<(usize, Direction)>,
    most: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

impl RowsWanted {
    /// From the words behind the name of the table, in lower case; `None`: they mean nothing.
    pub(super) fn read(table: &ConsoleTable, words: &[&str]) -> Option<Self> {
        let (order, rest) = match words {
            ["order", "by", column, rest @ ..] => {
                let column = column.trim_matches('"');
                let at = table.columns.iter().position(|(name, _)| name.eq_ignore_ascii_case(column))?;
                let (direction, rest) = match rest {
                    ["asc", rest @ ..] => (Direction::Ascending, rest),
                    ["desc", rest @ ..] => (Direction::Descending, rest),
                    // The highest numbers are of interest.
                    rest if table.columns[at].1 != ColumnType::Text => (Direction::Descending, rest),
                    rest => (Direction::Ascending, rest),
                };
                (Some((at, direction)), rest)
            }
            rest => (None, rest),
        };
        match rest {
            [] => Some(Self { order, most: None }),
            ["limit", most] => Some(Self { order, most: Some(most.parse().ok()?) }),
            _ => None,
        }
    }

    /// Those of `rows`.
    pub(super) fn of(&self, mut rows: Vec<TableRow>) -> Vec<TableRow> {
        if let Some((at, direction)) = self.order {
            rows.sort_by(|one, other| match direction {
                Direction::Ascending => compare(&one[at], &other[at]),
                Direction::Descending => compare(&other[at], &one[at]),
            });
        }
        rows.truncate(self.most.unwrap_or(usize::MAX));
        rows
    }
}

/// NULL comes before everything else.
fn compare(one: &TableCell, other: &TableCell) -> Ordering {
    match (one, other) {
        (TableCell::Int(one), TableCell::Int(other)) => one.cmp(other),
        (TableCell::Text(one), TableCell::Text(other)) => one.cmp(other),
        (TableCell::Null, TableCell::Null) => Ordering::Equal,
        (TableCell::Null, _) => Ordering::Less,
        (_, TableCell::Null) => Ordering::Greater,
        (TableCell::Int(_), TableCell::Text(_)) => Ordering::Less,
        (TableCell::Text(_), TableCell::Int(_)) => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Proxy;

    const TABLE: ConsoleTable = ConsoleTable {
        name: "T",
        help: "",
        columns: &[("name", ColumnType::Text), ("calls", ColumnType::Long)],
        rows: |_: &Proxy| Vec::new(),
    };

    fn shown(words: &str) -> Option<Vec<i64>> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let row = |(name, calls): (&str, i64)| vec![TableCell::Text(name.to_owned()), TableCell::Int(calls)];
        let rows = [("b", 1), ("a", 3), ("c", 2)].map(row).to_vec();
        let number = |row: &TableRow| match row[1] {
            TableCell::Int(n) => n,
            _ => panic!("it is a number"),
        };
        RowsWanted::read(&TABLE, &words).map(|wanted| wanted.of(rows).iter().map(number).collect())
    }

    #[test]
    fn rows_are_ordered_by_a_column_and_cut() {
        for (words, wanted) in [
            ("", vec![1, 3, 2]),
            ("limit 2", vec![1, 3]),
            ("order by calls", vec![3, 2, 1]),
            ("order by calls asc limit 1", vec![1]),
            ("order by name", vec![3, 1, 2]),
            ("order by \"name\" desc limit 9", vec![2, 1, 3]),
        ] {
            assert_eq!(shown(words), Some(wanted), "{words}");
        }
        for words in ["order by", "order by x", "limit", "limit -1", "limit 1 2", "where 1"] {
            assert_eq!(shown(words), None, "{words}");
        }
    }
}
