//! A gateway as a child process of this machine.

mod files;
mod keeper;
mod probe;

use crate::{Cluster, ClusterError, InstanceSpec, Phase, Status, check_name};
use files::Home;
use keeper::{Keeper, STOP_GRACE};
use probe::Probe;
use secrecy::ExposeSecret;
use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    task::JoinSet,
    time::Instant,
};
use tsunami_process::{
    Exit, Process, Signal, Usage, follow_lines, kept_port, last_lines, working_in,
};

/// Between two looks at whether a gateway is ready.
const READY_POLL: Duration = Duration::from_millis(200);
/// Until the helpers of a gateway that was ended must be gone.
const HELPERS_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of the log that an error repeats.
const LOG_LINES_SHOWN: usize = 5;
/// OpenClaw ends with this code where it refuses its configuration: starting it again does not help.
const EXIT_CONFIG_REFUSED: Exit = Exit::Code(78);

#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// A folder below it for each instance.
    pub data_dir: PathBuf,
    /// Node 24.
    pub node: PathBuf,
    /// The package `openclaw`, as npm installed it.
    pub openclaw_dir: PathBuf,
    /// `plugins/openclaw-bridge`
    pub bridge_dir: PathBuf,
}

/// Gateways as child processes of this machine: see the crate's front page. One such cluster uses a `data_dir` at a
/// time; whoever starts the process sees to that.
#[derive(Clone, Debug)]
pub struct LocalCluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: LocalSettings,
    probe: Probe,
    gateways: Mutex<HashMap<String, Gateway>>,
    /// Held by whoever changes the instance of that name.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A gateway that should run.
#[derive(Debug)]
struct Gateway {
    spec: InstanceSpec,
    port: u16,
    keeper: Keeper,
}

impl Gateway {
    fn is_made_from(&self, spec: &InstanceSpec) -> bool {
        let tokens = [&self.spec, spec].map(|spec| spec.gateway_token.expose_secret());
        tokens[0] == tokens[1]
            && self.spec.device_id == spec.device_id
            && self.spec.device_scopes == spec.device_scopes
    }
}

/// A gateway's state at one moment.
struct Seen {
    port: u16,
    process: Option<Process>,
    restarts: u32,
    exit: Option<Exit>,
    refused: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalCluster {
    /// # Errors
    /// Node, OpenClaw or the bridge is missing; the folder cannot be made.
    pub fn new(settings: LocalSettings) -> Result<Self, ClusterError> {
        let found = |path: &Path, what| {
            path.canonicalize().map_err(|_| {
                ClusterError::Permanent(format!(
                    "{what} is not at {}; run scripts/bootstrap",
                    path.display()
                ))
            })
        };
        std::fs::create_dir_all(&settings.data_dir)
            .map_err(|error| permanent("cannot make the instances' folder", &error))?;
        let settings = LocalSettings {
            node: found(&settings.node, "Node")?,
            openclaw_dir: found(&settings.openclaw_dir, "OpenClaw")?,
            bridge_dir: found(&settings.bridge_dir, "the bridge plugin")?,
            data_dir: found(&settings.data_dir, "the instances' folder")?,
        };
        Ok(Self(Arc::new(Inner {
            settings,
            probe: Probe::new(0)?,
            gateways: Mutex::default(),
            turns: Mutex::default(),
        })))
    }

    /// Ends every gateway below the folder, whoever started it: for a start that did not come to its end, and for the
    /// end of a process that had not taken them all over yet.
    pub async fn end_left_behind(data_dir: &Path) {
        let mut stopping = JoinSet::new();
        for entry in std::fs::read_dir(data_dir).into_iter().flatten().flatten() {
            if let Some(process) = Process::adopt(&Home(entry.path()).pid_file()) {
                stopping.spawn(async move { process.stop(Signal::SIGTERM, STOP_GRACE).await });
            }
        }
        stopping.join_all().await;
    }
}

impl Inner {
    fn home(&self, name: &str) -> Home {
        Home(self.settings.data_dir.join(name))
    }

    async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = lock(&self.turns)
            .entry(name.to_owned())
            .or_default()
            .clone();
        turn.lock_owned().await
    }

    fn see(&self, name: &str) -> Option<Seen> {
        let gateways = lock(&self.gateways);
        let gateway = gateways.get(name)?;
        let state = gateway.keeper.state();
        Some(Seen {
            port: gateway.port,
            process: state.process.clone(),
            restarts: state.restarts,
            exit: state.exit,
            refused: state.refused.clone(),
        })
    }

