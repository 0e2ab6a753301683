//! A real OpenClaw gateway as a child process, with the bridge, on a free port of loopback.

use std::{
    env,
    ffi::OsString,
    fs::Permissions,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tsunami_openclaw::{Client, DeviceIdentity, Endpoint, Options};

const TOKEN: &str = "canary-gateway-token-0123456789abcdef";
/// A start takes 10 to 20 s on two busy cores.
const START_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

pub struct Gateway {
    /// Everything that the instance writes.
    pub home: TempDir,
    port: u16,
    device: DeviceIdentity,
    child: Child,
}

impl Gateway {
    /// Starts a gateway with a fresh state folder and waits until it is ready.
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let port = free_port();
        let device = DeviceIdentity::generate();
        std::fs::write(
            home.path().join("openclaw.json"),
            config(home.path(), port, &device).to_string(),
        )
        .unwrap();
        let child = spawn(home.path(), port);
        let mut gateway = Self {
            home,
            port,
            device,
            child,
        };
        gateway.wait_ready().await;
        gateway
    }

    pub fn client(&self) -> Client {
        let endpoint = Endpoint {
            url: format!("ws://127.0.0.1:{}/", self.port),
            token: TOKEN.into(),
            device: self.device.clone(),
        };
        Client::new(endpoint, Options::default())
    }

    /// kill -9, of the gateway and its helpers, as when the machine takes it away.
    pub fn kill(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Starts it again on what it left behind.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.home.path(), self.port);
        self.wait_ready().await;
    }

    async fn wait_ready(&mut self) {
        let give_up = Instant::now() + START_MAX;
        while !is_ready(self.port).await {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("OpenClaw ended with {status}:\n{}", self.output());
            }
            assert!(
                Instant::now() < give_up,
                "OpenClaw is not ready after {START_MAX:?}:\n{}",
                self.output()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(self.home.path().join("output.log")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(home: &Path, port: u16, device: &DeviceIdentity) -> serde_json::Value {
    json!({
        "gateway": {"mode": "local", "bind": "loopback", "port": port, "auth": {"mode": "token"},
                    "controlUi": {"enabled": false}, "reload": {"mode": "off"}},
        "discovery": {"mdns": {"mode": "off"}},
        "update": {"checkOnStart": false},
        "logging": {"file": home.join("gateway.log"), "level": "debug"},
        "plugins": {
            "allow": ["openclaw-bridge"],
            "slots": {"memory": "none"},
            "load": {"paths": [bridge_in(home)]},
            "entries": {"openclaw-bridge": {"enabled": true, "config": {
                "approvedDevices": [{"deviceId": device.id(), "scopes": ["operator.read", "operator.write"]}]
            }}}
        },
        "models": {"catalogRefresh": {"enabled": false}},
        "agents": {"defaults": {"heartbeat": {"every": "0m"}, "skipBootstrap": true}},
        "skills": {"allowBundled": []},
        "cron": {"enabled": false}
    })
}

/// A copy of the bridge that nobody else may write to: OpenClaw loads nothing else, and says nothing of it, wherever the
/// project lies.
fn bridge_in(home: &Path) -> PathBuf {
    let copy = home.join("openclaw-bridge");
    std::fs::create_dir(&copy).unwrap();
    std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(repository().join("plugins/openclaw-bridge")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let file = copy.join(entry.file_name());
            // By its content: a copy would keep who may write to it.
            std::fs::write(&file, std::fs::read(entry.path()).unwrap()).unwrap();
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
    }
    copy
}

fn spawn(home: &Path, port: u16) -> Child {
    let output = std::fs::File::options()
        .create(true)
        .append(true)
        .open(home.join("output.log"))
        .unwrap();
    Command::new(node())
        .arg(openclaw().join("openclaw.mjs"))
        .args([
            "gateway",
            "run",
            "--bind",
            "loopback",
            "--port",
            &port.to_string(),
        ])
        .env_clear()
        .env("PATH", variable("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("OPENCLAW_STATE_DIR", home.join("state"))
        .env("OPENCLAW_CONFIG_PATH", home.join("openclaw.json"))
        .env("OPENCLAW_GATEWAY_TOKEN", TOKEN)
        .envs(
            [
                "OPENCLAW_DISABLE_BONJOUR",
                "OPENCLAW_NO_RESPAWN",
                "OPENCLAW_SKIP_CHANNELS",
                "OPENCLAW_OFFLINE",
                "OPENCLAW_NO_AUTO_UPDATE",
                "OPENCLAW_CONFIG_READONLY",
            ]
            .map(|name| (name, "1")),
        )
        .env("OPENCLAW_EXEC_SHELL_SNAPSHOT", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .process_group(0) // so that its helpers end with it
        .spawn()
        .unwrap()
}

async fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.contains("\"ready\":true")
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .canonicalize()
        .unwrap()
}

fn node() -> PathBuf {
    installed("TSUNAMI_NODE_BIN", "node/bin/node")
}

fn openclaw() -> PathBuf {
    installed("TSUNAMI_OPENCLAW_DIR", "openclaw/node_modules/openclaw")
}

/// What the project's installer put into `.tools`, or what a variable names.
fn installed(name: &str, place: &str) -> PathBuf {
    let path =
        variable(name).map_or_else(|| repository().join(".tools").join(place), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run the project's installer, or set {name}",
        path.display()
    );
    path
}

fn variable(name: &str) -> Option<OsString> {
    env::vars_os().find_map(|(found, value)| (found == name).then_some(value))
}
