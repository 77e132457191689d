//! The instructions and allocations of the request path, held against `benches/instructions.tsv`: a
//! guard against growth that no shared machine's clock would show.
//!
//! `scripts/instructions` builds it and compares; CI does so at every change. More than 5 % above the
//! baseline, or one allocation more, fails. To accept a change, commit the baseline with it:
//! `scripts/instructions --accept 'why it costs more'`.
//!
//! Each case runs under `valgrind --tool=callgrind`, counting only inside [`counted`]. Inputs are fixed
//! and none hashes with SHA, whose code is chosen by the processor; what the C library chooses by it
//! (memcpy) is told to stay with the plain form. What is left to differ between machines are the
//! versions of compiler, C library (memcpy) and valgrind: the baseline names those that it was made with.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "the modules below are the library's"
)]

// The modules that are counted, compiled here once more: the script asks for this one file to be
// optimized, which takes seconds where the whole library would take minutes.
extern crate self as goodstanding;
#[path = "../src/clock.rs"]
pub mod clock;
#[path = "../src/server/ocsp/headers.rs"]
mod headers;
#[path = "../src/ocsp/mod.rs"]
pub mod ocsp;
#[path = "../src/server/ocsp/path.rs"]
mod path;
#[path = "../src/presign/planner/mod.rs"]
mod planner;
#[path = "../src/reader.rs"]
mod reader;
#[path = "../src/responder/answer.rs"]
pub mod responder;
#[path = "../src/shelf/mod.rs"]
pub mod shelf;

#[path = "support/counted/limits.rs"]
pub mod limits;
#[path = "support/counted/signer.rs"]
pub mod signer;
#[path = "support/counted/store.rs"]
pub mod store;

#[path = "support/answers.rs"]
mod answers;
#[path = "support/baseline.rs"]
mod baseline;

