//! INFO: what the shards say, made one, and what lockstep has to say of itself.
//!
//! Counters and sizes are added up, states are those of the worst shard, and what describes one
//! server (its version, its build) is the first shard's. A shard that gives no answer is left
//! out, unlike with other commands: who watches wants to see the rest, and the section
//! `Lockstep` tells which one is down.

use bytes::{Bytes, BytesMut};

use super::{Inquiry, Replied, request};
use crate::resp::{self, build};

/// Sections that describe one server: the first shard's.
const OF_ONE: &[&str] = &["Server", "Replication", "Cluster", "Modules"];
/// Sections whose values are lists of `name=number`, with a line for each name.
const OF_LISTS: &[&str] = &["Commandstats", "Errorstats", "Latencystats", "Keyspace"];
/// The greatest of all shards counts, not the sum.
const GREATEST: &[&str] = &[
    "loading",
    "async_loading",
    "maxmemory_policy",
    "mem_not_counted_for_evict_ratio",
    "rdb_last_bgsave_time_sec",
    "rdb_current_bgsave_time_sec",
    "aof_last_rewrite_time_sec",
    "aof_current_rewrite_time_sec",
    "aof_last_cow_size",
    "rdb_last_cow_size",
    "pubsub_channels",
    "pubsub_patterns",
    "number_of_cached_scripts",
    "number_of_functions",
    "number_of_libraries",
    "client_recent_max_input_buffer",
    "client_recent_max_output_buffer",
    "io_threads_active",
    "active_defrag_running",
    "total_system_memory",
];
const GREATEST_ENDS: &[&str] = &["_in_progress", "_enabled", "_scheduled", "_peak_time"];

/// `name:value` lines under headings, in order.
struct Section {
    name: String,
    /// By name, the values of the shards that have it.
    lines: Vec<(String, Vec<String>)>,
}

impl Inquiry {
    pub(super) async fn info(&self) -> Replied {
        let mut wanted: Vec<&Bytes> = self.args.iter().skip(1).collect();
        let count = wanted.len();
        wanted.retain(|section| !section.eq_ignore_ascii_case(b"lockstep"));
        let names_all = |section: &&Bytes| {
            let all: [&[u8]; 3] = [b"default", b"all", b"everything"];
            all.iter().any(|all| section.eq_ignore_ascii_case(all))
        };
        let with_ours = wanted.len() < count || count == 0 || wanted.iter().any(names_all);
        let mut text = String::new();
        if count == 0 || !wanted.is_empty() {
            text = self.of_shards(&wanted).await;
        }
        if with_ours {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            self.append_lockstep(&mut text);
        }
        let mut out = BytesMut::new();
        build::verbatim(&mut out, self.lane.protocol, text);
        Ok(out)
    }

    /// The sections that the shards know.
    async fn of_shards(&self, wanted: &[&Bytes]) -> String {
        let engine = &self.context.engine;
        let command = Bytes::from_static(b"INFO");
        let words: Vec<&Bytes> = [&command]
            .into_iter()
            .chain(wanted.iter().copied())
            .collect();
        let links = engine.first_links();
        let answers = engine.ask_all(&links, &request(words)).each().await;
        let mut sections: Vec<Section> = Vec::new();
        for reply in answers.into_iter().flatten() {
            let text = String::from_utf8_lossy(resp::as_bulk(&reply).unwrap_or_default());
            read(&text, &mut sections);
        }
        let keys: Option<i64> = match sections.iter().any(|section| section.name == "Keyspace") {
            true => self.counts_of_first().await,
            false => None,
        };
        let written = sections.iter().map(|section| self.write(section, keys));
        written.collect::<Vec<_>>().join("\r\n")
    }

    fn write(&self, section: &Section, keys: Option<i64>) -> String {
        let mut text = format!("# {}\r\n", section.name);
        for (name, values) in &section.lines {
            let value = match self.own(name) {
                Some(value) => value,
                None if section.name == "Keyspace" && name == "db0" => {
                    match shown_keys(&merged_list(values), keys) {
                        Some(value) => value,
                        None => continue,
                    }
                }
                // Who waits for the end of a pause, or for keys of several shards, waits here.
                None if name == "blocked_clients" => {
                    let at_shards = extreme(values, |a, b| a.saturating_add(b)).unwrap_or_default();
                    let at_shards: usize = at_shards.parse().unwrap_or_default();
                    (at_shards + self.context.roster.waiting_here()).to_string()
                }
                None => merged(section, name, values),
            };
            text.push_str(&format!("{name}:{value}\r\n"));
        }
        text
    }

