use super::*;
use crate::capacity::fleet::Life;

const HOUR: Duration = Duration::from_secs(3_600);
const START: i64 = 1_000_000;

fn settings() -> Settings {
    Settings {
        reserve: Reserve { headroom: 0.8, live: Some(1.0), outage: 24 * HOUR, drain: 48 * HOUR },
        work: Work { per_refresh: 4.0, per_issuance: 0.0 },
        pack_max: 1,
        watch_only: false,
        throttle: throttle::Settings::default(),
        smoothing: 24 * HOUR,
    }
}

fn terms() -> Terms {
    Terms { validity: 168 * HOUR, refresh: 72 * HOUR, deadline: 96 * HOUR, spread: 0.0 }
}

fn fleet(certificates: f64) -> Fleet {
    let mut fleet = Fleet::new(&[Life { days: 90, renewal_age: 60, renewal_share: 0.9, renews_as: 0 }], 0);
    fleet.add_evenly(0, certificates);
    fleet
}

fn token(name: &str, rate: Option<f64>) -> TokenReading {
    TokenReading { name: name.to_owned(), rate, away: None }
}

/// The worked example `seconds` after the start, with nothing behind.
fn reading(seconds: i64) -> Reading {
    Reading {
        now: UnixTime(START + seconds),
        tokens: vec![token("a", Some(13.7)), token("b", Some(13.7))],
        live_p99: 0.0,
        offered: 0.0,
        time_to_stale: Some(86_400),
        time_to_expiry: Some(345_600),
        overdue: 0.0,
    }
}

/// A guard to which 2,500 new certificates a day were offered for a day.
fn busy() -> (Guard, Report) {
    let mut guard = Guard::new(settings(), terms(), None);
    let mut report = Report::default();
    for minute in 0..=1_440 {
        let offered = if minute == 0 { 0.0 } else { 2_500.0 / 1_440.0 };
        report = guard.read(&Reading { offered, ..reading(minute * 60) }, &fleet(350_000.0));
    }
    (guard, report)
}

#[test]
fn with_nothing_to_fear_it_is_green() {
    let report = Guard::new(settings(), terms(), None).read(&reading(0), &fleet(350_000.0));
    assert_eq!((report.state, report.lever, report.multiplier), (State::Green, Lever::None, 1.0));
    assert_eq!(report.reason, "54 % of the HSM capacity in use (limit 67 %), no lever in use");
    assert_eq!((report.largest_fleet.round(), report.budget_per_day.round()), (430_272.0, 1_075.0));
    assert_eq!(report.lease_until, UnixTime(START + 600));
}

#[test]
fn the_worked_example_is_throttled_to_what_fits() {
    let (_, report) = busy();
    assert!((report.offered_per_day - 2_500.0).abs() < 5.0, "{}", report.offered_per_day);
    assert!((report.multiplier - 0.43).abs() < 0.002, "{}", report.multiplier);
    assert_eq!((report.state, report.lever), (State::Amber, Lever::Throttle));
    assert_eq!(
        report.reason,
        "54 % of the HSM capacity in use (limit 67 %): 2501 new certificates a day are asked for and 1075 fit, \
         bounded by the fleet in 90 days; 43 % of new issuance is allowed"
    );
    assert_eq!(report.eases_at, Some(UnixTime(START + 86_400).plus(90 * 24 * HOUR)));
}

#[test]
fn without_a_rate_it_is_blind_and_on_its_first_sight_opens_as_far_as_fits() {
    let mut guard = Guard::new(settings(), terms(), None);
    let unknown = Reading { tokens: vec![token("a", None)], ..reading(0) };
    let report = guard.read(&unknown, &fleet(350_000.0));
    assert_eq!((report.state, report.multiplier), (State::Blind, 0.25));
    assert!(report.reason.contains("no rate of any token is known"), "{}", report.reason);
    assert_eq!(guard.read(&reading(10), &fleet(350_000.0)).multiplier, 1.0);
    let nothing = Guard::new(settings(), terms(), None).read(&unknown, &fleet(0.0));
    assert_eq!((nothing.state, nothing.multiplier), (State::Green, 1.0), "nothing is asked of it");
}

