//! The limiter on a real ledger.

use std::collections::HashSet;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;
use crate::clock::ManualClock;
use crate::store;

struct House {
    folder: TempDir,
    clock: Arc<ManualClock>,
    pressure: watch::Sender<Pressure>,
}

impl House {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::new(time("2016-01-17T10:00:00Z"))),
            pressure: watch::channel(Pressure::none()).0,
        }
    }

    /// A limiter with a handle of its own on the database, as another process has.
    async fn limiter(&self, profile: &Arc<Profile>) -> Limiter {
        let url = format!("sqlite://{}/ledger.db", self.folder.path().display());
        let ledger = store::open(&url).await.unwrap().ledger();
        let pressure = self.pressure.subscribe();
        let settings =
            super::super::Settings { batch: 32, patience: Duration::from_secs(60), ..Default::default() };
        Limiter::start(ledger, Arc::clone(profile), pressure, self.clock.clone(), settings).await.unwrap().0
    }
}

fn request(account: &str, name: &str) -> OrderRequest {
    OrderRequest {
        account: account.to_owned(),
        identifiers: vec![name.to_owned()],
        ..OrderRequest::default()
    }
}

fn certificate(number: usize) -> IssuedCertificate {
    IssuedCertificate {
        name: format!("demo/{number:04x}"),
        ari: None,
        not_after: time("2016-04-17T10:00:00Z"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_at_once_never_overshoot() {
    let house = House::new();
    let profile = domain_limit("\"20/7d\"", "");
    // Two limiters on one database, as two processes have: neither knows of the other.
    let limiters = [house.limiter(&profile).await, house.limiter(&profile).await];
    let mut clients = JoinSet::new();
    for client in 0..64_usize {
        let limiter = limiters[client % 2].clone();
        clients.spawn(async move {
            let mut held = Vec::new();
            for round in 0..6 {
                // Everybody wants the same domain, and one of their own.
                let order = OrderRequest {
                    identifiers: vec![
                        format!("c{client}r{round}.example.com"),
                        format!("own{client}.example"),
                    ],
                    ..request(&format!("acct-{client}"), "")
                };
                let decision = limiter.order(&order).await.unwrap();
                if let Some(id) = decision.order() {
                    held.push(id);
                    if (client + round) % 3 == 0 {
                        limiter.release(id, ReleaseCause::Abandoned).await.unwrap();
                        held.pop();
                    }
                }
                let count = decision.limits.iter().find(|limit| limit.key == "example.com").unwrap();
                assert!(count.tiers[0].count <= 20, "{decision:#?}");
            }
            held
        });
    }
    let mut held: Vec<OrderId> = clients.join_all().await.into_iter().flatten().collect();
    assert!((10..=20).contains(&held.len()), "{}", held.len());
    // Whatever was released last is free for one more, and nothing beyond.
    loop {
        let decision = limiters[held.len() % 2].order(&request("last", "last.example.com")).await.unwrap();
        match decision.order() {
            Some(id) => held.push(id),
            None => break,
        }
    }
    assert_eq!(held.iter().collect::<HashSet<_>>().len(), 20);
    assert_eq!(held.len(), 20, "every place was taken at the end, and none twice");
    for limiter in &limiters {
        let standing = limiter
            .show(Subject { domain: Some("www.example.com".to_owned()), ..Subject::default() })
            .await
            .unwrap();
        assert_eq!(standing.limits[0].state.tiers[0].count, 20);
        assert_eq!(standing.limits[0].counted.len(), 20);
    }
    assert!(limiters.iter().any(|limiter| limiter.tally().groups_repeated > 0), "they met in the ledger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_decided_another_knows_at_once() {
    let house = House::new();
    let profile = shipped("2016-01");
    let (one, other) = (house.limiter(&profile).await, house.limiter(&profile).await);
    for number in 0..5 {
        let order =
            one.order(&request("a", &format!("h{number}.example.com"))).await.unwrap().order().unwrap();
        other.commit(order, certificate(number)).await.unwrap();
        assert_eq!(one.view(order).await.unwrap().state, "issued");
    }
    for limiter in [&one, &other] {
        let refused = limiter.order(&request("b", "x.example.com")).await.unwrap();
        assert_eq!(refused.refusal().unwrap().counted[4].what, "demo/0004");
    }
    let ip = "192.0.2.1".parse().unwrap();
    for number in 0..10 {
        let limiter = [&one, &other][number % 2];
        assert!(allowed(&limiter.register_account(ip, None).await.unwrap()));
    }
    assert!(!allowed(&one.register_account(ip, None).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart_and_leaves_in_time() {
    let house = House::new();
    let profile = shipped("2016-01");
    let limiter = house.limiter(&profile).await;
    let mut orders = Vec::new();
    for number in 0..5 {
        let order = OrderRequest { idempotency: Some(format!("k{number}")), ..request("a", "example.com") };
        orders.push(limiter.order(&order).await.unwrap().order().unwrap());
    }
    limiter.commit(orders[0], certificate(0)).await.unwrap();
    limiter.release(orders[1], ReleaseCause::Abandoned).await.unwrap();
    drop(limiter);
    let limiter = house.limiter(&profile).await;
    let states: Vec<_> = {
        let mut states = Vec::new();
        for order in &orders {
            states.push(limiter.view(*order).await.unwrap().state);
        }
        states
    };
    assert_eq!(states, ["issued", "released", "reserved", "reserved", "reserved"]);
    let again = OrderRequest { idempotency: Some("k2".to_owned()), ..request("a", "example.com") };
    let again = limiter.order(&again).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.order(), Some(orders[2]));
    assert!(allowed(&limiter.order(&request("a", "a.example.com")).await.unwrap()));
    assert!(!allowed(&limiter.order(&request("a", "b.example.com")).await.unwrap()), "one issued, four held");
    house.clock.set(time("2016-01-17T11:00:00Z"));
    assert!(allowed(&limiter.order(&request("a", "b.example.com")).await.unwrap()), "reservations timed out");
    assert_eq!(limiter.view(orders[2]).await.unwrap().state, "expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overrides_and_profiles_and_pressure_are_in_force_at_once() {
    let house = House::new();
    let profile = domain_limit("\"1/7d\"", "");
    let (one, other) = (house.limiter(&profile).await, house.limiter(&profile).await);
    let set = one
        .add_override(NewOverride {
            limit: "per-domain".to_owned(),
            key: OverrideKey::Domain("www.example.com".to_owned()),
            allow: "3".to_owned(),
            until: time("2016-02-17T10:00:00Z"),
            reason: "a big site".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(other.overrides().await.unwrap(), std::slice::from_ref(&set));
    let order = |number: u32| request("a", &format!("h{number}.example.com"));
    for number in 0..3 {
        assert!(allowed(&other.order(&order(number)).await.unwrap()), "{number}");
    }
    assert!(!allowed(&other.order(&order(3)).await.unwrap()));
    assert_eq!(other.remove_override(set.id).await.unwrap(), set);
    assert!(one.overrides().await.unwrap().is_empty());
    one.replace_profile(domain_limit("\"9/7d\"", "")).await.unwrap();
    assert_eq!(one.profile().limits[0].tiers[0].count, 9);
    assert!(allowed(&one.order(&order(4)).await.unwrap()));
    house.pressure.send(Pressure { multiplier: 0.0, ..Pressure::none() }).unwrap();
    let refused = one.order(&order(5)).await.unwrap();
    assert_eq!(refused.refusal().unwrap().cause, RefusalCause::Capacity);
    let tally = one.tally();
    assert_eq!(
        (tally.new_orders, tally.new_orders_refused, tally.new_orders_refused_for_capacity),
        (2, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_whose_time_has_ended_leave_the_database() {
    let house = House::new();
    let profile = shipped("2016-01");
    let limiter = house.limiter(&profile).await;
    let order = limiter.order(&request("a", "example.com")).await.unwrap().order().unwrap();
    limiter.commit(order, certificate(1)).await.unwrap();
    let lost = limiter.order(&request("a", "example.org")).await.unwrap().order().unwrap();
    house.clock.set(time("2016-05-17T09:59:59Z"));
    let url = format!("sqlite://{}/ledger.db", house.folder.path().display());
    let ledger = store::open(&url).await.unwrap().ledger();
    let present = async || ledger.ledger_after(store::LedgerPosition(0), 10).await.unwrap();
    // The first request after the time brings the task to tidy up, and the second waits for it.
    for _ in 0..2 {
        limiter.overrides().await.unwrap();
    }
    let left = present().await;
    assert_eq!(left.len(), 1, "the certificate can be renewed until thirty days after its end: {left:?}");
    assert!(matches!(limiter.view(lost).await, Err(LimitsError::NoOrder(_))));
    house.clock.set(time("2016-05-17T10:00:09Z"));
    for _ in 0..2 {
        limiter.overrides().await.unwrap();
    }
    assert!(present().await.is_empty());
    let next = limiter.order(&request("a", "example.net")).await.unwrap().order().unwrap();
    assert!(next > lost, "numbers are never used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_counted_is_the_callers_error_and_a_closed_store_is_not() {
    let house = House::new();
    let profile = shipped("current");
    let url = format!("sqlite://{}/ledger.db", house.folder.path().display());
    let store = store::open(&url).await.unwrap();
    let pressure = house.pressure.subscribe();
    let (limiter, task) = Limiter::start(
        Arc::clone(&store).ledger(),
        profile,
        pressure,
        house.clock.clone(),
        super::super::Settings::default(),
    )
    .await
    .unwrap();
    for wrong in [request("", "example.com"), request("a", "exa mple.com")] {
        assert!(matches!(limiter.order(&wrong).await, Err(LimitsError::Identifier(_))), "{wrong:?}");
    }
    let key = OrderRequest { idempotency: Some(String::new()), ..request("a", "example.com") };
    assert!(matches!(limiter.order(&key).await, Err(LimitsError::IdempotencyKey { .. })));
    store.close().await;
    let error = limiter.order(&request("a", "example.com")).await.unwrap_err();
    assert!(matches!(error, LimitsError::Store(_)), "{error}");
    assert!(limiter.overrides().await.is_err());
    drop(limiter);
    task.await.unwrap();
}
