//! `lockstep dev`: everything that is needed to try lockstep out, in one process that cleans up
//! after itself.
//!
//! It starts real redis-server processes on free loopback ports ([`shards`]), a lockstep in
//! front of them, runs a first transaction over all of them and shows where each key landed
//! ([`show`]). It ends on a signal, after `--for`, or with the command it was given.

mod client;
mod command;
mod screen;
mod shards;
mod show;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;

use crate::config::{Address, Config, Loaded, LogLevel, Origin};
use crate::run::{self, Running};
use crate::shutdown::{self, Shutdown, Trigger};
use screen::Screen;
use shards::Shards;

/// Greatest number of shards that `--shards` may ask for.
pub const SHARDS_MAX: i64 = 16;

/// What `lockstep dev` is asked for, besides settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Redis servers to start.
    pub shards: u16,
    /// Whether they write an append-only file.
    pub appendonly: bool,
    /// The program to start them with.
    pub redis_server: String,
    /// When to stop by itself.
    pub duration: Option<Duration>,
    /// What to run; its end is ours. Empty: nothing.
    pub command: Vec<String>,
}

/// Why trying out failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// Shards were given, but it brings its own.
    #[error("dev starts shards of its own, but `shard` is set {0}; remove it there")]
    ShardsGiven(&'static str),
    /// There is no such program.
    #[error(
        "cannot find {0:?}: install the package redis-server (Debian, Ubuntu: apt-get install \
         redis-server; macOS: brew install redis), or name the program with --redis-server"
    )]
    NoRedis(String),
    /// A Redis server did not start or answer.
    #[error("shard {number} did not start: {why}")]
    Shard {
        /// Which one.
        number: usize,
        /// What it said.
        why: String,
    },
    /// lockstep itself failed.
    #[error(transparent)]
    Run(#[from] run::Failure),
    /// The first transaction did not do what it must.
    #[error("the first transaction failed: {0}")]
    Transaction(String),
    /// The command could not be started.
    #[error("cannot run {program:?}: {error}")]
    Command {
        /// The program.
        program: String,
        /// What the system says.
        error: io::Error,
    },
    /// Something else that the system refused.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// Fits the settings to trying out: quieter, and on free ports where those of the defaults are
/// taken.
///
/// # Errors
///
/// [`Failure::ShardsGiven`].
pub fn adjust(loaded: &mut Loaded) -> Result<(), Failure> {
    let given = match loaded.origin("shard") {
        Origin::Default => None,
        Origin::Flag => Some("on the command line"),
        Origin::Environment => Some("in the environment (LOCKSTEP_SHARD)"),
        Origin::File(..) => Some("in the file"),
    };
    if let Some(place) = given {
        return Err(Failure::ShardsGiven(place));
    }
    if loaded.origin("log-level") == Origin::Default {
        loaded.config.log_level = LogLevel::Warn;
    }
    if loaded.origin("listen") == Origin::Default {
        loaded.config.listen = free_or_any(&loaded.config.listen);
    }
    if loaded.origin("metrics-listen") == Origin::Default {
        let wanted = loaded.config.metrics_listen.take();
        loaded.config.metrics_listen = wanted.as_ref().map(free_or_any);
    }
    Ok(())
}

/// The address, with any free port if its own is taken.
fn free_or_any(address: &Address) -> Address {
    match TcpListener::bind((address.host(), address.port())) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Address::new(address.host(), 0),
        _ => address.clone(),
    }
}

/// Runs until a signal, the end of `--for`, or the end of the command, and removes everything.
///
/// # Errors
///
/// When something could not be started or the first transaction failed; everything is removed
/// then, too.
pub async fn run(config: Config, options: Options) -> Result<ExitCode, Failure> {
    let (trigger, stop) = shutdown::channel();
    let signals = tokio::spawn(shutdown::on_signals(trigger.clone()));
    let mut shards = Shards::prepare()?;
    let done = start(&mut shards, config, &options, &trigger, stop).await;
    shards.stop().await;
    signals.abort();
    done
}

/// Starts everything, shows it, and stays until it is time to stop.
async fn start(
    shards: &mut Shards,
    mut config: Config,
    options: &Options,
    trigger: &Trigger,
    stop: Shutdown,
) -> Result<ExitCode, Failure> {
    let all_started = async {
        for _ in 0..options.shards {
            shards.start_one(options).await?;
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        done = all_started => done?,
        () = stop.draining() => return Ok(ExitCode::SUCCESS),
    }
    config.shards = shards.addresses();
    let running = Running::start(config, stop.clone()).await?;
    let place = Place {
        proxy: reachable(running.address()),
        metrics: running.metrics_address.map(reachable),
    };
    let done = tokio::select! {
        done = stay(shards, &place, options) => done,
        () = stop.draining() => Ok(ExitCode::SUCCESS),
    };
    trigger.drain();
    running.finished(|| trigger.hurry()).await?;
    done
}

/// Where the parts of lockstep can be reached.
struct Place {
    proxy: SocketAddr,
    metrics: Option<SocketAddr>,
}

/// An address to connect to, for one that may say "all interfaces".
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn stay(shards: &Shards, place: &Place, options: &Options) -> Result<ExitCode, Failure> {
    // The output of a command belongs to who asked for it.
    let screen = match options.command.is_empty() {
        true => Screen::Output,
        false => Screen::Error,
    };
    show::what_runs(screen, shards, place);
    let keys = show::first_transaction(screen, shards, place).await?;
    let time_is_up = async {
        match options.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    if options.command.is_empty() {
        show::what_to_paste(screen, place, options.duration);
        time_is_up.await;
        return Ok(ExitCode::SUCCESS);
    }
    show::remove(place, &keys).await?;
    command::run(&options.command, shards, place, time_is_up).await
}
