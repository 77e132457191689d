//! The octets of a request, read where they stand: nothing is allocated but what is kept.

use super::{
    MAX_CERTIFICATES, MAX_EXTENSIONS, NONCE_CONTENT, Nonce, PREFERRED_CONTENT, Request, RequestError,
    UNDERSTOOD,
};
use crate::ocsp::algorithm::{HashAlgorithm, SignatureAlgorithm};
use crate::ocsp::cert_id::{CertId, CertIdError};
use crate::ocsp::oid;
use crate::ocsp::serial::Serial;
use crate::ocsp::tlv::{self, Reader, Tlv};

const BOOLEAN: u8 = 0x01;

/// Reads an OCSPRequest.
pub(super) fn request(der: &[u8]) -> Result<Request, RequestError> {
    let missing = RequestError::Syntax;
    let mut outer = Reader::new(tlv::only(der, tlv::SEQUENCE).ok_or(missing("OCSPRequest"))?);
    let mut tbs = Reader::new(outer.expect(tlv::SEQUENCE).ok_or(missing("TBSRequest"))?.content);
    if let Some(signature) = outer.expect(tlv::context(0)) {
        is_signature(signature.content).ok_or(missing("Signature"))?;
    }
    if !outer.is_empty() {
        return Err(missing("end of OCSPRequest"));
    }
    let version = tbs.expect(tlv::context(0));
    if let Some(name) = tbs.expect(tlv::context(1)) {
        single(name.content).ok_or(missing("requestorName"))?;
    }
    let list = tbs.expect(tlv::SEQUENCE).ok_or(missing("requestList"))?.content;
    let extensions = tbs.expect(tlv::context(2));
    if !tbs.is_empty() {
        return Err(missing("end of TBSRequest"));
    }
    if let Some(version) = version
        && tlv::only(version.content, tlv::INTEGER).ok_or(missing("version"))? != [0]
    {
        return Err(RequestError::Version);
    }

    let count = Reader::new(list).count();
    if !(1..=MAX_CERTIFICATES).contains(&count) {
        return Err(RequestError::Count(count));
    }
    let (mut nonce, mut preferred) = (Nonce::Absent, Vec::new());
    if let Some(extensions) = extensions {
        let found = self::extensions(extensions)?;
        nonce = self::nonce(found.value(NONCE_CONTENT))?;
        preferred = found.value(PREFERRED_CONTENT).map(preferred_algorithms).unwrap_or_default();
    }
    let mut cert_ids = Vec::with_capacity(count);
    let mut list = Reader::new(list);
    while !list.is_empty() {
        cert_ids.push(asked(list.expect(tlv::SEQUENCE).ok_or(missing("Request"))?)?);
    }
    Ok(Request { cert_ids, nonce, preferred })
}

/// Whether there is one value and nothing more.
fn single(content: &[u8]) -> Option<Tlv<'_>> {
    let mut reader = Reader::new(content);
    reader.next().filter(|_| reader.is_empty())
}

/// Looks at the frame of a Signature only: it is not verified (L1).
fn is_signature(content: &[u8]) -> Option<()> {
    let mut fields = Reader::new(tlv::only(content, tlv::SEQUENCE)?);
    fields.expect(tlv::SEQUENCE)?;
    fields.expect(tlv::BIT_STRING)?;
    if let Some(certificates) = fields.expect(tlv::context(0)) {
        tlv::only(certificates.content, tlv::SEQUENCE)?;
    }
    fields.is_empty().then_some(())
}

/// Reads a Request. Its extensions say nothing to us, but they are held to the rules (C12).
fn asked(request: Tlv<'_>) -> Result<Result<CertId, CertIdError>, RequestError> {
    let mut fields = Reader::new(request.content);
    let cert_id = fields.expect(tlv::SEQUENCE).and_then(|cert_id| self::cert_id(cert_id.content));
    let cert_id = cert_id.ok_or(RequestError::Syntax("CertID"))?;
    if let Some(extensions) = fields.expect(tlv::context(0)) {
        self::extensions(extensions)?;
    }
    if fields.is_empty() { Ok(cert_id) } else { Err(RequestError::Syntax("end of Request")) }
}

/// Reads a CertID: none when it is not one, an error in it when it cannot be looked up.
fn cert_id(content: &[u8]) -> Option<Result<CertId, CertIdError>> {
    let mut fields = Reader::new(content);
    let mut algorithm = Reader::new(fields.expect(tlv::SEQUENCE)?.content);
    let name_hash = fields.expect(tlv::OCTET_STRING)?.content;
    let key_hash = fields.expect(tlv::OCTET_STRING)?.content;
    let serial =
        fields.expect(tlv::INTEGER).filter(|serial| fields.is_empty() && !serial.content.is_empty())?;
    let identifier = algorithm.expect(tlv::OBJECT_IDENTIFIER)?.content;
    // Parameters are NULL or absent (C9); what else may stand there makes no other digest.
    if !algorithm.is_empty() {
        algorithm.next().filter(|_| algorithm.is_empty())?;
    }
    let Some(hash) = HashAlgorithm::from_oid_content(identifier) else {
        let unknown = || Err(CertIdError::UnknownHash(oid::dotted(identifier)));
        return oid::is_oid(identifier).then(unknown);
    };
    for digest in [name_hash, key_hash] {
        if digest.len() != hash.length() {
            return Some(Err(CertIdError::DigestLength { hash, found: digest.len() }));
        }
    }
    Some(Serial::from_der_content(serial.content).map_err(CertIdError::Serial).map(|serial| CertId {
        hash,
        issuer_name_hash: name_hash.into(),
        issuer_key_hash: key_hash.into(),
        serial,
    }))
}

