//! Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::clock::Stopwatch;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one piece of work.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    watch: Stopwatch,
    last_line: Duration,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work on `total` items, named in the plural (`answers`).
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template(
                "{bar:32} {human_pos}/{human_len} {msg}  {rate}  {elapsed} (about {eta} to go)",
            );
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Where the terminal cannot be written to there is nobody to tell.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            }));
            bar.set_message(what);
            bar
        });
        Self { what, total, done: 0, watch: Stopwatch::start(), last_line: Duration::ZERO, bar }
    }

    /// So much is done.
    pub(super) fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => {
                let elapsed = self.watch.elapsed();
                if elapsed >= self.last_line + LINE_EVERY {
                    self.last_line = elapsed;
                    self.line();
                }
            }
        }
    }

    /// The total turned out to be another one.
    pub(super) fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// The work has ended.
    pub(super) fn finish(mut self) {
        match self.bar.take() {
            Some(bar) => bar.finish(),
            // What took no time needs no last word.
            None if self.last_line > Duration::ZERO => self.line(),
            None => {}
        }
    }

    fn line(&self) {
        let elapsed = self.watch.elapsed();
        let rate = self.done as f64 / elapsed.as_secs_f64().max(1e-3);
        let left =
            Duration::from_secs_f64((self.total.saturating_sub(self.done) as f64 / rate.max(1e-3)).min(1e9));
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        let line = format!("{}/{} {}, {rate:.0}/s, {left} to go", self.done, self.total, self.what);
        // Where standard error cannot be written to there is nobody to tell.
        drop(writeln!(std::io::stderr(), "{line}"));
    }
}
