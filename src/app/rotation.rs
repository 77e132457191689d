//! The responders' turns: who signs for each issuer, until when, and what the operator has to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::KnownResponder;
use crate::clock::UnixTime;
use crate::presign::Policies;
use crate::presign::rota::{Alarm, Duty, Rota};
use crate::store::{NewResponder, ResponderNumber};
use crate::telemetry::{Encoded, Scrape};

/// The turns of one issuer's responders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// The issuer's name.
    pub issuer: String,
    /// How long its answers last.
    pub validity: Duration,
    /// Its responders that are fit and in use, the preferred one first.
    pub rota: Rota,
}

impl KnownResponder {
    /// When it signs, if it is fit and in use.
    #[must_use]
    pub fn duty(&self) -> Option<Duty> {
        let fit = self.delegation.is_ok() && self.record.retired_at.is_none();
        let from = self.record.responder.from.unwrap_or(UnixTime::EPOCH);
        fit.then(|| Duty {
            responder: self.record.number,
            begins: self.certificate.not_before().max(from),
            ends: self.certificate.not_after(),
        })
    }
}

impl Turns {
    /// The turns of every issuer that ever had a responder, from all of them in order of preference.
    #[must_use]
    pub fn of(responders: &[KnownResponder], policies: &Policies) -> Vec<Self> {
        let mut turns: BTreeMap<&str, Self> = BTreeMap::new();
        for responder in responders {
            let issuer = &responder.issuer.record;
            let turns = turns.entry(&issuer.name).or_insert_with(|| Self {
                issuer: issuer.name.clone(),
                validity: policies.of(issuer.id).freshness.validity(),
                rota: Rota::default(),
            });
            turns.rota.0.extend(responder.duty());
        }
        turns.into_values().collect()
    }

    /// Who signs at `now`.
    #[must_use]
    pub fn on_duty(&self, now: UnixTime) -> Option<ResponderNumber> {
        self.rota.on_duty(now, self.validity).map(|duty| duty.responder)
    }

    /// What the operator has to know, most urgent first; nothing when all is well.
    #[must_use]
    pub fn warnings(&self, now: UnixTime) -> Vec<String> {
        let issuer = &self.issuer;
        let mut warnings = Vec::new();
        match (self.rota.alarm(now), self.rota.signed_until(now)) {
            (Some(Alarm::Now), _) => {
                let next = self.rota.0.iter().map(|duty| duty.begins).filter(|begins| *begins > now).min();
                let next = next.map_or_else(String::new, |next| format!(" before {next}"));
                warnings.push(format!(
                    "no responder signs for {issuer}{next}: install one (`goodstanding responder install`)"
                ));
            }
            (Some(Alarm::Within(_)), Some(until)) => warnings.push(format!(
                "no responder signs for {issuer} after {until}: install the next one (`goodstanding responder key`, `csr`, `install --from TIME`)"
            )),
            _ => {}
        }
        for (old, new, together) in self.rota.late_handovers(now, self.validity) {
            let how = if together.is_zero() {
                format!("only after responder {} has ended at {}", old.responder.0, old.ends)
            } else {
                format!(
                    "{} before responder {} ends at {}",
                    humantime::format_duration(together),
                    old.responder.0,
                    old.ends
                )
            };
            warnings.push(format!(
                "responder {} takes over for {issuer} at {}, {how}: answers last {} and cannot outlive their signer's certificate, so until then they get shorter and are signed more often; let it take over earlier",
                new.responder.0,
                new.begins,
                humantime::format_duration(self.validity)
            ));
        }
        warnings
    }

    /// How things stand, in one line.
    #[must_use]
    pub fn standing(&self, now: UnixTime) -> String {
        let issuer = &self.issuer;
        match (self.on_duty(now), self.rota.signed_until(now)) {
            (Some(number), Some(until)) => {
                format!("{issuer}: responder {} signs, somebody does until {until}", number.0)
            }
            _ => format!("{issuer}: nobody signs"),
        }
    }
}

