//! Where and with what it was measured, and where it is written down.

use std::fs::read_to_string;
use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;

use super::support::proxy::program;

const MARKS: (&str, &str) = ("<!-- figures -->", "<!-- /figures -->");

/// The first line that a command says.
fn said(program: impl AsRef<Path>, args: &[&str]) -> String {
    let output = Command::new(program.as_ref()).args(args).output();
    let Ok(output) = output else {
        return "not installed".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("silent").trim().to_owned()
}

/// Date, versions and machine, as a list in Markdown; to be asked before the load begins.
pub fn show(rounds: usize, seconds: f64) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| read_to_string(path).unwrap_or_default();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let redis = said("redis-server", &["--version"]);
    let redis = redis.split(" sha=").next().unwrap_or_default();
    format!(
        "\n- {date}, median of {rounds} rounds of {seconds} s\n\
         - {lockstep}; {redis}; {nutcracker}; {rustc}\n\
         - {cores} cores, Linux {kernel}, load average before it began: {load}\n",
        date = said("date", &["-u", "+%Y-%m-%d"]),
        lockstep = said(program(), &["--version"]),
        nutcracker = said("nutcracker", &["--version"]),
        rustc = said("rustc", &["--version"]),
        kernel = read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// Puts the text between the marks of this file, or makes it the file if there is none.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let (begin, end) = MARKS;
    let Ok(former) = read_to_string(path) else {
        return std::fs::write(path, format!("{begin}\n{text}\n{end}\n"));
    };
    let parts = former.split_once(begin);
    let parts = parts.and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
    let Some((head, tail)) = parts else {
        let what = format!("{} has no {begin} followed by {end}", path.display());
        return Err(Error::other(what));
    };
    std::fs::write(path, format!("{head}{begin}\n{text}\n{end}{tail}"))
}
