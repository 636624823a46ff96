//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: keys, verifiers and the parts both sides of an exchange share.
//!
//! RFC 5802 and 7677, with Postgres's choices where they leave one (`src/common/scram-common.c`, `auth-scram.c`,
//! `fe-auth-scram.c`). No I/O, and no PBKDF2 but in [`Keys::derive`], which takes milliseconds: the exchanges never
//! call it, they are handed the keys. `auth::secrets` derives and caches them.

mod client;
mod server;
mod text;

use std::fmt;
use std::num::NonZeroU32;

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

pub(crate) use client::{ClientExchange, ExpectServerFinal, ServerFirst};
pub(crate) use server::{ClientFinal, ExpectClientFinal, ServerExchange};

use crate::net::certificate::Binding;

/// The mechanism without channel binding.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// The mechanism with channel binding.
pub(crate) const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Rounds of verifiers made here: Postgres's default of `scram_iterations`.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// Most rounds a server may ask of us: about 0.4 s of one core, once, since the result is cached. Recommendations for
/// stored hashes end at 600,000; Postgres would allow two thousand million, with which a server could occupy us for
/// hours.
pub(crate) const ITERATIONS_MAX: u32 = 1_000_000;

/// Longest salt and longest nonce taken from a peer. Postgres sends 16 and 24 bytes.
const SALT_MAX: usize = 1024;
const NONCE_MAX: usize = 1024;

/// One of the 32-byte values of the exchange.
type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// Reasons why an exchange is broken off. A wrong password is none of them: [`ClientFinal::check`] returns `None` for
/// it, or the server sends its own ErrorResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message does not follow the grammar of RFC 5802 at this place (08P01).
    #[error("malformed SCRAM message ({0})")]
    Malformed(&'static str),
    /// A name in `a=` (0A000).
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// A mandatory extension, `m=` (0A000).
    #[error("SCRAM message requires an unsupported extension")]
    Extension,
    /// The chosen mechanism was not offered (08P01).
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// Mechanism and binding flag contradict each other (08P01).
    #[error("SCRAM channel binding does not fit the selected mechanism")]
    BindingFlag,
    /// A binding other than `tls-server-end-point` (08P01).
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The client can bind and saw no offer of it, though we made one: somebody is in between (28000).
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The client sees another certificate than ours: somebody is in between (28000).
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The nonce of the last message is not the one of this exchange, or the server did not add to ours (08P01).
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// More rounds than [`ITERATIONS_MAX`].
    #[error("server asks for {0} SCRAM iterations, more than {ITERATIONS_MAX}")]
    Iterations(u32),
    /// The server reports an error in its last message instead of a signature.
    #[error("server refused the SCRAM exchange")]
    Refused,
    /// The server does not know the role's secret either: it is an impostor.
    #[error("server's SCRAM signature is wrong")]
    ServerSignature,
}

/// Keys of a password with one salt and iteration count: for proving it, and for recognising a server that knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Proves the password; anybody who has this key can log in.
    pub client_key: Key,
    /// Signs the server's last message.
    pub server_key: Key,
}

/// [`Keys`] recovered from a client's login. They open a backend only where the server's verifier has this very salt
/// and iteration count.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveredKeys {
    /// The keys.
    pub keys: Keys,
    /// Salt of the verifier the client proved itself against.
    pub salt: Box<[u8]>,
    /// Its iteration count.
    pub iterations: NonZeroU32,
}

/// The form in which Postgres keeps a password: enough to check a login, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// PBKDF2 rounds.
    pub iterations: NonZeroU32,
    /// Salt.
    pub salt: Box<[u8]>,
    /// SHA-256 of the client key.
    pub stored_key: Key,
    /// Signs the server's last message.
    pub server_key: Key,
}

impl Keys {
    /// Derives the keys: `iterations` rounds of PBKDF2, **not for an I/O thread**.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        let password = normalize(password);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
        Self { client_key: sign(&salted, b"Client Key"), server_key: sign(&salted, b"Server Key") }
    }

    /// The key that checks a proof made with the client key.
    pub fn stored_key(&self) -> Key {
        hash(&self.client_key)
    }
}

impl Verifier {
    /// The verifier of a password. Runs PBKDF2, **not for an I/O thread**.
    pub fn new(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let keys = Keys::derive(password, salt, iterations);
        Self { iterations, salt: salt.into(), stored_key: keys.stored_key(), server_key: keys.server_key }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as `pg_authid.rolpassword` has it.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let salt = BASE64_STANDARD.decode(salt).ok().filter(|salt| (1..=SALT_MAX).contains(&salt.len()))?;
        Some(Self {
            iterations: iterations.bytes().all(|b| b.is_ascii_digit()).then(|| iterations.parse().ok())??,
            salt: salt.into(),
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }
}

/// The form Postgres stores, which `ALTER ROLE … PASSWORD` takes.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&*self.salt, &self.stored_key, &self.server_key].map(|bytes| BASE64_STANDARD.encode(bytes));
        write!(f, "{MECHANISM}${}:{salt}${stored_key}:{server_key}", self.iterations)
    }
}

macro_rules! prints_nothing {
    ($($secret:ty),*) => {$(
        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("***")
            }
        }
    )*};
}
prints_nothing!(Keys, RecoveredKeys, Verifier);

/// The first field of a client's first message: whether it can bind, and whether it saw an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gs2 {
    /// `n`: it cannot bind.
    Unsupported,
    /// `y`: it can, and saw no offer.
    NotOffered,
    /// `p=tls-server-end-point`: it binds to this certificate.
    EndPoint(Binding),
}

impl Gs2 {
    /// As written in front of the first message.
    fn header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// As repeated in `c=` of the last message.
    fn encoded(&self) -> String {
        let data = match self {
            Self::EndPoint(binding) => binding.as_bytes(),
            Self::Unsupported | Self::NotOffered => &[],
        };
        BASE64_STANDARD.encode([self.header().as_bytes(), data].concat())
    }
}

/// SASLprep as Postgres applies it: a password it does not allow is used as it is.
fn normalize(password: &str) -> std::borrow::Cow<'_, str> {
    match stringprep::saslprep(password) {
        Ok(prepared) if !prepared.is_empty() => prepared,
        _ => password.into(),
    }
}

fn sign(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn hash(bytes: &[u8]) -> Key {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn decode_key(text: &str) -> Option<Key> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
