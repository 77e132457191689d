//! OCSP responses as a client receives them, from this responder or any other.

use rasn::types::{GeneralizedTime, ObjectIdentifier};
use rasn_ocsp::{BasicOcspResponse, OcspResponse, OcspResponseStatus};

use super::algorithm::SignatureAlgorithm;
use super::certificate::Certificate;
use super::issuer::Issuer;
use super::response::{ErrorStatus, ResponderId, ResponseError, SingleResponse};
use super::status::{CertStatus, CrlReason, Revocation};
use super::{CertId, request, tlv};
use crate::clock::UnixTime;

/// A successful response, taken apart. Nothing is verified yet.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who says to have signed.
    pub responder_id: ResponderId,
    /// When it was signed.
    pub produced_at: UnixTime,
    /// The statuses; those whose CertID is of an unknown hash are left out.
    pub responses: Vec<ReceivedSingle>,
    /// The nonce's octets, if one came back.
    pub nonce: Option<Vec<u8>>,
    /// Object identifiers of all responseExtensions, in order.
    pub extensions: Vec<String>,
    /// The certificates in `certs`, in DER.
    pub certificates: Vec<Vec<u8>>,
    /// The DER of the signature's AlgorithmIdentifier.
    pub signature_algorithm: Vec<u8>,
    response_data: Vec<u8>,
    signature: Vec<u8>,
}

/// One status as received: nextUpdate may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSingle {
    /// The certificate.
    pub cert_id: CertId,
    /// Its status.
    pub status: CertStatus,
    /// When the status was known to be correct.
    pub this_update: UnixTime,
    /// When newer information will be there.
    pub next_update: Option<UnixTime>,
    /// Whether a time carries a fraction of a second, which L8 forbids.
    pub has_fractions: bool,
    /// Object identifiers of all singleExtensions, in order.
    pub extensions: Vec<String>,
}

impl PartialEq<SingleResponse> for ReceivedSingle {
    fn eq(&self, other: &SingleResponse) -> bool {
        self.cert_id == other.cert_id
            && self.status == other.status
            && self.this_update == other.this_update
            && self.next_update == Some(other.next_update)
    }
}

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The algorithm is none of those known.
    #[error("its signature algorithm is not known here")]
    UnknownAlgorithm,
    /// No certificate in `certs`, nor the issuer's, fits the responderID.
    #[error("neither the issuer nor a certificate in `certs` has the responderID")]
    NoSigner,
    /// The signature does not verify.
    #[error("its signature does not verify")]
    Bad,
}

impl Received {
    /// Takes a response apart.
    ///
    /// # Errors
    /// [`ResponseError::Status`] when it carries an error status, [`ResponseError::Syntax`] when it
    /// is no basic OCSP response.
    pub fn decode(der: &[u8]) -> Result<Self, ResponseError> {
        let syntax = |error: rasn::error::DecodeError| ResponseError::Syntax(error.to_string());
        let response: OcspResponse = rasn::der::decode(der).map_err(syntax)?;
        if let Some(status) = error_status(response.status) {
            return Err(ResponseError::Status(status.name()));
        }
        let bytes = response.bytes.ok_or_else(|| ResponseError::Syntax("no responseBytes".to_owned()))?;
        let basic: BasicOcspResponse = rasn::der::decode(&bytes.response).map_err(syntax)?;
        let octets = || ResponseError::Syntax("BasicOCSPResponse is not strict DER".to_owned());
        let mut parts = tlv::Reader::new(tlv::only(&bytes.response, tlv::SEQUENCE).ok_or_else(octets)?);
        let response_data = parts.expect(tlv::SEQUENCE).ok_or_else(octets)?.whole.to_vec();
        let signature_algorithm = parts.expect(tlv::SEQUENCE).ok_or_else(octets)?.whole.to_vec();
        let signature = parts.expect(tlv::BIT_STRING).and_then(|bits| tlv::whole_octets(bits.content));
        let signature = signature.ok_or_else(octets)?.to_vec();
        let certificates =
            parts.expect(tlv::context(0)).and_then(|certs| tlv::only(certs.content, tlv::SEQUENCE));
        let certificates = certificates
            .map(tlv::Reader::new)
            .into_iter()
            .flatten()
            .map(|each| each.whole.to_vec())
            .collect();

        let data = basic.tbs_response_data;
        let extensions = data.response_extensions;
        let nonce =
            extensions.iter().flat_map(|all| all.iter()).find(|each| each.extn_id[..] == *request::NONCE);
        Ok(Self {
            responder_id: match data.responder_id {
                rasn_ocsp::ResponderId::ByKey(key) => ResponderId::ByKey(
                    key[..]
                        .try_into()
                        .map_err(|_| ResponseError::Syntax("byKey is not of 20 octets".to_owned()))?,
                ),
                rasn_ocsp::ResponderId::ByName(name) => ResponderId::ByName(
                    rasn::der::encode(&name).map_err(|error| ResponseError::Syntax(error.to_string()))?,
                ),
            },
            produced_at: data.produced_at.into(),
            responses: data.responses.iter().filter_map(ReceivedSingle::read).collect(),
            nonce: nonce.map(|nonce| {
                tlv::only(&nonce.extn_value, tlv::OCTET_STRING).unwrap_or(&nonce.extn_value).to_vec()
            }),
            extensions: extensions
                .iter()
                .flat_map(|all| all.iter())
                .map(|each| dotted(&each.extn_id))
                .collect(),
            certificates,
            signature_algorithm,
            response_data,
            signature,
        })
    }

    /// The status for this CertID.
    #[must_use]
    pub fn single(&self, cert_id: &CertId) -> Option<&ReceivedSingle> {
        self.responses.iter().find(|single| single.cert_id == *cert_id)
    }

