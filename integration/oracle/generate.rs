//! Random sequences of commands on a few keys, so that types collide.

use crate::run::Mode;
use crate::script::Step;
use crate::support::Value;
use crate::template::{Node, Template};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// A generated sequence.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its number in the run.
    pub number: u64,
    /// Its commands.
    pub steps: Vec<Step>,
    /// How they go out.
    pub mode: Mode,
    /// Every key they name.
    pub keys: Vec<Vec<u8>>,
    /// The databases in which they may have written.
    pub databases: &'static [&'static str],
}

/// All command templates, by topic.
#[derive(Debug)]
pub struct Grammar {
    topics: Vec<Vec<Template>>,
}

/// What one sequence draws from: its random numbers and its own keys.
struct Draw<'a> {
    rng: &'a mut StdRng,
    spread: Vec<Vec<u8>>,
    tagged: Vec<Vec<u8>>,
    /// The topic most commands are taken from: types collide, but some commands need three
    /// others of their kind before them to do anything.
    topic: usize,
}

impl Grammar {
    /// Reads `grammar.txt`.
    pub fn read() -> Grammar {
        let mut topics: Vec<Vec<Template>> = Vec::new();
        for line in include_str!("grammar.txt").lines().map(str::trim) {
            if line.starts_with("== ") {
                topics.push(Vec::new());
            } else if !line.is_empty() && !line.starts_with('#') {
                topics
                    .last_mut()
                    .expect("a topic")
                    .push(Template::read(line));
            }
        }
        Grammar { topics }
    }

    /// The sequence of this number: the same for the same generator.
    pub fn sequence(&self, rng: &mut StdRng, number: u64) -> Sequence {
        let named = |prefix: String, names: &str| -> Vec<Vec<u8>> {
            names
                .chars()
                .map(|name| format!("{prefix}{name}").into_bytes())
                .collect()
        };
        let spread = named(format!("g{number}:"), "abcd");
        let tagged = named(format!("{{g{number}}}"), "xyz");
        let keys = [spread.clone(), tagged.clone()].concat();
        let topic = rng.random_range(0..self.topics.len());
        let mut draw = Draw {
            rng,
            spread,
            tagged,
            topic,
        };
        // The connection may have been used before.
        let protocol = if draw.chance(50) { "3" } else { "2" };
        let mut steps = vec![command(&["HELLO", protocol]), command(&["SELECT", "0"])];
        let wanted = draw.rng.random_range(5..=20);
        while steps.len() < wanted {
            if draw.chance(25) {
                self.transaction(&mut draw, &mut steps);
            } else if draw.chance(2) {
                steps.push(command(&["EXEC"]));
            } else {
                steps.push(self.command(&mut draw));
            }
        }
        // Whatever is open must not reach the next sequence on this connection.
        steps.push(command(&["DISCARD"]));
        let mode = match draw.rng.random_range(0..3) {
            0 => Mode::Steps,
            1 => Mode::Pipelined,
            _ => Mode::Chunks(draw.rng.random_range(2..8)),
        };
        Sequence {
            number,
            databases: databases(&steps),
            steps,
            mode,
            keys,
        }
    }

