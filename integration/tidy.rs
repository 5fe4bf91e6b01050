//! House rules that a compiler does not check, enforced cheaply: which module may use which, no
//! clock or runtime in the pure ones, no function or file too long to read.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Modules of the data path; each may use those before it. The first four are pure.
const PATH: &[&str] = &[
    "resp", "keyspace", "acl", "txn", "turn", "backend", "engine", "operator", "frontend",
    "server", "reload", "console", "run", "dev", "cli", "main",
];
const PURE: &[&str] = &["resp", "keyspace", "acl", "txn"];
/// Leaves: each may use those before it and nothing of the path; the path but for its pure part
/// may use all.
const LEAVES: &[&str] = &[
    "build",
    "failpoint",
    "transport",
    "config",
    "readiness",
    "shutdown",
    "logging",
    "metrics",
    "traces",
    "admin",
];
/// Exceptions to "each may use those before it": carrying bytes needs no idea of their meaning.
const FORBIDDEN: &[(&str, &str)] = &[
    ("backend", "keyspace"),
    ("backend", "acl"),
    ("backend", "txn"),
];

/// What stands in no pure module.
const IMPURE: &[&str] = &[
    "tokio",
    "Instant",
    "SystemTime",
    "getrandom",
    "std::thread",
    "std::net",
    "std::fs",
    "std::env",
];

/// A source file: its module (the first part of its path), and its lines without comments and
/// without tests.
struct Source {
    path: PathBuf,
    module: String,
    lines: Vec<String>,
}

#[test]
fn modules_use_only_what_lies_below_them() {
    check(|source, report| {
        for (number, line) in source.lines.iter().enumerate() {
            for used in line.split("crate::").skip(1).filter_map(module_named) {
                if !may_use(&source.module, used) {
                    report(number, format!("{} must not use {used}", source.module));
                }
            }
        }
    });
}

#[test]
fn every_module_has_its_place() {
    check(|source, report| {
        let module = source.module.as_str();
        if !PATH.contains(&module) && !LEAVES.contains(&module) && module != "lib" {
            report(
                0,
                format!("module {module} has no place in PATH or LEAVES of this test"),
            );
        }
    });
}

#[test]
fn pure_modules_have_no_clock_no_randomness_and_no_runtime() {
    check(|source, report| {
        if !PURE.contains(&source.module.as_str()) {
            return;
        }
        for (number, line) in source.lines.iter().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                report(
                    number,
                    format!("{word} in {}, which is pure", source.module),
                );
            }
        }
    });
}

#[test]
fn files_are_short_enough_to_read() {
    check(|source, report| {
        if source.lines.len() > FILE_LINES_MAX {
            let length = source.lines.len();
            report(
                length - 1,
                format!("{length} lines without tests, more than {FILE_LINES_MAX}"),
            );
        }
    });
}

#[test]
fn functions_are_short_enough_to_read() {
    check(|source, report| {
        for (start, name, length) in functions(&source.lines) {
            if length > FUNCTION_LINES_MAX {
                report(
                    start,
                    format!("{name} has {length} lines, more than {FUNCTION_LINES_MAX}"),
                );
            }
        }
    });
}

#[test]
fn every_setting_and_every_metric_is_used() {
    let (declared, users): (Vec<_>, Vec<_>) = sources()
        .into_iter()
        .partition(|s| s.module == "config" || s.module == "metrics");
    let code: String = users
        .iter()
        .flat_map(|s| s.lines.join("\n").into_bytes())
        .map(char::from)
        .collect();
    let mut unused = String::new();
    for source in &declared {
        for (number, line) in source.lines.iter().enumerate() {
            let Some(usage) = usage_of(source, line) else {
                continue;
            };
            if !code.contains(&usage) {
                let _ = writeln!(
                    unused,
                    "{}:{}: nobody uses {usage}",
                    source.path.display(),
                    number + 1
                );
            }
        }
    }
    assert!(unused.is_empty(), "\n{unused}");
}

/// Whoever reads one line of the log must be able to ask for the transaction that it is about.
#[test]
fn lines_of_the_log_about_a_transaction_name_it() {
    let mut seen = 0;
    let mut nameless = String::new();
    for source in sources() {
        let code = source.lines.join("\n");
        for line in code.split("tracing::").skip(1) {
            let Some(call) = logged(line).filter(|call| is_about_a_transaction(call)) else {
                continue;
            };
            seen += 1;
            if !call.contains("%id") && !call.contains("id = %") {
                let _ = writeln!(nameless, "{}: without an id: {call}", source.path.display());
            }
        }
    }
    assert!(nameless.is_empty(), "\n{nameless}");
    assert!(seen >= 8, "only {seen} such lines were found");
}

