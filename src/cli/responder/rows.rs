//! The responders as `responder list` shows them.

use serde::Serialize;

use crate::app::rotation::Turns;
use crate::app::{App, KnownResponder};
use crate::clock::UnixTime;
use crate::ocsp::delegation::DelegationError;

/// The responders of one issuer, or of all, in order of preference; and what the operator has to know.
pub(super) async fn rows(app: &App, issuer: Option<&str>) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
    let now = app.clock.now();
    let responders = app.responders().await?;
    let mut turns = Turns::of(&responders, &app.policies().await?);
    turns.retain(|turns| issuer.is_none_or(|name| name == turns.issuer));
    let wanted = |responder: &&KnownResponder| issuer.is_none_or(|name| name == responder.issuer.record.name);
    let row = |responder: &KnownResponder| {
        let number = responder.record.number;
        let on_duty = turns.iter().any(|turns| turns.on_duty(now) == Some(number));
        row(responder, State::of(responder, on_duty, now))
    };
    let rows = responders.iter().filter(wanted).map(row).collect();
    Ok((rows, turns.iter().flat_map(|turns| turns.warnings(now)).collect()))
}

/// Where a responder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It signs for its issuer now.
    Signs,
    /// It could, and another one is preferred.
    Ready,
    /// Its time is still to come.
    Waits,
    /// It was taken out of use.
    Retired,
    /// Its certificate has ended.
    Ended,
    /// It may not sign.
    Unfit,
}

impl State {
    fn of(responder: &KnownResponder, on_duty: bool, now: UnixTime) -> Self {
        match (&responder.delegation, responder.duty()) {
            (Err(DelegationError::Ended(_)), _) => Self::Ended,
            (_, None) if responder.record.retired_at.is_some() => Self::Retired,
            (_, None) => Self::Unfit,
            _ if on_duty => Self::Signs,
            (_, Some(duty)) if now < duty.begins => Self::Waits,
            (_, Some(_)) => Self::Ready,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Signs => "yes",
            Self::Ready => "ready",
            Self::Waits => "waits",
            Self::Retired => "retired",
            Self::Ended => "ended",
            Self::Unfit => "no",
        }
    }
}

#[derive(Serialize)]
pub(super) struct Row {
    pub(super) number: i64,
    pub(super) issuer: String,
    /// Whether it is the one that signs for its issuer now.
    signs: bool,
    pub(super) state: State,
    /// When it signs first, if it does.
    pub(super) from: String,
    retired_at: Option<String>,
    pub(super) token: String,
    pub(super) key: String,
    pub(super) algorithm: String,
    pub(super) subject: String,
    serial: String,
    not_before: String,
    pub(super) not_after: String,
    installed_at: String,
    pub(super) unusable: Option<String>,
    pub(super) warnings: Vec<String>,
}

fn row(responder: &KnownResponder, state: State) -> Row {
    let new = &responder.record.responder;
    let certificate = &responder.certificate;
    let (unusable, warnings) = match &responder.delegation {
        Ok(delegation) => (None, delegation.warnings().iter().map(ToString::to_string).collect()),
        Err(error) => (Some(error.to_string()), Vec::new()),
    };
    Row {
        number: responder.record.number.0,
        issuer: responder.issuer.record.name.clone(),
        signs: state == State::Signs,
        state,
        from: certificate.not_before().max(new.from.unwrap_or(UnixTime::EPOCH)).to_string(),
        retired_at: responder.record.retired_at.map(|at| at.to_string()),
        token: new.token.clone(),
        key: new.key.clone(),
        algorithm: new.algorithm.clone(),
        subject: certificate.subject(),
        serial: certificate.serial().to_string(),
        not_before: certificate.not_before().to_string(),
        not_after: certificate.not_after().to_string(),
        installed_at: responder.record.installed_at.to_string(),
        unusable,
        warnings,
    }
}
