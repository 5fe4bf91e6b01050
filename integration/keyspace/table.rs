//! The table of commands says what the program does.

use std::fs;
use std::path::Path;

use lockstep::keyspace::{CommandTable, compatibility};
use lockstep::resp::{Limits, Value};

use crate::support::Redis;

#[test]
fn the_table_of_commands_is_up_to_date() {
    let redis = Redis::start(&[]);
    let reply = redis.client().call(&["COMMAND"]);
    let reply = Value::decode(&reply.raw, &Limits::default()).expect("a reply");
    let table = CommandTable::from_reply(&reply).expect("a table");
    let expected = compatibility::markdown(&table);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/COMPATIBILITY.md");
    let text = fs::read_to_string(&path).expect("the document");
    let (begin, end) = ("<!-- commands -->\n", "\n<!-- /commands -->");
    let (before, rest) = text
        .split_once(begin)
        .expect("the mark where the table begins");
    let (old, after) = rest.split_once(end).expect("the mark where it ends");
    let expected = format!("\n{expected}");
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).expect("written");
    } else {
        assert_eq!(old, expected, "run integration/run --update-readme");
    }
}
