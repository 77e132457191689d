//! The pre-signing engine inside a process: the real keeper over SQLite and SoftHSM.

mod desk;
mod stage;
