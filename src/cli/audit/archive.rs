//! Lines of the audit log in a file: a JSON document a line, each as `audit export` has it, but for the
//! detail, which stands there as the text that was hashed.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::clock::UnixTime;
use crate::store::audit::{AuditLine, Digest};

/// An archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// The file system.
    #[error("{action} the archive {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A line is none of the audit log's.
    #[error("{}:{line}: this is no line of an audit log: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
}

/// An archive being written. It must not be there yet: nothing is ever written over.
pub(super) struct Archive {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
}

impl Archive {
    pub(super) fn create(path: &Path) -> Result<Self, ArchiveError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(failed("creating", path))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), hash: Sha256::new() })
    }

    pub(super) fn write(&mut self, line: &AuditLine) -> Result<(), ArchiveError> {
        let mut document = super::document(line);
        document["detail"] = Value::from(line.detail.as_str());
        let text = format!("{document}\n");
        self.hash.update(text.as_bytes());
        self.file.write_all(text.as_bytes()).map_err(failed("writing", &self.path))
    }

    /// Makes it durable, its name in the folder too. The SHA-256 of the file.
    pub(super) fn finish(self) -> Result<Digest, ArchiveError> {
        let failed = failed("writing", &self.path);
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = self
            .file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(folder)?.sync_all());
        synced.map_err(failed)?;
        Ok(Digest(self.hash.finalize().into()))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ArchiveError + use<> {
    let path = path.to_owned();
    move |source| ArchiveError::File { action, path, source }
}

/// Reads the lines of an archive, or of an export; `take` is told each in order.
pub(super) fn read(path: &Path, mut take: impl FnMut(AuditLine)) -> Result<(), ArchiveError> {
    let file = File::open(path).map_err(failed("opening", path))?;
    for (at, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(failed("reading", path))?;
        let wrong = |what: String| ArchiveError::Line { path: path.to_owned(), line: at + 1, what };
        let document: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        take(line(&document).ok_or_else(|| wrong("a member is missing or of another kind".to_owned()))?);
    }
    Ok(())
}

fn line(document: &Value) -> Option<AuditLine> {
    let text = |name: &str| document[name].as_str();
    Some(AuditLine {
        number: document["number"].as_i64()?,
        time: UnixTime::parse_rfc3339(text("time")?).ok()?,
        actor: text("actor")?.to_owned(),
        action: text("action")?.to_owned(),
        // An export has it as JSON, with its members in the order in which they are hashed.
        detail: text("detail").map_or_else(|| document["detail"].to_string(), ToOwned::to_owned),
        previous: Digest::from_hex(text("previous")?)?,
        hash: Digest::from_hex(text("hash")?)?,
    })
}
