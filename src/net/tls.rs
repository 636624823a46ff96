//! rustls configurations for both sides, made from the checked configuration.
//!
//! Constructors only: they read the PEM files, say which of them is wrong and why, and can be called again on every
//! reload. The listener and the dialler own the sockets and the request byte. The `ring` provider is passed in
//! explicitly, so nothing here is global.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::certificate::{self, Binding};
use crate::config::{BackendTls, BackendTlsMode, ClientTls, Config, ServerIdentity};

/// Postgres's name in ALPN; required of direct TLS, where no SSLRequest names the protocol.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For `tokio_rustls::TlsAcceptor`.
    pub config: Arc<ServerConfig>,
    /// Binding of our certificate, for SCRAM-SHA-256-PLUS; `None` if its algorithm has none.
    pub binding: Option<Binding>,
    /// Clear text is refused.
    pub is_required: bool,
    /// Every client shows a certificate, checked against `client_ca`; its common name must be its role.
    pub verifies_clients: bool,
}

/// TLS towards one database's servers.
#[derive(Debug, Clone)]
pub struct ClientSide {
    /// For `tokio_rustls::TlsConnector`.
    pub config: Arc<ClientConfig>,
    /// Without TLS the connection is given up; `false` only for `prefer`.
    pub is_required: bool,
}

/// Which file is wrong, and how.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Unreadable, or not PEM.
    #[error("{}: {source}", path.display())]
    Pem {
        path: PathBuf,
        /// The reader's error.
        source: pem::Error,
    },
    /// PEM without a `CERTIFICATE`.
    #[error("{}: no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// PEM without a private key.
    #[error("{}: no private key in it", .0.display())]
    NoKey(PathBuf),
    /// A private key of a kind that is not supported, or damaged.
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: rustls::Error },
    /// A certificate that cannot be read.
    #[error("{}: not an X.509 certificate", .0.display())]
    Certificate(PathBuf),
    /// The first certificate of one file is not that of the key in the other.
    #[error("{} is not the certificate of the key in {}", .0.display(), .1.display())]
    Mismatch(PathBuf, PathBuf),
    /// A certificate that cannot be a trust anchor.
    #[error("{}: certificate {number} cannot be trusted as an authority: {source}", path.display())]
    Anchor {
        path: PathBuf,
        /// Which one, from 1.
        number: usize,
        source: rustls::Error,
    },
    /// The client verifier refuses its roots.
    #[error("{}: {source}", path.display())]
    ClientCa { path: PathBuf, source: rustls::server::VerifierBuilderError },
    /// `verify-ca` or `verify-full` without `ca`, and the system has none either.
    #[error("no certificate authorities found in the system; name a file with `ca`")]
    NoSystemRoots,
    /// A host that is neither a DNS name nor an address.
    #[error("\"{0}\" is neither a host name nor an address")]
    HostName(String),
}

impl ServerTls {
    /// From `listen.tls`; `None` when it is `disable`.
    pub fn new(tls: &ClientTls) -> Result<Option<Self>, TlsError> {
        let (identity, client_ca, is_required) = match tls {
            ClientTls::Disable => return Ok(None),
            ClientTls::Allow(identity) => (identity, None, false),
            ClientTls::Require(identity) => (identity, None, true),
            ClientTls::VerifyClient(identity, client_ca) => (identity, Some(client_ca), true),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has suites for TLS 1.2 and 1.3");
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(path)?.into(), provider())
                    .build()
                    .map_err(|source| TlsError::ClientCa { path: path.clone(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let certified = load(identity)?;
        let binding = certified.cert.first().and_then(Binding::of);
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // No session cache, and so no tickets either, as in Postgres: clients of a pooler stay connected, and a cache
        // costs memory per client that is never looked at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Some(Self { config: config.into(), binding, is_required, verifies_clients: client_ca.is_some() }))
    }
}

impl ClientSide {
    /// From `databases.*.tls`; `None` when it is `disable`.
    pub fn new(tls: &BackendTls) -> Result<Option<Self>, TlsError> {
        let (is_required, check) = match tls.mode {
            BackendTlsMode::Disable => return Ok(None),
            BackendTlsMode::Prefer => (false, Check::Nothing),
            BackendTlsMode::Require => (true, Check::Nothing),
            BackendTlsMode::VerifyCa => (true, Check::Chain(Anchors::load(tls.ca.as_deref())?)),
            BackendTlsMode::VerifyFull => (true, Check::ChainAndName(Anchors::load(tls.ca.as_deref())?)),
        };
        let verifier = CertificateVerifier { check, provider: provider() };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(load(identity)?))),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Some(Self { config: config.into(), is_required }))
    }
}

