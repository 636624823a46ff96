//! Random bytes of the operating system, for keys, salts and nonces.

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system always has random bytes");
    bytes
}

/// A nonce for SCRAM: 18 random bytes as 24 characters, as Postgres makes them.
pub(super) fn nonce() -> String {
    BASE64_STANDARD.encode(random::<18>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_new_and_printable() {
        assert_ne!(nonce(), nonce());
        assert!(nonce().bytes().all(|b| b.is_ascii_graphic() && b != b',') && nonce().len() == 24);
    }
}
