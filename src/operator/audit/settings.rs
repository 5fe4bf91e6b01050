//! Settings and states of the shards under which promises do not hold.

use super::facts::Facts;
use super::finding::{Finding, Severity};
use crate::operator::render::span;

/// The oldest version that is served.
const MAJOR_MIN: u64 = 7;

/// Everything that one shard's facts give rise to.
pub(super) fn findings(shard: u16, facts: &Facts) -> Vec<Finding> {
    let checks = [
        version,
        role,
        eviction,
        persistence,
        fsync,
        aof_health,
        replicas,
        visibility,
    ];
    checks
        .iter()
        .filter_map(|check| check(shard, facts))
        .collect()
}

fn version(shard: u16, facts: &Facts) -> Option<Finding> {
    let version = facts.info("redis_version");
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u64>().ok());
    if facts.info("cluster_enabled") == "1" {
        let text = "runs in cluster mode, which confines scripts to one slot: lockstep needs plain servers";
        return Some(Finding::error(shard, "cluster", text));
    }
    major.is_none_or(|major| major < MAJOR_MIN).then(|| {
        let text = format!("runs Redis '{version}': version {MAJOR_MIN}.0 or newer is needed");
        Finding::error(shard, "version", text)
    })
}

fn role(shard: u16, facts: &Facts) -> Option<Finding> {
    (facts.info("role") == "slave").then(|| {
        let text = format!(
            "is a replica of {}:{}, not a primary: it refuses writes, and what it says is late",
            facts.info("master_host"),
            facts.info("master_port")
        );
        Finding::error(shard, "replica", text)
    })
}

/// INFO tells the policy also to who may not ask CONFIG.
fn eviction(shard: u16, facts: &Facts) -> Option<Finding> {
    let policy = facts.info("maxmemory_policy");
    let idle = match facts.number("maxmemory") {
        Some(0) => " (without effect as long as maxmemory is 0)",
        _ => "",
    };
    if policy.starts_with("allkeys-") {
        let text = format!(
            "maxmemory-policy is {policy}{idle}: it can evict a promise or a decision, and with it tear a transaction; set noeviction"
        );
        return Some(Finding::error(shard, "eviction", text));
    }
    policy.starts_with("volatile-").then(|| {
        let text = format!(
            "maxmemory-policy is {policy}{idle}: it can evict locks and the decisions kept for who asks; set noeviction"
        );
        Finding::warning(shard, "eviction-volatile", text)
    })
}

fn persistence(shard: u16, facts: &Facts) -> Option<Finding> {
    (facts.info("aof_enabled") == "0").then(|| {
        let text = "appendonly is no: a restart forgets promises and decisions, and can tear a transaction";
        Finding::warning(shard, "no-aof", text)
    })
}

fn fsync(shard: u16, facts: &Facts) -> Option<Finding> {
    let how = facts.setting("appendfsync")?;
    let text = match (facts.info("aof_enabled"), how) {
        ("1", "everysec") => {
            "appendfsync is everysec: a crash, even of the process alone, can lose what was acknowledged in the last two seconds"
        }
        ("1", "no") => {
            "appendfsync is no: a crash of the machine loses whatever the system has not written"
        }
        _ => return None,
    };
    Some(Finding::warning(shard, "fsync", text))
}

fn aof_health(shard: u16, facts: &Facts) -> Option<Finding> {
    let failed = |name: &str| !matches!(facts.info(name), "" | "ok");
    if failed("aof_last_write_status") {
        let text = "could not write to its AOF and refuses writes: look at its disk";
        return Some(Finding::error(shard, "aof-write", text));
    }
    failed("aof_last_bgrewrite_status").then(|| {
        let text = "its last rewrite of the AOF failed: look at its log";
        Finding::warning(shard, "aof-rewrite", text)
    })
}

fn replicas(shard: u16, facts: &Facts) -> Option<Finding> {
    let connected = facts.number("connected_slaves").unwrap_or(0);
    let wanted = facts
        .setting("min-replicas-to-write")
        .and_then(|n| n.parse::<u64>().ok());
    let good = facts.number("min_slaves_good_slaves").unwrap_or(connected);
    match (connected, wanted) {
        (_, Some(wanted)) if good < wanted => {
            let text = format!(
                "has {good} of the {wanted} replicas that min-replicas-to-write asks for, and refuses writes"
            );
            Some(Finding::error(shard, "replicas-missing", text))
        }
        (0, _) => {
            let text = "has no replicas: its transactions wait for it as long as it is down";
            Some(Finding::note(shard, "no-replicas", text))
        }
        (_, Some(0)) => {
            let text = "replicates without min-replicas-to-write: a replica that takes over may lack promises and decisions";
            Some(Finding::note(shard, "replicas-async", text))
        }
        _ => None,
    }
}

