//! What is asked, and by how many.

use super::endpoints::Kind;
use super::support::{encode, keys_on, shard_of};

/// Keys that are read and written.
pub const KEYS: usize = 100_000;
/// What is written.
pub const VALUE: &str = "0123456789012345678901234567890123456789012345678901234567890123";
/// Keys that everybody wants, for the workload of that kind.
const WANTED: usize = 4;

/// One row.
pub struct Workload {
    /// For `--workloads`.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// In front of which servers.
    pub stage: Kind,
    /// Connections.
    pub clients: usize,
    /// Units in one write.
    pub depth: usize,
    /// What one unit is.
    pub unit: Unit,
}

/// What is counted and timed.
#[derive(Clone, Copy)]
pub enum Unit {
    /// GET of a random key.
    Get,
    /// SET of a random key.
    Set,
    /// MGET of so many random keys.
    Mget(usize),
    /// MSET of two random keys.
    Mset,
    /// MULTI, two SETs of keys with one hash tag, EXEC.
    Tagged,
    /// MULTI, two SETs of random keys, EXEC.
    Multi,
    /// MULTI, a SET on each of so many shards (of 16), EXEC.
    Over(usize),
    /// MULTI, a SET of each of four keys that everybody writes, EXEC.
    Contended,
    /// SET of one of a few keys, of a value of so many bytes.
    SetOf(usize),
    /// GET of those.
    GetLarge,
    /// So many of a hundred [`Unit::Cross`], the others [`Unit::Tagged`].
    AmongTagged(usize),
    /// So many of a hundred [`Unit::Cross`], the others [`Unit::Get`].
    AmongGet(usize),
    /// MULTI, two SETs on two of three shards, EXEC.
    Cross,
}

const fn row(
    name: &'static str,
    what: &'static str,
    stage: Kind,
    (clients, depth): (usize, usize),
    unit: Unit,
) -> Workload {
    Workload {
        name,
        what,
        stage,
        clients,
        depth,
        unit,
    }
}

/// All of them.
pub const ALL: &[Workload] = &[
    row("get", "GET, 50 clients", Kind::Plain, (50, 1), Unit::Get),
    row("set", "SET, 50 clients", Kind::Plain, (50, 1), Unit::Set),
    row(
        "get16",
        "GET, 50 clients, 16 in one write",
        Kind::Plain,
        (50, 16),
        Unit::Get,
    ),
    row(
        "set16",
        "SET, 50 clients, 16 in one write",
        Kind::Plain,
        (50, 16),
        Unit::Set,
    ),
    row(
        "mget10",
        "MGET of 10 random keys, 50 clients",
        Kind::Plain,
        (50, 1),
        Unit::Mget(10),
    ),
    row(
        "mset2",
        "MSET of 2 random keys, 50 clients",
        Kind::Plain,
        (50, 1),
        Unit::Mset,
    ),
    row("get1", "GET, one client", Kind::Plain, (1, 1), Unit::Get),
    row(
        "multi",
        "MULTI SET SET EXEC in one slot, 50 clients",
        Kind::Plain,
        (50, 1),
        Unit::Tagged,
    ),
    row(
        "multi1",
        "the same, one client",
        Kind::Plain,
        (1, 1),
        Unit::Tagged,
    ),
    row(
        "tx",
        "MULTI SET SET EXEC, random keys, 50 clients",
        Kind::Plain,
        (50, 1),
        Unit::Multi,
    ),
    row(
        "tx1",
        "the same, one client",
        Kind::Plain,
        (1, 1),
        Unit::Multi,
    ),
    row(
        "over2",
        "MULTI over 2 of 16 shards, one client",
        Kind::Wide,
        (1, 1),
        Unit::Over(2),
    ),
    row("over4", "over 4", Kind::Wide, (1, 1), Unit::Over(4)),
    row("over8", "over 8", Kind::Wide, (1, 1), Unit::Over(8)),
    row("over16", "over 16", Kind::Wide, (1, 1), Unit::Over(16)),
    row(
        "hot",
        "MULTI, the same 4 keys for all of 50 clients",
        Kind::Pair,
        (50, 1),
        Unit::Contended,
    ),
    row(
        "getw",
        "GET, 50 clients, of one and of two workers",
        Kind::Workers,
        (50, 1),
        Unit::Get,
    ),
    row(
        "setw",
        "SET, 50 clients, of one and of two workers",
        Kind::Workers,
        (50, 1),
        Unit::Set,
    ),
];

