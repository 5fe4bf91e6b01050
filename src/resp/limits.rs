//! The bounds of this layer. Lengths that bytes announce are compared with these before
//! anything is stored for them.

/// Bounds on what a peer may send. The defaults are those of redis-server 7.0 where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of an inline command, or of a `*N`/`$N` line, before its line end
    /// (`PROTO_INLINE_MAX_SIZE`, 64 KiB).
    pub inline_bytes_max: usize,
    /// Arguments of one command, its name included (redis-server 7.0: 2³¹ − 1). Announcing them
    /// costs nothing; memory grows with the arguments that arrive.
    pub args_max: usize,
    /// Bytes of one argument (`proto-max-bulk-len`, 512 MiB).
    pub bulk_bytes_max: usize,
    /// Bytes of one whole command on the wire. Redis bounds its query buffer
    /// (`client-query-buffer-limit`, 1 GiB) and hangs up without a word; here it is an error.
    /// Never more than 4 GiB − 1, whatever is set.
    pub command_bytes_max: usize,
    /// Arguments that a client may announce before it has authenticated (Redis: 10).
    pub unauthenticated_args_max: usize,
    /// Bytes of one argument before the client has authenticated (Redis: 16 KiB).
    pub unauthenticated_bulk_bytes_max: usize,
    /// Bytes of one whole reply of a shard (Redis: unbounded; here 1 GiB).
    pub reply_bytes_max: usize,
    /// Open aggregates inside one another in a reply that is *decoded*. Framing has no such
    /// bound, since it needs no stack: Redis passes on about 8,000 levels of a script's tables,
    /// and one client's script must not cost the others their connection.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inline_bytes_max: 64 * 1024,
            args_max: i32::MAX as usize,
            bulk_bytes_max: 512 * 1024 * 1024,
            command_bytes_max: 1024 * 1024 * 1024,
            unauthenticated_args_max: 10,
            unauthenticated_bulk_bytes_max: 16 * 1024,
            reply_bytes_max: 1024 * 1024 * 1024,
            depth_max: 32,
        }
    }
}
