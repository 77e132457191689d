//! What is SQLite's own: statements, plans, opening, several handles on one file.

use std::time::Duration;

use sqlx::{Executor, Row, SqlSafeStr, SqlStr};
use tempfile::TempDir;

use super::*;
use crate::ocsp::CrlReason;

async fn fresh() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&url_in(&folder)).await.unwrap();
    (folder, store)
}

fn url_in(folder: &TempDir) -> String {
    format!("sqlite://{}/fleet.db", folder.path().display())
}

fn entry(serial: u32) -> CertificateEntry {
    CertificateEntry {
        serial: Serial::from_unsigned(&serial.to_be_bytes()).unwrap(),
        not_before: None,
        not_after: UnixTime(2_000_000_000),
        revocation: None,
    }
}

fn every_statement() -> Vec<SqlStr> {
    let bulk = [
        &statements::CERTIFICATE_INSERT,
        &statements::CERTIFICATE_UPDATE,
        &statements::ANSWER_PUT,
        &statements::LEDGER_PUT,
    ];
    statements::ALL
        .iter()
        .map(|statement| statement.into_sql_str())
        .chain(bulk.into_iter().flat_map(|bulk| bulk.all().to_vec()))
        .collect()
}

#[tokio::test]
async fn every_statement_can_be_prepared() {
    let (_folder, store) = fresh().await;
    let mut connection = store.pools.writer.acquire().await.unwrap();
    for statement in every_statement() {
        let text: String = statement.as_str().chars().take(200).collect();
        connection.prepare(statement).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[tokio::test]
async fn no_statement_of_run_time_walks_through_a_table_of_the_fleet() {
    let (_folder, store) = fresh().await;
    let mut connection = store.pools.writer.acquire().await.unwrap();
    for statement in every_statement() {
        if statement.as_str() == statements::COUNTS {
            continue;
        }
        let explain = format!("EXPLAIN QUERY PLAN {}", statement.as_str());
        let plan = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
        for step in plan {
            let step: String = step.get("detail");
            let walks = [
                "SCAN certificate",
                "SCAN c",
                "SCAN answer",
                "SCAN a",
                "SCAN feed",
                "SCAN reply",
                "SCAN ledger",
                "AUTOMATIC",
            ]
            .iter()
            .any(|walk| step == *walk || step.starts_with(&format!("{walk} ")));
            assert!(!walks, "{step}: {}", statement.as_str().chars().take(200).collect::<String>());
        }
    }
}

#[tokio::test]
async fn every_connection_has_the_settings_that_durability_rests_on() {
    let (_folder, store) = fresh().await;
    for pool in [&store.pools.writer, &store.pools.readers] {
        let mut connection = pool.acquire().await.unwrap();
        for (pragma, value) in [("synchronous", 2), ("foreign_keys", 1)] {
            let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            assert_eq!(found, value, "{pragma}");
        }
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(mode, "wal");
    }
    assert!(sqlx::query("DELETE FROM feed").execute(&store.pools.readers).await.is_err());
}

#[tokio::test]
async fn a_missing_folder_is_named_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let error = SqliteStore::open(&format!("sqlite://{}/absent/fleet.db", folder.path().display()))
        .await
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.contains("absent does not exist: create it"), "{text}");
    assert!(!folder.path().join("absent").exists());
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (folder, store) = fresh().await;
    sqlx::query("PRAGMA user_version = 9000").execute(&store.pools.writer).await.unwrap();
    store.close().await;
    let before = std::fs::read(folder.path().join("fleet.db")).unwrap();
    let error = SqliteStore::open(&url_in(&folder)).await.err().unwrap();
    assert!(matches!(error, StoreError::UnknownSchema { found: 9000, .. }), "{error}");
    assert_eq!(std::fs::read(folder.path().join("fleet.db")).unwrap(), before);
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    std::fs::write(
        &path,
        "this is a diary, not a database, and it is longer than a header is: 100 octets......",
    )
    .unwrap();
    let error = SqliteStore::open(&url_in(&folder)).await.err().unwrap();
    assert!(error.to_string().contains("file is not a database"), "{error}");
    std::fs::remove_file(&path).unwrap();

    let url = url_in(&folder);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE diary (day TEXT)").execute(&pool).await.unwrap();
    pool.close().await;
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(SqliteStore::open(&url).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn handles_that_open_a_new_file_together_all_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = url_in(&folder);
    let opened = (0..6).map(|_| {
        tokio::spawn({
            let url = url.clone();
            async move { SqliteStore::open(&url).await }
        })
    });
    for handle in opened.collect::<Vec<_>>() {
        assert!(handle.await.unwrap().unwrap().issuers().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_the_process_is_gone() {
    let (folder, store) = fresh().await;
    let issuer = store.add_issuer("demo", b"certificate").await.unwrap().id;
    store.register(issuer, &[entry(1), entry(2)]).await.unwrap();
    let revocation = Revocation { time: UnixTime(5), reason: Some(CrlReason::KeyCompromise) };
    store.revoke(issuer, &[(entry(1).serial, revocation)]).await.unwrap();

    // The files as a kill leaves them: not checkpointed, with the log beside the database.
    let after = tempfile::tempdir().unwrap();
    for file in ["fleet.db", "fleet.db-wal"] {
        std::fs::copy(folder.path().join(file), after.path().join(file)).unwrap();
    }
    let store = SqliteStore::open(&url_in(&after)).await.unwrap();
    let state = store.certificate(issuer, &entry(1).serial).await.unwrap().unwrap();
    assert_eq!((state.certificate.revocation, state.certificate.version), (Some(revocation), 2));
    assert!(store.certificate(issuer, &entry(2).serial).await.unwrap().is_some());
}

#[tokio::test]
async fn a_transaction_that_is_cut_off_changes_nothing() {
    let (_folder, store) = fresh().await;
    let issuer = store.add_issuer("demo", b"certificate").await.unwrap().id;
    let position = store.feed_position().await.unwrap();
    let fleet: Vec<_> = (0..50_000).map(entry).collect();
    let cut = tokio::time::timeout(Duration::from_millis(60), store.register(issuer, &fleet)).await;
    assert!(cut.is_err(), "50,000 rows were too fast to be cut off");
    let counts = store.counts(issuer, UnixTime(0)).await.unwrap();
    assert_eq!((counts.unexpired, store.feed_position().await.unwrap()), (0, position));
    assert_eq!(store.register(issuer, &fleet).await.unwrap().added, 50_000);
}

#[tokio::test]
async fn a_small_change_gets_its_turn_beside_a_long_import_of_another_handle() {
    let (folder, store) = fresh().await;
    let issuer = store.add_issuer("demo", b"certificate").await.unwrap().id;
    store.register(issuer, &[entry(0)]).await.unwrap();
    let other = SqliteStore::open(&url_in(&folder)).await.unwrap();
    let import = tokio::spawn(async move {
        for part in 0..30 {
            let fleet: Vec<_> = (part * 2_000..(part + 1) * 2_000).map(|n| entry(n + 1)).collect();
            other.register(issuer, &fleet).await.unwrap();
        }
    });
    for time in 0..10 {
        let hold = Revocation { time: UnixTime(time), reason: Some(CrlReason::CertificateHold) };
        let waited = crate::clock::Stopwatch::start();
        store.revoke(issuer, &[(entry(0).serial, hold)]).await.unwrap();
        store.unhold(issuer, &entry(0).serial).await.unwrap();
        assert!(waited.elapsed() < Duration::from_secs(5), "{:?}", waited.elapsed());
    }
    import.await.unwrap();
    assert_eq!(store.counts(issuer, UnixTime(0)).await.unwrap().unexpired, 60_001);
}

#[tokio::test]
async fn a_value_that_was_not_written_by_this_program_is_named() {
    let (_folder, store) = fresh().await;
    let issuer = store.add_issuer("demo", b"certificate").await.unwrap().id;
    store.register(issuer, &[entry(1)]).await.unwrap();
    sqlx::query("UPDATE certificate SET revoked_at = 1, reason = 7")
        .execute(&store.pools.writer)
        .await
        .unwrap();
    let error = store.certificate(issuer, &entry(1).serial).await.err().unwrap();
    assert!(
        matches!(&error, StoreError::Corrupt { what, .. } if what == "certificate.reason is 7"),
        "{error}"
    );
}
