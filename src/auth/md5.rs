//! Postgres's MD5 authentication, for drivers and servers too old for SCRAM.

use std::fmt::{self, Write};

use md5::{Digest, Md5};

/// `md5(password ‖ role)` as 32 hexadecimal digits: Postgres stores them behind `md5`.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash(String);

impl Md5Hash {
    /// The hash of a password. The role is the salt.
    pub fn new(password: &str, role: &str) -> Self {
        Self(hex(&[password.as_bytes(), role.as_bytes()]))
    }

    /// Reads `md5` and 32 digits, as `pg_authid.rolpassword` has it. Anything else is a password.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5").filter(|digits| digits.len() == 32)?;
        digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then(|| Self(digits.to_owned()))
    }

    /// The client's answer to AuthenticationMD5Password.
    pub fn answer(&self, salt: [u8; 4]) -> String {
        format!("md5{}", hex(&[self.0.as_bytes(), &salt]))
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn hex(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().iter().fold(String::with_capacity(32), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_one_postgres_stores() {
        // PostgreSQL 15: create role d password 'pencil' under password_encryption = md5.
        let stored = "md5f6100b06df553dbff70d9a6a8a6d9295";
        assert_eq!(Md5Hash::parse(stored), Some(Md5Hash::new("pencil", "d")));
    }

    #[test]
    fn answer_covers_the_salt() {
        let hash = Md5Hash::new("pencil", "d");
        assert_eq!(hash.answer([1, 2, 3, 4]).len(), 35);
        assert_ne!(hash.answer([1, 2, 3, 4]), hash.answer([1, 2, 3, 5]));
    }

    #[test]
    fn password_that_starts_with_md5_is_a_password() {
        for text in ["md5", "md5rocks", "md5F6100B06DF553DBFF70D9A6A8A6D9295", "f6100b06df553dbff70d9a6a8a6d9295"] {
            assert_eq!(Md5Hash::parse(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", Md5Hash::new("a", "b")), "***");
    }
}
