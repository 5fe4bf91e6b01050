//! The TOML file: keys and values with the lines they stand on.

use std::io::{self, Read};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::{Origin, Problem};
use super::{Kind, SETTINGS, Setting};

/// No file of ours is near this long; a device or a log given by mistake is.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file gives for one setting: items, each with the line it stands on.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) items: Vec<String>,
    pub(super) lines: Vec<usize>,
}

/// Reads a text file of bounded length.
/// Reads a small file.
///
/// # Errors
/// It cannot be read, is longer than a mebibyte, or is not UTF-8.
pub fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(text)
}

/// Everything the text gives, and everything that is wrong with its form; values are not looked
/// into here.
pub(super) fn parse(path: &Path, text: &str) -> (Vec<Given>, Vec<Problem>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let at = |offset: usize| Origin::File(path.to_owned(), Some(lines.line(offset)));
    let mut problems: Vec<_> = errors
        .iter()
        .map(|error| Problem {
            origin: at(error.span().map_or(0, |span| span.start)),
            key: None,
            message: error.message().to_owned(),
        })
        .collect();
    let mut given = Vec::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        let Some(setting) = SETTINGS.iter().find(|s| s.name == name) else {
            // What the parser made of a line that it could not read is no key of anybody's.
            if problems
                .iter()
                .any(|p| p.key.is_none() && p.origin == at(key.span().start))
            {
                continue;
            }
            problems.push(Problem {
                origin: at(key.span().start),
                key: Some(name.to_owned()),
                message: unknown(name),
            });
            continue;
        };
        let (found, wrong) = items(setting, value, &lines);
        let wrong = wrong.into_iter();
        problems.extend(wrong.map(|(offset, text)| Problem::of(setting, at(offset), text)));
        if !found.items.is_empty() {
            given.push(found);
        }
    }
    (given, problems)
}

/// The items given for a setting, and those of a wrong type with their offsets. An empty array
/// gives nothing.
fn items(
    setting: &'static Setting,
    value: &Spanned<DeValue<'_>>,
    lines: &Lines,
) -> (Given, Vec<(usize, String)>) {
    let values = match value.get_ref() {
        DeValue::Array(array) if setting.kind.is_list() => array,
        _ => std::slice::from_ref(value),
    };
    let (mut items, mut item_lines, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for value in values {
        let offset = value.span().start;
        match scalar(&setting.kind, value.get_ref()) {
            Ok(text) => {
                items.push(text);
                item_lines.push(lines.line(offset));
            }
            Err(message) => wrong.push((offset, message)),
        }
    }
    let given = Given {
        setting,
        items,
        lines: item_lines,
    };
    (given, wrong)
}

/// The value as text if its TOML type is the one wanted.
fn scalar(kind: &Kind, value: &DeValue<'_>) -> Result<String, String> {
    let numeric = matches!(
        kind,
        Kind::Millis { .. } | Kind::Seconds { .. } | Kind::Count { .. } | Kind::Bytes { .. }
    );
    let is_switch = matches!(kind, Kind::Switch { .. });
    let textual = !(numeric || is_switch) || matches!(kind, Kind::Bytes { .. });
    match value {
        DeValue::Boolean(on) if is_switch => Ok(on.to_string()),
        DeValue::Integer(n) if numeric => Ok(decimal(n)),
        DeValue::String(text) if textual => Ok(text.clone().into_owned()),
        other => Err(format!(
            "must be {} ({}), not {} {}",
            wanted(kind),
            kind.domain(),
            article(other.type_str()),
            other.type_str()
        )),
    }
}

fn wanted(kind: &Kind) -> &'static str {
    match kind {
        Kind::Millis { .. } | Kind::Seconds { .. } | Kind::Count { .. } => "an integer",
        Kind::Bytes { .. } => "an integer or a string",
        Kind::Switch { .. } => "a boolean",
        Kind::Addresses { .. } => "a string or an array of strings",
        _ => "a string",
    }
}

fn article(noun: &str) -> &'static str {
    match noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    }
}

fn decimal(n: &DeInteger<'_>) -> String {
    match i128::from_str_radix(n.as_str(), n.radix()) {
        Ok(value) => value.to_string(),
        Err(_) => n.to_string(),
    }
}

/// What to say about a key that is none of ours.
pub(super) fn unknown(key: &str) -> String {
    match nearest(key) {
        Some(name) => format!("unknown setting; did you mean {name}?"),
        None => "unknown setting; `lockstep --help` lists all".to_owned(),
    }
}

/// The setting whose name is most like this one, if any is like it at all.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('_', "-");
    let names = || SETTINGS.iter().map(|s| s.name);
    let longer = |name: &&str| key.len() >= 4 && name.starts_with(&key);
    let close = |name: &&'static str| strsim::damerau_levenshtein(name, &key);
    names()
        .find(|name| *name == key)
        .or_else(|| names().find(longer))
        .or_else(|| {
            names()
                .min_by_key(close)
                .filter(|n| close(n) <= 1 + n.len() / 5)
        })
}

/// Offsets at which the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let starts = text.match_indices('\n').map(|(i, _)| i + 1);
        Self(std::iter::once(0).chain(starts).collect())
    }

    /// Number of the line (from 1) that holds this offset.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}
