//! ECDSA signatures: r‖s as tokens give them, and the SEQUENCE of two INTEGERs that goes over the wire
//! (RFC 3279 section 2.2.3).

use smallvec::SmallVec;

use super::tlv;

/// The widest order of a curve that is used here, P-384's, in octets. Every length in the DER of its
/// signatures takes the short form.
const WIDEST: usize = 48;

/// `SEQUENCE { r INTEGER, s INTEGER }` from r‖s, each half as wide as the curve's order.
#[must_use]
pub fn der(plain: &[u8]) -> SmallVec<[u8; 512]> {
    debug_assert!(plain.len() <= 2 * WIDEST);
    let (r, s) = plain.split_at(plain.len() / 2);
    let [r, s] = [r, s].map(|integer| {
        let zeros = integer.iter().take_while(|octet| **octet == 0).count();
        // Zero itself keeps one octet.
        &integer[zeros.min(integer.len().saturating_sub(1))..]
    });
    let pad = |integer: &[u8]| usize::from(integer.first().is_some_and(|octet| octet & 0x80 != 0));
    let lengths = [r, s].map(|integer| integer.len() + pad(integer));
    let whole: usize = lengths.iter().map(|length| length + 2).sum();
    let mut out = SmallVec::new();
    out.extend_from_slice(&[tlv::SEQUENCE, whole as u8]);
    for (integer, length) in [r, s].into_iter().zip(lengths) {
        out.extend_from_slice(&[tlv::INTEGER, length as u8]);
        out.extend(std::iter::repeat_n(0, pad(integer)));
        out.extend_from_slice(integer);
    }
    out
}

/// r‖s, each as wide as P-256 or P-384 has it, from a SEQUENCE that [`der()`] writes the same way; none for
/// any other octets.
#[must_use]
pub fn plain(signature: &[u8]) -> Option<SmallVec<[u8; 2 * WIDEST]>> {
    let mut integers = tlv::Reader::new(tlv::only(signature, tlv::SEQUENCE)?);
    let integers = [integers.expect(tlv::INTEGER)?.content, integers.expect(tlv::INTEGER)?.content];
    let integers = integers.map(|content| content.strip_prefix(&[0]).unwrap_or(content));
    let longest = integers.iter().map(|integer| integer.len()).max()?;
    let width = if longest <= 32 { 32 } else { WIDEST };
    let mut out = SmallVec::new();
    for integer in integers {
        out.extend(std::iter::repeat_n(0, width.checked_sub(integer.len())?));
        out.extend_from_slice(integer);
    }
    (der(&out)[..] == *signature).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_minimal_and_positive() {
        let mut signature = vec![0; 64];
        signature[31] = 0x7f;
        signature[32] = 0x80;
        let der = der(&signature);
        assert_eq!(der[..6], [0x30, 38, 0x02, 1, 0x7f, 0x02]);
        assert_eq!(der[6..9], [33, 0, 0x80]);
        assert_eq!(super::der(&[0; 64])[..], [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(super::der(&[0xff; 96]).len(), 104);
    }

    #[test]
    fn what_would_not_come_out_the_same_is_not_made_plain() {
        for signature in [
            &[][..],
            &[0x30, 0],
            &[0x30, 7, 2, 2, 0, 1, 2, 1, 1],
            &[0x30, 6, 2, 1, 0x80, 2, 1, 1],
            &[0x30, 6, 2, 1, 1, 2, 1, 1, 0],
            &[0x30, 8, 2, 1, 1, 2, 1, 1, 5, 0],
            &tlv::value(tlv::SEQUENCE, &[&tlv::value(tlv::INTEGER, &[&[1; 49]]), &[2, 1, 1]]),
        ] {
            assert_eq!(plain(signature), None, "{signature:02x?}");
        }
    }

    proptest! {
        #[test]
        fn a_signature_survives_both_ways(
            (r, s) in prop_oneof![Just(32usize), Just(48)].prop_flat_map(|width| {
                let half = || proptest::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(0)], width);
                (half(), half())
            })
        ) {
            let signature = der(&[&r[..], &s].concat());
            let again = plain(&signature).map(|plain| der(&plain));
            prop_assert_eq!(again.as_deref(), Some(&signature[..]));
        }
    }
}
