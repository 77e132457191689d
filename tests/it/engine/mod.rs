//! The pre-signing engine inside a process: the real keeper over SQLite and SoftHSM.

mod backlog;
mod desk;
mod packs;
mod stage;
mod status;
