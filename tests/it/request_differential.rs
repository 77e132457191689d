//! Our decoding of requests against rasn-ocsp's, on requests written and altered at random.

use goodstanding::ocsp::{HashAlgorithm, tlv};
use proptest::bool::weighted;
use proptest::collection::{SizeRange, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::corpus::fuzz;

/// A request as the property below writes it: each part may be anything that fits, and some that does not.
#[derive(Clone, Debug)]
struct Written {
    version: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    asked: Vec<(CertIdParts, Option<Vec<ExtensionParts>>)>,
    extensions: Option<Vec<ExtensionParts>>,
    signature: bool,
}

type CertIdParts = (Vec<u8>, Option<Vec<u8>>, Vec<u8>, Vec<u8>, Vec<u8>);
type ExtensionParts = (Vec<u8>, Option<u8>, Vec<u8>);

const BOOLEAN: u8 = 0x01;

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv::value(tlv::SEQUENCE, &[&parts.concat()])
}

fn extension((oid, critical, value): &ExtensionParts) -> Vec<u8> {
    let critical = critical.map(|octet| tlv::value(BOOLEAN, &[&[octet]])).unwrap_or_default();
    sequence(&[tlv::value(tlv::OBJECT_IDENTIFIER, &[oid]), critical, tlv::value(tlv::OCTET_STRING, &[value])])
}

fn explicit(number: u8, extensions: Option<&Vec<ExtensionParts>>) -> Vec<u8> {
    let wrap = |list: &Vec<_>| {
        let list: Vec<_> = list.iter().map(extension).collect();
        tlv::value(tlv::context(number), &[&sequence(&list)])
    };
    extensions.map(wrap).unwrap_or_default()
}

impl Written {
    fn der(&self) -> Vec<u8> {
        let version = self.version.as_ref().map(|content| tlv::value(tlv::INTEGER, &[content]));
        let asked: Vec<_> = self
            .asked
            .iter()
            .map(|((hash, parameters, name, key, serial), extensions)| {
                let algorithm =
                    [tlv::value(tlv::OBJECT_IDENTIFIER, &[hash]), parameters.clone().unwrap_or_default()];
                let cert_id = sequence(&[
                    sequence(&algorithm),
                    tlv::value(tlv::OCTET_STRING, &[name]),
                    tlv::value(tlv::OCTET_STRING, &[key]),
                    tlv::value(tlv::INTEGER, &[serial]),
                ]);
                sequence(&[cert_id, explicit(0, extensions.as_ref())])
            })
            .collect();
        let tbs = sequence(&[
            version.map(|version| tlv::value(tlv::context(0), &[&version])).unwrap_or_default(),
            self.name.as_ref().map(|name| tlv::value(tlv::context(1), &[name])).unwrap_or_default(),
            sequence(&asked),
            explicit(2, self.extensions.as_ref()),
        ]);
        let signature = sequence(&[
            sequence(&[tlv::value(tlv::OBJECT_IDENTIFIER, &[b"\x2a\x86\x48\xce\x3d\x04\x03\x02"])]),
            tlv::bit_string(&[7; 64]),
        ]);
        let signature = tlv::value(tlv::context(0), &[&signature]);
        sequence(&[tbs, if self.signature { signature } else { Vec::new() }])
    }
}

fn octets(length: impl Into<SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), length)
}

fn oid_content() -> impl Strategy<Value = Vec<u8>> {
    let ours = |last: u8| Just([b"\x2b\x06\x01\x05\x05\x07\x30\x01", &[last][..]].concat());
    prop_oneof![3 => ours(2), 1 => ours(4), 1 => ours(7), 1 => ours(8), 2 => ours(9), 2 => octets(0..6)]
}

fn extension_parts() -> impl Strategy<Value = Vec<ExtensionParts>> {
    let nonce = prop_oneof![1usize..40, Just(0), 120usize..132]
        .prop_flat_map(octets)
        .prop_map(|nonce| tlv::value(tlv::OCTET_STRING, &[&nonce]));
    let value = prop_oneof![nonce, octets(0..20)];
    let critical =
        prop_oneof![4 => Just(None), 2 => Just(Some(0)), 2 => Just(Some(0xff)), 1 => Just(Some(1))];
    vec((oid_content(), critical, value), 0..4)
}

fn cert_id_parts() -> impl Strategy<Value = CertIdParts> {
    let known = select(&HashAlgorithm::ALL[..]).prop_flat_map(|hash| {
        let length = hash.length();
        (Just(hash.oid_content().to_vec()), octets(length), octets(length))
    });
    let odd = (octets(0..8), octets(0..70), octets(0..70));
    let parameters =
        prop_oneof![4 => Just(Some(vec![5, 0])), 4 => Just(None), 1 => octets(0..5).prop_map(Some)];
    let serial = prop_oneof![8 => octets(1..=20), 1 => octets(0..30), 1 => octets(0..3)];
    (prop_oneof![6 => known, 1 => odd], parameters, serial)
        .prop_map(|((hash, name, key), parameters, serial)| (hash, parameters, name, key, serial))
}

fn written() -> impl Strategy<Value = Written> {
    let version = prop_oneof![6 => Just(None), 2 => Just(Some(vec![0])), 1 => octets(0..3).prop_map(Some)];
    let name = prop_oneof![
        6 => Just(None),
        2 => Just(Some(b"\x86\x03a:b".to_vec())),
        1 => octets(0..8).prop_map(Some),
    ];
    let single = || (cert_id_parts(), prop_oneof![4 => Just(None), 1 => extension_parts().prop_map(Some)]);
    let asked = prop_oneof![8 => vec(single(), 1..3), 1 => vec(single(), 0..80)];
    let extensions = prop_oneof![Just(None), extension_parts().prop_map(Some)];
    (version, name, asked, extensions, weighted(0.1)).prop_map(
        |(version, name, asked, extensions, signature)| Written {
            version,
            name,
            asked,
            extensions,
            signature,
        },
    )
}

/// Cases of each property: 4,000, or what `DIFFERENTIAL_CASES` says for a longer run.
fn cases() -> u32 {
    std::env::var("DIFFERENTIAL_CASES").map_or(4_000, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// C7, C9, C10, C11, C12, N1, N2, N3, N4: what we read is what rasn-ocsp reads.
    #[test]
    fn written_requests_are_read_as_rasn_reads_them(request in written()) {
        fuzz::request(&request.der());
    }

    /// C1.
    #[test]
    fn altered_requests_are_read_as_rasn_reads_them(
        request in written(),
        edits in vec((any::<Index>(), any::<u8>(), 0u8..4), 1..4),
    ) {
        let mut der = request.der();
        for (at, octet, edit) in edits {
            let at = at.index(der.len());
            match edit {
                0 => der[at] = octet,
                1 => der[at] = der[at].wrapping_add(octet % 5).wrapping_sub(2),
                2 => der.insert(at, octet),
                _ => drop(der.remove(at)),
            }
            if der.is_empty() {
                break;
            }
        }
        fuzz::request(&der);
    }
}
