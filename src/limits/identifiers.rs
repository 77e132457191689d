//! What a certificate is for, as the limiter counts it: names in A-label form, addresses, registered
//! domains.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use sha2::{Digest, Sha256};

/// The longest name (RFC 1035 section 2.3.4), without the final dot.
const LONGEST_NAME: usize = 253;

/// The longest account.
const LONGEST_ACCOUNT: usize = 255;

/// The longest key that is the identifiers themselves; a longer list is named by its hash.
const LONGEST_KEY: usize = 255;

/// A text is no name, address or account that can be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// No DNS name and no IP address.
    #[error("{text:?} is no DNS name and no IP address: {why}")]
    Name {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// None at all.
    #[error("an order needs at least one identifier")]
    None,
    /// More than the profile allows.
    #[error("an order has {count} identifiers, the profile allows {most}: order several certificates")]
    TooMany {
        /// How many, each counted once.
        count: usize,
        /// The most.
        most: usize,
    },
    /// No account.
    #[error(
        "{text:?} is no account: give a text of 1 to 255 characters without control characters, the same for every order of an account"
    )]
    Account {
        /// What was given.
        text: String,
    },
}

/// A DNS name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// A name in A-label form and lower case, with `*.` before it for a wildcard.
    Dns(String),
    /// An address; one that is an IPv4 address in IPv6 form is the IPv4 address.
    Ip(IpAddr),
}

impl FromStr for Identifier {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let refused = |why| IdentifierError::Name { text: text.chars().take(300).collect(), why };
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let ascii = to_ascii(name).map_err(refused)?;
        check_labels(&ascii).map_err(refused)?;
        // Four numbers, or what inet_aton would take for an address: no certificate can name it.
        if ascii.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit())) {
            return Err(refused("its last label is a number"));
        }
        Ok(Self::Dns(if wildcard { format!("*.{ascii}") } else { ascii.into_owned() }))
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// What an identifier's text counts under per domain: the registered domain of a name, an IPv4
/// address itself, the network of an IPv6 address.
#[must_use]
pub(super) fn domain_of(text: &str, ipv6: PrefixLength) -> Cow<'_, str> {
    // No name has a colon, nor a number for its last label.
    let may_be_ip = text.ends_with(|last: char| last.is_ascii_digit()) || text.contains(':');
    match may_be_ip.then(|| text.parse()) {
        Some(Ok(ip)) => Cow::Owned(ipv6.key(ip)),
        _ => Cow::Borrowed(registered_domain(text.strip_prefix("*.").unwrap_or(text))),
    }
}

/// The registered domain of a name in A-label form: its public suffix, by the ICANN and private
/// sections of the Public Suffix List, and one label more. A public suffix counts as itself.
#[must_use]
pub fn registered_domain(name: &str) -> &str {
    psl::domain_str(name).unwrap_or(name)
}

fn to_ascii(name: &str) -> Result<Cow<'_, str>, &'static str> {
    let plain = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"-._".contains(&octet);
    if name.bytes().all(plain) && !name.contains("xn--") {
        return Ok(Cow::Borrowed(name));
    }
    // Hyphens in the third and fourth place are in use ("r3---sn-4g5e6nz7").
    Uts46::new()
        .to_ascii(name.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
        .map_err(|_| "it does not convert to A-labels (RFC 5891)")
}

fn check_labels(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err("a name has 1 to 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("a label has 1 to 63 characters");
        }
        let allowed =
            |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"-_".contains(&octet);
        if !label.bytes().all(allowed) {
            return Err("a label is letters, digits, hyphens and underscores");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label neither begins nor ends with a hyphen");
        }
    }
    Ok(())
}

/// How many leading bits of an IPv6 address are counted as one place; IPv4 addresses count exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLength(u8);

impl PrefixLength {
    /// A subscriber's network: /64.
    pub const SUBNET: Self = Self(64);
    /// The address itself: /128.
    pub const EXACT: Self = Self(128);

    /// From 1 to 128 bits.
    #[must_use]
    pub fn new(bits: u8) -> Option<Self> {
        (1..=128).contains(&bits).then_some(Self(bits))
    }

    /// How many bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// What an address counts under: `192.0.2.1`, `2001:db8::/64`, `2001:db8::1`.
    #[must_use]
    pub fn key(self, ip: IpAddr) -> String {
        match ip.to_canonical() {
            IpAddr::V6(ip) if self != Self::EXACT => {
                let network = ip.to_bits() & (u128::MAX << (128 - u32::from(self.0)));
                format!("{}/{}", Ipv6Addr::from_bits(network), self.0)
            }
            ip => ip.to_string(),
        }
    }
}

/// The identifiers of one certificate, as texts: sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identifiers(Vec<String>);

impl Identifiers {
    /// Reads names and addresses.
    ///
    /// # Errors
    /// [`IdentifierError`] for the first that does not read, for none, and for more than `most`.
    pub fn parse<T: AsRef<str>>(texts: &[T], most: usize) -> Result<Self, IdentifierError> {
        let read = |text: &T| text.as_ref().parse::<Identifier>().map(|identifier| identifier.to_string());
        let mut identifiers: Vec<String> = texts.iter().map(read).collect::<Result<_, _>>()?;
        identifiers.sort_unstable();
        identifiers.dedup();
        if identifiers.is_empty() {
            return Err(IdentifierError::None);
        }
        if identifiers.len() > most {
            return Err(IdentifierError::TooMany { count: identifiers.len(), most });
        }
        Ok(Self(identifiers))
    }

    /// Their texts, in order.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.0
    }
}

