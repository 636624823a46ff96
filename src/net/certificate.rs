//! Facts of an X.509 certificate that a login needs, and nothing about trust: `net::tls` decides on trust.

use std::sync::Arc;

use ring::digest;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry as oid;
use x509_parser::parse_x509_certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

use crate::config::CertificateField;

/// The `tls-server-end-point` channel binding: the hash of the server's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding(Arc<[u8]>);

impl Binding {
    /// The binding of a server that showed `certificate`, by RFC 5929 §4.1: the hash of its signature algorithm,
    /// SHA-256 where that is MD5 or SHA-1. `None` where the RFC defines none (Ed25519) or the certificate is
    /// unreadable: then SCRAM-SHA-256-PLUS cannot be used, as in Postgres.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let hash = signature_hash(&parsed.signature_algorithm)?;
        Some(Self(digest::digest(hash, certificate).as_ref().into()))
    }

    /// The bytes both sides must agree on.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_tests(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

fn signature_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<&'static digest::Algorithm> {
    let sha256 = [
        oid::OID_PKCS1_MD5WITHRSAENC,
        oid::OID_PKCS1_SHA1WITHRSA,
        oid::OID_HASH_SHA1,
        oid::OID_PKCS1_SHA256WITHRSA,
        oid::OID_SIG_ECDSA_WITH_SHA256,
        oid::OID_NIST_HASH_SHA256,
    ];
    let sha384 = [oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384, oid::OID_NIST_HASH_SHA384];
    let sha512 = [oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512, oid::OID_NIST_HASH_SHA512];

    // RSASSA-PSS has its hash in its parameters, every other algorithm in its own name.
    let parsed = (algorithm.algorithm == oid::OID_PKCS1_RSASSAPSS).then(|| SignatureAlgorithm::try_from(algorithm));
    let named = match &parsed {
        Some(Ok(SignatureAlgorithm::RSASSA_PSS(parameters))) => parameters.hash_algorithm_oid(),
        _ => &algorithm.algorithm,
    };
    if sha256.contains(named) {
        Some(&digest::SHA256)
    } else if sha384.contains(named) {
        Some(&digest::SHA384)
    } else if sha512.contains(named) {
        Some(&digest::SHA512)
    } else {
        None
    }
}

/// The names in a certificate by which a role may know it: its first common name, and its alternative names. One with a
/// NUL inside is left out, as in [`common_name`].
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<(CertificateField, String)> {
    let mut names: Vec<_> =
        common_name(certificate).map(|name| (CertificateField::CommonName, name)).into_iter().collect();
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else { return names };
    let Ok(Some(alternative)) = parsed.subject_alternative_name() else { return names };
    names.extend(alternative.value.general_names.iter().filter_map(|name| {
        let (field, name) = match name {
            GeneralName::DNSName(name) => (CertificateField::Dns, name),
            GeneralName::RFC822Name(name) => (CertificateField::Email, name),
            GeneralName::URI(name) => (CertificateField::Uri, name),
            _ => return None,
        };
        (!name.contains('\0')).then(|| (field, (*name).to_owned()))
    }));
    names
}

/// The first common name of a certificate's subject, the one Postgres compares with the role. A NUL inside, with which
/// a certificate for `root\0.example` once passed for `root`, makes it none.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty() && !name.contains('\0')).then(|| name.to_owned())
}

/// Whether `now` lies between a certificate's dates.
pub(super) fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| {
        let dates = parsed.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        (dates.not_before.timestamp()..=dates.not_after.timestamp()).contains(&now)
    })
}

/// When a certificate expires, in seconds since 1970.
pub(super) fn expires(certificate: &CertificateDer<'_>) -> Option<i64> {
    parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed.validity().not_after.timestamp())
}

/// A certificate's public key, also where webpki does not read the certificate (version 1, as plain
/// `openssl x509 -req` makes them).
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SignatureAlgorithm};
    use rustls::pki_types::pem::PemObject;

    fn signed_by(algorithm: &'static SignatureAlgorithm) -> CertificateDer<'static> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(vec!["db".into()]).unwrap().self_signed(&key).unwrap().into()
    }

    #[test]
    fn binding_uses_the_hash_of_the_signature() {
        for (algorithm, length) in [(&rcgen::PKCS_ECDSA_P256_SHA256, 32), (&rcgen::PKCS_ECDSA_P384_SHA384, 48)] {
            let certificate = signed_by(algorithm);
            let hash = if length == 32 { &digest::SHA256 } else { &digest::SHA384 };
            let expected = digest::digest(hash, &certificate);
            assert_eq!(Binding::of(&certificate).unwrap().as_bytes(), expected.as_ref());
        }
    }

    #[test]
    fn binding_of_rsa_pss_uses_the_hash_of_its_parameters() {
        // openssl req -x509 -newkey rsa:1024 -sigopt rsa_padding_mode:pss -sha384
        let pem = include_bytes!("../../tests/tls/rsa-pss-sha384.crt");
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        let expected = digest::digest(&digest::SHA384, &certificate);
        assert_eq!(Binding::of(&certificate).unwrap().as_bytes(), expected.as_ref());
    }

    #[test]
    fn ed25519_has_no_binding() {
        assert_eq!(Binding::of(&signed_by(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn first_common_name_is_the_one() {
        let name = |common_name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::OrganizationName, "org");
            params.distinguished_name.push(DnType::CommonName, common_name);
            common_name_of(params)
        };
        assert_eq!(name("web"), Some("web".into()));
        assert_eq!(name("wéb"), Some("wéb".into()));
        assert_eq!(name("web\0x"), None);
        assert_eq!(name(""), None);
    }

    fn common_name_of(params: CertificateParams) -> Option<String> {
        common_name(&params.self_signed(&KeyPair::generate().unwrap()).unwrap().into())
    }

    #[test]
    fn certificate_without_a_name_has_none() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        assert_eq!(common_name_of(params), None);
    }

    #[test]
    fn rubbish_has_neither_name_nor_binding() {
        let rubbish = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 1]);
        assert_eq!((common_name(&rubbish), Binding::of(&rubbish)), (None, None));
        assert!(public_key(&rubbish).is_none() && !is_current(&rubbish, UnixTime::now()));
    }
}
