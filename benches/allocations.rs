//! Allocations a request, of the endpoint and of bare hyper with the same requests, counted by the
//! allocator. Grown ones count as new ones. hyper keeps its own from request to request, but bare makes a
//! map of headers for each answer where ours goes on with the request's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/clients.rs"]
mod clients;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/http.rs"]
mod http;
#[path = "support/pki.rs"]
mod pki;

use std::alloc::System;
use std::sync::Arc;

use answers::Fleet;
use clients::{ASKED, CONNECTIONS, Clients, Requests};
use goodstanding::ocsp::SignatureAlgorithm;
use http::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and octets of them a request. The clients make none.
#[expect(clippy::cast_precision_loss, reason = "a printed figure")]
fn count(server: &Server, requests: &Requests, rounds: usize) -> (f64, f64) {
    let mut clients = Clients::connect(server.address(), requests, false);
    (0..10).for_each(|_| clients.round());
    let region = Region::new(ALLOCATOR);
    (0..rounds).for_each(|_| clients.round());
    let change = region.change();
    let asked = (rounds * CONNECTIONS) as f64;
    ((change.allocations + change.reallocations) as f64 / asked, change.bytes_allocated as f64 / asked)
}

fn main() {
    let issuer = Arc::new(pki::Ca::new().issuer);
    let requests = clients::requests(&issuer, 0..ASKED);
    let of = |parity: usize| {
        let requests = requests.iter().enumerate();
        Arc::new(requests.filter(|(at, _)| at % 2 == parity).map(|(_, one)| one.clone()).collect::<Vec<_>>())
    };
    let fleet = Fleet::of(&issuer, SignatureAlgorithm::EcdsaP256Sha256);
    (0..ASKED).for_each(|number| fleet.put(number));
    let ours = Server::goodstanding("srv-goodstanding", &fleet, &issuer);
    let body = Clients::connect(ours.address(), &requests, false).body;
    let bare = Server::bare("srv-bare", body, true);
    let rounds = if figures::is_smoke() { 3 } else { 300 };
    for (method, requests) in [("GET", of(0)), ("POST", of(1))] {
        let (ours, ours_octets) = count(&ours, &requests, rounds);
        let (bare, bare_octets) = count(&bare, &requests, rounds);
        let value =
            format!("{ours:.2} ({ours_octets:.0} octets); bare hyper {bare:.2} ({bare_octets:.0} octets)");
        figures::note("P1", &format!("allocations a {method}"), &value);
    }
}
