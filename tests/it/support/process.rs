//! Programs the harness starts, none of which outlives the tests, however those end.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of the Postgres under test: `PGWEIR_TEST_PG=18` chooses version 18, otherwise the newest installed.
/// Postgres refuses to run as root, so root becomes `postgres` first.
pub(crate) fn server_program(bin: &Path, name: &str) -> Command {
    let mut command;
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(bin.join(name));
    } else {
        command = Command::new(bin.join(name));
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// The kernel kills this program when the thread that starts it ends, which a test's does at the latest with the test.
pub(crate) fn bound_to_this_thread(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}

/// Where the programs of the Postgres under test are.
pub(crate) fn server_bin() -> PathBuf {
    let mut script = Command::new(root().join("scripts/postgres-bin"));
    if let Ok(version) = std::env::var("PGWEIR_TEST_PG") {
        script.arg(version);
    }
    output_of(script).trim().into()
}

/// Runs `command` to its end; panics with what it said unless it succeeds.
pub(crate) fn output_of(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
