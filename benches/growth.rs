//! How costs grow with the fleet, from 10⁴ certificates to `GROWTH_CERTIFICATES` (10⁶ by default):
//! memory, putting on the shelf, looking up and writing out, and loading from SQLite at start (up to
//! `GROWTH_STORED`, 10⁵ by default). CPU time throughout. Charts go to `docs/performance/`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]
#![expect(clippy::cast_precision_loss, reason = "printed figures")]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/chart.rs"]
mod chart;
#[path = "support/figures.rs"]
mod figures;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use answers::{Fleet, NEXT_UPDATE, THIS_UPDATE, serial};
use chart::Series;
use goodstanding::ocsp::{Freshness, Preset, SignatureAlgorithm};
use goodstanding::presign::{self, Frames, Policies, Policy};
use goodstanding::shelf::{Frame, Shelf};
use goodstanding::store::{self, CertificateEntry, NewAnswer, NewResponder, Shard, Store};

const P256: SignatureAlgorithm = SignatureAlgorithm::EcdsaP256Sha256;
const RSA: SignatureAlgorithm = SignatureAlgorithm::RsaPkcs1Sha256;
const DAY: Duration = Duration::from_secs(86_400);
/// Certificates that the keeper reads at a time.
const PAGE: u32 = 2_000;

/// CPU nanoseconds of this process so far.
fn cpu_nanos() -> u64 {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    total
}

/// CPU nanoseconds that `work` takes.
fn cpu<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = cpu_nanos();
    let done = work();
    ((cpu_nanos() - before) as f64, done)
}

fn sizes(largest: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(10_000), |size| Some(size * 10)).take_while(move |size| *size <= largest)
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let otherwise = if figures::is_smoke() { 10_000 } else { otherwise };
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(otherwise)
}

