//! The login of one backend, from the answer to our StartupMessage to the first ReadyForQuery.
//!
//! No I/O: [`BackendLogin::message`] takes each message of the server and [`BackendLogin::hashed`] each hash, until
//! [`BackendLoginStep::Done`] or an error. The server is not trusted: everything is bounded, the order is checked, a
//! password goes out in clear text only where the channel hides it, and with SCRAM the server must prove that it knows
//! the secret.

use std::sync::Arc;

use super::hashing::{HashJob, Lookup};
use super::md5::Md5Hash;
use super::message::{self, BODY_MAX, code, word};
use super::random::nonce;
use super::scram::{ClientExchange, ExpectServerFinal, Keys, ScramError, ServerFirst};
use super::secrets::Secrets;
use super::{Channel, Credential};
use crate::config::Secret;
use crate::wire::build::{error_fields, split_cstring};
use crate::wire::startup::{CANCEL_SECRET, CancelKey};
use crate::wire::tag::backend as tag;

/// Messages a login may take. Postgres sends about 20; notices of login triggers and extensions come on top.
const MESSAGES_MAX: u32 = 1000;

/// Bytes of ParameterStatus a login may leave with us. Postgres sends about 500.
const PARAMETERS_MAX: usize = BODY_MAX;

/// The next step of the driver.
#[derive(Debug)]
pub enum BackendLoginStep {
    /// Wait for a message, give it to [`BackendLogin::message`].
    Read,
    /// Send this, then as [`BackendLoginStep::Read`].
    Send(Vec<u8>),
    /// Run this off the I/O threads, give the keys to [`BackendLogin::hashed`]; read nothing meanwhile.
    Hash(HashJob),
    /// The backend is ready for a query.
    Done(LoggedIn),
}

/// A backend that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// ParameterStatus in the server's order. Values are in the server's encoding, so bytes.
    pub parameters: Vec<(String, Vec<u8>)>,
    /// Key that cancels its queries; some poolers and proxies send none.
    pub key: Option<CancelKey>,
    /// Minor version of the protocol, as asked for or as negotiated down.
    pub minor: u16,
}

/// The server's own refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// Five characters, if it sent them.
    pub sqlstate: Option<String>,
    /// Its text, for logs; not UTF-8 is replaced.
    pub message: String,
    /// The body as sent, to be passed on untouched.
    pub body: Vec<u8>,
}

/// Why a backend could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server says no.
    #[error("{} ({})", .0.message, .0.sqlstate.as_deref().unwrap_or("no SQLSTATE"))]
    Server(ErrorResponse),
    /// A message that has no place here.
    #[error("unexpected message {:?} during login", char::from(*.0))]
    Unexpected(u8),
    /// A message whose body does not fit its kind.
    #[error("malformed {0} during login")]
    Malformed(&'static str),
    /// More or longer messages than a login can have.
    #[error("server sends too much during login")]
    TooMuch,
    /// GSSAPI, SSPI, Kerberos, …
    #[error("server asks for authentication method {0}, which is not supported")]
    Method(u32),
    /// SASL without SCRAM-SHA-256.
    #[error("server offers no SASL mechanism that is supported, only {0}")]
    Mechanism(String),
    /// It would be sent over a network as it is.
    #[error("server asks for the password in clear text, and there is no TLS")]
    ClearText,
    /// An impostor would read it.
    #[error(
        "server asks for the password in clear text, and nobody has checked its certificate; \
         set databases.*.tls to \"verify-full\""
    )]
    Unverified,
    /// A password is asked for and there is none, or not in the form this method needs.
    #[error("server asks for {asked}, and pgweir has {has} for role \"{role}\"")]
    Credential {
        /// Kind of secret that the server asks for.
        asked: &'static str,
        /// Kind of secret that there is.
        has: &'static str,
        /// Role that logs in.
        role: String,
    },
    /// The client proved itself against another verifier than the server's; it has to log in again.
    #[error("the SCRAM verifier of role \"{0}\" on the server is not the one its client logged in with")]
    KeysOutdated(String),
    /// A pass-through password was to be checked, and the server did not look at it.
    #[error("server let role \"{0}\" in without asking for the password")]
    NothingAsked(String),
    /// The exchange was broken off.
    #[error(transparent)]
    Scram(#[from] ScramError),
}

