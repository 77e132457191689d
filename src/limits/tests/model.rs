//! The limiter against a model that recounts everything from the list of what happened, second by
//! second, over random histories that are drawn to the moments at which something leaves.

use proptest::prelude::*;

use super::*;

const PROFILE: &str = r#"
reservation = "7s"
renewal_grace = "6s"
[[limit]]
name = "domain"
counts = "certificates"
per = "domain"
tiers = ["2/10s", "3/25s"]
exponent = 1.0
[[limit]]
name = "set"
counts = "certificates"
per = "identifiers"
tiers = ["2/20s"]
[[limit]]
name = "orders"
counts = "orders"
per = "account"
tiers = ["4/15s"]
[[limit]]
name = "failed"
counts = "failed-authorizations"
per = "account-and-identifier"
tiers = ["2/9s"]
[[limit]]
name = "all"
counts = "certificates"
per = "everything"
tiers = ["6/12s"]
exponent = 0.5
renewals = "count"
[[limit]]
name = "ip"
counts = "registrations"
per = "ip"
tiers = ["2/8s", "3/30s"]
"#;

/// How long a certificate lasts, in seconds.
const LIFETIME: i64 = 14;

const SETS: [&[&str]; 5] =
    [&["a.com"], &["a.com", "w.a.com"], &["b.com"], &["a.com", "b.com"], &["x.b.com", "c.com"]];
const ACCOUNTS: [&str; 2] = ["acct-1", "acct-2"];
const MULTIPLIERS: [f64; 4] = [1.0, 0.7, 0.3, 0.0];

#[derive(Clone, Debug)]
enum Step {
    Order {
        set: usize,
        account: usize,
    },
    Register {
        ip: usize,
    },
    /// The n-th order, from the newest.
    Commit {
        back: usize,
    },
    Release {
        back: usize,
        failed: bool,
    },
    Wait {
        seconds: i64,
    },
    /// To the n-th moment ahead at which something leaves, and this much off it.
    Jump {
        nth: usize,
        off: i64,
    },
    Press {
        m: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SETS.len(), 0..ACCOUNTS.len()).prop_map(|(set, account)| Step::Order { set, account }),
        2 => (0..2_usize).prop_map(|ip| Step::Register { ip }),
        4 => (0..4_usize).prop_map(|back| Step::Commit { back }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(back, failed)| Step::Release { back, failed }),
        1 => (0..5_i64).prop_map(|seconds| Step::Wait { seconds }),
        3 => (0..4_usize, -1..2_i64).prop_map(|(nth, off)| Step::Jump { nth, off }),
        1 => (0..MULTIPLIERS.len()).prop_map(|m| Step::Press { m }),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Open,
    Issued(i64),
    Released(i64, bool),
}

struct Ordered {
    id: OrderId,
    at: i64,
    set: usize,
    account: usize,
    renewal: bool,
    fate: Fate,
}

/// What happened, and nothing else.
#[derive(Default)]
struct Model {
    orders: Vec<Ordered>,
    registered: Vec<(i64, usize)>,
}

impl Model {
    fn domains(set: usize) -> Vec<&'static str> {
        let mut domains: Vec<_> = SETS[set]
            .iter()
            .map(|name| {
                let dot = name[..name.len() - 4].rfind('.').map_or(0, |at| at + 1);
                &name[dot..]
            })
            .collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    /// Whether an order takes a place of a certificate limit with this period.
    fn takes(order: &Ordered, now: i64, period: i64) -> bool {
        match order.fate {
            Fate::Open => now < order.at + 7,
            Fate::Issued(at) => now < at + period,
            Fate::Released(..) => false,
        }
    }

    fn renewal(&self, set: usize, now: i64) -> bool {
        self.orders.iter().any(|order| {
            order.set == set && matches!(order.fate, Fate::Issued(at) if now < at + LIFETIME + 6)
        })
    }

