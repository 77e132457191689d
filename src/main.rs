//! The `goodstanding` command.

fn main() {}
