use super::*;

#[test]
fn the_fifth_of_five_is_allowed_and_the_sixth_refused_until_the_first_leaves_to_the_second() {
    let mut desk = Desk::new(shipped("2016-01"));
    for hour in 10..15 {
        let decision =
            desk.at(&format!("2016-01-17T{hour}:00:00Z")).issue(&[&format!("host{hour}.example.com")]);
        assert!(allowed(&decision), "{hour}: {decision:#?}");
    }
    let refused = desk.at("2016-01-20T00:00:00Z").order(&["sixth.example.com"]);
    assert!(!allowed(&refused));
    assert_eq!(retry_at(&refused), Some(time("2016-01-24T10:00:00Z")));
    assert!(!allowed(&desk.at("2016-01-24T09:59:59Z").order(&["sixth.example.com"])));
    assert!(allowed(&desk.at("2016-01-24T10:00:00Z").issue(&["sixth.example.com"])));
    assert!(!allowed(&desk.order(&["seventh.example.com"])));
    assert!(allowed(&desk.order(&["seventh.example.org"])), "another domain");
}

#[test]
fn it_counts_from_issuance_not_from_the_order() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    let order = desk.at("2016-01-17T10:00:00Z").order(&["example.com"]).order().unwrap();
    desk.at("2016-01-17T10:30:00Z").commit(order).unwrap();
    assert!(!allowed(&desk.at("2016-01-24T10:29:59Z").order(&["a.example.com"])));
    assert!(allowed(&desk.at("2016-01-24T10:30:00Z").order(&["a.example.com"])));
}

#[test]
fn a_certificate_with_several_names_counts_once_for_each_registered_domain() {
    let mut desk = Desk::new(domain_limit("\"2/7d\"", ""));
    let names =
        ["a.example.com", "b.example.com", "*.example.com", "example.co.uk", "192.0.2.7", "2001:db8::1"];
    let decision = desk.issue(&names);
    let mut keys: Vec<_> = decision.limits.iter().map(|limit| limit.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["192.0.2.7", "2001:db8::/64", "example.co.uk", "example.com"]);
    assert!(decision.limits.iter().all(|limit| limit.tiers[0].count == 1), "{decision:#?}");
    assert!(allowed(&desk.order(&["2001:db8::2"])));
    assert!(!allowed(&desk.order(&["2001:db8::3", "fine.example"])), "all limits of a request must allow");
    assert!(allowed(&desk.order(&["fine.example"])), "a refused request counted nothing");
    assert!(allowed(&desk.order(&["fine.example"])));
}

#[test]
fn every_tier_must_allow_and_the_retry_time_is_when_all_do() {
    let mut desk = Desk::new(shipped("two-tier"));
    let issue =
        |desk: &mut Desk, at: &str, n: u32| allowed(&desk.at(at).issue(&[&format!("h{n}.example.com")]));
    for n in 0..3 {
        assert!(issue(&mut desk, "2016-01-17T10:00:00Z", n));
    }
    let refused = desk.at("2016-01-17T11:59:59Z").order(&["x.example.com"]);
    assert_eq!(retry_at(&refused), Some(time("2016-01-17T12:00:00Z")), "3/2h");
    assert!(issue(&mut desk, "2016-01-17T12:00:00Z", 3));
    assert!(issue(&mut desk, "2016-01-17T12:00:00Z", 4));
    let refused = desk.at("2016-01-17T12:00:00Z").order(&["x.example.com"]);
    assert_eq!(retry_at(&refused), Some(time("2016-01-18T10:00:00Z")), "5/1d outlasts 3/2h");
    assert_eq!(refused.refusal().unwrap().tier.unwrap().to_string(), "5/1d");
    for n in 5..8 {
        assert!(issue(&mut desk, "2016-01-18T10:00:00Z", n));
    }
    for n in 8..10 {
        assert!(issue(&mut desk, "2016-01-18T12:00:00Z", n));
    }
    let refused = desk.at("2016-01-18T12:00:00Z").order(&["x.example.com"]);
    assert_eq!(retry_at(&refused), Some(time("2016-01-24T10:00:00Z")), "10/7d outlasts both");
}

#[test]
fn ten_accounts_from_an_address_in_three_hours_and_no_eleventh() {
    let mut desk = Desk::new(shipped("2016-01"));
    for n in 0..10 {
        assert!(allowed(&desk.register("192.0.2.1")), "{n}");
    }
    let refused = desk.register("192.0.2.1");
    assert_eq!(retry_at(&refused), Some(time("2016-01-17T13:00:00Z")));
    assert_eq!(
        refused.refusal().unwrap().title(&refused.help),
        format!("too many registrations for this IP: see {}", refused.help)
    );
    assert_eq!(refused.refusal().unwrap().title(""), "too many registrations for this IP", "without a page");
    assert!(allowed(&desk.register("192.0.2.2")), "another address");
    assert!(!allowed(&desk.register("::ffff:192.0.2.1")), "the same address in IPv6 form");
    assert!(!allowed(&desk.at("2016-01-17T12:59:59Z").register("192.0.2.1")));
    assert!(allowed(&desk.at("2016-01-17T13:00:00Z").register("192.0.2.1")));
}

