//! What the suite prints about one unit.

use std::time::Duration;

/// In place of a test's name: what goes wrong between tests.
pub const BETWEEN: &str = "(between tests)";
/// Longest part of a message that is shown.
const MESSAGE_CHARS: usize = 300;

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    /// With what the suite says of it.
    Failed(String),
    /// Nothing moved for too long.
    Hung,
}

/// What became of one unit.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub unit: String,
    /// In the order in which they ran. Of tests with the same name, the second is `NAME #2`.
    pub tests: Vec<(String, Verdict)>,
    pub took: Duration,
}

impl Outcome {
    pub fn passed(&self) -> usize {
        let passed = |(_, verdict): &&(String, Verdict)| *verdict == Verdict::Passed;
        self.tests.iter().filter(passed).count()
    }

    /// Those that have failed, by the names that the suite gives them.
    pub fn failed(&self) -> Vec<String> {
        let failed = self
            .tests
            .iter()
            .filter(|(_, verdict)| *verdict != Verdict::Passed);
        let names = failed
            .filter(|(name, _)| *name != BETWEEN)
            .map(|(name, _)| name.clone());
        names.collect()
    }

    /// For people who wait.
    pub fn line(&self) -> String {
        let (passed, ran) = (self.passed(), self.tests.len());
        format!(
            "{:40} {passed:4} of {ran:4} in {:.0?}",
            self.unit, self.took
        )
    }

    /// Adds what another run of the same unit has found, which left some out.
    pub fn add(&mut self, more: Vec<(String, Verdict)>) {
        let is_test = |(name, _): &(String, Verdict)| name != BETWEEN;
        for (name, verdict) in more.into_iter().filter(is_test) {
            if self.tests.iter().all(|(known, _)| *known != name) {
                self.tests.push((name, verdict));
            }
        }
    }
}

/// Reads what a run of one unit has printed; and whether the run came to its end.
pub fn read(unit: &str, printed: &str) -> (Vec<(String, Verdict)>, bool) {
    let mut tests: Vec<(String, Verdict)> = Vec::new();
    let mut is_whole = false;
    let file = format!(" in tests/{unit}.tcl");
    for block in blocks(printed) {
        let (head, message) = block.split_once('\n').unwrap_or((block, ""));
        let (kind, rest) = head.split_once("]: ").unwrap_or((head, ""));
        let (name, verdict) = match kind {
            "[ok" => {
                let name = rest.rsplit_once(" (").map_or(rest, |(name, _)| name);
                (name, Verdict::Passed)
            }
            "[err" => {
                let name = rest.strip_suffix(&file).unwrap_or(BETWEEN);
                let message = if name == BETWEEN { block } else { message };
                let message = message.chars().take(MESSAGE_CHARS).collect();
                (name, Verdict::Failed(message))
            }
            "[TIMEOUT" => {
                let at = message.split_once("(IN PROGRESS) ").map(|(_, name)| name);
                let name = at.and_then(|name| name.lines().next());
                (name.unwrap_or(BETWEEN), Verdict::Hung)
            }
            "[exception" => (BETWEEN, Verdict::Failed(rest.to_owned())),
            _ => {
                is_whole |= kind.ends_with("done");
                continue;
            }
        };
        let name = clean(name);
        let same = |known: &String| *known == name || known.starts_with(&format!("{name} #"));
        let before = tests.iter().filter(|(known, _)| same(known)).count();
        let name = match before {
            0 => name,
            _ => format!("{name} #{}", before + 1),
        };
        tests.push((name, verdict));
    }
    (tests, is_whole)
}

/// What begins with a mark such as `[ok]: `, each with the lines behind it, up to the summary.
fn blocks(printed: &str) -> impl Iterator<Item = &str> {
    let end = printed.find("\n                   The End\n");
    let body = &printed[..end.unwrap_or(printed.len())];
    let marks = ["ok", "err", "TIMEOUT", "exception", "skip", "ignore"];
    let is_mark = move |line: &str| {
        let inside = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "));
        inside.is_some_and(|(mark, _)| marks.contains(&mark) || mark.ends_with("done"))
    };
    let mut starts = Vec::new();
    let mut at = 0;
    for line in body.split_inclusive('\n') {
        if is_mark(line) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([at]).collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| body[start..end].trim_end())
}

/// A name that can stand in a line of `expected.txt`.
fn clean(name: &str) -> String {
    let printable = |c: char| {
        if c.is_control() || c == '\u{fffd}' {
            '?'
        } else {
            c
        }
    };
    let name: String = name.chars().map(printable).collect();
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Cleanup: may take some time... OK\n[ready]: 12\nTesting unit/x\n\
        [ok]: a (b) (3 ms)\n[ok]: a (b) (4 ms)\n[err]: c in tests/unit/x.tcl\nExpected 1\n  to be 2\n\
        [ignore]: d: Tag: needs:repl denied\n[err]: cannot, in a block\n    while executing\n\
        [1/1 done]: unit/x (0 seconds)\n\n                   The End\n\n*** [err]: c in tests/unit/x.tcl\n";

    #[test]
    fn what_is_printed_is_understood() {
        let (tests, is_whole) = read("unit/x", PRINTED);
        let names: Vec<&str> = tests.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a (b)", "a (b) #2", "c", BETWEEN]);
        assert_eq!(tests[1].1, Verdict::Passed);
        assert_eq!(tests[2].1, Verdict::Failed("Expected 1\n  to be 2".into()));
        assert!(matches!(&tests[3].1, Verdict::Failed(why) if why.contains("cannot, in a block")));
        assert!(is_whole);
    }

    #[test]
    fn what_hangs_is_named() {
        let printed = "[ok]: a (1 ms)\n[TIMEOUT]: clients state report follows.\nsock5 => (IN PROGRESS) b c\n";
        let (tests, is_whole) = read("unit/x", printed);
        assert!(!is_whole);
        assert_eq!(tests[1], ("b c".to_owned(), Verdict::Hung));
    }
}
