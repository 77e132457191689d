use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ocsp::Preset;
use crate::store::Shard;

const NOW: UnixTime = UnixTime(1_795_315_054);
const DAY: Duration = Duration::from_secs(86_400);
const R: Duration = Duration::from_secs(84 * 3_600);

fn planner() -> Planner {
    let mut planner = Planner::new(Planner::grain(R), NOW);
    for group in 0..3 {
        planner.set_freshness(Group(group), Freshness::new(Preset::WebPki, 7 * DAY, R).unwrap());
    }
    planner
}

fn key(number: u32) -> CertificateKey {
    CertificateKey { shard: Shard((number % 3) as u8), row: i64::from(number * 97) + 1 }
}

fn after(seconds: i64) -> UnixTime {
    UnixTime(NOW.0 + seconds)
}

/// An answer made so many seconds after NOW (before it, when negative), due at another.
fn refresh(made: i64, due: i64) -> Plan {
    let answer = Some((after(made), after(made + 7 * 86_400 - 1)));
    Plan { group: Group(0), lane: Lane::Refresh, due: after(due), answer }
}

fn first(due: i64) -> Plan {
    Plan { group: Group(0), lane: Lane::First, due: after(due), answer: None }
}

fn revocation(due: i64) -> Plan {
    Plan { lane: Lane::Revocation, ..first(due) }
}

fn take(planner: &mut Planner, lane: Lane) -> Option<CertificateKey> {
    planner.take(lane, |_| false).map(|taken| taken.key)
}

#[test]
fn nothing_is_taken_before_its_second_and_everything_at_it() {
    let mut planner = planner();
    for (number, due) in [(1, 1), (2, 63), (3, 64), (4, 200), (5, 100 * 86_400)] {
        planner.set(key(number), refresh(-86_400, due), NOW);
    }
    for (number, due) in [(1, 1), (2, 63), (3, 64), (4, 200), (5, 100 * 86_400)] {
        planner.advance(after(due - 1));
        assert_eq!(take(&mut planner, Lane::Refresh), None, "{number}");
        planner.advance(after(due));
        assert_eq!(take(&mut planner, Lane::Refresh), Some(key(number)));
    }
    assert_eq!((planner.under_way(), planner.due(), planner.planned()), (5, 0, 5));
}

#[test]
fn the_earliest_legal_deadline_goes_first_whatever_came_due_first() {
    let mut planner = planner();
    planner.set(key(1), refresh(-80 * 3_600, 5), NOW);
    planner.set(key(2), refresh(-90 * 3_600, 9), NOW);
    planner.set(key(3), refresh(-70 * 3_600, 1), NOW);
    planner.advance(after(10));
    let order: Vec<_> = std::iter::from_fn(|| take(&mut planner, Lane::Refresh)).collect();
    assert_eq!(order, [key(2), key(1), key(3)]);
}

#[test]
fn without_an_answer_first_come_is_first_served_unless_somebody_waits() {
    let mut planner = planner();
    for (number, due) in [(1, -5), (2, -9), (3, -7)] {
        planner.set(key(number), first(due), NOW);
    }
    planner.hasten(key(1));
    let order: Vec<_> = std::iter::from_fn(|| take(&mut planner, Lane::First)).collect();
    assert_eq!(order, [key(1), key(2), key(3)]);
    assert_eq!(take(&mut planner, Lane::Refresh), None, "another lane");
}

#[test]
fn rescheduling_counts_and_the_old_time_does_not() {
    let mut planner = planner();
    planner.set(key(1), refresh(0, 10), NOW);
    planner.set(key(1), refresh(0, 4_000), NOW);
    planner.advance(after(3_999));
    assert_eq!(take(&mut planner, Lane::Refresh), None);
    planner.set(key(1), refresh(0, 3_000), after(3_999));
    assert_eq!((planner.due(), take(&mut planner, Lane::Refresh)), (1, Some(key(1))));
    assert_eq!(take(&mut planner, Lane::Refresh), None, "taken once only");
}

