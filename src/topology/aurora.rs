//! `topology = "aurora"`: any instance names all instances of its cluster, and each is asked for its own role.
//!
//! During the switch of a blue/green deployment nobody is believed: the old instances still answer, and their names
//! lead to the new ones only afterwards.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::core::{LagReport, Observation};
use super::monitor::TopologyMonitor;
use super::observe::{ObserveTopology, configured_hosts};
use super::probe;
use super::prober::{ProbeAnswer, Prober};
use crate::config::{AuroraCluster, PoolSettings};
use crate::pool::host_port::HostPort;
use crate::pool::lease::Pools;

/// The server's role, its cluster's instances with their lag in milliseconds, and the states of its blue/green
/// deployment.
///
/// Rows of instances that have gone stay for a while. The function of deployments is called in a text, because where
/// there is none a query with its name does not even begin.
const QUESTION: &str = "SELECT concat_ws('/', CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END, \
    (SELECT coalesce(string_agg(concat_ws('=', server_id, replica_lag_in_msec), ' '), '') FROM aurora_replica_status() \
        WHERE last_update_timestamp > now() - '5 minutes'::interval), \
    CASE WHEN to_regproc('pg_catalog.get_blue_green_fast_switchover_metadata') IS NULL THEN '' ELSE query_to_xml(\
        'SELECT string_agg(status, '' '') FROM pg_catalog.get_blue_green_fast_switchover_metadata(''pgweir'')', \
        true, false, '')::text END)";

/// States of a blue/green deployment in which its names lead to the old instances or to none.
const SWITCHING: [&str; 2] = ["SWITCHOVER_IN_PROGRESS", "SWITCHOVER_IN_POST_PROCESSING"];

/// A prober for each host of the configuration, which tell the instances, and one for each instance.
pub(super) struct AuroraSource {
    pools: Arc<Pools>,
    login: PoolSettings,
    cluster: AuroraCluster,
}

/// The instances, and who waits for a change of them.
#[derive(Default)]
struct Instances {
    names: RefCell<BTreeSet<String>>,
    changed: Notify,
}

impl AuroraSource {
    pub(super) fn new(pools: Arc<Pools>, login: PoolSettings, cluster: AuroraCluster) -> Self {
        Self { pools, login, cluster }
    }

    fn host_of(&self, instance: &str) -> HostPort {
        let host = self.cluster.instance_host.replacen('?', instance, 1);
        HostPort { host, port: self.login.endpoint.port }
    }

    /// Has a host asked for the instances and, if it is one, for its role.
    fn probe(
        &self,
        host: HostPort,
        monitor: &Arc<TopologyMonitor>,
        instances: &Rc<Instances>,
    ) -> impl Future<Output = ()> + use<> {
        let prober = Prober::new(Arc::clone(&self.pools), &self.login, host.clone());
        let (monitor, instances) = (Arc::clone(monitor), Rc::clone(instances));
        let pattern = self.cluster.instance_host.clone();
        async move {
            let mut switch = BlueGreenSwitch::default();
            let heard = |look| match look {
                ProbeAnswer::Text { text, address } => match read(&text, address) {
                    Some(mut answer) => {
                        let mut named = answer.instances.iter();
                        if let Some((_, lag)) = named.find(|(name, _)| pattern.replacen('?', name, 1) == host.host) {
                            answer.observation.lag = lag.map_or(LagReport::Unknown, LagReport::Time);
                        }
                        instances.set(answer.instances.into_keys().collect());
                        match switch.is_over(answer.is_switching, address) {
                            true => monitor.observed(&host, answer.observation),
                            false => monitor.failed(&host, "a blue/green deployment switches"),
                        }
                    }
                    None => monitor.failed(&host, "the answer is not that of an Aurora instance"),
                },
                ProbeAnswer::Refused(message) => monitor.failed(&host, &message),
            };
            prober.run(&monitor, QUESTION, heard).await;
        }
    }
}

