//! Takes steps on both sides and compares what comes back, message by message.

use crate::lane::Lane;
use crate::model::{CLIENTS, Model, has_counted_cycles, known_difference};
use crate::operation::{Message, Operation, Pool, Role, Step};
use crate::peer::{Peer, fence};

/// Runs until it is cancelled or its backend is ended, and says when it runs.
const RUN: &str = "DO $$ BEGIN RAISE INFO 'running'; PERFORM pg_sleep(600); END $$";

/// A client on both sides.
struct Client {
    role: Role,
    direct: Peer,
    pgweir: Peer,
}

/// Where the two sides part.
#[derive(Clone, Debug)]
pub(crate) struct Divergence {
    /// Steps taken up to here; the last shows it.
    pub(crate) steps: Vec<Step>,
    pub(crate) kind: &'static str,
    pub(crate) direct: Vec<String>,
    pub(crate) pgweir: Vec<String>,
}

/// A run of steps.
pub(crate) struct Outcome {
    /// Steps that were taken, and the messages in them.
    pub(crate) taken: usize,
    pub(crate) messages: usize,
    pub(crate) divergence: Option<Divergence>,
}

impl Outcome {
    fn new(steps: Vec<Step>, difference: Option<Difference>) -> Self {
        let messages = steps.iter().map(|step| step.messages().len().max(1)).sum();
        let taken = steps.len();
        let found = |Difference { kind, direct, pgweir }| Divergence { steps, kind, direct, pgweir };
        Self { taken, messages, divergence: difference.map(found) }
    }
}

/// Takes those of `steps` that may be taken. Known faults are a reason to leave one out, but for those that
/// `lets_known` names.
pub(crate) fn run(lane: &mut Lane, pool: Pool, steps: &[Step], lets_known: Option<&str>) -> Outcome {
    lane.clean();
    let mut run = Run::start(lane, pool);
    let mut taken: Vec<Step> = Vec::new();
    for step in steps {
        if !run.model.may(step) || known_difference(step, &run.model, lets_known).is_some() {
            continue;
        }
        taken.push(step.clone());
        if let Err(difference) = run.take(step) {
            run.end();
            return Outcome::new(taken, Some(difference));
        }
    }
    run.end();
    Outcome::new(taken, None)
}

/// Two answers that differ.
struct Difference {
    kind: &'static str,
    direct: Vec<String>,
    pgweir: Vec<String>,
}

impl Difference {
    fn check(kind: &'static str, direct: &[String], pgweir: &[String]) -> Result<(), Self> {
        if direct == pgweir {
            return Ok(());
        }
        Err(Self { kind, direct: direct.to_vec(), pgweir: pgweir.to_vec() })
    }
}

struct Run<'a> {
    lane: &'a mut Lane,
    pool: Pool,
    model: Model,
    clients: Vec<Client>,
    steps: usize,
}

impl<'a> Run<'a> {
    fn start(lane: &'a mut Lane, pool: Pool) -> Self {
        let login = |_| Client {
            role: Role::Owner,
            direct: lane.login(None, Role::Owner, &[]).0,
            pgweir: lane.login(Some(pool), Role::Owner, &[]).0,
        };
        let clients = (0..CLIENTS).map(login).collect();
        Self { lane, pool, model: Model::new(pool), clients, steps: 0 }
    }

