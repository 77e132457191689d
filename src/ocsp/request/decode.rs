//! The octets of a request, read where they stand: nothing is allocated but what is kept.

use super::{MAX_CERTIFICATES, MAX_EXTENSIONS, NONCE_CONTENT, Nonce, Request, RequestError, UNDERSTOOD};
use crate::ocsp::algorithm::HashAlgorithm;
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
    let nonce = match extensions {
        Some(extensions) => nonce(self::extensions(extensions)?)?,
        None => Nonce::Absent,
    };
    let mut cert_ids = Vec::with_capacity(count);
    let mut list = Reader::new(list);
    while !list.is_empty() {
        cert_ids.push(asked(list.expect(tlv::SEQUENCE).ok_or(missing("Request"))?)?);
    }
    Ok(Request { cert_ids, nonce })
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

/// Reads the SEQUENCE of extensions, one at least (RFC 5280 section 4.1), within an explicit tag. An unknown critical extension, or any
/// extension twice, is refused (C12). Returns the nonce's value.
fn extensions(wrapped: Tlv<'_>) -> Result<Option<&[u8]>, RequestError> {
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
    Ok(found[..count].iter().find(|extension| extension.oid == NONCE_CONTENT).map(|nonce| nonce.value))
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
