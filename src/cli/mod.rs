//! The command line: one file a subcommand, each of which returns what to say and how it went.

mod audit;
mod capacity;
mod capacity_text;
mod check;
mod config;
mod context;
mod credential;
mod explain;
mod hsm;
mod import;
mod issuer;
mod limits;
mod presign;
mod progress;
mod responder;
mod revoke;
mod running;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::context::Context;
use crate::config::ConfigError;
use crate::store::audit::process_acts_as;
use crate::telemetry::{LogSettings, logging};

/// How a command that did not fail went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it.
    Done,
    /// Done in part; the rest was listed.
    Partly,
    /// What was looked at is not as it should be; the output says what.
    Failed,
}

/// The input on the command line does not fit what is there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// An OCSP responder that signs every status ahead of time and knows what its HSM can carry.
#[derive(Debug, Parser)]
#[command(name = "goodstanding", version, about, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 usage or configuration, 3 done in part (the rest is listed)."
)]
struct Cli {
    /// The configuration file. Without it: ./goodstanding.toml, then /etc/goodstanding/goodstanding.toml.
    #[arg(long, global = true, env = "GOODSTANDING_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Log more to standard error; repeat for more still.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve OCSP and keep every answer fresh.
    Serve(serve::Arguments),
    /// Sign what is missing or due, then end.
    Presign(presign::Arguments),
    /// Bring in certificates and revocations.
    #[command(subcommand)]
    Import(import::Command),
    /// The certification authorities whose certificates are answered for.
    #[command(subcommand)]
    Issuer(issuer::Command),
    /// The keys and delegated certificates that sign.
    #[command(subcommand)]
    Responder(responder::Command),
    /// Revoke a certificate.
    Revoke(revoke::Arguments),
    /// Take back a certificateHold.
    Unhold(revoke::UnholdArguments),
    /// Tell all about one certificate: status, stored answer, signer, next re-sign.
    Explain(explain::Arguments),
    /// Ask any OCSP responder and hold its answers to the checklist.
    Check(check::Arguments),
    /// Tokens and keys: list, test, measure.
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// What the HSMs carry: the guard's state, plans, and scenarios.
    #[command(subcommand)]
    Capacity(capacity::Command),
    /// How the issuance limits stand, and exceptions from them.
    #[command(subcommand)]
    Limits(limits::Command),
    /// The configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// The log of every change: check it, print it.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Tokens of callers of the control listener.
    #[command(subcommand)]
    Credential(credential::Command),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error. Where nothing can be
            // written there is nobody to tell.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Partly) => ExitCode::from(3),
        Err(error) => {
            context::complain(&error);
            let usage = error.is::<ConfigError>() || error.is::<Usage>();
            if usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let daemon = matches!(cli.command, Command::Serve(_));
    // A command that ends speaks through its output; its log begins at warnings.
    let verbosity = LogSettings::from_verbosity(cli.verbose, cli.json && daemon);
    let quiet = LogSettings { filter: "warn".to_owned(), ..verbosity.clone() };
    logging::init(if daemon || cli.verbose > 0 { &verbosity } else { &quiet })?;
    let context = Context { config: cli.config, json: cli.json };
    match cli.command {
        Command::Config(command) => return config::run(&context, &command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "goodstanding", &mut std::io::stdout());
            return Ok(Outcome::Done);
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            return Ok(Outcome::Done);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if !daemon {
        process_acts_as(format!("command line of {}", context::user()));
    }
    runtime.block_on(async {
        match cli.command {
            Command::Serve(arguments) => serve::run(&context, arguments).await,
            Command::Presign(arguments) => presign::run(&context, &arguments).await,
            Command::Import(command) => import::run(&context, command).await,
            Command::Issuer(command) => issuer::run(&context, &command).await,
            Command::Responder(command) => responder::run(&context, command).await,
            Command::Revoke(arguments) => revoke::run(&context, &arguments).await,
            Command::Unhold(arguments) => revoke::unhold(&context, &arguments).await,
            Command::Explain(arguments) => explain::run(&context, &arguments).await,
            Command::Check(arguments) => check::run(&context, &arguments).await,
            Command::Hsm(command) => hsm::run(&context, command).await,
            Command::Audit(command) => audit::run(&context, &command).await,
            Command::Credential(command) => credential::run(&context, &command).await,
            Command::Capacity(command) => capacity::run(&context, command).await,
            Command::Limits(command) => limits::run(&context, command).await,
            // Handled above, without a runtime.
            Command::Config(_) | Command::Completions { .. } | Command::Man => Ok(Outcome::Done),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
