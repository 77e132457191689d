//! The limiter on this process's store.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::settings::Settings;
use super::{App, AppError};
use crate::capacity::follow::last_pressure;
use crate::limits::{self, Limiter, Pressure, Profile};

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
        Ok(Limiter::start(ledger, Arc::new(profile), pressure, clock, limits::Settings::default()).await?)
    }

    /// The pressure that the capacity guard kept last, whatever process it ran in; none where no guard ever
    /// reported.
    ///
    /// # Errors
    /// [`AppError::Store`].
    pub async fn last_pressure(&self) -> Result<Option<Pressure>, AppError> {
        let safe = self.settings().capacity.safe_multiplier;
        Ok(last_pressure(&*self.store, self.clock.now(), safe).await?)
    }

    /// The configured profile of limits, read; without one, [`Profile::unlimited`].
    ///
    /// # Errors
    /// [`AppError::LimitsProfile`].
    pub fn limits_profile(&self) -> Result<Profile, AppError> {
        read(&self.settings())
    }
}

fn read(settings: &Settings) -> Result<Profile, AppError> {
    let profile = settings.limits_profile.as_deref().map(Profile::load).transpose()?;
    let mut profile = profile.unwrap_or_else(Profile::unlimited);
    if let Some(help) = &settings.limits_help {
        profile.help = help.as_str().into();
    }
    Ok(profile)
}

/// Puts the profile of new settings in force.
pub(super) async fn reload(limiter: &Limiter, settings: &Settings) -> Result<(), AppError> {
    Ok(limiter.replace_profile(Arc::new(read(settings)?)).await?)
}
