//! `lockstep audit`: how consistent the shards are, what is left over, and which of their
//! settings put promises at risk.
//!
//! The measure is P = (x1 + … + xn) / n over the n shards. xi is the share of the transactions
//! known to shard i (a record, or an entry in their name) that stand there as their outcome
//! demands by now: 1 when none is in doubt, left over or contradicted, and 0 for a shard that
//! gives no answer. One that is before its deadline is not wrong yet: it is being worked on.

mod aof;
mod facts;
mod finding;
mod settings;

use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use serde_json::{Value, json};

use super::look::{self, Depth, Look};
use super::map;
use super::render::{self, Report};
use super::sight::{Case, Condition, Sight};
use crate::engine::Engine;
use crate::resp;
use facts::Facts;
use finding::{Finding, Severity};

/// Transactions that are named at most.
const NAMED_MAX: usize = 50;

/// How the transactions stand that one shard knows.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Share {
    known: usize,
    wrong: usize,
    running: usize,
    answers: bool,
}

impl Share {
    fn of(shard: u16, look: &Look) -> Self {
        let on = |case: &Case| case.sights.iter().find(|s| s.shard == shard).cloned();
        let known: Vec<(&Case, Sight)> = look
            .cases
            .iter()
            .filter_map(|case| Some((case, on(case)?)))
            .filter(|(_, sight)| sight.knows())
            .collect();
        let wrong = known.iter().filter(|(case, _)| case.is_wrong_on(shard));
        let running = known
            .iter()
            .filter(|(_, s)| s.is_unsettled() && !s.is_overdue());
        Self {
            known: known.len(),
            wrong: wrong.count(),
            running: running.count(),
            answers: look
                .holdings
                .get(usize::from(shard))
                .is_some_and(Result::is_ok),
        }
    }

    fn x(self) -> f64 {
        match (self.answers, self.known) {
            (false, _) => 0.0,
            (true, 0) => 1.0,
            (true, known) => 1.0 - self.wrong as f64 / known as f64,
        }
    }
}

/// What an audit found.
#[derive(Clone, Debug)]
pub struct Audit {
    addresses: Vec<String>,
    shares: Vec<Share>,
    findings: Vec<Finding>,
    is_cut: bool,
}

/// Looks at everything on every shard.
pub async fn audit(engine: &Rc<Engine>) -> Audit {
    let shards = 0..engine.shards();
    let look = look::look(engine, Depth::Keyspace).await;
    let facts: Vec<Result<Facts, String>> =
        join_all(shards.clone().map(|shard| Facts::ask(engine, shard))).await;
    let mut findings = Vec::new();
    for (shard, facts) in shards.clone().zip(&facts) {
        match facts {
            Ok(facts) => {
                findings.extend(settings::findings(shard, facts));
                findings.extend(aof::finding(engine, shard, facts).await);
            }
            Err(why) => findings.push(Finding::error(shard, "unreachable", why.clone())),
        }
    }
    let known: Vec<Option<Facts>> = facts.into_iter().map(Result::ok).collect();
    findings.extend(settings::together(&known));
    findings.extend(maps(engine).await);
    let lock_ttl_ms = engine.times().limits.ttl_ms;
    let offsets = join_all(shards.clone().map(|shard| clock_offset_ms(engine, shard))).await;
    let offsets: Vec<i64> = offsets.into_iter().flatten().collect();
    findings.extend(settings::clocks(&offsets, lock_ttl_ms));
    findings.extend(leftovers(&look, lock_ttl_ms));
    findings.sort_by_key(|finding| (finding.severity, finding.shard));
    Audit {
        addresses: shards
            .clone()
            .map(|shard| engine.address(shard).to_owned())
            .collect(),
        shares: shards.map(|shard| Share::of(shard, &look)).collect(),
        findings,
        is_cut: look.is_cut,
    }
}

/// What transactions have left.
fn leftovers(look: &Look, lock_ttl_ms: u64) -> Vec<Finding> {
    let bad: Vec<&Case> = look
        .cases
        .iter()
        .filter(|case| case.condition().is_bad())
        .collect();
    let mut findings: Vec<Finding> = bad
        .iter()
        .take(NAMED_MAX)
        .map(|case| of_case(case, lock_ttl_ms))
        .collect();
    if bad.len() > NAMED_MAX {
        let text = format!(
            "{} more transactions are in doubt or left over",
            bad.len() - NAMED_MAX
        );
        findings.push(Finding::new(Severity::Error, None, "more", text));
    }
    for (shard, holdings) in (0..).zip(&look.holdings) {
        let others = holdings.iter().flat_map(|holdings| &holdings.others);
        findings.extend(others.take(NAMED_MAX).map(|key| {
            let text = format!(
                "has a key of lockstep's prefix that is none of this version's: {}",
                render::printable(key)
            );
            Finding::warning(shard, "unknown-key", text)
        }));
    }
    findings
}

