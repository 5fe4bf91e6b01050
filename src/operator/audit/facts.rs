//! What a shard tells of itself: INFO, and CONFIG where that is allowed.

use std::collections::HashMap;
use std::rc::Rc;

use crate::engine::Engine;
use crate::operator::look;
use crate::resp;

/// Settings that are looked at.
const SETTINGS: &[&[u8]] = &[
    b"appendonly",
    b"appendfsync",
    b"maxmemory-policy",
    b"min-replicas-to-write",
    b"dir",
    b"appenddirname",
    b"appendfilename",
    b"aof-load-truncated",
];

/// INFO and CONFIG of one shard.
#[derive(Clone, Default, Debug)]
pub(in crate::operator) struct Facts {
    info: HashMap<String, String>,
    /// None: it may not be asked.
    config: Option<HashMap<String, String>>,
}

impl Facts {
    /// Asks a shard.
    pub(super) async fn ask(engine: &Rc<Engine>, shard: u16) -> Result<Self, String> {
        let info = look::command(engine, shard, &[b"INFO"]).await?;
        let info = String::from_utf8_lossy(resp::as_bulk(&info).unwrap_or_default()).into_owned();
        let mut request: Vec<&[u8]> = vec![b"CONFIG", b"GET"];
        request.extend_from_slice(SETTINGS);
        let config = look::command(engine, shard, &request).await.ok();
        Ok(Self::of(&info, config.map(|reply| pairs(&reply))))
    }

    /// From the text of INFO.
    pub(super) fn of(info: &str, config: Option<HashMap<String, String>>) -> Self {
        let lines = info
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'));
        let info = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            info: info.collect(),
            config,
        }
    }

    /// A line of INFO; empty if there is none.
    pub(super) fn info(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    /// A number in INFO.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.info(name).parse().ok()
    }

    /// A setting; None if it may not be asked, or there is none.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether settings may be asked.
    pub(super) fn tells_settings(&self) -> bool {
        self.config
            .as_ref()
            .is_some_and(|config| !config.is_empty())
    }
}

fn pairs(reply: &[u8]) -> HashMap<String, String> {
    let texts: Vec<String> = resp::elements(reply)
        .filter_map(resp::as_bulk)
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    texts
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}