#[test]
fn a_restart_goes_on_from_what_was_remembered() {
    let (guard, before) = busy();
    let memory: Memory =
        serde_json::from_str(&serde_json::to_string(guard.memory().unwrap()).unwrap()).unwrap();
    let mut again = Guard::new(settings(), terms(), Some(memory));
    let soon = again.blind(UnixTime(START + 86_400 + 5), "it has just started");
    assert_eq!(soon.state, State::Blind);
    assert!((soon.multiplier - before.multiplier).abs() < 1e-9, "JSON may miss the last bit");
    let report = again.read(&reading(86_400 + 10), &fleet(350_000.0));
    assert!((report.multiplier - before.multiplier).abs() < 0.001);
    assert!((report.offered_per_day - before.offered_per_day).abs() < 5.0);
}

#[test]
fn after_blindness_it_climbs_from_the_safe_multiplier_by_the_slope() {
    let mut guard = Guard::new(settings(), terms(), None);
    guard.read(&reading(0), &fleet(350_000.0));
    let blind = guard.blind(UnixTime(START + 7_200), "for a test");
    assert_eq!((blind.state, blind.multiplier), (State::Blind, 0.25));
    let first = guard.read(&reading(7_200), &fleet(350_000.0));
    assert!(first.multiplier <= 0.25 + 0.05 + 1e-9, "{}", first.multiplier);
    assert!(first.reason.contains("opens again by the slope"), "{}", first.reason);
    let later = guard.read(&reading(7_200 + 300), &fleet(350_000.0));
    assert!((later.multiplier - first.multiplier - 0.05 / 3.0).abs() < 1e-9);
    let eases = later.eases_at.unwrap().since(later.at).as_secs_f64();
    assert!((eases - (1.0 - later.multiplier) / 0.05 * 900.0).abs() < 2.0, "{eases}");
}

#[test]
fn stale_answers_make_it_red_and_shut_new_issuance() {
    let mut guard = Guard::new(settings(), terms(), None);
    let behind = |left| Reading { time_to_stale: Some(left), overdue: 100_000.0, ..reading(0) };
    let report = guard.read(&behind(-60), &fleet(350_000.0));
    assert_eq!((report.state, report.multiplier), (State::Red, 0.0));
    let report = Guard::new(settings(), terms(), None).read(&behind(27_000), &fleet(350_000.0));
    assert_eq!(report.state, State::Amber);
    assert!((report.multiplier - 0.5).abs() < 0.01, "between 12 and 3 hours: {}", report.multiplier);
    assert!(
        report.reason.contains("signing is behind, the first answer is stale in 7h 30m"),
        "{}",
        report.reason
    );
    assert!(report.eases_at.is_some());
}

#[test]
fn an_outage_does_not_shrink_what_is_planned_with_until_it_is_a_loss() {
    let away = |span| {
        let mut tokens = reading(0).tokens;
        tokens.iter_mut().for_each(|token| token.away = Some(span));
        Guard::new(settings(), terms(), None).read(&Reading { tokens, ..reading(0) }, &fleet(350_000.0))
    };
    let short = away(HOUR);
    assert_eq!((short.largest_fleet.round(), short.multiplier), (430_272.0, 1.0));
    assert_eq!(short.lever, Lever::Slack, "what waits may wait within the slack");
    let lost = away(25 * HOUR);
    assert_eq!((lost.largest_fleet, lost.utilisation), (0.0, None));
    assert!(lost.reason.starts_with("no capacity at all"), "{}", lost.reason);
}

#[test]
fn packs_are_pulled_before_the_throttle() {
    let packing = Settings { pack_max: 8, ..settings() };
    let mut guard = Guard::new(packing, terms(), None);
    let report = guard.read(&reading(0), &fleet(1_000_000.0));
    assert_eq!((report.lever, report.pack, report.multiplier), (Lever::Pack, 3, 1.0));
    let mut guard = Guard::new(settings(), terms(), None);
    let busy = Reading { offered: 100.0, ..reading(0) };
    let report = guard.read(&busy, &fleet(1_000_000.0));
    assert_eq!((report.lever, report.pack), (Lever::Throttle, 1));
    assert!(report.multiplier <= 0.01);
}

#[test]
fn a_report_reads_back_from_json() {
    let (_, report) = busy();
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains(r#""state":"amber","lever":"throttle""#), "{text}");
    let back: Report = serde_json::from_str(&text).unwrap();
    assert!((back.multiplier - report.multiplier).abs() < 1e-9, "JSON may miss the last bit");
    assert_eq!(
        (back.state, back.at, back.eases_at, back.reason),
        (report.state, report.at, report.eases_at, report.reason)
    );
    assert_eq!(back.tokens, report.tokens);
}
