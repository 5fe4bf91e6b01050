//! How throughput and latency go with the number of shards, of proxies, of clients, with the size
//! of values and with the share of transactions over several shards: one figure and some lines of
//! CSV for each.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::endpoints::{Kind, Running};
use super::load;
use super::plot;
use super::support::{Client, encode};
use super::workloads::{LARGE, Unit, Workload, large_key};

/// What is changed, all else being equal.
pub struct Axis {
    /// Names the files.
    pub name: &'static str,
    /// Below the figure.
    pub label: &'static str,
    /// Its values.
    pub at: &'static [usize],
    /// Whether each is a multiple of the one before, rather than so much more.
    pub is_logarithmic: bool,
    /// Shards and proxies.
    stage: fn(usize) -> (usize, usize),
    before: fn(usize, &Running) -> std::io::Result<()>,
    series: &'static [Series],
}

/// One line of a figure.
struct Series {
    name: &'static str,
    /// Which of those that run.
    endpoint: usize,
    clients: fn(usize) -> usize,
    unit: fn(usize) -> Unit,
}

const LOCKSTEP: usize = 0;
const DIRECT: usize = 1;

/// A value of an axis, and what was measured there.
pub struct Point {
    /// Line.
    pub series: &'static str,
    /// Value of the axis.
    pub x: usize,
    /// Or why there is nothing.
    pub measured: Result<Measured, String>,
}

/// What tells of a point, and where its time goes.
#[derive(Clone)]
pub struct Measured {
    /// Throughput.
    pub per_second: f64,
    /// Latency that one of a hundred exceeds.
    pub p99_us: f64,
    /// Processor time of the proxies, of the shards and of the load, per unit.
    cpu_us: [f64; 3],
    /// Why another round failed.
    failure: Option<String>,
}

const fn series(
    name: &'static str,
    endpoint: usize,
    clients: fn(usize) -> usize,
    unit: fn(usize) -> Unit,
) -> Series {
    Series {
        name,
        endpoint,
        clients,
        unit,
    }
}

/// What 50 clients do, whatever stands behind them.
const BY_FIFTY: &[Series] = &[
    series("GET", LOCKSTEP, |_| 50, |_| Unit::Get),
    series(
        "MULTI SET SET EXEC, random keys",
        LOCKSTEP,
        |_| 50,
        |_| Unit::Multi,
    ),
];

/// All of them.
pub const AXES: &[Axis] = &[
    Axis {
        name: "shards",
        label: "shards (50 clients)",
        at: &[1, 2, 4, 8, 16, 32],
        is_logarithmic: true,
        stage: |shards| (shards, 1),
        before: |_, _| Ok(()),
        series: BY_FIFTY,
    },
    Axis {
        name: "proxies",
        label: "proxies (50 clients, 3 shards)",
        at: &[1, 2, 4, 8],
        is_logarithmic: true,
        stage: |proxies| (3, proxies),
        before: |_, _| Ok(()),
        series: BY_FIFTY,
    },
    Axis {
        name: "clients",
        label: "clients (3 shards)",
        at: &[1, 5, 20, 50, 200, 1_000, 2_500, 5_000],
        is_logarithmic: true,
        stage: |_| (3, 1),
        before: |_, _| Ok(()),
        series: &[
            series("GET, direct", DIRECT, |clients| clients, |_| Unit::Get),
            series("GET", LOCKSTEP, |clients| clients, |_| Unit::Get),
            series(
                "MULTI SET SET EXEC, random keys",
                LOCKSTEP,
                |clients| clients,
                |_| Unit::Multi,
            ),
        ],
    },
    Axis {
        name: "values",
        label: "bytes of a value (8 clients, 3 shards)",
        at: &[16, 256, 4 << 10, 64 << 10, 1 << 20, 16 << 20],
        is_logarithmic: true,
        stage: |_| (3, 1),
        before: fill_large,
        series: &[
            series("GET, direct", DIRECT, |_| 8, |_| Unit::GetLarge),
            series("GET", LOCKSTEP, |_| 8, |_| Unit::GetLarge),
            series("SET, direct", DIRECT, |_| 8, Unit::SetOf),
            series("SET", LOCKSTEP, |_| 8, Unit::SetOf),
        ],
    },
    Axis {
        name: "share",
        label: "transactions over two shards, % (50 clients, 3 shards)",
        at: &[0, 10, 25, 50, 75, 100],
        is_logarithmic: false,
        stage: |_| (3, 1),
        before: |_, _| Ok(()),
        series: &[
            series(
                "the others: MULTI in one slot",
                LOCKSTEP,
                |_| 50,
                Unit::AmongTagged,
            ),
            series("the others: GET", LOCKSTEP, |_| 50, Unit::AmongGet),
        ],
    },
];

