//! Which certificates are a role's: `roles.*.certificates`.

use std::fmt;

use crate::words::words;

words! {
    /// A name in a certificate.
    #[derive(PartialOrd, Ord)]
    pub enum CertificateField {
        /// The common name of the subject.
        CommonName = "cn",
        /// A DNS name among the alternative names.
        Dns = "dns",
        /// An e-mail address among them.
        Email = "email",
        /// A URI among them, such as a SPIFFE id.
        Uri = "uri",
    }
}

/// A pattern for one such name: `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificatePattern {
    field: CertificateField,
    text: String,
}

impl CertificatePattern {
    /// Reads a field, a colon and a pattern.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (field, text) = text.split_once(':').filter(|(_, text)| !text.is_empty())?;
        let field = CertificateField::ALL.into_iter().find(|known| known.word() == field)?;
        Some(Self { field, text: text.to_owned() })
    }

    /// Whether this name of a certificate fits.
    pub fn fits(&self, field: CertificateField, name: &str) -> bool {
        if field != self.field {
            return false;
        }
        match field {
            // Their case means nothing.
            CertificateField::Dns => is_like(&self.text.to_ascii_lowercase(), &name.to_ascii_lowercase()),
            CertificateField::CommonName | CertificateField::Email | CertificateField::Uri => is_like(&self.text, name),
        }
    }
}

impl fmt::Display for CertificatePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.field.word(), self.text)
    }
}

fn is_like(pattern: &str, name: &str) -> bool {
    let Some((start, pattern)) = pattern.split_once('*') else { return pattern == name };
    let (middle, end) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    let Some(rest) = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)) else { return false };
    // The leftmost place for each part leaves most to those behind it.
    let mut parts = middle.split('*');
    parts.try_fold(rest, |rest, part| rest.find(part).map(|at| &rest[at + part.len()..])).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name) in
            [("web", "web"), ("web-*", "web-1"), ("*", ""), ("*.b", "a.b"), ("a*b*c", "axbxbc"), ("a**c", "abc")]
        {
            assert!(is_like(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("web", "webs"), ("web-*", "web"), ("a*a", "a"), ("a*b*c", "acb"), ("a*b*c", "abdd")] {
            assert!(!is_like(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_is_of_one_field() {
        let pattern = CertificatePattern::parse("dns:*.Web.internal").expect("a pattern");
        assert!(pattern.fits(CertificateField::Dns, "a.web.internal"));
        assert!(!pattern.fits(CertificateField::CommonName, "a.web.internal"));
        for wrong in ["web", "cn:", "san:web", ""] {
            assert_eq!(CertificatePattern::parse(wrong), None, "{wrong}");
        }
    }
}
