//! How the endpoint stops.

use super::*;

#[tokio::test]
async fn a_request_under_way_is_finished_and_an_idle_connection_closed() {
    let mut endpoint = start(local());
    let mut idle = endpoint.connect().await;
    idle.write_all(&post(&request(5), "")).await.unwrap();
    Reply::read(&mut idle).await.unwrap();
    let mut busy = endpoint.connect().await;
    busy.write_all(&post(&[0x30, 0xf0, 1], "")).await.unwrap();
    endpoint.until(|endpoint| endpoint.echo.waiting.load(Ordering::SeqCst) == 1).await;
    endpoint.shutdown.stop();
    assert_eq!(Reply::read(&mut idle).await, None, "closed between requests");
    assert!(!endpoint.served.as_ref().unwrap().is_finished());
    endpoint.echo.gate.add_permits(1);
    let reply = Reply::read(&mut busy).await.unwrap();
    assert_eq!((reply.body.as_slice(), reply.header("connection")), (&[0x30, 0xf0, 1][..], Some("close")));
    assert_eq!(endpoint.served.take().unwrap().await.unwrap(), Drained { cut: 0 });
    assert!(TcpStream::connect(endpoint.addresses[0]).await.is_err(), "no longer listening");
}

#[tokio::test]
async fn a_request_half_sent_when_the_stop_comes_is_answered() {
    let mut endpoint = start(local());
    let octets = post(&request(300), "");
    for cut in [10, octets.len() - 10] {
        let mut endpoint = start(local());
        let mut stream = endpoint.connect().await;
        stream.write_all(&octets[..cut]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        endpoint.shutdown.stop();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(&octets[cut..]).await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.unwrap().body, request(300), "{cut}");
        assert_eq!(endpoint.served.take().unwrap().await.unwrap(), Drained { cut: 0 });
    }
    endpoint.shutdown.stop();
    assert_eq!(endpoint.served.take().unwrap().await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn the_drain_ends_in_time_whoever_is_still_waiting() {
    let drain = Duration::from_millis(300);
    let mut endpoint = start(Settings { drain, ..local() });
    let mut stuck = endpoint.connect().await;
    stuck.write_all(&post(&[0x30, 0xf0, 1], "")).await.unwrap();
    let mut slow = endpoint.connect().await;
    slow.write_all(b"GET / HT").await.unwrap();
    endpoint.until(|endpoint| endpoint.echo.waiting.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let began = tokio::time::Instant::now();
    endpoint.shutdown.stop();
    let drained = endpoint.served.take().unwrap().await.unwrap();
    assert_eq!(drained, Drained { cut: 2 });
    assert!(began.elapsed() >= drain && began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(closed(&mut stuck).await && closed(&mut slow).await);
    assert_eq!(endpoint.metric("goodstanding_http_open_connections"), 0);
}

/// Every request that was sent before the stop, and every one that a connection took, is answered whole:
/// connections end between answers only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_the_endpoint_stops_under_load() {
    let mut endpoint = start(local());
    let address = endpoint.addresses[0];
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let shutdown = endpoint.shutdown.clone();
        clients.spawn(async move {
            let mut answered = 0;
            // A connection of its own for each third of the clients' requests, and kept alive for the rest.
            while let Ok(mut stream) = TcpStream::connect(address).await {
                loop {
                    let sent_before_the_stop = !shutdown.is_stopped();
                    if stream.write_all(&post(&request(200), "")).await.is_err() {
                        assert!(!sent_before_the_stop, "a connection broke while the endpoint was serving");
                        return answered;
                    }
                    let Some(reply) = Reply::read(&mut stream).await else {
                        assert!(!sent_before_the_stop, "a request sent before the stop went unanswered");
                        return answered;
                    };
                    assert_eq!(reply.body, request(200));
                    answered += 1;
                    if reply.header("connection") == Some("close") || answered % 3 == 0 {
                        break;
                    }
                }
            }
            answered
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    endpoint.shutdown.stop();
    let drained = endpoint.served.take().unwrap().await.unwrap();
    assert_eq!(drained, Drained { cut: 0 });
    let answered: usize = clients.join_all().await.into_iter().sum();
    assert!(answered > 100, "{answered}");
    let counted = "goodstanding_ocsp_requests_total{method=\"post\",outcome=\"stored\"}";
    assert_eq!(endpoint.metric(counted), answered as u64);
}
