//! Ports nobody else in the machine's test runs is using.

use std::fs::{File, create_dir_all};
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the kernel takes source ports of outgoing connections, so that
/// no client socket can sit on a port between its lease and the server's bind.
const FIRST: u32 = 11_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback port held until this is dropped: by a locked file, which ends with the process,
/// so a server may be killed and restarted on its port while nobody else can take it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A port that no other lease holds and on which nothing listens.
    pub fn lease() -> Port {
        let folder = std::env::temp_dir().join("lockstep-test-ports");
        create_dir_all(&folder).expect("a folder for port leases");
        for _ in 0..COUNT {
            let turn = NEXT.fetch_add(1, Ordering::Relaxed);
            let offset = process::id().wrapping_mul(131).wrapping_add(turn) % COUNT;
            let number = u16::try_from(FIRST + offset).expect("a port fits 16 bits");
            let Ok(lock) = File::create(folder.join(number.to_string())) else {
                continue;
            };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
