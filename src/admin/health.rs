//! Readiness: whether new clients should be sent to this pgweir.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::pool::core::EndpointView;
use crate::proxy::Proxy;

/// Yes or no, and why, as JSON. No while it drains, and when no server of those that were tried answers.
pub(super) fn ready(proxy: &Proxy) -> (bool, String) {
    let now = Instant::now();
    let mut databases = Map::new();
    let mut is_any_up = false;
    for (name, id) in proxy.directory.all_databases() {
        let Some(view) = proxy.pools.core().database(id) else { continue };
        let (is_up, state) = match view.endpoint {
            _ if view.is_unproved => (false, "no primary is known".to_owned()),
            EndpointView::Up => (true, "up".to_owned()),
            EndpointView::Busy => (true, "has no room".to_owned()),
            // No dial has succeeded since, but a connection of our own is at work.
            EndpointView::Down(_) if proxy.watches.is_up(&name) => (true, "up, as its watch sees".to_owned()),
            EndpointView::Down(since) => {
                (false, format!("down for {} s", now.saturating_duration_since(since).as_secs()))
            }
        };
        is_any_up |= is_up;
        databases.insert(name.to_string(), Value::String(state));
    }
    let is_draining = proxy.is_leaving();
    let is_ready = !is_draining && (is_any_up || databases.is_empty());
    (is_ready, json!({ "ready": is_ready, "draining": is_draining, "databases": databases }).to_string())
}
