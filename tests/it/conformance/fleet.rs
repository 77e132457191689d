//! A fleet kept for weeks on a clock that the test moves, under each preset: each answer that is replaced
//! is held to the rules as they are written, not to our own arithmetic.

use std::sync::Arc;
use std::time::Duration;

use goodstanding::clock::Clock;
use goodstanding::ocsp::{HashAlgorithm, Received, Serial, request};

use super::asker::Asker;
use crate::support::alone::{Alone, alone};
use crate::support::ca::{KeyKind, utf8};
use crate::support::eventually;
use crate::support::http;
use crate::support::site::{ISSUER, Site};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// thisUpdate and nextUpdate.
type Times = (i64, i64);

/// Keeps a fleet under a preset for so many steps of so many hours. `rule` judges an answer and the one
/// that replaced it.
fn keeps(name: &str, preset: &str, [validity, refresh, step, steps]: [i64; 4], rule: fn(Times, Times)) {
    let prepare = || {
        let site = Site::new(KeyKind::P256);
        let text =
            site.default_configuration().replace("preset = \"web-pki\"", &format!("preset = \"{preset}\""));
        let text = text.replace("validity = \"7d\"", &format!("validity = \"{validity}h\""));
        site.configure(&text.replace("refresh = \"3d12h\"", &format!("refresh = \"{refresh}h\"")));
        let (request, made, key) = (site.path("responder.csr"), site.responder_certificate(), site.ca.key());
        let files = ["--csr", utf8(&request), "--ca-key", utf8(&key), "--out", utf8(&made), "--days", "366"];
        site.goodstanding(&[&["responder", "certify", "--issuer", ISSUER], &files[..]].concat()).ok();
        site
    };
    alone(name, prepare, async |alone| {
        let serials = alone.register(40).await;
        let drive = move |alone: &Arc<Alone>| {
            let mut before: Vec<Option<Times>> = vec![None; serials.len()];
            let mut replaced = 0;
            for _ in 0..steps {
                for (serial, before) in serials.iter().zip(&mut before) {
                    let now = times(alone, *serial, refresh);
                    if let Some(before) = before.filter(|before| *before != now) {
                        rule(before, now);
                        replaced += 1;
                    }
                    assert!((8 * HOUR..=400 * DAY).contains(&(now.1 + 1 - now.0)), "{now:?}");
                    *before = Some(now);
                }
                alone.clock.advance(Duration::from_secs((step * HOUR).unsigned_abs()));
            }
            // What comes due between two looks is seen at the next one, so an interval may take a step more.
            let intervals = (steps * step / (refresh + step) - 1).max(1).unsigned_abs() as usize;
            assert!(replaced >= serials.len() * intervals, "{replaced} of {intervals} times 40");
        };
        alone.serve(drive).await;
    });
}

/// The times of a certificate's answer, once it is no older than the refresh interval.
fn times(alone: &Alone, serial: Serial, refresh: i64) -> Times {
    let asker = Asker::of(alone.issuer.clone(), alone.ocsp());
    let id = asker.cert_id(HashAlgorithm::Sha1, serial);
    let asked = request::encode(&[id], None).unwrap();
    eventually("a fresh answer", Duration::from_secs(30), || {
        let reply = http::post(asker.port(), &asked).ok()?;
        // The very first question may come before the first answer is stored, and be answered live.
        reply.header("cache-control").filter(|control| control.starts_with("max-age="))?;
        let received = Received::decode(&reply.body).ok()?;
        let single = &received.responses[0];
        let times = (single.this_update.0, single.next_update.unwrap().0);
        assert!(alone.clock.now().0 <= times.1, "an expired answer");
        (alone.clock.now().0 - times.0 <= refresh * HOUR).then_some(times)
    })
    .0
}

/// B3, B2: V of 16 hours and more: at least 8 hours before nextUpdate, at most 4 days after thisUpdate.
#[test]
fn a_fleet_under_web_pki_is_replaced_eight_hours_before_the_end_and_four_days_after_the_start() {
    let name = "conformance::fleet::a_fleet_under_web_pki_is_replaced_eight_hours_before_the_end_and_four_days_after_the_start";
    keeps(name, "web-pki", [7 * 24, 84, 6, 48], |old, new| {
        assert_eq!(old.1 - old.0, 7 * DAY - 1);
        assert!(old.1 - new.0 >= 8 * HOUR && new.0 - old.0 <= 4 * DAY, "{old:?} {new:?}");
    });
}

/// B3, B2: V under 16 hours: before half of it.
#[test]
fn a_fleet_of_short_answers_under_web_pki_is_replaced_before_half_their_validity() {
    let name =
        "conformance::fleet::a_fleet_of_short_answers_under_web_pki_is_replaced_before_half_their_validity";
    keeps(name, "web-pki", [12, 4, 1, 30], |old, new| {
        assert!(2 * (new.0 - old.0) < old.1 + 1 - old.0, "{old:?} {new:?}");
    });
}

/// B4, B3: 7 days at the most, replaced at half of it.
#[test]
fn a_fleet_under_microsoft_is_replaced_by_half_its_validity() {
    let name = "conformance::fleet::a_fleet_under_microsoft_is_replaced_by_half_its_validity";
    keeps(name, "microsoft", [7 * 24, 72, 6, 40], |old, new| {
        assert!(old.1 + 1 - old.0 <= 7 * DAY && 2 * (new.0 - old.0) <= old.1 + 1 - old.0, "{old:?} {new:?}");
        assert!(old.1 - new.0 >= 8 * HOUR && new.0 - old.0 <= 4 * DAY, "{old:?} {new:?}");
    });
}

/// B10: twelve months at the most, and the new one well before the end.
#[test]
fn a_fleet_of_subordinate_cas_is_replaced_within_twelve_months() {
    let name = "conformance::fleet::a_fleet_of_subordinate_cas_is_replaced_within_twelve_months";
    keeps(name, "sub-ca", [60 * 24, 20 * 24, 24, 60], |old, new| {
        assert!(old.1 + 1 - old.0 <= 365 * DAY && old.1 - new.0 >= 8 * HOUR, "{old:?} {new:?}");
    });
}

/// B3: a private CA's own rule is that there is always an answer.
#[test]
fn a_fleet_under_private_is_replaced_before_it_expires() {
    let name = "conformance::fleet::a_fleet_under_private_is_replaced_before_it_expires";
    keeps(name, "private", [30 * 24, 29 * 24, 12, 75], |old, new| {
        assert!(new.0 < old.1, "{old:?} {new:?}");
    });
}
