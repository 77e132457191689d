//! Tag, length, value: just enough DER to slice what was signed and to write what is sent without
//! touching a single octet of it. Everything with structure goes through rasn or x509-cert.

/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// NULL.
pub const NULL: u8 = 0x05;
/// OBJECT IDENTIFIER.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;
/// SEQUENCE and SEQUENCE OF.
pub const SEQUENCE: u8 = 0x30;
/// IA5String.
pub const IA5_STRING: u8 = 0x16;
/// GeneralizedTime.
pub const GENERALIZED_TIME: u8 = 0x18;

/// The bit of a tag whose value consists of values.
const CONSTRUCTED: u8 = 0x20;

/// The tag `[number]` of a constructed (explicitly tagged) value; `number` below 31.
#[must_use]
pub const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One value as it stands in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The tag octet.
    pub tag: u8,
    /// The content octets.
    pub content: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
}

/// Reads values one after the other. Lengths must be in DER's shortest definite form.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next value if it has this tag; otherwise nothing is read.
    pub fn expect(&mut self, tag: u8) -> Option<Tlv<'a>> {
        if self.0.first() == Some(&tag) { self.next() } else { None }
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Tlv<'a>;

    /// None at the end, or where the octets are no DER with a one-octet tag; nothing is read then.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        // Longer tags, and end-of-contents octets, which DER does not have.
        if tag & 0x1f == 0x1f || tag & !CONSTRUCTED == 0 {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = octets.iter().fold(0usize, |length, octet| length << 8 | usize::from(*octet));
                if octets[0] == 0 || length < 0x80 {
                    return None;
                }
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Tlv { tag, content, whole })
    }
}

/// The one value that `input` consists of, if it has this tag and nothing follows it.
#[must_use]
pub fn only(input: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(input);
    let value = reader.expect(tag)?;
    reader.is_empty().then_some(value.content)
}

/// Octets that the header of a value with `length` content octets takes.
#[must_use]
pub const fn header_length(length: usize) -> usize {
    match length {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        0x100..=0xffff => 4,
        0x1_0000..=0xff_ffff => 5,
        _ => 6,
    }
}

/// Octets of a whole value with `length` content octets.
#[must_use]
pub const fn whole_length(length: usize) -> usize {
    header_length(length) + length
}

/// Writes tag and length. A content of 4 GiB or more is beyond anything written here.
pub fn put_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    let octets = length.to_be_bytes();
    match header_length(length) - 2 {
        0 => out.push(octets[octets.len() - 1]),
        count => {
            out.push(0x80 | count as u8);
            out.extend_from_slice(&octets[octets.len() - count..]);
        }
    }
}

/// A value whose content is `parts` one after the other.
#[must_use]
pub fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(whole_length(length));
    put_header(&mut out, tag, length);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A BIT STRING of whole octets.
#[must_use]
pub fn bit_string(octets: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], octets])
}

/// The octets of a BIT STRING's content, where all bits are used.
#[must_use]
pub fn whole_octets(content: &[u8]) -> Option<&[u8]> {
    content.split_first().and_then(|(unused, octets)| (*unused == 0).then_some(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_der_with_a_short_tag_is_refused() {
        for input in [
            &[0x04, 0x81, 0x01, 0xff][..],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x80],
            &[0x1f, 0x01, 0x00],
            &[0x00, 0x00],
            &[0x20, 0x00],
            &[0x04],
        ] {
            assert_eq!(Reader::new(input).next(), None, "{input:02x?}");
        }
    }

    #[test]
    fn expecting_another_tag_reads_nothing() {
        let mut reader = Reader::new(&[0x05, 0x00]);
        assert_eq!(reader.expect(SEQUENCE), None);
        assert_eq!(reader.expect(NULL).map(|value| value.whole.len()), Some(2));
        assert!(reader.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(tag in 1u8..0x1f, length in prop_oneof![0usize..300, 65_500usize..65_600, Just(0x0100_0000)]) {
            let content = vec![0x5a; length];
            let whole = value(tag, &[&content]);
            prop_assert_eq!(whole.len(), whole_length(length));
            prop_assert_eq!(only(&whole, tag), Some(&content[..]));
        }

        #[test]
        fn arbitrary_octets_never_panic(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&input);
            let mut read = 0;
            for value in reader.by_ref() {
                read += value.whole.len();
            }
            prop_assert!(read <= input.len());
        }
    }
}
