//! The settings as a whole: precedence, completeness of the report, the table's own sanity.

use std::io::Write as _;

use super::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    let list = |(k, v): &(&str, &str)| ((*k).to_owned(), vec![(*v).to_owned()]);
    let mut sources = Sources {
        environment: environment.iter().map(pair).collect(),
        flags: flags.iter().map(list).collect(),
        file: None,
    };
    if !file.is_empty() {
        sources.file = Some(written(file));
    }
    sources
}

/// A file of this content, which lasts until the test process ends.
fn written(content: &str) -> std::path::PathBuf {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.into_temp_path().keep().unwrap()
}

fn problems(sources: &Sources) -> Vec<String> {
    let problems = load(sources).unwrap_err();
    if let Some(path) = &sources.file {
        std::fs::remove_file(path).unwrap();
    }
    let path = sources.file.as_deref().unwrap_or("no file".as_ref());
    let name = path.display().to_string();
    problems
        .to_string()
        .lines()
        .map(|l| l.replace(&name, "FILE"))
        .collect()
}

#[test]
fn defaults_are_within_their_own_ranges_and_break_no_rule() {
    for setting in SETTINGS {
        let default = setting.kind.default_text();
        if !default.is_empty() {
            let wrong = setting.kind.apply(&mut Config::default(), &[default]);
            assert!(wrong.is_empty(), "{}: {wrong:?}", setting.name);
        }
        assert!(setting.help.ends_with('.'), "{}", setting.name);
        let same = SETTINGS.iter().filter(|s| s.name == setting.name);
        assert_eq!(same.count(), 1, "{}", setting.name);
    }
    let loaded = load(&Sources::default()).unwrap();
    assert_eq!(loaded.config.lock_ttl, Duration::from_secs(5));
    assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:6380");
    assert!(loaded.config.shards.is_empty() && loaded.given().next().is_none());
}

#[test]
fn names_carry_their_units() {
    for setting in SETTINGS {
        let name = setting.name;
        let fits = match setting.kind {
            Kind::Millis { .. } => name.ends_with("-ms"),
            Kind::Seconds { .. } => name.ends_with("-s"),
            Kind::Bytes { .. } => name.contains("-bytes-"),
            _ => !name.contains("bytes") && !name.ends_with("-ms"),
        };
        assert!(fits, "{name}");
    }
}

#[test]
fn rules_name_settings_that_exist() {
    let about = rules::RULES
        .iter()
        .flat_map(|rule| rule.about.iter().copied());
    let pairs = rules::EXCLUSIVE.iter().flat_map(|(a, b)| [*a, *b]);
    for name in about.chain(pairs) {
        assert!(SETTINGS.iter().any(|s| s.name == name), "{name}");
    }
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "lock-ttl-ms = 1000\nlock-wait-ms = 1000\nclients-max = 1_000\nshard = ['a:1']\n";
    let environment = [
        ("LOCKSTEP_LOCK_TTL_MS", "2000"),
        ("LOCKSTEP_LOCK_WAIT_MS", "2000"),
        ("LOCKSTEP_SHARD", "b:1,b:2"),
        ("LOCKSTEPLOCK_TTL_MS", "9"),
    ];
    let flags = [("lock-ttl-ms", "3000")];
    let loaded = load(&sources(file, &environment, &flags)).unwrap();
    let config = &loaded.config;
    assert_eq!(config.lock_ttl, Duration::from_secs(3));
    assert_eq!(config.lock_wait, Duration::from_secs(2));
    assert_eq!(config.clients_max, 1000);
    assert_eq!(config.shards, [Address::new("b", 1), Address::new("b", 2)]);
    assert_eq!(config.args_max, (1 << 31) - 1);
    assert_eq!(loaded.origin("lock-ttl-ms"), Origin::Flag);
    assert_eq!(loaded.origin("lock-wait-ms"), Origin::Environment);
    assert!(matches!(
        loaded.origin("clients-max"),
        Origin::File(_, Some(3))
    ));
    assert_eq!(loaded.origin("args-max"), Origin::Default);
}

