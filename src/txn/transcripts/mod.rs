//! Stories told as transcripts: what a machine is told, `----`, what it asks for.
//!
//! Participants are written as numbers. Times are milliseconds of the machine's clock; a line
//! `@7` moves it. The harness runs the inputs and writes the transcript anew; a test passes if
//! that is the text it began with.

use std::fmt::Write;

use super::coordinator::{Coordinator, Plan};
use super::recovery::{Recoverer, Start};
use super::*;

mod coordinating;
mod recovering;

pub(super) const LIMITS: Limits = Limits {
    ttl_ms: 10,
    margin_ms: 1,
    window_ms: 60,
    give_up_ms: 100,
    backoff_ms: 2,
    backoff_max_ms: 8,
};

fn part(text: &str) -> Part {
    let shard = text.parse().expect("number of a participant");
    Part { shard, db: 0 }
}

enum Machine {
    None,
    Coordinator(Coordinator),
    Recoverer(Recoverer),
}

struct Story {
    now: Millis,
    machine: Machine,
}

/// Runs the inputs of `text` and compares the transcript.
#[track_caller]
pub(super) fn transcript(text: &str) {
    let mut story = Story {
        now: 0,
        machine: Machine::None,
    };
    let blocks = text.trim().split("\n\n").map(|block| {
        let input = block.split("\n----").next().unwrap_or_default();
        format!("{input}\n----{}", story.run(input))
    });
    let told = blocks.collect::<Vec<_>>().join("\n\n");
    assert_eq!(told, text.trim(), "told:\n{told}\n");
}

impl Story {
    fn run(&mut self, input: &str) -> String {
        let mut out = Vec::new();
        for line in input.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [at] if at.starts_with('@') => self.now = at[1..].parse().expect("a time"),
                ["coordinate", rule, ref parts @ ..] => self.coordinate(rule, parts, &mut out),
                ["recover", rule, from, ref parts @ ..] => {
                    if let Some(refusal) = self.recover(rule, from, parts, &mut out) {
                        return refusal;
                    }
                }
                _ => self.step(event(&words, self.now), &mut out),
            }
        }
        out.iter().fold(String::new(), |mut text, action| {
            write!(text, "\n{}", show(action)).expect("into a string");
            text
        })
    }

    fn coordinate(&mut self, rule: &str, parts: &[&str], out: &mut Vec<Action>) {
        let not_after_ms = 1000 + self.now + LIMITS.window_ms;
        let plan = Plan {
            participants: parts
                .iter()
                .map(|text| (part(text), not_after_ms))
                .collect(),
            rule: rule_of(rule),
        };
        self.machine = Machine::Coordinator(Coordinator::start(plan, &LIMITS, self.now, out));
    }

    fn recover(
        &mut self,
        rule: &str,
        from: &str,
        parts: &[&str],
        out: &mut Vec<Action>,
    ) -> Option<String> {
        let (at, reading) = from.split_once('=').expect("<part>=<reading>");
        let mut reading = reading_of(reading, self.now);
        if let Reading::Found(record) = &mut reading {
            record.participants = parts.iter().map(|text| part(text)).collect();
            record.rule = rule_of(rule);
        }
        match Recoverer::start(part(at), &reading, &LIMITS, self.now, out) {
            Start::Recover(recoverer) => {
                self.machine = Machine::Recoverer(recoverer);
                None
            }
            other => Some(format!("\n{other:?}")),
        }
    }

    fn step(&mut self, event: Event, out: &mut Vec<Action>) {
        match &mut self.machine {
            Machine::Coordinator(coordinator) => coordinator.step(self.now, event, out),
            Machine::Recoverer(recoverer) => recoverer.step(self.now, event, out),
            Machine::None => panic!("no machine yet"),
        }
    }
}

fn rule_of(text: &str) -> Rule {
    match text.strip_prefix("decider=") {
        Some(decider) => Rule::Decider(part(decider)),
        None => Rule::Implicit,
    }
}

fn state(text: &str) -> State {
    match text {
        "prepared" => State::Prepared,
        "applied" => State::Applied,
        "aborted" => State::Aborted,
        _ => panic!("no state: {text}"),
    }
}

/// `absent`, `unreachable`, or a state; the deadline of all records is 1010 by a clock of the
/// shards that is 1000 ahead.
fn reading_of(text: &str, now: Millis) -> Reading {
    match text {
        "absent" => Reading::Absent,
        "unreachable" => Reading::Unreachable,
        _ => Reading::Found(Record {
            state: state(text),
            deadline_ms: 1010,
            now_ms: 1000 + now,
            participants: Vec::new(),
            rule: Rule::Implicit,
        }),
    }
}

fn event(words: &[&str], now: Millis) -> Event {
    match words {
        ["timer"] => Event::Timer,
        ["vote", at, answer] => Event::Voted(part(at), vote(answer)),
        ["applied", at, answer] => Event::Applied(part(at), applied(answer)),
        ["aborted", at, answer] => Event::Aborted(part(at), aborted(answer)),
        ["released", at, "done"] => Event::Released(part(at), Released::Done),
        ["released", at, "unknown"] => Event::Released(part(at), Released::Unknown),
        ["read", at, reading] => Event::Read(part(at), reading_of(reading, now)),
        _ => panic!("no event: {words:?}"),
    }
}

fn vote(text: &str) -> Vote {
    match text {
        "yes" => Vote::Yes,
        "unknown" => Vote::Unknown,
        "late" => Vote::No(Refusal::Late),
        "broken" => Vote::No(Refusal::WatchBroken),
        "held" => Vote::No(Refusal::Held {
            owner: TxnId::new("t9"),
            remaining_ms: 5,
        }),
        _ => Vote::No(Refusal::Seen(state(text))),
    }
}

fn applied(text: &str) -> Applied {
    match text {
        "now" => Applied::Now,
        "refused" => Applied::Refused,
        "unknown" => Applied::Unknown,
        "absent" => Applied::Not(None),
        _ => Applied::Not(Some(state(text))),
    }
}

fn aborted(text: &str) -> Aborted {
    match text {
        "done" => Aborted::Done,
        "applied" => Aborted::Applied,
        "late" => Aborted::Late,
        "still-prepared" => Aborted::StillPrepared,
        "unknown" => Aborted::Unknown,
        _ => panic!("no answer: {text}"),
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Prepare { part, not_after_ms } => {
            format!("prepare {} not after {not_after_ms}", part.shard)
        }
        Action::Apply { part, way } => format!("apply {} {way:?}", part.shard),
        Action::Abort {
            part,
            leave,
            tombstone,
        } => {
            let tombstone = tombstone.map(|at| format!(", tombstone if absent until {at}"));
            let tombstone = tombstone.unwrap_or_default();
            format!("abort {} leave {leave:?}{tombstone}", part.shard)
        }
        Action::Tombstone { part, not_after_ms } => {
            format!("tombstone {} until {not_after_ms}", part.shard)
        }
        Action::Read { part } => format!("read {}", part.shard),
        Action::Release { part, leave } => format!("release {} leave {leave:?}", part.shard),
        Action::Reply(outcome) => format!("reply {outcome:?}"),
        Action::SetTimer(at) => format!("timer at {at}"),
        Action::Done(ending) => format!("done {ending:?}"),
    }
}
