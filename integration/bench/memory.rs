//! How much memory of lockstep large values, long replies, slow readers and idle clients take:
//! growth of its resident memory, at its peak, of a process that has done nothing before.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::report::Table;
use super::support::{Proxy, Redis, encode};

const MIB: usize = 1 << 20;
/// The large value.
const LARGE: usize = 256 * MIB;
/// Elements of the long list, of eight bytes each.
const ELEMENTS: usize = 1_000_000;
/// Values of a MiB that are asked for and not read.
const UNREAD: usize = 400;
/// For so long.
const UNREAD_FOR: Duration = Duration::from_secs(3);
/// Connections that do nothing, if the limit of open files allows.
const IDLE: u64 = 10_000;
/// Files that are needed beside them.
const FILES: u64 = 500;

/// A measure: its name, what it is in words, and how it is taken.
pub struct Measure {
    /// For `--workloads`.
    pub name: &'static str,
    /// In words, with its unit.
    pub what: &'static str,
    take: fn(&[Redis]) -> std::io::Result<f64>,
}

/// All of them, in the order in which they are taken: some leave what others read.
pub const ALL: &[Measure] = &[
    Measure {
        name: "value-set",
        what: "SET of 256 MiB, MiB",
        take: |shards| growth(shards, |stream| set(stream, "large", LARGE)),
    },
    Measure {
        name: "value-get",
        what: "GET of 256 MiB, MiB",
        take: |shards| {
            set(&mut owner(shards, "large")?, "large", LARGE)?;
            growth(shards, |stream| {
                stream.write_all(&encode(&["GET", "large"]))?;
                skip(stream, bulk(LARGE))
            })
        },
    },
    Measure {
        name: "elements",
        what: "LRANGE of 1,000,000 elements, MiB",
        take: elements,
    },
    Measure {
        name: "unread",
        what: "400 GETs of 1 MiB, nothing read for 3 s, MiB",
        take: unread,
    },
    Measure {
        name: "idle",
        what: "each of 10,000 idle clients, KiB",
        take: idle,
    },
];

/// Takes those that are wanted.
pub fn measure(wanted: impl Fn(&str) -> bool, table: &mut Table) {
    let mine: Vec<&Measure> = ALL.iter().filter(|one| wanted(one.name)).collect();
    if mine.is_empty() {
        return;
    }
    let shards: Vec<Redis> = (0..3).map(|_| Redis::start(&[])).collect();
    for one in mine {
        let taken = (one.take)(&shards).map_err(|error| error.to_string());
        table.figure(one.name, one.what, taken);
    }
}

fn proxy(shards: &[Redis], settings: &[(String, String)]) -> Proxy {
    let addresses: Vec<String> = shards.iter().map(Redis::address).collect();
    Proxy::start(&addresses, settings)
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// A connection to the shard of a key.
fn owner(shards: &[Redis], key: &str) -> std::io::Result<TcpStream> {
    connect(shards[super::support::shard_of(key.as_bytes(), shards.len())].port())
}

/// Growth in MiB at its peak, of a lockstep of its own, while this goes on.
fn growth(
    shards: &[Redis],
    work: impl FnOnce(&mut TcpStream) -> std::io::Result<()>,
) -> std::io::Result<f64> {
    let proxy = proxy(shards, &[]);
    let mut stream = connect(proxy.port())?;
    let before = proxy.resident_kib();
    let ends = AtomicBool::new(false);
    let peak = scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !ends.load(Ordering::Relaxed) {
                peak = peak.max(proxy.resident_kib());
                sleep(Duration::from_millis(1));
            }
            peak
        });
        let done = work(&mut stream);
        ends.store(true, Ordering::Relaxed);
        done.map(|()| watch.join().expect("it only looks"))
    })?;
    Ok((peak - before) as f64 / 1024.0)
}

fn set(stream: &mut TcpStream, key: &str, bytes: usize) -> std::io::Result<()> {
    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len());
    stream.write_all(head.as_bytes())?;
    let piece = vec![b'x'; MIB];
    for _ in 0..bytes / MIB {
        stream.write_all(&piece)?;
    }
    stream.write_all(b"\r\n")?;
    skip(stream, "+OK\r\n".len())
}

/// Length of the reply that is a value of so many bytes.
fn bulk(bytes: usize) -> usize {
    format!("${bytes}\r\n").len() + bytes + 2
}

/// Reads a reply of so many bytes and keeps nothing.
fn skip(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let mut piece = vec![0; MIB];
    let mut missing = bytes;
    while missing > 0 {
        let room = missing.min(MIB);
        let count = stream.read(&mut piece[..room])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if missing == bytes && piece[0] == b'-' {
            let text = String::from_utf8_lossy(&piece[..count]).into_owned();
            return Err(Error::other(text));
        }
        missing -= count;
    }
    Ok(())
}

fn elements(shards: &[Redis]) -> std::io::Result<f64> {
    let mut stream = owner(shards, "list")?;
    let mut words = vec!["RPUSH", "list"];
    words.resize(2 + ELEMENTS / 100, "abcdefgh");
    let push = encode(&words);
    for part in 1..=100 {
        stream.write_all(&push)?;
        skip(&mut stream, format!(":{}\r\n", part * ELEMENTS / 100).len())?;
    }
    growth(shards, |stream| {
        stream.write_all(&encode(&["LRANGE", "list", "0", "-1"]))?;
        let head = format!("*{ELEMENTS}\r\n").len();
        skip(stream, head + ELEMENTS * bulk("abcdefgh".len()))
    })
}

/// All of it arrives in the end, so nothing of it was thrown away.
fn unread(shards: &[Redis]) -> std::io::Result<f64> {
    set(&mut owner(shards, "middling")?, "middling", MIB)?;
    let ask = encode(&["GET", "middling"]).repeat(UNREAD);
    growth(shards, |stream| {
        stream.write_all(&ask)?;
        sleep(UNREAD_FOR);
        skip(stream, UNREAD * bulk(MIB))
    })
}

/// Of clients that have asked once and been answered.
fn idle(shards: &[Redis]) -> std::io::Result<f64> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = IDLE.min(files.saturating_sub(FILES));
    let room = ("clients-max".to_owned(), (count + FILES).to_string());
    let proxy = proxy(shards, &[room]);
    let before = proxy.resident_kib();
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = connect(proxy.port())?;
        stream.write_all(&encode(&["GET", "nothing"]))?;
        skip(&mut stream, "$-1\r\n".len())?;
        all.push(stream);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while (proxy.metric("lockstep_clients_connected", "") as u64) < count {
        if Instant::now() > until {
            return Err(Error::other("not all clients are connected"));
        }
        sleep(Duration::from_millis(20));
    }
    println!("{count} idle clients");
    Ok((proxy.resident_kib() - before) as f64 / count as f64)
}
