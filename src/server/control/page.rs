//! The page a person sees at the control address.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

const PAGE: &str = concat!(
    r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Goodstanding</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; color: #1b1b1b; background: #fff }
dt { font-family: ui-monospace, monospace; margin-top: .8rem }
dd { margin: 0 }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #151515 } a { color: #8ab4f8 } }
</style>
</head>
<body>
<h1>Goodstanding</h1>
<p>An OCSP responder that signs every status ahead of time. This is its control listener, version "#,
    env!("CARGO_PKG_VERSION"),
    r#". Certificates are not asked about here: that is the OCSP endpoint, on an address of its own.</p>
<dl>
<dt><a href="/readyz">/readyz</a></dt><dd>whether it should get traffic, check by check (JSON; 503 while it should not)</dd>
<dt><a href="/livez">/livez</a></dt><dd>whether the process answers</dd>
<dt><a href="/metrics">/metrics</a></dt><dd>metrics for Prometheus</dd>
</dl>
</body>
</html>
"#
);

/// `/`
pub(super) async fn index() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")], Html(PAGE))
        .into_response()
}