fn of_case(case: &Case, lock_ttl_ms: u64) -> Finding {
    let id = &case.id;
    let wrong: Vec<String> = case
        .sights
        .iter()
        .filter(|sight| case.is_wrong_on(sight.shard))
        .map(|sight| format!("shard {}: {}", sight.shard, render::sight(sight)))
        .collect();
    let (on, first) = (
        wrong.join("; "),
        case.sights.iter().find(|s| case.is_wrong_on(s.shard)),
    );
    let (code, text) = match case.condition() {
        Condition::Orphaned => (
            "orphaned",
            format!(
                "transaction {id} has left entries without a record ({on}); lockstep txn resolve {id} --forget"
            ),
        ),
        Condition::Contradicted => (
            "contradicted",
            format!(
                "transaction {id} is applied and aborted ({on}): a shard has lost data, or somebody wrote lockstep's keys; compare the data by hand"
            ),
        ),
        _ => (
            "in-doubt",
            format!(
                "transaction {id} is past its deadline and not settled, {} old ({on}); lockstep txn resolve {id}",
                render::span(case.age_ms(lock_ttl_ms).unwrap_or(0))
            ),
        ),
    };
    Finding::new(Severity::Error, first.map(|sight| sight.shard), code, text)
}

/// Whether all shards have the same shard map, where they have one.
async fn maps(engine: &Rc<Engine>) -> Option<Finding> {
    let text = map::map(engine).await.disagreement()?;
    Some(Finding::new(Severity::Error, None, "maps", text))
}

/// By how many milliseconds a shard's clock is ahead of this machine's.
async fn clock_offset_ms(engine: &Rc<Engine>, shard: u16) -> Option<i64> {
    let began = Instant::now();
    let time = look::command(engine, shard, &[b"TIME"]).await.ok()?;
    let half = began.elapsed() / 2;
    let here = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()?
        .saturating_sub(half);
    let parts: Vec<i64> = resp::elements(&time)
        .filter_map(resp::as_bulk)
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .collect();
    let [seconds, micros] = parts[..] else {
        return None;
    };
    Some(seconds * 1_000 + micros / 1_000 - here.as_millis() as i64)
}

impl Audit {
    /// P, see the module.
    pub fn consistency(&self) -> f64 {
        let sum: f64 = self.shares.iter().map(|share| share.x()).sum();
        sum / self.shares.len().max(1) as f64
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

impl Report for Audit {
    fn json(&self) -> Value {
        let shards = (0u16..).zip(&self.shares).map(|(shard, share)| {
            json!({
                "shard": shard,
                "address": self.addresses.get(usize::from(shard)),
                "x": share.x(),
                "answers": share.answers,
                "transactions": share.known,
                "unsettled": share.wrong,
                "running": share.running,
            })
        });
        json!({
            "p": self.consistency(),
            "good": self.is_good(),
            "shards": shards.collect::<Vec<_>>(),
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "truncated": self.is_cut,
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "P = {} over {} shards\n",
            self.consistency(),
            self.shares.len()
        );
        let mut rows = vec![
            [
                "SHARD",
                "ADDRESS",
                "X",
                "TRANSACTIONS",
                "UNSETTLED",
                "RUNNING",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for ((shard, share), address) in (0u16..).zip(&self.shares).zip(&self.addresses) {
            let numbers = [share.known, share.wrong, share.running].map(|n| n.to_string());
            let mut row = vec![shard.to_string(), address.clone(), share.x().to_string()];
            row.extend(numbers);
            rows.push(row);
        }
        text.push_str(&render::table(&rows));
        for finding in &self.findings {
            let shard = finding
                .shard
                .map_or(String::new(), |shard| format!("shard {shard}: "));
            text.push_str(&format!(
                "{}: {shard}{}\n",
                finding.severity.text(),
                finding.text
            ));
        }
        if self.is_cut {
            text.push_str("there is more than is looked at\n");
        }
        let count = |severity, one, more| render::counted(self.count(severity), one, more);
        text.push_str(&format!(
            "{}, {}, {}\n",
            count(Severity::Error, "error", "errors"),
            count(Severity::Warning, "warning", "warnings"),
            count(Severity::Note, "note", "notes"),
        ));
        text
    }

    fn is_good(&self) -> bool {
        self.count(Severity::Error) + self.count(Severity::Warning) == 0
            && self.shares.iter().all(|share| share.x() == 1.0)
    }
}
