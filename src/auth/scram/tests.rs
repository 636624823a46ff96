//! Both sides against the RFC, against each other and against rubbish.

use proptest::prelude::*;

use super::*;

const ROUNDS: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// RFC 7677 §3.
const RFC_SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const RFC_SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const RFC_CLIENT_FINAL: &str =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const RFC_SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn rfc_keys() -> Keys {
    Keys::derive("pencil", &BASE64_STANDARD.decode(RFC_SALT).unwrap(), ITERATIONS)
}

fn binding(bytes: &[u8]) -> Option<Binding> {
    Some(Binding::for_tests(bytes))
}

/// A whole exchange; the client sees `offered` and `client_binding`, the server has `server_binding`.
fn exchange(
    offered: &[&str],
    client_binding: Option<Binding>,
    server_binding: Option<Binding>,
    client_password: &str,
) -> Result<bool, ScramError> {
    let verifier = Verifier::new("secret", b"salt", ROUNDS);
    let client = ClientExchange::choose(offered.iter().copied(), client_binding, "ours".into()).expect("SCRAM");
    let server = ServerExchange::new(server_binding);
    let (first, server) =
        server.first(client.mechanism(), client.first().as_bytes(), "theirs", &verifier.salt, verifier.iterations)?;
    let first = client.server_first(first.as_bytes())?;
    let keys = Keys::derive(client_password, &first.salt, first.iterations);
    let (last, client) = first.prove(&keys);
    let Some((answer, recovered)) = server.last(last.as_bytes())?.check(&verifier.stored_key, &verifier.server_key)
    else {
        return Ok(false);
    };
    assert_eq!(recovered, keys, "the client's keys come back");
    client.last(answer.as_bytes()).map(|()| true)
}

