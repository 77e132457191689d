//! Of the store what goes in and comes out, and nothing that reads or writes.

#[path = "../../../src/store/error.rs"]
mod error;
#[path = "../../../src/store/ledger.rs"]
mod ledger;
#[path = "../../../src/store/records.rs"]
mod records;

pub use error::StoreError;
pub use ledger::*;
pub use records::*;
