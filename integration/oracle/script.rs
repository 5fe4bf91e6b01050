//! The text form of command sequences.
//!
//! ```text
//! == a name
//! SET k "quoted, with \x00 and \r\n"     one command
//! @ SET k v                              the same on another connection, which stays open
//! !raw 2 "PING\r\nECHO hi\r\n"           bytes as they are, and how many replies they have
//! !sleep 30                              milliseconds
//! !closed                                now the server closes the connection
//! !reconnect                             go on with a new connection
//! ```
//! Lines that start with `#` and empty lines are left out.

use crate::support::escape;
use std::fmt::Write as _;
use std::path::Path;

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A command, sent as an array of bulk strings.
    Command(Vec<Vec<u8>>),
    /// A command of another client, sent when all before it are answered.
    Other(Vec<Vec<u8>>),
    /// Bytes as they are, and how many replies they have.
    Raw(Vec<u8>, usize),
    /// Waits so many milliseconds.
    Sleep(u64),
    /// The server closes the connection here.
    Closed,
    /// Goes on with a new connection.
    Reconnect,
}

/// A named sequence.
#[derive(Clone, Debug)]
pub struct Script {
    /// `topic: name`.
    pub name: String,
    /// What to do.
    pub steps: Vec<Step>,
}

impl Script {
    /// The same by a client that says HELLO first, on every connection; in RESP2, which needs no
    /// word, without.
    pub fn speaking(&self, protocol: &str) -> Script {
        if protocol == "2" {
            return self.clone();
        }
        let hello = Step::Command(vec![b"HELLO".to_vec(), protocol.as_bytes().to_vec()]);
        let mut steps = vec![hello.clone()];
        for step in &self.steps {
            steps.push(step.clone());
            if *step == Step::Reconnect {
                steps.push(hello.clone());
            }
        }
        Script {
            name: format!("{} (RESP{protocol})", self.name),
            steps,
        }
    }
}

/// Every script in `scripts/`, in the order of topics.
pub fn all() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/oracle/scripts");
    let entries = std::fs::read_dir(&folder).expect("the scripts' folder");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.iter().flat_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vec<Script> {
    let topic = path
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let text = std::fs::read_to_string(path).expect("a script file");
    let mut scripts: Vec<Script> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("== ") {
            let name = format!("{topic}: {name}");
            scripts.push(Script {
                name,
                steps: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let place = || format!("{}:{}: {line}", path.display(), number + 1);
            let script = scripts
                .last_mut()
                .unwrap_or_else(|| panic!("no name yet: {}", place()));
            script
                .steps
                .push(step(line).unwrap_or_else(|| panic!("cannot read {}", place())));
        }
    }
    scripts
}

fn step(line: &str) -> Option<Step> {
    let words = words(line)?;
    let number = |index: usize| {
        std::str::from_utf8(words.get(index)?)
            .ok()?
            .parse::<u64>()
            .ok()
    };
    match words.first()?.as_slice() {
        b"!raw" => Some(Step::Raw(
            words.get(2)?.clone(),
            usize::try_from(number(1)?).ok()?,
        )),
        b"!sleep" => Some(Step::Sleep(number(1)?)),
        b"!closed" => Some(Step::Closed),
        b"!reconnect" => Some(Step::Reconnect),
        b"@" => Some(Step::Other(words.get(1..)?.to_vec())),
        word if word.starts_with(b"!") => None,
        _ => Some(Step::Command(words)),
    }
}

/// Words apart by blanks; `"…"` holds blanks and escapes (`\n \r \t \\ \" \xHH`).
pub fn words(line: &str) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(first) = bytes.next() else {
            return Some(words);
        };
        let mut word = Vec::new();
        if first == b'"' {
            loop {
                match bytes.next()? {
                    b'"' => break,
                    b'\\' => word.push(escaped(&mut bytes)?),
                    byte => word.push(byte),
                }
            }
        } else {
            word.push(first);
            while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
                word.push(byte);
            }
        }
        words.push(word);
    }
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    Some(match bytes.next()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits = [bytes.next()?, bytes.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        }
        byte @ (b'\\' | b'"') => byte,
        _ => return None,
    })
}

/// The steps as script text, the one at `mark` marked by an arrow.
pub fn print(steps: &[Step], mark: usize) -> String {
    let mut text = String::new();
    for (index, step) in steps.iter().enumerate().take(mark.saturating_add(1)) {
        let arrow = if index == mark { "->" } else { "  " };
        let command = |args: &[Vec<u8>]| {
            let args: Vec<_> = args.iter().map(|arg| quote(arg)).collect();
            args.join(" ")
        };
        let line = match step {
            Step::Command(args) => command(args),
            Step::Other(args) => format!("@ {}", command(args)),
            Step::Raw(bytes, replies) => format!("!raw {replies} {}", quote(bytes)),
            Step::Sleep(millis) => format!("!sleep {millis}"),
            Step::Closed => "!closed".to_owned(),
            Step::Reconnect => "!reconnect".to_owned(),
        };
        let shown: String = line.chars().take(400).collect();
        let _ = writeln!(text, "{arrow} {shown}");
    }
    text
}

fn quote(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    format!("\"{}\"", escape(bytes).replace("\\'", "'"))
}

#[test]
fn words_come_back_as_printed() {
    let args: Vec<Vec<u8>> = vec![b"SET".to_vec(), vec![], b"a b\"\\\x00\r\n'".to_vec()];
    let text = print(&[Step::Command(args.clone())], 9);
    assert_eq!(words(text.trim()), Some(args));
    assert_eq!(words("SET \"open"), None);
}
