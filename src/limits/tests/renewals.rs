use super::*;

#[test]
fn the_same_names_again_are_a_renewal_and_pass_the_domain_limit() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    desk.issue(&["example.com", "www.example.com"]);
    assert!(!allowed(&desk.order(&["example.com"])), "fewer names are a new certificate");
    let renewal = desk.order(&["WWW.example.com", "example.com"]);
    assert!(allowed(&renewal));
    let known = renewal.renewal.unwrap();
    assert_eq!((known.certificate.as_str(), known.by_replaces), ("cert-1", false));
    assert!(renewal.limits.is_empty(), "it is not counted either");
}

#[test]
fn a_certificate_can_be_renewed_until_thirty_days_after_its_end() {
    let mut desk = Desk::new(domain_limit("\"1/180d\"", ""));
    desk.issue(&["example.com"]);
    let end = desk.now.plus(90 * DAY);
    desk.now = UnixTime(end.0 + 30 * 86_400 - 1);
    assert!(desk.order(&["example.com"]).renewal.is_some());
    desk.now = UnixTime(end.0 + 30 * 86_400);
    let late = desk.order(&["example.com"]);
    assert!(late.renewal.is_none() && !allowed(&late), "{late:#?}");
}

#[test]
fn a_renewal_is_bound_by_the_exact_set_limit() {
    let mut desk = Desk::new(shipped("two-tier"));
    for n in 0..5 {
        assert!(allowed(&desk.issue(&["example.com"])), "{n}");
    }
    let refused = desk.order(&["example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!((refusal.limit.as_str(), refusal.key.as_str()), ("certificates-per-exact-set", "example.com"));
    assert_eq!(retry_at(&refused), Some(time("2016-01-24T10:00:00Z")));
    assert!(allowed(&desk.order(&["new.example.com"])), "the four renewals were not counted for the domain");
}

#[test]
fn renewals_count_where_the_profile_says_so() {
    let mut desk = Desk::new(shipped("2016-01"));
    for _ in 0..5 {
        assert!(allowed(&desk.issue(&["example.com"])));
    }
    let refused = desk.order(&["example.com"]);
    assert!(refused.renewal.is_some() && !allowed(&refused), "{refused:#?}");
}

#[test]
fn ari_replaces_makes_a_renewal_of_other_names_once() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    desk.issue(&["example.com", "old.example.com"]);
    let first = desk.ask("acct-1", &["example.com", "new.example.com"], Some("ari-1"));
    assert!(allowed(&first));
    assert!(first.renewal.clone().unwrap().by_replaces);
    let second = desk.ask("acct-1", &["example.com", "other.example.com"], Some("cert-1"));
    assert!(!allowed(&second) && second.renewal.is_none());
    assert!(second.not_replacing.unwrap().contains("replaces that certificate already"));
    desk.release(first.order().unwrap(), &[]).unwrap();
    let third = desk.ask("acct-1", &["example.com", "other.example.com"], Some("ari-1"));
    assert!(allowed(&third), "the order that replaced it was given up");
}

#[test]
fn ari_replaces_does_not_exempt_what_is_no_replacement() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    desk.issue(&["example.com"]);
    for (account, name, replaces, why) in [
        ("acct-1", "a.example.com", "nonsense", "no certificate of that name"),
        ("acct-1", "a.example.com", "ari-1", "shares no identifier"),
        ("acct-2", "example.com", "ari-1", "another account"),
    ] {
        let decision = desk.ask(account, &[name, "b.example.com"], Some(replaces));
        assert!(!allowed(&decision), "{replaces}");
        assert!(decision.not_replacing.as_ref().unwrap().contains(why), "{decision:#?}");
    }
    let same = desk.ask("acct-2", &["example.com"], Some("nonsense"));
    assert!(
        same.renewal.is_some() && same.not_replacing.is_some(),
        "the same names are a renewal all the same"
    );
    desk.wait(121 * DAY);
    let late = desk.ask("acct-1", &["example.com"], Some("ari-1"));
    assert!(late.not_replacing.unwrap().contains("too long ago"));
}

#[test]
fn a_reservation_that_timed_out_stands_in_no_other_orders_way() {
    let mut desk = Desk::new(domain_limit("\"9/7d\"", ""));
    desk.issue(&["example.com"]);
    assert!(
        desk.ask("acct-1", &["example.com", "a.example.com"], Some("ari-1")).renewal.unwrap().by_replaces
    );
    let again = desk.wait(DAY).ask("acct-1", &["example.com", "a.example.com"], Some("ari-1"));
    assert!(again.renewal.is_some_and(|renewal| renewal.by_replaces), "{:?}", again.not_replacing);
}

#[test]
fn a_certificate_from_before_the_limiter_counts_and_can_be_renewed() {
    let mut desk = Desk::new(domain_limit(
        "\"1/7d\"",
        "[[limit]]\nname = \"orders\"\ncounts = \"orders\"\nper = \"account\"\ntiers = [\"9/3h\"]\n",
    ));
    let known = |name: &str, text: &str, at: &str| KnownCertificate {
        account: None,
        identifiers: vec![text.to_owned()],
        issued_at: time(at),
        certificate: IssuedCertificate {
            name: name.to_owned(),
            ari: Some(format!("ari-of-{name}")),
            not_after: time("2016-04-01T00:00:00Z"),
        },
    };
    let mut remember = |known: &KnownCertificate| {
        let identifiers = Identifiers::parse(&known.identifiers, 100).unwrap();
        desk.turn(|turn| turn.remember(&identifiers, known)).unwrap()
    };
    let first = remember(&known("old/01", "example.com", "2016-01-12T10:00:00Z"));
    assert!(!first.repeated);
    let again = remember(&known("old/01", "example.com", "2016-01-12T10:00:00Z"));
    assert_eq!(again, Committed { repeated: true, ..first });
    assert!(allowed(&desk.order(&["example.com"])), "a renewal");
    let refused = desk.order(&["new.example.com"]);
    assert_eq!(retry_at(&refused), Some(time("2016-01-19T10:00:00Z")), "it counts from its issuance");
    assert_eq!(refused.refusal().unwrap().counted[0].what, "old/01");
    assert_eq!(desk.book.keys(), 2, "it belongs to no account; the domain, and the account of the renewal");
    let stolen = desk.ask("acct-1", &["example.com", "www.example.com"], Some("ari-of-old/01"));
    assert!(stolen.not_replacing.unwrap().contains("another account"));
}
