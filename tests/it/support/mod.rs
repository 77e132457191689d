//! What the tests stand on: certification authorities, tokens, the program itself, and the clients
//! that ask it.

pub(crate) mod alone;
pub(crate) mod api;
pub(crate) mod ca;
pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod faulty;
pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod module_process;
pub(crate) mod nginx;
pub(crate) mod server;
pub(crate) mod site;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use goodstanding::clock::Stopwatch;

/// Ports of servers: below those that the system gives to outgoing connections, of which one could be
/// given away between looking and listening.
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// A port on the loopback address that is free, and that this process gives to nobody else.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes begin in different places.
    let first = std::process::id().wrapping_mul(2_477);
    for _ in PORTS {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = (PORTS.start + number % (PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free from {} to {}", PORTS.start, PORTS.end)
}

/// Waits until `done` gives something, looking every few milliseconds, and says how long it took.
/// Panics with `what` when `patience` has passed.
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut done: impl FnMut() -> Option<T>,
) -> (T, Duration) {
    let waiting = Stopwatch::start();
    loop {
        if let Some(value) = done() {
            return (value, waiting.elapsed());
        }
        assert!(waiting.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
