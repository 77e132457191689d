use super::*;
use crate::limits::decide::effective;

fn pressed(multiplier: f64) -> Pressure {
    Pressure {
        multiplier,
        state: GuardState::Red,
        offered_per_day: None,
        reason: "340,000 certificates of 430,272 that the HSM carries".into(),
        utilisation: Some(0.92),
        forecast: Some("430,272 certificates are reached on 2016-03-18".into()),
        eases_at: Some(time("2016-01-19T00:00:00Z")),
        lease: None,
    }
}

#[test]
fn the_effective_number_is_the_floor_and_never_below_one() {
    for (nominal, m, e, number) in [
        (50, 1.0, 1.0, 50),
        (50, 0.43, 1.0, 21),
        (50, 0.58, 1.0, 29),
        (100, 0.29, 1.0, 29),
        (50, 0.0199, 1.0, 1),
        (5, 0.43, 1.0, 2),
        (5, 0.05, 1.0, 1),
        (50, 0.25, 0.5, 25),
        (50, 0.5, 2.0, 12),
        (50, 0.01, 0.0, 50),
        (0, 0.5, 1.0, 0),
        (50, 0.0, 1.0, 1),
        (1, 0.999, 1.0, 1),
        (1_000_000_000, 0.999_999_999, 1.0, 999_999_999),
    ] {
        assert_eq!(effective(nominal, m, e), number, "{nominal} {m} {e}");
    }
}

