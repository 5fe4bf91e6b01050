//! The page at `/`: what it says over HTTP in every state that matters, and, where there is a
//! Chromium, what a person sees of it. `LOCKSTEP_SCREENSHOTS=1` writes the pictures of the docs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::load::Load;
use super::support::{Cluster, Options, Proxy, encode, eventually, keys_on};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_page_tells_what_is_so() {
    let mut cluster = Cluster::start(&Options {
        proxies: 2,
        durable: true,
        ..Options::default()
    });
    for pattern in ["shard", "recover", "transaction", "memory"] {
        cluster.expect_log(pattern);
    }
    let camera = Camera::find();
    let proxy = &cluster.proxies()[1];
    is_self_contained(proxy);
    until(proxy, "it is at rest", |now| {
        figure(now, "consistency_ratio_mean") == 1.0 && now["ready"] == true
    });
    camera.shoot(
        proxy,
        "at-rest",
        &["✓ ready", "all as it should be", "✓ up"],
    );

    let load = Load::start(&cluster);
    until(proxy, "transactions are counted", |now| {
        let all = &now["figures"]["transactions_total"];
        all["distributed committed"].as_f64() > Some(20.0)
            && all["single committed"].as_f64() > Some(5.0)
    });
    load.run_for(camera.patience());
    camera.shoot(proxy, "under-load", &["committed"]);
    // Figures only: nothing of what clients store, nor who they are.
    let told = body(&proxy.http_get("/live.json?since=0"));
    assert!(
        told.contains("\"rows\"") && !told.contains("load:"),
        "{told}"
    );

    let address = cluster.shards()[2].address();
    cluster.shard_mut(2).kill();
    let proxy = &cluster.proxies()[1];
    until(proxy, "a shard is down", |now| {
        now["figures"]["shard_up"][&address] == 0.0 && now["notes"].to_string().contains(&address)
    });
    load.run_for(camera.patience() / 2);
    camera.shoot(
        proxy,
        "shard-down",
        &["ready, with trouble", "✕ down", "To know"],
    );
    cluster.shard_mut(2).restart();
    drop(load);
    // What the shard's end left in doubt is not what the next picture is of.
    until(&cluster.proxies()[1], "all is settled", |now| {
        figure(now, "consistency_ratio_mean") == 1.0 && figure(now, "transactions_in_doubt") == 0.0
    });

    leave_in_doubt(&mut cluster);
    let proxy = &cluster.proxies()[1];
    until(proxy, "a transaction is in doubt", |now| {
        figure(now, "transactions_in_doubt") >= 1.0 && figure(now, "in_doubt_oldest_seconds") > 0.0
    });
    camera.shoot(proxy, "in-doubt", &["the oldest for"]);
    cluster.shard_mut(1).restart();
    cluster.proxies()[1].expect_log("");
    until(&cluster.proxies()[1], "it is settled", |now| {
        figure(now, "transactions_in_doubt") == 0.0
    });
}

/// The first proxy dies between the promise and the deed, and so does a shard that has promised.
fn leave_in_doubt(cluster: &mut Cluster) {
    let keys: Vec<String> = (0..2)
        .map(|shard| keys_on("doubt:", shard, 3, 1).remove(0))
        .collect();
    let proxy = &cluster.proxies()[0];
    eventually("every shard is there again", PATIENCE, || {
        proxy.metric("lockstep_shard_up", "") == 3.0
    });
    let mut client = cluster.client_at(0);
    proxy.arm(FAILPOINT);
    client.say("MULTI");
    keys.iter()
        .for_each(|key| drop(client.say(&format!("INCR {key}"))));
    client.send(&encode(&["EXEC"])).unwrap();
    eventually("it stands still", PATIENCE, || proxy.is_at(FAILPOINT));
    cluster.kill(0);
    cluster.shard_mut(1).kill();
}

const FAILPOINT: &str = "coordinator-after-votes";

