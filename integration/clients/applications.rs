//! Applications end to end, as they are for one Redis: the cache and the sessions of a web
//! framework, and a job queue.

use crate::support::{Cluster, Options};
use crate::{CLEAN_LIMIT, folder, installed, run};
use std::process::Command;

fn check(program: &str, wanted: &[&str]) {
    let Some(python) = installed("python") else {
        return;
    };
    let cluster = Cluster::start(&Options::default());
    let mut command = Command::new(python);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(folder().join(program))
        .arg(cluster.port(0).to_string());
    let printed = run(&mut command, "");
    assert_eq!(printed.lines().collect::<Vec<_>>(), wanted);
    cluster.wait_clean(CLEAN_LIMIT);
}

/// Django's own Redis cache, and sessions kept in it, read through its test client.
#[test]
fn django() {
    let wanted = [
        "set None value",
        "add False True [1, 2]",
        "many [] True",
        "incr None 5 4",
        "touch True False True",
        "or set 42 default",
        "expired None None",
        "delete True False None {}",
        "visit 1 ['tea']",
        "visit 2 ['tea', 'milk']",
        "other 1 ['salt']",
        "session {'visits': 2, 'basket': ['tea', 'milk']} True",
        "leave left",
        "again 1 ['jam']",
        "clear True None None",
    ];
    check("django_site.py", &wanted);
}

/// Celery with its broker and its results in two databases, and a worker process.
#[test]
fn celery() {
    let wanted = [
        "add 5",
        "many True",
        "chain 113",
        "group [1, 2, 3, 4, 5]",
        "chord 30",
        "retried 2",
        "later 8",
        "failed as it should",
        "ping [[{'ok': 'pong'}]]",
        "result 2 SUCCESS None PENDING",
        "worker ended 0",
    ];
    check("celery_jobs.py", &wanted);
}
