//! What must be known of the shards before the first client is served.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::knobs::credentials;
use super::{Common, StartError, safety};
use crate::backend::{Access, Busy, Dial};
use crate::config::{Address, Config};
use crate::keyspace::CommandTable;
use crate::keyspace::membership::Membership;
use crate::readiness::Readiness;
use crate::resp::{self, Lane, Limits, ReplyScanner, Value, build};
use crate::shutdown::Shutdown;
use crate::transport::Stream;
use crate::transport::tls::{Connector, Identity};

/// The oldest version whose scripts and command table are as we need them.
const MAJOR_MIN: u32 = 7;
/// `databases` of a server whose configuration does not say.
const DATABASES_DEFAULT: u16 = 16;

/// What the shards told.
pub(super) struct Learned {
    pub table: CommandTable,
    /// The lowest of all.
    pub redis_version: String,
    /// The fewest of all.
    pub databases: u16,
    /// Shards that have not answered.
    pub missing: Vec<Address>,
}

/// TLS towards the shards, if it is to be.
pub(super) fn connector(config: &Config) -> Option<Connector> {
    let ca = config.shard_tls_ca_file.as_ref()?;
    let identity = match (&config.shard_tls_cert_file, &config.shard_tls_key_file) {
        (Some(certificates), Some(key)) => Some(Identity {
            certificates: certificates.into(),
            key: key.into(),
        }),
        _ => None,
    };
    let name = config.shard_tls_name.clone();
    Some(Connector::new(ca.into(), identity, name))
}

/// How to reach the shards, in order. With the id of a shard map, only as long as they are its
/// shards.
pub(super) fn dials(
    config: &Config,
    access: &Access,
    map: Option<&str>,
    busy: &[Busy],
) -> impl Iterator<Item = Dial> {
    let count = config.shards.len() as u16;
    let shards = config.shards.iter().zip(busy).zip(0..);
    shards.map(move |((address, busy), number)| Dial {
        member: map.map(|map| Membership::new(map, number, count).to_string().into()),
        busy: busy.clone(),
        ..dial(config, access, address)
    })
}

/// How to reach a shard, whatever map it is of.
fn dial(config: &Config, access: &Access, address: &Address) -> Dial {
    Dial {
        address: address.to_string(),
        tls: connector(config),
        access: access.clone(),
        scripts: crate::txn::script::ALL
            .iter()
            .map(|script| script.source())
            .collect(),
        member: None,
        busy: Busy::default(),
    }
}

