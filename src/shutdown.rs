//! One stop token for the whole process, and the tasks that must end before it does.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells every component to stop, and waits until all have.
///
/// Cloning shares the same stop. A component keeps a clone, watches [`Shutdown::stopped`], and
/// spawns what must finish through [`Shutdown::spawn`].
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A stop that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to stop. Asking again changes nothing.
    pub fn stop(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// Whether the stop was asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns once the stop is asked for.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    /// Runs `task` and counts it among those [`Shutdown::drained`] waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits until every spawned task has ended, at most `patience`. Returns whether all did.
    pub async fn drained(&self, patience: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_the_work_under_way() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let work = shutdown.spawn(async move {
            inner.stopped().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            7
        });
        shutdown.stop();
        assert!(shutdown.is_stopped());
        assert!(shutdown.drained(Duration::from_secs(5)).await);
        assert_eq!(work.await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_gives_up_on_a_task_that_never_ends() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        shutdown.stop();
        assert!(!shutdown.drained(Duration::from_secs(1)).await);
    }
}
