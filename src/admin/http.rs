//! The HTTP side (being built).
use crate::proxy::Proxy;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
/// Binds.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}
/// Serves.
pub async fn serve(_listener: TcpListener, _proxy: Arc<Proxy>) {}
