//! `databases.*.topology`: how the primary of a cluster is found, and the keys that each way needs.

use std::path::PathBuf;

use super::PasswordSource;
use super::form::{http_url, instance_pattern, some, text};
use super::keys::section;
use super::raw::SectionReader;
use crate::words::words;

words! {
    /// How the server that has the wanted role is found.
    pub enum TopologySource {
        /// By the login of each backend, which tries one host after the other.
        Off = "off",
        /// By the addresses of the host's name, looked up every second.
        Dns = "dns",
        /// By asking each host for its role every second.
        Probe = "probe",
        /// By Patroni's REST API.
        Patroni = "patroni",
        /// By Aurora's own functions.
        Aurora = "aurora",
    }
}

words! {
    /// `databases.*.replay`.
    pub enum ReplayWhen {
        /// A statement that provably did not run is sent again.
        On = "on",
        /// The client gets the error.
        Off = "off",
    }
}

section! {
    /// `databases.*.probe`: the role that asks servers for their role.
    pub struct ProbeLogin {
        /// Role to log in as.
        pub role: String = String::new() => required(text());
        /// Its password.
        pub password: Option<PasswordSource> = None => password();
        /// Database at the server that it connects to: not that of clients, who may want to drop it.
        pub dbname: String = "postgres".to_owned() => key(text());
    }
}

section! {
    /// `databases.*.patroni`.
    pub struct PatroniApi {
        /// REST API of each member, or of some; the first that answers is asked.
        pub urls as "url": Vec<String> = Vec::new() => required(some(http_url()));
        /// For basic authentication.
        pub username: Option<String> = None => maybe(text());
        /// Its password.
        pub password: Option<PasswordSource> = None => password();
        /// Trust anchors for https, PEM; `None`: the system's.
        pub ca: Option<PathBuf> = None => file();
    } password_needs_username
}

section! {
    /// `databases.*.aurora`.
    pub struct AuroraCluster {
        /// Host name of an instance, with `?` in the place of the instance's identifier.
        pub instance_host: String = String::new() => required(instance_pattern());
    }
}

fn password_needs_username(_: &PatroniApi, section: &SectionReader<'_>) {
    if section.has("password") != section.has("username") {
        let missing = if section.has("password") { "username" } else { "password" };
        section.blame(missing, "is missing; basic authentication needs both");
    }
}
