//! How many new certificates a day the HSMs can take on: F8.

use super::fleet::Fleet;

/// What the coming days bring.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// N(h) without new certificates, for h = 0 to the horizon.
    pub base: Vec<f64>,
    /// A(h): what one new certificate a day adds.
    pub growth: Vec<f64>,
    /// How many of the days bound a steady rate: L, the longest life.
    steady: usize,
    /// The highest fleet that can come after the horizon.
    tail: f64,
    /// The most certificates that descend from one and are unexpired at the same time.
    overlap: f64,
}

/// The rate of new certificates that fits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// i*: new certificates a day.
    pub a_day: f64,
    /// The day ahead that bounds it.
    pub tightest: u32,
}

impl Forecast {
    /// Looks ahead far enough that nothing after it can be higher than what is seen.
    ///
    /// A steady rate of new certificates is held against the first L days. Where all live alike, that is
    /// enough: after L days every certificate has been followed, so N(h + a) = p·N(h) ≤ N(h). Where lives
    /// differ, waves of renewals of different length can meet later; so the look goes on to twice the
    /// longest life, and what follows is bounded by the sum of each kind's highest wave.
    #[must_use]
    pub fn of(fleet: &Fleet) -> Self {
        let steady = fleet.longest();
        let horizon = 2 * steady + 1;
        let (ahead, grown) = (fleet.ahead(horizon), fleet.growth(horizon));
        let at = |lines: &[Vec<f64>], day: usize| lines.iter().map(|line| line[day]).sum::<f64>();
        let days = 0..=horizon as usize;
        let highest = |line: &[f64]| line.iter().copied().fold(0.0, f64::max);
        let tail = fleet.lives().iter().zip(&ahead).map(|(life, line)| {
            let window = line.len().saturating_sub(life.renewal_age as usize);
            life.renewal_share * highest(&line[window..])
        });
        let overlap =
            grown.iter().map(|line| line.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max));
        Self {
            base: days.clone().map(|day| at(&ahead, day)).collect(),
            growth: days.map(|day| at(&grown, day)).collect(),
            steady: steady as usize,
            tail: tail.sum(),
            overlap: overlap.sum::<f64>().max(1.0),
        }
    }

    /// N(h) with `new_a_day` new certificates a day.
    #[must_use]
    pub fn fleet(&self, day: usize, new_a_day: f64) -> f64 {
        let day = day.min(self.base.len().saturating_sub(1));
        self.base.get(day).map_or(0.0, |base| base + new_a_day * self.growth[day])
    }

    /// The highest fleet within L days, and when.
    #[must_use]
    pub fn peak(&self, new_a_day: f64) -> (f64, u32) {
        (0..=self.steady as u32)
            .map(|day| (self.fleet(day as usize, new_a_day), day))
            .fold((0.0, 0), |best, each| if each.0 > best.0 { each } else { best })
    }

    /// The first day on which the fleet is above `largest`, within L days.
    #[must_use]
    pub fn first_above(&self, largest: f64, new_a_day: f64) -> Option<u32> {
        (0..=self.steady as u32).find(|day| self.fleet(*day as usize, new_a_day) > largest)
    }

    /// i*: the new certificates a day that can be kept up for L days with the fleet never above `largest`,
    /// and what is admitted within a day never above it later either.
    #[must_use]
    pub fn budget(&self, largest: f64) -> Budget {
        let steady = (1..=self.steady).map(|day| ((largest - self.base[day]) / self.growth[day], day));
        let later =
            (self.steady + 1..self.base.len()).map(|day| ((largest - self.base[day]) / self.overlap, day));
        let after = std::iter::once(((largest - self.tail) / self.overlap, self.base.len()));
        let (a_day, day) = steady
            .chain(later)
            .chain(after)
            .fold((f64::INFINITY, 0), |least, each| if each.0 < least.0 { each } else { least });
        Budget { a_day: a_day.max(0.0), tightest: day as u32 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capacity::fleet::Life;

    const LARGEST: f64 = 430_272.0;

    fn ninety() -> Fleet {
        let mut fleet =
            Fleet::new(&[Life { days: 90, renewal_age: 60, renewal_share: 0.9, renews_as: 0 }], 0);
        fleet.add_evenly(0, 350_000.0);
        fleet
    }

    #[test]
    fn the_worked_example_takes_1075_new_certificates_a_day() {
        let forecast = Forecast::of(&ninety());
        let budget = forecast.budget(LARGEST);
        assert_eq!((budget.a_day.round(), budget.tightest), (1_075.0, 90));
        assert!((budget.a_day / 2_500.0 - 0.43).abs() < 0.0005, "m at 2,500 offered");
        assert_eq!(forecast.first_above(LARGEST, 0.0), None);
        assert_eq!(forecast.first_above(LARGEST, 1_000.0), None);
        assert_eq!(forecast.first_above(LARGEST, 1_700.0), Some(61));
        assert_eq!(forecast.first_above(LARGEST, 2_500.0), Some(39));
    }

    #[test]
    fn a_horizon_short_of_the_lifetime_would_allow_1_6_times_too_much() {
        let forecast = Forecast::of(&ninety());
        let sixty = (1..=60).map(|day| (LARGEST - forecast.base[day]) / forecast.growth[day]);
        let ratio = sixty.fold(f64::INFINITY, f64::min) / forecast.budget(LARGEST).a_day;
        assert!((ratio - 1.6).abs() < 0.05, "{ratio}");
    }

    #[test]
    fn a_fleet_that_is_too_large_already_leaves_no_room() {
        assert_eq!(Forecast::of(&ninety()).budget(300_000.0).a_day, 0.0);
    }

    /// One to three kinds of certificates, renewed as any of them.
    fn lives() -> impl Strategy<Value = (Vec<Life>, usize)> {
        let life =
            (4u32..=60, 0.3f64..=1.0, 0.0f64..=1.0, 0usize..3).prop_map(|(days, age, share, renews_as)| {
                let renewal_age = ((f64::from(days) * age) as u32).max(2);
                Life { days, renewal_age, renewal_share: share, renews_as }
            });
        (prop::collection::vec(life, 1..=3), 0usize..3)
    }

    /// A fleet whose certificates end in lumps.
    fn lumpy() -> impl Strategy<Value = Fleet> {
        (lives(), prop::collection::vec((0usize..3, 0.0f64..1.0, 0.0f64..100_000.0), 0..12)).prop_map(
            |((lives, newest), lumps)| {
                let mut fleet = Fleet::new(&lives, newest);
                for (life, place, certificates) in lumps {
                    let life = life % lives.len();
                    let day = 1 + (place * f64::from(lives[life].days)) as u32;
                    fleet.add(life, day.min(lives[life].days), certificates);
                }
                fleet
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn what_the_budget_admits_day_by_day_never_makes_the_fleet_too_large(
            fleet in lumpy(),
            room in 1.0f64..3.0,
        ) {
            let mut fleet = fleet;
            let forecast = Forecast::of(&fleet);
            let highest = forecast.base.iter().copied().fold(forecast.tail, f64::max);
            let largest = highest * room + 1.0;
            let mut admitted = 0.0;
            for day in 0..200 {
                let forecast = Forecast::of(&fleet);
                let peak = forecast.base.iter().copied().fold(0.0, f64::max);
                prop_assert!(peak <= largest * (1.0 + 1e-9), "day {}: {} over {}", day, peak, largest);
                let budget = forecast.budget(largest).a_day;
                fleet.next_day();
                fleet.issue(budget);
                admitted += budget;
            }
            prop_assert!(admitted > 0.0);
        }

        #[test]
        fn a_larger_fleet_leaves_less_room_and_a_larger_limit_leaves_more(
            fleet in lumpy(),
            more in 0.0f64..50_000.0,
            largest in 0.0f64..1_000_000.0,
        ) {
            let budget = Forecast::of(&fleet).budget(largest).a_day;
            prop_assert!(Forecast::of(&fleet).budget(largest + more).a_day >= budget);
            let mut larger = fleet.clone();
            larger.add(0, larger.lives()[0].days, more);
            prop_assert!(Forecast::of(&larger).budget(largest).a_day <= budget);
        }
    }
}
