//! One connection from its first byte to its last: a login, then a client or a console.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::admin::console;
use crate::net::listen::Accepted;
use crate::session::context::{Inbox, Worker};
use crate::session::login::{Welcome, log_in};

/// Has a worker serve a connection, which counts as its load from now on.
pub(crate) async fn deal(inbox: &Inbox, accepted: Accepted) {
    let counted = inbox.count();
    let job = |worker: Rc<Worker>| {
        tokio::task::spawn_local(async move {
            serve(worker, accepted).await;
            drop(counted);
        });
    };
    inbox.send(job).await;
}

async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    // The future of a login is large: boxed, it is gone before the client idles.
    let login: Pin<Box<dyn Future<Output = _>>> = Box::pin(log_in(Rc::clone(&worker), accepted));
    match login.await {
        Some(Welcome::Client(client, _counted)) => client.run().await,
        Some(Welcome::Console(stream, facts, _counted)) => Box::pin(console::serve(worker, stream, facts)).await,
        None => {}
    }
}
