//! What a setting is: its name, its kind with unit, range and default, and where its value goes.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Address, Config, Secret};

/// One row of the table of settings.
pub struct Setting {
    /// Kebab-case; the flag, the TOML key, and in capitals the environment variable.
    pub name: &'static str,
    /// The heading it stands under.
    pub group: Group,
    /// Type, unit, range, default, and the field of [`Config`] it sets.
    pub kind: Kind,
    /// One or two sentences for `--help` and the README.
    pub help: &'static str,
}

/// Headings of `--help` and of the README's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where everything listens, and the shards.
    Addresses,
    /// The process as a whole.
    Process,
    /// Passwords and users of clients.
    Access,
    /// Connections of clients and what they may send.
    Clients,
    /// Connections to shards.
    Shards,
    /// Encryption, towards clients and shards.
    Tls,
    /// Distributed transactions.
    Transactions,
}

impl Group {
    /// All, in the order they are shown.
    pub const ALL: &[Self] = &[
        Self::Addresses,
        Self::Process,
        Self::Access,
        Self::Clients,
        Self::Shards,
        Self::Tls,
        Self::Transactions,
    ];

    /// As a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Addresses => "Addresses",
            Self::Process => "Process",
            Self::Access => "Access",
            Self::Clients => "Clients",
            Self::Shards => "Shards",
            Self::Tls => "TLS",
            Self::Transactions => "Transactions",
        }
    }
}

/// Type of a setting. `set` puts a value that was found valid where it belongs.
pub enum Kind {
    /// A span of time in whole milliseconds.
    Millis {
        /// Value when nobody sets it.
        default: u64,
        /// Values allowed.
        range: RangeInclusive<u64>,
        /// Where it goes.
        set: fn(&mut Config, Duration),
    },
    /// A span of time in whole seconds.
    Seconds {
        /// Value when nobody sets it.
        default: u64,
        /// Values allowed.
        range: RangeInclusive<u64>,
        /// Where it goes.
        set: fn(&mut Config, Duration),
    },
    /// A number of things.
    Count {
        /// Value when nobody sets it.
        default: u64,
        /// Values allowed.
        range: RangeInclusive<u64>,
        /// Where it goes.
        set: fn(&mut Config, usize),
    },
    /// A number of bytes; `kb`, `mb` and `gb` (of 1024) may follow, as in redis.conf.
    Bytes {
        /// Value when nobody sets it.
        default: u64,
        /// Values allowed.
        range: RangeInclusive<u64>,
        /// Where it goes.
        set: fn(&mut Config, usize),
    },
    /// Yes or no, written `true` or `false`; no when nobody sets it.
    Switch {
        /// Where it goes.
        set: fn(&mut Config, bool),
    },
    /// One of a few words.
    Choice {
        /// Value when nobody sets it.
        default: &'static str,
        /// The words.
        of: &'static [&'static str],
        /// Where it goes; false if the word is not known after all.
        set: fn(&mut Config, &str) -> bool,
    },
    /// An address to listen on; empty means none where `optional`.
    Listen {
        /// Host and port when nobody sets it.
        default: (&'static str, u16),
        /// Whether it may be empty.
        optional: bool,
        /// Where it goes.
        set: fn(&mut Config, Option<Address>),
    },
    /// One more address to listen on; none when nobody sets it.
    Place {
        /// Where it goes.
        set: fn(&mut Config, Address),
    },
    /// Addresses to connect to, repeatable or separated by commas; their order matters.
    Addresses {
        /// Where they go.
        set: fn(&mut Config, Vec<Address>),
    },
    /// Any text that is not empty.
    Text {
        /// Where it goes.
        set: fn(&mut Config, String),
    },
    /// A text that is never shown.
    Secret {
        /// Where it goes.
        set: fn(&mut Config, Secret),
    },
    /// The path of a file that holds a secret; line ends after it are not part of it.
    SecretFile {
        /// Where the secret goes.
        set: fn(&mut Config, Secret),
    },
}

