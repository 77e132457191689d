//! The fault matrix: each way a token fails, in each lane, with and without a backlog. After the fault
//! everything is signed; meanwhile no client was told anything wrong, and no PIN was tried twice.
//!
//! A row has a responder of its own (`goodstanding serve`, a process), whose token is SoftHSM behind the
//! module that injects faults; rows run side by side, since most of their time is waiting.

pub(crate) mod faults;
mod watcher;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use goodstanding::clock::{Clock, Stopwatch, SystemClock, UnixTime};
use goodstanding::ocsp::{CertStatus, Serial};

use self::faults::{Ending, LASTS, ROWS, Row};
use self::watcher::Watcher;
use crate::support::faulty::{Control, Function};
use crate::support::fleet::{Fleet, Told};
use crate::support::module_process::ModuleProcess;
use crate::support::server::Server;
use crate::support::site::TOKEN_LABEL;

/// Rows that run at once. They wait for time-outs and back-off, not for the processor.
const AT_ONCE: usize = 14;

/// How long recovery may take after the fault is over: the longest back-off of what was tried during
/// [`LASTS`], many times over for busy machines.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long an answer lasts here; half of it is the refresh interval.
const VALIDITY: Duration = Duration::from_secs(7_200);

/// The backlog of the busy half, and what the token signs a second meanwhile.
const BACKLOG: usize = 600;
const RATE: f64 = 60.0;

/// The environment variable with a part of the name of the rows to run, to look at one by itself.
const ONLY: &str = "FAULT_ROWS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Revocation,
    First,
    Live,
    Refresh,
}

impl Lane {
    const ALL: [Self; 4] = [Self::Revocation, Self::First, Self::Live, Self::Refresh];
}

/// What a lane has to do in one cell.
struct Item {
    lane: Lane,
    serial: Serial,
    /// An answer from before this does not count.
    since: UnixTime,
}

/// One row under way.
struct Run<'f> {
    row: &'static str,
    fleet: &'f Fleet,
    watcher: Watcher,
    /// Certificates with a fresh answer, to be revoked or asked about live.
    answered: Vec<Serial>,
    /// Questions asked live during a fault: the answers may be errors, but nothing wrong.
    asked: Mutex<Vec<JoinHandle<Result<Told, String>>>>,
    failures: Vec<String>,
    /// The longest that a lane took to recover, and its cell.
    slowest: (Duration, String),
}

/// When a certificate comes into force whose answer is still to be stored: the keeper must not find it
/// without one.
fn soon() -> UnixTime {
    SystemClock.now().plus(Duration::from_secs(3))
}

fn until(moment: UnixTime) {
    while SystemClock.now() < moment {
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Item {
    /// A refresh is due from then on.
    fn until_in_force(&self) {
        until(self.since);
    }
}

#[test]
fn every_fault_in_every_lane_idle_or_busy_is_recovered_from_and_nothing_is_lost() {
    let wanted = std::env::var(ONLY).unwrap_or_default();
    let rows: Vec<_> = ROWS.iter().filter(|row| row.name.contains(&wanted)).collect();
    assert!(!rows.is_empty(), "no row's name has {wanted:?} in it");
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let times = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let watch = Stopwatch::start();
                    let (failed, (slowest, cell)) = recovers(row);
                    let (took, slowest) = (watch.elapsed().as_secs_f64(), slowest.as_secs_f64());
                    let line = format!("{took:6.1} s {}; the slowest: {slowest:.1} s, {cell}", row.name);
                    times.lock().unwrap().push(line);
                    failures.lock().unwrap().extend(failed);
                }
            });
        }
    });
    println!("{}", times.lock().unwrap().join("\n"));
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n"));
}

/// One row: idle, then busy, then whether anything is missing. Returns the cells that failed, and the
/// slowest of the others.
fn recovers(row: &Row) -> (Vec<String>, (Duration, String)) {
    let fleet = Fleet::new(VALIDITY, VALIDITY / 2);
    let started = SystemClock.now();
    let mut run = Run::new(row.name, &fleet);
    let server = Server::start(&fleet.site);
    run.settle(&fleet.faulty.sound());
    run.half("idle", row, &fleet.faulty.sound());
    let busy = run.burden();
    run.half("busy", row, &busy);
    run.conclude(started);
    drop(server);
    (run.failures, run.slowest)
}

impl<'f> Run<'f> {
    /// Before the server starts.
    fn new(row: &'static str, fleet: &'f Fleet) -> Self {
        let answered = fleet.register_answered(4, Duration::from_secs(60), None);
        let watcher = Watcher::start(fleet.asker());
        Self {
            row,
            fleet,
            watcher,
            answered,
            asked: Mutex::default(),
            failures: Vec::new(),
            slowest: Default::default(),
        }
    }

    fn failed(&mut self, cell: &str, what: &str) {
        self.failures.push(format!("{} × {cell}: {what}", self.row));
    }

