//! Which databases are at the same server, and which of their watches asks what concerns all of them. Pure.
//!
//! A server is known by its configured address until a watch has reached it, and by its own word from then on. Its
//! leader asks for the whole server; another watch takes over where the leader has no answer, so that each cause is
//! reported once, and goes on being the same when a server restarts or its name leads elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::finding::Reach;
use super::server::Postmaster;

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerKey {
    /// Nobody has reached it yet: host and port of the configuration.
    Configured(Arc<str>),
    /// As it names itself.
    Identified(Postmaster),
}

/// The part of one watch in the watch of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// It leads already, or follows another that answers.
    Same,
    /// It leads, and nobody did before.
    Leads,
    /// It leads in the place of this one, which has no answer.
    Succeeds(Arc<str>),
    /// It led elsewhere, and follows here.
    Follows,
}

/// A server and the databases there that are watched.
#[derive(Debug, Default)]
struct ServerDatabases {
    leader: Option<Arc<str>>,
    /// Each with its oid, once its watch has reached it.
    databases: BTreeMap<Arc<str>, Option<u32>>,
}

/// All servers.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    servers: BTreeMap<ServerKey, ServerDatabases>,
    homes: BTreeMap<Arc<str>, ServerKey>,
}

impl Servers {
    /// The watch of this database is at this server now; `is_up`: whether a watch has answers.
    pub(crate) fn settle(
        &mut self,
        database: &Arc<str>,
        key: ServerKey,
        oid: Option<u32>,
        is_up: impl Fn(&str) -> bool,
    ) -> Part {
        let before = self.homes.insert(Arc::clone(database), key.clone()).filter(|before| *before != key);
        let (mut led_before, mut left_by, mut others) = (false, None, Vec::new());
        if let Some(before) = before {
            let server = self.servers.entry(before.clone()).or_default();
            server.databases.remove(database);
            led_before = server.leader.as_ref() == Some(database);
            let has_no_answer = |leader: &Arc<str>| leader != database && !is_up(leader);
            left_by = server.leader.clone().filter(has_no_answer);
            if led_before || left_by.is_some() {
                others = server.databases.keys().filter(|other| !is_up(other)).cloned().collect();
                server.leader = None;
            }
            // Databases that nobody reaches are taken along: the server is the same, as long as it says nothing else.
            server.databases.retain(|other, _| !others.contains(other));
            if server.databases.is_empty() {
                self.servers.remove(&before);
            }
        }
        let server = self.servers.entry(key.clone()).or_default();
        server.databases.insert(Arc::clone(database), oid);
        for other in others {
            server.databases.entry(Arc::clone(&other)).or_default();
            self.homes.insert(other, key.clone());
        }
        // One that has reached nothing itself takes nobody's place.
        let has_reached = matches!(key, ServerKey::Identified(_));
        let has_answers = |leader: &Arc<str>| leader == database || !has_reached || is_up(leader);
        match server.leader.clone() {
            Some(leader) if has_answers(&leader) => {
                if led_before {
                    Part::Follows
                } else {
                    Part::Same
                }
            }
            leader => {
                server.leader = Some(Arc::clone(database));
                match leader.or(left_by) {
                    _ if led_before => Part::Same,
                    Some(leader) => Part::Succeeds(leader),
                    None => Part::Leads,
                }
            }
        }
    }

    /// Nobody watches this database any more. Returns the one that leads in its place.
    pub(crate) fn leave(&mut self, database: &str, is_up: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        let key = self.homes.remove(database)?;
        let server = self.servers.get_mut(&key)?;
        server.databases.remove(database);
        if server.databases.is_empty() {
            self.servers.remove(&key);
            return None;
        }
        if server.leader.as_deref() != Some(database) {
            return None;
        }
        let mut others = server.databases.keys();
        server.leader = others.clone().find(|other| is_up(other)).or_else(|| others.next()).cloned();
        server.leader.clone()
    }

    /// The databases at the server of this one.
    pub(crate) fn beside(&self, database: &str) -> impl Iterator<Item = (&Arc<str>, Option<u32>)> {
        let server = self.homes.get(database).and_then(|key| self.servers.get(key));
        server.into_iter().flat_map(|server| server.databases.iter().map(|(name, oid)| (name, *oid)))
    }

    /// The watch that asks for the server of this database.
    pub(crate) fn leader(&self, database: &str) -> Option<&Arc<str>> {
        self.servers.get(self.homes.get(database)?)?.leader.as_ref()
    }

