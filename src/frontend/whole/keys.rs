//! KEYS, DBSIZE and RANDOMKEY over all shards.

use bytes::{Bytes, BytesMut};

use super::scan::is_shown;
use super::{Inquiry, Replied, request};
use crate::engine::lanes::Links;
use crate::resp::{self, build};
use crate::txn::script;

/// Keys drawn from the shards until one is not ours.
const DRAWS_MAX: usize = 100;

impl Inquiry {
    pub(super) async fn keys(&self) -> Replied {
        let replies = self
            .context
            .engine
            .read_all(&self.links, &self.encoded())
            .await?;
        let keys = || replies.iter().flat_map(|reply| resp::elements(reply));
        let mut out = BytesMut::with_capacity(replies.iter().map(Bytes::len).sum());
        build::array_header(&mut out, keys().filter(|key| is_shown(key)).count());
        keys()
            .filter(|key| is_shown(key))
            .for_each(|key| out.extend_from_slice(key));
        Ok(out)
    }

    pub(super) async fn db_size(&self) -> Replied {
        let mut out = BytesMut::new();
        build::int(&mut out, resp::number::total(self.counts().await?));
        Ok(out)
    }

    /// The clients' keys of database 0; None if that cannot be told.
    pub(super) async fn counts_of_first(&self) -> Option<i64> {
        let links = self.context.engine.first_links();
        let counts = self.counts_of(&links, 0).await;
        counts.ok().map(resp::number::total)
    }

    async fn counts(&self) -> Result<Vec<i64>, BytesMut> {
        self.counts_of(&self.links, self.lane.db).await
    }

    /// By shard, the keys that are the clients'.
    async fn counts_of(&self, links: &Links, db: u16) -> Result<Vec<i64>, BytesMut> {
        // All that is ours is in database 0.
        let mut question = request([b"DBSIZE"]);
        if db == 0 {
            question.clear();
            script::append_count(&mut question);
        }
        let engine = &self.context.engine;
        let mut replies = engine.read_all(links, &question).await;
        if replies.as_ref().is_err_and(|error| is_noscript(error)) {
            engine.load_everywhere();
            replies = engine.read_all(links, &question).await;
        }
        let replies = replies?;
        let counts = replies.iter().map(|reply| resp::as_int(reply));
        Ok(counts.map(Option::unwrap_or_default).collect())
    }

    /// Of a shard by the weight of its keys, so that all keys of all shards have the same chance
    /// (as far as redis-server itself gives them the same). Nil only if there is no key at all.
    pub(super) async fn random_key(&self) -> Replied {
        let counts = self.counts().await?;
        for _ in 0..DRAWS_MAX {
            let Some(shard) = draw(&counts, crate::engine::random()) else {
                break;
            };
            let reply = self.draw_from(shard).await?;
            if resp::is_error(&reply) || (resp::as_bulk(&reply).is_some() && is_shown(&reply)) {
                return Ok(BytesMut::from(&reply[..]));
            }
        }
        self.any_key().await
    }

    async fn draw_from(&self, shard: u16) -> Result<Bytes, BytesMut> {
        let engine = &self.context.engine;
        engine.read_one(&self.links, shard, &self.encoded()).await
    }

    /// The first key that a search finds: where ours are many and the clients' are few.
    async fn any_key(&self) -> Replied {
        for shard in 0..self.context.topology.shards() as u16 {
            let mut cursor = Bytes::from_static(b"0");
            loop {
                let question = request([b"SCAN", &cursor[..], b"COUNT", b"1000"]);
                let engine = &self.context.engine;
                let reply = engine.read_one(&self.links, shard, &question).await?;
                if resp::is_error(&reply) {
                    return Ok(BytesMut::from(&reply[..]));
                }
                let mut parts = resp::elements(&reply);
                let next = parts.next().and_then(resp::as_bulk).unwrap_or(b"0");
                let mut keys = resp::elements(parts.next().unwrap_or_default());
                if let Some(key) = keys.find(|key| is_shown(key)) {
                    return Ok(BytesMut::from(key));
                }
                if next == b"0" {
                    break;
                }
                cursor = reply.slice_ref(next);
            }
        }
        let mut out = BytesMut::new();
        build::null_bulk(&mut out, self.lane.protocol);
        Ok(out)
    }
}

fn is_noscript(error: &[u8]) -> bool {
    resp::error_text(error).starts_with(b"NOSCRIPT")
}

/// A shard, each by the weight of its count; None if all are 0.
fn draw(counts: &[i64], random: u64) -> Option<u16> {
    let weights = counts.iter().map(|count| count.max(&0).unsigned_abs());
    let sum = weights.fold(0, u64::saturating_add);
    let mut ticket = random.checked_rem(sum)?;
    for (shard, count) in (0..).zip(counts) {
        let count = count.max(&0).unsigned_abs();
        if ticket < count {
            return Some(shard);
        }
        ticket -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_the_same_chance() {
        let counts = [2, 0, 3];
        let drawn: Vec<_> = (0..5).map(|random| draw(&counts, random)).collect();
        assert_eq!(drawn, [Some(0), Some(0), Some(2), Some(2), Some(2)]);
        assert_eq!(draw(&[0, 0], 7), None);
    }
}
