//! The places of connections: how many there may be, how many of them of one address, and which gives way.
//!
//! Of the connections to one listener some have arrived only ([`ArrivalList`]), the others are settled: clients,
//! consoles, streams. Settled ones never give way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::arrival_list::{ArrivalId, ArrivalList, PeerOrigin};

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Clients that are logged in.
    pub clients: usize,
    /// Connections besides them: those that have not logged in, cancels, the console.
    pub spare: usize,
    /// Connections of one address, if that is limited.
    pub of_address: Option<usize>,
}

/// Who leaves where all have spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The newcomer, unless another address has more.
    Newcomer,
    /// The oldest of the address that has most: whoever speaks is answered at once, so an old one does not listen.
    Oldest,
}

/// All connections to one listener.
#[derive(Debug)]
pub(crate) struct Places {
    when_full: WhenFull,
    taken: Mutex<PlacesTaken>,
}

#[derive(Debug, Default)]
struct PlacesTaken {
    arrivals: ArrivalList<oneshot::Sender<()>>,
    /// Settled ones included.
    connections: usize,
    clients: usize,
    of_address: HashMap<PeerOrigin, usize>,
}

impl PlacesTaken {
    /// Counts one more of this address; whether that is more than it may have.
    fn add_to(&mut self, origin: PeerOrigin, room: Room) -> bool {
        let count = self.of_address.entry(origin).or_default();
        *count += 1;
        origin.is_some() && room.of_address.is_some_and(|most| *count > most)
    }

    fn remove_from(&mut self, origin: PeerOrigin) {
        if let Some(count) = self.of_address.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&origin);
            }
        }
    }
}

/// How far a connection has come.
#[derive(Debug)]
enum PlaceStage {
    Arrived(ArrivalId),
    Client,
    /// A connection that is no client's, and stays.
    Other,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    places: Arc<Places>,
    origin: PeerOrigin,
    stage: PlaceStage,
    /// Its address has more than it may.
    pub is_beyond_address: bool,
}

/// Comes when a connection has to make room for another one.
#[derive(Debug)]
pub(crate) struct Eviction(oneshot::Receiver<()>);

impl Eviction {
    /// Waits for it; for ever, once the connection is settled.
    pub(crate) async fn comes(&mut self) {
        if (&mut self.0).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Places {
    pub(crate) fn new(when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self { when_full, taken: Mutex::default() })
    }

    /// A place for one more connection, and the word that it has to leave it. `None`: there is none, and nobody gives
    /// way.
    pub(crate) fn enter(self: &Arc<Self>, origin: PeerOrigin, room: Room) -> Option<(ConnectionPlace, Eviction)> {
        let (tell, told) = oneshot::channel();
        let (id, is_beyond_address) = {
            let mut taken = self.taken();
            if taken.connections >= room.clients + room.spare {
                let gives_way = taken.arrivals.give_way(origin).or_else(|| match self.when_full {
                    WhenFull::Newcomer => None,
                    WhenFull::Oldest => taken.arrivals.give_way_by_age(),
                });
                // One that is gone already leaves its place by itself.
                let _ = gives_way?.send(());
                taken.connections -= 1;
            }
            taken.connections += 1;
            let is_beyond = taken.add_to(origin, room);
            (taken.arrivals.arrive(origin, tell), is_beyond)
        };
        let stage = PlaceStage::Arrived(id);
        Some((ConnectionPlace { places: Arc::clone(self), origin, stage, is_beyond_address }, Eviction(told)))
    }

    /// All connections.
    pub(crate) fn connections(&self) -> usize {
        self.taken().connections
    }

    /// Connections that have not logged in.
    pub(crate) fn arrivals(&self) -> usize {
        self.taken().arrivals.len()
    }

    /// Whether there are this many clients.
    pub(crate) fn is_full(&self, room: Room) -> bool {
        self.taken().clients >= room.clients
    }

    fn taken(&self) -> MutexGuard<'_, PlacesTaken> {
        self.taken.lock().expect("no panic while held")
    }
}

impl ConnectionPlace {
    /// It comes from elsewhere, as its balancer says: it is one of that address, and none of the balancer's.
    pub(crate) fn come_from(&mut self, origin: PeerOrigin, room: Room) {
        let mut taken = self.places.taken();
        taken.remove_from(self.origin);
        self.origin = origin;
        self.is_beyond_address = taken.add_to(origin, room);
        if let PlaceStage::Arrived(id) = self.stage {
            taken.arrivals.come_from(id, origin);
        }
    }

    /// The first request is whole.
    pub(crate) fn speak(&self) {
        if let PlaceStage::Arrived(id) = self.stage {
            self.places.taken().arrivals.speak(id);
        }
    }

    /// Its request is answered: it is one that has just arrived.
    pub(crate) fn rest(&mut self) {
        let PlaceStage::Arrived(id) = &mut self.stage else { return };
        let mut taken = self.places.taken();
        if let Some(tell) = taken.arrivals.leave(*id) {
            *id = taken.arrivals.arrive(self.origin, tell);
        }
    }

    /// It is a client. `false`: there are enough of them, or it has just given way.
    pub(crate) fn settle_client(&mut self, room: Room) -> bool {
        let mut taken = self.places.taken();
        let PlaceStage::Arrived(id) = self.stage else { return false };
        if taken.clients >= room.clients || taken.arrivals.leave(id).is_none() {
            return false;
        }
        taken.clients += 1;
        drop(taken);
        self.stage = PlaceStage::Client;
        true
    }

