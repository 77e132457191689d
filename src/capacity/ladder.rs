//! The levers that come before the throttle: slack, then packs; and the spare rate for spreading.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::model::{Model, Terms};

/// The part of the slack that a stretched refresh may use. What is left is for the throttle to act in.
const LENT: f64 = 0.4;
/// Packs are made smaller only when the fleet would fit so with this much to spare.
const UNPACK: f64 = 0.9;

impl Terms {
    /// Less time than this before the first stale answer throttles new issuance: half the slack.
    #[must_use]
    pub fn amber(&self) -> Duration {
        self.slack() / 2
    }

    /// Less time than this stops it: an eighth of the slack.
    #[must_use]
    pub fn red(&self) -> Duration {
        self.slack() / 8
    }

    /// The longest refresh interval that slack may be lent to. Always before D.
    #[must_use]
    pub fn longest_refresh(&self) -> Duration {
        self.refresh + self.slack().mul_f64(LENT)
    }
}

/// What the engine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Levers {
    /// The refresh interval to plan with: R, or more while slack is lent.
    pub refresh: Duration,
    /// Certificates under one signature.
    pub pack: u64,
    /// Since when slack is lent, in Unix seconds.
    lent_since: Option<i64>,
}

/// How things stand when the levers are set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Now, in Unix seconds.
    pub now: i64,
    /// N(0).
    pub fleet: f64,
    /// The highest N(h) until packs made now are in effect everywhere.
    pub ahead: f64,
    /// What the tokens that serve now can be counted on for, in signatures a second.
    pub serving: f64,
    /// The largest pack allowed.
    pub pack_max: u64,
}

impl Levers {
    /// None in use.
    #[must_use]
    pub fn none(terms: &Terms) -> Self {
        Self { refresh: terms.refresh, pack: 1, lent_since: None }
    }

    /// Sets the levers anew.
    ///
    /// Slack is lent as soon as the fleet asks for more than U_max of the capacity, or than the tokens
    /// that are there give. Packs follow when slack is not enough, or was lent for longer than a backlog
    /// may take to be worked off: it is lent, not given.
    #[must_use]
    pub fn set(&self, model: &Model, standing: &Standing) -> Self {
        let most = standing.pack_max.max(1);
        let carried = model.reserve.highest_utilisation() * model.background;
        let longest = model.terms.longest_refresh();
        let refresh = model.terms.refresh;
        let stretch = |pack: u64, allowed: f64| {
            let ratio = model.demand(standing.fleet, pack) / allowed;
            // Nothing asked of nothing is no need.
            if ratio.is_nan() { 1.0 } else { ratio.max(1.0) }
        };
        let least_pack = |fleet: f64| {
            let fits = fleet / model.largest_fleet(1);
            if fits.is_nan() { 1 } else { (fits.ceil().clamp(1.0, most as f64)) as u64 }
        };
        let mut pack = self.pack.clamp(1, most);
        let overdrawn = refresh.mul_f64(stretch(pack, carried).min(1e6)) > longest;
        let long_lent = self.lent_since.is_some_and(|since| {
            standing.now.saturating_sub(since) > model.reserve.drain.as_secs().cast_signed()
        });
        let wanted = least_pack(standing.ahead.max(standing.fleet));
        if overdrawn || long_lent {
            pack = pack.max(wanted);
        } else {
            pack = pack.min(least_pack(standing.ahead.max(standing.fleet) / UNPACK));
        }
        let needed = refresh.mul_f64(stretch(pack, carried.min(standing.serving)).min(1e6)).min(longest);
        let lent = needed > refresh;
        Self {
            refresh: needed.max(refresh),
            pack,
            lent_since: if lent { self.lent_since.or(Some(standing.now)) } else { None },
        }
    }

