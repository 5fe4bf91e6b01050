//! The command that `dev` runs, if it is given one.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::shards::Shards;
use super::{Failure, Place};

/// How long a command that is told to stop may take.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Exit status of a command that `--for` ended, as `timeout` gives it.
const TIMED_OUT: u8 = 124;

/// Runs it until it ends, or until the time is up.
pub(super) async fn run(
    words: &[String],
    shards: &Shards,
    place: &Place,
    time_is_up: impl Future<Output = ()>,
) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |error| Failure::Command {
        program: program.clone(),
        error,
    };
    let addresses: Vec<_> = shards.addresses().iter().map(ToString::to_string).collect();
    let metrics = place.metrics.map(|a| format!("http://{a}/metrics"));
    let mut child = Command::new(program)
        .args(arguments)
        .env("LOCKSTEP_URL", format!("redis://{}", place.proxy))
        .env("LOCKSTEP_PORT", place.proxy.port().to_string())
        .env("LOCKSTEP_METRICS_URL", metrics.unwrap_or_default())
        .env("LOCKSTEP_DEV_SHARDS", addresses.join(","))
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let ended = tokio::select! {
        ended = child.wait() => Some(ended.map_err(failed)?),
        () = time_is_up => None,
    };
    match ended {
        Some(status) => Ok(ExitCode::from(code(status))),
        None => {
            stop(&mut child).await.map_err(failed)?;
            Ok(ExitCode::from(TIMED_OUT))
        }
    }
}

/// The status as a shell reports it.
fn code(status: ExitStatus) -> u8 {
    let by_signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(by_signal).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Asks it to stop, and makes it if it does not.
async fn stop(child: &mut Child) -> io::Result<()> {
    if let Some(pid) = child.id() {
        // It has not been waited for, so the id is still its own.
        let mut kill = Command::new("/bin/sh");
        kill.args(["-c", "kill -TERM \"$1\"", "sh"])
            .arg(pid.to_string());
        let _ = kill.status().await;
    }
    match timeout(STOP_TIME, child.wait()).await {
        Ok(ended) => ended.map(drop),
        Err(_) => child.kill().await,
    }
}