/// A login in progress; the StartupMessage has been sent.
pub struct BackendLogin {
    role: String,
    credential: Credential,
    channel: Channel,
    secrets: Arc<Secrets>,
    state: BackendLoginState,
    minor: u16,
    messages: u32,
    parameters: Vec<(String, Vec<u8>)>,
    parameters_len: usize,
    key: Option<CancelKey>,
}

enum BackendLoginState {
    ExpectRequest,
    ExpectSaslContinue(ClientExchange),
    ExpectKeys(ServerFirst),
    ExpectSaslFinal(ExpectServerFinal),
    ExpectOk,
    ExpectReady,
    Ended,
}

impl BackendLogin {
    /// For a StartupMessage with this role and minor version. The channel's binding is that of the server's
    /// certificate.
    pub fn new(role: String, credential: Credential, channel: Channel, minor: u16, secrets: Arc<Secrets>) -> Self {
        Self {
            role,
            credential,
            channel,
            secrets,
            state: BackendLoginState::ExpectRequest,
            minor,
            messages: 0,
            parameters: Vec::new(),
            parameters_len: 0,
            key: None,
        }
    }

    /// Takes a message of the server.
    pub fn message(&mut self, tag: u8, body: &[u8]) -> Result<BackendLoginStep, LoginError> {
        self.messages += 1;
        if self.messages > MESSAGES_MAX || body.len() > BODY_MAX {
            return Err(LoginError::TooMuch);
        }
        match (tag, std::mem::replace(&mut self.state, BackendLoginState::Ended)) {
            (tag::ERROR_RESPONSE, _) => Err(LoginError::Server(error_response(body))),
            (tag::NOTICE_RESPONSE, state) => Ok(self.read_on(state)),
            (tag::NEGOTIATE_PROTOCOL_VERSION, BackendLoginState::ExpectRequest) => self.negotiated(body),
            (tag::AUTHENTICATION, state) => {
                let (code, data) = word(body).ok_or(LoginError::Malformed("authentication request"))?;
                self.authentication(state, code, data)
            }
            (tag::PARAMETER_STATUS, BackendLoginState::ExpectReady) => self.parameter_status(body),
            (tag::BACKEND_KEY_DATA, BackendLoginState::ExpectReady) if self.key.is_none() => self.backend_key(body),
            (tag::READY_FOR_QUERY, BackendLoginState::ExpectReady) if body == b"I" => {
                Ok(BackendLoginStep::Done(LoggedIn {
                    parameters: std::mem::take(&mut self.parameters),
                    key: self.key.take(),
                    minor: self.minor,
                }))
            }
            _ => Err(LoginError::Unexpected(tag)),
        }
    }

    /// Takes the result of [`BackendLoginStep::Hash`].
    pub fn hashed(&mut self, keys: Keys) -> BackendLoginStep {
        match std::mem::replace(&mut self.state, BackendLoginState::Ended) {
            BackendLoginState::ExpectKeys(first) => self.prove(first, &keys),
            _ => unreachable!("keys are given only after they were asked for"),
        }
    }

    fn read_on(&mut self, state: BackendLoginState) -> BackendLoginStep {
        self.state = state;
        BackendLoginStep::Read
    }

    fn send(&mut self, frame: Vec<u8>, state: BackendLoginState) -> BackendLoginStep {
        self.state = state;
        BackendLoginStep::Send(frame)
    }

