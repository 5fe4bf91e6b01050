//! What lockstep does with each command. Most are routed by their keys; the few with a meaning
//! of their own are named here, and whatever is left is refused: a command that nobody thought
//! about must not end on a shard of chance.

use super::keys::KeyRule;
use super::services::{self, Channels, Library};
use super::table::{CommandSpec, Flag};

/// What lockstep does with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// Goes to the shard of its keys, unchanged; refused when they are on several.
    Route,
    /// Goes to the shard of its keys, unchanged; a transaction of its own kind when they are on
    /// several.
    Cross(Cross),
    /// Goes to the shard of its keys; split when they are on several.
    Split(Split),
    /// Like `Route`; without declared keys its shard cannot be told.
    Script,
    /// Waits for data outside MULTI; with BLOCK, or always (the flag).
    Block {
        /// Whether it waits even without the word BLOCK among its arguments.
        always: bool,
    },
    /// Subscribes, or publishes.
    Channels(Channels),
    /// Keeps, or ends, scripts and functions on every shard.
    Library(Library),
    /// Has no keys and tells nothing of the data: any shard's answer will do.
    Anywhere,
    /// Empties the keyspace, on every shard.
    Flush,
    /// Concerns every shard.
    Whole(Whole),
    /// Answered, or acted upon, by lockstep itself.
    Own(Own),
    /// Refused, for this reason (the end of a sentence that begins with the command's name).
    Refused(&'static str),
}

/// A command over several keys that can be split by shard, and how the replies become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// Values in the order of the keys.
    Mget,
    /// Key and value pairs; +OK.
    Mset,
    /// DEL, UNLINK: the sum of integers, and a write.
    SumWrite,
    /// EXISTS, TOUCH: the sum of integers, and a read.
    SumRead,
}

impl Split {
    /// Whether it changes data, so that its pieces must be applied as a transaction.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Mset | Self::SumWrite)
    }

    /// Arguments per key: the key itself, and its value where there is one.
    pub fn step(self) -> usize {
        if self == Self::Mset { 2 } else { 1 }
    }
}

/// A command that becomes a transaction over the shards of its keys; see
/// [`crate::engine::crossing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cross {
    /// LMOVE, RPOPLPUSH.
    Move,
    /// SMOVE.
    Shift,
    /// RENAME, RENAMENX.
    Rename,
    /// COPY.
    Copy,
    /// MSETNX.
    SetNew,
    /// What reads keys, and has its result in one or in none: the values of foreign keys are
    /// carried to its shard.
    Gather,
}

/// A command that concerns the whole keyspace, or every shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whole {
    /// One cursor over all shards.
    Scan,
    /// The keys of all shards.
    Keys,
    /// How many these are.
    DbSize,
    /// One of them.
    RandomKey,
    /// Waits for the replicas of all shards; the least number of them.
    Wait,
    /// What all shards and lockstep say of themselves.
    Info,
    /// Every shard, but for what promises rest on.
    ConfigSet,
    /// The newest entries of all shards.
    SlowLog,
    /// All shards' samples of an event.
    LatencyHistory,
    /// The newest sample of each event.
    LatencyLatest,
    /// Lockstep's own.
    LatencyHistogram,
    /// Every shard, and lockstep itself.
    ResetStat,
    /// As far as it does no harm.
    Debug,
    /// Sent to every shard as it is; one reply from theirs.
    Every(Merge),
}

impl Whole {
    /// Whether it looks at the clients' keys, so that inside MULTI it would have to see those of
    /// the transaction; or waits, which nothing does there.
    pub fn is_of_keys(self) -> bool {
        use Whole::{DbSize, Keys, RandomKey, Scan, Wait};
        matches!(self, Scan | Keys | DbSize | RandomKey | Wait)
    }
}

/// How the replies of all shards become one; any error among them is an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// They are the same, or as good as each other.
    First,
    /// Integers: all together.
    Sum,
    /// Integers: the least.
    Least,
    /// Texts for people: one behind the other, unless they are the same.
    Texts,
}

/// Commands about the connection or the transaction, not about data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the Redis command of its name")]
pub enum Own {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Ping,
    Echo,
    Select,
    Client,
    Hello,
    Auth,
    Acl,
    Quit,
    Reset,
}

const LATER: &str = "is not supported by this version of lockstep";
const OPERATOR: &str = "acts on a single server: send it to the shard itself";

const USERS: &str =
    "is not supported by lockstep: its users come from acl-file, which ACL LOAD reads again";