#[test]
fn server_side_follows_rfc_7677() {
    let keys = rfc_keys();
    let salt = BASE64_STANDARD.decode(RFC_SALT).unwrap();
    let (first, server) = ServerExchange::new(None)
        .first(MECHANISM, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", &salt, ITERATIONS)
        .unwrap();
    assert_eq!(first, RFC_SERVER_FIRST);
    let last = server.last(RFC_CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(last.check(&keys.stored_key(), &keys.server_key), Some((RFC_SERVER_FINAL.into(), keys)));
}

#[test]
fn client_side_follows_rfc_7677_but_for_the_name() {
    // libpq, and so we, leave the name out, which changes the signed text: sign the RFC's text to compare.
    let client = ClientExchange::choose([MECHANISM], None, "rOprNGfwEbeRWgbNEkqO".into()).unwrap();
    assert_eq!((client.mechanism(), &*client.first()), (MECHANISM, "n,,n=,r=rOprNGfwEbeRWgbNEkqO"));
    let mut first = client.server_first(RFC_SERVER_FIRST.as_bytes()).unwrap();
    first.signed = first.signed.replacen("n=,", "n=user,", 1);
    let (last, client) = first.prove(&rfc_keys());
    assert_eq!(last, RFC_CLIENT_FINAL);
    assert_eq!(client.last(RFC_SERVER_FINAL.as_bytes()), Ok(()));
}

#[test]
fn both_sides_agree_without_tls() {
    assert_eq!(exchange(&[MECHANISM], None, None, "secret"), Ok(true));
    assert_eq!(exchange(&[MECHANISM], None, None, "wrong"), Ok(false));
}

#[test]
fn both_sides_agree_with_binding() {
    let offered = [MECHANISM_PLUS, MECHANISM];
    assert_eq!(exchange(&offered, binding(b"x"), binding(b"x"), "secret"), Ok(true));
    assert_eq!(exchange(&offered, binding(b"x"), binding(b"x"), "wrong"), Ok(false));
    assert_eq!(exchange(&offered, None, binding(b"x"), "secret"), Ok(true), "a client that cannot bind may log in");
    assert_eq!(exchange(&[MECHANISM], binding(b"x"), None, "secret"), Ok(true), "a server may be unable to bind");
}

#[test]
fn somebody_in_between_is_noticed() {
    let offered = [MECHANISM_PLUS, MECHANISM];
    let other_certificate = exchange(&offered, binding(b"mallory"), binding(b"x"), "secret");
    assert_eq!(other_certificate, Err(ScramError::BindingMismatch));
    let offer_cut = exchange(&[MECHANISM], binding(b"x"), binding(b"x"), "secret");
    assert_eq!(offer_cut, Err(ScramError::Downgrade));
}

#[test]
fn only_offered_mechanisms_are_chosen() {
    let choose = |offered: &[&'static str], binding| {
        ClientExchange::choose(offered.iter().copied(), binding, "n".into()).map(|client| client.first())
    };
    assert_eq!(choose(&["OAUTHBEARER"], binding(b"x")), None);
    assert_eq!(choose(&[MECHANISM_PLUS], None), None);
    assert_eq!(choose(&[MECHANISM_PLUS], binding(b"x")).unwrap(), "p=tls-server-end-point,,n=,r=n");
    assert_eq!(choose(&["X", MECHANISM], binding(b"x")).unwrap(), "y,,n=,r=n");
    assert_eq!(choose(&[MECHANISM_PLUS, MECHANISM], None).unwrap(), "n,,n=,r=n");
}

#[test]
fn bad_first_messages_are_refused() {
    use ScramError::*;
    let first = |mechanism, message: &str, binding| {
        let exchange = ServerExchange::new(binding);
        exchange.first(mechanism, message.as_bytes(), "s", b"salt", ROUNDS).map(|(answer, _)| answer)
    };
    assert_eq!(first(MECHANISM, "n,,n=a,r=c,x=ext", None).unwrap(), "r=cs,s=c2FsdA==,i=2");
    for (mechanism, message, has_binding, refusal) in [
        (MECHANISM, "n,a=bob,n=,r=c", false, AuthorizationIdentity),
        (MECHANISM, "n,,m=x,n=,r=c", false, Extension),
        (MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=c", false, Mechanism),
        ("SCRAM-SHA-1", "n,,n=,r=c", false, Mechanism),
        (MECHANISM_PLUS, "n,,n=,r=c", true, BindingFlag),
        (MECHANISM_PLUS, "y,,n=,r=c", true, BindingFlag),
        (MECHANISM, "y,,n=,r=c", true, Downgrade),
        (MECHANISM, "p=tls-server-end-point,,n=,r=c", true, BindingFlag),
        (MECHANISM, "p=tls-server-end-point,,n=,r=c", false, BindingFlag),
        (MECHANISM_PLUS, "p=tls-unique,,n=,r=c", true, BindingType),
        (MECHANISM, "", false, Malformed("binding flag expected")),
        (MECHANISM, "n,n=,r=c", false, Malformed("authorization identity expected")),
        (MECHANISM, "x,,n=,r=c", false, Malformed("binding flag expected")),
        (MECHANISM, "n,,r=c", false, Malformed("another attribute expected")),
        (MECHANISM, "n,,n=", false, Malformed("it ends too early")),
        (MECHANISM, "n,,n=,r=", false, Malformed("nonce")),
        (MECHANISM, "n,,n=,r=a b", false, Malformed("nonce")),
        (MECHANISM, "n,,n=,r=é", false, Malformed("nonce")),
        (MECHANISM, "n,,n=,r=c,", false, Malformed("attribute expected")),
        (MECHANISM, "n,,n=,r=c\0", false, Malformed("not text")),
    ] {
        let binding = has_binding.then(|| Binding::for_tests(b"x"));
        assert_eq!(first(mechanism, message, binding), Err(refusal), "{mechanism} {message}");
    }
    let long = format!("n,,n=,r={}", "x".repeat(NONCE_MAX + 1));
    assert_eq!(first(MECHANISM, &long, None), Err(Malformed("nonce")));
}

#[test]
fn bad_last_messages_are_refused() {
    use ScramError::*;
    let last = |message: &str| {
        let exchange = ServerExchange::new(None);
        let (_, exchange) = exchange.first(MECHANISM, b"n,,n=,r=c", "s", b"salt", ROUNDS).unwrap();
        exchange.last(message.as_bytes()).map(|_| ())
    };
    let proof = BASE64_STANDARD.encode([7; 32]);
    assert_eq!(last(&format!("c=biws,r=cs,x=1,p={proof}")), Ok(()));
    for (message, refusal) in [
        (format!("c=biws,r=cx,p={proof}"), Nonce),
        (format!("c=eSws,r=cs,p={proof}"), Malformed("channel binding not as announced")),
        (format!("r=cs,p={proof}"), Malformed("another attribute expected")),
        ("c=biws,r=cs".into(), Malformed("it ends too early")),
        ("c=biws,r=cs,p=".into(), Malformed("proof")),
        (format!("c=biws,r=cs,p={proof},x=1"), Malformed("something follows its end")),
        (format!("c=biws,r=cs,p={}", BASE64_STANDARD.encode([7; 33])), Malformed("proof")),
        (format!("c=biws,r=cs,m=1,p={proof}"), Extension),
    ] {
        assert_eq!(last(&message), Err(refusal), "{message}");
    }
}

#[test]
fn bad_servers_are_refused() {
    use ScramError::*;
    let first = |message: &str| {
        let client = ClientExchange::choose([MECHANISM], None, "c".into()).unwrap();
        client.server_first(message.as_bytes()).map(|first| first.iterations.get())
    };
    assert_eq!(first("r=cs,s=c2FsdA==,i=1000000"), Ok(1_000_000));
    for (message, refusal) in [
        ("r=xs,s=c2FsdA==,i=1", Nonce),
        ("r=c,s=c2FsdA==,i=1", Nonce),
        ("r=cs,s=,i=1", Malformed("salt")),
        ("r=cs,s=!,i=1", Malformed("salt")),
        ("r=cs,s=c2FsdA==,i=0", Malformed("iteration count")),
        ("r=cs,s=c2FsdA==,i=-1", Malformed("iteration count")),
        ("r=cs,s=c2FsdA==,i=99999999999", Malformed("iteration count")),
        ("r=cs,s=c2FsdA==,i=1000001", Iterations(1_000_001)),
        ("r=cs,s=c2FsdA==,i=1,x=y", Malformed("something follows its end")),
        ("m=x,r=cs,s=c2FsdA==,i=1", Extension),
        ("", Malformed("attribute expected")),
    ] {
        assert_eq!(first(message), Err(refusal), "{message}");
    }
    let long = format!("r=c{},s=c2FsdA==,i=1", "x".repeat(NONCE_MAX));
    assert_eq!(first(&long), Err(Malformed("nonce")));
    let long = format!("r=cs,s={},i=1", BASE64_STANDARD.encode([0; SALT_MAX + 1]));
    assert_eq!(first(&long), Err(Malformed("salt")));
}

#[test]
fn server_must_know_the_secret_too() {
    let last = |message: &str| ExpectServerFinal { signature: [7; 32] }.last(message.as_bytes());
    assert_eq!(last(&format!("v={}", BASE64_STANDARD.encode([7; 32]))), Ok(()));
    assert_eq!(last(&format!("v={}", BASE64_STANDARD.encode([8; 32]))), Err(ScramError::ServerSignature));
    assert_eq!(last("v=AAAA"), Err(ScramError::Malformed("signature")));
    assert_eq!(last("e=other-error"), Err(ScramError::Refused));
    assert_eq!(last(""), Err(ScramError::Malformed("attribute expected")));
}

#[test]
fn verifier_is_the_text_postgres_stores() {
    // `select rolpassword from pg_authid` of PostgreSQL 15; the second needs SASLprep, the third is not allowed by it.
    for (password, stored) in [
        (
            "pencil",
            "SCRAM-SHA-256$4096:fUVJYma3lc8u3sZdpXWBtA==$fFVOwCcEEAOq2ySssnA4gL+FzhVjTr0w0kXTv8Wd0ZM=:\
             jTGOuPen4zN0JzjG8ExHVwdGL9zGBT/vdgN6MJjA8tI=",
        ),
        (
            "I\u{ad}X\u{a0}y",
            "SCRAM-SHA-256$4096:vT2m1sFho4P8f9nNnkvq2A==$kLgw429WeMbzesY/JlABqbXqst5BaMnlH/oVMusE/04=:\
             cnbnOo/vCUAnvKXX4bW+RjGUA0okeqHlZgsq2573CI8=",
        ),
        (
            "\u{627}\u{31}",
            "SCRAM-SHA-256$4096:lhXhKs3hSW7dA1AeZFbC3Q==$btNQV5IHYYBFmIupc+nr8DaZmEYYuO/rTrGTVP3iPQE=:\
             oC3IxoCPcQLmxC/+0d27eOtsgxtR3psk3d02rseLY/E=",
        ),
    ] {
        let verifier = Verifier::parse(stored).unwrap();
        assert_eq!(verifier.to_string(), stored);
        assert_eq!(Verifier::new(password, &verifier.salt, verifier.iterations), verifier);
    }
}

#[test]
fn what_is_no_verifier_is_not_read_as_one() {
    let good = Verifier::new("pencil", b"salt", ROUNDS).to_string();
    assert!(Verifier::parse(&good).is_some());
    for bad in [
        "",
        "pencil",
        "SCRAM-SHA-256$",
        &good[1..],
        &good[..good.len() - 1],
        &format!("{good}="),
        &good.replace("$2:", "$0:"),
        &good.replace("$2:", "$+2:"),
        &good.replace("$2:", "$:"),
        &good.replace("c2FsdA==", ""),
        &good.replace("SHA-256", "SHA-1"),
    ] {
        assert_eq!(Verifier::parse(bad), None, "{bad}");
    }
}

#[test]
fn passwords_are_prepared_as_postgres_does() {
    assert_eq!(normalize("I\u{ad}X"), "IX", "RFC 4013 §3");
    assert_eq!(normalize("\u{aa}"), "a", "RFC 4013 §3");
    assert_eq!(normalize("a\u{a0}b"), "a b");
    for kept in ["", "pencil", "a\x07b", "\u{627}\u{31}", "\u{221}", "\u{ad}"] {
        assert_eq!(normalize(kept), kept, "not allowed, so used as it is");
    }
}

#[test]
fn secrets_do_not_print() {
    let keys = rfc_keys();
    let recovered = RecoveredKeys { keys: keys.clone(), salt: [1].into(), iterations: ROUNDS };
    let printed = format!("{keys:?} {recovered:?} {:?}", Verifier::new("x", b"y", ROUNDS));
    assert_eq!(printed, "*** *** ***");
}

proptest! {
    #[test]
    fn no_message_panics(message in "[nyp=,acrsivme\\x00-\\xff]{0,60}") {
        let message = message.as_bytes();
        for binding in [None, binding(b"x")] {
            for mechanism in [MECHANISM, MECHANISM_PLUS] {
                let _ = ServerExchange::new(binding.clone()).first(mechanism, message, "s", b"salt", ROUNDS);
            }
        }
        let (_, server) = ServerExchange::new(None).first(MECHANISM, b"n,,n=,r=c", "s", b"salt", ROUNDS).unwrap();
        let _ = server.last(message);
        let client = ClientExchange::choose([MECHANISM], None, "c".into()).unwrap();
        let _ = client.server_first(message);
        let _ = ExpectServerFinal { signature: [7; 32] }.last(message);
    }

    #[test]
    fn verifiers_survive_their_text(
        salt in prop::collection::vec(any::<u8>(), 1..40),
        iterations in 1u32..,
        stored_key: [u8; 32],
        server_key: [u8; 32],
    ) {
        let iterations = iterations.try_into().unwrap();
        let verifier = Verifier { iterations, salt: salt.into(), stored_key, server_key };
        prop_assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier));
    }
}
