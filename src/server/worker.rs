//! A worker: one thread with one current-thread runtime. It has its own links, pools, engine and
//! sessions, so that nothing on the path of a command is shared with another thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::circuits::Circuits;
use super::discover::{dials, latecomers};
use super::knobs::Knobs;
use super::listeners::Refused;
use super::{Accepted, Common, HANDOVER_MAX, Settings};
use crate::backend::feed::Feed;
use crate::backend::pinned::Bound;
use crate::backend::{Armed, Busy, Link, Pool, Wakeups};
use crate::config::{Config, IsolationLevel};
use crate::engine::channels::Hub;
use crate::engine::sources::Shown;
use crate::engine::turnstile::Turnstile;
use crate::engine::{Engine, Times, Ways};
use crate::frontend::guards::{self, Memory};
use crate::frontend::subscriber::Patience;
use crate::frontend::tally::Tally;
use crate::frontend::{Context, client};
use crate::metrics::{Limit, Metrics};
use crate::resp::{Lane, Protocol};
use crate::turn::Turn;
use crate::txn;

/// How often time limits are checked.
const TICK: Duration = Duration::from_millis(100);
/// How often idle clients are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// A worker that runs.
pub(super) struct Handle {
    pub thread: JoinHandle<()>,
    pub sender: mpsc::Sender<Accepted>,
    pub clients: Arc<AtomicUsize>,
}

impl Handle {
    /// Where clients are handed to it, and how many it has.
    pub(super) fn place(&self) -> (mpsc::Sender<Accepted>, Arc<AtomicUsize>) {
        (self.sender.clone(), Arc::clone(&self.clients))
    }
}

/// Starts a worker's thread.
pub(super) fn start(number: usize, common: Common) -> io::Result<Handle> {
    let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
    let clients = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&clients);
    // A runtime of this kind cannot move to another thread, so its thread says how it went.
    let (started, wait) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            let told = runtime.as_ref().map(drop).map_err(|error| error.kind());
            if started.send(told).is_ok()
                && let Ok(runtime) = runtime
            {
                runtime.block_on(run(number, common, receiver, count));
            }
        })?;
    wait.recv().map_err(io::Error::other)??;
    Ok(Handle {
        thread,
        sender,
        clients,
    })
}

async fn run(
    number: usize,
    common: Common,
    mut accepted: mpsc::Receiver<Accepted>,
    clients: Arc<AtomicUsize>,
) {
    let knobs = Knobs::new(&common.config);
    let context = context(number, &common, &knobs);
    spawn_local(Rc::clone(&context.turn).flush_for_ever());
    spawn_local(follow(common.live.clone(), Rc::clone(&context), knobs));
    spawn_local(tick(Rc::clone(&context), common.clone()));
    if number == 0 {
        guards::warn_of_unknown(&common.config, &common.table);
        spawn_local(Rc::clone(&context.engine).search_for_ever());
        spawn_local(latecomers(common.clone()));
    }
    loop {
        tokio::select! {
            client = accepted.recv() => match client {
                Some(client) => serve(client, &context, &common, &clients),
                None => break,
            },
            () = common.shutdown.draining() => break,
        }
    }
    drain(&context, &common).await;
}

fn serve(client: Accepted, context: &Rc<Context>, common: &Common, clients: &Arc<AtomicUsize>) {
    let (context, all, mine) = (
        Rc::clone(context),
        Arc::clone(&common.clients),
        Arc::clone(clients),
    );
    let (common, metrics) = (common.clone(), Arc::clone(&common.metrics));
    spawn_local(async move {
        metrics.clients_connected.increment(1.0);
        match client.stream.open(&common).await {
            Ok(opened) => client::serve(context, opened.stream, opened.addresses, client.id).await,
            Err(refused) => note_refused(&refused, &metrics),
        }
        metrics.clients_connected.decrement(1.0);
        all.fetch_sub(1, Ordering::Relaxed);
        mine.fetch_sub(1, Ordering::Relaxed);
    });
}

fn note_refused(refused: &Refused, metrics: &Metrics) {
    let Refused { client, error, .. } = refused;
    let Some(reason) = refused.reason else {
        return tracing::debug!(client, error, "a connection was not meant to be served");
    };
    metrics.clients_rejected[reason].increment(1);
    tracing::warn!(
        client,
        error,
        "a client's connection failed before it was served"
    );
}

