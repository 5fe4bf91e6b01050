//! Finds the keys of a command: the rules a server publishes in its `COMMAND` table (legacy
//! first/last/step, or key specifications), plus code for SORT and SORT_RO, whose keys no rule
//! can tell.

use crate::resp::Command;

/// How the keys of a command are found among its arguments (argument 0 is the name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// The command has no keys.
    None,
    /// Exactly one key, at this argument.
    One(usize),
    /// Keys at `first`, `first + step` … up to `last`; a negative `last` counts from the end.
    Range {
        /// Argument of the first key.
        first: usize,
        /// Argument of the last key; -1 is the last argument.
        last: i64,
        /// Distance between keys, at least 1.
        step: usize,
    },
    /// The union of what several specifications find.
    Specs(Vec<KeySpec>),
    /// SORT and SORT_RO.
    Sort,
    /// The server itself does not say where the keys are (MIGRATE).
    Untold,
}

/// A key specification (Redis documentation, "Command key specifications").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Where the search begins.
    pub begin: Begin,
    /// How keys are found from there.
    pub find: Find,
}

/// Where a key specification begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// Behind a keyword (upper case), searched from this argument; negative: backwards from the end.
    Keyword(Vec<u8>, i64),
}

/// How a key specification goes on from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// A range; `last` is relative to the beginning, or counts from the end when negative;
    /// with -1 and a limit of n only the first 1/n of the rest is keys.
    Range {
        /// Last key, see above.
        last: i64,
        /// Distance between keys.
        step: usize,
        /// Divisor, see above; 0 and 1 mean none.
        limit: usize,
    },
    /// The number of keys is itself an argument.
    Count {
        /// Where the number stands, relative to the beginning.
        count: usize,
        /// The first key, relative to the beginning.
        first: usize,
        /// Distance between keys.
        step: usize,
    },
}

/// What a command does to the data of a key, as far as ACLs tell it apart. Neither: it is
/// enough to know the key by any pattern (EXISTS, TYPE).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The data is given back, copied, or decides what happens.
    pub reads: bool,
    /// The data is changed.
    pub writes: bool,
}

impl Access {
    /// Whatever can be done.
    pub const ALL: Self = Self {
        reads: true,
        writes: true,
    };
}

/// Why the keys of a command could not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The arguments do not fit the command's rule; the server refuses such a command with an
    /// error of its own and touches nothing.
    Malformed,
    /// The command touches keys that are not among its arguments (SORT … BY/GET patterns
    /// without a hash tag, MIGRATE).
    Hidden,
}

impl KeyRule {
    /// Appends the argument numbers of all keys to `found`.
    ///
    /// # Errors
    /// See [`KeyError`]; what was appended until then is meaningless.
    pub fn find(&self, command: &Command<'_>, found: &mut Vec<usize>) -> Result<(), KeyError> {
        match self {
            Self::None => Ok(()),
            Self::One(index) => push(command, *index, found),
            Self::Range { first, last, step } => {
                let range = Find::Range {
                    last: last_relative(*last, *first),
                    step: *step,
                    limit: 0,
                };
                range.find(command, *first, found)
            }
            Self::Specs(specs) => specs.iter().try_for_each(|spec| spec.find(command, found)),
            Self::Sort => find_sort(command, found),
            Self::Untold => Err(KeyError::Hidden),
        }
    }

    /// The argument numbers of all keys, each with what is done to it by `accesses`, of which
    /// there is one for each specification.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn find_with(
        &self,
        accesses: &[Access],
        command: &Command<'_>,
    ) -> Result<Vec<(usize, Access)>, KeyError> {
        let mut all = Vec::new();
        let mut add = |found: Vec<usize>, at: usize| {
            let access = accesses.get(at).copied().unwrap_or(Access::ALL);
            all.extend(found.into_iter().map(|key| (key, access)));
        };
        match self {
            Self::Specs(specs) => {
                for (at, spec) in specs.iter().enumerate() {
                    let mut found = Vec::new();
                    spec.find(command, &mut found)?;
                    add(found, at);
                }
            }
            rule => {
                let mut found = Vec::new();
                rule.find(command, &mut found)?;
                add(found, 0);
            }
        }
        Ok(all)
    }
}

/// The legacy `last` is absolute, that of a specification relative to the first key.
fn last_relative(last: i64, first: usize) -> i64 {
    if last < 0 { last } else { last - first as i64 }
}

fn push(command: &Command<'_>, index: usize, found: &mut Vec<usize>) -> Result<(), KeyError> {
    if index >= command.argc() {
        return Err(KeyError::Malformed);
    }
    found.push(index);
    Ok(())
}

