//! The limiter (P11): a decision in memory with a million keys, and durable reservations with 64
//! clients on SQLite.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed measurement")]

#[path = "support/figures.rs"]
mod figures;

use std::sync::Arc;
use std::time::Duration;

use goodstanding::clock::{Stopwatch, SystemClock, UnixTime};
use goodstanding::limits::{
    Ask, Book, Identifiers, Limiter, OrderAsk, OrderRequest, Pressure, Profile, Settings, decide,
};
use goodstanding::store::{self, LedgerRecord};
use tokio::sync::watch;

const CLIENTS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` wants only to see that it runs.
    let (keys, seconds) =
        if arguments.iter().any(|word| word == "--bench") { (1_000_000, 5) } else { (10_000, 1) };
    // A word chooses one of the two, as with other benches.
    let chosen = |name: &str| {
        let mut words = arguments.iter().skip(1).filter(|word| !word.starts_with('-')).peekable();
        words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
    };
    if chosen("decisions") {
        decisions(keys);
    }
    if chosen("reservations") {
        reservations(seconds);
    }
}

fn current() -> Arc<Profile> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/limits/current.toml");
    Arc::new(Profile::load(path.as_ref()).unwrap())
}

fn identifiers(number: usize) -> Identifiers {
    Identifiers::parse(&[format!("www.domain-{number}.example")], 100).unwrap()
}

/// Decides over a book whose domains, sets and accounts are `keys` keys in all.
fn decisions(keys: usize) {
    let measured = (keys / 5).max(1);
    let now = UnixTime(1_800_000_000);
    let pressure = Pressure::none();
    let mut book = Book::new(current());
    let building = Stopwatch::start();
    let orders = keys / 3;
    for number in 0..orders {
        let account = format!("acct-{number}");
        let names = identifiers(number);
        let ask = Ask::Order(OrderAsk { account: &account, identifiers: &names, replaces: None });
        let (_, entry) = decide(&book, &ask, &pressure, now);
        let record = LedgerRecord { id: book.next(), keep_until: UnixTime::MAX, entry: entry.unwrap() };
        book.enter(Arc::new(record), None, now);
    }
    println!(
        "book: {} keys, {} orders, decided and entered at {:.2} µs each",
        book.keys(),
        book.len(),
        building.elapsed().as_secs_f64() * 1e6 / orders as f64
    );
    // Spread over all keys, so that each decision finds cold lines.
    let asked: Vec<(String, Identifiers)> = (0..measured)
        .map(|n| (n * 7_919) % orders)
        .map(|number| (format!("acct-{number}"), identifiers(number)))
        .collect();
    let mut rounds: Vec<f64> = (0..5)
        .map(|_| {
            let running = Stopwatch::start();
            let mut allowed = 0;
            for (account, identifiers) in &asked {
                let ask = Ask::Order(OrderAsk { account, identifiers, replaces: None });
                allowed += usize::from(decide(&book, &ask, &pressure, now).1.is_some());
            }
            assert_eq!(allowed, measured);
            running.elapsed().as_secs_f64() * 1e6 / measured as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("decision in memory: median {:.2} µs (rounds {rounds:.2?}), target 2 µs", rounds[2]);
    figures::note(
        "P11",
        &format!("a decision in memory, {} keys", book.keys()),
        &format!("{:.2} µs", rounds[2]),
    );
}

/// Orders by 64 clients, each durable before it is answered.
fn reservations(seconds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}/ledger.db", folder.path().display());
        let ledger = store::open(&url).await.unwrap().ledger();
        let pressure = watch::channel(Pressure::none()).1;
        let (limiter, _) =
            Limiter::start(ledger, current(), pressure, SystemClock::shared(), Settings::default())
                .await
                .unwrap();
        let cpu = cpu_seconds();
        let running = Stopwatch::start();
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let limiter = limiter.clone();
            clients.spawn(async move {
                let mut taken = Vec::new();
                while running.elapsed() < Duration::from_secs(seconds) {
                    let number = taken.len();
                    let request = OrderRequest {
                        account: format!("acct-{client}-{}", number / 200),
                        identifiers: vec![format!("www.domain-{client}-{number}.example")],
                        ..OrderRequest::default()
                    };
                    let waiting = Stopwatch::start();
                    let decision = limiter.order(&request).await.unwrap();
                    taken.push(waiting.elapsed());
                    assert!(decision.order().is_some());
                }
                taken
            });
        }
        let mut taken: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
        let elapsed = running.elapsed().as_secs_f64();
        taken.sort();
        let at = |part: f64| taken[((taken.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        let tally = limiter.tally();
        println!(
            "durable reservations, {CLIENTS} clients: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, {:.1} a group, {:.0} µs of CPU each; targets 5,000/s, p99 10 ms",
            taken.len() as f64 / elapsed,
            at(0.5),
            at(0.99),
            taken.len() as f64 / tally.groups as f64,
            (cpu_seconds() - cpu) * 1e6 / taken.len() as f64,
        );
        let value = format!("{:.0}/s, p50 {:.1} ms, p99 {:.1} ms", taken.len() as f64 / elapsed, at(0.5), at(0.99));
        figures::note("P11", &format!("durable reservations, {CLIENTS} clients"), &value);
    });
}

/// CPU time of this process so far.
fn cpu_seconds() -> f64 {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let file = task.unwrap().path().join("schedstat");
        // A thread that has just ended has none.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        total += text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
    }
    total
}
