#![doc = include_str!("../README.md")]

mod identity;
mod lock;
mod log;
mod port;
mod process;
mod usage;

pub use identity::working_in;
pub use lock::FolderLock;
pub use log::{follow_lines, last_lines};
pub use nix::sys::signal::Signal;
pub use port::{free_port, kept_port};
pub use process::{Exit, Process, ProcessError, Spec};
pub use usage::Usage;