    fn authentication(
        &mut self,
        state: BackendLoginState,
        code: u32,
        data: &[u8],
    ) -> Result<BackendLoginStep, LoginError> {
        match (state, code) {
            // ## ExpectRequest => ExpectReady: the server trusts us.
            (BackendLoginState::ExpectRequest, code::OK) if data.is_empty() => match self.credential {
                Credential::Unproved(_) => Err(LoginError::NothingAsked(self.role.clone())),
                _ => Ok(self.read_on(BackendLoginState::ExpectReady)),
            },
            // ## ExpectRequest => ExpectOk
            (BackendLoginState::ExpectRequest, code::CLEAR_TEXT) if data.is_empty() => {
                match &self.channel {
                    channel if channel.hides_passwords() => {}
                    Channel::Unverified { .. } => return Err(LoginError::Unverified),
                    _ => return Err(LoginError::ClearText),
                }
                let frame = message::password(self.password("the password")?.expose());
                Ok(self.send(frame, BackendLoginState::ExpectOk))
            }
            (BackendLoginState::ExpectRequest, code::MD5) => {
                let salt = data.try_into().map_err(|_| LoginError::Malformed("MD5 request"))?;
                let hash = match &self.credential {
                    Credential::Md5(hash) => hash.clone(),
                    _ => Md5Hash::new(self.password("an MD5 hash")?.expose(), &self.role),
                };
                Ok(self.send(message::password(&hash.answer(salt)), BackendLoginState::ExpectOk))
            }
            // ## ExpectRequest => ExpectSaslContinue
            (BackendLoginState::ExpectRequest, code::SASL) => self.sasl(data),
            // Kerberos, SCM credentials, GSSAPI, SSPI.
            (BackendLoginState::ExpectRequest, code @ (2 | 6 | 7 | 9)) => Err(LoginError::Method(code)),
            // ## ExpectSaslContinue => (ExpectSaslFinal | ExpectKeys)
            (BackendLoginState::ExpectSaslContinue(exchange), code::SASL_CONTINUE) => {
                self.sasl_continue(exchange.server_first(data)?)
            }
            // ## ExpectSaslFinal => ExpectOk: the server knows the secret too.
            (BackendLoginState::ExpectSaslFinal(exchange), code::SASL_FINAL) => {
                exchange.last(data)?;
                Ok(self.read_on(BackendLoginState::ExpectOk))
            }
            // ## ExpectOk => ExpectReady
            (BackendLoginState::ExpectOk, code::OK) if data.is_empty() => {
                Ok(self.read_on(BackendLoginState::ExpectReady))
            }
            // AuthenticationOk in the middle of SCRAM ends here: it would skip the server's proof.
            _ => Err(LoginError::Unexpected(tag::AUTHENTICATION)),
        }
    }

    fn sasl(&mut self, data: &[u8]) -> Result<BackendLoginStep, LoginError> {
        let mechanisms = mechanisms(data).ok_or(LoginError::Malformed("SASL request"))?;
        if let Credential::Nothing | Credential::Command(_) | Credential::Md5(_) = self.credential {
            return Err(self.no_credential("the password"));
        }
        let exchange = ClientExchange::choose(mechanisms.iter().copied(), self.channel.binding(), nonce())
            .ok_or_else(|| LoginError::Mechanism(mechanisms.join(", ")))?;
        let frame = message::sasl_initial(exchange.mechanism(), &exchange.first());
        Ok(self.send(frame, BackendLoginState::ExpectSaslContinue(exchange)))
    }

    fn sasl_continue(&mut self, first: ServerFirst) -> Result<BackendLoginStep, LoginError> {
        let lookup = match &self.credential {
            Credential::Keys(known) if known.salt == first.salt && known.iterations == first.iterations => {
                Lookup::Known(known.keys.clone())
            }
            Credential::Keys(_) => return Err(LoginError::KeysOutdated(self.role.clone())),
            Credential::Password(password) => self.secrets.keys(password, &first.salt, first.iterations),
            Credential::Unproved(password) => self.secrets.unproved_keys(password, &first.salt, first.iterations),
            Credential::Nothing | Credential::Command(_) | Credential::Md5(_) => {
                return Err(self.no_credential("the password"));
            }
        };
        match lookup {
            Lookup::Known(keys) => Ok(self.prove(first, &keys)),
            Lookup::Unknown(job) => {
                self.state = BackendLoginState::ExpectKeys(first);
                Ok(BackendLoginStep::Hash(job))
            }
        }
    }