    fn end(self) {
        self.lane.note_changes(self.model.are_tables_changed);
        for mut client in self.clients {
            for peer in [&mut client.direct, &mut client.pgweir] {
                peer.write(&crate::support::frontend::terminate());
            }
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), Difference> {
        self.steps += 1;
        let at = step.client;
        match &step.operation {
            Operation::Send(messages) => self.send(at, messages)?,
            Operation::Crowd(others) => self.crowd(at, others)?,
            Operation::Reconnect(role, more) => self.reconnect(at, *role, more)?,
            Operation::CancelRunning => self.cancel_running(at)?,
            Operation::CancelNothing => {
                let Client { direct, pgweir, .. } = &self.clients[at];
                direct.cancel();
                pgweir.cancel();
            }
            Operation::Kill => self.kill(None)?,
            Operation::KillRunning => self.kill(Some(at))?,
            Operation::ReloadPgweir(number) => self.lane.reload_pgweir(*number),
            Operation::ReloadServer(change) => self.lane.reload_server(change),
            Operation::Ddl(sql) => self.lane.ddl(sql),
        }
        self.model.after(step, self.clients[at].direct.status);
        if self.clients[at].direct.is_over && !matches!(step.operation, Operation::Reconnect(..)) {
            self.reconnect(at, self.clients[at].role, &[])?;
        }
        self.check_parameters(at)?;
        self.check_notifications(step)
    }

    fn send(&mut self, at: usize, messages: &[Message]) -> Result<(), Difference> {
        let Client { direct, pgweir, .. } = &mut self.clients[at];
        let (mut heard, mut heard_of_pgweir) = (Vec::new(), Vec::new());
        if !has_counted_cycles(messages) {
            direct.write(&[twins(messages), fence()].concat());
            pgweir.write(&[encoded(messages), fence()].concat());
            heard = direct.until_fence();
            if direct.is_over {
                return Self::check_lost(pgweir);
            }
            heard_of_pgweir = pgweir.until_fence();
        } else {
            for part in messages.split_inclusive(|message| *message == Message::Await) {
                direct.write(&twins(part));
                pgweir.write(&encoded(part));
                let cycles = part.iter().filter(|message| message.ends_cycle()).count();
                let open = part.iter().rev().take_while(|message| !message.ends_cycle());
                let open = open.filter(|message| !matches!(message, Message::Flush | Message::Await)).count();
                let open = if part.last() == Some(&Message::Await) { open } else { 0 };
                heard.extend(direct.until_flushed(cycles, open));
                if direct.is_over {
                    return Self::check_lost(pgweir);
                }
                heard_of_pgweir.extend(pgweir.until_flushed(cycles, open));
            }
        }
        Difference::check("answers", &comparable(heard, messages), &comparable(heard_of_pgweir, messages))
    }

    /// While one client holds a backend, the others wait for theirs, in any order.
    fn crowd(&mut self, at: usize, others: &[(usize, Vec<Message>)]) -> Result<(), Difference> {
        self.send(at, &[Message::Query("BEGIN".to_owned())])?;
        for (other, messages) in others {
            self.clients[*other].pgweir.write(&encoded(messages));
        }
        self.send(at, &[Message::Query("SELECT 1".to_owned()), Message::Query("COMMIT".to_owned())])?;
        for (other, messages) in others {
            let Client { direct, pgweir, .. } = &mut self.clients[*other];
            direct.write(&twins(messages));
            let cycles = messages.iter().filter(|message| message.ends_cycle()).count();
            let (heard, heard_of_pgweir) = (direct.until(cycles), pgweir.until(cycles));
            Difference::check("answers", &comparable(heard, messages), &comparable(heard_of_pgweir, messages))?;
            self.check_parameters(*other)?;
        }
        Ok(())
    }

    /// Postgres gave the connection up. A client of pgweir hears of an error, and may go on.
    fn check_lost(pgweir: &mut Peer) -> Result<(), Difference> {
        let heard = pgweir.until_kind('E');
        let has_error = heard.last().is_some_and(|last| last.starts_with('E') || last == "CLOSED");
        if has_error { Ok(()) } else { Difference::check("the end of a connection", &["CLOSED".to_owned()], &heard) }
    }

    fn reconnect(&mut self, at: usize, role: Role, more: &[(String, String)]) -> Result<(), Difference> {
        let client = &mut self.clients[at];
        for peer in [&mut client.direct, &mut client.pgweir] {
            peer.write(&crate::support::frontend::terminate());
        }
        // What it held, it holds no more: another step may need it.
        client.direct.until_kind('\0');
        let (direct, mut heard) = self.lane.login(None, role, more);
        let (pgweir, mut heard_of_pgweir) = self.lane.login(Some(self.pool), role, more);
        let is_refused = direct.is_over;
        self.clients[at] = Client { role, direct, pgweir };
        if is_refused {
            heard.truncate(1);
            heard_of_pgweir.truncate(1);
        }
        Difference::check("login", &comparable(heard, &[]), &comparable(heard_of_pgweir, &[]))?;
        let Client { direct, pgweir, .. } = &self.clients[at];
        Self::compare_parameters(direct, pgweir)?;
        if is_refused {
            return self.reconnect(at, role, &[]);
        }
        Ok(())
    }

    fn cancel_running(&mut self, at: usize) -> Result<(), Difference> {
        let Client { direct, pgweir, .. } = &mut self.clients[at];
        let [direct, pgweir] = [direct, pgweir].map(|peer| {
            peer.write(&crate::support::frontend::query(RUN));
            let mut answers = peer.until_kind('N');
            peer.cancel();
            answers.extend(peer.until(1));
            let is_end = |answer: &String| answer.contains(" C:57014 ") || answer.starts_with('Z');
            answers.into_iter().filter(is_end).map(|answer| answer[..2].to_owned()).collect::<Vec<_>>()
        });
        Difference::check("a cancelled statement", &direct, &pgweir)
    }

    /// A client whose backend is ended hears of it, and goes on as if it had rolled back; or it is gone.
    fn kill(&mut self, running: Option<usize>) -> Result<(), Difference> {
        if let Some(at) = running {
            let Client { direct, pgweir, .. } = &mut self.clients[at];
            pgweir.write(&crate::support::frontend::query(RUN));
            pgweir.until_kind('N');
            // A Query ends the unnamed statement.
            direct.query("");
        }
        for (at, client) in self.clients.iter().enumerate() {
            if self.pool != Pool::Session && !self.model.clients[at].holds() && running != Some(at) {
                self.lane.settle(&client.pgweir);
            }
        }
        self.lane.kill_backends();
        for at in 0..CLIENTS {
            let model = &self.model.clients[at];
            let (may_be_gone, in_transaction) =
                (self.pool == Pool::Session || model.may_be_pinned || model.is_pinned_for_good, model.status != 'I');
            let pgweir = &mut self.clients[at].pgweir;
            let mut heard = Vec::new();
            if running == Some(at) {
                heard = pgweir.until(1);
            }
            if may_be_gone || in_transaction {
                heard.extend(pgweir.query("SELECT 1"));
            }
            let has_error = heard.iter().any(|answer| answer.starts_with('E') || answer == "CLOSED");
            let must_have = running == Some(at) || in_transaction;
            if must_have && !has_error {
                return Difference::check("a lost backend", &["an error".to_owned()], &heard);
            }
            if may_be_gone {
                self.reconnect(at, self.clients[at].role, &[])?;
                let role = self.clients[at].role;
                self.model.after(&Step { client: at, operation: Operation::Reconnect(role, Vec::new()) }, 'I');
            } else if in_transaction {
                let Client { direct, pgweir, .. } = &mut self.clients[at];
                direct.query("ROLLBACK");
                heard.extend(pgweir.query("ROLLBACK"));
                self.model.clients[at].status = 'I';
                self.model.clients[at].has_set = false;
                if pgweir.status != 'I' || pgweir.is_over {
                    return Difference::check("a lost transaction", &["ROLLBACK leaves it".to_owned()], &heard);
                }
            }
        }
        Ok(())
    }

    /// Between transactions each side has told the client the same values.
    fn check_parameters(&mut self, at: usize) -> Result<(), Difference> {
        let Client { direct, pgweir, .. } = &mut self.clients[at];
        let is_news = direct.parameters_changed() | pgweir.parameters_changed();
        if !is_news || direct.status != 'I' {
            return Ok(());
        }
        Self::compare_parameters(direct, pgweir)
    }

    fn compare_parameters(direct: &Peer, pgweir: &Peer) -> Result<(), Difference> {
        let differs = |side: &Peer, other: &Peer| {
            let differing = side.parameters.iter().filter(|(name, value)| other.parameters.get(*name) != Some(value));
            differing.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        Difference::check("parameters", &differs(direct, pgweir), &differs(pgweir, direct))
    }

    /// Listening clients have heard the same, as far as they are between transactions.
    fn check_notifications(&mut self, step: &Step) -> Result<(), Difference> {
        let may_notify = ["NOTIFY", "notify", "COMMIT", "END", "PREPARED"];
        let is_due = self.steps.is_multiple_of(16)
            || step.messages().iter().any(|message| match message {
                Message::Bind(_, statement, _) => !statement.is_empty(),
                other => other.sql().is_some_and(|sql| may_notify.iter().any(|word| sql.contains(word))),
            });
        for at in 0..CLIENTS {
            let Client { direct, pgweir, .. } = &mut self.clients[at];
            if !is_due || !self.model.clients[at].listens || direct.status != 'I' {
                continue;
            }
            direct.write(&Message::Sync.encoded());
            direct.until(1);
            pgweir.until_notified(direct.notified.len());
            if direct.notified != pgweir.notified {
                return Difference::check("notifications", &direct.notified, &pgweir.notified);
            }
        }
        Ok(())
    }
}

fn encoded(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(Message::encoded).collect()
}

/// As they are sent directly. Names of prepared transactions are the server's, which both databases have in common.
fn twins(messages: &[Message]) -> Vec<u8> {
    let twin = |sql: &str| sql.replace("'gid ", "'git ");
    let twins = messages.iter().map(|message| match message {
        Message::Query(sql) => Message::Query(twin(sql)),
        Message::Parse(name, sql) => Message::Parse(name.clone(), twin(sql)),
        other => other.clone(),
    });
    twins.flat_map(|message| message.encoded()).collect()
}

/// Answers without what may differ, and is documented to.
fn comparable(answers: Vec<String>, messages: &[Message]) -> Vec<String> {
    let notifies = messages.iter().filter_map(Message::sql).any(|sql| sql.to_ascii_uppercase().contains("NOTIFY"));
    let comparable = answers.into_iter().map(|answer| {
        let mut answer = answer;
        if answer.starts_with('E') || answer.starts_with('N') {
            // pgweir signs its own errors.
            answer = answer.replace(" W:pgweir)", ")");
            // A backend names a function as its search_path was when it compiled it first, for whomever.
            answer = answer.replace(" function public.", " function ");
            answer = answer.replace("\"git ", "\"gid ");
            // The position behind a NOTIFY is that in the text with its stand-in.
            if notifies && let Some(at) = answer.find(" P:") {
                let rest = answer[at + 3..].trim_start_matches(|c: char| c.is_ascii_digit());
                answer = format!("{}{rest}", &answer[..at]);
            }
        }
        answer
    });
    comparable.collect()
}
