//! Questions to a running server, written octet by octet where a client would not.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use goodstanding::ocsp::{CertId, Certificate, HashAlgorithm, Issuer, Received, Serial, request, tlv};

use crate::support::ca::Leaf;
use crate::support::eventually;
use crate::support::http::{self, Reply};
use crate::support::site::Site;

/// unauthorized.
pub(crate) const UNAUTHORIZED: &[u8] = &[0x30, 3, 0x0a, 1, 6];

/// tryLater.
pub(crate) const TRY_LATER: &[u8] = &[0x30, 3, 0x0a, 1, 3];

/// Asks a site's server about its authority's certificates.
pub(crate) struct Asker {
    pub(crate) issuer: Issuer,
    port: u16,
}

impl Asker {
    pub(crate) fn new(site: &Site) -> Self {
        Self::at(site, site.ocsp)
    }

    /// Asks by way of another port.
    pub(crate) fn at(site: &Site, port: u16) -> Self {
        Self { issuer: Issuer::new(certificate(&site.ca.certificate())), port }
    }

    /// Asks an authority's responder.
    pub(crate) fn of(issuer: Issuer, port: u16) -> Self {
        Self { issuer, port }
    }

    /// The port that it asks.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the token signs: the server is ready as soon as what is stored can be served.
    pub(crate) fn until_live(self, known: Serial) -> Self {
        let asked = request::encode(&[self.cert_id(HashAlgorithm::Sha512, known)], None).unwrap();
        eventually("a live answer", Duration::from_secs(20), || {
            (self.post(&asked).body != TRY_LATER).then_some(())
        });
        self
    }

    pub(crate) fn cert_id(&self, hash: HashAlgorithm, serial: Serial) -> CertId {
        self.issuer.cert_id(hash, serial)
    }

    /// POST of any octets; HTTP 200 is taken for granted.
    pub(crate) fn post(&self, request: &[u8]) -> Reply {
        let reply = http::post(self.port, request).unwrap();
        assert_eq!(reply.status, 200);
        reply
    }

    /// GET of the same.
    pub(crate) fn get(&self, request: &[u8]) -> Reply {
        let reply = http::get(self.port, &format!("/{}", STANDARD.encode(request))).unwrap();
        assert_eq!(reply.status, 200);
        reply
    }

    /// The answer about these CertIDs, its signature verified.
    pub(crate) fn answer(&self, cert_ids: &[CertId], nonce: Option<&[u8]>) -> Received {
        self.read(&self.post(&request::encode(cert_ids, nonce).unwrap()).body)
    }

    /// An answer, its signature verified.
    pub(crate) fn read(&self, der: &[u8]) -> Received {
        let received = Received::decode(der).unwrap_or_else(|error| panic!("{error}: {der:02x?}"));
        received.verify(&received.signer(&self.issuer).unwrap()).unwrap();
        received
    }
}

/// The serial number of a certificate.
pub(crate) fn serial(leaf: &Leaf) -> Serial {
    leaf.serial.parse().unwrap()
}

/// A certificate in a PEM file.
pub(crate) fn certificate(path: &std::path::Path) -> Certificate {
    let pem = pem::parse(std::fs::read(path).unwrap()).unwrap();
    Certificate::from_der(pem.contents()).unwrap()
}

/// A random positive serial number of 160 bits.
pub(crate) fn random_serial() -> Serial {
    use std::hash::{BuildHasher, RandomState};
    let octets = (0..3).flat_map(|at| RandomState::new().hash_one(at).to_be_bytes());
    let mut octets: Vec<u8> = octets.take(20).collect();
    octets[0] = octets[0] & 0x7f | 0x40;
    Serial::from_unsigned(&octets).unwrap()
}

/// A request about one certificate with extensions, given in DER, of the request and of its only
/// entry; `before` stands before the list, `after` behind everything that a signature covers.
pub(crate) fn written(cert_id: &CertId, [before, single, whole, after]: [&[u8]; 4]) -> Vec<u8> {
    let plain = request::encode(std::slice::from_ref(cert_id), None).unwrap();
    let cert_id = tlv::only(&plain, tlv::SEQUENCE)
        .and_then(|request| tlv::only(request, tlv::SEQUENCE))
        .and_then(|tbs| tlv::only(tbs, tlv::SEQUENCE))
        .and_then(|list| tlv::only(list, tlv::SEQUENCE))
        .unwrap();
    let extensions = |extensions: &[u8], tag| {
        if extensions.is_empty() {
            Vec::new()
        } else {
            tlv::value(tlv::context(tag), &[&tlv::value(tlv::SEQUENCE, &[extensions])])
        }
    };
    let entry = tlv::value(tlv::SEQUENCE, &[cert_id, &extensions(single, 0)]);
    let list = tlv::value(tlv::SEQUENCE, &[&entry]);
    let tbs = tlv::value(tlv::SEQUENCE, &[before, &list, &extensions(whole, 2)]);
    tlv::value(tlv::SEQUENCE, &[&tbs, after])
}

/// An Extension in DER that is not critical; `arc` is the last of 1.3.6.1.5.5.7.48.1.
pub(crate) fn extension(arc: u8, value: &[u8]) -> Vec<u8> {
    let oid = [&b"\x2b\x06\x01\x05\x05\x07\x30\x01"[..], &[arc]].concat();
    let oid = tlv::value(tlv::OBJECT_IDENTIFIER, &[&oid]);
    tlv::value(tlv::SEQUENCE, &[&oid, &tlv::value(tlv::OCTET_STRING, &[value])])
}
