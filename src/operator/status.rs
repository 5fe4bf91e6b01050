//! What became of a transaction: for applications that got an error with its id.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::look;
use super::render::Report;
use super::sight::Fate;
use crate::engine::Engine;
use crate::engine::recover::{Deadline, NotBegun};
use crate::txn::TxnId;

/// How often a transaction that should be settled by now is looked at.
const LOOKS_MAX: usize = 20;
/// Pause between two looks, while somebody else is recovering it.
const PAUSE: Duration = Duration::from_millis(50);

/// What can be said of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It is or will be applied as a whole.
    Committed,
    /// Nothing of it was or will be applied.
    Aborted,
    /// Not decided yet.
    Pending,
    /// No shard has a record of it. It may be decided and forgotten since (records are kept for
    /// `decision-retention-ms` where somebody may ask), or it may never have been.
    Unknown,
}

impl Status {
    /// As it stands in the reply.
    pub fn text(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        }
    }
}

/// Asks the shards; a transaction that is past its deadline is recovered first.
///
/// # Errors
/// A text that names the shard which would tell and does not answer.
pub async fn status(engine: &Rc<Engine>, id: &TxnId) -> Result<Status, String> {
    for _ in 0..LOOKS_MAX {
        let case = look::case(engine, id).await;
        match case.fate() {
            Fate::Committed => return Ok(Status::Committed),
            Fate::Aborted => return Ok(Status::Aborted),
            Fate::Unknown => return Ok(Status::Unknown),
            Fate::Pending => return Ok(Status::Pending),
            Fate::Blind(shard) => return Err(blind(engine, shard, &case.sights)),
            Fate::Recoverable(part) => {
                let settled = engine.settle(part, id.clone(), Deadline::Respected).await;
                if matches!(settled, Err(NotBegun::Malformed)) {
                    return Err(format!(
                        "the record of transaction {id} on shard {} is of another shard map",
                        engine.address(part.shard)
                    ));
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Status::Pending)
}

fn blind(engine: &Engine, shard: u16, sights: &[super::sight::Sight]) -> String {
    let why = sights.iter().find_map(|sight| match &sight.seen {
        super::sight::Seen::Unreadable(why) if sight.shard == shard => Some(why.as_str()),
        _ => None,
    });
    format!(
        "the outcome cannot be told without shard {}: {}",
        engine.address(shard),
        why.unwrap_or("no answer")
    )
}

/// A [`Status`], or why there is none, as a report.
#[derive(Clone, Debug)]
pub struct Told {
    id: TxnId,
    status: Result<Status, String>,
}

/// The same as [`status`], as a report.
pub async fn told(engine: &Rc<Engine>, id: &TxnId) -> Told {
    let status = status(engine, id).await;
    Told {
        id: id.clone(),
        status,
    }
}

impl Report for Told {
    fn json(&self) -> Value {
        json!({
            "id": self.id.as_str(),
            "status": self.status.as_ref().ok().map(|status| status.text()),
            "error": self.status.as_ref().err(),
        })
    }

    fn text(&self) -> String {
        match &self.status {
            Ok(status) => format!("{}\n", status.text()),
            Err(why) => format!("{why}\n"),
        }
    }

    fn is_good(&self) -> bool {
        self.status.is_ok()
    }
}