/// What is wrong with the value given; the number says which item when there are several.
pub(super) type Wrong = (usize, String);

impl Kind {
    /// Stands for the value in `--help`.
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Millis { .. } => "MS",
            Self::Seconds { .. } => "S",
            Self::Count { .. } => "N",
            Self::Bytes { .. } => "BYTES",
            Self::Switch { .. } => "true|false",
            Self::Choice { .. } => "WORD",
            Self::Listen { .. } | Self::Place { .. } => "HOST:PORT",
            Self::Addresses { .. } => "HOST:PORT[,HOST:PORT…]",
            Self::Text { .. } | Self::Secret { .. } => "TEXT",
            Self::SecretFile { .. } => "FILE",
        }
    }

    /// The default as it would be written, or "" if there is none.
    pub fn default_text(&self) -> String {
        match self {
            Self::Millis { default, .. }
            | Self::Seconds { default, .. }
            | Self::Count { default, .. } => default.to_string(),
            Self::Bytes { default, .. } => human(*default),
            Self::Switch { .. } => "false".to_owned(),
            Self::Choice { default, .. } => (*default).to_owned(),
            Self::Listen { default, .. } => Address::new(default.0, default.1).to_string(),
            _ => String::new(),
        }
    }

    /// Unit or alternatives, and the range, for people: `milliseconds, 100 to 600000`.
    pub fn domain(&self) -> String {
        let span = |unit, r: &RangeInclusive<u64>| format!("{unit}, {} to {}", r.start(), r.end());
        match self {
            Self::Millis { range, .. } => span("milliseconds", range),
            Self::Seconds { range, .. } => span("seconds", range),
            Self::Count { range, .. } => format!("{} to {}", range.start(), range.end()),
            Self::Bytes { range, .. } => {
                format!(
                    "bytes, {} to {}",
                    human(*range.start()),
                    human(*range.end())
                )
            }
            Self::Switch { .. } => "true, false".into(),
            Self::Choice { of, .. } => of.join(", "),
            Self::Listen { optional: true, .. } => "address, or empty for none".into(),
            Self::Listen { .. } | Self::Place { .. } => "address".into(),
            Self::Addresses { .. } => "addresses".into(),
            Self::Text { .. } | Self::Secret { .. } => "text".into(),
            Self::SecretFile { .. } => "path".into(),
        }
    }

    /// Whether the value must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret { .. })
    }

    /// Whether it may be given several times.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::Addresses { .. })
    }

    pub(super) fn set_default(&self, config: &mut Config) {
        match self {
            Self::Millis { default, set, .. } => set(config, Duration::from_millis(*default)),
            Self::Seconds { default, set, .. } => set(config, Duration::from_secs(*default)),
            Self::Count { default, set, .. } | Self::Bytes { default, set, .. } => {
                set(config, to_usize(*default));
            }
            Self::Switch { set } => set(config, false),
            Self::Choice { default, set, .. } => {
                set(config, default);
            }
            Self::Listen { default, set, .. } => {
                set(config, Some(Address::new(default.0, default.1)));
            }
            Self::Addresses { .. }
            | Self::Place { .. }
            | Self::Text { .. }
            | Self::Secret { .. }
            | Self::SecretFile { .. } => {}
        }
    }

    /// Reads the items given (one, unless it is a list) and sets the field if all are valid.
    pub(super) fn apply(&self, config: &mut Config, items: &[String]) -> Vec<Wrong> {
        let one = items.last().map_or("", String::as_str);
        let result = match self {
            Self::Addresses { set } => return apply_addresses(config, items, *set),
            Self::Millis { range, set, .. } => {
                number(one, range).map(|n| set(config, Duration::from_millis(n)))
            }
            Self::Seconds { range, set, .. } => {
                number(one, range).map(|n| set(config, Duration::from_secs(n)))
            }
            Self::Count { range, set, .. } => number(one, range).map(|n| set(config, to_usize(n))),
            Self::Bytes { range, set, .. } => bytes(one, range).map(|n| set(config, to_usize(n))),
            Self::Switch { set } => switch(one).map(|on| set(config, on)),
            Self::Choice { of, set, .. } => choice(one, of, |word| set(config, word)),
            Self::Listen { optional, set, .. } => {
                listen(one, *optional).map(|address| set(config, address))
            }
            Self::Place { set } => place(one).map(|address| set(config, address)),
            Self::Text { set } => not_empty(one).map(|text| set(config, text.to_owned())),
            Self::Secret { set } => not_empty(one).map(|text| set(config, Secret::new(text))),
            Self::SecretFile { set } => secret_file(one).map(|secret| set(config, secret)),
        };
        result
            .err()
            .map(|message| (0, message))
            .into_iter()
            .collect()
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn number(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(format!(
            "must be a whole number from {} to {}, got {text:?}",
            range.start(),
            range.end()
        )),
    }
}

