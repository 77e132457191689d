//! Certificate serial numbers, compared as integers.

use std::fmt;
use std::str::FromStr;

/// A certificate's serial number: an ASN.1 INTEGER of at most 21 content octets.
///
/// RFC 5280 allows 20 octets; a 20-octet value with the high bit set takes a 21st, and older CAs
/// issued zero and negative numbers, so all of these are kept. The octets held are the shortest
/// two's complement form, which makes equality of octets equality of integers (RFC 6960 section
/// 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial {
    length: u8,
    octets: [u8; Self::MAX_OCTETS],
}

/// Why a serial number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// No octets or digits at all.
    #[error("the serial number is empty")]
    Empty,
    /// More octets than any certificate may carry.
    #[error("the serial number has more than 20 octets")]
    TooLong,
    /// The text is not hexadecimal.
    #[error("the serial number is not hexadecimal")]
    NotHex,
}

impl Serial {
    /// The most content octets kept.
    pub const MAX_OCTETS: usize = 21;

    /// From the content octets of a DER INTEGER, which may be longer than necessary.
    ///
    /// # Errors
    /// [`SerialError::Empty`] or [`SerialError::TooLong`].
    pub fn from_der_content(content: &[u8]) -> Result<Self, SerialError> {
        let mut rest = content;
        while let [first, second, ..] = rest {
            let redundant = (*first == 0x00 && second & 0x80 == 0) || (*first == 0xff && second & 0x80 != 0);
            if !redundant {
                break;
            }
            rest = &rest[1..];
        }
        if rest.is_empty() {
            return Err(SerialError::Empty);
        }
        if rest.len() > Self::MAX_OCTETS {
            return Err(SerialError::TooLong);
        }
        let mut octets = [0; Self::MAX_OCTETS];
        octets[..rest.len()].copy_from_slice(rest);
        Ok(Self { length: rest.len() as u8, octets })
    }

    /// From the big-endian octets of a number that is not negative.
    ///
    /// # Errors
    /// As [`Serial::from_der_content`].
    pub fn from_unsigned(magnitude: &[u8]) -> Result<Self, SerialError> {
        let start =
            magnitude.iter().position(|&octet| octet != 0).unwrap_or(magnitude.len().saturating_sub(1));
        let magnitude = &magnitude[start..];
        if magnitude.is_empty() {
            return Err(SerialError::Empty);
        }
        if magnitude.len() > Self::MAX_OCTETS {
            return Err(SerialError::TooLong);
        }
        let mut content = [0; Self::MAX_OCTETS + 1];
        content[1..=magnitude.len()].copy_from_slice(magnitude);
        Self::from_der_content(&content[..=magnitude.len()])
    }

