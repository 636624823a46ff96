//! Logins of clients, played by hand and by [`ClientExchange`].

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::auth::scram::{ClientExchange, MECHANISM, MECHANISM_PLUS};
use crate::net::certificate::Binding;

const ROUNDS: NonZeroU32 = NonZeroU32::new(2).unwrap();

fn tls() -> Channel {
    Channel::Tls { binding: Some(Binding::for_tests(b"certificate")) }
}

fn login_over(channel: Channel, method: Method, secrets: &Arc<Secrets>) -> ClientLogin {
    let client = Applicant { role: "web".into(), channel, certificate: ClientCertificate::NotAsked };
    ClientLogin::new(client, method, secrets.clone())
}

fn login(channel: Channel, method: Method) -> ClientLogin {
    login_over(channel, method, &Arc::new(Secrets::new()))
}

fn plain(password: &str) -> Stored {
    Stored::Plain(Secret::new(password))
}

fn verifier(password: &str) -> Verifier {
    Verifier::new(password, b"salt of the server", ROUNDS)
}

fn sent(step: ClientLoginStep) -> Vec<u8> {
    match step {
        ClientLoginStep::Send(frame) => frame,
        other => panic!("nothing to send: {other:?}"),
    }
}

fn refused(step: ClientLoginStep) -> Refusal {
    match step {
        ClientLoginStep::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn credential(step: ClientLoginStep) -> Credential {
    match step {
        ClientLoginStep::Done { credential, .. } => credential,
        other => panic!("not done: {other:?}"),
    }
}

/// Plays a SCRAM client; gives the last step and whether a hash was asked for.
fn play(login: &mut ClientLogin, password: &str) -> (ClientLoginStep, bool) {
    let binding = login.client.channel.binding();
    let offer = sent(login.start());
    let names = std::str::from_utf8(&offer[9..]).unwrap().split_terminator('\0').filter(|name| !name.is_empty());
    let client = ClientExchange::choose(names, binding, nonce()).expect("SCRAM is offered");
    let initial = message::sasl_initial(client.mechanism(), &client.first());
    let first = sent(login.message(b'p', &initial[5..]));
    let first = client.server_first(&first[9..]).unwrap();
    let keys = Keys::derive(password, &first.salt, first.iterations);
    let (proof, client) = first.prove(&keys);
    let (step, hashed) = match login.message(b'p', proof.as_bytes()) {
        ClientLoginStep::Hash(job) => (login.hashed(job.run()), true),
        step => (step, false),
    };
    if let ClientLoginStep::Done { send, .. } = &step {
        client.last(&send[9..]).expect("the server's signature is right");
    }
    (step, hashed)
}

#[test]
fn trusted_client_is_asked_nothing() {
    assert_eq!(credential(login(Channel::Open, Method::Trust).start()), Credential::Nothing);
}

#[test]
fn password_is_hashed_once_for_all_logins() {
    let secrets = Arc::new(Secrets::new());
    let log_in = |password| {
        let method = Method::Password { secret: plain("pencil"), md5: false };
        play(&mut login_over(Channel::Open, method, &secrets), password)
    };
    let (step, hashed) = log_in("pencil");
    assert_eq!((credential(step), hashed), (Credential::Password(Secret::new("pencil")), true));
    let (step, hashed) = log_in("pencil");
    assert_eq!((credential(step), hashed), (Credential::Password(Secret::new("pencil")), false));
    let (step, hashed) = log_in("wrong");
    assert_eq!((refused(step), hashed), (Refusal::Password("web".into()), false));
}

#[test]
fn verifier_gives_the_clients_keys() {
    for channel in [Channel::Open, tls()] {
        for method in [
            Method::Password { secret: Stored::Verifier(verifier("pencil")), md5: false },
            Method::Password { secret: Stored::Verifier(verifier("pencil")), md5: true },
            Method::Passthrough { verifier: Some(verifier("pencil")) },
        ] {
            let (step, hashed) = play(&mut login(channel.clone(), method), "pencil");
            let keys = Keys::derive("pencil", b"salt of the server", ROUNDS);
            let recovered = RecoveredKeys { keys, salt: b"salt of the server"[..].into(), iterations: ROUNDS };
            assert_eq!((credential(step), hashed), (Credential::Keys(recovered), false));
        }
    }
}

#[test]
fn binding_is_offered_over_tls_only() {
    let offer = |channel| sent(login(channel, Method::Password { secret: plain("x"), md5: false }).start());
    assert_eq!(offer(tls()), message::authentication_sasl(&[MECHANISM_PLUS, MECHANISM]));
    for channel in [Channel::Open, Channel::Local, Channel::Tls { binding: None }] {
        assert_eq!(offer(channel), message::authentication_sasl(&[MECHANISM]));
    }
}

#[test]
fn unknown_role_is_not_told_apart() {
    let secrets = Arc::new(Secrets::new());
    let nobody = || Method::Nobody(SecretForm::default());
    let first_answer = |method| {
        let mut login = login_over(Channel::Open, method, &secrets);
        let offer = sent(login.start());
        let initial = message::sasl_initial(MECHANISM, "n,,n=,r=c");
        let first = sent(login.message(b'p', &initial[5..]));
        let salt = String::from_utf8(first[9..].to_vec()).unwrap().split_once(',').unwrap().1.to_owned();
        (offer, salt)
    };
    let known = Method::Password { secret: plain("pencil"), md5: false };
    assert_eq!(first_answer(nobody()), first_answer(nobody()), "the same at every try");
    assert_eq!(first_answer(nobody()), first_answer(known), "and the same as for a known role");
    let odd = SecretForm::Scram { iterations: 9000.try_into().unwrap(), salt_len: 24 };
    let (_, answer) = first_answer(Method::Nobody(odd));
    assert!(answer.ends_with(",i=9000") && answer.len() == "s=".len() + 32 + ",i=9000".len(), "{answer}");

    let unknown = || login_over(Channel::Open, nobody(), &secrets);
    let (step, _) = play(&mut unknown(), "pencil");
    assert_eq!(refused(step).to_string(), "password authentication failed for user \"web\"");
}

#[test]
fn md5_is_asked_for_where_it_is_wanted_or_nothing_else_works() {
    let hash = Md5Hash::new("pencil", "web");
    for (secret, md5, left) in [
        (plain("pencil"), true, Credential::Password(Secret::new("pencil"))),
        (Stored::Md5(hash.clone()), true, Credential::Md5(hash.clone())),
        (Stored::Md5(hash.clone()), false, Credential::Md5(hash.clone())),
    ] {
        let log_in = |password| {
            let mut login = login(Channel::Open, Method::Password { secret: secret.clone(), md5 });
            let request = sent(login.start());
            assert_eq!(request[..9], [b'R', 0, 0, 0, 12, 0, 0, 0, 5]);
            let salt = request[9..].try_into().unwrap();
            let answer = message::password(&Md5Hash::new(password, "web").answer(salt));
            login.message(b'p', &answer[5..])
        };
        assert_eq!(credential(log_in("pencil")), left);
        assert_eq!(refused(log_in("wrong")), Refusal::Password("web".into()));
    }
}

#[test]
fn unknown_role_under_md5_is_asked_for_md5_and_fails() {
    let mut login = login(Channel::Open, Method::Nobody(SecretForm::Md5));
    let request = sent(login.start());
    let salt = request[9..].try_into().expect("MD5 request with its salt");
    let answer = message::password(&Md5Hash::new("pencil", "web").answer(salt));
    assert_eq!(refused(login.message(b'p', &answer[5..])), Refusal::Password("web".into()));
}

#[test]
fn passthrough_takes_the_password_where_the_channel_hides_it() {
    for channel in [tls(), Channel::Local] {
        let mut login = login(channel, Method::Passthrough { verifier: None });
        assert_eq!(sent(login.start()), [b'R', 0, 0, 0, 8, 0, 0, 0, 3]);
        let token = "t".repeat(8 * 1024);
        let step = login.message(b'p', format!("{token}\0").as_bytes());
        assert_eq!(credential(step), Credential::Unproved(Secret::new(token)));
    }
}

#[test]
fn passthrough_in_the_open_needs_the_verifier() {
    let step = login(Channel::Open, Method::Passthrough { verifier: None }).start();
    assert_eq!(refused(step), Refusal::ClearText);
}

#[test]
fn bad_passwords_are_refused() {
    for (body, refusal) in [
        (&b"\0"[..], Refusal::EmptyPassword),
        (b"", Refusal::Malformed),
        (b"x", Refusal::Malformed),
        (b"x\0y", Refusal::Malformed),
        (b"x\0\0", Refusal::Malformed),
        (b"\xff\0", Refusal::Malformed),
    ] {
        let mut login = login(tls(), Method::Passthrough { verifier: None });
        login.start();
        assert_eq!(refused(login.message(b'p', body)), refusal, "{body:?}");
    }
}

#[test]
fn other_messages_and_long_ones_are_refused() {
    let started = || {
        let mut login = login(tls(), Method::Passthrough { verifier: None });
        login.start();
        login
    };
    assert_eq!(refused(started().message(b'Q', b"x\0")), Refusal::Unexpected(b'Q'));
    assert_eq!(refused(started().message(b'p', &vec![1; BODY_MAX + 1])), Refusal::TooLong(BODY_MAX + 1));
    let mut trusted = login(Channel::Open, Method::Trust);
    trusted.start();
    assert_eq!(refused(trusted.message(b'p', b"x\0")), Refusal::Unexpected(b'p'));
}

#[test]
fn certificate_must_be_one_of_the_roles() {
    let start = |method, certificate| {
        let client = Applicant { role: "web".into(), channel: tls(), certificate };
        ClientLogin::new(client, method, Arc::new(Secrets::new())).start()
    };
    assert_eq!(credential(start(Method::Certificate, ClientCertificate::OfRole)), Credential::Nothing);
    assert_eq!(refused(start(Method::Certificate, ClientCertificate::NotAsked)), Refusal::CertificateMissing);
    for method in [Method::Certificate, Method::Trust, Method::Password { secret: plain("x"), md5: false }] {
        let refusal = refused(start(method, ClientCertificate::OfAnother));
        assert_eq!(refusal, Refusal::CertificateName("web".into()));
    }
}

#[test]
fn broken_sasl_is_refused() {
    let first = |body: &[u8]| {
        let mut login = login(Channel::Open, Method::Password { secret: plain("x"), md5: false });
        login.start();
        refused(login.message(b'p', body))
    };
    let whole = message::sasl_initial(MECHANISM, "n,,n=,r=c");
    for end in 5..whole.len() {
        assert_eq!(first(&whole[5..end]), Refusal::Malformed, "cut at {end}");
    }
    assert_eq!(first(&[&whole[5..], b"x"].concat()), Refusal::Malformed);
    assert_eq!(first(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), Refusal::Malformed);
    assert_eq!(first(&message::sasl_initial(MECHANISM_PLUS, "n,,n=,r=c")[5..]), ScramError::Mechanism.into());
    assert_eq!(first(&message::sasl_initial(MECHANISM, "y,a=x,n=,r=c")[5..]), ScramError::AuthorizationIdentity.into());
}

proptest! {
    #[test]
    fn no_messages_panic(bodies in prop::collection::vec(any::<Vec<u8>>(), 1..4), which in 0..4) {
        let method = match which {
            0 => Method::Password { secret: plain("x"), md5: false },
            1 => Method::Password { secret: plain("x"), md5: true },
            2 => Method::Nobody(SecretForm::default()),
            _ => Method::Passthrough { verifier: None },
        };
        let mut login = login(tls(), method);
        login.start();
        for body in bodies {
            if !matches!(login.message(b'p', &body), ClientLoginStep::Send(_)) {
                break;
            }
        }
    }
}
