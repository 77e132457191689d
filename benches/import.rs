//! How fast an `index.txt` goes into SQLite, fresh and repeated: what a first migration and a nightly
//! one cost. `IMPORT_ROWS` sets the length of the file (20,000 by default).
#![expect(clippy::expect_used, reason = "a benchmark that cannot run has nobody to hand an error to")]
#![expect(clippy::cast_precision_loss, reason = "printed figures")]

#[path = "support/figures.rs"]
mod figures;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use goodstanding::clock::{Clock, Stopwatch, SystemClock};
use goodstanding::import::{Outcome, index_txt};
use goodstanding::store::{self, IssuerId, Store};
use tokio::runtime::Runtime;

/// Random-looking serials of 16 octets, as EasyRSA gives them; one row in ten is revoked.
fn write_index(path: &Path, rows: u64) {
    let file = std::fs::File::create(path).expect("the temporary folder takes the index");
    let mut text = BufWriter::new(file);
    for number in 0..rows {
        let high = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = high.rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let (status, revoked) = if number % 10 == 0 { ('R', "260102030405Z,superseded") } else { ('V', "") };
        let serial = format!("{high:016X}{low:016X}");
        writeln!(
            text,
            "{status}\t280101000000Z\t{revoked}\t{serial}\tunknown\t/C=DE/O=Example/CN=host-{number}.example.org"
        )
        .expect("the index is written");
    }
    text.flush().expect("the index is written");
}

async fn fresh_store(folder: &Path) -> (Arc<dyn Store>, IssuerId) {
    let url = format!("sqlite://{}/fleet.db", folder.display());
    let store = store::open(&url).await.expect("a new database opens");
    let issuer = store.add_issuer("bench", b"certificate").await.expect("an issuer is added").id;
    (store, issuer)
}

async fn import(store: &dyn Store, issuer: IssuerId, path: &Path) -> Outcome {
    index_txt::import(store, issuer, path, SystemClock.now(), &mut |_| {})
        .await
        .expect("the index is imported")
        .outcome
}

fn imports(criterion: &mut Criterion) {
    let rows = std::env::var("IMPORT_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(20_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("index.txt");
    write_index(&path, rows);
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("import_index");
    group.throughput(Throughput::Elements(rows)).sample_size(10);
    group.bench_function("fresh", |bencher| {
        bencher.iter_batched(
            || {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let (store, issuer) = runtime.block_on(fresh_store(folder.path()));
                (folder, store, issuer)
            },
            |(folder, store, issuer)| {
                let outcome = runtime.block_on(import(&*store, issuer, &path));
                assert_eq!(outcome.added, rows);
                (folder, store)
            },
            BatchSize::PerIteration,
        );
    });
    let (store, issuer) = runtime.block_on(fresh_store(folder.path()));
    let watch = Stopwatch::start();
    runtime.block_on(import(&*store, issuer, &path));
    let rate = rows as f64 / watch.elapsed().as_secs_f64();
    figures::note(
        "P8",
        &format!("index.txt of {rows} rows into a new database"),
        &format!("{rate:.0} rows a second"),
    );
    group.bench_function("repeated", |bencher| {
        bencher.iter(|| {
            let outcome = runtime.block_on(import(&*store, issuer, &path));
            assert_eq!(outcome.unchanged, rows);
        });
    });
    group.finish();
    runtime.block_on(store.close());
}

criterion_group!(benches, imports);
criterion_main!(benches);