#[test]
fn a_revocation_overtakes_the_refresh_that_is_under_way() {
    let mut planner = planner();
    planner.set(key(1), refresh(-90_000, 0), NOW);
    assert_eq!(take(&mut planner, Lane::Refresh), Some(key(1)));
    planner.set(key(1), revocation(0), NOW);
    assert_eq!(take(&mut planner, Lane::Revocation), Some(key(1)));
    assert!(!planner.finish(Lane::Refresh, key(1), refresh(0, 99), NOW), "the old one is of no account");
    assert_eq!(planner.under_way(), 1);
    assert!(planner.finish(Lane::Revocation, key(1), refresh(1, 500), NOW));
    planner.advance(after(499));
    assert_eq!((planner.under_way(), take(&mut planner, Lane::Refresh)), (0, None));
}

#[test]
fn other_news_of_what_is_under_way_wait_for_its_end() {
    let mut planner = planner();
    planner.set(key(1), first(0), NOW);
    assert_eq!(take(&mut planner, Lane::First), Some(key(1)));
    planner.set(key(1), first(0), NOW);
    assert_eq!(take(&mut planner, Lane::First), None, "never twice in one lane");
    assert!(planner.finish(Lane::First, key(1), refresh(0, 9_000), NOW));
    assert_eq!(take(&mut planner, Lane::First), Some(key(1)), "it is looked at again at once");
    assert!(planner.forget(Lane::First, key(1), NOW));
    assert_eq!((planner.planned(), planner.under_way()), (0, 0));
}

#[test]
fn one_issuer_that_is_blocked_does_not_stand_in_the_way_of_another() {
    let mut planner = planner();
    planner.set(key(1), Plan { group: Group(0), ..first(-10) }, NOW);
    planner.set(key(2), Plan { group: Group(1), ..first(-5) }, NOW);
    let taken = planner.take(Lane::First, |group| group == Group(0)).unwrap();
    assert_eq!((taken.key, taken.group), (key(2), Group(1)));
    assert_eq!(planner.take(Lane::First, |group| group == Group(0)), None);
}

#[test]
fn what_failed_alone_waits_apart_from_its_lane() {
    let mut planner = planner();
    for number in 1..=3 {
        planner.set(key(number), first(-10), NOW);
    }
    let failing = take(&mut planner, Lane::First).unwrap();
    assert!(planner.put_back(Lane::First, failing, after(5), true, NOW));
    planner.advance(after(5));
    assert!(planner.has_retry());
    let others: Vec<_> = std::iter::from_fn(|| take(&mut planner, Lane::First)).collect();
    assert!(others.len() == 2 && !others.contains(&failing));
    let retried = planner.take_retry(|_| false).unwrap();
    assert_eq!((retried.key, retried.lane, retried.retry), (failing, Lane::First, true));
}

#[test]
fn early_work_comes_from_the_front_and_leaves_out_what_must_wait() {
    let mut planner = planner();
    planner.set(key(1), first(100), NOW);
    planner.set(key(2), refresh(-90_000, 5_000), NOW);
    planner.set(key(3), refresh(-90_000, 200), NOW);
    let early: Vec<_> = std::iter::from_fn(|| planner.take_early(|_| false)).map(|taken| taken.key).collect();
    assert_eq!(early, [key(3), key(2)]);
    planner.advance(after(100));
    assert_eq!(take(&mut planner, Lane::First), Some(key(1)), "not lost");
}

#[test]
fn a_bunch_to_come_is_seen_and_an_even_demand_is_none() {
    let mut planner = planner();
    for number in 0..1_000 {
        planner.set(key(number), refresh(0, i64::from(number) * 100 + 100), NOW);
    }
    assert!(!planner.is_bunched(NOW, 0.011), "100 seconds each is 0.01 a second");
    for number in 1_000..1_200 {
        planner.set(key(number), refresh(0, 50_000), NOW);
    }
    assert!(planner.is_bunched(NOW, 0.011));
    assert_eq!(planner.due_until(after(50_000 - 64)), 499 / 100 * 100 + 99);
}

