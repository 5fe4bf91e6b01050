//! New settings without a restart: what is right counts from then on, and one mistake keeps
//! everything as it was.

use std::fs::write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::running::until;
use crate::support::{Client, Cluster, Options, Proxy, encode, key_on};

/// A proxy that takes a part of its settings from a file, and that file.
struct Stage {
    cluster: Cluster,
    folder: TempDir,
}

impl Stage {
    fn start(settings: &str) -> Self {
        let folder = TempDir::with_prefix("lockstep-reload-").unwrap();
        let stage = |name: &str| folder.path().join(name);
        write(stage("secret"), "one\n").unwrap();
        write(
            stage("settings.toml"),
            settings.replace("DIR", &shown(folder.path())),
        )
        .unwrap();
        let config = ("config".to_owned(), shown(&stage("settings.toml")));
        let cluster = Cluster::start(&Options {
            proxy: vec![config],
            ..Options::default()
        });
        Self { cluster, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn proxy(&self) -> &Proxy {
        &self.cluster.proxies()[0]
    }

    /// Writes the file, and waits until it was looked at.
    fn change(&self, settings: &str, result: &str) {
        let label = format!("\"{result}\"");
        let count = || self.proxy().metric("lockstep_config_reloads_total", &label);
        let before = count();
        let text = settings.replace("DIR", &shown(self.folder.path()));
        write(self.path("settings.toml"), text).unwrap();
        until(&format!("{settings:?} is {result}"), || count() > before);
        let is_good = self
            .proxy()
            .metric("lockstep_config_last_reload_successful", "")
            == 1.0;
        assert_eq!(is_good, matches!(result, "applied" | "unchanged"));
    }

    fn log_says(&self, part: &str) {
        until(&format!("the log says {part}"), || {
            self.proxy().log().contains(part)
        });
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A client that is served; None if it is turned away.
fn served(stage: &Stage) -> Option<Client> {
    let mut client = stage.cluster.client();
    let reply = client.try_call(&["PING"]).ok()?;
    reply.value.error().is_none().then_some(client)
}

fn is_turned_away(stage: &Stage) -> bool {
    served(stage).is_none()
}

/// A client that stays. Who has just left may count yet, so it may have to come again.
fn stays(stage: &Stage) -> Client {
    let mut client = None;
    until("a client is served", || {
        client = served(stage);
        client.is_some()
    });
    client.expect("it is served")
}

#[test]
fn a_changed_file_counts_and_a_bad_one_changes_nothing() {
    let stage = Stage::start("clients-max = 2\n");
    stage.cluster.expect_log("settings stay as they were");
    let proxy = stage.proxy();
    let _held = [stays(&stage), stays(&stage)];
    until("two is all", || is_turned_away(&stage));
    stage.change("clients-max = 20\nlog-level = \"debug\"\n", "applied");
    stage.log_says("changed=\"log-level, clients-max\"");
    until("there is room", || !is_turned_away(&stage));
    // Every mistake is told, with its line; what is right in the file does not count either.
    stage.change("clients-max = 1\nworkers = \"x\"\nnosuch = 1\n", "invalid");
    stage.log_says("settings.toml:2: workers: must be an integer");
    stage.log_says("settings.toml:3: nosuch: unknown setting");
    assert!(!is_turned_away(&stage));
    stage.change(
        "clients-max = 1\nlisten-unix = \"/tmp/x\"\nacl-file = \"/no\"\n",
        "refused",
    );
    stage.log_says("listen-unix needs a restart: sockets are opened once");
    stage.log_says("acl-file needs a restart");
    assert!(!is_turned_away(&stage));
    // What was told once is not told again with every look.
    let invalid = proxy.metric("lockstep_config_reloads_total", "\"invalid\"");
    stage.change(
        "clients-max = 20\nlog-level = \"debug\" # as before\n",
        "unchanged",
    );
    assert_eq!(
        proxy.metric("lockstep_config_reloads_total", "\"invalid\""),
        invalid
    );
    proxy.hang_up();
    until("SIGHUP is heard", || {
        proxy.metric("lockstep_config_reloads_total", "\"unchanged\"") >= 2.0
    });
    stage.log_says("why=\"SIGHUP\"");
}

#[test]
fn the_shard_map_is_refused_with_the_reason() {
    let stage = Stage::start("");
    stage.cluster.expect_log("settings stay as they were");
    // The tests give the shards by flags, and flags win: so nothing changes.
    stage.change("shard = [\"127.0.0.1:1\"]\n", "unchanged");
    stage.change(
        "lock-wait-ms = 1\nisolation = \"transactions\"\n",
        "refused",
    );
    stage.log_says("isolation needs a restart: transactions that are under way rest on it");
}

#[test]
fn passwords_are_changed_without_a_restart() {
    let stage = Stage::start("");
    stage.cluster.expect_log("wrong password");
    let proxy = stage.proxy();
    let applied = || proxy.metric("lockstep_config_reloads_total", "\"applied\"");
    let mut open = stage.cluster.client();
    assert!(open.say("PING").error().is_none());
    stage.change("password-file = \"DIR/secret\"\n", "applied");
    let mut old = stage.cluster.client();
    assert!(
        old.say("PING")
            .error()
            .is_some_and(|why| why.starts_with("NOAUTH"))
    );
    assert!(old.say("AUTH one").error().is_none() && old.say("PING").error().is_none());
    write(stage.path("secret"), "two\n").unwrap();
    until("the new password is known", || applied() == 2.0);
    let mut new = stage.cluster.client();
    assert!(new.say("AUTH one").error().is_some() && new.say("AUTH two").error().is_none());
    // Who is in stays in, as with Redis.
    assert!(old.say("PING").error().is_none() && open.say("PING").error().is_none());
}

/// Shards that begin to ask for a password are spoken to with it, from the next connection on.
#[test]
fn credentials_towards_shards_count_from_the_next_connection_on() {
    let stage = Stage::start("reconnect-backoff-max-ms = 50\n");
    stage.cluster.expect_log("shard");
    let mut client = stage.cluster.client();
    let key = key_on("k", 0, 3);
    for shard in stage.cluster.shards() {
        assert!(
            shard
                .client()
                .say("CONFIG SET requirepass s3cret")
                .error()
                .is_none()
        );
    }
    stage.change(
        "reconnect-backoff-max-ms = 50\nshard-password = \"s3cret\"\nrequest-timeout-ms = 300\n",
        "applied",
    );
    let mut direct = stage.cluster.shards()[0].client();
    direct.say("AUTH s3cret");
    direct.say("CLIENT KILL TYPE normal SKIPME yes");
    until("the shard is reached again", || {
        client.say(&format!("SET {key} 1")).error().is_none()
    });
    // The time limit that was set with it counts, too.
    stage.cluster.shards()[0].pause();
    let began = Instant::now();
    client.send(&encode(&["GET", &key])).unwrap();
    assert!(client.read().unwrap().value.error().is_some());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    stage.cluster.shards()[0].resume();
}
