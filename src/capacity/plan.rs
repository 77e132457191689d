//! A plan: what a fleet needs, what the HSMs carry, and what each lever buys.

use std::time::Duration;

use serde::Serialize;

use super::fleet::{Fleet, Life};
use super::forecast::Forecast;
use super::model::{Model, Reserve, Terms, Work};

const DAY: Duration = Duration::from_secs(86_400);

/// What is planned for.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Unexpired certificates.
    pub fleet: f64,
    /// How they live.
    pub life: Life,
    /// How long answers last.
    pub terms: Terms,
    /// Responders that sign for each certificate.
    pub responders: u32,
    /// Whether the two hashes share a signature.
    pub paired: bool,
    /// x: other signatures for each issuance.
    pub per_issuance: f64,
    /// Certificates under one signature.
    pub pack: u64,
    /// What is kept in hand.
    pub reserve: Reserve,
    /// Live answers a second, at the 99th percentile.
    pub live: f64,
    /// Signatures a second that each token sustains.
    pub rates: Vec<f64>,
}

/// What a lever buys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// The lever.
    pub lever: String,
    /// U with it; none when there is no capacity.
    pub utilisation: Option<f64>,
    /// N_max with it.
    pub largest_fleet: f64,
    /// How many times as large a fleet is carried as without it.
    pub times: f64,
}

/// The plan. Rates are in signatures a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Unexpired certificates planned for.
    pub fleet: f64,
    /// s: signatures for one certificate and refresh.
    pub signatures_per_refresh: f64,
    /// The mean interval between refreshes.
    pub mean_refresh_seconds: f64,
    /// K: signatures owed for one certificate over its life.
    pub signatures_per_certificate: f64,
    /// The rate of each token.
    pub rates: Vec<f64>,
    /// C_eff.
    pub effective_per_second: f64,
    /// r.
    pub live_reserve_per_second: f64,
    /// C_bg.
    pub capacity_per_second: f64,
    /// λ.
    pub demand_per_second: f64,
    /// U.
    pub utilisation: Option<f64>,
    /// U_max.
    pub utilisation_limit: f64,
    /// N_max.
    pub largest_fleet: f64,
    /// Whether the fleet fits.
    pub fits: bool,
    /// The rate of all tokens but one that may be lost (of one token: its own) at which it just fits.
    pub rate_needed: f64,
    /// i*: new certificates a day that fit, for a fleet that ends evenly over its lifetime.
    pub new_per_day: f64,
    /// How long the HSMs may be away before an answer is stale.
    pub outage_until_stale_seconds: u64,
    /// And before one has expired.
    pub outage_until_expired_seconds: u64,
    /// The signatures that the planned outage leaves.
    pub outage_backlog: f64,
    /// How long these take to catch up; none when they never are.
    pub outage_drain_seconds: Option<u64>,
    /// Certificates due at one instant that are refreshed before they are stale.
    pub cohort_that_fits: f64,
    /// Certificates revoked and issued anew within 24 hours.
    pub mass_revocation_per_day: f64,
    /// How long it takes to revoke and issue anew the whole fleet.
    pub mass_revocation_of_all_seconds: Option<f64>,
    /// What each lever buys.
    pub levers: Vec<Gain>,
}

impl Question {
    fn model(&self) -> Model {
        let hashes = if self.paired { 1.0 } else { 2.0 };
        let work = Work { per_refresh: f64::from(self.responders) * hashes, per_issuance: self.per_issuance };
        Model::new(self.terms, work, self.reserve, &self.rates, self.live)
    }

    /// Works the plan out.
    #[must_use]
    pub fn answer(&self) -> Plan {
        let model = self.model();
        let (fleet, pack) = (self.fleet, self.pack);
        let largest = model.largest_fleet(pack);
        let mut standing = Fleet::new(&[Life { renews_as: 0, ..self.life }], 0);
        standing.add_evenly(0, fleet);
        let backlog = model.backlog(fleet, pack);
        let each = model.mass_revocation(DAY) / DAY.as_secs_f64();
        Plan {
            fleet,
            signatures_per_refresh: model.signatures(pack),
            mean_refresh_seconds: self.terms.mean_refresh(),
            signatures_per_certificate: model.debt(self.life.days, pack),
            rates: self.rates.clone(),
            effective_per_second: model.effective,
            live_reserve_per_second: model.effective - model.background,
            capacity_per_second: model.background,
            demand_per_second: model.demand(fleet, pack),
            utilisation: finite(model.utilisation(fleet, pack)),
            utilisation_limit: self.reserve.highest_utilisation(),
            largest_fleet: largest,
            fits: fleet <= largest,
            rate_needed: model.rate_needed(fleet, pack, self.live),
            new_per_day: Forecast::of(&standing).budget(largest).a_day,
            outage_until_stale_seconds: self.terms.slack().as_secs(),
            outage_until_expired_seconds: self.terms.hard_slack().as_secs(),
            outage_backlog: backlog,
            outage_drain_seconds: model.drain(backlog, fleet, pack).map(|span| span.as_secs()),
            cohort_that_fits: model.cohort_that_fits(fleet, pack),
            mass_revocation_per_day: model.mass_revocation(DAY),
            mass_revocation_of_all_seconds: (each > 0.0).then(|| fleet / each),
            levers: self.levers(largest),
        }
    }