use std::alloc::System;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use answers::{Fleet, ISSUER, NEXT_UPDATE, THIS_UPDATE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baseline::Cost;
use clock::UnixTime;
use headers::CacheHeaders;
use limits::{Ask, Book, Identifiers, OrderAsk, Pressure, Profile, decide};
use ocsp::{Freshness, HashAlgorithm, Preset, Request, Serial, SignatureAlgorithm, request};
use planner::{Group, Plan, Planner};
use responder::CacheFacts;
use shelf::Shelf;
use signer::Lane;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use store::{CertificateKey, LedgerRecord, Shard};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One operation, to be done again and again.
type Operation = Box<dyn FnMut()>;

/// A name, and what prepares it.
type Case = (&'static str, fn() -> Operation);

/// Every case.
const CASES: &[Case] = &[
    ("request decode, POST, SHA-1", || decode(HashAlgorithm::Sha1, None)),
    ("request decode, POST, SHA-256", || decode(HashAlgorithm::Sha256, None)),
    ("request decode, POST, nonce", || decode(HashAlgorithm::Sha1, Some(&[0x5a; 32]))),
    ("request decode, GET path", get_path),
    ("shelf look-up, hit", look_up),
    ("shelf look-up, miss", miss),
    ("shelf look-up + write-out, P-256", || write_out(SignatureAlgorithm::EcdsaP256Sha256)),
    ("shelf look-up + write-out, RSA-2048", || write_out(SignatureAlgorithm::RsaPkcs1Sha256)),
    ("response headers", response_headers),
    ("plan: reschedule", reschedule),
    ("plan: take and finish", take_and_finish),
    ("decide an order", decide_order),
];

/// Operations counted in each case, over which what differs between inputs evens out.
const ROUNDS: u32 = 1_000;

/// Certificates on the shelf of a case.
const CERTIFICATES: u64 = 2_000;

/// What is counted: a case, without what prepares it. callgrind is told the name.
#[inline(never)]
fn counted(operation: &mut Operation) {
    for _ in 0..ROUNDS {
        operation();
    }
}

fn encoded(hash: HashAlgorithm, nonce: Option<&[u8]>) -> Vec<u8> {
    request::encode(&[answers::cert_id(hash, answers::serial(7))], nonce).unwrap()
}

fn decode(hash: HashAlgorithm, nonce: Option<&[u8]>) -> Operation {
    let der = encoded(hash, nonce);
    Box::new(move || {
        black_box(Request::decode(black_box(&der)).unwrap());
    })
}

/// From the path to the octets of the request, as clients write it.
fn get_path() -> Operation {
    let base64 = STANDARD.encode(encoded(HashAlgorithm::Sha1, None));
    let path = format!("/{}", base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"));
    let prefixes = [path::PathPrefix::default()];
    Box::new(move || {
        let text = path::locate(black_box(&path), &prefixes).unwrap();
        black_box(path::decode(text).unwrap());
    })
}

/// Calls `ask` for one certificate of a shelf after the other.
fn on_shelf(algorithm: SignatureAlgorithm, first: u64, ask: impl Fn(&Shelf, &Serial) + 'static) -> Operation {
    let fleet = Fleet::new(algorithm);
    (0..CERTIFICATES).for_each(|number| fleet.put(number));
    let serials: Vec<Serial> = (first..first + CERTIFICATES).map(answers::serial).collect();
    let mut number = 0;
    Box::new(move || {
        number = (number + 7) % serials.len();
        ask(&fleet.shelf, black_box(&serials[number]));
    })
}

fn look_up() -> Operation {
    on_shelf(SignatureAlgorithm::EcdsaP256Sha256, 0, |shelf, serial| {
        black_box(shelf.get(ISSUER, serial).unwrap());
    })
}

fn miss() -> Operation {
    on_shelf(SignatureAlgorithm::EcdsaP256Sha256, CERTIFICATES, |shelf, serial| {
        assert!(shelf.get(ISSUER, serial).is_none());
    })
}

fn write_out(algorithm: SignatureAlgorithm) -> Operation {
    on_shelf(algorithm, 0, |shelf, serial| {
        black_box(shelf.get(ISSUER, serial).unwrap().answer.unwrap().body());
    })
}

fn response_headers() -> Operation {
    let facts = CacheFacts {
        this_update: THIS_UPDATE,
        next_update: NEXT_UPDATE,
        renewed_at: UnixTime(THIS_UPDATE.0 + 302_400),
        digest: [0xab; 32],
    };
    Box::new(move || {
        black_box(CacheHeaders::new(black_box(&facts), black_box(UnixTime(THIS_UPDATE.0 + 400))));
    })
}

const NOW: UnixTime = UnixTime(1_795_315_054);

fn freshness() -> Freshness {
    let day = Duration::from_secs(86_400);
    Freshness::new(Preset::WebPki, 7 * day, Duration::from_secs(84 * 3_600)).unwrap()
}

fn key(number: u32) -> CertificateKey {
    CertificateKey { shard: Shard((number % 256) as u8), row: i64::from(number / 256) + 1 }
}

fn plan(due: UnixTime) -> Plan {
    let made = UnixTime(due.0 - 80 * 3_600);
    Plan { group: Group(0), lane: Lane::Refresh, due, answer: Some((made, UnixTime(made.0 + 604_799))) }
}

/// Certificates of a planner that come due over half a day, the first of them now.
fn planned() -> Planner {
    let mut planner = Planner::new(Planner::grain(freshness().refresh()), NOW);
    planner.set_freshness(Group(0), freshness());
    for number in 0..PLANNED {
        planner.set(key(number), plan(UnixTime(NOW.0 + i64::from(number) * 2)), NOW);
    }
    planner
}

const PLANNED: u32 = 20_000;

/// A certificate is planned for another time.
fn reschedule() -> Operation {
    let mut planner = planned();
    let mut number = 0u32;
    Box::new(move || {
        number = number.wrapping_add(7_919) % PLANNED;
        let due = UnixTime(NOW.0 + 40_000 + i64::from(number));
        planner.set(black_box(key(number)), plan(due), NOW);
    })
}

/// The next due is taken, and comes back with a new answer.
fn take_and_finish() -> Operation {
    let mut planner = planned();
    let now = UnixTime(NOW.0 + 30_000);
    planner.advance(now);
    Box::new(move || {
        let taken = planner.take(Lane::Refresh, |_| false).unwrap();
        planner.finish(Lane::Refresh, taken.key, plan(UnixTime(now.0 + 80 * 3_600)), now);
    })
}

/// One name of one account, under the limits of today's public CAs, with thousands of keys known.
fn decide_order() -> Operation {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/limits/current.toml");
    let mut book = Book::new(Arc::new(Profile::load(&profile).unwrap()));
    let (pressure, names) = (Pressure::none(), |number: u64| {
        Identifiers::parse(&[format!("www.domain-{number}.example")], 100).unwrap()
    });
    for number in 0..CERTIFICATES {
        let (account, identifiers) = (format!("acct-{number}"), names(number));
        let ask = Ask::Order(OrderAsk { account: &account, identifiers: &identifiers, replaces: None });
        let (_, entry) = decide(&book, &ask, &pressure, NOW);
        let record = LedgerRecord { id: book.next(), keep_until: UnixTime::MAX, entry: entry.unwrap() };
        book.enter(Arc::new(record), None, NOW);
    }
    let asked: Vec<_> = (0..CERTIFICATES).map(|number| (format!("acct-{number}"), names(number))).collect();
    let mut number = 0;
    Box::new(move || {
        number = (number + 7) % asked.len();
        let (account, identifiers) = &asked[number];
        let ask = Ask::Order(OrderAsk { account, identifiers, replaces: None });
        assert!(black_box(decide(&book, &ask, &pressure, NOW)).1.is_some());
    })
}

/// Allocations of one operation, the first few aside: they may fill something once.
fn allocations(operation: &mut Operation) -> u32 {
    (0..10).for_each(|_| operation());
    let region = Region::new(ALLOCATOR);
    let rounds = 100;
    (0..rounds).for_each(|_| operation());
    let change = region.change();
    u32::try_from((change.allocations + change.reallocations) / rounds).unwrap()
}

/// What callgrind counted in each case, in their order: it leaves a file for each call of [`counted`].
fn instructions() -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .args(["--toggle-collect=*::counted", "--zero-before=*::counted", "--dump-after=*::counted"])
        .args(ALLOCATOR_FUNCTIONS.map(|name| format!("--toggle-collect={name}")))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .arg(ALL)
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM")
        .status()
        .expect("valgrind is not installed: scripts/packages counts");
    assert!(valgrind.success(), "the cases do not run under valgrind");
    (1..=CASES.len()).map(|number| total(&folder.path().join(format!("out.{number}")))).collect()
}

fn total(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ")).expect("callgrind's summary");
    total.trim().parse::<u64>().unwrap() / u64::from(ROUNDS)
}

const ALL: &str = "--all-cases";

/// The C library's allocator goes one way or another with what was freed before, so its instructions
/// are left out: entering one of these turns the counting off. Allocations have a column of their own.
const ALLOCATOR_FUNCTIONS: [&str; 8] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "__libc_malloc",
    "__libc_free",
    "__libc_calloc",
    "__libc_realloc",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let mut operations: Vec<Operation> = CASES.iter().map(|(_, prepare)| prepare()).collect();
    if has(ALL) {
        operations.iter_mut().for_each(counted);
        return ExitCode::SUCCESS;
    }
    let allocations: Vec<u32> = operations.iter_mut().map(allocations).collect();
    if has("--test") {
        return ExitCode::SUCCESS;
    }
    let costs: Vec<Cost> = CASES
        .iter()
        .zip(instructions().into_iter().zip(allocations))
        .map(|((name, _), (instructions, allocations))| Cost { name, instructions, allocations })
        .collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--accept") {
        return baseline::accept(&costs, arguments.get(at + 1).map_or("", String::as_str));
    }
    baseline::compare(&costs, has("--check"))
}
