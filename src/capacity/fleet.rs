//! The fleet by day of expiry, and how it goes on: F1 of the model.
//!
//! A certificate is in the cohort of its life (how long such certificates last, when they are renewed)
//! and of the day it ends, counted from today: day 1 ends within the next 24 hours. One that has come
//! within L − a days of its end without a successor on record is taken to have been renewed already:
//! its successor is in the histogram.

use std::collections::VecDeque;

/// How certificates of one kind live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// L: days from issuance to expiry.
    pub days: u32,
    /// a: days from issuance to the usual renewal, from 1 to L.
    pub renewal_age: u32,
    /// p: the share that is renewed.
    pub renewal_share: f64,
    /// The kind that the successor is of: a place in the list of lives.
    pub renews_as: usize,
}

/// The unexpired certificates, revoked ones included, and the kinds that new ones are of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    lives: Vec<Life>,
    /// The share of new certificates that is of each life.
    issued_as: Vec<f64>,
    /// By life: certificates by day of expiry, the first ends within 24 hours.
    expiring: Vec<VecDeque<f64>>,
}

/// What a day brings to the fleet by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DayTurn {
    /// Certificates that ended.
    pub expired: f64,
    /// Certificates that renew others, which are in the fleet now.
    pub renewed: f64,
}

impl Fleet {
    /// An empty fleet. `lives` are the kinds of certificates; new ones are of kind `newest`. One more kind is
    /// added for revoked certificates, which are signed for until they end but never renewed.
    ///
    /// A `renewal_age` is kept within 1 and L, a share within 0 and 1, and a place beyond the list
    /// stands for its last one.
    #[must_use]
    pub fn new(lives: &[Life], newest: usize) -> Self {
        let last = lives.len().saturating_sub(1);
        let kept = |life: &Life| Life {
            days: life.days.max(1),
            renewal_age: life.renewal_age.clamp(1, life.days.max(1)),
            renewal_share: life.renewal_share.clamp(0.0, 1.0),
            renews_as: life.renews_as.min(last),
        };
        let mut lives: Vec<Life> = lives.iter().map(kept).collect();
        let days = lives.iter().map(|life| life.days).max().unwrap_or(1);
        lives.push(Life { days, renewal_age: days, renewal_share: 0.0, renews_as: lives.len() });
        let issued_as = (0..lives.len()).map(|at| f64::from(u8::from(at == newest.min(last)))).collect();
        let expiring = lives.iter().map(|_| VecDeque::new()).collect();
        Self { lives, issued_as, expiring }
    }

    /// The kinds of certificates; the last is that of the revoked ones.
    #[must_use]
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// Adds certificates of a kind that end within the `day`-th 24 hours from now, counted from 1.
    pub fn add(&mut self, life: usize, day: u32, certificates: f64) {
        let Some(cohorts) = self.expiring.get_mut(life) else { return };
        let at = day.max(1) as usize - 1;
        if cohorts.len() <= at {
            cohorts.resize(at + 1, 0.0);
        }
        cohorts[at] += certificates;
    }

    /// Adds certificates of a kind that end evenly over its whole life.
    pub fn add_evenly(&mut self, life: usize, certificates: f64) {
        let Some(days) = self.lives.get(life).map(|life| life.days) else { return };
        (1..=days).for_each(|day| self.add(life, day, certificates / f64::from(days)));
    }

    /// The kind of revoked certificates.
    #[must_use]
    pub fn revoked(&self) -> usize {
        self.lives.len() - 1
    }

    /// Revokes a share of what is not revoked, of every age alike.
    pub fn revoke(&mut self, share: f64) {
        let revoked = self.revoked();
        for at in 0..revoked {
            for day in 0..self.expiring[at].len() {
                let certificates = self.expiring[at][day] * share.clamp(0.0, 1.0);
                self.expiring[at][day] -= certificates;
                self.add(revoked, day as u32 + 1, certificates);
            }
        }
    }

    /// Issues certificates now, of the kinds that new ones are of.
    pub fn issue(&mut self, certificates: f64) {
        for at in 0..self.lives.len() {
            let share = self.issued_as[at];
            if share > 0.0 {
                self.add(at, self.lives[at].days, certificates * share);
            }
        }
    }

