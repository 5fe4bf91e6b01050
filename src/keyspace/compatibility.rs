//! How far each command works: what the compatibility table says, from what [`Treatment`] does.

use super::keys::KeyRule;
use super::services::Library;
use super::table::{CommandSpec, CommandTable};
use super::treatment::{Treatment, Whole};

/// How far a command works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// As on one redis-server, wherever its keys are.
    Full,
    /// As on one redis-server while all its keys are on one shard; else it is refused.
    OneShard,
    /// Not at all.
    Refused,
}

impl Served {
    /// The word in the table.
    pub fn text(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::OneShard => "one shard",
            Self::Refused => "refused",
        }
    }
}

/// How far this command works, and what there is to say of that; empty for nothing.
pub fn served(spec: &CommandSpec) -> (Served, &'static str) {
    let of_keys = match spec.keys {
        KeyRule::None | KeyRule::One(_) => (Served::Full, ""),
        _ => (Served::OneShard, "keys on several shards are refused"),
    };
    match spec.treatment {
        Treatment::Own(_) if spec.name == "client|tracking" => (
            Served::Refused,
            "changes would not be told as they become visible; OFF is answered",
        ),
        Treatment::Route => of_keys,
        Treatment::Cross(_) if spec.name == "sort" => (
            Served::Full,
            "BY and GET patterns must have the hash tag of the key; STORE over two shards is a transaction; inside MULTI the keys must be on one shard",
        ),
        Treatment::Cross(_) => (
            Served::Full,
            "over several shards it is a transaction; inside MULTI the keys must be on one shard",
        ),
        Treatment::Block { .. } => (Served::Full, "inside MULTI the keys must be on one shard"),
        Treatment::Script => (
            Served::OneShard,
            "all keys declared, and on one shard; without keys, only what touches none",
        ),
        Treatment::Split(split) if split.is_write() => {
            (Served::Full, "over several shards it is a transaction")
        }
        Treatment::Flush => (Served::Full, "a transaction over all shards"),
        Treatment::Whole(Whole::Debug) => (
            Served::Full,
            "subcommands that do no harm; the others are refused",
        ),
        Treatment::Whole(Whole::ConfigSet) => (
            Served::Full,
            "on every shard; what promises rest on cannot be changed",
        ),
        Treatment::Whole(whole) if whole.is_of_keys() => {
            (Served::Full, "over all shards; refused inside MULTI")
        }
        Treatment::Whole(Whole::LatencyHistogram) => (
            Served::Full,
            "of lockstep itself: from the read to the reply",
        ),
        Treatment::Whole(_) => (Served::Full, "over all shards"),
        Treatment::Library(Library::Stats) => (Served::Full, ""),
        Treatment::Library(_) => (Served::Full, "on every shard; refused inside MULTI"),
        Treatment::Split(_) | Treatment::Anywhere | Treatment::Own(_) | Treatment::Channels(_) => {
            (Served::Full, "")
        }
        Treatment::Refused(why) => (Served::Refused, why),
    }
}

/// The table in Markdown: a line for each command and subcommand, by name.
pub fn markdown(table: &CommandTable) -> String {
    let mut specs = table.all();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::from("| command | works | |\n|---|---|---|\n");
    for spec in specs {
        let (served, note) = served(spec);
        let name = spec.name.replace('|', " ").to_uppercase();
        text.push_str(&format!("| {name} | {} | {note} |\n", served.text()));
    }
    text
}
