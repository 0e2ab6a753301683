#![doc = include_str!("../README.md")]

mod identity;
mod lock;

pub use lock::FolderLock;

use identity::Identity;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::sync::watch;

/// A log file larger than this, in bytes, is moved to `<name>.1` when the next process starts.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How often a process that is not our child is looked at.
const ADOPTED_POLL: Duration = Duration::from_millis(100);

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    /// For log lines and errors.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    pub dir: PathBuf,
    /// Standard output and error are appended here.
    pub log_file: PathBuf,
    pub pid_file: PathBuf,
    /// User and group to run as, where this one is root.
    pub run_as: Option<(u32, u32)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot start {name} ({program}): {cause}")]
    Start { name: String, program: PathBuf, cause: std::io::Error },
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
    #[error("another tsunami (process {pid}) uses {path}; stop it, or choose another folder with --data-dir")]
    Locked { path: PathBuf, pid: String },
}

/// A process that runs, or ran.
#[derive(Clone, Debug)]
pub struct Process {
    identity: Identity,
    pid_file: PathBuf,
    exited: watch::Receiver<bool>,
}

impl Process {
    /// Starts a process. Needs a tokio runtime.
    pub fn spawn(spec: &Spec) -> Result<Self, ProcessError> {
        let failed = |cause| ProcessError::Start { name: spec.name.clone(), program: spec.program.clone(), cause };
        let log = open_log(&spec.log_file).map_err(|cause| ProcessError::Write { path: spec.log_file.clone(), cause })?;
        let mut command = std::process::Command::new(&spec.program);
        command.args(&spec.args).env_clear().envs(spec.env.iter().cloned()).current_dir(&spec.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        if let Some((uid, gid)) = spec.run_as {
            command.uid(uid).gid(gid);
        }
        let mut child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(|| failed(std::io::Error::other("it ended at once")))?;
        let identity = Identity::of(pid).unwrap_or_else(|| Identity::gone(pid));
        identity.write(&spec.pid_file).map_err(|cause| ProcessError::Write { path: spec.pid_file.clone(), cause })?;
        let (exits, exited) = watch::channel(false);
        let name = spec.name.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            tracing::info!(name, pid, status = ?status.ok(), "process ended");
            exits.send_replace(true);
        });
        Ok(Self { identity, pid_file: spec.pid_file.clone(), exited })
    }

    /// The process that an earlier run started, if it still lives. A pid file of one that does not is removed.
    pub fn adopt(pid_file: &Path) -> Option<Self> {
        let Some(identity) = Identity::read(pid_file).filter(Identity::lives) else {
            let _ = std::fs::remove_file(pid_file);
            return None;
        };
        let (exits, exited) = watch::channel(false);
        let watched = identity.clone();
        tokio::spawn(async move {
            while watched.lives() {
                tokio::time::sleep(ADOPTED_POLL).await;
            }
            exits.send_replace(true);
        });
        Some(Self { identity, pid_file: pid_file.to_owned(), exited })
    }

    pub fn pid(&self) -> i32 {
        self.identity.pid
    }

    pub fn is_running(&self) -> bool {
        !*self.exited.borrow()
    }

    /// Waits until the process has ended.
    pub async fn wait(&self) {
        let _ = self.exited.clone().wait_for(|exited| *exited).await;
    }

    /// Asks with `signal`, ends the whole group after `grace`, and returns when the process is gone.
    pub async fn stop(&self, signal: Signal, grace: Duration) {
        self.signal(signal);
        if tokio::time::timeout(grace, self.wait()).await.is_err() {
            tracing::warn!(pid = self.pid(), "process did not end when asked; killing it");
            self.signal(Signal::SIGKILL);
            self.wait().await;
        }
        // Helpers of its own that it left behind.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = std::fs::remove_file(&self.pid_file);
    }

    fn signal(&self, signal: Signal) {
        if self.identity.lives() {
            let _ = kill(Pid::from_raw(self.pid()), signal);
        }
    }

    /// Resident memory in bytes, where the system tells.
    pub fn resident_bytes(&self) -> Option<u64> {
        identity::resident_bytes(self.pid())
    }
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        std::fs::rename(path, old)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// The last lines of a log file, for an error or a person.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

/// A port of the loopback interface that nothing listens on right now.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The port that `file` names, where it is still free or `ours`; else another one, which is noted there.
pub fn kept_port(file: &Path, ours: bool) -> std::io::Result<u16> {
    let kept = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(port) = kept
        && (ours || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
    {
        return Ok(port);
    }
    let port = free_port()?;
    std::fs::write(file, port.to_string())?;
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, script: &str) -> Spec {
        Spec {
            name: "test".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("ONLY".into(), "this".into())],
            dir: dir.to_owned(),
            log_file: dir.join("log"),
            pid_file: dir.join("pid"),
            run_as: None,
        }
    }

    #[tokio::test]
    async fn a_child_gets_only_the_environment_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(&spec(dir.path(), "/usr/bin/env")).unwrap();
        process.wait().await;
        let lines = last_lines(&dir.path().join("log"), 10);
        assert!(lines.contains(&"ONLY=this".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("HOME=")), "{lines:?}");
    }

    #[tokio::test]
    async fn stopping_ends_the_whole_group_though_it_does_not_listen() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(&spec(dir.path(), "trap '' TERM; sleep 600 & echo $!; wait; sleep 600")).unwrap();
        let log = dir.path().join("log");
        while last_lines(&log, 1).is_empty() {
            tokio::task::yield_now().await;
        }
        let helper: i32 = last_lines(&log, 1)[0].parse().unwrap();
        process.stop(Signal::SIGTERM, Duration::from_millis(100)).await;
        assert!(!process.is_running());
        assert!(!dir.path().join("pid").exists());
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while Identity::of(helper).is_some_and(|i| i.lives()) {
            assert!(std::time::Instant::now() < deadline, "the helper still runs");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_living_process_is_adopted_and_its_end_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let first = Process::spawn(&spec(dir.path(), "sleep 600")).unwrap();
        let adopted = Process::adopt(&dir.path().join("pid")).expect("found again");
        assert_eq!(adopted.pid(), first.pid());
        adopted.stop(Signal::SIGTERM, Duration::from_secs(5)).await;
        first.wait().await;
        assert!(Process::adopt(&dir.path().join("pid")).is_none());
    }

    #[tokio::test]
    async fn a_reused_pid_is_not_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let me = i32::try_from(std::process::id()).unwrap();
        let stranger = Identity { start: "another time".into(), ..Identity::of(me).unwrap() };
        stranger.write(&pid_file).unwrap();
        assert!(Process::adopt(&pid_file).is_none());
        std::fs::write(&pid_file, "{\"pid\": 1, \"sta").unwrap();
        assert!(Process::adopt(&pid_file).is_none(), "a file cut short");
    }

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path()).unwrap();
        let refused = FolderLock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        FolderLock::take(dir.path()).unwrap();
    }
}
