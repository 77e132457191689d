//! Where the audit log ends, told outside of the database: who cuts off its end there cannot take back
//! what the log file and the metrics have said.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::store::audit::AuditHead;
use crate::telemetry::{Encoded, Scrape};

/// How often the end is read, for the metrics.
const READ_EVERY: Duration = Duration::from_secs(15);

/// How many of these pass between two lines in the log file: an hour.
const LOGGED_EVERY: u32 = 240;

/// Reads the end of the audit log and tells it.
pub(super) struct AuditHeadWatch {
    store: Arc<dyn Store>,
    head: Arc<ArcSwap<AuditHead>>,
}

impl AuditHeadWatch {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, head: Arc::default() }
    }

    /// Where the log ended when it was last read.
    pub(super) fn head(&self) -> AuditHead {
        **self.head.load()
    }

    /// The metrics.
    pub(super) fn figures(&self) -> AuditFigures {
        AuditFigures(Arc::clone(&self.head))
    }

    /// Tells the end at the start, each hour, and at the stop.
    pub(super) async fn watch(&self, shutdown: Shutdown) {
        let mut round = 0;
        loop {
            self.read(round == 0).await;
            round = (round + 1) % LOGGED_EVERY;
            tokio::select! {
                () = tokio::time::sleep(READ_EVERY) => {}
                () = shutdown.stopped() => break,
            }
        }
        self.read(true).await;
    }

    async fn read(&self, log: bool) {
        match self.store.audit_head().await {
            Ok(head) => {
                self.head.store(Arc::new(head));
                if log {
                    tracing::info!(anchor = %head, "the audit log ends here");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the end of the audit log"),
        }
    }
}

/// The end of the audit log, as metrics.
pub(super) struct AuditFigures(Arc<ArcSwap<AuditHead>>);

impl fmt::Debug for AuditFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditFigures")
    }
}

impl Collector for AuditFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let head = self.0.load();
        let mut scrape = Scrape::new(&mut encoder);
        scrape.gauge("audit_lines", "The number of the last line of the audit log", head.number)?;
        let labels = [("number", head.number.to_string()), ("sha256", head.hash.to_string())];
        scrape.gauges("audit_head", "The hash of the last line of the audit log", None, [(labels, 1i64)])
    }
}
