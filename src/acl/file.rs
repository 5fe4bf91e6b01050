//! The file of users: one line for each, `user NAME rule…`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::DEFAULT;
use super::commands::Catalogue;
use super::user::{Digest, User};

/// A mistake, and its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// A file that was read, rules not applied.
#[derive(Clone, Debug, Default)]
pub struct Drafts(Vec<Draft>);

#[derive(Clone, Debug)]
struct Draft {
    line: usize,
    name: String,
    rules: Vec<String>,
}

impl Drafts {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong, as far as it can be told without the servers' commands.
    pub fn read(text: &str) -> Result<Self, Vec<Mistake>> {
        let (mut drafts, mut mistakes) = (Vec::<Draft>::new(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            let line_number = at + 1;
            match Draft::read(line_number, line) {
                Ok(None) => {}
                Ok(Some(draft)) if drafts.iter().any(|known| known.name == draft.name) => {
                    mistakes.push(Mistake {
                        line: line_number,
                        what: format!("user {} is there twice", draft.name),
                    });
                }
                Ok(Some(draft)) => drafts.push(draft),
                Err(what) => mistakes.push(Mistake {
                    line: line_number,
                    what,
                }),
            }
        }
        let drafts = Self(drafts);
        mistakes.extend(
            Users::new(Catalogue::Unknown, &drafts)
                .err()
                .unwrap_or_default(),
        );
        mistakes.sort_by_key(|mistake| mistake.line);
        match mistakes.is_empty() {
            true => Ok(drafts),
            false => Err(mistakes),
        }
    }

    /// Whether the default user is among them. If not, it needs no password and may do everything.
    pub fn has_default(&self) -> bool {
        self.0.iter().any(|draft| draft.name == DEFAULT)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Draft {
    /// None for a line without words.
    fn read(line_number: usize, line: &str) -> Result<Option<Self>, String> {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            None => return Ok(None),
            Some("user") => {}
            Some(_) => return Err("the line must begin with the word user".into()),
        }
        let name = words.next().ok_or("the user has no name")?;
        if name.contains('\0') {
            return Err("the user's name contains a NUL".into());
        }
        Ok(Some(Self {
            line: line_number,
            name: name.to_owned(),
            rules: words.map(str::to_owned).collect(),
        }))
    }
}

/// All users. There is always one of the name [`DEFAULT`].
#[derive(Clone, Debug)]
pub struct Users {
    by_name: BTreeMap<String, Arc<User>>,
    /// The default user among them, at hand.
    default: Arc<User>,
}

impl Users {
    /// Applies all rules.
    ///
    /// # Errors
    /// Every rule that cannot be applied.
    pub fn new(catalogue: Catalogue<'_>, drafts: &Drafts) -> Result<Self, Vec<Mistake>> {
        let (mut by_name, mut mistakes) = (BTreeMap::new(), Vec::new());
        for draft in &drafts.0 {
            let mut user = User::new(&draft.name);
            for rule in &draft.rules {
                if let Err(why) = user.apply(catalogue, rule) {
                    // A password is not for the log.
                    let shown = match rule.starts_with(['>', '<']) {
                        true => "a password",
                        false => rule.as_str(),
                    };
                    mistakes.push(Mistake {
                        line: draft.line,
                        what: format!("{shown}: {why}"),
                    });
                }
            }
            by_name.insert(draft.name.clone(), Arc::new(user));
        }
        match mistakes.is_empty() {
            true => Ok(Self::of(catalogue, by_name)),
            false => Err(mistakes),
        }
    }

    /// The default user alone, with this password if there is one.
    pub fn alone(catalogue: Catalogue<'_>, password: Option<Digest>) -> Self {
        let mut by_name = BTreeMap::new();
        if let Some(password) = password {
            let user = User::default_with(catalogue, password);
            by_name.insert(DEFAULT.to_owned(), Arc::new(user));
        }
        Self::of(catalogue, by_name)
    }

    fn of(catalogue: Catalogue<'_>, mut by_name: BTreeMap<String, Arc<User>>) -> Self {
        let default = by_name
            .entry(DEFAULT.to_owned())
            .or_insert_with(|| Arc::new(User::default_user(catalogue)));
        Self {
            default: Arc::clone(default),
            by_name,
        }
    }

    /// The user that clients are at first.
    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// A user by name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(std::str::from_utf8(name).ok()?)
    }

    /// All, by name.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// The user of this name, if the password is right.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.get(name).filter(|user| user.admits(password));
        user.map(Arc::clone)
    }
}
