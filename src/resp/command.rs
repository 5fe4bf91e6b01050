//! Framing of what clients send: [`CommandScanner`].
//!
//! The verdict on every byte sequence is that of redis-server 7.0, with its texts, and with what
//! its C strings imply: a NUL before the end of a line hides that line end, the byte behind the
//! `\r` of a line is skipped unseen, and so are the two behind an argument. Where Redis's verdict
//! depends on how the bytes were cut into packets (a line longer than the limit that arrives
//! together with its end) the scanner answers as Redis does when they come one by one.
//!
//! What is not in here: `POST` and `Host:` as command names, at which Redis hangs up in silence.

use std::ops::Range;

use bytes::BytesMut;

use super::build;
use super::error::ProtocolError;
use super::inline;
use super::limits::Limits;
use super::number::{parse_i64, short_line};

/// Room for arguments that is kept from one command to the next.
const ARGS_KEPT: usize = 1024;
/// Bytes of unescaped inline text that are kept from one command to the next.
const TEXT_KEPT: usize = 4096;

/// Where an argument lies. Half the size of a `Range<usize>`; commands are below 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Both ends are below 4 GiB, by [`CommandScanner::new`].
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }
}

/// What the scanner found at the start of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// The command is not complete: come back with the same bytes and more behind them.
    Incomplete,
    /// `len` bytes that mean nothing (`*0`, `*-1`, an empty line): drop them, answer nothing.
    Empty {
        /// Bytes to drop.
        len: usize,
    },
    /// A command of `len` bytes; see [`CommandScanner::command`].
    Command {
        /// Bytes of the whole command on the wire.
        len: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the start of a command.
    Start,
    /// In the line behind `*`.
    Count,
    /// Among the arguments.
    Args,
    /// In an inline command.
    Inline,
    /// The client broke the protocol; so it stays.
    Broken(ProtocolError),
}

/// A resumable framer for the bytes a client sends. One per connection.
///
/// ```
/// use lockstep::resp::{CommandScanner, Limits, Scan};
/// let mut scanner = CommandScanner::new(Limits::default());
/// assert_eq!(scanner.scan(b"*2\r\n$3\r\nGET\r\n$1"), Ok(Scan::Incomplete));
/// let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
/// assert_eq!(scanner.scan(bytes), Ok(Scan::Command { len: 20 }));
/// let command = scanner.command(bytes);
/// assert_eq!((command.name(), command.arg(1)), (&b"GET"[..], Some(&b"k"[..])));
/// assert_eq!(scanner.scan(&bytes[20..]), Ok(Scan::Command { len: 6 }));
/// ```
#[derive(Debug)]
pub struct CommandScanner {
    limits: Limits,
    auth_required: bool,
    state: State,
    /// Everything in front of it is understood; the start of a line or of an argument.
    at: usize,
    /// In a line: everything in front of it was searched for the line's end.
    searched: usize,
    /// Arguments that are announced and have not come.
    args_left: usize,
    /// Length of the argument that starts at `at`, if its line has been read.
    bulk_len: Option<usize>,
    /// Length of the frame found last.
    frame_len: usize,
    /// Longest argument that needs no look at the limits.
    short_bulk_max: usize,
    /// Bytes that the command may have from the first one of `buf` on: less once it was handed on.
    bytes_left: usize,
    canonical: bool,
    inline: bool,
    args: Vec<Span>,
    /// Words of an inline command, unescaped.
    text: Vec<u8>,
}

impl CommandScanner {
    /// A scanner at the start of a connection.
    pub fn new(mut limits: Limits) -> Self {
        limits.command_bytes_max = limits.command_bytes_max.min(u32::MAX as usize);
        Self {
            limits,
            auth_required: false,
            state: State::Start,
            at: 0,
            searched: 0,
            args_left: 0,
            bulk_len: None,
            frame_len: 0,
            short_bulk_max: limits
                .bulk_bytes_max
                .min(limits.unauthenticated_bulk_bytes_max),
            bytes_left: limits.command_bytes_max,
            canonical: true,
            inline: false,
            args: Vec::new(),
            text: Vec::new(),
        }
    }

