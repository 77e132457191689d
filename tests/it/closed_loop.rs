//! The whole loop: orders, certificates, a token of fourteen signatures a second, the guard and the
//! limiter; and beside it the same with a guard that only watches.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use goodstanding::clock::{Clock, Stopwatch, SystemClock};
use goodstanding::ocsp::Serial;
use rcgen::{CertificateParams, DnType, DnValue, Issuer, KeyPair, SerialNumber};
use serde_json::{Value, json};

use crate::support::api::call;
use crate::support::eventually;
use crate::support::faulty::Control;
use crate::support::fleet::{Fleet, Told};
use crate::support::server::Server;
use crate::support::site::TOKEN_LABEL;

/// Answers last so long, and are due after `REFRESH`: slack of a minute.
const VALIDITY: Duration = Duration::from_secs(120);
const REFRESH: Duration = Duration::from_secs(60);
/// A pair of YubiHSM 2 signs so many a second with P-256.
const SLOW: f64 = 14.0;
const FAST: f64 = 140.0;
/// Counted on for the background: 0.8 · 14 − 1 = 10.2, of which 85 % carry 452 certificates.
const FLEET: usize = 350;
/// So that the end of what five in a pack carry comes in sight: 2,261, of which the lifetime of two days
/// leaves room for some 600 new ones a day.
const PACK: u32 = 5;
const LIFETIME: Duration = Duration::from_secs(2 * 86_400);
/// New certificates a second that are asked for.
const ASKED: f64 = 9.0;
/// Customers that ask side by side.
const CUSTOMERS: u64 = 3;
/// How much the multiplier rises in a quarter of an hour.
const SLOPE: f64 = 3.0;
/// How long the token is slow, and then fast.
const SHORTAGE: Duration = Duration::from_secs(170);
const PLENTY: Duration = Duration::from_secs(50);
/// How often the guard looks, and a little: what it finds is in force so much later at most.
const LOOK: f64 = 11.0;

/// How things stood at a moment.
struct Sample {
    at: f64,
    fleet: usize,
    stale: usize,
    /// Certificates whose answer is a pack.
    packed: usize,
    multiplier: f64,
    refresh: u64,
    pack: u64,
    asked: u64,
    accepted: u64,
}

#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    accepted: AtomicU64,
    /// When the first was refused, and how many renewals passed.
    refused_at: Mutex<Option<f64>>,
    refusal: Mutex<Option<Value>>,
    renewals: AtomicU64,
    /// Renewals that were refused, and answers that no client may see.
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

struct Outcome {
    samples: Vec<Sample>,
    tally: Tally,
}

fn order(fleet: &Fleet, name: &str) -> (u16, Value) {
    call(&fleet.site, "POST", "/v1/orders")
        .json(&json!({ "account": "acct-1", "identifiers": [name] }))
        .made()
}

fn capacity(fleet: &Fleet) -> Value {
    call(&fleet.site, "GET", "/v1/capacity").made().1
}

/// The test's authority, inside this process: thousands of certificates in a minute.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    subject: KeyPair,
    next: AtomicU64,
}