    /// The responder signs: its first certificate has an answer.
    fn settle(&mut self, sound: &Control) {
        self.fleet.faulty.set(sound);
        let item = self.prepare(Lane::First);
        self.begin(&item);
        if let Err(what) = self.wait(&item) {
            self.failed("before the fault", &what);
        }
    }

    /// Puts a backlog of overdue refreshes before a token that is slow.
    fn burden(&self) -> Control {
        let sound = self.fleet.faulty.sound();
        let busy = Control { rate: [(TOKEN_LABEL.to_owned(), RATE)].into(), ..sound };
        self.fleet.faulty.set(&busy);
        let in_force = soon();
        self.fleet.register_answered(BACKLOG, Duration::from_secs(70 * 60), Some(in_force));
        until(in_force);
        busy
    }

    /// The four cells of an idle or a busy responder.
    fn half(&mut self, load: &str, row: &Row, sound: &Control) {
        if row.each_lane_alone {
            Lane::ALL.into_iter().for_each(|lane| self.episode(load, &[lane], row, sound));
        } else {
            self.episode(load, &Lane::ALL, row, sound);
        }
    }

    fn episode(&mut self, load: &str, lanes: &[Lane], row: &Row, sound: &Control) {
        let injected = self.injected();
        let items: Vec<_> = lanes.iter().map(|lane| self.prepare(*lane)).collect();
        self.fleet.faulty.set(&row.control(sound));
        items.iter().for_each(Item::until_in_force);
        items.iter().for_each(|item| self.begin(item));
        if row.ending == Ending::Mended {
            std::thread::sleep(LASTS);
            self.fleet.faulty.set(sound);
        }
        for item in &items {
            let cell = format!("{:?} × {load}", item.lane);
            match self.wait(item) {
                Ok(took) => self.slowest = self.slowest.clone().max((took, cell)),
                Err(what) => self.failed(&cell, &what),
            }
        }
        if self.injected() == injected {
            self.failed(&format!("{lanes:?} × {load}"), "the fault did not happen");
        }
        self.fleet.faulty.set(sound);
    }

    fn injected(&self) -> u64 {
        Function::ALL.iter().map(|function| self.fleet.faulty.count(*function).injected).sum()
    }

    /// What has to be there before the fault.
    fn prepare(&mut self, lane: Lane) -> Item {
        let serial = match lane {
            Lane::First => self.fleet.unregistered(),
            // Older than the backlog, so that it is first in its lane.
            Lane::Refresh => {
                let age = Duration::from_secs(80 * 60);
                let not_before = soon();
                let serial = self.fleet.register_answered(1, age, Some(not_before))[0];
                self.watcher.knows(&[serial]);
                return Item { lane, serial, since: not_before };
            }
            Lane::Revocation | Lane::Live => self.answered.pop().unwrap(),
        };
        if lane != Lane::First {
            self.watcher.knows(&[serial]);
        }
        Item { lane, serial, since: SystemClock.now() }
    }

    /// What happens while the fault is there.
    fn begin(&self, item: &Item) {
        match item.lane {
            Lane::Revocation => {
                self.fleet.revoke(item.serial);
                self.watcher.revoked(item.serial);
            }
            Lane::First => {
                self.fleet.register(item.serial);
                self.watcher.knows(&[item.serial]);
            }
            Lane::Live => {
                let (asker, serial) = (self.fleet.asker(), item.serial);
                let asked = std::thread::spawn(move || asker.ask(serial, Some(&[7; 16])));
                self.asked.lock().unwrap().push(asked);
            }
            Lane::Refresh => {}
        }
    }