fn until(proxy: &Proxy, what: &str, holds: impl Fn(&Value) -> bool) {
    eventually(what, PATIENCE, || {
        newest(proxy).is_some_and(|row| holds(&row))
    });
}

/// The last row that it tells of.
fn newest(proxy: &Proxy) -> Option<Value> {
    let answer = proxy.http_get("/live.json?since=0");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 200 "),
        "{answer}"
    );
    let told: Value = serde_json::from_str(&body(&answer)).ok()?;
    told["rows"].as_array()?.last().cloned()
}

fn figure(row: &Value, name: &str) -> f64 {
    row["figures"][name].as_f64().unwrap_or(-1.0)
}

fn body(answer: &str) -> String {
    answer
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body)
        .to_owned()
}

fn is_self_contained(proxy: &Proxy) {
    let answer = proxy.http_get("/");
    let lower = answer.to_lowercase();
    assert!(lower.starts_with("http/1.1 200 ") && lower.contains("content-type: text/html"));
    assert!(lower.contains("content-security-policy: default-src 'none';"));
    let page = body(&answer);
    // The one address in it names the kind of its drawings, and is never asked.
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for sign in ["http://", "https://", "@import", "<link", " src="] {
        assert!(!outside.contains(sign), "{sign}");
    }
    assert!(page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme: dark"));
    let wrong = proxy.http_get("/live.json?since=x");
    assert!(wrong.starts_with("HTTP/1.1 400 "), "{wrong}");
}

/// A Chromium without a screen, if there is one.
struct Camera {
    program: Option<PathBuf>,
    folder: PathBuf,
    is_for_docs: bool,
}

impl Camera {
    fn find() -> Self {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&paths)
            .map(|folder| folder.join("chromium"))
            .find(|path| path.is_file());
        let is_for_docs = std::env::var("LOCKSTEP_SCREENSHOTS").is_ok_and(|value| value == "1");
        if program.is_none() {
            println!("no chromium: the page is looked at over HTTP only");
        }
        let folder = match is_for_docs {
            true => Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/page"),
            false => std::env::temp_dir().join(format!("lockstep-page-{}", std::process::id())),
        };
        std::fs::create_dir_all(&folder).expect("a folder");
        Self {
            program,
            folder,
            is_for_docs,
        }
    }

    /// How long a state is to last so that the picture shows it.
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.is_for_docs { 40 } else { 2 })
    }

    /// What the page says must be there, and on a picture that is not empty.
    fn shoot(&self, proxy: &Proxy, name: &str, parts: &[&str]) {
        let Some(program) = &self.program else { return };
        let url = format!("http://{}/", proxy.metrics_address());
        let chromium = || {
            let mut command = Command::new(program);
            command
                .args([
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--hide-scrollbars",
                ])
                .args(["--virtual-time-budget=1500", "--window-size=1100,690"])
                .arg(format!(
                    "--user-data-dir={}",
                    self.folder.join("profile").display()
                ))
                .stdin(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        let seen = chromium()
            .args(["--dump-dom", &url])
            .output()
            .expect("chromium runs");
        let seen = String::from_utf8_lossy(&seen.stdout);
        for part in parts {
            assert!(seen.contains(part), "{name}: {part:?} is not on the page");
        }
        let path = self.folder.join(format!("{name}.png"));
        let shot = chromium()
            .arg(format!("--screenshot={}", path.display()))
            .arg(&url)
            .stdout(Stdio::null())
            .status();
        assert!(shot.expect("chromium runs").success(), "{name}");
        let picture = std::fs::read(&path).expect("a picture");
        assert!(
            picture.starts_with(b"\x89PNG") && picture.len() > 10_000,
            "{name}"
        );
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let gone = match self.is_for_docs {
            true => self.folder.join("profile"),
            false => self.folder.clone(),
        };
        let _ = std::fs::remove_dir_all(gone);
    }
}