    /// It is not a client's, and stays. `false`: it has just given way.
    pub(crate) fn settle(&mut self) -> bool {
        let PlaceStage::Arrived(id) = self.stage else { return true };
        let stays = self.places.taken().arrivals.leave(id).is_some();
        if stays {
            self.stage = PlaceStage::Other;
        }
        stays
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let had_place = match self.stage {
            // One that gave way was taken off already.
            PlaceStage::Arrived(id) => taken.arrivals.leave(id).is_some(),
            PlaceStage::Client => {
                taken.clients -= 1;
                true
            }
            PlaceStage::Other => true,
        };
        taken.connections -= usize::from(had_place);
        taken.remove_from(self.origin);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt;

    use super::*;

    const ROOM: Room = Room { clients: 2, spare: 2, of_address: Some(3) };

    fn from(n: u8) -> PeerOrigin {
        Some(IpAddr::from([10, 0, 0, n]).into())
    }

    fn is_evicted((_, eviction): &mut (ConnectionPlace, Eviction)) -> bool {
        eviction.comes().now_or_never().is_some()
    }

    #[test]
    fn silent_ones_take_nobodys_place() {
        let places = Places::new(WhenFull::Newcomer);
        let mut silent: Vec<_> = (0..4).map(|_| places.enter(from(1), ROOM).unwrap()).collect();
        assert_eq!((places.connections(), places.arrivals()), (4, 4));
        let mut clients: Vec<_> = (0..2).map(|_| places.enter(from(2), ROOM).unwrap()).collect();
        for (place, _) in &mut clients {
            place.speak();
            assert!(place.settle_client(ROOM));
        }
        assert!(silent.iter_mut().map(is_evicted).eq([true, true, false, false]));
        assert!(!clients.iter_mut().any(is_evicted));
        assert!(places.is_full(ROOM));
        drop(silent);
        assert_eq!((places.connections(), places.arrivals()), (2, 0));
        let (mut one_more, _) = places.enter(from(3), ROOM).unwrap();
        assert!(!one_more.settle_client(ROOM));
        assert!(one_more.settle());
        drop(clients);
        assert_eq!((places.connections(), places.is_full(ROOM)), (1, false));
    }

    #[test]
    fn an_address_beyond_its_limit_is_known_and_this_machine_has_none() {
        let places = Places::new(WhenFull::Newcomer);
        let room = Room { clients: 100, ..ROOM };
        let taken = (0..4).map(|_| places.enter(from(1), room).unwrap().0.is_beyond_address);
        assert!(taken.eq([false; 4]), "each was gone before the next");
        let kept: Vec<_> = (0..4).map(|_| places.enter(from(1), room).unwrap().0).collect();
        assert!(kept.iter().map(|place| place.is_beyond_address).eq([false, false, false, true]));
        let local: Vec<_> = (0..4).map(|_| places.enter(None, room).unwrap().0).collect();
        assert!(local.iter().all(|place| !place.is_beyond_address));
    }

    #[test]
    fn one_that_a_balancer_passes_on_counts_for_the_address_it_names() {
        let places = Places::new(WhenFull::Newcomer);
        let room = Room { clients: 100, ..ROOM };
        let passed_on = |origin| {
            let (mut place, eviction) = places.enter(from(1), room).unwrap();
            place.come_from(origin, room);
            (place, eviction)
        };
        let mut kept: Vec<_> = [2, 2, 2, 2, 3].map(|n| passed_on(from(n))).into();
        assert!(kept.iter().map(|(place, _)| place.is_beyond_address).eq([false, false, false, true, false]));
        assert!(!places.enter(from(1), room).unwrap().0.is_beyond_address, "the balancer has none");
        let newcomer = places.enter(from(3), Room { clients: 3, ..ROOM }).unwrap();
        assert!(kept.iter_mut().map(is_evicted).eq([true, false, false, false, false]), "the oldest of who has most");
        drop((kept, newcomer));
        assert!(places.taken().of_address.is_empty() && places.arrivals() == 0 && places.connections() == 0);
    }

    #[test]
    fn where_all_have_spoken_the_newcomer_leaves_or_the_oldest() {
        for (when_full, is_let_in) in [(WhenFull::Newcomer, false), (WhenFull::Oldest, true)] {
            let places = Places::new(when_full);
            let mut spoken: Vec<_> = (0..4).map(|_| places.enter(from(1), ROOM).unwrap()).collect();
            spoken.iter().for_each(|(place, _)| place.speak());
            assert_eq!(places.enter(from(1), ROOM).is_some(), is_let_in);
            assert_eq!(is_evicted(&mut spoken[0]), is_let_in);
        }
    }

    #[test]
    fn who_is_answered_is_as_one_that_has_just_arrived() {
        let places = Places::new(WhenFull::Oldest);
        let mut kept: Vec<_> = (0..4).map(|_| places.enter(from(1), ROOM).unwrap()).collect();
        kept.iter().for_each(|(place, _)| place.speak());
        kept[2].0.rest();
        kept[1].0.rest();
        let _newcomer = places.enter(from(2), ROOM).unwrap();
        assert!(kept.iter_mut().map(is_evicted).eq([false, false, true, false]));
        assert_eq!(places.arrivals(), 4);
    }
}
