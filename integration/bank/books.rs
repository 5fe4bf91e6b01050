//! The accounts, their ledgers, and what must be true of them.

use crate::support::{Cluster, Value, shard_of, spread};
use std::collections::HashMap;

/// Number of accounts.
pub const ACCOUNTS: usize = 100;
/// What each holds at the start.
pub const START: i64 = 1_000;

/// The names of all accounts.
#[derive(Debug)]
pub struct Books {
    accounts: Vec<String>,
}

/// What the client learned about its transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The replies came, or an error that says so.
    Committed,
    /// `EXECABORT`: nothing was applied.
    Aborted,
    /// The connection died, or an error that says that it is not known.
    Unknown,
}

impl Books {
    /// Creates the accounts, directly on the shards.
    pub fn open(cluster: &Cluster) -> Books {
        let shards = cluster.shards();
        let accounts = spread("account:", shards.len(), ACCOUNTS);
        let mut clients: Vec<_> = shards.iter().map(super::support::Redis::client).collect();
        for account in &accounts {
            let home = shard_of(account.as_bytes(), shards.len());
            clients[home].call(&["SET", account, &START.to_string()]);
        }
        Books { accounts }
    }

    /// The accounts' keys.
    pub fn accounts(&self) -> &[String] {
        &self.accounts
    }

    /// What all accounts hold together.
    pub fn total(&self) -> i64 {
        START * i64::try_from(self.accounts.len()).expect("few accounts")
    }

    /// The key of an account's ledger, on the account's shard.
    pub fn ledger(account: &str) -> String {
        format!("ledger:{{{account}}}")
    }

    /// A line of it: which transfer, what it adds, and the account at its other end.
    pub fn line(id: &str, amount: i64, other: &str) -> String {
        format!("{id} {amount} {other}")
    }

    fn read_directly(&self, cluster: &Cluster, read: impl Fn(&str) -> Vec<String>) -> Vec<Value> {
        let shards = cluster.shards();
        let mut clients: Vec<_> = shards.iter().map(super::support::Redis::client).collect();
        let home = |account: &String| shard_of(account.as_bytes(), shards.len());
        let accounts = self.accounts.iter();
        accounts
            .map(|account| clients[home(account)].value(&read(account)))
            .collect()
    }

    fn balances(&self, cluster: &Cluster) -> Vec<i64> {
        let read = |account: &str| vec!["GET".to_owned(), account.to_owned()];
        let values = self.read_directly(cluster, read);
        values
            .iter()
            .map(|value| value.integer().expect("a balance"))
            .collect()
    }

    /// P1: no money came or went.
    pub fn check_sum(&self, cluster: &Cluster) {
        let sum: i64 = self.balances(cluster).iter().sum();
        assert_eq!(
            sum,
            self.total(),
            "P1: the sum over all accounts at the end"
        );
    }

    /// P1 and P4, transfer by transfer: a committed one stands in both ledgers once, an aborted
    /// one in none, any other in both or in none; and each balance is what its ledger says.
    pub fn check_ledgers(&self, cluster: &Cluster, outcomes: &HashMap<String, Outcome>) {
        let read = |account: &str| {
            ["LRANGE", &Books::ledger(account), "0", "-1"]
                .map(str::to_owned)
                .to_vec()
        };
        let ledgers = self.read_directly(cluster, read);
        let mut lines: HashMap<String, Vec<i64>> = HashMap::new();
        for ((account, balance), ledger) in self
            .accounts
            .iter()
            .zip(self.balances(cluster))
            .zip(&ledgers)
        {
            let mut expected = START;
            for line in ledger.elements() {
                let (id, amount) = split_line(line);
                expected += amount;
                lines.entry(id).or_default().push(amount);
            }
            assert_eq!(balance, expected, "{account}: balance and ledger disagree");
        }
        for (id, outcome) in outcomes {
            let amounts = lines.remove(id).unwrap_or_default();
            let whole = amounts.len() == 2 && amounts[0] + amounts[1] == 0;
            let right = match outcome {
                Outcome::Committed => whole,
                Outcome::Aborted => amounts.is_empty(),
                Outcome::Unknown => whole || amounts.is_empty(),
            };
            assert!(
                right,
                "P1: transfer {id} was {outcome:?} for its client, in the ledgers: {amounts:?}"
            );
        }
        assert!(lines.is_empty(), "transfers that no client made: {lines:?}");
    }
}

fn split_line(line: &Value) -> (String, i64) {
    let text = String::from_utf8_lossy(line.bytes().expect("a line")).into_owned();
    let (id, amount) = text.split_once(' ').expect("id and amount");
    let amount = amount.split(' ').next().unwrap_or_default();
    (id.to_owned(), amount.parse().expect("an amount"))
}
