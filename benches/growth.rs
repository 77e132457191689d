//! How costs grow with the fleet, from 10⁴ certificates to `GROWTH_CERTIFICATES` (10⁶ by default):
//! memory, putting on the shelf, looking up and writing out, and the start of `serve` over SQLite (up to
//! `GROWTH_STORED`, 10⁵ by default): the time to the first answer, which is read through while the keeper
//! fills the shelf, and the keeper's CPU time to the end. CPU time throughout, but for the first answer.
//! Charts go to `docs/performance/`. `GROWTH_ONLY=start` measures the start alone.

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
#[path = "support/pki.rs"]
mod pki;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use answers::{Fleet, ISSUER, NEXT_UPDATE, THIS_UPDATE, serial};
use arc_swap::ArcSwap;
use chart::Series;
use goodstanding::clock::{ManualClock, SharedClock, Stopwatch, UnixTime};
use goodstanding::ocsp::{Freshness, HashAlgorithm, Issuer, Preset, Serial, SignatureAlgorithm, request};
use goodstanding::presign::identity::Identities;
use goodstanding::presign::keeper::{Keeper, KeeperStats, Signals};
use goodstanding::presign::pipeline::{self, Pipeline};
use goodstanding::presign::{Frames, Policies, Policy};
use goodstanding::responder::early::{self, EarlyReader};
use goodstanding::responder::live::{self, LiveSigner};
use goodstanding::responder::{
    self, IssuerDirectory, NoncePolicy, Outcome, Respond, Responder, UnknownSerial,
};
use goodstanding::shelf::{Frame, Shelf};
use goodstanding::shutdown::Shutdown;
use goodstanding::store::{self, CertificateEntry, NewAnswer, NewResponder, ResponderNumber, Shard, Store};

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

/// CPU nanoseconds that `work` takes, those of threads that end meanwhile included: in hundredths of a second,
/// as Linux counts them for a process.
fn cpu_of_process<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        // utime and stime, of which the fields are counted after the name in brackets.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>()
    };
    let before = ticks();
    let done = work();
    ((ticks() - before) * 1e7, done)
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

