//! `audit verify | export`.

use std::io::Write;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use super::Outcome;
use super::context::Context;
use crate::store::Store;
use crate::store::audit::{AuditHead, AuditLine, Verifier};

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
    },
    /// Print the log, one JSON document a line.
    Export {
        /// Only lines after this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: i64,
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
    /// The last line: an anchor for later.
    anchor: String,
    faults: Vec<String>,
    /// Faults found, listed or not.
    found: usize,
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Outcome> {
    let app = context.app().await?;
    let outcome = match command {
        Command::Verify { anchor } => verify(context, app.store.as_ref(), anchor).await,
        Command::Export { after } => export(app.store.as_ref(), *after).await,
    };
    app.close().await;
    outcome
}

async fn verify(context: &Context, store: &dyn Store, anchors: &[AuditHead]) -> anyhow::Result<Outcome> {
    let mut verifier = Verifier::with_anchors(anchors.to_vec());
    let mut report = Report { intact: true, lines: 0, anchor: String::new(), faults: Vec::new(), found: 0 };
    let take = |found: Vec<crate::store::audit::Fault>, report: &mut Report| {
        report.found += found.len();
        let room = LISTED.saturating_sub(report.faults.len());
        report.faults.extend(found.iter().take(room).map(ToString::to_string));
    };
    let mut after = 0;
    loop {
        let page = store.audit_lines(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        report.lines += page.len() as u64;
        for line in &page {
            take(verifier.read(line), &mut report);
        }
    }
    let (head, missing) = verifier.finish();
    take(missing, &mut report);
    report.anchor = head.to_string();
    report.intact = report.found == 0;
    context.print(&report, |report| {
        if report.intact {
            return format!(
                "the audit log is as it was written: {} lines\nanchor for later: {}",
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
