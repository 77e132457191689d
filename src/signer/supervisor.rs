//! The thread that watches the others: it never calls the module itself, so it cannot hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::handle::{add_worker, spawn};
use super::module::lock;
use super::pool::Pool;
use crate::clock::Stopwatch;

/// Watches until the signer is stopped, then sees it off: sessions, verifiers, module.
pub(crate) fn run(pool: &Arc<Pool>, verifiers: Vec<JoinHandle<()>>, ending: &watch::Sender<bool>) {
    let tick = (pool.settings.call_timeout / 8).clamp(Duration::from_millis(5), Duration::from_millis(500));
    while !pool.is_stopping() {
        watch(pool);
        pool.wait_for_change(tick);
    }
    // Session threads finish what waits, however long the queue; only hung calls are not waited for.
    while pool.crew_size().0 > 0 {
        watch(pool);
        pool.wait_for_change(tick);
    }
    pool.verification.close();
    for verifier in verifiers {
        if verifier.join().is_err() {
            tracing::error!(token = %pool.token, "a verifier thread panicked");
        }
    }
    pool.set_stopped();
    leave(pool);
    ending.send_replace(true);
}

fn watch(pool: &Arc<Pool>) {
    for _ in 0..pool.watch_calls() {
        if let Err(error) = add_worker(pool) {
            tracing::error!(token = %pool.token, %error, "a session thread cannot be replaced");
        }
    }
}

/// Closes the last session and leaves the module, on a thread that may hang, with the usual limit.
fn leave(pool: &Arc<Pool>) {
    let done = Arc::new(AtomicBool::new(false));
    let (theirs, flag) = (Arc::clone(pool), Arc::clone(&done));
    let leaving = spawn(&pool.settings, "end", move || {
        theirs.drop_keeper();
        let module = lock(&theirs.module).take();
        drop(module);
        flag.store(true, Ordering::SeqCst);
    });
    let waited = Stopwatch::start();
    while leaving.is_ok() && !done.load(Ordering::SeqCst) && waited.elapsed() < pool.settings.call_timeout {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !done.load(Ordering::SeqCst) {
        tracing::warn!(token = %pool.token, "closing the last session does not come back; left as it is");
    }
}
