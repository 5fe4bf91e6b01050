//! A MULTI in a shard's append-only file that never got its EXEC.
//!
//! When a crash has cut the file inside a MULTI block, Redis starts (`aof-load-truncated yes`),
//! but leaves the MULTI behind and appends to it. Everything acknowledged since is thrown away
//! by the *next* restart, or, if another MULTI block follows, half of the dead one comes to
//! life. A rewrite of the file (BGREWRITEAOF) right after the first start prevents both.
//!
//! INFO says nothing of it. So the file itself is read, if it can be: on the shard's machine, by
//! who may read it. Whether the files found here are the shard's is told by what its
//! process has open, or by their size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::facts::Facts;
use super::finding::Finding;
use crate::engine::Engine;
use crate::operator::render::span;

/// Read of one shard's files at most.
const BYTES_MAX: u64 = 8 << 30;
/// A manifest is a few lines.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Longest line of a length.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// A block is written in one go; one that is open for longer than this stays so.
const PAUSE: Duration = Duration::from_millis(200);

/// A MULTI without its EXEC.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Dangling {
    file: PathBuf,
    at: u64,
}

/// Looks into a shard's AOF, if it has one.
pub(super) async fn finding(engine: &Rc<Engine>, shard: u16, facts: &Facts) -> Option<Finding> {
    if facts.info("aof_enabled") != "1" {
        return None;
    }
    match look(engine, shard, facts).await {
        Ok(None) => None,
        Ok(Some(Dangling { file, at })) => {
            let text = format!(
                "its AOF has a MULTI without EXEC at byte {at} of {}: the next restart loses everything written since, or brings half a transaction to life; run BGREWRITEAOF now",
                file.display()
            );
            Some(Finding::error(shard, "dangling-multi", text))
        }
        Err(why) => Some(Finding::note(shard, "aof-hidden", hidden(facts, &why))),
    }
}

/// What can be said without the file.
fn hidden(facts: &Facts, why: &str) -> String {
    let rewritten = match (
        facts.number("aof_rewrites"),
        facts.number("uptime_in_seconds"),
    ) {
        (Some(0), Some(uptime)) => format!(
            "; it has not rewritten its AOF since its start {} ago",
            span(uptime.saturating_mul(1_000))
        ),
        _ => String::new(),
    };
    format!(
        "its AOF cannot be read here ({why}){rewritten}: if it was started after a crash, run BGREWRITEAOF once, against a MULTI that the crash may have cut off"
    )
}

async fn look(engine: &Rc<Engine>, shard: u16, facts: &Facts) -> Result<Option<Dangling>, String> {
    let setting = |name| facts.setting(name).ok_or("CONFIG GET is not allowed");
    let folder = Path::new(setting("dir")?).join(setting("appenddirname")?);
    let manifest = folder.join(format!("{}.manifest", setting("appendfilename")?));
    let before = read_manifest(&manifest)?;
    // Read in between: the size grows with every write.
    let facts = Facts::ask(engine, shard).await?;
    let after = read_manifest(&manifest)?;
    if !is_open(&facts, &after) && !has_size(&facts, &before, &after) {
        return Err(format!(
            "nothing shows that {} is this shard's",
            manifest.display()
        ));
    }
    let first = search(after.appended).await?;
    if first.is_none() {
        return Ok(None);
    }
    tokio::time::sleep(PAUSE).await;
    let second = search(read_manifest(&manifest)?.appended).await?;
    Ok(first.filter(|found| second.as_ref() == Some(found)))
}

/// Whether the shard's process has the last of the files open, where the system tells that.
fn is_open(facts: &Facts, manifest: &Manifest) -> bool {
    let (Some(pid), Some(last)) = (facts.number("process_id"), manifest.appended.last()) else {
        return false;
    };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let mut files = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    files.any(|file| file == *last)
}

/// Whether the files are as long as the shard says. Until its first rewrite or restart it does
/// not count the base; after a start that has cut the file it counts what was cut.
fn has_size(facts: &Facts, before: &Manifest, after: &Manifest) -> bool {
    let within = |size: u64| {
        (before.bytes..=after.bytes).contains(&size)
            || (before.appended_bytes..=after.appended_bytes).contains(&size)
    };
    facts.number("aof_current_size").is_some_and(within)
}

/// The files of an AOF.
#[derive(Default)]
struct Manifest {
    /// Those that commands are or were appended to, in order.
    appended: Vec<PathBuf>,
    /// Their size.
    appended_bytes: u64,
    /// Size of all.
    bytes: u64,
}

/// Lines such as `file appendonly.aof.1.incr.aof seq 1 type i`.
fn read_manifest(path: &Path) -> Result<Manifest, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let read = file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    let mut manifest = Manifest::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).copied()
        };
        let (Some(name), Some(kind)) = (after("file"), after("type")) else {
            continue;
        };
        if kind == "h" {
            continue;
        }
        let file = path.with_file_name(name);
        let size = file
            .metadata()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        manifest.bytes += size.len();
        if kind == "i" {
            manifest.appended_bytes += size.len();
            manifest.appended.push(file);
        }
    }
    Ok(manifest)
}

async fn search(files: Vec<PathBuf>) -> Result<Option<Dangling>, String> {
    let task = tokio::task::spawn_blocking(move || search_blocking(files));
    task.await.map_err(|error| error.to_string())?
}

