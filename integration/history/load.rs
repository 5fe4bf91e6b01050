//! The clients: each waits for each reply, and notes what it did and saw.

use super::draft::Draft;
use super::lists::Lists;
use super::record::{History, Operation, Outcome};
use crate::support::{Client, Cluster, Seed, Value};
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What a round is made of.
#[derive(Debug)]
pub struct Load {
    /// How many clients.
    pub clients: usize,
    /// Of the run.
    pub seed: Seed,
    /// Number of the round.
    pub round: usize,
    /// See [`Lists::touch_watched`].
    pub touch_watched: bool,
}

/// What a round has shown.
#[derive(Debug, Default)]
pub struct Round {
    /// To be judged; the lists are not read yet.
    pub history: History,
    /// Errors, with words with digits left out, by how often.
    pub errors: BTreeMap<String, u64>,
    /// Transactions of which EXEC was nil, which are aborted.
    pub nils: usize,
}

impl Load {
    /// Runs the clients until `during` returns.
    pub fn run(
        &self,
        cluster: &mut Cluster,
        lists: &Lists,
        during: impl FnOnce(&mut Cluster),
    ) -> Round {
        let ports: Vec<u16> = (0..cluster.proxies().len())
            .map(|number| cluster.port(number))
            .collect();
        let (start, stop) = (Instant::now(), AtomicBool::new(false));
        let mut all = Round::default();
        std::thread::scope(|scope| {
            let stop = StopOnDrop(&stop);
            let clients: Vec<_> = (0..self.clients)
                .map(|number| {
                    let stream = (self.round * self.clients + number) as u64;
                    let worker = Worker {
                        number,
                        port: ports[number % ports.len()],
                        start,
                        stop: stop.0,
                        lists,
                    };
                    let rng = self.seed.rng(stream);
                    scope.spawn(move || worker.run(rng))
                })
                .collect();
            during(cluster);
            drop(stop);
            for client in clients {
                all.add(client.join().expect("a client does not panic"));
            }
        });
        all
    }
}

/// Ends the clients also when the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Round {
    fn add(&mut self, other: Round) {
        self.history.operations.extend(other.history.operations);
        self.nils += other.nils;
        for (text, count) in other.errors {
            *self.errors.entry(text).or_default() += count;
        }
    }

    fn note(&mut self, text: &str) {
        let words = text.split_whitespace().map(|word| {
            if word.contains(|symbol: char| symbol.is_ascii_digit()) {
                "…"
            } else {
                word
            }
        });
        let text = words.collect::<Vec<_>>().join(" ");
        *self.errors.entry(text).or_default() += 1;
    }

    /// How many operations ended like this.
    pub fn count(&self, outcome: Outcome) -> usize {
        let operations = self.history.operations.iter();
        operations.filter(|one| one.outcome == outcome).count()
    }

    /// How many operations were committed, by their form.
    pub fn forms(&self) -> BTreeMap<&'static str, usize> {
        let mut forms = BTreeMap::new();
        for operation in &self.history.operations {
            if operation.outcome == Outcome::Committed {
                *forms.entry(operation.form).or_default() += 1;
            }
        }
        forms
    }
}

struct Worker<'a> {
    number: usize,
    port: u16,
    start: Instant,
    stop: &'a AtomicBool,
    lists: &'a Lists,
}

impl Worker<'_> {
    fn run(&self, mut rng: StdRng) -> Round {
        let (mut round, mut connection) = (Round::default(), None);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(client) = self.connected(&mut connection) else {
                continue;
            };
            let mut draft = Draft::any(self.lists, &mut rng);
            let began = self.now();
            let outcome = self.perform(client, &mut draft, &mut round, began);
            let ended = self.now();
            let outcome = outcome.unwrap_or_else(|(error, outcome)| {
                round.note(&format!("connection: {:?}", error.kind()));
                connection = None;
                outcome
            });
            round.history.operations.push(Operation {
                client: self.number,
                form: draft.form,
                began,
                ended,
                outcome,
                steps: draft.steps,
            });
        }
        round
    }

    /// Sends it, and notes what came back; of a lost connection also what that means.
    fn perform(
        &self,
        client: &mut Client,
        draft: &mut Draft,
        round: &mut Round,
        began: u64,
    ) -> Result<Outcome, (std::io::Error, Outcome)> {
        if !draft.watched.is_empty() {
            let opened = self.open(client, draft, round, began);
            // Nothing of the transaction was sent.
            if !opened.map_err(|error| (error, Outcome::Aborted))? {
                return Ok(Outcome::Aborted);
            }
        }
        match send(client, draft) {
            Ok(replies) => Ok(judge_replies(draft, &replies, round)),
            Err(error) => Err((error, Outcome::Unknown)),
        }
    }

    /// WATCH, and the reads behind it, each of which is an operation by itself as well; whether
    /// all of that went well.
    fn open(
        &self,
        client: &mut Client,
        draft: &mut Draft,
        round: &mut Round,
        began: u64,
    ) -> std::io::Result<bool> {
        let opening = draft.opening(self.lists);
        let replies: Vec<Value> = if draft.is_hasty {
            let replies = client.try_pipeline(&opening)?;
            replies.into_iter().map(|reply| reply.value).collect()
        } else {
            let mut replies = Vec::new();
            for command in &opening {
                replies.push(client.try_call(command)?.value);
            }
            replies
        };
        let ended = self.now();
        if !draft.answer_opening(&replies) {
            for text in replies.iter().filter_map(Value::error) {
                round.note(&text);
            }
            client.try_call(&["UNWATCH"])?;
            return Ok(false);
        }
        for read in &draft.steps[..draft.watched.len()] {
            round.history.operations.push(Operation {
                client: self.number,
                form: "LRANGE behind WATCH",
                began,
                ended,
                outcome: Outcome::Committed,
                steps: vec![read.clone()],
            });
        }
        Ok(true)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn connected<'c>(&self, client: &'c mut Option<Client>) -> Option<&'c mut Client> {
        if client.is_none() {
            *client = Client::connect(self.port).ok();
            if client.is_none() {
                sleep(RECONNECT_PAUSE);
            }
        }
        client.as_mut()
    }
}

/// The reply to each command, or one error for all.
fn send(client: &mut Client, draft: &Draft) -> std::io::Result<Vec<Value>> {
    let commands = draft.commands();
    if draft.is_transaction {
        return Ok(match client.try_transaction(&commands)? {
            Value::Array(replies) => replies,
            other => vec![other],
        });
    }
    let mut replies = Vec::new();
    for command in &commands {
        replies.push(client.try_call(command)?.value);
    }
    Ok(replies)
}

fn judge_replies(draft: &mut Draft, replies: &[Value], round: &mut Round) -> Outcome {
    if draft.answer(replies) {
        return Outcome::Committed;
    }
    if let ([Value::Nil], false) = (replies, draft.watched.is_empty()) {
        round.nils += 1;
        return Outcome::Aborted;
    }
    let [Value::Error(text)] = replies else {
        panic!("{draft:?} was answered with {replies:?}");
    };
    let text = String::from_utf8_lossy(text);
    round.note(&text);
    classify(&text)
}

/// What an error says about the operation (P4).
fn classify(text: &str) -> Outcome {
    let nothing = ["nothing was applied", "the command was not sent"];
    if text.starts_with("EXECABORT")
        || text.starts_with("LOADING")
        || nothing.iter().any(|words| text.contains(words))
    {
        Outcome::Aborted
    } else if text.contains(" is committed") {
        Outcome::Committed
    } else {
        Outcome::Unknown
    }
}
