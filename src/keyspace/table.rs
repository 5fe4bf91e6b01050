//! The command table: what the shards' own `COMMAND` reply says of each command, so that new
//! commands and modules route correctly without a change here.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::keys::{Access, Begin, Find, KeyRule, KeySpec};
use super::treatment::Treatment;
use crate::resp::{Command, Value};

/// A property of a command, a bit in [`CommandSpec::flags`] (names as in the `COMMAND` reply).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Flag {
    /// May modify data.
    Write = 1,
    /// Reads data only.
    ReadOnly = 2,
    /// May block the connection.
    Blocking = 4,
    /// Publishes or subscribes.
    PubSub = 8,
    /// Not allowed inside MULTI.
    NoMulti = 16,
    /// Refused when memory is short.
    DenyOom = 32,
    /// Refused inside scripts.
    NoScript = 64,
    /// For administrators.
    Admin = 128,
    /// Served before the client has authenticated.
    NoAuth = 256,
}

const FLAG_NAMES: [(&str, Flag); 9] = [
    ("write", Flag::Write),
    ("readonly", Flag::ReadOnly),
    ("blocking", Flag::Blocking),
    ("pubsub", Flag::PubSub),
    ("no_multi", Flag::NoMulti),
    ("denyoom", Flag::DenyOom),
    ("noscript", Flag::NoScript),
    ("admin", Flag::Admin),
    ("no_auth", Flag::NoAuth),
];

/// What is known of one command or subcommand.
#[derive(Debug)]
pub struct CommandSpec {
    /// Its own number in this table, below [`CommandTable::ids`].
    pub id: usize,
    /// Lower case; a subcommand is `container|sub`.
    pub name: String,
    /// Number of arguments including the name; negative: at least that many.
    pub arity: i64,
    /// Bits of [`Flag`].
    pub flags: u32,
    /// Where its keys are.
    pub keys: KeyRule,
    /// What it does to them, one for each of its key specifications.
    pub accesses: Vec<Access>,
    /// The ACL categories that it is in, without `@`.
    pub categories: Vec<String>,
    /// What lockstep does with it.
    pub treatment: Treatment,
    subcommands: HashMap<Name, CommandSpec, Fold>,
}

impl CommandSpec {
    /// Whether the command has this property.
    pub fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u32 != 0
    }

    /// Whether so many arguments (name included) can be right.
    pub fn arity_fits(&self, argc: usize) -> bool {
        if self.arity >= 0 {
            argc as i64 == self.arity
        } else {
            argc as i64 >= -self.arity
        }
    }

    /// The subcommands of a container, in no order.
    pub fn subcommands(&self) -> impl Iterator<Item = &CommandSpec> {
        self.subcommands.values()
    }

    /// A subcommand by its name in lower case, without that of the container.
    pub fn subcommand(&self, name: &str) -> Option<&CommandSpec> {
        self.subcommands.get(&Name::fold(name.as_bytes())?)
    }
}

