//! `topology = "patroni"`: any member names the cluster, and each member is asked for itself.
//!
//! Patroni's `/cluster` tells what stands in its store, where a leader stays until its lease is over. So the leader is
//! believed only as long as its own `/primary` says yes: that is 200 only for a member that runs and has the lock.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use super::core::{LagReport, Observation, SeenRole};
use super::monitor::{TopologyMonitor, within};
use super::observe::ObserveTopology;
use super::rest::RestClient;
use crate::config::PatroniApi;
use crate::pool::host_port::HostPort;
use crate::pool::lease::Pools;

/// A member that takes longer for an answer is not relied on.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Asks the members that the configuration names, and those that they name.
pub(super) struct PatroniSource {
    pools: Arc<Pools>,
    api: PatroniApi,
}

/// A member by `/cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PatroniMember {
    host: HostPort,
    /// Its REST API, without a path.
    url: String,
    is_leader: bool,
}

impl PatroniSource {
    pub(super) fn new(pools: Arc<Pools>, api: PatroniApi) -> Self {
        Self { pools, api }
    }
}

impl ObserveTopology for PatroniSource {
    fn run(self: Box<Self>, monitor: Arc<TopologyMonitor>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let client = match RestClient::new(Arc::clone(&self.pools), &self.api) {
                Ok(client) => Arc::new(client),
                Err(error) => {
                    tracing::error!(database = %monitor.database, %error, "Patroni's API cannot be asked");
                    return;
                }
            };
            let mut members: Vec<PatroniMember> = Vec::new();
            loop {
                match cluster(&client, &self.api, &members).await {
                    Some(found) => members = found,
                    None => tracing::debug!(database = %monitor.database, "no member of Patroni's cluster answers"),
                }
                monitor.members(&members.iter().map(|member| member.host.clone()).collect::<BTreeSet<_>>());
                let mut looks = JoinSet::new();
                for member in members.clone() {
                    let (client, monitor) = (Arc::clone(&client), Arc::clone(&monitor));
                    looks.spawn_local(async move { look(&client, &member, &monitor).await });
                }
                while looks.join_next().await.is_some() {}
                monitor.next_look().await;
            }
        })
    }
}

/// The cluster as the first member that answers sees it. A member that has just led is asked first, and one that has
/// lost its store still answers with what it saw last; a leader that it names has to say so itself.
async fn cluster(client: &RestClient, api: &PatroniApi, known: &[PatroniMember]) -> Option<Vec<PatroniMember>> {
    let known = known.iter().map(|member| &member.url);
    let mut urls: Vec<&String> = known.chain(&api.urls).collect();
    urls.dedup();
    for url in urls {
        let Ok((StatusCode::OK, body)) = within(ANSWER_MAX, client.get(url, "/cluster")).await else { continue };
        if let Some(members) = serde_json::from_slice(&body).ok().as_ref().and_then(read_cluster) {
            return Some(members);
        }
    }
    None
}

/// Members without an address are on their way up, and are left out.
fn read_cluster(cluster: &Value) -> Option<Vec<PatroniMember>> {
    let members = cluster.get("members")?.as_array()?;
    let read = |member: &Value| {
        let host = member.get("host")?.as_str()?.to_owned();
        let port = u16::try_from(member.get("port")?.as_u64()?).ok()?;
        let url = member.get("api_url")?.as_str()?;
        let path = url.find("://")? + 3;
        let end = url[path..].find('/').map_or(url.len(), |end| path + end);
        let role = member.get("role")?.as_str()?;
        let is_leader = matches!(role, "leader" | "master" | "primary");
        Some(PatroniMember { host: HostPort { host, port }, url: url[..end].to_owned(), is_leader })
    };
    Some(members.iter().filter_map(read).collect())
}

/// Asks a member for itself.
async fn look(client: &RestClient, member: &PatroniMember, monitor: &TopologyMonitor) {
    let path = if member.is_leader { "/primary" } else { "/replica" };
    match within(ANSWER_MAX, client.get(&member.url, path)).await {
        Err(reason) => monitor.failed(&member.host, &reason),
        Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body).ok().as_ref().and_then(read_member) {
            Some(observation) => monitor.observed(&member.host, observation),
            None => monitor.failed(&member.host, "Patroni's answer has no role"),
        },
        Ok((status, _)) => monitor.failed(&member.host, &format!("Patroni says {} to {path}", status.as_u16())),
    }
}

fn read_member(member: &Value) -> Option<Observation> {
    let role = match member.get("role")?.as_str()? {
        "primary" | "master" => SeenRole::Primary,
        "replica" => SeenRole::Standby,
        _ => return None,
    };
    let timeline = member.get("timeline").and_then(Value::as_u64).and_then(|timeline| u32::try_from(timeline).ok());
    let place = match role {
        SeenRole::Primary => "location",
        SeenRole::Standby | SeenRole::Unasked => "replayed_location",
    };
    let position = member.get("xlog").and_then(|xlog| xlog.get(place)?.as_u64());
    let lag = position.map_or(LagReport::Unknown, |position| LagReport::Position { position, age: None });
    Some(Observation { role, timeline, mark: None, name: None, lag })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_have_an_address_and_an_api() {
        let cluster = json!({ "members": [
            { "name": "a", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432,
              "api_url": "http://10.0.0.1:8008/patroni", "timeline": 3 },
            { "name": "b", "role": "replica", "state": "streaming", "host": "10.0.0.2", "port": 5433,
              "api_url": "https://b.internal:8008/patroni", "timeline": 3, "lag": 0 },
            { "name": "c", "role": "replica", "state": "creating replica" },
        ], "scope": "demo" });
        let members = read_cluster(&cluster).expect("a cluster");
        let shown: Vec<_> = members.iter().map(|it| (it.host.to_string(), it.url.as_str(), it.is_leader)).collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.1:5432".to_owned(), "http://10.0.0.1:8008", true),
                ("10.0.0.2:5433".to_owned(), "https://b.internal:8008", false)
            ]
        );
        assert_eq!(read_cluster(&json!({})), None);
    }

    #[test]
    fn a_member_says_its_role_and_timeline() {
        let seen = |member| read_member(&member).map(|seen| (seen.role, seen.timeline));
        assert_eq!(seen(json!({ "role": "primary", "timeline": 4 })), Some((SeenRole::Primary, Some(4))));
        assert_eq!(seen(json!({ "role": "master" })), Some((SeenRole::Primary, None)));
        assert_eq!(seen(json!({ "role": "replica", "timeline": 4 })), Some((SeenRole::Standby, Some(4))));
        assert_eq!(seen(json!({ "role": "standby_leader" })), None);
        let lag = |member| read_member(&member).map(|seen| seen.lag);
        let at = |position| Some(LagReport::Position { position, age: None });
        assert_eq!(lag(json!({ "role": "primary", "xlog": { "location": 67_197_256 } })), at(67_197_256));
        let xlog = json!({ "received_location": 67_197_256, "replayed_location": 67_197_000, "paused": false });
        assert_eq!(lag(json!({ "role": "replica", "xlog": xlog })), at(67_197_000));
        assert_eq!(lag(json!({ "role": "replica" })), Some(LagReport::Unknown));
    }
}
