//! The redo of a branch: what a participant promised to run, as it stands in its record.
//!
//! Two byte strings, both MessagePack, since Redis's Lua decodes that in C: the commands (an
//! array of arrays of strings) and the keys (an array of strings: those the commands name and
//! those the client merely watched). Only what both ends need is used: arrays and raw strings.
//!
//! [`fidelity()`] says whether a command's reply comes out of a Lua script as Redis would have
//! sent it natively. Branches of such commands can be applied by the script `apply`; others go
//! through `MULTI/EXEC` on a connection of their own.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

mod fidelity;

pub use fidelity::{Fidelity, fidelity, script_commands};

/// The most arguments a command may have in a script (Lua's `unpack` ends near 8,000).
pub const SCRIPT_ARGS_MAX: usize = 7_000;

/// The tag of a short array, to which its length is added.
const EMPTY_ARRAY: u8 = 0x90;
/// Length of what a redo begins with: an array's tag and its count.
const HEAD_LEN: usize = 5;

/// What one participant promised: both fields of its record, encoded once per EXEC and used
/// for every attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The commands, see [`decode`].
    pub redo: Bytes,
    /// The keys, see [`decode_keys`].
    pub keys: Bytes,
    /// How the commands' replies survive the script `apply`; the worst of all commands.
    pub fidelity: Fidelity,
}

impl Intent {
    /// All of these, one behind the other; `keys` are those of all.
    pub fn join<'a, I>(intents: impl Iterator<Item = &'a Self> + Clone, keys: I) -> Self
    where
        I: IntoIterator<Item = &'a [u8]>,
        I::IntoIter: ExactSizeIterator,
    {
        let len: usize = intents.clone().map(|intent| intent.redo.len()).sum();
        let mut joined = IntentBuilder::with_capacity(HEAD_LEN + len);
        for intent in intents {
            let (head, commands) = intent.redo.split_at(HEAD_LEN);
            joined.redo.extend_from_slice(commands);
            joined.commands += head[1..]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            joined.fidelity = joined.fidelity.max(intent.fidelity);
        }
        joined.finish(keys)
    }
}

/// Collects the commands of a branch into an [`Intent`].
#[derive(Debug)]
pub struct IntentBuilder {
    redo: BytesMut,
    commands: u32,
    fidelity: Fidelity,
}

/// A redo or key list that lockstep did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed redo at byte {at}")]
pub struct Malformed {
    /// Offset of the first byte that makes no sense.
    pub at: usize,
}

impl Default for IntentBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl IntentBuilder {
    /// A branch without commands (a participant that is only watched).
    pub fn new() -> Self {
        Self::with_capacity(128)
    }

    fn with_capacity(bytes: usize) -> Self {
        let mut redo = BytesMut::with_capacity(bytes);
        put_array32(&mut redo, 0);
        Self {
            redo,
            commands: 0,
            fidelity: Fidelity::Exact,
        }
    }

    /// Adds a command, its name first. The command must have at least one argument and fewer
    /// than 2^32, each shorter than 4 GiB; the front end's limits are far below that.
    pub fn command<'a, I>(&mut self, args: I)
    where
        I: IntoIterator<Item = &'a [u8]>,
        I::IntoIter: ExactSizeIterator + Clone,
    {
        let args = args.into_iter();
        self.fidelity = self.fidelity.max(fidelity(args.clone()));
        put_strings(&mut self.redo, args);
        self.commands += 1;
    }

    /// The branch needs a connection of its own, whatever its commands are.
    pub fn only_natively(&mut self) {
        self.fidelity = Fidelity::Never;
    }

    /// Ends the branch; `keys` are all keys to be locked.
    pub fn finish<'a, I>(mut self, keys: I) -> Intent
    where
        I: IntoIterator<Item = &'a [u8]>,
        I::IntoIter: ExactSizeIterator,
    {
        self.redo[1..HEAD_LEN].copy_from_slice(&self.commands.to_be_bytes());
        Intent {
            redo: self.redo.freeze(),
            keys: encode_keys(keys),
            fidelity: self.fidelity,
        }
    }
}

/// Encodes a list of keys as records hold it.
pub fn encode_keys<'a, I>(keys: I) -> Bytes
where
    I: IntoIterator<Item = &'a [u8]>,
    I::IntoIter: ExactSizeIterator,
{
    let keys = keys.into_iter();
    if keys.len() == 0 {
        return Bytes::from_static(&[EMPTY_ARRAY]);
    }
    let mut out = BytesMut::with_capacity(32);
    put_strings(&mut out, keys);
    out.freeze()
}