    /// Every (count, allowed) that a new order meets.
    fn order(&self, set: usize, account: usize, m: f64, now: i64) -> Vec<(usize, usize)> {
        let renewal = self.renewal(set, now);
        let m = if renewal { 1.0 } else { m };
        let tightened = |count: usize, e: f64| ((count as f64 * m.powf(e) + 1e-6).floor() as usize).max(1);
        let mut met = Vec::new();
        let count = |of: &dyn Fn(&Ordered) -> bool| self.orders.iter().filter(|order| of(order)).count();
        if !renewal {
            for domain in Self::domains(set) {
                for (allowed, period) in [(2, 10), (3, 25)] {
                    let taken = count(&|order| {
                        !order.renewal
                            && Self::domains(order.set).contains(&domain)
                            && Self::takes(order, now, period)
                    });
                    met.push((taken, tightened(allowed, 1.0)));
                }
            }
        }
        met.push((count(&|order| order.set == set && Self::takes(order, now, 20)), 2));
        met.push((count(&|order| order.account == account && now < order.at + 15), 4));
        for name in SETS[set] {
            let failed = count(&|order| {
                order.account == account
                    && SETS[order.set].contains(name)
                    && matches!(order.fate, Fate::Released(at, true) if now < at + 9)
            });
            met.push((failed, 2));
        }
        met.push((count(&|order| Self::takes(order, now, 12)), tightened(6, 0.5)));
        met
    }

    fn registration(&self, ip: usize, now: i64) -> Vec<(usize, usize)> {
        [(2, 8), (3, 30)]
            .map(|(allowed, period)| {
                let taken = self.registered.iter().filter(|(at, from)| *from == ip && now < at + period);
                (taken.count(), allowed)
            })
            .to_vec()
    }

