//! Pre-signing from end to end, as `goodstanding presign` does it: certificates out of SQLite, composed,
//! signed by SoftHSM, verified, and stored; beside bare C_Sign loops of as many sessions in the same run.
//!
//! `cargo bench --bench presign`. Each slice stands between two of the bare loops and is compared with the mean
//! of both, because the speed of a core drifts by more than what is to be measured; medians over the slices.
//! Slices in the first lane sign certificates that have no answer yet, those in the refresh lane what is
//! there. CPU microseconds are per answer, by thread:
//!
//! | column | what |
//! |---|---|
//! | raw | the whole process during the bare loops, per signature |
//! | session | session threads: C_Sign and what the queue costs there |
//! | verify | verifier threads |
//! | pipeline | the runtime's threads: reading, composing, handing over |
//! | sqlite | SQLite's threads |
//! | ours | session + pipeline + sqlite − raw: what an answer costs beyond C_Sign and verification |
//!
//! In the rows with copies the pool's sessions sign with copies of the key (`session_keys`), which SoftHSM does
//! not read from its files each time; the bare loops sign with the key itself as before, so that `ours` and
//! `cores` tell nothing there.
//!
//! SoftHSM signs on the same cores: where the bare loops keep them all busy, the ratio cannot exceed
//! `cores`, which is raw ÷ (all four columns together). The ratio counts only while `foreign`, the cores that
//! other processes kept busy meanwhile, is near 0: they take their share from two bare loops and from our
//! seven threads differently. A token of its own shares no core with us: the row "capped" stands for one, a
//! P-256 key held to 1,000 signatures a second by the pool's `max_rate`, against that rate. It shows whether
//! the token is ever kept waiting, and nothing of the latency of a network.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement that cannot go on has only panics; its figures are printed"
)]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/pki.rs"]
mod pki;
#[path = "support/site.rs"]
mod site;
#[path = "support/token.rs"]
mod token;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use goodstanding::clock::{Stopwatch, UnixTime};
use goodstanding::ocsp::{
    Certificate, CrlReason, HashAlgorithm, KeyAlgorithm, Received, Revocation, Serial, response,
};
use goodstanding::presign::batch::{self, Selection};
use goodstanding::presign::pipeline;
use goodstanding::shutdown::Shutdown;
use goodstanding::signer::{Lane, Settings, bench};
use goodstanding::store::CertificateEntry;
use site::{SESSIONS, Site};
use token::Place;

/// One line of the table.
struct Case {
    name: &'static str,
    key: KeyAlgorithm,
    /// Signatures a second that the pool may ask of the token.
    cap: Option<u32>,
    /// Whether the pool's sessions sign with copies of the key; the bare loops never do.
    session_keys: bool,
    /// The least ratio of PERFORMANCE's P5 and P7.
    goal: f64,
    slice: Duration,
}

const fn case(
    name: &'static str,
    key: KeyAlgorithm,
    cap: Option<u32>,
    goal: f64,
    slice_seconds: u64,
) -> Case {
    Case { name, key, cap, session_keys: false, goal, slice: Duration::from_secs(slice_seconds) }
}

/// The same with `session_keys`.
const fn with_copies(name: &'static str, case: Case) -> Case {
    Case { name, session_keys: true, ..case }
}

const P256: Case = case("p256", KeyAlgorithm::P256, None, 0.75, 5);
const RSA_2048: Case = case("rsa-2048", KeyAlgorithm::Rsa2048, None, 0.95, 5);

const CASES: [Case; 6] = [
    P256,
    with_copies("p256-copies", P256),
    RSA_2048,
    with_copies("rsa-copies", RSA_2048),
    case("rsa-4096", KeyAlgorithm::Rsa4096, None, 0.99, 3),
    case("capped", KeyAlgorithm::P256, Some(1_000), 0.99, 4),
];

/// CPU nanoseconds of the threads that are alive, by what they do.
#[derive(Clone, Copy, Default)]
struct Cpu {
    session: u64,
    verify: u64,
    pipeline: u64,
    sqlite: u64,
}

impl Cpu {
    fn read() -> Self {
        let mut cpu = Self::default();
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos: u64 = stat.split(' ').next().unwrap().parse().unwrap();
            *match name.split([' ', '-']).next().unwrap() {
                "sign" => &mut cpu.session,
                "verify" => &mut cpu.verify,
                "sqlite" => &mut cpu.sqlite,
                _ => &mut cpu.pipeline,
            } += nanos;
        }
        cpu
    }

    fn since(self, before: Self) -> Self {
        Self {
            session: self.session - before.session,
            verify: self.verify - before.verify,
            pipeline: self.pipeline - before.pipeline,
            sqlite: self.sqlite - before.sqlite,
        }
    }
}

/// CPU seconds of the process, threads that have ended included. In steps of 10 ms.
fn process_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// CPU seconds of the machine: all but idle and waiting for disks.
fn machine_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields = stat.lines().next().unwrap().split_whitespace().skip(1).take(8);
    let ticks: Vec<f64> = fields.map(|ticks| ticks.parse().unwrap()).collect();
    (ticks.iter().sum::<f64>() - ticks[3] - ticks[4]) / 100.0
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// A slice of the bare loops.
#[derive(Clone, Copy)]
struct Raw {
    /// Signatures a second.
    rate: f64,
    /// CPU microseconds of the process for one.
    cpu: f64,
}

