//! Object identifiers as they stand in DER (X.690 section 8.19): compared by their content octets.

use std::fmt::Write;

/// Whether these are the content octets of an object identifier: whole arcs in the shortest form, each
/// below 2³².
#[must_use]
pub fn is_oid(content: &[u8]) -> bool {
    content.last().is_some_and(|octet| octet & 0x80 == 0) && arcs(content).all(|arc| arc.is_some())
}

/// The dotted decimal form, for messages; arcs that are none are left out.
#[must_use]
pub fn dotted(content: &[u8]) -> String {
    let mut arcs = arcs(content).flatten();
    // The first number holds two arcs, the first of which is 0, 1 or 2.
    let root = arcs.next().unwrap_or_default();
    let first = (root / 40).min(2);
    let mut text = format!("{first}.{}", root - first * 40);
    for arc in arcs {
        // Writing to a String does not fail.
        let _ = write!(text, ".{arc}");
    }
    text
}

/// The numbers; none for one with a leading zero, or one of 2³² or more.
fn arcs(content: &[u8]) -> impl Iterator<Item = Option<u32>> {
    content.split_inclusive(|octet| octet & 0x80 == 0).map(|octets| {
        let plain = octets.first().is_some_and(|octet| *octet != 0x80) && octets.len() <= 5;
        let number = octets.iter().fold(0u64, |number, octet| number << 7 | u64::from(octet & 0x7f));
        plain.then_some(number).and_then(|number| u32::try_from(number).ok())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rasn::types::ObjectIdentifier;

    use super::*;
    use crate::ocsp::tlv;

    #[test]
    fn what_is_no_identifier_is_told() {
        for content in [&b""[..], b"\x80", b"\x2a\x86", b"\x2a\x80\x01", b"\x2a\x90\x80\x80\x80\x00"] {
            assert!(!is_oid(content), "{content:02x?}");
        }
        assert!(is_oid(b"\x2a\x8f\xff\xff\xff\x7f"));
    }

    proptest! {
        #[test]
        fn identifiers_read_as_rasn_writes_them(
            first in 0u32..3,
            second in 0u32..40,
            rest in proptest::collection::vec(any::<u32>(), 0..12),
        ) {
            let arcs: Vec<u32> = [first, second].into_iter().chain(rest).collect();
            let oid = ObjectIdentifier::new(arcs).unwrap();
            let der = rasn::der::encode(&oid).unwrap();
            let content = tlv::only(&der, tlv::OBJECT_IDENTIFIER).unwrap();
            prop_assert!(is_oid(content));
            prop_assert_eq!(dotted(content), oid.to_string());
        }
    }
}
