//! What is asked and how it is answered: H1–H4, H6–H10, L9, L11, L12, N5.

use super::*;

/// H1: and far beyond the 255 octets of RFC 5019.
#[tokio::test]
async fn a_get_of_any_length_up_to_the_limit_is_answered() {
    let endpoint = start(local());
    for characters in [4, 252, 256, 2048, 8192, 16_380] {
        let octets = request(characters / 4 * 3);
        let text = STANDARD.encode(&octets);
        assert_eq!(text.len(), characters);
        let reply = endpoint.get(&format!("/{text}")).await;
        assert_eq!((reply.status, reply.body), (200, octets), "{characters}");
    }
}

/// H2, H3: all of it as raw paths, and the answer comes at once, not by way of a redirect.
#[tokio::test]
async fn every_spelling_of_a_path_reaches_the_responder_as_the_same_octets() {
    let endpoint = start(local());
    let octets = [0x30, 0xbf, 0xef, 0xbe, 0xff, 0xff, 0xfa];
    let text = STANDARD.encode(octets);
    assert_eq!(text, "ML/vvv//+g==");
    for target in [
        "/ML/vvv//+g==",
        "//ML/vvv//+g==",
        "////ML/vvv//+g==",
        "/ML%2Fvvv%2F%2F%2Bg%3D%3D",
        "/ML%2fvvv%2f%2f%2bg%3d%3d",
        "/ML/vvv//%20g==",
        "/ML_vvv__-g",
        "/ML_vvv__-g==",
        "/ML/vvv//+g",
        "/ML/vvv//+g==?",
        "/ML/vvv//+g==?utm=1&x=%zz",
        "http://ocsp.example/ML/vvv//+g==",
        "http://ocsp.example:80//ML%2Fvvv//+g==",
        "HTTP://ocsp.example/ML/vvv//+g==?q",
    ] {
        let reply = endpoint.get(target).await;
        assert_eq!((reply.status, reply.body), (200, octets.to_vec()), "{target}");
    }
}

/// H2: below a path of its own, and nowhere else.
#[tokio::test]
async fn an_endpoint_answers_below_its_paths_only() {
    let paths = vec!["/ocsp".parse().unwrap(), "/r3/".parse().unwrap()];
    let endpoint = start(Settings { paths, ..local() });
    let text = STANDARD.encode(request(30));
    for target in [format!("/ocsp/{text}"), format!("/r3//{text}"), format!("//ocsp/{text}?x")] {
        assert_eq!(endpoint.get(&target).await.body, request(30), "{target}");
    }
    for target in [format!("/{text}"), format!("/ocspx/{text}"), "/".to_owned()] {
        assert_eq!(endpoint.get(&target).await.status, 404, "{target}");
    }
    let mut elsewhere = post(&request(30), "");
    assert_eq!(endpoint.ask(&elsewhere).await.status, 404);
    elsewhere.splice(5..6, b"/ocsp".iter().copied());
    assert_eq!(endpoint.ask(&elsewhere).await.body, request(30));
}

/// H4.
#[tokio::test]
async fn a_post_is_answered_whatever_it_says_its_type_is() {
    let endpoint = start(local());
    for headers in [
        "",
        "Content-Type: application/ocsp-request\r\n",
        "Content-Type: application/ocsp-request; charset=utf-8\r\n",
        "Content-Type: text/html\r\n",
        "Content-Type: ;;\r\n",
    ] {
        let reply = endpoint.ask(post(&request(300), headers)).await;
        assert_eq!((reply.status, reply.body), (200, request(300)), "{headers:?}");
    }
}

/// L9, L11, H8: the exact headers, for both methods.
#[tokio::test]
async fn a_cacheable_answer_has_exactly_the_headers_of_the_profile() {
    let endpoint = start(local());
    let get = endpoint.get(&format!("/{}", STANDARD.encode(request(99)))).await;
    let date = get.header("date").expect("Date").to_owned();
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    chrono::DateTime::parse_from_rfc2822(&date).unwrap();
    let mut headers = get.clone().undated().headers;
    headers.sort();
    let expected = [
        ("cache-control", "max-age=302300, public, no-transform, must-revalidate".to_owned()),
        ("content-length", "99".to_owned()),
        ("content-type", "application/ocsp-response".to_owned()),
        ("etag", format!("\"{}\"", "ab".repeat(32))),
        ("expires", "Sat, 28 Nov 2026 23:59:59 GMT".to_owned()),
        ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT".to_owned()),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(endpoint.ask(post(&request(99), "")).await.undated(), get.undated());
}

/// L12, N5, H10: HTTP 200 for each; no-cache for errors, no-store for what was made for one client.
#[tokio::test]
async fn ocsp_errors_travel_in_http_200_with_no_cache() {
    let endpoint = start(local());
    for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
        let octets = [0x30, 0xe0 + at.to_le_bytes()[0], 7];
        let get = endpoint.get(&format!("/{}", STANDARD.encode(octets))).await;
        let is_answer = matches!(outcome, Outcome::Stored | Outcome::Live);
        let control = if is_answer { "no-store" } else { "no-cache" };
        assert_eq!((get.status, get.header("cache-control")), (200, Some(control)), "{outcome:?}");
        assert_eq!(get.header("content-type"), Some("application/ocsp-response"));
        for absent in ["etag", "expires", "last-modified"] {
            assert_eq!(get.header(absent), None, "{outcome:?}");
        }
        assert_eq!(endpoint.ask(post(&octets, "")).await.undated(), get.undated());
        let counted =
            format!("goodstanding_ocsp_requests_total{{method=\"post\",outcome=\"{}\"}}", outcome.name());
        assert_eq!(endpoint.metric(&counted), 1);
    }
    assert_eq!(endpoint.metric("goodstanding_ocsp_request_duration_seconds_count"), 14);
}