    /// Moments ahead at which something leaves.
    fn leaving(&self, now: i64) -> Vec<i64> {
        let mut moments: Vec<i64> = self
            .orders
            .iter()
            .flat_map(|order| {
                let mut of_order = vec![order.at + 15];
                match order.fate {
                    Fate::Open => of_order.push(order.at + 7),
                    Fate::Issued(at) => of_order.extend([10, 12, 20, 25, LIFETIME + 6].map(|span| at + span)),
                    Fate::Released(at, _) => of_order.push(at + 9),
                }
                of_order
            })
            .chain(self.registered.iter().flat_map(|(at, _)| [at + 8, at + 30]))
            .filter(|moment| *moment > now)
            .collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

fn free(met: &[(usize, usize)]) -> bool {
    met.iter().all(|(count, allowed)| count < allowed)
}

/// The first second from `now` on at which `met` is free.
fn frees(now: i64, met: impl Fn(i64) -> Vec<(usize, usize)>) -> i64 {
    (now..now + 200).find(|second| free(&met(*second))).expect("everything leaves within 200 s")
}

fn compare(decision: &Decision, met: &[(usize, usize)]) {
    let adds =
        |state: &LimitState| u64::from(allowed(decision) && state.counts != Counts::FailedAuthorizations);
    let told: Vec<(usize, usize)> = decision
        .limits
        .iter()
        .flat_map(|state| {
            state.tiers.iter().map(|tier| ((tier.count - adds(state)) as usize, tier.effective as usize))
        })
        .collect();
    assert_eq!(told, met, "{decision:#?}");
}

fn play(steps: &[Step]) {
    let mut desk = Desk::new(profile(PROFILE));
    let mut model = Model::default();
    let mut m = 1.0;
    desk.now = UnixTime(1_000_000);
    for step in steps {
        let now = desk.now.0;
        match *step {
            Step::Order { set, account } => {
                let decision = desk.ask(ACCOUNTS[account], SETS[set], None);
                let met = model.order(set, account, m, now);
                let renewal = model.renewal(set, now);
                assert_eq!(decision.renewal.is_some(), renewal);
                compare(&decision, &met);
                let shut = m == 0.0 && !renewal;
                assert_eq!(allowed(&decision), free(&met) && !shut, "{decision:#?}");
                if let Some(id) = decision.order() {
                    model.orders.push(Ordered { id, at: now, set, account, renewal, fate: Fate::Open });
                } else if shut {
                    assert_eq!(retry_at(&decision), None);
                } else {
                    // While nothing happens a renewal stays one only as long as its certificate lasts:
                    // the limiter promises a time for the request as it is now.
                    let as_it_is = |second: i64| model_of(&model, renewal, set, account, m, second);
                    assert_eq!(retry_at(&decision), Some(UnixTime(frees(now, as_it_is))), "{decision:#?}");
                }
            }
            Step::Register { ip } => {
                let decision = desk.register(["192.0.2.1", "2001:db8::1"][ip]);
                let met = model.registration(ip, now);
                compare(&decision, &met);
                assert_eq!(allowed(&decision), free(&met));
                if allowed(&decision) {
                    model.registered.push((now, ip));
                } else {
                    let frees = frees(now, |second| model.registration(ip, second));
                    assert_eq!(retry_at(&decision), Some(UnixTime(frees)));
                }
            }
            Step::Commit { back } => {
                let Some(order) = model.orders.iter_mut().rev().nth(back) else { continue };
                desk.issued += 1;
                let certificate = IssuedCertificate {
                    name: format!("cert-{}", desk.issued),
                    ari: None,
                    not_after: UnixTime(now + LIFETIME),
                };
                let committed = desk.turn(|turn| turn.commit(order.id, &certificate));
                match order.fate {
                    Fate::Issued(_) => assert!(committed.is_err()),
                    Fate::Open => assert_eq!(committed.unwrap().late, now >= order.at + 7),
                    Fate::Released(..) => assert!(committed.unwrap().late),
                }
                if !matches!(order.fate, Fate::Issued(_)) {
                    order.fate = Fate::Issued(now);
                }
            }
            Step::Release { back, failed } => {
                let Some(order) = model.orders.iter_mut().rev().nth(back) else { continue };
                let names = if failed { SETS[order.set] } else { &[] };
                let released = desk.release(order.id, names);
                assert_eq!(released.is_err(), matches!(order.fate, Fate::Issued(_)));
                if order.fate == Fate::Open {
                    order.fate = Fate::Released(now, failed);
                }
            }
            Step::Wait { seconds } => desk.now = UnixTime(now + seconds),
            Step::Jump { nth, off } => {
                if let Some(moment) = model.leaving(now).into_iter().nth(nth) {
                    desk.now = UnixTime((moment + off).max(now));
                }
            }
            Step::Press { m: which } => {
                m = MULTIPLIERS[which];
                desk.pressure.multiplier = m;
            }
        }
    }
    // A book read anew from the records is the same book.
    let mut anew = Book::new(Arc::clone(desk.book.profile()));
    for record in desk.records() {
        anew.enter(Arc::new(record), None, desk.now);
    }
    desk.book = anew;
    for (set, account) in (0..SETS.len()).flat_map(|set| [(set, 0), (set, 1)]) {
        let identifiers = Identifiers::parse(SETS[set], 100).unwrap();
        let ask =
            Ask::Order(OrderAsk { account: ACCOUNTS[account], identifiers: &identifiers, replaces: None });
        let (decision, _) = decide(&desk.book, &ask, &desk.pressure, desk.now);
        compare(&decision, &model.order(set, account, m, desk.now.0));
    }
}

/// What an order meets at `second`, as a renewal or not as it is now.
fn model_of(
    model: &Model,
    renewal: bool,
    set: usize,
    account: usize,
    m: f64,
    second: i64,
) -> Vec<(usize, usize)> {
    let met = model.order(set, account, m, second);
    if renewal == model.renewal(set, second) {
        return met;
    }
    // It was a renewal and its certificate has ended: without the domain's tiers, at full numbers.
    let domains = Model::domains(set).len() * 2;
    let mut met = met[domains..].to_vec();
    if let Some((_, allowed)) = met.last_mut() {
        *allowed = 6;
    }
    met
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_history_agrees_with_counting_everything_anew(steps in prop::collection::vec(step(), 1..70)) {
        play(&steps);
    }
}