    /// Until the lane has done what it had to do.
    fn wait(&self, item: &Item) -> Result<Duration, String> {
        let waiting = Stopwatch::start();
        let nonce: [u8; 20] = [9; 20];
        loop {
            let asked = (item.lane == Lane::Live).then_some(&nonce[..]);
            let told = self.fleet.asker().ask(item.serial, asked)?;
            if let Told::Status { status, this_update, nonce, .. } = &told {
                let done = match item.lane {
                    Lane::Revocation => {
                        matches!(status, CertStatus::Revoked(_)) && *this_update >= item.since
                    }
                    Lane::First | Lane::Refresh => *status == CertStatus::Good && *this_update >= item.since,
                    Lane::Live => *nonce && *status == CertStatus::Good,
                };
                // A live answer may do for a client, but what is stored is what the lane is for.
                if done && (item.lane == Lane::Live || self.is_stored(item)) {
                    return Ok(waiting.elapsed());
                }
            }
            if waiting.elapsed() > PATIENCE {
                return Err(format!("not after {PATIENCE:?}: {told:?}"));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    fn is_stored(&self, item: &Item) -> bool {
        let state = self.fleet.state(&item.serial);
        let version = state.certificate.version;
        state.answer.is_some_and(|answer| answer.version == version && answer.this_update >= item.since)
    }

    /// Everything that was due has been signed, clients were told nothing wrong, and every login that
    /// failed was one that a fault had failed.
    fn conclude(&mut self, started: UnixTime) {
        self.fleet.faulty.heal();
        let waiting = Stopwatch::start();
        loop {
            // Answers a minute old were made for certificates that are asked about live, and are not due.
            let missing = self.fleet.unanswered(started.minus(Duration::from_secs(120)));
            if missing.is_empty() {
                break;
            }
            if waiting.elapsed() > PATIENCE {
                self.failed("the end", &format!("{} certificates are not signed", missing.len()));
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let watcher = std::mem::replace(&mut self.watcher, Watcher::start(self.fleet.asker()));
        let (answered, mut wrong) = watcher.finish();
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        wrong.extend(asked.into_iter().filter_map(|asked| asked.join().unwrap().err()));
        wrong.truncate(5);
        wrong.iter().for_each(|what| self.failed("a client", what));
        if answered < 50 {
            self.failed("a client", &format!("only {answered} answers were looked at"));
        }
        let logins = self.fleet.faulty.count(Function::C_Login);
        if logins.failed > logins.injected {
            self.failed("the PIN", &format!("{logins:?}"));
        }
    }
}

/// The row that nobody but the operator can mend: what is stored is served on, and the PIN is sent once
/// by a process, however much there is to sign.
#[test]
fn a_locked_pin_is_sent_once_in_every_lane_idle_or_busy_and_a_restart_signs_everything() {
    let fleet = Fleet::new(VALIDITY, VALIDITY / 2);
    let started = SystemClock.now();
    let mut run = Run::new("a PIN locked", &fleet);
    let sound = fleet.faulty.sound();
    let mut server = Server::start(&fleet.site);
    run.settle(&sound);
    for load in ["idle", "busy"] {
        let sound = if load == "busy" { run.burden() } else { sound.clone() };
        let items: Vec<_> = Lane::ALL.into_iter().map(|lane| run.prepare(lane)).collect();
        let before = fleet.faulty.count(Function::C_Login);
        fleet.faulty.set(&faults::pin_locked(&sound));
        items.iter().for_each(Item::until_in_force);
        items.iter().for_each(|item| run.begin(item));
        std::thread::sleep(Duration::from_secs(4));
        // It would be taken now; but nobody has told the program so.
        fleet.faulty.set(&sound);
        std::thread::sleep(Duration::from_secs(3));
        let after = fleet.faulty.count(Function::C_Login);
        if (after.called - before.called, after.failed - before.failed) != (1, 1) {
            run.failed(load, &format!("the PIN was sent again: {before:?}, then {after:?}"));
        }
        for item in &items {
            if item.lane != Lane::Live && run.is_stored(item) {
                run.failed(&format!("{:?} × {load}", item.lane), "signed without a login");
            }
        }
        drop(server);
        server = Server::start(&fleet.site);
        for item in &items {
            if let Err(what) = run.wait(item) {
                run.failed(&format!("{:?} × {load}", item.lane), &what);
            }
        }
    }
    run.conclude(started);
    assert!(run.failures.is_empty(), "{}", run.failures.join("\n"));
}

/// The two rows whose fault is not in the module, but in the process that it runs in.
#[test]
fn a_module_process_killed_or_stopped_is_recovered_from_in_every_lane_idle_or_busy() {
    let failures = std::thread::scope(|scope| {
        let rows =
            [("the module's process killed and started", true), ("the module's process stopped", false)];
        let rows = rows.map(|(row, kill)| scope.spawn(move || outlives_its_module_process(row, kill)));
        rows.map(|row| row.join().unwrap()).concat()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn outlives_its_module_process(row: &'static str, kill: bool) -> Vec<String> {
    let mut fleet = Fleet::new(VALIDITY, VALIDITY / 2);
    let mut process = ModuleProcess::between(&mut fleet.site);
    let started = SystemClock.now();
    let mut run = Run::new(row, &fleet);
    let server = Server::start(&fleet.site);
    run.settle(&fleet.faulty.sound());
    for load in ["idle", "busy"] {
        if load == "busy" {
            run.burden();
        }
        let items: Vec<_> = Lane::ALL.into_iter().map(|lane| run.prepare(lane)).collect();
        if kill {
            process.kill();
        } else {
            process.signal("STOP");
        }
        items.iter().for_each(Item::until_in_force);
        items.iter().for_each(|item| run.begin(item));
        std::thread::sleep(LASTS);
        for item in items.iter().filter(|item| item.lane != Lane::Live) {
            if run.is_stored(item) {
                run.failed(&format!("{:?} × {load}", item.lane), "signed while there was no module");
            }
        }
        if kill {
            process.start();
        } else {
            process.signal("CONT");
        }
        for item in &items {
            if let Err(what) = run.wait(item) {
                run.failed(&format!("{:?} × {load}", item.lane), &what);
            }
        }
    }
    run.conclude(started);
    drop(server);
    run.failures
}
