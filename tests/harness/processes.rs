//! The processes of a gateway, as the system shows them. Only ever those of one folder that a test made.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::path::{Path, PathBuf};

/// A process of the machine.
#[derive(Clone, Debug)]
pub struct Seen {
    pub pid: i32,
    pub command: Vec<String>,
    pub directory: PathBuf,
    /// `NAME=value`, where we may look.
    pub environment: Vec<String>,
}

impl Seen {
    fn of(pid: i32) -> Option<Self> {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let list = |name: &str| -> Vec<String> {
            let bytes = std::fs::read(at.join(name)).unwrap_or_default();
            bytes
                .split(|byte| *byte == 0)
                .filter(|part| !part.is_empty())
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect()
        };
        Some(Self {
            pid,
            directory: std::fs::read_link(at.join("cwd")).ok()?,
            command: list("cmdline"),
            environment: list("environ"),
        })
    }

    fn is_of(&self, folder: &Path) -> bool {
        let named = folder.display().to_string();
        self.directory.starts_with(folder) || self.command.iter().any(|part| part.contains(&named))
    }
}

/// Every process of the machine.
pub fn all() -> Vec<Seen> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Seen::of)
        .collect()
}

/// Those that work in a folder, or name it.
pub fn of(folder: &Path) -> Vec<Seen> {
    let mut seen = all();
    seen.retain(|process| process.is_of(folder));
    seen
}

/// Ends a process at once. A test's own only.
pub fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

pub fn lives(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // A zombie has ended; its parent has not noticed yet.
    !stat
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
