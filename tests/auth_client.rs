//! [`ClientLogin`] against libpq: psql logs in to a server that has nothing but a login.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use pgweir::config::{ClientTls, Secret, ServerIdentity};
use pgweir::testing::auth::client::{Applicant, ClientCertificate, ClientLogin, ClientLoginStep, Method};
use pgweir::testing::auth::md5::Md5Hash;
use pgweir::testing::auth::mock::SecretForm;
use pgweir::testing::auth::scram::{ITERATIONS, Verifier};
use pgweir::testing::auth::secrets::{Secrets, Stored};
use pgweir::testing::auth::{AUTHENTICATION_OK, Channel, Credential};
use pgweir::testing::net::certificate::common_name;
use pgweir::testing::net::tls::ServerTls;
use pgweir::testing::wire::startup::{First, Framing, framing, parse};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ServerConnection, StreamOwned};
use tempfile::TempDir;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// What came of one login.
#[derive(Debug)]
struct Outcome {
    credential: Option<Credential>,
    /// Hashes it took.
    hashed: u32,
    psql: Result<(), String>,
}

/// Lets psql log in as `web` with `password`; `conninfo` says how.
fn psql(method: Method, secrets: &Arc<Secrets>, tls: Option<&ServerTls>, password: &str, conninfo: &str) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (secrets, tls) = (secrets.clone(), tls.cloned());
    let server = thread::spawn(move || serve(listener.accept().expect("psql connects").0, method, secrets, tls));
    let conninfo = format!("host=127.0.0.1 port={port} user=web dbname=app gssencmode=disable {conninfo}");
    let psql = Command::new("psql").args(["-Xw", "-c", "", &conninfo]).env("PGPASSWORD", password).output();
    let psql = psql.expect("psql is installed");
    let said = String::from_utf8_lossy(&psql.stderr).into_owned();
    let (credential, hashed) = server.join().expect("the server does not panic");
    Outcome { credential, hashed, psql: if psql.status.success() { Ok(()) } else { Err(said) } }
}

/// One connection until its end.
fn serve(
    mut socket: TcpStream,
    method: Method,
    secrets: Arc<Secrets>,
    tls: Option<ServerTls>,
) -> (Option<Credential>, u32) {
    let mut first = read_first(&mut socket);
    let mut channel = Channel::Open;
    let mut certificate = ClientCertificate::NotAsked;
    let mut stream: Box<dyn Stream> = match tls.filter(|_| first == First::Ssl) {
        None => Box::new(socket),
        Some(tls) => {
            socket.write_all(b"S").expect("psql reads");
            let connection = ServerConnection::new(tls.config).expect("a server");
            let mut stream = StreamOwned::new(connection, socket);
            first = read_first(&mut stream);
            channel = Channel::Tls { binding: tls.binding };
            if tls.verifies_clients {
                let name = stream.conn.peer_certificates().and_then(|chain| common_name(&chain[0]));
                certificate = match name.as_deref() == Some("web") {
                    true => ClientCertificate::OfRole,
                    false => ClientCertificate::OfAnother,
                };
            }
            Box::new(stream)
        }
    };
    let First::Startup(startup) = first else { panic!("a startup packet, not {first:?}") };
    assert_eq!((&*startup.user, &*startup.database), ("web", "app"));
    let mut login = ClientLogin::new(Applicant { role: startup.user, channel, certificate }, method, secrets);
    let mut step = login.start();
    let mut hashed = 0;
    loop {
        step = match step {
            ClientLoginStep::Send(frame) => {
                stream.write_all(&frame).expect("psql reads");
                let Some((tag, body)) = read_message(&mut stream) else { return (None, hashed) };
                login.message(tag, &body)
            }
            ClientLoginStep::Hash(job) => {
                hashed += 1;
                login.hashed(job.run())
            }
            ClientLoginStep::Done { send, credential } => {
                stream.write_all(&[&send[..], &AUTHENTICATION_OK, b"Z\0\0\0\x05I"].concat()).expect("psql reads");
                // The empty query of `psql -c ""`, then Terminate.
                while let Some((b'Q', _)) = read_message(&mut stream) {
                    stream.write_all(b"I\0\0\0\x04Z\0\0\0\x05I").expect("psql reads");
                }
                return (Some(credential), hashed);
            }
            ClientLoginStep::Refused(refusal) => {
                let fields = format!("SFATAL\0VFATAL\0C28P01\0M{refusal}\0\0");
                let length = u32::try_from(4 + fields.len()).expect("short").to_be_bytes();
                stream.write_all(&[b"E", &length[..], fields.as_bytes()].concat()).expect("psql reads");
                return (None, hashed);
            }
        }
    }
}

fn read_first(stream: &mut impl Read) -> First {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).expect("a packet");
    let Ok(Framing::Packet(length)) = framing(&packet) else { panic!("{packet:?}") };
    packet.resize(length, 0);
    stream.read_exact(&mut packet[4..]).expect("all of it");
    parse(&packet).expect("libpq is right")
}

/// `None` when psql has gone or says that it goes.
fn read_message(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).ok()?;
    let [tag, length @ ..] = header;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).ok()?;
    (tag != b'X').then_some((tag, body))
}

fn plain() -> Stored {
    Stored::Plain(Secret::new("pencil"))
}