    /// Makes a kind the one that new certificates and renewals of every kind are of.
    pub fn switch_to(&mut self, life: usize) {
        if life < self.revoked() {
            self.lives.iter_mut().for_each(|each| each.renews_as = life);
            self.issued_as
                .iter_mut()
                .enumerate()
                .for_each(|(at, share)| *share = f64::from(u8::from(at == life)));
        }
    }

    /// N(0): the unexpired certificates.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.expiring.iter().flatten().sum()
    }

    /// Those that end within 24 hours.
    #[must_use]
    pub fn ending(&self) -> f64 {
        self.expiring.iter().filter_map(VecDeque::front).sum()
    }

    /// The longest life, in days.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.lives.iter().map(|life| life.days).max().unwrap_or(1)
    }

    /// Lets a day pass: the first cohort ends, and who renews today has renewed.
    pub fn next_day(&mut self) -> DayTurn {
        self.turn().into_iter().fold(DayTurn::default(), |sum, each| DayTurn {
            expired: sum.expired + each.expired,
            renewed: sum.renewed + each.renewed,
        })
    }

    /// A day by life: what ended, and what of it was renewed (as the life's successor).
    fn turn(&mut self) -> Vec<DayTurn> {
        let turns: Vec<DayTurn> = self
            .lives
            .iter()
            .zip(&mut self.expiring)
            .map(|(life, cohorts)| {
                let expired = cohorts.pop_front().unwrap_or(0.0);
                // With L − a days left; what is renewed at its very end, on its last day.
                let left = (life.days - life.renewal_age).max(1) as usize;
                let renewed = life.renewal_share * cohorts.get(left - 1).copied().unwrap_or(0.0);
                DayTurn { expired, renewed }
            })
            .collect();
        for (at, turn) in turns.iter().enumerate() {
            let successor = self.lives[at].renews_as;
            self.add(successor, self.lives[successor].days, turn.renewed);
        }
        turns
    }

    /// F1 without new certificates: the fleet by life for 0 to `days` days ahead.
    #[must_use]
    pub fn ahead(&self, days: u32) -> Vec<Vec<f64>> {
        self.run(&self.expiring, days, 0.0)
    }

    /// A(h): the fleet by life that one new certificate a day from tomorrow on adds.
    #[must_use]
    pub fn growth(&self, days: u32) -> Vec<Vec<f64>> {
        self.run(&vec![VecDeque::new(); self.lives.len()], days, 1.0)
    }

    /// As [`Fleet::next_day`] day after day, without moving the cohorts: the guard runs this often.
    fn run(&self, expiring: &[VecDeque<f64>], days: u32, new_a_day: f64) -> Vec<Vec<f64>> {
        let days = days as usize;
        // By life: certificates by the day they end, counted from today.
        let mut ending: Vec<Vec<f64>> = self
            .lives
            .iter()
            .zip(expiring)
            .map(|(life, cohorts)| {
                let mut line = vec![0.0; (days + life.days as usize).max(cohorts.len()) + 1];
                line[1..=cohorts.len()].iter_mut().zip(cohorts).for_each(|(day, count)| *day = *count);
                line
            })
            .collect();
        let mut totals: Vec<f64> = expiring.iter().map(|cohorts| cohorts.iter().sum()).collect();
        let mut series: Vec<Vec<f64>> = totals
            .iter()
            .map(|total| {
                let mut line = Vec::with_capacity(days + 1);
                line.push(*total);
                line
            })
            .collect();
        let mut renewed = vec![0.0; self.lives.len()];
        for day in 1..=days {
            renewed.fill(0.0);
            for (at, life) in self.lives.iter().enumerate() {
                totals[at] -= ending[at][day];
                let left = (life.days - life.renewal_age).max(1) as usize;
                renewed[life.renews_as] += life.renewal_share * ending[at][day + left];
            }
            for (at, life) in self.lives.iter().enumerate() {
                let issued = renewed[at] + new_a_day * self.issued_as[at];
                ending[at][day + life.days as usize] += issued;
                totals[at] += issued;
                // Sums and differences of floating point may miss zero by a hair.
                series[at].push(totals[at].max(0.0));
            }
        }
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ninety() -> Fleet {
        let mut fleet =
            Fleet::new(&[Life { days: 90, renewal_age: 60, renewal_share: 0.9, renews_as: 0 }], 0);
        fleet.add_evenly(0, 350_000.0);
        fleet
    }

    #[test]
    fn the_worked_example_goes_on_as_the_table_says() {
        let (base, growth) = (&ninety().ahead(90)[0], &ninety().growth(90)[0]);
        for (new, at) in [
            (0.0, [338_333.0, 326_667.0, 304_500.0]),
            (1_000.0, [368_333.0, 386_667.0, 421_500.0]),
            (1_700.0, [389_333.0, 428_667.0, 503_400.0]),
            (2_500.0, [413_333.0, 476_667.0, 597_000.0]),
        ] {
            for (day, expected) in [30, 60, 90].into_iter().zip(at) {
                let fleet: f64 = base[day] + new * growth[day];
                assert!((fleet - expected).abs() < 0.5, "{new} a day, day {day}: {fleet}");
            }
        }
        assert_eq!(growth[60], 60.0);
        assert!((growth[90] - (90.0 + 0.9 * 30.0)).abs() < 1e-9);
    }

    #[test]
    fn a_day_that_passes_is_the_first_day_of_the_forecast() {
        let mut fleet = ninety();
        let ahead = fleet.ahead(200);
        for (day, expected) in ahead[0].iter().enumerate().skip(1) {
            let turn = fleet.next_day();
            assert!((fleet.total() - expected).abs() < 1e-6, "day {day}");
            assert!(day > 30 || (turn.renewed - 3_500.0).abs() < 1e-6);
        }
    }

    #[test]
    fn renewals_follow_a_change_of_lifetime() {
        let lives = [
            Life { days: 90, renewal_age: 60, renewal_share: 1.0, renews_as: 0 },
            Life { days: 6, renewal_age: 4, renewal_share: 1.0, renews_as: 1 },
        ];
        let mut fleet = Fleet::new(&lives, 0);
        fleet.add_evenly(0, 90_000.0);
        fleet.switch_to(1);
        let ahead = fleet.ahead(91);
        assert_eq!(ahead[0][90], 0.0, "the long-lived have ended");
        // Each of the 60,000 that still renew is followed by one that lasts 6 days and overlaps the
        // next by 2: 60,000 × 6 / 4.
        assert!((ahead[1][91] - 90_000.0).abs() < 1e-6, "{}", ahead[1][91]);
        // Of one new a day: 6 still of the first generation, 6 of the second, 4 of the third.
        assert!((fleet.growth(12)[1][12] - 16.0).abs() < 1e-9);
    }

    #[test]
    fn a_revoked_certificate_is_signed_for_until_it_ends_and_never_renewed() {
        let mut fleet = ninety();
        fleet.revoke(0.5);
        assert!((fleet.total() - 350_000.0).abs() < 1e-6);
        let ahead = fleet.ahead(90);
        assert!((ahead[0][90] - 304_500.0 / 2.0).abs() < 0.5);
        assert!((ahead[1][30] - 350_000.0 / 3.0).abs() < 0.5);
        assert!(ahead[1][90] < 1e-6);
        fleet.revoke(0.0);
        fleet.switch_to(fleet.revoked());
        assert_eq!(fleet.lives()[0].renews_as, 0, "nothing becomes revoked by renewal");
    }

    #[test]
    fn odd_input_is_kept_within_bounds() {
        let fleet = Fleet::new(&[Life { days: 0, renewal_age: 9, renewal_share: 7.0, renews_as: 5 }], 3);
        assert_eq!(fleet.lives()[0], Life { days: 1, renewal_age: 1, renewal_share: 1.0, renews_as: 0 });
        assert_eq!(Fleet::new(&[], 0).ahead(3), [[0.0; 4]]);
        let mut fleet = fleet;
        fleet.add(9, 1, 5.0);
        fleet.add(0, 0, 5.0);
        assert_eq!((fleet.total(), fleet.ending(), fleet.longest()), (5.0, 5.0, 1));
    }
}
