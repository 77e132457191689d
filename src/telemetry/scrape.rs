//! Writing metric families at a scrape, for collectors that read figures which are kept elsewhere.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, NoLabelSet,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Unit;

/// What writing a family comes to.
pub type Encoded = Result<(), fmt::Error>;

/// A distribution as it is written: the sum, and how many values are at most each bound and above the one
/// before.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// The sum of all values.
    pub sum: f64,
    /// Bounds and counts; the last bound is infinite.
    pub classes: Vec<(f64, u64)>,
}

/// Where a collector writes its families.
pub struct Scrape<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl fmt::Debug for Scrape<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl<'a, 'e> Scrape<'a, 'e> {
    /// One scrape.
    pub fn new(encoder: &'a mut DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// A gauge without labels.
    ///
    /// # Errors
    /// When the text cannot be written; so everywhere here.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> Encoded {
        let family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }

    /// A gauge in seconds, without labels.
    ///
    /// # Errors
    /// As [`Scrape::gauge`].
    pub fn seconds(&mut self, name: &str, help: &str, value: f64) -> Encoded {
        let family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }

    /// A counter without labels.
    ///
    /// # Errors
    /// As [`Scrape::gauge`].
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> Encoded {
        let family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(family)
    }

    /// A family of gauges by label.
    ///
    /// # Errors
    /// As [`Scrape::gauge`].
    pub fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Encoded {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, unit, values)
    }

    /// A family of counters by label.
    ///
    /// # Errors
    /// As [`Scrape::gauge`].
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> Encoded {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, None, values)
    }

    fn family<L: EncodeLabelSet, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl Iterator<Item = (L, M)>,
    ) -> Encoded {
        let mut family = self.0.encode_descriptor(name, help, unit, M::TYPE)?;
        for (labels, metric) in values {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A family of histograms by label.
    ///
    /// # Errors
    /// As [`Scrape::gauge`].
    pub fn histograms<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (L, Distribution)>,
    ) -> Encoded {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, Distribution { sum, classes }) in values {
            let count = classes.iter().map(|class| class.1).sum();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &classes, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;

    use super::*;
    use crate::telemetry::Metrics;

    #[derive(Debug)]
    struct Figures;

    impl Collector for Figures {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
            let mut scrape = Scrape::new(&mut encoder);
            scrape.gauge("depth", "How deep", 3u64)?;
            scrape.seconds("left", "How long", 1.5)?;
            scrape.counter("done", "How many", 7)?;
            scrape.gauges("rooms", "By floor", None, [([("floor", "1")], 2i64), ([("floor", "2")], 4)])?;
            scrape.counters("calls", "By name", [([("name", "a")], 9)])?;
            let classes = vec![(1.0, 2), (f64::INFINITY, 1)];
            let all = Distribution { sum: 5.0, classes };
            scrape.histograms("time", "Taken", Some(&Unit::Seconds), [([("name", "a")], all)])
        }
    }

    #[test]
    fn each_kind_of_family_is_written_with_its_type_unit_and_labels() {
        let mut metrics = Metrics::new();
        metrics.registry_mut().register_collector(Box::new(Figures));
        let text = metrics.render().unwrap();
        for line in [
            "# TYPE goodstanding_depth gauge",
            "goodstanding_depth 3",
            "goodstanding_left_seconds 1.5",
            "# UNIT goodstanding_left_seconds seconds",
            "goodstanding_done_total 7",
            "goodstanding_rooms{floor=\"2\"} 4",
            "# TYPE goodstanding_calls counter",
            "goodstanding_calls_total{name=\"a\"} 9",
            "goodstanding_time_seconds_bucket{le=\"1.0\",name=\"a\"} 2",
            "goodstanding_time_seconds_bucket{le=\"+Inf\",name=\"a\"} 3",
            "goodstanding_time_seconds_sum{name=\"a\"} 5.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
