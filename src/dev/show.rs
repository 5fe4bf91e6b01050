//! What a newcomer gets to see: what runs where, a first transaction, where its keys landed.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{Client, shown};
use super::screen::Screen;
use super::shards::Shards;
use super::{Failure, Place};
use crate::build;
use crate::keyspace::{Topology, key_slot};
use crate::resp::Value;
use crate::txn::names;

/// Longest wait for locks and intents to be taken away.
const RELEASE_TIME: Duration = Duration::from_secs(2);
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// Says what was started.
pub(super) fn what_runs(screen: Screen, shards: &Shards, place: &Place) {
    screen.line(format_args!("lockstep {}", build::VERSION));
    screen.line(format_args!(""));
    for (i, shard) in shards.running.iter().enumerate() {
        screen.line(format_args!(
            "  shard {i:<3} {:<22} redis-server {} (pid {})",
            shard.address.to_string(),
            shard.version,
            shard.pid
        ));
    }
    let proxy = place.proxy.to_string();
    screen.line(format_args!("  lockstep  {proxy:<22} for any Redis client"));
    if let Some(metrics) = place.metrics {
        screen.line(format_args!("  metrics   http://{metrics}/metrics"));
    }
    screen.line(format_args!("  files     {}", shards.folder.display()));
}

/// Says what to try next.
pub(super) fn what_to_paste(screen: Screen, place: &Place, duration: Option<Duration>) {
    let port = place.proxy.port();
    screen.line(format_args!("\nPaste into another terminal:\n"));
    screen.line(format_args!(
        "  redis-cli -p {port} MSET apple 1 pear 2 plum 3"
    ));
    screen.line(format_args!(
        "  printf 'MULTI\\nINCR apple\\nINCR pear\\nINCR plum\\nEXEC\\n' | redis-cli -p {port}"
    ));
    match place.metrics {
        Some(metrics) => screen.line(format_args!(
            "  curl -s http://{metrics}/metrics | grep lockstep_transactions_total"
        )),
        None => screen.line(format_args!("  redis-cli -p {port} MGET apple pear plum")),
    }
    match duration {
        Some(time) => screen.line(format_args!(
            "\nStops by itself after {} s, or with Ctrl-C.",
            time.as_secs()
        )),
        None => screen.line(format_args!("\nCtrl-C stops everything and removes it.")),
    }
}

/// Runs a transaction with a key on every shard, and shows where each key is. The keys.
pub(super) async fn first_transaction(
    screen: Screen,
    shards: &Shards,
    place: &Place,
) -> Result<Vec<String>, Failure> {
    let keys = keys_for_each(shards.running.len());
    let queue: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(i, key)| command_on(i, key))
        .collect();
    screen.line(format_args!(
        "\nA first transaction, with a key on every shard:\n"
    ));
    let mut client = Client::connect(place.proxy).await.map_err(failed)?;
    let queued = |reply: &Value| is_status(reply, "QUEUED");
    let all_well = |reply: &Value| all_well(reply, queue.len());
    ask(screen, &mut client, "MULTI", |reply| is_status(reply, "OK")).await?;
    for command in &queue {
        ask(screen, &mut client, command, queued).await?;
    }
    ask(screen, &mut client, "EXEC", all_well).await?;
    screen.line(format_args!(
        "\nWhere its keys are, asked of every shard directly:\n"
    ));
    for key in &keys {
        show_key(screen, shards, key).await?;
    }
    show_leftovers(screen, shards).await?;
    Ok(keys)
}

/// Removes the keys of the first transaction.
pub(super) async fn remove(place: &Place, keys: &[String]) -> Result<(), Failure> {
    let mut client = Client::connect(place.proxy).await.map_err(failed)?;
    for key in keys {
        let reply = client.ask(&format!("DEL {key}")).await.map_err(failed)?;
        if reply != Value::Int(1) {
            return Err(Failure::Transaction(format!(
                "DEL {key}: {}",
                shown(&reply)
            )));
        }
    }
    Ok(())
}

fn command_on(i: usize, key: &str) -> String {
    match i % 3 {
        0 => format!("SET {key} 100"),
        1 => format!("INCRBY {key} 50"),
        _ => format!("LPUSH {key} red green blue"),
    }
}

