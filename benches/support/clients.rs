//! Clients of the servers under measurement: keep-alive connections, new ones, and requests by the clock.

#![allow(dead_code, reason = "each measurement takes of it what it needs")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::{HashAlgorithm, Issuer, request};

use super::answers::serial;

pub(crate) const CONNECTIONS: usize = 64;
/// Different certificates that are asked about.
pub(crate) const ASKED: u64 = 5_000;

/// Requests in octets, each about another certificate.
pub(crate) type Requests = Arc<Vec<Vec<u8>>>;

/// Requests about these certificates of a fleet, GET and POST by turns.
pub(crate) fn requests(issuer: &Issuer, numbers: impl Iterator<Item = u64>) -> Requests {
    let one = |(turn, number): (usize, u64)| {
        let asked = issuer.cert_id(HashAlgorithm::Sha1, serial(number));
        let der = request::encode(&[asked], None).unwrap();
        if turn.is_multiple_of(2) {
            let path = STANDARD.encode(&der).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            return format!("GET /{path} HTTP/1.1\r\nHost: ocsp.example\r\n\r\n").into_bytes();
        }
        let head = "POST / HTTP/1.1\r\nHost: ocsp.example\r\nContent-Type: application/ocsp-request";
        let mut post = format!("{head}\r\nContent-Length: {}\r\n\r\n", der.len()).into_bytes();
        post.extend(der);
        post
    };
    Arc::new(numbers.enumerate().map(one).collect())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Keep-alive connections to one server.
pub(crate) struct Clients {
    address: SocketAddr,
    connections: Vec<TcpStream>,
    requests: Requests,
    next: usize,
    step: usize,
    /// The length of one response; all of a server are equally long.
    pub(crate) response: usize,
    /// And of its body.
    pub(crate) body: usize,
}

impl Clients {
    /// `get_only` for a server of files.
    pub(crate) fn connect(address: SocketAddr, requests: &Requests, get_only: bool) -> Self {
        Self::many(address, requests, get_only, CONNECTIONS)
    }

    /// So many connections.
    pub(crate) fn many(address: SocketAddr, requests: &Requests, get_only: bool, count: usize) -> Self {
        let connections = (0..count).map(|_| connect(address)).collect();
        let step = if get_only { 2 } else { 1 };
        let requests = Arc::clone(requests);
        let mut clients = Self { address, connections, requests, next: 0, step, response: 0, body: 0 };
        clients.measure_response();
        clients
    }

    pub(crate) fn is_get_only(&self) -> bool {
        self.step == 2
    }

    pub(crate) fn count(&self) -> usize {
        self.connections.len()
    }

    fn measure_response(&mut self) {
        self.connections[0].write_all(&self.requests[0]).unwrap();
        let mut buffer = vec![0; 16_384];
        let mut read = 0;
        loop {
            read += self.connections[0].read(&mut buffer[read..]).unwrap();
            let text = String::from_utf8_lossy(&buffer[..read]).to_ascii_lowercase();
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            self.body = length.parse().unwrap();
            assert!(self.body > 100, "an answer and no error");
            self.response = head.len() + 4 + self.body;
            if read >= self.response {
                assert_eq!(read, self.response);
                return;
            }
        }
    }

    fn request(&mut self) -> &[u8] {
        let request = &self.requests[self.next];
        self.next = (self.next + self.step) % self.requests.len();
        request
    }

    /// One request on each connection, then every response.
    pub(crate) fn round(&mut self) {
        for at in 0..self.connections.len() {
            let mut connection = &self.connections[at];
            connection.write_all(&self.requests[self.next]).unwrap();
            self.next = (self.next + self.step) % self.requests.len();
        }
        self.take(self.response);
    }

    /// The same with HEAD, which ordinary clients do not send.
    pub(crate) fn round_of_heads(&mut self) {
        let get = &self.requests[0];
        let head = [b"HEAD", &get[3..]].concat();
        assert!(get.starts_with(b"GET "));
        for connection in &mut self.connections {
            connection.write_all(&head).unwrap();
        }
        self.take(self.response - self.body);
    }

    /// So many octets from each connection: whatever was refused or shortened ends in a panic.
    fn take(&mut self, octets: usize) {
        let mut buffer = [0; 8192];
        for connection in &mut self.connections {
            connection.read_exact(&mut buffer[..octets]).unwrap();
            assert!(buffer.starts_with(b"HTTP/1.1 200"));
        }
    }

    /// Requests on connections of their own, one after the other.
    pub(crate) fn fresh(&mut self, count: usize) {
        let mut buffer = [0; 8192];
        for _ in 0..count {
            let mut connection = connect(self.address);
            connection.write_all(self.request()).unwrap();
            connection.read_exact(&mut buffer[..self.response]).unwrap();
        }
    }

    /// Asks `rate` times a second in all for `span`, by the clock: how long each answer took from the moment
    /// at which its request was due, in seconds, sorted. A connection that is kept waiting delays its next
    /// requests, and that counts too.
    pub(crate) fn by_the_clock(&mut self, rate: f64, span: Duration) -> Vec<f64> {
        let count = self.connections.len();
        #[expect(clippy::cast_precision_loss, reason = "dozens of connections")]
        let period = Duration::from_secs_f64(count as f64 / rate);
        let (requests, response, step) = (&self.requests, self.response, self.step);
        let watch = Stopwatch::start();
        let ask = |(place, connection): (usize, &mut TcpStream)| {
            let mut buffer = [0; 8192];
            let mut taken = Vec::new();
            let mut due = period.mul_f64(place as f64 / count as f64) + Duration::from_millis(20);
            let mut next = place * step;
            while due < span {
                std::thread::sleep(due.saturating_sub(watch.elapsed()));
                connection.write_all(&requests[next % requests.len()]).unwrap();
                connection.read_exact(&mut buffer[..response]).unwrap();
                taken.push(watch.elapsed().saturating_sub(due).as_secs_f64());
                due += period;
                next += count * step;
            }
            taken
        };
        let mut all: Vec<f64> = std::thread::scope(|scope| {
            let threads = self.connections.iter_mut().enumerate();
            let threads: Vec<_> = threads.map(|one| scope.spawn(move || ask(one))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_by(f64::total_cmp);
        all
    }
}
