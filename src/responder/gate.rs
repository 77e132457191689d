//! The one gate that all live signing passes: bounded in number and rate, identical work done once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use crate::clock::Stopwatch;

/// How much is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Pieces of work under way at once.
    pub(super) in_flight: usize,
    /// Pieces of work a second; as many may come at once after a quiet second.
    pub(super) per_second: u32,
}

/// Why a piece of work was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Every place is taken.
    #[error("{0} live signatures are under way, as many as are allowed")]
    Full(usize),
    /// The budget of this second is spent.
    #[error("the budget of {0} live signatures a second is spent")]
    Spent(u32),
}

/// A gate for work that is told apart by `K` and results in a `V`.
#[derive(Debug)]
pub(super) struct Gate<K, V> {
    limits: Limits,
    places: Semaphore,
    budget: Mutex<Budget>,
    under_way: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

/// A token bucket.
#[derive(Debug)]
struct Budget {
    left: f64,
    filled_at: f64,
    watch: Stopwatch,
}

impl Budget {
    fn take(&mut self, per_second: u32) -> bool {
        let now = self.watch.elapsed().as_secs_f64();
        let rate = f64::from(per_second);
        self.left = (self.left + (now - self.filled_at) * rate).min(rate);
        self.filled_at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole between any two statements, so a panic elsewhere left it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + Eq + Hash, V: Clone> Gate<K, V> {
    pub(super) fn new(limits: Limits) -> Self {
        let budget = Budget { left: f64::from(limits.per_second), filled_at: 0.0, watch: Stopwatch::start() };
        Self {
            limits,
            places: Semaphore::new(limits.in_flight),
            budget: Mutex::new(budget),
            under_way: Mutex::default(),
        }
    }

    /// The result of the work named `key`: of that under way already, else of `work`, if it is let
    /// through.
    pub(super) async fn pass<F: Future<Output = V>>(
        &self,
        key: K,
        work: impl FnOnce() -> F,
    ) -> Result<V, Refused> {
        let cell = Arc::clone(lock(&self.under_way).entry(key.clone()).or_default());
        let begin = || async {
            let _place = self.places.try_acquire().map_err(|_| Refused::Full(self.limits.in_flight))?;
            if !lock(&self.budget).take(self.limits.per_second) {
                return Err(Refused::Spent(self.limits.per_second));
            }
            Ok(work().await)
        };
        let leaving = Leaving { gate: self, key, cell: Arc::clone(&cell) };
        let result = cell.get_or_try_init(begin).await.cloned();
        drop(leaving);
        result
    }
}

/// Takes the work off the list when nobody waits for it any more, also when a client goes away.
struct Leaving<'g, K: Eq + Hash, V> {
    gate: &'g Gate<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Eq + Hash, V> Drop for Leaving<'_, K, V> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.gate.under_way);
        let listed = under_way.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // Held by the list, by this guard and by the caller: three when nobody else waits. A result
        // is for those who asked while it was made, so it leaves the list with the first of them.
        if listed && (self.cell.initialized() || Arc::strong_count(&self.cell) <= 3) {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn gate(in_flight: usize, per_second: u32) -> Gate<u32, u32> {
        Gate::new(Limits { in_flight, per_second })
    }

    #[tokio::test]
    async fn identical_work_is_done_once() {
        let gate = Arc::new(gate(1, 1));
        let begun = Arc::new(AtomicUsize::new(0));
        let asked = (0..100).map(|_| {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            tokio::spawn(async move {
                let work = || async {
                    begun.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    42
                };
                gate.pass(7, work).await
            })
        });
        for each in asked.collect::<Vec<_>>() {
            assert_eq!(each.await.unwrap(), Ok(42));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert!(lock(&gate.under_way).is_empty());
    }

    #[tokio::test]
    async fn more_than_the_budget_is_refused_at_once() {
        let gate = gate(100, 10);
        let mut passed = 0;
        for key in 0..1_000 {
            passed += usize::from(gate.pass(key, || async { 1 }).await.is_ok());
        }
        // A thousand empty pieces take far less than a second, in which ten more are earned.
        assert!((10..20).contains(&passed), "{passed}");
        assert_eq!(gate.pass(2_000, || async { 1 }).await, Err(Refused::Spent(10)));
        assert!(lock(&gate.under_way).is_empty());
    }

    #[tokio::test]
    async fn more_than_fits_at_once_is_refused_and_places_come_free() {
        let gate = Arc::new(gate(2, 1_000));
        let held = (0..2).map(|key| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                gate.pass(key, || tokio::time::sleep(Duration::from_millis(80)).map(9)).await
            })
        });
        let held: Vec<_> = held.collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(gate.pass(5, || async { 1 }).await, Err(Refused::Full(2)));
        for each in held {
            assert_eq!(each.await.unwrap(), Ok(9));
        }
        assert_eq!(gate.pass(5, || async { 1 }).await, Ok(1));
    }

    #[tokio::test]
    async fn a_client_that_goes_away_leaves_nothing_behind() {
        let gate = gate(1, 1_000);
        let stuck = gate.pass(1, std::future::pending);
        assert!(tokio::time::timeout(Duration::from_millis(20), stuck).await.is_err());
        assert!(lock(&gate.under_way).is_empty());
        assert_eq!(gate.pass(1, || async { 3 }).await, Ok(3));
    }

    trait Map: Future<Output = ()> + Sized {
        async fn map(self, value: u32) -> u32 {
            self.await;
            value
        }
    }

    impl<F: Future<Output = ()>> Map for F {}
}
