//! A network that fails: what is between a proxy and a shard, and does on command what cables,
//! switches and firewalls do by themselves.

use super::ports::Port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// How often a relay that has nothing to do looks whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A relay before one server, on its own loopback port; every connection through it is cut when
/// it is dropped.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    network: Arc<Network>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    There,
    /// To whoever connected.
    Back,
}

/// What all connections have in common.
#[derive(Debug, Default)]
struct Network {
    is_over: AtomicBool,
    /// Nobody can connect.
    is_down: AtomicBool,
    delay_us: AtomicU64,
    connections: Mutex<Vec<Arc<Wire>>>,
}

/// One connection.
#[derive(Debug)]
struct Wire {
    near: TcpStream,
    far: TcpStream,
    /// What comes from here on this way vanishes.
    swallows: [AtomicBool; 2],
}

impl Relay {
    /// Starts one before the server on this loopback port.
    pub fn start(target: u16) -> Relay {
        let port = Port::lease();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let network = Arc::new(Network::default());
        let ours = Arc::clone(&network);
        spawn(move || accept(&listener, target, &ours));
        Relay { port, network }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Cuts every connection; new ones are possible at once.
    pub fn cut(&self) {
        self.wires().drain(..).for_each(|wire| wire.cut());
    }

    /// Cuts every connection, and refuses new ones until [`Relay::heal`].
    pub fn take_down(&self) {
        self.network.is_down.store(true, Ordering::Relaxed);
        self.cut();
    }

    /// Everything that is sent from now on arrives so much later.
    pub fn delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.network.delay_us.store(micros, Ordering::Relaxed);
    }

    /// On the connections that there are, nothing arrives any more that goes this way, and
    /// nobody is told. What is opened from now on is whole.
    pub fn half_open(&self, way: Way) {
        for wire in self.wires().iter() {
            wire.swallows[way as usize].store(true, Ordering::Relaxed);
        }
    }

    /// Connects and forwards in time again. Connections that are half open stay so.
    pub fn heal(&self) {
        self.network.is_down.store(false, Ordering::Relaxed);
        self.network.delay_us.store(0, Ordering::Relaxed);
    }

    fn wires(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Wire>>> {
        self.network.connections.lock().expect("not poisoned")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.network.is_over.store(true, Ordering::Relaxed);
        self.cut();
    }
}

impl Wire {
    fn cut(&self) {
        let _ = self.near.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, target: u16, network: &Arc<Network>) {
    while !network.is_over.load(Ordering::Relaxed) {
        let Ok((near, _)) = listener.accept() else {
            sleep(LOOK_AGAIN);
            continue;
        };
        if network.is_down.load(Ordering::Relaxed) {
            continue;
        }
        // A server that is not there is a connection that ends at once.
        if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
            let _ = connect(near, far, network);
        }
    }
}

fn connect(near: TcpStream, far: TcpStream, network: &Arc<Network>) -> std::io::Result<()> {
    near.set_nonblocking(false)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_again, far_again) = (near.try_clone()?, far.try_clone()?);
    let ends = (near.try_clone()?, far.try_clone()?);
    let swallows = [AtomicBool::new(false), AtomicBool::new(false)];
    let wire = Arc::new(Wire {
        near,
        far,
        swallows,
    });
    let mut wires = network.connections.lock().expect("not poisoned");
    wires.retain(|wire| Arc::strong_count(wire) > 1);
    wires.push(Arc::clone(&wire));
    drop(wires);
    let (there, network_there) = (Arc::clone(&wire), Arc::clone(network));
    spawn(move || forward(ends.0, far_again, Way::There, &there, &network_there));
    let network_back = Arc::clone(network);
    spawn(move || forward(ends.1, near_again, Way::Back, &wire, &network_back));
    Ok(())
}

/// Until one of the ends is closed.
fn forward(mut from: TcpStream, mut to: TcpStream, way: Way, wire: &Wire, network: &Network) {
    let mut chunk = vec![0; 16_384];
    while let Ok(count) = from.read(&mut chunk)
        && count > 0
    {
        let delay = network.delay_us.load(Ordering::Relaxed);
        if delay > 0 {
            sleep(Duration::from_micros(delay));
        }
        let is_swallowed = wire.swallows[way as usize].load(Ordering::Relaxed);
        if !is_swallowed && to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    wire.cut();
}
