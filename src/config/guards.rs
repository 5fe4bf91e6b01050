//! Rows of the table: what an operator may limit, and look at.

use super::setting::Kind::{Bytes, Choice, Count, Millis, Place, Text};
use super::{Group, Setting};

const TIB: u64 = 1 << 40;
const HOUR_MS: u64 = 3_600_000;

pub(super) const PROXY_PROTOCOL: Setting = Setting {
    name: "proxy-protocol",
    group: Group::Addresses,
    kind: Choice {
        default: "off",
        of: &["off", "on"],
        set: |c, v| {
            c.proxy_protocol = v == "on";
            matches!(v, "off" | "on")
        },
    },
    help: "on: every connection to listen and tls-listen must begin with a header of the PROXY \
           protocol (version 1 or 2) that tells the client's address, as balancers send it. Whoever \
           can connect can claim any address then: let nobody in but the balancer.",
};

pub(super) const TRACE_COLLECTOR: Setting = Setting {
    name: "trace-collector",
    group: Group::Process,
    kind: Place {
        set: |c, v| c.trace_collector = Some(v),
    },
    help: "Where spans of traced commands and transactions are sent: a collector that takes OTLP \
           over plain HTTP (usually port 4318), as JSON at /v1/traces. Without it nothing is traced.",
};

pub(super) const TRACE_SAMPLE: Setting = Setting {
    name: "trace-sample",
    group: Group::Process,
    kind: Count {
        default: 0,
        range: 0..=1_000_000_000,
        set: |c, v| c.trace_sample = v,
    },
    help: "One command or transaction in so many is traced even if its client does not ask for it \
           by LOCKSTEP TRACE; 0: none.",
};

pub(super) const DENY_COMMANDS: Setting = Setting {
    name: "deny-commands",
    group: Group::Access,
    kind: Text {
        set: |c, v| {
            let names = v.split([',', ' ']).filter(|name| !name.is_empty());
            c.deny_commands = names.map(str::to_ascii_lowercase).collect();
        },
    },
    help: "Commands that no client may run, with commas: FLUSHALL,CONFIG|SET. What scripts call is not looked at.",
};

pub(super) const CLIENT_RATE: Setting = Setting {
    name: "client-commands-per-second-max",
    group: Group::Clients,
    kind: Count {
        default: 0,
        range: 0..=10_000_000,
        set: |c, v| c.client_commands_per_second_max = v,
    },
    help: "Commands that one client may give in a second, all at once if it likes; one more is an error; 0: any number.",
};

pub(super) const MEMORY_MAX: Setting = Setting {
    name: "memory-bytes-max",
    group: Group::Process,
    kind: Bytes {
        default: 0,
        range: 0..=TIB,
        set: |c, v| c.memory_bytes_max = v,
    },
    help: "Bytes that may wait in all: input of clients, queues of MULTI, replies, requests not yet written; 0: no limit. \
           Above it new clients are refused and no client is read from; who most waits for is disconnected, one in a second. \
           Looked at ten times a second, so leave room for what comes in such a time.",
};

pub(super) const SLOWER_THAN: Setting = Setting {
    name: "slowlog-slower-than-ms",
    group: Group::Process,
    kind: Millis {
        default: 0,
        range: 0..=HOUR_MS,
        set: |c, v| c.slowlog_slower_than = v,
    },
    help: "Commands to one shard, and transactions, that take so long from here are kept for LOCKSTEP SLOWLOG, keys included; 0: none.",
};

pub(super) const SLOWLOG_LEN: Setting = Setting {
    name: "slowlog-max-len",
    group: Group::Process,
    kind: Count {
        default: 128,
        range: 1..=100_000,
        set: |c, v| c.slowlog_max_len = v,
    },
    help: "How many of them are kept; the oldest go first.",
};

pub(super) const HOTKEYS_SAMPLE: Setting = Setting {
    name: "hotkeys-sample",
    group: Group::Process,
    kind: Count {
        default: 0,
        range: 0..=1_000_000,
        set: |c, v| c.hotkeys_sample = v,
    },
    help: "One command in so many is looked at for LOCKSTEP HOTKEYS, 64 being a good choice; 0: none.",
};