    /// Commands of the grammar that the server has never run without an error, by its own
    /// statistics: the test would say nothing about them.
    pub fn never_succeeded(&self, commandstats: &Value) -> Vec<String> {
        let stats =
            String::from_utf8_lossy(commandstats.bytes().unwrap_or_default()).to_lowercase();
        let number = |line: &str, name: &str| -> u64 {
            let rest = line.split_once(name).map_or("0", |(_, rest)| rest);
            rest.split(',')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let succeeded = |name: &str| {
            let start = [format!("cmdstat_{name}:"), format!("cmdstat_{name}|")];
            let mut lines = stats
                .lines()
                .filter(|line| start.iter().any(|start| line.starts_with(start)));
            lines.any(|line| number(line, "calls=") > number(line, "failed_calls="))
        };
        let names =
            self.topics
                .iter()
                .flatten()
                .filter_map(|template| match template.nodes.first() {
                    Some(Node::Text(name)) => Some(String::from_utf8_lossy(name).to_lowercase()),
                    _ => None,
                });
        let mut unused: Vec<String> = names.filter(|name| !succeeded(name)).collect();
        unused.retain(|name| !["nosuchcommand", "evalsha", "restore"].contains(&name.as_str()));
        unused
    }

    fn transaction(&self, draw: &mut Draw<'_>, steps: &mut Vec<Step>) {
        steps.push(command(&["MULTI"]));
        for _ in 0..draw.rng.random_range(0..7) {
            let odd: Option<&[&str]> = match draw.rng.random_range(0..120) {
                0 => Some(&["MULTI"]),
                1 => Some(&["WATCH", "k"]),
                2 => Some(&["NOSUCH", "a", "b"]),
                4 => Some(&["HELLO", "3"]),
                5 => Some(&["HELLO", "2"]),
                3 => Some(&["DISCARD", "it"]),
                _ => None,
            };
            steps.push(odd.map_or_else(|| self.command(draw), command));
        }
        match draw.rng.random_range(0..40) {
            // Left open.
            0 => {}
            // Ends it too, with an error.
            1 => steps.push(command(&["EXEC", "now"])),
            2..5 => steps.push(command(&["DISCARD"])),
            _ => steps.push(command(&["EXEC"])),
        }
    }

    fn command(&self, draw: &mut Draw<'_>) -> Step {
        let usual = draw.chance(60);
        let topic = if usual {
            &self.topics[draw.topic]
        } else {
            self.topics.choose(draw.rng).expect("topics")
        };
        let template = topic.choose(draw.rng).expect("templates");
        let mut args = Vec::new();
        draw.fill(&template.nodes, &mut args);
        if template.may_spoil && draw.chance(7) {
            draw.spoil(&mut args);
        }
        if draw.chance(10) {
            args[0].make_ascii_lowercase();
        }
        Step::Command(args)
    }
}

/// All that are tried, if any but the first is.
fn databases(steps: &[Step]) -> &'static [&'static str] {
    let leaves = |step: &Step| match step {
        Step::Command(args) => args.iter().any(|arg| {
            ["SELECT", "MOVE", "DB"]
                .iter()
                .any(|word| arg.eq_ignore_ascii_case(word.as_bytes()))
        }),
        _ => false,
    };
    // The second one is a SELECT 0.
    if steps.iter().skip(2).any(leaves) {
        &["0", "1", "2"]
    } else {
        &["0"]
    }
}

fn command(words: &[&str]) -> Step {
    Step::Command(words.iter().map(|word| word.as_bytes().to_vec()).collect())
}

impl Draw<'_> {
    /// True in so many of a hundred cases.
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn fill(&mut self, nodes: &[Node], args: &mut Vec<Vec<u8>>) {
        for node in nodes {
            match node {
                Node::Text(text) => args.push(text.clone()),
                Node::Kind(kind) => args.push(self.value(kind)),
                Node::Choice(_, true) if self.chance(50) => {}
                Node::Choice(all, _) => {
                    let nodes = all.choose(self.rng).expect("an alternative");
                    self.fill(nodes, args);
                }
                Node::Many(nodes) => {
                    let mut count = 1;
                    while count < 4 && self.chance(45) {
                        count += 1;
                    }
                    (0..count).for_each(|_| self.fill(nodes, args));
                }
            }
        }
    }

    /// Takes an argument away, adds one, or replaces one that is no key.
    fn spoil(&mut self, args: &mut Vec<Vec<u8>>) {
        match self.rng.random_range(0..3) {
            0 => {
                args.truncate(args.len().saturating_sub(1).max(1));
            }
            1 => args.push(self.value("value")),
            _ => {
                let is_key = |arg: &Vec<u8>| self.spread.contains(arg) || self.tagged.contains(arg);
                let places: Vec<usize> = (1..args.len()).filter(|at| !is_key(&args[*at])).collect();
                if let Some(place) = places.choose(self.rng) {
                    args[*place] = self.value("value");
                }
            }
        }
    }

    fn value(&mut self, kind: &str) -> Vec<u8> {
        match kind {
            "key" => {
                let from = if self.chance(60) {
                    &self.spread
                } else {
                    &self.tagged
                };
                return from.choose(self.rng).expect("keys").clone();
            }
            "tag" => return self.tagged.choose(self.rng).expect("keys").clone(),
            "value" if self.chance(2) => return vec![b'v'; 70],
            "value" if self.chance(5) => return b"\x00\xff \r\n\"".to_vec(),
            _ => {}
        }
        let pool = POOLS.iter().find(|(name, ..)| *name == kind);
        let (_, usual, odd) = pool.unwrap_or_else(|| panic!("no values of kind <{kind}>"));
        let from = if odd.is_empty() || self.chance(93) {
            usual
        } else {
            odd
        };
        from.choose(self.rng).expect("values").as_bytes().to_vec()
    }
}