/// Takes over what is set anew, for as long as the worker runs.
async fn follow(mut live: Settings, context: Rc<Context>, knobs: Knobs) {
    while live.changed().await.is_ok() {
        let config = Arc::clone(&live.borrow_and_update());
        knobs.set(&config, &context.engine);
        context.is_guarding.set(guards::are_set(&config));
        context.is_timing.set(!config.slowlog_slower_than.is_zero());
        guards::warn_of_unknown(&config, &context.table);
        context.config.replace(config);
    }
}

/// Clients leave as soon as they are in the middle of nothing; transactions are finished.
async fn drain(context: &Rc<Context>, common: &Common) {
    context.is_draining.set(true);
    context
        .sessions
        .borrow()
        .values()
        .for_each(|session| session.wake());
    let finished = async {
        while !context.sessions.borrow().is_empty() || context.engine.active() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = finished => tracing::info!("worker drained"),
        () = tokio::time::sleep(context.config().drain_timeout) => left_over(context, "drain-timeout has passed"),
        () = common.shutdown.hurrying() => left_over(context, "told to hurry"),
    }
}

fn left_over(context: &Context, why: &str) {
    let (clients, transactions) = (context.sessions.borrow().len(), context.engine.active());
    tracing::warn!(
        clients,
        transactions,
        why,
        "worker stops; unfinished transactions are left to recovery"
    );
    for id in context.engine.under_way() {
        tracing::warn!(%id, "a transaction is left to recovery");
    }
}

/// Checks time limits, and publishes what is too frequent to publish at each change.
async fn tick(context: Rc<Context>, common: Common) {
    let mut troubles = vec![None; common.topology.shards()];
    // A shard that was away at the start, and noted as such, may be there by the first look.
    let mut is_first = true;
    let mut swept = context.turn.tick();
    let memory = Memory::new(&common.buffered, &common.metrics);
    let circuits = Circuits::new(&common.metrics);
    loop {
        tokio::time::sleep(TICK).await;
        let now = context.turn.tick();
        for (shard, told) in troubles.iter_mut().enumerate() {
            let link = context.engine.link(shard as u16);
            let trouble = link.trouble();
            if is_first || *told != trouble {
                common.standings[shard].tell(told.is_some(), trouble.as_deref());
                *told = trouble;
            }
        }
        is_first = false;
        context.engine.check_times(now);
        for feed in context.hub.feeds() {
            feed.check_time(now);
        }
        context.engine.publish();
        circuits.publish(&context.engine);
        memory.look(&context);
        context.tally.publish();
        if now.saturating_duration_since(swept) >= SWEEP {
            swept = now;
            close_idle(&context, now);
            memory.evict(&context, common.config.workers_effective());
            let patience = Patience::of(&context.config());
            let sessions = context.sessions.borrow();
            sessions
                .values()
                .for_each(|session| session.check_patience(&patience));
        }
    }
}

/// Sends clients away that have been silent for too long and are owed nothing.
fn close_idle(context: &Context, now: Instant) {
    let limit = context.config().idle_timeout;
    if limit.is_zero() {
        return;
    }
    let sessions = context.sessions.borrow();
    let closed = sessions
        .values()
        .filter(|session| session.close_if_idle(now, limit));
    context.metrics.limits_hit[Limit::IdleTimeout].increment(closed.count() as u64);
}

fn context(number: usize, common: &Common, knobs: &Knobs) -> Rc<Context> {
    let config = &common.config;
    let turn = Rc::new(Turn::default());
    let turnstile = Arc::clone(&common.turnstile);
    let map = Some(&*common.map);
    let metrics = &common.metrics;
    let engine = engine(config, knobs, metrics, turnstile, &turn, map, &common.busy);
    let hub = hub(common, knobs, &turn);
    Rc::new(Context {
        config: RefCell::new(Arc::clone(config)),
        topology: Arc::clone(&common.topology),
        table: Arc::clone(&common.table),
        server: Arc::clone(&common.info),
        engine,
        scripts: Shown::new(Arc::clone(&common.sources)),
        hub,
        turn,
        gate: Arc::clone(&common.gate),
        roster: Arc::clone(&common.roster),
        tally: Rc::new(Tally::new(
            Arc::clone(&common.metrics),
            common.latencies.stopwatch(number),
        )),
        latencies: common.latencies.clone(),
        metrics: Arc::clone(&common.metrics),
        is_guarding: Cell::new(guards::are_set(config)),
        is_timing: Cell::new(!config.slowlog_slower_than.is_zero()),
        slow: Arc::clone(&common.slow),
        tracer: Arc::clone(&common.tracer),
        sampled: Cell::new(0),
        hot: Arc::clone(&common.hot),
        is_full: Cell::new(false),
        is_draining: Cell::new(false),
        sessions: RefCell::new(HashMap::new()),
        buffer: RefCell::new(BytesMut::new()),
    })
}

