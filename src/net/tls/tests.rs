//! Handshakes in memory between our two sides, with certificates made for each test.

use std::io::Read;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConnection, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::net::certificate::common_name;

/// A certificate authority and a directory for the certificates it signs.
struct Pki {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { dir: TempDir::new().unwrap(), ca };
        pki.write("ca.crt", &pki.ca.pem());
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// `name.crt` and `name.key`: for the host `name`, whose common name it is too.
    fn sign(&self, name: &str) -> ServerIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(name).signed_by(&key, &self.ca).unwrap();
        self.identity(name, &certificate.pem(), &key)
    }

    fn self_sign(&self, name: &str, params: &CertificateParams) -> ServerIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.identity(name, &certificate.pem(), &key)
    }

    fn identity(&self, name: &str, certificate: &str, key: &KeyPair) -> ServerIdentity {
        let cert = self.write(&format!("{name}.crt"), certificate);
        ServerIdentity { cert, key: self.write(&format!("{name}.key"), &key.serialize_pem()) }
    }
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn towards_clients(tls: &ClientTls) -> ServerTls {
    ServerTls::new(tls).unwrap().expect("it is on")
}

fn towards_server(mode: BackendTlsMode, ca: Option<PathBuf>, identity: Option<ServerIdentity>) -> ClientSide {
    ClientSide::new(&BackendTls { mode, ca, identity, ..BackendTls::default() }).unwrap().expect("it is on")
}

/// Both ends after the handshake.
fn connect(
    server: &ServerTls,
    client: &ClientSide,
    host: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let mut server = ServerConnection::new(server.config.clone())?;
    let mut client = ClientConnection::new(client.config.clone(), server_name(host).unwrap())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &*wire).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &*wire).unwrap();
        client.process_new_packets()?;
    }
    Ok((server, client))
}

fn is_accepted(server: &ServerIdentity, client: &ClientSide, host: &str) -> bool {
    let server = towards_clients(&ClientTls::Allow(server.clone()));
    connect(&server, client, host).is_ok()
}

#[test]
fn disabled_is_none() {
    assert!(ServerTls::new(&ClientTls::Disable).unwrap().is_none());
    let tls = BackendTls { mode: BackendTlsMode::Disable, ..BackendTls::default() };
    assert!(ClientSide::new(&tls).unwrap().is_none());
}

#[test]
fn modes_say_what_they_require() {
    let pki = Pki::new();
    let identity = pki.sign("db.test");
    let facts = |tls| {
        let tls = towards_clients(&tls);
        (tls.is_required, tls.verifies_clients)
    };
    assert_eq!(facts(ClientTls::Allow(identity.clone())), (false, false));
    assert_eq!(facts(ClientTls::Require(identity.clone())), (true, false));
    assert_eq!(facts(ClientTls::VerifyClient(identity, pki.path("ca.crt"))), (true, true));
    assert!(!towards_server(BackendTlsMode::Prefer, None, None).is_required);
    assert!(towards_server(BackendTlsMode::Require, None, None).is_required);
}

#[test]
fn require_takes_any_certificate() {
    let pki = Pki::new();
    for mode in [BackendTlsMode::Prefer, BackendTlsMode::Require] {
        assert!(is_accepted(&pki.sign("other.test"), &towards_server(mode, None, None), "db.test"));
    }
}

#[test]
fn verify_ca_checks_the_chain_and_not_the_name() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let client = towards_server(BackendTlsMode::VerifyCa, Some(pki.path("ca.crt")), None);
    assert!(is_accepted(&pki.sign("db.test"), &client, "db.test"));
    assert!(is_accepted(&pki.sign("other.test"), &client, "db.test"));
    assert!(!is_accepted(&stranger.sign("db.test"), &client, "db.test"));
}

#[test]
fn verify_full_checks_chain_and_name() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let client = towards_server(BackendTlsMode::VerifyFull, Some(pki.path("ca.crt")), None);
    assert!(is_accepted(&pki.sign("db.test"), &client, "db.test"));
    assert!(is_accepted(&pki.sign("127.0.0.1"), &client, "127.0.0.1"));
    assert!(!is_accepted(&pki.sign("other.test"), &client, "db.test"));
    assert!(!is_accepted(&pki.sign("127.0.0.2"), &client, "127.0.0.1"));
    assert!(!is_accepted(&stranger.sign("db.test"), &client, "db.test"));
}

