//! Sends one sequence to both and compares the replies.

use crate::rules::Rules;
use crate::script::Step;
use crate::support::{Client, Cluster, Redis, Reply, encode};
use std::time::Duration;

const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How the commands of a sequence go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Each waits for the reply of the one before.
    Steps,
    /// All in one write.
    Pipelined,
    /// So many in one write.
    Chunks(usize),
}

impl Mode {
    fn chunk(self) -> usize {
        match self {
            Mode::Steps => 1,
            Mode::Pipelined => usize::MAX,
            Mode::Chunks(size) => size,
        }
    }
}

/// A connection to the plain server and one to the subject.
#[derive(Debug)]
pub struct Pair {
    ports: [u16; 2],
    oracle: Client,
    subject: Client,
    /// Connections of another client, once there is one.
    others: Option<[Client; 2]>,
}

/// The first difference.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Index of the step.
    pub step: usize,
    /// What the plain server said.
    pub wanted: String,
    /// What the subject said.
    pub got: String,
}

impl Pair {
    /// Connects to both.
    pub fn connect(oracle: &Redis, cluster: &Cluster) -> Pair {
        Pair::to([oracle.port(), cluster.port(0)])
    }

    /// Connects to the plain server's port and the subject's.
    pub fn to(ports: [u16; 2]) -> Pair {
        let open = |port| Client::connect(port).unwrap_or_else(|error| panic!("{port}: {error}"));
        Pair {
            ports,
            oracle: open(ports[0]),
            subject: open(ports[1]),
            others: None,
        }
    }

    /// A command of another client, to both.
    fn other(&mut self, index: usize, args: &[Vec<u8>]) -> Result<(), Mismatch> {
        let ports = self.ports;
        let open = |port| Client::connect(port).unwrap_or_else(|error| panic!("{port}: {error}"));
        let others = self.others.get_or_insert_with(|| ports.map(open));
        let [wanted, got] = others.each_mut().map(|client| {
            let sent = client.send(&encode(args));
            sent.and_then(|()| client.read())
        });
        let (wanted, got) = (text(&wanted), text(&got));
        if wanted == got {
            return Ok(());
        }
        Err(Mismatch {
            step: index,
            wanted,
            got,
        })
    }

    /// New connections.
    pub fn reconnect(&mut self) {
        *self = Pair::to(self.ports);
    }

    fn send(&mut self, steps: &[Step]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for step in steps {
            match step {
                Step::Command(args) => bytes.extend(encode(args)),
                Step::Raw(raw, _) => bytes.extend_from_slice(raw),
                _ => {}
            }
        }
        // The plain server may close on what it does not like; its replies come first anyhow.
        let _ = self.oracle.send(&bytes);
        self.subject.send(&bytes)
    }

    /// Reads and compares the replies of one step.
    fn compare(&mut self, rules: &mut Rules, index: usize, step: &Step) -> Result<(), Mismatch> {
        let replies = match step {
            Step::Command(_) => 1,
            Step::Raw(_, replies) => *replies,
            _ => 0,
        };
        for _ in 0..replies {
            let (wanted, got) = (self.oracle.read(), self.subject.read());
            let same = match (&wanted, &got) {
                (Ok(wanted), Ok(got)) => {
                    let args = if let Step::Command(args) = step {
                        args.as_slice()
                    } else {
                        &[]
                    };
                    rules.next(args, &wanted.value).same(wanted, got)
                }
                (Err(wanted), Err(got)) => wanted.kind() == got.kind(),
                _ => false,
            };
            if !same {
                let (wanted, got) = (text(&wanted), text(&got));
                return Err(Mismatch {
                    step: index,
                    wanted,
                    got,
                });
            }
        }
        Ok(())
    }

    fn both_close(&mut self, index: usize) -> Result<(), Mismatch> {
        let said = |closed| if closed { "closes" } else { "stays open" }.to_owned();
        let wanted = self.oracle.is_closed_within(CLOSE_LIMIT);
        let got = self.subject.is_closed_within(CLOSE_LIMIT);
        if wanted && got {
            return Ok(());
        }
        Err(Mismatch {
            step: index,
            wanted: said(wanted),
            got: said(got),
        })
    }
}

fn text(result: &std::io::Result<Reply>) -> String {
    match result {
        Ok(reply) => reply.text(),
        Err(error) => format!("(no reply: {error})"),
    }
}

/// Runs a sequence on both; the pair's connections are clean again afterwards, when nothing
/// differed.
pub fn run(pair: &mut Pair, steps: &[Step], mode: Mode) -> Result<(), Mismatch> {
    let mut rules = Rules::default();
    let mut at = 0;
    while at < steps.len() {
        match &steps[at] {
            Step::Sleep(millis) => std::thread::sleep(Duration::from_millis(*millis)),
            Step::Closed => pair.both_close(at)?,
            Step::Other(args) => pair.other(at, args)?,
            Step::Reconnect => {
                pair.reconnect();
                rules = Rules::default();
            }
            Step::Command(_) | Step::Raw(..) => {
                let sent = |step: &&Step| matches!(step, Step::Command(_) | Step::Raw(..));
                let count = steps[at..]
                    .iter()
                    .take_while(sent)
                    .take(mode.chunk())
                    .count();
                let batch = &steps[at..at + count];
                // What could not be sent shows when its reply is missing.
                let _ = pair.send(batch);
                for (offset, step) in batch.iter().enumerate() {
                    pair.compare(&mut rules, at + offset, step)?;
                }
                at += count;
                continue;
            }
        }
        at += 1;
    }
    Ok(())
}