/// A slice of pre-signing: answers a second, and CPU microseconds for one.
#[derive(Clone, Copy)]
struct Slice {
    rate: f64,
    session: f64,
    verify: f64,
    pipeline: f64,
    sqlite: f64,
    /// For a certificate that was considered.
    planning: f64,
    /// The bare loops before and after it.
    raw: Raw,
}

impl Slice {
    /// What an answer costs beyond C_Sign and verification.
    fn ours(&self) -> f64 {
        self.session + self.pipeline + self.sqlite - self.raw.cpu
    }

    /// The most that the cores allow of the raw rate.
    fn cores(&self) -> f64 {
        self.raw.cpu / (self.session + self.verify + self.pipeline + self.sqlite)
    }
}

struct Stage {
    site: Site,
    registered: usize,
}

impl Stage {
    async fn set(place: &Place, case: &Case) -> Self {
        Self { site: Site::set(place, case.name, case.key, case.cap, case.session_keys).await, registered: 0 }
    }

    /// Registers so many more certificates, one of 50 revoked.
    async fn register(&mut self, count: usize) {
        let now = self.site.app.clock.now();
        let entry = |number: usize| CertificateEntry {
            serial: serial(number),
            not_before: Some(now.minus(Duration::from_secs(86_400))),
            not_after: now.plus(Duration::from_secs(90 * 86_400)),
            revocation: number
                .is_multiple_of(50)
                .then_some(Revocation { time: UnixTime(now.0 - 3_600), reason: Some(CrlReason::Superseded) }),
        };
        let entries: Vec<_> = (self.registered..self.registered + count).map(entry).collect();
        let registered = self.site.app.store.register(self.site.issuer, &entries).await.unwrap();
        assert_eq!(registered.added, count as u64);
        self.registered += count;
    }

    async fn raw(&self, slice: Duration) -> Raw {
        let before = process_seconds();
        let token = Settings { session_keys: false, ..self.site.token.clone() };
        let rate = bench::raw_rate(&token, &self.site.key, SESSIONS, slice).await.unwrap();
        Raw { rate, cpu: (process_seconds() - before) * 1e6 / (rate * slice.as_secs_f64()) }
    }

    /// Signs and stores so many answers: first ones of certificates that it registers, or new ones of
    /// those that have waited longest for theirs. `before` are the bare loops that went before.
    async fn presign(&mut self, count: usize, lane: Lane, before: Raw) -> Slice {
        if lane == Lane::First {
            self.register(count).await;
        }
        let policies = self.site.app.policies().await.unwrap();
        let within = if lane == Lane::First { Duration::ZERO } else { Duration::from_secs(365 * 86_400) };
        let selection = Selection { issuer: Some(self.site.issuer), within, limit: Some(count) };
        let idle = Cpu::read();
        let paces = pipeline::Settings::default();
        let now = self.site.app.clock.now();
        let plan = batch::plan(&*self.site.app.store, &policies, &selection, &paces, now, |_| {});
        let plan = plan.await.unwrap();
        let planned = Cpu::read();
        let planning = planned.since(idle);
        assert_eq!((plan.planned, plan.missing), (count, if lane == Lane::First { count } else { 0 }));
        let considered = plan.considered;
        let report = batch::run(&self.site.pipeline, plan, &Shutdown::new(), |_| {}).await;
        let cpu = Cpu::read().since(planned);
        assert_eq!(report.signed, count as u64, "{report:?}");

        let each = |nanos: u64| nanos as f64 / 1e3 / count as f64;
        Slice {
            rate: count as f64 / report.seconds,
            session: each(cpu.session),
            verify: each(cpu.verify),
            pipeline: each(cpu.pipeline),
            sqlite: each(cpu.sqlite),
            planning: (planning.pipeline + planning.sqlite) as f64 / 1e3 / considered as f64,
            raw: before,
        }
    }

    /// Every certificate has an answer, and those looked at are good.
    async fn check(&self) {
        let now = self.site.app.clock.now();
        let counts = self.site.app.store.counts(self.site.issuer, now).await.unwrap();
        assert_eq!((counts.unexpired, counts.answered), (self.registered as u64, self.registered as u64));
        let identity = self
            .site
            .pipeline
            .identities
            .for_issuer(self.site.issuer, now, Duration::from_secs(86_400))
            .unwrap();
        let certificate = identity.frame.certificate.as_deref();
        let responder = Certificate::from_der(certificate.unwrap()).unwrap();
        for number in [0, self.registered / 2, self.registered - 1] {
            let state =
                self.site.app.store.certificate(self.site.issuer, &serial(number)).await.unwrap().unwrap();
            let answer = state.answer.unwrap();
            let der = response::assemble(
                &answer.response_data,
                identity.frame.algorithm,
                &answer.signature,
                certificate,
            );
            let received = Received::decode(&der).unwrap();
            assert_eq!(received.verify(&responder).unwrap(), identity.frame.algorithm);
            for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
                let cert_id = identity.issuer.cert_id(hash, serial(number));
                let single = received.single(&cert_id).unwrap();
                assert_eq!(single.next_update, Some(answer.next_update));
            }
        }
    }
}