/// The commands of a redo, each with its arguments, the name first.
///
/// # Errors
/// [`Malformed`] if the bytes are not what [`IntentBuilder`] writes.
pub fn decode(redo: &[u8]) -> Result<Vec<Vec<&[u8]>>, Malformed> {
    let mut reader = Reader { bytes: redo, at: 0 };
    let count = reader.array()?;
    let commands = (0..count)
        .map(|_| reader.strings())
        .collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(commands)
}

/// The keys of a record's `keys` field.
///
/// # Errors
/// [`Malformed`] if the bytes are not what [`encode_keys`] writes.
pub fn decode_keys(keys: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut reader = Reader { bytes: keys, at: 0 };
    let keys = reader.strings()?;
    reader.end()?;
    Ok(keys)
}

fn put_array32(out: &mut BytesMut, len: u32) {
    out.put_u8(0xdd);
    out.put_u32(len);
}

pub(super) fn put_strings<'a>(out: &mut BytesMut, items: impl ExactSizeIterator<Item = &'a [u8]>) {
    match items.len() {
        len @ 0..=15 => out.put_u8(EMPTY_ARRAY | len as u8),
        len => put_array32(out, u32::try_from(len).unwrap_or(u32::MAX)),
    }
    for item in items {
        match item.len() {
            len @ 0..=31 => out.put_u8(0xa0 | len as u8),
            len @ 32..=255 => out.put_slice(&[0xd9, len as u8]),
            len => {
                out.put_u8(0xdb);
                out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
            }
        }
        out.put_slice(item);
    }
}

/// Reads the subset of MessagePack that is written here.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { at: self.at })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len).ok_or(Malformed { at: self.at })?;
        let Some(taken) = self.bytes.get(self.at..end) else {
            return self.fail();
        };
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<usize, Malformed> {
        let number = self.take(len)?.iter();
        Ok(number.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// The length of an array. Bounded by what is left, since no element is shorter than a byte.
    fn array(&mut self) -> Result<usize, Malformed> {
        let len = match self.number(1)? {
            tag @ 0x90..=0x9f => tag & 0x0f,
            0xdd => self.number(4)?,
            _ => return self.fail(),
        };
        if len > self.bytes.len() - self.at {
            return self.fail();
        }
        Ok(len)
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = match self.number(1)? {
            tag @ 0xa0..=0xbf => tag & 0x1f,
            0xd9 => self.number(1)?,
            0xdb => self.number(4)?,
            _ => return self.fail(),
        };
        self.take(len)
    }

    fn strings(&mut self) -> Result<Vec<&'a [u8]>, Malformed> {
        let count = self.array()?;
        (0..count).map(|_| self.string()).collect()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            self.fail()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slices(items: &[Vec<u8>]) -> Vec<&[u8]> {
        items.iter().map(Vec::as_slice).collect()
    }

    proptest! {
        /// P1: a recoverer runs exactly the commands that were promised.
        #[test]
        fn what_is_written_is_read(
            commands in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20), 0..20),
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
        ) {
            let mut builder = IntentBuilder::new();
            for command in &commands {
                builder.command(slices(command));
            }
            let intent = builder.finish(slices(&keys));
            let read: Vec<Vec<&[u8]>> = commands.iter().map(|c| slices(c)).collect();
            prop_assert_eq!(decode(&intent.redo), Ok(read));
            prop_assert_eq!(decode_keys(&intent.keys), Ok(slices(&keys)));
            for cut in 0..intent.redo.len() {
                prop_assert!(decode(&intent.redo[..cut]).is_err());
            }
        }

        /// Whatever stands in a record, reading it neither panics nor takes much memory.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode(&bytes), decode_keys(&bytes));
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_allocating() {
        assert_eq!(
            decode(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
            Err(Malformed { at: 5 })
        );
        assert_eq!(
            decode_keys(&[0x91, 0xdb, 0xff, 0xff, 0xff, 0xff]),
            Err(Malformed { at: 6 })
        );
    }

    #[test]
    fn long_strings_and_lists_are_read() {
        let long = vec![b'x'; 70_000];
        let keys: Vec<Vec<u8>> = (0..5_000).map(|i| format!("k{i}").into_bytes()).collect();
        let mut builder = IntentBuilder::new();
        builder.command([b"SET".as_slice(), b"k", &long]);
        let intent = builder.finish(slices(&keys));
        assert_eq!(
            decode(&intent.redo),
            Ok(vec![vec![b"SET".as_slice(), b"k", &long]])
        );
        assert_eq!(decode_keys(&intent.keys), Ok(slices(&keys)));
    }
}
