//! Every transaction that is unfinished or has left something behind.

use std::rc::Rc;

use serde_json::{Value, json};

use super::look::{Depth, Look, look};
use super::render::{self, Report};
use super::sight::{Case, Condition, Seen, Sight};
use crate::engine::Engine;

/// What [`list`] found.
#[derive(Clone, Debug)]
pub struct Listing {
    cases: Vec<Case>,
    addresses: Vec<String>,
    unreachable: Vec<(String, String)>,
    is_cut: bool,
    lock_ttl_ms: u64,
}

/// Lists what holds keys: running, in doubt, or left over. With `all` also what is settled and
/// kept for those who ask, and lock keys, for which every key of every shard must be looked at.
pub async fn list(engine: &Rc<Engine>, all: bool) -> Listing {
    let depth = if all { Depth::Keyspace } else { Depth::Index };
    let Look {
        holdings,
        mut cases,
        is_cut,
    } = look(engine, depth).await;
    // What is worst comes first.
    cases.sort_by_key(|case| (!case.condition().is_bad(), case.overdue_ms().map(|ms| -ms)));
    let addresses: Vec<String> = (0..engine.shards())
        .map(|shard| engine.address(shard).to_owned())
        .collect();
    let unreachable = addresses.iter().zip(&holdings);
    let unreachable = unreachable
        .filter_map(|(address, held)| Some((address.clone(), held.as_ref().err()?.clone())));
    Listing {
        unreachable: unreachable.collect(),
        cases,
        addresses,
        is_cut,
        lock_ttl_ms: engine.times().limits.ttl_ms,
    }
}

impl Listing {
    fn in_doubt(&self) -> usize {
        let doubtful = |case: &&Case| case.condition().is_bad();
        self.cases.iter().filter(doubtful).count()
    }

    fn row(&self, case: &Case) -> Vec<String> {
        let none = || "-".to_owned();
        let concerned = case
            .sights
            .iter()
            .filter(|s| case.concerns(s.shard) || s.knows());
        let states = concerned.map(|s| format!("{} {}", s.shard, render::sight(s)));
        let held = case.held();
        vec![
            case.id.to_string(),
            case.condition().text().to_owned(),
            case.age_ms(self.lock_ttl_ms)
                .map_or_else(none, render::span),
            case.overdue_ms().map_or_else(none, render::deadline),
            held.index.max(held.settling).max(held.locks).to_string(),
            states.collect::<Vec<_>>().join("; "),
        ]
    }
}

impl Report for Listing {
    fn json(&self) -> Value {
        let cases = self
            .cases
            .iter()
            .map(|case| case_json(case, &self.addresses, self.lock_ttl_ms));
        let unreachable = self
            .unreachable
            .iter()
            .map(|(address, why)| json!({"shard": address, "error": why}));
        json!({
            "transactions": cases.collect::<Vec<_>>(),
            "in-doubt": self.in_doubt(),
            "unreachable": unreachable.collect::<Vec<_>>(),
            "truncated": self.is_cut,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.cases.is_empty() {
            let heading = ["ID", "STATE", "AGE", "DEADLINE", "HOLDS", "ON EACH SHARD"];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(self.cases.iter().map(|case| self.row(case)));
            text.push_str(&render::table(&rows));
        }
        for (address, why) in &self.unreachable {
            text.push_str(&format!("{address}: no answer: {why}\n"));
        }
        if self.is_cut {
            text.push_str("there are more than are shown\n");
        }
        let total = render::counted(self.cases.len(), "transaction", "transactions");
        text.push_str(&format!(
            "{total}, {} in doubt or left over\n",
            self.in_doubt()
        ));
        text
    }

    fn is_good(&self) -> bool {
        self.unreachable.is_empty()
    }
}

/// A transaction as programs get it.
pub(super) fn case_json(case: &Case, addresses: &[String], lock_ttl_ms: u64) -> Value {
    let sights = case
        .sights
        .iter()
        .filter(|s| case.concerns(s.shard) || s.knows());
    let held = case.held();
    json!({
        "id": case.id.as_str(),
        "state": case.condition().text(),
        "owner": case.owner(),
        "age-ms": case.age_ms(lock_ttl_ms),
        "overdue-ms": case.overdue_ms(),
        "participants": case.participants().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "index-entries": held.index,
        "settling-entries": held.settling,
        "locks": held.locks,
        "other-map": case.is_of_another_map() && case.condition() != Condition::Unknown,
        "shards": sights.map(|s| sight_json(s, addresses)).collect::<Vec<_>>(),
    })
}

/// What one shard says of it.
pub(super) fn sight_json(sight: &Sight, addresses: &[String]) -> Value {
    let (state, error) = match &sight.seen {
        Seen::Unreadable(why) => ("unreadable", Some(why.as_str())),
        Seen::Absent => ("absent", None),
        Seen::Found(found) => (render::state(found.record.state), None),
    };
    let found = sight.found();
    json!({
        "shard": sight.shard,
        "address": addresses.get(usize::from(sight.shard)),
        "state": state,
        "released": found.map(|f| f.released),
        "deadline-ms": found.map(|f| f.record.deadline_ms).filter(|ms| *ms > 0),
        "clock-ms": found.map(|f| f.record.now_ms),
        "expires-ms": found.and_then(|f| f.expires_ms),
        "index-entries": sight.held.index,
        "settling-entries": sight.held.settling,
        "locks": sight.held.locks,
        "error": error,
    })
}