/// The rank of each responder among those of its issuer, given in order of preference, each with
/// whether it is configured. Of one rank, so that they share the work, are clones of a key in several
/// tokens, and configured ones that sign in the same way and take over at the same time.
pub(super) fn ranks(responders: &[(NewResponder, bool)]) -> Vec<usize> {
    let share = |(one, one_configured): &(NewResponder, bool), (other, configured): &(NewResponder, bool)| {
        let another_key = (&one.token, &one.key) != (&other.token, &other.key);
        (one.from, &one.algorithm) == (other.from, &other.algorithm)
            && (one.certificate == other.certificate || (*one_configured && *configured && another_key))
    };
    let mut ranks: Vec<usize> = Vec::with_capacity(responders.len());
    for (place, responder) in responders.iter().enumerate() {
        let before = responders[..place].iter().zip(&ranks);
        let of_issuer = before.rev().filter(|(other, _)| other.0.issuer == responder.0.issuer);
        let last = of_issuer.clone().map(|(_, rank)| *rank).next();
        // All of a rank must share: a renewed certificate of a key is preferred to the old one.
        let joins = last.filter(|last| {
            of_issuer.take_while(|(_, rank)| *rank == last).all(|(other, _)| share(responder, other))
        });
        ranks.push(joins.unwrap_or_else(|| last.map_or(0, |last| last + 1)));
    }
    ranks
}

/// The turns of all issuers in a running process: told to the log, to metrics and to readiness.
#[derive(Debug, Default)]
pub(super) struct Watch {
    turns: ArcSwap<Vec<Turns>>,
}

impl Watch {
    pub(super) fn replace(&self, turns: Vec<Turns>) {
        self.turns.store(Arc::new(turns));
    }

    /// One line for all issuers.
    pub(super) fn standing(&self, now: UnixTime) -> String {
        let turns = self.turns.load();
        if turns.is_empty() {
            return "no responder is installed".to_owned();
        }
        turns.iter().map(|turns| turns.standing(now)).collect::<Vec<_>>().join("; ")
    }

    /// Logs each alarm when it begins, and again when it gets worse.
    pub(super) fn sound(&self, told: &mut BTreeMap<String, Alarm>, now: UnixTime) {
        for turns in self.turns.load().iter() {
            let Some(alarm) = turns.rota.alarm(now) else {
                told.remove(&turns.issuer);
                continue;
            };
            if told.insert(turns.issuer.clone(), alarm).is_some_and(|before| is_no_worse(alarm, before)) {
                continue;
            }
            let (issuer, until) = (&turns.issuer, turns.rota.signed_until(now));
            let until = until.map_or_else(|| "now".to_owned(), |until| until.to_string());
            let warning = turns.warnings(now).into_iter().next().unwrap_or_default();
            match alarm {
                Alarm::Within(ahead) if ahead > Duration::from_secs(86_400) => {
                    tracing::warn!(%issuer, %until, %warning, "responder certificates run out");
                }
                _ => tracing::error!(%issuer, %until, %warning, "responder certificates run out"),
            }
        }
    }
}

/// Less time left is worse.
fn is_no_worse(alarm: Alarm, before: Alarm) -> bool {
    match (alarm, before) {
        (Alarm::Within(now), Alarm::Within(before)) => now >= before,
        (Alarm::Now, Alarm::Within(_)) => false,
        (_, Alarm::Now) => true,
    }
}

/// Reads the watch at each scrape.
#[derive(Debug)]
pub(super) struct TurnFigures {
    pub(super) watch: Arc<Watch>,
    pub(super) clock: crate::clock::SharedClock,
}

