//! The control file, read again when it changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::control::Control;
use super::rules::Rules;

/// What tells one version of a file from the next.
type Stamp = (u64, i64, i64, u64);

pub(crate) struct Watched {
    path: PathBuf,
    current: RwLock<(Stamp, Arc<Rules>)>,
}

impl Watched {
    pub(crate) fn open(path: PathBuf) -> Result<Self, String> {
        let (stamp, rules) = read(&path)?;
        Ok(Self { path, current: RwLock::new((stamp, rules)) })
    }

    /// The faults in force. A file that cannot be read leaves the former ones in force, with a message.
    pub(crate) fn current(&self) -> Arc<Rules> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if stamp(&self.path).is_ok_and(|stamp| stamp == current.0) {
                return Arc::clone(&current.1);
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if stamp(&self.path).is_ok_and(|stamp| stamp != current.0) {
            match read(&self.path) {
                Ok(new) => *current = new,
                Err(error) => eprintln!("faulty-token: {error}; what was in force stays"),
            }
        }
        Arc::clone(&current.1)
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

fn read(path: &Path) -> Result<(Stamp, Arc<Rules>), String> {
    let named = |error: String| format!("the control file {}: {error}", path.display());
    // Stamped first: what is written after this is seen as a change.
    let stamp = stamp(path).map_err(|error| named(error.to_string()))?;
    let text = fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    Ok((stamp, Arc::new(Rules::new(Control::parse(&text).map_err(named)?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_in_force_at_once_and_a_broken_one_is_not() {
        let path = std::env::temp_dir().join(format!("faulty-token-{}.toml", std::process::id()));
        Control::of("a").write(&path).unwrap();
        let watched = Watched::open(path.clone()).unwrap();
        let first = watched.current();
        assert!(Arc::ptr_eq(&first, &watched.current()), "read once");
        Control::of("b").write(&path).unwrap();
        assert_eq!(watched.current().control.module, Path::new("b"));
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(watched.current().control.module, Path::new("b"));
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.current().control.module, Path::new("b"));
        assert!(Watched::open(path).is_err());
    }
}
