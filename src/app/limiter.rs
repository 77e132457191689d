//! The limiter of a process that has a control listener.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::{App, AppError};
use crate::limits::{self, Limiter, Pressure, Profile};

/// The profile in a file; without one nothing is limited.
fn profile(path: Option<&Path>) -> Result<Arc<Profile>, AppError> {
    Ok(Arc::new(path.map(Profile::load).transpose()?.unwrap_or_else(Profile::unlimited)))
}

/// Starts the limiter, which ends when every handle on it is gone.
pub(super) async fn start_limiter(
    app: &App,
    pressure: watch::Receiver<Pressure>,
) -> Result<Limiter, AppError> {
    let profile = profile(app.settings().limits_profile.as_deref())?;
    tracing::info!(profile = profile.name, limits = profile.limits.len(), "the limiter is ready");
    let (ledger, clock) = (Arc::clone(&app.store).ledger(), Arc::clone(&app.clock));
    // Nobody waits for its task: whoever asked it something waits for the answer.
    let (limiter, _task) =
        Limiter::start(ledger, profile, pressure, clock, limits::Settings::default()).await?;
    Ok(limiter)
}

/// Puts the profile of the new settings in force.
pub(super) async fn reload(limiter: &Limiter, path: Option<&Path>) -> Result<(), AppError> {
    Ok(limiter.replace_profile(profile(path)?).await?)
}
