//! Framing of what shards answer: [`ReplyScanner`].
//!
//! # One counter instead of a stack
//!
//! To know where a reply ends it is enough to count the elements that were announced and have
//! not come: an aggregate takes one off and adds its own. So nesting costs nothing, cannot be
//! attacked, and a reply that arrives in pieces, an EXEC full of big arrays too, is never looked
//! at twice. Counts are bounded by the bytes they need at least, at once when they are announced.
//!
//! # Pushes inside a reply
//!
//! Redis 7.0 puts a message that a connection publishes to itself inside MULTI into the middle of
//! its EXEC reply (`*2 +OK >3 message … :1`); since 7.2 it comes behind. It is not one of the
//! announced elements. But SUBSCRIBE inside MULTI is *answered* by a push (`*1 >3 subscribe …`),
//! which is. The first element tells the two apart: a push named `message`, `pmessage`,
//! `smessage`, `invalidate` or `tracking-redir-broken` is never an answer and does not count;
//! any other does. (A SUBSCRIBE of several channels, or an UNSUBSCRIBE of all, inside MULTI gives
//! several pushes for one announced element. No framing can know that; such commands must not be
//! sent to a shard inside MULTI.)
//!
//! An attribute (`|`) does not count either: it belongs to what follows it.

use super::error::ReplyError;
use super::limits::Limits;
use super::number::{parse_i64, short_line};

/// No element is shorter (`_\r\n`).
const ELEMENT_BYTES_MIN: usize = 3;

/// Type, sign, 19 digits and half a line end; a length is no longer.
const LENGTH_LINE_MAX: usize = 22;

/// What the header of an element says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Complete with its line.
    Line,
    /// So many bytes and a line end follow.
    Blob(usize),
    /// So many elements follow.
    Aggregate(usize),
    /// So many elements follow, and then what they describe.
    Attribute(usize),
    /// So many elements follow; whether it counts is known from the first of them.
    Push(usize),
}

/// Whether a push with this first element is a message out of band, no answer to a command.
pub(super) fn is_message(name: &[u8]) -> bool {
    matches!(name, b"message" | b"pmessage" | b"smessage" | b"invalidate")
        || name == b"tracking-redir-broken"
}

/// Reads the header line of an element, given without its line end.
pub(super) fn head(line: &[u8]) -> Result<Head, ReplyError> {
    let [kind, text @ ..] = line else {
        return Err(ReplyError::UnknownType(b'\r'));
    };
    match kind {
        b'+' | b'-' | b':' | b',' | b'(' => Ok(Head::Line),
        b'_' if text.is_empty() => Ok(Head::Line),
        b'#' if matches!(text, b"t" | b"f") => Ok(Head::Line),
        b'_' | b'#' => Err(ReplyError::Malformed),
        b'$' | b'*' if text == b"-1" => Ok(Head::Line),
        b'$' | b'!' | b'=' => Ok(Head::Blob(length(text)?)),
        b'*' | b'~' => Ok(Head::Aggregate(length(text)?)),
        b'%' => Ok(Head::Aggregate(pairs(text)?)),
        b'|' => Ok(Head::Attribute(pairs(text)?)),
        b'>' => Ok(Head::Push(length(text)?)),
        other => Err(ReplyError::UnknownType(*other)),
    }
}

/// Whether a header line without its end can still become one, so that rubbish is not collected.
/// What is refused here would be refused with its line end, too, and with the same error.
fn plausible(line: &[u8]) -> Result<(), ReplyError> {
    match line.first() {
        None | Some(b'+' | b'-' | b':' | b',' | b'(') => Ok(()),
        Some(b'_' | b'#') if line.len() > LENGTH_LINE_MAX => Err(ReplyError::Malformed),
        Some(b'$' | b'!' | b'=' | b'*' | b'~' | b'%' | b'|' | b'>')
            if line.len() > LENGTH_LINE_MAX =>
        {
            Err(ReplyError::InvalidLength)
        }
        Some(b'_' | b'#' | b'$' | b'!' | b'=' | b'*' | b'~' | b'%' | b'|' | b'>') => Ok(()),
        Some(other) => Err(ReplyError::UnknownType(*other)),
    }
}

fn length(text: &[u8]) -> Result<usize, ReplyError> {
    let len = parse_i64(text).ok_or(ReplyError::InvalidLength)?;
    usize::try_from(len).map_err(|_| ReplyError::InvalidLength)
}