impl Treatment {
    /// By the command's name first, by what its server says of it otherwise.
    pub(super) fn of(spec: &CommandSpec) -> Self {
        let (container, sub) = spec.name.split_once('|').unwrap_or((&spec.name, ""));
        if sub == "help" {
            return Self::Anywhere;
        }
        if let Some(known) = services::by_name(container, sub).or_else(|| by_name(container, sub)) {
            return known;
        }
        if spec.is(Flag::PubSub) || spec.is(Flag::NoMulti) {
            return Self::Refused(LATER);
        }
        match spec.keys {
            KeyRule::None => Self::Refused(if spec.is(Flag::Admin) {
                OPERATOR
            } else {
                LATER
            }),
            KeyRule::Untold => {
                Self::Refused("touches keys that lockstep cannot tell from its arguments")
            }
            _ if spec.is(Flag::Blocking) => Self::Block { always: true },
            _ => Self::Route,
        }
    }
}

fn by_name(name: &str, sub: &str) -> Option<Treatment> {
    use Treatment::{
        Anywhere, Block, Cross as Over, Flush, Own as Mine, Refused, Script, Split as Splits,
        Whole as All,
    };
    Some(match name {
        "lmove" | "rpoplpush" => Over(Cross::Move),
        "smove" => Over(Cross::Shift),
        "rename" | "renamenx" => Over(Cross::Rename),
        "copy" => Over(Cross::Copy),
        "msetnx" => Over(Cross::SetNew),
        "sinter" | "sunion" | "sdiff" | "sintercard" | "zinter" | "zunion" | "zdiff"
        | "zintercard" | "sinterstore" | "sunionstore" | "sdiffstore" | "zinterstore"
        | "zunionstore" | "zdiffstore" | "zrangestore" | "geosearchstore" | "georadius"
        | "georadiusbymember" | "bitop" | "pfmerge" | "pfcount" | "lcs" | "sort" => {
            Over(Cross::Gather)
        }
        "mget" => Splits(Split::Mget),
        "mset" => Splits(Split::Mset),
        "del" | "unlink" => Splits(Split::SumWrite),
        "exists" | "touch" => Splits(Split::SumRead),
        "xread" | "xreadgroup" => Block { always: false },
        "eval" | "eval_ro" | "evalsha" | "evalsha_ro" | "fcall" | "fcall_ro" => Script,
        "multi" => Mine(Own::Multi),
        "exec" => Mine(Own::Exec),
        "discard" => Mine(Own::Discard),
        "watch" => Mine(Own::Watch),
        "unwatch" => Mine(Own::Unwatch),
        "ping" => Mine(Own::Ping),
        "echo" => Mine(Own::Echo),
        "select" => Mine(Own::Select),
        "client" => Mine(Own::Client),
        "hello" => Mine(Own::Hello),
        "auth" => Mine(Own::Auth),
        "acl" if matches!(sub, "setuser" | "deluser" | "save") => Refused(USERS),
        "acl" => Mine(Own::Acl),
        "quit" => Mine(Own::Quit),
        "reset" => Mine(Own::Reset),
        "cluster" | "readonly" | "readwrite" => Anywhere,
        "command" | "time" | "lolwut" | "role" => Anywhere,
        "pfselftest" => Anywhere,
        "scan" => All(Whole::Scan),
        "keys" => All(Whole::Keys),
        "dbsize" => All(Whole::DbSize),
        "randomkey" => All(Whole::RandomKey),
        "wait" => All(Whole::Wait),
        "lastsave" => All(Whole::Every(Merge::Least)),
        "save" | "bgsave" | "bgrewriteaof" => All(Whole::Every(Merge::First)),
        "info" => All(Whole::Info),
        "debug" => All(Whole::Debug),
        "flushall" | "flushdb" | "swapdb" => Flush,
        "object" | "xgroup" | "xinfo" | "memory" | "config" | "slowlog" | "latency"
            if sub.is_empty() =>
        {
            Anywhere
        }
        _ => return whole_by_subcommand(name, sub),
    })
}

fn whole_by_subcommand(name: &str, sub: &str) -> Option<Treatment> {
    Some(Treatment::Whole(match (name, sub) {
        ("config", "set") => Whole::ConfigSet,
        ("config", "resetstat") => Whole::ResetStat,
        ("config", _) => Whole::Every(Merge::First),
        ("slowlog", "get") => Whole::SlowLog,
        ("slowlog", "len") => Whole::Every(Merge::Sum),
        ("slowlog", "reset") | ("memory", "purge") => Whole::Every(Merge::First),
        ("latency", "history") => Whole::LatencyHistory,
        ("latency", "latest") => Whole::LatencyLatest,
        ("latency", "histogram") => Whole::LatencyHistogram,
        ("latency", "reset") => Whole::Every(Merge::Sum),
        ("latency", "doctor") | ("memory", "doctor" | "malloc-stats") => Whole::Every(Merge::Texts),
        _ => return None,
    }))
}
