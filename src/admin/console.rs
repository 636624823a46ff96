//! The console (being built).
use crate::net::stream::Stream;
use crate::worker::Worker;
use std::rc::Rc;
/// Serves one console.
pub async fn serve(_worker: Rc<Worker>, _stream: Stream, _role: String) {}
