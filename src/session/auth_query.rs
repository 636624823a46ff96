//! Looks a role's secret up at the server, for `auth = "auth-query"`.
//!
//! The query runs on a backend of the look-up role's own pool, so that it is bounded like everything else; nothing that
//! a client sent before its login is ever applied to it.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::auth::Credential;
use crate::auth::secrets::Stored;
use crate::config::{AuthQuery, Secret};
use crate::error::LookupError;
use crate::pool::lease::LeaseError;
use crate::pool::open::{OpenError, read_frame};
use crate::pool::pool::{PoolKind, PoolName};
use crate::session::context::Worker;
use crate::wire::build::{self, error_fields};
use crate::wire::tag::{backend, frontend};

/// Asks `database` for the secret of `role`. `None`: there is no such role, or it has none.
pub(crate) async fn look_up(
    worker: &Worker,
    database: &Arc<str>,
    query: &AuthQuery,
    role: &str,
) -> Result<Option<Stored>, LookupError> {
    let name = PoolName { database: Arc::clone(database), role: query.role.as_str().into(), kind: PoolKind::Internal };
    let credential = Credential::from(query.password.clone());
    let pool = worker.proxy.directory.lookup_pool(name, credential, worker.id).ok_or(LookupError::NoPool)?;
    let mut lease = match (worker.proxy.pools.wait(&pool, worker.id).await, pool.refusal()) {
        (Err(LeaseError::Refused), Some(refusal)) => return Err(LookupError::Refused(refusal)),
        (lease, _) => lease?,
    };
    lease.stream.write_all(&question(&query.query, role)).await.map_err(broken)?;
    lease.stream.flush().await.map_err(broken)?;
    let (mut secret, mut failure) = (None, None);
    loop {
        match read_frame(&mut lease.stream).await? {
            (backend::DATA_ROW, row) => secret = second_column(&row),
            (backend::ERROR_RESPONSE, body) => {
                failure = Some(String::from_utf8_lossy(error_fields(&body).message).into_owned())
            }
            (backend::READY_FOR_QUERY, _) => break,
            _ => {}
        }
    }
    lease.release(tokio::time::Instant::now());
    match failure {
        Some(message) => Err(LookupError::Query(message)),
        None => Ok(secret.and_then(|secret| Stored::parse(&Secret::new(secret)).ok())),
    }
}

fn broken(source: std::io::Error) -> OpenError {
    OpenError::Io { address: "the server".into(), source }
}

/// Parse, Bind of the role as text, Execute, Sync.
fn question(query: &str, role: &str) -> Vec<u8> {
    let mut out = Vec::new();
    build::parse(&mut out, b"", &[query.as_bytes(), b"\0\0\0"].concat());
    build::frame(&mut out, frontend::BIND, |out| {
        out.extend_from_slice(b"\0\0\0\0\0\x01");
        out.extend_from_slice(&i32::try_from(role.len()).expect("bounded by the startup packet").to_be_bytes());
        out.extend_from_slice(role.as_bytes());
        out.extend_from_slice(b"\0\0");
    });
    build::frame(&mut out, frontend::EXECUTE, |out| out.extend_from_slice(b"\0\0\0\0\0"));
    out.extend_from_slice(build::SYNC);
    out
}

/// The second value of a DataRow, if it is not null.
fn second_column(row: &[u8]) -> Option<String> {
    let mut rest = row.get(2..)?;
    for column in 0..2 {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        if column == 1 {
            return String::from_utf8(tail.get(..length?)?.to_vec()).ok();
        }
        rest = tail.get(length.unwrap_or(0)..)?;
    }
    None
}
