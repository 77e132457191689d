use super::*;

#[test]
fn a_refusal_names_limit_key_count_period_retry_time_and_what_counts() {
    let mut desk = Desk::new(shipped("2016-01"));
    for hour in 10..15 {
        let name = format!("h{hour}.example.com");
        desk.at(&format!("2016-01-17T{hour}:00:00Z")).issue(&[&name, "example.com"]);
    }
    let refused = desk.at("2016-01-20T00:00:00Z").order(&["x.example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!(refusal.cause, RefusalCause::Limit);
    assert_eq!(
        refusal.detail,
        "5 certificates for the registered domain example.com in the last 7 days; certificates-per-domain allows 5 in any such period. The next is possible from 2016-01-24T10:00:00Z: see https://ca.example/limits"
    );
    assert_eq!(refusal.title(&refused.help), "too many certificates for the registered domain example.com");
    let counted: Vec<_> = refusal
        .counted
        .iter()
        .map(|event| (event.what.as_str(), event.at.to_string(), event.leaves.to_string(), event.held))
        .collect();
    assert_eq!(counted.len(), 5);
    assert_eq!(
        counted[0],
        ("cert-1", "2016-01-17T10:00:00Z".to_owned(), "2016-01-24T10:00:00Z".to_owned(), false)
    );
    assert_eq!(refusal.counted[0].identifiers, ["example.com", "h10.example.com"]);
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(4 * 86_400 + 36_000)));
    let json = serde_json::to_value(&refused).unwrap();
    assert_eq!(json["outcome"]["outcome"], "refused");
    assert_eq!(json["outcome"]["retry_at"], "2016-01-24T10:00:00Z");
    assert_eq!(json["outcome"]["refusals"][0]["per"], "domain");
    assert_eq!(json["outcome"]["refusals"][0]["tier"], "5/7d");
}

#[test]
fn header_fields_tell_the_tiers_and_retry_after_is_not_before_their_reset() {
    let mut desk = Desk::new(shipped("two-tier"));
    let accepted = desk.issue(&["a.example.com"]);
    assert_eq!(
        rate_limit_policy(&accepted),
        "\"certificates-per-domain-2h\";q=3;w=7200, \"certificates-per-domain-1d\";q=5;w=86400, \"certificates-per-domain-7d\";q=10;w=604800, \"certificates-per-exact-set\";q=5;w=604800"
    );
    assert_eq!(
        rate_limit(&accepted),
        "\"certificates-per-domain-2h\";r=2;t=7200, \"certificates-per-domain-1d\";r=4;t=86400, \"certificates-per-domain-7d\";r=9;t=604800, \"certificates-per-exact-set\";r=4;t=604800"
    );
    desk.wait(Duration::from_secs(60)).issue(&["b.example.com", "b.example.org"]);
    desk.issue(&["c.example.com"]);
    let refused = desk.order(&["d.example.com"]);
    assert_eq!(rate_limit(&refused), "\"certificates-per-domain-2h\";r=0;t=7140");
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(7_140)));
}

#[test]
fn of_several_domains_the_header_tells_the_one_with_the_least_left() {
    let mut desk = Desk::new(domain_limit("\"5/7d\"", ""));
    desk.issue(&["a.example.com"]);
    let both = desk.issue(&["b.example.com", "example.org"]);
    assert_eq!(both.limits.len(), 2);
    assert!(rate_limit(&both).starts_with("\"per-domain\";r=3;"), "{}", rate_limit(&both));
    assert!(!rate_limit(&both).contains(", "), "a name appears once");
}

#[test]
fn a_warning_comes_from_four_fifths_of_any_tier_on() {
    let mut desk = Desk::new(domain_limit("\"5/7d\"", ""));
    for n in 1..=5 {
        let decision = desk.issue(&[&format!("{n}.example.com")]);
        assert_eq!(decision.warnings.len(), usize::from(n >= 4), "{n}");
        if n == 4 {
            assert_eq!(
                decision.warnings[0].detail,
                "4 of 5 certificates for the registered domain example.com in 7 days are used (per-domain); the first of them leaves at 2016-01-24T10:00:00Z"
            );
        }
        if n == 5 {
            assert!(decision.warnings[0].detail.contains("the next is possible from"), "{decision:#?}");
        }
    }
}