fn search_blocking(files: Vec<PathBuf>) -> Result<Option<Dangling>, String> {
    let mut left = BYTES_MAX;
    for file in files {
        let failed = |error: io::Error| format!("{}: {error}", file.display());
        let reader = BufReader::with_capacity(1 << 20, File::open(&file).map_err(failed)?);
        let (found, read) = dangling(reader, left).map_err(failed)?;
        if let Some(at) = found {
            return Ok(Some(Dangling { file, at }));
        }
        left = left.saturating_sub(read);
        if left == 0 {
            return Err(format!("it is longer than {} GiB", BYTES_MAX >> 30));
        }
    }
    Ok(None)
}

/// Where the first MULTI stands that is followed by another one, or by the end, before its EXEC;
/// and how many bytes were read. What is cut off at the end is no command.
fn dangling(reader: impl BufRead, bytes_max: u64) -> io::Result<(Option<u64>, u64)> {
    let mut commands = Commands { reader, at: 0 };
    let mut open = None;
    while commands.at < bytes_max {
        let start = commands.at;
        match commands.next()? {
            None => return Ok((open, commands.at)),
            Some(Marker::Multi) if open.is_some() => return Ok((open, commands.at)),
            Some(Marker::Multi) => open = Some(start),
            Some(Marker::Exec) => open = None,
            Some(Marker::Other) => {}
        }
    }
    Ok((None, commands.at))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Marker {
    Multi,
    Exec,
    Other,
}

/// Commands of a file, of which only these two are told apart.
struct Commands<R> {
    reader: R,
    at: u64,
}

impl<R: BufRead> Commands<R> {
    /// The next one; None at the end, also inside a command that is cut off.
    fn next(&mut self) -> io::Result<Option<Marker>> {
        loop {
            let Some(line) = self.line()? else {
                return Ok(None);
            };
            if line.first() == Some(&b'#') {
                continue;
            }
            let count = number(b'*', &line)?;
            return self.arguments(count);
        }
    }

    fn arguments(&mut self, count: u64) -> io::Result<Option<Marker>> {
        let mut marker = Marker::Other;
        for _ in 0..count {
            let Some(line) = self.line()? else {
                return Ok(None);
            };
            let len = number(b'$', &line)?;
            if count == 1 && len <= 5 {
                let Some(name) = self.bytes(len + 2)? else {
                    return Ok(None);
                };
                marker = match name.to_ascii_uppercase().as_slice() {
                    b"MULTI\r\n" => Marker::Multi,
                    b"EXEC\r\n" => Marker::Exec,
                    _ => Marker::Other,
                };
            } else if !self.skip(len.saturating_add(2))? {
                return Ok(None);
            }
        }
        Ok(Some(marker))
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = self
            .reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?;
        self.at += read as u64;
        Ok(line.ends_with(b"\n").then_some(line))
    }

    fn bytes(&mut self, len: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.at += self.reader.by_ref().take(len).read_to_end(&mut bytes)? as u64;
        Ok((bytes.len() as u64 == len).then_some(bytes))
    }

    fn skip(&mut self, len: u64) -> io::Result<bool> {
        let skipped = io::copy(&mut self.reader.by_ref().take(len), &mut io::sink())?;
        self.at += skipped;
        Ok(skipped == len)
    }
}

fn number(kind: u8, line: &[u8]) -> io::Result<u64> {
    let digits = line
        .strip_prefix(&[kind])
        .and_then(|rest| std::str::from_utf8(rest).ok());
    digits
        .and_then(|digits| digits.trim_end().parse().ok())
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it is not in the form of an AOF"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nMULTI\r\n";
    const MULTI: &str = "*1\r\n$5\r\nMULTI\r\n";
    const EXEC: &str = "*1\r\n$4\r\nEXEC\r\n";

    fn found(parts: &[&str]) -> Option<u64> {
        dangling(parts.concat().as_bytes(), u64::MAX).unwrap().0
    }

    #[test]
    fn whole_blocks_are_sound() {
        assert_eq!(found(&[]), None);
        assert_eq!(
            found(&["#TS:1700000000\r\n", SET, MULTI, SET, EXEC, SET]),
            None
        );
    }

    #[test]
    fn a_multi_without_exec_is_found_where_it_stands() {
        let start = SET.len() as u64;
        assert_eq!(found(&[SET, MULTI, SET, SET]), Some(start));
        assert_eq!(found(&[SET, MULTI, SET, MULTI, SET, EXEC]), Some(start));
        // A cut inside a command: the block never ended either.
        assert_eq!(found(&[SET, MULTI, SET, &SET[..9]]), Some(start));
    }

    #[test]
    fn what_is_cut_off_outside_a_block_is_nothing() {
        assert_eq!(found(&[SET, MULTI, EXEC, &SET[..20]]), None);
        assert_eq!(found(&[SET, &MULTI[..9]]), None);
    }

    #[test]
    fn what_is_no_aof_is_refused() {
        assert!(dangling(&b"REDIS0010"[..], u64::MAX).unwrap().0.is_none());
        assert!(dangling(&b"SET k v\r\n"[..], u64::MAX).is_err());
    }
}