/// The name rustls asks for and checks: a DNS name (sent as SNI) or an address (not sent).
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::HostName(host.to_owned()))
}

/// Loads every file that `config` names, as a start would, and returns each error with the key it belongs to.
pub(crate) fn check(config: &Config) -> Vec<(String, TlsError)> {
    let listen = ServerTls::new(&config.listen.tls).err().map(|error| ("listen.tls".to_owned(), error));
    let databases = config.databases.iter().filter_map(|(name, database)| {
        ClientSide::new(&database.tls).err().map(|error| (format!("databases.{name}.tls"), error))
    });
    listen.into_iter().chain(databases).collect()
}

/// A certificate that pgweir shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownCertificate {
    pub file: PathBuf,
    /// When the first of its chain expires, in seconds since 1970.
    pub expires: i64,
}

/// The certificates that pgweir shows to clients and to servers, each file once. One that cannot be read is left out:
/// [`check`] says why.
pub(crate) fn shown_certificates(config: &Config) -> Vec<ShownCertificate> {
    let to_clients = match &config.listen.tls {
        ClientTls::Disable => None,
        ClientTls::Allow(identity) | ClientTls::Require(identity) | ClientTls::VerifyClient(identity, _) => {
            Some(identity)
        }
    };
    let to_servers = config.databases.values().filter_map(|database| database.tls.identity.as_ref());
    let files: BTreeSet<&Path> = to_clients.into_iter().chain(to_servers).map(|of| of.cert.as_path()).collect();
    let shown = |file: &Path| {
        let expires = certificates(file).ok()?.iter().filter_map(certificate::expires).min()?;
        Some(ShownCertificate { file: file.to_owned(), expires })
    };
    files.into_iter().filter_map(shown).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads certificate and key and checks that they belong together. Done here because rustls's own check does not read
/// certificates of version 1, which OpenSSL and so Postgres and PgBouncer serve.
fn load(identity: &ServerIdentity) -> Result<CertifiedKey, TlsError> {
    let ServerIdentity { cert, key } = identity;
    let chain = certificates(cert)?;
    let of_certificate = certificate::public_key(&chain[0]).ok_or_else(|| TlsError::Certificate(cert.clone()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey(key.clone()),
        source => TlsError::Pem { path: key.clone(), source },
    })?;
    let signer = provider()
        .key_provider
        .load_private_key(private)
        .map_err(|source| TlsError::Key { path: key.clone(), source })?;
    if signer.public_key().is_some_and(|of_key| of_key != of_certificate) {
        return Err(TlsError::Mismatch(cert.clone(), key.clone()));
    }
    Ok(CertifiedKey::new(chain, signer))
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|source| TlsError::Anchor {
            path: path.to_owned(),
            number: index + 1,
            source,
        })?;
    }
    Ok(roots)
}

/// The certificates that a server's certificate is checked against.
#[derive(Debug)]
struct Anchors {
    roots: RootCertStore,
    /// The certificates of `ca` themselves. OpenSSL trusts a server that shows one of them, so a self-signed
    /// certificate may be its own `ca`; webpki alone refuses that.
    pinned: Vec<CertificateDer<'static>>,
}

impl Anchors {
    fn load(ca: Option<&Path>) -> Result<Self, TlsError> {
        if let Some(path) = ca {
            return Ok(Self { roots: roots(path)?, pinned: certificates(path)? });
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(Self { roots, pinned: Vec::new() }) }
    }
}

/// libpq's `sslmode` as rustls sees it. Handshake signatures are checked in every mode.
#[derive(Debug)]
enum Check {
    Nothing,
    Chain(Anchors),
    ChainAndName(Anchors),
}

#[derive(Debug)]
struct CertificateVerifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (anchors, checks_name) = match &self.check {
            Check::Nothing => return Ok(ServerCertVerified::assertion()),
            Check::Chain(anchors) => (anchors, false),
            Check::ChainAndName(anchors) => (anchors, true),
        };
        let parsed = ParsedCertificate::try_from(leaf)?;
        if !anchors.pinned.contains(leaf) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &anchors.roots, intermediates, now, algorithms)?;
        } else if !certificate::is_current(leaf, now) {
            return Err(CertificateError::Expired.into());
        }
        if checks_name {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match (&self.check, certificate::public_key(cert)) {
            // Where nothing of the certificate is checked, its key is all that is needed.
            (Check::Nothing, Some(key)) => verify_tls13_signature_with_raw_key(message, &key, signature, algorithms),
            _ => verify_tls13_signature(message, cert, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
