//! Users and passwords: what a redis-server with the same file of users answers, lockstep answers
//! byte for byte, and nobody gets at more than the file says.

// A test program has no outside that could reach its items.
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{Client, Cluster, Options, Redis};
use tempfile::TempDir;

const OPEN: &str = "user default on nopass ~* &* +@all\n";
const USERS: &str = "\
user default on >secret ~* &* +@all
user app on >app >other ~app:* %R~ro:* %W~wo:* &news.* +@all -@dangerous
user reader on nopass %R~* -@all +@read +select|0 +config|get -get +acl|whoami
user off off >off ~* +@all
user hashed on #a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333 ~* +ping
user few on >z ~k +get +set +@string -append +acl|whoami +multi +exec +publish +subscribe +psubscribe &a* +ping
user sorter on >s ~s:* +@all
";
const PATIENCE: Duration = Duration::from_secs(10);

/// A file of users, at first with an open door, so that what starts can be seen to be up.
struct File {
    _folder: TempDir,
    path: PathBuf,
}

impl File {
    fn open() -> File {
        let folder = TempDir::with_prefix("lockstep-users-").expect("a temporary folder");
        let path = folder.path().join("users.acl");
        let file = File {
            _folder: folder,
            path,
        };
        file.write(OPEN);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).expect("written");
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn cluster(&self) -> Cluster {
        self.cluster_with(&[])
    }

    fn cluster_with(&self, more: &[(&str, &str)]) -> Cluster {
        let mut proxy = vec![("acl-file".to_owned(), self.name())];
        proxy.extend(more.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())));
        let cluster = Cluster::start(&Options {
            proxy,
            ..Options::default()
        });
        cluster.expect_log("wrong password");
        cluster
    }
}

fn say(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    client.call(&words).text()
}

/// Steps of several clients; a line that begins with `--` is the next client.
const SCRIPT: &str = "\
PING
NOSUCH
GET
GET k
MULTI
EXEC
EXEC x
HELLO
HELLO 3
HELLO 4
HELLO 2 AUTH default bad
HELLO 2 AUTH
AUTH bad
AUTH a b c
AUTH off off
AUTH nobody x
AUTH hashed app
PING
GET k
AUTH app other
ACL WHOAMI
AUTH secret
ACL WHOAMI
ACL USERS
ACL GETUSER app
ACL GETUSER off
ACL GETUSER nobody
ACL CAT
ACL CAT nosuch
ACL LOG x
ACL GENPASS 0
ACL GENPASS x
ACL GENPASS 5000
ACL DRYRUN few get k
ACL DRYRUN few get x
ACL DRYRUN few append k x
ACL DRYRUN few append k
ACL DRYRUN few publish b x
ACL DRYRUN few publish ab x
ACL DRYRUN nobody get k
ACL DRYRUN few nosuch k
ACL DRYRUN few config get x
ACL DRYRUN few config nosuch x
ACL NOSUCH
CLIENT KILL USER nobody
CLIENT KILL USER off
CLIENT NO-EVICT on
CLIENT NO-EVICT x
RESET
GET k
--
AUTH few z
GET k
GET x
APPEND k x
SUBSCRIBE bb
SUBSCRIBE ab bb
PSUBSCRIBE a*
PSUBSCRIBE aa
UNSUBSCRIBE
RESET
AUTH few z
MULTI
GET k
GET x
EXEC
MULTI
PUBLISH b x
SET k 1
EXEC
MULTI
DISCARD
AUTH few z
EXEC
PUBLISH b x
CONFIG GET x
CONFIG NOSUCH
MULTI
AUTH reader x
SET k 2
MGET k k
EXEC
ACL WHOAMI
EXEC
GET k
SELECT 0
SELECT 1
CONFIG SET maxmemory 0
FLUSHALL
--
AUTH app app
ACL WHOAMI
SET app:1 v
SET app:1 v GET
SET wo:1 v
SET wo:1 v GET
SET wo:1 v get ex 5
GET wo:1
EXISTS wo:1
TYPE wo:1
EXISTS zz
GETDEL wo:1
GETSET wo:1 x
APPEND wo:1 x
GET ro:1
SET ro:1 v
DEL ro:1
COPY {ro:1}:a {ro:1}:b
BITFIELD ro:1 GET u8 0
BITFIELD ro:1 OVERFLOW FAIL GET u8 0
BITFIELD ro:1 SET u8 0 1
MSET app:1 1 zz 2
MGET app:1 zz
XREAD STREAMS app:s zz 0 0
ZUNIONSTORE wo:{a} 1 ro:{a}
ZUNIONSTORE ro:{a} 1 wo:{a}
LMPOP 1 zz LEFT
WATCH zz
WATCH app:1
UNWATCH
FLUSHALL
PUBLISH news.art x
PUBLISH old.art x
--
AUTH sorter s
SORT s:l BY w_* GET #
SORT s:l GET #
SORT s:l BY nosort
SORT s:l STORE ro:x
SORT s:l STORE s:x
SORT_RO x
QUIT
";

