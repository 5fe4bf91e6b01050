//! One user.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::DEFAULT;
use super::commands::{Catalogue, Why};
use super::rights::Rights;

const NO_PASSWORD: &str = "The password you are trying to remove from the user does not exist";
const HASH: &str = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
const SELECTORS: &str =
    "selectors, (…), are not supported by lockstep: give the user a single set of rules";

/// A password, as it is kept: its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a password.
    pub fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// These bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Of 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return None,
                };
                *byte = *byte << 4 | value;
            }
        }
        Some(Self(bytes))
    }

    /// In the same time wherever they differ.
    fn is(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(other.0);
        pairs.fold(0, |all, (one, other)| all | (one ^ other)) == 0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What clients call it.
    pub name: String,
    is_on: bool,
    is_open: bool,
    /// `sanitize-payload` or `skip-sanitize-payload`, if said: kept for show.
    payloads: Option<&'static str>,
    passwords: Vec<Digest>,
    /// What it may do.
    pub rights: Rights,
}

impl User {
    /// One who may do nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            is_on: false,
            is_open: false,
            payloads: None,
            passwords: Vec::new(),
            rights: Rights::default(),
        }
    }

    /// The default user as nobody has changed it: no password, and everything allowed.
    pub fn default_user(catalogue: Catalogue<'_>) -> Self {
        let mut user = Self::new(DEFAULT);
        for rule in ["on", "nopass", "~*", "&*", "+@all"] {
            // These exist whatever the catalogue knows.
            let _ = user.apply(catalogue, rule);
        }
        user
    }

    /// The same with this password.
    pub fn default_with(catalogue: Catalogue<'_>, password: Digest) -> Self {
        let user = Self::default_user(catalogue);
        Self {
            is_open: false,
            passwords: vec![password],
            ..user
        }
    }

    /// Applies one rule of ACL SETUSER.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn apply(&mut self, catalogue: Catalogue<'_>, rule: &str) -> Result<(), String> {
        if rule.contains(|c: char| c == '\0' || c.is_ascii_whitespace()) {
            return Err("Syntax error".into());
        }
        // As in redis-server, words are known in either case.
        let word = rule.to_ascii_lowercase();
        match word.as_str() {
            "on" => self.is_on = true,
            "off" => self.is_on = false,
            "nopass" => (self.is_open, self.passwords) = (true, Vec::new()),
            "resetpass" => (self.is_open, self.passwords) = (false, Vec::new()),
            "sanitize-payload" => self.payloads = Some("sanitize-payload"),
            "skip-sanitize-payload" => self.payloads = Some("skip-sanitize-payload"),
            "reset" => *self = Self::new(std::mem::take(&mut self.name)),
            "clearselectors" => {}
            "allkeys" | "resetkeys" | "allchannels" | "resetchannels" | "allcommands"
            | "nocommands" => {
                self.rights.apply(catalogue, &word)?;
            }
            _ => return self.apply_sign(catalogue, rule),
        }
        Ok(())
    }

    fn apply_sign(&mut self, catalogue: Catalogue<'_>, rule: &str) -> Result<(), Why> {
        let hash = |text| Digest::parse(text).ok_or_else(|| HASH.to_owned());
        match rule.split_at_checked(1) {
            Some((">", password)) => self.add(Digest::of(password.as_bytes())),
            Some(("#", text)) => self.add(hash(text)?),
            Some(("<", password)) => self.remove(Digest::of(password.as_bytes()))?,
            Some(("!", text)) => self.remove(hash(text)?)?,
            Some(("(", _)) => return Err(SELECTORS.into()),
            _ if self.rights.apply(catalogue, rule)? => {}
            _ => return Err("Syntax error".into()),
        }
        Ok(())
    }

    fn add(&mut self, password: Digest) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.is_open = false;
    }

    fn remove(&mut self, password: Digest) -> Result<(), Why> {
        let at = self.passwords.iter().position(|known| *known == password);
        self.passwords.remove(at.ok_or(NO_PASSWORD)?);
        Ok(())
    }

    /// Whether a client may be this user without a password.
    pub fn is_open(&self) -> bool {
        self.is_on && self.is_open
    }

    /// Whether no password is asked for, though the user may be disabled.
    pub fn has_no_password(&self) -> bool {
        self.is_open
    }

    /// Whether this password makes a client this user.
    pub fn admits(&self, password: &[u8]) -> bool {
        let given = Digest::of(password);
        let matches = self
            .passwords
            .iter()
            .fold(false, |all, one| all | one.is(&given));
        self.is_on && (self.is_open || matches)
    }

    /// The flags as ACL GETUSER shows them.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        flags.extend(self.is_open.then_some("nopass"));
        flags.extend(self.payloads);
        flags
    }

    /// The hashes of its passwords.
    pub fn passwords(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(Digest::to_string)
    }

    /// The user's line in ACL LIST.
    pub fn line(&self) -> String {
        let mut words = vec!["user".to_owned(), self.name.clone()];
        words.extend(self.flags().into_iter().map(str::to_owned));
        words.extend(self.passwords.iter().map(|digest| format!("#{digest}")));
        let keys = self.rights.keys_text();
        words.extend((!keys.is_empty()).then_some(keys));
        let channels = self.rights.channels_text();
        words.extend((channels != "&*").then(|| "resetchannels".to_owned()));
        words.extend((!channels.is_empty()).then_some(channels));
        words.push(self.rights.commands.text());
        words.join(" ")
    }
}
