use super::*;
use crate::ocsp::{Freshness, Preset};
use crate::presign::policies::Policy;
use crate::store::Shard;

const NOW: UnixTime = UnixTime(1_795_315_054);
const HOUR: i64 = 3_600;
const DAY: Duration = Duration::from_secs(86_400);

fn freshness() -> Freshness {
    Freshness::new(Preset::WebPki, 7 * DAY, Duration::from_secs(84 * 3_600)).unwrap()
}

fn policies() -> Arc<Policies> {
    Arc::new(Policies::new(Policy::new(freshness())))
}

fn engine() -> Engine {
    Engine::new(Settings { in_flight: 20, early: true }, policies(), NOW)
}

fn after(seconds: i64) -> UnixTime {
    UnixTime(NOW.0 + seconds)
}

fn key(number: u32) -> CertificateKey {
    CertificateKey { shard: Shard((number % 2) as u8), row: i64::from(number) + 1 }
}

fn unanswered(number: u32) -> Seen {
    Seen {
        key: key(number),
        issuer: IssuerId(1),
        serial: Serial::from_unsigned(&(number + 1).to_be_bytes()).unwrap(),
        revoked: false,
        answer: None,
        retired: false,
        not_before: None,
    }
}

fn answered(number: u32, made: UnixTime) -> Seen {
    Seen { answer: Some((made, freshness().next_update(made, UnixTime::MAX))), ..unanswered(number) }
}

fn revoked(number: u32) -> Seen {
    Seen { revoked: true, ..unanswered(number) }
}

fn take_all(engine: &mut Engine, now: UnixTime) -> Vec<Job> {
    std::iter::from_fn(|| engine.take(now)).collect()
}

fn fail(engine: &mut Engine, job: Job, reach: Reach, now: UnixTime) {
    engine.finish(job.lane, job.key, Ended::Failed(reach, "the token is away"), now);
}

#[test]
fn a_revocation_has_room_however_many_refreshes_are_under_way() {
    let mut engine = engine();
    for number in 0..100 {
        engine.note(&answered(number, after(-90 * HOUR)), NOW);
    }
    assert_eq!(take_all(&mut engine, NOW).len(), 20, "as many as the lane holds");
    engine.note(&revoked(50), NOW);
    let jobs = take_all(&mut engine, NOW);
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].lane, jobs[0].key), (Lane::Revocation, key(50)));
    assert_eq!(engine.ahead_of(Lane::Revocation), 1);
}

#[test]
fn the_old_answer_of_a_revoked_certificate_that_comes_late_changes_nothing() {
    let mut engine = engine();
    engine.note(&answered(7, after(-90 * HOUR)), NOW);
    let refresh = engine.take(NOW).unwrap();
    engine.note(&revoked(7), NOW);
    let revocation = engine.take(NOW).unwrap();
    let stored = Seen { revoked: true, ..answered(7, NOW) };
    engine.finish(revocation.lane, key(7), Ended::Answered(&stored), NOW);
    engine.finish(refresh.lane, key(7), Ended::Superseded, NOW);
    assert_eq!((engine.under_way(), engine.take(after(62 * HOUR))), (0, None));
    assert!(engine.take(after(84 * HOUR)).is_some());
}

#[test]
fn an_issuer_whose_token_is_away_is_probed_and_others_go_on() {
    let mut engine = engine();
    for number in 0..10 {
        engine.note(&unanswered(number), NOW);
    }
    let jobs = take_all(&mut engine, NOW);
    assert_eq!(jobs.len(), 10);
    for job in jobs {
        fail(&mut engine, job, Reach::Issuer, NOW);
    }
    let other = Seen { issuer: IssuerId(2), ..unanswered(99) };
    engine.note(&other, NOW);
    assert_eq!(take_all(&mut engine, NOW).len(), 1, "the other issuer's");
    // After a second one is tried, and only one.
    let probe = take_all(&mut engine, after(1));
    assert_eq!(probe.len(), 1);
    fail(&mut engine, probe[0], Reach::Issuer, after(1));
    assert_eq!(take_all(&mut engine, after(2)), [], "the wait grows");
    let probe = take_all(&mut engine, after(3));
    assert_eq!((probe.len(), engine.figures(after(3)).held), (1, 1));
    let seen = Seen { key: probe[0].key, ..answered(0, after(3)) };
    engine.finish(probe[0].lane, probe[0].key, Ended::Answered(&seen), after(3));
    assert_eq!(take_all(&mut engine, after(3)).len(), 9, "all the others");
    assert_eq!(engine.figures(after(3)).held, 0);
}

