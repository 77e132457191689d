//! Metrics of the tokens.

use std::time::Duration;

use prometheus_client::registry::Unit;

use crate::signer::{Lane, Signer, Snapshot, TokenState};
use crate::telemetry::scrape::Distribution;
use crate::telemetry::{Encoded, Scrape};

/// The names of every state a token may be in.
const STATES: [&str; 5] = ["serving", "recovering", "down", "pin_refused", "stopped"];

/// Writes the figures of all tokens.
pub(super) fn encode(signers: &[Signer], scrape: &mut Scrape<'_, '_>) -> Encoded {
    let tokens: Vec<(&Signer, Snapshot)> = signers.iter().map(|signer| (signer, signer.stats())).collect();
    let mut figures = Figures { scrape, tokens: &tokens };

    figures.gauges("token_serving", "Whether the token signs", |token| {
        f64::from(u8::from(token.state == TokenState::Serving))
    })?;
    let states = tokens.iter().flat_map(|(_, token)| {
        STATES.map(|state| {
            ([("token", token.token.as_str()), ("state", state)], u32::from(token.state.name() == state))
        })
    });
    figures.scrape.gauges("token_state", "Which state the token is in", None, states)?;
    figures.gauges("token_sessions", "Sessions open and logged in", |token| token.sessions as f64)?;
    figures.gauges("token_hung_calls", "Calls that have not come back", |token| token.hung as f64)?;
    let help = "Verified signatures a second while work waits, over the last half minute of such time; 0 before there was a second of it";
    figures.gauges("token_rate", help, |token| token.rate.map_or(0.0, |rate| rate.per_second))?;

    figures.lanes("token_queued", "Signatures that wait for a session", None, |_, token, lane| {
        token.lanes[lane.index()].queued as f64
    })?;
    let help = "How long the oldest signature in the lane has waited for a session";
    figures.lanes("token_oldest_wait", help, Some(Unit::Seconds), |_, token, lane| {
        token.lanes[lane.index()].oldest.as_secs_f64()
    })?;
    let help = "How long one more signature of the lane would take";
    figures.lanes("token_expected_wait", help, Some(Unit::Seconds), |signer, _, lane| {
        signer.expected_wait(lane).as_secs_f64()
    })?;

    figures.counters("token_signatures", "Signatures made and verified", |token| token.signed)?;
    figures.counters("token_unverified", "Signatures that did not verify and were thrown away", |token| {
        token.unverified
    })?;
    figures.counters("token_timeouts", "Calls that did not come back in time", |token| token.timeouts)?;
    figures.counters("token_sessions_reopened", "Sessions opened after the first ones", |token| {
        token.sessions_reopened
    })?;
    figures
        .counters("token_recoveries", "Attempts to mend the token as a whole", |token| token.recoveries)?;
    let failures = tokens.iter().flat_map(|(_, token)| {
        token.failures.iter().map(|(failure, count)| {
            let (code, function) = names(failure);
            ([("token", token.token.clone()), ("code", code), ("function", function)], *count)
        })
    });
    let help = "Failed calls by PKCS#11 return code and function";
    figures.scrape.counters("token_failures", help, failures)?;
    let times = tokens.iter().map(|(_, token)| ([("token", token.token.as_str())], call_times(token)));
    figures.scrape.histograms("token_signature", "The time that C_Sign takes", Some(&Unit::Seconds), times)
}

fn call_times(token: &Snapshot) -> Distribution {
    let class = |(until, count): &(Duration, u64)| {
        let last = *until == Duration::MAX;
        (if last { f64::INFINITY } else { until.as_secs_f64() }, *count)
    };
    Distribution {
        sum: token.call_time.sum.as_secs_f64(),
        classes: token.call_times.iter().map(class).collect(),
    }
}

/// The names of a failure in the standard: `DeviceError in Sign` is CKR_DEVICE_ERROR of C_Sign.
fn names(failure: &str) -> (String, String) {
    let Some((code, function)) = failure.split_once(" in ") else {
        return (failure.to_owned(), String::new());
    };
    if !code.chars().all(|each| each.is_ascii_alphanumeric()) {
        return (code.to_owned(), format!("C_{function}"));
    }
    let mut name = "CKR".to_owned();
    for each in code.chars() {
        if each.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(each.to_ascii_uppercase());
    }
    (name, format!("C_{function}"))
}

struct Figures<'s, 'a, 'e> {
    scrape: &'s mut Scrape<'a, 'e>,
    tokens: &'s [(&'s Signer, Snapshot)],
}

impl Figures<'_, '_, '_> {
    fn gauges(&mut self, name: &str, help: &str, of: impl Fn(&Snapshot) -> f64) -> Encoded {
        let values = self.tokens.iter().map(|(_, token)| ([("token", token.token.as_str())], of(token)));
        self.scrape.gauges(name, help, None, values)
    }

    fn counters(&mut self, name: &str, help: &str, of: impl Fn(&Snapshot) -> u64) -> Encoded {
        let values = self.tokens.iter().map(|(_, token)| ([("token", token.token.as_str())], of(token)));
        self.scrape.counters(name, help, values)
    }

    fn lanes(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        of: impl Fn(&Signer, &Snapshot, Lane) -> f64,
    ) -> Encoded {
        let of = &of;
        let values = self.tokens.iter().flat_map(|(signer, token)| {
            Lane::ALL.into_iter().map(move |lane| {
                ([("token", token.token.as_str()), ("lane", lane.name())], of(signer, token, lane))
            })
        });
        self.scrape.gauges(name, help, unit.as_ref(), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_named_as_in_the_standard() {
        for (failure, code, function) in [
            ("DeviceError in Sign", "CKR_DEVICE_ERROR", "C_Sign"),
            ("PinLenRange in Login", "CKR_PIN_LEN_RANGE", "C_Login"),
            ("FipsSelfTestFailed in Initialize", "CKR_FIPS_SELF_TEST_FAILED", "C_Initialize"),
            ("VendorDefined(0x80000001) in SignInit", "VendorDefined(0x80000001)", "C_SignInit"),
            ("the key is not there any more", "the key is not there any more", ""),
        ] {
            assert_eq!(names(failure), (code.to_owned(), function.to_owned()));
        }
    }

    #[test]
    fn every_state_has_its_label() {
        let reason: std::sync::Arc<str> = "x".into();
        for state in [
            TokenState::Serving,
            TokenState::Recovering { reason: reason.clone() },
            TokenState::Down { reason: reason.clone(), tries: 1 },
            TokenState::PinRefused { reason },
            TokenState::Stopped,
        ] {
            assert!(STATES.contains(&state.name()));
        }
    }
}
