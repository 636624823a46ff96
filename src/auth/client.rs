//! The login of one client, after its StartupMessage and before its AuthenticationOk.
//!
//! No I/O: [`ClientLogin::start`], then [`ClientLogin::message`] for each message of the client and
//! [`ClientLogin::hashed`] for each hash, until [`ClientLoginStep::Done`] or [`ClientLoginStep::Refused`]. A role that
//! does not exist goes through the same messages as one that does and fails with the same words.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::hashing::{HashJob, Lookup};
use super::md5::Md5Hash;
use super::message::{self, BODY_MAX, code};
use super::mock::SecretForm;
use super::random::{nonce, random};
use super::scram::{
    ClientFinal, ExpectClientFinal, ITERATIONS, Keys, RecoveredKeys, ScramError, ServerExchange, Verifier,
};
use super::secrets::{SALT_LEN, Secrets, Stored};
use super::{Channel, Credential};
use crate::config::Secret;
use crate::wire::tag::frontend;

/// The way a client proves its identity: the role's `auth`, with the secret that had to be looked up.
#[derive(Debug, Clone)]
pub enum Method {
    /// Not at all.
    Trust,
    /// By its TLS certificate.
    Certificate,
    /// By knowing the role's secret, configured or from `auth_query`.
    Password {
        /// The secret.
        secret: Stored,
        /// Ask for MD5 where the secret allows it. Where it is an MD5 hash nothing else is possible, and where it is a
        /// SCRAM verifier MD5 is not, as in Postgres.
        md5: bool,
    },
    /// There is no such role, or it has no secret: it looks like others of this form, and always fails.
    Nobody(SecretForm),
    /// As [`Self::Nobody`], where others are asked for their passwords themselves.
    NobodyPassthrough,
    /// By a login that opens a backend.
    Passthrough {
        /// The role's verifier if it is known; without it the password is asked for, if the channel hides it.
        verifier: Option<Verifier>,
    },
}

/// The client that logs in, and its channel.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// `user` of the startup packet.
    pub role: String,
    /// Channel that carries the login; its binding is that of our own certificate.
    pub channel: Channel,
    /// The client's certificate, as far as TLS has verified one.
    pub certificate: ClientCertificate,
}

/// Whether TLS has verified a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No TLS, or `listen.tls.mode` is not `verify-client`.
    NotAsked,
    /// Verified against `client_ca`, and one of the role's.
    OfRole,
    /// Verified against `client_ca`, but not one of the role's, with which nothing else helps.
    OfAnother,
}

/// The next step of the driver.
#[derive(Debug)]
pub enum ClientLoginStep {
    /// Send this, wait for a message, give it to [`ClientLogin::message`].
    Send(Vec<u8>),
    /// Run this off the I/O threads, give the keys to [`ClientLogin::hashed`]; read nothing meanwhile.
    Hash(HashJob),
    /// The client's identity is proved, unless the credential is [`Credential::Unproved`].
    Done {
        /// To be sent before AuthenticationOk; may be empty.
        send: Vec<u8>,
        /// Credential that opens this client's backends, if the configuration names no other.
        credential: Credential,
    },
    /// Send an ErrorResponse and close.
    Refused(Refusal),
}

/// Why a client may not log in. Texts are Postgres's where it has one; FATAL, with the SQLSTATE in parentheses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong password, or no such role: the client must not see the difference (28P01).
    #[error("password authentication failed for user \"{0}\"")]
    Password(String),
    /// Postgres allows no empty passwords (28P01).
    #[error("empty password returned by client")]
    EmptyPassword,
    /// `auth = "certificate"`, but TLS asked for none (28000; hint: `listen.tls`).
    #[error("connection requires a valid client certificate")]
    CertificateMissing,
    /// The certificate is not one of the role's (28000).
    #[error("certificate authentication failed for user \"{0}\"")]
    CertificateName(String),
    /// Pass-through would need the password in clear text over a network (28000; hint: `listen.tls`).
    #[error("pass-through authentication needs TLS, a Unix socket or a loopback address")]
    ClearText,
    /// Not the message expected now (08P01).
    #[error("expected authentication response, got message type {0}")]
    Unexpected(u8),
    /// A body longer than [`BODY_MAX`] (08P01).
    #[error("authentication message of {0} bytes is too long")]
    TooLong(usize),
    /// A password or SASL message whose lengths and terminators do not fit, or that is not UTF-8 (08P01).
    #[error("invalid password packet")]
    Malformed,
    /// The exchange was broken off (see [`ScramError`]).
    #[error(transparent)]
    Scram(#[from] ScramError),
}

/// A login in progress.
pub struct ClientLogin {
    client: Applicant,
    secrets: Arc<Secrets>,
    state: ClientLoginState,
}

