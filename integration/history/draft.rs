//! What a client sends next: a random operation, its commands and what their replies mean.

use super::lists::Lists;
use super::record::{Key, Step, Value};
use crate::support;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

/// Appends to both keys, or reads both.
const APPEND_BOTH: &str =
    "return {redis.call('RPUSH',KEYS[1],ARGV[1]),redis.call('RPUSH',KEYS[2],ARGV[2])}";
const READ_BOTH: &str =
    "return {redis.call('LRANGE',KEYS[1],0,-1),redis.call('LRANGE',KEYS[2],0,-1)}";

/// One command, and how many steps it makes.
#[derive(Debug)]
struct Line {
    words: Vec<String>,
    steps: usize,
    is_script: bool,
}

/// An operation that is not sent yet.
#[derive(Debug)]
pub struct Draft {
    /// For people.
    pub form: &'static str,
    /// Without answers.
    pub steps: Vec<Step>,
    /// Whether it goes between MULTI and EXEC.
    pub is_transaction: bool,
    /// Lists that are watched, and read behind the WATCH; the first steps are those reads.
    pub watched: Vec<Key>,
    /// Whether WATCH and those reads are sent at once.
    pub is_hasty: bool,
    lines: Vec<Line>,
}

impl Draft {
    fn new(form: &'static str, is_transaction: bool) -> Draft {
        Draft {
            form,
            steps: Vec::new(),
            is_transaction,
            watched: Vec::new(),
            is_hasty: false,
            lines: Vec::new(),
        }
    }

    /// Any operation.
    pub fn any(lists: &Lists, rng: &mut StdRng) -> Draft {
        match rng.random_range(0..100) {
            0..20 => Draft::single("RPUSH", lists, rng, true),
            20..42 => Draft::single("LRANGE", lists, rng, false),
            42..50 => Draft::transaction("MULTI in a slot", lists, &lists.slot_mates(rng), rng),
            50..60 => Draft::script_in_a_slot(lists, rng),
            60..66 => Draft::script_over_slots(lists, rng),
            66..74 => Draft::transaction("MULTI on a shard", lists, &lists.shard_mates(rng), rng),
            74..82 => Draft::watching_one_shard(lists, rng),
            82..88 => Draft::watching_two_shards(lists, rng),
            _ => Draft::transaction("MULTI over shards", lists, &lists.anywhere(rng), rng),
        }
    }

    fn single(form: &'static str, lists: &Lists, rng: &mut StdRng, append: bool) -> Draft {
        let mut draft = Draft::new(form, false);
        draft.step(lists, lists.one(rng), append);
        draft
    }

    fn script_in_a_slot(lists: &Lists, rng: &mut StdRng) -> Draft {
        let mut draft = Draft::new("EVAL in a slot", false);
        let append = rng.random();
        draft.script("EVAL", lists, &lists.slot_mates(rng), append);
        draft
    }

    /// Reads go another way if they say that they are.
    fn script_over_slots(lists: &Lists, rng: &mut StdRng) -> Draft {
        let pair = lists.shard_mates(rng);
        if rng.random_bool(0.6) {
            let mut draft = Draft::new("EVAL_RO on a shard", false);
            draft.script("EVAL_RO", lists, &pair, false);
            return draft;
        }
        let mut draft = Draft::new("EVAL on a shard", false);
        let append = rng.random();
        draft.script("EVAL", lists, &pair, append);
        draft
    }

    /// A mix of reads and appends; sometimes one list gets two, sometimes one of the commands is
    /// a script (which is applied on a connection of its own).
    fn transaction(form: &'static str, lists: &Lists, keys: &[Key], rng: &mut StdRng) -> Draft {
        let mut draft = Draft::new(form, true);
        let appends = *[0.0, 0.3, 0.6, 1.0].choose(rng).unwrap_or(&0.5);
        let mut keys = keys.to_vec();
        if rng.random_bool(0.2) {
            keys.extend(keys.first().copied());
        }
        for &key in &keys {
            draft.step(lists, key, rng.random_bool(appends));
        }
        if rng.random_bool(0.1) {
            let append = rng.random_bool(appends);
            draft.script("EVAL", lists, &lists.slot_mates(rng), append);
        }
        draft
    }

    fn added(&mut self, lists: &Lists, key: Key, append: bool) -> Option<Value> {
        let value = append.then(|| lists.next_value(key));
        self.steps.push(match value {
            Some(value) => Step::Append {
                key,
                value,
                length: None,
            },
            None => Step::Read { key, seen: None },
        });
        value
    }

    fn step(&mut self, lists: &Lists, key: Key, append: bool) {
        let name = lists.name(key);
        let words = match self.added(lists, key, append) {
            Some(value) => vec!["RPUSH".to_owned(), name, value.to_string()],
            None => ["LRANGE", &name, "0", "-1"].map(str::to_owned).to_vec(),
        };
        self.lines.push(Line {
            words,
            steps: 1,
            is_script: false,
        });
    }