fn visibility(shard: u16, facts: &Facts) -> Option<Finding> {
    (!facts.tells_settings()).then(|| {
        let text =
            "CONFIG GET is not allowed: appendfsync and min-replicas-to-write cannot be seen";
        Finding::note(shard, "config-hidden", text)
    })
}

/// What only several shards together show.
pub(super) fn together(facts: &[Option<Facts>]) -> Option<Finding> {
    let mut versions: Vec<&str> = facts
        .iter()
        .flatten()
        .map(|f| f.info("redis_version"))
        .collect();
    versions.sort_unstable();
    versions.dedup();
    (versions.len() > 1).then(|| {
        let text = format!("the shards run different versions: {}", versions.join(", "));
        Finding::new(Severity::Warning, None, "versions", text)
    })
}

/// Clocks, as offsets in milliseconds from that of this process. Deadlines are told by the
/// shards' clocks, so they must not differ by as much as a lock lives.
pub(super) fn clocks(offsets_ms: &[i64], lock_ttl_ms: u64) -> Option<Finding> {
    let (least, most) = (offsets_ms.iter().min()?, offsets_ms.iter().max()?);
    let skew_ms = most.abs_diff(*least);
    (skew_ms > lock_ttl_ms / 2).then(|| {
        let text = format!(
            "the clocks of the shards differ by {}, more than half of lock-ttl-ms ({lock_ttl_ms})",
            span(skew_ms)
        );
        Finding::new(Severity::Warning, None, "clocks", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const SOUND: &str = "redis_version:7.0.15\r\nrole:master\r\nconnected_slaves:1\r\n\
                         min_slaves_good_slaves:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\
                         aof_enabled:1\r\naof_last_write_status:ok\r\naof_last_bgrewrite_status:ok\r\n";

    fn codes(info: &str, config: &[(&str, &str)]) -> Vec<&'static str> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let config: HashMap<_, _> = config.iter().map(owned).collect();
        let facts = Facts::of(info, Some(config));
        findings(0, &facts)
            .into_iter()
            .map(|finding| finding.code)
            .collect()
    }

    const ALWAYS: (&str, &str) = ("appendfsync", "always");
    const ONE: (&str, &str) = ("min-replicas-to-write", "1");

    #[test]
    fn a_sound_shard_gives_rise_to_nothing() {
        assert_eq!(codes(SOUND, &[ALWAYS, ONE]), [""; 0]);
    }

    #[test]
    fn each_fault_is_found() {
        let faults = [
            ("redis_version:7.0.15", "redis_version:6.2.1", "version"),
            ("role:master", "role:master\r\ncluster_enabled:1", "cluster"),
            ("role:master", "role:slave", "replica"),
            ("noeviction", "allkeys-lru", "eviction"),
            ("noeviction", "volatile-ttl", "eviction-volatile"),
            ("aof_enabled:1", "aof_enabled:0", "no-aof"),
            ("write_status:ok", "write_status:err", "aof-write"),
            ("bgrewrite_status:ok", "bgrewrite_status:err", "aof-rewrite"),
            ("good_slaves:1", "good_slaves:0", "replicas-missing"),
        ];
        for (sound, fault, code) in faults {
            assert_eq!(codes(&SOUND.replace(sound, fault), &[ALWAYS, ONE]), [code]);
        }
        assert_eq!(codes(SOUND, &[("appendfsync", "everysec"), ONE]), ["fsync"]);
        assert_eq!(
            codes(SOUND, &[ALWAYS, ("min-replicas-to-write", "0")]),
            ["replicas-async"]
        );
    }

    #[test]
    fn clocks_may_differ_a_little() {
        assert_eq!(clocks(&[-3, 5, 900], 2_000), None);
        assert_eq!(clocks(&[], 2_000), None);
        let apart = clocks(&[-600, 900], 2_000).map(|finding| finding.code);
        assert_eq!(apart, Some("clocks"));
    }
}
