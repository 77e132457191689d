use super::*;

/// A 2016 CA with another demand, from `[demand]` on.
fn ca(demand: &str) -> Scenario {
    let text = format!(
        r#"
        title = "test"
        days = 60
        [policy]
        preset = "web-pki"
        validity = "7d"
        refresh = "3d"
        spread = 0.0
        [fleet]
        certificates = 350000
        lifetime = "90d"
        renewal_age = "60d"
        renewal_share = 0.9
        [signatures]
        responders = 2
        paired = false
        [capacity]
        drain = "48h"
        [[token]]
        name = "hsm"
        count = 2
        rate = 13.7
        [demand]
        {demand}
        "#
    );
    Scenario::parse(&text).unwrap()
}

/// Turns of a line by more than `band`: 0 for one that only falls or only rises.
fn turns(line: &[f64], band: f64) -> usize {
    let (mut turns, mut extreme, mut rising) = (0, line[0], None);
    for value in line.iter().copied() {
        match rising {
            Some(true) if value < extreme - band => {
                (turns, extreme, rising) = (turns + 1, value, Some(false))
            }
            Some(false) if value > extreme + band => {
                (turns, extreme, rising) = (turns + 1, value, Some(true))
            }
            Some(true) => extreme = extreme.max(value),
            Some(false) => extreme = extreme.min(value),
            None if (value - extreme).abs() > band => (extreme, rising) = (value, Some(value > extreme)),
            None => {}
        }
    }
    turns
}

#[test]
fn turns_are_counted() {
    assert_eq!(turns(&[1.0, 0.9, 0.5, 0.4, 0.42, 0.3], 0.05), 0);
    assert_eq!(turns(&[1.0, 0.4, 0.5, 0.3, 0.9], 0.05), 3);
}

#[test]
fn after_a_step_of_demand_the_multiplier_settles_without_more_than_one_overshoot() {
    for demand in [2_500, 4_000, 30_000] {
        let step = format!("new_per_day = 500\n[[event]]\nat = \"10d\"\nnew_per_day = {demand}");
        let outcome = run(ca(&step));
        let m: Vec<f64> = outcome.samples.iter().map(|sample| sample.multiplier).collect();
        assert!(m[..240].iter().all(|m| *m == 1.0), "500 a day fit");
        assert!(
            turns(&m[240..], 0.05) <= 1,
            "{demand}: {:?}",
            &m[240..].iter().step_by(24).collect::<Vec<_>>()
        );
        // By hour 48 after the step it is where it stays for the day.
        let settled = 240 + 48;
        let spread = |line: &[f64]| line.iter().fold(0.0f64, |sum, m| sum.max((m - line[0]).abs()));
        assert!(spread(&m[settled..settled + 24]) < 0.05, "{demand}");
        assert!(m[settled] < 0.99, "{demand} a day do not fit: {}", m[settled]);
    }
}

#[test]
fn after_a_step_down_it_opens_by_the_slope() {
    let outcome = run(ca("new_per_day = 3000\n[[event]]\nat = \"10d\"\nnew_per_day = 200"));
    let m: Vec<f64> = outcome.samples.iter().map(|sample| sample.multiplier).collect();
    assert!(m[239] < 0.5 && m.last() == Some(&1.0), "{} then {:?}", m[239], m.last());
    assert!(m.windows(2).all(|pair| pair[1] - pair[0] <= 0.2 + 1e-9), "0.05 in a quarter of an hour");
    assert!(turns(&m[240..], 0.05) <= 1);
}

#[test]
fn the_fleet_stays_within_what_the_hsms_carry_while_demand_does_not() {
    let rush = "new_per_day = 30000\n[[event]]\nat = \"30d\"\ntoken = \"hsm-1\"\noutage = \"20h\"";
    let outcome = run(ca(rush));
    assert!(outcome.samples.iter().all(|sample| sample.fleet <= sample.largest_fleet));
    assert_eq!(outcome.summary.most_stale, 0.0);
    let mut open = ca(rush);
    open.guarded = false;
    let outcome = run(open);
    assert_eq!(outcome.summary.refused, 0.0);
    assert!(outcome.samples.iter().any(|sample| sample.fleet > sample.largest_fleet));
    assert!(outcome.summary.most_stale > 0.0, "what the guard is for");
}

#[test]
fn a_lost_token_is_planned_for_and_two_lost_are_an_outage() {
    let one = run(ca("new_per_day = 500\n[[event]]\nat = \"5d\"\ntoken = \"hsm-1\"\noutage = \"20h\""));
    assert_eq!((one.summary.most_stale, one.summary.least_multiplier), (0.0, 1.0));
    let both = run(ca("new_per_day = 500\n[[event]]\nat = \"5d\"\noutage = \"20h\""));
    assert_eq!(both.summary.most_stale, 0.0, "within the slack");
    assert!(both.summary.least_multiplier < 0.5);
    assert_eq!(both.summary.last_multiplier, 1.0);
    let long = run(ca("new_per_day = 500\n[[event]]\nat = \"5d\"\noutage = \"30h\""));
    assert!(long.summary.most_stale > 0.0, "6 hours past the slack");
    // F6 as a bound: what came due in those hours was stale until it was its turn.
    assert!(long.summary.least_time_to_stale_seconds >= -6.0 * 3_600.0 - 900.0);
    assert_eq!(long.summary.most_expired, 0.0);
}

#[test]
fn a_scenario_that_does_not_fit_says_which_field() {
    for (from, to, says) in [
        ("new_per_day = 1", "new_per_day = -1", "demand.new_per_day"),
        ("new_per_day = 1", "new_per_day = 1\nsurprise = 2", "unknown field `surprise`"),
        ("new_per_day = 1", "new_per_day = 1\n[[event]]\nat = \"1d\"", "event 1: give exactly one of"),
        ("new_per_day = 1", "new_per_day = 1\n[[event]]\nat = \"1d\"\nrate = 2", "needs the token"),
        (
            "new_per_day = 1",
            "new_per_day = 1\n[[event]]\nat = \"1d\"\ntoken = \"x\"\nrate = 2",
            "event 1 token: there is no [[token]] named \"x\"",
        ),
        ("new_per_day = 1", "new_per_day = 1\n[[event]]\nat = \"1d\"\nrevoke = 3", "event 1 revoke"),
        ("new_per_day = 1", "new_per_day = 1\n[[event]]\nat = \"soon\"\nrevoke = 1", "no span of time"),
    ] {
        let text = format!(
            "title = \"t\"\ndays = 1\n[policy]\npreset = \"web-pki\"\nvalidity = \"7d\"\nrefresh = \"3d\"\n\
             [fleet]\ncertificates = 1\nlifetime = \"90d\"\nrenewal_share = 0.9\n\
             [[token]]\nname = \"a\"\nrate = 1\n[demand]\n{from}\n"
        );
        Scenario::parse(&text).unwrap();
        let error = Scenario::parse(&text.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