impl KeySpec {
    fn find(&self, command: &Command<'_>, found: &mut Vec<usize>) -> Result<(), KeyError> {
        match self.begin.find(command) {
            Some(begin) => self.find.find(command, begin, found),
            None => Ok(()),
        }
    }
}

impl Begin {
    /// The argument at which the keys begin; None when the (optional) keyword is missing.
    fn find(&self, command: &Command<'_>) -> Option<usize> {
        match self {
            Self::Index(index) => Some(*index),
            Self::Keyword(word, from) => {
                let is_word = |i: &usize| arg(command, *i).eq_ignore_ascii_case(word);
                let at = if *from >= 0 {
                    (*from as usize..command.argc()).find(is_word)
                } else {
                    let start = command.argc().checked_sub(from.unsigned_abs() as usize)?;
                    (1..=start).rev().find(is_word)
                };
                at.map(|i| i + 1)
            }
        }
    }
}

impl Find {
    fn find(
        &self,
        command: &Command<'_>,
        begin: usize,
        found: &mut Vec<usize>,
    ) -> Result<(), KeyError> {
        match self {
            // A list up to the end may be empty: PFMERGE without sources writes all the same.
            Self::Range { last: ..0, .. } if begin == command.argc() => Ok(()),
            Self::Range { last, step, limit } => {
                let end = range_end(command.argc(), begin, *last, *limit)?;
                found.extend((begin..=end).step_by(*step));
                Ok(())
            }
            Self::Count { count, first, step } => {
                let count = command
                    .argc()
                    .checked_sub(1)
                    .filter(|&max| begin + count <= max)
                    .map_or(Err(KeyError::Malformed), |_| {
                        parse_count(arg(command, begin + count))
                    })?;
                let first = begin + first;
                // The server checks the count against its arguments and refuses: so may we.
                if count > command.argc() || first + count * step > command.argc() + step - 1 {
                    return Err(KeyError::Malformed);
                }
                found.extend((0..count).map(|i| first + i * step));
                Ok(())
            }
        }
    }
}

/// The last argument of a range that begins at `begin`.
fn range_end(argc: usize, begin: usize, last: i64, limit: usize) -> Result<usize, KeyError> {
    let end = match last {
        0.. => begin as i64 + last,
        -1 if limit > 1 => begin as i64 + (argc as i64 - begin as i64) / limit as i64 - 1,
        _ => argc as i64 + last,
    };
    if end < begin as i64 || end >= argc as i64 {
        return Err(KeyError::Malformed);
    }
    Ok(end as usize)
}

fn arg<'a>(command: &Command<'a>, index: usize) -> &'a [u8] {
    command.arg(index).unwrap_or_default()
}

fn parse_count(argument: &[u8]) -> Result<usize, KeyError> {
    std::str::from_utf8(argument)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(KeyError::Malformed)
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [STORE destination] …: the last
/// STORE wins (`sortGetKeys` of redis-server). BY and GET patterns stand for keys that only the
/// data tells; with a hash tag they have a slot all the same, and count as keys.
fn find_sort(command: &Command<'_>, found: &mut Vec<usize>) -> Result<(), KeyError> {
    push(command, 1, found)?;
    let mut store = None;
    let mut i = 2;
    while i < command.argc() {
        let (option, left) = (arg(command, i), command.argc() - i - 1);
        i += 1;
        if option.eq_ignore_ascii_case(b"limit") && left >= 2 {
            i += 2;
        } else if option.eq_ignore_ascii_case(b"store") && left >= 1 {
            store = Some(i);
            i += 1;
        } else if (option.eq_ignore_ascii_case(b"by") || option.eq_ignore_ascii_case(b"get"))
            && left >= 1
        {
            pattern(arg(command, i), option, i, found)?;
            i += 1;
        }
    }
    found.extend(store);
    Ok(())
}

fn pattern(
    pattern: &[u8],
    option: &[u8],
    at: usize,
    found: &mut Vec<usize>,
) -> Result<(), KeyError> {
    let names_a_key = pattern.contains(&b'*');
    if !names_a_key && (option.eq_ignore_ascii_case(b"by") || pattern == b"#") {
        return Ok(());
    }
    let tag = pattern.iter().position(|&b| b == b'{').and_then(|open| {
        let rest = &pattern[open + 1..];
        rest.iter()
            .position(|&b| b == b'}')
            .map(|close| &rest[..close])
    });
    match tag {
        Some(tag) if !tag.is_empty() && !tag.contains(&b'*') => found.push(at),
        _ => return Err(KeyError::Hidden),
    }
    Ok(())
}
