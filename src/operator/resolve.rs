//! Settling one transaction on an operator's word.
//!
//! Nothing here decides: the production recoverer does, by its rules, and an operator can only
//! let it or not. `--commit` and `--abort` say which outcome is wanted, and refuse when the rules
//! lead to the other one; there is no way to tear a transaction.
//!
//! * A record that says *applied*, or all participants *prepared* under the implicit rule: it is
//!   committed, perhaps somebody is applying it at this moment; it cannot be aborted.
//! * A record that says *aborted* (a tombstone too): it cannot be committed. Nor can one with a
//!   participant that has no record: that one's commands are stored nowhere.
//! * Before its deadline nothing is done but with `force`: its coordinator may be at it, and one
//!   that commits in good time deletes its records outright, which must not be read as absence.

use std::rc::Rc;

use serde_json::{Value, json};

use super::forecast::{Forecast, Step, start_of};
use super::forget::{self, Dropped};
use super::list::sight_json;
use super::look;
use super::render::{self, Report};
use super::sight::{Case, Condition, Held, Seen};
use crate::engine::Engine;
use crate::engine::recover::{Deadline, NotBegun};
use crate::txn::script::{self, answer};
use crate::txn::{Aborted, Ending, Part, TxnId};

/// To conclude anything from the wrong shards would be to tear it.
const OTHER_MAP: &str = "its participants are not in this shard map: give the shards of the \
                         lockstep that began it, all of them and in the same order";

/// What an operator wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Whatever the rules say.
    Finish,
    /// A commit, or nothing.
    Commit,
    /// An abort, or nothing.
    Abort,
    /// That entries without records are dropped.
    Forget,
}

/// How a transaction is to be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// The outcome.
    pub wish: Wish,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Do not wait for the deadline: its coordinator is gone for good.
    pub force: bool,
}

/// What came of an order.
#[derive(Clone, Debug)]
pub struct Resolution {
    id: TxnId,
    dry_run: bool,
    before: Case,
    steps: Vec<(u16, String)>,
    /// How it ended, or would; or why nothing is done.
    verdict: Result<String, String>,
    after: Option<Case>,
    addresses: Vec<String>,
}

/// Resolves one transaction.
pub async fn resolve(engine: &Rc<Engine>, id: &TxnId, order: Order) -> Resolution {
    let mut this = Resolution {
        id: id.clone(),
        dry_run: order.dry_run,
        before: look::case(engine, id).await,
        steps: Vec::new(),
        verdict: Ok(String::new()),
        after: None,
        addresses: (0..engine.shards())
            .map(|shard| engine.address(shard).to_owned())
            .collect(),
    };
    if let Some(why) = super::map::map(engine).await.disagreement() {
        this.verdict = Err(why);
        return this;
    }
    this.verdict = match order.wish {
        Wish::Forget => this.forget(engine, order).await,
        Wish::Finish | Wish::Commit | Wish::Abort => this.finish(engine, order).await,
    };
    if !order.dry_run && (this.verdict.is_ok() || !this.steps.is_empty()) {
        this.after = Some(look::case(engine, id).await);
    }
    this
}

impl Resolution {
    fn address(&self, shard: u16) -> &str {
        self.addresses
            .get(usize::from(shard))
            .map_or("?", String::as_str)
    }

    async fn finish(&mut self, engine: &Rc<Engine>, order: Order) -> Result<String, String> {
        let condition = self.before.condition();
        if let Some(done) = self.nothing_to_do(condition, order.wish) {
            return done;
        }
        if self.before.is_of_another_map() {
            return Err(OTHER_MAP.into());
        }
        let limits = engine.times().limits;
        let forecast = Forecast::of(&self.before, &limits, order.force);
        let ending = self.allowed(forecast, order.wish)?;
        if order.dry_run {
            return Ok(format!("would be {}", outcome(&ending)));
        }
        if order.wish == Wish::Abort {
            self.bury(engine).await?;
        }
        let from = start_of(&self.before).ok_or("nothing is left to start from")?;
        let deadline = if order.force {
            Deadline::Ignored
        } else {
            Deadline::Respected
        };
        let settled = engine.settle(from, self.id.clone(), deadline).await;
        self.ended(settled, order.wish)
    }

