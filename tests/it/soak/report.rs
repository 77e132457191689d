//! The report, as it stands in docs/soak.md.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clients::Ledger;
use super::{CATCH_UP, RATE, REFRESH, VALIDITY};
use crate::support::faulty::Function;
use crate::support::fleet::Fleet;

/// One thing that went wrong.
pub(super) struct Spell {
    pub(super) name: &'static str,
    /// From the end of the fault, or its beginning if nobody ends it, to new signatures.
    pub(super) recovered: Duration,
    /// Calls of C_Sign that it happened to.
    pub(super) injected: u64,
}

pub(super) struct Report<'r> {
    pub(super) minutes: u64,
    pub(super) size: usize,
    pub(super) seed: u64,
    pub(super) spells: Vec<Spell>,
    pub(super) ledger: &'r Ledger,
    pub(super) lost: usize,
    pub(super) caught_up: Duration,
    /// Certificates whose answer is a pack at the end.
    pub(super) packed: usize,
}

impl Report<'_> {
    pub(super) fn text(&self, fleet: &Fleet) -> String {
        let ledger = self.ledger;
        let load = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::SeqCst);
        let signed = fleet.faulty.count(Function::C_Sign);
        let logins = fleet.faulty.count(Function::C_Login);
        let (revocations, registrations) =
            (ledger.revocations.lock().unwrap(), ledger.registrations.lock().unwrap());
        let mut text = String::new();
        let mut row = |what: &str, figure: String| writeln!(text, "| {what} | {figure} |").unwrap();
        row(
            "length, fleet, seed",
            format!("{} min, {} certificates, {}", self.minutes, self.size, self.seed),
        );
        row(
            "validity, refresh, token",
            format!(
                "{} min, {} min, SoftHSM P-256 held to {RATE}/s",
                VALIDITY.as_secs() / 60,
                REFRESH.as_secs() / 60
            ),
        );
        row("**stale answers served**", format!("**{}**", load(&ledger.stale)));
        row("**wrong statuses**", format!("**{}**", ledger.wrong.lock().unwrap().len()));
        row("**lost items**", format!("**{}**", self.lost));
        row("answers that clients verified", load(&ledger.looked_at).to_string());
        row("of those signed live", load(&ledger.live).to_string());
        row("tryLater or internalError instead of an answer", load(&ledger.try_later).to_string());
        row("questions that found no responder (restarts)", load(&ledger.unreachable).to_string());
        row("the oldest answer served", format!("{} s of {} s", load(&ledger.oldest), VALIDITY.as_secs()));
        row(
            "calls of C_Sign, failed, met by a fault",
            figures(signed.called, signed.failed, signed.injected),
        );
        row(
            "calls of C_Login, failed, met by a fault",
            figures(logins.called, logins.failed, logins.injected),
        );
        row("certificates whose answer is a pack, at the end", self.packed.to_string());
        row("registered, until clients saw it", spread(&registrations));
        row("revoked, until clients saw it", spread(&revocations));
        row("faults and restarts", self.spells.len().to_string());
        let recoveries: Vec<_> = self.spells.iter().map(|spell| spell.recovered).collect();
        row("from a fault's end to new signatures", spread(&recoveries));
        let limit = CATCH_UP.as_secs();
        row(
            "all signed after the last fault",
            format!("{:.0} s (of {limit} s)", self.caught_up.as_secs_f64()),
        );
        let faults = self.faults();
        format!("| | |\n|---|---|\n{text}\n{faults}")
    }

    fn faults(&self) -> String {
        let mut by_name: BTreeMap<&str, Vec<&Spell>> = BTreeMap::new();
        self.spells.iter().for_each(|spell| by_name.entry(spell.name).or_default().push(spell));
        let mut text =
            "| fault | times | calls of C_Sign | until new signatures |\n|---|---|---|---|\n".to_owned();
        for (name, spells) in by_name {
            let injected: u64 = spells.iter().map(|spell| spell.injected).sum();
            let longest = spells.iter().map(|spell| spell.recovered).max().unwrap_or_default();
            let longest = longest.as_secs_f64();
            writeln!(text, "| {name} | {} | {injected} | {longest:.1} s at most |", spells.len()).unwrap();
        }
        text
    }
}

fn figures(called: u64, failed: u64, injected: u64) -> String {
    format!("{called}, {failed}, {injected}")
}

/// How many, the median, the 99th percentile and the longest.
fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
    format!(
        "{}; median {:.2} s, p99 {:.2} s, longest {:.2} s",
        times.len(),
        seconds(at(50)),
        seconds(at(99)),
        seconds(times.last().copied())
    )
}
