//! Asking the server that runs on this configuration, over its control listener.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::server::control::Settings;

/// The environment variable with a token of scope `read`, where the listener asks for one.
const TOKEN: &str = "GOODSTANDING_TOKEN";

/// How long asking may take: the server answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer read.
const MAX_OCTETS: usize = 1 << 20;

/// What the server says at `path`; as an error, why it could not be asked, as a clause.
pub(super) async fn ask<T: DeserializeOwned>(settings: &Settings, path: &str) -> Result<T, String> {
    let place = settings.listen.to_string();
    if settings.tls.is_some() {
        return Err(format!("its control listener speaks TLS; ask https://{place}{path} yourself"));
    }
    let token = std::env::var(TOKEN).ok();
    if settings.credentials_file.is_some() && token.is_none() {
        return Err(format!("it asks for a token; set {TOKEN} to one with the scope read"));
    }
    let asked = tokio::time::timeout(PATIENCE, exchange(&place, path, token.as_deref()));
    let (status, body) =
        asked.await.unwrap_or_else(|_| Err(format!("no answer from {place} within {PATIENCE:?}")))?;
    match status {
        StatusCode::OK => {
            serde_json::from_slice(&body).map_err(|error| format!("what {place} says does not read: {error}"))
        }
        StatusCode::UNAUTHORIZED => Err(format!("{place} does not take the token in {TOKEN}")),
        StatusCode::FORBIDDEN => Err(format!("the token in {TOKEN} has no scope read")),
        status => Err(format!("{place} says {status} to {path}")),
    }
}

async fn exchange(place: &str, path: &str, token: Option<&str>) -> Result<(StatusCode, Bytes), String> {
    let mut request = Request::get(path).header(HOST, place);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| format!("{path}: {error}"))?;
    let stream = TcpStream::connect(place)
        .await
        .map_err(|error| format!("nobody can be reached at {place} (control.listen): {error}"))?;
    let failed = |error: hyper::Error| format!("{place}: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the sender, whatever becomes of it.
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = Limited::new(body, MAX_OCTETS).collect().await;
    let body = body.map_err(|error| format!("{place}: the answer broke off: {error}"))?.to_bytes();
    drop(sender);
    connection.abort();
    Ok((head.status, body))
}