/// One extension.
#[derive(Clone, Copy, Default)]
struct Extension<'a> {
    oid: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

/// The extensions of one place.
struct Extensions<'a> {
    found: [Extension<'a>; MAX_EXTENSIONS],
    count: usize,
}

impl<'a> Extensions<'a> {
    fn value(&self, oid: &[u8]) -> Option<&'a [u8]> {
        self.found[..self.count].iter().find(|extension| extension.oid == oid).map(|found| found.value)
    }
}

/// Reads the SEQUENCE of extensions, one at least (RFC 5280 section 4.1), within an explicit tag. An unknown critical extension, or any
/// extension twice, is refused (C12).
fn extensions(wrapped: Tlv<'_>) -> Result<Extensions<'_>, RequestError> {
    let missing = RequestError::Syntax;
    let list = tlv::only(wrapped.content, tlv::SEQUENCE).filter(|list| !list.is_empty());
    let mut list = Reader::new(list.ok_or(missing("Extensions"))?);
    let mut found = [Extension::default(); MAX_EXTENSIONS];
    let mut count = 0;
    while !list.is_empty() {
        let extension = list.expect(tlv::SEQUENCE).and_then(|whole| self::extension(whole.content));
        let extension = extension.ok_or(missing("Extension"))?;
        if found[..count].iter().any(|earlier| earlier.oid == extension.oid) {
            return Err(RequestError::DuplicateExtension(oid::dotted(extension.oid)));
        }
        if extension.critical && !UNDERSTOOD.contains(&extension.oid) {
            return Err(RequestError::CriticalExtension(oid::dotted(extension.oid)));
        }
        *found.get_mut(count).ok_or(RequestError::Extensions)? = extension;
        count += 1;
    }
    Ok(Extensions { found, count })
}

fn extension(content: &[u8]) -> Option<Extension<'_>> {
    let mut fields = Reader::new(content);
    let oid = fields.expect(tlv::OBJECT_IDENTIFIER)?.content;
    let critical = match fields.expect(BOOLEAN).map(|critical| critical.content) {
        // FALSE is the default and not written in DER, but some write it.
        None | Some([0x00]) => false,
        Some([0xff]) => true,
        Some(_) => return None,
    };
    let value = fields.expect(tlv::OCTET_STRING)?.content;
    (fields.is_empty() && oid::is_oid(oid)).then_some(Extension { oid, critical, value })
}

/// Reads an extnValue: an OCTET STRING holding the nonce; the length that counts is the inner one.
/// Clients of before RFC 6960 put raw octets there; those are answered without a nonce.
fn nonce(value: Option<&[u8]>) -> Result<Nonce, RequestError> {
    let Some(value) = value else { return Ok(Nonce::Absent) };
    let inner = tlv::only(value, tlv::OCTET_STRING);
    match inner.unwrap_or(value).len() {
        length @ (0 | 129..) => Err(RequestError::NonceLength(length)),
        16..=32 => Ok(inner.map_or(Nonce::Absent, |nonce| Nonce::Given(nonce.to_vec().into()))),
        _ => Ok(Nonce::Absent),
    }
}

/// Reads an extnValue: PreferredSignatureAlgorithms (RFC 6960 section 4.4.7.1). It is a wish, so what
/// does not read as one is none.
pub fn preferred_algorithms(value: &[u8]) -> Vec<SignatureAlgorithm> {
    let mut preferred = Vec::new();
    let mut list = Reader::new(tlv::only(value, tlv::SEQUENCE).unwrap_or_default());
    while let Some(entry) = list.expect(tlv::SEQUENCE) {
        let mut fields = Reader::new(entry.content);
        let Some(identifier) = fields.expect(tlv::SEQUENCE) else { continue };
        let Some(algorithm) = SignatureAlgorithm::from_identifier_der(identifier.whole) else { continue };
        let key = fields.expect(tlv::SEQUENCE);
        if key.is_none_or(|key| is_key_for(algorithm, key.content)) && !preferred.contains(&algorithm) {
            preferred.push(algorithm);
        }
    }
    preferred
}

/// Whether an AlgorithmIdentifier of a public key is that of the keys which sign so here.
fn is_key_for(algorithm: SignatureAlgorithm, content: &[u8]) -> bool {
    const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    const RSA_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
    const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const P384: &[u8] = b"\x2b\x81\x04\x00\x22";
    const ED25519: &[u8] = b"\x2b\x65\x70";
    let mut fields = Reader::new(content);
    let Some(kind) = fields.expect(tlv::OBJECT_IDENTIFIER).map(|oid| oid.content) else { return false };
    let on = |curve: &[u8]| {
        let named = fields.clone().expect(tlv::OBJECT_IDENTIFIER).map(|oid| oid.content);
        kind == EC && (fields.is_empty() || named == Some(curve))
    };
    match algorithm {
        SignatureAlgorithm::RsaPkcs1Sha256 => kind == RSA,
        SignatureAlgorithm::RsaPssSha256 => kind == RSA || kind == RSA_PSS,
        SignatureAlgorithm::EcdsaP256Sha256 => on(P256),
        SignatureAlgorithm::EcdsaP384Sha384 => on(P384),
        SignatureAlgorithm::Ed25519 => kind == ED25519,
    }
}