    fn script(&mut self, command: &str, lists: &Lists, keys: &[Key], append: bool) {
        let text = if append { APPEND_BOTH } else { READ_BOTH };
        let mut words = [command, text, "2"].map(str::to_owned).to_vec();
        words.extend(keys.iter().take(2).map(|&key| lists.name(key)));
        for &key in keys.iter().take(2) {
            words.extend(
                self.added(lists, key, append)
                    .map(|value| value.to_string()),
            );
        }
        self.lines.push(Line {
            words,
            steps: 2,
            is_script: true,
        });
    }

    /// Watched lists on one shard; what is written is there too, or anywhere.
    fn watching_one_shard(lists: &Lists, rng: &mut StdRng) -> Draft {
        let watched = match rng.random_range(0..3) {
            0 => vec![lists.one(rng)],
            1 => lists.slot_mates(rng),
            _ => lists.shard_mates(rng),
        };
        if rng.random() {
            let keys = [&watched[..], &lists.anywhere(rng)].concat();
            Draft::watching("WATCH, MULTI over shards", lists, watched, &keys, rng)
        } else {
            let keys = watched.clone();
            Draft::watching("WATCH, MULTI on a shard", lists, watched, &keys, rng)
        }
    }

    /// Plain writes to what is watched on several shards may come between the vote and the apply:
    /// they come behind the transaction, unless it touches those slots itself.
    fn watching_two_shards(lists: &Lists, rng: &mut StdRng) -> Draft {
        let watched = lists.on_two_shards(rng);
        let mut keys = lists.anywhere(rng);
        if lists.touch_watched {
            keys.extend_from_slice(&watched);
            keys.shuffle(rng);
        } else {
            let is_apart = |key: &Key| !watched.iter().any(|one| lists.share_slot(*key, *one));
            keys.extend(std::iter::repeat_with(|| lists.one(rng)).find(is_apart));
            keys.retain(is_apart);
        }
        Draft::watching("WATCH over shards", lists, watched, &keys, rng)
    }

    fn watching(
        form: &'static str,
        lists: &Lists,
        watched: Vec<Key>,
        keys: &[Key],
        rng: &mut StdRng,
    ) -> Draft {
        let mut draft = Draft::new(form, true);
        for &key in &watched {
            draft.steps.push(Step::Read { key, seen: None });
        }
        draft.watched = watched;
        draft.is_hasty = rng.random_bool(0.3);
        for &key in keys {
            draft.step(lists, key, rng.random_bool(0.8));
        }
        draft
    }

    /// WATCH, and the reads behind it.
    pub fn opening(&self, lists: &Lists) -> Vec<Vec<String>> {
        if self.watched.is_empty() {
            return Vec::new();
        }
        let mut watch = vec!["WATCH".to_owned()];
        watch.extend(self.watched.iter().map(|&key| lists.name(key)));
        let read = |&key| {
            ["LRANGE", &lists.name(key), "0", "-1"]
                .map(str::to_owned)
                .to_vec()
        };
        let mut commands = vec![watch];
        commands.extend(self.watched.iter().map(read));
        commands
    }

    /// Writes the answers to the opening into the first steps; false if one is an error.
    pub fn answer_opening(&mut self, replies: &[support::Value]) -> bool {
        let [support::Value::Simple(_), reads @ ..] = replies else {
            return false;
        };
        let mut steps = self.steps.iter_mut();
        reads
            .iter()
            .all(|reply| steps.next().is_some_and(|step| answer_step(step, reply)))
    }

    /// The commands, one after the other.
    pub fn commands(&self) -> Vec<Vec<String>> {
        self.lines.iter().map(|line| line.words.clone()).collect()
    }

    /// Writes the answers into the steps; false if these are not the replies to this.
    pub fn answer(&mut self, replies: &[support::Value]) -> bool {
        if replies.len() != self.lines.len() {
            return false;
        }
        let mut steps = self.steps.iter_mut().skip(self.watched.len());
        for (line, reply) in self.lines.iter().zip(replies) {
            let parts = match (line.is_script, reply) {
                (false, reply) => std::slice::from_ref(reply),
                (true, support::Value::Array(parts)) => parts,
                _ => return false,
            };
            let fits = parts.len() == line.steps
                && parts
                    .iter()
                    .all(|part| steps.next().is_some_and(|step| answer_step(step, part)));
            if !fits {
                return false;
            }
        }
        true
    }
}

fn answer_step(step: &mut Step, reply: &support::Value) -> bool {
    match (step, reply) {
        (Step::Append { length, .. }, support::Value::Integer(number)) => {
            *length = usize::try_from(*number).ok();
            length.is_some()
        }
        (Step::Read { seen, .. }, support::Value::Array(items)) => {
            *seen = values(items);
            seen.is_some()
        }
        _ => false,
    }
}

/// The values of a list.
pub fn values(items: &[support::Value]) -> Option<Vec<Value>> {
    let value =
        |item: &support::Value| item.integer().and_then(|value| Value::try_from(value).ok());
    items.iter().map(value).collect()
}
