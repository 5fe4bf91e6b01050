//! Queue → branches → one reply.
//!
//! A [`Plan`] says which commands run on which participant and how their replies become what
//! one Redis would have answered: in queue order, split commands merged.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};

use super::condition::Condition;
use super::names;
use super::redo::IntentBuilder;
use super::script;
use super::types::Part;
use crate::keyspace::{Place, Split, Topology, key_slot};
use crate::resp::{self, Command, Lane, Protocol, build};

/// What one participant does in a transaction.
#[derive(Debug)]
pub struct Branch {
    /// Where.
    pub part: Part,
    /// The commands, raw, one behind the other.
    pub commands: BytesMut,
    /// How many there are.
    pub count: usize,
    /// The same for the record.
    pub intent: IntentBuilder,
    /// In which protocol the connection that runs them must be answered; it is set to that
    /// protocol and to database 0 before and behind them.
    pub protocol: Protocol,
    /// What the commands so far leave the connection set to.
    lane: Lane,
    /// The slots of all keys they name, each once, in order of appearance; as decimal text,
    /// since these are what is locked (see [`super`]). And fences, if the prepare is conditional.
    pub slots: Vec<Bytes>,
    /// Those of them that the client watches; see [`Plan::watch`].
    pub watched: Vec<Bytes>,
    /// What must be so there for the transaction to be committed; see [`Plan::require`].
    pub condition: Option<Condition>,
    /// It touches every slot: `slots` is [`names::EVERY_SLOT`] alone.
    pub is_everywhere: bool,
    seen: Seen,
}

/// Slots that a branch names. Most name few.
#[derive(Debug, Default)]
struct Seen {
    few: Vec<u16>,
    /// All of them, once they are not few.
    many: HashSet<u16>,
}

impl Seen {
    const FEW: usize = 16;

    /// Whether it was not among them yet.
    fn insert(&mut self, slot: u16) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(slot);
        }
        if self.few.contains(&slot) {
            return false;
        }
        match self.few.len() < Self::FEW {
            true => self.few.push(slot),
            false => self.many.extend(self.few.iter().chain([&slot])),
        }
        true
    }
}

/// Where the reply to one queued command comes from.
#[derive(Debug)]
enum Answer {
    /// It is known already.
    Ready(Bytes),
    /// The reply to command `index` of branch `branch`.
    Whole { branch: usize, index: usize },
    /// Merged from pieces.
    Merged {
        split: Split,
        keys: usize,
        pieces: Vec<Piece>,
        protocol: Protocol,
    },
}

/// A piece of a split command: the reply it gives, and which of the command's keys it has.
#[derive(Debug)]
struct Piece {
    branch: usize,
    index: usize,
    positions: Vec<usize>,
}

/// See the module. Built with the three `add` methods, in queue order.
///
/// A participant is a shard, whatever databases its commands are in: slots are locked in all of
/// them, and its record is in database 0. A branch that leaves this database selects the others
/// between its commands and comes back at its end.
#[derive(Debug, Default)]
pub struct Plan {
    branches: Vec<Branch>,
    answers: Vec<Answer>,
    /// Of the reply as a whole, and of the connections.
    protocol: Protocol,
    /// Of the commands that are added now.
    spoken: Protocol,
}