/// H10, C1: what is no base64 never reaches the responder.
#[tokio::test]
async fn a_path_that_is_no_base64_is_a_malformed_request() {
    let endpoint = start(local());
    for target in ["/robots.txt", "/MEow!", "/M", "/%00", "/MEow%2", "/MEow%zz", "/%C3%B6"] {
        let reply = endpoint.get(target).await;
        assert_eq!((reply.status, reply.body.as_slice()), (200, &[0x30, 3, 0x0a, 1, 1][..]), "{target}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
    }
    let empty = endpoint.ask(post(b"", "")).await;
    assert_eq!((empty.status, empty.body.as_slice()), (200, &[0x30, 3, 0x0a, 1, 1][..]));
}

#[tokio::test]
async fn the_bare_path_tells_people_and_monitors_that_it_is_up() {
    let endpoint = start(local());
    for target in ["/", "//", "/?x", "http://ocsp.example", "http://ocsp.example/"] {
        let reply = endpoint.get(target).await;
        assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")), "{target}");
        let text = String::from_utf8(reply.body).unwrap();
        assert!(text.contains("OCSP responder") && text.contains("openssl ocsp"), "{text}");
    }
}

/// H6.
#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let endpoint = start(local());
    for target in [format!("/{}", STANDARD.encode(request(99))), "/!".to_owned(), "/".to_owned()] {
        let get = endpoint.get(&target).await;
        let mut stream = endpoint.connect().await;
        for _ in 0..2 {
            // The second one proves that no octet of a body came after the first.
            let head = format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let head = Reply::read_head(&mut stream).await.unwrap();
            assert_eq!(head.undated(), Reply { body: Vec::new(), ..get.clone() }.undated(), "{target}");
        }
    }
}

/// H6.
#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let endpoint = start(local());
    for (count, method) in ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"].into_iter().enumerate() {
        let reply = endpoint.ask(format!("{method} /MEow HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, POST")), "{method}");
        assert_eq!(endpoint.metric("goodstanding_http_errors_total{status=\"405\"}"), count as u64 + 1);
    }
    let reply = endpoint.ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(reply.status, 405);
    let reply = endpoint.ask("CONNECT ocsp.example:80 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(reply.status, 405);
    // A connection with an unread body is usable or closed, never out of step.
    let mut stream = endpoint.connect().await;
    stream.write_all(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().status, 405);
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    if let Some(next) = Reply::read(&mut stream).await {
        assert_eq!(next.status, 200);
    }
}

/// H7.
#[tokio::test]
async fn a_client_that_holds_the_answer_gets_304_with_its_cache_headers() {
    let endpoint = start(local());
    let target = format!("/{}", STANDARD.encode(request(99)));
    let tag = "ab".repeat(32);
    let conditions = [
        (true, format!("If-None-Match: \"{tag}\"")),
        (true, format!("If-None-Match: \"x\", W/\"{tag}\"")),
        (true, "If-None-Match: *".to_owned()),
        (true, "If-Modified-Since: Sun, 22 Nov 2026 00:00:00 GMT".to_owned()),
        (false, "If-None-Match: \"x\"".to_owned()),
        (false, "If-Modified-Since: Sat, 21 Nov 2026 23:59:59 GMT".to_owned()),
        (false, "If-None-Match: \"x\"\r\nIf-Modified-Since: Mon, 23 Nov 2026 00:00:00 GMT".to_owned()),
    ];
    let full = endpoint.get(&target).await;
    for (method, (held, condition)) in
        ["GET", "HEAD"].iter().flat_map(|method| conditions.iter().map(move |condition| (method, condition)))
    {
        let mut stream = endpoint.connect().await;
        let ask = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{condition}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let reply = Reply::read_head(&mut stream).await.unwrap();
        assert_eq!(reply.status, if *held { 304 } else { 200 }, "{method} {condition}");
        assert!(reply.header("date").is_some());
        for same in ["etag", "cache-control", "expires"] {
            assert_eq!(reply.header(same), full.header(same), "{same}");
        }
        if *held {
            // Nothing follows it: the connection is in step.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            assert_eq!(Reply::read(&mut stream).await.unwrap().status, 200);
        }
    }
    assert_eq!(endpoint.metric("goodstanding_ocsp_not_modified_total"), 8);
    let reply = endpoint.ask(post(&request(99), "If-None-Match: *\r\n")).await;
    assert_eq!(reply.status, 200, "a POST is never conditional here");
}

