//! Which signature goes first: four lanes, the earliest deadline first inside each.
//!
//! A lane goes before those after it, but every lane that waits has a share of its own: whoever was
//! passed over [`PATIENCE`] times in a row is next, so that nothing starves behind a flood before it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::clock::UnixTime;

/// A lane before the token, in the order in which they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The status changed: what is served now is wrong.
    Revocation,
    /// A certificate without any answer yet.
    First,
    /// A client waits for the answer.
    Live,
    /// An answer there is, and it is to be replaced in time.
    Refresh,
}

impl Lane {
    /// Every lane, in the order in which they are served.
    pub const ALL: [Self; 4] = [Self::Revocation, Self::First, Self::Live, Self::Refresh];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revocation => "revocation",
            Self::First => "first",
            Self::Live => "live",
            Self::Refresh => "refresh",
        }
    }

    /// Its place in [`Lane::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How urgent a signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The lane in which it waits.
    pub lane: Lane,
    /// When it is too late; the earliest one goes first in its lane.
    pub deadline: UnixTime,
    /// Whether somebody waits for it. One for which nobody does may wait for others once it is signed.
    pub awaited: bool,
}

impl Order {
    /// In this lane, by this moment. Somebody waits for it in every lane but that of refreshed answers.
    #[must_use]
    pub const fn new(lane: Lane, deadline: UnixTime) -> Self {
        Self { lane, deadline, awaited: !matches!(lane, Lane::Refresh) }
    }

    /// The same in a batch, where nobody waits for any.
    #[must_use]
    pub const fn unhurried(self) -> Self {
        Self { awaited: false, ..self }
    }

    /// Before all else in this lane.
    #[must_use]
    pub const fn at_once(lane: Lane) -> Self {
        Self::new(lane, UnixTime::EPOCH)
    }
}

/// How often in a row a lane that waits is passed over at the most, but for other lanes in the same
/// position: each has at least one signature in [`PATIENCE`] + 3.
pub(crate) const PATIENCE: u32 = 15;

/// What waits, by lane.
pub(crate) struct Lanes<T> {
    lanes: [Waiting<T>; Lane::ALL.len()],
    /// Tells apart what has the same deadline: first come, first served.
    next: u64,
}

struct Waiting<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    passed_over: u32,
}

struct Entry<T> {
    deadline: UnixTime,
    number: u64,
    /// Apart, because a heap moves its entries about.
    item: Box<T>,
}

impl<T> Entry<T> {
    fn rank(&self) -> (UnixTime, u64) {
        (self.deadline, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// Where an item stood, for one that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let lanes = std::array::from_fn(|_| Waiting { entries: BinaryHeap::new(), passed_over: 0 });
        Self { lanes, next: 0 }
    }
}

impl<T> Lanes<T> {
    /// Takes an item in; with the place it had before, it goes before those who came after it.
    pub(crate) fn push(&mut self, order: Order, place: Option<Place>, item: T) {
        let number = place.map_or(self.next, |place| place.0);
        self.next += u64::from(place.is_none());
        let entry = Entry { deadline: order.deadline, number, item: Box::new(item) };
        self.lanes[order.lane.index()].entries.push(Reverse(entry));
    }

    /// The item whose turn it is, and the place it had. Those that are `dead` are taken out on the way
    /// and given to `bury`; they cost their lane nothing.
    pub(crate) fn pop(
        &mut self,
        dead: impl Fn(&T) -> bool,
        mut bury: impl FnMut(Lane, T),
    ) -> Option<(Lane, Place, T)> {
        for lane in Lane::ALL {
            let entries = &mut self.lanes[lane.index()].entries;
            while entries.peek().is_some_and(|Reverse(entry)| dead(&entry.item)) {
                if let Some(Reverse(entry)) = entries.pop() {
                    bury(lane, *entry.item);
                }
            }
        }
        let waiting = || Lane::ALL.into_iter().filter(|lane| self.len(*lane) > 0);
        let first = waiting().next()?;
        let starved = waiting().filter(|lane| self.lanes[lane.index()].passed_over >= PATIENCE);
        // Of several the one passed over most often; of equals `max_by_key` takes the last one.
        let starved = starved.rev().max_by_key(|lane| self.lanes[lane.index()].passed_over);
        let turn = starved.unwrap_or(first);
        for lane in Lane::ALL {
            let each = &mut self.lanes[lane.index()];
            each.passed_over = if lane == turn || each.entries.is_empty() { 0 } else { each.passed_over + 1 };
        }
        let Reverse(entry) = self.lanes[turn.index()].entries.pop()?;
        Some((turn, Place(entry.number), *entry.item))
    }

