//! One run of a command that prints a password: no shell, no stdin, an end within its time.
//!
//! The command leads a process group of its own. When its time is up, or nobody wants it any more, the whole group is
//! killed: a script's child would go on otherwise. The command itself is reaped.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, copy, sink};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::config::{PasswordCommand, Secret};
use crate::pool::passwords::CommandFailure;

/// Longest password: tokens have some kilobytes.
const OUTPUT_MAX: usize = 64 * 1024;

/// Bytes of stderr in a log record.
const STDERR_MAX: usize = 200;

/// A child of the command may keep stderr open after its end.
const STDERR_PATIENCE: Duration = Duration::from_millis(100);

/// A run that printed no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedRun {
    pub(super) failure: CommandFailure,
    /// The first line, if there is one.
    pub(super) stderr: Option<String>,
}

/// Runs the command to its end. Dropped, it kills what it runs.
pub(super) async fn run(command: &PasswordCommand) -> Result<Secret, FailedRun> {
    let (program, arguments) = command.program();
    let mut start = Command::new(program);
    start.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    start.process_group(0).kill_on_drop(true);
    let failed = |failure| FailedRun { failure, stderr: None };
    let mut child = start.spawn().map_err(|error| failed(CommandFailure::Start(error.kind())))?;
    let group = ProcessGroup(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(mut stderr)) = (stdout, stderr) else {
        return Err(failed(CommandFailure::Output(io::ErrorKind::BrokenPipe)));
    };
    let mut noise = Vec::new();
    let outcome = {
        let printed = timeout(command.timeout(), printed(&mut child, stdout));
        let noise = first_line(&mut stderr, &mut noise);
        tokio::pin!(printed, noise);
        tokio::select! {
            printed = &mut printed => {
                let _ = timeout(STDERR_PATIENCE, noise).await;
                printed
            }
            () = &mut noise => printed.await,
        }
    };
    let outcome = outcome.unwrap_or_else(|_| Err(CommandFailure::Timeout(command.timeout())));
    match outcome.and_then(|(status, output)| judge(status, output)) {
        Ok(password) => {
            group.leave();
            Ok(password)
        }
        Err(failure) => {
            drop(group);
            let _ = child.wait().await;
            let line = String::from_utf8_lossy(&noise).trim().to_owned();
            Err(FailedRun { failure, stderr: (!line.is_empty()).then_some(line) })
        }
    }
}

/// The output, and how the command ended.
async fn printed(child: &mut Child, stdout: ChildStdout) -> Result<(ExitStatus, Vec<u8>), CommandFailure> {
    let output = async {
        let mut output = Vec::new();
        // A newline does not count.
        stdout.take(OUTPUT_MAX as u64 + 2).read_to_end(&mut output).await.map_err(|error| error.kind())?;
        Ok(output)
    };
    let output = output.await.map_err(CommandFailure::Output)?;
    if without_newline(&output).len() > OUTPUT_MAX {
        return Err(CommandFailure::TooLong(OUTPUT_MAX));
    }
    let status = child.wait().await.map_err(|error| CommandFailure::Output(error.kind()))?;
    Ok((status, output))
}

fn judge(status: ExitStatus, output: Vec<u8>) -> Result<Secret, CommandFailure> {
    if !status.success() {
        return Err(CommandFailure::Status(status));
    }
    let password = without_newline(&output);
    if password.is_empty() {
        return Err(CommandFailure::Empty);
    }
    match std::str::from_utf8(password) {
        Ok(password) if !password.contains('\0') => Ok(Secret::new(password)),
        _ => Err(CommandFailure::NotText),
    }
}

fn without_newline(output: &[u8]) -> &[u8] {
    let output = output.strip_suffix(b"\n").unwrap_or(output);
    output.strip_suffix(b"\r").unwrap_or(output)
}

/// Keeps the beginning of the first line, and reads the rest so that the command never waits for us.
async fn first_line(stderr: &mut ChildStderr, line: &mut Vec<u8>) {
    let _ = read_line(stderr, line).await;
    let _ = copy(stderr, &mut sink()).await;
}

async fn read_line(from: &mut (impl AsyncRead + Unpin), line: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; STDERR_MAX];
    while line.len() < STDERR_MAX {
        let read = from.read(&mut bytes).await?;
        let more = &bytes[..read.min(STDERR_MAX - line.len())];
        let end = memchr::memchr(b'\n', more);
        line.extend_from_slice(&more[..end.unwrap_or(more.len())]);
        if read == 0 || end.is_some() {
            break;
        }
    }
    Ok(())
}

/// The command and its children; dropped, they are killed.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// It has ended well: what it left in the background may go on.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // The group may be gone already.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
