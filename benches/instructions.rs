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
#[path = "../src/responder/answer.rs"]
pub mod responder;
#[path = "../src/shelf/mod.rs"]
pub mod shelf;
#[path = "../src/store/records.rs"]
pub mod store;

#[path = "support/answers.rs"]
mod answers;
#[path = "support/baseline.rs"]
mod baseline;

use std::alloc::System;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use answers::{Fleet, ISSUER, NEXT_UPDATE, THIS_UPDATE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baseline::Cost;
use clock::UnixTime;
use headers::CacheHeaders;
use ocsp::{HashAlgorithm, Request, Serial, SignatureAlgorithm, request};
use responder::CacheFacts;
use shelf::Shelf;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

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