#[test]
fn self_signed_certificate_may_be_its_own_ca() {
    let pki = Pki::new();
    // As `openssl req -x509` makes it: an authority and a server in one.
    let mut params = leaf("db.test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let identity = pki.self_sign("own", &params);
    let other = pki.self_sign("other", &params);
    for mode in [BackendTlsMode::VerifyCa, BackendTlsMode::VerifyFull] {
        let client = towards_server(mode, Some(identity.cert.clone()), None);
        assert!(is_accepted(&identity, &client, "db.test"), "{mode:?}");
        assert!(!is_accepted(&other, &client, "db.test"), "{mode:?}");
    }
    let client = towards_server(BackendTlsMode::VerifyFull, Some(identity.cert.clone()), None);
    assert!(!is_accepted(&identity, &client, "other.test"));
}

#[test]
fn certificate_that_is_its_own_ca_expires_too() {
    let pki = Pki::new();
    let mut params = leaf("db.test");
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let identity = pki.self_sign("old", &params);
    let client = towards_server(BackendTlsMode::VerifyCa, Some(identity.cert.clone()), None);
    assert!(!is_accepted(&identity, &client, "db.test"));
}

#[test]
fn binding_is_the_same_on_both_sides() {
    let pki = Pki::new();
    let server = towards_clients(&ClientTls::Require(pki.sign("db.test")));
    let client = towards_server(BackendTlsMode::Require, None, None);
    let (_, client) = connect(&server, &client, "db.test").unwrap();
    let seen = Binding::of(&client.peer_certificates().unwrap()[0]);
    assert!(seen.is_some());
    assert_eq!(server.binding, seen);
}

#[test]
fn alpn_is_postgresql() {
    let pki = Pki::new();
    let server = towards_clients(&ClientTls::Require(pki.sign("db.test")));
    let (server, _) = connect(&server, &towards_server(BackendTlsMode::Require, None, None), "db.test").unwrap();
    assert_eq!(server.alpn_protocol(), Some(ALPN));
}

#[test]
fn client_must_show_a_certificate_of_client_ca() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let server = towards_clients(&ClientTls::VerifyClient(pki.sign("db.test"), pki.path("ca.crt")));
    let connect_as = |identity| {
        let client = towards_server(BackendTlsMode::Require, None, identity);
        connect(&server, &client, "db.test").map(|(server, _)| common_name(&server.peer_certificates().unwrap()[0]))
    };
    assert_eq!(connect_as(Some(pki.sign("web"))).unwrap(), Some("web".into()));
    assert!(connect_as(Some(stranger.sign("web"))).is_err());
    assert!(connect_as(None).is_err());
}

#[test]
fn data_flows_and_no_ticket_is_sent() {
    let pki = Pki::new();
    let server = towards_clients(&ClientTls::Require(pki.sign("db.test")));
    let client = towards_server(BackendTlsMode::Require, None, None);
    let (mut server, mut client) = connect(&server, &client, "db.test").unwrap();
    assert!(!server.wants_write(), "a ticket would wait here");
    std::io::Write::write_all(&mut server.writer(), b"R").unwrap();
    let mut wire = Vec::new();
    server.write_tls(&mut wire).unwrap();
    client.read_tls(&mut &*wire).unwrap();
    client.process_new_packets().unwrap();
    assert_eq!(client.tls13_tickets_received(), 0);
    let mut byte = [0];
    client.reader().read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"R");
}

#[test]
fn version_1_certificate_is_taken_where_nothing_is_checked() {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name);
    let identity = ServerIdentity { cert: file("version-1.crt"), key: file("version-1.key") };
    assert!(is_accepted(&identity, &towards_server(BackendTlsMode::Require, None, None), "db.test"));
    let checking = towards_server(BackendTlsMode::VerifyCa, Some(identity.cert.clone()), None);
    assert!(!is_accepted(&identity, &checking, "db.test"));
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let pki = Pki::new();
    let good = pki.sign("db.test");
    let other = pki.sign("other.test");
    let missing = pki.path("missing.crt");
    let text = pki.write("text.crt", "hello");
    let broken = pki.write("broken.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let rubbish = pki.write("rubbish.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let identity = |cert: &Path, key: &Path| {
        let identity = ServerIdentity { cert: cert.to_owned(), key: key.to_owned() };
        ServerTls::new(&ClientTls::Require(identity)).unwrap_err().to_string()
    };
    let ca = |ca: &Path| {
        let tls = BackendTls { mode: BackendTlsMode::VerifyCa, ca: Some(ca.to_owned()), ..BackendTls::default() };
        ClientSide::new(&tls).unwrap_err().to_string()
    };
    for (error, file, what) in [
        (identity(&missing, &good.key), "missing.crt", "No such file"),
        (identity(&text, &good.key), "text.crt", "no certificate in it"),
        (identity(&broken, &good.key), "broken.crt", "base64"),
        (identity(&good.cert, &missing), "missing.crt", "No such file"),
        (identity(&good.cert, &good.cert), "db.test.crt", "no private key in it"),
        (identity(&good.cert, &other.key), "db.test.crt", "is not the certificate of the key in"),
        (identity(&rubbish, &good.key), "rubbish.crt", "not an X.509 certificate"),
        (ca(&missing), "missing.crt", "No such file"),
        (ca(&text), "text.crt", "no certificate in it"),
        (ca(&rubbish), "rubbish.crt", "certificate 1 cannot be trusted"),
    ] {
        assert!(error.contains(file) && error.contains(what), "{error}");
    }
    assert!(server_name("not a host").unwrap_err().to_string().contains("not a host"));
}
