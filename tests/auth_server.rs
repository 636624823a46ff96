//! [`BackendLogin`] against a real Postgres, in every method it may ask for, in clear text and under TLS.
//!
//! The server is started here, with a certificate of version 1, the kind rustls alone does not take.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pgweir::config::{BackendTls, BackendTlsMode, Secret};
use pgweir::testing::auth::scram::{Keys, RecoveredKeys, Verifier};
use pgweir::testing::auth::secrets::Secrets;
use pgweir::testing::auth::server::{BackendLogin, BackendLoginStep, LoggedIn, LoginError};
use pgweir::testing::auth::{Channel, Credential, md5::Md5Hash};
use pgweir::testing::net::certificate::Binding;
use pgweir::testing::net::tls::{ClientSide, server_name};
use pgweir::testing::wire::startup::{SSL_REQUEST, build_startup};
use rustls::{ClientConnection, StreamOwned};
use tempfile::TempDir;

const HBA: &str = "\
local   all all                             trust
host    all trusted            127.0.0.1/32 trust
host    all hashed             127.0.0.1/32 md5
host    all clear              127.0.0.1/32 password
hostssl all bound              127.0.0.1/32 scram-sha-256
host    all scram,prepared,key 127.0.0.1/32 scram-sha-256
";

const VERIFIER: &str = "SCRAM-SHA-256$4096:fUVJYma3lc8u3sZdpXWBtA==$fFVOwCcEEAOq2ySssnA4gL+FzhVjTr0w0kXTv8Wd0ZM=:\
                        jTGOuPen4zN0JzjG8ExHVwdGL9zGBT/vdgN6MJjA8tI=";

/// A server of our own; dropped, it is gone with its files.
struct Postgres {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
}

impl Postgres {
    fn start() -> Self {
        let bin = Command::new("pg_config").arg("--bindir").output().expect("pg_config is installed").stdout;
        let bin = PathBuf::from(String::from_utf8(bin).expect("a path").trim_end());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let postgres = Self { bin, dir: TempDir::new().expect("a directory"), port };
        let data = postgres.path("data");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(postgres.dir.path()));
        }
        run(postgres.program("initdb").arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        ]));
        postgres.install("pg_hba.conf", HBA);
        for (name, source) in [("server.crt", "version-1.crt"), ("server.key", "version-1.key")] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(source);
            postgres.install(name, &std::fs::read_to_string(source).expect("a PEM file"));
        }
        let settings = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c ssl=on -c fsync=off",
            postgres.dir.path().display()
        );
        let mut start = postgres.program("pg_ctl");
        start.args(["-s", "-w", "start", "-o", &settings, "-l"]).arg(postgres.path("log")).arg("-D").arg(data);
        run(&mut start);
        postgres.sql(
            "create role trusted login;
             set password_encryption = 'md5'; create role hashed login password 'pencil'; reset password_encryption;
             create role scram login password 'pencil'; create role clear login password 'pencil';
             create role bound login password 'pencil'; create role prepared login password E'I\\u00adX\\u00a0y';",
        );
        postgres.sql(&format!("create role key login password '{VERIFIER}'"));
        postgres
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the data directory, owned by the server and readable to nobody else.
    fn install(&self, name: &str, text: &str) {
        let path = self.path("data").join(name);
        std::fs::write(&path, text).expect("the data directory is there");
        run(Command::new("chmod").arg("600").arg(&path));
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&path));
        }
    }

    /// A program of the server, which refuses to be root.
    fn program(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    }

    fn sql(&self, sql: &str) {
        let mut psql = self.program("psql");
        psql.arg("-h").arg(self.dir.path()).args(["-p", &self.port.to_string(), "-U", "postgres", "-qc", sql]);
        run(&mut psql);
    }

    /// Logs in, in clear text or under TLS.
    fn log_in(&self, role: &str, credential: Credential, tls: bool) -> Result<LoggedIn, LoginError> {
        self.log_in_with(role, credential, tls, 0)
    }

    fn log_in_with(&self, role: &str, credential: Credential, tls: bool, minor: u16) -> Result<LoggedIn, LoginError> {
        let new = |channel| BackendLogin::new(role.to_owned(), credential, channel, minor, Arc::new(Secrets::new()));
        if !tls {
            // "Open" although it is loopback, to see what is refused there.
            return drive(self.connect(), new(Channel::Open), role, minor);
        }
        let stream = self.connect_tls();
        let binding = stream.conn.peer_certificates().and_then(|chain| Binding::of(&chain[0]));
        assert!(binding.is_some());
        drive(stream, new(Channel::Tls { binding }), role, minor)
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens")
    }

    fn connect_tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut socket = self.connect();
        let mut answer = [0];
        socket.write_all(&SSL_REQUEST).and_then(|()| socket.read_exact(&mut answer)).expect("an answer");
        assert_eq!(answer, *b"S");
        let tls = BackendTls { mode: BackendTlsMode::Require, ..BackendTls::default() };
        let config = ClientSide::new(&tls).expect("no files in it").expect("it is on").config;
        let client = ClientConnection::new(config, server_name("127.0.0.1").expect("an address")).expect("a client");
        let mut stream = StreamOwned::new(client, socket);
        stream.flush().expect("the handshake succeeds");
        stream
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        stop.args(["-s", "-w", "-m", "immediate", "stop", "-D"]).arg(self.path("data"));
        let _ = stop.status();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn run(command: &mut Command) {
    // The server inherits what pg_ctl has open, so there is no pipe to read from.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("it can be run");
    assert!(status.success(), "{command:?}");
}

