//! The closed sets that labels take their values from, and handles kept per value.

use std::marker::PhantomData;
use std::ops::Index;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of [`Label::position`].
    const ALL: &'static [Self];
    /// The value's place in [`Label::ALL`].
    fn position(self) -> usize;
    /// The value as it stands in the metric.
    fn text(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident ($label:literal) {
        $($(#[$vdoc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)*];
            fn position(self) -> usize {
                self as usize
            }
            fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

label! {
    /// What lockstep does with a command.
    Family("family") {
        /// Sent to one shard, changes nothing.
        Read = "read",
        /// Sent to one shard, may change its data.
        Write = "write",
        /// MULTI, EXEC, DISCARD, WATCH, UNWATCH and what is queued.
        Transaction = "transaction",
        /// Answered by lockstep itself.
        Local = "local",
        /// Divided over several shards.
        Split = "split",
        /// Refused before anything was sent.
        Refused = "refused",
    }
}

label! {
    /// What became of something that was to run on an armed connection.
    ArmedEnd("result") {
        /// It was executed.
        Ran = "ran",
        /// The shard refused it: nothing was executed.
        Refused = "refused",
        /// Something was settling: it took another way.
        KeptOut = "kept_out",
        /// It was never sent, or its reply was lost.
        Failed = "failed",
    }
}

label! {
    /// How something over several slots of one shard was kept apart from what settles there.
    GuardedWay("way") {
        /// On the armed connection.
        Armed = "armed",
        /// By a script.
        Script = "script",
        /// Behind locks.
        Locks = "locks",
    }
}

label! {
    /// What ended a wait for another transaction.
    WaitEnd("end") {
        /// The news that it has ended.
        Released = "released",
        /// Time to look again.
        Timer = "timer",
    }
}

label! {
    /// What kind of error a client was given by lockstep (not by a shard).
    ErrorKind("kind") {
        /// Bytes that are not the protocol.
        Protocol = "protocol",
        /// A command that cannot be: unknown, wrong arguments, not supported, out of place.
        Command = "command",
        /// Keys on several shards where that cannot be done.
        CrossSlot = "cross_slot",
        /// A shard cannot be reached; nothing was sent.
        ShardDown = "shard_down",
        /// No reply in time, or the connection was lost: the command was maybe executed.
        ReplyLost = "reply_lost",
        /// A transaction that was not applied, on no shard.
        Aborted = "aborted",
        /// A transaction whose outcome was not known when the client was answered.
        OutcomeUnknown = "outcome_unknown",
        /// A transaction that is committed, but whose replies are lost.
        RepliesLost = "replies_lost",
        /// A limit was hit; nothing was sent.
        Limit = "limit",
        /// The client has not authenticated, or its user may not do this.
        Denied = "denied",
    }
}

label! {
    /// Why a client was denied something.
    Denial("reason") {
        /// A wrong password, or a user who is not there or disabled.
        Auth = "auth",
        /// A command before AUTH.
        Unauthenticated = "unauthenticated",
        /// A command that its user may not run.
        Command = "command",
        /// A key that its user may not touch.
        Key = "key",
        /// A channel that its user may not use.
        Channel = "channel",
    }
}

label! {
    /// Why a connection was refused.
    Rejection("reason") {
        /// `clients-max` are connected.
        ClientsMax = "clients_max",
        /// More than `memory-bytes-max` waits.
        Memory = "memory",
        /// The process is stopping.
        Draining = "draining",
        /// The TLS handshake failed.
        Handshake = "handshake",
        /// `proxy-protocol` is on, and it did not begin with such a header.
        ProxyHeader = "proxy_header",
        /// It said too little in the time it had for a handshake or a header.
        SlowStart = "slow_start",
        /// The system refused: no file descriptors left, or the connection died at once.
        System = "system",
    }
}

label! {
    /// Where the circuit breaker of a shard stands, at one worker.
    CircuitState("state") {
        /// Requests are sent.
        Closed = "closed",
        /// Requests are refused, for a pause.
        Open = "open",
        /// The one attempt after the pause is under way.
        HalfOpen = "half_open",
    }
}

label! {
    /// What became of reading the settings again.
    Reload("result") {
        /// What has changed counts.
        Applied = "applied",
        /// Nothing had changed.
        Unchanged = "unchanged",
        /// There are mistakes in it: nothing has changed.
        Invalid = "invalid",
        /// A setting has changed that only a restart changes: nothing has changed.
        Refused = "refused",
    }
}

label! {
    /// What became of a span.
    SpanEnd("result") {
        /// The collector has taken it.
        Exported = "exported",
        /// Too many waited already.
        QueueFull = "queue_full",
        /// The collector did not take it.
        Failed = "export_failed",
    }
}

label! {
    /// Over how many shards a transaction went.
    Scope("scope") {
        /// One: native MULTI/EXEC.
        Single = "single",
        /// Several: two-phase commit.
        Distributed = "distributed",
    }
}

label! {
    /// How a transaction ended, as its client was told.
    Outcome("outcome") {
        /// Applied everywhere, replies given.
        Committed = "committed",
        /// Applied nowhere.
        Aborted = "aborted",
        /// Applied nowhere since a watched key was changed: a nil reply.
        WatchBroken = "watch_broken",
        /// Applied everywhere, but the replies are lost.
        RepliesLost = "replies_lost",
        /// Not known yet.
        Unknown = "unknown",
    }
}

label! {
    /// A step of a distributed transaction.
    Step("step") {
        /// All prepares, from sending to the last vote.
        Prepare = "prepare",
        /// All applies, from sending to the last answer.
        Apply = "apply",
        /// All releases, from sending to the last answer.
        Release = "release",
        /// From EXEC to its reply, lock waits and all attempts included.
        Total = "total",
    }
}

label! {
    /// What a recovery did.
    Recovery("action") {
        /// Finished forward: applied what was left to apply.
        Committed = "committed",
        /// Finished back: nothing is or will be applied.
        Aborted = "aborted",
        /// Only released what was applied everywhere.
        Released = "released",
        /// Found it settled by others.
        Nothing = "nothing",
        /// Could not be finished now; somebody will try again.
        Failed = "failed",
    }
}

label! {
    /// A limit that was hit.
    Limit("limit") {
        /// `clients-max`.
        Clients = "clients",
        /// `client-inflight-max`: reading from the client paused.
        ClientInflight = "client_inflight",
        /// `client-input-bytes-max`, by a command or by the queue of a MULTI.
        ClientInput = "client_input",
        /// `client-output-bytes-max`: reading from the client paused, or, when several times as
        /// much was owed to it, it was disconnected.
        ClientOutput = "client_output",
        /// `pubsub-output-bytes-max`, or the soft limit for too long: a subscriber was disconnected.
        PubsubOutput = "pubsub_output",
        /// `client-subscriptions-max`.
        Subscriptions = "subscriptions",
        /// `inline-bytes-max`.
        InlineBytes = "inline_bytes",
        /// `args-max`.
        Args = "args",
        /// `bulk-bytes-max`.
        BulkBytes = "bulk_bytes",
        /// `shard-inflight-max` requests, or `client-input-bytes-max` unwritten bytes, wait for a
        /// shard: one more request was refused.
        ShardInflight = "shard_inflight",
        /// `reply-bytes-max`: the connection to the shard was closed.
        ReplyBytes = "reply_bytes",
        /// `pinned-wait-ms` passed without a free connection.
        PinnedConnections = "pinned_connections",
        /// `pinned-wait-ms` passed without a free connection for a client that watches.
        WatchConnections = "watch_connections",
        /// `watched-keys-max`: a WATCH was refused.
        WatchedKeys = "watched_keys",
        /// `idle-timeout-ms`: a silent client was disconnected. Or one stopped amid a large command.
        IdleTimeout = "idle_timeout",
        /// `request-timeout-ms`: the connection to the shard was closed.
        RequestTimeout = "request_timeout",
        /// `gather-bytes-max`: a command over several shards was refused.
        GatherBytes = "gather_bytes",
        /// `lock-wait-ms`: a transaction was aborted.
        LockWait = "lock_wait",
        /// `deny-commands`: a command was refused.
        DeniedCommand = "denied_command",
        /// `client-commands-per-second-max`: a command was refused.
        ClientRate = "client_rate",
        /// `memory-bytes-max`: reading from clients paused, or one was refused.
        Memory = "memory",
        /// `memory-bytes-max`: a client was disconnected.
        MemoryEviction = "memory_eviction",
        /// The circuit breaker of a shard was not closed: a request was refused.
        Circuit = "circuit",
    }
}

/// A handle per value of a label: `metrics.commands[Family::Read]`.
#[derive(Debug)]
pub struct Per<L, H> {
    handles: Box<[H]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, H> Per<L, H> {
    pub(super) fn new(make: impl Fn(L) -> H) -> Self {
        Self {
            handles: L::ALL.iter().map(|value| make(*value)).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label, H> Index<L> for Per<L, H> {
    type Output = H;

    fn index(&self, value: L) -> &H {
        // There is a handle for every value, by construction.
        &self.handles[value.position()]
    }
}