impl Plan {
    /// A plan for a client that is answered in this protocol. (The default is RESP2.)
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            spoken: protocol,
            ..Self::default()
        }
    }

    /// The protocol of the reply.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The commands from here on are answered in this protocol: there was a HELLO.
    pub fn speak(&mut self, protocol: Protocol) {
        self.spoken = protocol;
    }

    /// The branches; one per participant, in order of appearance.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Takes the branches out; the plan still tells the reply.
    pub fn take_branches(&mut self) -> Vec<Branch> {
        let first = Lane::speaking(self.protocol);
        let mut branches = std::mem::take(&mut self.branches);
        for branch in &mut branches {
            branch.enter(first);
            if branch.is_everywhere && !branch.watched.is_empty() {
                // What settles must be among its keys: those are what a release drops.
                branch.watched = branch.slots.clone();
            }
        }
        branches
    }

    /// A command whose reply is known; its number.
    pub fn add_ready(&mut self, reply: Bytes) -> usize {
        self.answers.push(Answer::Ready(reply));
        self.answers.len() - 1
    }

    /// Puts another reply in the place of a known one; the number is what
    /// [`add_ready`](Self::add_ready) gave.
    pub fn fill(&mut self, number: usize, reply: Bytes) {
        if let Some(answer @ Answer::Ready(_)) = self.answers.get_mut(number) {
            *answer = Answer::Ready(reply);
        }
    }

    /// A command that runs on one shard, in this database; `keys` are the numbers of its
    /// arguments that are keys.
    pub fn add_whole(&mut self, place: Part, command: &Command<'_>, keys: &[usize]) {
        let branch = self.branch(place);
        let this = &mut self.branches[branch];
        command.encode(&mut this.commands);
        this.intent.command(command.args());
        let index = this.added(keys.iter().filter_map(|&key| command.arg(key)));
        self.answers.push(Answer::Whole { branch, index });
    }

    /// A command that is split by the shards of its keys.
    pub fn add_split(&mut self, split: Split, db: u16, topology: &Topology, command: &Command<'_>) {
        let pieces = pieces(split, topology, command);
        let keys = pieces.iter().map(|(_, positions)| positions.len()).sum();
        let mut answer = Vec::with_capacity(pieces.len());
        for (shard, positions) in pieces {
            let branch = self.branch(Part { shard, db });
            let this = &mut self.branches[branch];
            encode_piece(&mut this.commands, split, command, &positions);
            let args: Vec<_> = piece_args(split, command, &positions).collect();
            this.intent.command(args);
            let index = this.added(
                positions
                    .iter()
                    .filter_map(|&at| command.arg(1 + at * split.step())),
            );
            answer.push(Piece {
                branch,
                index,
                positions,
            });
        }
        self.answers.push(Answer::Merged {
            split,
            keys,
            pieces: answer,
            protocol: self.spoken,
        });
    }

    /// What the client watches on a participant, which takes part even without a command: slots,
    /// each also as decimal text. `conditional`: its prepare is.
    pub fn watch(
        &mut self,
        part: Part,
        slots: impl IntoIterator<Item = (u16, Bytes)>,
        conditional: bool,
    ) {
        let branch = self.branch_of(part);
        let this = &mut self.branches[branch];
        if this.is_everywhere {
            return this.watched.clone_from(&this.slots);
        }
        for (slot, text) in slots {
            if conditional {
                this.slots.push(Bytes::from(names::fence(&text)));
            }
            if this.seen.insert(slot) {
                this.slots.push(text.clone());
            }
            this.watched.push(text);
        }
    }

    /// What must be so on a participant for the transaction to be committed; there must be a
    /// decider. If `settles`, it is the keys in these slots that it is about, and plain commands
    /// wait for the end from the prepare on.
    pub fn require(&mut self, part: Part, condition: Condition, settles: &[u16]) {
        let slots = settles.iter().map(|slot| (*slot, names::slot(*slot)));
        self.watch(part, slots, true);
        let branch = self.branch_of(part);
        self.branches[branch].condition = Some(condition);
    }

    /// A command on the whole keyspace: [`script::FLUSHALL`], [`script::SWAPDB`], or
    /// [`script::FLUSHDB`] for this database, with its arguments. It runs on every shard, behind a lock on every slot.
    pub fn add_everywhere(&mut self, args: &[&[u8]], db: u16, topology: &Topology) {
        // The others end in database 0, whichever way they run.
        let db = match args.first() == Some(&script::FLUSHDB) {
            true => db,
            false => 0,
        };
        let mut pieces = Vec::with_capacity(topology.shards());
        for shard in (0..).take(topology.shards()) {
            let branch = self.branch(Part { shard, db });
            let this = &mut self.branches[branch];
            this.is_everywhere = true;
            this.slots = vec![Bytes::from_static(names::EVERY_SLOT)];
            script::append_native(&mut this.commands, args.iter().copied());
            this.intent.command(args.iter().copied());
            let index = this.added(std::iter::empty());
            pieces.push(Piece {
                branch,
                index,
                positions: Vec::new(),
            });
        }
        // Like that of MSET: +OK, or the first error.
        self.answers.push(Answer::Merged {
            split: Split::Mset,
            keys: 0,
            pieces,
            protocol: self.spoken,
        });
    }

    /// The branch of the place's shard, ready for a command in the place's database.
    fn branch(&mut self, place: Part) -> usize {
        let index = self.branch_of(Part { db: 0, ..place });
        self.branches[index].enter(Lane {
            protocol: self.spoken,
            db: place.db,
        });
        index
    }

    fn branch_of(&mut self, part: Part) -> usize {
        if let Some(found) = self.branches.iter().position(|branch| branch.part == part) {
            return found;
        }
        self.branches.push(Branch {
            part,
            commands: BytesMut::new(),
            count: 0,
            intent: IntentBuilder::new(),
            protocol: self.protocol,
            lane: Lane::speaking(self.protocol),
            slots: Vec::new(),
            watched: Vec::new(),
            condition: None,
            is_everywhere: false,
            seen: Seen::default(),
        });
        self.branches.len() - 1
    }

    /// The reply to EXEC, from the replies of each branch (the elements of its own EXEC).
    pub fn exec_reply(&self, replies: &[Vec<Bytes>]) -> BytesMut {
        let mut out = BytesMut::new();
        build::array_header(&mut out, self.answers.len());
        for answer in &self.answers {
            answer.write(replies, &mut out);
        }
        out
    }

    /// The reply to a single command that was made a transaction.
    pub fn bare_reply(&self, replies: &[Vec<Bytes>]) -> BytesMut {
        let mut out = BytesMut::new();
        for answer in &self.answers {
            answer.write(replies, &mut out);
        }
        out
    }
}