fn drive(
    mut stream: impl Read + Write,
    mut login: BackendLogin,
    role: &str,
    minor: u16,
) -> Result<LoggedIn, LoginError> {
    let startup = build_startup(minor, [("user", role), ("database", "postgres")]).expect("it is short");
    stream.write_all(&startup).expect("the server reads");
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header).expect("a message");
        let [tag, length @ ..] = header;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut body).expect("its body");
        let mut step = login.message(tag, &body)?;
        if let BackendLoginStep::Hash(job) = step {
            step = login.hashed(job.run());
        }
        match step {
            BackendLoginStep::Read => {}
            BackendLoginStep::Send(frame) => stream.write_all(&frame).expect("the server reads"),
            BackendLoginStep::Done(ready) => return Ok(ready),
            BackendLoginStep::Hash(_) => unreachable!("one hash is enough"),
        }
    }
}

fn password(text: &str) -> Credential {
    Credential::Password(Secret::new(text))
}

fn sqlstate(result: Result<LoggedIn, LoginError>) -> Option<String> {
    match result {
        Err(LoginError::Server(error)) => error.sqlstate,
        other => panic!("the server did not refuse: {other:?}"),
    }
}

/// One server for all of it: starting one takes longer than every login together.
#[test]
fn postgres_lets_every_method_in_and_wrong_passwords_out() {
    let server = Postgres::start();

    for tls in [false, true] {
        let ready = server.log_in("trusted", Credential::Nothing, tls).expect("it is trusted");
        assert!(ready.key.is_some_and(|key| key.secret.len() == 4));
        assert!(ready.parameters.iter().any(|(name, value)| name == "client_encoding" && value == b"UTF8"));

        server.log_in("scram", password("pencil"), tls).expect("SCRAM");
        assert_eq!(sqlstate(server.log_in("scram", password("pencil "), tls)).as_deref(), Some("28P01"));
        server.log_in("prepared", password("I\u{ad}X\u{a0}y"), tls).expect("SASLprep");
        server.log_in("prepared", password("IX y"), tls).expect("SASLprep");

        server.log_in("hashed", password("pencil"), tls).expect("MD5");
        server.log_in("hashed", Credential::Md5(Md5Hash::new("pencil", "hashed")), tls).expect("MD5 by its hash");
        assert_eq!(sqlstate(server.log_in("hashed", password("wrong"), tls)).as_deref(), Some("28P01"));

        // A client's keys, as they come back from its own login against the same verifier.
        let Verifier { salt, iterations, .. } = Verifier::parse(VERIFIER).expect("it is one");
        let keys = Keys::derive("pencil", &salt, iterations);
        let recovered = RecoveredKeys { keys, salt, iterations };
        server.log_in("key", Credential::Keys(recovered.clone()), tls).expect("keys without a password");
        let outdated = RecoveredKeys { iterations: NonZeroU32::MIN, ..recovered };
        assert_eq!(server.log_in("key", Credential::Keys(outdated), tls), Err(LoginError::KeysOutdated("key".into())));

        let unproved = Credential::Unproved(Secret::new("anything"));
        assert_eq!(server.log_in("trusted", unproved, tls), Err(LoginError::NothingAsked("trusted".into())));
    }

    server.log_in("bound", password("pencil"), true).expect("SCRAM over TLS");
    assert_eq!(sqlstate(server.log_in("bound", password("pencil"), false)).as_deref(), Some("28000"));
    server.log_in("clear", password("pencil"), true).expect("clear text over TLS");
    assert_eq!(server.log_in("clear", password("pencil"), false), Err(LoginError::ClearText));

    // Had the logins above not been bound to the certificate, this one would succeed too.
    let other = rcgen::generate_simple_self_signed(["db.test".to_owned()]).expect("a certificate");
    let channel = Channel::Tls { binding: Binding::of(other.cert.der()) };
    let login = BackendLogin::new("scram".into(), password("pencil"), channel, 0, Arc::new(Secrets::new()));
    assert_eq!(sqlstate(drive(server.connect_tls(), login, "scram", 0)).as_deref(), Some("28000"));

    let ready = server.log_in_with("trusted", Credential::Nothing, false, 2).expect("it is trusted");
    let newest = if ready.key.is_some_and(|key| key.secret.len() == 4) { 0 } else { 2 };
    assert_eq!(ready.minor, newest, "servers before 18 negotiate down to 3.0");
}