/// A small generator of its own: quick, and the same every time.
pub struct Dice(u64);

impl Dice {
    /// Seeded.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    fn key(&mut self) -> String {
        format!("key:{:012}", self.below(KEYS))
    }
}

impl Unit {
    /// Appends the bytes of one unit; how many replies it will have.
    pub fn append(self, dice: &mut Dice, out: &mut Vec<u8>) -> usize {
        match self {
            Self::Get => out.extend(encode(&["GET", &dice.key()])),
            Self::Set => out.extend(encode(&["SET", &dice.key(), VALUE])),
            Self::Mget(count) => {
                let keys: Vec<String> = (0..count).map(|_| dice.key()).collect();
                let mut words = vec!["MGET"];
                words.extend(keys.iter().map(String::as_str));
                out.extend(encode(&words));
            }
            Self::Mset => out.extend(encode(&["MSET", &dice.key(), VALUE, &dice.key(), VALUE])),
            Self::SetOf(bytes) => {
                let key = large_key(dice.below(LARGE));
                out.extend(encode(&[
                    b"SET".as_slice(),
                    key.as_bytes(),
                    &vec![b'x'; bytes],
                ]));
            }
            Self::GetLarge => out.extend(encode(&["GET", &large_key(dice.below(LARGE))])),
            other => return other.append_transaction(dice, out),
        }
        1
    }

    fn append_transaction(self, dice: &mut Dice, out: &mut Vec<u8>) -> usize {
        match self {
            Self::Tagged => {
                let tag = dice.key();
                transaction(&[format!("{{{tag}}}:a"), format!("{{{tag}}}:b")], out)
            }
            Self::Multi => transaction(&[dice.key(), dice.key()], out),
            Self::Over(shards) => {
                let number = dice.key();
                let on = |shard| keys_on(&number, shard, 16, 1).remove(0);
                transaction(&(0..shards).map(on).collect::<Vec<_>>(), out)
            }
            Self::Contended => {
                let wanted: Vec<String> = (0..WANTED).map(|key| format!("wanted:{key}")).collect();
                transaction(&wanted, out)
            }
            Self::Cross => {
                let shard = |key: &str| shard_of(key.as_bytes(), 3);
                let one = dice.key();
                let other = std::iter::repeat_with(|| dice.key());
                let mut other = other.skip_while(|other| shard(other) == shard(&one));
                let other = other.next().expect("there is no end of keys");
                transaction(&[one, other], out)
            }
            Self::AmongTagged(part) if dice.below(100) >= part => Self::Tagged.append(dice, out),
            Self::AmongGet(part) if dice.below(100) >= part => Self::Get.append(dice, out),
            _ => Self::Cross.append(dice, out),
        }
    }

    /// About how many bytes it has.
    pub fn bytes(self) -> usize {
        match self {
            Self::SetOf(bytes) => bytes + 64,
            _ => 512,
        }
    }
}

/// Keys with values of a chosen size: few, since the values may be large.
pub const LARGE: usize = 16;

/// One of them.
pub fn large_key(number: usize) -> String {
    format!("large:{number}")
}

fn transaction(keys: &[String], out: &mut Vec<u8>) -> usize {
    out.extend(encode(&["MULTI"]));
    for key in keys {
        out.extend(encode(&["SET", key, VALUE]));
    }
    out.extend(encode(&["EXEC"]));
    keys.len() + 2
}