impl Branch {
    /// Sets the connection to this lane, by commands whose replies nobody wants.
    fn enter(&mut self, lane: Lane) {
        if lane.db != self.lane.db {
            let db = lane.db.to_string();
            let words: [&[u8]; 2] = [b"SELECT", db.as_bytes()];
            build::command(&mut self.commands, words);
            self.intent.command(words);
            self.count += 1;
        }
        if lane.protocol != self.lane.protocol {
            let version: &[u8] = match lane.protocol {
                Protocol::Resp2 => b"2",
                Protocol::Resp3 => b"3",
            };
            // Not in the record: who runs that has no use for replies.
            build::command(&mut self.commands, [b"HELLO", version]);
            self.intent.only_natively();
            self.count += 1;
        }
        self.lane = lane;
    }

    /// Counts a command that was appended, and its keys. Returns the command's number.
    fn added<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> usize {
        for slot in keys.map(key_slot) {
            if !self.is_everywhere && self.seen.insert(slot) {
                self.slots.push(names::slot(slot));
            }
        }
        self.count += 1;
        self.count - 1
    }
}

impl Answer {
    fn write(&self, replies: &[Vec<Bytes>], out: &mut BytesMut) {
        let reply = |branch: usize, index: usize| {
            replies
                .get(branch)
                .and_then(|of| of.get(index))
                .map(|b| &b[..])
        };
        match self {
            Self::Ready(bytes) => out.extend_from_slice(bytes),
            Self::Whole { branch, index } => {
                out.extend_from_slice(reply(*branch, *index).unwrap_or(LOST))
            }
            Self::Merged {
                split,
                keys,
                pieces,
                protocol,
            } => {
                let pieces = pieces
                    .iter()
                    .map(|p| (reply(p.branch, p.index).unwrap_or(LOST), &p.positions[..]));
                merge(*split, *keys, pieces, *protocol, out);
            }
        }
    }
}

/// Cannot be seen by a client: a driver that lost replies answers the whole EXEC with an error.
const LOST: &[u8] = b"-ERR reply lost\r\n";

/// Which shard gets which of the command's keys (numbers of keys, not of arguments), in order
/// of first appearance.
pub fn pieces(split: Split, topology: &Topology, command: &Command<'_>) -> Vec<(u16, Vec<usize>)> {
    let mut pieces: Vec<(u16, Vec<usize>)> = Vec::new();
    for (at, key) in command.args().skip(1).step_by(split.step()).enumerate() {
        let shard = topology.shard_of(key);
        match pieces.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, positions)) => positions.push(at),
            None => pieces.push((shard, vec![at])),
        }
    }
    pieces
}

/// What stands around a string on the wire, about.
const HEADER_LEN: usize = 16;

/// Appends the part of a split command that has these of its keys.
pub fn encode_piece(out: &mut BytesMut, split: Split, command: &Command<'_>, positions: &[usize]) {
    let len = piece_args(split, command, positions).map(|arg| arg.len() + HEADER_LEN);
    out.reserve(HEADER_LEN + len.sum::<usize>());
    build::array_header(out, 1 + positions.len() * split.step());
    for arg in piece_args(split, command, positions) {
        build::bulk(out, arg);
    }
}