    /// What is said of lockstep rather than of any shard.
    fn own(&self, name: &str) -> Option<String> {
        let uptime = self.context.server.started.elapsed().as_secs();
        Some(match name {
            "redis_mode" => "standalone".into(),
            "process_id" => std::process::id().to_string(),
            "uptime_in_seconds" => uptime.to_string(),
            "uptime_in_days" => (uptime / 86_400).to_string(),
            "connected_clients" => self.context.roster.len().to_string(),
            "maxclients" => self.context.config().clients_max.to_string(),
            "role" => "master".into(),
            _ => return None,
        })
    }

    fn append_lockstep(&self, text: &mut String) {
        let topology = &self.context.topology;
        text.push_str(&format!(
            "# Lockstep\r\nlockstep_version:{}\r\nlockstep_shards:{}\r\n",
            env!("CARGO_PKG_VERSION"),
            topology.shards(),
        ));
        for (i, address) in topology.addresses().iter().enumerate() {
            let is_up = self.context.engine.link(i as u16).is_available();
            let state = if is_up { "up" } else { "down" };
            let line = format!("lockstep_shard{i}:address={address},state={state}\r\n");
            text.push_str(&line);
        }
    }
}

fn read(text: &str, sections: &mut Vec<Section>) {
    let mut at = None;
    for line in text.lines().map(str::trim_end) {
        if let Some(name) = line.strip_prefix("# ") {
            let known = sections.iter().position(|section| section.name == name);
            at = Some(known.unwrap_or_else(|| {
                sections.push(Section {
                    name: name.to_owned(),
                    lines: Vec::new(),
                });
                sections.len() - 1
            }));
        } else if let (Some((name, value)), Some(at)) = (line.split_once(':'), at) {
            let lines = &mut sections[at].lines;
            match lines.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value.to_owned()),
                None => lines.push((name.to_owned(), vec![value.to_owned()])),
            }
        }
    }
}

/// One value from those of the shards.
fn merged(section: &Section, name: &str, values: &[String]) -> String {
    let first = values.first().cloned().unwrap_or_default();
    if OF_ONE.contains(&section.name.as_str()) || values.len() == 1 {
        return first;
    }
    if OF_LISTS.contains(&section.name.as_str()) {
        return merged_list(values);
    }
    if let Some(of) = name.strip_suffix("_human") {
        return human(section, of).unwrap_or(first);
    }
    if name.ends_with("_status") {
        let bad = values.iter().find(|value| *value != "ok");
        return bad.cloned().unwrap_or(first);
    }
    let ends = |end: &&str| name.ends_with(end);
    if GREATEST.contains(&name) || GREATEST_ENDS.iter().any(ends) {
        return extreme(values, i64::max).unwrap_or(first);
    }
    if name == "rdb_last_save_time" {
        return extreme(values, i64::min).unwrap_or(first);
    }
    let is_mean = name.ends_with("_ratio") || name.ends_with("_perc");
    total(values, is_mean).unwrap_or(first)
}

fn extreme(values: &[String], of: fn(i64, i64) -> i64) -> Option<String> {
    let numbers: Option<Vec<i64>> = values.iter().map(|value| value.parse().ok()).collect();
    numbers?
        .into_iter()
        .reduce(of)
        .map(|value| value.to_string())
}

/// The sum, or the mean, in the form in which the values are given; None if they are no numbers.
fn total(values: &[String], is_mean: bool) -> Option<String> {
    let parts = |value: &String| {
        let digits = value.trim_end_matches('%');
        Some((
            digits.parse::<f64>().ok()?,
            digits.split_once('.').map_or(0, |(_, d)| d.len()),
        ))
    };
    let numbers: Option<Vec<(f64, usize)>> = values.iter().map(parts).collect();
    let numbers = numbers?;
    let decimals = numbers.iter().map(|(_, decimals)| *decimals).max()?;
    let mut sum: f64 = numbers.iter().map(|(number, _)| number).sum();
    if is_mean {
        sum /= numbers.len() as f64;
    } else if decimals == 0 {
        let exact: Option<Vec<i64>> = values.iter().map(|value| value.parse().ok()).collect();
        let sum: i64 = exact?.into_iter().fold(0, i64::saturating_add);
        return Some(sum.to_string());
    }
    let percent = if values[0].ends_with('%') { "%" } else { "" };
    Some(format!("{sum:.decimals$}{percent}"))
}

