//! `pgweir check`: every mistake of a configuration file in one run.

use std::path::Path;

use pgweir::config::{self, Config};

use super::Exit;

/// Prints what is wrong with the file, or what is in it and what of that leaves a door open or overloads a server.
pub(super) fn check(file: &Path) -> Exit {
    match config::load(file) {
        Ok(config) => {
            let unloadable = pgweir::run::unloadable(&config);
            if !unloadable.is_empty() {
                for mistake in &unloadable {
                    eprintln!("{}: {mistake}", file.display());
                }
                eprintln!("{}", counted(unloadable.len(), "mistake"));
                return Exit::BadInput;
            }
            println!("{}: ok: {}", file.display(), summary(&config));
            for case in config::worst_cases(&config) {
                println!("{case}");
            }
            for (first, second) in config::overlaps(&config) {
                println!("lanes {first:?} and {second:?} overlap: what matches both belongs to {first:?}");
            }
            for exposure in config::exposures(&config) {
                eprintln!("warning: {exposure}");
            }
            for overload in config::overloads(&config) {
                eprintln!("warning: {overload}");
            }
            if let Some(untimed) = config::untimed(&config) {
                eprintln!("warning: {untimed}");
            }
            Exit::Done
        }
        Err(mistakes) => {
            eprintln!("{mistakes}");
            eprintln!("{}", counted(mistakes.list.len(), "mistake"));
            Exit::BadInput
        }
    }
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
