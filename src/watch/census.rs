//! Who else watches the server for the same fleet: its question, and what an answer means.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::row::{AnswerRow, Unreadable, only};
use crate::admission::fleet_share::FleetShare;
use crate::fleet::count::{FleetCount, InstanceId};

/// Counts the instances for all watches of this process.
#[derive(Debug)]
pub struct Census {
    /// Of every connection of a watch: `pgweir`, the fleet, the instance.
    pub application_name: String,
    /// Asks for those of the fleet. A name that another role gives itself does not count.
    pub sql: String,
    prefix: String,
    count: Mutex<FleetCount>,
}

impl Census {
    /// Of a fleet with this name, which holds letters, digits and `-_.` only.
    pub(crate) fn new(fleet: &str, me: InstanceId) -> Self {
        let prefix = format!("pgweir {fleet} ");
        let sql = format!(
            "SELECT string_agg(application_name, ',') FROM pg_stat_get_activity(NULL) \
             WHERE usesysid = (SELECT usesysid FROM pg_stat_get_activity(pg_backend_pid())) \
             AND starts_with(application_name, '{prefix}')"
        );
        Self { application_name: format!("{prefix}{me:016x}"), sql, prefix, count: Mutex::new(FleetCount::new(me)) }
    }

    /// Takes the answer of a database's server.
    pub(crate) fn answer(&self, database: &Arc<str>, rows: &[AnswerRow], now: Instant) -> Result<(), Unreadable> {
        let names = only(rows)?.text_or_null(0)?.unwrap_or_default();
        let member = |name: &str| InstanceId::from_str_radix(name.strip_prefix(&self.prefix)?, 16).ok();
        let seen: BTreeSet<_> = names.split(',').filter_map(member).collect();
        self.count().saw(database, &seen, now);
        Ok(())
    }

    /// This database is not watched any more.
    pub(crate) fn forget(&self, database: &str) {
        self.count().forget(database);
    }

    /// How many instances there are.
    pub(crate) fn members(&self) -> u32 {
        u32::try_from(self.count().members().len()).expect("fewer instances than that")
    }

    /// Our part of the limits.
    pub(crate) fn share(&self) -> FleetShare {
        self.count().share()
    }

    fn count(&self) -> MutexGuard<'_, FleetCount> {
        self.count.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::count::EVERY;

    #[test]
    fn only_instances_of_the_fleet_count_each_once() {
        let (census, now) = (Census::new("main", 10), Instant::now());
        assert_eq!(census.application_name, "pgweir main 000000000000000a");
        let names = "pgweir main 000000000000000a,pgweir main 0000000000000002,pgweir main 0000000000000002,pgweir main x,\
                     pgweir other 0000000000000003,";
        for step in 0..3 {
            census.answer(&"app".into(), &[AnswerRow::of(&[Some(names)])], now + EVERY * step).expect("readable");
        }
        assert_eq!(census.share(), FleetShare::Part { rank: 1, of: 2 });
        // Nobody is there, not even we.
        census.answer(&"app".into(), &[AnswerRow::of(&[None])], now + EVERY * 4).expect("readable");
        assert_eq!(census.share(), FleetShare::Part { rank: 1, of: 2 });
    }

    #[test]
    fn names_are_whole_in_the_server() {
        // NAMEDATALEN cuts them after 63 bytes.
        assert!(Census::new(&"n".repeat(crate::config::FLEET_NAME_MAX), u64::MAX).application_name.len() <= 63);
    }
}