    /// What needs no recovery.
    fn nothing_to_do(&self, condition: Condition, wish: Wish) -> Option<Result<String, String>> {
        if let Some(shard) = self.before.blind() {
            return Some(Err(format!(
                "shard {} takes part, or may, and gives no answer: nothing can be concluded without it",
                self.address(shard)
            )));
        }
        let is = |outcome: &str| Some(Ok(format!("is {outcome} already; nothing to do")));
        let refused = |why: &str| Some(Err(why.to_owned()));
        match (condition, wish) {
            (Condition::Running | Condition::InDoubt, _) => None,
            (Condition::Contradicted, _) => refused(
                "it is applied on one shard and aborted on another: a shard has lost data, or somebody wrote lockstep's keys; compare the data by hand",
            ),
            (Condition::Committed, Wish::Abort) => refused("it is committed already"),
            (Condition::Aborted, Wish::Commit) => refused("it is aborted already"),
            (Condition::Committed, _) => is("committed"),
            (Condition::Aborted, _) => is("aborted"),
            (Condition::Orphaned | Condition::Unknown, _) => refused(
                "no shard has a record of it that is not settled; what it may have left behind is dropped with --forget",
            ),
        }
    }

    /// The ending that recovery leads to, if it is the one wanted.
    fn allowed(&mut self, forecast: Forecast, wish: Wish) -> Result<Ending, String> {
        let (commits, aborts) = (forecast.is_commit(), forecast.is_abort());
        match forecast {
            Forecast::Early(ms) => Err(format!(
                "its deadline is in {}: its coordinator may be at it; wait, or say --force if that process is gone for good",
                render::span(ms)
            )),
            Forecast::Blind(part) => Err(format!(
                "shard {} gives no answer: nothing can be concluded without it",
                self.address(part.shard)
            )),
            Forecast::Malformed => Err(OTHER_MAP.into()),
            Forecast::Nothing => Err("nothing is left to start from".into()),
            Forecast::Ends(..) if wish == Wish::Commit && !commits => Err(
                "it is not committed: a participant has no record, or is aborted, or its WATCH decides; what it should run is stored nowhere, so to commit would tear it".into(),
            ),
            Forecast::Ends(..) if wish == Wish::Abort && !aborts => Err(
                "it is committed: all its participants are prepared, or one has applied; to abort would tear it".into(),
            ),
            Forecast::Ends(ending, steps) => {
                let steps = steps.into_iter().map(|(part, step)| (part.shard, step.text().into()));
                self.steps = steps.collect();
                Ok(ending)
            }
        }
    }

    /// Makes sure that an abort is what recovery finds: until now, a late prepare could still
    /// have made a commit of it.
    async fn bury(&mut self, engine: &Rc<Engine>) -> Result<(), String> {
        let tombstones = self
            .steps
            .iter()
            .filter(|(_, step)| step == Step::Tombstone.text());
        let absent: Vec<u16> = tombstones.map(|(shard, _)| *shard).collect();
        let times = engine.times();
        let deadlines = self.before.sights.iter().filter_map(|sight| sight.found());
        let deadline_ms = deadlines
            .map(|found| found.record.deadline_ms)
            .max()
            .unwrap_or(0);
        let mut answers = Vec::new();
        for shard in absent {
            let tombstone = script::Tombstone {
                id: &self.id,
                retention_ms: times.retention.as_millis() as u64,
                not_after_ms: deadline_ms.saturating_add(times.limits.window_ms),
            };
            let reply = look::ask(engine, shard, |out| tombstone.append(out)).await?;
            answers.push(answer::aborted(&reply));
        }
        // One that can never be prepared is enough.
        let is_final = |answer: &Aborted| matches!(answer, Aborted::Done | Aborted::Late);
        match answers.is_empty() || answers.iter().any(is_final) {
            true => Ok(()),
            false => Err("it is committed: meanwhile all its participants are prepared".into()),
        }
    }

    /// What the recovery says, held against what was wanted.
    fn ended(&self, settled: Result<Ending, NotBegun>, wish: Wish) -> Result<String, String> {
        let ending = settled.map_err(|why| match why {
            NotBegun::Busy => "this process is recovering it at this moment".to_owned(),
            NotBegun::Unreadable => "its record can no longer be read".to_owned(),
            NotBegun::Nothing => "somebody else has settled it meanwhile".to_owned(),
            NotBegun::Early(ms) => format!("its deadline is in {}", render::span(ms)),
            NotBegun::Malformed => "its record is of another shard map".to_owned(),
        })?;
        let text = outcome(&ending);
        let is_wanted = match (&ending, wish) {
            (Ending::Committed { left } | Ending::Aborted { left }, _) if !left.is_empty() => false,
            (Ending::Committed { .. }, wish) => wish != Wish::Abort,
            (Ending::Aborted { .. }, wish) => wish != Wish::Commit,
            (Ending::Nothing, _) => true,
            (Ending::InDoubt { .. } | Ending::Contradiction(_), _) => false,
        };
        match is_wanted {
            true => Ok(text),
            false => Err(text),
        }
    }

