//! From the path of a GET to the octets of the OCSPRequest (RFC 6960 appendix A.1, RFC 9919 section 6).
//!
//! Clients and the middle-boxes before them write the same base64 in many ways; all of them are read.

use std::fmt;
use std::str::FromStr;

/// Where below the root an endpoint answers: `/` or, for example, `/ocsp`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(String);

/// The text is no path prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the path of an OCSP endpoint: write `/` or a path such as `/ocsp`, of letters, digits and `-._~/` only"
)]
pub struct BadPrefix(pub String);

impl FromStr for PathPrefix {
    type Err = BadPrefix;

    /// A path that begins with `/`; a `/` at its end makes no difference.
    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        if !text.starts_with('/') || !text.bytes().all(is_plain) {
            return Err(BadPrefix(text.to_owned()));
        }
        Ok(Self(text.trim_matches('/').to_owned()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl Default for PathPrefix {
    /// The root.
    fn default() -> Self {
        Self(String::new())
    }
}

impl PathPrefix {
    /// What follows this prefix in `path`, without the slashes between; `None` when `path` lies elsewhere.
    ///
    /// An encoded OCSPRequest begins with `M` (0x30 is a SEQUENCE), so leading slashes are never its own.
    fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.trim_start_matches('/').strip_prefix(self.0.as_str())?;
        let whole_segment = self.0.is_empty() || rest.is_empty() || rest.starts_with('/');
        whole_segment.then(|| rest.trim_start_matches('/'))
    }
}

/// Whether an octet stands in a path for itself (RFC 3986 section 2.3), or between its segments.
pub(super) const fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~' | b'/')
}

/// What follows the first of `prefixes` that `path` lies under, for example the base64 of a request.
#[must_use]
pub fn locate<'a>(path: &'a str, prefixes: &[PathPrefix]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| prefix.strip(path))
}

const PAD: u8 = 0x81;
const SKIP: u8 = 0x82;
const PERCENT: u8 = 0x83;
const BAD: u8 = 0x84;
/// Set in every class that is no 6-bit value.
const NO_VALUE: u8 = 0x80;

