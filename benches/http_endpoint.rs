//! What the endpoint adds to bare hyper: the same requests and the same octets in the same run.
//!
//! `cargo bench --bench http_endpoint` times rounds of 64 requests (half GET, half POST, one on each of 64
//! connections), then prints the CPU time of each server's thread a request and the ratio between them,
//! which is what counts: wall time on loopback is mostly the kernel's.
//!
//! For a generator of its own (wrk), `BENCH_SERVE=endpoint|bare|padded cargo bench --bench http_endpoint`
//! serves until it is killed, and prints where.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]

use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use goodstanding::clock::{Clock, SystemClock, UnixTime};
use goodstanding::responder::{Answer, CacheFacts, Outcome, Respond};
use goodstanding::server::ocsp::{Endpoint, EndpointMetrics, Settings};
use goodstanding::shutdown::Shutdown;
use goodstanding::telemetry::Metrics;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

const CONNECTIONS: usize = 64;
static BODY: [u8; 500] = [0x30; 500];
static PADDED: [u8; 1024] = [0x30; 1024];

/// Always the same answer, valid around now.
struct Constant(CacheFacts);

impl Respond for Constant {
    async fn respond(&self, _request: &[u8]) -> Answer {
        Answer { body: Bytes::from_static(&BODY), cache: Some(self.0), outcome: Outcome::Stored }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    /// Ours.
    Endpoint,
    /// hyper with the same headers and body, all constant.
    Bare,
    /// hyper with one constant header and a body longer by what the headers were.
    Padded(usize),
}

impl Server {
    const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Bare => "bare",
            Self::Padded(_) => "padded",
        }
    }

    /// Starts it on a thread that carries its name.
    fn start(self) -> (Runtime, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("srv-{}", self.name()))
            .enable_all()
            .build()
            .unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = if self == Self::Endpoint {
            let _inside = runtime.enter();
            let now = SystemClock.now();
            let facts = CacheFacts {
                this_update: now.minus(Duration::from_secs(3600)),
                next_update: UnixTime(now.0 + 600_000),
                renewed_at: UnixTime(now.0 + 300_000),
                digest: [0xab; 32],
            };
            let settings = Settings { listen: vec![any], ..Settings::default() };
            let metrics = EndpointMetrics::register(&mut Metrics::new());
            let endpoint =
                Endpoint::bind(settings, Arc::new(Constant(facts)), SystemClock::shared(), metrics).unwrap();
            let address = endpoint.local_addresses().unwrap()[0];
            runtime.spawn(endpoint.serve(Shutdown::new()));
            address
        } else {
            let listener = runtime.block_on(tokio::net::TcpListener::bind(any)).unwrap();
            let address = listener.local_addr().unwrap();
            runtime.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let service = hyper::service::service_fn(move |request| bare(self, request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::spawn(connection);
                }
            });
            address
        };
        (runtime, address)
    }
}