/// Puts so many certificates and their answers into a database.
async fn fill(url: &str, issuer_certificate: &Issuer, certificates: u64) {
    let store = store::open(url).await.unwrap();
    let issuer = store.add_issuer("ca", b"an issuer's certificate").await.unwrap().id;
    assert_eq!(issuer, ISSUER);
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
    let fleet = Fleet::of(issuer_certificate, P256);
    let mut serials: Vec<Serial> = (0..certificates).map(serial).collect();
    // By order of the index, of which each page is then written once.
    serials.sort_unstable_by(|a, b| a.as_der_content().cmp(b.as_der_content()));
    for portion in serials.chunks(100_000) {
        let entry = |serial: &Serial| CertificateEntry {
            serial: *serial,
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
    store.close().await;
}

/// What `serve` puts together before it opens its doors: a shelf, the keeper that fills it from the store,
/// and a responder that reads through meanwhile.
struct Opened {
    shelf: Arc<Shelf>,
    responder: Responder,
    keeper: Keeper,
}

fn assemble(store: &Arc<dyn Store>, issuer: &Arc<Issuer>) -> Opened {
    let shelf = Arc::new(Shelf::new());
    let frame = Frame { algorithm: P256, certificate: Some(vec![0x5a; 700]) };
    let frames = Frames::from([(ResponderNumber(1), Arc::new(frame))]);
    let frames = Arc::new(ArcSwap::from_pointee(frames));
    let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap();
    let policies = Arc::new(ArcSwap::from_pointee(Policies::new(Policy::new(freshness))));
    let clock: SharedClock = Arc::new(ManualClock::new(UnixTime(THIS_UPDATE.0 + 400)));
    let identities = Arc::<Identities>::default();
    let stats = Arc::<KeeperStats>::default();
    let live = live::Settings::default();
    let live = LiveSigner::new(Arc::clone(&identities), clock.clone(), Arc::clone(&policies), live);
    let early = EarlyReader::new(
        Arc::clone(store),
        Arc::clone(&shelf),
        Arc::clone(&frames),
        Arc::clone(&policies),
        early::Settings::default(),
    );
    let responder = Responder::new(
        IssuerDirectory::new([(ISSUER, Arc::clone(issuer))]),
        Arc::clone(&shelf),
        live,
        clock.clone(),
        Arc::clone(&policies),
        Arc::clone(&stats),
        responder::Settings { unknown_serial: UnknownSerial::Unauthorized, nonce: NoncePolicy::Ignore },
    );
    let pipeline = Pipeline {
        store: Arc::clone(store),
        identities,
        clock,
        policies,
        settings: pipeline::Settings::default(),
        levers: Arc::default(),
    };
    let signals = Arc::<Signals>::default();
    // It signs nothing, but plans everything, as the signer's role does.
    let keeper = Keeper::new(pipeline, Arc::clone(&shelf), frames, signals, stats, true);
    Opened { shelf, responder: responder.reading_early(early), keeper }
}

/// Starts over a database that is there. Returns seconds to the first answer, and until the shelf was
/// complete.
async fn open(url: &str, issuer: &Arc<Issuer>, certificates: u64) -> (f64, f64) {
    let watch = Stopwatch::start();
    let store = store::open(url).await.unwrap();
    let Opened { shelf, responder, keeper } = assemble(&store, issuer);
    let shutdown = Shutdown::new();
    let keeping = tokio::spawn(keeper.run(shutdown.clone()));
    let asked = issuer.cert_id(HashAlgorithm::Sha1, serial(certificates / 2));
    let answer = responder.respond(&request::encode(&[asked], None).unwrap()).await;
    let first = watch.elapsed().as_secs_f64();
    assert_eq!(answer.outcome, Outcome::Stored);
    // A small fleet is on the shelf before anybody asks.
    assert!(!shelf.is_complete() || certificates <= 100_000, "it was answered while the shelf was filled");
    while !shelf.is_complete() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let complete = watch.elapsed().as_secs_f64();
    assert_eq!(shelf.answers() as u64, certificates);
    shutdown.stop();
    keeping.await.unwrap();
    store.close().await;
    (first, complete)
}

/// Reads everything and does nothing with it.
async fn read(url: &str) {
    let store = store::open(url).await.unwrap();
    for shard in Shard::all() {
        let mut after = 0;
        while let Some(last) = store.states(shard, after, PAGE, THIS_UPDATE).await.unwrap().last() {
            after = last.certificate.key.row;
        }
    }
    store.close().await;
}

/// The start, from a database.
fn start(charts: &mut Charts) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let issuer = Arc::new(pki::Ca::new().issuer);
    let mut loads = Vec::new();
    for size in sizes(setting("GROWTH_STORED", 100_000)) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/fleet.db", folder.path().display());
        runtime.block_on(fill(&url, &issuer, size));
        let (reading, ()) = cpu_of_process(|| runtime.block_on(read(&url)));
        let (took, (first, complete)) = cpu_of_process(|| runtime.block_on(open(&url, &issuer, size)));
        let a_million = |nanos: f64| nanos / 1e9 / size as f64 * 1e6;
        loads.push((size as f64, a_million(took)));
        let count = thousands(size);
        let value = format!(
            "{:.2} CPU s a million, {:.2} of them reading from SQLite; {complete:.1} s by the clock",
            a_million(took),
            a_million(reading)
        );
        figures::note("P4", &format!("loading {count} answers"), &value);
        figures::note(
            "P4",
            &format!("first answer of {count}"),
            &format!("{:.0} ms by the clock", first * 1e3),
        );
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
    let only_start = std::env::var("GROWTH_ONLY").is_ok_and(|only| only == "start");
    if !only_start {
        shelf(&mut charts);
    }
    start(&mut charts);
    chart::draw("memory", "Memory a certificate on the shelf, octets", &charts.memory);
    chart::draw("put", "Putting an answer on the shelf, µs of CPU", &charts.put);
    chart::draw("serve", "Looking an answer up and writing it out, µs of CPU", &charts.serve);
    chart::draw("load", "Loading at start, CPU seconds a million answers", &charts.load);
}
