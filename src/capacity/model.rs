//! What a fleet asks of its HSMs, and how many certificates they carry: F2 to F7 and F11.

use std::time::Duration;

const DAY: f64 = 86_400.0;

/// How long answers last and when they are made anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// V: the validity of an answer.
    pub validity: Duration,
    /// R: the latest planned refresh after thisUpdate.
    pub refresh: Duration,
    /// D: the legal deadline after thisUpdate.
    pub deadline: Duration,
    /// The last part of R over which the refreshes of a fleet are spread, from 0 (all at R) to below 1.
    pub spread: f64,
}

impl Terms {
    /// The mean interval between two refreshes of a certificate, in seconds.
    ///
    /// Each certificate keeps its own interval, uniform in [(1 − q)R, R]; the fleet's rate is the mean of
    /// 1/interval, which is ln(1/(1 − q))/(qR): for q = 1/4 it is 15 % above 1/R.
    #[must_use]
    pub fn mean_refresh(&self) -> f64 {
        let refresh = self.refresh.as_secs_f64();
        if self.spread > 0.0 { refresh * self.spread / -(1.0 - self.spread).ln() } else { refresh }
    }

    /// S = D − R: how late a refresh may be.
    #[must_use]
    pub fn slack(&self) -> Duration {
        self.deadline.saturating_sub(self.refresh)
    }

    /// E = V − R: how late it may be before the answer has expired.
    #[must_use]
    pub fn hard_slack(&self) -> Duration {
        self.validity.saturating_sub(self.refresh)
    }
}

/// What is signed for a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Signatures for one certificate's refresh when nothing is packed: responders, twice that where two
    /// hashes do not share a signature.
    pub per_refresh: f64,
    /// x: other signatures on the same HSMs for each issuance.
    pub per_issuance: f64,
}

/// What is to be kept in hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reserve {
    /// η: the part of the measured rate that is counted on.
    pub headroom: f64,
    /// r_min: signatures a second kept for live answers; a tenth of C_eff, at most 1, if none is given.
    pub live: Option<f64>,
    /// τ: the outage to be survived.
    pub outage: Duration,
    /// T: how soon the backlog is to be worked off afterwards.
    pub drain: Duration,
}

/// The utilisation that is never planned for, however short the outage.
const HIGHEST_UTILISATION: f64 = 0.85;
/// What the p99 of live demand is multiplied by.
const LIVE_MARGIN: f64 = 1.2;

impl Reserve {
    /// C_eff: signatures a second that the tokens with these rates can be counted on for. Of several, the
    /// fastest may be lost.
    #[must_use]
    pub fn effective(&self, rates: &[f64]) -> f64 {
        let sum: f64 = rates.iter().sum();
        let fastest = rates.iter().copied().fold(0.0, f64::max);
        self.headroom * if rates.len() > 1 { sum - fastest } else { sum }
    }

    /// r: what is kept for live answers out of `effective`. `live_p99` is the 99th percentile of
    /// live demand over the last 7 days, in signatures a second.
    #[must_use]
    pub fn live(&self, effective: f64, live_p99: f64) -> f64 {
        self.live.unwrap_or((effective / 10.0).min(1.0)).max(LIVE_MARGIN * live_p99)
    }

    /// U_max: the highest utilisation at which an outage of τ is worked off within T (F5).
    #[must_use]
    pub fn highest_utilisation(&self) -> f64 {
        let (drain, outage) = (self.drain.as_secs_f64(), self.outage.as_secs_f64());
        let bound = if drain + outage > 0.0 { drain / (drain + outage) } else { 1.0 };
        bound.min(HIGHEST_UTILISATION)
    }
}

/// The model at a moment: terms, work, reserve, and what the tokens carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// How long answers last.
    pub terms: Terms,
    /// What is signed.
    pub work: Work,
    /// What is kept in hand.
    pub reserve: Reserve,
    /// C_eff, signatures a second.
    pub effective: f64,
    /// C_bg: C_eff without the live reserve.
    pub background: f64,
}

impl Model {
    /// The model for tokens that sustain `rates` signatures a second each.
    #[must_use]
    pub fn new(terms: Terms, work: Work, reserve: Reserve, rates: &[f64], live_p99: f64) -> Self {
        let effective = reserve.effective(rates);
        let background = (effective - reserve.live(effective, live_p99)).max(0.0);
        Self { terms, work, reserve, effective, background }
    }

