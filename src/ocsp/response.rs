//! OCSP responses (RFC 6960 section 4.2).
//!
//! The ResponseData is encoded with rasn-ocsp. What is put around it (algorithm, signature,
//! certificate) is written octet by octet, so that the octets served are the octets signed.

use std::sync::Arc;

use rasn::types::{GeneralizedTime, ObjectIdentifier, OctetString};
use rasn_pkix::{Extension, Extensions, Name};

use super::algorithm::{HashAlgorithm, SignatureAlgorithm};
use super::cert_id::CertId;
use super::certificate::Certificate;
use super::status::{CertStatus, CrlReason, Revocation};
use super::{request, tlv};
use crate::clock::UnixTime;

/// An error status: an OCSPResponse without responseBytes (RFC 6960 section 4.2.1). Never signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorStatus {
    /// The request has no correct syntax.
    MalformedRequest = 1,
    /// The responder is in an inconsistent state.
    InternalError = 2,
    /// The responder cannot answer just now.
    TryLater = 3,
    /// The request must be signed.
    SigRequired = 5,
    /// The responder has no authoritative record, or the client no permission.
    Unauthorized = 6,
}

impl ErrorStatus {
    /// The five octets of the response.
    #[must_use]
    pub const fn der(self) -> &'static [u8] {
        match self {
            Self::MalformedRequest => &[tlv::SEQUENCE, 3, tlv::ENUMERATED, 1, 1],
            Self::InternalError => &[tlv::SEQUENCE, 3, tlv::ENUMERATED, 1, 2],
            Self::TryLater => &[tlv::SEQUENCE, 3, tlv::ENUMERATED, 1, 3],
            Self::SigRequired => &[tlv::SEQUENCE, 3, tlv::ENUMERATED, 1, 5],
            Self::Unauthorized => &[tlv::SEQUENCE, 3, tlv::ENUMERATED, 1, 6],
        }
    }

    /// The name in RFC 6960.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformedRequest",
            Self::InternalError => "internalError",
            Self::TryLater => "tryLater",
            Self::SigRequired => "sigRequired",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// Who signs an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponderId {
    /// SHA-1 of the responder's public key, whatever the hash of the CertIDs (C14). RFC 9919
    /// section 3.2 asks for this form.
    ByKey([u8; 20]),
    /// The responder's subject name in DER.
    ByName(Vec<u8>),
}

impl ResponderId {
    /// The byKey form for a responder certificate.
    #[must_use]
    pub fn by_key(responder: &Certificate) -> Self {
        let digest = HashAlgorithm::Sha1.digest(responder.public_key());
        let mut key = [0; 20];
        key.copy_from_slice(&digest);
        Self::ByKey(key)
    }

    /// The byName form for a responder certificate.
    #[must_use]
    pub fn by_name(responder: &Certificate) -> Self {
        Self::ByName(responder.subject_name().to_vec())
    }
}

/// The status of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleResponse {
    /// The certificate.
    pub cert_id: CertId,
    /// Its status.
    pub status: CertStatus,
    /// When the status was known to be correct.
    pub this_update: UnixTime,
    /// When newer information will be there at the latest; always present (L8).
    pub next_update: UnixTime,
    /// What it says besides, in singleExtensions.
    pub extras: SingleExtras,
}

/// What a SingleResponse may say besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SingleExtras {
    /// Where the CRL is on which a revoked certificate stands: CrlID, RFC 6960 section 4.4.2 (C22).
    /// ASCII.
    pub crl_url: Option<Arc<str>>,
    /// From when on statuses of expired certificates are kept: RFC 6960 section 4.4.4 (C23).
    pub archive_cutoff: Option<UnixTime>,
}

