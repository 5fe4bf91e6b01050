//! Looking at the shards: which transactions they know, and what they say of each.
//!
//! A look is no snapshot: transactions come and go meanwhile. What only seems to be left over is
//! looked at again before it is called so (see [`confirm`]).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures::future::{join_all, try_join, try_join3};

use super::sight::{Case, Found, Held, Seen, Sight};
use crate::backend::Failure;
use crate::engine::Engine;
use crate::resp::{self, build};
use crate::txn::script::{self, answer};
use crate::txn::{State, TxnId, names};

/// Entries of one index, or keys of ours, that are looked at per shard at most.
pub(super) const ENTRIES_MAX: usize = 200_000;
/// Transactions that are looked at in one report at most.
pub(super) const CASES_MAX: usize = 20_000;
/// Records that are asked for at once, per shard.
pub(super) const READ_AT_ONCE: usize = 256;
/// Hints for one step of SCAN and HSCAN.
const SCAN_COUNT: &[u8] = b"2000";
const HSCAN_COUNT: &[u8] = b"500";

/// Fields of a hash that name transactions; see [`names::INDEX`].
#[derive(Clone, Default, Debug)]
pub(super) struct Entries {
    /// By field: who holds it.
    pub owners: BTreeMap<Vec<u8>, TxnId>,
    /// Whether there are more than are looked at.
    pub is_cut: bool,
}

/// What one shard holds, not yet put together by transaction.
#[derive(Clone, Default, Debug)]
pub(super) struct Holdings {
    /// Entries of the index.
    pub index: Entries,
    /// Entries of the settling set.
    pub settling: Entries,
    /// Lock keys, by what they lock; empty if the keyspace was not searched.
    pub locks: Entries,
    /// Transactions with a record; empty if the keyspace was not searched.
    pub records: BTreeSet<TxnId>,
    /// Keys under our prefix that are none of those; bounded like everything here.
    pub others: Vec<Vec<u8>>,
}

impl Holdings {
    fn maps(&self) -> [&Entries; 3] {
        [&self.index, &self.settling, &self.locks]
    }

    /// Whether something was left out.
    pub(super) fn is_cut(&self) -> bool {
        self.maps().iter().any(|entries| entries.is_cut)
    }

    /// How many entries name each transaction.
    fn count(&self) -> BTreeMap<&TxnId, Held> {
        let mut counts = BTreeMap::<&TxnId, Held>::new();
        for id in self.index.owners.values() {
            counts.entry(id).or_default().index += 1;
        }
        for id in self.settling.owners.values() {
            counts.entry(id).or_default().settling += 1;
        }
        for id in self.locks.owners.values() {
            counts.entry(id).or_default().locks += 1;
        }
        counts
    }

    /// What this transaction holds: names, and how (see [`Held`]).
    pub(super) fn of(&self, id: &TxnId) -> BTreeMap<Vec<u8>, Held> {
        let mut found = BTreeMap::<Vec<u8>, Held>::new();
        let counters: [fn(&mut Held) -> &mut usize; 3] = [
            |held| &mut held.index,
            |held| &mut held.settling,
            |held| &mut held.locks,
        ];
        for (entries, counter) in self.maps().into_iter().zip(counters) {
            for (name, _) in entries.owners.iter().filter(|(_, owner)| *owner == id) {
                *counter(found.entry(name.clone()).or_default()) = 1;
            }
        }
        found
    }
}

/// How far a look goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Depth {
    /// The index and the settling set: everything that holds something and is not released.
    Index,
    /// All keys of the shard: markers, tombstones and lock keys too.
    Keyspace,
}

/// What all shards know.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// By shard; or why it gave no answer.
    pub holdings: Vec<Result<Holdings, String>>,
    /// By id. Only those of which something is there.
    pub cases: Vec<Case>,
    /// Whether there was more than is looked at.
    pub is_cut: bool,
}

/// Looks at all shards.
pub(super) async fn look(engine: &Rc<Engine>, depth: Depth) -> Look {
    let shards = 0..engine.shards();
    let holdings = join_all(shards.map(|shard| holdings(engine, shard, depth))).await;
    let mut ids = BTreeSet::new();
    for held in holdings.iter().flatten() {
        ids.extend(held.records.iter().cloned());
        ids.extend(held.count().into_keys().cloned());
    }
    let is_cut = ids.len() > CASES_MAX || holdings.iter().flatten().any(Holdings::is_cut);
    let ids: Vec<TxnId> = ids.into_iter().take(CASES_MAX).collect();
    let cases = cases(engine, &ids, &holdings).await;
    let mut look = Look {
        holdings,
        cases,
        is_cut,
    };
    confirm(engine, &mut look).await;
    look.cases
        .retain(|case| case.sights.iter().any(Sight::knows));
    look
}

