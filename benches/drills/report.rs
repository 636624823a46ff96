//! What a drill leaves behind: tables on the terminal, and `docs/drills/NAME.md` with its pictures beside it.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use time::OffsetDateTime;

use crate::process::{output_of, root, server_bin};

/// Rows under a heading. The first column is text, the others are figures.
pub(crate) struct Table {
    /// What they have in common.
    pub(crate) title: String,
    /// Names of the columns.
    pub(crate) columns: &'static [&'static str],
    /// The rows.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// As Markdown, in columns that are straight on a terminal, too.
    fn markdown(&self) -> String {
        let mut widths: Vec<_> = self.columns.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            assert_eq!(row.len(), widths.len(), "{}", self.title);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: Vec<&str>| {
            let mut line = String::from("|");
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                if column == 0 {
                    let _ = write!(line, " {cell:<width$} |");
                } else {
                    let _ = write!(line, " {cell:>width$} |");
                }
            }
            line + "\n"
        };
        let mut text = line(self.columns.to_vec());
        for (column, width) in widths.iter().enumerate() {
            let _ = if column == 0 {
                write!(text, "|{:-<1$}", "", width + 2)
            } else {
                write!(text, "|{:->1$}:", "", width + 1)
            };
        }
        text += "|\n";
        for row in &self.rows {
            text += &line(row.iter().map(String::as_str).collect());
        }
        text
    }

    fn print(&self) {
        println!("\n{}\n\n{}", self.title, self.markdown());
    }
}

/// A page of `docs/drills`.
pub(crate) struct Report {
    /// Its file, without ending.
    pub(crate) name: &'static str,
    /// Its heading.
    pub(crate) title: &'static str,
    /// What is done, and how to read what comes of it.
    pub(crate) story: &'static str,
    /// The figures.
    pub(crate) tables: Vec<Table>,
    /// Pictures: file name without ending, what they show, SVG.
    pub(crate) pictures: Vec<(String, String, String)>,
}

impl Report {
    /// Prints the tables, and writes the page and its pictures to this directory of the checkout.
    pub(crate) fn write(&self, dir: &str) {
        for table in &self.tables {
            table.print();
        }
        println!("written: {dir}/{}.md", self.name);
        let dir = root().join(dir);
        fs::create_dir_all(&dir).expect("our own checkout");
        let mut page = format!("# {}\n\n{}\n\n{}\n", self.title, self.story.trim(), self.measured_on());
        for (file, shows, svg) in &self.pictures {
            fs::write(dir.join(file).with_extension("svg"), svg).expect("our own checkout");
            let _ = write!(page, "\n![{shows}]({file}.svg)\n");
        }
        for table in &self.tables {
            let _ = write!(page, "\n## {}\n\n{}", table.title, table.markdown());
        }
        let path: PathBuf = dir.join(self.name).with_extension("md");
        fs::write(&path, page).expect("our own checkout");
    }

    fn measured_on(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([' ', '\t', ':']);
        let first_line = |mut command: Command| {
            output_of({
                command.arg("--version");
                command
            })
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
        };
        let postgres =
            first_line(Command::new(server_bin().join("postgres"))).replace("postgres (PostgreSQL)", "PostgreSQL");
        let pgbouncer = first_line(Command::new("/usr/sbin/pgbouncer"));
        let mut git = Command::new("git");
        git.args(["rev-parse", "--short", "HEAD"]).current_dir(root());
        format!(
            "Measured on {}: {cores} cores ({model}), all on loopback; {postgres}, {pgbouncer}, pgweir {} at `{}`. Again: `make drills DRILL={}`.",
            OffsetDateTime::now_utc().date(),
            env!("CARGO_PKG_VERSION"),
            output_of(git).trim(),
            self.name,
        )
    }
}