/// Kind, plausible values, implausible ones. Nothing here makes a large value or a time to
/// live that ends during the test.
const POOLS: &[(&str, &[&str], &[&str])] = &[
    (
        "value",
        &["a", "b", "hello", "10", "3", "-7", "3.5", "foobar", "0", ""],
        &["9223372036854775807", "1e400", "nan"],
    ),
    (
        "member",
        &["1", "2", "3", "5", "8", "a", "b", "c", "d"],
        &["", "x y", "1.5"],
    ),
    ("field", &["f", "g", "h", "1"], &["", "f f"]),
    (
        "int",
        &["1", "2", "-1", "10", "100", "0"],
        &[
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "x",
            "1.5",
            "",
        ],
    ),
    (
        "float",
        &["1.5", "-0.25", "2", "1e2", "0.1"],
        &["nan", "inf", "x", "1e308", ""],
    ),
    (
        "index",
        &["0", "1", "2", "-1", "-2", "5"],
        &["100", "-100", "x", "9999999999999999999"],
    ),
    ("count", &["1", "2", "3", "10"], &["0", "-1", "x"]),
    ("positive", &["1", "2", "3", "10"], &["0", "x"]),
    (
        "score",
        &["1", "2", "3", "1.5", "-1", "10", "0"],
        &["inf", "-inf", "nan", "x", "1e17"],
    ),
    (
        "bound",
        &["0", "1", "(1", "2", "(3", "10", "-inf", "+inf"],
        &["x", "(", "nan"],
    ),
    ("lex", &["-", "+", "[a", "(b", "[c", "(d"], &["a", "", "x"]),
    (
        "seconds",
        &["1000", "5000", "100000"],
        &["0", "-1", "x", "9223372036854775807", "1.5"],
    ),
    (
        "millis",
        &["1000000", "5000000"],
        &["0", "-1", "x", "9223372036854775807"],
    ),
    (
        "at",
        &["4102444800", "5000000000"],
        &["1", "0", "-5", "x", "9223372036854775807"],
    ),
    (
        "atmillis",
        &["4102444800000", "5000000000000"],
        &["1", "0", "x"],
    ),
    (
        "bit",
        &["0", "1", "7", "8", "31", "100"],
        &["-1", "4294967296", "x"],
    ),
    ("onoff", &["0", "1"], &["2", "-1", "x"]),
    (
        "offset",
        &["0", "1", "3", "10", "40"],
        &["-1", "536870912", "x"],
    ),
    (
        "bits",
        &["u8", "i8", "u4", "i16", "u63", "u1"],
        &["u64", "i65", "x8", "u0"],
    ),
    ("bitat", &["0", "8", "#1", "#3", "5"], &["-1", "#x", "x"]),
    (
        "id",
        &["1-1", "2-1", "3-0", "5", "7-*", "9-9"],
        &["0-0", "x", "1-x", "-"],
    ),
    (
        "db",
        &["0", "1", "2"],
        &["16", "-1", "x", "", "99999999999", "01"],
    ),
    ("group", &["g1", "g1", "g2"], &["none"]),
    ("consumer", &["alice", "bob"], &[]),
    ("lon", &["0", "13.36", "15.08", "2.35"], &["200", "x"]),
    ("lat", &["0", "38.11", "37.50", "48.85"], &["90", "x"]),
    ("radius", &["100", "200000", "5000"], &["-1", "x"]),
    ("unit", &["m", "km", "mi", "ft"], &["x"]),
    ("side", &["LEFT", "RIGHT", "left"], &["UP"]),
    ("pattern", &["*", "a*", "[ab]", "?"], &[""]),
];
