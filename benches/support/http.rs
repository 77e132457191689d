//! Servers on loopback: ours with a fleet on its shelf, bare hyper and nginx with as many constant octets.

#![allow(dead_code, reason = "each measurement takes of it what it needs")]

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use goodstanding::clock::{ManualClock, SharedClock, UnixTime};
use goodstanding::ocsp::{Freshness, Issuer, Preset};
use goodstanding::presign::identity::Identities;
use goodstanding::presign::keeper::KeeperStats;
use goodstanding::presign::{Policies, Policy};
use goodstanding::responder::live::{self, LiveSigner};
use goodstanding::responder::{IssuerDirectory, NoncePolicy, Responder, Settings, UnknownSerial};
use goodstanding::server::ocsp::{self, Endpoint, EndpointMetrics};
use goodstanding::shutdown::Shutdown;
use goodstanding::telemetry::Metrics;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

use super::answers::{Fleet, ISSUER, THIS_UPDATE};

const DAY: Duration = Duration::from_secs(86_400);

/// A server under measurement; it ends with the process, or when it is dropped.
pub(crate) enum Server {
    /// On one thread of this process that carries its name.
    Thread { name: &'static str, address: SocketAddr, _runtime: Arc<Runtime> },
    /// nginx, one worker.
    Nginx { address: SocketAddr, child: Child, _folder: tempfile::TempDir },
}

fn runtime(name: &'static str) -> Arc<Runtime> {
    if std::env::var("BENCH_RUNTIME").is_ok_and(|kind| kind == "current") {
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        let driven = Arc::clone(&runtime);
        let drive = move || driven.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name(name.to_owned()).spawn(drive).unwrap();
        return runtime;
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Arc::new(builder.worker_threads(1).thread_name(name).enable_all().build().unwrap())
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Server {
    /// The endpoint over a shelf that holds `fleet`, everything counted that is counted in production.
    pub(crate) fn goodstanding(name: &'static str, fleet: &Fleet, issuer: &Arc<Issuer>) -> Self {
        let runtime = runtime(name);
        let inside = runtime.enter();
        let clock: SharedClock = Arc::new(ManualClock::new(UnixTime(THIS_UPDATE.0 + 400)));
        let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap();
        let policies = Arc::new(ArcSwap::from_pointee(Policies::new(Policy::new(freshness))));
        let live = LiveSigner::new(
            Arc::new(Identities::default()),
            clock.clone(),
            Arc::clone(&policies),
            live::Settings::default(),
        );
        let settings = Settings { unknown_serial: UnknownSerial::Unauthorized, nonce: NoncePolicy::Ignore };
        let directory = IssuerDirectory::new([(ISSUER, issuer.clone())]);
        let news = Arc::new(KeeperStats::default());
        news.feed_read_at.store(clock.now().0, Ordering::Relaxed);
        let shelf = fleet.shelf.clone();
        let responder = Responder::new(directory, shelf, live, clock.clone(), policies, news, settings);
        // So many that none is sent away for the others.
        let settings =
            ocsp::Settings { listen: vec![any()], max_connections: 40_000, ..ocsp::Settings::default() };
        let metrics = EndpointMetrics::register(&mut Metrics::new());
        let endpoint = Endpoint::bind(settings, Arc::new(responder), clock, metrics).unwrap();
        let address = endpoint.local_addresses().unwrap()[0];
        runtime.spawn(endpoint.serve(Shutdown::new()));
        drop(inside);
        Self::Thread { name, address, _runtime: runtime }
    }

    /// hyper alone with constant headers and so many octets of body, which it reads a POST for.
    pub(crate) fn bare(name: &'static str, body: usize, headers: bool) -> Self {
        let runtime = runtime(name);
        let body: &'static [u8] = vec![0x30; body].leak();
        let inside = runtime.enter();
        let listener = TcpListener::bind(any()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        drop(inside);
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let service = hyper::service::service_fn(move |request| answer(body, headers, request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self::Thread { name, address, _runtime: runtime }
    }

    /// nginx with a file of so many octets at every path.
    pub(crate) fn nginx(body: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind(any()).unwrap().local_addr().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("answer"), vec![0x30; body]).unwrap();
        let text = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;
            events {{ worker_connections 20000; }}
            http {{ access_log off; tcp_nodelay on; sendfile on; keepalive_requests 1000000000;
              open_file_cache max=10 inactive=1h; default_type application/ocsp-response;
              client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f;
              uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
              server {{ listen {address}; root {here}; location / {{ try_files /answer =404; }} }} }}",
            here = folder.path().display()
        );
        fs::write(at("nginx.conf"), text).unwrap();
        // nginx drops to another user when it is root; the folder has to be readable for it.
        #[cfg(unix)]
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("nginx")
            .env("PATH", format!("{path}:/usr/sbin"))
            .arg("-c")
            .arg(at("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is not installed: scripts/packages test");
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self::Nginx { address, child, _folder: folder }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Thread { name, .. } => name.trim_start_matches("srv-"),
            Self::Nginx { .. } => "nginx",
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Thread { address, .. } | Self::Nginx { address, .. } => *address,
        }
    }

    /// CPU nanoseconds that it has used so far.
    pub(crate) fn cpu_nanos(&self) -> u64 {
        match self {
            Self::Thread { name, .. } => threads(Path::new("/proc/self"), Some(name)),
            Self::Nginx { child, .. } => {
                let id = child.id();
                let workers = format!("/proc/{id}/task/{id}/children");
                let workers = fs::read_to_string(workers).unwrap_or_default();
                workers.split_whitespace().map(|id| threads(&Path::new("/proc").join(id), None)).sum()
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Nginx { child, .. } = self {
            // SIGTERM lets the master end its worker, which SIGKILL would not.
            let ended = Command::new("kill").arg(child.id().to_string()).status();
            if ended.is_ok_and(|status| status.success()) {
                let _ = child.wait();
            }
        }
    }
}

/// CPU nanoseconds of a process's threads: those of one name, or all.
fn threads(process: &Path, name: Option<&str>) -> u64 {
    // The kernel keeps 15 octets of a thread's name.
    let name = name.map(|name| &name[..name.len().min(15)]);
    let mut total = 0;
    for task in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.is_none_or(|name| comm.trim() == name)
            && let Ok(stat) = fs::read_to_string(task.path().join("schedstat"))
        {
            total += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    total
}

async fn answer(
    body: &'static [u8],
    headers: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == hyper::Method::POST {
        let _ = request.into_body().collect().await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    let constant = [
        ("content-type", "application/ocsp-response"),
        ("etag", "\"abababababababababababababababababababababababababababababababab\""),
        ("expires", "Sun, 13 Nov 1994 08:49:36 GMT"),
        ("cache-control", "max-age=300000, public, no-transform, must-revalidate"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ];
    for (name, value) in constant.into_iter().take(if headers { constant.len() } else { 1 }) {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}
