//! Finding the files below the paths that were named.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was named itself, and not just met in a folder.
    pub named: bool,
    /// Its length in octets.
    pub length: u64,
}

/// Every file at or below `paths`, folders read in the order of names, and what could not be read.
///
/// Symbolic links are followed; a file or folder that is reached twice, by a loop for example, is
/// read once.
#[must_use]
pub fn find(paths: &[PathBuf]) -> (Vec<Found>, Vec<(PathBuf, std::io::Error)>) {
    let mut walk = Walk { seen: HashSet::new(), found: Vec::new(), failed: Vec::new() };
    for path in paths {
        walk.enter(path, true);
    }
    (walk.found, walk.failed)
}

struct Walk {
    seen: HashSet<PathBuf>,
    found: Vec<Found>,
    failed: Vec<(PathBuf, std::io::Error)>,
}

impl Walk {
    fn enter(&mut self, path: &Path, named: bool) {
        if let Err(error) = self.try_enter(path, named) {
            self.failed.push((path.to_owned(), error));
        }
    }

    fn try_enter(&mut self, path: &Path, named: bool) -> std::io::Result<()> {
        let kind = fs::metadata(path)?;
        if !self.seen.insert(fs::canonicalize(path)?) {
            return Ok(());
        }
        if kind.is_file() {
            self.found.push(Found { path: path.to_owned(), named, length: kind.len() });
        } else if kind.is_dir() {
            let mut entries = fs::read_dir(path)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()?;
            entries.sort_unstable();
            for entry in entries {
                self.enter(&entry, false);
            }
        } else if named {
            return Err(std::io::Error::other("neither a file nor a folder"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_loops_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        for name in ["z.pem", "a.pem", "b/2.pem", "b/c/1.pem"] {
            fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("."), at("b/c/loop")).unwrap();
        std::os::unix::fs::symlink(at("a.pem"), at("b/again.pem")).unwrap();
        std::os::unix::fs::symlink(at("absent"), at("b/broken.pem")).unwrap();
        let (found, failed) = find(&[at("z.pem"), folder.path().to_owned(), at("nowhere")]);
        let names: Vec<_> = found
            .iter()
            .map(|found| (found.path.strip_prefix(folder.path()).unwrap().to_str().unwrap(), found.named))
            .collect();
        assert_eq!(names, [("z.pem", true), ("a.pem", false), ("b/2.pem", false), ("b/c/1.pem", false)]);
        let failed: Vec<_> = failed.into_iter().map(|(path, _)| path).collect();
        assert_eq!(failed, [at("b/broken.pem"), at("nowhere")]);
    }
}
