//! `proxy.toml` as checked, immutable values.
//!
//! Each section has a file: its keys, one a line with default and bounds (`keys`), and the rules between them. `raw`
//! reads the file into the sections, `parse` collects every mistake of one run and holds the rules over several
//! sections; what comes out is a [`Config`]. `show` makes rows of it, `limits` says what holds for one (database,
//! role), `reload` watches the file and compares two configurations. Nothing in this module does network I/O.

mod admin;
mod admission;
mod advice;
mod certificate_pattern;
mod client_source;
mod database;
#[cfg(test)]
mod document;
mod exposure;
mod fleet;
mod form;
mod keys;
mod lane;
mod limits;
mod listen;
mod metrics;
mod mistake;
mod notify;
mod parse;
mod password;
mod raw;
mod readers;
mod recorder;
mod redis_url;
mod reload;
mod role;
mod role_access;
mod schema;
mod secret;
mod set;
mod show;
mod statements;
mod topology;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use admin::{Access, Admin};
pub use admission::{
    Admission, AdmissionMode, Jitter, LimitMode, Priority, Ramp, RateKeys, RateWhen, RoleAdmission, RoleRate,
};
pub use advice::{Overload, Unreached, Untimed, WorstCase, overloads, unreached, untimed, worst_cases};
pub use certificate_pattern::{CertificateField, CertificatePattern};
pub use client_source::ClientSource;
pub use database::{
    AuthQuery, BackendTls, BackendTlsMode, CONSOLE_NAMES, Database, PoolKeys, PoolMode, ResetWhen, ServerRole,
    WatchLogin,
};
pub use exposure::{Exposure, exposures};
pub(crate) use fleet::FLEET_NAME_MAX;
pub use fleet::{Fleet, FleetMode, PeerName};
pub use form::{duration_text, read_duration};
pub use lane::{LaneKeys, LaneMatch, LaneMode, overlaps};
pub use limits::{
    Endpoint, PoolSettings, RoleQueueSettings, Share, lane_settings, own_settings, pool_settings, role_queue_settings,
};
pub(crate) use listen::CLIENTS_MAX;
pub use listen::{ClientTls, Listen, ListenAddr, ProxyProtocol, ServerIdentity};
pub use metrics::{MetricsKeys, MetricsPer};
pub use mistake::{FilePosition, Mistake, Mistakes};
pub use notify::{Bus, BusSettings, Notify, NotifyMode, OnGap, WhenDown};
pub use parse::{load, parse};
pub use password::{PasswordCommand, PasswordSource};
pub use raw::key_path;
pub use readers::{LoadBalance, ReaderKeys};
pub use recorder::RecorderKeys;
pub use reload::{Changes, ConfigChange, Watcher, diff};
pub use role::{Auth, Override, Role, RoleLimits, Timeouts};
pub use role_access::RoleAccess;
pub use schema::schema;
pub use secret::Secret;
pub use set::{SetError, load_with};
pub use show::{ConfigSetting, SettingValue, defaults, entries, password_commands};
pub use statements::{Comments, StatementKeys};
pub use topology::{AuroraCluster, PatroniApi, ProbeLogin, ReplayWhen, TopologySource};
pub use watch::{OnConvoy, OnIdleHolder, Watch};

/// A whole checked configuration; `Default` is the shipped file without its database and role.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Where clients come in.
    pub listen: Listen,
    /// Where operators come in.
    pub admin: Admin,
    /// Backends in all, over every database; `None` means only the databases bound it.
    pub backends_total_max: Option<u32>,
    /// Databases by the name clients ask for; `"*"` serves any name not listed.
    pub databases: BTreeMap<String, Database>,
    /// Roles by name; `"*"`, if it is here, serves any role not listed.
    pub roles: BTreeMap<String, Role>,
    /// How bursts of transactions and logins are let in.
    pub admission: Admission,
    /// How NOTIFY travels.
    pub notify: Notify,
    /// The watching of servers, and the thresholds of its reports.
    pub watch: Watch,
    /// The other instances.
    pub fleet: Fleet,
    /// What is counted and logged of statements.
    pub statements: StatementKeys,
    /// The recording of transactions.
    pub recorder: RecorderKeys,
    /// What `/metrics` shows.
    pub metrics: MetricsKeys,
    /// Kinds of transactions with limits of their own, in order: the first that matches counts.
    pub lanes: Vec<LaneKeys>,
    /// Other files the configuration names, secrets and certificates, for [`Watcher`].
    pub files: Vec<PathBuf>,
    /// Files with secrets in them: some of these, and the configuration itself where a secret stands in it.
    pub secret_files: Vec<PathBuf>,
}