/// Medians of CPU nanoseconds for one look-up and write-out, of certificates all over the fleet.
fn serve(fleet: &Fleet, certificates: u64) -> f64 {
    let rounds = if figures::is_smoke() { 100 } else { 200_000 };
    let mut number = 0u64;
    let mut samples: Vec<f64> = (0..7)
        .map(|_| {
            let work = || {
                for _ in 0..rounds {
                    number = number
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let slot = fleet.get((number >> 16) % certificates).unwrap();
                    black_box(slot.answer.unwrap().body());
                }
            };
            cpu(work).0 / rounds as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The shelf alone.
fn shelf(charts: &mut Charts) {
    let largest = setting("GROWTH_CERTIFICATES", 1_000_000);
    for (name, algorithm, largest) in [("P-256", P256, largest), ("RSA-2048", RSA, largest.min(1_000_000))] {
        let (mut octets, mut puts, mut serves) = (Vec::new(), Vec::new(), Vec::new());
        for size in sizes(largest) {
            let fleet = Fleet::new(algorithm);
            let (took, ()) = cpu(|| (0..size).for_each(|number| fleet.put(number)));
            let each = |total: f64| total / size as f64;
            octets.push((size as f64, each(fleet.shelf.memory() as f64)));
            puts.push((size as f64, each(took) / 1e3));
            serves.push((size as f64, serve(&fleet, size) / 1e3));
            let count = thousands(size);
            let memory = format!("{:.1} octets each", octets.last().unwrap().1);
            figures::note("P3", &format!("{name}, {count} certificates"), &memory);
            let put = format!("{:.2} µs CPU", puts.last().unwrap().1);
            figures::note("P13", &format!("{name}, {count}: put on the shelf"), &put);
            let served = serves.last().unwrap().1;
            figures::note(
                "P13",
                &format!("{name}, {count}: look up and write out"),
                &format!("{served:.2} µs CPU"),
            );
        }
        let (most, (_, least)) = (serves.last().unwrap(), serves[0]);
        // The rest of a request does not know how large the fleet is.
        let what = format!("{name}, a request at {} costs more than at 10,000 by", thousands(most.0 as u64));
        figures::note("P2", &what, &format!("{:.2} µs CPU", most.1 - least));
        charts.memory.push((name, octets));
        charts.put.push((name, puts));
        charts.serve.push((name, serves));
    }
}

/// A database with so many certificates and their answers.
async fn stored(folder: &Path, certificates: u64) -> (Arc<dyn Store>, Arc<Frames>) {
    let store = store::open(&format!("sqlite://{}/fleet.db", folder.display())).await.unwrap();
    let issuer = store.add_issuer("ca", b"an issuer's certificate").await.unwrap().id;
    let responder = NewResponder {
        issuer,
        token: "hsm".to_owned(),
        key: "ocsp".to_owned(),
        algorithm: P256.to_string(),
        certificate: vec![0x5a; 700],
        not_after: NEXT_UPDATE,
        from: None,
    };
    let responder = store.add_responder(&responder, THIS_UPDATE).await.unwrap().number;
    let fleet = Fleet::new(P256);
    let numbers: Vec<u64> = (0..certificates).collect();
    for portion in numbers.chunks(10_000) {
        let entry = |number: &u64| CertificateEntry {
            serial: serial(*number),
            not_before: None,
            not_after: NEXT_UPDATE,
            revocation: None,
        };
        store.register(issuer, &portion.iter().map(entry).collect::<Vec<_>>()).await.unwrap();
    }
    for shard in Shard::all() {
        let mut after = 0;
        loop {
            let page = store.schedule(shard, after, PAGE, THIS_UPDATE).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.key.row;
            let answers = page.iter().map(|entry| {
                let (response_data, signature) = fleet.signed(entry.serial);
                NewAnswer {
                    key: entry.key,
                    version: 1,
                    responder,
                    this_update: THIS_UPDATE,
                    next_update: NEXT_UPDATE,
                    response_data: response_data.into(),
                    signature: signature.into(),
                    packed: false,
                }
            });
            store.store_answers(&answers.collect::<Vec<_>>(), THIS_UPDATE).await.unwrap();
        }
    }
    let frame = Frame { algorithm: P256, certificate: Some(vec![0x5a; 700]) };
    (store, Arc::new(Frames::from([(responder, Arc::new(frame))])))
}

/// Reads everything onto a shelf, as the keeper does at start.
async fn load(store: &dyn Store, frames: &Frames) -> Shelf {
    let shelf = Shelf::new();
    let policies = Policies::new(Policy::new(Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap()));
    for shard in Shard::all() {
        let mut after = 0;
        loop {
            let page = store.states(shard, after, PAGE, THIS_UPDATE).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.certificate.key.row;
            for state in &page {
                let entry = presign::entry(state, frames, &policies);
                shelf.put(state.certificate.issuer, state.certificate.serial, &entry);
            }
        }
    }
    shelf
}

/// The start, from a database.
fn start(charts: &mut Charts) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut loads = Vec::new();
    for size in sizes(setting("GROWTH_STORED", 100_000)) {
        let folder = tempfile::tempdir().unwrap();
        let (store, frames) = runtime.block_on(stored(folder.path(), size));
        let read = || {
            runtime.block_on(async {
                for shard in Shard::all() {
                    let mut after = 0;
                    while let Some(last) = store.states(shard, after, PAGE, THIS_UPDATE).await.unwrap().last()
                    {
                        after = last.certificate.key.row;
                    }
                }
            })
        };
        let (reading, ()) = cpu(read);
        let (took, shelf) = cpu(|| runtime.block_on(load(&*store, &frames)));
        assert_eq!(shelf.answers() as u64, size);
        let a_million = |nanos: f64| nanos / 1e9 / size as f64 * 1e6;
        loads.push((size as f64, a_million(took)));
        let value = format!(
            "{:.2} CPU s a million, {:.2} of them reading from SQLite",
            a_million(took),
            a_million(reading)
        );
        figures::note("P4", &format!("loading {} answers", thousands(size)), &value);
        runtime.block_on(store.close());
    }
    charts.load.push(("P-256, SQLite", loads));
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[derive(Default)]
struct Charts {
    memory: Vec<Series>,
    put: Vec<Series>,
    serve: Vec<Series>,
    load: Vec<Series>,
}

fn main() {
    let mut charts = Charts::default();
    shelf(&mut charts);
    start(&mut charts);
    let drawn = [
        ("memory", "Memory a certificate on the shelf, octets", charts.memory),
        ("put", "Putting an answer on the shelf, µs of CPU", charts.put),
        ("serve", "Looking an answer up and writing it out, µs of CPU", charts.serve),
        ("load", "Loading at start, CPU seconds a million answers", charts.load),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
    for (name, title, series) in drawn {
        let document = chart::svg(title, &series);
        assert!(document.contains(title), "a chart with its title");
        if !figures::is_smoke() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{name}.svg")), document).unwrap();
        }
    }
}