    /// The port of the last time, unless another program, or a gateway that is only starting, has it.
    fn choose_port(&self, home: &Home) -> io::Result<u16> {
        loop {
            let port = kept_port(&home.port_file(), false)?;
            if lock(&self.gateways)
                .values()
                .all(|gateway| gateway.port != port)
            {
                return Ok(port);
            }
            std::fs::remove_file(home.port_file())?;
        }
    }

    /// The gateway of an earlier run, where it was started as it would be now; else it is ended.
    async fn found(&self, home: &Home, spec: &InstanceSpec) -> Option<(Process, u16)> {
        let process = Process::adopt(&home.pid_file())?;
        if let Ok(port) = kept_port(&home.port_file(), true)
            && home.is_laid_out(port, spec, &self.settings)
        {
            return Some((process, port));
        }
        tracing::info!(
            name = spec.name,
            "instance of an earlier run has another configuration; starting it anew"
        );
        process.stop(Signal::SIGTERM, STOP_GRACE).await;
        None
    }

    async fn install(&self, spec: &InstanceSpec) -> Result<String, ClusterError> {
        let name = &spec.name;
        let running = lock(&self.gateways)
            .get(name)
            .map(|gateway| (gateway.port, gateway.is_made_from(spec)));
        match running {
            Some((port, true)) => return Ok(url(port)),
            Some((_, false)) => self.stop(name).await,
            None => {}
        }
        let home = self.home(name);
        home.make()
            .map_err(|error| permanent("cannot make the instance's folder", &error))?;
        let (port, keeper) = match self.found(&home, spec).await {
            Some((process, port)) => {
                let restart = home.process(port, spec, &self.settings);
                (
                    port,
                    Keeper::take_over(process, restart, self.probe.of(port)),
                )
            }
            None => {
                let port = self
                    .choose_port(&home)
                    .map_err(|error| temporary("cannot find a free port", &error))?;
                home.lay_out(port, spec, &self.settings)
                    .map_err(|error| permanent("cannot lay out the instance's folder", &error))?;
                let start = Keeper::start(home.process(port, spec, &self.settings));
                (
                    port,
                    start.map_err(|error| ClusterError::Permanent(error.to_string()))?,
                )
            }
        };
        let gateway = Gateway {
            spec: spec.clone(),
            port,
            keeper,
        };
        lock(&self.gateways).insert(name.clone(), gateway);
        Ok(url(port))
    }

    async fn stop(&self, name: &str) {
        let gateway = lock(&self.gateways).remove(name);
        if let Some(gateway) = gateway {
            gateway.keeper.stop().await;
        } else if let Some(of_an_earlier_run) = Process::adopt(&self.home(name).pid_file()) {
            of_an_earlier_run.stop(Signal::SIGTERM, STOP_GRACE).await;
        }
    }

