//! A real Prometheus of a test's own.

use std::fs::{File, write};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::boards::Query;
use super::support::eventually_with;
use super::support::ports::Port;
use super::support::process::Process;

/// Gone when dropped.
pub struct Prometheus {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `targets` every second as the job lockstep, with these rules.
    pub fn start(targets: &[String], rules: &Path) -> Prometheus {
        let folder = TempDir::with_prefix("lockstep-prometheus-").expect("a temporary folder");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: lockstep\n    static_configs:\n      - targets: {targets:?}\n",
            rules.display()
        );
        let path = folder.path().join("prometheus.yaml");
        write(&path, config).expect("written");
        let port = Port::lease();
        let log = File::create(folder.path().join("log")).expect("a log file");
        let process = Process::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", path.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().display()))
                .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
        )
        .expect("prometheus starts");
        let prometheus = Prometheus {
            port,
            _process: process,
            _folder: folder,
        };
        let limit = Duration::from_secs(30);
        eventually_with("Prometheus is ready", limit, || prometheus.get("/-/ready"));
        prometheus
    }

    /// Whether an expression has a value now that is a number.
    pub fn gives_data(&self, expression: &str) -> Result<bool, String> {
        let answer = self.ask(&format!("query?query={}", encode(expression)))?;
        let results = answer["data"]["result"].as_array();
        let is_number = |sample: &Value| sample["value"][1] != "NaN";
        Ok(results.is_some_and(|results| results.iter().any(is_number)))
    }

    /// The expressions of the alerts, as Prometheus understood them.
    pub fn alerts(&self) -> Vec<Query> {
        let answer = self.ask("rules").expect("the rules");
        let groups = answer["data"]["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array());
        let query = |rule: &Value| {
            let name = rule["name"].as_str().unwrap_or_default();
            let text = rule["query"].as_str().unwrap_or_default();
            assert_eq!(rule["health"], "ok", "{name}");
            Query::new(format!("alert {name}"), text)
        };
        rules.flatten().map(query).collect()
    }

    /// Names of all metrics that lockstep exports.
    pub fn names(&self) -> Vec<String> {
        let answer = self.ask("label/__name__/values").expect("the names");
        let names = answer["data"].as_array().expect("names");
        names
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| name.starts_with("lockstep_"))
            .map(str::to_owned)
            .collect()
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let body = self.get(&format!("/api/v1/{path}"))?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        match answer["status"] == "success" {
            true => Ok(answer),
            false => Err(body),
        }
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let get = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.number()))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // The older protocol: the body comes in one piece.
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = get().map_err(|error| error.to_string())?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
        match head.contains(" 503 ") {
            true => Err(head.to_owned()),
            false => Ok(body.to_owned()),
        }
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
