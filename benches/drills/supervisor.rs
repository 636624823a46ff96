//! Servers and directories of a drill, none of which outlives it, however it ends: each has a shell beside it, in a
//! process group of its own, that reads from a pipe of ours and cleans up when the pipe closes. A panic, Ctrl-C or a
//! kill closes it too.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::process::{output_of, server_program};

/// $0 is the signal that stops the program, $1 its log, the rest the program. One that will not stop is killed.
const SUPERVISE_SERVER: &str = r#"
log=$1; shift
"$@" </dev/null >>"$log" 2>&1 &
echo $!
cat >/dev/null
kill -"$0" $! 2>/dev/null
tries=0
while kill -0 $! 2>/dev/null && [ $tries -lt 300 ]; do sleep 0.05; tries=$((tries + 1)); done
kill -KILL $! 2>/dev/null
wait
"#;

/// $0 is the directory. Its server may still be writing, and a directory that grows is not removed.
const SUPERVISE_DIRECTORY: &str = r#"
cat >/dev/null
tries=0
until rm -rf "$0" 2>/dev/null || [ $tries -gt 300 ]; do sleep 0.05; tries=$((tries + 1)); done
"#;

/// How a server is told to stop at once.
#[derive(Clone, Copy)]
pub(crate) enum Stop {
    /// PgBouncer and pgweir.
    Term,
    /// Postgres: its immediate shutdown.
    Quit,
}

/// Whom a server runs as, when we are root.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    /// Us.
    Ourselves,
    /// `postgres`: neither Postgres nor PgBouncer runs as root.
    Postgres,
}

/// A running server; dropped, it has stopped.
pub(crate) struct Server {
    shell: Child,
    /// Its process.
    pub(crate) pid: u32,
}

impl Server {
    /// Starts `program` with its arguments and environment; it writes to `log`.
    pub(crate) fn start(program: &Command, owner: Owner, stop: Stop, log: &Path) -> Self {
        let mut shell = shell(owner);
        let signal = match stop {
            Stop::Term => "TERM",
            Stop::Quit => "QUIT",
        };
        shell.args(["-c", SUPERVISE_SERVER, signal]).arg(log).arg(program.get_program()).args(program.get_args());
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut shell = shell.stdout(Stdio::piped()).spawn().expect("a shell");
        let mut pid = String::new();
        let stdout = shell.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut pid).expect("the shell prints a line");
        Self { shell, pid: pid.trim().parse().expect("the shell prints a process id") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

/// A new directory that belongs to whom Postgres runs as; dropped, it is removed.
pub(crate) struct Scratch {
    supervisor: Child,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// One in memory where there is enough of it, so that no disk's mood is measured; else one on disk.
    pub(crate) fn in_memory() -> Self {
        const ROOM: u64 = 3 << 30;
        let memory = Path::new("/dev/shm");
        let room = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        if room >= ROOM { Self::below(memory) } else { Self::on_disk() }
    }

    /// One where programs may be run from.
    pub(crate) fn on_disk() -> Self {
        Self::below(&std::env::temp_dir())
    }

    fn below(parent: &Path) -> Self {
        let path = tempfile::Builder::new().prefix("pgweir-drill-").tempdir_in(parent).expect("a directory").keep();
        let mut supervisor = shell(Owner::Ourselves);
        supervisor.args(["-c", SUPERVISE_DIRECTORY]).arg(&path).stdout(Stdio::null());
        let supervisor = supervisor.spawn().expect("a shell");
        let mut open = Command::new("chmod");
        open.arg("755").arg(&path);
        output_of(open);
        if rustix::process::geteuid().is_root() {
            let mut give = Command::new("chown");
            give.arg("postgres:").arg(&path);
            output_of(give);
        }
        Self { supervisor, path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end(&mut self.supervisor);
    }
}

fn shell(owner: Owner) -> Command {
    let mut shell = match owner {
        Owner::Ourselves => Command::new("/bin/sh"),
        Owner::Postgres => server_program(Path::new("/bin"), "sh"),
    };
    shell.process_group(0).stdin(Stdio::piped()).stderr(Stdio::null());
    shell
}

fn end(shell: &mut Child) {
    drop(shell.stdin.take());
    shell.wait().expect("the shell is our child");
}