impl Authority {
    fn of(fleet: &Fleet) -> Self {
        let pem = std::fs::read_to_string(fleet.site.ca.key()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let country = DnValue::PrintableString("DE".try_into().unwrap());
        params.distinguished_name.push(DnType::CountryName, country);
        params.distinguished_name.push(DnType::OrganizationName, "Goodstanding Tests");
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        Self {
            issuer: Issuer::new(params, KeyPair::from_pem(&pem).unwrap()),
            subject: KeyPair::generate().unwrap(),
            next: AtomicU64::new(1),
        }
    }

    /// A certificate for a name, in DER, and its serial number.
    fn issue(&self, name: &str) -> (Vec<u8>, Serial) {
        let number = self.next.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        let serial = [&[0x5c; 8][..], &number].concat();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = SystemClock.now();
        let time = |seconds: i64| {
            let time = chrono::DateTime::from_timestamp(now.0 + seconds, 0).unwrap();
            let (year, month, day) =
                (chrono::Datelike::year(&time), chrono::Datelike::month(&time), chrono::Datelike::day(&time));
            rcgen::date_time_ymd(year, month as u8, day as u8)
        };
        (params.not_before, params.not_after) = (time(0), time(LIFETIME.as_secs().cast_signed()));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let made = params.signed_by(&self.subject, &self.issuer).unwrap();
        (made.der().to_vec(), Serial::from_unsigned(&serial).unwrap())
    }
}

/// Asks for certificates at a steady pace; each that is accepted is issued and handed in.
fn customers(
    fleet: &Fleet,
    authority: &Authority,
    tally: &Tally,
    watch: Stopwatch,
    known: &Mutex<Vec<Serial>>,
    first: u64,
) {
    let mut number = first;
    while !tally.stop.load(Ordering::SeqCst) {
        let due = Duration::from_secs_f64(number as f64 / ASKED);
        std::thread::sleep(due.saturating_sub(watch.elapsed()).min(Duration::from_millis(100)));
        if watch.elapsed() < due {
            continue;
        }
        let name = format!("host.customer{number}.example");
        number += CUSTOMERS;
        let (status, document) = order(fleet, &name);
        tally.asked.fetch_add(1, Ordering::SeqCst);
        match status {
            201 => {
                let (der, serial) = authority.issue(&name);
                let place = format!("/v1/orders/{}/certificate", document["id"]);
                let (status, told) =
                    call(&fleet.site, "POST", &place).body("application/pkix-cert", &der).made();
                if !matches!(status, 200..=202) {
                    lock(&tally.wrong).push(format!("the certificate of {name}: {status} {told}"));
                }
                tally.accepted.fetch_add(1, Ordering::SeqCst);
                lock(known).push(serial);
            }
            429 => {
                lock(&tally.refused_at).get_or_insert(watch.elapsed().as_secs_f64());
                *lock(&tally.refusal) = Some(document);
            }
            other => lock(&tally.wrong).push(format!("the order of {name}: {other} {document}")),
        }
    }
}

/// Renews the first certificate again and again, and asks for statuses.
fn others(fleet: &Fleet, tally: &Tally, known: &Mutex<Vec<Serial>>) {
    let asker = fleet.asker();
    let mut at = 0usize;
    while !tally.stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(200));
        at += 1;
        let serial = {
            let known = lock(known);
            known[at * 7_919 % known.len()]
        };
        match asker.ask(serial, None) {
            Ok(Told::Status { this_update, .. }) if SystemClock.now().since(this_update) <= VALIDITY => {}
            Ok(Told::Error("tryLater") | Told::Nothing(_)) => {}
            wrong => lock(&tally.wrong).push(format!("{serial}: {wrong:?}")),
        }
        if at.is_multiple_of(10) && tally.accepted.load(Ordering::SeqCst) > 2 {
            let (status, document) = order(fleet, "host.customer0.example");
            if status == 201 {
                tally.renewals.fetch_add(1, Ordering::SeqCst);
                call(&fleet.site, "DELETE", &format!("/v1/orders/{}", document["id"])).send();
            } else {
                lock(&tally.wrong).push(format!("a renewal: {status} {document}"));
            }
        }
    }
}

fn profile(fleet: &Fleet) {
    let text = "name = \"closed-loop\"\n[[limit]]\nname = \"capacity\"\ncounts = \"certificates\"\nper = \"everything\"\ntiers = [\"capacity/1d\"]\noverridable = false\n";
    std::fs::write(fleet.site.path("limits.toml"), text).unwrap();
}

/// Lets the guard have watched for a month, in which hardly anything was asked for: else it would take the
/// pace of minutes for that of days.
fn after_a_month(fleet: &Fleet) {
    let mut server = Server::start(&fleet.site);
    eventually("the guard's first look", Duration::from_secs(60), || {
        let capacity = capacity(fleet);
        (capacity["state"] != "blind").then_some(())
    });
    server.terminate();
    assert!(server.wait().success(), "{}", server.log());
    drop(server);
    let mut document: Value = serde_json::from_str(&fleet.guard().document).unwrap();
    let offered = &mut document["memory"]["offered"];
    assert!(offered["watched"].is_number(), "{document}");
    *offered = json!({ "events": 1.0, "watched": 30.0 * 86_400.0 });
    document["memory"]["multiplier"]["value"] = json!(1.0);
    fleet.keep_guard(&document.to_string());
}

