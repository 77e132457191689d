//! A flood of questions that cost signatures: the token's share of it is bounded, and stored answers
//! keep flowing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::{HashAlgorithm, Received, request};

use super::asker::{Asker, random_serial, serial};
use crate::support::ca::KeyKind;
use crate::support::http;
use crate::support::server::Server;
use crate::support::site::Site;

/// Live signatures a second.
const BUDGET: u32 = 40;
/// Connections that flood.
const FLOODERS: usize = 6;
/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(4);
/// So much slower, at the median, may stored answers be than under as many plain questions.
const SLOWER: u32 = 5;

/// One connection, kept alive.
struct Line(BufReader<TcpStream>);

impl Line {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", request.len());
        self.0.get_mut().write_all(&[head.as_bytes(), request].concat()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        body
    }
}

/// Signatures that the token has made, by its own count.
fn signatures(site: &Site) -> u64 {
    let text = String::from_utf8(http::get(site.control, "/metrics").unwrap().body).unwrap();
    let of_tokens = text.lines().filter(|line| line.starts_with("goodstanding_token_signatures_total{"));
    let counts: Vec<u64> = of_tokens.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!counts.is_empty(), "{text}");
    counts.iter().sum()
}

/// The median time of a stored answer while `FLOODERS` connections ask as fast as they can what `next`
/// gives them; and how many questions those got through.
fn median_under(
    site: &Site,
    stored: &[u8],
    expected: &[u8],
    next: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> (Duration, usize) {
    let (stop, asked, next) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(next));
    let port = site.ocsp;
    let flooders: Vec<_> = (0..FLOODERS)
        .map(|_| {
            let (stop, asked, next) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&next));
            std::thread::spawn(move || {
                let mut line = Line::open(port);
                while !stop.load(Ordering::Relaxed) {
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(line.ask(&next(number))[0], 0x30, "an OCSPResponse, whatever it says");
                }
            })
        })
        .collect();
    let mut line = Line::open(port);
    let mut times = Vec::new();
    let watch = Stopwatch::start();
    while watch.elapsed() < SPAN {
        let each = Stopwatch::start();
        assert_eq!(line.ask(stored), expected);
        times.push(each.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for flooder in flooders {
        flooder.join().unwrap();
    }
    times.sort_unstable();
    (times[times.len() / 2], asked.load(Ordering::Relaxed))
}

/// L3, B7: random serials and nonces, none of which a stored answer fits.
#[test]
fn a_flood_costs_the_token_no_more_than_the_budget_and_stored_answers_keep_flowing() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure(
        "[control]",
        &format!("unknown_serial = \"unknown\"\nnonce = \"echo\"\nlive_rate = {BUDGET}\n[control]"),
    );
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(&pair.good));
    let stored = request::encode(std::slice::from_ref(&cert_id), None).unwrap();
    let expected = asker.post(&stored).body;
    Received::decode(&expected).unwrap();

    let plain = stored.clone();
    let (calm, asked_calmly) = median_under(&site, &stored, &expected, move |_| plain.clone());
    let (before, watch) = (signatures(&site), Stopwatch::start());
    let issuer = asker.issuer.clone();
    let (flooded, asked) = median_under(&site, &stored, &expected, move |number| {
        if number % 2 == 0 {
            let nonce = [&number.to_be_bytes()[..], &[7; 16]].concat();
            request::encode(std::slice::from_ref(&cert_id), Some(&nonce)).unwrap()
        } else {
            request::encode(&[issuer.cert_id(HashAlgorithm::Sha256, random_serial())], None).unwrap()
        }
    });
    let spent = signatures(&site) - before;
    // A whole second's budget may be saved up before.
    let allowed = u64::from(BUDGET) * (watch.elapsed().as_secs() + 2);
    println!(
        "{spent} of {allowed} signatures for {asked} questions; stored {calm:?} calm, {flooded:?} flooded ({asked_calmly} calm questions)"
    );
    assert!(asked as u64 > 4 * allowed, "{asked} questions are no flood");
    assert!(spent <= allowed, "{spent} signatures, {allowed} allowed");
    assert!(spent >= u64::from(BUDGET), "the budget was there to be spent: {spent}");
    assert!(flooded <= calm * SLOWER, "{flooded:?} under the flood, {calm:?} without");
}
