//! The OpenAPI document, made from the handlers and the types they take.

use std::sync::LazyLock;

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{certificates, hooks, limits};
use crate::server::control::Problem;

/// Whether everybody on the machine may do everything.
#[derive(Clone, Copy)]
pub(super) struct Open(pub(super) bool);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Goodstanding control API",
        description = "Certificates to keep in good standing, and what limits them. Times are RFC 3339, serial numbers lower-case hexadecimal, errors problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        certificates::register, certificates::show, certificates::revoke, certificates::unhold,
        limits::register, limits::order, limits::view, limits::deliver, limits::release, limits::show,
        limits::capacity, hooks::step_ca,
    ),
    components(schemas(Problem)),
    tags(
        (name = "certificates", description = "What is answered for."),
        (name = "limits", description = "How many new accounts and certificates, to whom, and when more."),
        (name = "hooks", description = "Calls in the form of other programs."),
    ),
)]
struct Api;

static OPEN: LazyLock<String> = LazyLock::new(|| described(true).to_string());
static GUARDED: LazyLock<String> = LazyLock::new(|| described(false).to_string());

/// The document with what is true of every operation.
fn described(open: bool) -> Value {
    let mut document = serde_json::to_value(Api::openapi()).unwrap_or_default();
    if !open {
        document["components"]["securitySchemes"] = json!({
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token made by `goodstanding credential new`.",
            },
        });
        document["security"] = json!([{ "token": [] }]);
    }
    let problem = json!({
        "description": "The request was refused, or failed: the document says why and what to do.",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        if let Some(responses) = operation["responses"].as_object_mut() {
            responses.insert("default".to_owned(), problem.clone());
        }
    }
    document
}

/// `/openapi.json`
pub(super) async fn document(Extension(Open(open)): Extension<Open>) -> Response {
    let text = if open { OPEN.as_str() } else { GUARDED.as_str() };
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_operation_and_asks_for_a_token_only_where_one_is_needed() {
        let document = described(false);
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        for (path, method) in [
            ("/v1/certificates", "post"),
            ("/v1/certificates/{issuer}/{serial}", "get"),
            ("/v1/certificates/{issuer}/{serial}/revocation", "post"),
            ("/v1/certificates/{issuer}/{serial}/revocation", "delete"),
            ("/v1/registrations", "post"),
            ("/v1/orders", "post"),
            ("/v1/orders/{id}", "get"),
            ("/v1/orders/{id}", "delete"),
            ("/v1/orders/{id}/certificate", "post"),
            ("/v1/limits", "get"),
            ("/v1/capacity", "get"),
            ("/v1/hooks/step-ca", "post"),
        ] {
            let operation = &document["paths"][path][method];
            assert!(operation["operationId"].is_string(), "{method} {path}: {operation}");
            assert!(operation["responses"]["default"].is_object());
        }
        assert_eq!(document["components"]["schemas"]["NewCertificate"]["additionalProperties"], false);
        assert!(document["security"].is_array() && described(true)["security"].is_null());
    }
}
