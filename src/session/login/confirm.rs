//! The startup parameters of a client, confirmed by its server before the client is greeted.
//!
//! A backend takes the first of each combination at the login, so that a parameter that is refused ends the login, and
//! ParameterStatus has each value as the server spells it (`ISO, MDY` for `iso`). The pool remembers the outcome.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use super::LoginFault;
use crate::pool::lease::Lease;
use crate::pool::open::{OpenError, read_frame};
use crate::pool::pool::Pool;
use crate::session::context::Worker;
use crate::session::session::Session;
use crate::sql::{self, Value};
use crate::state::parameters::Parameters;
use crate::state::settings::{Settings, Values};
use crate::wire::build::{self, RefusedLogin, split_cstring};
use crate::wire::tag::backend;

/// The setting that differs from program to program, and that servers take as it is.
const NAME: &str = "application_name";

/// A role may be taken away from the login at any time, so its acceptance is never remembered.
const ROLE: &str = "role";

/// Gives the session its startup parameters as its server spells them.
pub(super) async fn startup(worker: &Rc<Worker>, session: &mut Session) -> Result<(), LoginFault> {
    let pool = &*session.pool;
    if pool.is_dedicated() || session.settings.values().is_empty() {
        return Ok(());
    }
    let (plain, asked) = parts(session.settings.values(), &session.reported);
    if asked.is_empty() {
        return Ok(());
    }
    let confirmed = match pool.confirmed.find(&asked) {
        Some(confirmed) => confirmed,
        None => {
            let confirmed = ask(worker, pool, asked.clone()).await?;
            if !asked.contains_key(ROLE) {
                pool.confirmed.remember(asked, confirmed.clone());
            }
            confirmed
        }
    };
    let registry = &worker.proxy.settings;
    let settings = match plain.is_empty() {
        true => confirmed,
        false => registry.intern(plain.into_iter().chain(confirmed.values().clone()).collect()),
    };
    (session.startup, session.settings) = (settings.clone(), settings);
    session.update_lexer();
    Ok(())
}

/// The settings that every server takes as they are or has already, and those that it is asked about.
fn parts(values: &Values, reported: &Parameters) -> (Values, Values) {
    let is_plain = |name: &str, value: &Value| match value {
        Value::Text(text) if name == NAME => text.iter().all(|byte| (b' '..=b'~').contains(byte)),
        Value::Text(text) => reported.value(name).is_some_and(|known| known.as_bytes() == &text[..]),
        _ => false,
    };
    values.clone().into_iter().partition(|(name, value)| is_plain(name, value))
}

/// Has a backend of the pool take the settings. Returns them in its spelling.
async fn ask(worker: &Rc<Worker>, pool: &Arc<Pool>, asked: Values) -> Result<Settings, LoginFault> {
    let registry = &worker.proxy.settings;
    let mut lease = super::lease(worker, pool).await?;
    let none = registry.none();
    let asked = registry.intern(asked);
    // Some values depend on the one before (`DateStyle`): they are set on top of those of the login. One Query is read
    // in one encoding, that of the login, as a StartupMessage is.
    let back = lease.applied.replay(&none, &lease.parameters);
    let wanted = sql::replay(asked.values().iter().map(|(name, value)| (name.as_str(), value)));
    let limit = pool.settings().pool.connect_timeout;
    // A backend in an unknown state is closed with the lease, where this returns early.
    let told = timeout(limit, async {
        let mut told = Vec::new();
        told.extend(run(&mut lease, &[&back.encoding[..], &back.rest].concat()).await??);
        lease.applied = none;
        let outcome = run(&mut lease, &wanted).await?;
        Ok::<_, LoginFault>(outcome.map(|last| [told, last].concat()))
    });
    let told = match told.await.map_err(|_| OpenError::Timeout(limit))?? {
        Ok(told) => told,
        Err(refused) => {
            // A Query that fails changes nothing.
            lease.release(Instant::now());
            return Err(refused);
        }
    };
    let settings = registry.intern(spelled(asked.values(), &told, &lease.parameters));
    lease.applied = settings.clone();
    lease.release(Instant::now());
    Ok(settings)
}

/// Runs a Query, if it is one. Returns the parameters that changed by it.
async fn run(lease: &mut Lease, sql: &[u8]) -> Result<Result<Vec<(String, String)>, LoginFault>, OpenError> {
    if sql.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let broken = |source| OpenError::Io { address: "the server".into(), source };
    let mut query = Vec::new();
    build::query(&mut query, sql);
    lease.stream.write_all(&query).await.map_err(broken)?;
    lease.stream.flush().await.map_err(broken)?;
    let mut outcome = Ok(Vec::new());
    loop {
        match read_frame(&mut lease.stream).await? {
            (backend::PARAMETER_STATUS, body) => {
                if let (Ok(told), Some(parameter)) = (&mut outcome, parameter(&body)) {
                    told.push(parameter);
                }
            }
            (backend::ERROR_RESPONSE, body) => {
                outcome = Err(RefusedLogin::read(&body).map_or(OpenError::Protocol.into(), LoginFault::Parameter));
            }
            (backend::READY_FOR_QUERY, _) => return Ok(outcome),
            _ => {}
        }
    }
}

fn parameter(body: &[u8]) -> Option<(String, String)> {
    let (name, rest) = split_cstring(body)?;
    let (value, _) = split_cstring(rest)?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some((text(name), text(value)))
}

/// The settings with the values that the server reported. Of those it reports at all, one that it did not report now
/// has its value of the login.
fn spelled(asked: &Values, told: &[(String, String)], at_login: &Parameters) -> Values {
    let reported = |name: &str| {
        let now = told.iter().rfind(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        now.or_else(|| at_login.value(name)).map(|value| Bytes::copy_from_slice(value.as_bytes()))
    };
    asked
        .iter()
        .map(|(name, value)| (name.clone(), reported(name).map_or_else(|| value.clone(), Value::Text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &'static str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::Text(value.as_bytes().into()))).collect()
    }

    fn at_login() -> Parameters {
        let pairs = [("client_encoding", "UTF8"), ("DateStyle", "ISO, MDY"), ("application_name", "")];
        Parameters::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    #[test]
    fn a_plain_name_and_the_values_of_the_login_are_not_asked_about() {
        let given = [("application_name", "psql"), ("client_encoding", "UTF8"), ("datestyle", "iso")];
        let (plain, asked) = parts(&values(&given), &at_login());
        assert_eq!((plain, asked), (values(&given[..2]), values(&given[2..])));
        let (_, asked) = parts(&values(&[("application_name", "ä")]), &at_login());
        assert_eq!(asked.len(), 1, "servers replace other characters");
    }

    #[test]
    fn the_last_report_counts_and_silence_is_the_value_of_the_login() {
        let asked = values(&[("datestyle", "iso"), ("timezone", "utc"), ("work_mem", "4MB")]);
        let told = [("TimeZone", "GMT"), ("TimeZone", "UTC")].map(|(name, value)| (name.into(), value.into()));
        let expected = values(&[("datestyle", "ISO, MDY"), ("timezone", "UTC"), ("work_mem", "4MB")]);
        assert_eq!(spelled(&asked, &told, &at_login()), expected);
    }
}
