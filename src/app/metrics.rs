//! Metrics of the components that keep their own figures: read when they are scraped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::clock::{SharedClock, UnixTime};
use crate::presign::keeper::KeeperStats;
use crate::shelf::Shelf;
use crate::signer::Signer;
use crate::telemetry::{Encoded, Scrape};

/// Reads shelf, keeper and tokens at each scrape.
pub(super) struct Figures {
    pub(super) shelf: Arc<Shelf>,
    pub(super) keeper: Arc<KeeperStats>,
    pub(super) clock: SharedClock,
    pub(super) signers: Arc<arc_swap::ArcSwap<Vec<Signer>>>,
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let scrape = &mut Scrape::new(&mut encoder);
        let (shelf, keeper) = (&self.shelf, &self.keeper);
        let help = "Unexpired certificates on the shelf";
        scrape.gauge("shelf_certificates", help, shelf.certificates())?;
        let help = "Certificates on the shelf that have an answer";
        scrape.gauge("shelf_answers", help, shelf.answers())?;
        let help = "Memory that certificates and answers on the shelf take";
        scrape.gauge("shelf_memory_bytes", help, shelf.memory())?;
        let help = "Whether all of the store is on the shelf";
        scrape.gauge("shelf_complete", help, u32::from(shelf.is_complete()))?;
        let help = "Answers past nextUpdate, which are not served";
        scrape.gauge("shelf_expired_answers", help, keeper.expired.load(Ordering::Relaxed))?;
        let help = "When the store's changes were last read to their end, in Unix seconds";
        let read_at = keeper.feed_read_at.load(Ordering::Relaxed);
        scrape.gauge("store_feed_read_timestamp_seconds", help, read_at)?;
        let help = "Answers signed ahead and stored";
        scrape.counter("presign_answers", help, keeper.signed.load(Ordering::Relaxed))?;
        let help = "Attempts that gave no answer";
        scrape.counter("presign_failures", help, keeper.failed.load(Ordering::Relaxed))?;
        let help = "Certificates on their way through the pipeline";
        scrape.gauge("presign_under_way", help, keeper.under_way.load(Ordering::Relaxed))?;
        let oldest = keeper.oldest_due.load(Ordering::Relaxed);
        let late = if oldest == 0 { 0.0 } else { self.clock.now().since(UnixTime(oldest)).as_secs_f64() };
        let help = "How long the oldest waiting certificate has been due";
        scrape.seconds("presign_oldest_due", help, late)?;
        super::engine_figures::encode(scrape, &keeper.figures.load(), self.clock.now())?;
        super::token_metrics::encode(&self.signers.load(), scrape)
    }
}
