//! Which fault a call meets: the counting, without any call of PKCS#11.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::control::{Control, Fault};
use super::functions::Function;

/// A call on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) function: Function,
    /// The label of the token that it is about.
    pub(crate) token: Option<&'a str>,
    pub(crate) session: Option<u64>,
    /// What is to be signed.
    pub(crate) message: Option<&'a [u8]>,
    /// C_Sign asked for the length of a signature only: nothing but a fault of all functions meets it.
    pub(crate) length_only: bool,
}

/// The faults of one version of the control file, and how often each has been met.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) control: Control,
    counts: Vec<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    met: AtomicU64,
    happened: AtomicU64,
    over: AtomicBool,
    over_for: Mutex<BTreeSet<u64>>,
}

impl Rules {
    pub(crate) fn new(control: Control) -> Self {
        let counts = control.faults.iter().map(|_| Counts::default()).collect();
        Self { control, counts }
    }

    /// The fault that happens to a call.
    pub(crate) fn meet(&self, call: &Call<'_>) -> Option<&Fault> {
        let both = self.control.faults.iter().zip(&self.counts);
        both.filter(|(fault, _)| concerns(fault, call))
            .find(|(fault, counts)| counts.happens(fault, call))
            .map(|(fault, _)| fault)
    }

    /// A function has succeeded: what lasts until then is over.
    pub(crate) fn succeeded(&self, call: &Call<'_>) {
        for (fault, counts) in self.control.faults.iter().zip(&self.counts) {
            if fault.until != Some(call.function) || !of_token(fault, call) {
                continue;
            }
            match call.session.filter(|_| call.function == Function::C_FindObjects) {
                Some(session) => {
                    counts.over_for.lock().unwrap_or_else(PoisonError::into_inner).insert(session);
                }
                None if counts.happened.load(Ordering::SeqCst) > 0 => {
                    counts.over.store(true, Ordering::SeqCst);
                }
                None => {}
            }
        }
    }
}

fn of_token(fault: &Fault, call: &Call<'_>) -> bool {
    // C_Initialize is about every token.
    fault.token.is_none() || call.token.is_none() || fault.token.as_deref() == call.token
}

fn concerns(fault: &Fault, call: &Call<'_>) -> bool {
    let function = if fault.functions.is_empty() {
        call.function.is_ordinary()
    } else {
        fault.functions.contains(&call.function) && !call.length_only
    };
    function
        && (fault.token.is_none() || fault.token.as_deref() == call.token)
        && fault.message.as_ref().is_none_or(|octets| {
            call.message.is_some_and(|message| message.windows(octets.0.len()).any(|part| part == octets.0))
        })
}

impl Counts {
    fn happens(&self, fault: &Fault, call: &Call<'_>) -> bool {
        if self.over.load(Ordering::SeqCst) {
            return false;
        }
        let over_for = self.over_for.lock().unwrap_or_else(PoisonError::into_inner);
        if call.session.is_some_and(|session| over_for.contains(&session)) {
            return false;
        }
        drop(over_for);
        let met = self.met.fetch_add(1, Ordering::SeqCst) + 1;
        if met < fault.from
            || !(met - fault.from).is_multiple_of(fault.every)
            || fault.chance.is_some_and(|chance| share(fault.seed, met) >= chance)
        {
            return false;
        }
        let once_more =
            |happened: u64| (fault.times.is_none_or(|times| happened < times)).then_some(happened + 1);
        self.happened.fetch_update(Ordering::SeqCst, Ordering::SeqCst, once_more).is_ok()
    }
}

