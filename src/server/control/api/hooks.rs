//! step-ca's authorising webhook: step-ca asks before it signs, and takes no for an answer.
//!
//! It proves itself by an HMAC over the raw body. It does not tell afterwards what it issued, so what
//! is allowed counts at once.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::input::{self, Time};
use super::{Services, fresh, limits};
use crate::limits::{IssuedCertificate, LimitsError, OrderRequest};
use crate::server::control::access::{Caller, Gate, Peer, Webhook};
use crate::store::audit::{self, NewLine};

/// What is read of step-ca's request; it says much more.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(rename = "x509Certificate")]
    certificate: Option<Leaf>,
}

/// The certificate that step-ca is about to sign.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Leaf {
    dns_names: Option<Vec<String>>,
    ip_addresses: Option<Vec<String>>,
    sans: Option<Vec<San>>,
    not_after: Option<Time>,
}

#[derive(Debug, Deserialize)]
struct San {
    #[serde(rename = "type", default)]
    kind: String,
    value: String,
}

impl Leaf {
    /// Its DNS names and addresses. Other names are nobody's registered domain.
    fn identifiers(&self) -> Vec<String> {
        let listed = self.dns_names.iter().chain(&self.ip_addresses).flatten().cloned();
        let sans = self.sans.iter().flatten().filter(|san| matches!(san.kind.as_str(), "dns" | "ip"));
        let mut names: Vec<String> = listed.chain(sans.map(|san| san.value.clone())).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Why step-ca is told no.
struct No {
    code: &'static str,
    message: String,
}

fn no(code: &'static str, message: impl Into<String>) -> No {
    No { code, message: message.into() }
}

/// Answer step-ca's authorising webhook: always 200, with `allow` and the reason for a no.
#[utoipa::path(
    post, path = "/v1/hooks/step-ca", tag = "hooks", operation_id = "stepCa",
    params(
        ("X-Smallstep-Webhook-ID" = String, Header, description = "The webhook's id."),
        ("X-Smallstep-Signature" = String, Header, description = "HMAC-SHA256 of the raw body with the webhook's secret, in hexadecimal."),
    ),
    request_body(content = Object, content_type = "application/json"),
    responses((status = 200, description = "`{\"allow\":true}`, or `{\"allow\":false,\"error\":{\"code\":…,\"message\":…}}`.", body = Object)),
    security(()),
)]
pub(super) async fn step_ca(
    State(services): State<Services>,
    Extension(gate): Extension<Arc<Gate>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let work = async move {
        let Ok(body) = input::read(body).await else {
            return Err(no("malformed", "The body is too long or broke off."));
        };
        let webhook = known(&gate, &parts.headers, &body)?;
        let caller = Caller::webhook(&webhook.id, &peer);
        audit::acting_as(caller.actor, decide(&services, &webhook, &body)).await
    };
    // As every change: brought to its end, whether step-ca still waits or not.
    let decided = tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a webhook call ended in a panic");
        Err(no("internal", "The call failed within the server."))
    });
    let answer = match decided {
        Ok(()) => json!({ "allow": true }),
        Err(No { code, message }) => {
            tracing::info!(code, message, "step-ca was told no");
            json!({ "allow": false, "error": { "code": code, "message": message } })
        }
    };
    fresh(axum::Json(answer).into_response())
}

/// The webhook that signed this body.
fn known(gate: &Gate, headers: &HeaderMap, body: &[u8]) -> Result<Webhook, No> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let unknown = || no("unauthorized", "The webhook is not known here, or its signature is wrong.");
    let webhook = gate.webhook(text("x-smallstep-webhook-id")).ok_or_else(unknown)?;
    let signature = text("x-smallstep-signature");
    let signature: Option<Vec<u8>> = signature
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &webhook.secret);
    hmac::verify(&key, body, &signature.unwrap_or_default()).map_err(|_| unknown())?;
    Ok(webhook)
}

async fn decide(services: &Services, webhook: &Webhook, body: &[u8]) -> Result<(), No> {
    let failed = |error: LimitsError| match error {
        error @ LimitsError::Identifier(_) => no("malformed", error.to_string()),
        error => {
            tracing::error!(%error, "a webhook call could not be decided");
            no("unavailable", "The limiter cannot decide at present; try again in a few seconds.")
        }
    };
    let asked: Asked = serde_json::from_slice(body)
        .map_err(|error| no("malformed", format!("The body cannot be used: {error}.")))?;
    let Some(leaf) = asked.certificate else {
        return Err(no(
            "malformed",
            "The body has no x509Certificate: this webhook is for X.509 certificates.",
        ));
    };
    let identifiers = leaf.identifiers();
    if identifiers.is_empty() {
        return Err(no("malformed", "The certificate has neither a DNS name nor an IP address to count."));
    }
    let request = OrderRequest {
        account: webhook.account.clone(),
        identifiers: identifiers.clone(),
        ..OrderRequest::default()
    };
    let decision = services.limiter.order(&request).await.map_err(failed)?;
    let Some(order) = decision.order() else {
        let problem: Value = serde_json::to_value(limits::refusal(&decision)).unwrap_or_default();
        return Err(no("rateLimited", problem["detail"].as_str().unwrap_or_default()));
    };
    let not_after = leaf.not_after.map_or_else(|| services.clock.now(), |time| time.0);
    let certificate = IssuedCertificate { name: format!("step-ca/{order}"), ari: None, not_after };
    services.limiter.commit(order, certificate).await.map_err(failed)?;
    let detail = json!({ "id": order, "account": webhook.account, "identifiers": identifiers });
    services
        .store
        .append_audit(&NewLine::new("order.accept", &detail))
        .await
        .map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_both_places_and_once() {
        let body = r#"{"timestamp":"x","x509Certificate":{"dnsNames":["a.example","b.example"],"ipAddresses":null,
            "sans":[{"type":"dns","value":"b.example"},{"type":"ip","value":"192.0.2.7"},{"type":"email","value":"x@y"}],
            "notAfter":"2027-01-01T00:00:00Z","subject":{"commonName":"a"}}}"#;
        let asked: Asked = serde_json::from_str(body).unwrap();
        let leaf = asked.certificate.unwrap();
        assert_eq!(leaf.identifiers(), ["192.0.2.7", "a.example", "b.example"]);
        assert!(leaf.not_after.is_some());
        assert!(serde_json::from_str::<Asked>("{}").unwrap().certificate.is_none());
    }
}
