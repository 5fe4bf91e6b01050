//! Applications on client libraries as they come, and the accounts they move money between.

use crate::support::{Client, Cluster, Value, spread};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const ACCOUNTS: usize = 24;
const BALANCE: i64 = 1_000;
/// Threads, or what node has instead, of each application: as the scripts have it.
const THREADS: usize = 3;

/// The accounts, filled.
pub struct Bank {
    accounts: Vec<String>,
}

impl Bank {
    pub fn open(cluster: &Cluster) -> Bank {
        let accounts = spread("account", cluster.shards().len(), ACCOUNTS);
        let mut client = cluster.client();
        for account in &accounts {
            client.call(&["SET", account, &BALANCE.to_string()]);
        }
        Bank { accounts }
    }

    /// What is in all of them together is what was.
    pub fn check_sum(&self, client: &mut Client) {
        let gets: Vec<_> = self.accounts.iter().map(|name| vec!["GET", name]).collect();
        let reply = client.try_transaction(&gets).expect("EXEC is answered");
        let sum: i64 = reply.elements().iter().filter_map(Value::integer).sum();
        assert_eq!(sum, ACCOUNTS as i64 * BALANCE, "money was made or lost");
    }
}

/// One that runs.
pub struct Application {
    name: String,
    child: Child,
}

/// What it did.
pub struct Report {
    pub name: String,
    pub acknowledged: usize,
    pub errors: BTreeMap<String, u64>,
}

impl Application {
    /// Starts what can be started here: redis-py and node-redis, on each of these ports.
    pub fn start_all(bank: &Bank, ports: &[u16]) -> Vec<Application> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration");
        let python = printed(Command::new(folder.join("clients/setup")).arg("python"));
        let node = printed(&mut Command::new(folder.join("lifecycle/setup-node")));
        let mut commands = vec![(
            "py",
            PathBuf::from(python),
            folder.join("lifecycle/transfer.py"),
        )];
        if node.is_empty() {
            println!("node is not there: node-redis is left out");
        } else {
            commands.push(("node", "node".into(), Path::new(&node).join("transfer.mjs")));
        }
        let each = commands
            .iter()
            .flat_map(|command| ports.iter().map(move |port| (command, port)));
        let start = |((kind, program, script), port): (&(&str, PathBuf, PathBuf), &u16)| {
            let name = format!("{kind}-{port}");
            let mut command = Command::new(program);
            command
                .arg(script)
                .arg(port.to_string())
                .arg(&name)
                .args(&bank.accounts);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let child = command
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}"));
            Application { name, child }
        };
        each.map(start).collect()
    }

    /// Tells it to end and holds what it says against what is there: each acknowledged transfer
    /// once, each failed one at most once, nothing else.
    pub fn finish(mut self, client: &mut Client) -> Report {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {text}", self.name);
        let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let list = |name: &str| -> Vec<String> {
            let items = told[name].as_array().expect("a list").iter();
            items
                .map(|item| item.as_str().expect("a text").to_owned())
                .collect()
        };
        let (acknowledged, failed) = (list("acknowledged"), list("failed"));
        assert_eq!(
            list("wrong"),
            Vec::<String>::new(),
            "{}: wrong replies",
            self.name
        );
        let noted = noted(&self.name, client);
        let once: HashSet<&String> = noted.iter().collect();
        assert_eq!(
            once.len(),
            noted.len(),
            "{}: transfers were doubled",
            self.name
        );
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|transfer| !once.contains(transfer))
            .collect();
        assert!(
            lost.is_empty(),
            "{}: acknowledged and lost: {lost:?}",
            self.name
        );
        let known: HashSet<&String> = acknowledged.iter().chain(&failed).collect();
        assert!(
            once.is_subset(&known),
            "{}: nobody asked for these",
            self.name
        );
        let errors = told["errors"].as_object().expect("a map").iter();
        Report {
            name: self.name,
            acknowledged: acknowledged.len(),
            errors: errors
                .map(|(text, count)| (text.clone(), count.as_u64().unwrap_or(0)))
                .collect(),
        }
    }
}

fn noted(name: &str, client: &mut Client) -> Vec<String> {
    let mut noted = Vec::new();
    for number in 0..THREADS {
        let log = format!("log:{name}:{number}");
        let reply = client.value(&["LRANGE", &log, "0", "-1"]);
        let entries = reply.elements().iter().filter_map(Value::bytes);
        noted.extend(entries.map(|entry| String::from_utf8_lossy(entry).into_owned()));
    }
    noted
}

fn printed(script: &mut Command) -> String {
    let output = script.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