#[test]
fn the_outlook_tells_the_earliest_deadline_wherever_it_is() {
    let mut planner = planner();
    planner.set(key(1), refresh(0, 230_000), NOW);
    planner.set(key(2), refresh(-50_000, 200_000), NOW);
    planner.set(key(3), revocation(-30), NOW);
    let outlook = planner.outlook(NOW);
    assert_eq!(outlook.stale_at, Some(after(4 * 86_400 - 50_000)));
    assert_eq!(outlook.expires_at, Some(after(7 * 86_400 - 1 - 50_000)));
    assert_eq!(outlook.lanes[Lane::Revocation.index()], Depth { due: 1, oldest: Some(after(-30)) });
    planner.advance(after(310_000));
    let outlook = planner.outlook(after(310_000));
    assert_eq!((outlook.stale, outlook.lanes[Lane::Refresh.index()].due), (1, 2));
    assert_eq!(outlook.lanes[Lane::Refresh.index()].oldest, Some(after(200_000)));
}

#[derive(Clone, Debug)]
enum Act {
    Set(u32, u8, i64, i64),
    Pass(i64),
    Take(u8),
    Finish(usize, i64),
    PutBack(usize, i64, bool),
    Forget(usize),
    Remove(u32),
    Hasten(u32),
    Anew,
}

fn act() -> impl Strategy<Value = Act> {
    let key = 0u32..40;
    prop_oneof![
        8 => (key.clone(), 0u8..3, -300_000i64..0, -100i64..400_000)
            .prop_map(|(key, lane, made, due)| Act::Set(key, lane, made, due)),
        3 => (0i64..60_000).prop_map(Act::Pass),
        8 => (0u8..4).prop_map(Act::Take),
        5 => (any::<usize>(), 1i64..400_000).prop_map(|(which, due)| Act::Finish(which, due)),
        2 => (any::<usize>(), 0i64..1_000, any::<bool>()).prop_map(|(which, due, alone)| Act::PutBack(which, due, alone)),
        1 => any::<usize>().prop_map(Act::Forget),
        1 => key.clone().prop_map(Act::Remove),
        1 => key.prop_map(Act::Hasten),
        1 => Just(Act::Anew),
    ]
}