    /// s: signatures for one certificate and refresh with `pack` certificates under one signature.
    #[must_use]
    pub fn signatures(&self, pack: u64) -> f64 {
        self.work.per_refresh / pack.max(1) as f64
    }

    /// λ: signatures a second that a fleet asks for.
    #[must_use]
    pub fn demand(&self, fleet: f64, pack: u64) -> f64 {
        self.signatures(pack) * fleet / self.terms.mean_refresh()
    }

    /// U: demand over capacity (F3); infinite when there is no capacity.
    #[must_use]
    pub fn utilisation(&self, fleet: f64, pack: u64) -> f64 {
        let demand = self.demand(fleet, pack);
        if demand > 0.0 { demand / self.background } else { 0.0 }
    }

    /// N_max: the largest fleet (F5).
    #[must_use]
    pub fn largest_fleet(&self, pack: u64) -> f64 {
        let carried = self.reserve.highest_utilisation() * self.background;
        carried * self.terms.mean_refresh() / self.signatures(pack)
    }

    /// The sustained rate, counted whole, at which `fleet` is N_max: what one token must do, or several
    /// without the fastest.
    #[must_use]
    pub fn rate_needed(&self, fleet: f64, pack: u64, live_p99: f64) -> f64 {
        let background = self.demand(fleet, pack) / self.reserve.highest_utilisation();
        // Without a set floor the reserve is a tenth of C_eff and at most 1.
        let tenth = background / 0.9;
        let live = self.reserve.live(tenth, live_p99);
        (background + live) / self.reserve.headroom
    }

    /// The signatures that an outage of τ leaves to catch up (F5).
    #[must_use]
    pub fn backlog(&self, fleet: f64, pack: u64) -> f64 {
        self.demand(fleet, pack) * self.reserve.outage.as_secs_f64()
    }