#[test]
fn every_kind_is_read_from_a_file() {
    let file = "listen = '[::1]:0'\nmetrics-listen = ''\nworkers = 0x2\nlog-level = 'debug'\n\
                log-format = 'json'\ntcp-keepalive-s = 0\nbulk-bytes-max = '1MB'\n\
                shard = ['a:1,b:2', 'c:3']\nshard-user = 'u'\nshard-password = 'p w'\n";
    let config = load(&sources(file, &[], &[])).unwrap().config;
    assert_eq!(config.listen.to_string(), "[::1]:0");
    assert_eq!(config.metrics_listen, None);
    assert_eq!(config.workers, 2);
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.tcp_keepalive, Duration::ZERO);
    assert_eq!(config.bulk_bytes_max, 1 << 20);
    let shards: Vec<_> = config.shards.iter().map(Address::to_string).collect();
    assert_eq!(shards, ["a:1", "b:2", "c:3"]);
    assert_eq!(
        config.shard_password.as_ref().map(Secret::reveal),
        Some("p w")
    );
    assert!(!format!("{config:?}").contains("p w"));
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once_with_line_and_key() {
    let file = "\
# a comment
lock-tll-ms = 5
lock-ttl-ms = \"5000\"
lock-wait-ms = -1
clients_max = 7
clients-max = 0
shard = [
  'a:1',
  'nonsense',
  'a:1',
  7,
]
log-level = 'loud'
listen = 'a:1:2'
decision-retention-ms = 60000
args-max = 1.5
bulk-bytes-max = '1tb'
[server]
listen = 'x:1'
";
    let expected = [
        "FILE:2: lock-tll-ms: unknown setting; did you mean lock-ttl-ms?",
        "FILE:3: lock-ttl-ms: must be an integer (milliseconds, 100 to 3600000), not a string",
        "FILE:4: lock-wait-ms: must be a whole number from 0 to 3600000, got \"-1\"",
        "FILE:5: clients_max: unknown setting; did you mean clients-max?",
        "FILE:6: clients-max: must be a whole number from 1 to 1000000, got \"0\"",
        "FILE:9: shard: expects HOST:PORT, got \"nonsense\"",
        "FILE:10: shard: a:1 is given twice",
        "FILE:11: shard: must be a string or an array of strings (addresses), not an integer",
        "FILE:13: log-level: must be one of off, error, warn, info, debug, trace, got \"loud\"",
        "FILE:14: listen: an IPv6 address stands in brackets: [::1]:6379, got \"a:1:2\"",
        "FILE:16: args-max: must be an integer (16 to 2147483647), not a float",
        "FILE:17: bulk-bytes-max: must be a number of bytes from 1kb to 16gb, got \"1tb\"",
        "FILE:18: server: unknown setting; `lockstep --help` lists all",
    ];
    assert_eq!(problems(&sources(file, &[], &[])), expected);
}

#[test]
fn syntax_errors_do_not_hide_the_rest() {
    let file = "lock-ttl-ms = \nclients-max = 0\nworkers = 1\nworkers = 2\n";
    let found = problems(&sources(file, &[], &[]));
    assert!(found.iter().any(|l| l.starts_with("FILE:1: ")), "{found:?}");
    assert!(
        found.iter().any(|l| l.starts_with("FILE:2: clients-max: ")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|l| l.starts_with("FILE:4: ") && l.contains("duplicate")),
        "{found:?}"
    );
}

#[test]
fn conflicts_are_blamed_on_a_setting_that_was_given() {
    let file = "decision-retention-ms = 30_000\nlock-ttl-ms = 10_000\n\
                shard = 'a:1'\nlisten = 'a:1'\n";
    let found = problems(&sources(file, &[], &[]));
    assert!(
        found[0].starts_with("FILE:1: decision-retention-ms: must be at least"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("FILE:3: shard: contains the address"),
        "{found:?}"
    );
    let found = problems(&sources("", &[("LOCKSTEP_LOCK_TTL_MS", "3600000")], &[]));
    let start = "LOCKSTEP_LOCK_TTL_MS: conflicts with decision-retention-ms, which must be";
    assert!(found[0].starts_with(start), "{found:?}");
    let found = problems(&sources(
        "",
        &[],
        &[
            ("shard-user", "me"),
            ("metrics-listen", "x:1"),
            ("listen", "x:1"),
        ],
    ));
    assert_eq!(
        found,
        [
            "--metrics-listen: must differ from listen",
            "--shard-user: needs shard-password or shard-password-file",
        ]
    );
}

#[test]
fn secrets_come_from_a_file_and_are_never_shown() {
    let path = written("hunter2\r\n");
    let text = path.display().to_string();
    let loaded = load(&sources("", &[], &[("shard-password-file", &text)])).unwrap();
    assert_eq!(
        loaded.config.shard_password.as_ref().map(Secret::reveal),
        Some("hunter2")
    );
    let both = [
        ("shard-password-file", text.as_str()),
        ("shard-password", "hunter3"),
    ];
    let found = problems(&sources("", &[], &both));
    assert_eq!(
        found,
        ["--shard-password-file: excludes shard-password: give one of them"]
    );
    std::fs::remove_file(path).unwrap();
    let found = problems(&sources(
        "",
        &[],
        &[("shard-password-file", "/nonexistent/x")],
    ));
    assert!(found[0].contains("--shard-password-file: cannot read \"/nonexistent/x\""));
    let loaded = load(&sources("", &[("LOCKSTEP_SHARD_PASSWORD", "hunter4")], &[])).unwrap();
    assert_eq!(
        loaded.given().collect::<Vec<_>>(),
        [("shard-password", "(hidden)")]
    );
}

#[test]
fn a_misspelt_variable_is_a_warning_and_others_variables_are_not() {
    let environment = [
        ("LOCKSTEP_LOCK_TTL", "1"),
        ("LOCKSTEP_PORT_6380_TCP_ADDR", "10.0.0.1"),
        ("LOCKSTEP_SERVICE_HOST", "10.0.0.1"),
    ];
    let loaded = load(&sources("", &environment, &[])).unwrap();
    let expected = ["LOCKSTEP_LOCK_TTL is unknown; did you mean LOCKSTEP_LOCK_TTL_MS?"];
    assert_eq!(loaded.warnings, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_its_own() {
    let missing = Sources {
        file: Some("/nonexistent/lockstep.toml".into()),
        ..Sources::default()
    };
    let text = load(&missing).unwrap_err().to_string();
    assert!(
        text.starts_with("/nonexistent/lockstep.toml: cannot read the file: "),
        "{text}"
    );
}
