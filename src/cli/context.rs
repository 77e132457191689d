//! What every subcommand needs: the configuration, the components, the two ways of printing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::app::App;
use crate::app::settings::Settings;
use crate::clock::SystemClock;
use crate::config::{self, ConfigError};

/// The global options.
pub(super) struct Context {
    pub(super) config: Option<PathBuf>,
    pub(super) json: bool,
}

impl Context {
    /// The configuration file that is used.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        config::find(self.config.as_deref())
    }

    /// The settings in it.
    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        config::load(&self.path()?)
    }

    /// The store, opened, and everything else ready to be used.
    pub(super) async fn app(&self) -> anyhow::Result<Arc<App>> {
        Ok(Arc::new(App::open(self.settings()?, SystemClock::shared()).await?))
    }

    /// Prints a result: as JSON, or as `text` for people.
    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text(value) };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            // The reader has seen enough, as `head` does: no error of ours.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

/// Who runs the command, for the audit log: the login name where the environment tells one, and the
/// number, which it cannot make up.
pub(super) fn user() -> String {
    use std::os::unix::fs::MetadataExt;
    let name = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let uid = std::fs::metadata("/proc/self").map(|own| own.uid().to_string());
    match (name, uid) {
        (Some(name), Ok(uid)) => format!("{name} (uid {uid})"),
        (None, Ok(uid)) => format!("uid {uid}"),
        (name, Err(_)) => name.unwrap_or_else(|| "an unknown user".to_owned()),
    }
}

/// Tells an error and its causes on standard error, each once.
pub(super) fn complain(error: &anyhow::Error) {
    let mut told = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Many errors already tell their cause.
        if !told.contains(&cause) {
            told = if told.is_empty() { cause } else { format!("{told}: {cause}") };
        }
    }
    // Where standard error cannot be written to there is nobody to tell.
    drop(writeln!(std::io::stderr(), "goodstanding: {told}"));
}

/// A table without frills.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end())))
        .collect()
}

/// The issuer's or certificate's file as an absolute path, for messages about files that moved.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