/// Subscriptions over a feed for each shard; the feeds run as tasks from now on.
fn hub(common: &Common, knobs: &Knobs, turn: &Rc<Turn>) -> Rc<Hub> {
    let dials = dials(
        &common.config,
        &knobs.access,
        Some(&common.map),
        &common.busy,
    );
    let dials = dials.zip(&common.metrics.shards);
    let feeds = dials.enumerate().map(|(number, (dial, metrics))| {
        Feed::new(
            number as u16,
            dial,
            knobs.links.clone(),
            Rc::clone(turn),
            metrics.clone(),
        )
    });
    let hub = Hub::new(
        feeds.collect(),
        Arc::clone(&common.topology),
        Arc::clone(&common.audience),
        Arc::clone(&common.metrics),
    );
    for feed in hub.feeds() {
        spawn_local(Rc::clone(feed).run(Rc::<Hub>::clone(&hub)));
    }
    hub
}

/// Links and pools to all shards, and the engine over them. Must run on a thread with local
/// tasks; the links run as such from now on. With the id of a shard map no connection is used
/// whose shard notes another.
pub(crate) fn engine(
    config: &Config,
    knobs: &Knobs,
    metrics: &Arc<Metrics>,
    turnstile: Arc<Turnstile>,
    turn: &Rc<Turn>,
    map: Option<&str>,
    busy: &[Busy],
) -> Rc<Engine> {
    let mut ways = Vec::new();
    for (dial, metrics) in dials(config, &knobs.access, map, busy).zip(&metrics.shards) {
        let link = Link::new(
            dial.clone(),
            Lane::FIRST,
            knobs.links.clone(),
            Rc::clone(turn),
            metrics.clone(),
        );
        spawn_local(Rc::clone(&link).run());
        let pool = |bound| Pool::new(dial.clone(), knobs.pool(config, bound), metrics.clone());
        ways.push(Ways {
            link,
            pool: pool(Bound::Pinned),
            waiters: pool(Bound::Pinned),
            watchers: pool(Bound::Watch),
            wakeups: Wakeups::new(dial.clone(), metrics.clone()),
            armed: [Protocol::Resp2, Protocol::Resp3].map(|protocol| {
                Armed::new(
                    dial.clone(),
                    protocol,
                    knobs.links.clone(),
                    Rc::clone(turn),
                    metrics.clone(),
                )
            }),
        });
    }
    Engine::new(
        ways,
        times(config),
        turnstile,
        Arc::clone(metrics),
        boot_id(),
    )
}

/// The times of transactions; see [`txn::Limits`] for what must hold between them.
fn times(config: &Config) -> Times {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let (ttl, retention) = (ms(config.lock_ttl), ms(config.decision_retention));
    let limits = txn::Limits {
        ttl_ms: ttl,
        margin_ms: ttl / 4,
        window_ms: ttl.min(retention / 4),
        give_up_ms: (2 * ttl).max(5_000).min(retention / 2),
        backoff_ms: 5,
        backoff_max_ms: 250,
    };
    Times {
        strict: config.isolation == IsolationLevel::Strict && config.shards.len() > 1,
        fenced: config.fence,
        lock_wait: Cell::new(config.lock_wait),
        retention: config.decision_retention,
        limits,
        scan_interval: Cell::new(config.recovery_scan_interval),
    }
}

/// 64 random bits: unique among all workers of all proxies for all practical purposes.
fn boot_id() -> String {
    let random = getrandom::u64().unwrap_or_else(|_| {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        since_epoch.as_nanos() as u64 ^ (u64::from(std::process::id()) << 40)
    });
    format!("{random:016x}")
}