    fn prove(&mut self, first: ServerFirst, keys: &Keys) -> BackendLoginStep {
        let (proof, exchange) = first.prove(keys);
        self.send(message::sasl_response(&proof), BackendLoginState::ExpectSaslFinal(exchange))
    }

    fn password(&self, asked: &'static str) -> Result<&Secret, LoginError> {
        match &self.credential {
            Credential::Password(password) | Credential::Unproved(password) => Ok(password),
            _ => Err(self.no_credential(asked)),
        }
    }

    fn no_credential(&self, asked: &'static str) -> LoginError {
        let has = match self.credential {
            Credential::Nothing => "nothing",
            Credential::Command(_) => "only the command that prints it",
            Credential::Password(_) | Credential::Unproved(_) => "a password",
            Credential::Md5(_) => "only an MD5 hash",
            Credential::Keys(_) => "only SCRAM keys",
        };
        LoginError::Credential { asked, has, role: self.role.clone() }
    }

    /// NegotiateProtocolVersion: the server speaks an older minor. It has no options to refuse, since we sent none.
    fn negotiated(&mut self, body: &[u8]) -> Result<BackendLoginStep, LoginError> {
        let malformed = LoginError::Malformed("protocol negotiation");
        let (version, rest) = word(body).ok_or_else(|| malformed.clone())?;
        let (major, minor) = (version >> 16, (version & 0xffff) as u16);
        if major != 3 || minor > self.minor || rest != [0; 4] {
            return Err(malformed);
        }
        self.minor = minor;
        Ok(self.read_on(BackendLoginState::ExpectRequest))
    }

    fn parameter_status(&mut self, body: &[u8]) -> Result<BackendLoginStep, LoginError> {
        self.parameters_len += body.len();
        if self.parameters_len > PARAMETERS_MAX {
            return Err(LoginError::TooMuch);
        }
        let (name, value) = parameter(body).ok_or(LoginError::Malformed("parameter status"))?;
        self.parameters.push((name.to_owned(), value.to_owned()));
        Ok(self.read_on(BackendLoginState::ExpectReady))
    }

    fn backend_key(&mut self, body: &[u8]) -> Result<BackendLoginStep, LoginError> {
        let (pid, secret) = body
            .split_first_chunk::<4>()
            .filter(|(_, secret)| CANCEL_SECRET.contains(&secret.len()))
            .ok_or(LoginError::Malformed("cancel key"))?;
        self.key = Some(CancelKey { pid: i32::from_be_bytes(*pid), secret: secret.into() });
        Ok(self.read_on(BackendLoginState::ExpectReady))
    }
}

/// Name and value of a ParameterStatus.
fn parameter(body: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = split_cstring(body)?;
    let (value, rest) = split_cstring(rest)?;
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    rest.is_empty().then_some((name, value))
}

/// The names in AuthenticationSASL: strings, ended by an empty one.
fn mechanisms(mut data: &[u8]) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    loop {
        let (name, rest) = split_cstring(data)?;
        if name.is_empty() {
            return rest.is_empty().then_some(names);
        }
        names.push(std::str::from_utf8(name).ok()?);
        data = rest;
    }
}

/// One that is cut off or lacks a field still is an error.
fn error_response(body: &[u8]) -> ErrorResponse {
    let fields = error_fields(body);
    let sqlstate = std::str::from_utf8(fields.code).ok().filter(|code| code.len() == 5 && code.is_ascii());
    ErrorResponse {
        sqlstate: sqlstate.map(str::to_owned),
        message: String::from_utf8_lossy(fields.message).into_owned(),
        body: body.to_owned(),
    }
}

#[cfg(test)]
mod tests;