/// The key of a set of sorted texts: themselves, or their hash when they are long.
#[must_use]
pub(super) fn key_of(texts: &[String]) -> String {
    let joined = texts.join(",");
    if joined.len() <= LONGEST_KEY {
        return joined;
    }
    let digest = Sha256::digest(joined.as_bytes());
    let hex: String = digest[..16].iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{} identifiers sha256:{hex}", texts.len())
}

/// Checks an account.
pub(super) fn check_account(text: &str) -> Result<(), IdentifierError> {
    let fits = !text.is_empty() && text.len() <= LONGEST_ACCOUNT && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(IdentifierError::Account { text: text.chars().take(300).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> String {
        domain_of(&text.parse::<Identifier>().unwrap().to_string(), PrefixLength::SUBNET).into_owned()
    }

    #[test]
    fn a_name_counts_under_its_registered_domain() {
        for (name, counted) in [
            ("example.com", "example.com"),
            ("www.example.com", "example.com"),
            ("a.b.c.example.co.uk", "example.co.uk"),
            ("*.example.com", "example.com"),
            ("*.a.example.com", "example.com"),
            ("WWW.Example.COM.", "example.com"),
            // The private section: each customer of these is a domain of its own.
            ("someone.github.io", "someone.github.io"),
            ("deep.someone.github.io", "someone.github.io"),
            ("bucket.s3.amazonaws.com", "bucket.s3.amazonaws.com"),
            // Wildcard and exception rules of the list.
            ("a.b.ck", "a.b.ck"),
            ("x.a.b.ck", "a.b.ck"),
            ("x.www.ck", "www.ck"),
            // A suffix counts as itself, listed or not.
            ("com", "com"),
            ("co.uk", "co.uk"),
            ("github.io", "github.io"),
            ("*.github.io", "github.io"),
            ("localhost", "localhost"),
            // No rule: one label is the suffix.
            ("a.b.internal-zone", "b.internal-zone"),
        ] {
            assert_eq!(domain(name), counted, "{name}");
        }
    }

    #[test]
    fn an_international_name_counts_in_a_label_form() {
        for (name, ascii, counted) in [
            ("www.bücher.de", "www.xn--bcher-kva.de", "xn--bcher-kva.de"),
            ("WWW.BÜCHER.de", "www.xn--bcher-kva.de", "xn--bcher-kva.de"),
            ("a.例え.jp", "a.xn--r8jz45g.jp", "xn--r8jz45g.jp"),
            // Suffixes that are international themselves: 公司.cn and 中国.
            ("a.b.公司.cn", "a.b.xn--55qx5d.cn", "b.xn--55qx5d.cn"),
            ("a.b.xn--fiqs8s", "a.b.xn--fiqs8s", "b.xn--fiqs8s"),
            ("a。b。com", "a.b.com", "b.com"),
        ] {
            assert_eq!(name.parse::<Identifier>().unwrap().to_string(), ascii);
            assert_eq!(domain(name), counted, "{name}");
        }
    }

    #[test]
    fn addresses_count_exactly_or_by_network() {
        assert_eq!(domain("192.0.2.1"), "192.0.2.1");
        assert_eq!(domain("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(domain("::ffff:192.0.2.1"), "192.0.2.1");
        let site = PrefixLength::new(48).unwrap();
        assert_eq!(site.key("2001:db8:1:2:3::4".parse().unwrap()), "2001:db8:1::/48");
        assert_eq!(PrefixLength::EXACT.key("2001:db8::0004".parse().unwrap()), "2001:db8::4");
        assert!(PrefixLength::new(0).is_none() && PrefixLength::new(129).is_none());
    }

    #[test]
    fn what_is_no_name_is_refused_and_says_why() {
        let long = format!("{}.com", "a".repeat(64));
        let longer = vec!["abcdefgh"; 40].join(".");
        for (text, part) in [
            ("", "1 to 253"),
            ("*.", "1 to 253"),
            ("*", "letters, digits"),
            ("a.*.com", "letters, digits"),
            ("**.com", "letters, digits"),
            ("a..com", "1 to 63"),
            (".com", "1 to 63"),
            (long.as_str(), "1 to 63"),
            (longer.as_str(), "1 to 253"),
            ("a b.com", "letters, digits"),
            ("user@example.com", "letters, digits"),
            ("-a.com", "hyphen"),
            ("a-.com", "hyphen"),
            ("1.2.3.4.5", "number"),
            ("999.1.1.1", "number"),
            ("192.0.2.0/24", "letters, digits"),
            ("xn--a.com", "A-labels"),
            ("exa\u{0}mple.com", "letters, digits"),
        ] {
            let error = text.parse::<Identifier>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_set_is_the_same_in_any_order_and_case_and_a_wildcard_is_another_name() {
        let set = |texts: &[&str]| Identifiers::parse(texts, 100);
        let key = key_of(set(&["b.example", "A.example", "a.example."]).unwrap().texts());
        assert_eq!(key, "a.example,b.example");
        assert_eq!(key_of(set(&["a.example", "b.example"]).unwrap().texts()), key);
        assert_ne!(set(&["*.example.com"]).unwrap(), set(&["example.com"]).unwrap());
        let many: Vec<_> = (0..100).map(|n| format!("host-{n}.example.com")).collect();
        let long = key_of(Identifiers::parse(&many, 100).unwrap().texts());
        assert!(long.starts_with("100 identifiers sha256:") && long.len() < LONGEST_KEY, "{long}");
        assert_eq!(Identifiers::parse(&many, 99), Err(IdentifierError::TooMany { count: 100, most: 99 }));
        assert_eq!(set(&[]), Err(IdentifierError::None));
    }

    #[test]
    fn accounts_are_plain_texts_of_bounded_length() {
        assert!(check_account("https://ca.example/acct/17").is_ok());
        for text in ["", "a\nb", &"x".repeat(256)] {
            assert!(check_account(text).is_err(), "{text:?}");
        }
    }
}
