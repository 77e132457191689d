//! Ordinary requests are answered without hyper: no client may notice.

use super::*;

const HANDED_OVER: &str = "goodstanding_http_connections_handed_over_total";

/// A connection that hyper serves: HEAD is nothing ordinary.
async fn with_hyper(endpoint: &Running) -> TcpStream {
    let mut stream = endpoint.connect().await;
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(Reply::read_head(&mut stream).await.unwrap().status, 200);
    stream
}

/// H7: a 304 has no body, whatever its Content-Length says.
async fn ask_on(stream: &mut TcpStream, ask: &[u8]) -> Reply {
    stream.write_all(ask).await.unwrap();
    let reply = Reply::read_head(stream).await.expect("a response");
    let length =
        if reply.status == 304 { 0 } else { reply.header("content-length").unwrap().parse().unwrap() };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Reply { body, ..reply }.undated()
}

/// L9, L12, H1–H4, H7, N5: the same status, the same fields in the same order, the same body.
#[tokio::test]
async fn an_ordinary_request_is_answered_as_hyper_answers_it() {
    let endpoint = start(local());
    let path = STANDARD.encode(request(99));
    let get = |headers: &str| format!("GET /{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into_bytes();
    let tag = "ab".repeat(32);
    let mut asks = vec![
        get(""),
        get("Connection: keep-alive\r\n"),
        get("CONNECTION: Keep-Alive\r\nAccept: */*\r\nKeep-Alive: timeout=5\r\n"),
        get(&format!("If-None-Match: \"{tag}\"\r\n")),
        get(&format!("if-none-match: \"x\"\r\nIF-NONE-MATCH: W/\"{tag}\"\r\n")),
        get("If-None-Match: \"x\"\r\nIf-Modified-Since: Mon, 23 Nov 2026 00:00:00 GMT\r\n"),
        get("If-Modified-Since: Sun, 22 Nov 2026 00:00:00 GMT\r\n"),
        get("If-Modified-Since: Sat, 21 Nov 2026 23:59:59 GMT\r\n"),
        post(&request(300), ""),
        post(&request(10_000), "Content-Type: application/ocsp-request\r\n"),
        post(&request(30), "If-None-Match: *\r\n"),
        post(b"no DER", ""),
    ];
    for how in (0xe0..=0xe6).chain([0xf1]) {
        let path = STANDARD.encode([0x30, how, 7]).replace('/', "%2F");
        asks.push(format!("GET //{path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes());
        asks.push(post(&[0x30, how], ""));
    }
    let mut hyper = with_hyper(&endpoint).await;
    let mut direct = endpoint.connect().await;
    for ask in &asks {
        let reply = ask_on(&mut direct, ask).await;
        assert_eq!(reply, ask_on(&mut hyper, ask).await, "{}", String::from_utf8_lossy(ask));
    }
    assert_eq!(endpoint.metric(HANDED_OVER), 1, "only the one that was meant to be");
    // With a last word.
    for ask in [get("Connection: close\r\n"), post(&request(9), "connection: CLOSE\r\n")] {
        let mut direct = endpoint.connect().await;
        let mut hyper = with_hyper(&endpoint).await;
        let reply = ask_on(&mut direct, &ask).await;
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(reply, ask_on(&mut hyper, &ask).await);
        assert!(closed(&mut direct).await && closed(&mut hyper).await);
    }
    assert_eq!(endpoint.metric(HANDED_OVER), 3);
}

/// H4, H5: wherever the network cuts a request.
#[tokio::test]
async fn a_request_in_two_pieces_is_answered_wherever_it_is_cut() {
    let endpoint = start(local());
    let ask = post(&request(40), "");
    for cut in 1..ask.len() {
        let mut stream = endpoint.connect().await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(&post(&request(5), "")).await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(5));
        stream.write_all(&ask[..cut]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.write_all(&ask[cut..]).await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(40), "cut at {cut}");
    }
    assert!(endpoint.metric(HANDED_OVER) > ask.len() as u64 / 2);
}

/// Answers come in the order of the requests, also across the change to hyper and past what the client
/// takes at once.
#[tokio::test]
async fn requests_sent_without_waiting_are_answered_in_their_order() {
    let endpoint = start(local());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(endpoint.addresses[0]).await.unwrap();
    let mut asks = Vec::new();
    for length in 2..300 {
        asks.extend(post(&request(length), if length % 90 == 0 { "Expect: 100-continue\r\n" } else { "" }));
    }
    let (mut reading, mut writing) = stream.split();
    let send = async { writing.write_all(&asks).await.unwrap() };
    let receive = async {
        let mut octets = Vec::new();
        let mut piece = [0; 1000];
        // Slowly at first, so that the endpoint has to wait for room.
        tokio::time::sleep(Duration::from_millis(200)).await;
        while !octets.ends_with(&request(299)) {
            let read = reading.read(&mut piece).await.unwrap();
            assert_ne!(read, 0, "the connection stays");
            octets.extend_from_slice(&piece[..read]);
        }
        octets
    };
    let ((), octets) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(send, receive) })
        .await
        .expect("in time");
    let text = String::from_utf8_lossy(&octets);
    let lengths: Vec<usize> = text
        .split("content-length: ")
        .skip(1)
        .map(|rest| rest.split("\r\n").next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(lengths, (2..300).collect::<Vec<_>>());
}

/// C3: what has to be waited for is waited for by hyper, and the answer is the same.
#[tokio::test]
async fn an_answer_that_is_not_ready_comes_when_it_is() {
    let endpoint = start(local());
    let mut stream = endpoint.connect().await;
    stream.write_all(&post(&[0x30, 0xf0], "")).await.unwrap();
    endpoint.until(|e| e.echo.waiting.load(Ordering::SeqCst) == 1).await;
    endpoint.echo.gate.add_permits(1);
    let reply = Reply::read(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.body), (200, vec![0x30, 0xf0]));
    assert_eq!(endpoint.metric("goodstanding_ocsp_requests_total{method=\"post\",outcome=\"live\"}"), 1);
}

/// What decides where a request ends is never guessed: two lengths, a length with a sign, or chunks are
/// hyper's to refuse or to read.
#[tokio::test]
async fn what_has_more_than_one_reading_is_left_to_hyper() {
    let endpoint = start(local());
    for (headers, status) in [
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        ("Content-Length: +3\r\n", 400),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", 200),
    ] {
        let before = endpoint.metric(HANDED_OVER);
        let ask = format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n3\r\n\x30\x01\x02\r\n0\r\n\r\n");
        let mut stream = with_hyper(&endpoint).await;
        stream.write_all(ask.as_bytes()).await.unwrap();
        let expected = Reply::read(&mut stream).await.unwrap().undated();
        let reply = endpoint.ask(&ask).await.undated();
        assert_eq!(reply, expected, "{headers}");
        if !headers.starts_with("Content-Length: 3\r\nT") {
            assert_eq!(reply.status, status, "{headers}");
        }
        assert_eq!(endpoint.metric(HANDED_OVER), before + 2, "{headers}");
    }
}
