//! What was denied, newest first; what ACL LOG shows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::resp::{Protocol, build};

/// Entries that are kept (`acllog-max-len` of Redis).
const ENTRIES_MAX: usize = 128;
/// Bytes that are kept of what a client sent.
const TEXT_BYTES_MAX: usize = 1024;
/// The same again within this time is counted, not noted anew.
const GROUPED: Duration = Duration::from_secs(60);

/// Why something was denied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    Auth,
    Command,
    Key,
    Channel,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
}

struct Entry {
    count: i64,
    reason: Reason,
    is_queued: bool,
    object: Vec<u8>,
    user: Vec<u8>,
    at: Instant,
    client: Vec<u8>,
}

impl Log {
    pub(super) fn note(
        &mut self,
        reason: Reason,
        is_queued: bool,
        object: &[u8],
        user: &[u8],
        client: &[u8],
    ) {
        let at = Instant::now();
        let [object, user, client] =
            [object, user, client].map(|text| text[..text.len().min(TEXT_BYTES_MAX)].to_vec());
        let is_same = |known: &Entry| {
            known.reason == reason
                && known.is_queued == is_queued
                && known.object == object
                && known.user == user
                && at.saturating_duration_since(known.at) <= GROUPED
        };
        let known = self.entries.iter().position(is_same);
        let count = known.and_then(|known| self.entries.remove(known));
        self.entries.truncate(ENTRIES_MAX - 1);
        self.entries.push_front(Entry {
            count: count.map_or(1, |known| known.count + 1),
            reason,
            is_queued,
            object,
            user,
            at,
            client,
        });
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn show(&self, count: usize, protocol: Protocol, out: &mut BytesMut) {
        build::array_header(out, count.min(self.entries.len()));
        for entry in self.entries.iter().take(count) {
            build::map_header(out, protocol, 7);
            build::bulk(out, "count");
            build::int(out, entry.count);
            let texts: [(&str, &[u8]); 4] = [
                ("reason", entry.reason.text().as_bytes()),
                (
                    "context",
                    if entry.is_queued {
                        b"multi"
                    } else {
                        b"toplevel"
                    },
                ),
                ("object", &entry.object),
                ("username", &entry.user),
            ];
            for (name, text) in texts {
                build::bulk(out, name);
                build::bulk(out, text);
            }
            build::bulk(out, "age-seconds");
            let age = entry.at.elapsed().as_millis() as f64 / 1000.0;
            build::double(out, protocol, age);
            build::bulk(out, "client-info");
            build::bulk(out, &entry.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_counts_what_repeats_and_is_bounded() {
        let mut log = Log::default();
        for _ in 0..3 {
            log.note(Reason::Auth, false, b"AUTH", b"x", b"id=1");
        }
        assert_eq!((log.entries.len(), log.entries[0].count), (1, 3));
        for number in 0..200 {
            let key = [b"k".repeat(5000), vec![number]].concat();
            log.note(Reason::Key, false, &key, &[number], b"id=1");
        }
        assert_eq!(log.entries.len(), ENTRIES_MAX);
        assert_eq!(log.entries[0].object.len(), TEXT_BYTES_MAX);
        assert_eq!(log.entries[0].user, [199]);
    }
}