/// 16 octets that are spread as those of real serial numbers.
fn serial(number: usize) -> Serial {
    let digest = HashAlgorithm::Sha256.digest(&number.to_be_bytes());
    Serial::from_unsigned(&[&[0x5a], &digest[..15]].concat()).unwrap()
}

/// First answers, and new ones in place of those that there are.
const LANES: [Lane; 2] = [Lane::First, Lane::Refresh];

/// What the slices of one case gave.
struct Measured {
    /// By lane, as in [`LANES`].
    slices: [Vec<Slice>; 2],
    /// Cores that other processes kept busy.
    foreign: f64,
}

async fn measure(place: &Place, case: &Case, smoke: bool) -> Measured {
    let (rounds, length) = if smoke { (1, Duration::from_millis(150)) } else { (11, case.slice) };
    let mut stage = Stage::set(place, case).await;
    let capped = case.cap.map(|cap| Raw { rate: f64::from(cap), cpu: 0.0 });
    let mut before = match capped {
        Some(capped) => capped,
        None => stage.raw(length).await,
    };
    let count = ((before.rate * length.as_secs_f64()) as usize).max(100);
    // Warms up: connections, statements, handles.
    stage.presign(count, Lane::First, before).await;
    let mut slices = [Vec::new(), Vec::new()];
    let (watch, ours, machine) = (Stopwatch::start(), process_seconds(), machine_seconds());
    for _ in 0..rounds {
        for (lane, slices) in LANES.into_iter().zip(&mut slices) {
            let mut slice = stage.presign(count, lane, before).await;
            if capped.is_none() {
                let after = stage.raw(length).await;
                slice.raw =
                    Raw { rate: before.rate.midpoint(after.rate), cpu: before.cpu.midpoint(after.cpu) };
                before = after;
            }
            slices.push(slice);
        }
    }
    let foreign = (machine_seconds() - machine) - (process_seconds() - ours);
    stage.check().await;
    stage.site.app.close().await;
    Measured { slices, foreign: (foreign / watch.elapsed().as_secs_f64()).max(0.0) }
}

fn main() -> ExitCode {
    token::with_token(|place| {
        let smoke = token::is_smoke();
        let wanted: Vec<String> = std::env::args().skip(1).filter(|each| !each.starts_with('-')).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        println!("answers a second into SQLite, {SESSIONS} sessions; CPU in us an answer, medians");
        println!(
            "{:<11} {:<8} {:>8} {:>9} {:>6} {:>5} {:>6} {:>7} | {:>7} {:>8} {:>7} {:>9} {:>7} {:>6} {:>5} | {:>8}",
            "token",
            "lane",
            "raw/s",
            "answers/s",
            "ratio",
            "goal",
            "cores",
            "foreign",
            "raw",
            "session",
            "verify",
            "pipeline",
            "sqlite",
            "ours",
            "goal",
            "planning"
        );
        for case in &CASES {
            let slow_to_make = case.key == KeyAlgorithm::Rsa4096;
            let is_wanted = wanted.is_empty() || wanted.iter().any(|name| name == case.name);
            if !is_wanted || smoke && slow_to_make {
                continue;
            }
            let measured = runtime.block_on(measure(place, case, smoke));
            for (lane, slices) in LANES.into_iter().zip(measured.slices) {
                let median = |of: fn(&Slice) -> f64| median(slices.iter().map(of).collect());
                let raw_rate = median(|slice| slice.raw.rate);
                let ratio = median(|slice| slice.rate / slice.raw.rate);
                let verify = median(|slice| slice.verify);
                let raw_cpu = median(|slice| slice.raw.cpu);
                let beyond = median(Slice::ours);
                println!(
                    "{:<11} {lane:<8} {raw_rate:>8.0} {:>9.0} {ratio:>6.3} {:>5} {:>6.3} {:>7.2} | {raw_cpu:>7.1} {:>8.1} {verify:>7.1} {:>9.1} {:>7.1} {beyond:>6.1} {:>5} | {:>8.2}",
                    case.name,
                    median(|slice| slice.rate),
                    case.goal,
                    median(Slice::cores),
                    measured.foreign,
                    median(|slice| slice.session),
                    median(|slice| slice.pipeline),
                    median(|slice| slice.sqlite),
                    20,
                    median(|slice| slice.planning),
                );
                let goal = if case.cap.is_some() { "P5" } else { "P7" };
                let what = format!("{}, {lane} lane, of the raw rate", case.name);
                figures::note(goal, &what, &format!("{ratio:.3} of {raw_rate:.0}/s"));
                if case.cap.is_none() && !case.session_keys {
                    let what = format!("{}, {lane} lane", case.name);
                    let value =
                        format!("{beyond:.1} µs, and {verify:.1} to verify beside {raw_cpu:.0} to sign");
                    figures::note("P6", &what, &value);
                }
            }
        }
    })
}