enum ClientLoginState {
    Start(Method),
    ExpectPassword,
    ExpectVainPassword,
    ExpectMd5 { secret: Option<Stored>, salt: [u8; 4] },
    ExpectFirst(ServerExchange, Known),
    ExpectLast(ExpectClientFinal, Known),
    ExpectKeys(ClientFinal, Secret),
    Ended,
}

/// The secret that a SCRAM proof is checked against.
enum Known {
    /// With the salt that the client has seen: a reload may bring another.
    Password(Secret, [u8; SALT_LEN]),
    Verifier(Verifier),
    /// A mock: the exchange goes through and fails.
    Nobody(Verifier),
}

impl ClientLogin {
    /// A login that has not started.
    pub fn new(client: Applicant, method: Method, secrets: Arc<Secrets>) -> Self {
        Self { client, secrets, state: ClientLoginState::Start(method) }
    }

    /// The first step. Call it once.
    pub fn start(&mut self) -> ClientLoginStep {
        let ClientLoginState::Start(method) = std::mem::replace(&mut self.state, ClientLoginState::Ended) else {
            unreachable!("a login is started once");
        };
        if let Err(refusal) = self.check_certificate(&method) {
            return ClientLoginStep::Refused(refusal);
        }
        match method {
            Method::Trust | Method::Certificate => done(Vec::new(), Credential::Nothing),
            Method::Password { secret, md5 } => self.ask_for_secret(secret, md5),
            Method::Passthrough { verifier: Some(verifier) } => self.ask_for_scram(Known::Verifier(verifier)),
            Method::Passthrough { verifier: None } => self.ask_for_password(ClientLoginState::ExpectPassword),
            Method::NobodyPassthrough => self.ask_for_password(ClientLoginState::ExpectVainPassword),
            Method::Nobody(SecretForm::Md5) => self.ask_for_md5(None),
            Method::Nobody(SecretForm::Scram { iterations, salt_len }) => {
                let mock = self.secrets.mock(&self.client.role, iterations, salt_len);
                self.ask_for_scram(Known::Nobody(mock))
            }
        }
    }

    /// Takes a message of the client.
    pub fn message(&mut self, tag: u8, body: &[u8]) -> ClientLoginStep {
        let step = match std::mem::replace(&mut self.state, ClientLoginState::Ended) {
            _ if tag != frontend::PASSWORD => Err(Refusal::Unexpected(tag)),
            _ if body.len() > BODY_MAX => Err(Refusal::TooLong(body.len())),
            ClientLoginState::ExpectPassword => self.password(body),
            ClientLoginState::ExpectVainPassword => self.password(body).and_then(|_| Err(self.wrong_password())),
            ClientLoginState::ExpectMd5 { secret, salt } => self.md5(secret, salt, body),
            ClientLoginState::ExpectFirst(exchange, known) => self.scram_first(exchange, known, body),
            ClientLoginState::ExpectLast(exchange, known) => self.scram_last(exchange, known, body),
            ClientLoginState::Start(_) | ClientLoginState::ExpectKeys(..) | ClientLoginState::Ended => {
                Err(Refusal::Unexpected(tag))
            }
        };
        step.unwrap_or_else(ClientLoginStep::Refused)
    }

    /// Takes the result of [`ClientLoginStep::Hash`].
    pub fn hashed(&mut self, keys: Keys) -> ClientLoginStep {
        match std::mem::replace(&mut self.state, ClientLoginState::Ended) {
            ClientLoginState::ExpectKeys(last, password) => {
                self.judge_password(&last, &keys, password).unwrap_or_else(ClientLoginStep::Refused)
            }
            _ => unreachable!("keys are given only after they were asked for"),
        }
    }

    fn check_certificate(&self, method: &Method) -> Result<(), Refusal> {
        match (&self.client.certificate, method) {
            (ClientCertificate::NotAsked, Method::Certificate) => Err(Refusal::CertificateMissing),
            (ClientCertificate::NotAsked, _) => Ok(()),
            (ClientCertificate::OfRole, _) => Ok(()),
            (ClientCertificate::OfAnother, _) => Err(Refusal::CertificateName(self.client.role.clone())),
        }
    }

    fn ask_for_secret(&mut self, secret: Stored, md5: bool) -> ClientLoginStep {
        match secret {
            Stored::Verifier(verifier) => self.ask_for_scram(Known::Verifier(verifier)),
            Stored::Plain(password) if !md5 => {
                let salt = self.secrets.salt(&self.client.role);
                self.ask_for_scram(Known::Password(password, salt))
            }
            secret @ (Stored::Md5(_) | Stored::Plain(_)) => self.ask_for_md5(Some(secret)),
        }
    }

    fn ask_for_md5(&mut self, secret: Option<Stored>) -> ClientLoginStep {
        let salt = random();
        self.state = ClientLoginState::ExpectMd5 { secret, salt };
        ClientLoginStep::Send(message::authentication(code::MD5, &salt))
    }

