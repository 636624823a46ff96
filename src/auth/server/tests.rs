//! Logins to a server played by [`ClientLogin`], and to servers that misbehave.

use proptest::prelude::*;

use super::*;
use crate::auth::client::{self, Applicant, ClientCertificate, ClientLogin, Method};
use crate::auth::scram::{ITERATIONS, RecoveredKeys, Verifier};
use crate::auth::secrets::Stored;
use crate::net::certificate::Binding;

fn tls() -> Channel {
    Channel::Tls { binding: Some(Binding::for_tests(b"certificate")) }
}

fn password(text: &str) -> Credential {
    Credential::Password(Secret::new(text))
}

fn login_as(credential: Credential, channel: Channel) -> BackendLogin {
    BackendLogin::new("web".into(), credential, channel, 0, Arc::new(Secrets::new()))
}

fn login(credential: Credential) -> BackendLogin {
    login_as(credential, Channel::Open)
}

fn sent(step: Result<BackendLoginStep, LoginError>) -> Vec<u8> {
    match step {
        Ok(BackendLoginStep::Send(frame)) => frame,
        other => panic!("nothing to send: {other:?}"),
    }
}

fn failed(step: Result<BackendLoginStep, LoginError>) -> LoginError {
    step.expect_err("the login goes on")
}

fn request(code: u32, data: &[u8]) -> Vec<u8> {
    message::authentication(code, data)[5..].to_vec()
}

/// A server that asks by `method`: plays until one side is through. `Err(None)` is the server's refusal.
fn play(backend: &mut BackendLogin, channel: Channel, method: Method) -> Result<(), Option<LoginError>> {
    let client = Applicant { role: "web".into(), channel, certificate: ClientCertificate::NotAsked };
    let mut server = ClientLogin::new(client, method, Arc::new(Secrets::new()));
    let mut asked = server.start();
    loop {
        let frames = match asked {
            client::ClientLoginStep::Send(frame) => frame,
            client::ClientLoginStep::Done { send, .. } => [&send[..], &message::AUTHENTICATION_OK].concat(),
            client::ClientLoginStep::Hash(job) => {
                asked = server.hashed(job.run());
                continue;
            }
            client::ClientLoginStep::Refused(_) => return Err(None),
        };
        let mut answer = None;
        for (tag, body) in split(&frames) {
            answer = match backend.message(tag, body)? {
                BackendLoginStep::Send(frame) => Some(frame),
                BackendLoginStep::Hash(job) => match backend.hashed(job.run()) {
                    BackendLoginStep::Send(frame) => Some(frame),
                    other => panic!("{other:?}"),
                },
                BackendLoginStep::Read => None,
                BackendLoginStep::Done(_) => panic!("no ReadyForQuery was sent"),
            };
        }
        let Some(answer) = answer else { return Ok(()) };
        asked = server.message(answer[0], &answer[5..]);
    }
}

fn split(mut frames: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let Some((&tag, rest)) = frames.split_first() {
        let (length, _) = word(rest).unwrap();
        let (body, rest) = rest[4..].split_at(length as usize - 4);
        all.push((tag, body));
        frames = rest;
    }
    all
}

fn by_password(md5: bool) -> Method {
    Method::Password { secret: Stored::Plain(Secret::new("pencil")), md5 }
}

#[test]
fn every_password_method_works() {
    for channel in [Channel::Open, tls()] {
        for md5 in [false, true] {
            let mut backend = login_as(password("pencil"), channel.clone());
            assert_eq!(play(&mut backend, channel.clone(), by_password(md5)), Ok(()));
            let mut backend = login_as(password("wrong"), channel.clone());
            assert_eq!(play(&mut backend, channel.clone(), by_password(md5)), Err(None));
        }
    }
    let mut backend = login_as(password("pencil"), tls());
    assert_eq!(play(&mut backend, tls(), Method::Passthrough { verifier: None }), Ok(()), "clear text over TLS");
}

