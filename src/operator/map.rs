//! `lockstep map`: what the shards note of the shard map, and changing it.
//!
//! The map is fixed when the shards are first served: no key moves when it changes, so that
//! adopting another is for shards that are empty, or whose keys were moved by other means. While
//! anything is prepared or being applied it is refused: the participants of a transaction are
//! numbers of shards, and would name others.

use std::rc::Rc;

use futures::future::join_all;
use serde_json::{Value, json};

use super::look;
use super::render::Report;
use crate::engine::{self, Engine};
use crate::keyspace::membership::{Membership, agreed};
use crate::resp;
use crate::txn::names;

/// What the shards note.
#[derive(Clone, Debug)]
pub struct Map {
    addresses: Vec<String>,
    /// By shard; or why it gave no answer.
    notes: Vec<Result<Option<String>, String>>,
    /// Of [`adopt`]: why it was refused.
    refused: Option<String>,
}

/// Reads them.
pub async fn map(engine: &Rc<Engine>) -> Map {
    let shards = 0..engine.shards();
    let addresses = shards.clone().map(|shard| engine.address(shard).to_owned());
    Map {
        addresses: addresses.collect(),
        notes: join_all(shards.map(|shard| note(engine, shard))).await,
        refused: None,
    }
}

async fn note(engine: &Rc<Engine>, shard: u16) -> Result<Option<String>, String> {
    let reply = look::command(engine, shard, &[b"GET", names::MAP]).await?;
    Ok(resp::as_bulk(&reply).map(|note| String::from_utf8_lossy(note).into_owned()))
}

/// Makes these shards, in this order, those of a new map. Every lockstep must have been stopped:
/// one that runs, but is not connected now, learns of it only when it connects again.
pub async fn adopt(engine: &Rc<Engine>) -> Map {
    let refused = try_adopt(engine).await.err();
    Map {
        refused,
        ..map(engine).await
    }
}

async fn try_adopt(engine: &Rc<Engine>) -> Result<(), String> {
    for shard in 0..engine.shards() {
        let of_shard = |why| format!("shard {}: {why}", engine.address(shard));
        nobody_serves(engine, shard).await.map_err(of_shard)?;
        nothing_unfinished(engine, shard).await.map_err(of_shard)?;
    }
    let map = engine::random_id();
    for shard in 0..engine.shards() {
        let member = Membership::new(&map, shard, engine.shards()).to_string();
        let set: [&[u8]; 3] = [b"SET", names::MAP, member.as_bytes()];
        let done = look::command(engine, shard, &set).await;
        done.map_err(|why| {
            let address = engine.address(shard);
            format!("shard {address}: {why}; the map is half changed: adopt it again")
        })?;
    }
    Ok(())
}

/// Whether no lockstep is connected but this one. One that is just not connected is not seen.
async fn nobody_serves(engine: &Rc<Engine>, shard: u16) -> Result<(), String> {
    let own = look::command(engine, shard, &[b"CLIENT", b"ID"]).await?;
    let own = format!("id={}", resp::as_int(&own).unwrap_or_default());
    let list = look::command(engine, shard, &[b"CLIENT", b"LIST"]).await?;
    let list = String::from_utf8_lossy(resp::as_bulk(&list).unwrap_or_default());
    let other = list.lines().find_map(|line| {
        let mut words = line.split(' ');
        let is_other = words.next() != Some(&own) && line.contains(" name=lockstep ");
        is_other.then(|| words.next()?.strip_prefix("addr="))?
    });
    other.map_or(Ok(()), |from| {
        Err(format!(
            "a lockstep is connected to it from {from}: stop every lockstep first"
        ))
    })
}

async fn nothing_unfinished(engine: &Rc<Engine>, shard: u16) -> Result<(), String> {
    for name in [names::INDEX, names::SETTLING] {
        let held = look::command(engine, shard, &[b"HLEN", name]).await?;
        if resp::as_int(&held) != Some(0) {
            return Err(
                "it holds something of transactions that are not finished: settle them first, \
                 with the shards they were begun with (lockstep txn list)"
                    .into(),
            );
        }
    }
    Ok(())
}

impl Map {
    /// Why these shards, in this order, are not those of one map, if they are not.
    pub(super) fn disagreement(&self) -> Option<String> {
        // Who gave no answer is told elsewhere.
        let note = |note: &'_ Result<Option<String>, String>| note.clone().ok().flatten();
        let notes: Vec<Option<String>> = self.notes.iter().map(note).collect();
        let named = self.addresses.iter().map(String::as_str);
        let named: Vec<_> = named.zip(notes.iter().map(Option::as_deref)).collect();
        agreed(&named).err()
    }

    fn wrong(&self) -> Option<String> {
        self.refused.clone().or_else(|| self.disagreement())
    }
}

impl Report for Map {
    fn json(&self) -> Value {
        let shard = |(number, (address, note)): (usize, (&String, &Result<_, String>))| {
            let member = note.as_ref().ok().and_then(|note: &Option<String>| {
                Membership::parse(note.as_deref().unwrap_or_default())
            });
            json!({
                "shard": number,
                "address": address,
                "map": member.as_ref().map(|member| &member.map),
                "number": member.as_ref().map(|member| member.number),
                "count": member.as_ref().map(|member| member.count),
                "error": note.as_ref().err(),
            })
        };
        let shards = self.addresses.iter().zip(&self.notes).enumerate();
        json!({
            "shards": shards.map(shard).collect::<Vec<_>>(),
            "error": self.wrong(),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (number, (address, note)) in self.addresses.iter().zip(&self.notes).enumerate() {
            let note = match note {
                Ok(Some(note)) => match Membership::parse(note) {
                    Some(Membership { map, number, count }) => {
                        format!("notes that it is number {number} of {count} in map {map}")
                    }
                    None => format!("notes '{note}', which is not understood"),
                },
                Ok(None) => "notes nothing: it was never served, or has lost its data".to_owned(),
                Err(why) => why.clone(),
            };
            text.push_str(&format!("shard {number} ({address}) {note}\n"));
        }
        if let Some(wrong) = self.wrong() {
            text.push_str(&format!("{wrong}\n"));
        }
        text
    }

    fn is_good(&self) -> bool {
        self.wrong().is_none() && self.notes.iter().all(Result::is_ok)
    }
}
