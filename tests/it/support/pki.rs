//! Certificates of our own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::output_of;

/// An authority and what it signed; the files are gone when it is dropped.
pub(crate) struct Pki {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// A new authority; its certificate is `ca.crt`.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let pki = Self { dir, ca };
        pki.write("ca.crt", &pki.ca.pem());
        pki
    }

    /// Signs `NAME.crt` for this common name and host (an address or a name), with `NAME.key`; a second time it
    /// replaces them.
    pub(crate) fn issue(&self, name: &str, host: &str) {
        self.issue_until(name, host, 4000);
    }

    /// One that is valid until this year.
    pub(crate) fn issue_until(&self, name: &str, host: &str, year: i32) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.crt"), &params.signed_by(&key, &self.ca).expect("a certificate").pem());
    }

    /// Puts a file among the others.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).expect("our own directory");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The certificate itself, to compare with what a server shows.
    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
        certificate.expect("we wrote it").to_vec()
    }

    /// Settings with which Postgres shows `NAME.crt`; its files become those of its user.
    pub(crate) fn postgres_settings(&self, name: &str) -> [String; 4] {
        let (cert, key, ca) =
            (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")), self.path("ca.crt"));
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg("postgres").args([&cert, &key, &ca]);
            output_of(chown);
        }
        let file = |setting: &str, path: &Path| format!("{setting}={}", path.display());
        ["ssl=on".to_owned(), file("ssl_cert_file", &cert), file("ssl_key_file", &key), file("ssl_ca_file", &ca)]
    }
}
