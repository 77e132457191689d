//! The soak: a large fleet served for an hour while its token fails at random, in all the ways of the
//! fault matrix, and the responder is ended and killed now and then. It ends with a report.
//!
//! `cargo test --release --test it soak -- --ignored --nocapture`, with these in the environment:
//! `SOAK_MINUTES` (60), `SOAK_FLEET` (100000), `SOAK_SEED` (the date), `SOAK_REPORT` (a file for the
//! report, which is printed anyway).

mod clients;
mod report;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use goodstanding::clock::{Clock, Stopwatch, SystemClock, UnixTime};
use goodstanding::ocsp::Serial;

use self::clients::{Clients, Ledger};
use self::report::{Report, Spell};
use crate::fault_matrix::faults::{Ending, ROWS};
use crate::support::faulty::{Control, Function};
use crate::support::fleet::Fleet;
use crate::support::server::Server;
use crate::support::site::{Site, TOKEN_LABEL};

/// How long an answer lasts, and when the next is due. No fault lasts as long as the difference, so no
/// answer need ever be stale.
const VALIDITY: Duration = Duration::from_secs(20 * 60);
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// What the token signs a second: three times what the fleet of 100,000 needs.
const RATE: f64 = 600.0;

/// How long a fault lasts, and how long nothing is wrong between two.
const FAULT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
const SOUND: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(45));

/// How long everything may take to be signed when the last fault is over.
const CATCH_UP: Duration = Duration::from_secs(300);

/// How long a process may take to read the fleet, on a machine that does much else.
const READY: Duration = Duration::from_secs(180);

/// Certificates under one signature at the most: the guard asks for them when slack does not do.
const PACK: u32 = 4;

/// Numbers that look random and come again with the same seed (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn between(&mut self, (from, to): (Duration, Duration)) -> Duration {
        from + Duration::from_millis(self.roll() % (to - from).as_millis() as u64)
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no whole number"))
    })
}

/// What goes wrong next.
enum Mishap {
    Fault(usize),
    /// SIGTERM, and a new process.
    Restart,
    /// SIGKILL, and a new process.
    Kill,
}

impl Mishap {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(ROWS.len() + 3) {
            at if at < ROWS.len() => Self::Fault(at),
            at if at == ROWS.len() => Self::Restart,
            _ => Self::Kill,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Fault(at) => ROWS[*at].name,
            Self::Restart => "the responder ended and started",
            Self::Kill => "the responder killed and started",
        }
    }
}