/// A number from 0 to 1 that looks random and is the same for the same seed and call (SplitMix64).
fn share(seed: u64, call: u64) -> f64 {
    let mut z = seed.wrapping_add(call.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use Function::{C_FindObjects, C_Initialize, C_Login, C_Sign, C_SignInit};

    fn call(function: Function) -> Call<'static> {
        Call { function, token: Some("a"), session: Some(1), message: None, length_only: false }
    }

    fn rules(fault: Fault) -> Rules {
        Rules::new(Control { faults: vec![fault], ..Control::of("m") })
    }

    fn pattern(rules: &Rules, call: &Call<'_>, calls: usize) -> String {
        (0..calls).map(|_| if rules.meet(call).is_some() { 'x' } else { '.' }).collect()
    }

    fn failing() -> Fault {
        Fault::fails(&[C_Sign], "CKR_DEVICE_ERROR")
    }

    #[test]
    fn a_fault_happens_from_a_call_on_every_so_often_and_so_many_times() {
        let sign = call(C_Sign);
        assert_eq!(pattern(&rules(failing()), &sign, 4), "xxxx");
        assert_eq!(pattern(&rules(Fault { from: 3, ..failing() }), &sign, 5), "..xxx");
        assert_eq!(pattern(&rules(Fault { from: 2, every: 3, ..failing() }), &sign, 8), ".x..x..x");
        assert_eq!(pattern(&rules(Fault { every: 2, times: Some(2), ..failing() }), &sign, 6), "x.x...");
    }

    #[test]
    fn chance_is_a_share_of_the_calls_and_repeatable() {
        let with = |seed| Fault { chance: Some(0.25), seed, ..failing() };
        let first = pattern(&rules(with(1)), &call(C_Sign), 4_000);
        let happened = first.matches('x').count();
        assert!((900..1_100).contains(&happened), "{happened}");
        assert_eq!(first, pattern(&rules(with(1)), &call(C_Sign), 4_000));
        assert_ne!(first, pattern(&rules(with(2)), &call(C_Sign), 4_000));
    }

    #[test]
    fn a_fault_meets_its_functions_token_and_message_only() {
        let fault = Fault {
            token: Some("a".into()),
            message: Some(super::super::control::Hex(vec![2, 3])),
            ..failing()
        };
        let rules = rules(fault);
        let hit = Call { message: Some(&[1, 2, 3, 4]), ..call(C_Sign) };
        assert!(rules.meet(&hit).is_some());
        assert!(rules.meet(&Call { function: C_SignInit, ..hit }).is_none());
        assert!(rules.meet(&Call { token: Some("b"), ..hit }).is_none());
        assert!(rules.meet(&Call { message: Some(&[1, 2, 4, 3]), ..hit }).is_none());
        assert!(rules.meet(&Call { message: Some(&[2]), ..hit }).is_none());
        assert!(rules.meet(&Call { length_only: true, ..hit }).is_none());
    }

    #[test]
    fn a_fault_of_all_functions_spares_those_that_mend() {
        let rules = rules(Fault::fails(&[], "CKR_CRYPTOKI_NOT_INITIALIZED"));
        assert!(rules.meet(&call(C_Login)).is_some());
        assert!(rules.meet(&Call { length_only: true, ..call(C_Sign) }).is_some());
        assert!(rules.meet(&call(C_Initialize)).is_none());
        assert!(rules.meet(&call(Function::C_Finalize)).is_none());
    }

    #[test]
    fn a_fault_lasts_until_a_function_has_succeeded_after_it() {
        let rules = rules(Fault { until: Some(C_Login), ..failing() });
        let other = Call { token: Some("b"), ..call(C_Login) };
        rules.succeeded(&call(C_Login));
        assert_eq!(pattern(&rules, &call(C_Sign), 2), "xx", "a login before it is none after it");
        rules.succeeded(&call(C_Sign));
        assert_eq!(pattern(&rules, &call(C_Sign), 1), "x");
        rules.succeeded(&other);
        assert_eq!(pattern(&rules, &call(C_Sign), 1), ".", "a fault of no token ends with any login");
    }

    #[test]
    fn a_handle_is_wrong_until_its_own_session_finds_it_anew() {
        let rules =
            rules(Fault { key: Some("k".into()), until: Some(C_FindObjects), ..Fault::of(&[C_SignInit]) });
        let second = Call { session: Some(2), ..call(C_SignInit) };
        assert_eq!(pattern(&rules, &call(C_SignInit), 1), "x");
        rules.succeeded(&call(C_FindObjects));
        assert_eq!(pattern(&rules, &call(C_SignInit), 1), ".");
        assert_eq!(pattern(&rules, &second, 1), "x");
        rules.succeeded(&Call { session: Some(3), ..call(C_FindObjects) });
        assert_eq!(pattern(&rules, &Call { session: Some(3), ..second }, 1), ".");
    }
}
