//! What the endpoint costs beside bare hyper and nginx: the same requests, as many octets, in one run.
//!
//! `cargo bench --bench http_endpoint` starts each server on a thread (nginx: a worker) of its own and
//! asks it on 64 keep-alive connections, half GET half POST, about 5,000 certificates of a fleet of
//! 10,000 (`HTTP_CERTIFICATES`). What counts is the CPU time of the server's thread a request and the
//! ratio in one run: wall time on loopback is mostly the kernel's, and the machine may be shared. Each
//! repetition asks every server, the next in reverse order; medians are printed.
//!
//! For a generator of its own (wrk), `BENCH_SERVE=goodstanding|bare|padded cargo bench --bench
//! http_endpoint` serves until it is killed, and prints where.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/http.rs"]
mod http;
#[path = "support/pki.rs"]
mod pki;

use std::sync::Arc;

use answers::Fleet;
use goodstanding::ocsp::SignatureAlgorithm;
use http::{ASKED, CONNECTIONS, Clients, Server};

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    let certificates = std::env::var("HTTP_CERTIFICATES").ok().and_then(|count| count.parse().ok());
    let certificates = certificates.unwrap_or(10_000).max(ASKED);
    let issuer = Arc::new(pki::Ca::new().issuer);
    let requests = Arc::new(http::requests(&issuer));
    let fleet = Fleet::of(&issuer, SignatureAlgorithm::EcdsaP256Sha256);
    (0..certificates).for_each(|number| fleet.put(number));

    let ours = Server::goodstanding(&fleet, &issuer);
    let ours_clients = Clients::connect(ours.address(), &requests, false);
    let (response, body) = (ours_clients.response, ours_clients.body);
    let bare = Server::bare("srv-bare", body, true);
    let bare_clients = Clients::connect(bare.address(), &requests, false);
    // As many octets without the headers: what five constant headers cost is not ours.
    let short = Clients::connect(Server::bare("srv-short", body, false).address(), &requests, false);
    let padded = Server::bare("srv-padded", body + response - short.response, false);
    let padded_clients = Clients::connect(padded.address(), &requests, false);
    let nginx = Server::nginx(body);
    let nginx_clients = Clients::connect(nginx.address(), &requests, true);
    assert!(bare_clients.response.abs_diff(response) <= 8, "{} octets, {response}", bare_clients.response);
    assert!(padded_clients.response.abs_diff(response) <= 8);
    let mut running =
        [(ours, ours_clients), (bare, bare_clients), (padded, padded_clients), (nginx, nginx_clients)];

    if let Ok(wanted) = std::env::var("BENCH_SERVE") {
        let found = running.iter().find(|(server, _)| server.name() == wanted);
        println!("{wanted} {}", found.expect("BENCH_SERVE names a server").0.address());
        loop {
            std::thread::park();
        }
    }
    let (repetitions, rounds) = if figures::is_smoke() { (1, 3) } else { (9, 1_000) };
    let mut micros = vec![Vec::new(); running.len()];
    for repetition in 0..repetitions {
        let mut order: Vec<usize> = (0..running.len()).collect();
        if repetition % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (server, clients) = &mut running[at];
            let before = server.cpu_nanos();
            (0..rounds).for_each(|_| clients.round());
            #[expect(clippy::cast_precision_loss, reason = "a printed figure")]
            micros[at].push((server.cpu_nanos() - before) as f64 / 1e3 / (rounds * CONNECTIONS) as f64);
        }
    }
    let medians: Vec<f64> = micros.into_iter().map(median).collect();
    println!("{certificates} certificates, {response} octets a response, medians of {repetitions}:");
    for ((server, _), median) in running.iter().zip(&medians) {
        let what = format!("CPU µs a request, {}", server.name());
        figures::note("P1", &what, &format!("{median:.2} (goodstanding ÷ this {:.3})", medians[0] / median));
    }
}
