//! `[listen]`: where and how clients come in.

use super::CLIENTS_MAX;
use crate::config::raw::Section;
use crate::config::value::{count, duration, duration_above_zero, listen_addr, some, truth, word};
use crate::config::{ClientTls, Listen, ServerIdentity, Word};

/// Far above any machine's cores.
const WORKERS_MAX: u32 = 1024;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Disable,
    Allow,
    Require,
    VerifyClient,
}

impl Word for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("require", Self::Require),
        ("verify-client", Self::VerifyClient),
    ];
}

/// The section, and whether clients show certificates (as far as can be told, if the section has mistakes).
pub(super) fn read(root: &mut Section<'_>) -> (Listen, bool) {
    let default = Listen::default();
    let mut section = root.section_or_empty("listen");
    let tls = match section.section("tls") {
        Some(section) => read_tls(section),
        None if section.has("tls") => None,
        None => Some(ClientTls::Disable),
    };
    let workers = section.take("workers", count(1..=WORKERS_MAX));
    let listen = Listen {
        addr: section.take("addr", |value| some(value, listen_addr)).unwrap_or(default.addr),
        reuse_port: section.take("reuse_port", truth).unwrap_or(default.reuse_port),
        clients_max: section.take("clients_max", count(1..=CLIENTS_MAX)).unwrap_or(default.clients_max),
        login_timeout: section.take("login_timeout", duration_above_zero).unwrap_or(default.login_timeout),
        idle_timeout: section.take("idle_timeout", duration).unwrap_or(default.idle_timeout),
        workers: workers.map_or(default.workers, |workers| workers as usize),
        linger: section.take("linger", duration).unwrap_or(default.linger),
        shutdown_timeout: section.take("shutdown_timeout", duration).unwrap_or(default.shutdown_timeout),
        tls: tls.clone().unwrap_or(default.tls),
    };
    section.finish();
    let certificates = matches!(tls, None | Some(ClientTls::VerifyClient(..)));
    (listen, certificates)
}

fn read_tls(mut section: Section<'_>) -> Option<ClientTls> {
    let mode = section.require("mode", word::<Mode>);
    let (cert, key, client_ca) = (section.file("cert"), section.file("key"), section.file("client_ca"));
    for (name, wanted) in [
        ("cert", !matches!(mode, None | Some(Mode::Disable))),
        ("key", !matches!(mode, None | Some(Mode::Disable))),
        ("client_ca", mode == Some(Mode::VerifyClient)),
    ] {
        if wanted && !section.has(name) {
            let mode = mode.map_or("", Word::word);
            section.blame(name, format!("is missing; mode {mode:?} needs it"));
        }
    }
    if section.has("client_ca") && matches!(mode, Some(Mode::Allow | Mode::Require)) {
        section.blame("client_ca", "is used by mode \"verify-client\" only");
    }
    section.finish();
    if mode? == Mode::Disable {
        return Some(ClientTls::Disable);
    }
    let identity = ServerIdentity { cert: cert?, key: key? };
    Some(match mode? {
        Mode::Disable => ClientTls::Disable,
        Mode::Allow => ClientTls::Allow(identity),
        Mode::Require => ClientTls::Require(identity),
        Mode::VerifyClient => ClientTls::VerifyClient(identity, client_ca?),
    })
}