/// The value of each octet: both alphabets of RFC 4648, a space for the `+` that a form decoder took away,
/// line ends (scripts that wrap their base64) skipped.
const CLASS: [u8; 256] = {
    let mut class = [BAD; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < 64 {
        class[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    class[b'-' as usize] = 62;
    class[b' ' as usize] = 62;
    class[b'_' as usize] = 63;
    class[b'=' as usize] = PAD;
    class[b'\r' as usize] = SKIP;
    class[b'\n' as usize] = SKIP;
    class[b'%' as usize] = PERCENT;
    class
};

/// Decodes percent-encoded base64 or base64url, padded or not. `None` when it is neither.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    decode_into(text, &mut out)?;
    Some(out)
}

/// As [`decode`], in the place of what `out` holds.
#[must_use]
pub fn decode_into(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.as_bytes();
    out.resize(rest.len() / 4 * 3 + 3, 0);
    let mut length = 0;
    let (mut bits, mut sextets, mut padded) = (0u32, 0u8, false);
    loop {
        // Whole groups without anything special: nearly all of nearly every request.
        if sextets == 0 && !padded {
            let groups = decode_groups(rest, &mut out[length..]);
            rest = &rest[groups * 4..];
            length += groups * 3;
        }
        let Some((&octet, after)) = rest.split_first() else { break };
        rest = after;
        let mut class = CLASS[usize::from(octet)];
        if class == PERCENT {
            let (&[high, low], after) = rest.split_first_chunk::<2>()?;
            rest = after;
            class = CLASS[usize::from(hex(high)? << 4 | hex(low)?)];
        }
        match class {
            SKIP => {}
            PAD => padded = true,
            value if value & NO_VALUE == 0 && !padded => {
                bits = bits << 6 | u32::from(value);
                sextets += 1;
                if sextets == 4 {
                    out[length..length + 3].copy_from_slice(&bits.to_be_bytes()[1..]);
                    length += 3;
                    (bits, sextets) = (0, 0);
                }
            }
            _ => return None,
        }
    }
    out.truncate(length);
    match sextets {
        0 => {}
        2 => out.push((bits >> 4).to_be_bytes()[3]),
        3 => out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
        _ => return None,
    }
    Some(())
}

/// Decodes groups of four symbols up to the first that has anything special in it; returns how many.
fn decode_groups(text: &[u8], out: &mut [u8]) -> usize {
    let mut groups = 0;
    for (from, to) in text.chunks_exact(4).zip(out.chunks_exact_mut(3)) {
        let [a, b, c, d] = [from[0], from[1], from[2], from[3]].map(|octet| CLASS[usize::from(octet)]);
        if (a | b | c | d) & NO_VALUE != 0 {
            break;
        }
        to[0] = a << 2 | b >> 4;
        to[1] = b << 4 | c >> 2;
        to[2] = c << 6 | d;
        groups += 1;
    }
    groups
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// H2, H3: every spelling seen in the wild is the same request.
    #[test]
    fn every_spelling_of_a_request_decodes_to_the_same_octets() {
        let octets = [0x30, 0xfb, 0xef, 0xff, 0xbf, 0xff, 0xfa];
        assert_eq!(STANDARD.encode(octets), "MPvv/7//+g==");
        for spelling in [
            "MPvv/7//+g==",
            "MPvv/7//+g",
            "MPvv/7//+g=",
            "MPvv%2F7%2F%2F%2Bg%3D%3D",
            "MPvv%2f7%2f%2f%2bg%3d%3d",
            "MPvv/7// g==",
            "MPvv/7//%20g==",
            "MPvv_7__-g",
            "MPvv_7__-g%3D%3D",
            "%4DPvv/7//+g==",
            "MPvv%0D%0A/7//+g==%0A",
        ] {
            assert_eq!(decode(spelling).as_deref(), Some(&octets[..]), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in
            ["M", "MEow!", "MEow%", "MEow%2", "MEow%zz", "MEow%25", "ME=w", "MEowM", "robots.txt", "%00"]
        {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode(""), Some(Vec::new()));
    }

    /// H2: slashes before the request are not the request's, slashes inside it are.
    #[test]
    fn a_path_is_found_below_its_prefix_whatever_the_slashes() {
        let prefixes: Vec<PathPrefix> = ["/ocsp", "/ca/one/"].iter().map(|p| p.parse().unwrap()).collect();
        for (path, found) in [
            ("/ocsp", Some("")),
            ("/ocsp/", Some("")),
            ("/ocsp/MEow", Some("MEow")),
            ("//ocsp//MEow//x", Some("MEow//x")),
            ("/ca/one/MEow", Some("MEow")),
            ("/ocspMEow", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(locate(path, &prefixes), found, "{path}");
        }
        let root = [PathPrefix::default()];
        assert_eq!(locate("////MEow//x=", &root), Some("MEow//x="));
        assert_eq!(locate("/", &root), Some(""));
    }

    #[test]
    fn a_prefix_that_is_no_plain_path_is_refused() {
        for text in ["", "ocsp", "/oc sp", "/%20", "/ö"] {
            let error = text.parse::<PathPrefix>().unwrap_err();
            assert!(error.to_string().contains("such as `/ocsp`"), "{error}");
        }
        assert_eq!("/ocsp/".parse::<PathPrefix>().unwrap().to_string(), "/ocsp");
        assert_eq!("/".parse::<PathPrefix>().unwrap(), PathPrefix::default());
    }

    /// One way to write a base64 symbol, chosen by `choice`.
    fn spell(symbol: char, choice: u8) -> String {
        match (symbol, choice % 4) {
            (_, 0) => symbol.to_string(),
            ('+', 1) => "-".to_owned(),
            ('/', 1) => "_".to_owned(),
            ('+', 2) => "%20".to_owned(),
            ('=', 1) => String::new(),
            (_, 2) => format!("%{:02X}", u32::from(symbol)),
            (_, _) => format!("%{:02x}", u32::from(symbol)),
        }
    }

    proptest! {
        /// H1, H2, H3.
        #[test]
        fn any_octets_in_any_spelling_come_back(
            octets in proptest::collection::vec(any::<u8>(), 0..600),
            choices in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let text: String = STANDARD
                .encode(&octets)
                .chars()
                .zip(choices.iter().cycle())
                .map(|(symbol, &choice)| spell(symbol, choice))
                .collect();
            prop_assert_eq!(decode(&text), Some(octets), "{}", text);
        }

        #[test]
        fn any_text_decodes_or_is_refused_without_a_panic(text in ".{0,200}", path in "[/A-Za-z+=%0-9_-]{0,80}") {
            let _ = decode(&text);
            if let Some(octets) = decode(&path) {
                prop_assert!(octets.len() <= path.len());
            }
            let _ = locate(&path, &["/ocsp".parse().unwrap(), PathPrefix::default()]);
        }
    }
}
