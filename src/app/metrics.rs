//! Metrics of the components that keep their own figures: read when they are scraped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::clock::{SharedClock, UnixTime};
use crate::presign::keeper::KeeperStats;
use crate::shelf::Shelf;
use crate::signer::Signer;

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

type Encoded = Result<(), std::fmt::Error>;

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Encoded {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Encoded {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let encoder = &mut encoder;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        gauge(
            encoder,
            "shelf_certificates",
            "Unexpired certificates on the shelf",
            count(self.shelf.certificates()),
        )?;
        gauge(
            encoder,
            "shelf_answers",
            "Certificates on the shelf that have an answer",
            count(self.shelf.answers()),
        )?;
        gauge(
            encoder,
            "shelf_memory_bytes",
            "Memory that certificates and answers on the shelf take",
            count(self.shelf.memory()),
        )?;
        gauge(
            encoder,
            "shelf_complete",
            "Whether all of the store is on the shelf",
            i64::from(self.shelf.is_complete()),
        )?;
        let keeper = &self.keeper;
        let expired = i64::try_from(keeper.expired.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        gauge(encoder, "shelf_expired_answers", "Answers past nextUpdate, which are not served", expired)?;
        let read_at = keeper.feed_read_at.load(Ordering::Relaxed);
        let help = "When the store's changes were last read to their end, in Unix seconds";
        gauge(encoder, "store_feed_read_timestamp_seconds", help, read_at)?;
        counter(
            encoder,
            "presign_answers",
            "Answers signed ahead and stored",
            keeper.signed.load(Ordering::Relaxed),
        )?;
        counter(
            encoder,
            "presign_failures",
            "Attempts that gave no answer",
            keeper.failed.load(Ordering::Relaxed),
        )?;
        let under_way = i64::try_from(keeper.under_way.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        gauge(encoder, "presign_under_way", "Certificates on their way through the pipeline", under_way)?;
        let oldest = keeper.oldest_due.load(Ordering::Relaxed);
        let late = if oldest == 0 { 0.0 } else { self.clock.now().since(UnixTime(oldest)).as_secs_f64() };
        let late = ConstGauge::new(late);
        let help = "How long the oldest waiting certificate has been due";
        late.encode(encoder.encode_descriptor(
            "presign_oldest_due",
            help,
            Some(&Unit::Seconds),
            late.metric_type(),
        )?)?;
        super::engine_figures::encode(encoder, &keeper.figures.load(), self.clock.now())?;
        super::token_metrics::encode(&self.signers.load(), encoder)
    }
}