impl SingleExtras {
    fn to_rasn(&self) -> Option<Extensions> {
        let crl = self.crl_url.as_ref().map(|url| {
            let url = tlv::value(tlv::IA5_STRING, &[url.as_bytes()]);
            extension(CRL_ID, tlv::value(tlv::SEQUENCE, &[&tlv::value(tlv::context(0), &[&url])]))
        });
        let cutoff = self.archive_cutoff.map(|time| {
            let text = time.to_datetime().format("%Y%m%d%H%M%SZ").to_string();
            extension(ARCHIVE_CUTOFF, tlv::value(tlv::GENERALIZED_TIME, &[text.as_bytes()]))
        });
        let all: Vec<_> = crl.into_iter().chain(cutoff).collect();
        (!all.is_empty()).then(|| all.into())
    }
}

/// One that is not critical.
fn extension(oid: &'static [u32], value: Vec<u8>) -> Extension {
    Extension {
        extn_id: ObjectIdentifier::new_unchecked(oid.into()),
        critical: false,
        extn_value: value.into(),
    }
}

/// id-pkix-ocsp-crl.
const CRL_ID: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 3];

/// id-pkix-ocsp-archive-cutoff.
const ARCHIVE_CUTOFF: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 6];

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseData {
    /// Who signs.
    pub responder_id: ResponderId,
    /// When.
    pub produced_at: UnixTime,
    /// At least one.
    pub responses: Vec<SingleResponse>,
    /// The nonce to echo; none in an answer that is stored (L3).
    pub nonce: Option<OctetString>,
    /// Whether to say that "revoked" is also the answer for serial numbers that were never issued
    /// (RFC 6960 section 4.4.8).
    pub extended_revoke: bool,
}

/// The answer cannot be encoded or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// rasn does not encode it: a name that is no DER name.
    #[error("cannot encode the ResponseData: {0}")]
    Encode(String),
    /// The octets are no OCSPResponse.
    #[error("not an OCSPResponse: {0}")]
    Syntax(String),
    /// The response carries this error status instead of an answer.
    #[error("the responder answered {0}")]
    Status(&'static str),
}

/// GeneralizedTime without fractions, in UTC (L8).
fn generalized(time: UnixTime) -> GeneralizedTime {
    time.to_datetime().fixed_offset()
}

fn reason_to_rasn(reason: CrlReason) -> rasn_pkix::CrlReason {
    match reason {
        CrlReason::Unspecified => rasn_pkix::CrlReason::Unspecified,
        CrlReason::KeyCompromise => rasn_pkix::CrlReason::KeyCompromise,
        CrlReason::CaCompromise => rasn_pkix::CrlReason::CaCompromise,
        CrlReason::AffiliationChanged => rasn_pkix::CrlReason::AffiliationChanged,
        CrlReason::Superseded => rasn_pkix::CrlReason::Superseded,
        CrlReason::CessationOfOperation => rasn_pkix::CrlReason::CessationOfOperation,
        CrlReason::CertificateHold => rasn_pkix::CrlReason::CertificateHold,
        CrlReason::RemoveFromCrl => rasn_pkix::CrlReason::RemoveFromCRL,
        CrlReason::PrivilegeWithdrawn => rasn_pkix::CrlReason::PrivilegeWithdrawn,
        CrlReason::AaCompromise => rasn_pkix::CrlReason::AaCompromise,
    }
}

impl SingleResponse {
    fn to_rasn(&self) -> rasn_ocsp::SingleResponse {
        let cert_status = match self.status {
            CertStatus::Good => rasn_ocsp::CertStatus::Good,
            CertStatus::Unknown => rasn_ocsp::CertStatus::Unknown(()),
            CertStatus::Revoked(Revocation { time, reason }) => {
                rasn_ocsp::CertStatus::Revoked(rasn_ocsp::RevokedInfo {
                    revocation_time: generalized(time),
                    // RFC 5280 section 5.3.1: leave the reason out rather than say "unspecified".
                    revocation_reason: reason
                        .filter(|reason| *reason != CrlReason::Unspecified)
                        .map(reason_to_rasn),
                })
            }
        };
        rasn_ocsp::SingleResponse {
            cert_id: self.cert_id.to_rasn(),
            cert_status,
            this_update: generalized(self.this_update),
            next_update: Some(generalized(self.next_update)),
            single_extensions: self.extras.to_rasn(),
        }
    }
}

