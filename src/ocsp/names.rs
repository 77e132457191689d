//! The names that a certificate is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Certificate;
use super::certificate::oids;

/// What stands in the subject alternative name extension (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AltNames {
    /// DNS names as they are written, wildcards too.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// How many other names there are: mail addresses, URIs, directory names.
    pub others: usize,
}

impl AltNames {
    /// DNS names and addresses as texts.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.dns.iter().cloned().chain(self.addresses.iter().map(ToString::to_string))
    }
}

impl Certificate {
    /// Its subject alternative names; none when there is no such extension, or it does not read.
    #[must_use]
    pub fn alt_names(&self) -> AltNames {
        let mut names = AltNames::default();
        let Some((_, octets)) = self.extension(oids::SUBJECT_ALT_NAME) else { return names };
        let Ok(SubjectAltName(found)) = SubjectAltName::from_der(octets) else { return names };
        for name in &found {
            match name {
                GeneralName::DnsName(name) => names.dns.push(name.as_str().to_owned()),
                GeneralName::IpAddress(octets) => match address(octets.as_bytes()) {
                    Some(address) => names.addresses.push(address),
                    None => names.others += 1,
                },
                _ => names.others += 1,
            }
        }
        names
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_and_addresses_are_read_and_other_kinds_are_counted() {
        let mut parameters =
            CertificateParams::new(vec!["www.example".to_owned(), "*.example".to_owned()]).unwrap();
        parameters.subject_alt_names.push(SanType::IpAddress("192.0.2.7".parse().unwrap()));
        parameters.subject_alt_names.push(SanType::IpAddress("2001:db8::7".parse().unwrap()));
        parameters.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().unwrap()));
        let made = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Certificate::from_der(made.der()).unwrap().alt_names();
        assert_eq!(names.others, 1);
        let texts: Vec<_> = names.texts().collect();
        assert_eq!(texts, ["www.example", "*.example", "192.0.2.7", "2001:db8::7"]);
        let bare = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(Certificate::from_der(bare.der()).unwrap().alt_names(), AltNames::default());
    }
}