    /// Whether slack is lent.
    #[must_use]
    pub fn slack(&self) -> bool {
        self.lent_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::model::{Reserve, Work};

    const HOUR: Duration = Duration::from_secs(3_600);

    /// One signature a refresh, 9.96 a second: 1,720,000 certificates fit unpacked.
    fn model() -> Model {
        let terms = Terms { validity: 168 * HOUR, refresh: 72 * HOUR, deadline: 96 * HOUR, spread: 0.0 };
        let work = Work { per_refresh: 1.0, per_issuance: 0.0 };
        let reserve = Reserve { headroom: 0.8, live: Some(1.0), outage: 24 * HOUR, drain: 48 * HOUR };
        Model::new(terms, work, reserve, &[13.7, 13.7], 0.0)
    }

    fn standing(fleet: f64, pack_max: u64) -> Standing {
        Standing { now: 0, fleet, ahead: fleet, serving: 21.0, pack_max }
    }

    #[test]
    fn below_the_limit_no_lever_is_used() {
        let model = model();
        let levers = Levers::none(&model.terms).set(&model, &standing(1_700_000.0, 8));
        assert_eq!(levers, Levers::none(&model.terms));
    }

    #[test]
    fn slack_comes_before_packs_and_is_given_back() {
        let model = model();
        let largest = model.largest_fleet(1);
        let levers = Levers::none(&model.terms).set(&model, &standing(largest * 1.1, 8));
        assert_eq!((levers.pack, levers.slack()), (1, true));
        assert!((levers.refresh.as_secs_f64() / 3_600.0 - 72.0 * 1.1).abs() < 1e-6);
        let back = levers.set(&model, &standing(largest * 0.99, 8));
        assert_eq!(back, Levers::none(&model.terms));
    }

    #[test]
    fn slack_is_never_lent_past_its_share_of_the_way_to_the_deadline() {
        let model = model();
        for times in [1.2, 2.0, 1e9, f64::INFINITY] {
            let levers = Levers::none(&model.terms).set(&model, &standing(model.largest_fleet(1) * times, 1));
            assert_eq!(levers.refresh, model.terms.longest_refresh());
            assert!(levers.refresh < model.terms.deadline - model.terms.amber());
        }
        let dead = Model::new(model.terms, model.work, model.reserve, &[], 0.0);
        assert_eq!(
            Levers::none(&dead.terms).set(&dead, &standing(5.0, 4)).refresh,
            dead.terms.longest_refresh()
        );
        assert_eq!(Levers::none(&dead.terms).set(&dead, &standing(0.0, 4)), Levers::none(&dead.terms));
    }

    #[test]
    fn an_outage_lends_slack_at_once_but_packs_nothing() {
        let model = model();
        let away = Standing { serving: 0.0, ..standing(1_000_000.0, 8) };
        let levers = Levers::none(&model.terms).set(&model, &away);
        assert_eq!((levers.pack, levers.refresh), (1, model.terms.longest_refresh()));
    }

    #[test]
    fn packs_follow_when_slack_is_not_enough_and_only_as_large_as_needed() {
        let model = model();
        let levers = Levers::none(&model.terms).set(&model, &standing(model.largest_fleet(1) * 2.5, 8));
        assert_eq!((levers.pack, levers.slack()), (3, false));
        let beyond = levers.set(&model, &standing(model.largest_fleet(1) * 9.0, 8));
        assert_eq!((beyond.pack, beyond.slack()), (8, true));
    }

    #[test]
    fn packs_follow_when_slack_was_lent_for_longer_than_a_backlog_may_take() {
        let model = model();
        let grown = model.largest_fleet(1) * 1.1;
        let lent = Levers::none(&model.terms).set(&model, &standing(grown, 8));
        let hour = 3_600;
        let still = lent.set(&model, &Standing { now: 48 * hour, ..standing(grown, 8) });
        assert_eq!((still.pack, still.slack()), (1, true));
        let packed = lent.set(&model, &Standing { now: 49 * hour, ..standing(grown, 8) });
        assert_eq!((packed.pack, packed.slack()), (2, false));
    }

    #[test]
    fn packs_are_undone_when_there_is_room_with_something_to_spare() {
        let model = model();
        let packed = Levers { pack: 2, ..Levers::none(&model.terms) };
        let largest = model.largest_fleet(1);
        assert_eq!(packed.set(&model, &standing(largest * 0.95, 8)).pack, 2);
        assert_eq!(packed.set(&model, &standing(largest * 0.89, 8)).pack, 1);
        assert_eq!(packed.set(&model, &standing(largest, 1)).pack, 1, "switched off by the operator");
    }
}
