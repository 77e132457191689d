//! The capacity guard from outside: plans, scenarios, and its report in a running process.

use std::time::Duration;

use goodstanding::capacity::scenario::Scenario;
use goodstanding::capacity::simulation::{self, Outcome};
use serde_json::Value;

use crate::support::ca::{KeyKind, utf8};
use crate::support::server::Server;
use crate::support::site::{Site, document, root};
use crate::support::{eventually, http};

/// A shipped scenario, with a change to its text.
fn scenario(name: &str, change: impl Fn(String) -> String) -> Scenario {
    let path = root().join("config/scenarios").join(name).with_extension("toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Scenario::parse(&change(text)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn outcome(name: &str) -> Outcome {
    simulation::run(scenario(name, |text| text))
}

#[test]
fn every_shipped_scenario_is_run_by_a_test_here() {
    let mut shipped: Vec<_> = std::fs::read_dir(root().join("config/scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    shipped.sort();
    let tested = [
        "internet-scale-packed.toml",
        "internet-scale.toml",
        "january-2016.toml",
        "lifetime-90-45-6.toml",
        "mass-revocation.toml",
        "outage-24h.toml",
    ];
    assert_eq!(shipped, tested);
}

#[test]
fn january_2016_is_throttled_to_what_its_hsms_carry() {
    let outcome = outcome("january-2016");
    let first = outcome.samples.iter().find(|sample| sample.day > 2.0).unwrap();
    assert!((first.multiplier - 0.43).abs() < 0.02, "i* of 2,500 offered: {}", first.multiplier);
    assert!(outcome.samples.iter().all(|sample| sample.fleet <= 430_272.0));
    assert_eq!((outcome.summary.most_stale, outcome.summary.largest_pack), (0.0, 1));
    assert!(outcome.summary.refused > 0.6 * outcome.summary.offered);
    assert!(outcome.summary.renewed > 600_000.0, "renewals are never refused");
}

#[test]
fn half_a_billion_certificates_take_six_hsms_of_a_thousand_signatures_unpacked() {
    let summary = outcome("internet-scale").summary;
    assert!(summary.largest_fleet > 490e6, "{}", summary.largest_fleet);
    assert!(
        (4_000.0..5_000.0).contains(&summary.rate_needed),
        "five and one in hand: {}",
        summary.rate_needed
    );
    assert_eq!(summary.most_stale, 0.0);
    let first = summary.first_refusal_day.unwrap();
    assert!(first > 500.0, "the guard sees the end of it ahead: day {first}");
    assert!(summary.refused < 0.03 * summary.offered);
}

#[test]
fn packed_by_up_to_eight_two_hsms_carry_half_a_billion() {
    let summary = outcome("internet-scale-packed").summary;
    assert!(summary.largest_fleet > 500e6, "{}", summary.largest_fleet);
    assert!(summary.rate_needed_packed < 1_000.0, "one and one in hand: {}", summary.rate_needed_packed);
    assert!((5..=8).contains(&summary.largest_pack), "{}", summary.largest_pack);
    assert_eq!((summary.most_stale, summary.refused), (0.0, 0.0));
}

#[test]
fn a_day_without_the_hsm_is_survived_by_slack_and_not_without_it() {
    let summary = outcome("outage-24h").summary;
    assert_eq!((summary.most_stale, summary.most_expired), (0.0, 0.0));
    assert!(summary.least_multiplier < 0.2 && summary.last_multiplier == 1.0, "shut, and open again");
    assert!((80_000.0..=90_000.0).contains(&summary.longest_wait_seconds), "a new one waits for the HSM");
    // Refreshed at 3 days and a half there are 12 hours of slack, and the other 12 are stale ones.
    let tight = simulation::run(scenario("outage-24h", |text| text.replace("2d12h", "3d12h"))).summary;
    assert!(tight.most_stale > 30_000.0, "{}", tight.most_stale);
    assert!((tight.least_time_to_stale_seconds + 12.0 * 3_600.0).abs() < 2.0 * 3_600.0);
    assert_eq!(tight.most_expired, 0.0);
}

#[test]
fn shorter_lifetimes_overlap_and_then_cost_less() {
    let outcome = outcome("lifetime-90-45-6");
    let at = |day: f64| outcome.samples.iter().find(|sample| sample.day >= day).unwrap().fleet;
    assert!(at(75.0) > 1.1 * at(30.0), "45 days, renewed every 30, beside what is left of 90");
    assert!(at(145.0) < at(30.0), "then half the lifetime is half the overlap");
    assert!(at(290.0) < 0.5 * at(145.0));
    assert_eq!((outcome.summary.most_stale, outcome.summary.refused), (0.0, 0.0));
}

#[test]
fn a_mass_revocation_waits_for_hours_and_its_wave_comes_back_with_the_renewals() {
    let outcome = outcome("mass-revocation");
    let summary = &outcome.summary;
    assert_eq!((summary.most_stale, summary.most_expired), (0.0, 0.0));
    assert!(
        (3_600.0..=4.0 * 3_600.0).contains(&summary.longest_wait_seconds),
        "{}",
        summary.longest_wait_seconds
    );
    assert!(summary.renewed > 300_000.0, "replacements are never refused");
    assert!(summary.least_multiplier < 0.1 && summary.last_multiplier == 1.0);
    let wave = outcome.samples.iter().filter(|sample| sample.day > 40.0);
    let peak = wave.max_by(|one, other| one.fleet.total_cmp(&other.fleet)).unwrap();
    assert!((60.0..70.0).contains(&peak.day), "60 days after, all at once: day {}", peak.day);
}

#[test]
fn what_the_guard_is_worth_is_what_goes_stale_without_it() {
    let rush = |text: String| text.replace("new_per_day = 2500", "new_per_day = 12000");
    let guarded = simulation::run(scenario("january-2016", rush)).summary;
    let open =
        simulation::run(scenario("january-2016", |text| rush(format!("guard = false\n{text}")))).summary;
    assert_eq!(guarded.most_stale, 0.0);
    assert!(open.most_stale > 100_000.0, "{}", open.most_stale);
    assert_eq!(open.refused, 0.0);
}

/// The worked example's numbers on the command line.
const EXAMPLE: [&str; 14] = [
    "capacity",
    "plan",
    "--fleet",
    "350000",
    "--refresh",
    "3d",
    "--spread",
    "0",
    "--rate",
    "13.7,13.7",
    "--responders",
    "2",
    "--unpaired",
    "--drain=48h",
];

#[test]
fn a_plan_gives_the_golden_values_to_people_and_to_machines() {
    let site = Site::bare(KeyKind::P256);
    site.goodstanding(&EXAMPLE).ok().says(&[
        "350,000 certificates: fits",
        "54.2 % (limit 66.7 %)",
        "430,272",
        "1,075 fit",
        "120 signatures in 90 days",
        "466,667 signatures to catch up, done in 1day 4h",
        "both hashes under one signature",
        "860,544",
    ]);
    let plan = document(&site.goodstanding(&[&["--json"][..], &EXAMPLE].concat()).ok());
    assert_eq!(plan["largest_fleet"].as_f64().unwrap().round(), 430_272.0);
    assert_eq!(plan["fits"], Value::Bool(true));
    let wrong = ["capacity", "plan", "--fleet", "1", "--refresh", "5d", "--rate", "1"];
    site.goodstanding(&wrong).exits(2).says(&["refresh 5days is later than"]);
    site.goodstanding(&["capacity", "plan", "--fleet", "1"])
        .exits(2)
        .says(&["no rate is recorded", "hsm bench"]);
}

#[test]
fn a_scenario_is_run_and_drawn() {
    let site = Site::bare(KeyKind::P256);
    let file = root().join("config/scenarios/outage-24h.toml");
    let chart = site.path("outage.svg");
    let asked = ["capacity", "simulate", utf8(&file), "--svg", utf8(&chart)];
    site.goodstanding(&asked).ok().says(&["A 24 hour HSM outage", "closest to stale", "renewed or replaced"]);
    let drawn = std::fs::read_to_string(&chart).unwrap();
    assert!(drawn.contains("Share of new issuance that is allowed") && drawn.trim_end().ends_with("</svg>"));
    let wrong = site.path("wrong.toml");
    std::fs::write(&wrong, "title = \"x\"\ndays = 0\n").unwrap();
    site.goodstanding(&["capacity", "simulate", utf8(&wrong)])
        .exits(2)
        .says(&["wrong.toml", "missing field"]);
    site.goodstanding(&["capacity", "simulate", "nowhere.toml"]).exits(1).says(&["nowhere.toml"]);
}

#[test]
fn a_running_process_reports_its_capacity_and_the_report_outlives_it() {
    let site = Site::new(KeyKind::P256);
    site.good_and_revoked();
    site.goodstanding(&["capacity", "report"]).exits(1).says(&["no capacity guard has run"]);
    let bench = ["hsm", "bench", "--algorithm", "p256", "--sessions", "2", "--seconds", "0.2"];
    site.goodstanding(&bench).ok();
    {
        let _server = Server::start(&site);
        let (report, _) = eventually("a green report", Duration::from_secs(60), || {
            let reply = http::get(site.control, "/v1/capacity").ok().filter(|reply| reply.status == 200)?;
            let report: Value = serde_json::from_slice(&reply.body).unwrap();
            (report["state"] == "green").then_some(report)
        });
        assert_eq!(report["multiplier"], 1.0);
        assert!(report["fleet"].as_f64().unwrap() >= 2.0, "{report}");
        assert!(report["capacity_per_second"].as_f64().unwrap() > 10.0, "{report}");
        assert_eq!(report["tokens"][0]["name"], "hsm-a");
        let metrics = http::get(site.control, "/metrics").unwrap();
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(metrics.contains("goodstanding_capacity_multiplier 1"), "{metrics}");
        assert!(metrics.contains("goodstanding_capacity_state{state=\"green\"} 1"), "{metrics}");
    }
    let kept = document(&site.goodstanding(&["--json", "capacity", "report"]).ok());
    assert_eq!(kept["state"], "green", "{kept}");
    site.goodstanding(&["capacity", "report"]).ok().says(&["green:", "renewals: all", "hsm-a"]);
    site.goodstanding(&["capacity", "plan", "--fleet", "1000"]).ok().says(&["1,000 certificates: fits"]);
}