    /// The databases that a finding of this one's watch concerns. Those that nobody watches have no name here.
    pub(crate) fn reached(&self, database: &Arc<str>, reach: &Reach) -> Vec<Arc<str>> {
        match reach {
            Reach::Own => vec![Arc::clone(database)],
            Reach::Server => self.beside(database).map(|(name, _)| Arc::clone(name)).collect(),
            Reach::Of(oids) => {
                let is_meant = |oid: Option<u32>| oid.is_some_and(|oid| oids.contains(&oid));
                self.beside(database).filter(|(_, oid)| is_meant(*oid)).map(|(name, _)| Arc::clone(name)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Servers, and the watches that have answers.
    #[derive(Default)]
    struct Model {
        servers: Servers,
        up: BTreeSet<&'static str>,
    }

    impl Model {
        fn configured(&mut self, database: &str) -> Part {
            let up = &self.up;
            let key = ServerKey::Configured("db:5432".into());
            self.servers.settle(&database.into(), key, None, |name| up.contains(name))
        }

        /// The watch has reached the server that began then.
        fn reaches(&mut self, database: &'static str, began: i64) -> Part {
            self.up.insert(database);
            let up = &self.up;
            let key = ServerKey::Identified(Postmaster { began, port: 5432 });
            let oid = database.bytes().next().map(u32::from);
            self.servers.settle(&database.into(), key, oid, |name| up.contains(name))
        }

        fn all_reach(&mut self, began: i64) {
            for database in ["a", "b", "c"] {
                self.reaches(database, began);
            }
        }

        fn reach(&self, database: &str, reach: Reach) -> Vec<String> {
            self.servers.reached(&database.into(), &reach).iter().map(ToString::to_string).collect()
        }
    }

    fn succeeds(leader: &str) -> Part {
        Part::Succeeds(leader.into())
    }

    #[test]
    fn one_of_those_at_a_server_leads_before_and_after_it_is_reached() {
        let mut model = Model::default();
        assert_eq!(["a", "b", "c"].map(|name| model.configured(name)), [Part::Leads, Part::Same, Part::Same]);
        assert_eq!(model.reaches("b", 1), succeeds("a"), "a has no answer yet");
        assert_eq!(model.reaches("a", 1), Part::Same);
        assert_eq!(model.reaches("c", 1), Part::Same);
        assert_eq!(model.servers.leader("c").map(|name| &**name), Some("b"));
    }

    #[test]
    fn two_addresses_of_one_server_are_one_and_one_address_of_two_servers_is_two() {
        let mut model = Model::default();
        assert_eq!(
            [model.reaches("a", 1), model.reaches("b", 1), model.reaches("c", 2)],
            [Part::Leads, Part::Same, Part::Leads]
        );
        assert_eq!(model.reach("a", Reach::Server), ["a", "b"]);
        assert_eq!(model.reach("c", Reach::Server), ["c"]);
        assert_eq!(model.reach("a", Reach::Own), ["a"]);
        assert_eq!(model.reach("a", Reach::Of([u32::from(b'b'), 99].into())), ["b"]);
    }

    #[test]
    fn who_has_an_answer_takes_over_from_who_has_none() {
        let mut model = Model::default();
        model.all_reach(1);
        model.up.remove("a");
        assert_eq!(model.reaches("b", 1), succeeds("a"));
        assert_eq!(model.reaches("a", 1), Part::Same);
        assert_eq!(model.reaches("c", 1), Part::Same);
    }

    #[test]
    fn a_server_that_restarts_keeps_its_databases_and_its_findings() {
        let mut model = Model::default();
        model.all_reach(1);
        model.up.clear();
        assert_eq!(model.reaches("c", 2), succeeds("a"));
        assert_eq!(model.reach("c", Reach::Server), ["a", "b", "c"], "they are expected there");
        assert_eq!([model.reaches("a", 2), model.reaches("b", 2)], [Part::Same, Part::Same]);
        model.up.clear();
        assert_eq!(model.reaches("c", 3), Part::Same, "it brings what it has");
        assert_eq!(model.reach("c", Reach::Server), ["a", "b", "c"]);
    }

    #[test]
    fn who_goes_to_another_server_leaves_the_rest_or_follows_there() {
        let mut model = Model::default();
        model.all_reach(1);
        assert_eq!(model.reaches("b", 2), Part::Leads, "a still leads the others");
        assert_eq!(model.reaches("a", 2), Part::Follows);
        assert_eq!(model.reaches("c", 1), Part::Leads, "nobody leads there any more");
    }

    #[test]
    fn who_is_no_longer_watched_hands_over() {
        let mut model = Model::default();
        model.all_reach(1);
        model.up.remove("b");
        let up = model.up.clone();
        assert_eq!(model.servers.leave("a", |name| up.contains(name)).as_deref(), Some("c"));
        assert_eq!(model.servers.leave("b", |name| up.contains(name)), None);
        assert_eq!(model.servers.leave("c", |name| up.contains(name)), None);
        assert!(model.servers.servers.is_empty() && model.servers.homes.is_empty());
    }
}
