//! SHOW PEER_POOLS. A peer is asked over a connection of its own for each cancel, so there are no pools: each number is
//! zero, for programs that ask.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("PEER_POOLS", "PgBouncer's pools of peers; here a cancel opens a connection of its own", lines);

struct PeerPoolLine {
    place: usize,
}

columns! { PeerPoolLine;
    "peer_id" int = |it| it.place,
    "cl_active_cancel_req" int = |_it| 0,
    "cl_waiting_cancel_req" int = |_it| 0,
    "sv_active_cancel" int = |_it| 0,
    "sv_login" int = |_it| 0,
}

fn lines(proxy: &Proxy) -> Vec<PeerPoolLine> {
    (1..=proxy.config.load().fleet.peers.len()).map(|place| PeerPoolLine { place }).collect()
}
