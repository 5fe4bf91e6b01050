//! What `expected.txt` says, against what happened.
//!
//! Its lines are fields with tabs between them: `runs UNIT ONE SIXTEEN`, the tests that run with one
//! database and with sixteen; `fails UNIT TEST REASON`, a test that fails, with `fails-one` or
//! `fails-sixteen` only then; `varies UNIT TEST REASON`, one that does so now and then.

use crate::outcome::{Outcome, Verdict};
use std::collections::BTreeMap;

const TEXT: &str = include_str!("expected.txt");

/// How many databases the suite uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Databases {
    /// `--singledb`.
    One,
    /// Each test block in database 9, some in others.
    Sixteen,
}

/// What is known beforehand.
pub struct Expected {
    databases: Databases,
    /// By unit.
    runs: BTreeMap<&'static str, usize>,
    /// By unit and test: whether it fails each time.
    fails: BTreeMap<(&'static str, &'static str), bool>,
}

impl Expected {
    /// From the file.
    pub fn read(databases: Databases) -> Expected {
        let mut expected = Expected {
            databases,
            runs: BTreeMap::new(),
            fails: BTreeMap::new(),
        };
        let is_data = |line: &&str| !line.is_empty() && !line.starts_with('#');
        for line in TEXT.lines().filter(is_data) {
            expected
                .add(line)
                .unwrap_or_else(|| panic!("expected.txt: {line:?} is not understood"));
        }
        expected
    }

    fn add(&mut self, line: &'static str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[what, unit, third, fourth] = fields.as_slice() else {
            return None;
        };
        let is_one = self.databases == Databases::One;
        match what {
            "runs" => {
                let runs = if is_one { third } else { fourth };
                self.runs.insert(unit, runs.parse().ok()?);
            }
            // Without a reason it is no documentation.
            _ if fourth.is_empty() => return None,
            "fails" | "varies" => self.fail(unit, third, what == "fails"),
            "fails-one" if is_one => self.fail(unit, third, true),
            "fails-sixteen" if !is_one => self.fail(unit, third, true),
            "fails-one" | "fails-sixteen" => {}
            _ => return None,
        }
        Some(())
    }

    fn fail(&mut self, unit: &'static str, test: &'static str, always: bool) {
        let before = self.fails.insert((unit, test), always);
        assert_eq!(before, None, "expected.txt: {unit} {test} twice");
    }

    /// What happened in a unit otherwise than expected, a line for each.
    pub fn surprises(&self, outcome: &Outcome) -> Vec<String> {
        let unit = outcome.unit.as_str();
        let mut surprises = Vec::new();
        let (ran, runs) = (
            outcome.tests.len(),
            self.runs.get(unit).copied().unwrap_or(0),
        );
        if ran != runs {
            surprises.push(format!("{unit}: {ran} tests ran, expected were {runs}"));
        }
        for (test, verdict) in &outcome.tests {
            let expected = self.fails.get(&(unit, test.as_str()));
            match (verdict, expected) {
                (Verdict::Passed, Some(true)) => {
                    surprises.push(format!("{unit}: now passes: {test}"));
                }
                (Verdict::Failed(why), None) => {
                    surprises.push(format!("{unit}: fails: {test}\n    {why}"));
                }
                (Verdict::Hung, None) => surprises.push(format!("{unit}: hangs: {test}")),
                _ => {}
            }
        }
        for (&(of, test), &always) in &self.fails {
            if of == unit && always && outcome.tests.iter().all(|(name, _)| name != test) {
                surprises.push(format!("{unit}: did not run: {test}"));
            }
        }
        surprises
    }
}
