//! The console (being built).
use std::rc::Rc;
use crate::net::stream::Stream;
use crate::worker::Worker;
/// Serves one console.
pub async fn serve(_worker: Rc<Worker>, _stream: Stream, _role: String) {}