/// Asks every shard, again and again until it has answered; by a setting, until one of them has.
pub(super) async fn discover(
    config: &Config,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<Learned, StartError> {
    let mut known = Known::default();
    if config.start_without_shards {
        known.ask_all(config, readiness, shutdown).await?;
    } else {
        for address in &config.shards {
            let asked = ask_until_answered(config, address, readiness, shutdown).await?;
            known.add(config, address, &asked)?;
        }
    }
    known.versions.sort_unstable();
    let none = || StartError::Shard("no shards are configured".into());
    let lowest = known.versions.first().map(|version| version.1.clone());
    Ok(Learned {
        table: known.table.ok_or_else(none)?,
        redis_version: lowest.unwrap_or_default(),
        databases: known.databases.unwrap_or(DATABASES_DEFAULT),
        missing: known.missing,
    })
}

/// What has been learned so far.
#[derive(Default)]
struct Known {
    table: Option<CommandTable>,
    versions: Vec<(Vec<u32>, String)>,
    databases: Option<u16>,
    missing: Vec<Address>,
}

impl Known {
    /// Takes in what a shard answered, if it can be served.
    fn add(&mut self, config: &Config, address: &Address, asked: &Asked) -> Result<(), StartError> {
        let (this, version) = examine(config, address, asked)?;
        let databases = self.databases.unwrap_or(u16::MAX);
        self.databases = Some(databases.min(asked.databases));
        self.versions.push(version);
        self.table = narrower(self.table.take(), this, address);
        Ok(())
    }

    /// Asks each of them once, and all again while none has answered.
    async fn ask_all(
        &mut self,
        config: &Config,
        readiness: &Readiness,
        shutdown: &Shutdown,
    ) -> Result<(), StartError> {
        let mut wait = config.reconnect_backoff_min;
        loop {
            self.missing.clear();
            for address in &config.shards {
                match ask(config, address).await {
                    Ok(asked) => self.add(config, address, &asked)?,
                    Err(why) => {
                        tracing::warn!(shard = %address, %why, "this shard does not answer");
                        readiness.note(format!("shard {address}"), &why);
                        self.missing.push(address.clone());
                    }
                }
            }
            if self.table.is_some() {
                return Ok(());
            }
            readiness.block("server", "no shard answers");
            pause(&mut wait, config, shutdown).await?;
        }
    }
}

/// Its commands and version, if this shard can be served.
fn examine(
    config: &Config,
    address: &Address,
    asked: &Asked,
) -> Result<(CommandTable, (Vec<u32>, String)), StartError> {
    let version = version(address, &asked.info)?;
    safety::check(address, &asked.info, config.allow_unsafe_eviction)?;
    let Value::Array(_) = &asked.commands else {
        return Err(StartError::Shard(format!(
            "shard {address} does not answer COMMAND with an array"
        )));
    };
    let table = CommandTable::from_reply(&asked.commands)
        .map_err(|why| StartError::Shard(format!("shard {address}: {why}")))?;
    Ok((table, version))
}

/// Looks at shards that were not there at the start as soon as they are. With one that should not
/// be served the process stops being ready, and a person has to decide.
pub(super) async fn latecomers(common: Common) {
    let looks = common
        .missing
        .iter()
        .map(|address| look_at_latecomer(&common, address));
    futures::future::join_all(looks).await;
}

async fn look_at_latecomer(common: &Common, address: &Address) {
    let config = &common.config;
    let mut wait = config.reconnect_backoff_min;
    let asked = loop {
        match ask(config, address).await {
            Ok(asked) => break asked,
            Err(_) if pause(&mut wait, config, &common.shutdown).await.is_err() => return,
            Err(_) => {}
        }
    };
    match examine(config, address, &asked) {
        Ok(_) => tracing::info!(shard = %address, "this shard answers now"),
        Err(why) => {
            tracing::error!(%why, "a shard that was not there at the start must not be served");
            common.readiness.block("server", why.to_string());
        }
    }
}

/// Shards of different versions: the commands that all of them know are what can be served.
fn narrower(
    known: Option<CommandTable>,
    this: CommandTable,
    address: &Address,
) -> Option<CommandTable> {
    match known {
        Some(known) if known.len() <= this.len() => {
            if known.len() < this.len() {
                tracing::warn!(shard = %address, "the shards know different commands; serving those of the shard that knows the fewest");
            }
            Some(known)
        }
        Some(_) => {
            tracing::warn!(shard = %address, "the shards know different commands; serving those of the shard that knows the fewest");
            Some(this)
        }
        None => Some(this),
    }
}

/// `redis_version` as numbers and as text.
fn version(address: &Address, info: &str) -> Result<(Vec<u32>, String), StartError> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .unwrap_or_default()
        .trim();
    let numbers: Vec<u32> = line
        .split('.')
        .filter_map(|number| number.parse().ok())
        .collect();
    if numbers.first().is_none_or(|major| *major < MAJOR_MIN) {
        return Err(StartError::Shard(format!(
            "shard {address} runs Redis '{line}': version {MAJOR_MIN}.0 or newer is needed"
        )));
    }
    Ok((numbers, line.to_owned()))
}

struct Asked {
    commands: Value,
    info: String,
    databases: u16,
}