fn pairs(text: &[u8]) -> Result<usize, ReplyError> {
    length(text)?.checked_mul(2).ok_or(ReplyError::TooBig)
}

/// A resumable framer for the bytes a shard sends. One per connection.
///
/// ```
/// use lockstep::resp::{Limits, ReplyScanner};
/// let mut scanner = ReplyScanner::new(Limits::default());
/// assert_eq!(scanner.scan(b"*2\r\n$5\r\nhel"), Ok(None));
/// assert_eq!(scanner.need(), 7); // "lo\r\n", and an element of three bytes or more
/// assert_eq!(scanner.scan(b"*2\r\n$5\r\nhello\r\n:1\r\n+OK\r\n"), Ok(Some(19)));
/// ```
#[derive(Debug)]
pub struct ReplyScanner {
    bytes_max: usize,
    /// Nothing is remembered: a reply is about to begin.
    is_fresh: bool,
    /// Bytes of the reply under way that were taken away; see [`Self::hand_on`].
    gone: usize,
    /// Everything in front of it is understood; the start of an element.
    at: usize,
    /// In a header line: everything in front of it was searched for the line's end.
    searched: usize,
    /// Where the string ends that the scanner is inside of, its line end included; else 0.
    blob_end: usize,
    /// Where that string begins.
    blob_start: usize,
    /// Elements announced that have not come.
    pending: usize,
    /// The outermost aggregate has been opened: what comes is inside a reply.
    inside: bool,
    /// The next element is the first of a push inside a reply.
    names_push: bool,
    /// Length that was shown last.
    seen: usize,
    broken: Option<ReplyError>,
}

