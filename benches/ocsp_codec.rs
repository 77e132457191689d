//! What the protocol core costs: requests in, answers out, no I/O.
//!
//! `cargo bench --bench ocsp_codec`. The delegated certificates are made with rcgen (the RSA key with
//! openssl, since ring makes none) and the answers are really signed, so that every size is a real one.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]

#[path = "support/pki.rs"]
mod pki;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use goodstanding::clock::UnixTime;
use goodstanding::ocsp::request::{self, Nonce};
use goodstanding::ocsp::{
    CertStatus, Certificate, CrlReason, HashAlgorithm, Issuer, Received, Request, ResponderId, ResponseData,
    Revocation, Serial, SignatureAlgorithm, SingleResponse, response, response::SingleExtras,
};
use goodstanding::shelf::{Entry, Frame, Shelf, SignedAnswer};
use goodstanding::store::IssuerId;
use pki::Ca;
use rcgen::{CertificateParams, DnType, KeyPair, SigningKey};

const NOW: UnixTime = UnixTime(1_795_315_054);
const SERIAL: &str = "6f0123456789abcdef0123456789abcd";

/// A signed answer and what it is made of.
struct Answer {
    name: &'static str,
    algorithm: SignatureAlgorithm,
    responder: Certificate,
    data: Vec<u8>,
    signature: Vec<u8>,
}

impl Answer {
    fn new(name: &'static str, ca: &Ca, key: &KeyPair, algorithm: SignatureAlgorithm) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ocsp");
        let request = params.serialize_request(key).unwrap();
        let responder = Certificate::from_der(&ca.certify(request.der(), NOW)).unwrap();
        let data = data(&ca.issuer, &responder, CertStatus::Good).encode().unwrap();
        let signature = key.sign(&data).unwrap();
        Self { name, algorithm, responder, data, signature }
    }

    fn assemble(&self) -> Vec<u8> {
        response::assemble(&self.data, self.algorithm, &self.signature, Some(self.responder.der()))
    }
}

fn serial() -> Serial {
    SERIAL.parse().unwrap()
}

/// The pair that every stored answer holds: a SHA-1 and a SHA-256 CertID.
fn data(issuer: &Issuer, responder: &Certificate, status: CertStatus) -> ResponseData {
    let single = |hash| SingleResponse {
        cert_id: issuer.cert_id(hash, serial()),
        status,
        this_update: NOW,
        next_update: UnixTime(NOW.0 + 7 * 86_400 - 1),
        extras: SingleExtras::default(),
    };
    ResponseData {
        responder_id: ResponderId::by_key(responder),
        produced_at: NOW,
        responses: vec![single(HashAlgorithm::Sha1), single(HashAlgorithm::Sha256)],
        nonce: None,
        extended_revoke: false,
    }
}

fn rsa_key() -> KeyPair {
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl is not installed: on Debian, apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    KeyPair::from_pem(std::str::from_utf8(&made.stdout).unwrap()).unwrap()
}

fn requests(criterion: &mut Criterion, issuer: &Issuer) {
    let mut group = criterion.benchmark_group("request_decode");
    group.throughput(Throughput::Elements(1));
    for (name, hash, nonce) in [
        ("sha1", HashAlgorithm::Sha1, None),
        ("sha256", HashAlgorithm::Sha256, None),
        ("sha1_nonce", HashAlgorithm::Sha1, Some(&[0x5a; 32][..])),
    ] {
        let asked = issuer.cert_id(hash, serial());
        let der = request::encode(std::slice::from_ref(&asked), nonce).unwrap();
        let decoded = Request::decode(&der).unwrap();
        assert_eq!(decoded.cert_ids, [Ok(asked)]);
        assert_eq!(matches!(decoded.nonce, Nonce::Given(given) if given[..] == [0x5a; 32]), nonce.is_some());
        group.bench_function(name, |bencher| bencher.iter(|| Request::decode(black_box(&der))));
    }
    group.finish();
}