    /// How long it takes to work off `signatures` beside the demand of the fleet; never, when there is no
    /// spare rate.
    #[must_use]
    pub fn drain(&self, signatures: f64, fleet: f64, pack: u64) -> Option<Duration> {
        let spare = self.background - self.demand(fleet, pack);
        let seconds = if signatures > 0.0 { signatures / spare } else { 0.0 };
        (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    /// How many certificates due at one instant are refreshed before they are stale (F6).
    #[must_use]
    pub fn cohort_that_fits(&self, fleet: f64, pack: u64) -> f64 {
        let spare = (self.background - self.demand(fleet, pack)).max(0.0);
        self.terms.slack().as_secs_f64() * spare / self.signatures(pack)
    }

    /// K: the signatures owed for one certificate of L days (F7).
    #[must_use]
    pub fn debt(&self, days: u32, pack: u64) -> f64 {
        let refreshes = (f64::from(days) * DAY / self.terms.mean_refresh()).ceil();
        self.signatures(pack) * refreshes + self.work.per_issuance
    }

    /// How many certificates can be revoked and issued anew within `span` (F11). Neither a first answer
    /// nor a revocation is packed.
    #[must_use]
    pub fn mass_revocation(&self, span: Duration) -> f64 {
        self.effective * span.as_secs_f64() / (2.0 * self.work.per_refresh + self.work.per_issuance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// The worked example of the specification.
    pub(crate) fn example() -> Model {
        let terms = Terms { validity: 168 * HOUR, refresh: 72 * HOUR, deadline: 96 * HOUR, spread: 0.0 };
        let work = Work { per_refresh: 4.0, per_issuance: 0.0 };
        let reserve = Reserve { headroom: 0.8, live: Some(1.0), outage: 24 * HOUR, drain: 48 * HOUR };
        Model::new(terms, work, reserve, &[13.7, 13.7], 0.0)
    }

    fn close(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found} is not {expected}");
    }

    #[test]
    fn the_worked_example_gives_its_golden_values() {
        let model = example();
        close(model.effective, 10.96, 1e-9);
        close(model.background, 9.96, 1e-9);
        close(model.demand(350_000.0, 1), 5.401, 0.0005);
        close(model.utilisation(350_000.0, 1), 0.542, 0.0005);
        close(model.reserve.highest_utilisation(), 0.6667, 0.00005);
        close(model.largest_fleet(1), 430_272.0, 0.5);
        let backlog = model.backlog(350_000.0, 1);
        close(backlog, 466_667.0, 0.5);
        let drain = model.drain(backlog, 350_000.0, 1).unwrap();
        close(drain.as_secs_f64() / 3_600.0, 28.4, 0.05);
        close(model.debt(90, 1), 120.0, 1e-9);
        assert_eq!(model.terms.slack(), 24 * HOUR);
        assert_eq!(model.terms.hard_slack(), 96 * HOUR);
    }

    #[test]
    fn the_hash_pair_under_one_signature_and_a_pack_of_four_carry_the_golden_fleets() {
        let paired = Model { work: Work { per_refresh: 2.0, per_issuance: 0.0 }, ..example() };
        close(paired.largest_fleet(1), 860_544.0, 0.5);
        close(paired.signatures(4), 0.5, 1e-12);
        close(paired.largest_fleet(4), 3_442_176.0, 2.0);
    }

    #[test]
    fn one_token_counts_whole_and_of_several_the_fastest_may_be_lost() {
        let reserve = example().reserve;
        close(reserve.effective(&[]), 0.0, 0.0);
        close(reserve.effective(&[10.0]), 8.0, 1e-9);
        close(reserve.effective(&[10.0, 30.0]), 8.0, 1e-9);
        close(reserve.effective(&[10.0, 20.0, 30.0]), 24.0, 1e-9);
    }

    #[test]
    fn the_live_reserve_follows_measured_demand_above_its_floor() {
        let reserve = example().reserve;
        close(reserve.live(10.96, 0.5), 1.0, 1e-9);
        close(reserve.live(10.96, 2.0), 2.4, 1e-9);
        let unset = Reserve { live: None, ..reserve };
        close(unset.live(4.0, 0.0), 0.4, 1e-9);
        close(unset.live(400.0, 0.0), 1.0, 1e-9);
    }

    #[test]
    fn the_rate_needed_for_the_largest_fleet_is_the_rate_there_is() {
        for live in [Some(1.0), None] {
            for rate in [0.5, 13.7, 5_000.0] {
                let reserve = Reserve { live, ..example().reserve };
                let model = Model::new(example().terms, example().work, reserve, &[rate], 0.0);
                if model.background > 0.0 {
                    close(model.rate_needed(model.largest_fleet(3), 3, 0.0), rate, rate * 1e-9);
                }
            }
        }
    }

    #[test]
    fn a_spread_refresh_asks_for_more_than_one_at_the_end_of_the_interval() {
        let spread = Terms { spread: 0.25, ..example().terms };
        let ratio = 72.0 * 3_600.0 / spread.mean_refresh();
        close(ratio, 4.0 * (4.0f64 / 3.0).ln(), 1e-12);
        // The same as adding it up over certificates.
        let steps = 10_000;
        let each = |at: i32| 1.0 / (0.75 + 0.25 * (f64::from(at) + 0.5) / f64::from(steps));
        close(ratio, (0..steps).map(each).sum::<f64>() / f64::from(steps), 1e-6);
    }

    #[test]
    fn a_cohort_fits_when_the_spare_rate_signs_it_within_the_slack() {
        let model = example();
        let fits = model.cohort_that_fits(350_000.0, 1);
        close(fits * 4.0, 86_400.0 * (9.96 - 1_400_000.0 / 259_200.0), 1e-3);
        close(model.cohort_that_fits(900_000.0, 1), 0.0, 0.0);
    }

    #[test]
    fn what_has_no_spare_rate_is_never_worked_off() {
        let model = example();
        assert_eq!(model.drain(1.0, 700_000.0, 1), None);
        assert_eq!(model.drain(0.0, 700_000.0, 1), Some(Duration::ZERO));
        let dead = Model::new(model.terms, model.work, model.reserve, &[0.0], 0.0);
        assert_eq!(dead.drain(1.0, 1.0, 1), None);
        assert_eq!(dead.utilisation(1.0, 1), f64::INFINITY);
        assert_eq!((dead.utilisation(0.0, 1), dead.largest_fleet(1)), (0.0, 0.0));
    }

    #[test]
    fn a_mass_revocation_takes_two_signatures_a_certificate_and_what_issuance_costs() {
        let model = Model { work: Work { per_refresh: 2.0, per_issuance: 1.0 }, ..example() };
        close(model.mass_revocation(24 * HOUR), 10.96 * 86_400.0 / 5.0, 1e-6);
    }
}
