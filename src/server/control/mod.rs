//! The control listener: health, metrics, a dashboard, and the API beside them.
//!
//! It is for operators and their machines, on a socket of its own: on loopback as it is, elsewhere
//! only with TLS and credentials.

pub mod access;
pub mod api;
pub mod health;
mod listener;
mod page;
pub mod problem;
pub mod situation;
#[cfg(test)]
mod tests;
pub mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub use access::Gate;
pub use health::{Check, Readiness};
pub use listener::{Access, Control, ControlError, Settings};
pub use problem::Problem;

use self::access::{Scope, require};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// What the built-in pages read.
#[derive(Clone)]
struct Sources {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    picture: Picture,
    shutdown: Shutdown,
}

/// Takes the picture that the dashboard shows.
pub type Picture = Arc<dyn Fn() -> situation::Situation + Send + Sync>;

/// `/`, `/livez`, `/readyz`, `/metrics`, the routes of `api`, and problem documents for all else.
///
/// What is neither probe nor open metrics needs a token with a scope that `gate` knows; `api` sees to
/// its own routes.
pub fn router(
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    picture: Picture,
    shutdown: Shutdown,
    gate: &Arc<Gate>,
    api: Router,
) -> Router {
    let probes = Router::new().route("/livez", get(health::live)).route("/readyz", get(ready));
    let figures = Router::new().route("/metrics", get(render_metrics));
    let page = Router::new().route("/", get(dashboard));
    let (open, guarded) =
        if gate.has_open_metrics() { (probes.merge(figures), page) } else { (probes, page.merge(figures)) };
    open.merge(guarded.route_layer(middleware::from_fn_with_state((Arc::clone(gate), Scope::Read), require)))
        .with_state(Sources { metrics, readiness, picture, shutdown })
        .merge(api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn dashboard(State(sources): State<Sources>) -> Response {
    page::respond(&(sources.picture)())
}

async fn ready(State(sources): State<Sources>) -> Response {
    health::report(sources.readiness.as_ref(), sources.shutdown.is_stopped())
}

async fn render_metrics(State(sources): State<Sources>) -> Response {
    match sources.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a metric family cannot be written");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                .detail("A metric family cannot be written; the log says more.")
                .into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND)
        .detail(format!("There is nothing at {}; / lists what there is.", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED)
        .detail(format!("{} does not take {method}; the Allow header says what it takes.", uri.path()))
}
