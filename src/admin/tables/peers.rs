//! SHOW PEERS: where `fleet.peers` are reached. Instances draw their own numbers, so an id is a place in the list.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("PEERS", "the other instances, as fleet.peers names them", lines);

struct PeerLine {
    place: usize,
    host: String,
    port: u16,
}

columns! { PeerLine;
    "peer_id" int = |it| it.place,
    "host" text = |it| &it.host,
    "port" int = |it| it.port,
    "pool_size" int = |_it| 0,
}

fn lines(proxy: &Proxy) -> Vec<PeerLine> {
    let config = proxy.config.load();
    let peers = config.fleet.peers.iter().zip(1..);
    peers.map(|(peer, place)| PeerLine { place, host: peer.host.clone(), port: peer.port }).collect()
}
