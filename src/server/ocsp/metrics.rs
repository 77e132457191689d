//! What the endpoint counts.

use std::time::Duration;

use hyper::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use super::connection::Cut;
use crate::responder::{Answer, Outcome};
use crate::telemetry::{Metrics, ShardedCounters, ShardedHistogram};

/// The labels of methods; what is no GET, HEAD or POST gets no answer to count.
const METHODS: [&str; 3] = ["get", "head", "post"];

/// The metric families of the OCSP endpoint. Clones count into the same families.
#[derive(Clone, Debug)]
pub struct EndpointMetrics {
    requests: ShardedCounters,
    durations: ShardedHistogram,
    not_modified: ShardedCounters,
    stale: ShardedCounters,
    http_errors: Family<StatusLabel, Counter>,
    pub(super) open: Gauge,
    pub(super) accepted: Counter,
    pub(super) waited: Counter,
    pub(super) handed_over: Counter,
    pub(super) accept_errors: Counter,
    cut: Family<ReasonLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl EndpointMetrics {
    /// Registers the families, `goodstanding_ocsp_…` for answers and `goodstanding_http_…` for connections.
    #[must_use]
    pub fn register(metrics: &mut Metrics) -> Self {
        let labels = METHODS.iter().flat_map(|method| {
            Outcome::ALL.map(|outcome| vec![("method", *method), ("outcome", outcome.name())])
        });
        let this = Self {
            requests: ShardedCounters::new(labels.collect()),
            durations: ShardedHistogram::for_requests(),
            not_modified: ShardedCounters::new(vec![vec![]]),
            stale: ShardedCounters::new(vec![vec![]]),
            http_errors: Family::default(),
            open: Gauge::default(),
            accepted: Counter::default(),
            waited: Counter::default(),
            handed_over: Counter::default(),
            accept_errors: Counter::default(),
            cut: Family::default(),
        };
        let ocsp = metrics.component("ocsp");
        ocsp.register("requests", "OCSP requests answered, by method and outcome", this.requests.clone());
        ocsp.register_with_unit(
            "request_duration",
            "From a request's head to its answer, without the sending",
            Unit::Seconds,
            this.durations.clone(),
        );
        ocsp.register(
            "not_modified",
            "Answers the client already held, sent as 304; counted among the requests too",
            this.not_modified.clone(),
        );
        metrics.registry_mut().register(
            "stale_answers_served",
            "Answers served although older than the issuer's legal deadline: they were not signed again in time",
            this.stale.clone(),
        );
        let http = metrics.component("http");
        http.register("errors", "HTTP errors sent, by status", this.http_errors.clone());
        http.register("open_connections", "Connections open now", this.open.clone());
        http.register("connections", "Connections accepted", this.accepted.clone());
        http.register(
            "connections_waited",
            "Connections that had to wait because the connection limit was reached",
            this.waited.clone(),
        );
        http.register(
            "connections_handed_over",
            "Connections on which something else came than ordinary requests, and that hyper served from there on",
            this.handed_over.clone(),
        );
        http.register(
            "accept_errors",
            "Connections the system could not hand over, mostly for want of file descriptors",
            this.accept_errors.clone(),
        );
        http.register(
            "connections_cut",
            "Connections closed by this side because a time limit ran out, by what they were waiting in",
            this.cut.clone(),
        );
        this
    }

    /// Counts one answer.
    pub(super) fn answered(&self, method: &Method, answer: &Answer, took: Duration) {
        let row = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            _ => 2,
        };
        self.requests.inc(row * Outcome::ALL.len() + answer.outcome as usize);
        self.durations.observe(took);
        if answer.is_stale {
            self.stale.inc(0);
        }
    }

    /// Counts an answer that went out as 304.
    pub(super) fn not_modified(&self) {
        self.not_modified.inc(0);
    }

    /// Counts an HTTP error.
    pub(super) fn http_error(&self, status: StatusCode) {
        self.http_errors.get_or_create(&StatusLabel { status: status.as_u16() }).inc();
    }

    /// Counts a connection cut for its slowness.
    pub(super) fn cut(&self, cut: Cut) {
        self.cut.get_or_create(&ReasonLabel { reason: cut.name() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn each_answer_is_counted_under_its_method_and_outcome() {
        let mut metrics = Metrics::new();
        let endpoint = EndpointMetrics::register(&mut metrics);
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at, "the order of Outcome::ALL is that of its declaration");
        }
        let answer = |outcome, is_stale| Answer { body: Bytes::new(), cache: None, outcome, is_stale };
        endpoint.answered(&Method::HEAD, &answer(Outcome::TryLater, false), Duration::from_micros(7));
        endpoint.answered(&Method::POST, &answer(Outcome::Stored, true), Duration::from_micros(7));
        endpoint.not_modified();
        endpoint.http_error(StatusCode::URI_TOO_LONG);
        let text = metrics.render().unwrap();
        for line in [
            "goodstanding_ocsp_requests_total{method=\"get\",outcome=\"stored\"} 0",
            "goodstanding_ocsp_requests_total{method=\"head\",outcome=\"try_later\"} 1",
            "goodstanding_ocsp_requests_total{method=\"post\",outcome=\"stored\"} 1",
            "goodstanding_stale_answers_served_total 1",
            "goodstanding_ocsp_request_duration_seconds_count 2",
            "goodstanding_ocsp_not_modified_total 1",
            "goodstanding_http_errors_total{status=\"414\"} 1",
        ] {
            assert!(text.lines().any(|present| present == line), "{line} is missing in\n{text}");
        }
    }
}
