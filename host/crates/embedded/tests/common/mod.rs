//! What the tests of both servers share.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where `scripts/bootstrap` put the programs.
pub fn tools() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.tools");
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    std::env::var_os("TSUNAMI_TOOLS_DIR").map_or(here, PathBuf::from)
}

/// A program that started a server, and what it said: the server's process number and address.
pub struct Starter {
    pub child: Child,
    pub server_pid: i32,
    pub address: String,
}

/// Starts a server by way of another program; as `uid`, where that is given.
pub fn start_elsewhere(which: &str, dir: &Path, uid: Option<u32>) -> Starter {
    // Cargo builds it beside the tests, unless it is told to build one test alone.
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/server_starter");
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .arg(which)
        .arg(tools())
        .arg(dir)
        .stdout(Stdio::piped());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let (pid, address) = line
        .trim()
        .split_once(' ')
        .expect("the starter says pid and address");
    Starter {
        child,
        server_pid: pid.parse().unwrap(),
        address: address.into(),
    }
}

/// kill -9, and nobody can say goodbye.
pub fn kill_hard(starter: &mut Starter) {
    starter.child.kill().unwrap();
    starter.child.wait().unwrap();
}

pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

pub async fn until_gone(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    while lives() {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process that a pid file names, when it is another one.
pub async fn until_another(pid_file: &Path, than: i32) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tsunami_process::Process::find(pid_file) {
            Some(pid) if pid != than => return pid,
            _ => assert!(Instant::now() < deadline, "there is no other process"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
