//! What SoftHSM carries through the pool, beside bare C_Sign loops in the same run.
//!
//! `cargo bench --bench hsm_throughput`: each key kind with 1 and 2 sessions, 5 slices of 1 s of each kind in
//! alternating order, medians. The ratio counts; the rates are those of a machine in use.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]

#[path = "support/token.rs"]
mod token;

use std::process::ExitCode;
use std::time::Duration;

use goodstanding::ocsp::KeyAlgorithm;
use goodstanding::signer::bench::{self, Plan, Subject};

const KEYS: [KeyAlgorithm; 4] =
    [KeyAlgorithm::Rsa2048, KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519];

fn main() -> ExitCode {
    token::with_token(|place| {
        let smoke = token::is_smoke();
        let (slices, slice) = if smoke { (1, 40) } else { (5, 1_000) };
        let plan = Plan {
            subjects: KEYS.map(Subject::Fresh).to_vec(),
            algorithm: None,
            sessions: vec![1, 2],
            slices,
            slice: Duration::from_millis(slice),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let rows = runtime.block_on(bench::run(&place.settings(1), &plan, |_| {})).unwrap();

        assert_eq!(rows.len(), KEYS.len() * 2);
        println!(
            "signatures a second, median of {slices} slices of {slice} ms; p50, p99: one request a session"
        );
        println!(
            "{:<9} {:>8} {:>9} {:>9} {:>6} {:>11} {:>9} {:>9}",
            "key", "sessions", "raw", "pool", "ratio", "unverified", "p50 us", "p99 us"
        );
        for row in &rows {
            assert!(row.raw_rate > 0.0 && row.rate > 0.0 && row.unverified_rate > 0.0, "{row:?}");
            assert!(row.p50 > Duration::ZERO && row.p50 <= row.p99, "{row:?}");
            println!(
                "{:<9} {:>8} {:>9.0} {:>9.0} {:>6.2} {:>11.0} {:>9} {:>9}",
                row.key.name(),
                row.sessions,
                row.raw_rate,
                row.rate,
                row.ratio(),
                row.unverified_rate,
                row.p50.as_micros(),
                row.p99.as_micros()
            );
        }
    })
}