#[test]
fn accounts_from_an_ipv6_range_count_together_and_ipv4_has_no_range() {
    let mut desk = Desk::new(shipped("current"));
    for n in 0..500 {
        assert!(allowed(&desk.register(&format!("2001:db8:7:{:x}::1", n / 2))), "{n}");
    }
    let refused = desk.register("2001:db8:7:ffff::1");
    let refusal = refused.refusal().unwrap();
    assert_eq!(
        (refusal.limit.as_str(), refusal.key.as_str()),
        ("registrations-per-ipv6-range", "2001:db8:7::/48")
    );
    assert!(allowed(&desk.register("2001:db8:8::1")));
    let v4 = desk.register("192.0.2.1");
    assert_eq!(v4.limits.len(), 1, "{v4:#?}");
}

#[test]
fn a_released_order_counts_nothing_and_an_issued_one_cannot_be_released() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    let order = desk.order(&["example.com"]).order().unwrap();
    assert!(!allowed(&desk.order(&["a.example.com"])), "the place is held");
    let released = desk.release(order, &[]).unwrap();
    assert!(!released.repeated);
    assert!(desk.release(order, &[]).unwrap().repeated);
    let second = desk.order(&["a.example.com"]).order().unwrap();
    desk.commit(second).unwrap();
    let error = desk.release(second, &[]).unwrap_err();
    assert!(matches!(error, LimitsError::Issued { .. }), "{error}");
    assert!(error.to_string().contains("until it expires"), "{error}");
    assert!(matches!(desk.release(OrderId(99), &[]), Err(LimitsError::NoOrder(OrderId(99)))));
}

#[test]
fn a_reservation_times_out_to_the_second_and_holds_every_tier_until_then() {
    // The reservation outlives the shorter tier: it counts in it all the same.
    let mut desk = Desk::new(profile(
        "reservation = \"3h\"\n[[limit]]\nname = \"a\"\ncounts = \"certificates\"\nper = \"domain\"\ntiers = [\"1/1h\", \"2/7d\"]\n",
    ));
    assert!(allowed(&desk.order(&["example.com"])));
    let refused = desk.wait(Duration::from_secs(3 * 3_600 - 1)).order(&["a.example.com"]);
    assert_eq!(retry_at(&refused), Some(time("2016-01-17T13:00:00Z")));
    assert!(refused.refusal().unwrap().counted[0].held);
    assert!(allowed(&desk.wait(Duration::from_secs(1)).order(&["a.example.com"])));
}

#[test]
fn a_certificate_of_an_order_that_had_ended_counts_all_the_same() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    let first = desk.order(&["example.com"]).order().unwrap();
    let second = desk.wait(2 * DAY).order(&["a.example.com"]).order().unwrap();
    assert!(!desk.commit(second).unwrap().late);
    assert!(desk.commit(first).unwrap().late, "it exists, and its status must be signed");
    assert!(desk.commit(second).unwrap_err().to_string().contains("another order"));
    let refused = desk.order(&["b.example.com"]);
    assert_eq!(refused.refusal().unwrap().count, 2, "beyond the limit");
    let third = desk.wait(8 * DAY).order(&["b.example.com"]).order().unwrap();
    desk.release(third, &[]).unwrap();
    assert!(desk.commit(third).unwrap().late);
    assert!(!allowed(&desk.order(&["c.example.com"])));
}

#[test]
fn the_same_certificate_again_commits_once() {
    let mut desk = Desk::new(domain_limit("\"2/7d\"", ""));
    let order = desk.order(&["example.com"]).order().unwrap();
    let certificate =
        IssuedCertificate { name: "demo/01".to_owned(), ari: None, not_after: desk.now.plus(DAY) };
    let first = desk.turn(|turn| turn.commit(order, &certificate)).unwrap();
    desk.wait(DAY);
    let again = desk.turn(|turn| turn.commit(order, &certificate)).unwrap();
    assert_eq!(again, Committed { repeated: true, ..first });
    assert_eq!(desk.order(&["a.example.com"]).limits[0].tiers[0].count, 2);
}

