//! What the shelf costs: memory a certificate, putting an answer on it, and looking one up and writing it
//! out, at growing numbers of certificates. `SHELF_CERTIFICATES` sets the largest (100,000 by default).
#![expect(clippy::expect_used, reason = "a benchmark that cannot run has nobody to hand an error to")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use goodstanding::clock::UnixTime;
use goodstanding::ocsp::response::SingleExtras;
use goodstanding::ocsp::{
    CertId, CertStatus, HashAlgorithm, ResponderId, ResponseData, Serial, SignatureAlgorithm, SingleResponse,
    ecdsa,
};
use goodstanding::shelf::{Entry, Frame, Shelf, SignedAnswer};
use goodstanding::store::IssuerId;

const ISSUER: IssuerId = IssuerId(1);
const THIS_UPDATE: UnixTime = UnixTime(1_795_315_054);
const NEXT_UPDATE: UnixTime = UnixTime(THIS_UPDATE.0 + 604_799);
/// The length of a delegated responder certificate.
const CERTIFICATE: usize = 700;

/// A random-looking serial number of 17 octets (16 and the sign), as most public CAs have.
fn serial(number: u64) -> Serial {
    let high = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = high.rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let octets = [(high | 1 << 63).to_be_bytes(), low.to_be_bytes()].concat();
    Serial::from_unsigned(&octets).expect("16 octets")
}

fn response_data(serial: Serial) -> Vec<u8> {
    let single = |hash: HashAlgorithm| SingleResponse {
        cert_id: CertId {
            hash,
            issuer_name_hash: vec![1; hash.length()].into(),
            issuer_key_hash: vec![2; hash.length()].into(),
            serial,
        },
        status: CertStatus::Good,
        this_update: THIS_UPDATE,
        next_update: NEXT_UPDATE,
        extras: SingleExtras::default(),
    };
    let data = ResponseData {
        responder_id: ResponderId::ByKey([9; 20]),
        produced_at: THIS_UPDATE,
        responses: vec![single(HashAlgorithm::Sha1), single(HashAlgorithm::Sha256)],
        nonce: None,
        extended_revoke: false,
    };
    data.encode().expect("a ResponseData is encoded")
}

fn put(shelf: &Shelf, frame: &Arc<Frame>, serial: Serial, response_data: &[u8], signature: &[u8]) {
    let answer = SignedAnswer {
        frame: Arc::clone(frame),
        response_data,
        signature,
        this_update: THIS_UPDATE,
        next_update: NEXT_UPDATE,
        renewed_at: THIS_UPDATE.plus(Duration::from_secs(302_400)),
    };
    let entry = Entry {
        version: 1,
        not_before: None,
        not_after: NEXT_UPDATE,
        revocation: None,
        answer: Some(answer),
    };
    assert!(shelf.put(ISSUER, serial, &entry));
}

fn shelves(criterion: &mut Criterion) {
    let largest: u64 =
        std::env::var("SHELF_CERTIFICATES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let rsa = (SignatureAlgorithm::RsaPkcs1Sha256, vec![0xa5; 256]);
    let p256 = (SignatureAlgorithm::EcdsaP256Sha256, ecdsa::der(&[0xa5; 64]).to_vec());
    let mut group = criterion.benchmark_group("shelf");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (algorithm, signature) in [p256, rsa] {
        let frame = Arc::new(Frame { algorithm, certificate: Some(vec![0x5a; CERTIFICATE]) });
        let sizes = std::iter::successors(Some(10_000), |size| Some(size * 10));
        for certificates in sizes.take_while(|size| *size <= largest) {
            let shelf = Shelf::new();
            for number in 0..certificates {
                let serial = serial(number);
                put(&shelf, &frame, serial, &response_data(serial), &signature);
            }
            eprintln!(
                "{algorithm}, {certificates} certificates: {:.1} octets each",
                shelf.memory() as f64 / certificates as f64
            );
            let mut number = 0u64;
            group.bench_function(BenchmarkId::new(format!("serve {algorithm}"), certificates), |bencher| {
                bencher.iter(|| {
                    number = (number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)) % certificates;
                    let slot = shelf.get(ISSUER, &serial(number)).expect("it is on the shelf");
                    black_box(slot.answer.expect("it has an answer").body())
                });
            });
            let again = response_data(serial(0));
            group.bench_function(BenchmarkId::new(format!("replace {algorithm}"), certificates), |bencher| {
                bencher.iter(|| put(&shelf, &frame, serial(0), &again, &signature));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, shelves);
criterion_main!(benches);
