use crate::{EmbeddedError, START_TIMEOUT, TAKE_OVER_TIMEOUT, io, must_exist, until_ready};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{net::TcpStream, process::Command, time::timeout};
use tsunami_process::{FolderLock, Process, Signal, Spec, kept_port};

/// Until a server that was asked to end is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// For one question whether the server answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is tried: another program may take the port between the look at it and the start.
const ATTEMPTS: u32 = 2;
/// Polls a second of the server's own queues: by default they make a workflow of five activities take 300 ms.
const QUEUE_POLLS_PER_SECOND: u32 = 2000;
const NAMESPACE: &str = "default";

#[derive(Clone, Debug)]
pub struct TemporalSettings {
    /// The Temporal CLI, whose `server start-dev` it is.
    pub program: PathBuf,
    /// What belongs to this server: database file, log, pid, port.
    pub dir: PathBuf,
}

/// The Temporal development server, with the namespace `default`. Dropping it leaves it running, for the next start to
/// take over.
#[derive(Debug)]
pub struct Temporal {
    process: Process,
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    log: PathBuf,
    _alone: FolderLock,
}

impl Temporal {
    /// Starts the server, or takes over the one of a run that was killed. On the port of the last time, unless another
    /// program took it.
    ///
    /// # Errors
    /// The program is missing; another `tsunami` uses the folder; the server ends or does not answer within a minute.
    pub async fn start(settings: &TemporalSettings) -> Result<Self, EmbeddedError> {
        let program = must_exist(settings.program.clone(), "TSUNAMI_TOOLS_DIR")?;
        let dir = &settings.dir;
        std::fs::create_dir_all(dir).map_err(io(format!("cannot make {}", dir.display())))?;
        let dir = dir
            .canonicalize()
            .map_err(io(format!("cannot find {}", dir.display())))?;
        let alone = FolderLock::take(&dir)?;
        let log = dir.join("temporal.log");
        let (process, port) = match take_over(&program, &dir, &log).await {
            Some(found) => found,
            None => launch(&program, &dir, &log).await?,
        };
        Ok(Self {
            process,
            program,
            dir,
            port,
            log,
            _alone: alone,
        })
    }

    /// Starts the server again where it has ended, on its port, which its clients know. The new process is noted before
    /// its answer is waited for.
    ///
    /// # Errors
    /// Another program took the port meanwhile; it ends or does not answer within a minute.
    pub async fn start_again(&mut self) -> Result<(), EmbeddedError> {
        let (program, dir, port) = (&self.program, &self.dir, self.port);
        if !self.process.is_running() {
            self.process = Process::spawn(&spec(program, dir, &self.log, port))?;
        }
        until_answers(program, dir, port, &self.process, &self.log, START_TIMEOUT).await
    }

    /// Ends the server that runs in this folder, if one does: for whoever gave a start up before it was through.
    pub async fn end_left_behind(settings: &TemporalSettings) {
        // Where somebody holds the lock, it is theirs.
        if let Ok(_alone) = FolderLock::take(&settings.dir)
            && let Some(process) = Process::adopt(&settings.dir.join("pid"))
        {
            process.stop(Signal::SIGTERM, STOP_GRACE).await;
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub async fn stop(self) {
        self.process.stop(Signal::SIGTERM, STOP_GRACE).await;
    }
}

/// The server of an earlier run, if it answers; else it is ended. Two servers on one database file would destroy it.
async fn take_over(program: &Path, dir: &Path, log: &Path) -> Option<(Process, u16)> {
    let process = Process::adopt(&dir.join("pid"))?;
    if let Ok(port) = kept_port(&dir.join("port"), true)
        && until_answers(program, dir, port, &process, log, TAKE_OVER_TIMEOUT)
            .await
            .is_ok()
    {
        return Some((process, port));
    }
    process.stop(Signal::SIGTERM, STOP_GRACE).await;
    None
}

async fn launch(program: &Path, dir: &Path, log: &Path) -> Result<(Process, u16), EmbeddedError> {
    let mut attempt = 1;
    loop {
        let port = kept_port(&dir.join("port"), false).map_err(io("cannot find a free port"))?;
        let process = Process::spawn(&spec(program, dir, log, port))?;
        match until_answers(program, dir, port, &process, log, START_TIMEOUT).await {
            Ok(()) => return Ok((process, port)),
            Err(error) => {
                let ended_by_itself = !process.is_running();
                process.stop(Signal::SIGTERM, STOP_GRACE).await;
                if attempt == ATTEMPTS || !ended_by_itself {
                    return Err(error);
                }
                tracing::warn!(%error, "Temporal did not come up; trying once more");
                attempt += 1;
            }
        }
    }
}

async fn until_answers(
    program: &Path,
    dir: &Path,
    port: u16,
    process: &Process,
    log: &Path,
    at_most: Duration,
) -> Result<(), EmbeddedError> {
    until_ready("Temporal", process, log, at_most, || {
        answers(program, dir, port)
    })
    .await
}

/// Whether the server serves, and its namespace is there, which it makes a moment later.
async fn answers(program: &Path, dir: &Path, port: u16) -> Result<(), String> {
    let connect = timeout(PROBE_TIMEOUT, TcpStream::connect(("127.0.0.1", port))).await;
    connect
        .map_err(|_| "the port does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let mut describe = Command::new(program);
    describe.args([
        "operator",
        "namespace",
        "describe",
        "--namespace",
        NAMESPACE,
    ]);
    describe.args(["--address", &format!("127.0.0.1:{port}")]);
    describe.env_clear().envs(environment(dir)); // No `TEMPORAL_…` of the user's own.
    describe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(PROBE_TIMEOUT, describe.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(_)) => Err("the namespace is not there yet".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the port is open and silent".to_owned()),
    }
}

fn environment(dir: &Path) -> Vec<(OsString, OsString)> {
    vec![
        ("HOME".into(), dir.into()),
        ("PATH".into(), "/usr/bin:/bin".into()),
    ]
}

fn spec(program: &Path, dir: &Path, log: &Path, port: u16) -> Spec {
    Spec {
        name: "temporal".into(),
        program: program.to_owned(),
        args: arguments(dir, port),
        env: environment(dir),
        dir: dir.to_owned(),
        log_file: log.to_owned(),
        pid_file: dir.join("pid"),
        run_as: None,
    }
}

/// Every other port that it opens is a free one of the loopback interface as well.
fn arguments(dir: &Path, port: u16) -> Vec<OsString> {
    let mut args: Vec<OsString> = [
        "server",
        "start-dev",
        "--headless",
        "--ip",
        "127.0.0.1",
        "--log-level",
        "warn",
    ]
    .map(OsString::from)
    .to_vec();
    args.extend([
        "--namespace".into(),
        NAMESPACE.into(),
        "--port".into(),
        port.to_string().into(),
    ]);
    args.extend(["--db-filename".into(), dir.join("temporal.db").into()]);
    // Half of the writes of a rollback journal, and as durable.
    args.extend(["--sqlite-pragma".into(), "journal_mode=WAL".into()]);
    let mut set = |value: String| args.extend(["--dynamic-config-value".into(), value.into()]);
    for queue in ["transfer", "timer", "visibility"] {
        set(format!(
            "history.{queue}ProcessorMaxPollRPS={QUEUE_POLLS_PER_SECOND}"
        ));
    }
    // Each tenant's tasks in turn, where many wait.
    set("matching.useNewMatcher=true".to_owned());
    set("matching.enableFairness=true".to_owned());
    args
}
