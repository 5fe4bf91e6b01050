//! Shards that are not served, since no promise could be kept on them.

use super::StartError;
use crate::config::Address;

/// Looks at what INFO tells; it names the eviction policy also to who may not ask CONFIG.
///
/// # Errors
/// [`StartError::Shard`] for a replica, and for a policy that can evict what a transaction has
/// promised, unless the settings allow that.
pub(super) fn check(address: &Address, info: &str, allow_unsafe: bool) -> Result<(), StartError> {
    if line(info, "role") == "slave" {
        return Err(StartError::Shard(format!(
            "shard {address} is a replica of {}:{}: give its primary",
            line(info, "master_host"),
            line(info, "master_port")
        )));
    }
    let policy = line(info, "maxmemory_policy");
    if policy.starts_with("allkeys-") {
        if !allow_unsafe {
            return Err(StartError::Shard(format!(
                "shard {address} has maxmemory-policy {policy}, which can evict what a \
                 transaction has promised and so tear it: set noeviction there, or \
                 allow-unsafe-eviction = true here"
            )));
        }
        tracing::warn!(shard = %address, policy, "this shard can evict what transactions have promised, and so tear them");
    } else if policy.starts_with("volatile-") {
        tracing::warn!(shard = %address, policy, "this shard can evict locks, and decisions that somebody may still ask for; noeviction is safe");
    }
    Ok(())
}

fn line<'a>(info: &'a str, name: &str) -> &'a str {
    let mut pairs = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'));
    pairs
        .find(|(of, _)| *of == name)
        .map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(info: &str, allow_unsafe: bool) -> Result<(), String> {
        let address = Address::new("a", 1);
        check(&address, info, allow_unsafe).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_keep_promises_is_refused() {
        let replica = "role:slave\r\nmaster_host:b\r\nmaster_port:2\r\n";
        assert!(
            checked(replica, true)
                .unwrap_err()
                .contains("a replica of b:2")
        );
        let evicting = "role:master\r\nmaxmemory_policy:allkeys-lfu\r\n";
        assert!(
            checked(evicting, false)
                .unwrap_err()
                .contains("allkeys-lfu")
        );
        assert_eq!(checked(evicting, true), Ok(()));
        assert_eq!(
            checked("role:master\r\nmaxmemory_policy:volatile-lru\r\n", false),
            Ok(())
        );
        assert_eq!(
            checked("role:master\r\nmaxmemory_policy:noeviction\r\n", false),
            Ok(())
        );
    }
}
