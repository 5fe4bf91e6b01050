//! A shard that lies: what a real one answers is changed on its way.

use crate::lies::{Lie, lie};
use crate::support::ports::Port;
use crate::support::{Seed, Value};
use rand::RngExt;
use rand::rngs::StdRng;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::spawn;
use std::time::Duration;

/// Stands before a server; what it says is true until told otherwise.
pub struct Liar {
    port: Port,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// Lies in a thousand replies.
    lies_per_thousand: AtomicU32,
    told: AtomicU64,
}

impl Liar {
    /// Starts one before the server on this loopback port.
    pub fn start(target: u16, seed: Seed) -> Liar {
        let port = Port::lease();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        spawn(move || accept(&listener, target, seed, &ours));
        Liar { port, shared }
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// So many lies in a thousand replies from now on.
    pub fn lie(&self, per_thousand: u32) {
        self.shared
            .lies_per_thousand
            .store(per_thousand, Ordering::Relaxed);
    }

    /// Lies told so far.
    pub fn told(&self) -> u64 {
        self.shared.told.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, target: u16, seed: Seed, shared: &Arc<Shared>) {
    let mut number = 1_000;
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok((near, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        number += 1;
        let (rng, shared) = (seed.rng(number), Arc::clone(shared));
        let _ = connect(near, target, rng, shared);
    }
}

fn connect(near: TcpStream, target: u16, rng: StdRng, shared: Arc<Shared>) -> std::io::Result<()> {
    near.set_nonblocking(false)?;
    near.set_nodelay(true)?;
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    far.set_nodelay(true)?;
    let (mut near_again, mut far_again) = (near.try_clone()?, far.try_clone()?);
    spawn(move || {
        let _ = std::io::copy(&mut near_again, &mut far_again);
        let _ = far_again.shutdown(Shutdown::Both);
    });
    spawn(move || {
        let _ = answer(&near, &far, rng, &shared);
        let _ = near.shutdown(Shutdown::Both);
        let _ = far.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Forwards reply by reply until the connection ends.
fn answer(
    mut near: &TcpStream,
    mut far: &TcpStream,
    mut rng: StdRng,
    shared: &Shared,
) -> std::io::Result<()> {
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 65_536]);
    loop {
        let count = far.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..count]);
        let mut start = 0;
        while let Ok(Some((value, length))) = Value::parse(&buffer[start..]) {
            let truth = &buffer[start..start + length];
            start += length;
            if !rng.random_ratio(shared.lies_per_thousand.load(Ordering::Relaxed), 1_000) {
                near.write_all(truth)?;
                continue;
            }
            shared.told.fetch_add(1, Ordering::Relaxed);
            match lie(&mut rng, truth, &value) {
                Lie::Bytes(bytes) => near.write_all(&bytes)?,
                Lie::Last(bytes) => return near.write_all(&bytes),
                Lie::Silence => return std::io::copy(&mut far, &mut std::io::sink()).map(drop),
            }
        }
        buffer.drain(..start);
    }
}
