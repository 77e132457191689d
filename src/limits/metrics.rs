//! The limiter's figures for Prometheus, read at each scrape.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::Limiter;
use super::service::Counters;
use crate::telemetry::{Encoded, Metrics, Scrape};

/// Holds the counters and not the limiter, which would never end then.
#[derive(Debug)]
struct Figures(Arc<Counters>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let tally = self.0.tally();
        let mut scrape = Scrape::new(&mut encoder);
        for (name, help, value) in [
            ("limits_new_orders", "New certificates asked for, renewals left out", tally.new_orders),
            ("limits_new_orders_refused", "New certificates refused", tally.new_orders_refused),
            (
                "limits_new_orders_refused_for_capacity",
                "New certificates refused because of capacity alone",
                tally.new_orders_refused_for_capacity,
            ),
            ("limits_renewals", "Renewals asked for", tally.renewals),
            ("limits_renewals_refused", "Renewals refused", tally.renewals_refused),
            ("limits_registrations", "Accounts asked for", tally.registrations),
            ("limits_registrations_refused", "Accounts refused", tally.registrations_refused),
            (
                "limits_shadow_refusals",
                "What limits in shadow mode would have refused",
                tally.shadow_refusals,
            ),
            ("limits_committed", "Certificates committed to their orders", tally.committed),
            ("limits_released", "Orders given up", tally.released),
            ("limits_groups", "Groups of decisions written to the ledger", tally.groups),
            (
                "limits_groups_repeated",
                "Groups decided again because another process had written meanwhile",
                tally.groups_repeated,
            ),
        ] {
            scrape.counter(name, help, value)?;
        }
        Ok(())
    }
}

impl Limiter {
    /// Registers the limiter's figures.
    pub fn register_metrics(&self, metrics: &mut Metrics) {
        metrics.registry_mut().register_collector(Box::new(Figures(Arc::clone(self.counters()))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn every_figure_is_scraped() {
        let counters = Arc::new(Counters::default());
        counters.new_orders_refused.store(3, Ordering::Relaxed);
        let mut metrics = Metrics::new();
        metrics.registry_mut().register_collector(Box::new(Figures(counters)));
        let text = metrics.render().unwrap();
        assert!(text.contains("goodstanding_limits_new_orders_refused_total 3\n"), "{text}");
        assert_eq!(text.matches("# TYPE goodstanding_limits_").count(), 12, "{text}");
    }
}
