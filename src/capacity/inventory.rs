//! The fleet as the store counts it, and how its certificates live: learned, not configured.

use std::collections::BTreeMap;

use super::fleet::{Fleet, Life};
use crate::clock::UnixTime;
use crate::store::{FleetDay, Shard};

const DAY: i64 = 86_400;
/// More kinds than this are put together with the kind next in length.
const KINDS: usize = 8;
/// Certificates issued within so many days are what new ones are like.
const RECENT: u32 = 7;

/// What is taken where the inventory does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumed {
    /// L: the lifetime of certificates whose notBefore is not known, in days.
    pub lifetime: u32,
    /// a: the age at which certificates of that lifetime are renewed, in days; others in proportion.
    pub renewal_age: u32,
    /// p: the share that is renewed.
    pub renewal_share: f64,
}

impl Default for Assumed {
    fn default() -> Self {
        Self { lifetime: 90, renewal_age: 60, renewal_share: 0.9 }
    }
}

impl Assumed {
    /// The age at which certificates of so many days are renewed.
    fn renewed_at(&self, days: u32) -> u32 {
        let part = f64::from(self.renewal_age) / f64::from(self.lifetime.max(1));
        ((f64::from(days) * part).round() as u32).clamp(1, days.max(1))
    }
}

/// The counts of every shard, each as of the time it was counted.
#[derive(Clone, Debug)]
pub struct Inventory {
    shards: Vec<Option<Vec<FleetDay>>>,
}

impl Default for Inventory {
    fn default() -> Self {
        Self { shards: vec![None; Shard::COUNT] }
    }
}

impl Inventory {
    /// Puts a shard's count in place of the one before.
    pub fn put(&mut self, shard: Shard, days: Vec<FleetDay>) {
        self.shards[usize::from(shard.0)] = Some(days);
    }

    /// Whether every shard was counted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.shards.iter().all(Option::is_some)
    }

    /// The fleet at `now`. Of more than were counted, the rest is taken to have been issued just now:
    /// `unexpired` is how many there are, where that is known.
    #[must_use]
    pub fn fleet(&self, now: UnixTime, unexpired: Option<u64>, assumed: &Assumed) -> Fleet {
        let today = now.0.div_euclid(DAY);
        // Certificates by lifetime, days left and whether revoked.
        let mut cohorts: BTreeMap<(u32, u32, bool), u64> = BTreeMap::new();
        for day in self.shards.iter().flatten().flatten().filter(|day| day.ends >= today) {
            // What ends today counts as ending within the first 24 hours.
            let left = u32::try_from(day.ends - today + 1).unwrap_or(u32::MAX).min(20_000);
            let lifetime =
                day.lifetime.map_or_else(|| assumed.lifetime.max(left), |days| days.clamp(1, 20_000));
            *cohorts.entry((lifetime, left, day.revoked)).or_default() += day.certificates;
        }
        let kinds = kinds(&cohorts, assumed);
        let kind_of =
            |lifetime: u32| kinds.iter().position(|kind| *kind >= lifetime).unwrap_or(kinds.len() - 1);
        // Issued within the last days, by kind; a short-lived one within less.
        let mut recent = vec![0u64; kinds.len()];
        for ((lifetime, left, _), certificates) in &cohorts {
            let kind = kind_of(*lifetime);
            if left + RECENT.min(lifetime / 2) > *lifetime {
                recent[kind] += certificates;
            }
        }
        let newest = (0..kinds.len()).rev().max_by_key(|kind| recent[*kind]).unwrap_or(0);
        let lives: Vec<Life> = kinds
            .iter()
            .enumerate()
            .map(|(at, days)| Life {
                days: *days,
                renewal_age: assumed.renewed_at(*days),
                renewal_share: assumed.renewal_share,
                // A kind that is no longer issued is followed by the one that is.
                renews_as: if recent[at] > 0 { at } else { newest },
            })
            .collect();
        let mut fleet = Fleet::new(&lives, newest);
        let mut counted = 0;
        for ((lifetime, left, revoked), certificates) in cohorts {
            let kind = if revoked { fleet.revoked() } else { kind_of(lifetime) };
            fleet.add(kind, left, certificates as f64);
            counted += certificates;
        }
        let more = unexpired.unwrap_or(0).saturating_sub(counted);
        fleet.issue(more as f64);
        fleet
    }
}

