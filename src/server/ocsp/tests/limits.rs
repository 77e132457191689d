//! What clients may not do: H5.

use super::*;

const QUICK: Duration = Duration::from_millis(150);

/// All patience is long but what a test shortens.
fn patient() -> Patience {
    let long = Duration::from_secs(60);
    Patience { idle: long, idle_when_crowded: long, head: long, body: long, answer: long, write: long }
}

/// H5.
#[tokio::test]
async fn a_body_over_the_limit_is_413_even_to_a_client_that_is_still_sending() {
    let endpoint = start(local());
    assert_eq!(endpoint.ask(post(&request(10_000), "")).await.body, request(10_000));
    for length in [10_001, 100_000, 700_000] {
        let mut stream = endpoint.connect().await;
        stream.write_all(&post(&request(length), "")).await.unwrap();
        let reply = Reply::read(&mut stream).await.expect("the refusal, not a reset");
        assert_eq!((reply.status, reply.header("connection")), (413, Some("close")), "{length}");
        assert!(closed(&mut stream).await);
    }
    // No 100 Continue for it, and no waiting for a body.
    let ask = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(endpoint.ask(ask).await.status, 413);
    assert_eq!(endpoint.metric("goodstanding_http_errors_total{status=\"413\"}"), 4);
}

/// H5.
#[tokio::test]
async fn a_chunked_body_over_the_limit_is_413() {
    let endpoint = start(local());
    let mut stream = endpoint.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"3e8\r\n".to_vec(), vec![0x30; 1000], b"\r\n".to_vec()].concat();
    for _ in 0..11 {
        stream.write_all(&chunk).await.unwrap();
    }
    assert_eq!(Reply::read(&mut stream).await.unwrap().status, 413);
}

/// H5: what raw requests really get: 414 from here, 431 from hyper once the head fits no buffer.
#[tokio::test]
async fn a_target_over_the_limit_is_414_and_a_head_over_it_431() {
    let endpoint = start(local());
    for (length, status) in [(16_384, 200), (16_385, 414), (30_000, 414), (200_000, 431)] {
        let target = format!("/{}", "A".repeat(length - 1));
        let mut stream = endpoint.connect().await;
        let ask = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.unwrap().status, status, "{length}");
    }
    let query = format!("/MEow?{}", "x".repeat(16_380));
    assert_eq!(endpoint.get(&query).await.status, 414);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert_eq!(endpoint.ask(many).await.status, 431);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(200_000));
    assert_eq!(endpoint.ask(long).await.status, 431);
    assert_eq!(endpoint.metric("goodstanding_http_errors_total{status=\"414\"}"), 3);
    endpoint.until(|endpoint| endpoint.metric("goodstanding_http_errors_total{status=\"431\"}") == 3).await;
}

#[tokio::test]
async fn what_is_no_http_is_400_and_counted() {
    let endpoint = start(local());
    for ask in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n", // TLS on the plain port
        "GET /MEow pAAA HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    ] {
        let reply = endpoint.ask(ask).await;
        assert_eq!(reply.status, 400, "{ask:?}");
    }
    endpoint.until(|endpoint| endpoint.metric("goodstanding_http_errors_total{status=\"400\"}") == 4).await;
}

