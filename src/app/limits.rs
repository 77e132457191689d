//! The limiter on this process's store.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{App, AppError};
use crate::limits::{Limiter, Pressure, Profile, Settings};

impl App {
    /// Starts a limiter with the configured profile; without one, it allows everything. The handle
    /// ends once every clone of the limiter is dropped, which must be before [`App::close`].
    ///
    /// # Errors
    /// [`AppError::LimitsProfile`], [`AppError::Limits`].
    pub async fn start_limiter(
        &self,
        pressure: watch::Receiver<Pressure>,
    ) -> Result<(Limiter, JoinHandle<()>), AppError> {
        let profile = self.limits_profile()?;
        tracing::info!(profile = profile.name, limits = profile.limits.len(), "the limiter is ready");
        let ledger = Arc::clone(&self.store).ledger();
        let clock = Arc::clone(&self.clock);
        Ok(Limiter::start(ledger, Arc::new(profile), pressure, clock, Settings::default()).await?)
    }

    /// The configured profile of limits, read; without one, [`Profile::unlimited`].
    ///
    /// # Errors
    /// [`AppError::LimitsProfile`].
    pub fn limits_profile(&self) -> Result<Profile, AppError> {
        read(self.settings().limits_profile.as_deref())
    }
}

fn read(profile: Option<&Path>) -> Result<Profile, AppError> {
    Ok(profile.map(Profile::load).transpose()?.unwrap_or_else(Profile::unlimited))
}

/// Puts the profile of new settings in force.
pub(super) async fn reload(limiter: &Limiter, profile: Option<&Path>) -> Result<(), AppError> {
    Ok(limiter.replace_profile(Arc::new(read(profile)?)).await?)
}
