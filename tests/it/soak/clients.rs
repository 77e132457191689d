//! The authority that registers and revokes, and the clients that ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use goodstanding::clock::{Clock, Stopwatch, SystemClock};
use goodstanding::ocsp::{CertStatus, Serial};

use super::Dice;
use crate::support::fleet::{Asker, Fleet, Told};

/// How long a change may take until no client is told the former state any more.
pub(super) const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long a new certificate may be unknown to clients.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// Clients that ask one question after the other, each so many a second.
const CLIENTS: u64 = 2;
const PAUSE: Duration = Duration::from_millis(10);

/// What is true, and what clients were told.
pub(super) struct Ledger {
    pub(super) known: RwLock<Vec<Serial>>,
    registered: RwLock<BTreeMap<Serial, Stopwatch>>,
    /// With the moment from which on it counts; none while it is being written.
    revoked: RwLock<BTreeMap<Serial, Option<Stopwatch>>>,
    validity: Duration,
    pub(super) looked_at: AtomicU64,
    pub(super) live: AtomicU64,
    pub(super) try_later: AtomicU64,
    pub(super) stale: AtomicU64,
    /// The age of the oldest answer that a client was given, in seconds.
    pub(super) oldest: AtomicU64,
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) unreachable: AtomicU64,
    /// From the revocation to the first client that was told so.
    pub(super) revocations: Mutex<Vec<Duration>>,
    /// From the registration to the first client that was told so.
    pub(super) registrations: Mutex<Vec<Duration>>,
    /// The responder is being restarted.
    pub(super) down: AtomicBool,
    pub(super) stop: AtomicBool,
}

