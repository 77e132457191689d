//! Counters and histograms for the request path: each thread counts on cache lines of its own, and a
//! scrape adds them up. One shared line would cost two cores more than counting itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Threads beyond this number share lines again: right, only slower.
const SHARDS: usize = 16;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn shard() -> usize {
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// Two cache lines: adjacent ones are fetched in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Line([AtomicU64; 16]);

/// `SHARDS` rows of `width` cells, each row on lines of its own.
#[derive(Clone, Debug)]
struct Cells {
    lines: Arc<[Line]>,
    lines_a_shard: usize,
}

impl Cells {
    fn new(width: usize) -> Self {
        let lines_a_shard = width.div_ceil(16).max(1);
        Self { lines: (0..SHARDS * lines_a_shard).map(|_| Line::default()).collect(), lines_a_shard }
    }

    fn add(&self, shard: usize, cell: usize, amount: u64) {
        let line = &self.lines[shard * self.lines_a_shard + cell / 16];
        line.0[cell % 16].fetch_add(amount, Ordering::Relaxed);
    }

    fn sum(&self, cell: usize) -> u64 {
        (0..SHARDS)
            .map(|shard| {
                self.lines[shard * self.lines_a_shard + cell / 16].0[cell % 16].load(Ordering::Relaxed)
            })
            .fold(0, u64::wrapping_add)
    }
}

/// Counters with a fixed set of label combinations, counted by their position in it. A clone counts
/// on the same cells.
#[derive(Clone)]
pub struct ShardedCounters {
    labels: Arc<[Vec<(&'static str, &'static str)>]>,
    cells: Cells,
}

impl ShardedCounters {
    /// One counter for each set of labels; each set names the same label keys in the same order.
    #[must_use]
    pub fn new(labels: Vec<Vec<(&'static str, &'static str)>>) -> Self {
        let cells = Cells::new(labels.len());
        Self { labels: labels.into(), cells }
    }

    /// Adds one to the counter at `position`.
    ///
    /// # Panics
    /// When there is no such position.
    pub fn inc(&self, position: usize) {
        assert!(position < self.labels.len(), "a counter outside its family");
        self.cells.add(shard(), position, 1);
    }

    /// The present value of the counter at `position`.
    #[must_use]
    pub fn get(&self, position: usize) -> u64 {
        self.cells.sum(position)
    }
}

impl fmt::Debug for ShardedCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.labels.len()).map(|n| (&self.labels[n], self.get(n)))).finish()
    }
}

impl TypedMetric for ShardedCounters {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for ShardedCounters {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (position, labels) in self.labels.iter().enumerate() {
            let value = self.get(position);
            if labels.is_empty() {
                encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
            } else {
                let labels = labels.as_slice();
                encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A histogram of durations. A clone records into the same cells.
#[derive(Clone)]
pub struct ShardedHistogram {
    bounds_nanos: &'static [u64],
    cells: Cells,
}

/// From 5 µs (an answer from memory) to 10 s (a live one behind a busy token).
const REQUEST_BOUNDS_NANOS: [u64; 14] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

impl ShardedHistogram {
    /// A histogram for the time a request takes: bounds from 5 µs to 10 s.
    #[must_use]
    pub fn for_requests() -> Self {
        Self::new(&REQUEST_BOUNDS_NANOS)
    }

    /// A histogram with these upper bounds, in nanoseconds, rising.
    #[must_use]
    pub fn new(bounds_nanos: &'static [u64]) -> Self {
        // the cells: one a bound, one past the last, the sum
        Self { bounds_nanos, cells: Cells::new(bounds_nanos.len() + 2) }
    }

    /// Records one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds_nanos.iter().position(|&bound| nanos <= bound);
        let shard = shard();
        self.cells.add(shard, bucket.unwrap_or(self.bounds_nanos.len()), 1);
        self.cells.add(shard, self.bounds_nanos.len() + 1, nanos);
    }

    /// How many durations were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        (0..=self.bounds_nanos.len()).map(|bucket| self.cells.sum(bucket)).sum()
    }
}

impl fmt::Debug for ShardedHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedHistogram").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl TypedMetric for ShardedHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for ShardedHistogram {
    #[expect(clippy::cast_precision_loss, reason = "the text format carries floats")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let ends = self.bounds_nanos.iter().map(|&nanos| nanos as f64 / 1e9).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            ends.enumerate().map(|(bucket, end)| (end, self.cells.sum(bucket))).collect();
        let count = buckets.iter().map(|&(_, count)| count).sum();
        let sum = self.cells.sum(self.bounds_nanos.len() + 1) as f64 / 1e9;
        let no_exemplars: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
        encoder.encode_histogram(sum, count, &buckets, no_exemplars)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Unit;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn counts_of_many_threads_add_up() {
        let labels = (0..40).map(|_| vec![("kind", "x")]).collect();
        let counters = ShardedCounters::new(labels);
        std::thread::scope(|scope| {
            for _ in 0..SHARDS + 3 {
                scope.spawn(|| (0..1000).for_each(|_| counters.inc(37)));
            }
        });
        assert_eq!(counters.get(37), 1000 * (SHARDS as u64 + 3));
        assert_eq!(counters.get(36), 0);
    }

    #[test]
    fn the_text_form_has_labels_units_and_cumulated_buckets() {
        let mut metrics = Metrics::new();
        let counters = ShardedCounters::new(vec![vec![("method", "get")], vec![("method", "post")]]);
        let histogram = ShardedHistogram::for_requests();
        metrics.registry_mut().register("requests", "Requests", counters.clone());
        metrics.registry_mut().register_with_unit(
            "request_duration",
            "Time",
            Unit::Seconds,
            histogram.clone(),
        );
        counters.inc(1);
        histogram.observe(Duration::from_micros(3));
        histogram.observe(Duration::from_micros(30));
        histogram.observe(Duration::from_secs(60));
        let text = metrics.render().unwrap();
        for line in [
            "goodstanding_requests_total{method=\"get\"} 0",
            "goodstanding_requests_total{method=\"post\"} 1",
            "goodstanding_request_duration_seconds_count 3",
            "goodstanding_request_duration_seconds_bucket{le=\"0.000005\"} 1",
            "goodstanding_request_duration_seconds_bucket{le=\"0.00005\"} 2",
            "goodstanding_request_duration_seconds_bucket{le=\"10.0\"} 2",
            "goodstanding_request_duration_seconds_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(text.lines().any(|present| present == line), "{line} is missing in\n{text}");
        }
        assert_eq!(histogram.count(), 3);
    }
}