#[test]
fn failed_authorisations_count_for_the_account_and_name_that_failed() {
    let mut desk = Desk::new(shipped("current"));
    for n in 0..5 {
        let order =
            desk.order(&["bad.example.com", "good.example.com"]).order().unwrap_or_else(|| panic!("{n}"));
        desk.release(order, &["bad.example.com", "not-ordered.example.com"]).unwrap();
    }
    let refused = desk.order(&["bad.example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!(
        (refusal.limit.as_str(), refusal.key.as_str()),
        ("failed-authorizations", "acct-1 bad.example.com")
    );
    assert!(
        refusal.detail.contains("5 failed authorisations for bad.example.com with the account acct-1"),
        "{}",
        refusal.detail
    );
    assert!(allowed(&desk.order(&["good.example.com"])));
    assert!(allowed(&desk.ask("acct-2", &["bad.example.com"], None)));
    assert!(allowed(&desk.wait(Duration::from_secs(3_600)).order(&["bad.example.com"])));
}

#[test]
fn orders_count_whatever_becomes_of_them() {
    let mut desk = Desk::new(profile(
        "[[limit]]\nname = \"orders\"\ncounts = \"orders\"\nper = \"account\"\ntiers = [\"2/3h\"]\n",
    ));
    for _ in 0..2 {
        let order = desk.order(&["example.com"]).order().unwrap();
        desk.release(order, &[]).unwrap();
    }
    assert_eq!(retry_at(&desk.order(&["example.com"])), Some(time("2016-01-17T13:00:00Z")));
    assert!(allowed(&desk.ask("acct-2", &["example.com"], None)));
}

#[test]
fn an_idempotency_key_gives_the_same_order_and_refuses_another_request() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    let ask = |desk: &mut Desk, name: &str, key: &str| {
        let identifiers = Identifiers::parse(&[name], 100).unwrap();
        let order = OrderAsk { account: "acct-1", identifiers: &identifiers, replaces: None };
        desk.turn(|turn| turn.ask(&Ask::Order(order), Some(key)))
    };
    let first = ask(&mut desk, "example.com", "order acct-1 k 1").unwrap();
    let again = ask(&mut desk, "EXAMPLE.com", "order acct-1 k 1").unwrap();
    assert_eq!(first.order(), again.order());
    assert!(again.repeated && !first.repeated);
    let error = ask(&mut desk, "example.org", "order acct-1 k 1").unwrap_err();
    assert!(error.to_string().contains("\"k 1\" was used for another request"), "{error}");
    let refused = ask(&mut desk, "a.example.com", "order acct-1 k 2").unwrap();
    assert!(!allowed(&refused));
    desk.release(first.order().unwrap(), &[]).unwrap();
    assert!(allowed(&ask(&mut desk, "a.example.com", "order acct-1 k 2").unwrap()), "a refusal is not kept");
}

#[test]
fn a_limit_in_shadow_mode_counts_and_refuses_nothing() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", "shadow = true\n"));
    for n in 0..3 {
        let decision = desk.issue(&[&format!("{n}.example.com")]);
        assert!(allowed(&decision));
        assert_eq!(decision.shadow.len(), usize::from(n > 0), "{decision:#?}");
        assert_eq!(decision.limits[0].tiers[0].count, n + 1);
        assert!(decision.warnings.is_empty(), "nobody is warned of what does not bind");
    }
}

#[test]
fn what_is_forgotten_counted_for_nothing_any_more() {
    let mut desk = Desk::new(shipped("current"));
    for n in 0..40 {
        desk.wait(Duration::from_secs(3_600)).issue(&[&format!("{n}.example.com")]);
        desk.register("192.0.2.1");
    }
    desk.wait(200 * DAY);
    let ended = desk.book.ended(desk.now, 1_000);
    assert_eq!(ended.len(), 80);
    desk.book.forget(&ended);
    assert!(desk.book.is_empty());
    assert_eq!(desk.book.keys(), 0);
}

#[test]
fn another_profile_counts_the_same_records_anew() {
    let mut desk = Desk::new(shipped("current"));
    for n in 0..5 {
        desk.issue(&[&format!("{n}.example.com")]);
    }
    let then = desk.book.under(shipped("2016-01"), desk.now);
    assert_eq!(then.position(), desk.book.position());
    desk.book = then;
    let refused = desk.order(&["5.example.com"]);
    assert_eq!(refused.refusal().unwrap().count, 5);
}

#[test]
fn undoing_leaves_a_book_as_it_was() {
    let mut desk = Desk::new(shipped("current"));
    let order = desk.order(&["example.com"]).order().unwrap();
    let before = format!("{:?} {:?}", desk.records(), desk.book.position());
    let keys = desk.book.keys();
    let mut turn = Turn::new(&desk.book, &desk.pressure, desk.now);
    let certificate = IssuedCertificate { name: "x".to_owned(), ari: None, not_after: desk.now };
    turn.commit(order, &certificate).unwrap();
    let record = turn.into_record().unwrap();
    let entered = desk.book.enter(Arc::new(record), None, desk.now);
    assert!(desk.release(order, &[]).is_err());
    desk.book.undo(entered, desk.now);
    assert_eq!(format!("{:?} {:?}", desk.records(), desk.book.position()), before);
    assert_eq!(desk.book.keys(), keys);
    desk.release(order, &[]).unwrap();
}