    /// A well-mixed hash that never changes between versions or machines: it decides a
    /// certificate's shard and its place in the spread of refreshes. Not for hash tables that an
    /// attacker can fill.
    #[must_use]
    pub fn scatter(&self, seed: u64) -> u64 {
        // FNV-1a over seed and octets, then the finaliser of MurmurHash3.
        let seed = seed.to_le_bytes();
        let mut hash =
            seed.iter().chain(self.as_der_content()).fold(0xcbf2_9ce4_8422_2325u64, |hash, octet| {
                (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }

    /// The content octets of the DER INTEGER, shortest form.
    #[must_use]
    pub fn as_der_content(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }
}

impl fmt::Display for Serial {
    /// Lower-case hexadecimal with whole octets, no leading zero octet, `-` before a negative one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.as_der_content();
        if content[0] & 0x80 == 0 {
            let content = if content.len() > 1 && content[0] == 0 { &content[1..] } else { content };
            return content.iter().try_for_each(|octet| write!(f, "{octet:02x}"));
        }
        let mut magnitude: Vec<u8> = content.iter().map(|octet| !octet).collect();
        for octet in magnitude.iter_mut().rev() {
            let (sum, carry) = octet.overflowing_add(1);
            *octet = sum;
            if !carry {
                break;
            }
        }
        f.write_str("-")?;
        let start = magnitude.iter().position(|&octet| octet != 0).unwrap_or(0);
        // A magnitude such as 0x80 has no leading zero octet; -0x8000…00 keeps all of its own.
        magnitude[start..].iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Hexadecimal in either case, with or without `0x`, colons between octets, a leading `-`.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let (negative, digits) = match text.trim().strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.trim()),
        };
        let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
        let mut nibbles = [0u8; 2 * Self::MAX_OCTETS];
        let (mut count, mut is_empty) = (0, true);
        for byte in digits.bytes().filter(|&byte| byte != b':') {
            is_empty = false;
            let value = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'A'..=b'F' => byte - b'A' + 10,
                _ => return Err(SerialError::NotHex),
            };
            if count == 0 && value == 0 {
                // Leading zeros carry no value, however many a file writes.
                continue;
            }
            *nibbles.get_mut(count).ok_or(SerialError::TooLong)? = value;
            count += 1;
        }
        if count == 0 {
            return if is_empty { Err(SerialError::Empty) } else { Self::from_unsigned(&[0]) };
        }
        let mut magnitude = [0u8; Self::MAX_OCTETS + 1];
        let mut at = magnitude.len();
        for pair in nibbles[..count].rchunks(2) {
            at -= 1;
            magnitude[at] = match pair {
                [high, low] => high << 4 | low,
                [low] => *low,
                _ => 0,
            };
        }
        if !negative {
            return Self::from_unsigned(&magnitude[at..]);
        }
        for octet in &mut magnitude {
            *octet = !*octet;
        }
        for octet in magnitude.iter_mut().rev() {
            let (sum, carry) = octet.overflowing_add(1);
            *octet = sum;
            if !carry {
                break;
            }
        }
        Self::from_der_content(&magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(text: &str) -> Vec<u8> {
        text.parse::<Serial>().unwrap().as_der_content().to_vec()
    }

    #[test]
    fn hexadecimal_becomes_the_shortest_der_content() {
        assert_eq!(content("01"), [0x01]);
        assert_eq!(content("0x0A"), [0x0a]);
        assert_eq!(content("80"), [0x00, 0x80]);
        assert_eq!(content("7f:ff"), [0x7f, 0xff]);
        assert_eq!(content("00"), [0x00]);
        assert_eq!(content("000000000000000000000000000000000000000000000000000000000001"), [1]);
    }

    /// C10.
    #[test]
    fn negative_serials_of_old_certificates_survive_the_round_trip() {
        for (text, octets) in [
            ("-01", vec![0xff]),
            ("-80", vec![0x80]),
            ("-0100", vec![0xff, 0x00]),
            ("-8000", vec![0x80, 0x00]),
        ] {
            assert_eq!(content(text), octets, "{text}");
            assert_eq!(Serial::from_der_content(&octets).unwrap().to_string(), text);
        }
    }

    /// C10.
    #[test]
    fn twenty_octets_with_the_high_bit_fit_and_more_do_not() {
        let widest = "f".repeat(40);
        assert_eq!(widest.parse::<Serial>().unwrap().as_der_content().len(), 21);
        assert_eq!(widest.parse::<Serial>().unwrap().to_string(), widest);
        assert_eq!(format!("1{}", "0".repeat(42)).parse::<Serial>(), Err(SerialError::TooLong));
        assert_eq!(Serial::from_der_content(&[1; 22]), Err(SerialError::TooLong));
    }

    #[test]
    fn what_is_no_serial_is_refused() {
        for text in ["", "-", "0x", ":", "-::"] {
            assert_eq!(text.parse::<Serial>(), Err(SerialError::Empty), "{text}");
        }
        assert_eq!("12g4".parse::<Serial>(), Err(SerialError::NotHex));
        assert_eq!(Serial::from_der_content(&[]), Err(SerialError::Empty));
    }

    proptest! {
        #[test]
        fn text_and_octets_agree_for_every_integer(octets in proptest::collection::vec(any::<u8>(), 1..=20)) {
            let serial = Serial::from_der_content(&octets).unwrap();
            prop_assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }

        /// C10.
        #[test]
        fn redundant_leading_octets_do_not_change_the_integer(octets in proptest::collection::vec(any::<u8>(), 1..=20)) {
            let pad = if octets[0] & 0x80 == 0 { 0x00 } else { 0xff };
            let mut longer = vec![pad; 3];
            longer.extend(&octets);
            prop_assert_eq!(Serial::from_der_content(&longer).unwrap(), Serial::from_der_content(&octets).unwrap());
        }
    }
}