/// The figures that are wanted, into this folder. How many points have failed.
pub fn run(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
    rounds: usize,
    seconds: f64,
) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let mut failed = 0;
    for axis in AXES.iter().filter(|axis| wanted(axis.name)) {
        let points = measure(axis, rounds, seconds);
        let mut csv = format!(
            "{},series,per_second,p99_us,proxy_us,shards_us,load_us,failure\n",
            axis.name
        );
        for point in &points {
            let Point {
                series,
                x,
                measured,
            } = point;
            let (row, why) = match measured {
                Ok(found) => (found.row(), found.failure.as_ref()),
                Err(why) => (",,,,,".to_owned(), Some(why)),
            };
            let why = why.map_or_else(String::new, |why| why.replace('"', "'"));
            let _ = writeln!(csv, "{x},\"{series}\",{row}\"{why}\"");
            if let Err(why) = measured {
                failed += 1;
                eprintln!("{series} at {x} {}: {why}", axis.name);
            }
        }
        print!("{csv}");
        std::fs::write(folder.join(format!("{}.csv", axis.name)), csv)?;
        let path = folder.join(format!("{}.svg", axis.name));
        let lines = axis.series.iter().map(|line| line.name);
        plot::draw(&path, axis, &lines.collect::<Vec<_>>(), &points)
            .map_err(|error| std::io::Error::other(format!("{}: {error}", path.display())))?;
    }
    Ok(failed)
}

fn measure(axis: &Axis, rounds: usize, seconds: f64) -> Vec<Point> {
    let mut points = Vec::new();
    let mut running: Option<((usize, usize), Running)> = None;
    for &x in axis.at {
        let (shards, proxies) = (axis.stage)(x);
        // The former must be gone before the next: both want the same cores.
        running = running.filter(|(stage, _)| *stage == (shards, proxies));
        if running.is_none() {
            running = caught(|| ((shards, proxies), Running::of(shards, proxies))).ok();
        }
        let prepared = match &running {
            None => Err(format!(
                "{shards} shards and {proxies} proxies do not start"
            )),
            Some((_, all)) => (axis.before)(x, all).map_err(|error| error.to_string()),
        };
        for line in axis.series {
            let measured = prepared.clone().and_then(|()| {
                let (_, all) = running.as_ref().ok_or("nothing runs")?;
                point(line, x, all, rounds, seconds)
            });
            points.push(Point {
                series: line.name,
                x,
                measured,
            });
        }
    }
    points
}

impl Measured {
    /// Its fields of a line of CSV.
    fn row(&self) -> String {
        let [proxy, shards, load] = self.cpu_us;
        let Self {
            per_second, p99_us, ..
        } = self;
        format!("{per_second:.0},{p99_us:.0},{proxy:.1},{shards:.1},{load:.1},")
    }
}

/// The best round: what else goes on on the machine can only take away. Fails if all fail.
fn point(
    line: &Series,
    x: usize,
    running: &Running,
    rounds: usize,
    seconds: f64,
) -> Result<Measured, String> {
    let workload = Workload {
        name: "sweep",
        what: line.name,
        stage: Kind::Plain,
        clients: (line.clients)(x),
        depth: 1,
        unit: (line.unit)(x),
    };
    let endpoint = &running.all[line.endpoint];
    let time = Duration::from_secs_f64(seconds);
    let mut all = Vec::new();
    let mut failure = None;
    for _ in 0..rounds {
        let before = running.cpu(endpoint);
        let done = caught(|| load::run(&workload, &endpoint.ports, time))?;
        let after = running.cpu(endpoint);
        if done.refused.is_some() {
            failure = done.refused;
            continue;
        }
        let spent = [
            after.0.saturating_sub(before.0),
            after.1.saturating_sub(before.1),
            done.cpu,
        ];
        let each = |time: Duration| time.as_secs_f64() * 1e6 / done.units.max(1) as f64;
        all.push(Measured {
            per_second: done.units as f64 / done.took.as_secs_f64(),
            p99_us: done.percentile(0.99),
            cpu_us: spent.map(each),
            failure: None,
        });
    }
    let best = all
        .into_iter()
        .max_by(|a, b| a.per_second.total_cmp(&b.per_second));
    match best {
        Some(best) => Ok(Measured { failure, ..best }),
        None => Err(failure.unwrap_or_else(|| "no rounds".to_owned())),
    }
}

/// A panic is the failure of a point, not of the sweep.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        text.unwrap_or_else(|| "it panicked".to_owned())
    })
}

/// All large keys with values of so many bytes, at all endpoints.
fn fill_large(bytes: usize, running: &Running) -> std::io::Result<()> {
    let ports: BTreeSet<u16> = running.all.iter().map(|one| one.ports[0]).collect();
    let value = vec![b'x'; bytes];
    for port in ports {
        let mut client = Client::connect(port)?;
        for number in 0..LARGE {
            let key = large_key(number);
            client.send(&encode(&[b"SET".as_slice(), key.as_bytes(), &value]))?;
            client.read()?;
        }
    }
    Ok(())
}