/// What a command's name is found to be.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// A known command or subcommand.
    Known(&'a CommandSpec),
    /// A container without such a subcommand.
    UnknownSubcommand(&'a CommandSpec),
    /// No such command.
    Unknown,
}

/// The commands of the connected servers.
#[derive(Debug)]
pub struct CommandTable {
    commands: HashMap<Name, CommandSpec, Fold>,
    ids: usize,
}

impl CommandTable {
    /// Reads the reply to `COMMAND`.
    ///
    /// # Errors
    /// A text that says what in the reply is not as Redis 7 documents it.
    pub fn from_reply(reply: &Value) -> Result<Self, String> {
        let entries = reply
            .as_slice()
            .ok_or("the reply to COMMAND is not an array")?;
        let mut commands = read_all(entries)?;
        if commands.is_empty() {
            return Err("the reply to COMMAND is empty".into());
        }
        let mut ids = 0;
        number(&mut commands, &mut ids);
        Ok(Self { commands, ids })
    }

    /// The number of commands, containers and their subcommands: one beyond the greatest
    /// [`CommandSpec::id`].
    pub fn ids(&self) -> usize {
        self.ids
    }

    /// Every command, in no order; containers without their subcommands.
    pub fn commands(&self) -> impl Iterator<Item = &CommandSpec> {
        self.commands.values()
    }

    /// Finds the command, or the subcommand when its first argument names one.
    pub fn lookup(&self, command: &Command<'_>) -> Lookup<'_> {
        let Some(spec) = Name::fold(command.name()).and_then(|name| self.commands.get(&name))
        else {
            return Lookup::Unknown;
        };
        let Some(sub) = command.arg(1).filter(|_| !spec.subcommands.is_empty()) else {
            return Lookup::Known(spec);
        };
        match Name::fold(sub).and_then(|name| spec.subcommands.get(&name)) {
            Some(sub) => Lookup::Known(sub),
            None => Lookup::UnknownSubcommand(spec),
        }
    }

    /// A command by its name in lower case, containers included.
    pub fn get(&self, name: &str) -> Option<&CommandSpec> {
        self.commands.get(&Name::fold(name.as_bytes())?)
    }

    /// Every command; of a container its subcommands instead.
    pub fn all(&self) -> Vec<&CommandSpec> {
        let mut all = Vec::new();
        for spec in self.commands.values() {
            match spec.subcommands.is_empty() {
                true => all.push(spec),
                false => all.extend(spec.subcommands.values()),
            }
        }
        all
    }

    /// The number of commands, containers counted once.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether the table knows no command; never the case for a table read from a reply.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

type Specs = HashMap<Name, CommandSpec, Fold>;

fn read_all(entries: &[Value]) -> Result<Specs, String> {
    let mut commands = Specs::default();
    for entry in entries {
        let spec = read_one(entry)?;
        let short = spec.name.rsplit('|').next().unwrap_or_default();
        // A longer name cannot be folded: the command is then unknown, hence refused, not misrouted.
        if let Some(name) = Name::fold(short.as_bytes()) {
            commands.insert(name, spec);
        }
    }
    Ok(commands)
}

fn number(specs: &mut Specs, next: &mut usize) {
    for spec in specs.values_mut() {
        spec.id = *next;
        *next += 1;
        number(&mut spec.subcommands, next);
    }
}

fn read_one(entry: &Value) -> Result<CommandSpec, String> {
    let fields = entry.as_slice().ok_or("a COMMAND entry is not an array")?;
    let name = fields
        .first()
        .and_then(Value::as_str)
        .ok_or("a COMMAND entry has no name")?
        .to_lowercase();
    let int = |i: usize| {
        fields
            .get(i)
            .and_then(Value::as_int)
            .ok_or(format!("COMMAND: {name}: field {i} is no integer"))
    };
    let specs = fields
        .get(8)
        .and_then(Value::as_slice)
        .ok_or(format!("COMMAND: {name} has no key specifications"))?;
    let subcommands = fields.get(9).and_then(Value::as_slice).unwrap_or(&[]);
    let keys = read_keys(&name, specs, int(3)?, int(4)?, int(5)?);
    let categories = fields.get(6).and_then(Value::as_slice).unwrap_or(&[]);
    let mut spec = CommandSpec {
        id: 0,
        accesses: specs
            .iter()
            .filter(|spec| is_of_keys(spec))
            .map(access)
            .collect(),
        categories: categories
            .iter()
            .filter_map(|name| Some(name.as_str()?.trim_start_matches('@').to_lowercase()))
            .collect(),
        arity: int(1)?,
        flags: fields
            .get(2)
            .and_then(Value::as_slice)
            .unwrap_or(&[])
            .iter()
            .map(flag_bit)
            .sum(),
        keys,
        treatment: Treatment::Route,
        subcommands: read_all(subcommands)?,
        name,
    };
    spec.treatment = Treatment::of(&spec);
    Ok(spec)
}

fn flag_bit(flag: &Value) -> u32 {
    let text = flag.as_str().unwrap_or_default();
    FLAG_NAMES
        .iter()
        .find(|(name, _)| *name == text)
        .map_or(0, |(_, flag)| *flag as u32)
}

/// The key specifications when they tell all, code of our own for SORT, the legacy triple
/// (modules of older make) when there is no specification.
fn read_keys(name: &str, specs: &[Value], first: i64, last: i64, step: i64) -> KeyRule {
    if name == "sort" || name == "sort_ro" {
        return KeyRule::Sort;
    }
    let data: Vec<&Value> = specs.iter().filter(|spec| is_of_keys(spec)).collect();
    if data.is_empty() {
        return match (first, specs.is_empty()) {
            (1.., true) => range(first as usize, last, step.max(1) as usize),
            _ => KeyRule::None,
        };
    }
    let incomplete = data.iter().any(|spec| has_flag(spec, "incomplete"));
    let read: Option<Vec<KeySpec>> = data.into_iter().map(read_spec).collect();
    match read {
        Some(specs) if !incomplete => simplify(specs),
        _ => KeyRule::Untold,
    }
}

fn range(first: usize, last: i64, step: usize) -> KeyRule {
    if last == first as i64 {
        KeyRule::One(first)
    } else {
        KeyRule::Range { first, last, step }
    }
}

fn simplify(specs: Vec<KeySpec>) -> KeyRule {
    if let [
        KeySpec {
            begin: Begin::Index(first),
            find:
                Find::Range {
                    last,
                    step,
                    limit: 0 | 1,
                },
        },
    ] = specs[..]
    {
        let last = if last < 0 { last } else { first as i64 + last };
        return range(first, last, step);
    }
    KeyRule::Specs(specs)
}

fn is_of_keys(spec: &Value) -> bool {
    !has_flag(spec, "not_key")
}

/// As ACLs of Redis see it: what matters is not whether the key is opened for writing, but
/// whether its data is read, and whether it is changed.
fn access(spec: &Value) -> Access {
    let changes = ["insert", "delete", "update"];
    Access {
        reads: has_flag(spec, "access"),
        writes: changes.iter().any(|flag| has_flag(spec, flag)),
    }
}

fn has_flag(spec: &Value, flag: &str) -> bool {
    let flags = field(spec, "flags")
        .and_then(Value::as_slice)
        .unwrap_or(&[]);
    flags.iter().any(|f| f.as_str() == Some(flag))
}

fn read_spec(spec: &Value) -> Option<KeySpec> {
    let begin = field(spec, "begin_search")?;
    let place = field(begin, "spec")?;
    let begin = match field(begin, "type")?.as_str()? {
        "index" => Begin::Index(usize_of(place, "index")?),
        "keyword" => Begin::Keyword(
            field(place, "keyword")?.as_str()?.as_bytes().to_vec(),
            field(place, "startfrom")?.as_int()?,
        ),
        _ => return None,
    };
    let find = field(spec, "find_keys")?;
    let how = field(find, "spec")?;
    let find = match field(find, "type")?.as_str()? {
        "range" => Find::Range {
            last: field(how, "lastkey")?.as_int()?,
            step: usize_of(how, "keystep")?.max(1),
            limit: usize_of(how, "limit")?,
        },
        "keynum" => Find::Count {
            count: usize_of(how, "keynumidx")?,
            first: usize_of(how, "firstkey")?,
            step: usize_of(how, "keystep")?.max(1),
        },
        _ => return None,
    };
    Some(KeySpec { begin, find })
}

fn usize_of(map: &Value, name: &str) -> Option<usize> {
    usize::try_from(field(map, name)?.as_int()?).ok()
}

/// A field of a map, which RESP2 writes as a flat array.
fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    if let Value::Map(pairs) = map {
        return pairs
            .iter()
            .find(|(key, _)| key.as_str() == Some(name))
            .map(|(_, value)| value);
    }
    let flat = map.as_slice()?;
    let at = flat
        .iter()
        .step_by(2)
        .position(|key| key.as_str() == Some(name))?;
    flat.get(2 * at + 1)
}

/// A command name folded to lower case in four words: compared and hashed without a loop over
/// bytes and without allocating.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
struct Name([u64; 4]);

impl Name {
    /// None for names longer than 32 bytes.
    fn fold(name: &[u8]) -> Option<Self> {
        let mut words = [0u64; 4];
        if name.len() > 32 {
            return None;
        }
        for (word, chunk) in words.iter_mut().zip(name.chunks(8)) {
            // The first byte is the lowest.
            let bytes = chunk.iter().rev();
            *word = lower(bytes.fold(0, |word, &byte| word << 8 | u64::from(byte)));
        }
        Some(Self(words))
    }
}

/// Each of the eight bytes in ASCII lower case. Sums of seven bits never reach the next byte.
fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let low = word & !HIGH;
    let is_from_a = low + (0x80 - u64::from(b'A')) * EACH;
    let is_beyond_z = low + (0x7f - u64::from(b'Z')) * EACH;
    let is_upper = (is_from_a ^ is_beyond_z) & !word & HIGH;
    word | is_upper >> 2
}

impl std::hash::Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.0;
        state.write_u64(a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47));
    }
}

type Fold = BuildHasherDefault<Multiply>;

/// One multiplication: the table is built from the servers' own names, nobody can choose
/// colliding ones.
#[derive(Default, Debug)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(0x9E37_79B9_7F4A_7C15u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_as_ascii() {
        for byte in 0..=u8::MAX {
            let name = [byte, b'G', byte, b'@', b'[', b'`', b'{', byte, byte, b'Z'];
            let folded = Name::fold(&name.to_ascii_lowercase());
            assert_eq!(Name::fold(&name), folded, "{byte}");
            let Some(Name([first, second, 0, 0])) = folded else {
                unreachable!("two words");
            };
            let bytes = [first.to_le_bytes(), second.to_le_bytes()].concat();
            assert_eq!(bytes[..10], name.to_ascii_lowercase(), "{byte}");
        }
        assert_eq!(Name::fold(&[b'x'; 33]), None);
        assert_ne!(Name::fold(b"get"), Name::fold(b"gets"));
    }
}
