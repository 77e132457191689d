//! Opening the database file: checks, settings, migrations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Executor};

use super::{StoreError, failed};
use crate::clock::Stopwatch;

/// The longest that a call waits for its turn to write, behind this process and others.
pub(super) const TURN: Duration = Duration::from_secs(30);

/// Connections that only read. SQLite's readers do not wait for the writer, and point reads at run
/// time are few: answers are served from memory.
const READERS: u32 = 4;

/// Marks the file as ours: "GdSt".
const APPLICATION_ID: i64 = 0x4764_5374;

/// Each migration brings the schema to the version that is its place in this list, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_begin.sql"),
    include_str!("migrations/0002_rotation.sql"),
    include_str!("migrations/0003_ledger.sql"),
    include_str!("migrations/0004_control.sql"),
    include_str!("migrations/0005_guard.sql"),
    include_str!("migrations/0006_packs.sql"),
    include_str!("migrations/0007_offered.sql"),
];

/// The oldest SQLite that may write: up to 3.51.2 a reset of the write-ahead log can corrupt.
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

/// The writing connection and the reading ones.
pub(super) struct Pools {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

/// The path in `sqlite://PATH`; percent escapes are read.
pub(super) fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    let refused =
        |why: &str| StoreError::Unavailable { action: "opening", url: url.to_owned(), source: why.into() };
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.contains(['?', '#']) {
        return Err(refused("a SQLite URL takes no parameters; write ? as %3F and # as %23 in a path"));
    }
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| refused("the path is not UTF-8"))?;
    if path.is_empty() || path == ":memory:" {
        return Err(refused("the store must be a file that survives a restart: use sqlite://PATH"));
    }
    Ok(PathBuf::from(path.as_ref()))
}

/// Opens the file, creates or migrates its schema, and connects to it.
pub(super) async fn open(url: &str) -> Result<Pools, StoreError> {
    let path = path_of(url)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err(StoreError::Unavailable {
            action: "opening",
            url: url.to_owned(),
            source: format!("the folder {} does not exist: create it", folder.display()).into(),
        });
    }
    prepare(url, &path).await?;
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(TURN)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let writer = pool(1)
        .connect_with(
            // A turn to write is asked for again and again (`SqliteStore::write`): SQLite's own
            // waiting sleeps ever longer and loses every race against a steady writer.
            options(&path)
                .busy_timeout(Duration::from_millis(10))
                // 64 MiB: the index of a million random serials, which an import is all over.
                .pragma("cache_size", "-65536")
                // The journal of a statement of many rows: in a file, it was a fourth of an import.
                .pragma("temp_store", "MEMORY")
                .pragma("wal_autocheckpoint", "16384")
                .pragma("journal_size_limit", "67108864"),
        )
        .await
        .map_err(|error| failed(url, "opening", error))?;
    let readers = pool(READERS)
        .connect_with(
            options(&path).busy_timeout(TURN).pragma("cache_size", "-4096").pragma("query_only", "ON"),
        )
        .await
        .map_err(|error| failed(url, "opening", error))?;
    Ok(Pools { writer, readers })
}

/// What every connection has in common.
///
/// synchronous=FULL: in WAL mode it syncs the log at every commit. NORMAL would sync only at
/// checkpoints, and a power cut could take back a revocation that was confirmed.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .row_buffer_size(1024)
        .thread_name(|number| format!("sqlite-{number}"))
        .disable_statement_logging()
}

/// Checks the file and brings its schema up to date, on a connection of its own.
async fn prepare(url: &str, path: &Path) -> Result<(), StoreError> {
    let mut connection = options(path)
        .create_if_missing(true)
        .busy_timeout(TURN)
        .connect()
        .await
        .map_err(|error| failed(url, "opening", error))?;
    let found: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&mut connection)
        .await
        .map_err(|error| failed(url, "opening", error))?;
    if version(&found) < OLDEST_SQLITE {
        return Err(StoreError::Unavailable {
            action: "opening",
            url: url.to_owned(),
            source: format!(
                "this program was linked with SQLite {found}, which can corrupt the database; build it with 3.51.3 or newer"
            )
            .into(),
        });
    }
    check_owner(url, &mut connection).await?;
    turn_on_wal(url, &mut connection).await?;
    migrate(url, &mut connection).await?;
    connection.close().await.map_err(|error| failed(url, "opening", error))
}

fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// Refuses another program's database, and a newer schema, before anything is changed. Returns the
/// schema version.
async fn check_owner(url: &str, connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let (application, found, tables): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT application_id FROM pragma_application_id),
                (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| failed(url, "opening", error))?;
    let empty = application == 0 && found == 0 && tables == 0;
    if !empty && application != APPLICATION_ID {
        return Err(StoreError::Corrupt {
            url: url.to_owned(),
            what: format!("application_id is {application:#x} with {tables} tables; it is another program's"),
        });
    }
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::UnknownSchema { url: url.to_owned(), found, known });
    }
    Ok(found)
}

/// Switches to the write-ahead log. That needs the file alone, which SQLite does not wait for.
async fn turn_on_wal(url: &str, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let waited = Stopwatch::start();
    loop {
        match sqlx::query_scalar::<_, String>("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(StoreError::Unavailable {
                    action: "opening",
                    url: url.to_owned(),
                    source: format!(
                        "its file system allows journal mode {mode} only: put it on a local disk"
                    )
                    .into(),
                });
            }
            Err(error) if super::is_busy(&error) && waited.elapsed() < TURN => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(failed(url, "opening", error)),
        }
    }
}

async fn migrate(url: &str, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let migrating = |error| failed(url, "migrating", error);
    let mut transaction = connection.begin_with(super::statements::BEGIN_WRITE).await.map_err(migrating)?;
    // Read again inside the transaction: another process may have migrated meanwhile.
    let found = check_owner(url, &mut transaction).await?;
    for (version, migration) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute(sqlx::raw_sql(*migration)).await.map_err(migrating)?;
        let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
        transaction.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(stamp))).await.map_err(migrating)?;
        tracing::info!(url, version, "migrated the database");
    }
    transaction.commit().await.map_err(migrating)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file() {
        for (url, path) in [
            ("sqlite://var/goodstanding.db", "var/goodstanding.db"),
            ("sqlite:///srv/ocsp/fleet.db", "/srv/ocsp/fleet.db"),
            ("sqlite:fleet.db", "fleet.db"),
            ("sqlite://what%3F.db", "what?.db"),
        ] {
            assert_eq!(path_of(url).unwrap(), Path::new(path), "{url}");
        }
        for url in ["sqlite::memory:", "sqlite://", "sqlite://a.db?mode=ro", "sqlite://%ff"] {
            assert!(matches!(path_of(url), Err(StoreError::Unavailable { .. })), "{url}");
        }
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("3.51.3") >= OLDEST_SQLITE);
        assert!(version("3.100.0") >= OLDEST_SQLITE);
        assert!(version("3.51.2") < OLDEST_SQLITE);
        assert!(version("3.9.99") < OLDEST_SQLITE);
    }
}