impl ResponseData {
    /// The DER to be signed.
    ///
    /// # Errors
    /// [`ResponseError::Encode`] for a byName responder whose name is no DER name.
    pub fn encode(&self) -> Result<Vec<u8>, ResponseError> {
        let responder_id = match &self.responder_id {
            ResponderId::ByKey(key) => rasn_ocsp::ResponderId::ByKey(key.to_vec().into()),
            ResponderId::ByName(name) => rasn_ocsp::ResponderId::ByName(
                rasn::der::decode::<Name>(name).map_err(|error| ResponseError::Encode(error.to_string()))?,
            ),
        };
        let nonce = self
            .nonce
            .as_ref()
            .map(|nonce| extension(request::NONCE, tlv::value(tlv::OCTET_STRING, &[nonce])));
        let extended = self.extended_revoke.then(|| extension(EXTENDED_REVOKE, vec![tlv::NULL, 0]));
        let extensions: Vec<Extension> = nonce.into_iter().chain(extended).collect();
        let data = rasn_ocsp::ResponseData {
            version: rasn::types::Integer::ZERO,
            responder_id,
            produced_at: generalized(self.produced_at),
            responses: self.responses.iter().map(SingleResponse::to_rasn).collect(),
            response_extensions: (!extensions.is_empty()).then(|| Extensions::from(extensions)),
        };
        rasn::der::encode(&data).map_err(|error| ResponseError::Encode(error.to_string()))
    }
}

/// The hashes of the CertIDs in a ResponseData, in order; nothing where it is none.
pub fn cert_id_hashes(response_data: &[u8]) -> impl Iterator<Item = HashAlgorithm> {
    let mut fields = tlv::Reader::new(tlv::only(response_data, tlv::SEQUENCE).unwrap_or_default());
    // version and responderID are tagged by context, producedAt is a GeneralizedTime.
    let responses = fields.find(|field| field.tag == tlv::SEQUENCE);
    let responses = tlv::Reader::new(responses.map_or(&[][..], |responses| responses.content));
    responses.filter_map(|single| {
        let cert_id = tlv::Reader::new(single.content).expect(tlv::SEQUENCE)?;
        let algorithm = tlv::Reader::new(cert_id.content).expect(tlv::SEQUENCE)?;
        let oid = tlv::Reader::new(algorithm.content).expect(tlv::OBJECT_IDENTIFIER)?;
        HashAlgorithm::ALL.into_iter().find(|hash| hash.oid_content() == oid.content)
    })
}

/// The algorithm that an assembled answer is signed with; none where it is an error or no answer.
#[must_use]
pub fn signature_algorithm(der: &[u8]) -> Option<SignatureAlgorithm> {
    let mut response = tlv::Reader::new(tlv::only(der, tlv::SEQUENCE)?);
    response.expect(tlv::ENUMERATED)?;
    let bytes = tlv::only(response.expect(tlv::context(0))?.content, tlv::SEQUENCE)?;
    let mut bytes = tlv::Reader::new(bytes);
    bytes.expect(tlv::OBJECT_IDENTIFIER)?;
    let basic = tlv::only(bytes.expect(tlv::OCTET_STRING)?.content, tlv::SEQUENCE)?;
    let mut basic = tlv::Reader::new(basic);
    basic.expect(tlv::SEQUENCE)?;
    SignatureAlgorithm::from_identifier_der(basic.expect(tlv::SEQUENCE)?.whole)
}

/// id-pkix-ocsp-extended-revoke.
pub(super) const EXTENDED_REVOKE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 9];

/// `SEQUENCE { ENUMERATED successful }` up to the length of responseBytes is written per answer;
/// this is id-pkix-ocsp-basic, whole.
const BASIC_TYPE: &[u8] = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01";
const SUCCESSFUL: &[u8] = &[tlv::ENUMERATED, 1, 0];

/// Puts a signed ResponseData, its signature and the responder's certificate together to an
/// OCSPResponse. `certificate` is the delegated responder certificate (L4), left out where the CA
/// itself signs.
#[must_use]
pub fn assemble(
    response_data: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
    certificate: Option<&[u8]>,
) -> Vec<u8> {
    let write = |out: &mut Vec<u8>| out.extend_from_slice(response_data);
    assemble_written((response_data.len(), write), algorithm, signature, certificate)
}