#[test]
fn md5_hash_opens_a_server_that_asks_for_md5() {
    let credential = || Credential::Md5(Md5Hash::new("pencil", "web"));
    assert_eq!(play(&mut login(credential()), Channel::Open, by_password(true)), Ok(()));
    let refusal = play(&mut login(credential()), Channel::Open, by_password(false)).unwrap_err().unwrap();
    assert_eq!(refusal.to_string(), "server asks for the password, and pgweir has only an MD5 hash for role \"web\"");
}

#[test]
fn keys_of_a_client_open_a_backend_with_the_same_verifier() {
    let verifier = Verifier::new("pencil", b"salt", ITERATIONS);
    let keys = |salt: &[u8]| {
        let keys = Keys::derive("pencil", b"salt", ITERATIONS);
        Credential::Keys(RecoveredKeys { keys, salt: salt.into(), iterations: ITERATIONS })
    };
    let server = || Method::Password { secret: Stored::Verifier(verifier.clone()), md5: false };
    assert_eq!(play(&mut login(keys(b"salt")), Channel::Open, server()), Ok(()));
    let outdated = play(&mut login(keys(b"older salt")), Channel::Open, server());
    assert_eq!(outdated, Err(Some(LoginError::KeysOutdated("web".into()))));
}

#[test]
fn client_login_opens_the_backend_in_pass_through() {
    // Both exchanges as in production: a client proves itself to pgweir, its keys open the server.
    let verifier = Verifier::new("pencil", b"salt", ITERATIONS);
    let passthrough = Method::Passthrough { verifier: Some(verifier.clone()) };
    let client = Applicant { role: "web".into(), channel: Channel::Open, certificate: ClientCertificate::NotAsked };
    let mut front = ClientLogin::new(client, passthrough, Arc::new(Secrets::new()));
    let mut driver = login(password("pencil"));
    let mut step = front.start();
    let credential = loop {
        let frame = match step {
            client::ClientLoginStep::Send(frame) => frame,
            client::ClientLoginStep::Done { credential, .. } => break credential,
            other => panic!("{other:?}"),
        };
        let answer = match driver.message(frame[0], &frame[5..]).unwrap() {
            BackendLoginStep::Hash(job) => sent(Ok(driver.hashed(job.run()))),
            step => sent(Ok(step)),
        };
        step = front.message(answer[0], &answer[5..]);
    };
    let server = Method::Password { secret: Stored::Verifier(verifier), md5: false };
    assert_eq!(play(&mut login(credential), Channel::Open, server), Ok(()));
}

#[test]
fn clear_text_stays_off_the_network() {
    let ask = |channel| login_as(password("pencil"), channel).message(b'R', &request(code::CLEAR_TEXT, &[]));
    assert_eq!(failed(ask(Channel::Open)), LoginError::ClearText);
    assert_eq!(failed(ask(Channel::Unverified { binding: None })), LoginError::Unverified);
    for channel in [tls(), Channel::Local] {
        assert_eq!(sent(ask(channel)), b"p\0\0\0\x0bpencil\0");
    }
}

#[test]
fn unproved_password_must_be_looked_at() {
    let unproved = || Credential::Unproved(Secret::new("pencil"));
    let trusting = login(unproved()).message(b'R', &request(code::OK, &[]));
    assert_eq!(failed(trusting), LoginError::NothingAsked("web".into()));
    assert_eq!(play(&mut login(unproved()), Channel::Open, by_password(false)), Ok(()));
    assert!(matches!(login(unproved().proved()).message(b'R', &request(code::OK, &[])), Ok(BackendLoginStep::Read)));
}

#[test]
fn server_cannot_skip_its_proof() {
    let mut backend = login(password("pencil"));
    sent(backend.message(b'R', &message::authentication_sasl(&["SCRAM-SHA-256"])[5..]));
    assert_eq!(failed(backend.message(b'R', &request(code::OK, &[]))), LoginError::Unexpected(b'R'));
}