/// The lifetimes that the fleet is reckoned in, shortest first.
fn kinds(cohorts: &BTreeMap<(u32, u32, bool), u64>, assumed: &Assumed) -> Vec<u32> {
    let mut lifetimes: BTreeMap<u32, u64> = BTreeMap::new();
    for ((lifetime, _, _), certificates) in cohorts {
        *lifetimes.entry(*lifetime).or_default() += certificates;
    }
    let Some(longest) = lifetimes.keys().next_back().copied() else { return vec![assumed.lifetime.max(1)] };
    let mut kinds: Vec<(u32, u64)> = lifetimes.into_iter().collect();
    kinds.sort_by_key(|(_, certificates)| std::cmp::Reverse(*certificates));
    let mut kinds: Vec<u32> = kinds.into_iter().take(KINDS).map(|(days, _)| days).chain([longest]).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::IssuerId;

    const NOW: UnixTime = UnixTime(1_000 * DAY + 40_000);

    fn days(lifetime: Option<u32>, left: i64, revoked: bool, certificates: u64) -> FleetDay {
        FleetDay { issuer: IssuerId(1), lifetime, ends: 1_000 + left, revoked, certificates }
    }

    #[test]
    fn a_fleet_is_put_together_from_its_shards() {
        let mut inventory = Inventory::default();
        for shard in Shard::all() {
            assert!(!inventory.is_complete());
            inventory.put(shard, vec![days(Some(90), 88, false, 2), days(Some(90), 10, true, 1)]);
        }
        assert!(inventory.is_complete());
        inventory.put(Shard(7), vec![days(Some(90), -1, false, 50), days(Some(90), 0, false, 3)]);
        let fleet = inventory.fleet(NOW, None, &Assumed::default());
        assert_eq!(fleet.total(), 255.0 * 3.0 + 3.0, "what has ended is left out");
        assert_eq!(fleet.ending(), 3.0);
        assert_eq!(fleet.lives()[0], Life { days: 90, renewal_age: 60, renewal_share: 0.9, renews_as: 0 });
        assert_eq!(fleet.ahead(11)[fleet.revoked()][11], 0.0);
    }

    #[test]
    fn what_is_issued_now_is_what_old_kinds_are_renewed_as() {
        let mut inventory = Inventory::default();
        inventory.put(
            Shard(0),
            vec![days(Some(90), 30, false, 900), days(Some(45), 44, false, 5), days(Some(45), 20, false, 5)],
        );
        let fleet = inventory.fleet(NOW, None, &Assumed::default());
        assert_eq!(
            fleet.lives().iter().map(|life| (life.days, life.renews_as)).take(2).collect::<Vec<_>>(),
            [(45, 0), (90, 0)]
        );
        assert_eq!(fleet.growth(1)[0][1], 1.0, "new ones last 45 days");
    }

    #[test]
    fn renewal_is_expected_at_the_same_part_of_every_life() {
        let mut inventory = Inventory::default();
        inventory.put(
            Shard(0),
            vec![days(Some(90), 30, false, 5), days(Some(47), 44, false, 5), days(Some(1), 0, false, 5)],
        );
        let ages = |assumed: &Assumed| {
            let fleet = inventory.fleet(NOW, None, assumed);
            fleet.lives().iter().take(3).map(|life| (life.days, life.renewal_age)).collect::<Vec<_>>()
        };
        assert_eq!(ages(&Assumed::default()), [(1, 1), (47, 31), (90, 60)]);
        let early = Assumed { lifetime: 100, renewal_age: 50, renewal_share: 0.5 };
        assert_eq!(ages(&early), [(1, 1), (47, 24), (90, 45)]);
        assert_eq!(inventory.fleet(NOW, None, &early).lives()[0].renewal_share, 0.5);
    }

    #[test]
    fn certificates_beyond_the_count_were_issued_just_now() {
        let mut inventory = Inventory::default();
        inventory.put(Shard(0), vec![days(Some(90), 89, false, 10)]);
        let fleet = inventory.fleet(NOW, Some(25), &Assumed::default());
        assert_eq!((fleet.total(), fleet.ahead(59)[0][59]), (25.0, 25.0));
        assert_eq!(inventory.fleet(NOW, Some(3), &Assumed::default()).total(), 10.0);
        let empty = Inventory::default().fleet(NOW, Some(4), &Assumed::default());
        assert_eq!((empty.total(), empty.lives()[0].days), (4.0, 90));
    }

    #[test]
    fn many_lifetimes_become_a_few_that_are_no_shorter() {
        let mut inventory = Inventory::default();
        let many = (1..=300).map(|lifetime| days(Some(lifetime), 0, false, u64::from(lifetime % 7) + 1));
        inventory.put(Shard(0), many.chain([days(None, 600, false, 1)]).collect());
        let fleet = inventory.fleet(NOW, None, &Assumed::default());
        assert!(fleet.lives().len() <= KINDS + 2);
        assert_eq!(fleet.longest(), 601, "of unknown beginning, but it lasts for as long as it is to last");
    }
}
