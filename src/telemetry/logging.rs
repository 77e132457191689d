//! Log lines on standard error: text for people, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged, and how it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Which events: a word (`info`) or directives (`info,goodstanding::signer=debug`).
    pub filter: String,
    /// How they look.
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text an event; in colour only on a terminal.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

impl LogSettings {
    /// The settings for a number of `-v` on the command line: none logs warnings and notices of this
    /// program (`info`), one `debug`, two or more `trace`; other crates stay at `warn` until the third.
    #[must_use]
    pub fn from_verbosity(verbosity: u8, json: bool) -> Self {
        let filter = match verbosity {
            0 => "warn,goodstanding=info",
            1 => "warn,goodstanding=debug",
            2 => "warn,goodstanding=trace",
            _ => "trace",
        };
        let format = if json { LogFormat::Json } else { LogFormat::Text };
        Self { filter: filter.to_owned(), format }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "the log filter {filter:?} cannot be read: {reason}; write a level (error, warn, info, debug, trace) or module=level pairs separated by commas"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What the parser said.
        reason: tracing_subscriber::filter::ParseError,
    },
    /// Another subscriber is installed in this process.
    #[error("logging was set up twice in this process: {0}; call telemetry::logging::init once, in main")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the events of the whole process to standard error, with RFC 3339 times in UTC.
///
/// # Errors
/// When the filter cannot be read, or when logging is already set up.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    let filter = filter(&settings.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_timer(Rfc3339);
    match settings.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()?,
    }
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(text).map_err(|reason| LogError::Filter { filter: text.to_owned(), reason })
}

/// Milliseconds, UTC: `2026-11-22T02:37:34.123Z`.
struct Rfc3339;

impl FormatTime for Rfc3339 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a log line carries the machine's time, whatever clock drives the work"
    )]
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let now = chrono::Utc::now();
        write!(w, "{}", now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_says_what_to_write_instead() {
        let error = filter("goodstanding=loud").unwrap_err().to_string();
        assert!(error.contains("goodstanding=loud") && error.contains("debug"), "{error}");
    }

    #[test]
    fn every_verbosity_is_a_readable_filter_that_shows_more_than_the_one_before() {
        let shown = |verbosity| {
            let settings = LogSettings::from_verbosity(verbosity, false);
            filter(&settings.filter).unwrap().max_level_hint().unwrap()
        };
        assert!(shown(0) < shown(1) && shown(1) < shown(2) && shown(2) <= shown(3));
    }

    #[test]
    fn a_log_time_is_rfc_3339_in_utc() {
        let mut text = String::new();
        Rfc3339.format_time(&mut tracing_subscriber::fmt::format::Writer::new(&mut text)).unwrap();
        assert!(text.ends_with('Z') && text.len() == "2026-11-22T02:37:34.123Z".len(), "{text}");
        chrono::DateTime::parse_from_rfc3339(&text).unwrap();
    }
}
