//! What every client library is asked to do, with an unmodified redis-rs: its blocking connections
//! for what waits, its multiplexed one for the rest.
//!
//! usage: redis-rs PORT {2|3} KEY0 ... KEY5      (keys of the three shards in turn)
//! Prints what each step answered, one per line; the test in integration/clients judges.

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client, Commands, RedisResult, Script, TypedCommands, Value};
use std::thread;

const UNLOCK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    return redis.call('DEL', KEYS[1]) end return 0";
const APPEND: &str = "return redis.call('APPEND', KEYS[1], ARGV[1])";

#[tokio::main(flavor = "current_thread")]
async fn main() -> RedisResult<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (port, protocol, keys) = (&args[0], &args[1], &args[2..]);
    let url = format!("redis://127.0.0.1:{port}/?protocol={protocol}");
    let client = Client::open(url)?;
    let mut shared = client.get_multiplexed_async_connection().await?;
    batches(&mut shared, keys).await?;
    count(&client, keys)?;
    broken_watch(&client, keys)?;
    listen(&client, keys)?;
    pop(&client, keys)?;
    scripts(&mut shared, keys).await?;
    lock(&mut shared, &format!("{}:lock", keys[4])).await?;
    let deleted: usize = AsyncCommands::del(&mut shared, keys).await?;
    println!("deleted {deleted}");
    Ok(())
}

async fn batches(shared: &mut MultiplexedConnection, keys: &[String]) -> RedisResult<()> {
    let pong: String = redis::cmd("PING").query_async(shared).await?;
    println!("ping {pong}");
    let (ok, one, two, zero, list): (String, i64, i64, String, Vec<String>) = redis::pipe()
        .set(&keys[0], "zero")
        .incr(&keys[1], 1)
        .rpush(&keys[2], &["a", "b"])
        .get(&keys[0])
        .lrange(&keys[2], 0, -1)
        .query_async(shared)
        .await?;
    println!("pipeline {ok} {one} {two} {zero} {}", list.join(" "));
    let (ok, two, three, one, none): (String, i64, i64, String, Option<String>) = redis::pipe()
        .atomic()
        .set(&keys[0], "one")
        .incr(&keys[1], 1)
        .rpush(&keys[2], "c")
        .get(&keys[0])
        .get("nothing")
        .query_async(shared)
        .await?;
    println!("transaction {ok} {two} {three} {one} {}", or_nil(none));
    Ok(())
}

/// Two at once, each ten times round the library's own loop with WATCH.
fn count(client: &Client, keys: &[String]) -> RedisResult<()> {
    let mut connection = client.get_connection()?;
    let (low, high) = (&keys[3], &keys[4]);
    let () = Commands::mset(&mut connection, &[(low, 0), (high, 0)])?;
    let add_one = || -> RedisResult<()> {
        let mut connection = client.get_connection()?;
        redis::transaction(&mut connection, &[low, high], |connection, pipe| {
            let (a, b): (i64, i64) = Commands::mget(connection, &[low, high])?;
            let pipe = pipe.set(low, a + 1).ignore().set(high, b + 1).ignore();
            pipe.query::<Option<()>>(connection)
        })
    };
    let ten = || (0..10).try_for_each(|_| add_one());
    thread::scope(|scope| {
        let counters = [scope.spawn(ten), scope.spawn(ten)];
        counters
            .into_iter()
            .try_for_each(|counter| counter.join().expect("no panic"))
    })?;
    let (low, high): (i64, i64) = Commands::mget(&mut connection, &[low, high])?;
    println!("counted {low} {high}");
    Ok(())
}

fn broken_watch(client: &Client, keys: &[String]) -> RedisResult<()> {
    let (mut watching, mut other) = (client.get_connection()?, client.get_connection()?);
    redis::cmd("WATCH").arg(&keys[3..5]).exec(&mut watching)?;
    TypedCommands::set(&mut other, &keys[4], 0)?;
    let reply: Value = redis::pipe()
        .atomic()
        .set(&keys[3], "lost")
        .query(&mut watching)?;
    println!(
        "broken watch {}",
        if reply == Value::Nil {
            "nil"
        } else {
            "was applied"
        }
    );
    Ok(())
}

fn listen(client: &Client, keys: &[String]) -> RedisResult<()> {
    let (mut listening, mut other) = (client.get_connection()?, client.get_connection()?);
    let mut pubsub = listening.as_pubsub();
    pubsub.subscribe(&keys[..3])?;
    pubsub.psubscribe("news.*")?;
    for channel in keys[..3].iter().map(String::as_str).chain(["news.art"]) {
        let count: i64 = Commands::publish(&mut other, channel, "hello")?;
        let message = pubsub.get_message()?;
        let (from, text) = (message.get_channel_name(), message.get_payload::<String>()?);
        println!("published {count} heard {from} {text}");
    }
    Ok(())
}

fn pop(client: &Client, keys: &[String]) -> RedisResult<()> {
    let (mut waiting, mut other) = (client.get_connection()?, client.get_connection()?);
    let from = [keys[5].clone(), format!("{}:list", keys[3])];
    let popped = thread::spawn(move || TypedCommands::blpop(&mut waiting, &from, 10.0));
    loop {
        let info: String = redis::cmd("INFO").arg("clients").query(&mut other)?;
        if info.contains("blocked_clients:1") {
            break;
        }
    }
    TypedCommands::rpush(&mut other, &keys[5], "element")?;
    let popped = popped.join().expect("no panic")?;
    println!(
        "popped {}",
        popped.map_or("nil".to_owned(), |pair| pair.join(" "))
    );
    Ok(())
}

async fn scripts(shared: &mut MultiplexedConnection, keys: &[String]) -> RedisResult<()> {
    let mut lengths = Vec::new();
    for key in &keys[3..5] {
        let eval = redis::cmd("EVAL")
            .arg(APPEND)
            .arg(1)
            .arg(key)
            .arg("xy")
            .to_owned();
        lengths.push(eval.query_async::<i64>(shared).await?.to_string());
    }
    println!("eval {}", lengths.join(" "));
    // EVALSHA, and SCRIPT LOAD when that is answered with NOSCRIPT.
    let script = Script::new(APPEND);
    let mut lengths = Vec::new();
    for key in &keys[3..5] {
        let length: i64 = script.key(key).arg("z").invoke_async(shared).await?;
        lengths.push(length.to_string());
    }
    println!("evalsha {}", lengths.join(" "));
    Ok(())
}

async fn lock(shared: &mut MultiplexedConnection, name: &str) -> RedisResult<()> {
    let mut took = Vec::new();
    for owner in ["me", "you"] {
        let set = redis::cmd("SET")
            .arg(name)
            .arg(owner)
            .arg(&["NX", "PX", "10000"])
            .to_owned();
        took.push(or_nil(set.query_async(shared).await?));
    }
    println!("locked {}", took.join(" "));
    let unlock = Script::new(UNLOCK);
    let mut gave = Vec::new();
    for owner in ["you", "me"] {
        let count: i64 = unlock.key(name).arg(owner).invoke_async(shared).await?;
        gave.push(count.to_string());
    }
    println!("unlocked {}", gave.join(" "));
    Ok(())
}

fn or_nil(text: Option<String>) -> String {
    text.unwrap_or_else(|| "nil".to_owned())
}