#[test]
fn news_of_the_responders_end_every_wait() {
    let mut engine = engine();
    for number in 0..5 {
        engine.note(&unanswered(number), NOW);
    }
    for job in take_all(&mut engine, NOW) {
        fail(&mut engine, job, Reach::Issuer, NOW);
    }
    assert_eq!(take_all(&mut engine, NOW), []);
    engine.wake(NOW);
    let probe = take_all(&mut engine, NOW);
    assert_eq!(probe.len(), 1);
    let seen = Seen { key: probe[0].key, ..answered(0, NOW) };
    engine.finish(probe[0].lane, probe[0].key, Ended::Answered(&seen), NOW);
    assert_eq!(take_all(&mut engine, NOW).len(), 4);
}

#[test]
fn a_shard_of_poison_gets_every_eighth_turn_and_no_more() {
    let mut engine = Engine::new(Settings { in_flight: 1_000, early: true }, policies(), NOW);
    // Poison is the most urgent of all; there is always more of both.
    for number in 0..2_000 {
        let made = if number % 2 == 0 { -95 * HOUR } else { -85 * HOUR };
        engine.note(&answered(number, after(made)), NOW);
    }
    let mut now = NOW;
    let (mut poisoned, mut signed) = (0, 0);
    for _ in 0..1_200 {
        now = now.plus(Duration::from_secs(1));
        // A token of four signatures a second.
        for _ in 0..4 {
            let Some(job) = engine.take(now) else { continue };
            if job.key.shard == Shard(0) {
                poisoned += 1;
                engine.finish(job.lane, job.key, Ended::Failed(Reach::Item, "no such key"), now);
            } else {
                signed += 1;
                let number = job.key.row as u32 - 1;
                engine.finish(job.lane, job.key, Ended::Answered(&answered(number, now)), now);
            }
        }
    }
    // Each poisoned one is tried once in its turn; after that they take an eighth.
    assert!(signed == 1_000, "{signed} of the good, {poisoned} attempts on the bad");
    let figures = engine.figures(now);
    assert_eq!(figures.quarantined, [("no such key".to_owned(), 1_000)]);
    let worst = engine.quarantined().max_by_key(|item| item.failures).unwrap();
    assert!(worst.since <= now && worst.until > NOW && worst.reason == "no such key");
}

#[test]
fn one_that_the_token_is_blamed_for_while_its_neighbours_are_signed_is_quarantined() {
    let mut engine = engine();
    engine.note(&unanswered(0), NOW);
    let mut now = NOW;
    for number in 1..200 {
        now = now.plus(Duration::from_secs(10));
        engine.note(&unanswered(number), now);
        for job in take_all(&mut engine, now) {
            if job.key == key(0) {
                fail(&mut engine, job, Reach::Issuer, now);
            } else {
                let seen = answered(job.key.row as u32 - 1, now);
                engine.finish(job.lane, job.key, Ended::Answered(&seen), now);
            }
        }
    }
    assert_eq!(engine.figures(now).quarantined, [("the token is away".to_owned(), 1)]);
    assert_eq!(engine.figures(now).held, 0);
}

#[test]
fn a_step_of_the_clock_is_noticed_and_a_drift_is_not() {
    for seconds in [HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 31, -31] {
        let mut engine = engine();
        assert_eq!(engine.watch(NOW, Duration::from_secs(5)), None);
        assert_eq!(engine.watch(after(10), Duration::from_secs(15)), None);
        let step = engine.watch(after(10 + seconds), Duration::from_secs(15));
        assert_eq!(step, Some(Step { seconds }));
        assert_eq!(engine.watch(after(30 + seconds), Duration::from_secs(34)), None);
        assert_eq!(engine.figures(NOW).clock_steps, 1);
    }
}

