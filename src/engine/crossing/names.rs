//! A value under another name: RENAME, RENAMENX, COPY.

use bytes::Bytes;

use super::trip::{Ended, Trip};
use super::values::Fetched;
use super::{Spot, Tried};
use crate::backend::Failure;
use crate::resp;
use crate::txn::condition::Condition;

const NO_SUCH_KEY: &[u8] = b"-ERR no such key\r\n";
const NO: &[u8] = b":0\r\n";

/// What is there already under the new name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// It is replaced.
    Replaced,
    /// It stays, and nothing is done.
    Kept,
}

/// RENAME, RENAMENX.
#[derive(Clone, Debug)]
pub struct Rename {
    /// The present name.
    pub from: Spot,
    /// The new one.
    pub to: Spot,
    /// Whether the new name may be in use.
    pub before: Before,
}

impl Rename {
    pub(super) async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        let (fetched, words) = match written(trip, &self.from, &self.to, self.before).await? {
            Ok(known) => known,
            Err(None) => return Ok(Some(Bytes::from_static(NO_SUCH_KEY))),
            Err(reply) => return Ok(reply),
        };
        let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let mut plan = trip.plan();
        trip.add(&mut plan, &self.from, &[b"UNLINK", &self.from.key]);
        let reply = match self.before {
            Before::Replaced => &b"+OK\r\n"[..],
            Before::Kept => &b":1\r\n"[..],
        };
        trip.add(&mut plan, &self.to, &words);
        if self.before == Before::Kept {
            let free = is_free(trip.db(), &self.to);
            plan.require(self.to.part(), free, &[self.to.place.slot]);
        }
        match trip.commit_fetched(plan, &fetched).await {
            Ended::Done(replies) => Ok(Some(outcome(&replies, 1, reply))),
            Ended::Failed(error) => Ok(Some(error)),
            Ended::Broken if self.before == Before::Kept => self.explain(trip).await,
            Ended::Broken => Ok(None),
        }
    }

    /// Whether it is the new name that stands in the way.
    async fn explain(&self, trip: &Trip<'_>) -> Tried {
        let exists = |spot: &Spot| [Bytes::from_static(b"EXISTS"), spot.key.clone()];
        let (from, to) = (exists(&self.from), exists(&self.to));
        let to: Vec<&[u8]> = to.iter().map(|word| &word[..]).collect();
        if resp::as_int(&trip.read(&self.to, &to).await?) == Some(0) {
            return Ok(None);
        }
        let from: Vec<&[u8]> = from.iter().map(|word| &word[..]).collect();
        let reads = [(&self.from, &from[..]), (&self.to, &to[..])];
        Ok(match trip.read_together(&reads).await {
            Err(error) => Some(error),
            Ok(replies) => match &replies[..] {
                [from, _] if resp::as_int(from) == Some(0) => Some(Bytes::from_static(NO_SUCH_KEY)),
                [_, to] if resp::as_int(to) == Some(1) => Some(Bytes::from_static(NO)),
                _ => None,
            },
        })
    }
}

/// COPY.
#[derive(Clone, Debug)]
pub struct Duplicate {
    /// What is copied.
    pub from: Spot,
    /// The copy.
    pub to: Spot,
    /// The copy's database.
    pub db: u16,
    /// Whether its name may be in use.
    pub before: Before,
}

impl Duplicate {
    pub(super) async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        let (fetched, words) = match written(trip, &self.from, &self.to, self.before).await? {
            Ok(known) => known,
            Err(None) => return Ok(Some(Bytes::from_static(NO))),
            Err(reply) => return Ok(reply),
        };
        let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let mut plan = trip.plan();
        trip.add_in(&mut plan, self.db, &self.to, &words);
        if self.before == Before::Kept {
            let free = is_free(self.db, &self.to);
            plan.require(self.to.part(), free, &[self.to.place.slot]);
        }
        match trip.commit_fetched(plan, &fetched).await {
            Ended::Done(replies) => Ok(Some(outcome(&replies, 0, b":1\r\n"))),
            Ended::Failed(error) => Ok(Some(error)),
            // With the name in use the reply is the same, whatever there is to copy.
            Ended::Broken if self.before == Before::Kept && self.is_taken(trip).await? => {
                Ok(Some(Bytes::from_static(NO)))
            }
            Ended::Broken => Ok(None),
        }
    }

    async fn is_taken(&self, trip: &Trip<'_>) -> Result<bool, Failure> {
        let mut plan = trip.plan();
        trip.add_in(&mut plan, self.db, &self.to, &[b"EXISTS", &self.to.key]);
        Ok(match trip.commit(plan, None).await {
            Ended::Done(replies) => replies.first().and_then(|r| resp::as_int(r)) == Some(1),
            _ => false,
        })
    }
}

/// The value under the one name, and the command that writes it under the other.
///
/// As an error: the reply that there is instead; None when there is no such value.
async fn written(
    trip: &Trip<'_>,
    from: &Spot,
    to: &Spot,
    before: Before,
) -> Result<Result<(Fetched, Vec<Bytes>), Option<Bytes>>, Failure> {
    let fetched = match trip.fetch(&[from]).await? {
        Ok(fetched) => fetched,
        Err(reply) => return Ok(Err(Some(reply))),
    };
    let [Some(value)] = &fetched.values[..] else {
        fetched.leave();
        return Ok(Err(None));
    };
    if let Some(error) = trip.unreadable(to.place.shard, &fetched.values).await? {
        fetched.leave();
        return Ok(Err(Some(error)));
    }
    let mut words = vec![
        Bytes::from_static(b"RESTORE"),
        to.key.clone(),
        value.expires.clone(),
        value.payload.clone(),
        Bytes::from_static(b"ABSTTL"),
    ];
    if before == Before::Replaced {
        words.push(Bytes::from_static(b"REPLACE"));
    }
    Ok(Ok((fetched, words)))
}

fn is_free(db: u16, spot: &Spot) -> Condition {
    Condition::new(db).and(&[b"EXISTS", &spot.key], &[b"0"])
}

/// The reply to a transaction whose command of this number writes the value. A plain command that
/// has taken the name in the last moment counts as coming behind.
fn outcome(replies: &[Bytes], written: usize, reply: &'static [u8]) -> Bytes {
    match replies.get(written) {
        Some(error) if resp::is_error(error) && !error.starts_with(b"-BUSYKEY") => error.clone(),
        _ => Bytes::from_static(reply),
    }
}