#[test]
fn wrong_signature_of_a_server_is_noticed() {
    let mut backend = login(password("pencil"));
    let first = sent(backend.message(b'R', &message::authentication_sasl(&["SCRAM-SHA-256"])[5..]));
    let nonce = std::str::from_utf8(&first).unwrap().rsplit_once("r=").unwrap().1;
    let first = format!("r={nonce}x,s=c2FsdA==,i=1");
    let Ok(BackendLoginStep::Hash(job)) = backend.message(b'R', &request(code::SASL_CONTINUE, first.as_bytes())) else {
        panic!()
    };
    backend.hashed(job.run());
    let forged = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(failed(backend.message(b'R', &request(code::SASL_FINAL, forged))), ScramError::ServerSignature.into());
}

#[test]
fn nothing_to_show_is_said_before_anything_is_sent() {
    for (body, asked) in [
        (request(code::MD5, &[1, 2, 3, 4]), "an MD5 hash"),
        (message::authentication_sasl(&["SCRAM-SHA-256"])[5..].to_vec(), "the password"),
    ] {
        let refusal = failed(login(Credential::Nothing).message(b'R', &body));
        assert_eq!(refusal, LoginError::Credential { asked, has: "nothing", role: "web".into() });
    }
}

#[test]
fn other_methods_are_named() {
    for method in [2, 6, 7, 9] {
        assert_eq!(failed(login(password("x")).message(b'R', &request(method, &[]))), LoginError::Method(method));
    }
    let other = message::authentication_sasl(&["OAUTHBEARER", "X"]);
    let refusal = failed(login(password("x")).message(b'R', &other[5..]));
    assert_eq!(refusal, LoginError::Mechanism("OAUTHBEARER, X".into()));
}

fn trusted() -> BackendLogin {
    let mut backend = login(Credential::Nothing);
    assert!(matches!(backend.message(b'R', &request(code::OK, &[])), Ok(BackendLoginStep::Read)));
    backend
}

#[test]
fn login_gathers_parameters_and_key() {
    let mut backend = trusted();
    for (tag, body) in [
        (b'S', &b"server_version\x0015.6\0"[..]),
        (b'N', b"SNOTICE\0\0"),
        (b'S', b"TimeZone\0\xff\0"),
        (b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
    ] {
        assert!(matches!(backend.message(tag, body), Ok(BackendLoginStep::Read)));
    }
    let Ok(BackendLoginStep::Done(ready)) = backend.message(b'Z', b"I") else { panic!("not ready") };
    let parameters = vec![("server_version".into(), b"15.6".to_vec()), ("TimeZone".into(), vec![0xff])];
    let key = Some(CancelKey { pid: 7, secret: [1, 2, 3, 4].into() });
    assert_eq!(ready, LoggedIn { parameters, key, minor: 0 });
}

#[test]
fn server_without_cancel_key_is_taken() {
    let Ok(BackendLoginStep::Done(ready)) = trusted().message(b'Z', b"I") else { panic!("not ready") };
    assert_eq!(ready.key, None);
}

#[test]
fn older_server_negotiates_the_minor_down() {
    let start = || BackendLogin::new("web".into(), Credential::Nothing, Channel::Open, 2, Arc::default());
    let mut backend = start();
    assert!(matches!(backend.message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]), Ok(BackendLoginStep::Read)));
    assert!(matches!(backend.message(b'R', &request(code::OK, &[])), Ok(BackendLoginStep::Read)));
    let Ok(BackendLoginStep::Done(ready)) = backend.message(b'Z', b"I") else { panic!("not ready") };
    assert_eq!(ready.minor, 0);
    for body in
        [&[0, 3, 0, 3, 0, 0, 0, 0][..], &[0, 2, 0, 0, 0, 0, 0, 0], &[0, 3, 0, 0, 0, 0, 0, 1, 0], &[0, 3, 0, 0], &[]]
    {
        assert_eq!(failed(start().message(b'v', body)), LoginError::Malformed("protocol negotiation"), "{body:?}");
    }
}

