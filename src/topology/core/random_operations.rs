//! Random reports of servers that are promoted, lost, split and renamed, against what must hold after each.

use proptest::prelude::*;

use super::*;

const HOSTS: u16 = 4;

#[derive(Debug, Clone)]
enum Operation {
    Members(BTreeSet<u16>),
    Observed { host: u16, role: SeenRole, timeline: Option<u32>, mark: u8 },
    Failed { host: u16 },
    Forget,
}

fn operation() -> impl Strategy<Value = Operation> {
    let role = prop_oneof![Just(SeenRole::Primary), Just(SeenRole::Standby)];
    prop_oneof![
        1 => prop::collection::btree_set(0..HOSTS, 0..=usize::from(HOSTS)).prop_map(Operation::Members),
        12 => (0..HOSTS, role, prop::option::weighted(0.9, 1_u32..5), 0_u8..2)
            .prop_map(|(host, role, timeline, mark)| Operation::Observed { host, role, timeline, mark }),
        5 => (0..HOSTS).prop_map(|host| Operation::Failed { host }),
        1 => Just(Operation::Forget),
    ]
}

fn name(n: u16) -> HostPort {
    HostPort { host: format!("h{n}"), port: n }
}

/// What the pools were told, which is all that they go by.
#[derive(Default)]
struct Model {
    core: TopologyCore,
    told: Option<HostPort>,
    /// Primaries by the epoch in which they were proved.
    epochs: Vec<ProvedPrimary>,
    highest: Option<u32>,
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        let change = match operation {
            Operation::Members(hosts) => self.core.set_members(&hosts.iter().copied().map(name).collect()),
            Operation::Observed { host, role, timeline, mark } => {
                let mark = Some(mark.to_string().into());
                let (timeline, lag) = (*timeline, LagReport::Unknown);
                let observation = Observation { role: *role, timeline, mark, name: None, lag };
                self.core.observed(&name(*host), observation)
            }
            Operation::Failed { host } => self.core.failed(&name(*host), "gone".into()),
            Operation::Forget => {
                self.highest = None;
                self.core.forget()
            }
        };
        match change {
            TopologyChange::None => {}
            TopologyChange::Doubted(_) => self.told = None,
            TopologyChange::Proved { host, epoch } => {
                let proved = self.core.verdict().expect("it was just proved").clone();
                assert_eq!(proved.host, host);
                let is_same = self.epochs.last().is_some_and(|last| last.is_same(&proved));
                assert_eq!(epoch == ServerEpoch::Same, is_same, "an epoch is a server, and its term");
                if epoch == ServerEpoch::New {
                    self.epochs.push(proved.clone());
                }
                assert!(proved.timeline.is_none() || proved.timeline >= self.highest, "a former primary was believed");
                self.highest = self.highest.max(proved.timeline);
                self.told = Some(host);
            }
        }
        if let (Ok(primary), Some(last)) = (self.core.verdict(), self.epochs.last_mut()) {
            assert!(last.is_same(primary) && (primary.timeline.is_some() || last.timeline.is_none()));
            last.timeline = primary.timeline;
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.told.as_ref(), self.core.verdict().ok().map(|primary| &primary.host), "the pools know");
        assert_eq!(self.core.epoch(), self.epochs.len() as u64);
        let claims = self.core.members().iter().filter_map(|(host, state)| match state {
            MemberState::Seen(seen) if seen.role == SeenRole::Primary => Some((host, seen.timeline)),
            _ => None,
        });
        let claims: Vec<_> = claims.collect();
        if let Ok(primary) = self.core.verdict() {
            let rivals =
                claims.iter().filter(|(host, timeline)| **host != primary.host && *timeline >= primary.timeline);
            assert_eq!(rivals.count(), 0, "another claims as much");
            assert!(claims.iter().any(|(host, _)| **host == primary.host), "its own last answer says so");
        }
    }
}

proptest! {
    #[test]
    fn nobody_is_primary_whose_last_answer_does_not_say_so(operations in prop::collection::vec(operation(), 0..200)) {
        let mut model = Model::default();
        for operation in &operations {
            model.apply(operation);
        }
    }
}