/// The sum of a size, as redis-server prints it for people.
fn human(section: &Section, of: &str) -> Option<String> {
    let (_, values) = section.lines.iter().find(|(name, _)| name == of)?;
    let bytes: f64 = values
        .iter()
        .filter_map(|value| value.parse::<f64>().ok())
        .sum();
    let units = [
        ("", 1.0),
        ("K", 1024.0),
        ("M", 1048576.0),
        ("G", 1073741824.0),
        ("T", 1099511627776.0),
    ];
    let (unit, size) = units
        .iter()
        .rev()
        .find(|(_, size)| bytes >= *size)
        .unwrap_or(&units[0]);
    Some(match *unit {
        "" => format!("{bytes:.0}B"),
        unit => format!("{:.2}{unit}", bytes / size),
    })
}

/// `name=number` lists, made one: sums, but means of what is a mean, and the greatest percentile.
fn merged_list(values: &[String]) -> String {
    let mut fields: Vec<(&str, f64, usize)> = Vec::new();
    for (name, number) in values
        .iter()
        .flat_map(|value| value.split(','))
        .filter_map(|pair| pair.split_once('='))
    {
        let decimals = number.split_once('.').map_or(0, |(_, d)| d.len());
        let number: f64 = number.parse().unwrap_or_default();
        match fields.iter_mut().find(|(known, ..)| *known == name) {
            Some((name, sum, _)) if name.starts_with('p') => *sum = sum.max(number),
            Some((_, sum, _)) => *sum += number,
            None => fields.push((name, number, decimals)),
        }
    }
    let value = |of: &str| {
        fields
            .iter()
            .find(|(name, ..)| *name == of)
            .map_or(0.0, |field| field.1)
    };
    let shown = fields.iter().map(|(name, number, decimals)| {
        let number = match *name {
            "usec_per_call" if value("calls") > 0.0 => value("usec") / value("calls"),
            "avg_ttl" => number / values.len().max(1) as f64,
            _ => *number,
        };
        format!("{name}={number:.decimals$}")
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The line of a database with the clients' keys only; None if there is none.
fn shown_keys(line: &str, keys: Option<i64>) -> Option<String> {
    let Some(keys) = keys else {
        return Some(line.to_owned());
    };
    if keys == 0 {
        return None;
    }
    let fields = line.split(',').filter_map(|pair| pair.split_once('='));
    let shown = fields.map(|(name, number)| match name {
        "keys" => format!("keys={keys}"),
        "expires" => {
            let expires = number.parse::<i64>().unwrap_or_default();
            format!("expires={}", expires.min(keys))
        }
        _ => format!("{name}={number}"),
    });
    Some(shown.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged_of(section: &str, texts: &[&str]) -> Vec<String> {
        let mut sections = Vec::new();
        for text in texts {
            read(&format!("# {section}\r\n{text}"), &mut sections);
        }
        let of = &sections[0];
        let lines = of.lines.iter();
        lines
            .map(|(name, values)| format!("{name}:{}", merged(of, name, values)))
            .collect()
    }

    #[test]
    fn counters_are_added_and_states_are_the_worst() {
        let texts = [
            "used_memory:1048576\r\nused_memory_human:1.00M\r\nx_status:ok\r\nloading:0\r\na_ratio:1.00\r\n",
            "used_memory:1048576\r\nused_memory_human:1.00M\r\nx_status:err\r\nloading:1\r\na_ratio:2.00\r\n",
        ];
        let wanted = [
            "used_memory:2097152",
            "used_memory_human:2.00M",
            "x_status:err",
            "loading:1",
            "a_ratio:1.50",
        ];
        assert_eq!(merged_of("Memory", &texts), wanted);
    }

    #[test]
    fn lists_are_merged_by_name() {
        let texts = [
            "cmdstat_get:calls=1,usec=4,usec_per_call=4.00,rejected_calls=0,failed_calls=0\r\n",
            "cmdstat_get:calls=3,usec=4,usec_per_call=1.33,rejected_calls=0,failed_calls=1\r\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n",
        ];
        let wanted = [
            "cmdstat_get:calls=4,usec=8,usec_per_call=2.00,rejected_calls=0,failed_calls=1",
            "cmdstat_set:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0",
        ];
        assert_eq!(merged_of("Commandstats", &texts), wanted);
    }

    #[test]
    fn our_keys_do_not_count() {
        let line = "keys=5,expires=4,avg_ttl=7";
        assert_eq!(shown_keys(line, Some(0)), None);
        assert_eq!(
            shown_keys(line, Some(3)).as_deref(),
            Some("keys=3,expires=3,avg_ttl=7")
        );
        assert_eq!(shown_keys(line, None).as_deref(), Some(line));
    }
}