async fn ask_until_answered(
    config: &Config,
    address: &Address,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<Asked, StartError> {
    until_done(config, address, readiness, shutdown, || {
        ask(config, address)
    })
    .await
}

/// Tries again and again, with readiness saying what fails, until it is done or the process is
/// to stop.
pub(super) async fn until_done<T, F: Future<Output = Result<T, String>>>(
    config: &Config,
    address: &Address,
    readiness: &Readiness,
    shutdown: &Shutdown,
    attempt: impl Fn() -> F,
) -> Result<T, StartError> {
    let objection = format!("shard {address}");
    let mut wait = config.reconnect_backoff_min;
    loop {
        match attempt().await {
            Ok(done) => {
                readiness.clear(&objection);
                return Ok(done);
            }
            Err(why) => {
                tracing::warn!(shard = %address, %why, "cannot start without this shard; trying again");
                readiness.block(&objection, &why);
            }
        }
        pause(&mut wait, config, shutdown).await?;
    }
}

/// Longer each time.
pub(super) async fn pause(
    wait: &mut Duration,
    config: &Config,
    shutdown: &Shutdown,
) -> Result<(), StartError> {
    tokio::select! {
        () = tokio::time::sleep(*wait) => {}
        () = shutdown.draining() => return Err(StartError::Stopped),
    }
    *wait = (*wait * 2)
        .min(config.reconnect_backoff_max)
        .max(Duration::from_millis(10));
    Ok(())
}

async fn ask(config: &Config, address: &Address) -> Result<Asked, String> {
    let mut request = BytesMut::new();
    build::command(&mut request, ["COMMAND"]);
    build::command(&mut request, ["INFO"]);
    build::command(&mut request, ["CONFIG", "GET", "databases"]);
    let replies = dialogue(config, address, &request, 3).await?;
    let [commands, info, databases] = &replies[..] else {
        return Err("an answer is missing".into());
    };
    for reply in [commands, info] {
        if resp::is_error(reply) {
            return Err(String::from_utf8_lossy(resp::error_text(reply)).into_owned());
        }
    }
    let commands =
        Value::decode(commands, &Limits::default()).map_err(|error| error.to_string())?;
    let info = String::from_utf8_lossy(resp::as_bulk(info).unwrap_or_default()).into_owned();
    Ok(Asked {
        commands,
        info,
        databases: databases_told(databases),
    })
}

/// How many databases the shard has; where CONFIG is not allowed, what Redis has by default. (A
/// connection to one that is not there is refused with its greeting.)
fn databases_told(reply: &[u8]) -> u16 {
    let value = resp::elements(reply).nth(1).and_then(resp::as_bulk);
    let count: Option<u64> = value
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse().ok());
    count.map_or(DATABASES_DEFAULT, |count| {
        u16::try_from(count).unwrap_or(u16::MAX)
    })
}

/// A connection of its own, this request, so many replies.
pub(super) async fn dialogue(
    config: &Config,
    address: &Address,
    request: &[u8],
    count: usize,
) -> Result<Vec<Bytes>, String> {
    let access = Access::new(credentials(config));
    let connected = dial(config, &access, address).connect(Lane::FIRST).await;
    let stream = connected.map_err(|cause| cause.to_string())?;
    match timeout(config.request_timeout, exchange(stream, request, count)).await {
        Ok(replies) => replies.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

async fn exchange(mut stream: Stream, request: &[u8], count: usize) -> std::io::Result<Vec<Bytes>> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let (mut buffer, mut scanner, mut replies) = (
        BytesMut::new(),
        ReplyScanner::new(Limits::default()),
        Vec::new(),
    );
    while replies.len() < count {
        match scanner.scan(&buffer).map_err(std::io::Error::other)? {
            Some(len) => replies.push(buffer.split_to(len).freeze()),
            None if stream.read_buf(&mut buffer).await? == 0 => {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    }
    Ok(replies)
}
