use crate::{EmbeddedError, io, must_exist, not_up};
use nix::sys::signal::Signal;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::process::Command;
use tsunami_process::{Process, Spec, kept_port};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Polls a second of the server's own queues: by default they make a workflow of five activities take 300 ms.
const QUEUE_POLLS_PER_SECOND: u32 = 2000;

#[derive(Clone, Debug)]
pub struct TemporalSettings {
    /// The Temporal CLI.
    pub program: PathBuf,
    /// What belongs to this server: database file, log, pid, port.
    pub dir: PathBuf,
}

/// The Temporal development server.
#[derive(Debug)]
pub struct Temporal {
    process: Process,
    program: PathBuf,
    port: u16,
    log: PathBuf,
}

impl Temporal {
    /// Starts the server, or takes over the one of a run that was killed.
    pub async fn start(settings: &TemporalSettings) -> Result<Self, EmbeddedError> {
        let program = must_exist(settings.program.clone(), "TSUNAMI_TOOLS_DIR")?;
        let dir = &settings.dir;
        std::fs::create_dir_all(dir).map_err(io(format!("cannot make {}", dir.display())))?;
        let dir = dir.canonicalize().map_err(io("cannot find the folder"))?;
        let (log, pid_file) = (dir.join("temporal.log"), dir.join("pid"));
        let adopted = Process::adopt(&pid_file);
        let port = kept_port(&dir.join("port"), adopted.is_some()).map_err(io("cannot find a free port"))?;
        if let Some(process) = adopted {
            let server = Self { process, program: program.clone(), port, log: log.clone() };
            if server.wait_ready().await.is_ok() {
                return Ok(server);
            }
            server.stop().await;
        }
        let process = Process::spawn(&Spec {
            name: "temporal".into(),
            program: program.clone(),
            args: arguments(port, &dir),
            env: vec![("HOME".into(), dir.clone().into()), ("PATH".into(), "/usr/bin:/bin".into())],
            dir: dir.clone(),
            log_file: log.clone(),
            pid_file,
            run_as: None,
        })?;
        let server = Self { process, program, port, log };
        server.wait_ready().await?;
        Ok(server)
    }

    async fn wait_ready(&self) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_serving().await {
            if !self.process.is_running() {
                return Err(not_up("Temporal", "it ended", &self.log));
            }
            if Instant::now() > deadline {
                return Err(not_up("Temporal", "it does not answer", &self.log));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn is_serving(&self) -> bool {
        if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            return false;
        }
        let address = format!("127.0.0.1:{}", self.port);
        let describe = Command::new(&self.program)
            .args(["operator", "namespace", "describe", "default", "--address", &address])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        describe.await.is_ok_and(|status| status.success())
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

fn arguments(port: u16, dir: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--namespace", "default", "--log-level", "warn", "--port"]
        .map(OsString::from)
        .to_vec();
    args.extend([port.to_string().into(), "--db-filename".into(), dir.join("temporal.db").into()]);
    for queue in ["transfer", "timer", "visibility"] {
        args.extend(["--dynamic-config-value".into(), format!("history.{queue}ProcessorMaxPollRPS={QUEUE_POLLS_PER_SECOND}").into()]);
    }
    args
}
