//! Dropping what is left of a transaction whose records are gone.

use std::rc::Rc;

use futures::future::join_all;

use super::look::{self, Depth};
use super::sight::Held;
use crate::engine::Engine;
use crate::resp;
use crate::txn::{TxnId, names};

/// Called by its text: it is too rare to be loaded everywhere.
const SCRIPT: &str = include_str!("forget.lua");
/// Names given to the script at once.
const NAMES_AT_ONCE: usize = 1_000;

/// What was, or would be, dropped on one shard.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    pub shard: u16,
    /// By name: how it was held.
    pub names: Vec<(Vec<u8>, Held)>,
    /// How many of each kind went; of a dry run: how many would.
    pub held: Held,
}

/// Everything that is held in this transaction's name, on every shard.
///
/// # Errors
/// A shard that gives no answer, by its number.
pub(super) async fn find(engine: &Rc<Engine>, id: &TxnId) -> Result<Vec<Dropped>, (u16, String)> {
    let shards = 0..engine.shards();
    let looks = join_all(shards.map(|shard| look::holdings(engine, shard, Depth::Keyspace))).await;
    let mut found = Vec::new();
    for (shard, holdings) in (0..).zip(looks) {
        let holdings = holdings.map_err(|why| (shard, why))?;
        let names: Vec<(Vec<u8>, Held)> = holdings.of(id).into_iter().collect();
        let mut held = Held::default();
        names.iter().for_each(|(_, of_name)| held.add(*of_name));
        found.push(Dropped { shard, names, held });
    }
    Ok(found)
}

/// Drops what [`find`] found on one shard, unless a record speaks for it by now.
///
/// # Errors
/// What the shard says.
pub(super) async fn drop_all(
    engine: &Rc<Engine>,
    id: &TxnId,
    found: Dropped,
) -> Result<Dropped, String> {
    let mut held = Held::default();
    for some in found.names.chunks(NAMES_AT_ONCE) {
        held.add(drop_some(engine, id, found.shard, some).await?);
    }
    Ok(Dropped { held, ..found })
}

async fn drop_some(
    engine: &Rc<Engine>,
    id: &TxnId,
    shard: u16,
    names: &[(Vec<u8>, Held)],
) -> Result<Held, String> {
    let record = names::record(id);
    let mut request: Vec<&[u8]> = vec![
        b"EVAL",
        SCRIPT.as_bytes(),
        b"1",
        &record,
        id.as_str().as_bytes(),
    ];
    request.extend(names.iter().map(|(name, _)| name.as_slice()));
    let reply = look::command(engine, shard, &request).await?;
    let counts: Vec<usize> = resp::elements(&reply)
        .filter_map(resp::as_int)
        .filter_map(|count| usize::try_from(count).ok())
        .collect();
    match (&counts[..], resp::as_bulk(&reply)) {
        ([locks, index, settling], _) => Ok(Held {
            locks: *locks,
            index: *index,
            settling: *settling,
        }),
        (_, Some(state)) => Err(format!(
            "there is a record now, {}: resolve it",
            state.escape_ascii()
        )),
        _ => Err("it does not answer as Redis does".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_spells_every_name_right() {
        let known = [names::LOCK, names::INDEX, names::SETTLING, names::RELEASED];
        for quoted in SCRIPT.split('\'').filter(|text| text.starts_with("__")) {
            assert!(known.contains(&quoted.as_bytes()), "{quoted}");
        }
    }
}