/// What the planner is held to: a plain table.
#[derive(Clone, Copy, Debug)]
struct Row {
    plan: Plan,
    way: Option<Lane>,
    again: bool,
    retry: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn it_does_as_a_plain_table_would(acts in proptest::collection::vec(act(), 1..200)) {
        let mut planner = planner();
        let mut table: BTreeMap<CertificateKey, Row> = BTreeMap::new();
        let mut out: Vec<(Lane, CertificateKey)> = Vec::new();
        let mut clock = 0i64;
        for act in acts {
            let now = after(clock);
            match act {
                Act::Set(number, lane, made, due) => {
                    let due = clock + due;
                    let plan = match lane {
                        0 => revocation(due),
                        1 => first(due),
                        _ => refresh(clock + made, due),
                    };
                    let key = key(number);
                    planner.set(key, plan, now);
                    let row = table.entry(key).or_insert(Row { plan, way: None, again: false, retry: false });
                    row.plan = plan;
                    match row.way {
                        Some(way) if !(plan.lane < way && plan.due <= now) => row.again = true,
                        _ => (row.way, row.again, row.retry) = (None, false, false),
                    }
                }
                Act::Pass(seconds) => clock += seconds,
                Act::Take(3) => {
                    planner.advance(now);
                    let expected = table.iter().any(|(_, row)| row.way.is_none() && row.retry && row.plan.due <= now);
                    let taken = planner.take_retry(|_| false);
                    prop_assert_eq!(taken.is_some(), expected);
                    if let Some(taken) = taken {
                        let row = table.get_mut(&taken.key).unwrap();
                        prop_assert!(row.retry && taken.lane == row.plan.lane && row.way.is_none());
                        row.way = Some(taken.lane);
                        out.push((taken.lane, taken.key));
                    }
                }
                Act::Take(lane) => {
                    let lane = [Lane::Revocation, Lane::First, Lane::Refresh][usize::from(lane)];
                    planner.advance(now);
                    let ready = table.values().filter(|row| {
                        row.way.is_none() && !row.retry && row.plan.lane == lane && row.plan.due <= now
                    });
                    let deadline = |plan: &Plan| plan.answer.map_or(plan.due, |(made, _)| made.plus(4 * DAY));
                    let earliest = ready.map(|row| deadline(&row.plan)).min();
                    let taken = planner.take(lane, |_| false);
                    prop_assert_eq!(taken.is_some(), earliest.is_some());
                    if let (Some(taken), Some(earliest)) = (taken, earliest) {
                        let row = table.get_mut(&taken.key).unwrap();
                        prop_assert!(row.way.is_none() && !row.retry && row.plan.lane == lane && row.plan.due <= now);
                        prop_assert_eq!(taken.deadline, deadline(&row.plan));
                        // Hastened ones aside, no later than the grain after the earliest.
                        let hastened = planner.pages.get(planner.pages.find(taken.key).unwrap()).haste();
                        prop_assert!(hastened || taken.deadline.0 - earliest.0 <= 64, "{:?} {:?}", taken, earliest);
                        row.way = Some(lane);
                        out.push((lane, taken.key));
                    }
                }
                Act::Finish(which, due) if !out.is_empty() => {
                    let (lane, key) = out.swap_remove(which % out.len());
                    let plan = refresh(clock, clock + due);
                    let its_own = table.get(&key).is_some_and(|row| row.way == Some(lane));
                    prop_assert_eq!(planner.finish(lane, key, plan, now), its_own);
                    if its_own {
                        let row = table.get_mut(&key).unwrap();
                        if !std::mem::take(&mut row.again) {
                            (row.plan, row.retry) = (plan, false);
                        }
                        row.way = None;
                    }
                }
                Act::PutBack(which, due, alone) if !out.is_empty() => {
                    let (lane, key) = out.swap_remove(which % out.len());
                    let its_own = table.get(&key).is_some_and(|row| row.way == Some(lane));
                    prop_assert_eq!(planner.put_back(lane, key, after(clock + due), alone, now), its_own);
                    if its_own {
                        let row = table.get_mut(&key).unwrap();
                        if !std::mem::take(&mut row.again) {
                            (row.plan.due, row.retry) = (after(clock + due), alone);
                        }
                        row.way = None;
                    }
                }
                Act::Forget(which) if !out.is_empty() => {
                    let (lane, key) = out.swap_remove(which % out.len());
                    let its_own = table.get(&key).is_some_and(|row| row.way == Some(lane));
                    prop_assert_eq!(planner.forget(lane, key, now), its_own);
                    if its_own && table[&key].again {
                        let row = table.get_mut(&key).unwrap();
                        (row.again, row.way) = (false, None);
                    } else if its_own {
                        table.remove(&key);
                    }
                }
                Act::Finish(..) | Act::PutBack(..) | Act::Forget(_) => {}
                Act::Remove(number) => {
                    planner.remove(key(number));
                    table.remove(&key(number));
                }
                Act::Hasten(number) => planner.hasten(key(number)),
                Act::Anew => planner.reckon_anew(now, |plan| plan),
            }
            planner.advance(after(clock));
            let due = table.values().filter(|row| row.way.is_none() && row.plan.due <= after(clock)).count();
            let under_way = table.values().filter(|row| row.way.is_some()).count();
            prop_assert_eq!((planner.planned(), planner.under_way(), planner.due()), (table.len(), under_way, due));
        }
    }
}

#[test]
fn what_does_not_count_any_more_is_cleared_away() {
    let mut planner = planner();
    for round in 0..200 {
        for number in 0..1_000 {
            planner.set(
                key(number),
                refresh(0, 1_000 + i64::from((number * 7 + round * 131) % 200_000)),
                NOW,
            );
        }
    }
    assert!(planner.entries <= 1_500 + LITTER, "{}", planner.entries);
    planner.advance(after(300_000));
    let taken = std::iter::from_fn(|| take(&mut planner, Lane::Refresh)).count();
    assert_eq!((taken, planner.due()), (1_000, 0));
}
