//! One transaction in full: its record on every shard, what it locks, what it would run.

use std::rc::Rc;

use futures::future::join_all;
use serde_json::{Value, json};

use super::list::{case_json, sight_json};
use super::look::{self, Depth};
use super::render::{self, Report};
use super::sight::{Case, Condition, Held};
use crate::engine::Engine;
use crate::resp;
use crate::txn::script::{self, answer};
use crate::txn::{Rule, State, TxnId, redo};

/// Shown of one branch at most.
const COMMANDS_MAX: usize = 1_000;
const HOLDS_MAX: usize = 1_000;

/// Whether keys and values are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redact {
    /// They are.
    No,
    /// Only names of commands, and lengths.
    Yes,
}

impl Redact {
    fn bytes(self, bytes: &[u8]) -> String {
        match self {
            Self::No => render::printable(bytes),
            Self::Yes => format!("<{}>", render::counted(bytes.len(), "byte", "bytes")),
        }
    }
}

/// What one participant has promised and holds.
#[derive(Clone, Default, Debug)]
struct Branch {
    /// Each with its arguments, the name first.
    commands: Vec<Vec<String>>,
    commands_len: usize,
    /// What is locked, and how it is held.
    holds: Vec<(String, Held)>,
    holds_len: usize,
    /// Replies that its marker keeps.
    replies_len: usize,
    /// Why the promise cannot be shown.
    error: Option<String>,
}

/// What [`show`] found.
#[derive(Clone, Debug)]
pub struct Shown {
    case: Case,
    branches: Vec<Branch>,
    addresses: Vec<String>,
    lock_ttl_ms: u64,
}

/// Looks at one transaction on every shard.
pub async fn show(engine: &Rc<Engine>, id: &TxnId, redact: Redact) -> Shown {
    let mut case = look::case(engine, id).await;
    let shards = 0..engine.shards();
    let branches = join_all(shards.map(|shard| branch(engine, shard, id, redact))).await;
    for (sight, (_, held)) in case.sights.iter_mut().zip(&branches) {
        sight.held = *held;
    }
    Shown {
        case,
        branches: branches.into_iter().map(|(branch, _)| branch).collect(),
        addresses: (0..engine.shards())
            .map(|shard| engine.address(shard).to_owned())
            .collect(),
        lock_ttl_ms: engine.times().limits.ttl_ms,
    }
}

async fn branch(engine: &Rc<Engine>, shard: u16, id: &TxnId, redact: Redact) -> (Branch, Held) {
    match try_branch(engine, shard, id, redact).await {
        Ok(found) => found,
        Err(why) => {
            let branch = Branch {
                error: Some(why),
                ..Branch::default()
            };
            (branch, Held::default())
        }
    }
}

async fn try_branch(
    engine: &Rc<Engine>,
    shard: u16,
    id: &TxnId,
    redact: Redact,
) -> Result<(Branch, Held), String> {
    let holdings = look::holdings(engine, shard, Depth::Index).await?;
    let reply = look::ask(engine, shard, |out| script::append_read_intent(out, id)).await?;
    let intent = answer::intent(&reply).map_err(|why| why.to_string())?;
    let mut branch = Branch {
        replies_len: replies_len(engine, shard, id).await?,
        ..Branch::default()
    };
    // What is held according to the index, and what should be according to the record.
    let mut names: Vec<Vec<u8>> = holdings.of(id).into_keys().collect();
    if let Some(intent) = intent.filter(|intent| !intent.keys.is_empty()) {
        let keys = redo::decode_keys(intent.keys).map_err(|why| why.to_string())?;
        names.extend(keys.into_iter().map(<[u8]>::to_vec));
        if !intent.redo.is_empty() {
            let commands = redo::decode(intent.redo).map_err(|why| why.to_string())?;
            branch.commands_len = commands.len();
            let shown = commands.iter().take(COMMANDS_MAX);
            branch.commands = shown.map(|command| command_text(command, redact)).collect();
        }
    }
    names.sort_unstable();
    names.dedup();
    branch.holds_len = names.len();
    let mut all = Held::default();
    for some in names.chunks(look::READ_AT_ONCE) {
        let held = join_all(
            some.iter()
                .map(|name| look::holder(engine, shard, id, name)),
        )
        .await;
        for (name, held) in some.iter().zip(held) {
            let held = held?;
            all.add(held);
            if branch.holds.len() < HOLDS_MAX {
                branch.holds.push((hold_text(name, redact), held));
            }
        }
    }
    Ok((branch, all))
}

/// How many replies its marker keeps for a coordinator that was merely slow.
async fn replies_len(engine: &Rc<Engine>, shard: u16, id: &TxnId) -> Result<usize, String> {
    let reply = look::ask(engine, shard, |out| script::append_read_replies(out, id)).await?;
    Ok(resp::as_bulk(&reply).map_or(0, |stored| resp::elements(stored).count()))
}