impl Ledger {
    pub(super) fn new(serials: Vec<Serial>, validity: Duration) -> Self {
        Self {
            known: RwLock::new(serials),
            registered: RwLock::default(),
            revoked: RwLock::default(),
            validity,
            looked_at: AtomicU64::new(0),
            live: AtomicU64::new(0),
            try_later: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            wrong: Mutex::default(),
            unreachable: AtomicU64::new(0),
            revocations: Mutex::default(),
            registrations: Mutex::default(),
            down: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// How it stands.
    pub(super) fn line(&self) -> String {
        format!(
            "{} answers looked at, {} wrong, {} stale, {} tryLater, the oldest {} s",
            self.looked_at.load(Ordering::SeqCst),
            self.wrong.lock().unwrap().len(),
            self.stale.load(Ordering::SeqCst),
            self.try_later.load(Ordering::SeqCst),
            self.oldest.load(Ordering::SeqCst),
        )
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Holds what a client was told against what was true before it asked.
    fn judge(&self, serial: Serial, revoked: Option<Stopwatch>, told: Result<Told, String>) {
        let registered = self.registered.read().unwrap().get(&serial).copied();
        let new = registered.is_some_and(|since| since.elapsed() < KNOWN_WITHIN);
        let wrong = match told {
            Ok(Told::Nothing(why)) => {
                self.unreachable.fetch_add(1, Ordering::SeqCst);
                (!self.down.load(Ordering::SeqCst) && !is_of_a_restart(&why)).then_some(why)
            }
            Ok(Told::Status { status, this_update, nonce, .. }) => {
                self.looked_at.fetch_add(1, Ordering::SeqCst);
                self.live.fetch_add(u64::from(nonce), Ordering::SeqCst);
                let age = SystemClock.now().since(this_update);
                self.oldest.fetch_max(age.as_secs(), Ordering::SeqCst);
                self.stale.fetch_add(u64::from(age >= self.validity), Ordering::SeqCst);
                match (status, revoked) {
                    (CertStatus::Good, Some(since)) if since.elapsed() > SEEN_WITHIN => {
                        Some(format!("good {:.1?} after it was revoked", since.elapsed()))
                    }
                    (CertStatus::Good, _) => None,
                    // Also while it is being written: a client may be faster than the authority.
                    (CertStatus::Revoked(_), _) if self.is_revoked(&serial) => None,
                    (other, _) => Some(format!("{other:?}")),
                }
            }
            // C3: what a client may be told instead of an answer.
            Ok(Told::Error("tryLater" | "internalError")) => {
                self.try_later.fetch_add(1, Ordering::SeqCst);
                None
            }
            Ok(Told::Error("unauthorized")) if new => None,
            Ok(Told::Error(name)) => Some(name.to_owned()),
            Err(what) => Some(what),
        };
        if let Some(what) = wrong {
            println!("soak: WRONG {serial}: {what}");
            self.wrong.lock().unwrap().push(format!("{serial}: {what}"));
        }
    }

    fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.read().unwrap().contains_key(serial)
    }
}

/// A question that was under way when the responder ended.
fn is_of_a_restart(why: &str) -> bool {
    ["refused", "reset", "not an HTTP reply", "Broken pipe"].iter().any(|part| why.contains(part))
}

/// Threads that ask until the ledger is stopped.
pub(super) struct Clients(Vec<JoinHandle<()>>);

impl Clients {
    pub(super) fn start(asker: &Asker, ledger: &Arc<Ledger>, seed: u64) -> Self {
        let threads = (0..CLIENTS).map(|number| {
            let (asker, ledger) = (asker.clone(), Arc::clone(ledger));
            std::thread::spawn(move || ask(&asker, &ledger, Dice(seed ^ (number + 1))))
        });
        Self(threads.collect())
    }

    pub(super) fn finish(self) {
        self.0.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn ask(asker: &Asker, ledger: &Ledger, mut dice: Dice) {
    while !ledger.stopped() {
        let serial = {
            let known = ledger.known.read().unwrap();
            // One question in four is about the newest certificates.
            let newest = known.len().saturating_sub(200);
            let at = if dice.below(4) == 0 {
                newest + dice.below(known.len() - newest)
            } else {
                dice.below(known.len())
            };
            known[at]
        };
        let revoked = ledger.revoked.read().unwrap().get(&serial).copied().flatten();
        // And one in ten wants a live answer.
        let nonce = dice.roll().to_be_bytes().repeat(2);
        let nonce = (dice.below(10) == 0).then_some(&nonce[..]);
        let told = asker.ask(serial, nonce);
        ledger.judge(serial, revoked, told);
        std::thread::sleep(PAUSE);
    }
}

/// Registers a certificate and revokes one every second or so, and looks how soon clients see it.
pub(super) fn authority(fleet: &Fleet, ledger: &Ledger, seed: u64) {
    let mut dice = Dice(!seed);
    let asker = fleet.asker();
    let mut waiting: Vec<(Serial, Stopwatch, bool)> = Vec::new();
    let mut turns = 0u64;
    while !ledger.stopped() {
        turns += 1;
        if turns.is_multiple_of(10) {
            let serial = fleet.unregistered();
            ledger.registered.write().unwrap().insert(serial, Stopwatch::start());
            fleet.register(serial);
            ledger.known.write().unwrap().push(serial);
            waiting.push((serial, Stopwatch::start(), false));
        }
        if turns % 10 == 5 {
            let serial = {
                let known = ledger.known.read().unwrap();
                known[dice.below(known.len())]
            };
            if !ledger.is_revoked(&serial) && !waiting.iter().any(|(each, ..)| *each == serial) {
                ledger.revoked.write().unwrap().insert(serial, None);
                fleet.revoke(serial);
                ledger.revoked.write().unwrap().insert(serial, Some(Stopwatch::start()));
                waiting.push((serial, Stopwatch::start(), true));
            }
        }
        waiting.retain(|(serial, since, revocation)| {
            let Ok(Told::Status { status, .. }) = asker.ask(*serial, None) else { return true };
            let seen = if *revocation {
                matches!(status, CertStatus::Revoked(_))
            } else {
                status == CertStatus::Good
            };
            if seen {
                let times = if *revocation { &ledger.revocations } else { &ledger.registrations };
                times.lock().unwrap().push(since.elapsed());
            }
            !seen
        });
        std::thread::sleep(Duration::from_millis(100));
    }
}
