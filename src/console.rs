//! `lockstep txn …` and `lockstep audit`: what operators ask of the shards, with no lockstep
//! running.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::{LocalSet, spawn_local};

use crate::backend::Busy;
use crate::config::{Config, Loaded, LogLevel, Origin};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::operator::{self, Order, Redact, Report};
use crate::server::{self, Knobs};
use crate::turn::Turn;
use crate::txn::TxnId;

/// How often time limits of requests are checked.
const TICK: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// Which transactions are unfinished or have left something; with `all` settled ones, too.
    List {
        /// Whether to look at all keys.
        all: bool,
    },
    /// One transaction in full.
    Show(TxnId, Redact),
    /// What became of one.
    Status(TxnId),
    /// To settle one.
    Resolve(TxnId, Order),
    /// How consistent the shards are.
    Audit,
    /// What the shards note of the shard map.
    Map,
    /// To make these shards those of a new map.
    AdoptMap,
}

/// A question and the form of its answer.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is asked.
    pub question: Question,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// What is to be printed, and whether all is well.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Lines, the last one ended.
    pub text: String,
    /// The exit status: success or failure.
    pub is_good: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Failure {
    /// The metrics, which connections count in, could not be made.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// What goes wrong with a shard is part of the answer: the log says it only to who asks.
pub fn adjust(loaded: &mut Loaded) {
    if loaded.origin("log-level") == Origin::Default {
        loaded.config.log_level = LogLevel::Off;
    }
}

/// Asks the shards.
///
/// # Errors
/// See [`Failure`]. That a shard gives no answer is none.
pub async fn run(config: Config, options: Options) -> Result<Answer, Failure> {
    let metrics = Arc::new(Metrics::new(&config.shards)?);
    let asking = async move {
        let turn = Rc::new(Turn::default());
        let busy: Vec<Busy> = config.shards.iter().map(|_| Busy::default()).collect();
        let engine = server::engine(
            &config,
            &Knobs::new(&config),
            &metrics,
            Arc::default(),
            &turn,
            None,
            &busy,
        );
        spawn_local(Rc::clone(&turn).flush_for_ever());
        spawn_local(tick(Rc::clone(&engine), turn));
        answer(&engine, options).await
    };
    Ok(LocalSet::new().run_until(asking).await)
}

async fn tick(engine: Rc<Engine>, turn: Rc<Turn>) {
    loop {
        tokio::time::sleep(TICK).await;
        let now = turn.tick();
        engine.check_times(now);
    }
}

async fn answer(engine: &Rc<Engine>, options: Options) -> Answer {
    let json = options.json;
    match options.question {
        Question::List { all } => print(&operator::list(engine, all).await, json),
        Question::Show(id, redact) => print(&operator::show(engine, &id, redact).await, json),
        Question::Resolve(id, order) => print(&operator::resolve(engine, &id, order).await, json),
        Question::Audit => print(&operator::audit(engine).await, json),
        Question::Map => print(&operator::map(engine).await, json),
        Question::AdoptMap => print(&operator::adopt(engine).await, json),
        Question::Status(id) => print(&operator::told(engine, &id).await, json),
    }
}

fn print(report: &impl Report, json: bool) -> Answer {
    Answer {
        text: match json {
            true => format!("{:#}\n", report.json()),
            false => report.text(),
        },
        is_good: report.is_good(),
    }
}
