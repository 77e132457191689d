//! Answers of the usual shape without a token or a CA: a fleet on a shelf for measurements of what
//! comes after signing.

#![allow(dead_code, reason = "each measurement takes of it what it needs")]

use std::sync::Arc;
use std::time::Duration;

use goodstanding::clock::UnixTime;
use goodstanding::ocsp::response::SingleExtras;
use goodstanding::ocsp::{
    CertId, CertStatus, HashAlgorithm, Issuer, ResponderId, ResponseData, Serial, SignatureAlgorithm,
    SingleResponse, ecdsa,
};
use goodstanding::shelf::{Entry, Frame, Shelf, SignedAnswer, Slot};
use goodstanding::store::IssuerId;

pub(crate) const ISSUER: IssuerId = IssuerId(1);
pub(crate) const THIS_UPDATE: UnixTime = UnixTime(1_795_315_054);
pub(crate) const NEXT_UPDATE: UnixTime = UnixTime(THIS_UPDATE.0 + 604_799);
/// The length of a delegated responder certificate.
const CERTIFICATE: usize = 700;

/// A random-looking serial number of 17 octets (16 and the sign), as most public CAs have.
pub(crate) fn serial(number: u64) -> Serial {
    let high = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = high.rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let octets = [(high | 1 << 63).to_be_bytes(), low.to_be_bytes()].concat();
    Serial::from_unsigned(&octets).expect("16 octets")
}

pub(crate) fn cert_id(hash: HashAlgorithm, serial: Serial) -> CertId {
    CertId {
        hash,
        issuer_name_hash: vec![1; hash.length()].into(),
        issuer_key_hash: vec![2; hash.length()].into(),
        serial,
    }
}

/// What is signed for a certificate that is good.
fn response_data(serial: Serial, cert_id: impl Fn(HashAlgorithm) -> CertId) -> Vec<u8> {
    let single = |hash: HashAlgorithm| SingleResponse {
        cert_id: CertId { serial, ..cert_id(hash) },
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

/// A shelf, and what every answer on it has in common.
pub(crate) struct Fleet {
    pub(crate) shelf: Arc<Shelf>,
    frame: Arc<Frame>,
    signature: Vec<u8>,
    /// A ResponseData, and where the serial number stands in it: encoding ten million of them
    /// would take longer than what is measured.
    data: Vec<u8>,
    places: Vec<usize>,
}

impl Fleet {
    /// A fleet of an issuer that is none.
    pub(crate) fn new(algorithm: SignatureAlgorithm) -> Self {
        Self::with(algorithm, |hash| cert_id(hash, serial(0)))
    }

    /// A fleet of an issuer.
    pub(crate) fn of(issuer: &Issuer, algorithm: SignatureAlgorithm) -> Self {
        Self::with(algorithm, |hash| issuer.cert_id(hash, serial(0)))
    }

    fn with(algorithm: SignatureAlgorithm, cert_id: impl Fn(HashAlgorithm) -> CertId) -> Self {
        let signature = match algorithm {
            SignatureAlgorithm::RsaPkcs1Sha256 => vec![0xa5; 256],
            _ => ecdsa::der(&[0xa5; 64]).to_vec(),
        };
        let first = serial(0);
        let data = response_data(first, cert_id);
        let content = first.as_der_content();
        let windows = data.windows(content.len()).enumerate();
        let places: Vec<usize> = windows.filter(|(_, window)| *window == content).map(|(at, _)| at).collect();
        assert_eq!(places.len(), 2, "the serial number stands in two CertIDs");
        let frame = Arc::new(Frame { algorithm, certificate: Some(vec![0x5a; CERTIFICATE]) });
        Self { shelf: Arc::new(Shelf::new()), frame, signature, data, places }
    }

    /// The ResponseData and the signature of a certificate with a serial number of [`serial`].
    pub(crate) fn signed(&self, serial: Serial) -> (Vec<u8>, Vec<u8>) {
        let mut data = self.data.clone();
        for at in &self.places {
            data[*at..][..serial.as_der_content().len()].copy_from_slice(serial.as_der_content());
        }
        (data, self.signature.clone())
    }

    /// Puts the answer for a certificate on the shelf.
    pub(crate) fn put(&self, number: u64) {
        let serial = serial(number);
        let (data, _) = self.signed(serial);
        let answer = SignedAnswer {
            frame: Arc::clone(&self.frame),
            response_data: &data,
            signature: &self.signature,
            this_update: THIS_UPDATE,
            next_update: NEXT_UPDATE,
            renewed_at: THIS_UPDATE.plus(Duration::from_secs(302_400)),
            pack: None,
        };
        let entry = Entry {
            version: 1,
            not_before: None,
            not_after: NEXT_UPDATE,
            revocation: None,
            answer: Some(answer),
        };
        assert!(self.shelf.put(ISSUER, serial, &entry));
    }

    pub(crate) fn get(&self, number: u64) -> Option<Slot> {
        self.shelf.get(ISSUER, &serial(number))
    }
}
