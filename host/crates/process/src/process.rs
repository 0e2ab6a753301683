use crate::{Usage, identity::Identity, log, usage};
use nix::{
    sys::signal::Signal,
    unistd::{AccessFlags, access},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, PipeReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::sync::watch;

/// How often a process that is not our child is looked at.
const ADOPTED_POLL: Duration = Duration::from_millis(100);
/// Stands in front of each program: waits for a line, then becomes the program. Where no line comes, because the
/// starter was killed before the pid file was written, it ends, and the program never ran.
const GATE: &str = r#"read -r go && exec "$@" </dev/null"#;

/// What to run, and how.
#[derive(Clone)]
pub struct Spec {
    /// For log lines and errors.
    pub name: String,
    /// An absolute path.
    pub program: PathBuf,
    /// Everybody on the machine can read them: never a secret.
    pub args: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    pub dir: PathBuf,
    /// Standard output and error are appended here; above 16 MiB the file is moved to `<name>.1`.
    pub log_file: PathBuf,
    pub pid_file: PathBuf,
    /// User and group to run as, where this one is root.
    pub run_as: Option<(u32, u32)>,
}

impl fmt::Debug for Spec {
    /// Without the environment, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("args", &self.args)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot start {name} ({}): {cause}", program.display())]
    Start {
        name: String,
        program: PathBuf,
        cause: io::Error,
    },
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error(
        "another tsunami (process {pid}) uses {}; stop it, or choose another folder with --data-dir",
        path.display()
    )]
    Locked { path: PathBuf, pid: String },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// By the signal of this number.
    Signal(i32),
    /// It was not our child, so the system did not say.
    Unknown,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it ended with code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "it was ended by {signal}"),
                Err(_) => write!(f, "it was ended by signal {number}"),
            },
            Self::Unknown => write!(f, "it ended"),
        }
    }
}

/// What a pid file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    process: Identity,
    log_file: PathBuf,
}

impl Record {
    /// `None` also for a file that was cut short.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// In one step: a kill leaves the old file or the new one.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }
}

/// A process that runs, or ran; clones mean the same one. Dropping it ends nothing: see [`Process::stop`].
#[derive(Clone, Debug)]
pub struct Process {
    identity: Identity,
    pid_file: PathBuf,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts a process. Needs a tokio runtime.
    ///
    /// # Errors
    /// The program is not there or may not be run; the log or the pid file cannot be written.
    pub fn spawn(spec: &Spec) -> Result<Self, ProcessError> {
        let failed = |cause| ProcessError::Start {
            name: spec.name.clone(),
            program: spec.program.clone(),
            cause,
        };
        access(&spec.program, AccessFlags::X_OK).map_err(|errno| failed(errno.into()))?;
        let log = log::open(&spec.log_file).map_err(|cause| ProcessError::Write {
            path: spec.log_file.clone(),
            cause,
        })?;
        let (gate, mut opener) = io::pipe().map_err(failed)?;
        let mut command = tokio::process::Command::from(gated(spec, gate, log).map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        drop(command); // With our copy of the reading end: a child that is gone fails the write below.
        let identity = child
            .id()
            .and_then(|pid| Identity::of(i32::try_from(pid).ok()?))
            .ok_or_else(|| failed(io::Error::other("it ended before it began")))?;
        let record = Record {
            process: identity.clone(),
            log_file: spec.log_file.clone(),
        };
        record
            .write(&spec.pid_file)
            .map_err(|cause| ProcessError::Write {
                path: spec.pid_file.clone(),
                cause,
            })?;
        opener.write_all(b"go\n").map_err(failed)?;
        tracing::debug!(name = spec.name, pid = identity.pid, "process started");
        Ok(Self::watched(record, spec.pid_file.clone(), ended(child)))
    }

    /// The process that an earlier run started, if it still lives. A pid file of one that does not is removed.
    /// Needs a tokio runtime.
    pub fn adopt(pid_file: &Path) -> Option<Self> {
        let Some(record) = Record::read(pid_file).filter(|record| record.process.lives()) else {
            let _ = std::fs::remove_file(pid_file);
            return None;
        };
        tracing::debug!(pid = record.process.pid, "process of an earlier run found");
        let gone = gone(record.process.clone());
        Some(Self::watched(record, pid_file.to_owned(), gone))
    }

    /// The pid of the process that this file names, if it lives. Changes nothing.
    pub fn find(pid_file: &Path) -> Option<i32> {
        let identity = Record::read(pid_file)?.process;
        identity.lives().then_some(identity.pid)
    }

    fn watched(
        record: Record,
        pid_file: PathBuf,
        end: impl Future<Output = Exit> + Send + 'static,
    ) -> Self {
        let (exits, exit) = watch::channel(None);
        let identity = record.process.clone();
        tokio::spawn(async move {
            let exit = tokio::select! {
                exit = end => exit,
                never = log::keep_short(&record.log_file) => match never {},
            };
            record.process.end_rest_of_group();
            exits.send_replace(Some(exit));
        });
        Self {
            identity,
            pid_file,
            exit,
        }
    }

    pub fn pid(&self) -> i32 {
        self.identity.pid
    }

    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// How it ended; `None` while it runs.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until the process has ended.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| *exit);
        ended.unwrap_or(Exit::Unknown)
    }

