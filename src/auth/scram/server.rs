//! Our side of an exchange with a client: a type per state, each consumed by the message that ends it.

use std::num::NonZeroU32;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::text::{Attributes, utf8};
use super::{Gs2, Key, Keys, MECHANISM, MECHANISM_PLUS, ScramError, decode_key, hash, is_equal, sign, xor};
use crate::net::certificate::Binding;

/// Waits for the client's first message.
pub(crate) struct ServerExchange {
    binding: Option<Binding>,
}

/// Waits for the client's last message.
pub(crate) struct ExpectClientFinal {
    gs2: Gs2,
    nonce: String,
    /// `client-first-message-bare "," server-first-message ","`: the start of the signed text.
    signed: String,
}

/// A client's last message, its form and binding checked, its proof not yet.
pub(crate) struct ClientFinal {
    proof: Key,
    signed: String,
}

impl ServerExchange {
    /// With a `binding` SCRAM-SHA-256-PLUS is offered, as [`ServerExchange::mechanisms`] says.
    pub(crate) fn new(binding: Option<Binding>) -> Self {
        Self { binding }
    }

    /// Mechanisms to list in AuthenticationSASL, best first.
    pub(crate) fn mechanisms(&self) -> &'static [&'static str] {
        if self.binding.is_some() { &[MECHANISM_PLUS, MECHANISM] } else { &[MECHANISM] }
    }

    /// Takes the client's first message and answers it. `nonce` is ours: random, printable, new in each exchange.
    pub(crate) fn first(
        self,
        mechanism: &str,
        message: &[u8],
        nonce: &str,
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Result<(String, ExpectClientFinal), ScramError> {
        let (gs2, bare) = self.split_gs2(mechanism, utf8(message)?)?;
        let mut attributes = Attributes::new(bare);
        // The role is the startup packet's; Postgres ignores this one too.
        attributes.take('n')?;
        let nonce = format!("{}{nonce}", attributes.nonce()?);
        while !attributes.is_at_end() {
            attributes.any()?;
        }
        let answer = format!("r={nonce},s={},i={iterations}", BASE64_STANDARD.encode(salt));
        let signed = format!("{bare},{answer},");
        Ok((answer, ExpectClientFinal { gs2, nonce, signed }))
    }

    /// Splits `gs2-header client-first-message-bare` and checks that flag, mechanism and offer agree.
    fn split_gs2<'a>(self, mechanism: &str, message: &'a str) -> Result<(Gs2, &'a str), ScramError> {
        let is_plus = match mechanism {
            MECHANISM => false,
            MECHANISM_PLUS if self.binding.is_some() => true,
            _ => return Err(ScramError::Mechanism),
        };
        let malformed = ScramError::Malformed("binding flag expected");
        let (flag, rest) = message.split_once(',').ok_or(malformed)?;
        let (identity, bare) = rest.split_once(',').ok_or(malformed)?;
        let gs2 = match (flag, self.binding) {
            ("n", _) => Gs2::Unsupported,
            ("y", _) if is_plus => return Err(ScramError::BindingFlag),
            ("y", Some(_)) => return Err(ScramError::Downgrade),
            ("y", None) => Gs2::NotOffered,
            ("p=tls-server-end-point", Some(binding)) => Gs2::EndPoint(binding),
            _ if !flag.starts_with("p=") => return Err(malformed),
            _ if is_plus => return Err(ScramError::BindingType),
            _ => return Err(ScramError::BindingFlag),
        };
        match identity {
            "" if is_plus == matches!(gs2, Gs2::EndPoint(_)) => Ok((gs2, bare)),
            "" => Err(ScramError::BindingFlag),
            _ if identity.starts_with("a=") => Err(ScramError::AuthorizationIdentity),
            _ => Err(ScramError::Malformed("authorization identity expected")),
        }
    }
}

impl ExpectClientFinal {
    /// Takes the client's last message. Its proof is for [`ClientFinal::check`], once the keys are at hand.
    pub(crate) fn last(self, message: &[u8]) -> Result<ClientFinal, ScramError> {
        let message = utf8(message)?;
        let mut attributes = Attributes::new(message);
        let binding = attributes.take('c')?;
        let nonce = attributes.nonce()?;
        let proof = loop {
            if let ('p', proof) = attributes.any()? {
                break proof;
            }
        };
        attributes.end()?;
        if binding != self.gs2.encoded() {
            return Err(match self.gs2 {
                Gs2::EndPoint(_) => ScramError::BindingMismatch,
                Gs2::Unsupported | Gs2::NotOffered => ScramError::Malformed("channel binding not as announced"),
            });
        }
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        let without_proof = &message[..message.len() - proof.len() - ",p=".len()];
        let signed = self.signed + without_proof;
        Ok(ClientFinal { proof: decode_key(proof).ok_or(ScramError::Malformed("proof"))?, signed })
    }
}

impl ClientFinal {
    /// Checks the proof. Gives our last message and the client's keys, with which a backend can be opened, or `None` if
    /// the password is wrong.
    pub(crate) fn check(&self, stored_key: &Key, server_key: &Key) -> Option<(String, Keys)> {
        let client_key = xor(&self.proof, &sign(stored_key, self.signed.as_bytes()));
        if !is_equal(&hash(&client_key), stored_key) {
            return None;
        }
        let signature = BASE64_STANDARD.encode(sign(server_key, self.signed.as_bytes()));
        Some((format!("v={signature}"), Keys { client_key, server_key: *server_key }))
    }
}
