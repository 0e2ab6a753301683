//! A gateway of one's own: `tsunami dev` in a folder of its own.

use crate::{api::Api, eventually, ports, processes, repository, tools};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection, PgConnection};
use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// Faster than a user would want it, so that a story with a death in it does not take minutes.
const SETTINGS: [(&str, &str); 3] = [
    ("TSUNAMI_TASKS__RETRY_INITIAL_SECONDS", "1"),
    ("TSUNAMI_TASKS__HEARTBEAT_SECONDS", "3"),
    ("TSUNAMI_LOG__FILTER", "info"),
];

pub struct Gateway {
    folder: TempDir,
    settings: Vec<(String, String)>,
    port: u16,
    host: Option<Child>,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With settings of the environment on top.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut gateway = Self::at_rest(settings);
        gateway.start_host().await;
        gateway
    }

    /// A folder and a port, and nothing that runs yet.
    pub fn at_rest(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tsunami-test-")
            .tempdir()
            .expect("a folder");
        Self {
            folder,
            settings: SETTINGS
                .iter()
                .chain(settings)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            port: free_port(),
            host: None,
        }
    }

    /// Starts `tsunami dev` and waits until it says that it is ready.
    pub async fn start_host(&mut self) {
        self.spawn();
        let output = self.output_file();
        eventually("the gateway is ready", || {
            if let Some(host) = &mut self.host
                && let Ok(Some(status)) = host.try_wait()
            {
                panic!("the gateway ended ({status}):\n{}", self.log());
            }
            let text = fs::read_to_string(&output).unwrap_or_default();
            async move { text.contains("ready; press").then_some(()) }
        })
        .await;
    }

    /// Starts `tsunami dev` and does not wait.
    pub fn spawn(&mut self) {
        let program = program();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log");
        let output = fs::File::create(self.output_file()).expect("an output file");
        let mut command = Command::new(program);
        command
            .args(["dev", "--data-dir"])
            .arg(self.data_dir())
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .current_dir(repository())
            .env(
                "TSUNAMI_SKILLS__PRIVATE_NETWORK_HOSTS",
                format!("{:?}", ports::private_hosts()),
            )
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log);
        self.host = Some(command.spawn().expect("tsunami starts"));
    }

    /// SIGKILL, to the host alone: what it started is left as it is.
    pub fn kill(&mut self) {
        let mut host = self.host.take().expect("it runs");
        host.kill().expect("it can be killed");
        host.wait().expect("it ends");
    }

    /// SIGTERM, and waits until it has ended.
    pub fn stop(&mut self) {
        let Some(mut host) = self.host.take() else {
            return;
        };
        let pid = Pid::from_raw(i32::try_from(host.id()).expect("a pid"));
        let _ = kill(pid, Signal::SIGTERM);
        let _ = host.wait();
    }

    /// Waits until the host has ended by itself, or because it was asked to.
    pub async fn ended(&mut self) -> ExitStatus {
        let host = &mut self.host;
        let status = eventually("the host ends", || {
            let status = host.as_mut().expect("it ran").try_wait();
            async move { status.expect("it is our child") }
        })
        .await;
        self.host = None;
        status
    }

    pub fn pid(&self) -> i32 {
        let host = self.host.as_ref().expect("it runs");
        i32::try_from(host.id()).expect("a pid")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("tsunami.log")
    }

    fn output_file(&self) -> PathBuf {
        self.folder.path().join("tsunami.out")
    }

    /// What the host wrote to standard error, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The API without a key.
    pub fn anybody(&self) -> Api {
        Api::new(&self.url(), "")
    }

    pub fn operator(&self) -> Api {
        let key = fs::read_to_string(self.data_dir().join("operator-key")).expect("the key");
        Api::new(&self.url(), key.trim())
    }

    /// A connection to the database as a role of the gateway's: `tsunami_owner`, `tsunami_app`, `tsunami_system`.
    pub async fn database(&self, role: &str) -> PgConnection {
        PgConnection::connect(&self.database_url(role))
            .await
            .expect("a connection")
    }

    pub fn database_url(&self, role: &str) -> String {
        let url = self.said("postgresql");
        url.replace("tsunami_app@", &format!("{role}@"))
    }

    pub fn temporal_url(&self) -> String {
        self.said("temporal")
    }

    /// What the gateway said at its start of where something is.
    fn said(&self, what: &str) -> String {
        let output = fs::read_to_string(self.output_file()).expect("the gateway's output");
        output
            .lines()
            .find_map(|line| line.strip_prefix(what)?.split_whitespace().next())
            .unwrap_or_else(|| panic!("it says where {what} is"))
            .to_owned()
    }

    /// The command line, as whoever has the key.
    pub async fn cli(&self, api: &Api, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("TSUNAMI_URL", self.url())
            .env("TSUNAMI_API_KEY", &api.key)
            .stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output()).await;
        ran.expect("it ends").expect("it starts")
    }

    /// What Temporal's own command line does with a workflow: `show`, `terminate`. Whether it did, and what it said, as
    /// JSON.
    pub fn workflow(&self, what: &str, id: &str) -> (bool, String) {
        let url = self.temporal_url();
        let mut command = Command::new(tools().join("temporal/bin/temporal"));
        command.args(["workflow", what, "--workflow-id", id, "--output", "json"]);
        command.args(["--address", url.trim_start_matches("http://")]);
        let ran = command.output().expect("Temporal's command line starts");
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8_lossy(&said).into())
    }

    /// The process that a pid file below the data folder names: `postgres/pid`, `instances/openclaw-1/pid`.
    pub fn pid_of(&self, file: &str) -> Option<i32> {
        let text = fs::read_to_string(self.data_dir().join(file)).ok()?;
        let identity: serde_json::Value = serde_json::from_str(&text).ok()?;
        let pid = i32::try_from(identity["process"]["pid"].as_i64()?).ok()?;
        processes::lives(pid).then_some(pid)
    }

    /// Waits until nothing runs any more that this gateway started.
    pub async fn is_gone(&self) {
        eventually("everything of the gateway has ended", || async {
            processes::of(self.folder()).is_empty().then_some(())
        })
        .await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
        // What a killed host left behind.
        for process in processes::of(self.folder()) {
            processes::end(process.pid);
        }
        #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
        let keep = std::env::var_os("TSUNAMI_TEST_KEEP");
        if let Some(kept) = keep {
            let to = PathBuf::from(kept).join(self.folder().file_name().unwrap_or_default());
            let _ = fs::rename(self.folder(), to);
        }
    }
}

/// `tsunami`. Cargo puts it into the folder above that of the tests.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("our own path");
    let program = tests
        .ancestors()
        .find(|folder| folder.join("deps").is_dir())
        .expect("cargo's folder")
        .join("tsunami");
    assert!(
        program.exists(),
        "{} is not there; build it with `cargo build --workspace`",
        program.display()
    );
    program
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