    /// Asks the process with `signal`, kills its whole group after `grace`, and returns when it is gone.
    ///
    /// Its helpers are not asked: how they end is the process's own business until it is gone.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        self.identity.signal(signal);
        let exit = match tokio::time::timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                tracing::warn!(
                    pid = self.pid(),
                    grace_seconds = grace.as_secs(),
                    "process did not end when asked; killing it"
                );
                self.identity.kill_group();
                self.wait().await
            }
        };
        // Unless it names a successor by now.
        if Record::read(&self.pid_file).is_some_and(|record| record.process == self.identity) {
            let _ = std::fs::remove_file(&self.pid_file);
        }
        exit
    }

    /// What the process and its helpers use; `None` once it has ended, and on systems without `/proc`.
    pub fn usage(&self) -> Option<Usage> {
        self.is_running().then(|| usage::of_group(self.pid()))?
    }
}

/// The command of a process behind its gate.
fn gated(spec: &Spec, gate: PipeReader, log: File) -> io::Result<Command> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", GATE])
        .arg(&spec.name)
        .arg(&spec.program)
        .args(&spec.args);
    command
        .env_clear()
        .envs(spec.env.iter().cloned())
        .current_dir(&spec.dir);
    command
        .stdin(Stdio::from(gate))
        .stdout(log.try_clone()?)
        .stderr(log);
    command.process_group(0);
    if let Some((uid, gid)) = spec.run_as {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// The end of our child.
async fn ended(mut child: tokio::process::Child) -> Exit {
    child.wait().await.map_or(Exit::Unknown, Exit::from)
}

/// The end of a process that is not our child.
async fn gone(identity: Identity) -> Exit {
    while identity.lives() {
        tokio::time::sleep(ADOPTED_POLL).await;
    }
    Exit::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_starter_died_before_the_pid_file_never_runs() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("it-ran");
        let spec = Spec {
            name: "test".into(),
            program: "/usr/bin/touch".into(),
            args: vec![trace.clone().into()],
            env: vec![],
            dir: dir.path().to_owned(),
            log_file: dir.path().join("log"),
            pid_file: dir.path().join("pid"),
            run_as: None,
        };
        for opened in [false, true] {
            let (gate, mut opener) = io::pipe().unwrap();
            let mut command = gated(&spec, gate, log::open(&spec.log_file).unwrap()).unwrap();
            let mut child = command.spawn().unwrap();
            drop(command);
            if opened {
                opener.write_all(b"go\n").unwrap();
            }
            drop(opener); // As the system does for a starter that is killed.
            child.wait().unwrap();
            assert_eq!(trace.exists(), opened);
        }
    }
}
