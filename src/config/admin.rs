//! `[admin]`: where operators come in, and what they may do.

use std::net::SocketAddr;

use super::Secret;
use super::form::{list, or_off, socket_addr, text, url_host};
use super::keys::section;
use super::listen::loopback;
use super::raw::SectionReader;

/// Characters of `admin.token`: what `openssl rand -hex 8` prints.
const TOKEN_MIN: usize = 16;

section! {
    /// `[admin]`; `Default` is the shipped file.
    pub struct Admin {
        /// HTTP address of the status page, `/metrics`, `/healthz`, `/readyz`; `None` switches it off.
        pub addr: Option<SocketAddr> = Some(loopback(9432)) => at_start(or_off(socket_addr()));
        /// Roles that may do everything in the console.
        pub roles: Vec<String> = Vec::new() => key(list(text()));
        /// Roles that may only look there.
        pub stats_roles: Vec<String> = Vec::new() => key(list(text()));
        /// Its bearers may act over HTTP; `None`: nobody may.
        pub token: Option<Secret> = None => secret();
        /// Names, besides addresses, under which it may be looked at and acted on.
        pub hosts: Vec<String> = Vec::new() => key(list(url_host()));
    } token_is_long
}

fn token_is_long(admin: &Admin, section: &SectionReader<'_>) {
    if admin.token.as_ref().is_some_and(|token| token.expose().len() < TOKEN_MIN) {
        section.blame("token", format!("is too easy to guess; it needs {TOKEN_MIN} characters or more"));
    }
}

/// Rights of a role in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// SHOW, and what drivers say to every server.
    Look,
    /// Everything.
    Act,
}

impl Admin {
    /// Rights of this role in the console; `None`: it may not come in.
    pub fn access(&self, role: &str) -> Option<Access> {
        let names = |list: &[String]| list.iter().any(|name| name == role);
        if names(&self.roles) {
            return Some(Access::Act);
        }
        names(&self.stats_roles).then_some(Access::Look)
    }
}
