//! The endpoint over real sockets, in raw octets. Only what answers is simple: it echoes the request.

mod direct;
mod drain;
mod limits;
mod protocol;

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::{ManualClock, UnixTime};
use crate::responder::{Answer, CacheFacts, Outcome};
use crate::telemetry::Metrics;

/// 2026-11-22T00:00:00Z
const THIS_UPDATE: UnixTime = UnixTime(1_795_305_600);
const NOW: UnixTime = UnixTime(THIS_UPDATE.0 + 100);
const FACTS: CacheFacts = CacheFacts {
    this_update: THIS_UPDATE,
    next_update: UnixTime(THIS_UPDATE.0 + 604_799),
    renewed_at: UnixTime(THIS_UPDATE.0 + 302_400),
    digest: [0xab; 32],
};

/// Answers `0x30 …` with its own octets; the second octet says how: 0xe0 + n gives outcome n, 0xf0 waits
/// for [`Echo::gate`], 0xf1 is live and made for one client.
struct Echo {
    gate: Semaphore,
    waiting: AtomicUsize,
}

fn echo(request: &[u8], outcome: Outcome, cache: Option<CacheFacts>) -> Answer {
    Answer { body: Bytes::copy_from_slice(request), cache, outcome, is_stale: false }
}

impl Respond for Echo {
    async fn respond(&self, request: &[u8]) -> Answer {
        match self.respond_at_once(request) {
            Some(answer) => answer,
            None => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _pass = self.gate.acquire().await.unwrap();
                echo(request, Outcome::Live, Some(FACTS))
            }
        }
    }

    fn respond_at_once(&self, request: &[u8]) -> Option<Answer> {
        Some(match request {
            [0x30, 0xf0, ..] => return None,
            [0x30, 0xf1, ..] => echo(request, Outcome::Live, None),
            [0x30, how @ 0xe0..=0xe6, ..] => echo(request, Outcome::ALL[usize::from(how - 0xe0)], None),
            [0x30, ..] => echo(request, Outcome::Stored, Some(FACTS)),
            _ => echo(&[0x30, 0x03, 0x0a, 0x01, 0x01], Outcome::Malformed, None),
        })
    }
}

/// An endpoint that runs until it is dropped.
struct Running {
    addresses: Vec<SocketAddr>,
    echo: Arc<Echo>,
    metrics: Metrics,
    shutdown: Shutdown,
    served: Option<tokio::task::JoinHandle<Drained>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn local() -> Settings {
    Settings { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Settings::default() }
}

fn start(settings: Settings) -> Running {
    let mut metrics = Metrics::new();
    let families = EndpointMetrics::register(&mut metrics);
    let echo = Arc::new(Echo { gate: Semaphore::new(0), waiting: AtomicUsize::new(0) });
    let clock = Arc::new(ManualClock::new(NOW));
    let endpoint = Endpoint::bind(settings, Arc::clone(&echo), clock, families).unwrap();
    let addresses = endpoint.local_addresses().unwrap();
    let shutdown = Shutdown::new();
    let served = Some(tokio::spawn(endpoint.serve(shutdown.clone())));
    Running { addresses, echo, metrics, shutdown, served }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    /// Sends octets on a connection of their own and reads one response.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        Reply::read(&mut stream).await.expect("a response")
    }

    async fn get(&self, target: &str) -> Reply {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: ocsp.example\r\n\r\n")).await
    }

    /// The value of one metric line.
    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let value = text.lines().find_map(|present| present.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        tokio::time::timeout(Duration::from_secs(10), async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("the condition comes true within 10 s");
    }
}

/// A response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    version: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// Reads one response with a Content-Length (or none at all, for 304 and 1xx); `None` at a clean end.
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        tokio::time::timeout(Duration::from_secs(20), Self::read_now(stream, true)).await.expect("in time")
    }

    /// The same for HEAD: a Content-Length and no body.
    async fn read_head(stream: &mut TcpStream) -> Option<Self> {
        tokio::time::timeout(Duration::from_secs(20), Self::read_now(stream, false)).await.expect("in time")
    }

    async fn read_now(stream: &mut TcpStream, with_body: bool) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(octet) => head.push(octet),
                Err(_) if head.is_empty() => return None,
                Err(error) => panic!("a response breaks off: {error}; {}", String::from_utf8_lossy(&head)),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap().splitn(3, ' ');
        let version = first.next().unwrap().to_owned();
        let status = first.next().unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Self { version, status, headers, body: Vec::new() };
        assert_eq!(reply.header("transfer-encoding"), None, "nothing is ever sent chunked");
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        if with_body {
            reply.body = vec![0; length];
            stream.read_exact(&mut reply.body).await.expect("the whole body");
        }
        Some(reply)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(present, _)| present == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert_eq!(found.next(), None, "{name} is sent once");
        value
    }

    /// The headers but Date, which the machine's clock makes.
    fn undated(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "date");
        self
    }
}

/// An echoed request of `length` octets (at least 2): 0x30, then octets whose base64 has every symbol.
fn request(length: usize) -> Vec<u8> {
    (0..length).map(|at| if at == 0 { 0x30 } else { (at * 73 % 224).to_le_bytes()[0] }).collect()
}

fn post(body: &[u8], headers: &str) -> Vec<u8> {
    let mut octets =
        format!("POST / HTTP/1.1\r\nHost: ocsp.example\r\nContent-Length: {}\r\n{headers}\r\n", body.len())
            .into_bytes();
    octets.extend_from_slice(body);
    octets
}

/// Whether the peer has closed: the end of the stream, or a reset.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut octet = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut octet)).await;
    matches!(read.expect("closed within 10 s"), Ok(0) | Err(_))
}
