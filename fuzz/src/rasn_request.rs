//! Requests as rasn-ocsp decodes them: what our own decoder is held against.

use goodstanding::ocsp::cert_id::{CertId, CertIdError};
use goodstanding::ocsp::request::{
    MAX_CERTIFICATES, MAX_EXTENSIONS, MAX_OCTETS, Nonce, preferred_algorithms,
};
use goodstanding::ocsp::{Request, tlv};
use rasn_ocsp::OcspRequest;
use rasn_pkix::Extensions;

/// Where our decoder and the one on rasn-ocsp part on purpose; anything else that differs is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// We refuse what is no DER (X.690 section 10), a length that is not the shortest for example;
    /// rasn reads some of it. Serial numbers with redundant octets are the exception: we read them.
    NotDer,
    /// We refuse a tag of several octets, which no request has; rasn reads it where anything may stand,
    /// in the parameters of a hash.
    LongTag,
    /// We refuse more than [`MAX_EXTENSIONS`] extensions in one place.
    ManyExtensions,
    /// We skip the requestor's name and the request's signature, which change no answer (L1); rasn
    /// refuses the request when something in them is wrong.
    Skipped,
}

/// Decodes both ways.
///
/// # Panics
/// When the results differ otherwise than by a [`Difference`].
pub fn compare(der: &[u8]) -> Option<Difference> {
    let (ours, rasns) = (Request::decode(der), decode(der));
    match (&ours, &rasns) {
        (Ok(ours), Ok(rasns)) => assert_eq!(ours, rasns, "{der:02x?}"),
        (Ok(ours), Err(why)) => {
            let bare = without_the_skipped(der).unwrap_or_default();
            let rasns = decode(&bare);
            assert!(bare != der && rasns.as_ref() == Ok(ours), "{ours:?}, rasn: {why}, {der:02x?}");
            return Some(Difference::Skipped);
        }
        (Err(why), Ok(_)) => {
            let difference = excuse(der);
            assert!(difference.is_some(), "{why:?}, but rasn reads it: {der:02x?}");
            return difference;
        }
        (Err(_), Err(_)) => {}
    }
    None
}

/// Why we may refuse what rasn reads.
fn excuse(der: &[u8]) -> Option<Difference> {
    let request: OcspRequest = rasn::der::decode(der).ok()?;
    let lists = request.tbs_request.request_list.iter().map(|single| &single.single_request_extensions);
    let mut lists = lists.chain([&request.tbs_request.request_extensions]).flatten();
    let parameters = |single: &rasn_ocsp::Request| single.req_cert.hash_algorithm.parameters.clone();
    let parameters: Vec<_> = request.tbs_request.request_list.iter().filter_map(parameters).collect();
    if rasn::der::encode(&request).ok()? != der {
        Some(Difference::NotDer)
    } else if lists.any(|list| list.len() > MAX_EXTENSIONS) {
        Some(Difference::ManyExtensions)
    } else if parameters.iter().any(|any| any.as_bytes().first().is_some_and(|tag| tag & 0x1f == 0x1f)) {
        Some(Difference::LongTag)
    } else if parameters.iter().any(|any| tlv::Reader::new(any.as_bytes()).next().is_none()) {
        // rasn keeps these octets as they are, and writes them so.
        Some(Difference::NotDer)
    } else {
        None
    }
}

/// The same request without a requestor's name and a signature.
fn without_the_skipped(der: &[u8]) -> Option<Vec<u8>> {
    let tbs = tlv::Reader::new(tlv::only(der, tlv::SEQUENCE)?).expect(tlv::SEQUENCE)?;
    let kept: Vec<&[u8]> = tlv::Reader::new(tbs.content)
        .filter(|field| field.tag != tlv::context(1))
        .map(|field| field.whole)
        .collect();
    Some(tlv::value(tlv::SEQUENCE, &[&tlv::value(tlv::SEQUENCE, &kept)]))
}

const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];

/// Nonce, acceptable responses, service locator, preferred signature algorithms.
const UNDERSTOOD: [&[u32]; 4] = [
    NONCE,
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 4],
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 7],
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 8],
];

/// Decodes a request with rasn-ocsp, and says why it is refused.
pub fn decode(der: &[u8]) -> Result<Request, String> {
    if der.len() > MAX_OCTETS {
        return Err(format!("{} octets", der.len()));
    }
    let request: OcspRequest = rasn::der::decode(der).map_err(|error| error.to_string())?;
    let tbs = request.tbs_request;
    if tbs.version != rasn::types::Integer::ZERO {
        return Err("the version".to_owned());
    }
    if !(1..=MAX_CERTIFICATES).contains(&tbs.request_list.len()) {
        return Err(format!("{} certificates", tbs.request_list.len()));
    }
    let mut nonce = Nonce::Absent;
    let mut preferred = Vec::new();
    if let Some(extensions) = &tbs.request_extensions {
        check(extensions)?;
        if let Some(found) = extensions.iter().find(|extension| extension.extn_id[..] == *NONCE) {
            nonce = read_nonce(&found.extn_value)?;
        }
        let wish = extensions.iter().find(|extension| extension.extn_id[..] == *UNDERSTOOD[3]);
        // rasn-ocsp has no type for it.
        preferred = wish.map(|wish| preferred_algorithms(&wish.extn_value)).unwrap_or_default();
    }
    tbs.request_list
        .iter()
        .filter_map(|single| single.single_request_extensions.as_ref())
        .try_for_each(check)?;
    let cert_ids = tbs.request_list.iter().map(|single| CertId::try_from(&single.req_cert));
    Ok(Request { cert_ids: cert_ids.collect::<Vec<Result<CertId, CertIdError>>>(), nonce, preferred })
}

fn read_nonce(value: &[u8]) -> Result<Nonce, String> {
    let inner = tlv::only(value, tlv::OCTET_STRING);
    match inner.unwrap_or(value).len() {
        0 | 129.. => Err("the nonce".to_owned()),
        16..=32 => Ok(inner.map_or(Nonce::Absent, |nonce| Nonce::Given(nonce.to_vec().into()))),
        _ => Ok(Nonce::Absent),
    }
}

fn check(extensions: &Extensions) -> Result<(), String> {
    for (at, extension) in extensions.iter().enumerate() {
        if extensions[..at].iter().any(|earlier| earlier.extn_id == extension.extn_id) {
            return Err(format!("{} twice", extension.extn_id));
        }
        if extension.critical && !UNDERSTOOD.contains(&&extension.extn_id[..]) {
            return Err(format!("{} critical", extension.extn_id));
        }
    }
    Ok(())
}
