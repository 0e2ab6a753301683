//! Which process a pid means: pids are used again, a pid with its start time within one boot is not.

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// When it started, as the system counts.
    pub start: String,
    /// Which boot of the machine that was in; empty where the start time says it.
    pub boot: String,
}

impl Identity {
    /// `None` where no such process runs (a zombie does not).
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start: start_of(pid)?,
            boot: boot(),
        })
    }

    pub fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    pub fn signal(&self, signal: Signal) {
        if self.lives() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Ends the process and whatever it started in its group.
    pub fn kill_group(&self) {
        if self.lives() {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    /// Ends what the process left behind in its group. To be called right after its end: while helpers are left, the
    /// system gives the group's number to nobody else; where none are, it takes a while until the number comes around.
    pub fn end_rest_of_group(&self) {
        if Self::of(self.pid).is_none() {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// `proc(5)`: the fields of `/proc/PID/stat` from the third one (the state) on. The second, the name in parentheses,
/// may hold anything.
#[cfg(target_os = "linux")]
pub fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(target_os = "linux")]
fn start_of(pid: i32) -> Option<String> {
    /// `starttime`, the 22nd field, counted from the 3rd.
    const START: usize = 22 - 3;
    let fields = stat_fields(pid)?;
    let state = fields.first()?;
    (state != "Z" && state != "X").then(|| fields.get(START).cloned())?
}

#[cfg(not(target_os = "linux"))]
use start_by_ps as start_of;

/// Where there is no `/proc`: the start in whole seconds, with its date.
#[cfg(any(not(target_os = "linux"), test))]
fn start_by_ps(pid: i32) -> Option<String> {
    let answer = std::process::Command::new("ps")
        .env("LC_ALL", "C")
        .args(["-o", "stat=", "-o", "lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let (state, start) = text.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| start.trim().to_owned())
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The living processes whose working directory is `folder`. Empty where there is no `/proc`.
pub fn working_in(folder: &Path) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == folder))
        .filter(|pid| Identity::of(*pid).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mine = Identity::of(me()).unwrap();
        assert!(mine.lives());
        let earlier = Identity {
            start: "1".into(),
            ..mine.clone()
        };
        let other_boot = Identity {
            boot: "another".into(),
            ..mine
        };
        assert!(!earlier.lives() && !other_boot.lives());
    }

    #[test]
    fn a_zombie_does_not_live() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read -r x"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let identity = Identity::of(pid).unwrap();
        assert!(start_by_ps(pid).is_some_and(|start| start.contains(':')));
        drop(child.stdin.take());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while identity.lives() {
            assert!(
                std::time::Instant::now() < deadline,
                "an ended process counts as living"
            );
            std::thread::yield_now();
        }
        assert_eq!(start_by_ps(pid), None);
        child.wait().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_works_in_its_directory_and_in_no_other() {
        let here = std::env::current_dir().unwrap();
        assert!(working_in(&here).contains(&me()));
        assert!(working_in(Path::new("/nowhere")).is_empty());
    }
}
