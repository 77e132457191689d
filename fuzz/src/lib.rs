//! What must hold for any octets whatever, target by target. The fuzz targets run it on what libFuzzer
//! invents; `tests/it/corpus.rs` includes this file and runs it on `tests/corpus` with every `cargo test`.

mod rasn_request;

use std::sync::LazyLock;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use goodstanding::clock::UnixTime;
use goodstanding::config;
use goodstanding::import::certificates::KnownIssuer;
use goodstanding::import::crl::{self, Crl};
use goodstanding::import::index_txt;
use goodstanding::import::pem::{Block, Blocks};
use goodstanding::ocsp::delegation::Delegation;
use goodstanding::ocsp::request::{MAX_CERTIFICATES, Nonce, encode};
use goodstanding::ocsp::{Certificate, Issuer, Request, Serial, tlv};
use goodstanding::server::ocsp::{PathPrefix, path};
use goodstanding::store::IssuerId;

pub use rasn_request::{Difference, compare};

/// A target: what it is called, here and below `tests/corpus`, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("request", request),
    ("get_path", get_path),
    ("index_txt", index_txt),
    ("crl", crl),
    ("certificates", certificates),
    ("configuration", configuration),
];

/// The CA of the corpus, made by `fuzz/seed`.
static CA: LazyLock<Issuer> =
    LazyLock::new(|| Issuer::from_der(include_bytes!("../ca.der")).expect("the CA of the corpus"));

/// Decoding a request: as rasn-ocsp decodes it, but for the named differences.
pub fn request(data: &[u8]) {
    compare(data);
    let Ok(request) = Request::decode(data) else { return };
    assert!((1..=MAX_CERTIFICATES).contains(&request.cert_ids.len()));
    let nonce = match &request.nonce {
        Nonce::Given(nonce) => {
            assert!((16..=32).contains(&nonce.len()));
            Some(&nonce[..])
        }
        Nonce::Absent => None,
    };
    let known: Vec<_> = request.cert_ids.iter().flatten().cloned().collect();
    if known.len() == request.cert_ids.len() {
        let again = encode(&known, nonce).expect("what was read can be written");
        assert_eq!(Request::decode(&again).as_ref(), Ok(&request));
    }
}

/// Decoding the path of a GET: as a plain reading of the rules does it.
pub fn get_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let prefixes: Vec<PathPrefix> = ["/ocsp", "/ca/one", "/"].map(|prefix| prefix.parse().unwrap()).into();
    let below = path::locate(text, &prefixes).expect("everything lies below the root");
    assert!(!below.starts_with('/'));
    assert!(text.ends_with(below));
    let octets = path::decode(below);
    assert_eq!(octets, decode_plainly(below));
    if let Some(octets) = octets {
        let _ = Request::decode(&octets);
    }
}

/// Percent-decoding, then the alphabets, then the padding, one after the other.
fn decode_plainly(text: &str) -> Option<Vec<u8>> {
    let mut symbols = Vec::new();
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        symbols.push(if octet == b'%' {
            let digits = [octets.next()?, octets.next()?];
            let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        } else {
            octet
        });
    }
    symbols.retain(|symbol| !b"\r\n".contains(symbol));
    for symbol in &mut symbols {
        *symbol = match *symbol {
            b'-' | b' ' => b'+',
            b'_' => b'/',
            other => other,
        };
    }
    while symbols.last() == Some(&b'=') {
        symbols.pop();
    }
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    GeneralPurpose::new(&STANDARD, lenient).decode(symbols).ok()
}

/// Reading an `index.txt`: an entry that was read, written again, is the same entry.
pub fn index_txt(data: &[u8]) {
    for line in data.split(|octet| *octet == b'\n') {
        let Ok(entry) = index_txt::parse_line(line) else { continue };
        let date = |time: UnixTime| time.to_datetime().format("%Y%m%d%H%M%SZ").to_string();
        let (status, revoked) = match entry.revocation {
            None => ("V", String::new()),
            Some(revocation) => {
                let reason = revocation.reason.map_or_else(String::new, |reason| format!(",{reason}"));
                ("R", date(revocation.time) + &reason)
            }
        };
        let again =
            format!("{status}\t{}\t{revoked}\t{}\tunknown\t/CN=x", date(entry.not_after), entry.serial);
        assert_eq!(index_txt::parse_line(again.as_bytes()).as_ref(), Ok(&entry), "{again}");
    }
}

/// Reading a CRL, in DER or PEM.
pub fn crl(data: &[u8]) {
    let Ok(der) = crl::der_of(data.to_vec()) else { return };
    let Ok(crl) = Crl::from_der(&der) else { return };
    let mut entries = 0;
    for entry in crl.entries() {
        entries += 1;
        if let Ok(entry) = entry {
            assert_eq!(entry.serial.to_string().parse(), Ok(entry.serial));
        }
    }
    // An entry takes two octets at the very least.
    assert!(entries <= der.len() / 2);
    let _ = crl.verify(&CA);
}

/// Reading certificates, in DER or PEM, and telling whose they are.
pub fn certificates(data: &[u8]) {
    certificate(data);
    let mut blocks = Blocks::new(data, 4_096);
    let mut last = 0;
    while let Some(Block { line, content, .. }) = blocks.next_block().expect("memory can be read") {
        assert!(line > last, "a block at line {line} after one at {last}");
        last = line;
        if let Ok(der) = content {
            assert!(der.len() <= 4_096);
            certificate(&der);
        }
    }
    assert_eq!(blocks.octets(), data.len() as u64);
}

fn certificate(der: &[u8]) {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    assert_eq!(certificate.der(), der);
    assert!(tlv::only(certificate.tbs(), tlv::SEQUENCE).is_some());
    assert!(tlv::only(certificate.issuer_name(), tlv::SEQUENCE).is_some());
    assert!(tlv::only(certificate.subject_name(), tlv::SEQUENCE).is_some());
    assert_eq!(Serial::from_der_content(certificate.serial().as_der_content()), Ok(certificate.serial()));
    let _ =
        (certificate.subject(), certificate.issuer(), certificate.key_algorithm(), certificate.key_usage());
    let _ =
        (certificate.subject_key_identifier(), certificate.authority_key_identifier(), certificate.is_ca());
    let known = KnownIssuer { id: IssuerId(1), name: "ca".to_owned(), issuer: CA.clone() };
    let _ = known.has_issued(&certificate);
    let own = Issuer::new(certificate.clone());
    let _ = own.has_signed(certificate.signature_algorithm(), certificate.tbs(), certificate.signature());
    let _ = Delegation::check(&CA, certificate, UnixTime(1_800_000_000));
}

/// Reading a configuration: settings, or complaints that name a line of it.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = 1 + text.bytes().filter(|octet| *octet == b'\n').count();
    if let Err(problems) = config::parse(text) {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!((1..=lines).contains(&problem.line), "line {} of {lines}", problem.line);
            assert!(!problem.message.is_empty());
        }
    }
}