/// The arguments of a call that writes to the log, if this is one.
fn logged(text: &str) -> Option<&str> {
    let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let rest = levels.iter().find_map(|level| text.strip_prefix(level))?;
    let end = rest.find([';', '}']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// One is enough: a count of several names none.
fn is_about_a_transaction(call: &str) -> bool {
    let words = call.replace("transactions", "");
    [
        "transaction",
        "record",
        "branch",
        "does not apply",
        "refuses to apply",
    ]
    .iter()
    .any(|word| words.contains(word))
}

/// What a use of the setting, metric or label value declared here looks like.
fn usage_of(source: &Source, line: &str) -> Option<String> {
    let is_public_field = line.starts_with("    pub ") && line.ends_with(',');
    match source.path.to_str()? {
        "src/config/mod.rs" | "src/metrics/mod.rs" if is_public_field => {
            let name = line.trim_start().strip_prefix("pub ")?.split(':').next()?;
            Some(format!(".{name}"))
        }
        "src/metrics/labels.rs" if line.starts_with("        ") && line.ends_with("\",") => {
            Some(format!("::{}", line.trim_start().split(' ').next()?))
        }
        _ => None,
    }
}

#[test]
fn this_test_sees_what_it_looks_for() {
    assert!(
        may_use("txn", "resp") && may_use("engine", "backend") && may_use("frontend", "config")
    );
    assert!(!may_use("resp", "txn") && !may_use("txn", "config") && !may_use("config", "resp"));
    assert!(!may_use("backend", "txn"));
    let text =
        "fn a() {\n    1\n}\nimpl B {\n    pub(crate) async fn c(\n    ) {\n        x\n    }\n}\n";
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let found = functions(&lines);
    assert_eq!(found, [(0, "a".to_owned(), 3), (4, "c".to_owned(), 4)]);
    let code = code_of("use a; // b\n/// c\nfn d() {}\n#[cfg(test)]\nmod tests;\nfn e() {}\n");
    assert_eq!(code, ["use a;", "", "fn d() {}", "", "", "fn e() {}"]);
    let code = code_of("fn d() {}\n#[cfg(test)]\nmod tests {\n    fn e() {}\n}\nfn f() {}\n");
    assert_eq!(code, ["fn d() {}", "", "", "", "", "fn f() {}"]);
}

/// Runs a rule over all sources and fails with everything it reports.
fn check(rule: impl Fn(&Source, &mut dyn FnMut(usize, String))) {
    let mut all = String::new();
    for source in sources() {
        let path = source.path.display().to_string();
        rule(&source, &mut |line, text| {
            let _ = writeln!(all, "{path}:{}: {text}", line + 1);
        });
    }
    assert!(all.is_empty(), "\n{all}");
}

fn may_use(user: &str, used: &str) -> bool {
    let rank = |list: &[&str], module: &str| list.iter().position(|m| *m == module);
    if user == used || user == "lib" {
        return true;
    }
    match (
        rank(PATH, user),
        rank(PATH, used),
        rank(LEAVES, user),
        rank(LEAVES, used),
    ) {
        (Some(user_rank), Some(used_rank), ..) => {
            used_rank < user_rank && !FORBIDDEN.contains(&(user, used))
        }
        (Some(_), _, _, Some(_)) => !PURE.contains(&user),
        (_, _, Some(user), Some(used)) => used < user,
        _ => false,
    }
}

/// The module at the start of what follows `crate::`, if it is one of ours.
fn module_named(rest: &str) -> Option<&str> {
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let name = &rest[..end];
    (PATH.contains(&name) || LEAVES.contains(&name)).then_some(name)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join("src"), &mut found);
    assert!(found.len() > 20, "only {} sources were found", found.len());
    let source = |path: PathBuf| {
        let inside = path.strip_prefix(root.join("src")).unwrap();
        let first = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy();
        let lines = code_of(&fs::read_to_string(&path).unwrap());
        let module = first.trim_end_matches(".rs").to_owned();
        Source {
            path: path.strip_prefix(root).unwrap().to_owned(),
            module,
            lines,
        }
    };
    found.into_iter().map(source).collect()
}

/// All Rust files but those that hold tests only.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "tests" || name == "transcripts" {
            continue;
        } else if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The lines, with comments and test modules blanked.
fn code_of(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(without_comment).collect();
    let mut i = 0;
    while i < lines.len() {
        if lines[i].trim() == "#[cfg(test)]" {
            let attribute = |line: &&String| line.trim_start().starts_with("#[");
            let attributes = lines[i..].iter().take_while(attribute).count();
            let end = end_of_item(&lines, i + attributes);
            lines[i..=end].iter_mut().for_each(String::clear);
            i = end;
        }
        i += 1;
    }
    lines
}

/// A `//` inside a string ends the line here too; no rule minds.
fn without_comment(line: &str) -> String {
    line.find("//")
        .map_or(line, |start| &line[..start])
        .trim_end()
        .to_owned()
}

/// Functions as `(first line, name, number of lines)`; formatted code ends one where a brace
/// closes at the indentation it began with.
fn functions(lines: &[String]) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let words = line.split_whitespace();
        let mut words = words.skip_while(|word| {
            let modifiers = ["pub", "const", "async", "unsafe", "extern"];
            modifiers.contains(word) || word.starts_with("pub(")
        });
        if words.next() != Some("fn") {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let name: String = name
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        found.push((start, name, end_of_item(lines, start) + 1 - start));
    }
    found
}

/// The last line of the item that starts here.
fn end_of_item(lines: &[String], start: usize) -> usize {
    let Some(first) = lines.get(start) else {
        return start.saturating_sub(1);
    };
    let indent = &first[..first.len() - first.trim_start().len()];
    let complete = |line: &str| line.ends_with(';') || line.ends_with('}');
    if complete(first) {
        return start;
    }
    let ends = |line: &String| {
        let rest = line.strip_prefix(indent).unwrap_or_default();
        rest.starts_with('}') || (rest.starts_with(')') && complete(rest))
    };
    let end = lines[start + 1..].iter().position(ends);
    end.map_or(start, |offset| start + 1 + offset)
}
