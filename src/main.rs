//! The `lockstep` program.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use lockstep::cli::{self, Invocation};
use lockstep::config::{self, Loaded, Sources};
use lockstep::frontend::access;
use lockstep::logging::Levels;
use lockstep::reload::{self, Reloader};
use lockstep::run::{self, Running};
use lockstep::server::StartError;
use lockstep::{build, console, dev, logging, shutdown};

/// Anything that ends the program with status 1, said on standard error.
type Failure = Box<dyn std::error::Error>;

/// A panic is a fault of ours, and what its task was in the middle of is not known. Clients are
/// better served by a process that starts anew than by one of which a part is gone; what it had
/// prepared is settled by others.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    abort_on_panic();
    // Variables that are not UTF-8 cannot be ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let matches = cli::command().get_matches();
    let done = match cli::invocation(&matches, environment.collect()) {
        Invocation::Serve(sources) => serve(&sources),
        Invocation::Dev(sources, options) => try_out(&sources, options),
        Invocation::Check(path) => Ok(check(&path)),
        Invocation::Ask(sources, options) => ask(&sources, options),
    };
    done.unwrap_or_else(|failure| {
        for line in failure.to_string().lines() {
            let _ = writeln!(io::stderr(), "lockstep: {line}");
        }
        ExitCode::FAILURE
    })
}

fn serve(sources: &Sources) -> Result<ExitCode, Failure> {
    let loaded = config::load(sources)?;
    if loaded.config.shards.is_empty() {
        return Err(NO_SHARDS.into());
    }
    let levels = start_logging(&loaded)?;
    block_on(serve_until_told(sources.clone(), loaded, levels))?
}

const NO_SHARDS: &str = "no shards given: add --shard HOST:PORT[,HOST:PORT…], set LOCKSTEP_SHARD, \
                         or write shard = [\"HOST:PORT\"] into the file given by --config; \
                         `lockstep dev` starts three of its own";

async fn serve_until_told(
    sources: Sources,
    loaded: Loaded,
    levels: Levels,
) -> Result<ExitCode, Failure> {
    let hangups = reload::hangups()?;
    let (trigger, stop) = shutdown::channel();
    let signals = tokio::spawn(shutdown::on_signals(trigger.clone()));
    let shards = loaded.config.shards.len();
    let running = match Running::start(loaded.config.clone(), stop).await {
        Err(run::Failure::Server(StartError::Stopped)) => return Ok(ExitCode::SUCCESS),
        started => started?,
    };
    tracing::info!(
        version = build::VERSION,
        commit = build::COMMIT,
        listen = %running.address(),
        metrics = running.metrics_address.map(tracing::field::display),
        shards,
        "started"
    );
    let (adjuster, metrics) = running.adjuster();
    let reloader = Reloader {
        sources,
        loaded,
        adjuster,
        levels,
        metrics,
    };
    let reloading = tokio::spawn(reloader.run(hangups));
    running.finished(|| trigger.hurry()).await?;
    reloading.abort();
    signals.abort();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn try_out(sources: &Sources, options: dev::Options) -> Result<ExitCode, Failure> {
    let mut loaded = config::load(sources)?;
    dev::adjust(&mut loaded)?;
    start_logging(&loaded)?;
    Ok(block_on(dev::run(loaded.config, options))??)
}

fn ask(sources: &Sources, options: console::Options) -> Result<ExitCode, Failure> {
    let mut loaded = config::load(sources)?;
    if loaded.config.shards.is_empty() {
        return Err(NO_SHARDS.into());
    }
    console::adjust(&mut loaded);
    start_logging(&loaded)?;
    let answer = block_on(console::run(loaded.config, options))??;
    // Who stopped reading knows enough.
    let _ = write!(io::stdout(), "{}", answer.text);
    Ok(match answer.is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn check(path: &Path) -> ExitCode {
    let (text, status) = match config::check_file(path) {
        Ok(loaded) => match check_users(&loaded) {
            Ok(remark) => (summary(path, &loaded) + &remark, ExitCode::SUCCESS),
            Err(mistakes) => {
                let count = mistakes.len();
                let noun = if count == 1 { "mistake" } else { "mistakes" };
                let text = format!(
                    "{}\n{}: {count} {noun}",
                    mistakes.join("\n"),
                    path.display()
                );
                (text, ExitCode::FAILURE)
            }
        },
        Err(problems) => {
            let count = problems.0.len();
            let noun = if count == 1 { "mistake" } else { "mistakes" };
            let text = format!("{problems}\n{}: {count} {noun}", path.display());
            (text, ExitCode::FAILURE)
        }
    };
    // Who stopped reading knows enough.
    let _ = writeln!(io::stdout(), "{text}");
    status
}

/// What there is to say of the file of users, if there is one.
fn check_users(loaded: &Loaded) -> Result<String, Vec<String>> {
    let Some(path) = &loaded.config.acl_file else {
        return Ok(String::new());
    };
    let drafts = access::check_file(path)?;
    let remark = access::remark(&drafts).map(|remark| format!("\n  {path}: {remark}"));
    Ok(format!("\n  {path}: {} users", drafts.len()) + &remark.unwrap_or_default())
}

fn summary(path: &Path, loaded: &Loaded) -> String {
    let mut text = format!("{}: no mistakes", path.display());
    for (name, value) in loaded.given() {
        text.push_str(&format!("\n  {name} = {value}"));
    }
    if loaded.config.shards.is_empty() {
        text.push_str("\n  (no shards in it: they must come from --shard or LOCKSTEP_SHARD)");
    }
    text
}

fn start_logging(loaded: &Loaded) -> Result<Levels, Failure> {
    let levels = logging::init(loaded.config.log_level, loaded.config.log_format)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(levels)
}

/// Runs on this thread; the workers have threads and runtimes of their own. What is still
/// running in the end is not waited for: the time for that is over.
fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}