fn sample(fleet: &Fleet, tally: &Tally, at: f64) -> Sample {
    let capacity = capacity(fleet);
    let now = SystemClock.now();
    let (mut fleet_size, mut stale, mut packed) = (0, 0, 0);
    for state in fleet.states() {
        fleet_size += 1;
        packed += usize::from(state.answer.as_ref().is_some_and(|answer| answer.pack.is_some()));
        stale += usize::from(state.answer.is_some_and(|answer| now.since(answer.this_update) > VALIDITY));
    }
    Sample {
        at,
        fleet: fleet_size,
        stale,
        packed,
        multiplier: capacity["multiplier"].as_f64().unwrap_or(f64::NAN),
        refresh: capacity["refresh_seconds"].as_u64().unwrap_or(0),
        pack: capacity["pack"].as_u64().unwrap_or(0),
        asked: tally.asked.load(Ordering::SeqCst),
        accepted: tally.accepted.load(Ordering::SeqCst),
    }
}

fn run(guarded: bool) -> Outcome {
    let mut fleet = Fleet::new(VALIDITY, REFRESH);
    fleet.lifetime = LIFETIME;
    profile(&fleet);
    let limits = fleet.site.path("limits.toml");
    fleet.site.extend(&format!(
        "[capacity]\npack_max = {PACK}\noutage = \"1m\"\ndrain = \"10m\"\nslope = {SLOPE:.1}\nlifetime = \"2d\"\nenforce = {guarded}\n[limits]\nprofile = \"{}\"\n",
        limits.display()
    ));
    let slow = Control { rate: [(TOKEN_LABEL.to_owned(), SLOW)].into(), ..fleet.faulty.sound() };
    fleet.faulty.set(&slow);
    let oldest = REFRESH.mul_f64(0.9);
    let serials = fleet.register_fleet(FLEET, |at| oldest.mul_f64(at as f64 / FLEET as f64));
    fleet.bench(&["--seconds", "3", "--sessions", "2", "--algorithm", "p256"]);
    after_a_month(&fleet);
    let server = Server::start(&fleet.site);
    let (tally, authority, watch) = (Tally::default(), Authority::of(&fleet), Stopwatch::start());
    let known = Mutex::new(serials);
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        // What is found wrong is told at the end; a thread that ends early must end the others too.
        struct Stops<'t>(&'t Tally);
        impl Drop for Stops<'_> {
            fn drop(&mut self) {
                self.0.stop.store(true, Ordering::SeqCst);
            }
        }
        let _stops = Stops(&tally);
        for first in 0..CUSTOMERS {
            let (fleet, authority, tally, known) = (&fleet, &authority, &tally, &known);
            scope.spawn(move || customers(fleet, authority, tally, watch, known, first));
        }
        scope.spawn(|| others(&fleet, &tally, &known));
        let mut fast = false;
        while watch.elapsed() < SHORTAGE + PLENTY {
            std::thread::sleep(Duration::from_secs(2));
            if !fast && watch.elapsed() >= SHORTAGE {
                fast = true;
                let control =
                    Control { rate: [(TOKEN_LABEL.to_owned(), FAST)].into(), ..fleet.faulty.sound() };
                fleet.faulty.set(&control);
            }
            samples.push(sample(&fleet, &tally, watch.elapsed().as_secs_f64()));
        }
    });
    drop(server);
    Outcome { samples, tally }
}

impl Outcome {
    fn table(&self) -> String {
        let mut text = "     s  fleet  stale      m  refresh  pack  asked  accepted\n".to_owned();
        for sample in self.samples.iter().step_by(4) {
            let Sample { at, fleet, stale, multiplier, refresh, pack, asked, accepted, .. } = sample;
            writeln!(
                text,
                "{at:6.0} {fleet:6} {stale:6} {multiplier:6.3} {refresh:8} {pack:5} {asked:6} {accepted:9}"
            )
            .unwrap();
        }
        text
    }