async fn bare(server: Server, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == hyper::Method::POST {
        let _ = request.into_body().collect().await;
    }
    let body: &'static [u8] = match server {
        Server::Padded(length) => &PADDED[..length],
        _ => &BODY,
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    let constant = [
        ("content-type", "application/ocsp-response"),
        ("etag", "\"abababababababababababababababababababababababababababababababab\""),
        ("expires", "Sun, 13 Nov 1994 08:49:36 GMT"),
        ("cache-control", "max-age=300000, public, no-transform, must-revalidate"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ];
    let count = if matches!(server, Server::Padded(_)) { 1 } else { constant.len() };
    for (name, value) in constant.into_iter().take(count) {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

/// A request as long as one with a SHA-1 CertID and a serial of 18 octets.
fn octets() -> Vec<u8> {
    (0..85u32).map(|at| if at == 0 { 0x30 } else { (at * 73 % 251).to_le_bytes()[0] }).collect()
}

fn requests() -> [Vec<u8>; 2] {
    let path = STANDARD.encode(octets()).replace('+', "%2B").replace('=', "%3D");
    let get = format!("GET /{path} HTTP/1.1\r\nHost: ocsp.example\r\n\r\n").into_bytes();
    let mut post = format!(
        "POST / HTTP/1.1\r\nHost: ocsp.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: {}\r\n\r\n",
        octets().len()
    )
    .into_bytes();
    post.extend(octets());
    [get, post]
}

/// Keep-alive connections to one server.
struct Clients {
    connections: Vec<TcpStream>,
    requests: [Vec<u8>; 2],
    response: usize,
}

impl Clients {
    fn connect(address: SocketAddr) -> Self {
        let connections: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                stream
            })
            .collect();
        let mut clients = Self { connections, requests: requests(), response: 0 };
        clients.response = clients.measure_response();
        clients
    }

    /// The length of one response; all of a server are equally long.
    fn measure_response(&mut self) -> usize {
        self.connections[0].write_all(&self.requests[0]).unwrap();
        let mut buffer = vec![0; 16_384];
        let mut read = 0;
        loop {
            read += self.connections[0].read(&mut buffer[read..]).unwrap();
            let text = String::from_utf8_lossy(&buffer[..read]).to_ascii_lowercase();
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let whole = head.len() + 4 + length.parse::<usize>().unwrap();
            if read >= whole {
                assert_eq!(read, whole);
                return whole;
            }
        }
    }

    /// One request on each connection, then every response.
    fn round(&mut self) {
        for (at, connection) in self.connections.iter_mut().enumerate() {
            connection.write_all(&self.requests[at % 2]).unwrap();
        }
        let mut buffer = [0; 4096];
        for connection in &mut self.connections {
            connection.read_exact(&mut buffer[..self.response]).unwrap();
        }
    }
}

/// CPU nanoseconds of this process's threads that are called `name`.
fn cpu_nanos(name: &str) -> u64 {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let is_its = fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
        if let (true, Ok(stat)) = (is_its, fs::read_to_string(task.path().join("schedstat"))) {
            total += stat.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    total
}

fn main() {
    let padding = {
        let (_first, ours) = Server::Endpoint.start();
        let (_second, padded) = Server::Padded(BODY.len()).start();
        Clients::connect(ours).response - Clients::connect(padded).response
    };
    let all = [Server::Endpoint, Server::Bare, Server::Padded(BODY.len() + padding)];
    if let Ok(wanted) = std::env::var("BENCH_SERVE") {
        let server = all.into_iter().find(|server| server.name() == wanted);
        let (_runtime, address) = server.expect("BENCH_SERVE is endpoint, bare or padded").start();
        println!("{wanted} {address}");
        loop {
            std::thread::park();
        }
    }

    let mut criterion = Criterion::default().configure_from_args();
    let mut running: Vec<_> = all
        .into_iter()
        .map(|server| {
            let (runtime, address) = server.start();
            (server, runtime, Clients::connect(address))
        })
        .collect();
    let lengths: Vec<usize> = running.iter().map(|(.., clients)| clients.response).collect();
    assert!(
        lengths.iter().all(|length| length.abs_diff(lengths[0]) <= 8),
        "as many octets each: {lengths:?}"
    );

    let mut group = criterion.benchmark_group("http_endpoint");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    for (server, _runtime, clients) in &mut running {
        group.bench_function(server.name(), |bencher| bencher.iter(|| clients.round()));
    }
    group.finish();

    let smoke = std::env::args().any(|argument| argument == "--test");
    let (repetitions, rounds) = if smoke { (1, 3) } else { (9, 1_500) };
    let mut micros = vec![Vec::new(); running.len()];
    for repetition in 0..repetitions {
        let mut order: Vec<usize> = (0..running.len()).collect();
        if repetition % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (server, _runtime, clients) = &mut running[at];
            let name = format!("srv-{}", server.name());
            let before = cpu_nanos(&name);
            (0..rounds).for_each(|_| clients.round());
            #[expect(clippy::cast_precision_loss, reason = "a printed figure")]
            micros[at].push((cpu_nanos(&name) - before) as f64 / 1e3 / (rounds * CONNECTIONS) as f64);
        }
    }
    let medians: Vec<f64> = micros
        .into_iter()
        .map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        })
        .collect();
    println!("server CPU a request, {} octets, median of {repetitions}:", lengths[0]);
    for ((server, ..), median) in running.iter().zip(&medians) {
        println!("  {:<9} {median:6.2} us   endpoint / this = {:.3}", server.name(), medians[0] / median);
    }
    for (_, runtime, _) in running {
        runtime.shutdown_background();
    }
    criterion.final_summary();
}