    /// While true the narrow limits for clients that have not authenticated hold.
    pub fn set_auth_required(&mut self, required: bool) {
        self.auth_required = required;
    }

    /// Looks for a command at the start of `buf`.
    ///
    /// `buf` must begin where the last complete frame ended, so the caller drops `len` bytes (or
    /// slices them off) after [`Scan::Command`] and [`Scan::Empty`]; after [`Scan::Incomplete`]
    /// it must show the same bytes again, with or without more.
    ///
    /// # Errors
    /// The client broke the protocol. So says every later call, too.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, ProtocolError> {
        let found = match self.state {
            State::Start => self.start(buf),
            State::Count => self.count_line(buf),
            State::Args => self.arguments(buf),
            State::Inline => self.inline_line(buf),
            State::Broken(error) => Err(error),
        };
        match found {
            Ok(Scan::Incomplete) => {}
            Ok(_) => self.state = State::Start,
            Err(error) => self.fail(error),
        }
        found
    }

    /// The command that the last call of [`scan`](Self::scan) found at the start of `buf`, which
    /// must be the same bytes. Without one: a command without arguments.
    #[inline]
    pub fn command<'a>(&'a self, buf: &'a [u8]) -> Command<'a> {
        let raw = buf.get(..self.frame_len).unwrap_or_default();
        Command {
            raw,
            text: if self.inline { &self.text } else { raw },
            args: &self.args,
            canonical: self.canonical,
            inline: self.inline,
        }
    }

    /// Bytes that are surely missing before the next complete frame, if the scanner is inside an
    /// argument; else 1. `buffered` is the length that was shown last.
    pub fn need(&self, buffered: usize) -> usize {
        let end = self.bulk_len.map_or(0, |len| self.at + len + 2);
        end.saturating_sub(buffered).max(1)
    }

    /// The command under way, as far as its arguments are complete, and how many it will have; if
    /// it is one whose bytes may be [handed on](Self::hand_on) as they are, and there is a name.
    /// `buf` must be what was shown last.
    pub fn begun<'a>(&'a self, buf: &'a [u8]) -> Option<(Command<'a>, usize)> {
        let is_begun = matches!(self.state, State::Args) && !self.args.is_empty();
        (is_begun && self.canonical).then(|| {
            let raw = buf.get(..self.at).unwrap_or_default();
            let command = Command {
                raw,
                text: raw,
                args: &self.args,
                canonical: true,
                inline: false,
            };
            (command, self.args.len() + self.args_left)
        })
    }

    /// How many of the bytes that were shown last, and found to be incomplete, are understood: the
    /// caller drops them, and shows what follows next. The end of the command is still found, as
    /// that of a command of what was not dropped, with its limits; its arguments are forgotten.
    pub fn hand_on(&mut self, shown: usize) -> usize {
        let count = match self.bulk_len {
            Some(len) => (self.at + len).min(shown),
            None => self.at,
        };
        if let Some(len) = &mut self.bulk_len {
            *len -= count.saturating_sub(self.at).min(*len);
        }
        self.at = self.at.saturating_sub(count);
        self.searched = self.searched.saturating_sub(count).max(self.at);
        self.bytes_left = self.bytes_left.saturating_sub(count);
        self.args.clear();
        count
    }

    /// Whether all line ends of the command under way have been what they should be.
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Bytes of heap this scanner holds. Grows with the bytes of the command under way (by 16 for
    /// an argument of 6 bytes at worst), never with what they announce; up to 12 KiB are kept
    /// between commands.
    pub fn heap_bytes(&self) -> usize {
        self.args.capacity() * size_of::<Span>() + self.text.capacity()
    }

    fn fail(&mut self, error: ProtocolError) {
        self.state = State::Broken(error);
        self.frame_len = 0;
        self.args = Vec::new();
        self.text = Vec::new();
    }

    #[inline]
    fn start(&mut self, buf: &[u8]) -> Result<Scan, ProtocolError> {
        self.at = 0;
        self.searched = 0;
        self.frame_len = 0;
        self.bulk_len = None;
        self.bytes_left = self.limits.command_bytes_max;
        self.canonical = true;
        self.args.clear();
        if self.args.capacity() > ARGS_KEPT {
            self.args.shrink_to(ARGS_KEPT);
        }
        match buf {
            [] => Ok(Scan::Incomplete),
            [b'*', line @ ..] => {
                self.inline = false;
                match short_line(line) {
                    Some((count, len)) => self.counted(count as i64, 1 + len, buf),
                    None => self.count_line(buf),
                }
            }
            _ => self.inline_line(buf),
        }
    }

    #[cold]
    fn count_line(&mut self, buf: &[u8]) -> Result<Scan, ProtocolError> {
        self.state = State::Count;
        let Some(end) = self.line_end(buf, b'\r', ProtocolError::CountLineTooBig)? else {
            return Ok(Scan::Incomplete);
        };
        let digits = buf.get(1..end).unwrap_or_default();
        let count = parse_i64(digits).ok_or(ProtocolError::InvalidCount)?;
        self.counted(count, end + 2, buf)
    }

    #[inline]
    fn counted(&mut self, count: i64, len: usize, buf: &[u8]) -> Result<Scan, ProtocolError> {
        let Ok(count @ 1..) = usize::try_from(count) else {
            return Ok(Scan::Empty { len });
        };
        if count > self.limits.args_max {
            return Err(ProtocolError::TooManyArgs);
        }
        if self.auth_required && count > self.limits.unauthenticated_args_max {
            return Err(ProtocolError::UnauthenticatedCount);
        }
        self.args_left = count;
        self.at = len;
        self.searched = len;
        self.state = State::Args;
        self.arguments(buf)
    }

    fn arguments(&mut self, buf: &[u8]) -> Result<Scan, ProtocolError> {
        while self.args_left > 0 {
            let len = match self.bulk_len {
                Some(len) => len,
                None => match self.bulk_line(buf)? {
                    Some(len) => len,
                    None => return Ok(Scan::Incomplete),
                },
            };
            let end = self.at + len;
            let Some(terminator) = buf.get(end..end + 2) else {
                self.bulk_len = Some(len);
                return Ok(Scan::Incomplete);
            };
            self.canonical &= terminator == b"\r\n";
            self.args.push(Span::new(self.at, end));
            self.at = end + 2;
            self.searched = self.at;
            self.bulk_len = None;
            self.args_left -= 1;
        }
        self.frame_len = self.at;
        Ok(Scan::Command { len: self.at })
    }

    /// Reads a `$N` line, and moves behind it.
    #[inline]
    fn bulk_line(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if let Some([b'$', line @ ..]) = buf.get(self.at..)
            && let Some((len, taken)) = short_line(line)
            && len <= self.short_bulk_max
            && self.at + 1 + taken + len + 2 <= self.bytes_left
        {
            self.at += 1 + taken;
            return Ok(Some(len));
        }
        self.long_bulk_line(buf)
    }

    fn long_bulk_line(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = self.line_end(buf, b'\r', ProtocolError::BulkLineTooBig)? else {
            return Ok(None);
        };
        let digits = match buf.get(self.at..end).unwrap_or_default() {
            [b'$', digits @ ..] => digits,
            // An empty line: what stands in place of the `$` is its line end.
            line => return Err(ProtocolError::ExpectedBulk(*line.first().unwrap_or(&b'\r'))),
        };
        let len = parse_i64(digits)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if len > self.limits.bulk_bytes_max {
            return Err(ProtocolError::BulkTooBig);
        }
        if self.auth_required && len > self.limits.unauthenticated_bulk_bytes_max {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.at = end + 2;
        if len > self.bytes_left.saturating_sub(self.at + 2) {
            return Err(ProtocolError::CommandTooBig);
        }
        Ok(Some(len))
    }

    #[cold]
    fn inline_line(&mut self, buf: &[u8]) -> Result<Scan, ProtocolError> {
        self.state = State::Inline;
        let Some(newline) = self.line_end(buf, b'\n', ProtocolError::InlineTooBig)? else {
            return Ok(Scan::Incomplete);
        };
        // A `\r` in front of the line end needs no care: it is a blank like others.
        let line = buf.get(..newline).unwrap_or_default();
        let len = newline + 1;
        if len > self.limits.command_bytes_max {
            return Err(ProtocolError::CommandTooBig);
        }
        self.inline = true;
        self.canonical = false;
        self.text.clear();
        self.text.shrink_to(TEXT_KEPT);
        inline::split(line, &mut self.text, &mut self.args)?;
        if self.args.is_empty() {
            return Ok(Scan::Empty { len });
        }
        self.frame_len = len;
        Ok(Scan::Command { len })
    }

    /// Where the line that starts at `at` ends: the position of `mark`, once it and (for `\r`)
    /// the byte behind it are there. Notes on the way whether that byte is `\n`.
    fn line_end(
        &mut self,
        buf: &[u8],
        mark: u8,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        if buf.len() < self.searched {
            return Err(ProtocolError::InputTakenBack);
        }
        let limit = self.at.saturating_add(self.limits.inline_bytes_max);
        let window = buf.len().min(limit.saturating_add(1));
        let unseen = buf.get(self.searched..window).unwrap_or_default();
        // Searched as C does: nothing is found behind a NUL. Standing on it for ever, no byte
        // is looked at twice.
        match unseen.iter().position(|byte| *byte == mark || *byte == 0) {
            Some(found) => self.searched += found,
            None => self.searched = self.searched.max(window),
        }
        if self.searched < window && buf.get(self.searched) == Some(&mark) {
            return Ok(self.whole_line_end(buf, mark));
        }
        if buf.len() > limit {
            Err(too_big)
        } else {
            Ok(None)
        }
    }

    fn whole_line_end(&mut self, buf: &[u8], mark: u8) -> Option<usize> {
        if mark == b'\r' {
            self.canonical &= *buf.get(self.searched + 1)? == b'\n';
        }
        Some(self.searched)
    }
}

/// One command, borrowed from the scanner and the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    raw: &'a [u8],
    /// What the spans point into.
    text: &'a [u8],
    args: &'a [Span],
    canonical: bool,
    inline: bool,
}