    async fn forget(&mut self, engine: &Rc<Engine>, order: Order) -> Result<String, String> {
        for sight in &self.before.sights {
            if let Seen::Unreadable(why) = &sight.seen {
                return Err(format!(
                    "shard {} gives no answer, and may have a record: {why}",
                    self.address(sight.shard)
                ));
            }
        }
        if let Some(sight) = self.before.sights.iter().find(|sight| sight.is_unsettled()) {
            return Err(format!(
                "shard {} has a record of it, {}: resolve it without --forget",
                self.address(sight.shard),
                render::sight(sight)
            ));
        }
        let found = forget::find(engine, &self.id).await;
        let found =
            found.map_err(|(shard, why)| format!("shard {}: {why}", self.address(shard)))?;
        let mut all = Held::default();
        for on_shard in found {
            let dropped = match order.dry_run {
                true => on_shard,
                false => {
                    let shard = on_shard.shard;
                    let dropped = forget::drop_all(engine, &self.id, on_shard).await;
                    dropped.map_err(|why| format!("shard {}: {why}", self.address(shard)))?
                }
            };
            all.add(dropped.held);
            self.note(&dropped);
        }
        Ok(match (all.is_nothing(), order.dry_run) {
            (true, _) => "nothing is left of it; nothing to do".to_owned(),
            (false, true) => format!("would drop {}", render::held(all)),
            (false, false) => format!("dropped {}", render::held(all)),
        })
    }

    fn note(&mut self, dropped: &Dropped) {
        for (name, held) in &dropped.names {
            let step = format!("drop {} ({})", render::printable(name), render::held(*held));
            self.steps.push((dropped.shard, step));
        }
    }
}

fn outcome(ending: &Ending) -> String {
    let shards = |parts: &[Part]| {
        let numbers: Vec<String> = parts.iter().map(|part| part.shard.to_string()).collect();
        numbers.join(", ")
    };
    match ending {
        Ending::Committed { left } if left.is_empty() => "committed".to_owned(),
        Ending::Aborted { left } if left.is_empty() => "aborted".to_owned(),
        Ending::Committed { left } => {
            format!(
                "committed, but not finished on shard {}; try again",
                shards(left)
            )
        }
        Ending::Aborted { left } => {
            format!(
                "aborted, but not finished on shard {}; try again",
                shards(left)
            )
        }
        Ending::Nothing => "settled by somebody else meanwhile".to_owned(),
        Ending::InDoubt { unreachable } => {
            format!(
                "still in doubt: no answer from shard {}; try again",
                shards(unreachable)
            )
        }
        Ending::Contradiction(part) => format!(
            "contradicted by its record on shard {}: a shard has lost data, or somebody wrote lockstep's keys",
            part.shard
        ),
    }
}

impl Report for Resolution {
    fn json(&self) -> Value {
        let steps = self
            .steps
            .iter()
            .map(|(shard, step)| json!({"shard": shard, "step": step}));
        let sights = |case: &Case| -> Vec<Value> {
            let sights = case
                .sights
                .iter()
                .filter(|s| case.concerns(s.shard) || s.knows());
            sights.map(|s| sight_json(s, &self.addresses)).collect()
        };
        json!({
            "id": self.id.as_str(),
            "dry-run": self.dry_run,
            "done": self.verdict.is_ok() && !self.dry_run,
            "outcome": self.verdict.as_ref().ok(),
            "refused": self.verdict.as_ref().err(),
            "steps": steps.collect::<Vec<_>>(),
            "before": sights(&self.before),
            "after": self.after.as_ref().map(sights),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let intro = match (self.dry_run, &self.verdict) {
            (true, _) => "would ",
            (false, Ok(_)) => "",
            (false, Err(_)) => "was to ",
        };
        for (shard, step) in &self.steps {
            text.push_str(&format!(
                "shard {shard} ({}): {intro}{step}\n",
                self.address(*shard)
            ));
        }
        let (word, verdict) = match &self.verdict {
            Ok(verdict) => ("", verdict),
            Err(why) => ("not resolved: ", why),
        };
        text.push_str(&format!("{}: {word}{verdict}\n", self.id));
        text
    }

    fn is_good(&self) -> bool {
        self.verdict.is_ok()
    }
}

/// An error reply for a refusal; nothing for a report that can be given as it is.
pub fn refusal(resolution: &Resolution) -> Option<String> {
    let why = resolution.verdict.as_ref().err()?;
    Some(format!("ERR transaction {}: {why}", resolution.id))
}
