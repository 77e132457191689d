//! Of the signer the names of its lanes.

#[path = "../../../src/signer/lane.rs"]
mod lane;

pub use lane::Lane;