impl<'a> Command<'a> {
    /// Number of arguments, the name included; at least 1.
    #[inline]
    pub fn argc(&self) -> usize {
        self.args.len()
    }

    /// Argument `index`; 0 is the name.
    #[inline]
    pub fn arg(&self, index: usize) -> Option<&'a [u8]> {
        self.args.get(index).map(|span| span.of(self.text))
    }

    /// The command's name, as the client spelt it.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.arg(0).unwrap_or_default()
    }

    /// All arguments, the name first.
    #[inline]
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let text = self.text;
        self.args.iter().map(move |span| span.of(text))
    }

    /// Where argument `index` lies in [`raw`](Self::raw). `None` for an inline command, whose
    /// words are unescaped elsewhere.
    #[inline]
    pub fn arg_range(&self, index: usize) -> Option<Range<usize>> {
        if self.inline {
            return None;
        }
        self.args.get(index).map(|span| span.range())
    }

    /// The whole frame as the client sent it.
    #[inline]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether [`raw`](Self::raw) is just what [`encode`](Self::encode) would write, so that it
    /// may be forwarded as it is. False for inline commands and sloppy line ends.
    #[inline]
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Appends the command in its canonical form, copying the raw bytes if they are that.
    #[inline]
    pub fn encode(&self, out: &mut BytesMut) {
        if self.canonical {
            out.extend_from_slice(self.raw);
        } else {
            build::command(out, self.args());
        }
    }
}

#[cfg(test)]
mod tests;
