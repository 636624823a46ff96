//! `pgweir import`: PgBouncer's configuration comes in, `proxy.toml` goes out.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use pgweir::config;
use pgweir::pgbouncer::{self, Import, Kind};

use super::Exit;

/// Translate a `pgbouncer.ini` into a `proxy.toml`, and say what does not mean the same any more.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// PgBouncer's configuration file. Files it names are looked for where PgBouncer would: from the working directory.
    file: PathBuf,
    /// Where to write the result; without it, to stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the result although something cannot be kept safely, and over a file that is there.
    #[arg(long)]
    force: bool,
    /// Write over a file that is there.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

/// Writes the result, then tells on stderr what to look at.
pub(super) fn import(arguments: &Arguments) -> Exit {
    let import = match pgbouncer::import(&arguments.file, &|path| std::fs::read_to_string(path)) {
        Ok(import) => import,
        Err(error) => {
            eprintln!("{error}");
            return Exit::BadInput;
        }
    };
    if !arguments.force && import.notes.iter().any(|note| note.kind == Kind::Unsafe) {
        tell(&import);
        eprintln!("\nnothing is written: first put right what is not safe to leave out, or leave it out with --force");
        return Exit::BadInput;
    }
    let name = arguments.output.as_deref().unwrap_or_else(|| Path::new("proxy.toml"));
    if let Err(error) = write(&import.toml, arguments) {
        eprintln!("{}: {error}", name.display());
        return Exit::BadInput;
    }
    tell(&import);
    match config::parse(&import.toml, name, &|name| std::env::var(name).ok()) {
        Ok(_) => Exit::Done,
        Err(mistakes) => {
            eprintln!("\nto be put right before it can be used:\n{mistakes}");
            Exit::BadInput
        }
    }
}

/// Only its owner may read a new file: it may hold passwords.
fn write(text: &str, arguments: &Arguments) -> io::Result<()> {
    let Some(path) = &arguments.output else { return io::stdout().write_all(text.as_bytes()) };
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match arguments.force || arguments.overwrite {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::Error::other("is there already; --overwrite writes over it"),
        _ => error,
    });
    file?.write_all(text.as_bytes())
}

fn tell(import: &Import) {
    for (kind, title) in [
        (Kind::Unsafe, "has no equivalent and is not safe to leave out:"),
        (Kind::Different, "means something else:"),
        (Kind::Missing, "has no equivalent:"),
    ] {
        let notes: Vec<_> = import.notes.iter().filter(|note| note.kind == kind).collect();
        if !notes.is_empty() {
            eprintln!("\n{title}");
            notes.iter().for_each(|note| eprintln!("  {note}"));
        }
    }
    if !import.unneeded.is_empty() {
        eprintln!("\nnot needed: {}", import.unneeded.join(", "));
    }
}