    /// When something was first so.
    fn first(&self, so: impl Fn(&Sample) -> bool) -> f64 {
        self.samples.iter().find(|sample| so(sample)).map_or(f64::INFINITY, |sample| sample.at)
    }
}

#[test]
fn slack_then_packs_then_the_limiter_keep_every_answer_fresh_where_without_the_guard_they_go_stale() {
    let (guarded, watching) = std::thread::scope(|scope| {
        let (guarded, watching) = (scope.spawn(|| run(true)), scope.spawn(|| run(false)));
        (guarded.join().unwrap(), watching.join().unwrap())
    });
    println!("with the guard\n{}\nwith a guard that only watches\n{}", guarded.table(), watching.table());
    let tally = &guarded.tally;
    assert_eq!(*lock(&tally.wrong), Vec::<String>::new(), "with the guard");
    let refused = lock(&tally.refused_at).expect("new certificates are refused at last");

    // In their order: accepted at first, slack, packs, and the throttle last.
    let slack = guarded.first(|sample| sample.refresh > REFRESH.as_secs());
    let packs = guarded.first(|sample| sample.pack > 1);
    let at_first = guarded.samples.iter().rfind(|sample| sample.at < slack).unwrap();
    // One a customer is under way.
    assert!(at_first.accepted > 10 && at_first.accepted + CUSTOMERS >= at_first.asked);
    assert!(slack < packs && packs < refused, "slack {slack}, packs {packs}, refused {refused}");
    let shortage = SHORTAGE.as_secs_f64();
    let throttled: Vec<_> =
        guarded.samples.iter().filter(|sample| (refused..shortage).contains(&sample.at)).collect();
    let last = throttled.last().expect("the throttle is seen at work");
    assert!((0.01..0.95).contains(&last.multiplier), "along the slope, and no cliff: {}", last.multiplier);
    assert!(last.accepted < last.asked, "{} of {}", last.accepted, last.asked);
    let refusal = lock(&tally.refusal).clone().unwrap();
    assert_eq!(
        (&refusal["cause"], &refusal["limit"]),
        (&json!("tightened"), &json!("capacity")),
        "{refusal}"
    );
    assert!(refusal["capacity"]["utilisation"].is_number(), "{refusal}");

    // Renewals at every moment, and no answer past its deadline.
    let renewals = tally.renewals.load(Ordering::SeqCst);
    assert!(renewals as f64 > (shortage + PLENTY.as_secs_f64()) / 4.0, "{renewals} renewals");
    let stale: BTreeMap<u64, usize> = guarded
        .samples
        .iter()
        .filter(|sample| sample.stale > 0)
        .map(|sample| (sample.at as u64, sample.stale))
        .collect();
    assert!(stale.is_empty(), "stale with the guard: {stale:?}");

    // The token is fast again: the multiplier rises by the slope and no faster.
    let plenty: Vec<_> = guarded.samples.iter().filter(|sample| sample.at > shortage).collect();
    let (low, high) = plenty.iter().fold((f64::INFINITY, 0.0f64), |(low, high), sample| {
        (low.min(sample.multiplier), high.max(sample.multiplier))
    });
    let span = PLENTY.as_secs_f64() + LOOK;
    assert!(
        high > low + 0.01 && high - low <= SLOPE * span / 900.0 + 0.005,
        "from {low} to {high} in {span} s"
    );
    assert!(plenty.last().unwrap().accepted > last.accepted, "the limiter opens");

    // The same without: nobody is refused, and answers go stale.
    let most = watching.samples.iter().map(|sample| sample.stale).max().unwrap();
    println!("stale at the most: 0 with the guard, {most} with one that only watches");
    assert!(lock(&watching.tally.refused_at).is_none(), "it limits nobody");
    assert!(watching.samples.iter().all(|sample| sample.packed == 0), "it packs nothing");
    assert!(guarded.samples.iter().any(|sample| sample.packed > 100), "the guard's packs are made");
    assert!(most > 50, "{most}");
}
