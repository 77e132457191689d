//! The corpus of the fuzz targets, replayed: what must hold for any octets holds for these.

#[allow(
    unreachable_pub,
    clippy::expect_used,
    reason = "it is a crate of its own, and a failed one is a finding"
)]
#[path = "../../fuzz/src/lib.rs"]
pub(crate) mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fuzz::Difference;
use goodstanding::ocsp::Request;
use goodstanding::ocsp::request::MAX_CERTIFICATES;

use crate::support::site::root;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("tests/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 3, "{} is nearly empty", folder.display());
    inputs
}

fn seed(name: &str) -> Vec<u8> {
    fs::read(root().join("tests/corpus/request").join(name)).unwrap()
}

#[test]
fn what_must_hold_for_any_octets_holds_for_the_corpus_of_every_target() {
    for (name, target) in fuzz::TARGETS {
        for (path, octets) in corpus(name) {
            let passed = std::panic::catch_unwind(|| target(&octets));
            assert!(passed.is_ok(), "{name} fails on {}", path.display());
        }
    }
}

/// C1.
#[test]
fn no_input_of_the_corpus_cut_short_or_with_an_octet_too_many_does_harm() {
    for (name, target) in fuzz::TARGETS {
        for (_, octets) in corpus(name).iter().filter(|(_, octets)| octets.len() <= 700) {
            for end in 0..octets.len() {
                target(&octets[..end]);
            }
            target(&[&octets[..], &[0]].concat());
        }
    }
}

#[test]
fn the_corpus_shows_each_difference_from_rasn_and_no_other() {
    let found: BTreeSet<_> =
        corpus("request").iter().filter_map(|(_, octets)| fuzz::compare(octets)).collect();
    let named = [Difference::NotDer, Difference::LongTag, Difference::ManyExtensions, Difference::Skipped];
    assert_eq!(found, BTreeSet::from(named));
}

#[test]
fn the_requests_openssl_writes_are_read() {
    for (name, count) in [
        ("sha1", 1),
        ("sha256", 1),
        ("sha384", 1),
        ("sha512", 1),
        ("nonce", 1),
        ("several", 3),
        ("signed", 1),
    ] {
        let request = Request::decode(&seed(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(request.cert_ids.iter().flatten().count(), count, "{name}");
    }
    assert_eq!(Request::decode(&seed("most")).unwrap().cert_ids.len(), MAX_CERTIFICATES);
}
