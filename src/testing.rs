//! What the integration tests and benchmarks reach behind the surface, by the paths it has inside. No promise to
//! anybody else.
#![allow(missing_docs, reason = "each item is documented where it stands")]
#![allow(clippy::module_inception, reason = "the paths are those inside the crate")]

pub mod admin {
    pub mod scrape {
        pub use crate::admin::scrape::{LabelValues, values};
    }
}
pub mod admission {
    pub mod limiter {
        pub use crate::admission::limiter::LeaseScope;
    }
}
pub mod auth {
    pub use crate::auth::{AUTHENTICATION_OK, Channel, Credential};
    pub mod client {
        pub use crate::auth::client::{Applicant, ClientCertificate, ClientLogin, ClientLoginStep, Method};
    }
    pub mod md5 {
        pub use crate::auth::md5::Md5Hash;
    }
    pub mod mock {
        pub use crate::auth::mock::SecretForm;
    }
    pub mod scram {
        pub use crate::auth::scram::{ITERATIONS, Keys, RecoveredKeys, Verifier};
    }
    pub mod secrets {
        pub use crate::auth::secrets::{Secrets, Stored};
    }
    pub mod server {
        pub use crate::auth::server::{BackendLogin, BackendLoginStep, LoggedIn, LoginError};
    }
}
pub mod fleet {
    pub mod lease {
        pub use crate::fleet::lease::{BookAnswer, Grant, LeaseRequest, LeaseWant};
        pub mod book {
            pub use crate::fleet::lease::book::LeaseBook;
        }
        pub mod engine {
            pub use crate::fleet::lease::engine::{BookErrand, EngineAnswer, KeptOrder, RULES, arguments, key, read};
        }
    }
}
pub mod metrics {
    pub use crate::metrics::{Label, Metric, MetricKind, PoolCounter, PoolStats};
}
pub mod net {
    pub mod certificate {
        pub use crate::net::certificate::{Binding, common_name};
    }
    pub mod tls {
        pub use crate::net::tls::{ClientSide, ServerTls, server_name};
    }
}
pub mod notify {
    pub mod bus {
        pub mod redis {
            pub use crate::notify::bus::redis::RedisBus;
        }
    }
    pub mod exchange {
        pub use crate::notify::exchange::Exchange;
    }
    pub mod hub {
        pub use crate::notify::hub::Hub;
    }
    pub mod mailbox {
        pub use crate::notify::mailbox::{Closing, Mailbox};
    }
    pub mod notification {
        pub use crate::notify::notification::Notification;
    }
    pub mod pending {
        pub use crate::notify::pending::Change;
    }
    pub mod stats {
        pub use crate::notify::stats::Gap;
    }
}
pub mod pool {
    pub mod address {
        pub use crate::pool::address::ServerAddress;
    }
    pub mod core {
        pub use crate::pool::core::{
            Command, Core, DatabaseId, DatabaseLimits, LeaseAnswer, PoolId, PoolLimits, Progress, SlotId,
        };
    }
    pub mod in_use {
        pub use crate::pool::in_use::InUse;
    }
    pub mod open {
        pub use crate::pool::open::Opener;
    }
    pub mod pool {
        pub use crate::pool::pool::{Pool, PoolKind, PoolName};
    }
}
pub mod run {
    pub use crate::run::in_process::{HeldByClients, InProcess};
}
pub mod session {
    pub mod stopwatch {
        pub use crate::session::stopwatch::Stopwatch;
    }
}
pub mod sql {
    pub use crate::sql::{
        Context, Digest, Digests, EncodingFamily, Milliseconds, Value, classify, digests, milliseconds, stand_ins,
    };
}
pub mod state {
    pub mod settings {
        pub use crate::state::settings::SettingsRegistry;
    }
}
pub mod watch {
    pub use crate::watch::sql;
    pub mod convoy {
        pub use crate::watch::convoy::ConvoyState;
    }
    pub mod core {
        pub use crate::watch::core::WatchCore;
    }
    pub mod detectors {
        pub use crate::watch::detectors::DetectorId;
    }
    pub mod finding {
        pub use crate::watch::finding::{Finding, FindingKind};
    }
    pub mod incidents {
        pub use crate::watch::incidents::IncidentChange;
    }
    pub mod asking {
        pub use crate::watch::asking::Process;
    }
    pub mod monitor {
        pub use crate::watch::monitor::Monitor;
    }
    pub mod own_backends {
        pub use crate::watch::own_backends::OwnBackends;
    }
    pub mod question {
        pub use crate::watch::question::Question;
    }
    pub mod reaction {
        pub use crate::watch::reaction::IdleHolder;
    }
    pub mod row {
        pub use crate::watch::row::AnswerRow;
    }
    pub mod settings {
        pub use crate::watch::settings::{HorizonThresholds, WatchSettings};
    }
    pub mod watches {
        pub use crate::watch::watches::Watches;
    }
}
pub mod wire {
    pub mod expected {
        pub use crate::wire::expected::TransactionStatus;
    }
    pub mod startup {
        pub use crate::wire::startup::{First, Framing, SSL_REQUEST, build_startup, framing, parse};
    }
}
