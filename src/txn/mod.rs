//! Transactions over several shards: the pure part.
//!
//! Nothing in here touches a socket, a clock or a source of randomness: [`coordinator`] and
//! [`recovery`] are state machines that are told what happened and answer with what must be
//! done. The same source runs in production (driven by `engine`), under the model checker and
//! in the simulator.
//!
//! # The protocol, told as a story
//!
//! 1. EXEC of a queue whose keys live on several shards becomes one *branch* per *participant*
//!    (a shard in its role in this transaction). The transaction gets a fresh id.
//! 2. **Prepare**, all participants at once. On each shard one atomic script refuses if any of
//!    the branch's keys is locked or indexed by another transaction, else takes a lock per key
//!    (`SET NX PX`) and writes the *intent*: the record `prepared`, with the redo. A prepare is
//!    sent at most once per id; another attempt has another id.
//! 3. **Commit point**: all participants are prepared. Nothing is written for it. From then on
//!    nobody may abort, not even the coordinator.
//! 4. **Apply**, all at once, each conditional on `prepared`: in one atomic step the record turns
//!    `applied`, its keys turn *settling*, and the branch's commands run.
//! 5. The client is answered when all have applied.
//! 6. **Release**, only after *all* have applied: locks, index and settling entries go, who waits
//!    is woken. The record is deleted outright, or stays for a while as a *marker*.
//! 7. A definite No at step 2: what was prepared is **aborted**; the attempt is repeated under a
//!    new id until `lock-wait` has passed. Silence instead of an answer: the coordinator turns
//!    *recoverer*; it never guesses.
//! 8. A coordinator that died is replaced by anyone who meets its keys after the record's
//!    *deadline*: a recoverer reads every participant's record and finishes the transaction,
//!    forward or back, by the rules in [`recovery`].
//!
//! What is one transaction here may be several to clients: those that one proxy gets at the same
//! time, over the same shards, run as one whose queue is theirs, one behind the other. See
//! `engine::groups`, which argues that nothing else has to know of it.
//!
//! # What a participant can be asked
//!
//! Each is one atomic step on the shard (a Lua script, or a `MULTI/EXEC` on a connection that
//! watches the record). [`script`] holds the scripts, [`participant`] their twin in Rust.
//!
//! | operation | does | answers |
//! |---|---|---|
//! | prepare | see 2; refuses past its *not-after* on the shard's clock, and when any record of this id exists. *Conditional* on the client's WATCH: the watched keys turn settling at once | [`Vote`] |
//! | apply | `prepared` → `applied`, keys → settling, runs the branch; anything else: nothing | [`Applied`] |
//! | abort | `prepared` → deleted (or marker); absent → *tombstone* (an `aborted` record), refused past the not-after; `applied` stays | [`Aborted`] |
//! | abort-if-present | the same, but writes nothing where there is nothing | [`Aborted`] |
//! | tombstone | absent → tombstone, refused past the not-after; anything else stays as it is, `prepared` too | [`Aborted`] |
//! | release | drops what belongs to this id: locks, index, settling; record → deleted or marker | [`Released`] |
//! | read | the record, and the shard's clock | [`Record`] or absent |
//!
//! # What is locked: slots
//!
//! What the scripts call a *key* is, in production, a *slot* as decimal text (Redis Cluster's
//! slot function; [`plan`] does the translation). The protocol does not care what its keys
//! stand for; locking slots instead of keys buys three things. A plain command or MULTI/EXEC whose
//! keys share a slot, however many they are, is to the isolation of plain commands what a
//! single-key command is, and needs no guard of its own. Lock, index and settling entries are
//! bounded by the number of slots. And the participant of a cluster backend is a slot anyway. The
//! price: transactions on different keys of one slot wait for each other; two random keys meet
//! with probability 1/16384, keys of one hash tag belong together. Were only keys locked, two
//! multi-key commands inside one slot could see two transactions in different orders.
//!
//! A *conditional* prepare also locks, for each slot that its client watches, a name beside it
//! ([`names::fence`]), in the same way and as long. It stands in nobody's way but tells those who
//! watch that lock: see `engine::watching`.
//!
//! # Every slot: FLUSHALL, SWAPDB
//!
//! FLUSHALL, FLUSHDB and SWAPDB are transactions with all shards as participants. Their only key is `*`
//! ([`names::EVERY_SLOT`]), which stands for every slot: a prepare of `*` is refused while anything
//! is indexed, any other prepare while `*` is; replies about any slot are held while `*` settles. So
//! when the branch runs, nothing else is in doubt on its shard, and `flush.lua` keeps, in the same
//! atomic step, what is ours: a few keys with names of their own, the record, and the markers and
//! tombstones that [`names::MARKERS`] lists. That costs some microseconds for each of them, and
//! nothing for the keys that go.
//!
//! Against starvation under constant load, a `*` that was refused leaves an *intention*: its lock,
//! for at most a quarter of a second, renewed by each attempt. Who prepares meanwhile is refused,
//! what is prepared ends, the shard drains. Intentions do not keep each other out.
//!
//! # Replicas: why no vote waits for them
//!
//! A vote could count only once `WAIT n` behind its prepare has said that the promise is on n
//! replicas. That alone would make things worse. After a failover a shard may have forgotten an
//! *apply* or a *release* that its replica had not seen, and say `prepared` again, of a transaction
//! that is finished everywhere else; where the others have deleted their records outright a
//! recoverer then finds `prepared` beside absent, and rightly aborts: half of it is undone. So
//! every apply would have to wait as well, on every shard, before anything is released or
//! forgotten anywhere, by coordinators and recoverers alike, and a wait that fails proves neither
//! Yes nor No, so that with a replica gone nothing ends any more. And WAIT stops the connection that
//! all clients share. What would be bought: nothing certain, since a failover may choose a replica
//! that has not acknowledged, and `WAIT` of Redis 7.0 does not speak of disks (`WAITAOF` is 7.2).
//! Therefore there is no such setting; `min-replicas-to-write` on the shards at least refuses votes
//! while no replica follows.
//!
//! # What is kept on a shard
//!
//! All under [`names::PREFIX`], in database 0. A slot is locked in all databases at once, so a
//! transaction over several databases of a shard has one participant there, whose branch selects
//! them in turn and ends in database 0:
//!
//! | key | type | what |
//! |---|---|---|
//! | `__lockstep:lock:<slot>` | string, PX | the id of the transaction that holds the slot |
//! | `__lockstep:txn:<id>` | hash | the record: `state`, `deadline`, `participants`, `rule` (the decider, if there is one), `redo`, `keys`, `conditional` (if it was); in a marker `replies` |
//! | `__lockstep:index` | hash | slot → id, from prepare to release |
//! | `__lockstep:settling` | hash | slot → id, from apply (watched slots: from a conditional prepare) to release |
//! | `__lockstep:epoch` | string | counts the prepares that succeeded, for ever |
//! | `__lockstep:map` | string | the shard's part in the shard map, see [`crate::keyspace::membership`] |
//! | `__lockstep:markers` | sorted set | ids that left a marker or tombstone, by when it expires |
//!
//! Every prepare moves the epoch, that of a branch that only reads as well, though split reads
//! over several shards could do without: a read over several slots of *one* shard goes by the
//! epoch, too, and must not run while a slot settles that was only read. (A transaction reads `a`
//! here and has yet to write `d` elsewhere; a plain write changes `a`, its reply is held; whoever
//! then reads `a` among others, unheld, and misses `d` has seen the write, which comes behind the
//! transaction, and not the transaction.)
//!
//! and the channel `__lockstep:released:<id>`, on which release and abort announce themselves.
//! A record has no time to live while undecided; nothing in doubt is ever deleted by a timer.

pub mod condition;
pub mod coordinator;
mod finish;
pub mod names;
pub mod participant;
pub mod plan;
pub mod queue;
pub mod recovery;
pub mod redo;
pub mod script;
pub mod step;
pub mod types;

#[cfg(test)]
mod transcripts;

pub use step::*;
pub use types::*;