    fn ask_for_password(&mut self, state: ClientLoginState) -> ClientLoginStep {
        if !self.client.channel.hides_passwords() {
            return ClientLoginStep::Refused(Refusal::ClearText);
        }
        self.state = state;
        ClientLoginStep::Send(message::authentication(code::CLEAR_TEXT, &[]))
    }

    fn ask_for_scram(&mut self, known: Known) -> ClientLoginStep {
        let exchange = ServerExchange::new(self.client.channel.binding());
        let step = ClientLoginStep::Send(message::authentication_sasl(exchange.mechanisms()));
        self.state = ClientLoginState::ExpectFirst(exchange, known);
        step
    }

    // ## ExpectPassword => Done, unproved
    fn password(&self, body: &[u8]) -> Result<ClientLoginStep, Refusal> {
        let password = message::read_password(body).ok_or(Refusal::Malformed)?;
        let password = std::str::from_utf8(password).map_err(|_| Refusal::Malformed)?;
        if password.is_empty() {
            return Err(Refusal::EmptyPassword);
        }
        Ok(done(Vec::new(), Credential::Unproved(Secret::new(password))))
    }

    // ## ExpectMd5 => Done
    fn md5(&self, secret: Option<Stored>, salt: [u8; 4], body: &[u8]) -> Result<ClientLoginStep, Refusal> {
        let answer = message::read_password(body).ok_or(Refusal::Malformed)?;
        let role = &self.client.role;
        let hash = match &secret {
            Some(Stored::Plain(password)) => Md5Hash::new(password.expose(), role),
            Some(Stored::Md5(hash)) => hash.clone(),
            Some(Stored::Verifier(_)) | None => Md5Hash::new(&nonce(), role),
        };
        let is_right: bool = hash.answer(salt).as_bytes().ct_eq(answer).into();
        match secret {
            Some(secret) if is_right => Ok(done(Vec::new(), secret.credential())),
            _ => Err(self.wrong_password()),
        }
    }

    // ## ExpectFirst => ExpectLast
    fn scram_first(&mut self, exchange: ServerExchange, known: Known, body: &[u8]) -> Result<ClientLoginStep, Refusal> {
        let (mechanism, first) = message::read_sasl_initial(body).ok_or(Refusal::Malformed)?;
        let (salt, iterations) = match &known {
            Known::Password(_, salt) => (&salt[..], ITERATIONS),
            Known::Verifier(verifier) | Known::Nobody(verifier) => (&*verifier.salt, verifier.iterations),
        };
        let (answer, exchange) = exchange.first(mechanism, first, &nonce(), salt, iterations)?;
        self.state = ClientLoginState::ExpectLast(exchange, known);
        Ok(ClientLoginStep::Send(message::authentication(code::SASL_CONTINUE, answer.as_bytes())))
    }

    // ## ExpectLast => (Done | ExpectKeys)
    fn scram_last(
        &mut self,
        exchange: ExpectClientFinal,
        known: Known,
        body: &[u8],
    ) -> Result<ClientLoginStep, Refusal> {
        let last = exchange.last(body)?;
        match known {
            Known::Password(password, salt) => match self.secrets.keys(&password, &salt, ITERATIONS) {
                Lookup::Known(keys) => self.judge_password(&last, &keys, password),
                Lookup::Unknown(job) => {
                    self.state = ClientLoginState::ExpectKeys(last, password);
                    Ok(ClientLoginStep::Hash(job))
                }
            },
            Known::Verifier(verifier) => {
                let (answer, keys) =
                    last.check(&verifier.stored_key, &verifier.server_key).ok_or_else(|| self.wrong_password())?;
                let Verifier { salt, iterations, .. } = verifier;
                Ok(scram_done(&answer, Credential::Keys(RecoveredKeys { keys, salt, iterations })))
            }
            Known::Nobody(mock) => {
                let _same_work_as_for_somebody = last.check(&mock.stored_key, &mock.server_key);
                Err(self.wrong_password())
            }
        }
    }

    // ## ExpectKeys => Done
    fn judge_password(&self, last: &ClientFinal, keys: &Keys, password: Secret) -> Result<ClientLoginStep, Refusal> {
        let (answer, _) = last.check(&keys.stored_key(), &keys.server_key).ok_or_else(|| self.wrong_password())?;
        Ok(scram_done(&answer, Credential::Password(password)))
    }

    fn wrong_password(&self) -> Refusal {
        Refusal::Password(self.client.role.clone())
    }
}

fn done(send: Vec<u8>, credential: Credential) -> ClientLoginStep {
    ClientLoginStep::Done { send, credential }
}

fn scram_done(answer: &str, credential: Credential) -> ClientLoginStep {
    done(message::authentication(code::SASL_FINAL, answer.as_bytes()), credential)
}

#[cfg(test)]
mod tests;