/// H9: nginx asks like this.
#[tokio::test]
async fn an_http_1_0_client_gets_a_content_length_and_a_close() {
    let endpoint = start(local());
    let target = format!("/{}", STANDARD.encode(request(99)));
    for ask in [
        format!("GET {target} HTTP/1.0\r\nHost: ocsp.example\r\nConnection: close\r\n\r\n"),
        format!("GET {target} HTTP/1.0\r\n\r\n"),
    ] {
        let mut stream = endpoint.connect().await;
        stream.write_all(ask.as_bytes()).await.unwrap();
        let reply = Reply::read(&mut stream).await.unwrap();
        assert_eq!((reply.version.as_str(), reply.status), ("HTTP/1.0", 200));
        assert_eq!(reply.header("content-length"), Some("99"));
        assert_eq!(reply.body, request(99));
        assert_ne!(reply.header("connection"), Some("keep-alive"));
        assert!(closed(&mut stream).await);
    }
}

/// H9: `ab -k` and old proxies ask to stay.
#[tokio::test]
async fn an_http_1_0_client_that_asks_to_stay_may() {
    let endpoint = start(local());
    let mut stream = endpoint.connect().await;
    for _ in 0..3 {
        let target = STANDARD.encode(request(99));
        let ask = format!("GET /{target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let reply = Reply::read(&mut stream).await.unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")));
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let endpoint = start(local());
    let mut stream = endpoint.connect().await;
    let lengths = [3, 300, 33, 3000, 6];
    let mut all = Vec::new();
    for (at, length) in lengths.into_iter().enumerate() {
        match at % 2 {
            0 => all.extend(post(&request(length), "")),
            _ => all.extend(
                format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", STANDARD.encode(request(length))).into_bytes(),
            ),
        }
    }
    stream.write_all(&all).await.unwrap();
    for length in lengths {
        assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(length));
    }
}

#[tokio::test]
async fn a_request_in_pieces_of_any_size_is_one_request() {
    let endpoint = start(local());
    let get = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", STANDARD.encode(request(60))).into_bytes();
    for octets in [get, post(&request(60), "")] {
        for piece in [1, 7, 64] {
            let mut stream = endpoint.connect().await;
            stream.set_nodelay(true).unwrap();
            for part in octets.chunks(piece) {
                stream.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(60), "{piece}");
        }
    }
}

#[tokio::test]
async fn a_chunked_body_is_read() {
    let endpoint = start(local());
    let octets = request(300);
    let mut ask = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in octets.chunks(70) {
        ask.extend(format!("{:x};ext=1\r\n", chunk.len()).into_bytes());
        ask.extend_from_slice(chunk);
        ask.extend_from_slice(b"\r\n");
    }
    ask.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
    let mut stream = endpoint.connect().await;
    stream.write_all(&ask).await.unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().body, octets);
    stream.write_all(&post(&octets, "")).await.unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().body, octets, "the connection stays in step");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let endpoint = start(local());
    let mut stream = endpoint.connect().await;
    let octets = post(&request(300), "Expect: 100-continue\r\n");
    let (head, body) = octets.split_at(octets.len() - 300);
    stream.write_all(head).await.unwrap();
    let go_on = Reply::read(&mut stream).await.unwrap();
    assert_eq!(go_on.status, 100);
    stream.write_all(body).await.unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(300));
}

#[tokio::test]
async fn a_client_that_closes_its_half_after_asking_still_gets_its_answer() {
    let endpoint = start(local());
    let mut stream = endpoint.connect().await;
    stream.write_all(&post(&[0x30, 0xf0, 1], "")).await.unwrap();
    stream.shutdown().await.unwrap();
    endpoint.until(|endpoint| endpoint.echo.waiting.load(Ordering::SeqCst) == 1).await;
    endpoint.echo.gate.add_permits(1);
    assert_eq!(Reply::read(&mut stream).await.unwrap().body, [0x30, 0xf0, 1]);
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn one_endpoint_listens_on_several_addresses() {
    let listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let endpoint = start(Settings { listen, ..local() });
    assert_eq!(endpoint.addresses.len(), 2);
    for address in &endpoint.addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&post(&request(9), "")).await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(9));
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    let cases = [
        (Settings { listen: vec![], ..local() }, "ocsp.listen"),
        (Settings { paths: vec![], ..local() }, "ocsp.paths"),
        (Settings { max_body_bytes: 10, ..local() }, "ocsp.max_body_bytes"),
        (Settings { max_uri_bytes: 255, ..local() }, "ocsp.max_uri_bytes"),
        (Settings { read_buffer_bytes: 8192, ..local() }, "ocsp.read_buffer_bytes"),
        (Settings { max_connections: 0, ..local() }, "ocsp.max_connections"),
    ];
    for (settings, name) in cases {
        assert!(settings.check().unwrap_err().to_string().contains(name), "{name}");
    }
    Settings::default().check().unwrap();
}