#[test]
fn a_tightened_limit_refuses_says_so_and_blames_nobody() {
    let mut desk = Desk::new(domain_limit("\"5/7d\"", ""));
    desk.pressure = pressed(0.43);
    assert!(allowed(&desk.issue(&["a.example.com"])));
    assert!(allowed(&desk.issue(&["b.example.com"])));
    let refused = desk.order(&["c.example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!(refusal.cause, RefusalCause::Tightened);
    assert_eq!((refusal.count, refusal.nominal, refusal.effective), (2, 5, 2));
    let capacity = refusal.capacity.as_ref().unwrap();
    assert_eq!((capacity.multiplier, capacity.utilisation), (0.43, Some(0.92)));
    for part in [
        "2 certificates for the registered domain example.com in the last 7 days",
        "per-domain allows 2 in any such period at present (nominally 5)",
        "no fault of yours",
        "limits are at 43 % of their nominal numbers",
        "utilisation is 92 %",
        "430,272 certificates are reached on 2016-03-18",
        "expected to ease at 2016-01-19T00:00:00Z",
        "possible from 2016-01-24T10:00:00Z",
    ] {
        assert!(refusal.detail.contains(part), "{part}: {}", refusal.detail);
    }
    desk.pressure = Pressure::none();
    assert!(allowed(&desk.order(&["c.example.com"])), "the nominal limit is in force again");
}

#[test]
fn renewals_and_registrations_pass_under_any_pressure() {
    for profile in ["2016-01", "two-tier", "current"] {
        let mut desk = Desk::new(shipped(profile));
        desk.issue(&["example.com"]);
        for m in [0.43, 0.01, 0.0] {
            desk.pressure = pressed(m);
            assert!(allowed(&desk.order(&["example.com"])), "{profile} {m}");
            assert!(allowed(&desk.register("192.0.2.1")), "{profile} {m}");
        }
    }
}

#[test]
fn at_zero_every_new_certificate_is_refused_with_the_capacity_as_the_cause() {
    let mut desk = Desk::new(shipped("current"));
    desk.pressure = pressed(0.0);
    let refused = desk.order(&["example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!(refusal.cause, RefusalCause::Capacity);
    assert_eq!(retry_at(&refused), Some(time("2016-01-19T00:00:00Z")));
    assert_eq!(refusal.title(&refused.help), "new certificates are paused while signing capacity is short");
    assert!(refusal.detail.contains("renewals go on as usual"), "{}", refusal.detail);
    desk.pressure.eases_at = None;
    let unknown = desk.order(&["example.com"]);
    assert_eq!(retry_at(&unknown), None);
    assert_eq!(unknown.retry_after(), Some(Duration::from_secs(900)));
}

#[test]
fn the_wait_is_not_shorter_than_the_limits_own_where_both_refuse() {
    let mut desk = Desk::new(domain_limit("\"1/7d\"", ""));
    desk.issue(&["a.example.com"]);
    desk.pressure = pressed(0.0);
    let refused = desk.order(&["b.example.com"]);
    assert_eq!(retry_at(&refused), Some(time("2016-01-24T10:00:00Z")));
    let Outcome::Refused { refusals, .. } = &refused.outcome else { panic!() };
    let causes: Vec<_> = refusals.iter().map(|refusal| refusal.cause).collect();
    assert_eq!(causes, [RefusalCause::Limit, RefusalCause::Capacity]);
}

#[test]
fn a_guard_gone_blind_tightens_to_the_safe_multiplier_and_says_why() {
    let mut desk = Desk::new(domain_limit("\"8/7d\"", ""));
    desk.pressure = Pressure {
        lease: Some(Lease { published_at: desk.now, lasts: Duration::from_secs(600), safe_multiplier: 0.25 }),
        ..Pressure::none()
    };
    assert_eq!(desk.order(&["a.example.com"]).limits[0].tiers[0].effective, 8);
    let order = desk.wait(Duration::from_secs(600)).order(&["b.example.com"]);
    assert_eq!(order.limits[0].tiers[0].effective, 2);
    let refused = desk.order(&["c.example.com"]);
    let capacity = refused.refusal().unwrap().capacity.clone().unwrap();
    assert_eq!(capacity.state, GuardState::Blind);
    assert!(capacity.reason.contains("older than 5m"), "{}", capacity.reason);
}

fn everybody(tier: &str) -> String {
    format!(
        "[[limit]]\nname = \"capacity\"\ncounts = \"certificates\"\nper = \"everything\"\ntiers = [\"{tier}\"]\noverridable = false\n"
    )
}

#[test]
fn the_guard_lets_through_m_of_what_is_asked_for_and_no_limit_is_there_while_it_does_not_press() {
    let text = format!("name = \"p\"\n{}", everybody("capacity/1d"));
    let mut desk = Desk::new(Arc::new(Profile::parse(&text).unwrap()));
    for number in 0..5 {
        let allowed = desk.issue(&[&format!("a.{number}.example.com")]);
        assert!(allowed.limits.is_empty(), "nothing presses");
    }
    // Of 20 a day 0.3: six, of which five are there.
    desk.pressure = Pressure { offered_per_day: Some(20.0), ..pressed(0.3) };
    assert!(allowed(&desk.issue(&["six.example.com"])));
    let refused = desk.order(&["seven.example.com"]);
    let refusal = refused.refusal().unwrap();
    assert_eq!((refusal.cause, refusal.limit.as_str()), (RefusalCause::Tightened, "capacity"));
    assert_eq!((refusal.count, refusal.effective), (6, 6));
    assert!(refusal.counted.is_empty(), "other people's certificates are not shown");
    for part in [
        "6 certificates for everybody together in the last 1 day; capacity allows 6 in any such period at present.",
        "no fault of yours",
    ] {
        assert!(refusal.detail.contains(part), "{part}: {}", refusal.detail);
    }
    assert!(!refusal.detail.contains("nominally"), "{}", refusal.detail);
    // A renewal passes, and counts for nothing here.
    let renewed = desk.issue(&["a.0.example.com"]);
    assert!(allowed(&renewed) && renewed.renewal.is_some());
    // The slope opens it again.
    desk.pressure = Pressure { offered_per_day: Some(20.0), ..pressed(0.35) };
    assert!(allowed(&desk.order(&["seven.example.com"])));
    // A guard that knows no pace does not press by it.
    desk.pressure = Pressure { offered_per_day: None, ..pressed(0.01) };
    assert!(allowed(&desk.order(&["eight.example.com"])));
}

#[test]
fn capacity_is_the_only_tier_of_a_limit_on_all_certificates() {
    for (limit, fits) in [
        (everybody("capacity/1d"), true),
        (everybody("capacity/1d\", \"5/7d"), false),
        (everybody("capacity/1d").replace("everything", "account"), false),
        (everybody("capacity/1d").replace("\"certificates\"", "\"orders\""), false),
        (everybody("capacities/1d"), false),
    ] {
        let parsed = Profile::parse(&format!("name = \"p\"\n{limit}"));
        assert_eq!(parsed.is_ok(), fits, "{limit}: {parsed:?}");
    }
}