    /// Takes everything out, lane by lane, in no order inside a lane.
    pub(crate) fn drain(&mut self) -> Vec<(Lane, T)> {
        let mut all = Vec::new();
        for lane in Lane::ALL {
            let waiting = &mut self.lanes[lane.index()];
            waiting.passed_over = 0;
            all.extend(waiting.entries.drain().map(|Reverse(entry)| (lane, *entry.item)));
        }
        all
    }

    /// What waits in a lane, in no order.
    pub(crate) fn iter(&self, lane: Lane) -> impl Iterator<Item = &T> {
        self.lanes[lane.index()].entries.iter().map(|Reverse(entry)| &*entry.item)
    }

    /// How many wait in a lane.
    pub(crate) fn len(&self, lane: Lane) -> usize {
        self.lanes[lane.index()].entries.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.entries.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(lane: Lane, deadline: i64) -> Order {
        Order::new(lane, UnixTime(deadline))
    }

    fn pop<T>(lanes: &mut Lanes<T>) -> Option<(Lane, T)> {
        lanes.pop(|_| false, |_, _| {}).map(|(lane, _, item)| (lane, item))
    }

    #[test]
    fn lanes_are_served_in_order_and_inside_a_lane_the_earliest_deadline() {
        let mut lanes = Lanes::default();
        for (number, (lane, deadline)) in [
            (Lane::Refresh, 5),
            (Lane::Refresh, 3),
            (Lane::Live, 9),
            (Lane::First, 9),
            (Lane::Revocation, 7),
            (Lane::Revocation, 7),
            (Lane::Refresh, 4),
        ]
        .into_iter()
        .enumerate()
        {
            lanes.push(order(lane, deadline), None, number);
        }
        let served: Vec<usize> = std::iter::from_fn(|| pop(&mut lanes)).map(|(_, number)| number).collect();
        assert_eq!(served, [4, 5, 3, 2, 1, 6, 0]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn what_comes_back_goes_before_those_who_came_after_it() {
        let mut lanes = Lanes::default();
        for name in ["first", "second"] {
            lanes.push(order(Lane::Live, 1), None, name);
        }
        let (lane, place, item) = lanes.pop(|_| false, |_, _| {}).unwrap();
        assert_eq!(item, "first");
        lanes.push(order(lane, 1), Some(place), item);
        assert_eq!(pop(&mut lanes), Some((Lane::Live, "first")));
        assert_eq!(pop(&mut lanes), Some((Lane::Live, "second")));
    }

    #[test]
    fn the_dead_are_taken_out_and_cost_nobody_a_turn() {
        let mut lanes = Lanes::default();
        for number in 0..10 {
            lanes.push(order(Lane::Revocation, number), None, number);
        }
        lanes.push(order(Lane::Refresh, 0), None, 100);
        let mut buried = Vec::new();
        let popped = lanes.pop(|number| *number < 9, |lane, number| buried.push((lane, number)));
        assert_eq!(popped.map(|(lane, _, number)| (lane, number)), Some((Lane::Revocation, 9)));
        assert_eq!(buried.len(), 9);
        assert_eq!(lanes.lanes[Lane::Refresh.index()].passed_over, 1);
    }

    #[test]
    fn every_lane_that_waits_has_its_share_and_the_first_one_the_rest() {
        let mut lanes = Lanes::default();
        for lane in Lane::ALL {
            for _ in 0..10_000 {
                lanes.push(order(lane, 0), None, ());
            }
        }
        let mut served = [0_u32; 4];
        for _ in 0..1_600 {
            served[pop(&mut lanes).unwrap().0.index()] += 1;
        }
        for lane in [Lane::First, Lane::Live, Lane::Refresh] {
            assert!((85..=101).contains(&served[lane.index()]), "{served:?}");
        }
        assert!(served[0] >= 1_300, "{served:?}");
    }

    proptest! {
        /// However things come in: nobody waits longer than its share says, nothing is lost.
        #[test]
        fn no_lane_that_waits_is_passed_over_too_often(
            steps in proptest::collection::vec((0_usize..6, 0_i64..100), 1..2_000)
        ) {
            let mut lanes = Lanes::default();
            let (mut pushed, mut popped) = (0, 0);
            let mut waited = [0_u32; 4];
            for (action, deadline) in steps {
                if let Some(lane) = Lane::ALL.get(action) {
                    lanes.push(order(*lane, deadline), None, deadline);
                    pushed += 1;
                } else if let Some((turn, deadline)) = pop(&mut lanes) {
                    popped += 1;
                    prop_assert!(lanes.iter(turn).all(|other| *other >= deadline));
                    for lane in Lane::ALL {
                        let waits = lanes.len(lane) > 0 && lane != turn;
                        waited[lane.index()] = if waits { waited[lane.index()] + 1 } else { 0 };
                        prop_assert!(waited[lane.index()] < PATIENCE + 4);
                    }
                }
            }
            prop_assert_eq!(pushed - popped, lanes.drain().len());
        }
    }
}
