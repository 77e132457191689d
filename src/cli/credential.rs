//! `credential new`.

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::{Outcome, Usage};
use crate::server::control::access::{Scope, check_name, new_token};
use crate::store::audit::NewLine;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token for the control listener, and the entry for the file of credentials.
    ///
    /// The token is shown once; the entry has only its hash. Append the entry to the file that
    /// `control.credentials_file` names, then have the server reload its configuration (SIGHUP). To take
    /// a token back, remove its entry; to renew one, replace its entry.
    New {
        /// Whose it is: the name in logs and in the audit log.
        #[arg(long)]
        name: String,
        /// What it may do: orders, certificates, revoke, read, admin. May be given several times.
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        /// Calls a minute at the most.
        #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
}

#[derive(Serialize)]
struct Made {
    token: String,
    credential: String,
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Outcome> {
    let Command::New { name, scope, rate } = command;
    check_name(name).map_err(Usage)?;
    let app = context.app().await?;
    let new = new_token(name).map_err(anyhow::Error::msg)?;
    let scopes: Vec<_> = scope.iter().map(|scope| scope.name()).collect();
    let detail = json!({ "name": name, "scopes": scopes, "rate": rate });
    app.store.append_audit(&NewLine::new("credential.new", &detail)).await?;
    let mut credential = format!(
        "[[credential]]\nname = {}\nhash = {}\nscopes = {}\n",
        json!(name),
        json!(new.hash),
        json!(scopes)
    );
    if let Some(rate) = rate {
        credential += &format!("rate = {rate}\n");
    }
    let made = Made { token: new.token.expose_secret().to_owned(), credential };
    let file = app.settings().control.credentials_file.clone();
    context.print(&made, |made| {
        let file = file.map_or_else(
            || "the file that control.credentials_file names (none is set yet)".to_owned(),
            |file| file.display().to_string(),
        );
        format!(
            "# The token, shown this once. It is sent as: Authorization: Bearer …\n# {}\n# Append this to {file}, then reload (SIGHUP):\n\n{}",
            made.token, made.credential
        )
    })?;
    app.close().await;
    Ok(Outcome::Done)
}