    /// Waits until no process of the instance is left; to be called when it was stopped.
    async fn until_deserted(&self, home: &Path) -> Result<(), ClusterError> {
        let deadline = Instant::now() + HELPERS_TIMEOUT;
        while let Some(pid) = working_in(home).first() {
            if Instant::now() > deadline {
                return Err(ClusterError::Temporary(format!(
                    "process {pid} still works in {}; end it",
                    home.display()
                )));
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Ok(())
    }

    async fn destroy(&self, name: &str) -> Result<(), ClusterError> {
        self.stop(name).await;
        let home = self.home(name).0;
        self.until_deserted(&home).await?;
        let removed = home.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(removed)).await;
        match removed.unwrap_or_else(|error| Err(error.into())) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(temporary("cannot remove the instance's folder", &error))
            }
            _ if home.symlink_metadata().is_ok() => Err(ClusterError::Temporary(format!(
                "{} is still there",
                home.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Of an instance that nobody keeps: it was stopped, or an earlier run left it behind.
    async fn status_unkept(&self, name: &str) -> Status {
        let home = self.home(name);
        let (phase, pid) = match Process::find(&home.pid_file()) {
            Some(pid) => {
                let port = kept_port(&home.port_file(), true).unwrap_or_default();
                let ready = self.probe.of(port).is_ready().await;
                (
                    if ready {
                        Phase::Running
                    } else {
                        Phase::Starting
                    },
                    Some(pid),
                )
            }
            None if home.0.exists() => (Phase::Stopped, None),
            None => (Phase::Gone, None),
        };
        let detail = pid
            .map(|pid| format!("process {pid}, started by an earlier run"))
            .unwrap_or_default();
        Status {
            pid,
            ..status(phase, None, 0, detail)
        }
    }

    fn log_end(&self, name: &str) -> String {
        last_lines(&self.home(name).log(), LOG_LINES_SHOWN).join(" | ")
    }
}

#[async_trait::async_trait]
impl Cluster for LocalCluster {
    async fn install(&self, spec: &InstanceSpec) -> Result<String, ClusterError> {
        check_name(&spec.name)?;
        let _turn = self.0.turn(&spec.name).await;
        self.0.install(spec).await
    }

    async fn stop(&self, name: &str) -> Result<(), ClusterError> {
        check_name(name)?;
        let _turn = self.0.turn(name).await;
        self.0.stop(name).await;
        Ok(())
    }

    async fn destroy(&self, name: &str) -> Result<(), ClusterError> {
        check_name(name)?;
        let _turn = self.0.turn(name).await;
        self.0.destroy(name).await
    }

    async fn status(&self, name: &str) -> Status {
        if let Err(error) = check_name(name) {
            return status(Phase::Gone, None, 0, error.to_string());
        }
        let Some(seen) = self.0.see(name) else {
            return self.0.status_unkept(name).await;
        };
        let running = seen.process.as_ref().filter(|process| process.is_running());
        let phase = match running {
            Some(_) if self.0.probe.of(seen.port).is_ready().await => Phase::Running,
            _ => Phase::Starting,
        };
        let detail = match (running, seen.refused, seen.exit) {
            (Some(process), _, _) => format!("process {} on port {}", process.pid(), seen.port),
            (None, Some(refused), _) => refused,
            (None, None, Some(exit)) => format!("{exit}, and is started again"),
            (None, None, None) => String::new(),
        };
        let usage = running.and_then(Process::usage);
        Status {
            pid: running.map(Process::pid),
            ..status(phase, usage, seen.restarts, detail)
        }
    }

    async fn wait_ready(&self, name: &str, at_most: Duration) -> Result<(), ClusterError> {
        check_name(name)?;
        let deadline = Instant::now() + at_most;
        loop {
            let not_here =
                || ClusterError::Temporary(format!("{name} is not running here; install it"));
            let seen = self.0.see(name).ok_or_else(not_here)?;
            if self.0.probe.of(seen.port).is_ready().await {
                return Ok(());
            }
            let runs = seen.process.is_some_and(|process| process.is_running());
            if !runs && seen.exit == Some(EXIT_CONFIG_REFUSED) {
                return Err(ClusterError::Permanent(format!(
                    "{name} refuses its configuration: {}",
                    self.0.log_end(name)
                )));
            }
            if Instant::now() > deadline {
                let (seconds, log) = (at_most.as_secs(), self.0.log_end(name));
                return Err(ClusterError::Temporary(format!(
                    "{name} was not ready within {seconds} s: {log}"
                )));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>, ClusterError> {
        check_name(name)?;
        Ok(last_lines(&self.0.home(name).log(), lines))
    }

    async fn follow_logs(
        &self,
        name: &str,
        lines: usize,
    ) -> Result<mpsc::Receiver<String>, ClusterError> {
        check_name(name)?;
        Ok(follow_lines(self.0.home(name).log(), lines))
    }

    async fn shutdown(&self) {
        let names: Vec<String> = lock(&self.0.gateways).keys().cloned().collect();
        let mut stopping = JoinSet::new();
        for name in names {
            let cluster = self.clone();
            stopping.spawn(async move { cluster.stop(&name).await });
        }
        stopping.join_all().await;
        Self::end_left_behind(&self.0.settings.data_dir).await;
    }
}

fn status(phase: Phase, usage: Option<Usage>, restarts: u32, detail: String) -> Status {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Status {
        phase,
        pid: None,
        memory_bytes: usage.map(|usage| usage.memory_bytes),
        cpu_ms: usage.map(|usage| milliseconds(usage.cpu)),
        up_seconds: usage.map(|usage| usage.up.as_secs()),
        restarts,
        detail,
    }
}

fn url(port: u16) -> String {
    format!("ws://127.0.0.1:{port}")
}

fn temporary(what: &str, error: &io::Error) -> ClusterError {
    ClusterError::Temporary(format!("{what}: {error}"))
}

fn permanent(what: &str, error: &io::Error) -> ClusterError {
    ClusterError::Permanent(format!("{what}: {error}"))
}
