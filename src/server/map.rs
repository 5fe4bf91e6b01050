//! The shard map, as the shards note it: checked before anything is served, noted where it is not.

use bytes::{Bytes, BytesMut};

use super::StartError;
use super::discover::{dialogue, until_done};
use crate::config::{Address, Config};
use crate::engine::random_id;
use crate::keyspace::membership::{Membership, agreed};
use crate::readiness::Readiness;
use crate::resp::{self, build};
use crate::shutdown::Shutdown;
use crate::txn::names;

/// Makes sure that the shards, in the order of the settings, are those of one map; its id. Waits
/// for shards that give no answer.
///
/// A shard without a note gets one: it is new, or has lost its data. Of all who start at the same
/// time with the same settings, whoever is first at the first shard names the map. Shards that are
/// `missing` are not asked if another notes a map: each of their connections is checked by it.
///
/// # Errors
/// [`StartError::Shard`] when they are not, [`StartError::Stopped`].
pub(super) async fn claim(
    config: &Config,
    readiness: &Readiness,
    shutdown: &Shutdown,
    missing: &[Address],
) -> Result<String, StartError> {
    let mut claim = Claim {
        missing,
        config,
        readiness,
        shutdown,
    };
    let fresh = random_id();
    loop {
        let notes = claim.notes().await?;
        let known = claim.agreed(&notes)?;
        match known {
            Some(map) if claim.is_noted(&notes) => return Ok(map),
            None if !claim.missing.is_empty() => {
                tracing::warn!(
                    "no shard that answers notes the shard map: waiting for all of them"
                );
                claim.missing = &[];
            }
            known => {
                claim
                    .note(&notes, &known.unwrap_or_else(|| fresh.clone()))
                    .await?
            }
        }
    }
}

struct Claim<'a> {
    /// Not asked.
    missing: &'a [Address],
    config: &'a Config,
    readiness: &'a Readiness,
    shutdown: &'a Shutdown,
}

impl Claim<'_> {
    /// By shard.
    async fn notes(&self) -> Result<Vec<Option<String>>, StartError> {
        let mut notes = Vec::new();
        for address in &self.config.shards {
            if self.missing.contains(address) {
                notes.push(None);
                continue;
            }
            let reply = self.ask(address, &[b"GET", names::MAP]).await?;
            let note = resp::as_bulk(&reply);
            notes.push(note.map(|note| String::from_utf8_lossy(note).into_owned()));
        }
        Ok(notes)
    }

    /// By all that were asked.
    fn is_noted(&self, notes: &[Option<String>]) -> bool {
        let mut shards = self.config.shards.iter().zip(notes);
        shards.all(|(address, note)| note.is_some() || self.missing.contains(address))
    }

    fn agreed(&self, notes: &[Option<String>]) -> Result<Option<String>, StartError> {
        let addresses = self.config.shards.iter().map(Address::to_string);
        let addresses: Vec<String> = addresses.collect();
        let named = addresses.iter().map(String::as_str);
        let named: Vec<_> = named.zip(notes.iter().map(Option::as_deref)).collect();
        agreed(&named).map_err(StartError::Shard)
    }

    /// Notes this map where there is none. Stops where somebody else was faster: theirs is to be
    /// looked at first.
    async fn note(&self, notes: &[Option<String>], map: &str) -> Result<(), StartError> {
        let count = self.config.shards.len() as u16;
        let shards = self.config.shards.iter().zip(0..).zip(notes);
        let is_to_note = |address| !self.missing.contains(address);
        for ((address, number), _) in
            shards.filter(|((address, _), note)| note.is_none() && is_to_note(address))
        {
            let note = Membership::new(map, number, count).to_string();
            let set: [&[u8]; 5] = [b"SET", names::MAP, note.as_bytes(), b"NX", b"GET"];
            if resp::as_bulk(&self.ask(address, &set).await?).is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Until the shard does not answer with an error.
    async fn ask(&self, address: &Address, args: &[&[u8]]) -> Result<Bytes, StartError> {
        let mut request = BytesMut::new();
        build::command(&mut request, args);
        let request = &request;
        until_done(
            self.config,
            address,
            self.readiness,
            self.shutdown,
            || async move {
                let reply = dialogue(self.config, address, request, 1).await?.pop();
                match reply.ok_or("no answer")? {
                    reply if resp::is_error(&reply) => {
                        let told = String::from_utf8_lossy(resp::error_text(&reply));
                        Err(format!(
                            "the shard map cannot be looked at or noted: {told}"
                        ))
                    }
                    reply => Ok(reply),
                }
            },
        )
        .await
    }
}