impl ReplyScanner {
    /// A scanner at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            bytes_max: limits.reply_bytes_max,
            is_fresh: true,
            gone: 0,
            at: 0,
            searched: 0,
            blob_end: 0,
            blob_start: 0,
            pending: 1,
            inside: false,
            names_push: false,
            seen: 0,
            broken: None,
        }
    }

    /// The length of the reply at the start of `buf`, or `None` if it is not complete.
    ///
    /// `buf` must begin where the last reply ended; after `None` it must show the same bytes
    /// again, with or without more behind them. A push is a reply of its own unless it stands
    /// inside another.
    ///
    /// # Errors
    /// The shard broke the protocol or a limit. So says every later call, too.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        if self.is_fresh
            && let Some(len) = simple(buf)
            && len <= self.bytes_max
        {
            return Ok(Some(len));
        }
        self.resume(buf)
    }

    /// A lower bound of the bytes missing from the reply under way, as of the last call of
    /// [`scan`](Self::scan) that gave `None`; at least 1.
    pub fn need(&self) -> usize {
        let in_blob = self.blob_end.saturating_sub(self.seen);
        // The element under way is one of the pending ones, unless it is a string.
        let pending = if self.blob_end > 0 {
            self.pending.saturating_sub(1)
        } else {
            self.pending
        };
        let begun = if self.blob_end > 0 {
            0
        } else {
            self.seen.saturating_sub(self.at)
        };
        (in_blob + (pending * ELEMENT_BYTES_MIN).saturating_sub(begun)).max(1)
    }

    fn resume(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.seen = buf.len();
        self.is_fresh = false;
        let found = self.elements(buf);
        match found {
            Ok(None) => {}
            Ok(Some(_)) => self.reset(),
            Err(error) => self.broken = Some(error),
        }
        found
    }

    /// How many bytes at the start of what was shown last belong to the reply under way and are
    /// understood. They need not be shown again, and must not: what follows them is to be shown
    /// next. Only after [`scan`](Self::scan) gave `None`.
    ///
    /// The end of a string is kept, and any name of a push: they are yet to be looked at.
    pub fn hand_on(&mut self) -> usize {
        let len = if self.blob_end > 0 && !self.names_push {
            self.seen.min(self.blob_end - 2)
        } else {
            self.at
        };
        self.gone += len;
        self.at = self.at.saturating_sub(len);
        self.searched = self.searched.saturating_sub(len);
        self.blob_start = self.blob_start.saturating_sub(len);
        self.blob_end = self.blob_end.saturating_sub(len);
        self.seen -= len;
        len
    }

    fn reset(&mut self) {
        self.is_fresh = true;
        self.gone = 0;
        self.at = 0;
        self.searched = 0;
        self.pending = 1;
        self.inside = false;
        self.names_push = false;
        self.seen = 0;
    }

    fn elements(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        while self.pending > 0 {
            if !self.element(buf)? {
                return Ok(None);
            }
        }
        Ok(Some(self.at))
    }

    /// Takes one element, or the header of an aggregate. False: it is not complete.
    #[inline]
    fn element(&mut self, buf: &[u8]) -> Result<bool, ReplyError> {
        if self.blob_end > 0 {
            return self.blob(buf);
        }
        let short = match buf.get(self.at..) {
            Some([b'$', line @ ..]) => {
                short_line(line).map(|(len, taken)| (Head::Blob(len), taken))
            }
            Some([b':', line @ ..]) => short_line(line).map(|(_, taken)| (Head::Line, taken)),
            _ => None,
        };
        let (head, end) = match short {
            Some((head, taken)) => (head, self.at + 1 + taken),
            None => {
                let Some(end) = self.line_end(buf)? else {
                    return Ok(false);
                };
                (head(buf.get(self.at..end).unwrap_or_default())?, end + 2)
            }
        };
        let top = !self.inside && self.pending == 1;
        let names_push = std::mem::take(&mut self.names_push);
        self.at = end;
        self.searched = end;
        match head {
            Head::Line => self.pending -= 1,
            Head::Blob(len) => {
                self.names_push = names_push;
                self.blob_start = end;
                self.blob_end = self.bounded(len, end)?;
                return self.blob(buf);
            }
            Head::Aggregate(len) => self.open(len, true)?,
            Head::Attribute(len) => self.open(len, false)?,
            Head::Push(len) => {
                self.open(len, true)?;
                self.names_push = !top && len > 0;
            }
        }
        self.inside |= top && !matches!(head, Head::Attribute(_));
        Ok(true)
    }

    fn blob(&mut self, buf: &[u8]) -> Result<bool, ReplyError> {
        if buf.len() < self.blob_end {
            return Ok(false);
        }
        let blob = buf.get(self.blob_start..self.blob_end).unwrap_or_default();
        let [text @ .., b'\r', b'\n'] = blob else {
            return Err(ReplyError::Malformed);
        };
        if std::mem::take(&mut self.names_push) && is_message(text) {
            // The push was counted when it was opened.
            self.pending += 1;
        }
        self.pending -= 1;
        self.at = self.blob_end;
        self.searched = self.at;
        self.blob_end = 0;
        Ok(true)
    }

    /// Counts the elements of an aggregate, and whether it is one itself.
    fn open(&mut self, len: usize, counts: bool) -> Result<(), ReplyError> {
        let pending = self.pending - usize::from(counts);
        let room = self.bytes_max.saturating_sub(self.gone + self.at) / ELEMENT_BYTES_MIN;
        if len > room.saturating_sub(pending) {
            return Err(ReplyError::TooBig);
        }
        self.pending = pending + len;
        Ok(())
    }

    /// Where a string of `len` bytes from `start` on ends, its line end included.
    fn bounded(&self, len: usize, start: usize) -> Result<usize, ReplyError> {
        let room = self.bytes_max.saturating_sub(self.gone + start + 2);
        if len > room {
            Err(ReplyError::TooBig)
        } else {
            Ok(start + len + 2)
        }
    }

    /// Where the line that starts at `at` ends: the position of its `\r\n`.
    fn line_end(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        let window = buf.len().min(self.bytes_max);
        loop {
            let unseen = buf.get(self.searched..window).unwrap_or_default();
            match unseen.iter().position(|byte| *byte == b'\r') {
                None => {
                    self.searched = self.searched.max(window);
                    break;
                }
                Some(found) => self.searched += found,
            }
            match buf.get(self.searched + 1) {
                Some(b'\n') => return Ok(Some(self.searched)),
                Some(_) => self.searched += 1,
                None => break,
            }
        }
        plausible(buf.get(self.at..).unwrap_or_default())?;
        // With no more than this a line within the limit would have ended.
        if buf.len() > self.bytes_max {
            Err(ReplyError::TooBig)
        } else {
            Ok(None)
        }
    }
}

/// The length of the reply at the start of `buf` if it is whole and of a common, simple form.
#[inline(always)]
pub(super) fn simple(buf: &[u8]) -> Option<usize> {
    match buf {
        [b'+', b'O', b'K', b'\r', b'\n', ..] => Some(5),
        [b'$', line @ ..] => {
            let (len, taken) = short_line(line)?;
            let end = taken + len;
            (line.get(end..end + 2)? == b"\r\n").then_some(1 + end + 2)
        }
        [b':', line @ ..] => short_line(line).map(|(_, taken)| 1 + taken),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
