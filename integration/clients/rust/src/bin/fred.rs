//! What every client library is asked to do, with an unmodified fred.
//!
//! usage: fred PORT {2|3} KEY0 ... KEY5      (keys of the three shards in turn)
//! Prints what each step answered, one per line; the test in integration/clients judges.

use fred::clients::{Client, SubscriberClient};
use fred::prelude::*;
use fred::types::{InfoKind, RespVersion, SetOptions};

const UNLOCK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    return redis.call('DEL', KEYS[1]) end return 0";
const APPEND: &str = "return redis.call('APPEND', KEYS[1], ARGV[1])";

type Done = Result<(), Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let keys = &args[2..];
    let mut config = Config::from_url(&format!("redis://127.0.0.1:{}", args[0]))?;
    config.version = match args[1].as_str() {
        "3" => RespVersion::RESP3,
        _ => RespVersion::RESP2,
    };
    let builder = Builder::from_config(config);
    let client = builder.build()?;
    client.init().await?;
    batches(&client, keys).await?;
    count(&client, keys).await?;
    broken_watch(&client, keys).await?;
    let subscriber = builder.build_subscriber_client()?;
    subscriber.init().await?;
    listen(&client, &subscriber, keys).await?;
    pop(&client, keys).await?;
    scripts(&client, keys).await?;
    lock(&client, &format!("{}:lock", keys[4])).await?;
    println!("deleted {}", client.del::<i64, _>(keys.to_vec()).await?);
    subscriber.quit().await?;
    client.quit().await
}

async fn batches(client: &Client, keys: &[String]) -> Done {
    println!("ping {}", client.ping::<String>(None).await?);
    let pipeline = client.pipeline();
    let () = pipeline.set(&keys[0], "zero", None, None, false).await?;
    let () = pipeline.incr(&keys[1]).await?;
    let () = pipeline.rpush(&keys[2], vec!["a", "b"]).await?;
    let () = pipeline.get(&keys[0]).await?;
    let () = pipeline.lrange(&keys[2], 0, -1).await?;
    let (ok, one, two, zero, list): (String, i64, i64, String, Vec<String>) =
        pipeline.all().await?;
    println!("pipeline {ok} {one} {two} {zero} {}", list.join(" "));
    let queue = client.multi();
    let () = queue.set(&keys[0], "one", None, None, false).await?;
    let () = queue.incr(&keys[1]).await?;
    let () = queue.rpush(&keys[2], "c").await?;
    let () = queue.get(&keys[0]).await?;
    let () = queue.get("nothing").await?;
    let (ok, two, three, one, none): (String, i64, i64, String, Option<String>) =
        queue.exec(true).await?;
    println!("transaction {ok} {two} {three} {one} {}", or_nil(none));
    Ok(())
}

/// Two at once, each ten times.
async fn count(client: &Client, keys: &[String]) -> Done {
    let pair = &keys[3..5];
    let () = client.mset(vec![(&pair[0], 0), (&pair[1], 0)]).await?;
    let (one, other) = (client.clone_new(), client.clone_new());
    tokio::try_join!(count_up(&one, pair), count_up(&other, pair))?;
    let (low, high): (i64, i64) = client.mget(pair.to_vec()).await?;
    println!("counted {low} {high}");
    Ok(())
}

async fn count_up(client: &Client, pair: &[String]) -> Done {
    client.init().await?;
    let mut turns = 0;
    while turns < 10 {
        client.watch(pair.to_vec()).await?;
        let (low, high): (i64, i64) = client.mget(pair.to_vec()).await?;
        let queue = client.multi();
        let () = queue.set(&pair[0], low + 1, None, None, false).await?;
        let () = queue.set(&pair[1], high + 1, None, None, false).await?;
        turns += i64::from(!queue.exec::<Value>(true).await?.is_null());
    }
    client.quit().await
}

async fn broken_watch(client: &Client, keys: &[String]) -> Done {
    let watching = client.clone_new();
    watching.init().await?;
    watching.watch(keys[3..5].to_vec()).await?;
    let () = client.set(&keys[4], 0, None, None, false).await?;
    let queue = watching.multi();
    let () = queue.set(&keys[3], "lost", None, None, false).await?;
    let reply: Value = queue.exec(true).await?;
    println!(
        "broken watch {}",
        if reply.is_null() {
            "nil"
        } else {
            "was applied"
        }
    );
    watching.quit().await
}

async fn listen(client: &Client, subscriber: &SubscriberClient, keys: &[String]) -> Done {
    let mut messages = subscriber.message_rx();
    subscriber.subscribe(keys[..3].to_vec()).await?;
    subscriber.psubscribe("news.*").await?;
    for channel in keys[..3].iter().map(String::as_str).chain(["news.art"]) {
        // fred does not wait until a subscription is confirmed.
        let mut count = 0;
        while count == 0 {
            count = client.publish(channel, "hello").await?;
        }
        let message = messages.recv().await.expect("a message");
        let text: String = message.value.convert()?;
        println!("published {count} heard {} {text}", message.channel);
    }
    Ok(())
}

async fn pop(client: &Client, keys: &[String]) -> Done {
    let waiting = client.clone_new();
    waiting.init().await?;
    let from = vec![keys[5].clone(), format!("{}:list", keys[3])];
    let push = async {
        loop {
            let info: String = client.info(Some(InfoKind::Clients)).await?;
            if info.contains("blocked_clients:1") {
                return client.rpush::<i64, _, _>(&keys[5], "element").await;
            }
        }
    };
    let ((key, element), _) =
        tokio::try_join!(waiting.blpop::<(String, String), _>(from, 10.0), push)?;
    println!("popped {key} {element}");
    waiting.quit().await
}

async fn scripts(client: &Client, keys: &[String]) -> Done {
    let mut lengths = Vec::new();
    for key in &keys[3..5] {
        lengths.push(
            client
                .eval::<i64, _, _, _>(APPEND, key, "xy")
                .await?
                .to_string(),
        );
    }
    println!("eval {}", lengths.join(" "));
    let digest: String = client.script_load(APPEND).await?;
    let mut lengths = Vec::new();
    for key in &keys[3..5] {
        lengths.push(
            client
                .evalsha::<i64, _, _, _>(&digest, key, "z")
                .await?
                .to_string(),
        );
    }
    println!("evalsha {}", lengths.join(" "));
    Ok(())
}

async fn lock(client: &Client, name: &str) -> Done {
    let mut took = Vec::new();
    for owner in ["me", "you"] {
        let (expires, absent) = (Some(Expiration::PX(10_000)), Some(SetOptions::NX));
        took.push(or_nil(
            client.set(name, owner, expires, absent, false).await?,
        ));
    }
    println!("locked {}", took.join(" "));
    let mut gave = Vec::new();
    for owner in ["you", "me"] {
        gave.push(
            client
                .eval::<i64, _, _, _>(UNLOCK, name, owner)
                .await?
                .to_string(),
        );
    }
    println!("unlocked {}", gave.join(" "));
    Ok(())
}

fn or_nil(text: Option<String>) -> String {
    text.unwrap_or_else(|| "nil".to_owned())
}
