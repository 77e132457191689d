//! A client that asks all the time, whatever the token does, and holds every answer against what is
//! known: no wrong status, no stale answer, nothing forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::{CertStatus, Serial};

use crate::support::fleet::{Asker, Told};

/// How long a change made by another process may take to be seen by clients, on a busy machine.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

#[derive(Clone, Copy)]
struct Known {
    since: Stopwatch,
    revoked: Option<Stopwatch>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<BTreeMap<Serial, Known>>,
    wrong: Mutex<Vec<String>>,
    asked: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// The client.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start(asker: Asker) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || watch(&asker, &theirs));
        Self { shared, thread: Some(thread) }
    }

    /// From now on the certificate is known to the responder.
    pub(super) fn knows(&self, serials: &[Serial]) {
        let known = Known { since: Stopwatch::start(), revoked: None };
        self.shared.known.lock().unwrap().extend(serials.iter().map(|serial| (*serial, known)));
    }

    /// From now on the certificate is revoked.
    pub(super) fn revoked(&self, serial: Serial) {
        self.shared.known.lock().unwrap().get_mut(&serial).unwrap().revoked = Some(Stopwatch::start());
    }

    /// Stops, and tells how many questions were answered and what was wrong with the answers.
    pub(super) fn finish(mut self) -> (u64, Vec<String>) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        (self.shared.answered.load(Ordering::SeqCst), std::mem::take(&mut *self.shared.wrong.lock().unwrap()))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn watch(asker: &Asker, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        let all: Vec<_> =
            shared.known.lock().unwrap().iter().map(|(serial, known)| (*serial, *known)).collect();
        let asked = shared.asked.fetch_add(1, Ordering::SeqCst) as usize;
        // Half of the questions are about the newest ones, which something happens to.
        let newest = all.len().saturating_sub(1 + asked / 2 % 12);
        let at = if asked.is_multiple_of(2) { newest } else { asked };
        if let Some((serial, before)) = (!all.is_empty()).then(|| all[at % all.len()]) {
            match asker.ask(serial, None) {
                Ok(Told::Nothing(_)) => {}
                Ok(told) => {
                    shared.answered.fetch_add(1, Ordering::SeqCst);
                    if let Some(wrong) = judge(&before, &told) {
                        shared.wrong.lock().unwrap().push(format!("{serial}: {wrong}"));
                    }
                }
                Err(wrong) => shared.wrong.lock().unwrap().push(wrong),
            }
        }
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// What is wrong with an answer, by what was known before the question was asked.
fn judge(known: &Known, told: &Told) -> Option<String> {
    let long_ago = |since: &Stopwatch| since.elapsed() > SEEN_WITHIN + Duration::from_secs(5);
    match told {
        Told::Status { status: CertStatus::Revoked(_), .. } if known.revoked.is_some() => None,
        Told::Status { status: CertStatus::Good, .. } => {
            let revoked = known.revoked.as_ref().filter(|since| since.elapsed() > SEEN_WITHIN)?;
            Some(format!("good {:?} after it was revoked", revoked.elapsed()))
        }
        // C3: what a client may be told instead of an answer.
        Told::Error("tryLater" | "internalError") => None,
        Told::Error("unauthorized") if !long_ago(&known.since) => None,
        other => Some(format!("{other:?}")),
    }
}