/// One key for each of `count` shards.
fn keys_for_each(count: usize) -> Vec<String> {
    let people = ["alice", "bob", "carol", "dave", "erin", "frank"].map(str::to_owned);
    // A few times as many names as shards hit every one of them.
    let numbered = (0..64 * count).map(|i| format!("user:{i}"));
    let names: Vec<_> = people.into_iter().chain(numbered).collect();
    let map = Topology::new(vec![String::new(); count]);
    let on = |shard| {
        let found = |key: &&String| usize::from(map.shard_of(key.as_bytes())) == shard;
        names.iter().find(found).cloned()
    };
    (0..count).filter_map(on).collect()
}

fn is_status(reply: &Value, text: &str) -> bool {
    matches!(reply, Value::Status(status) if status == text)
}

fn all_well(reply: &Value, count: usize) -> bool {
    let well = |item: &Value| item.as_error().is_none() && !item.is_null();
    let well = |items: &[Value]| items.len() == count && items.iter().all(well);
    reply.as_slice().is_some_and(well)
}

async fn ask(
    screen: Screen,
    client: &mut Client,
    command: &str,
    expected: impl FnOnce(&Value) -> bool,
) -> Result<(), Failure> {
    let reply = client.ask(command).await.map_err(failed)?;
    screen.line(format_args!("  > {command:<28} {}", shown(&reply)));
    match expected(&reply) {
        true => Ok(()),
        false => Err(Failure::Transaction(format!(
            "{command}: {}",
            shown(&reply)
        ))),
    }
}

async fn show_key(screen: Screen, shards: &Shards, key: &str) -> Result<(), Failure> {
    let mut found = Vec::new();
    for (i, shard) in shards.running.iter().enumerate() {
        let mut client = Client::connect(shard.address).await.map_err(failed)?;
        if client.ask(&format!("EXISTS {key}")).await.map_err(failed)? == Value::Int(1) {
            found.push((
                i,
                shard.address,
                value(&mut client, key).await.map_err(failed)?,
            ));
        }
    }
    let [(i, address, value)] = found.as_slice() else {
        let text = format!("{key} is on {} shards instead of one", found.len());
        return Err(Failure::Transaction(text));
    };
    let slot = key_slot(key.as_bytes());
    screen.line(format_args!(
        "  {key:<8} slot {slot:<6} shard {i} ({address})  {value}"
    ));
    Ok(())
}

/// The client is answered before locks and intents are taken away, so wait a little for that.
async fn show_leftovers(screen: Screen, shards: &Shards) -> Result<(), Failure> {
    let give_up = Instant::now() + RELEASE_TIME;
    let mut left = leftovers(shards).await.map_err(failed)?;
    while !left.is_empty() && Instant::now() < give_up {
        sleep(ASK_INTERVAL).await;
        left = leftovers(shards).await.map_err(failed)?;
    }
    match left.is_empty() {
        true => screen.line(format_args!(
            "\n  No lock and no intent is left on any shard."
        )),
        false => screen.line(format_args!("\n  Still on the shards: {}", left.join(" "))),
    }
    Ok(())
}

/// Every key of lockstep's own on every shard, but the counter that stays.
async fn leftovers(shards: &Shards) -> io::Result<Vec<String>> {
    let mut left = Vec::new();
    for shard in &shards.running {
        let mut client = Client::connect(shard.address).await?;
        let pattern = format!("KEYS {}*", String::from_utf8_lossy(names::PREFIX));
        let reply = client.ask(&pattern).await?;
        let keys = reply.as_slice().unwrap_or_default().iter();
        let keys = keys
            .filter_map(Value::as_bytes)
            .filter(|key| ![names::EPOCH, names::MARKERS, names::MAP].contains(key));
        left.extend(keys.map(|key| String::from_utf8_lossy(key).into_owned()));
    }
    Ok(left)
}

async fn value(client: &mut Client, key: &str) -> io::Result<String> {
    let of_list = is_status(&client.ask(&format!("TYPE {key}")).await?, "list");
    let command = match of_list {
        true => format!("LRANGE {key} 0 -1"),
        false => format!("GET {key}"),
    };
    Ok(shown(&client.ask(&command).await?))
}

fn failed(error: io::Error) -> Failure {
    Failure::Transaction(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_key_for_every_shard() {
        for count in 1..=16 {
            assert_eq!(keys_for_each(count).len(), count);
        }
    }
}
