//! OCSP requests (RFC 6960 section 4.1): read octet by octet, written with rasn-ocsp.
//!
//! `fuzz/src/rasn_request.rs` reads them with rasn-ocsp too; it names each difference and holds the two
//! against each other on the corpus, on generated requests and under the fuzzer.

mod decode;

use rasn::types::{Integer, ObjectIdentifier, OctetString};
use rasn_ocsp::OcspRequest;
use rasn_pkix::{Extension, Extensions};

use super::algorithm::SignatureAlgorithm;
use super::cert_id::{CertId, CertIdError};
use super::tlv;

/// The longest request read, in octets (H5). The largest seen from clients is under 2 KiB.
pub const MAX_OCTETS: usize = 10_000;

/// The most certificates in one request.
pub const MAX_CERTIFICATES: usize = 64;

/// The most extensions in one place; each is compared with those before it. Eight are defined.
pub const MAX_EXTENSIONS: usize = 32;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The certificates asked about, in order: at least one, at most [`MAX_CERTIFICATES`].
    ///
    /// A CertID that cannot be looked up (an unknown hash, say) stands as its error: the request as
    /// a whole is well-formed then and the answer says that we have nothing on it (C7).
    pub cert_ids: Vec<Result<CertId, CertIdError>>,
    /// The nonce.
    pub nonce: Nonce,
    /// The signature algorithms that the client prefers, the best first, each once; those that nobody
    /// signs with here, the weak ones among them, are left out (RFC 6960 section 4.4.7).
    pub preferred: Vec<SignatureAlgorithm>,
}

/// The nonce of a request (RFC 9654).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// There is none, or one that is answered without: shorter than 16 or longer than 32 octets, or
    /// not wrapped in an OCTET STRING.
    Absent,
    /// 16 to 32 octets, to be echoed where nonces are on.
    Given(OctetString),
}

/// Why a request is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`MAX_OCTETS`].
    #[error("the request has {0} octets, {MAX_OCTETS} are read at the most")]
    TooLong(usize),
    /// Not an OCSPRequest in DER.
    #[error("not an OCSPRequest in DER: the {0} is missing or malformed")]
    Syntax(&'static str),
    /// A version other than v1.
    #[error("the request's version is not v1")]
    Version,
    /// No certificate is asked about, or more than [`MAX_CERTIFICATES`].
    #[error("the request asks about {0} certificates, 1 to {MAX_CERTIFICATES} are answered")]
    Count(usize),
    /// A critical extension is not understood.
    #[error("the critical extension {0} is not understood")]
    CriticalExtension(String),
    /// More than [`MAX_EXTENSIONS`] extensions in one place.
    #[error("more than {MAX_EXTENSIONS} extensions in one place")]
    Extensions,
    /// The same extension twice.
    #[error("the extension {0} stands twice")]
    DuplicateExtension(String),
    /// A nonce of no octets or over 128 (RFC 9654 section 2.1).
    #[error("the nonce has {0} octets, 1 to 128 are allowed")]
    NonceLength(usize),
}

/// id-pkix-ocsp-nonce.
pub(super) const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];

/// The content octets of [`NONCE`].
const NONCE_CONTENT: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01\x02";

/// Extensions that may be critical: what they ask for is met by any answer given here.
///
/// Acceptable responses always include the basic one (C25), a service locator is never followed
/// (C24), preferred signature algorithms are a wish (C26).
const UNDERSTOOD: [&[u8]; 4] = [
    NONCE_CONTENT,
    b"\x2b\x06\x01\x05\x05\x07\x30\x01\x04",
    b"\x2b\x06\x01\x05\x05\x07\x30\x01\x07",
    PREFERRED_CONTENT,
];

/// The content octets of id-pkix-ocsp-pref-sig-algs.
const PREFERRED_CONTENT: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01\x08";

pub use self::decode::preferred_algorithms;

impl Request {
    /// Reads a request. A requestor's name and signature are accepted and ignored (L1).
    ///
    /// # Errors
    /// [`RequestError`]; every one of them is answered malformedRequest.
    pub fn decode(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_OCTETS {
            return Err(RequestError::TooLong(der.len()));
        }
        decode::request(der)
    }
}

