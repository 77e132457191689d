//! The registry of metrics and its text form.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// The metrics of this process. Components register their families while it is being put together
/// (`&mut`); after that it is shared and only read.
///
/// Every name begins with `goodstanding_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Registry::with_prefix("goodstanding") }
    }
}

impl Metrics {
    /// The Content-Type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// No families yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where families of the whole process are registered (`goodstanding_…`).
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Where one component registers its families (`goodstanding_{component}_…`).
    pub fn component(&mut self, component: &str) -> &mut Registry {
        self.registry.sub_registry_with_prefix(component)
    }

    /// Every family with its present values, in the OpenMetrics text format, which Prometheus reads.
    ///
    /// # Errors
    /// When a family's own encoder fails; writing to a string does not.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::with_capacity(16 * 1024);
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_component_registers_under_its_own_name() {
        let mut metrics = Metrics::new();
        let calls: Counter = Counter::default();
        metrics.component("signer").register("calls", "Signatures asked for", calls.clone());
        calls.inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("# TYPE goodstanding_signer_calls counter"), "{text}");
        assert!(text.contains("goodstanding_signer_calls_total 1"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
