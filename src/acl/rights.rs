//! What a user may do: commands, keys and channels.

use super::commands::{Catalogue, Commands, Why};
use crate::keyspace::{Access, glob_matches};

const AFTER_ALL_KEYS: &str = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns";
const AFTER_ALL_CHANNELS: &str = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels";

/// Keys that may be read, written, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    access: Access,
    glob: Vec<u8>,
}

/// See the module. Nothing is allowed by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The commands.
    pub commands: Commands,
    keys: Vec<KeyPattern>,
    all_keys: bool,
    channels: Vec<Vec<u8>>,
    all_channels: bool,
}

impl Rights {
    /// Whether there is nothing that the user may not do.
    pub fn is_everything(&self) -> bool {
        self.commands.is_all() && self.all_keys && self.all_channels
    }

    /// Applies one rule; false if it is none of these.
    ///
    /// # Errors
    /// It cannot be applied.
    pub(super) fn apply(&mut self, catalogue: Catalogue<'_>, rule: &str) -> Result<bool, Why> {
        match rule {
            "allkeys" => self.key(Access::ALL, "*")?,
            "resetkeys" => (self.keys, self.all_keys) = (Vec::new(), false),
            "allchannels" => self.channel("*")?,
            "resetchannels" => (self.channels, self.all_channels) = (Vec::new(), false),
            "allcommands" | "nocommands" => self.commands.apply(catalogue, rule)?,
            _ => match rule.split_at_checked(1) {
                Some(("~", glob)) => self.key(Access::ALL, glob)?,
                Some(("%", rest)) => self.qualified_key(rest)?,
                Some(("&", glob)) => self.channel(glob)?,
                Some(("+" | "-", _)) => self.commands.apply(catalogue, rule)?,
                _ => return Ok(false),
            },
        }
        Ok(true)
    }

    fn qualified_key(&mut self, rest: &str) -> Result<(), Why> {
        let (letters, glob) = rest.split_once('~').ok_or("Syntax error")?;
        let mut access = Access::default();
        for letter in letters.chars() {
            match letter.to_ascii_uppercase() {
                'R' if !access.reads => access.reads = true,
                'W' if !access.writes => access.writes = true,
                _ => return Err("Syntax error".into()),
            }
        }
        if letters.is_empty() {
            return Err("Syntax error".into());
        }
        self.key(access, glob)
    }

    fn key(&mut self, access: Access, glob: &str) -> Result<(), Why> {
        if self.all_keys && (glob, access) != ("*", Access::ALL) {
            return Err(AFTER_ALL_KEYS.into());
        }
        if (glob, access) == ("*", Access::ALL) {
            (self.keys, self.all_keys) = (Vec::new(), true);
            return Ok(());
        }
        match self.keys.iter_mut().find(|key| key.glob == glob.as_bytes()) {
            Some(known) => {
                known.access.reads |= access.reads;
                known.access.writes |= access.writes;
            }
            None => self.keys.push(KeyPattern {
                access,
                glob: glob.as_bytes().to_vec(),
            }),
        }
        Ok(())
    }

    fn channel(&mut self, glob: &str) -> Result<(), Why> {
        if glob == "*" {
            (self.channels, self.all_channels) = (Vec::new(), true);
        } else if self.all_channels {
            return Err(AFTER_ALL_CHANNELS.into());
        } else if !self.channels.iter().any(|known| known == glob.as_bytes()) {
            self.channels.push(glob.as_bytes().to_vec());
        }
        Ok(())
    }

    /// Whether all keys may be read, those that only the data names included.
    pub(super) fn reads_every_key(&self) -> bool {
        let mut keys = self.keys.iter();
        self.all_keys || keys.any(|key| key.access.reads && key.glob == b"*")
    }

    /// Whether all keys are open for everything.
    pub(super) fn has_every_key(&self) -> bool {
        self.all_keys
    }

    /// Whether this may be done to this key. One pattern must allow all of it.
    pub(super) fn permit_key(&self, key: &[u8], wanted: Access) -> bool {
        let fits = |pattern: &KeyPattern| {
            (pattern.access.reads || !wanted.reads)
                && (pattern.access.writes || !wanted.writes)
                && glob_matches(&pattern.glob, key)
        };
        self.all_keys || self.keys.iter().any(fits)
    }

    /// Whether all channels are open.
    pub(super) fn has_every_channel(&self) -> bool {
        self.all_channels
    }

    /// Whether this channel is; a pattern of channels must be there as it stands.
    pub(super) fn permit_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let fits = |known: &Vec<u8>| match is_pattern {
            true => known == name,
            false => glob_matches(known, name),
        };
        self.all_channels || self.channels.iter().any(fits)
    }

    /// The keys as ACL GETUSER shows them.
    pub fn keys_text(&self) -> String {
        if self.all_keys {
            return "~*".into();
        }
        let text = |key: &KeyPattern| {
            let glob = String::from_utf8_lossy(&key.glob);
            match (key.access.reads, key.access.writes) {
                (true, false) => format!("%R~{glob}"),
                (false, true) => format!("%W~{glob}"),
                _ => format!("~{glob}"),
            }
        };
        self.keys.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// The channels as ACL GETUSER shows them.
    pub fn channels_text(&self) -> String {
        if self.all_channels {
            return "&*".into();
        }
        let text = |glob: &Vec<u8>| format!("&{}", String::from_utf8_lossy(glob));
        self.channels.iter().map(text).collect::<Vec<_>>().join(" ")
    }
}