/// Encodes a request for these certificates, as a client sends it (RFC 9919 section 3.1).
///
/// # Errors
/// The rasn error text when it cannot be encoded.
pub fn encode(cert_ids: &[CertId], nonce: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let single = |cert_id: &CertId| rasn_ocsp::Request {
        req_cert: cert_id.to_rasn(),
        single_request_extensions: None,
    };
    let nonce = nonce.map(|nonce| {
        Extensions::from(vec![Extension {
            extn_id: ObjectIdentifier::new_unchecked(NONCE.into()),
            critical: false,
            extn_value: tlv::value(tlv::OCTET_STRING, &[nonce]).into(),
        }])
    });
    let request = OcspRequest {
        tbs_request: rasn_ocsp::TbsRequest {
            version: Integer::ZERO,
            requestor_name: None,
            request_list: cert_ids.iter().map(single).collect(),
            request_extensions: nonce,
        },
        optional_signature: None,
    };
    rasn::der::encode(&request).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::HashAlgorithm;
    use super::*;
    use proptest::prelude::*;

    fn cert_id(hash: HashAlgorithm) -> CertId {
        CertId {
            hash,
            issuer_name_hash: vec![1; hash.length()].into(),
            issuer_key_hash: vec![2; hash.length()].into(),
            serial: "0102".parse().unwrap(),
        }
    }

    fn asking(cert_ids: &[CertId], extensions: Option<Vec<Extension>>) -> OcspRequest {
        let single = |cert_id: &CertId| rasn_ocsp::Request {
            req_cert: cert_id.to_rasn(),
            single_request_extensions: None,
        };
        OcspRequest {
            tbs_request: rasn_ocsp::TbsRequest {
                version: Integer::ZERO,
                requestor_name: None,
                request_list: cert_ids.iter().map(single).collect(),
                request_extensions: extensions.map(Into::into),
            },
            optional_signature: None,
        }
    }

    fn encoded(request: &OcspRequest) -> Vec<u8> {
        rasn::der::encode(request).unwrap()
    }

    fn extension(oid: &[u32], critical: bool, value: &[u8]) -> Extension {
        Extension {
            extn_id: ObjectIdentifier::new(oid.to_vec()).unwrap(),
            critical,
            extn_value: value.to_vec().into(),
        }
    }

    fn with_nonce(octets: &[u8]) -> Result<Nonce, RequestError> {
        let value = tlv::value(tlv::OCTET_STRING, &[octets]);
        let request = asking(&[cert_id(HashAlgorithm::Sha1)], Some(vec![extension(NONCE, false, &value)]));
        Request::decode(&encoded(&request)).map(|request| request.nonce)
    }

    /// C7.
    #[test]
    fn every_hash_is_read_and_an_unknown_one_is_no_syntax_error() {
        let asked: Vec<_> = HashAlgorithm::ALL.into_iter().map(cert_id).collect();
        let request = Request::decode(&encoded(&asking(&asked, None))).unwrap();
        assert_eq!(request.cert_ids, asked.into_iter().map(Ok).collect::<Vec<_>>());

        let mut odd = asking(&[cert_id(HashAlgorithm::Sha1)], None);
        odd.tbs_request.request_list[0].req_cert.hash_algorithm.algorithm =
            ObjectIdentifier::new(vec![1, 2, 840, 113549, 2, 5]).unwrap();
        let request = Request::decode(&encoded(&odd)).unwrap();
        assert_eq!(request.cert_ids, [Err(CertIdError::UnknownHash("1.2.840.113549.2.5".into()))]);
    }

    /// C1.
    #[test]
    fn a_request_cut_anywhere_or_followed_by_anything_is_malformed() {
        let whole = encoded(&asking(&[cert_id(HashAlgorithm::Sha256)], None));
        assert!(Request::decode(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(Request::decode(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(matches!(Request::decode(&longer), Err(RequestError::Syntax(_))));
    }

    /// C1, C11.
    #[test]
    fn the_number_of_certificates_is_bounded_on_both_sides() {
        let asked = vec![cert_id(HashAlgorithm::Sha1); MAX_CERTIFICATES + 1];
        assert_eq!(Request::decode(&encoded(&asking(&[], None))), Err(RequestError::Count(0)));
        let most = Request::decode(&encoded(&asking(&asked[1..], None))).unwrap();
        assert_eq!(most.cert_ids.len(), MAX_CERTIFICATES);
        assert_eq!(Request::decode(&encoded(&asking(&asked, None))), Err(RequestError::Count(65)));
        assert_eq!(Request::decode(&[0; MAX_OCTETS + 1]), Err(RequestError::TooLong(MAX_OCTETS + 1)));
    }

    /// C1.
    #[test]
    fn only_version_one_is_read() {
        let mut request = asking(&[cert_id(HashAlgorithm::Sha1)], None);
        request.tbs_request.version = Integer::ONE;
        assert_eq!(Request::decode(&encoded(&request)), Err(RequestError::Version));
    }

    /// C12.
    #[test]
    fn unknown_extensions_pass_unless_critical_or_repeated() {
        let unknown: &[u32] = &[1, 3, 6, 1, 4, 1, 99999, 1];
        let decode = |extensions, on_single: bool| {
            let mut request = asking(&[cert_id(HashAlgorithm::Sha1)], None);
            if on_single {
                request.tbs_request.request_list[0].single_request_extensions =
                    Some(Extensions::from(extensions));
            } else {
                request.tbs_request.request_extensions = Some(Extensions::from(extensions));
            }
            Request::decode(&encoded(&request))
        };
        for on_single in [false, true] {
            assert!(decode(vec![extension(unknown, false, &[5, 0])], on_single).is_ok());
            assert!(matches!(
                decode(vec![extension(unknown, true, &[5, 0])], on_single),
                Err(RequestError::CriticalExtension(_))
            ));
            let twice = vec![extension(unknown, false, &[5, 0]); 2];
            assert!(matches!(decode(twice, on_single), Err(RequestError::DuplicateExtension(_))));
        }
        for last in [4, 7, 8] {
            let understood = &[1, 3, 6, 1, 5, 5, 7, 48, 1, last];
            assert!(decode(vec![extension(understood, true, &[0x30, 0])], false).is_ok());
        }
    }

    /// C12.
    #[test]
    fn extensions_are_bounded_and_a_list_of_none_is_no_list() {
        let decode = |count: usize| {
            let list = (0..count as u32).map(|at| extension(&[1, 3, 6, 1, 4, 1, 99999, at], false, &[5, 0]));
            let list = Some(list.collect());
            Request::decode(&encoded(&asking(&[cert_id(HashAlgorithm::Sha1)], list)))
        };
        assert!(decode(MAX_EXTENSIONS).is_ok());
        assert_eq!(decode(MAX_EXTENSIONS + 1), Err(RequestError::Extensions));
        let bare = encoded(&asking(&[cert_id(HashAlgorithm::Sha1)], None));
        let tbs = tlv::only(tlv::only(&bare, tlv::SEQUENCE).unwrap(), tlv::SEQUENCE).unwrap();
        let tbs = tlv::value(tlv::SEQUENCE, &[tbs, b"\xa2\x02\x30\x00"]);
        let none = tlv::value(tlv::SEQUENCE, &[&tbs]);
        assert_eq!(Request::decode(&none), Err(RequestError::Syntax("Extensions")));
    }

    /// C26: what can be signed with is kept in order, the weak and the unknown are left out, and what is
    /// no list is no wish.
    #[test]
    fn preferred_algorithms_are_read_in_order_and_the_weak_left_out() {
        use SignatureAlgorithm::{EcdsaP256Sha256, Ed25519, RsaPkcs1Sha256};
        let prefer = |list: &[&[u8]]| {
            let list: Vec<_> = list.iter().map(|parts| tlv::value(tlv::SEQUENCE, &[parts])).collect();
            let value = tlv::value(tlv::SEQUENCE, &list.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let extension = extension(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 8], false, &value);
            let request = asking(&[cert_id(HashAlgorithm::Sha1)], Some(vec![extension]));
            Request::decode(&encoded(&request)).unwrap().preferred
        };
        let [ec, rsa, ed] =
            [EcdsaP256Sha256, RsaPkcs1Sha256, Ed25519].map(SignatureAlgorithm::identifier_der);
        let sha1_rsa: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00";
        let rsa_without_null: &[u8] = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
        assert_eq!(prefer(&[sha1_rsa, ed, rsa, ec, ed]), [Ed25519, RsaPkcs1Sha256, EcdsaP256Sha256]);
        assert_eq!(prefer(&[rsa_without_null]), [RsaPkcs1Sha256]);
        assert_eq!(prefer(&[sha1_rsa]), []);
        // The kind of key named beside it has to be the one that we sign so with.
        let on = |curve: &[u8]| {
            let key = [b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", curve].concat();
            [ec, &tlv::value(tlv::SEQUENCE, &[&key])].concat()
        };
        let p256 = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
        let p384 = b"\x06\x05\x2b\x81\x04\x00\x22";
        assert_eq!(prefer(&[&on(p256)]), [EcdsaP256Sha256]);
        assert_eq!(prefer(&[&on(b"")]), [EcdsaP256Sha256]);
        assert_eq!(prefer(&[&on(p384)]), []);
        assert_eq!(prefer(&[b"\x05\x00"]), []);
        for value in [&b""[..], b"\x05\x00", b"\x30\x02\x30\x05", &[0xff; 40]] {
            assert_eq!(preferred_algorithms(value), []);
        }
    }

    /// N1, N2, N3.
    #[test]
    fn a_nonce_is_echoed_ignored_or_refused_by_its_length() {
        for length in [0, 129, 200] {
            assert_eq!(with_nonce(&vec![7; length]), Err(RequestError::NonceLength(length)));
        }
        for length in [1, 15, 33, 128] {
            assert_eq!(with_nonce(&vec![7; length]), Ok(Nonce::Absent));
        }
        for length in [16, 32] {
            assert_eq!(with_nonce(&vec![7; length]), Ok(Nonce::Given(vec![7; length].into())));
        }
    }

    /// N4.
    #[test]
    fn a_raw_legacy_nonce_is_answered_without_one() {
        let raw = extension(NONCE, false, &[0xab; 20]);
        let request =
            Request::decode(&encoded(&asking(&[cert_id(HashAlgorithm::Sha1)], Some(vec![raw])))).unwrap();
        assert_eq!(request.nonce, Nonce::Absent);
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Request::decode(&input).is_ok_and(|request| !request.cert_ids.is_empty()) || Request::decode(&input).is_err());
        }

        #[test]
        fn one_flipped_octet_never_panics(at in 0usize..90, to in any::<u8>()) {
            let mut der = encoded(&asking(&[cert_id(HashAlgorithm::Sha1)], None));
            let at = at % der.len();
            der[at] = to;
            if let Ok(request) = Request::decode(&der) {
                prop_assert!(!request.cert_ids.is_empty());
            }
        }
    }
}