fn command_text(command: &[&[u8]], redact: Redact) -> Vec<String> {
    let mut words = command.iter();
    let name = words
        .next()
        .map(|name| render::printable(name).to_uppercase());
    name.into_iter()
        .chain(words.map(|word| redact.bytes(word)))
        .collect()
}

/// The number of a slot, or of its fence, gives nothing away.
fn hold_text(name: &[u8], redact: Redact) -> String {
    let number = name.strip_suffix(b"!").unwrap_or(name);
    match number.len() <= 5 && number.iter().all(u8::is_ascii_digit) {
        true => render::printable(name),
        false => redact.bytes(name),
    }
}

impl Shown {
    fn rule(&self) -> Option<String> {
        self.case.rule().map(|rule| match rule {
            Rule::Implicit => "all participants are prepared".to_owned(),
            Rule::Decider(part) => format!("shard {} has applied", part.shard),
        })
    }

    fn text_of(&self, shard: usize, branch: &Branch) -> String {
        let Some(sight) = self.case.sights.get(shard) else {
            return String::new();
        };
        let mut text = format!("shard {shard} ({})\n", self.addresses[shard]);
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<10}{value}\n"));
        line("state", &render::sight(sight));
        if let Some(found) = sight.found().filter(|_| sight.is_unsettled()) {
            let record = &found.record;
            let overdue = record.now_ms as i64 - record.deadline_ms as i64;
            line(
                "deadline",
                &format!(
                    "{} ({} ms since the epoch)",
                    render::deadline(overdue),
                    record.deadline_ms
                ),
            );
        }
        if let Some(expires) = sight.found().and_then(|found| found.expires_ms) {
            line("expires", &format!("in {}", render::span(expires)));
        }
        for (name, held) in &branch.holds {
            line("holds", &format!("{name}  ({})", render::held(*held)));
        }
        let verb = match sight.state() {
            Some(State::Applied) => "has run",
            _ => "runs",
        };
        for command in &branch.commands {
            line(
                verb,
                &command
                    .iter()
                    .map(|word| render::quoted(word))
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        let more =
            branch.holds_len - branch.holds.len() + branch.commands_len - branch.commands.len();
        if more > 0 {
            line("", &format!("and {more} more"));
        }
        if branch.replies_len > 0 {
            line("replies", &format!("{} kept", branch.replies_len));
        }
        if let Some(error) = &branch.error {
            line("error", error);
        }
        text
    }

    fn concerned(&self) -> impl Iterator<Item = (usize, &Branch)> {
        let concerned = |(shard, _): &(usize, &Branch)| {
            let sight = self.case.sights.get(*shard);
            sight.is_some_and(|sight| self.case.concerns(sight.shard) || sight.knows())
        };
        self.branches.iter().enumerate().filter(concerned)
    }
}

impl Report for Shown {
    fn json(&self) -> Value {
        let mut json = case_json(&self.case, &self.addresses, self.lock_ttl_ms);
        json["commits-when"] = json!(self.rule());
        let shards = self.concerned().map(|(shard, branch)| {
            let mut json = sight_json(&self.case.sights[shard], &self.addresses);
            let holds = branch.holds.iter().map(|(name, held)| {
                json!({"name": name, "lock": held.locks > 0, "index": held.index > 0,
                       "settling": held.settling > 0})
            });
            json["holds"] = holds.collect();
            json["holds-count"] = json!(branch.holds_len);
            json["replies-kept"] = json!(branch.replies_len);
            json["commands"] = json!(branch.commands);
            json["commands-count"] = json!(branch.commands_len);
            if let Some(error) = &branch.error {
                json["error"] = json!(error);
            }
            json
        });
        json["shards"] = shards.collect();
        json
    }

    fn text(&self) -> String {
        let case = &self.case;
        let mut text = format!("{}  {}\n", case.id, case.condition().text());
        if let Some(age) = case
            .age_ms(self.lock_ttl_ms)
            .filter(|_| case.overdue_ms().is_some())
        {
            text.push_str(&format!(
                "  {:<10}{}, begun by {}\n",
                "age",
                render::span(age),
                case.owner()
            ));
        }
        if let Some(rule) = self.rule() {
            text.push_str(&format!("  {:<10}when {rule}\n", "commits"));
        }
        if case.is_of_another_map() {
            text.push_str("  its participants are not in this shard map: give the shards of the lockstep that began it, in the same order\n");
        }
        for (shard, branch) in self.concerned() {
            text.push_str(&self.text_of(shard, branch));
        }
        text
    }

    fn is_good(&self) -> bool {
        self.case.condition() != Condition::Unknown
            && self.branches.iter().all(|branch| branch.error.is_none())
    }
}
