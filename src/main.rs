//! The `goodstanding` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    goodstanding::cli::main()
}
