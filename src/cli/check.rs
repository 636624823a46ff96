//! `pgweir check`: every mistake of a configuration file in one run, what a valid one means, and what of that leaves a
//! door open or overloads a server; or what changes from one file to another.

use std::path::{Path, PathBuf};

use clap::Args;
use pgweir::config::{self, Changes, Config, Mistake};
use serde_json::{Value, json};

use super::Exit;

/// Check a configuration file and print every mistake in it.
///
/// The exit code is 1 for a file with a mistake, and with --strict for one with a warning, too.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The configuration file.
    #[arg(default_value = "proxy.toml")]
    file: PathBuf,
    /// Print one JSON object to stdout in the place of text.
    #[arg(long)]
    json: bool,
    /// Take warnings for mistakes.
    #[arg(long)]
    strict: bool,
    /// Print what a reload from OLD to NEW changes.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["file", "strict"])]
    diff: Option<Vec<PathBuf>>,
}

/// A file and what was found in it.
struct CheckReport {
    file: PathBuf,
    mistakes: Vec<FoundMistake>,
    /// `None` where there are mistakes.
    valid: Option<CheckedFile>,
}

/// A mistake as it is told, and where it stands.
struct FoundMistake {
    text: String,
    at: Option<Mistake>,
}

/// A valid file in words.
struct CheckedFile {
    summary: String,
    /// What holds, with nothing to do about it.
    remarks: Vec<String>,
    worst_cases: Vec<config::WorstCase>,
    warnings: Vec<Warning>,
}

/// A warning, and the kind that programs know it by.
struct Warning {
    kind: &'static str,
    text: String,
}

/// Prints what is wrong with the file or files, or what is in them.
pub(super) fn check(arguments: &CheckArguments) -> Exit {
    if let Some([old, new]) = arguments.diff.as_deref() {
        return compare(old, new, arguments.json);
    }
    let report = CheckReport::of(&arguments.file);
    match arguments.json {
        true => println!("{:#}", report.json()),
        false => report.print(),
    }
    let warnings = report.valid.as_ref().map_or(0, |facts| facts.warnings.len());
    if report.valid.is_none() || arguments.strict && warnings > 0 { Exit::BadInput } else { Exit::Done }
}

impl CheckReport {
    fn of(file: &Path) -> Self {
        let (mistakes, valid) = match config::load(file) {
            Err(mistakes) => (mistakes.list.into_iter().map(FoundMistake::from).collect(), None),
            Ok(config) => {
                let unloadable = pgweir::run::unloadable(&config);
                let told = |mistake: String| FoundMistake { text: format!("{}: {mistake}", file.display()), at: None };
                match unloadable.is_empty() {
                    true => (Vec::new(), Some(CheckedFile::of(&config))),
                    false => (unloadable.iter().map(|mistake| told(mistake.to_string())).collect(), None),
                }
            }
        };
        Self { file: file.to_path_buf(), mistakes, valid }
    }

    fn print(&self) {
        for FoundMistake { text, .. } in &self.mistakes {
            eprintln!("{text}");
        }
        let Some(CheckedFile { summary, remarks, worst_cases, warnings }) = &self.valid else {
            eprintln!("{}", counted(self.mistakes.len(), "mistake"));
            return;
        };
        println!("{}: ok: {summary}", self.file.display());
        worst_cases.iter().for_each(|case| println!("{case}"));
        remarks.iter().for_each(|remark| println!("{remark}"));
        warnings.iter().for_each(|Warning { text, .. }| eprintln!("warning: {text}"));
    }

    fn json(&self) -> Value {
        let mut report = json!({
            "file": self.file.display().to_string(),
            "ok": self.valid.is_some(),
            "mistakes": self.mistakes.iter().map(FoundMistake::json).collect::<Vec<_>>(),
        });
        if let Some(facts) = &self.valid {
            report["worst_cases"] = facts.worst_cases.iter().map(worst_case).collect();
            report["remarks"] = json!(facts.remarks);
            let warning = |Warning { kind, text }: &Warning| json!({ "kind": kind, "text": text });
            report["warnings"] = facts.warnings.iter().map(warning).collect();
        }
        report
    }
}

impl From<Mistake> for FoundMistake {
    fn from(mistake: Mistake) -> Self {
        Self { text: mistake.to_string(), at: Some(mistake) }
    }
}

impl FoundMistake {
    fn json(&self) -> Value {
        let Some(Mistake { file, position, key, text }) = &self.at else { return json!({ "text": self.text }) };
        json!({
            "file": file.display().to_string(),
            "line": position.map(|position| position.line),
            "column": position.and_then(|position| position.column),
            "key": key,
            "text": text,
        })
    }
}

fn worst_case(case: &config::WorstCase) -> Value {
    json!({ "server": case.server, "transactions": case.transactions, "sum": case.sum })
}

impl CheckedFile {
    fn of(config: &Config) -> Self {
        let mut warnings = Vec::new();
        let mut warn = |kind: &'static str, text: String| warnings.push(Warning { kind, text });
        config::exposures(config).iter().for_each(|exposure| warn("exposure", exposure.to_string()));
        config::overloads(config).iter().for_each(|overload| warn("overload", overload.to_string()));
        config::untimed(config).into_iter().for_each(|untimed| warn("timeout", untimed.to_string()));
        let overlap = |(first, second): &(&str, &str)| {
            format!("lanes {first:?} and {second:?} overlap: what matches both belongs to {first:?}")
        };
        let limits = config::unreached(config).into_iter().map(|limit| limit.to_string());
        let remarks = config::overlaps(config).iter().map(overlap).chain(limits).collect();
        Self { summary: summary(config), remarks, worst_cases: config::worst_cases(config), warnings }
    }
}

/// What a reload from one file to the other changes; their mistakes, if they have any.
fn compare(old: &Path, new: &Path, is_json: bool) -> Exit {
    let reports = [old, new].map(CheckReport::of);
    if let Some(report) = reports.iter().find(|report| report.valid.is_none()) {
        match is_json {
            true => println!("{:#}", report.json()),
            false => report.print(),
        }
        return Exit::BadInput;
    }
    let (Ok(before), Ok(after)) = (config::load(old), config::load(new)) else {
        eprintln!("the files changed while they were compared");
        return Exit::BadInput;
    };
    let changes = config::diff(&before, &after);
    match is_json {
        true => println!("{:#}", changes_json(&changes)),
        false => changes.told().iter().for_each(|line| println!("{line}")),
    }
    Exit::Done
}

fn changes_json(changes: &Changes) -> Value {
    let change = |change: &config::ConfigChange| {
        json!({
            "key": change.key,
            "old": change.old.as_ref().map(ToString::to_string),
            "new": change.new.as_ref().map(ToString::to_string),
            "needs_restart": changes.needs_restart.contains(&change.key),
        })
    };
    json!({ "changes": changes.changed.iter().map(change).collect::<Vec<_>>() })
}

fn summary(config: &Config) -> String {
    let addr: Vec<String> = config.listen.addr.iter().map(ToString::to_string).collect();
    format!(
        "{}, {}, listening on {}",
        counted(config.databases.len(), "database"),
        counted(config.roles.len(), "role"),
        addr.join(", ")
    )
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
