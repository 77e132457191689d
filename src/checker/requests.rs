//! Requests written octet by octet, so that any of their variants can be asked.

use crate::ocsp::{CertId, tlv};

/// id-pkix-ocsp-nonce.
pub(super) const NONCE: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01\x02";
/// id-pkix-ocsp-pref-sig-algs.
pub(super) const PREFERRED_ALGORITHMS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x30\x01\x08";
/// 1.3.6.1.4.1.32473.1, of the enterprise that is nobody (RFC 5612).
pub(super) const NOBODYS: &[u8] = b"\x2b\x06\x01\x04\x01\x81\xfd\x59\x01";
/// PreferredSignatureAlgorithms with sha1WithRSAEncryption and ecdsa-with-SHA1.
pub(super) const PREFER_SHA1: &[u8] =
    b"\x30\x1e\x30\x0f\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00\x30\x0b\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01";

/// Whether a CertID's hash algorithm carries NULL or nothing as its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    Null,
    Absent,
}

/// A CertID in DER.
pub(super) fn cert_id(cert_id: &CertId, parameters: Parameters) -> Vec<u8> {
    let oid = tlv::value(tlv::OBJECT_IDENTIFIER, &[cert_id.hash.oid_content()]);
    let null: &[u8] = if parameters == Parameters::Null { &[tlv::NULL, 0] } else { &[] };
    let algorithm = tlv::value(tlv::SEQUENCE, &[&oid, null]);
    let name = tlv::value(tlv::OCTET_STRING, &[&cert_id.issuer_name_hash]);
    let key = tlv::value(tlv::OCTET_STRING, &[&cert_id.issuer_key_hash]);
    let serial = tlv::value(tlv::INTEGER, &[cert_id.serial.as_der_content()]);
    tlv::value(tlv::SEQUENCE, &[&algorithm, &name, &key, &serial])
}

/// An Extension in DER.
pub(super) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let oid = tlv::value(tlv::OBJECT_IDENTIFIER, &[oid]);
    let critical: &[u8] = if critical { b"\x01\x01\xff" } else { &[] };
    tlv::value(tlv::SEQUENCE, &[&oid, critical, &tlv::value(tlv::OCTET_STRING, &[value])])
}

/// The nonce extension.
pub(super) fn nonce(octets: &[u8]) -> Vec<u8> {
    extension(NONCE, false, &tlv::value(tlv::OCTET_STRING, &[octets]))
}

/// An OCSPRequest about these CertIDs with these extensions.
pub(super) fn request(cert_ids: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<u8> {
    with_requestor(None, cert_ids, extensions)
}

/// [`request`] with a directoryName, given in DER, as its requestorName.
pub(super) fn with_requestor(name: Option<&[u8]>, cert_ids: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<u8> {
    let requestor = name.map(|name| tlv::value(tlv::context(1), &[&tlv::value(tlv::context(4), &[name])]));
    let requests: Vec<u8> =
        cert_ids.iter().flat_map(|cert_id| tlv::value(tlv::SEQUENCE, &[cert_id])).collect();
    let list = tlv::value(tlv::SEQUENCE, &[&requests]);
    let extensions = if extensions.is_empty() {
        Vec::new()
    } else {
        tlv::value(tlv::context(2), &[&tlv::value(tlv::SEQUENCE, &[&extensions.concat()])])
    };
    let tbs = tlv::value(tlv::SEQUENCE, &[&requestor.unwrap_or_default(), &list, &extensions]);
    tlv::value(tlv::SEQUENCE, &[&tbs])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ocsp::request::Nonce;
    use crate::ocsp::{HashAlgorithm, Request, request};

    #[test]
    fn what_is_written_here_reads_as_a_request() {
        let asked = HashAlgorithm::ALL.map(|hash| CertId {
            hash,
            issuer_name_hash: vec![1; hash.length()].into(),
            issuer_key_hash: vec![2; hash.length()].into(),
            serial: "80".parse().unwrap(),
        });
        let der = |parameters| asked.each_ref().map(|each| cert_id(each, parameters));
        assert_eq!(super::request(&der(Parameters::Null), &[]), request::encode(&asked, None).unwrap());
        let everything = [
            nonce(&[7; 16]),
            extension(PREFERRED_ALGORITHMS, false, PREFER_SHA1),
            extension(NOBODYS, false, b"x"),
        ];
        let der = with_requestor(Some(&[0x30, 0]), &der(Parameters::Absent), &everything);
        let read = Request::decode(&der).unwrap();
        assert_eq!(read.cert_ids, asked.map(Ok));
        assert_eq!(read.nonce, Nonce::Given(vec![7; 16].into()));
    }
}