/// As [`assemble`], with a ResponseData that is written straight to its place: its length, and what
/// writes as many octets.
#[must_use]
pub fn assemble_written(
    (length, write): (usize, impl FnOnce(&mut Vec<u8>)),
    algorithm: SignatureAlgorithm,
    signature: &[u8],
    certificate: Option<&[u8]>,
) -> Vec<u8> {
    let identifier = algorithm.identifier_der();
    let bits = signature.len() + 1;
    let certs = certificate.map_or(0, |der| tlv::whole_length(tlv::whole_length(der.len())));
    let basic = length + identifier.len() + tlv::whole_length(bits) + certs;
    let octets = tlv::whole_length(basic);
    let bytes = BASIC_TYPE.len() + tlv::whole_length(octets);
    let explicit = tlv::whole_length(bytes);
    let outer = SUCCESSFUL.len() + tlv::whole_length(explicit);

    let mut out = Vec::with_capacity(tlv::whole_length(outer));
    tlv::put_header(&mut out, tlv::SEQUENCE, outer);
    out.extend_from_slice(SUCCESSFUL);
    tlv::put_header(&mut out, tlv::context(0), explicit);
    tlv::put_header(&mut out, tlv::SEQUENCE, bytes);
    out.extend_from_slice(BASIC_TYPE);
    tlv::put_header(&mut out, tlv::OCTET_STRING, octets);
    tlv::put_header(&mut out, tlv::SEQUENCE, basic);
    write(&mut out);
    out.extend_from_slice(identifier);
    tlv::put_header(&mut out, tlv::BIT_STRING, bits);
    out.push(0);
    out.extend_from_slice(signature);
    if let Some(der) = certificate {
        tlv::put_header(&mut out, tlv::context(0), tlv::whole_length(der.len()));
        tlv::put_header(&mut out, tlv::SEQUENCE, der.len());
        out.extend_from_slice(der);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(hash: HashAlgorithm, status: CertStatus) -> SingleResponse {
        SingleResponse {
            cert_id: CertId {
                hash,
                issuer_name_hash: vec![1; hash.length()].into(),
                issuer_key_hash: vec![2; hash.length()].into(),
                serial: "ff00000000000000000000000000000000000001".parse().unwrap(),
            },
            status,
            this_update: UnixTime(1_795_315_054),
            next_update: UnixTime(1_795_919_853),
            extras: SingleExtras::default(),
        }
    }

    fn data(status: CertStatus) -> ResponseData {
        ResponseData {
            responder_id: ResponderId::ByKey([9; 20]),
            produced_at: UnixTime(1_795_315_054),
            responses: vec![single(HashAlgorithm::Sha1, status), single(HashAlgorithm::Sha256, status)],
            nonce: None,
            extended_revoke: false,
        }
    }

    /// C2.
    #[test]
    fn an_error_status_is_five_octets_and_never_four() {
        let statuses = [
            ErrorStatus::MalformedRequest,
            ErrorStatus::InternalError,
            ErrorStatus::TryLater,
            ErrorStatus::SigRequired,
            ErrorStatus::Unauthorized,
        ];
        for status in statuses {
            assert_eq!(status.der(), [0x30, 3, 0x0a, 1, status as u8]);
            assert_ne!(status as u8, 4);
        }
    }

    /// C13, C15, L8: rasn reads back what was assembled and encodes it to the same octets.
    #[test]
    fn an_assembled_answer_is_strict_der_of_version_one() {
        let revoked = |reason| CertStatus::Revoked(Revocation { time: UnixTime(1_700_000_000), reason });
        let statuses = [
            CertStatus::Good,
            CertStatus::Unknown,
            revoked(None),
            revoked(Some(CrlReason::KeyCompromise)),
            revoked(Some(CrlReason::Unspecified)),
        ];
        for (status, signature) in statuses.into_iter().zip([64, 100, 127, 256, 512]) {
            let data = data(status).encode().unwrap();
            assert!(data.windows(15).any(|window| window == b"20261122023734Z"), "no GeneralizedTime");
            let der = assemble(&data, SignatureAlgorithm::RsaPkcs1Sha256, &vec![0xa5; signature], None);
            let response: rasn_ocsp::OcspResponse = rasn::der::decode(&der).unwrap();
            assert_eq!(rasn::der::encode(&response).unwrap(), der);
            assert_eq!(signature_algorithm(&der), Some(SignatureAlgorithm::RsaPkcs1Sha256));
            let basic = response.bytes.unwrap().response;
            let basic: rasn_ocsp::BasicOcspResponse = rasn::der::decode(&basic).unwrap();
            assert_eq!(basic.certs, None);
            assert_eq!(rasn::der::encode(&basic.tbs_response_data).unwrap(), data);
            assert_eq!(basic.signature.len(), signature * 8);
        }
    }

    /// RFC 5280 section 5.3.1.
    #[test]
    fn an_unspecified_reason_is_left_out() {
        let with = |reason| {
            data(CertStatus::Revoked(Revocation { time: UnixTime(1_700_000_000), reason })).encode().unwrap()
        };
        assert_eq!(with(Some(CrlReason::Unspecified)), with(None));
        assert_ne!(with(Some(CrlReason::Superseded)), with(None));
    }

    #[test]
    fn the_hashes_of_an_answer_are_found_in_its_octets() {
        let hashes: Vec<_> = cert_id_hashes(&data(CertStatus::Good).encode().unwrap()).collect();
        assert_eq!(hashes, [HashAlgorithm::Sha1, HashAlgorithm::Sha256]);
        assert_eq!(cert_id_hashes(&[0x30, 0]).count(), 0);
    }

    /// C21.
    #[test]
    fn extended_revoke_is_a_null_that_is_not_critical() {
        let mut data = data(CertStatus::Good);
        data.extended_revoke = true;
        let der = data.encode().unwrap();
        let extension = b"\x30\x0f\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x09\x04\x02\x05\x00";
        assert!(der.windows(extension.len()).any(|window| window == extension));
    }

    /// C22, C23: as rasn reads them, and not critical.
    #[test]
    fn the_crl_and_the_archive_cutoff_stand_in_single_extensions() {
        let mut data = data(CertStatus::Good);
        let url = "http://crl.example.org/ca.crl";
        data.responses[1].extras =
            SingleExtras { crl_url: Some(url.into()), archive_cutoff: Some(UnixTime(1_700_000_000)) };
        let der = data.encode().unwrap();
        let read: rasn_ocsp::ResponseData = rasn::der::decode(&der).unwrap();
        assert_eq!(read.responses[0].single_extensions, None);
        assert_eq!(read.response_extensions, None);
        let [crl, cutoff] = &read.responses[1].single_extensions.as_ref().unwrap()[..] else {
            panic!("two extensions")
        };
        assert!(!crl.critical && !cutoff.critical);
        assert_eq!((&crl.extn_id[..], &cutoff.extn_id[..]), (CRL_ID, ARCHIVE_CUTOFF));
        let crl: rasn_ocsp::CrlId = rasn::der::decode(&crl.extn_value).unwrap();
        assert_eq!((crl.url.map(|read| read.to_string()), crl.num, crl.time), (Some(url.into()), None, None));
        assert_eq!(&cutoff.extn_value[..], b"\x18\x0f20231114221320Z");
        // The hashes are found behind extensions too.
        assert_eq!(cert_id_hashes(&der).count(), 2);
    }

    /// N2.
    #[test]
    fn a_nonce_is_echoed_in_its_octet_string() {
        let nonce = vec![0x77; 32];
        let mut data = data(CertStatus::Good);
        data.nonce = Some(nonce.clone().into());
        let der = data.encode().unwrap();
        let mut wrapped = vec![0x04, 0x22, 0x04, 0x20];
        wrapped.extend(&nonce);
        assert!(der.windows(wrapped.len()).any(|window| window == wrapped));
    }
}
