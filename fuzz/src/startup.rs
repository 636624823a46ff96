//! Any first packet: it is refused or understood, and what was understood can be sent on and is understood the same
//! again.

use crate::wire::startup::{
    First, Framing, Replication, Startup, build_cancel, build_startup, framing, parse, split_options,
};

/// Panics if it does not hold for `bytes`.
pub fn check(bytes: &[u8]) {
    for end in 0..bytes.len().min(8) {
        let (early, whole) = (framing(&bytes[..end]), framing(bytes));
        assert!(early == Ok(Framing::Partial) || early == whole, "{early:?} became {whole:?}");
    }
    if let Ok(First::Startup(startup)) = read(bytes) {
        checked(&startup);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        options(text);
    }
}

/// Whatever `framing` says is a packet, and only that.
fn read(bytes: &[u8]) -> Result<First, ()> {
    let Ok(Framing::Packet(length)) = framing(bytes) else {
        assert!(parse(bytes).is_err(), "no packet, and understood");
        return Err(());
    };
    let Some(packet) = bytes.get(..length) else {
        assert!(parse(bytes).is_err(), "half a packet, and understood");
        return Err(());
    };
    let first = parse(packet).map_err(|_| ())?;
    if let First::Cancel(key) = &first {
        assert_eq!(parse(&build_cancel(key)).as_ref(), Ok(&first));
    }
    Ok(first)
}

fn checked(startup: &Startup) {
    assert!(!startup.user.is_empty() && !startup.database.is_empty());
    assert_eq!(startup.negotiation().is_some(), startup.minor > 2 || !startup.unknown_pq.is_empty());
    let mut parameters = vec![("user", &*startup.user), ("database", &*startup.database)];
    parameters.extend(startup.options.as_deref().map(|options| ("options", options)));
    match startup.replication {
        Replication::No => {}
        Replication::Physical => parameters.push(("replication", "true")),
        Replication::Logical => parameters.push(("replication", "database")),
    }
    parameters.extend(startup.parameters.iter().map(|(name, value)| (&**name, &**value)));
    parameters.extend(startup.unknown_pq.iter().map(|name| (&**name, "")));
    // A packet of nearly the largest size may outgrow it when the database is spelled out.
    if let Ok(packet) = build_startup(startup.minor, parameters) {
        assert_eq!(parse(&packet), Ok(First::Startup(startup.clone())));
    }
    startup.options.as_deref().into_iter().for_each(options);
}

/// Settings written out again are the same settings.
fn options(text: &str) {
    let Ok(settings) = split_options(text) else { return };
    let mut again = String::new();
    for (name, value) in &settings {
        again += " -c ";
        for c in format!("{name}={value}").chars() {
            again.extend((c.is_whitespace() || c == '\\' || c == '\x0b').then_some('\\'));
            again.push(c);
        }
    }
    assert_eq!(split_options(&again), Ok(settings));
}