#[test]
fn a_list_of_what_counts_is_bounded_and_the_count_is_not() {
    let mut desk = Desk::new(domain_limit("\"150/7d\"", ""));
    for n in 0..150 {
        desk.order(&[&format!("{n}.example.com")]);
    }
    let refused = desk.order(&["x.example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!((refusal.count, refusal.counted.len()), (150, Refusal::COUNTED_MOST));
}

#[test]
fn an_override_gives_other_numbers_until_it_ends() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    let domain = OverrideKey::Domain("Deep.Example.COM".to_owned());
    let set = desk.allow("per-domain", domain.clone(), "3", "2016-01-18T00:00:00Z").unwrap();
    assert_eq!((set.key.as_str(), set.tiers[0].to_string().as_str()), ("example.com", "3/7d"));
    for n in 0..3 {
        assert!(allowed(&desk.issue(&[&format!("{n}.example.com")])));
    }
    let refused = desk.order(&["x.example.com"]);
    assert_eq!(refused.refusal().unwrap().nominal, 3);
    assert_eq!(refused.limits[0].override_until, Some(time("2016-01-18T00:00:00Z")));
    // The override has long ended when its own numbers would allow again: the limit's count then.
    assert_eq!(retry_at(&refused), Some(time("2016-01-24T10:00:00Z")));
    let more = desk.allow("per-domain", domain, "5/1d,9/7d", "2016-02-01T00:00:00Z").unwrap();
    assert_eq!(more.id, set.id, "it took the place of the other");
    assert_eq!(desk.book.overrides(desk.now).len(), 1);
    assert!(allowed(&desk.issue(&["x.example.com"])));
    desk.turn(|turn| turn.remove_override(more.id)).unwrap();
    assert!(!allowed(&desk.order(&["y.example.com"])));
    assert!(desk.turn(|turn| turn.remove_override(more.id)).is_err());
    assert!(desk.book.overrides(desk.now).is_empty());
}

#[test]
fn zero_blocks_a_key_renewals_included_until_the_override_ends() {
    let mut desk = Desk::new(shipped("two-tier"));
    desk.issue(&["example.com"]);
    let domain = OverrideKey::Domain("example.com".to_owned());
    desk.allow("certificates-per-domain", domain, "0", "2016-01-18T00:00:00Z").unwrap();
    for name in ["example.com", "new.example.com"] {
        let refused = desk.order(&[name]);
        let refusal = refused.refusal().unwrap();
        assert_eq!(refusal.cause, RefusalCause::Blocked);
        assert_eq!(retry_at(&refused), Some(time("2016-01-18T00:00:00Z")));
        assert_eq!(
            refusal.detail,
            "The operator blocked the registered domain example.com (limit certificates-per-domain) until 2016-01-18T00:00:00Z: see https://ca.example/limits"
        );
    }
    assert!(allowed(&desk.order(&["example.org"])));
    assert!(allowed(&desk.at("2016-01-18T00:00:00Z").order(&["example.com"])));
}

#[test]
fn an_override_that_does_not_fit_is_refused_with_what_would() {
    let mut desk = Desk::new(shipped("two-tier"));
    let domain = || OverrideKey::Domain("example.com".to_owned());
    let later = "2016-03-01T00:00:00Z";
    for (limit, key, allow, until, part) in [
        ("registrations-per-ip", OverrideKey::Everything, "5", later, "no override for registrations"),
        ("nonsense", domain(), "5", later, "has no limit \"nonsense\"; it has registrations-per-ip"),
        ("certificates-per-domain", domain(), "5", later, "several tiers (3/2h,5/1d,10/7d)"),
        ("certificates-per-domain", domain(), "5/1y", later, "remembers 7d"),
        ("certificates-per-domain", domain(), "5/1d,6/24h", later, "the same period"),
        ("certificates-per-domain", domain(), "many", later, "no tier"),
        ("certificates-per-domain", domain(), "0", "2016-01-17T10:00:00Z", "which is past"),
        ("certificates-per-domain", OverrideKey::Account("a".to_owned()), "0", later, "counts per domain"),
        ("certificates-per-exact-set", OverrideKey::Identifiers(vec![]), "9", later, "at least one"),
        (
            "certificates-per-exact-set",
            OverrideKey::Identifiers(vec!["a b".to_owned()]),
            "9",
            later,
            "no DNS name",
        ),
    ] {
        let error = desk.allow(limit, key, allow, until).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let bare = NewOverride {
        limit: "certificates-per-domain".to_owned(),
        key: domain(),
        allow: "0".to_owned(),
        until: time(later),
        reason: "  ".to_owned(),
    };
    let error = desk.turn(|turn| turn.add_override(&bare)).unwrap_err().to_string();
    assert!(error.contains("give a reason"), "{error}");
    assert!(desk.records().is_empty());
}