    /// The certificate that the responderID names: the issuer's own or one of `certs`.
    #[must_use]
    pub fn signer(&self, issuer: &Issuer) -> Option<Certificate> {
        let included = self.certificates.iter().filter_map(|der| Certificate::from_der(der).ok());
        included.chain(std::iter::once(issuer.certificate().clone())).find(|candidate| {
            match &self.responder_id {
                ResponderId::ByKey(_) => ResponderId::by_key(candidate) == self.responder_id,
                ResponderId::ByName(name) => candidate.subject_name() == name,
            }
        })
    }

    /// Checks the signature over the ResponseData as received with the signer's key.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, signer: &Certificate) -> Result<SignatureAlgorithm, SignatureError> {
        let known = SignatureAlgorithm::ALL.into_iter().find(|known| {
            known.identifier_der() == self.signature_algorithm
                && signer.key_algorithm().is_some_and(|key| known.fits(key))
        });
        let algorithm = known.ok_or(SignatureError::UnknownAlgorithm)?;
        algorithm
            .verify(signer.public_key(), &self.response_data, &self.signature)
            .map(|()| algorithm)
            .map_err(|_| SignatureError::Bad)
    }
}

fn dotted(oid: &ObjectIdentifier) -> String {
    oid.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

fn error_status(status: OcspResponseStatus) -> Option<ErrorStatus> {
    match status {
        OcspResponseStatus::Successful => None,
        OcspResponseStatus::MalformedRequest => Some(ErrorStatus::MalformedRequest),
        OcspResponseStatus::InternalError => Some(ErrorStatus::InternalError),
        OcspResponseStatus::TryLater => Some(ErrorStatus::TryLater),
        OcspResponseStatus::SigRequired => Some(ErrorStatus::SigRequired),
        OcspResponseStatus::Unauthorized => Some(ErrorStatus::Unauthorized),
    }
}

impl ReceivedSingle {
    fn read(single: &rasn_ocsp::SingleResponse) -> Option<Self> {
        let whole = |time: &GeneralizedTime| time.timestamp_subsec_nanos() == 0;
        let mut has_fractions = !whole(&single.this_update) || !single.next_update.as_ref().is_none_or(whole);
        let status = match &single.cert_status {
            rasn_ocsp::CertStatus::Good => CertStatus::Good,
            rasn_ocsp::CertStatus::Unknown(()) => CertStatus::Unknown,
            rasn_ocsp::CertStatus::Revoked(info) => {
                has_fractions |= !whole(&info.revocation_time);
                CertStatus::Revoked(Revocation {
                    time: info.revocation_time.into(),
                    reason: info.revocation_reason.and_then(|reason| CrlReason::from_code(reason as u8)),
                })
            }
        };
        Some(Self {
            cert_id: CertId::try_from(&single.cert_id).ok()?,
            status,
            this_update: single.this_update.into(),
            next_update: single.next_update.map(UnixTime::from),
            has_fractions,
            extensions: single
                .single_extensions
                .iter()
                .flat_map(|all| all.iter())
                .map(|each| dotted(&each.extn_id))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::response::{ResponseData, SingleExtras, assemble};
    use super::super::{HashAlgorithm, KeyAlgorithm};
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SigningKey};

    #[test]
    fn what_was_assembled_is_taken_apart_and_verifies() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let issuer = Issuer::from_der(certificate.der()).unwrap();
        assert_eq!(issuer.certificate().key_algorithm(), Some(KeyAlgorithm::P256));
        let single = SingleResponse {
            cert_id: issuer.cert_id(HashAlgorithm::Sha256, "80".parse().unwrap()),
            status: CertStatus::Revoked(Revocation {
                time: UnixTime(1_700_000_000),
                reason: Some(CrlReason::CertificateHold),
            }),
            this_update: UnixTime(1_795_315_054),
            next_update: UnixTime(1_795_915_054),
            extras: SingleExtras::default(),
        };
        for responder_id in
            [ResponderId::by_key(issuer.certificate()), ResponderId::by_name(issuer.certificate())]
        {
            let data = ResponseData {
                responder_id: responder_id.clone(),
                produced_at: single.this_update,
                responses: vec![single.clone()],
                nonce: Some(vec![3; 16].into()),
                extended_revoke: false,
            };
            let data = data.encode().unwrap();
            let signature = key.sign(&data).unwrap();
            let der = assemble(
                &data,
                SignatureAlgorithm::EcdsaP256Sha256,
                &signature,
                Some(issuer.certificate().der()),
            );
            let received = Received::decode(&der).unwrap();
            assert_eq!(received.responder_id, responder_id);
            assert!(*received.single(&single.cert_id).unwrap() == single);
            assert_eq!(received.nonce.as_deref(), Some(&[3; 16][..]));
            assert_eq!(received.certificates, [issuer.certificate().der()]);
            let signer = received.signer(&issuer).unwrap();
            assert_eq!(received.verify(&signer), Ok(SignatureAlgorithm::EcdsaP256Sha256));

            let mut tampered = der.clone();
            let at = tampered.windows(20).position(|window| window == &data[data.len() - 20..]).unwrap();
            tampered[at + 19] ^= 1;
            assert_eq!(Received::decode(&tampered).unwrap().verify(&signer), Err(SignatureError::Bad));
        }
    }

    #[test]
    fn an_error_status_is_told_by_name() {
        let error = Received::decode(ErrorStatus::TryLater.der()).unwrap_err();
        assert_eq!(error, ResponseError::Status("tryLater"));
        assert!(matches!(Received::decode(b"<html>"), Err(ResponseError::Syntax(_))));
    }
}
