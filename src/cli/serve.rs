//! `serve`.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::context::Context;
use super::{Outcome, Usage};
use crate::app::serve::{self, Role};
use crate::config;
use crate::shutdown::Shutdown;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only these roles; all of them by default.
    #[arg(long, value_delimiter = ',', value_name = "ROLE")]
    role: Vec<RoleName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Serve OCSP.
    Ocsp,
    /// Sign what comes due.
    Signer,
    /// Decide on issuance.
    Limiter,
    /// Serve the control listener.
    Control,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<Outcome> {
    let roles: BTreeSet<Role> = if arguments.role.is_empty() {
        [Role::Ocsp, Role::Signer, Role::Control].into()
    } else {
        arguments.role.iter().filter_map(|name| role(*name)).collect()
    };
    if roles.is_empty() {
        return Err(Usage("the role limiter has nothing to do in this version".to_owned()).into());
    }
    let path = context.path()?;
    let app = context.app().await?;
    let shutdown = Shutdown::new();
    let hangup = Arc::new(Notify::new());
    listen_for_signals(&shutdown, &hangup)?;
    let reload = move || config::load(&path).map_err(|error| error.to_string());
    let served = serve::serve(Arc::clone(&app), roles, shutdown, hangup, reload, |addresses| {
        tracing::info!(ocsp = ?addresses.ocsp, control = ?addresses.control, "serving");
    })
    .await;
    app.close().await;
    served?;
    tracing::info!("drained and stopped");
    Ok(Outcome::Done)
}

fn role(name: RoleName) -> Option<Role> {
    match name {
        RoleName::Ocsp => Some(Role::Ocsp),
        RoleName::Signer => Some(Role::Signer),
        RoleName::Control => Some(Role::Control),
        RoleName::Limiter => None,
    }
}

/// SIGTERM and SIGINT stop, SIGHUP reloads.
fn listen_for_signals(shutdown: &Shutdown, hangup: &Arc<Notify>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (shutdown, hangup) = (shutdown.clone(), Arc::clone(hangup));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => hangup.notify_one(),
            }
        }
        tracing::info!("a stop was asked for: finishing what is under way");
        shutdown.stop();
    });
    Ok(())
}
