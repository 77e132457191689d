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
use std::time::Duration;

use goodstanding::clock::Stopwatch;

/// A port on the loopback address that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
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