impl Collector for TurnFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let turns = self.watch.turns.load();
        let now = self.clock.now();
        let mut scrape = Scrape::new(&mut encoder);
        let ends = turns.iter().flat_map(|turns| {
            let of_issuer = turns.rota.0.iter();
            of_issuer.map(|duty| {
                let labels = [("issuer", turns.issuer.clone()), ("responder", duty.responder.0.to_string())];
                (labels, duty.ends.0)
            })
        });
        let help = "When the certificate of a responder in use ends, in Unix seconds";
        scrape.gauges("responder_certificate_expires_timestamp_seconds", help, None, ends)?;
        let until = turns.iter().map(|turns| {
            let until = turns.rota.signed_until(now).map_or(0, |until| until.0);
            ([("issuer", turns.issuer.as_str())], until)
        });
        let help =
            "Until when some responder signs for an issuer without a gap, in Unix seconds; 0 for nobody now";
        scrape.gauges("issuer_signed_until_timestamp_seconds", help, None, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const T: UnixTime = UnixTime(1_795_315_054);

    fn turns(duties: &[(i64, u32, u32)]) -> Turns {
        let duty = |&(number, begins, ends): &(i64, u32, u32)| Duty {
            responder: ResponderNumber(number),
            begins: T.plus(DAY * begins),
            ends: T.plus(DAY * ends),
        };
        Turns { issuer: "demo".to_owned(), validity: DAY * 7, rota: Rota(duties.iter().map(duty).collect()) }
    }

    #[test]
    fn warnings_say_who_ends_when_and_what_to_do() {
        assert!(turns(&[(1, 0, 90)]).warnings(T).is_empty());
        let ending = turns(&[(1, 0, 90)]).warnings(T.plus(DAY * 85)).remove(0);
        assert!(ending.contains("after 2027-02-20") && ending.contains("install --from"), "{ending}");
        let nobody = turns(&[(1, 3, 90)]).warnings(T).remove(0);
        assert!(nobody.contains("no responder signs for demo before 2026-11-25"), "{nobody}");
        let late = turns(&[(1, 0, 60), (2, 58, 120)]).warnings(T).remove(0);
        assert!(late.contains("2days before responder 1 ends") && late.contains("earlier"), "{late}");
        assert!(turns(&[(1, 0, 60), (2, 50, 120)]).warnings(T).is_empty());
    }

    #[test]
    fn equals_share_a_rank_and_a_take_over_a_renewal_and_another_algorithm_have_their_own() {
        let new = |issuer, key: &str, algorithm: &str, from: Option<i64>, configured| {
            let responder = NewResponder {
                issuer: crate::store::IssuerId(issuer),
                token: "hsm-a".to_owned(),
                key: key.to_owned(),
                algorithm: algorithm.to_owned(),
                certificate: format!("{issuer} {key} {from:?}").into_bytes(),
                not_after: T,
                from: from.map(UnixTime),
            };
            (responder, configured)
        };
        let renewed = |key: &str| {
            let (mut old, configured) = new(1, key, "ec", None, true);
            old.certificate = b"the old one".to_vec();
            (old, configured)
        };
        // Two issuers, whose responders come mixed.
        let mixed = [
            new(1, "a", "ec", None, true),
            new(2, "a", "ec", None, true),
            new(1, "b", "ec", None, true),
            new(2, "b", "ec", None, true),
            renewed("a"),
            new(1, "r", "rsa", None, true),
            new(2, "spare", "ec", None, false),
        ];
        assert_eq!(ranks(&mixed), [0, 0, 0, 0, 1, 2, 1]);
        let taking_over = [new(1, "next", "ec", Some(9), true), new(1, "a", "ec", None, true)];
        assert_eq!(ranks(&taking_over), [0, 1]);
        assert_eq!(ranks(&[]), [0; 0]);
    }

    #[test]
    fn an_alarm_is_told_once_and_again_when_it_gets_worse() {
        assert!(is_no_worse(Alarm::Within(DAY * 7), Alarm::Within(DAY * 7)));
        assert!(!is_no_worse(Alarm::Within(DAY), Alarm::Within(DAY * 7)));
        assert!(is_no_worse(Alarm::Within(DAY * 30), Alarm::Within(DAY * 7)));
        assert!(!is_no_worse(Alarm::Now, Alarm::Within(DAY)));
        assert!(is_no_worse(Alarm::Now, Alarm::Now));
        let watch = Watch::default();
        assert_eq!(watch.standing(T), "no responder is installed");
        watch.replace(vec![turns(&[(1, 0, 90)])]);
        let mut told = BTreeMap::new();
        watch.sound(&mut told, T);
        assert!(told.is_empty());
        watch.sound(&mut told, T.plus(DAY * 61));
        assert_eq!(told.get("demo"), Some(&Alarm::Within(DAY * 30)));
        watch.sound(&mut told, T.plus(DAY * 100));
        assert_eq!(told.get("demo"), Some(&Alarm::Now));
        watch.replace(vec![turns(&[(1, 0, 90), (2, 80, 200)])]);
        watch.sound(&mut told, T.plus(DAY * 85));
        assert!(told.is_empty());
    }
}