fn bytes(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let units = [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30), ("", 1)];
    let (digits, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((lower.strip_suffix(suffix)?, *unit)))
        .unwrap_or((&lower, 1));
    let value = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    value.filter(|n| range.contains(n)).ok_or_else(|| {
        format!(
            "must be a number of bytes from {} to {}, got {text:?}",
            human(*range.start()),
            human(*range.end())
        )
    })
}

/// A number of bytes in the largest unit that divides it: `64mb`.
fn human(bytes: u64) -> String {
    let units = [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10)];
    match units
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
    {
        Some((suffix, unit)) => format!("{}{suffix}", bytes / unit),
        None => bytes.to_string(),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("must be true or false, got {text:?}")),
    }
}

fn choice(text: &str, of: &[&str], set: impl FnOnce(&str) -> bool) -> Result<(), String> {
    match set(text.trim()) {
        true => Ok(()),
        false => Err(format!("must be one of {}, got {text:?}", of.join(", "))),
    }
}

fn listen(text: &str, optional: bool) -> Result<Option<Address>, String> {
    match text.trim() {
        "" if optional => Ok(None),
        text => match Address::parse(text) {
            Ok(address) if address.is_unix() => Err(format!(
                "expects HOST:PORT (listen-unix is for paths), got {text:?}"
            )),
            parsed => parsed
                .map(Some)
                .map_err(|wrong| format!("{wrong}, got {text:?}")),
        },
    }
}

fn place(text: &str) -> Result<Address, String> {
    listen(text, false)?.ok_or_else(|| "must not be empty".into())
}

fn not_empty(text: &str) -> Result<&str, String> {
    match text {
        "" => Err("must not be empty".into()),
        text => Ok(text),
    }
}

fn secret_file(path: &str) -> Result<Secret, String> {
    let text = super::file::read_bounded(path.as_ref())
        .map_err(|error| format!("cannot read {path:?}: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{path:?} is empty")),
        secret => Ok(Secret::new(secret)),
    }
}

fn apply_addresses(
    config: &mut Config,
    items: &[String],
    set: fn(&mut Config, Vec<Address>),
) -> Vec<Wrong> {
    let (mut addresses, mut wrong) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let parts = items
        .iter()
        .enumerate()
        .flat_map(|(i, item)| item.split(',').map(move |part| (i, part.trim())));
    for (i, part) in parts {
        match shard_address(part) {
            Ok(address) if seen.insert(address.clone()) => addresses.push(address),
            Ok(address) => wrong.push((i, format!("{address} is given twice"))),
            Err(message) => wrong.push((i, message)),
        }
    }
    if wrong.is_empty() {
        set(config, addresses);
    }
    wrong
}

fn shard_address(text: &str) -> Result<Address, String> {
    match Address::parse(text) {
        Ok(address) if address.port() == 0 && !address.is_unix() => {
            Err(format!("port 0 cannot be reached, got {text:?}"))
        }
        Ok(address) => Ok(address),
        Err(wrong) => Err(format!("{wrong}, got {text:?}")),
    }
}
