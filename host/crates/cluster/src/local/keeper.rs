//! Sees to it that one gateway runs.

use super::probe::Probe;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};
use tsunami_process::{Exit, Process, ProcessError, Signal, Spec};

/// Until a gateway that was asked to end is killed: the longest outside request (30 s), and 10 s to end.
pub const STOP_GRACE: Duration = Duration::from_secs(40);
/// How long a gateway that was found running may take to answer, before it is ended and started anew: it may have been
/// starting.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(60);
/// The pause before a gateway that ended by itself is started again; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// After this long, an end is not the same trouble as the one before.
const STEADY: Duration = Duration::from_secs(60);

/// What is known of the gateway.
#[derive(Debug, Default)]
pub struct State {
    pub process: Option<Process>,
    pub restarts: u32,
    /// Of the last time, where it ended by itself.
    pub exit: Option<Exit>,
    /// Why it could not be started at all.
    pub refused: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, spec: &Spec) -> Result<Process, ProcessError> {
        let started = Process::spawn(spec);
        let mut state = self.lock();
        state.process = started.as_ref().ok().cloned();
        state.refused = started.as_ref().err().map(ToString::to_string);
        started
    }
}

#[derive(Debug)]
pub struct Keeper {
    shared: Shared,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts the gateway, and keeps it running.
    pub fn start(spec: Spec) -> Result<Self, ProcessError> {
        let shared = Shared::default();
        let process = shared.start(&spec)?;
        let task = tokio::spawn(keep(shared.clone(), spec, process));
        Ok(Self { shared, task })
    }

    /// Takes over a gateway that runs, and keeps it running.
    pub fn take_over(process: Process, spec: Spec, probe: Probe) -> Self {
        let shared = Shared::default();
        shared.lock().process = Some(process.clone());
        let keeping = shared.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = probe.until_ready() => {}
                _ = process.wait() => {}
                () = tokio::time::sleep(TAKE_OVER_WAIT) => {
                    tracing::warn!(name = spec.name, pid = process.pid(), "instance of an earlier run does not answer; starting it anew");
                    process.stop(Signal::SIGTERM, STOP_GRACE).await;
                }
            }
            keep(keeping, spec, process).await;
        });
        Self { shared, task }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Ends the gateway, for good.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await; // It may be starting one right now.
        let process = self.shared.lock().process.take();
        if let Some(process) = process {
            process.stop(Signal::SIGTERM, STOP_GRACE).await;
        }
    }
}

impl Drop for Keeper {
    /// The gateway itself goes on.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the gateway again whenever it ends, for ever. Each process is noted before the first wait after its start, so
/// that whoever ends this task finds it.
async fn keep(shared: Shared, spec: Spec, first: Process) {
    let mut process = Some(first);
    let mut pause = PAUSE_FIRST;
    loop {
        let began = Instant::now();
        if let Some(process) = &process {
            let exit = process.wait().await;
            let mut state = shared.lock();
            state.exit = Some(exit);
            state.restarts += 1;
            tracing::warn!(name = spec.name, %exit, restarts = state.restarts, pause_ms = pause.as_millis(), "instance ended by itself; starting it again");
        }
        if began.elapsed() >= STEADY {
            pause = PAUSE_FIRST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        process = match shared.start(&spec) {
            Ok(process) => Some(process),
            Err(error) => {
                tracing::error!(name = spec.name, %error, "instance does not start");
                None
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn spec(dir: &Path, script: &str) -> Spec {
        Spec {
            name: "test".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![],
            dir: dir.to_owned(),
            log_file: dir.join("log"),
            pid_file: dir.join("pid"),
            run_as: None,
        }
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_gateway_that_ends_is_started_again_with_growing_pauses_and_stays_stopped_when_it_is()
    {
        let dir = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let keeper = Keeper::start(spec(dir.path(), "exit 7")).unwrap();
        until("two restarts", || keeper.state().restarts >= 3).await;
        assert!(
            began.elapsed() >= PAUSE_FIRST + PAUSE_FIRST * 2,
            "{:?}",
            began.elapsed()
        );
        assert_eq!(keeper.state().exit, Some(Exit::Code(7)));
        keeper.stop().await;
        assert_eq!(Process::find(&dir.path().join("pid")), None);
    }

    #[tokio::test]
    async fn a_gateway_that_is_taken_over_is_kept_too() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), "exec /bin/sleep 600");
        let found = Process::spawn(&spec).unwrap();
        let keeper = Keeper::take_over(found.clone(), spec, Probe::new(1).unwrap());
        assert_eq!(
            keeper.state().process.as_ref().map(Process::pid),
            Some(found.pid())
        );
        found.stop(Signal::SIGKILL, STOP_GRACE).await;
        until("another process", || {
            keeper
                .state()
                .process
                .as_ref()
                .is_some_and(|p| p.is_running() && p.pid() != found.pid())
        })
        .await;
        keeper.stop().await;
        assert_eq!(Process::find(&dir.path().join("pid")), None);
    }

    #[tokio::test]
    async fn a_gateway_that_cannot_be_started_any_more_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::copy("/bin/sh", &program).unwrap();
        let spec = Spec {
            program: program.clone(),
            ..spec(dir.path(), "read -r x </dev/null; exit 1")
        };
        let keeper = Keeper::start(spec).unwrap();
        std::fs::remove_file(&program).unwrap();
        until("a refusal", || {
            keeper
                .state()
                .refused
                .as_ref()
                .is_some_and(|why| why.contains("cannot start test"))
        })
        .await;
        keeper.stop().await;
    }
}