    fn levers(&self, largest: f64) -> Vec<Gain> {
        let gain = |lever: String, other: Self| {
            let model = other.model();
            let carried = model.largest_fleet(other.pack);
            Gain {
                lever,
                utilisation: finite(model.utilisation(other.fleet, other.pack)),
                largest_fleet: carried,
                times: if largest > 0.0 { carried / largest } else { 0.0 },
            }
        };
        let mut levers = Vec::new();
        let longest = self.terms.longest_refresh();
        if longest > self.terms.refresh {
            let terms = Terms { refresh: longest, ..self.terms };
            let hours = longest.as_secs_f64() / 3_600.0;
            levers.push(gain(
                format!("slack: refresh every {hours:.0} h, while a backlog needs it"),
                Self { terms, ..self.clone() },
            ));
        }
        if !self.paired {
            levers.push(gain(
                "both hashes under one signature".to_owned(),
                Self { paired: true, ..self.clone() },
            ));
        }
        for pack in [2, 4, 8].into_iter().filter(|pack| *pack > self.pack) {
            levers.push(gain(format!("packs of {pack}"), Self { pack, ..self.clone() }));
        }
        if self.responders > 1 {
            levers.push(gain(
                "one responder less".to_owned(),
                Self { responders: self.responders - 1, ..self.clone() },
            ));
        }
        if let Some(rate) = self.rates.iter().copied().reduce(f64::max) {
            let rates = [self.rates.clone(), vec![rate]].concat();
            let what = if self.rates.len() == 1 {
                "a second token, so that one may be lost"
            } else {
                "one more token as fast as the fastest"
            };
            levers.push(gain(what.to_owned(), Self { rates, ..self.clone() }));
        }
        levers
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// The worked example of the specification.
    fn example() -> Question {
        Question {
            fleet: 350_000.0,
            life: Life { days: 90, renewal_age: 60, renewal_share: 0.9, renews_as: 0 },
            terms: Terms { validity: 168 * HOUR, refresh: 72 * HOUR, deadline: 96 * HOUR, spread: 0.0 },
            responders: 2,
            paired: false,
            per_issuance: 0.0,
            pack: 1,
            reserve: Reserve { headroom: 0.8, live: None, outage: 24 * HOUR, drain: 48 * HOUR },
            live: 0.0,
            rates: vec![13.7, 13.7],
        }
    }

    #[test]
    fn the_worked_example_is_planned_as_it_is_specified() {
        let plan = example().answer();
        assert_eq!(plan.largest_fleet.round(), 430_272.0);
        assert_eq!(plan.new_per_day.round(), 1_075.0);
        assert_eq!((plan.signatures_per_refresh, plan.signatures_per_certificate), (4.0, 120.0));
        assert_eq!((plan.utilisation.unwrap() * 1_000.0).round(), 542.0);
        assert_eq!(plan.outage_drain_seconds.map(|span| span / 360), Some(284));
        assert_eq!((plan.outage_until_stale_seconds, plan.outage_until_expired_seconds), (86_400, 345_600));
        assert!(plan.fits && plan.rate_needed < 13.7);
    }

    #[test]
    fn each_lever_says_what_it_buys() {
        let plan = example().answer();
        let times = |lever: &str| {
            let found = plan.levers.iter().find(|gain| gain.lever.starts_with(lever));
            found.unwrap_or_else(|| panic!("{lever} in {:?}", plan.levers)).times
        };
        assert!((times("both hashes") - 2.0).abs() < 1e-9);
        assert!((times("packs of 4") - 4.0).abs() < 1e-9);
        assert!((times("one responder less") - 2.0).abs() < 1e-9);
        assert!((times("one more token") - (21.92 - 1.0) / 9.96).abs() < 1e-9);
        assert!((times("slack") - 81.6 / 72.0).abs() < 1e-9);
        let both = Question { paired: true, pack: 4, ..example() };
        assert_eq!(both.answer().largest_fleet.round(), 3_442_176.0);
        assert!(!both.answer().levers.iter().any(|gain| gain.lever.contains("hashes")));
    }

    #[test]
    fn no_capacity_is_a_plan_too() {
        let plan = Question { rates: Vec::new(), ..example() }.answer();
        assert_eq!((plan.largest_fleet, plan.fits, plan.utilisation), (0.0, false, None));
        assert_eq!((plan.outage_drain_seconds, plan.mass_revocation_of_all_seconds), (None, None));
        assert!(plan.rate_needed > 0.0);
    }
}
