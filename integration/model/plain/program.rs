//! What the clients of a run do: small programs, and all of a kind of them.

use std::fmt;

/// A slot, which stands for all keys in it.
pub(crate) type Slot = u8;
/// The first shard has `a` and `c`, the second `b` and `d`.
pub(crate) const A: Slot = 0;
pub(crate) const B: Slot = 1;
pub(crate) const C: Slot = 2;
pub(crate) const D: Slot = 3;
pub(crate) const SLOTS: usize = 4;
pub(crate) const SHARDS: usize = 2;

pub(crate) fn shard_of(slot: Slot) -> usize {
    usize::from(slot) % SHARDS
}

/// What a command does with a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    /// Reads, then writes.
    Both,
}

/// How a command goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// One slot: sent as it is, its reply is held.
    Plain,
    /// A read of several slots: a piece to each shard, compared by epochs.
    Split,
    /// A write of several slots of one shard; with the fence up, of one: on an armed connection.
    Guarded,
    /// A transaction, which commits when all are prepared.
    Transaction,
    /// The same by a client that watches what it uses of the first shard, which decides.
    Decider,
    /// The same by a client that watches all it uses: each prepare looks whether that has changed.
    Checked,
}

/// One command, or MULTI/EXEC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Command {
    pub(crate) kind: Kind,
    pub(crate) access: [Option<Access>; SLOTS],
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        for slot in self.slots() {
            let letter = char::from(b'a' + slot);
            match self.access[usize::from(slot)] {
                Some(Access::Read) => write!(f, " get {letter}")?,
                Some(Access::Write) => write!(f, " set {letter}")?,
                _ => write!(f, " getset {letter}")?,
            }
        }
        Ok(())
    }
}

impl Command {
    pub(crate) fn new(kind: Kind, access: Access, slots: &[Slot]) -> Self {
        let none = Self {
            kind,
            access: [None; SLOTS],
        };
        none.and(access, slots)
    }

    /// The same, and this.
    pub(crate) fn and(mut self, access: Access, slots: &[Slot]) -> Self {
        for slot in slots {
            self.access[usize::from(*slot)] = Some(access);
        }
        self
    }

    /// The slots that it uses.
    pub(crate) fn slots(self) -> impl Iterator<Item = Slot> {
        (0..4).filter(move |slot| self.access[usize::from(*slot)].is_some())
    }

    /// Those on one shard.
    pub(crate) fn slots_on(self, shard: usize) -> impl Iterator<Item = Slot> {
        self.slots().filter(move |slot| shard_of(*slot) == shard)
    }

    /// The shards that it uses.
    pub(crate) fn shards(self) -> impl Iterator<Item = usize> {
        (0..SHARDS).filter(move |shard| self.slots_on(*shard).next().is_some())
    }

    pub(crate) fn reads(&self, slot: Slot) -> bool {
        let access = self.access[usize::from(slot)];
        matches!(access, Some(Access::Read | Access::Both))
    }

    pub(crate) fn writes(&self, slot: Slot) -> bool {
        let access = self.access[usize::from(slot)];
        matches!(access, Some(Access::Write | Access::Both))
    }

    /// Whether the client watches what it uses of this shard.
    pub(crate) fn watches(&self, shard: usize) -> bool {
        match self.kind {
            Kind::Decider => shard == 0,
            Kind::Checked => true,
            _ => false,
        }
    }

    pub(crate) fn is_transaction(&self) -> bool {
        matches!(self.kind, Kind::Transaction | Kind::Decider | Kind::Checked)
    }
}

pub(crate) fn get(slot: Slot) -> Command {
    Command::new(Kind::Plain, Access::Read, &[slot])
}

pub(crate) fn set(slot: Slot) -> Command {
    Command::new(Kind::Plain, Access::Write, &[slot])
}

/// SET with the fence up.
pub(crate) fn fenced_set(slot: Slot) -> Command {
    Command::new(Kind::Guarded, Access::Write, &[slot])
}

/// MGET, EXISTS, SINTER …
pub(crate) fn read(slots: &[Slot]) -> Command {
    Command::new(Kind::Split, Access::Read, slots)
}

/// MSET, SINTERSTORE, a script, MULTI/EXEC … of one shard.
pub(crate) fn write(access: Access, slots: &[Slot]) -> Command {
    Command::new(Kind::Guarded, access, slots)
}

/// A transaction that reads and writes all these.
pub(crate) fn transaction(kind: Kind, slots: &[Slot]) -> Command {
    Command::new(kind, Access::Both, slots)
}

/// The commands of each client, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    pub(crate) clients: Vec<Vec<Command>>,
    /// The same, by number.
    pub(crate) commands: Vec<Command>,
}

impl Program {
    fn new(clients: Vec<Vec<Command>>) -> Self {
        Self {
            commands: clients.concat(),
            clients,
        }
    }

    /// The number of a client's command among all.
    pub(crate) fn number(&self, client: usize, at: usize) -> usize {
        let before = self.clients[..client].iter().map(Vec::len);
        before.sum::<usize>() + at
    }
}

/// Clients with one fixed command each, beside clients with so many commands of an alphabet: all
/// such programs that differ in more than the order of clients.
pub(crate) fn programs(fixed: &[Command], alphabet: &[Command], lens: &[usize]) -> Vec<Program> {
    let mut all = vec![Vec::new()];
    for &len in lens {
        let texts = texts(alphabet, len);
        let with = |clients: &Vec<Vec<Command>>| {
            let clients = clients.clone();
            texts.clone().into_iter().filter_map(move |text| {
                let is_twin = clients
                    .last()
                    .is_some_and(|last: &Vec<_>| last.len() == text.len() && *last > text);
                (!is_twin).then(|| [clients.clone(), vec![text]].concat())
            })
        };
        all = all.iter().flat_map(with).collect();
    }
    let fixed: Vec<_> = fixed.iter().map(|command| vec![*command]).collect();
    let program = |clients| Program::new([fixed.clone(), clients].concat());
    all.into_iter().map(program).collect()
}

fn texts(alphabet: &[Command], len: usize) -> Vec<Vec<Command>> {
    (0..len).fold(vec![Vec::new()], |texts, _| {
        let longer = |text: &Vec<Command>| {
            let text = text.clone();
            alphabet
                .iter()
                .map(move |command| [text.clone(), vec![*command]].concat())
        };
        texts.iter().flat_map(longer).collect()
    })
}