impl ObserveTopology for AuroraSource {
    fn run(self: Box<Self>, monitor: Arc<TopologyMonitor>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let instances = Rc::<Instances>::default();
            let mut seeds = JoinSet::new();
            for host in configured_hosts(&self.login) {
                seeds.spawn_local(self.probe(host, &monitor, &instances));
            }
            let mut probers = JoinSet::new();
            let mut known: BTreeMap<HostPort, AbortHandle> = BTreeMap::new();
            loop {
                instances.changed.notified().await;
                let hosts: BTreeSet<HostPort> = instances.names.borrow().iter().map(|id| self.host_of(id)).collect();
                monitor.members(&hosts);
                known.retain(|host, task| {
                    let stays = hosts.contains(host);
                    if !stays {
                        task.abort();
                    }
                    stays
                });
                for host in hosts {
                    known
                        .entry(host.clone())
                        .or_insert_with(|| probers.spawn_local(self.probe(host, &monitor, &instances)));
                }
            }
        })
    }
}

impl Instances {
    /// An instance has named these. A cluster has at least the one that answered.
    fn set(&self, names: BTreeSet<String>) {
        if !names.is_empty() && *self.names.borrow() != names {
            self.names.replace(names);
            self.changed.notify_one();
        }
    }
}

/// The switch of a blue/green deployment, as the prober of one name sees it.
#[derive(Default)]
struct BlueGreenSwitch {
    /// The address that the name had during the switch.
    from: Option<IpAddr>,
}

impl BlueGreenSwitch {
    /// Whether the server at this address may be believed: the one at which the switch was seen never again.
    fn is_over(&mut self, is_switching: bool, address: Option<IpAddr>) -> bool {
        if is_switching {
            self.from = address;
            return false;
        }
        self.from.is_none() || self.from != address
    }
}

#[derive(Debug)]
struct AuroraAnswer {
    observation: Observation,
    /// Each with its lag, of which a writer has none.
    instances: BTreeMap<String, Option<Duration>>,
    is_switching: bool,
}

fn read(text: &str, address: Option<IpAddr>) -> Option<AuroraAnswer> {
    let mut parts = text.splitn(3, '/');
    let observation = probe::observation(parts.next()?, address)?;
    let instance = |text: &str| match text.split_once('=') {
        Some((id, lag)) => {
            (id.to_owned(), lag.parse().ok().and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok()))
        }
        None => (text.to_owned(), None),
    };
    let instances = parts.next()?.split(' ').filter(|text| !text.is_empty()).map(instance).collect();
    let states = parts.next()?;
    Some(AuroraAnswer { observation, instances, is_switching: SWITCHING.iter().any(|state| states.contains(state)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::core::SeenRole;

    #[test]
    fn an_answer_has_a_role_instances_and_the_state_of_a_deployment() {
        let answer = read("primary/a-1 a-2=20.5/<row><string_agg>AVAILABLE</string_agg></row>", None).expect("whole");
        assert_eq!(answer.observation.role, SeenRole::Primary);
        let lag = Some(Duration::from_micros(20_500));
        assert_eq!(answer.instances, [("a-1".to_owned(), None), ("a-2".to_owned(), lag)].into());
        assert!(!answer.is_switching);
        let answer = read("standby//<string_agg>SWITCHOVER_IN_PROGRESS AVAILABLE</string_agg>", None).expect("whole");
        assert!(answer.is_switching && answer.instances.is_empty());
        assert!(read("primary", None).is_none());
    }

    #[test]
    fn the_old_address_is_not_believed_after_the_switch() {
        let (blue, green) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut switch = BlueGreenSwitch::default();
        assert!(switch.is_over(false, Some(blue)));
        assert!(!switch.is_over(true, Some(blue)));
        assert!(!switch.is_over(false, Some(blue)));
        assert!(switch.is_over(false, Some(green)));
    }
}
