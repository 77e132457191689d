//! `audit verify | export | prune`.

mod archive;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::Context;
use super::{Outcome, Usage};
use crate::clock::UnixTime;
use crate::store::Store;
use crate::store::audit::{AuditHead, AuditLine, Fault, Verifier};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find every line that was changed, removed, put in or moved. Exit status 1 if there is one.
    ///
    /// The chain does not show by itself that its end was cut off, or that all of it was written anew:
    /// give a line that was seen earlier as an anchor (`serve` logs one each hour and at its end, and
    /// has it in its metrics; this command prints one).
    Verify {
        /// A line that must still be there: NUMBER:HASH. May be given several times.
        #[arg(long, value_name = "NUMBER:HASH")]
        anchor: Vec<AuditHead>,
        /// Lines that `audit prune` put into a file are verified too. May be given several times.
        #[arg(long, value_name = "FILE")]
        archive: Vec<PathBuf>,
    },
    /// Print the log, one JSON document a line.
    Export {
        /// Only lines after this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: i64,
    },
    /// Move old lines into a file. A line stays that says which they were, so that the rest verifies.
    Prune {
        /// Lines written before this time go: an RFC 3339 time or a date.
        #[arg(long, value_name = "DATE")]
        before: String,
        /// The file that they are written to first. It must not be there yet.
        #[arg(long, value_name = "FILE")]
        archive: PathBuf,
    },
}

/// Lines read at a time.
const PAGE: u32 = 5_000;

/// Faults listed; a log that was tampered with throughout is not told line by line.
const LISTED: usize = 100;

#[derive(Serialize)]
struct Report {
    intact: bool,
    lines: u64,
    /// The last line that is in an archive which was not read: the log begins after it.
    archived: Option<String>,
    /// The last line: an anchor for later.
    anchor: String,
    faults: Vec<String>,
    /// Faults found, listed or not.
    found: usize,
}

#[derive(Serialize)]
struct Pruned {
    /// Lines that went.
    lines: u64,
    /// The last of them.
    through: Option<String>,
    archive: PathBuf,
    /// Of the archive.
    sha256: Option<String>,
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let store = app.store.as_ref();
    let outcome = match command {
        Command::Verify { anchor, archive } => verify(context, store, anchor, archive).await,
        Command::Export { after } => export(store, *after).await,
        Command::Prune { before, archive } => prune(context, store, before, archive, app.clock.now()).await,
    };
    app.close().await;
    outcome
}

/// The verifier with what it found so far.
struct Reading {
    verifier: Verifier,
    report: Report,
}

impl Reading {
    fn new(anchors: &[AuditHead]) -> Self {
        let report = Report {
            intact: true,
            lines: 0,
            archived: None,
            anchor: String::new(),
            faults: Vec::new(),
            found: 0,
        };
        Self { verifier: Verifier::with_anchors(anchors.to_vec()), report }
    }

    fn take(&mut self, line: &AuditLine) {
        self.report.lines += 1;
        let found = self.verifier.read(line);
        self.found(&found);
    }

    fn found(&mut self, found: &[Fault]) {
        self.report.found += found.len();
        let room = LISTED.saturating_sub(self.report.faults.len());
        self.report.faults.extend(found.iter().take(room).map(ToString::to_string));
    }

    fn finish(mut self) -> Report {
        let archived = self.verifier.archived();
        let (head, missing) = std::mem::take(&mut self.verifier).finish();
        self.found(&missing);
        Report {
            intact: self.report.found == 0,
            anchor: head.to_string(),
            archived: archived.map(|head| head.to_string()),
            ..self.report
        }
    }
}

/// Reads the store's lines in order.
async fn each_line(store: &dyn Store, mut take: impl FnMut(&AuditLine)) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let page = store.audit_lines(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.number;
        page.iter().for_each(&mut take);
    }
}

