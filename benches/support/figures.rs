//! Where measurements leave their figures for `scripts/bench-report`.

#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each measurement takes of it what it needs, and one without a folder has only panics"
)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The build folder's `bench`, which `cargo clean` empties.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let folder = target.join("bench");
    fs::create_dir_all(&folder).expect("the build folder takes a folder");
    folder
}

/// Whether only a short run that shows that everything works is wanted (`-- --test`).
pub(crate) fn is_smoke() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Prints a figure, and notes it for the report beside the goal that it belongs to (`P1` to `P13`).
/// A short run notes nothing.
pub(crate) fn note(goal: &str, what: &str, value: &str) {
    println!("{goal:<4} {what:<60} {value}");
    if is_smoke() {
        return;
    }
    let path = folder().join("figures.tsv");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("figures.tsv opens");
    writeln!(file, "{goal}\t{what}\t{value}").expect("figures.tsv is written");
}
