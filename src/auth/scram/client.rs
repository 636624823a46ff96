//! Our side of an exchange with Postgres: a type per state, each consumed by the message that ends it. The server is
//! not trusted: its messages are bounded, and it must prove that it knows the secret too.

use std::num::NonZeroU32;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::text::{Attributes, utf8};
use super::{
    Gs2, ITERATIONS_MAX, Key, Keys, MECHANISM, MECHANISM_PLUS, SALT_MAX, ScramError, decode_key, is_equal, sign, xor,
};
use crate::net::certificate::Binding;

/// Waits for the server's first message.
pub(crate) struct ClientExchange {
    gs2: Gs2,
    nonce: String,
}

/// The server's first message: with this salt and iteration count [`Keys`] are wanted.
pub(crate) struct ServerFirst {
    /// Salt.
    pub salt: Box<[u8]>,
    /// PBKDF2 rounds, at most [`ITERATIONS_MAX`].
    pub iterations: NonZeroU32,
    gs2: Gs2,
    nonce: String,
    /// `client-first-message-bare "," server-first-message ","`: the start of the signed text.
    pub(super) signed: String,
}

/// Waits for the server's last message.
pub(crate) struct ExpectServerFinal {
    pub(super) signature: Key,
}

impl ClientExchange {
    /// Chooses among the mechanisms of AuthenticationSASL; `None` if none of them is SCRAM-SHA-256. `binding` is that
    /// of the server's certificate, `nonce` is ours: random, printable, new in each exchange.
    pub(crate) fn choose<'a>(
        mechanisms: impl IntoIterator<Item = &'a str>,
        binding: Option<Binding>,
        nonce: String,
    ) -> Option<Self> {
        let (mut has_plain, mut has_plus) = (false, false);
        for mechanism in mechanisms {
            has_plain |= mechanism == MECHANISM;
            has_plus |= mechanism == MECHANISM_PLUS;
        }
        let gs2 = match binding {
            Some(binding) if has_plus => Gs2::EndPoint(binding),
            _ if !has_plain => return None,
            Some(_) => Gs2::NotOffered,
            None => Gs2::Unsupported,
        };
        Some(Self { gs2, nonce })
    }

    /// The mechanism to name in SASLInitialResponse.
    pub(crate) fn mechanism(&self) -> &'static str {
        match self.gs2 {
            Gs2::EndPoint(_) => MECHANISM_PLUS,
            Gs2::Unsupported | Gs2::NotOffered => MECHANISM,
        }
    }

    /// The first message. The name is empty, as libpq sends it: the startup packet has it.
    pub(crate) fn first(&self) -> String {
        format!("{}{}", self.gs2.header(), self.bare())
    }

    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Takes the server's first message.
    pub(crate) fn server_first(self, message: &[u8]) -> Result<ServerFirst, ScramError> {
        let message = utf8(message)?;
        let mut attributes = Attributes::new(message);
        let nonce = attributes.nonce()?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt = BASE64_STANDARD
            .decode(attributes.take('s')?)
            .ok()
            .filter(|salt| (1..=SALT_MAX).contains(&salt.len()))
            .ok_or(ScramError::Malformed("salt"))?;
        let iterations: NonZeroU32 =
            attributes.take('i')?.parse().map_err(|_| ScramError::Malformed("iteration count"))?;
        attributes.end()?;
        if iterations.get() > ITERATIONS_MAX {
            return Err(ScramError::Iterations(iterations.get()));
        }
        let signed = format!("{},{message},", self.bare());
        Ok(ServerFirst { salt: salt.into(), iterations, gs2: self.gs2, nonce: nonce.to_owned(), signed })
    }
}

impl ServerFirst {
    /// The last message: the proof.
    pub(crate) fn prove(self, keys: &Keys) -> (String, ExpectServerFinal) {
        let without_proof = format!("c={},r={}", self.gs2.encoded(), self.nonce);
        let signed = self.signed + &without_proof;
        let proof = xor(&keys.client_key, &sign(&keys.stored_key(), signed.as_bytes()));
        let message = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
        (message, ExpectServerFinal { signature: sign(&keys.server_key, signed.as_bytes()) })
    }
}

impl ExpectServerFinal {
    /// Takes the server's last message: it must know the secret too.
    pub(crate) fn last(self, message: &[u8]) -> Result<(), ScramError> {
        let mut attributes = Attributes::new(utf8(message)?);
        match attributes.any()? {
            ('v', signature) => {
                let signature = decode_key(signature).ok_or(ScramError::Malformed("signature"))?;
                attributes.end()?;
                if is_equal(&signature, &self.signature) { Ok(()) } else { Err(ScramError::ServerSignature) }
            }
            ('e', _) => Err(ScramError::Refused),
            _ => Err(ScramError::Malformed("another attribute expected")),
        }
    }
}
