//! Replies kept for idempotency keys.

use super::*;
use crate::store::audit::Digest;
use crate::store::replies::{Begun, KEPT, Reply, ReplyKey, UNDER_WAY};

const NOW: UnixTime = UnixTime(1_000_000);

fn key(caller: &str) -> ReplyKey {
    ReplyKey { caller: caller.to_owned(), key: "order-7".to_owned() }
}

fn request(text: &str) -> Digest {
    Digest::of([text.as_bytes()])
}

fn reply() -> Reply {
    Reply { status: 201, headers: "location: /v1/x\n".to_owned(), body: b"{}".to_vec() }
}

pub(super) async fn a_request_asked_again_gets_its_first_reply_for_a_day(bed: &dyn Bed) {
    let store = bed.handle().await;
    assert_eq!(store.begin_reply(&key("ra"), request("a"), NOW).await.unwrap(), Begun::New);
    store.finish_reply(&key("ra"), &reply()).await.unwrap();
    let other = bed.handle().await;
    for later in [NOW, NOW.plus(KEPT)] {
        let begun = other.begin_reply(&key("ra"), request("a"), later).await.unwrap();
        assert_eq!(begun, Begun::Done(reply()));
    }
    let after = NOW.plus(KEPT).plus(Duration::from_secs(1));
    assert_eq!(other.begin_reply(&key("ra"), request("b"), after).await.unwrap(), Begun::New);
}

pub(super) async fn another_request_with_the_same_key_is_a_mismatch(bed: &dyn Bed) {
    let store = bed.handle().await;
    store.begin_reply(&key("ra"), request("a"), NOW).await.unwrap();
    assert_eq!(store.begin_reply(&key("ra"), request("b"), NOW).await.unwrap(), Begun::Mismatch);
    store.finish_reply(&key("ra"), &reply()).await.unwrap();
    assert_eq!(store.begin_reply(&key("ra"), request("b"), NOW).await.unwrap(), Begun::Mismatch);
}

pub(super) async fn each_caller_has_keys_of_its_own(bed: &dyn Bed) {
    let store = bed.handle().await;
    store.begin_reply(&key("ra"), request("a"), NOW).await.unwrap();
    assert_eq!(store.begin_reply(&key("rb"), request("b"), NOW).await.unwrap(), Begun::New);
}

pub(super) async fn of_requests_at_the_same_time_one_does_the_work(bed: &dyn Bed) {
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let store = bed.handle().await;
        tasks.push(tokio::spawn(
            async move { store.begin_reply(&key("ra"), request("a"), NOW).await.unwrap() },
        ));
    }
    let mut begun = Vec::new();
    for task in tasks {
        begun.push(task.await.unwrap());
    }
    assert_eq!(begun.iter().filter(|begun| **begun == Begun::New).count(), 1, "{begun:?}");
    assert_eq!(begun.iter().filter(|begun| **begun == Begun::UnderWay).count(), 7, "{begun:?}");
}

pub(super) async fn a_request_that_was_given_up_or_whose_process_died_can_be_made_again(bed: &dyn Bed) {
    let store = bed.handle().await;
    store.begin_reply(&key("ra"), request("a"), NOW).await.unwrap();
    store.abandon_reply(&key("ra")).await.unwrap();
    assert_eq!(store.begin_reply(&key("ra"), request("a"), NOW).await.unwrap(), Begun::New);
    let later = NOW.plus(UNDER_WAY);
    assert_eq!(store.begin_reply(&key("ra"), request("a"), later).await.unwrap(), Begun::UnderWay);
    let dead = later.plus(Duration::from_secs(1));
    assert_eq!(store.begin_reply(&key("ra"), request("a"), dead).await.unwrap(), Begun::New);
    // What was finished is not given up any more.
    store.finish_reply(&key("ra"), &reply()).await.unwrap();
    store.abandon_reply(&key("ra")).await.unwrap();
    assert_eq!(store.begin_reply(&key("ra"), request("a"), dead).await.unwrap(), Begun::Done(reply()));
}