#[test]
fn answers_made_while_the_clock_was_ahead_give_way_and_what_was_due_stays_due() {
    let day = 24 * HOUR;
    let mut engine = engine();
    engine.watch(NOW, Duration::ZERO);
    engine.note(&answered(1, after(-10)), NOW);
    // The clock runs a day ahead.
    assert!(engine.watch(after(day), Duration::ZERO).is_some());
    engine.note(&unanswered(2), after(day));
    let job = engine.take(after(day)).unwrap();
    engine.finish(job.lane, job.key, Ended::Answered(&answered(2, after(day))), after(day));
    engine.note(&unanswered(3), after(day));
    // Not due yet, and not to be: it comes into force later.
    engine.note(&Seen { not_before: Some(after(2 * day)), ..unanswered(4) }, after(day));
    // It is set right.
    assert_eq!(engine.watch(NOW, Duration::ZERO), Some(Step { seconds: -day }));
    let mut keys: Vec<_> = take_all(&mut engine, NOW).into_iter().map(|job| job.key).collect();
    keys.sort_by_key(|key| key.row);
    assert_eq!(keys, [key(2), key(3)], "the answer from the future, and what had been due");
}

#[test]
fn an_imported_fleet_does_not_come_due_in_one_wave_again() {
    let mut engine = Engine::new(Settings::default(), policies(), NOW);
    let fleet = 20_000;
    for number in 0..fleet {
        engine.note(&answered(number, NOW), NOW);
    }
    let mut hours = vec![0u32; 30 * 24];
    for (hour, signed) in hours.iter_mut().enumerate() {
        for part in 0..6 {
            let now = after((hour as i64 * 6 + part) * 600);
            while let Some(job) = engine.take(now) {
                *signed += 1;
                let seen = answered(job.key.row as u32 - 1, now);
                engine.finish(job.lane, job.key, Ended::Answered(&seen), now);
            }
        }
    }
    // Without signing early the first wave would be three times the mean, and the next ones as high.
    let mean = fleet * 10 / 735;
    let highest = hours.iter().max().unwrap();
    assert!(*highest < mean * 3 / 2, "never a wave: {highest} of {mean}: {hours:?}");
    let last_week: u32 = hours[23 * 24..].iter().sum();
    assert!(last_week < mean * 7 * 24 * 23 / 20, "little more than needed: {last_week} of {}", mean * 7 * 24);
}

#[test]
fn a_stretched_refresh_waits_longer_but_never_past_the_middle_to_the_deadline() {
    let mut engine = Engine::new(Settings { in_flight: 20, early: false }, policies(), NOW);
    let due: Vec<UnixTime> = (0..500).map(|number| engine.note(&answered(number, NOW), NOW)).collect();
    assert!(!engine.set_stretch(1.01, NOW), "a trifle is not worth planning everything anew");
    assert!(engine.set_stretch(1.05, NOW));
    // The deadline is 96 h after thisUpdate; slack begins at 84 h.
    let span = |number: u32| due[number as usize].since(NOW).as_secs_f64();
    let mut taken = HashMap::new();
    for hour in 0..=96 {
        while let Some(job) = engine.take(after(hour * HOUR)) {
            taken.insert(job.key, hour);
            engine.finish(job.lane, job.key, Ended::NotDue(None), after(hour * HOUR));
        }
    }
    assert_eq!(taken.len(), 500);
    for number in 0..500 {
        let planned = span(number) * 1.05 / 3_600.0;
        let hour = taken[&key(number)] as f64;
        assert!((planned - hour).abs() <= 1.01 && hour <= 90.0, "{number}: {planned} h, {hour} h");
    }
}

#[test]
fn what_was_due_waits_again_while_slack_is_lent_and_comes_back_where_it_was() {
    let mut engine = engine();
    // Due for an hour already.
    let seen: Vec<Seen> = (0..50).map(|number| answered(number, after(-84 * HOUR - HOUR))).collect();
    let due: Vec<UnixTime> = seen.iter().map(|seen| engine.note(seen, NOW)).collect();
    assert_eq!(engine.figures(NOW).due_within[0], 50);
    assert!(engine.set_stretch(1.07, NOW));
    let lent = engine.figures(NOW);
    assert!(lent.due_within[0] < 50, "{lent:?}");
    // One that was to be replaced at once stays so.
    let retired = Seen { retired: true, ..answered(60, NOW) };
    engine.note(&retired, NOW);
    let jobs = |engine: &mut Engine| -> Vec<CertificateKey> {
        std::iter::from_fn(|| {
            let job = engine.take(NOW)?;
            engine.finish(job.lane, job.key, Ended::NotDue(None), NOW);
            Some(job.key)
        })
        .collect()
    };
    // Back where it was: all are due.
    assert!(engine.set_stretch(1.0, NOW));
    let all = jobs(&mut engine);
    assert!(all.contains(&key(60)));
    assert_eq!(all.len(), 51, "{due:?}");
}
