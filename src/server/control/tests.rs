use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

struct Running {
    address: SocketAddr,
    shutdown: Shutdown,
    shelf_loaded: Arc<AtomicBool>,
    served: tokio::task::JoinHandle<bool>,
}

fn start() -> Running {
    let shelf_loaded = Arc::new(AtomicBool::new(true));
    let loaded = Arc::clone(&shelf_loaded);
    let readiness = move || {
        let ready = loaded.load(Ordering::SeqCst);
        let detail = if ready { "loaded" } else { "loading: 12 of 256 shards" };
        vec![Check { name: "shelf".to_owned(), ready, detail: detail.to_owned() }]
    };
    let shutdown = Shutdown::new();
    let settings = Settings { listen: "127.0.0.1:0".parse().unwrap(), ..Settings::default() };
    let control = Control::bind(&settings).unwrap();
    let router = router(
        Arc::new(Metrics::new()),
        Arc::new(readiness),
        Arc::new(situation::Situation::default),
        shutdown.clone(),
        &control.access().gate,
        Router::new().route("/v1/thing", get(|| async { "a thing" }).post(|| async { "made" })),
    );
    let address = control.local_address().unwrap();
    let served = tokio::spawn(control.serve(router, shutdown.clone()));
    Running { address, shutdown, shelf_loaded, served }
}

/// Sends one request on a connection of its own and returns status, head and body.
async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn health_metrics_and_the_page_are_served() {
    let control = start();
    let (status, _, body) = ask(control.address, "GET", "/livez").await;
    assert_eq!((status, body.as_str()), (200, "alive\n"));
    let (status, head, body) = ask(control.address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (status, head, body) = ask(control.address, "GET", "/").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/html") && body.contains("href=\"/readyz\""), "{head}\n{body}");
    let (status, _, body) = ask(control.address, "GET", "/v1/thing").await;
    assert_eq!((status, body.as_str()), (200, "a thing"));
}

#[tokio::test]
async fn readiness_names_each_check_and_is_503_until_all_hold() {
    let control = start();
    let (status, head, body) = ask(control.address, "GET", "/readyz").await;
    assert_eq!(status, 200);
    assert!(head.contains("cache-control: no-store"), "{head}");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        report,
        serde_json::json!({
            "ready": true, "draining": false,
            "checks": [{"name": "shelf", "ready": true, "detail": "loaded"}],
        })
    );
    control.shelf_loaded.store(false, Ordering::SeqCst);
    let (status, _, body) = ask(control.address, "GET", "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("12 of 256 shards") && body.contains("\"ready\":false"), "{body}");
}

#[tokio::test]
async fn a_connection_that_is_open_sees_503_once_the_drain_begins() {
    let control = start();
    let mut stream = TcpStream::connect(control.address).await.unwrap();
    // Half a request keeps the connection from being idle when the stop comes.
    stream.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    control.shutdown.stop();
    stream.write_all(b"Host: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\"draining\":true"), "{text}");
    assert!(control.served.await.unwrap(), "the drain ended in time");
}

/// S4.
#[tokio::test]
async fn every_error_is_a_problem_document_whose_status_is_the_responses() {
    let control = start();
    for (method, path, expected) in [
        ("GET", "/nothing", 404),
        ("POST", "/livez", 405),
        ("DELETE", "/v1/thing", 405),
        ("GET", "/v1/", 404),
    ] {
        let (status, head, body) = ask(control.address, method, path).await;
        assert_eq!(status, expected, "{method} {path}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], expected);
        assert!(problem["detail"].as_str().unwrap().contains(path), "{problem}");
        assert_eq!(head.contains("\nallow: "), expected == 405, "{head}");
    }
}

#[tokio::test]
async fn an_address_that_other_machines_reach_is_refused_with_the_way_out() {
    for address in ["0.0.0.0:8890", "192.0.2.1:80", "[::]:8890", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"] {
        let settings = Settings { listen: address.parse().unwrap(), ..Settings::default() };
        let Err(error @ ControlError::NotLoopback { .. }) = Control::bind(&settings) else {
            panic!("{address} was accepted")
        };
        let text = error.to_string();
        for piece in [address, "control.listen", "127.0.0.1", "control.tls_key", "control.credentials_file"] {
            assert!(text.contains(piece), "{text}");
        }
        // Half of it is not enough, and what is missing is named.
        let tls = tls::Settings { certificate: "c".into(), key: "k".into(), client_ca: None };
        let tls = Settings { tls: Some(tls), ..settings.clone() };
        assert!(tls.check().unwrap_err().to_string().contains("has no credentials"));
        let credentials = Settings { credentials_file: Some("f".into()), ..settings };
        assert!(credentials.check().unwrap_err().to_string().contains("has no TLS"));
        Settings { tls: tls.tls, ..credentials }.check().unwrap();
    }
    for address in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        Settings { listen: address.parse().unwrap(), ..Settings::default() }.check().unwrap();
    }
}