/// Looks for one transaction on all shards, by its id alone.
pub(super) async fn case(engine: &Rc<Engine>, id: &TxnId) -> Case {
    let shards = 0..engine.shards();
    let seen = join_all(shards.map(|shard| sight(engine, shard, id))).await;
    Case {
        id: id.clone(),
        sights: seen,
    }
}

async fn cases(
    engine: &Rc<Engine>,
    ids: &[TxnId],
    holdings: &[Result<Holdings, String>],
) -> Vec<Case> {
    let by_shard = (0..engine.shards()).zip(holdings);
    let columns = join_all(by_shard.map(|(shard, held)| column(engine, shard, ids, held))).await;
    let mut cases: Vec<Case> = ids
        .iter()
        .map(|id| Case {
            id: id.clone(),
            sights: Vec::new(),
        })
        .collect();
    for column in columns {
        for (case, sight) in cases.iter_mut().zip(column) {
            case.sights.push(sight);
        }
    }
    cases
}

/// What one shard says of all of them.
async fn column(
    engine: &Rc<Engine>,
    shard: u16,
    ids: &[TxnId],
    holdings: &Result<Holdings, String>,
) -> Vec<Sight> {
    let mut sights = Vec::with_capacity(ids.len());
    let counts = match holdings {
        Ok(holdings) => holdings.count(),
        Err(why) => {
            let unreadable = Sight {
                shard,
                seen: Seen::Unreadable(why.clone()),
                held: Held::default(),
            };
            return vec![unreadable; ids.len()];
        }
    };
    for ids in ids.chunks(READ_AT_ONCE) {
        sights.extend(join_all(ids.iter().map(|id| sight(engine, shard, id))).await);
    }
    for (sight, id) in sights.iter_mut().zip(ids) {
        sight.held = counts.get(id).copied().unwrap_or_default();
    }
    sights
}

/// The record alone.
pub(super) async fn sight(engine: &Rc<Engine>, shard: u16, id: &TxnId) -> Sight {
    let seen = seen(engine, shard, id)
        .await
        .unwrap_or_else(Seen::Unreadable);
    Sight {
        shard,
        seen,
        held: Held::default(),
    }
}

async fn seen(engine: &Rc<Engine>, shard: u16, id: &TxnId) -> Result<Seen, String> {
    let record = names::record(id);
    // In this order: what is read later may be gone, and then it is released as well.
    let reading = ask(engine, shard, |out| script::append_read(out, id)).await?;
    let Some(record_read) = answer::record(&reading).map_err(|why| why.to_string())? else {
        return Ok(Seen::Absent);
    };
    let (length, expiry): ([&[u8]; 3], [&[u8]; 2]) =
        ([b"HSTRLEN", &record, b"keys"], [b"PTTL", &record]);
    let (keys, expires) = try_join(
        command(engine, shard, &length),
        command(engine, shard, &expiry),
    )
    .await?;
    let is_decided = record_read.state != State::Prepared;
    Ok(Seen::Found(Found {
        released: is_decided && resp::as_int(&keys) == Some(0),
        expires_ms: resp::as_int(&expires).and_then(|ms| u64::try_from(ms).ok()),
        record: record_read,
    }))
}

/// What is in the index was there before its record was read, so that a record which was gone by
/// then may have gone with its entries. Only entries that are still there afterwards are left
/// over: an id is never prepared twice.
async fn confirm(engine: &Rc<Engine>, look: &mut Look) {
    for case in &mut look.cases {
        for sight in case.sights.iter_mut().filter(|sight| sight.is_orphaned()) {
            let Some(Ok(holdings)) = look.holdings.get(usize::from(sight.shard)) else {
                continue;
            };
            sight.held = still_held(engine, sight.shard, &case.id, holdings).await;
        }
    }
}

async fn still_held(engine: &Rc<Engine>, shard: u16, id: &TxnId, holdings: &Holdings) -> Held {
    let mut held = Held::default();
    let before: Vec<(Vec<u8>, Held)> = holdings.of(id).into_iter().collect();
    for some in before.chunks(READ_AT_ONCE) {
        let again = some.iter().map(|(name, _)| holder(engine, shard, id, name));
        for (now, (_, before)) in join_all(again).await.into_iter().zip(some) {
            held.add(now.unwrap_or(*before));
        }
    }
    held
}

/// Which entries under this name are the transaction's.
pub(super) async fn holder(
    engine: &Rc<Engine>,
    shard: u16,
    id: &TxnId,
    name: &[u8],
) -> Result<Held, String> {
    let lock = names::lock(name);
    let index: [&[u8]; 3] = [b"HGET", names::INDEX, name];
    let settling: [&[u8]; 3] = [b"HGET", names::SETTLING, name];
    let lock: [&[u8]; 2] = [b"GET", &lock];
    let (index, settling, lock) = try_join3(
        command(engine, shard, &index),
        command(engine, shard, &settling),
        command(engine, shard, &lock),
    )
    .await?;
    let is_ours = |reply: &Bytes| usize::from(resp::as_bulk(reply) == Some(id.as_str().as_bytes()));
    Ok(Held {
        locks: is_ours(&lock),
        index: is_ours(&index),
        settling: is_ours(&settling),
    })
}

