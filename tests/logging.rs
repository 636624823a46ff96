//! Log records never block and never end the process, whatever becomes of stderr.
#![allow(clippy::disallowed_methods, reason = "a process is watched from outside, on the real clock")]

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A pgweir in front of no server, and its Unix socket.
struct Running {
    child: Child,
    socket: PathBuf,
    _dir: TempDir,
}

impl Running {
    fn with_stderr(stderr: impl Into<Stdio>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, socket) = (dir.path().join("proxy.toml"), dir.path().join("front"));
        let config = format!(
            "[listen]\naddr = [\"unix:{}\"]\n[admin]\naddr = \"off\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = 1\n\
             [roles.app]\npassword = \"secret\"\n",
            socket.display()
        );
        fs::write(&file, config).expect("our own directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
        command.arg("--config").arg(&file).args(["--log-level", "debug"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("it is built");
        Self { child, socket, _dir: dir }
    }

    /// A login for a database that there is not; every one is logged. Returns the tag of the answer.
    fn answer(&mut self, database: &str) -> u8 {
        let mut stream = connect(&self.socket, &mut self.child);
        stream.set_read_timeout(Some(SOON)).expect("a time");
        let body = format!("\0\x03\0\0user\0stranger\0database\0{database}\0\0");
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        stream.write_all(&[&length[..], body.as_bytes()].concat()).expect("it reads");
        let mut tag = [0];
        stream.read_exact(&mut tag).expect("an answer");
        tag[0]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(socket: &Path, child: &mut Child) -> UnixStream {
    let begun = Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return stream;
        }
        let ended = child.try_wait().expect("our own child");
        assert!(ended.is_none() && begun.elapsed() < SOON, "it does not listen: {ended:?}");
        sleep(Duration::from_millis(10));
    }
}

/// Logins are answered, and the process lives.
fn serves(stderr: impl Into<Stdio>) -> Running {
    let mut running = Running::with_stderr(stderr);
    for _ in 0..300 {
        assert!(matches!(running.answer("nowhere"), b'E' | b'R'));
    }
    assert!(running.child.try_wait().expect("our own child").is_none());
    running
}

#[test]
fn a_stderr_that_nobody_reads_any_more_ends_nothing() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    serves(writer);
}

#[test]
fn a_full_disk_ends_nothing() {
    serves(fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it"));
}

#[test]
fn a_reader_that_stalls_holds_no_login_up() {
    let (mut reader, writer): (PipeReader, _) = std::io::pipe().expect("a pipe");
    // As large as a pipe is: nothing more fits.
    let mut filled = writer.try_clone().expect("a descriptor");
    filled.write_all(&[b'x'; 65_536]).expect("it fits");
    drop(filled);
    let running = serves(writer);
    // The records are there as soon as somebody reads.
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&text).contains("configuration read") {
        let length = reader.read(&mut part).expect("a pipe");
        assert!(length > 0);
        text.extend_from_slice(&part[..length]);
    }
    drop(running);
}

#[test]
fn a_name_from_outside_forges_no_record_and_no_field() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut running = Running::with_stderr(writer);
    running.answer("x\n2026-01-01T00:00:00Z  INFO pgweir: forged \u{1b}[31m");
    running.answer("y\" role=\"postgres");
    running.answer("z role=postgres");
    running.answer("last");
    let mut lines = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line = line.expect("text");
        let is_last = line.contains("last");
        lines.push(line);
        if is_last {
            break;
        }
    }
    let has = |start: &str| lines.iter().any(|line| line.contains(start));
    assert!(lines.iter().all(|line| !line.contains('\u{1b}') && !line.starts_with("2026-01-01T")), "{lines:#?}");
    assert!(has(r#"database="x\n2026-01-01T00:00:00Z  INFO pgweir: forged \u{1b}[31m""#), "{lines:#?}");
    assert!(has(r#"database="y\" role=\"postgres""#) && has(r#"database="z role=postgres""#), "{lines:#?}");
}
