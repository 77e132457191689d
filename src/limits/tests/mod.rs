//! The limiter's rules, without a store: requests in, ledger records entered into a book.

mod capacity;
mod known;
mod model;
mod orders;
mod refusals;
mod renewals;
mod service;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::UnixTime;
use crate::limits::turn::Turn;
use crate::store::LedgerRecord;

const DAY: Duration = Duration::from_secs(86_400);

fn time(text: &str) -> UnixTime {
    UnixTime::parse_rfc3339(text).unwrap()
}

/// A profile with these limits.
fn profile(limits: &str) -> Arc<Profile> {
    let text = format!("name = \"test\"\nhelp = \"https://ca.example/limits\"\n{limits}");
    Arc::new(Profile::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}")))
}

fn shipped(name: &str) -> Arc<Profile> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/limits");
    let mut profile = Profile::load(&path.join(format!("{name}.toml"))).unwrap();
    assert_eq!(&*profile.help, "", "the page that explains limits is the deployment's, not the profile's");
    profile.help = "https://ca.example/limits".into();
    Arc::new(profile)
}

fn domain_limit(tiers: &str, more: &str) -> Arc<Profile> {
    profile(&format!(
        "[[limit]]\nname = \"per-domain\"\ncounts = \"certificates\"\nper = \"domain\"\ntiers = [{tiers}]\nexponent = 1.0\n{more}"
    ))
}

/// A limiter without a store: what it decides is entered at once.
struct Desk {
    book: Book,
    pressure: Pressure,
    now: UnixTime,
    issued: u32,
}

impl Desk {
    fn new(profile: Arc<Profile>) -> Self {
        Self {
            book: Book::new(profile),
            pressure: Pressure::none(),
            now: time("2016-01-17T10:00:00Z"),
            issued: 0,
        }
    }

    fn at(&mut self, text: &str) -> &mut Self {
        self.now = time(text);
        self
    }

    fn wait(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.plus(span);
        self
    }

    fn turn<T>(&mut self, ask: impl FnOnce(&mut Turn<'_>) -> T) -> T {
        let mut turn = Turn::new(&self.book, &self.pressure, self.now);
        let answer = ask(&mut turn);
        if let Some(record) = turn.into_record() {
            self.book.enter(Arc::new(record), None, self.now);
        }
        answer
    }

    fn register(&mut self, ip: &str) -> Decision {
        let ip = ip.parse().unwrap();
        self.turn(|turn| turn.ask(&Ask::Registration(ip), None).unwrap())
    }

    fn ask(&mut self, account: &str, names: &[&str], replaces: Option<&str>) -> Decision {
        let identifiers = Identifiers::parse(names, 100).unwrap();
        let ask = OrderAsk { account, identifiers: &identifiers, replaces };
        self.turn(|turn| turn.ask(&Ask::Order(ask), None).unwrap())
    }

    fn order(&mut self, names: &[&str]) -> Decision {
        self.ask("acct-1", names, None)
    }

    /// Orders and commits; the certificate's name is `cert-N`, and it lasts 90 days.
    fn issue(&mut self, names: &[&str]) -> Decision {
        let decision = self.order(names);
        if let Some(order) = decision.order() {
            self.commit(order).unwrap();
        }
        decision
    }

    fn commit(&mut self, order: OrderId) -> Result<Committed, LimitsError> {
        self.issued += 1;
        let certificate = IssuedCertificate {
            name: format!("cert-{}", self.issued),
            ari: Some(format!("ari-{}", self.issued)),
            not_after: self.now.plus(90 * DAY),
        };
        self.turn(|turn| turn.commit(order, &certificate))
    }

    fn release(&mut self, order: OrderId, failed: &[&str]) -> Result<Released, LimitsError> {
        let failed: Vec<_> = failed.iter().map(ToString::to_string).collect();
        self.turn(|turn| turn.release(order, &failed))
    }

    fn allow(
        &mut self,
        limit: &str,
        key: OverrideKey,
        allow: &str,
        until: &str,
    ) -> Result<Override, LimitsError> {
        let new = NewOverride {
            limit: limit.to_owned(),
            key,
            allow: allow.to_owned(),
            until: time(until),
            reason: "ticket 17".to_owned(),
        };
        self.turn(|turn| turn.add_override(&new))
    }

    /// What the ledger would hold.
    fn records(&self) -> Vec<LedgerRecord> {
        let mut records: Vec<_> = (1..=self.book.position().0)
            .filter_map(|id| self.book.record(OrderId(id)))
            .map(|record| (**record).clone())
            .collect();
        records.sort_by_key(|record| record.id);
        records
    }
}

fn allowed(decision: &Decision) -> bool {
    decision.order().is_some()
}

fn retry_at(decision: &Decision) -> Option<UnixTime> {
    match decision.outcome {
        Outcome::Allowed { .. } => panic!("allowed: {decision:#?}"),
        Outcome::Refused { retry_at, .. } => retry_at,
    }
}