/// Everything one shard holds.
pub(super) async fn holdings(
    engine: &Rc<Engine>,
    shard: u16,
    depth: Depth,
) -> Result<Holdings, String> {
    let mut holdings = Holdings {
        index: entries(engine, shard, names::INDEX).await?,
        settling: entries(engine, shard, names::SETTLING).await?,
        ..Holdings::default()
    };
    if depth == Depth::Keyspace {
        search(engine, shard, &mut holdings).await?;
    }
    Ok(holdings)
}

/// All fields of the index or the settling set.
async fn entries(engine: &Rc<Engine>, shard: u16, name: &[u8]) -> Result<Entries, String> {
    let mut entries = Entries::default();
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let request: [&[u8]; 5] = [b"HSCAN", name, &cursor, b"COUNT", HSCAN_COUNT];
        let (next, page) = page(&command(engine, shard, &request).await?)?;
        for pair in page.chunks_exact(2) {
            entries.owners.insert(pair[0].clone(), id(&pair[1]));
        }
        entries.is_cut = entries.owners.len() > ENTRIES_MAX;
        if &next[..] == b"0" || entries.is_cut {
            return Ok(entries);
        }
        cursor = next;
    }
}

/// Goes over all keys of the shard.
async fn search(engine: &Rc<Engine>, shard: u16, into: &mut Holdings) -> Result<(), String> {
    let pattern = [names::PREFIX, b"*"].concat();
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let request: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", SCAN_COUNT];
        let (next, keys) = page(&command(engine, shard, &request).await?)?;
        let (locks, others): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .partition(|key| key.starts_with(names::LOCK));
        add_locks(engine, shard, &locks, &mut into.locks).await?;
        others.into_iter().for_each(|key| add(key, into));
        let found = into.locks.owners.len() + into.records.len() + into.others.len();
        if found > ENTRIES_MAX {
            into.locks.is_cut = true;
        }
        if &next[..] == b"0" || into.locks.is_cut {
            into.others.sort_unstable();
            into.others.dedup();
            return Ok(());
        }
        cursor = next;
    }
}

fn add(key: Vec<u8>, into: &mut Holdings) {
    match names::record_id(&key) {
        Some(id) => {
            into.records.insert(id);
        }
        None if names::FIXED.contains(&&key[..]) => {}
        None => into.others.push(key),
    }
}

async fn add_locks(
    engine: &Rc<Engine>,
    shard: u16,
    keys: &[Vec<u8>],
    into: &mut Entries,
) -> Result<(), String> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut request: Vec<&[u8]> = vec![b"MGET"];
    request.extend(keys.iter().map(Vec::as_slice));
    let owners = command(engine, shard, &request).await?;
    for (key, owner) in keys.iter().zip(resp::elements(&owners)) {
        if let (Some(locked), Some(owner)) = (key.strip_prefix(names::LOCK), resp::as_bulk(owner)) {
            into.owners.insert(locked.to_vec(), id(owner));
        }
    }
    Ok(())
}

/// The cursor and the elements of an answer to SCAN or HSCAN.
fn page(reply: &[u8]) -> Result<(Bytes, Vec<Vec<u8>>), String> {
    let mut parts = resp::elements(reply);
    let (Some(cursor), Some(found)) = (parts.next().and_then(resp::as_bulk), parts.next()) else {
        return Err("it does not answer SCAN as Redis does".into());
    };
    let found = resp::elements(found)
        .filter_map(resp::as_bulk)
        .map(<[u8]>::to_vec);
    Ok((Bytes::copy_from_slice(cursor), found.collect()))
}

fn id(text: &[u8]) -> TxnId {
    TxnId::new(String::from_utf8_lossy(text).into_owned())
}

/// A command to one shard; an error reply is an error.
pub(super) async fn command(
    engine: &Rc<Engine>,
    shard: u16,
    args: &[&[u8]],
) -> Result<Bytes, String> {
    ask(engine, shard, |out| build::command(out, args)).await
}

/// A request to one shard; an error reply is an error.
pub(super) async fn ask(
    engine: &Rc<Engine>,
    shard: u16,
    write: impl FnOnce(&mut BytesMut),
) -> Result<Bytes, String> {
    let mut request = BytesMut::new();
    write(&mut request);
    let reply = engine
        .query(shard, &request)
        .await
        .map_err(|failure| match failure {
            Failure::NeverSent(cause) | Failure::MaybeSent(cause) => cause.to_string(),
        })?;
    match resp::is_error(&reply) {
        true => Err(String::from_utf8_lossy(resp::error_text(&reply)).into_owned()),
        false => Ok(reply),
    }
}