async fn verify(
    context: &Context,
    store: &dyn Store,
    anchors: &[AuditHead],
    archives: &[PathBuf],
) -> anyhow::Result<Outcome> {
    let mut reading = Reading::new(anchors);
    // Where the store begins: an archive whose lines were not removed afterwards goes over into it.
    let first = store.audit_lines(0, 1).await?.first().map_or(i64::MAX, |line| line.number);
    let mut archived = Vec::new();
    for path in archives {
        let mut lines = Vec::new();
        archive::read(path, |line| lines.push(line))?;
        archived.push(lines);
    }
    archived.sort_by_key(|lines| lines.first().map(|line| line.number));
    archived.iter().flatten().filter(|line| line.number < first).for_each(|line| reading.take(line));
    each_line(store, |line| reading.take(line)).await?;
    let report = reading.finish();
    context.print(&report, |report| {
        if report.intact {
            let from = match &report.archived {
                Some(line) => format!(", those up to {line} were archived (--archive verifies them too)"),
                None => String::new(),
            };
            return format!(
                "the audit log is as it was written: {} lines{from}\nanchor for later: {}",
                report.lines, report.anchor
            );
        }
        let mut text = format!("the audit log is NOT as it was written ({} faults):\n", report.found);
        for fault in &report.faults {
            text += &format!("  {fault}\n");
        }
        if report.found > report.faults.len() {
            text += &format!("  and {} more\n", report.found - report.faults.len());
        }
        text + &format!("it has {} lines and ends with {}", report.lines, report.anchor)
    })?;
    Ok(if report.intact { Outcome::Done } else { Outcome::Failed })
}

async fn prune(
    context: &Context,
    store: &dyn Store,
    before: &str,
    path: &Path,
    now: UnixTime,
) -> anyhow::Result<Outcome> {
    let time = UnixTime::parse_rfc3339(before)
        .or_else(|_| UnixTime::parse_rfc3339(&format!("{before}T00:00:00Z")))
        .map_err(|_| {
            let example = "no time such as 2026-08-01T00:00:00Z and no date such as 2026-08-01";
            Usage(format!("--before {before:?} is {example}"))
        })?;
    if time > now {
        return Err(Usage(format!("--before {time} is in the future")).into());
    }
    let mut reading = Reading::new(&[]);
    let (mut last, mut old) = (None, true);
    each_line(store, |line| {
        reading.take(line);
        // Up to the first that is younger: the clock may have been put back later on.
        old &= line.time < time;
        if old {
            last = Some(line.head());
        }
    })
    .await?;
    let report = reading.finish();
    if let Some(fault) = report.faults.first() {
        anyhow::bail!(
            "the audit log is not as it was written ({fault}; `goodstanding audit verify` lists every fault): nothing was pruned, so that nothing is hidden"
        );
    }
    let Some(through) = last else {
        let none = Pruned { lines: 0, through: None, archive: path.to_owned(), sha256: None };
        context.print(&none, |_| format!("no line is older than {time}: nothing was pruned"))?;
        return Ok(Outcome::Done);
    };
    let mut written = archive::Archive::create(path)?;
    let mut after = 0;
    while after < through.number {
        let page = store.audit_lines(after, PAGE).await?;
        let Some(end) = page.last() else { break };
        after = end.number;
        for line in page.iter().take_while(|line| line.number <= through.number) {
            written.write(line)?;
        }
    }
    let sha256 = written.finish()?.to_string();
    // Only now: the lines are in the archive for good.
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let lines = store
        .prune_audit(through, json!({ "archive": name, "sha256": sha256 }))
        .await
        .with_context(|| format!("{} is written, but the lines are still in the database", path.display()))?;
    let pruned =
        Pruned { lines, through: Some(through.to_string()), archive: path.to_owned(), sha256: Some(sha256) };
    context.print(&pruned, |pruned| {
        format!("{} lines, up to {through}, went into {}", pruned.lines, pruned.archive.display())
    })?;
    Ok(Outcome::Done)
}

async fn export(store: &dyn Store, mut after: i64) -> anyhow::Result<Outcome> {
    loop {
        let page = store.audit_lines(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Outcome::Done) };
        after = last.number;
        let text: String = page.iter().map(|line| format!("{}\n", document(line))).collect();
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Outcome::Done),
            written => written?,
        }
    }
}

fn document(line: &AuditLine) -> Value {
    json!({
        "number": line.number,
        "time": line.time.to_string(),
        "actor": line.actor,
        "action": line.action,
        // As it was written where it reads as JSON; a line that was tampered with may not.
        "detail": serde_json::from_str(&line.detail).unwrap_or_else(|_| json!(line.detail)),
        "previous": line.previous.to_string(),
        "hash": line.hash.to_string(),
    })
}