/// P3: denied and allowed as on one redis-server, in its words.
#[test]
fn the_same_file_means_the_same_as_to_redis() {
    let file = File::open();
    let redis_file = File::open();
    let oracle = Redis::start(&["--aclfile", &redis_file.name()]);
    let cluster = file.cluster();
    let (mut one, mut other) = (oracle.client(), cluster.client());
    file.write(USERS);
    redis_file.write(USERS);
    assert_eq!(say(&mut one, "ACL LOAD"), say(&mut other, "ACL LOAD"));
    let (mut one, mut other) = (oracle.client(), cluster.client());
    let mut differ = Vec::new();
    for line in SCRIPT.lines() {
        if line == "--" {
            (one, other) = (oracle.client(), cluster.client());
            continue;
        }
        let (wanted, got) = (say(&mut one, line), say(&mut other, line));
        if wanted != got {
            differ.push(format!(
                "{line}\n  redis-server {wanted}\n  lockstep     {got}"
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// What is sent before AUTH is small, as in Redis.
#[test]
fn strangers_may_send_little() {
    let file = File::open();
    let cluster = file.cluster();
    let mut first = cluster.client();
    file.write(USERS);
    assert_eq!(say(&mut first, "ACL LOAD"), "+OK\\r\\n");
    for (bytes, wanted) in [
        (
            &b"*11\r\n"[..],
            "-ERR Protocol error: unauthenticated multibulk length",
        ),
        (
            b"*2\r\n$4\r\nAUTH\r\n$16385\r\n",
            "-ERR Protocol error: unauthenticated bulk length",
        ),
    ] {
        let mut client = cluster.client();
        client.send(bytes).expect("sent");
        assert!(client.read().expect("an answer").text().starts_with(wanted));
        assert!(client.is_closed_within(PATIENCE));
        // Whoever is known may send more.
        let mut client = cluster.client();
        assert_eq!(say(&mut client, "AUTH secret"), "+OK\\r\\n");
        let value = "x".repeat(20_000);
        assert_eq!(client.call(&["SET", "k", &value]).text(), "+OK\\r\\n");
    }
}

/// ACL LOAD is all or nothing; who is somebody else now is sent away, and who stays has the rights
/// of the new file, even between MULTI and EXEC.
#[test]
fn a_new_file_counts_at_once() {
    let file = File::open();
    let cluster = file.cluster();
    cluster.expect_log("ACL LOAD");
    let mut open = cluster.client();
    file.write(
        "user default on nopass ~* &* +@all\nuser a on >a ~* +@all\nuser b on >b ~* +@all\n",
    );
    assert_eq!(say(&mut open, "ACL LOAD"), "+OK\\r\\n");
    let (mut a, mut b) = (cluster.client(), cluster.client());
    assert_eq!(say(&mut a, "AUTH a a"), "+OK\\r\\n");
    assert_eq!(say(&mut b, "AUTH b b"), "+OK\\r\\n");
    assert!(say(&mut open, "CLIENT LIST").contains("user=b"));
    file.write("user default on nopass ~* +@all\nuser a on +nosuch\nuser c nonsense\n");
    let refused = say(&mut open, "ACL LOAD");
    assert!(
        refused.contains(":2: +nosuch: Unknown command") || refused.contains(":3: nonsense"),
        "{refused}"
    );
    assert_eq!(say(&mut a, "ACL WHOAMI"), "$1\\r\\na\\r\\n");
    for line in ["MULTI", "SET {x}1 1", "SET y 1"] {
        say(&mut open, line);
    }
    file.write(
        "user default on nopass ~y ~z +@all\nuser a on >a ~* +@all\nuser b on >b ~b +@all\n",
    );
    assert_eq!(say(&mut a, "ACL LOAD"), "+OK\\r\\n");
    assert!(b.is_closed_within(PATIENCE), "b has other rights now");
    assert_eq!(say(&mut a, "ACL WHOAMI"), "$1\\r\\na\\r\\n");
    let done = say(&mut open, "EXEC");
    assert!(
        done.starts_with("*2\\r\\n-NOPERM ACLs rules changed") && done.ends_with("+OK\\r\\n"),
        "{done}"
    );
    assert_eq!(say(&mut a, "EXISTS {x}1"), ":0\\r\\n");
    assert_eq!(say(&mut a, "EXISTS y"), ":1\\r\\n");
}

/// What a script calls nobody could check, so it is for those who may do everything.
#[test]
fn scripts_lead_nowhere_else() {
    for (setting, is_trusted) in [("false", false), ("true", true)] {
        let file = File::open();
        let cluster = file.cluster_with(&[("acl-trust-scripts", setting)]);
        let mut client = cluster.client();
        file.write("user default on nopass ~* &* +@all\nuser a on >a ~a:* &* +@all\n");
        assert_eq!(say(&mut client, "ACL LOAD"), "+OK\\r\\n");
        assert_eq!(say(&mut client, "EVAL return(1) 1 a:1"), ":1\\r\\n");
        assert_eq!(say(&mut client, "AUTH a a"), "+OK\\r\\n");
        for line in [
            "EVAL return(1) 1 a:1",
            "EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 1 a:1",
        ] {
            let reply = say(&mut client, line);
            assert_eq!(reply == ":1\\r\\n", is_trusted, "{reply}");
            assert_eq!(reply.starts_with("-NOPERM"), !is_trusted, "{reply}");
        }
        assert!(say(&mut client, "EVAL return(1) 1 b:1").starts_with("-NOPERM"));
    }
}

/// Denials are counted, kept for ACL LOG, and told to the log without a password.
#[test]
fn what_is_denied_is_seen() {
    let file = File::open();
    let cluster = file.cluster();
    let mut open = cluster.client();
    file.write(
        "user default on >top ~* &* +@all\nuser a on >a ~a:* &a +@all -flushall -lockstep\n",
    );
    assert_eq!(say(&mut open, "ACL LOAD"), "+OK\\r\\n");
    let mut client = cluster.client();
    for line in ["PING", "LOCKSTEP HELP"] {
        assert_eq!(
            say(&mut client, line),
            "-NOAUTH Authentication required.\\r\\n"
        );
    }
    say(&mut client, "AUTH a notapassword");
    say(&mut client, "AUTH a a");
    for line in ["FLUSHALL", "GET b", "PUBLISH b x"] {
        assert!(say(&mut client, line).starts_with("-NOPERM"), "{line}");
    }
    let refused = say(&mut client, "LOCKSTEP HELP");
    assert!(
        refused.starts_with("-NOPERM") && refused.contains("lockstep"),
        "{refused}"
    );
    let shown = say(&mut client, "ACL LOG");
    for text in [
        "auth", "command", "key", "channel", "flushall", "AUTH", "user=a",
    ] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    let metrics = cluster.proxies()[0].http_get("/metrics");
    for (reason, count) in [
        ("auth", 1),
        ("unauthenticated", 2),
        ("command", 2),
        ("key", 1),
        ("channel", 1),
    ] {
        let line = format!("lockstep_access_denied_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}");
    }
    let log = cluster.proxies()[0].log();
    assert!(
        log.contains("gave a wrong password") && log.contains("127.0.0.1:"),
        "{log}"
    );
    assert!(!log.contains("notapassword"));
}

/// A mistake is told with its line, before anything is served.
#[test]
fn mistakes_are_told_with_their_lines() {
    let folder = TempDir::new().expect("a folder");
    let (users, settings) = (
        folder.path().join("users.acl"),
        folder.path().join("l.toml"),
    );
    let text = format!(
        "shard = [\"127.0.0.1:1\"]\nacl-file = {:?}\n",
        users.display().to_string()
    );
    std::fs::write(&settings, text).expect("written");
    let check = |text: &str| {
        std::fs::write(&users, text).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        let output = command.args(["check", "--config"]).arg(&settings).output();
        let output = output.expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (good, told) = check("user a on >geheim ~* +get\n");
    assert!(
        good && told.contains("may do everything") && !told.contains("geheim"),
        "{told}"
    );
    let (good, told) = check(
        "user default on\n\nusr a\nuser b +@nosuch >x\nuser b on\nuser c (~a +get)\nuser d #12 &* &b\n",
    );
    assert!(!good);
    for line in [
        ":3: the line must begin with the word user",
        ":4: +@nosuch: Unknown command or category",
        ":5: user b is there twice",
        ":6: (~a: selectors",
        ":7: #12: The password hash",
        ":7: &b: Adding a pattern",
        "6 mistakes",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}

/// redis-py, by user and password, in either protocol.
#[test]
fn redis_py() {
    if std::env::var("LOCKSTEP_OFFLINE").is_ok_and(|value| value == "1") {
        println!("LOCKSTEP_OFFLINE=1: redis-py is left out");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/clients");
    let python = Command::new(folder.join("setup"))
        .arg("python")
        .output()
        .expect("it runs");
    let file = File::open();
    let cluster = file.cluster();
    let mut open = cluster.client();
    file.write(USERS);
    assert_eq!(say(&mut open, "ACL LOAD"), "+OK\\r\\n");
    let output = Command::new(String::from_utf8_lossy(&python.stdout).trim())
        .arg(folder.join("redis_py_users.py"))
        .arg(cluster.port(0).to_string())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let wanted = ["2", "3"].map(|protocol| {
        let lines = [
            "whoami app",
            "transaction [True, True, 2]",
            "denied NoPermissionError",
            "wrong AuthenticationError",
            "none AuthenticationError",
        ];
        lines.map(|line| format!("{protocol} {line}"))
    });
    assert_eq!(told.lines().collect::<Vec<_>>(), wanted.concat());
}
