//! Files of settings and of users, environment and flags: mistakes are told, whatever they are.

use crate::mutate::mutate;
use crate::seed;
use crate::support::seed::PrintOnFailure;
use lockstep::config::{SETTINGS, Sources, load};
use lockstep::frontend::access;
use rand::RngExt;
use rand::rngs::StdRng;
use std::fs;
use std::time::Instant;

#[test]
fn files_of_settings_and_of_users() {
    let (seed, end) = seed("files");
    let _print = PrintOnFailure(seed);
    let mut rng = seed.rng(0);
    let folder = tempfile::tempdir().expect("a folder");
    let (settings, users) = (folder.path().join("a.toml"), folder.path().join("users"));
    let (mut inputs, mut good, mut told) = (0_u64, 0_u64, 0_u64);
    while Instant::now() < end {
        let mut bytes = file(&mut rng);
        if rng.random_ratio(3, 4) {
            mutate(&mut rng, &mut bytes);
        }
        fs::write(&settings, &bytes).expect("written");
        let text = String::from_utf8_lossy(&bytes);
        let given = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        let mut sources = Sources {
            file: Some(settings.clone()),
            ..Sources::default()
        };
        for (name, value) in text.lines().filter_map(given).take(3) {
            let variable = format!("LOCKSTEP_{}", name.to_uppercase().replace('-', "_"));
            sources.environment.insert(variable, value);
        }
        match load(&sources) {
            Ok(loaded) => good += u64::from(loaded.given().count() < usize::MAX),
            Err(problems) => told += u64::from(!problems.to_string().is_empty()),
        }
        let mut bytes = some_users(&mut rng);
        mutate(&mut rng, &mut bytes);
        fs::write(&users, &bytes).expect("written");
        if let Err(mistakes) = access::check_file(&users.to_string_lossy()) {
            assert!(
                !mistakes.is_empty(),
                "refused without a reason: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
        inputs += 1;
    }
    println!("files: {inputs} of each kind; of settings {good} good, {told} with mistakes");
    assert!(good > 0 && told > 0 && good + told == inputs);
}

const VALUES: [&str; 18] = [
    "1",
    "0",
    "-1",
    "true",
    "\"a:1\"",
    "[\"a:1\", \"b:2\"]",
    "[]",
    "\"\"",
    "18446744073709551616",
    "1e400",
    "nan",
    "\"9999999999999999gb\"",
    "\"5s\"",
    "{}",
    "\"unix:/a\"",
    "\"[::1]:1\"",
    "1979-05-27",
    "\"\\u0000\"",
];

fn file(rng: &mut StdRng) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..rng.random_range(0..8) {
        let name = SETTINGS[rng.random_range(0..SETTINGS.len())].name;
        let value = VALUES[rng.random_range(0..VALUES.len())];
        text += &format!("{name} = {value}\n");
    }
    text.into_bytes()
}

fn some_users(rng: &mut StdRng) -> Vec<u8> {
    let rules = [
        "on",
        "off",
        ">password",
        "<password",
        "#00",
        "nopass",
        "resetpass",
        "~*",
        "%RW~a*",
        "%~",
        "+@all",
        "-@write",
        "+get",
        "+config|get",
        "-debug|",
        "allchannels",
        "&a*",
        "reset",
        "(+get ~a)",
        "sanitize-payload",
    ];
    let mut text = String::new();
    for _ in 0..rng.random_range(0..5) {
        text += &format!("user u{}", rng.random_range(0..3));
        for _ in 0..rng.random_range(0..6) {
            text += &format!(" {}", rules[rng.random_range(0..rules.len())]);
        }
        text.push('\n');
    }
    text.into_bytes()
}
