//! MSETNX: all keys, if none of them is there.

use bytes::Bytes;
use futures::future::join_all;

use super::trip::{Ended, Trip};
use super::{Spot, Tried};
use crate::engine::conditional::Guard;
use crate::resp;
use crate::txn::Part;
use crate::txn::condition::Condition;

/// Keys that one question names; a script cannot take any number.
const KEYS_ASKED_AT_ONCE: usize = 1_000;

/// Keys and their values.
#[derive(Clone, Debug)]
pub struct SetNew {
    /// Each key once.
    pub pairs: Vec<(Spot, Bytes)>,
}

impl SetNew {
    pub(super) async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        let Some(decider) = self.pairs.first().map(|(spot, _)| spot.part()) else {
            return Ok(Some(Bytes::from_static(b":0\r\n")));
        };
        let mut plan = trip.plan();
        for (spot, value) in &self.pairs {
            let words: [&[u8]; 4] = [b"SET", &spot.key, value, b"NX"];
            trip.add(&mut plan, spot, &words);
        }
        for part in self.parts() {
            let settles = match part == decider {
                // The condition is part of its apply.
                true => Vec::new(),
                false => self.on(part).map(|spot| spot.place.slot).collect(),
            };
            plan.require(part, self.none_is_there(trip, part), &settles);
        }
        match trip.commit(plan, Some(Guard::of_condition(decider))).await {
            Ended::Done(_) => Ok(Some(Bytes::from_static(b":1\r\n"))),
            Ended::Failed(error) => Ok(Some(error)),
            Ended::Broken => self.explain(trip).await,
        }
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.pairs.iter().map(|(spot, _)| spot.part()).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    fn on(&self, part: Part) -> impl Iterator<Item = &Spot> {
        let spots = self.pairs.iter().map(|(spot, _)| spot);
        spots.filter(move |spot| spot.part() == part)
    }

    fn none_is_there(&self, trip: &Trip<'_>, part: Part) -> Condition {
        let keys: Vec<&[u8]> = self.on(part).map(|spot| &spot.key[..]).collect();
        let none = Condition::new(trip.db());
        keys.chunks(KEYS_ASKED_AT_ONCE).fold(none, |none, keys| {
            let words: Vec<&[u8]> = [&[&b"EXISTS"[..]], keys].concat();
            none.and(&words, &[b"0"])
        })
    }

    /// Whether one of them is there, which is all that the reply says.
    async fn explain(&self, trip: &Trip<'_>) -> Tried {
        let looks = self.pairs.iter().map(|(spot, _)| async move {
            let words: [&[u8]; 2] = [b"EXISTS", &spot.key];
            trip.read(spot, &words).await
        });
        for look in join_all(looks).await {
            if resp::as_int(&look?) == Some(1) {
                return Ok(Some(Bytes::from_static(b":0\r\n")));
            }
        }
        Ok(None)
    }
}
