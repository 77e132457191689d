//! The limiter on this process's store.

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
        let ledger = Arc::clone(&self.store).ledger();
        let clock = Arc::clone(&self.clock);
        Ok(Limiter::start(ledger, Arc::new(profile), pressure, clock, Settings::default()).await?)
    }

    /// The configured profile of limits, read; without one, [`Profile::unlimited`].
    ///
    /// # Errors
    /// [`AppError::LimitsProfile`].
    pub fn limits_profile(&self) -> Result<Profile, AppError> {
        match &self.settings().limits_profile {
            Some(path) => Ok(Profile::load(path)?),
            None => Ok(Profile::unlimited()),
        }
    }
}