/// H5: slow-loris in the head, an octet at a time.
#[tokio::test]
async fn a_head_that_never_ends_is_cut_with_408_however_it_trickles() {
    let patience = Patience { head: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let mut stream = endpoint.connect().await;
    // Before its first octet the clock of the head does not run.
    tokio::time::sleep(QUICK * 2).await;
    let began = tokio::time::Instant::now();
    let (mut reading, mut writing) = stream.split();
    let trickle = async {
        for octet in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat_n(&b'y', 10_000)) {
            if writing.write_all(&[*octet]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut text = String::new();
    let answer = async {
        let mut octets = Vec::new();
        let _ = reading.read_to_end(&mut octets).await;
        text = String::from_utf8(octets).unwrap();
    };
    tokio::select! { () = trickle => panic!("never cut"), () = answer => {} }
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(began.elapsed() >= QUICK && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    endpoint.until(|e| e.metric("goodstanding_http_connections_cut_total{reason=\"head\"}") == 1).await;
    assert_eq!(endpoint.metric("goodstanding_http_errors_total{status=\"408\"}"), 1);
}

/// H5: slow-loris in a later request of the same connection.
#[tokio::test]
async fn a_second_head_that_never_ends_is_cut_too() {
    let patience = Patience { head: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let mut stream = endpoint.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().status, 200);
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(Reply::read(&mut stream).await.unwrap().status, 408);
    assert!(closed(&mut stream).await);
}

/// H5.
#[tokio::test]
async fn a_body_that_never_ends_is_408() {
    let patience = Patience { body: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let mut stream = endpoint.connect().await;
    let octets = post(&request(300), "");
    stream.write_all(&octets[..octets.len() - 1]).await.unwrap();
    let reply = Reply::read(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
    assert!(closed(&mut stream).await);
}

/// H5.
#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let patience = Patience { idle: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let mut fresh = endpoint.connect().await;
    let mut used = endpoint.connect().await;
    used.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(Reply::read(&mut used).await.unwrap().status, 200);
    for stream in [&mut fresh, &mut used] {
        assert_eq!(Reply::read(stream).await, None);
    }
    endpoint.until(|e| e.metric("goodstanding_http_connections_cut_total{reason=\"idle\"}") == 2).await;
    assert_eq!(endpoint.metric("goodstanding_http_open_connections"), 0);
}

#[tokio::test]
async fn a_connection_in_use_outlives_the_idle_time() {
    let patience = Patience { idle: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let mut stream = endpoint.connect().await;
    for _ in 0..8 {
        tokio::time::sleep(QUICK / 3).await;
        stream.write_all(&post(&request(5), "")).await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(5));
    }
}

/// H5: a client that asks and never reads.
#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut() {
    let patience = Patience { write: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(endpoint.addresses[0]).await.unwrap();
    let octets = post(&request(10_000), "").repeat(50);
    let send = async { while stream.write_all(&octets).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), send).await.expect("cut in the end");
    endpoint.until(|e| e.metric("goodstanding_http_connections_cut_total{reason=\"write\"}") == 1).await;
}

/// C3: a responder that hangs is tryLater, in HTTP 200.
#[tokio::test]
async fn an_answer_that_takes_too_long_is_try_later() {
    let patience = Patience { answer: QUICK, ..patient() };
    let endpoint = start(Settings { patience, ..local() });
    let mut stream = endpoint.connect().await;
    for _ in 0..2 {
        stream.write_all(&post(&[0x30, 0xf0], "")).await.unwrap();
        let reply = Reply::read(&mut stream).await.unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (200, &[0x30, 3, 0x0a, 1, 3][..]));
    }
}

/// H5: nobody is refused at the limit; newcomers wait until idle ones have been sent away.
#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let patience = Patience { idle_when_crowded: QUICK, ..patient() };
    let endpoint = start(Settings { max_connections: 8, patience, ..local() });
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(endpoint.connect().await);
    }
    endpoint.until(|e| e.metric("goodstanding_http_open_connections") == 8).await;
    let address = endpoint.addresses[0];
    let mut asks = JoinSet::new();
    for _ in 0..40 {
        asks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&post(&request(30), "")).await.unwrap();
            Reply::read(&mut stream).await.expect("an answer, not a refusal").body
        });
    }
    assert_eq!(asks.join_all().await, vec![request(30); 40]);
    assert!(endpoint.metric("goodstanding_http_connections_waited_total") >= 1);
}

#[tokio::test]
async fn while_every_place_is_taken_answers_close_their_connection() {
    let endpoint = start(Settings { max_connections: 2, patience: patient(), ..local() });
    let mut one = endpoint.connect().await;
    one.write_all(&post(&request(5), "")).await.unwrap();
    assert_eq!(Reply::read(&mut one).await.unwrap().header("connection"), None);
    let _two = endpoint.connect().await;
    endpoint.until(|e| e.metric("goodstanding_http_open_connections") == 2).await;
    one.write_all(&post(&request(5), "")).await.unwrap();
    assert_eq!(Reply::read(&mut one).await.unwrap().header("connection"), Some("close"));
    assert!(closed(&mut one).await);
}
