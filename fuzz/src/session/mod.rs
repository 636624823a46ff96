//! Sessions: clients that send whole messages and halves, read or do not, and go when they like, through a pgweir in
//! this thread, over socket pairs, before a server as a script ([`server`]).
//!
//! Whatever they do: nothing panics; each hears whole messages, and exactly those that its own deserve; and when all of
//! them are gone, no backend is held, and no memory is counted for them.

mod client;
mod server;
mod wire;

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use pgweir::testing::run::{HeldByClients, InProcess};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{sleep, timeout};

use self::client::{Client, Operation};
use self::server::{JUNK, TEXTS};

/// An event that has not come after this time does not come, on however slow a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Operations of one input: longer ones find nothing that two shorter ones would not.
const OPERATIONS_MAX: usize = 60;

/// Reads choices from the bytes of an input; behind them all are 0.
pub(crate) struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    pub(crate) fn next(&mut self, below: usize) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first) % below
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// Panics if it does not hold for the sessions that `bytes` describe.
#[allow(unreachable_pub, reason = "a test of pgweir has this file, too")]
pub fn check(bytes: &[u8]) {
    thread_local!(static INPUTS: Cell<u64> = const { Cell::new(0) });
    let number = INPUTS.replace(INPUTS.get() + 1);
    let thread = format!("{:?}", std::thread::current().id());
    let name = format!("pgweir-fuzz-{}-{}-{number}", std::process::id(), thread.replace(['(', ')'], ""));
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).expect("a new directory");
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default()).expect("a runtime");
    let run = std::panic::AssertUnwindSafe(|| runtime.block_on(sessions(bytes, &directory)));
    let outcome = std::panic::catch_unwind(run);
    let _ = std::fs::remove_dir_all(&directory);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// The modes that pools may have here; how a session is reset.
const MODES: [&str; 3] = ["transaction", "session", "transaction"];

fn config(choices: &mut Choices<'_>, directory: &Path) -> String {
    let (mode, size) = (MODES[choices.next(MODES.len())], 1 + choices.next(2));
    let reset = ["dirty", "dirty", "always"][choices.next(3)];
    format!(
        "[listen]\nworkers = 1\n[admin]\naddr = \"off\"\n\
         [pool]\nsize = {size}\nmode = \"{mode}\"\nreset = \"{reset}\"\ncancel_timeout = \"1s\"\nwait_timeout = \"60s\"\n\
         [databases.app]\nhost = \"{}\"\n[roles.app]\nauth = \"trust\"\n",
        directory.display()
    )
}

async fn sessions(bytes: &[u8], directory: &Path) {
    let mut choices = Choices(bytes);
    let text = config(&mut choices, directory);
    let config = pgweir::config::parse(&text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).expect("a new socket");
    let junk_kind = choices.next(JUNK);
    tokio::task::spawn_local(wire::serve(listener, junk_kind, bytes.len() % 7));
    let proxy = InProcess::start(config).expect("no certificates");
    let count = 1 + choices.next(3);
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::log_in(&proxy, junk_kind).await);
    }
    for _ in 0..OPERATIONS_MAX {
        if choices.is_over() {
            break;
        }
        let client = choices.next(count);
        match Operation::choose(&mut choices) {
            Operation::Rest(rounds) => wire::rounds(rounds).await,
            operation => clients[client].act(operation),
        }
    }
    let ends = clients.into_iter().map(|client| tokio::task::spawn_local(client.end()));
    for end in ends.collect::<Vec<_>>() {
        if let Err(failed) = end.await {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    let nothing = HeldByClients::default();
    let gone = async {
        while proxy.held() != nothing {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(PATIENCE, gone).await.is_err() {
        panic!("all clients are gone, and this is left: {:?}", proxy.held());
    }
}

/// A text of one or two statements.
pub(crate) fn text(choices: &mut Choices<'_>) -> String {
    let first = TEXTS[choices.next(TEXTS.len())].to_owned();
    match choices.next(8) {
        0 => format!("{first}; {}", TEXTS[choices.next(TEXTS.len())]),
        1 => format!("{first}; {}; {}", TEXTS[choices.next(TEXTS.len())], TEXTS[choices.next(TEXTS.len())]),
        _ => first,
    }
}