fn piece_args<'a>(
    split: Split,
    command: &Command<'a>,
    positions: &[usize],
) -> impl Iterator<Item = &'a [u8]> {
    let step = split.step();
    let keys = positions
        .iter()
        .flat_map(move |at| (0..step).map(move |offset| 1 + at * step + offset));
    std::iter::once(command.name()).chain(keys.map(|at| command.arg(at).unwrap_or_default()))
}

/// The reply to a split command over so many keys, from the replies to its pieces, all in this
/// protocol. The first error among them is the reply as a whole.
pub fn merge<'a>(
    split: Split,
    keys: usize,
    pieces: impl Iterator<Item = (&'a [u8], &'a [usize])> + Clone,
    protocol: Protocol,
    out: &mut BytesMut,
) {
    if let Some((error, _)) = pieces.clone().find(|(reply, _)| resp::is_error(reply)) {
        out.extend_from_slice(error);
        return;
    }
    match split {
        Split::Mset => build::status(out, "OK"),
        Split::SumRead | Split::SumWrite => {
            let counts = pieces.filter_map(|(reply, _)| resp::as_int(reply));
            build::int(out, resp::number::total(counts));
        }
        Split::Mget => merge_values(keys, pieces, protocol, out),
    }
}

fn merge_values<'a>(
    keys: usize,
    pieces: impl Iterator<Item = (&'a [u8], &'a [usize])>,
    protocol: Protocol,
    out: &mut BytesMut,
) {
    let mut values: Vec<Option<&[u8]>> = vec![None; keys];
    for (reply, positions) in pieces {
        for (value, &at) in resp::elements(reply).zip(positions) {
            if let Some(place) = values.get_mut(at) {
                *place = Some(value);
            }
        }
    }
    let len = values
        .iter()
        .map(|value| value.map_or(HEADER_LEN, <[u8]>::len));
    out.reserve(HEADER_LEN + len.sum::<usize>());
    build::array_header(out, keys);
    for value in values {
        match value {
            Some(value) => out.extend_from_slice(value),
            None => build::null_bulk(out, protocol),
        }
    }
}

/// Why a command cannot be planned for a single shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misplaced {
    /// Its keys live on several shards.
    CrossSlot,
    /// It touches keys that cannot be told from its arguments.
    Hidden,
    /// A script that declares no keys.
    Undeclared,
    /// One of its keys begins with our prefix.
    Reserved,
}

/// Where all keys of a command live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// It has none.
    Nowhere,
    /// In one slot.
    Slot(Place),
    /// In several slots of one shard.
    Shard(u16),
}

impl Home {
    /// Where this and that live together.
    ///
    /// # Errors
    /// [`Misplaced::CrossSlot`] when they are on different shards.
    pub fn with(self, place: Place) -> Result<Self, Misplaced> {
        match self {
            Self::Nowhere => Ok(Self::Slot(place)),
            Self::Slot(that) if that == place => Ok(self),
            Self::Slot(Place { shard, .. }) | Self::Shard(shard) if shard == place.shard => {
                Ok(Self::Shard(shard))
            }
            _ => Err(Misplaced::CrossSlot),
        }
    }
}

impl Home {
    /// Where all of both live; None when they are on different shards.
    pub fn join(self, other: Self) -> Option<Self> {
        match (self, other) {
            (home, Self::Nowhere) => Some(home),
            (home, Self::Slot(place)) => home.with(place).ok(),
            (Self::Nowhere, shard) => Some(shard),
            (Self::Slot(Place { shard, .. }) | Self::Shard(shard), Self::Shard(that)) => {
                (shard == that).then_some(other)
            }
        }
    }
}

/// The home of all these keys (numbers of arguments).
///
/// # Errors
/// See [`Misplaced`].
pub fn home_of_keys(
    topology: &Topology,
    command: &Command<'_>,
    keys: &[usize],
) -> Result<Home, Misplaced> {
    let mut home = Ok(Home::Nowhere);
    for &at in keys {
        let key = command.arg(at).unwrap_or_default();
        if names::is_reserved(key) {
            return Err(Misplaced::Reserved);
        }
        home = home.and_then(|home| home.with(topology.place_of(key)));
    }
    home
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_new_once_however_many_there_are() {
        let mut seen = Seen::default();
        for round in 0..2 {
            for slot in 0..3 * Seen::FEW as u16 {
                assert_eq!(seen.insert(slot), round == 0, "{slot}");
            }
        }
    }
}