fn by(secret: impl Into<Option<Stored>>, md5: bool) -> Method {
    match (secret.into(), md5) {
        (Some(secret), md5) => Method::Password { secret, md5 },
        (None, true) => Method::Nobody(SecretForm::Md5),
        (None, false) => Method::Nobody(SecretForm::default()),
    }
}

/// A server certificate, a client certificate for `web`, and who signed them.
struct Pki {
    dir: TempDir,
}

impl Pki {
    fn new() -> Self {
        let pki = Self { dir: TempDir::new().expect("a directory") };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("an authority");
        pki.write("ca.crt", &ca.pem());
        for name in ["server", "web"] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
            params.distinguished_name.push(DnType::CommonName, name);
            pki.write(&format!("{name}.crt"), &params.signed_by(&key, &ca).expect("a certificate").pem());
            pki.write(&format!("{name}.key"), &key.serialize_pem());
        }
        pki
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.dir.path().join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
    }

    fn identity(&self) -> ServerIdentity {
        ServerIdentity { cert: self.dir.path().join("server.crt"), key: self.dir.path().join("server.key") }
    }

    fn require(&self) -> ServerTls {
        ServerTls::new(&ClientTls::Require(self.identity())).expect("it loads").expect("it is on")
    }

    fn verify_client(&self) -> ServerTls {
        let tls = ClientTls::VerifyClient(self.identity(), self.dir.path().join("ca.crt"));
        ServerTls::new(&tls).expect("it loads").expect("it is on")
    }

    /// libpq checks our chain and address, too.
    fn conninfo(&self, more: &str) -> String {
        format!("sslmode=verify-full sslrootcert={}/ca.crt {more}", self.dir.path().display())
    }
}

#[test]
fn libpq_logs_in_by_scram_and_hashes_once() {
    let secrets = Arc::new(Secrets::new());
    for hashed in [1, 0] {
        let outcome = psql(by(plain(), false), &secrets, None, "pencil", "sslmode=disable");
        assert_eq!((outcome.psql, outcome.hashed), (Ok(()), hashed));
        assert_eq!(outcome.credential, Some(Credential::Password(Secret::new("pencil"))));
    }
}

#[test]
fn libpq_is_refused_in_the_same_words_whether_the_role_exists() {
    let secrets = Arc::new(Secrets::new());
    for (secret, md5) in [(Some(plain()), false), (None, false), (Some(plain()), true), (None, true)] {
        let outcome = psql(by(secret, md5), &secrets, None, "wrong", "sslmode=disable");
        let said = outcome.psql.expect_err("the password is wrong");
        assert!(said.contains("password authentication failed for user \"web\""), "{said}");
    }
}

#[test]
fn libpq_logs_in_by_md5() {
    let secrets = Arc::new(Secrets::new());
    for secret in [plain(), Stored::Md5(Md5Hash::new("pencil", "web"))] {
        let outcome = psql(by(secret, true), &secrets, None, "pencil", "sslmode=disable");
        assert_eq!(outcome.psql, Ok(()));
    }
}

#[test]
fn libpq_binds_to_our_certificate_and_leaves_its_keys() {
    let pki = Pki::new();
    let (secrets, tls) = (Arc::new(Secrets::new()), pki.require());
    let verifier = Verifier::new("pencil", b"salt", ITERATIONS);
    let method = Method::Passthrough { verifier: Some(verifier) };
    let conninfo = pki.conninfo("channel_binding=require");
    let outcome = psql(method, &secrets, Some(&tls), "pencil", &conninfo);
    assert_eq!((outcome.psql, outcome.hashed), (Ok(()), 0));
    assert!(matches!(outcome.credential, Some(Credential::Keys(_))));
}

#[test]
fn libpq_notices_another_certificate() {
    let pki = Pki::new();
    let secrets = Arc::new(Secrets::new());
    let mut tls = pki.require();
    tls.binding = Pki::new().require().binding;
    let conninfo = pki.conninfo("channel_binding=require");
    let outcome = psql(by(plain(), false), &secrets, Some(&tls), "pencil", &conninfo);
    let said = outcome.psql.expect_err("the bindings differ");
    assert!(said.contains("channel binding check failed"), "{said}");
}

#[test]
fn libpq_passes_a_token_of_eight_kilobytes_through() {
    let pki = Pki::new();
    let token = "t".repeat(8 * 1024);
    let passthrough = Method::Passthrough { verifier: None };
    let outcome = psql(passthrough, &Arc::default(), Some(&pki.require()), &token, &pki.conninfo(""));
    assert_eq!(outcome.psql, Ok(()));
    assert_eq!(outcome.credential, Some(Credential::Unproved(Secret::new(token))));
}

#[test]
fn libpq_logs_in_by_certificate() {
    let pki = Pki::new();
    let tls = pki.verify_client();
    let dir = pki.dir.path().display();
    let own = |name: &str| pki.conninfo(&format!("sslcert={dir}/{name}.crt sslkey={dir}/{name}.key"));
    let log_in = |conninfo: &str| psql(Method::Certificate, &Arc::default(), Some(&tls), "", conninfo).psql;
    assert_eq!(log_in(&own("web")), Ok(()));
    let said = log_in(&own("server")).expect_err("it names another role");
    assert!(said.contains("certificate authentication failed for user \"web\""), "{said}");
}
