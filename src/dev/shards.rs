//! The Redis servers of `dev`: started on free ports, gone when this process is, however it
//! ends.
//!
//! A *warden* sees to that: a shell that waits for the end of a pipe whose other end only this
//! process holds. It leads a process group of its own, in which the servers are started, so it
//! can end them all without knowing their ids, and a Ctrl-C at the terminal reaches none of
//! them before lockstep has drained.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, shown};
use super::{Failure, Options};
use crate::config::Address;

const WARDEN: &str = r#"
trap '' TERM INT HUP
while read -r _; do :; done
kill -TERM 0
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
kill -KILL 0
"#;

/// Longest time until a server answers.
const START_TIME: Duration = Duration::from_secs(10);
/// Longest time for everything to end.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Another may take a port between our finding it free and the server's listening on it.
const PORTS_TRIED_MAX: usize = 5;
/// Interval at which a starting server is asked; it is usual for it to take some 15 ms.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

/// The servers and their folder.
pub(super) struct Shards {
    pub(super) folder: PathBuf,
    pub(super) running: Vec<Shard>,
    warden: Child,
    warden_pipe: Option<ChildStdin>,
}

/// One server.
pub(super) struct Shard {
    pub(super) address: SocketAddr,
    pub(super) version: String,
    pub(super) pid: u32,
    process: Child,
}

impl Shards {
    /// Makes the folder and starts the warden; no server yet.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let system = |what| move |error| Failure::System(what, error);
        let folder = folder_name().map_err(system("cannot choose a folder"))?;
        let mut warden = Command::new("/bin/sh")
            .args(["-c", WARDEN, "lockstep-dev-warden"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(system("cannot run /bin/sh"))?;
        let warden_pipe = warden.stdin.take();
        make_folder(&folder).map_err(system("cannot make a temporary folder"))?;
        Ok(Self {
            folder,
            running: Vec::new(),
            warden,
            warden_pipe,
        })
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        let address =
            |shard: &Shard| Address::new(shard.address.ip().to_string(), shard.address.port());
        self.running.iter().map(address).collect()
    }

    /// Starts one more server and waits until it answers.
    pub(super) async fn start_one(&mut self, options: &Options) -> Result<(), Failure> {
        let number = self.running.len();
        let folder = self.folder.join(format!("shard-{number}"));
        let failed = |why| Failure::Shard { number, why };
        make_folder(&folder).map_err(|error| failed(error.to_string()))?;
        let mut why = String::new();
        for _ in 0..PORTS_TRIED_MAX {
            let port = free_port().map_err(|error| failed(error.to_string()))?;
            let mut process = self.spawn(options, &folder, port)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let pid = process.id().unwrap_or_default();
            match answers(&mut process, address, pid).await {
                Ok(version) => {
                    self.running.push(Shard {
                        address,
                        version,
                        pid,
                        process,
                    });
                    return Ok(());
                }
                Err(error) => why = format!("{error}{}", last_line(&folder)),
            }
            // Ends it, if it has not ended.
            let _ = process.kill().await;
            if !why.contains("in use") {
                break;
            }
        }
        Err(failed(why))
    }

    fn spawn(&self, options: &Options, folder: &Path, port: u16) -> Result<Child, Failure> {
        let system = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Failure::NoRedis(options.redis_server.clone()),
            _ => Failure::System("cannot start redis-server", error),
        };
        let log = std::fs::File::create(folder.join("log")).map_err(system)?;
        let errors = log.try_clone().map_err(system)?;
        let group = self.warden.id().and_then(|id| i32::try_from(id).ok());
        let appendonly = if options.appendonly { "yes" } else { "no" };
        Command::new(&options.redis_server)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", appendonly])
            .args(["--daemonize", "no", "--dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(group.unwrap_or(0))
            .kill_on_drop(true)
            .spawn()
            .map_err(system)
    }

    /// Ends everything and waits until it is gone.
    pub(super) async fn stop(mut self) {
        drop(self.warden_pipe.take());
        let all = async {
            let _ = self.warden.wait().await;
            for shard in &mut self.running {
                let _ = shard.process.wait().await;
            }
        };
        if timeout(STOP_TIME, all).await.is_err() {
            tracing::warn!(folder = %self.folder.display(), "not everything could be removed");
        }
    }
}

/// A name in the system's temporary folder that nobody can have guessed.
fn folder_name() -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(std::env::temp_dir().join(format!("lockstep-dev-{random:016x}")))
}

fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Waits until the server answers, and makes sure that it is ours that does. Its version.
async fn answers(process: &mut Child, address: SocketAddr, pid: u32) -> io::Result<String> {
    let give_up = Instant::now() + START_TIME;
    loop {
        if let Some(status) = process.try_wait()? {
            return Err(io::Error::other(format!("it ended at once ({status})")));
        }
        match server_info(address).await {
            Ok(info) if field(&info, "process_id") == Some(&pid.to_string()) => {
                return Ok(field(&info, "redis_version").unwrap_or("?").to_owned());
            }
            Ok(_) => return Err(io::Error::other("its port is in use")),
            Err(error) if Instant::now() > give_up => return Err(error),
            Err(_) => sleep(ASK_INTERVAL).await,
        }
    }
}

async fn server_info(address: SocketAddr) -> io::Result<String> {
    let mut client = Client::connect(address).await?;
    let reply = client.ask("INFO server").await?;
    match reply.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(io::Error::other(shown(&reply))),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim_end)
}

fn last_line(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    match log.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("; its last words: {line}"),
        None => String::new(),
    }
}
