//! Commands that read keys of several shards and have their result on one, or nowhere: SINTERSTORE,
//! ZUNIONSTORE, BITOP, PFMERGE, SORT … STORE, SINTER, LCS and their kin.
//!
//! The command runs as it is, on the shard of what it writes (or of most of its keys). The values
//! of keys that are elsewhere, the *foreign* ones, are read under a WATCH and stand there under
//! names of ours for as long as the command takes: RESTORE, the command, DEL are one atomic step,
//! so nobody ever sees them. So types, errors and replies are those of Redis itself. Foreign keys
//! are only watched: a plain write to one, after its shard has agreed, is held until the end and
//! counts as coming behind.

use bytes::Bytes;

use super::trip::{Ended, Trip};
use super::{Spot, Tried};
use crate::resp::build;
use crate::txn::Part;
use crate::txn::names;

/// See the module.
#[derive(Clone, Debug)]
pub struct Gather {
    /// The command, its name first.
    pub args: Vec<Bytes>,
    /// The numbers of its arguments that are keys, and the keys.
    pub keys: Vec<(usize, Spot)>,
    /// Where it runs.
    pub home: u16,
}

impl Gather {
    fn foreign(&self) -> Vec<&(usize, Spot)> {
        let keys = self.keys.iter();
        keys.filter(|(_, spot)| spot.place.shard != self.home)
            .collect()
    }

    pub(super) async fn attempt(&self, trip: &Trip<'_>) -> Tried {
        let foreign = self.foreign();
        let spots: Vec<&Spot> = foreign.iter().map(|(_, spot)| spot).collect();
        let fetched = match trip.fetch(&spots).await? {
            Ok(fetched) => fetched,
            Err(reply) => return Ok(Some(reply)),
        };
        if let Some(error) = trip.unreadable(self.home, &fetched.values).await? {
            fetched.leave();
            return Ok(Some(error));
        }
        let mut plan = trip.plan_for_client();
        let place = Part {
            shard: self.home,
            db: trip.db(),
        };
        let (mut args, mut gathered) = (self.args.clone(), Vec::new());
        for ((at, _), value) in foreign.iter().zip(&fetched.values) {
            let name = Bytes::from([names::GATHERED, at.to_string().as_bytes()].concat());
            if let Some(value) = value {
                // Without an expiry: what has expired meanwhile was there when it was read.
                let words: [&[u8]; 4] = [b"RESTORE", &name, b"0", &value.payload];
                trip.add_words(&mut plan, place, &words, &[]);
                gathered.push(name.clone());
            }
            if let Some(arg) = args.get_mut(*at) {
                *arg = name;
            }
        }
        let words: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
        let at_home = self
            .keys
            .iter()
            .filter(|(_, spot)| spot.place.shard == self.home);
        let at_home: Vec<usize> = at_home.map(|(at, _)| *at).collect();
        trip.add_words(&mut plan, place, &words, &at_home);
        if !gathered.is_empty() {
            let mut words: Vec<&[u8]> = vec![b"DEL"];
            words.extend(gathered.iter().map(|name| &name[..]));
            trip.add_words(&mut plan, place, &words, &[]);
        }
        Ok(match trip.commit_fetched(plan, &fetched).await {
            Ended::Done(replies) => replies.get(gathered.len()).cloned(),
            Ended::Failed(error) => Some(error),
            Ended::Broken => None,
        })
    }
}

/// More than that is not carried from shard to shard for one command.
pub(super) fn gather_limit(max: usize) -> Bytes {
    let mut out = bytes::BytesMut::new();
    build::error(
        &mut out,
        format!(
            "ERR its values on other shards are bigger than gather-bytes-max ({max} bytes); nothing was applied: give the keys one hash tag, as in {{tag}}key"
        ),
    );
    out.freeze()
}
