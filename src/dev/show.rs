//! What a newcomer gets to see: what runs where, a first transaction, where its keys landed.

use std::io;
use std::time::Duration;

use redis_protocol::redis_keyslot;

use super::client::{Client, shown};
use super::screen::Screen;
use super::shards::Shards;
use super::{Failure, Place};
use crate::build;
use crate::resp::Value;

const SLOTS: usize = 16_384;

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

/// One key for each of `count` shards: the slots are spread evenly over them.
fn keys_for_each(count: usize) -> Vec<String> {
    let name = |i: usize| {
        ["alice", "bob", "carol", "dave", "erin", "frank"]
            .get(i)
            .map_or_else(|| format!("user:{i}"), |name| (*name).to_owned())
    };
    let shard = |key: &str| usize::from(redis_keyslot(key.as_bytes())) * count / SLOTS;
    // A few times as many names as shards hit every one of them.
    let names: Vec<_> = (0..64 * count).map(name).collect();
    let first_of = |wanted| names.iter().find(|key| shard(key) == wanted).cloned();
    (0..count).filter_map(first_of).collect()
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
    let slot = redis_keyslot(key.as_bytes());
    screen.line(format_args!(
        "  {key:<8} slot {slot:<6} shard {i} ({address})  {value}"
    ));
    Ok(())
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