fn response_data(criterion: &mut Criterion, ca: &Ca, responder: &Certificate) {
    let revocation = Revocation { time: UnixTime(NOW.0 - 1_000), reason: Some(CrlReason::KeyCompromise) };
    let mut group = criterion.benchmark_group("response_data_encode");
    group.throughput(Throughput::Elements(1));
    for (name, status) in [("good", CertStatus::Good), ("revoked", CertStatus::Revoked(revocation))] {
        let data = data(&ca.issuer, responder, status);
        let hashes: Vec<_> = response::cert_id_hashes(&data.encode().unwrap()).collect();
        assert_eq!(hashes, [HashAlgorithm::Sha1, HashAlgorithm::Sha256]);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&data).encode()));
    }
    group.finish();
}

fn answers(criterion: &mut Criterion, ca: &Ca, answers: &[Answer]) {
    let group = |criterion: &mut Criterion, name: &str, body: &dyn Fn(&Answer, &mut criterion::Bencher)| {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for answer in answers {
            group.bench_function(answer.name, |bencher| body(answer, bencher));
        }
        group.finish();
    };
    for answer in answers {
        let received = Received::decode(&answer.assemble()).unwrap();
        assert_eq!(received.verify(&received.signer(&ca.issuer).unwrap()).unwrap(), answer.algorithm);
        assert_eq!(received.responses.len(), 2);
        assert_eq!(written_out(&shelved(answer)), answer.assemble());
    }
    group(criterion, "response_assemble", &|answer, bencher| bencher.iter(|| black_box(answer).assemble()));
    group(criterion, "shelf_put", &|answer, bencher| {
        let shelf = shelved(answer);
        bencher.iter(|| put(&shelf, black_box(answer)));
    });
    group(criterion, "shelf_serve", &|answer, bencher| {
        let shelf = shelved(answer);
        bencher.iter(|| written_out(&shelf));
    });
    group(criterion, "received_decode", &|answer, bencher| {
        let der = answer.assemble();
        bencher.iter(|| Received::decode(black_box(&der)));
    });
    group(criterion, "received_verify", &|answer, bencher| {
        let received = Received::decode(&answer.assemble()).unwrap();
        bencher.iter(|| black_box(&received).verify(&answer.responder));
    });
}

/// A shelf with one answer.
fn shelved(answer: &Answer) -> Shelf {
    let shelf = Shelf::new();
    put(&shelf, answer);
    shelf
}

fn put(shelf: &Shelf, answer: &Answer) {
    let certificate = Some(answer.responder.der().to_vec());
    let signed = SignedAnswer {
        frame: Arc::new(Frame { algorithm: answer.algorithm, certificate }),
        response_data: &answer.data,
        signature: &answer.signature,
        this_update: NOW,
        next_update: UnixTime(NOW.0 + 7 * 86_400 - 1),
        renewed_at: UnixTime(NOW.0 + 3 * 86_400),
        pack: None,
    };
    let entry = Entry {
        version: 1,
        not_before: None,
        not_after: UnixTime(NOW.0 + 90 * 86_400),
        revocation: None,
        answer: Some(signed),
    };
    assert!(shelf.put(IssuerId(1), serial(), &entry));
}

fn written_out(shelf: &Shelf) -> Vec<u8> {
    shelf.get(IssuerId(1), &black_box(serial())).unwrap().answer.unwrap().body()
}

fn serials(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("serial");
    group.throughput(Throughput::Elements(1));
    assert_eq!(serial().to_string(), SERIAL);
    group.bench_function("parse", |bencher| bencher.iter(|| black_box(SERIAL).parse::<Serial>()));
    let serial = serial();
    let content = serial.as_der_content();
    group.bench_function("from_der", |bencher| {
        bencher.iter(|| Serial::from_der_content(black_box(content)));
    });
    group.bench_function("print", |bencher| bencher.iter(|| black_box(&serial).to_string()));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let ca = Ca::new();
    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let both = [
        Answer::new("rsa-2048", &ca, &rsa_key(), SignatureAlgorithm::RsaPkcs1Sha256),
        Answer::new("p256", &ca, &p256, SignatureAlgorithm::EcdsaP256Sha256),
    ];
    requests(&mut criterion, &ca.issuer);
    response_data(&mut criterion, &ca, &both[0].responder);
    answers(&mut criterion, &ca, &both);
    serials(&mut criterion);
    criterion.final_summary();
}
