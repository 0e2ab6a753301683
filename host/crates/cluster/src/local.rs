//! A gateway as a child process of this machine.

use crate::{Cluster, ClusterError, InstanceSpec, Phase, Status};
use nix::sys::signal::Signal;
use secrecy::ExposeSecret;
use serde_json::json;
use std::{
    collections::HashMap,
    ffi::OsString,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tsunami_process::{Process, Spec, kept_port, last_lines};

/// The longest call, and what the gateway needs to end.
const STOP_GRACE: Duration = Duration::from_secs(20);
const READY_POLL: Duration = Duration::from_millis(200);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a gateway that was found running may take to answer before it is ended and started anew.
const ADOPT_WAIT: Duration = Duration::from_secs(40);
const RESTART_FIRST: Duration = Duration::from_millis(500);
const RESTART_MAX: Duration = Duration::from_secs(30);

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

/// See the crate's front page.
pub struct LocalCluster {
    settings: LocalSettings,
    http: reqwest::Client,
    instances: Arc<Mutex<HashMap<String, Running>>>,
}

/// A gateway that should run, and the task that sees to it.
struct Running {
    port: u16,
    process: Arc<Mutex<Process>>,
    keeper: tokio::task::JoinHandle<()>,
}

impl LocalCluster {
    pub fn new(settings: LocalSettings) -> Result<Self, ClusterError> {
        for (path, what) in [(&settings.node, "Node"), (&settings.openclaw_dir, "OpenClaw"), (&settings.bridge_dir, "the bridge plugin")] {
            if !path.exists() {
                return Err(ClusterError::Permanent(format!("{what} is not at {}; run scripts/bootstrap", path.display())));
            }
        }
        std::fs::create_dir_all(&settings.data_dir).map_err(|e| permanent("cannot make the instances' folder", &e))?;
        let absolute = |path: &Path| path.canonicalize().map_err(|e| permanent("cannot find a folder", &e));
        let settings = LocalSettings {
            data_dir: absolute(&settings.data_dir)?,
            node: absolute(&settings.node)?,
            openclaw_dir: absolute(&settings.openclaw_dir)?,
            bridge_dir: absolute(&settings.bridge_dir)?,
        };
        #[expect(clippy::disallowed_methods, reason = "probes its own child processes on loopback, and nothing else")]
        let http = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().map_err(|e| ClusterError::Permanent(e.to_string()))?;
        Ok(Self { settings, http, instances: Arc::default() })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self, name: &str) -> PathBuf {
        self.settings.data_dir.join(name)
    }

    fn port_of(&self, name: &str) -> Option<u16> {
        self.running().get(name).map(|running| running.port)
    }

    async fn is_ready(&self, port: u16) -> bool {
        let answer = self.http.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// The process of an earlier run, where it still serves.
    async fn adopt(&self, home: &Path) -> Option<(Process, u16)> {
        let process = Process::adopt(&home.join("pid"))?;
        let port = kept_port(&home.join("port"), true).ok()?;
        let deadline = Instant::now() + ADOPT_WAIT;
        while process.is_running() && Instant::now() < deadline {
            if self.is_ready(port).await {
                return Some((process, port));
            }
            tokio::time::sleep(READY_POLL).await;
        }
        process.stop(Signal::SIGTERM, STOP_GRACE).await;
        None
    }

    fn spawn(&self, home: &Path, spec: &InstanceSpec) -> Result<(Process, u16, Spec), ClusterError> {
        let port = kept_port(&home.join("port"), false).map_err(|e| temporary("cannot find a free port", &e))?;
        lay_out(home, port, spec, &self.settings).map_err(|e| permanent("cannot lay out the instance's folder", &e))?;
        let child = child_spec(home, port, spec, &self.settings);
        let process = Process::spawn(&child).map_err(|e| ClusterError::Permanent(e.to_string()))?;
        Ok((process, port, child))
    }
}

#[async_trait::async_trait]
impl Cluster for LocalCluster {
    async fn install(&self, spec: &InstanceSpec) -> Result<String, ClusterError> {
        if let Some(port) = self.port_of(&spec.name) {
            return Ok(url(port));
        }
        let home = self.home(&spec.name);
        let (process, port, child) = match self.adopt(&home).await {
            Some((process, port)) => {
                let child = child_spec(&home, port, spec, &self.settings);
                (process, port, child)
            }
            None => self.spawn(&home, spec)?,
        };
        let process = Arc::new(Mutex::new(process));
        let keeper = tokio::spawn(keep_running(spec.name.clone(), child, process.clone()));
        let replaced = self.running().insert(spec.name.clone(), Running { port, process, keeper });
        if let Some(replaced) = replaced {
            replaced.keeper.abort();
        }
        Ok(url(port))
    }

    async fn stop(&self, name: &str) -> Result<(), ClusterError> {
        let running = self.running().remove(name);
        let process = match running {
            Some(running) => {
                running.keeper.abort();
                Some(current(&running.process))
            }
            None => Process::adopt(&self.home(name).join("pid")),
        };
        if let Some(process) = process {
            process.stop(Signal::SIGTERM, STOP_GRACE).await;
        }
        Ok(())
    }

    async fn destroy(&self, name: &str) -> Result<(), ClusterError> {
        self.stop(name).await?;
        let home = self.home(name);
        match std::fs::remove_dir_all(&home) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(temporary("cannot remove the instance's folder", &e)),
        }
        if home.exists() {
            return Err(ClusterError::Temporary(format!("{} is still there", home.display())));
        }
        Ok(())
    }

    async fn status(&self, name: &str) -> Status {
        let Some((port, process)) = self.running().get(name).map(|running| (running.port, current(&running.process))) else {
            let phase = if self.home(name).exists() { Phase::Stopped } else { Phase::Gone };
            return Status { phase, memory_bytes: None, detail: String::new() };
        };
        let phase = if self.is_ready(port).await { Phase::Running } else { Phase::Starting };
        Status { phase, memory_bytes: process.usage().map(|usage| usage.memory_bytes), detail: format!("process {} on port {port}", process.pid()) }
    }

    async fn wait_ready(&self, name: &str, at_most: Duration) -> Result<(), ClusterError> {
        let deadline = Instant::now() + at_most;
        loop {
            let port = self.port_of(name).ok_or_else(|| ClusterError::Temporary(format!("{name} is not running here")))?;
            if self.is_ready(port).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                let lines = last_lines(&self.home(name).join("gateway.out"), 5).join(" | ");
                return Err(ClusterError::Temporary(format!("{name} was not ready within {} s: {lines}", at_most.as_secs())));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    async fn logs(&self, name: &str, lines: usize) -> Result<Vec<String>, ClusterError> {
        Ok(last_lines(&self.home(name).join("gateway.out"), lines))
    }

    async fn shutdown(&self) {
        let names: Vec<String> = self.running().keys().cloned().collect();
        for name in names {
            let _ = self.stop(&name).await;
        }
    }
}

fn url(port: u16) -> String {
    format!("ws://127.0.0.1:{port}")
}

fn current(process: &Mutex<Process>) -> Process {
    process.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Starts the gateway again whenever it ends, with growing pauses while it ends soon.
async fn keep_running(name: String, child: Spec, process: Arc<Mutex<Process>>) {
    let mut pause = RESTART_FIRST;
    loop {
        let began = Instant::now();
        current(&process).wait().await;
        pause = if began.elapsed() > RESTART_MAX { RESTART_FIRST } else { (pause * 2).min(RESTART_MAX) };
        tracing::warn!(name, pause_ms = pause.as_millis(), "instance ended by itself; starting it again");
        tokio::time::sleep(pause).await;
        match Process::spawn(&child) {
            Ok(started) => *process.lock().unwrap_or_else(PoisonError::into_inner) = started,
            Err(error) => tracing::error!(name, %error, "instance does not start"),
        }
    }
}

fn child_spec(home: &Path, port: u16, spec: &InstanceSpec, settings: &LocalSettings) -> Spec {
    let path = |below: &str| home.join(below).into_os_string();
    let node_dir = settings.node.parent().map(|dir| dir.display().to_string()).unwrap_or_default();
    let env: Vec<(OsString, OsString)> = [
        ("HOME", path("home")),
        ("TMPDIR", path("tmp")),
        ("PATH", format!("{node_dir}:/usr/local/bin:/usr/bin:/bin").into()),
        ("OPENCLAW_STATE_DIR", path("state")),
        ("OPENCLAW_CONFIG_PATH", path("config/openclaw.json")),
        ("OPENCLAW_GATEWAY_TOKEN", spec.gateway_token.expose_secret().into()),
        ("OPENCLAW_CONFIG_READONLY", "1".into()),
        ("OPENCLAW_DISABLE_BONJOUR", "1".into()),
        ("OPENCLAW_EXEC_SHELL_SNAPSHOT", "0".into()),
        ("OPENCLAW_NO_AUTO_UPDATE", "1".into()),
        ("OPENCLAW_NO_RESPAWN", "1".into()),
        ("OPENCLAW_OFFLINE", "1".into()),
        ("OPENCLAW_SKIP_CHANNELS", "1".into()),
    ]
    .map(|(name, value)| (OsString::from(name), value))
    .to_vec();
    Spec {
        name: spec.name.clone(),
        program: settings.node.clone(),
        args: vec![
            settings.openclaw_dir.join("openclaw.mjs").into(),
            "gateway".into(),
            "run".into(),
            "--port".into(),
            port.to_string().into(),
            "--bind".into(),
            "loopback".into(),
        ],
        env,
        dir: home.to_owned(),
        log_file: home.join("gateway.out"),
        pid_file: home.join("pid"),
        run_as: None,
    }
}

fn lay_out(home: &Path, port: u16, spec: &InstanceSpec, settings: &LocalSettings) -> std::io::Result<()> {
    for below in ["home", "tmp", "state", "config", "plugins"] {
        std::fs::create_dir_all(home.join(below))?;
    }
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o700))?;
    let bridge = home.join("plugins/openclaw-bridge");
    copy_plugin(&settings.bridge_dir, &bridge)?;
    let config = gateway_config(home, port, spec, &bridge);
    std::fs::write(home.join("config/openclaw.json"), serde_json::to_vec_pretty(&config)?)
}

/// Regular files in folders that only the owner may write: the gateway refuses to load anything else.
fn copy_plugin(from: &Path, to: &Path) -> std::io::Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let target = to.join(entry.file_name());
            std::fs::copy(entry.path(), &target)?;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// No model, no channel, no skill, no schedule: the gateway does what the bridge is asked, and nothing by itself.
fn gateway_config(home: &Path, port: u16, spec: &InstanceSpec, bridge: &Path) -> serde_json::Value {
    json!({
        "gateway": { "mode": "local", "bind": "loopback", "port": port, "auth": { "mode": "token" },
                     "controlUi": { "enabled": false }, "reload": { "mode": "off" } },
        "discovery": { "mdns": { "mode": "off" } },
        "update": { "checkOnStart": false },
        "telemetry": { "enabled": false },
        "logging": { "file": home.join("state/gateway.log"), "level": "info" },
        "plugins": {
            "allow": ["openclaw-bridge"],
            "slots": { "memory": "none" },
            "load": { "paths": [bridge] },
            "entries": { "openclaw-bridge": { "enabled": true, "config": {
                "journalDir": home.join("state/servicetsunami-journal"),
                "approvedDevices": [{ "deviceId": spec.device_id, "scopes": spec.device_scopes }],
            } } },
        },
        "models": { "mode": "replace", "catalogRefresh": { "enabled": false }, "providers": {} },
        "agents": { "defaults": { "heartbeat": { "every": "0m" }, "skipBootstrap": true } },
        "skills": { "allowBundled": [] },
        "cron": { "enabled": false },
    })
}

fn temporary(what: &str, error: &std::io::Error) -> ClusterError {
    ClusterError::Temporary(format!("{what}: {error}"))
}

fn permanent(what: &str, error: &std::io::Error) -> ClusterError {
    ClusterError::Permanent(format!("{what}: {error}"))
}