#[test]
#[ignore = "runs for SOAK_MINUTES, an hour unless told otherwise"]
fn an_hour_of_random_faults_makes_no_stale_answer_no_wrong_status_and_loses_nothing() {
    let minutes = number("SOAK_MINUTES", 60);
    let size = number("SOAK_FLEET", 100_000) as usize;
    let seed = number("SOAK_SEED", SystemClock.now().0 as u64);
    let mut dice = Dice(seed);
    let fleet = Fleet::new(VALIDITY, REFRESH);
    fleet.site.extend(&format!("[capacity]\npack_max = {PACK}\n"));
    let sound = Control { rate: [(TOKEN_LABEL.to_owned(), RATE)].into(), ..fleet.faulty.sound() };
    fleet.faulty.set(&sound);
    // Of all ages, so that they come due evenly from the first minute on.
    let oldest = REFRESH.mul_f64(0.8);
    let serials = fleet.register_fleet(size, |at| oldest.mul_f64(at as f64 / size as f64));
    let started = SystemClock.now();
    let token = TokenFiles::keep(&fleet.site);
    let mut server = Some(Server::start_within(&fleet.site, READY));
    println!("soak: {size} certificates, {minutes} minutes, seed {seed}; serving");

    let ledger = Arc::new(Ledger::new(serials, VALIDITY));
    let clients = Clients::start(&fleet.asker(), &ledger, seed);
    let mut spells = Vec::new();
    let running = Stopwatch::start();
    let last = Duration::from_secs(60 * minutes);
    std::thread::scope(|scope| {
        scope.spawn(|| clients::authority(&fleet, &ledger, seed));
        let server = &mut server;
        while running.elapsed() < last {
            std::thread::sleep(dice.between(SOUND).min(last.saturating_sub(running.elapsed())));
            let mishap = Mishap::draw(&mut dice);
            let length = dice.between(FAULT);
            let before = fleet.faulty.count(Function::C_Sign);
            match &mishap {
                Mishap::Fault(at) => {
                    fleet.faulty.set(&ROWS[*at].control(&sound));
                    if ROWS[*at].ending == Ending::Mended {
                        std::thread::sleep(length);
                        fleet.faulty.set(&sound);
                    }
                }
                Mishap::Restart | Mishap::Kill => {
                    ledger.down.store(true, Ordering::SeqCst);
                    let mut former = server.take().unwrap();
                    if matches!(mishap, Mishap::Kill) {
                        former.kill();
                        token.restore();
                    } else {
                        former.terminate();
                        assert!(former.wait().success(), "{}", former.log());
                        drop(former);
                    }
                    *server = Some(Server::start_within(&fleet.site, READY));
                    ledger.down.store(false, Ordering::SeqCst);
                }
            }
            let recovered = signs_again(&fleet);
            fleet.faulty.set(&sound);
            let injected = fleet.faulty.count(Function::C_Sign).injected - before.injected;
            spells.push(Spell { name: mishap.name(), recovered, injected });
            let at = running.elapsed().as_secs();
            println!("soak: {at:5} s {}: signing after {recovered:.1?}; {}", mishap.name(), ledger.line());
        }
        ledger.stop.store(true, Ordering::SeqCst);
    });
    clients.finish();
    let waiting = Stopwatch::start();
    let lost = loop {
        let lost = lost(&fleet, started);
        if lost.is_empty() || waiting.elapsed() > CATCH_UP {
            break lost;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    let caught_up = waiting.elapsed();
    let log = server.as_ref().map(Server::log).unwrap_or_default();
    drop(server);
    let packed =
        fleet.states().filter(|state| state.answer.as_ref().is_some_and(|a| a.pack.is_some())).count();
    let lost_items = lost.len();
    let report = Report { minutes, size, seed, spells, ledger: &ledger, lost: lost_items, caught_up, packed };
    let text = report.text(&fleet);
    println!("{text}");
    if let Some(file) = std::env::var_os("SOAK_REPORT") {
        std::fs::write(file, &text).unwrap();
    }
    let stale = ledger.stale.load(Ordering::SeqCst);
    let wrong = ledger.wrong.lock().unwrap();
    assert!(ledger.looked_at.load(Ordering::SeqCst) > 10 * minutes, "hardly an answer was looked at");
    assert!(
        wrong.is_empty() && stale == 0 && lost.is_empty(),
        "{} wrong, {stale} stale, {} lost: {wrong:?} {:?}\n{log}",
        wrong.len(),
        lost.len(),
        lost.iter().take(5).collect::<Vec<_>>()
    );
}

/// How long it takes until the token makes signatures again.
fn signs_again(fleet: &Fleet) -> Duration {
    let good = || {
        let count = fleet.faulty.count(Function::C_Sign);
        count.called - count.failed.max(count.injected)
    };
    let (waiting, before) = (Stopwatch::start(), good());
    while good() < before + 10 && waiting.elapsed() < CATCH_UP {
        std::thread::sleep(Duration::from_millis(50));
    }
    waiting.elapsed()
}

/// Certificates without an answer of their version, or whose answer should have been replaced.
fn lost(fleet: &Fleet, started: UnixTime) -> Vec<Serial> {
    let now = SystemClock.now();
    // The guard may lend four tenths of the slack.
    let lent = (VALIDITY - REFRESH).mul_f64(0.4);
    let due = now.minus(REFRESH + lent + Duration::from_secs(60)).max(started.minus(REFRESH));
    fleet.unanswered(due)
}

/// The token as it was before anybody was killed. SoftHSM 2.6.1 rewrites its token file in place at each
/// login, and a process killed just then leaves it empty; no HSM loses its keys that way.
struct TokenFiles(Vec<(std::path::PathBuf, Vec<u8>)>);

impl TokenFiles {
    fn keep(site: &Site) -> Self {
        let folders = std::fs::read_dir(site.path("softhsm/tokens")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        let paths = files.map(|file| file.unwrap().path());
        Self(paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect())
    }

    fn restore(&self) {
        for (path, octets) in &self.0 {
            std::fs::write(path, octets).unwrap();
        }
    }
}