#[test]
fn refusal_of_the_server_is_kept_whole() {
    let body = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"web\"\0\0";
    let LoginError::Server(error) = failed(login(password("x")).message(b'E', body)) else { panic!() };
    assert_eq!(error.sqlstate.as_deref(), Some("28P01"));
    assert_eq!(error.body, body);
    let printed = LoginError::Server(error).to_string();
    assert_eq!(printed, "password authentication failed for user \"web\" (28P01)");
}

#[test]
fn broken_error_still_is_an_error() {
    for body in [&b""[..], b"C", b"C28\0", b"Mhello", b"C\xff\xff\xff\xff\xff\0", b"\0\0\0"] {
        let LoginError::Server(error) = failed(login(password("x")).message(b'E', body)) else { panic!() };
        assert_eq!((error.sqlstate, &*error.message), (None, ""), "{body:?}");
    }
}

#[test]
fn messages_out_of_place_are_refused() {
    for tag in [b'S', b'K', b'Z', b'D', b'T', 0] {
        assert_eq!(failed(login(password("x")).message(tag, b"I")), LoginError::Unexpected(tag));
    }
    assert_eq!(failed(trusted().message(b'Z', b"T")), LoginError::Unexpected(b'Z'));
    assert_eq!(failed(trusted().message(b'R', &request(code::OK, &[]))), LoginError::Unexpected(b'R'));
    let mut twice = trusted();
    assert!(matches!(twice.message(b'K', &[0; 8]), Ok(BackendLoginStep::Read)));
    assert_eq!(failed(twice.message(b'K', &[0; 8])), LoginError::Unexpected(b'K'));
}

#[test]
fn broken_bodies_are_refused() {
    for (tag, body, what) in [
        (b'S', &b"a"[..], "parameter status"),
        (b'S', b"a\0b", "parameter status"),
        (b'S', b"a\0b\0c", "parameter status"),
        (b'S', b"\0b\0", "parameter status"),
        (b'K', &[0; 7], "cancel key"),
        (b'K', &[0; 261], "cancel key"),
        (b'R', &[0, 0], "authentication request"),
    ] {
        assert_eq!(failed(trusted().message(tag, body)), LoginError::Malformed(what), "{tag} {body:?}");
    }
    for (code, data, what) in [
        (code::MD5, &b"abc"[..], "MD5 request"),
        (code::SASL, b"SCRAM-SHA-256\0", "SASL request"),
        (code::SASL, b"SCRAM-SHA-256\0\0x", "SASL request"),
        (code::SASL, b"", "SASL request"),
    ] {
        let refusal = failed(login(password("x")).message(b'R', &request(code, data)));
        assert_eq!(refusal, LoginError::Malformed(what), "{code} {data:?}");
    }
}

#[test]
fn endless_logins_are_cut() {
    let mut backend = trusted();
    let endless = (0..=MESSAGES_MAX).find_map(|_| backend.message(b'N', b"\0").err());
    assert_eq!(endless, Some(LoginError::TooMuch));
    let mut backend = trusted();
    let status = [b"a\0".to_vec(), vec![b'x'; 30_000], vec![0]].concat();
    let fat = (0..3).find_map(|_| backend.message(b'S', &status).err());
    assert_eq!(fat, Some(LoginError::TooMuch));
    assert_eq!(failed(trusted().message(b'N', &vec![0; BODY_MAX + 1])), LoginError::TooMuch);
}

proptest! {
    #[test]
    fn no_messages_panic(messages in prop::collection::vec((prop::sample::select(&b"RSKZENvX"[..]), 0u32..14, any::<Vec<u8>>()), 1..8)) {
        let mut backend = login_as(password("x"), tls());
        for (tag, code, data) in messages {
            match backend.message(tag, &request(code, &data)) {
                Ok(BackendLoginStep::Read | BackendLoginStep::Send(_)) => {}
                Ok(BackendLoginStep::Hash(_) | BackendLoginStep::Done(_)) | Err(_) => break,
            }
        }
    }
}
