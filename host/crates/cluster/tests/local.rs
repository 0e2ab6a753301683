//! The local driver: with a stand-in for Node where the driver itself is meant, with the real OpenClaw where that is.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use tsunami_cluster::{Cluster, ClusterError, InstanceSpec, LocalCluster, LocalSettings, Phase};

const NAME: &str = "openclaw-c024fddd";
/// As in the starter.
const TOKEN: &str = "test-token-of-the-gateway";
/// A gateway needs 10 to 20 s on two busy cores.
const PATIENCE: Duration = Duration::from_secs(300);
/// A gateway takes 750 MB: one at a time.
static GATEWAY: Mutex<()> = Mutex::const_new(());

fn tools() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.tools");
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    std::env::var_os("TSUNAMI_TOOLS_DIR").map_or(here, PathBuf::from)
}

fn bridge() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/openclaw-bridge")
}

fn settings(dir: &Path) -> LocalSettings {
    LocalSettings {
        data_dir: dir.join("instances"),
        node: tools().join("node/bin/node"),
        openclaw_dir: tools().join("openclaw/node_modules/openclaw"),
        bridge_dir: bridge(),
    }
}

/// With a script in place of Node.
fn scripted(dir: &Path, script: &str) -> LocalSettings {
    let node = dir.join("node");
    fs::write(&node, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
    LocalSettings {
        node,
        openclaw_dir: dir.to_owned(),
        ..settings(dir)
    }
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        name: NAME.into(),
        gateway_token: TOKEN.into(),
        device_id: "d0".repeat(32),
        device_scopes: vec!["operator.write".into()],
    }
}

fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with('Z'))
}

async fn pid_of(cluster: &LocalCluster) -> i32 {
    cluster.status(NAME).await.pid.expect("it runs")
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All files below a folder that hold a text.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file()
            && fs::read(&path)
                .unwrap()
                .windows(text.len())
                .any(|bytes| bytes == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn an_instance_lives_from_install_to_destroy() {
    let _one = GATEWAY.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::new(settings(dir.path())).unwrap();
    assert_eq!(cluster.status(NAME).await.phase, Phase::Gone);
    let mut lines = cluster.follow_logs(NAME, 0).await.unwrap();

    let url = cluster.install(&spec()).await.unwrap();
    assert_eq!(cluster.status(NAME).await.phase, Phase::Starting);
    assert_eq!(cluster.install(&spec()).await.unwrap(), url, "the same one");
    cluster.wait_ready(NAME, PATIENCE).await.unwrap();
    let status = cluster.status(NAME).await;
    assert_eq!((status.phase, status.restarts), (Phase::Running, 0));
    assert!(
        status.memory_bytes.unwrap() > 200 << 20 && status.cpu_ms.unwrap() > 1000,
        "{status:?}"
    );
    let log = cluster.logs(NAME, 1000).await.unwrap().join("\n");
    assert!(
        log.contains("openclaw-bridge") && !log.contains("blocked plugin"),
        "{log}"
    );
    assert!(lines.recv().await.is_some());
    let home = dir.path().join("instances").join(NAME);
    assert_eq!(files_with(&home, TOKEN), Vec::<PathBuf>::new());

    let first = status.pid.unwrap();
    fs::write(home.join("state/kept"), "by the test").unwrap();
    cluster.stop(NAME).await.unwrap();
    assert!(!lives(first));
    assert_eq!(cluster.status(NAME).await.phase, Phase::Stopped);
    assert_eq!(
        cluster.restart(&spec()).await.unwrap(),
        url,
        "at the same port"
    );
    cluster.wait_ready(NAME, PATIENCE).await.unwrap();
    assert!(home.join("state/kept").exists());

    let second = pid_of(&cluster).await;
    cluster.destroy(NAME).await.unwrap();
    assert!(!lives(second) && !home.exists());
    assert_eq!(cluster.status(NAME).await.phase, Phase::Gone);
    cluster.destroy(NAME).await.unwrap();
}

#[tokio::test]
async fn a_gateway_outlives_its_starter_and_comes_back_when_it_is_killed() {
    let _one = GATEWAY.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut starter, pid, url) = start_elsewhere(dir.path());
    starter.kill().unwrap();
    starter.wait().unwrap();

    let cluster = LocalCluster::new(settings(dir.path())).unwrap();
    let orphan = cluster.status(NAME).await;
    assert_eq!(
        (orphan.phase, orphan.pid),
        (Phase::Running, Some(pid)),
        "{orphan:?}"
    );
    assert_eq!(cluster.install(&spec()).await.unwrap(), url);
    cluster.wait_ready(NAME, PATIENCE).await.unwrap();
    assert_eq!(pid_of(&cluster).await, pid, "taken over, not started anew");

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("another process", async || {
        cluster.status(NAME).await.restarts == 1
    })
    .await;
    cluster.wait_ready(NAME, PATIENCE).await.unwrap();
    assert_ne!(pid_of(&cluster).await, pid);

    // Made from another specification: it is not the same instance any more.
    let before = pid_of(&cluster).await;
    let other_device = InstanceSpec {
        device_id: "d1".repeat(32),
        ..spec()
    };
    cluster.install(&other_device).await.unwrap();
    assert!(!lives(before));
    cluster.shutdown().await;
    assert_eq!(cluster.status(NAME).await.phase, Phase::Stopped);
}

fn start_elsewhere(dir: &Path) -> (Child, i32, String) {
    // Cargo builds it beside the tests, unless it is told to build one test alone.
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/gateway_starter");
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples",
        program.display()
    );
    let mut starter = Command::new(program);
    starter
        .arg(tools())
        .arg(bridge())
        .arg(dir.join("instances"))
        .arg(NAME)
        .stdout(Stdio::piped());
    let mut starter = starter.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(starter.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let (pid, url) = line
        .trim()
        .split_once(' ')
        .expect("the starter says pid and URL");
    (starter, pid.parse().unwrap(), url.into())
}

#[tokio::test]
async fn a_gateway_that_refuses_its_configuration_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let cluster =
        LocalCluster::new(scripted(dir.path(), "echo Unrecognized key; exit 78")).unwrap();
    cluster.install(&spec()).await.unwrap();
    let error = cluster.wait_ready(NAME, PATIENCE).await.unwrap_err();
    assert!(
        matches!(&error, ClusterError::Permanent(why) if why.contains("Unrecognized key")),
        "{error}"
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_is_not_ready_in_time_shows_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::new(scripted(dir.path(), "echo thinking; exec sleep 600")).unwrap();
    cluster.install(&spec()).await.unwrap();
    until("a line of the log", async || {
        !cluster.logs(NAME, 1).await.unwrap().is_empty()
    })
    .await;
    let error = cluster
        .wait_ready(NAME, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ClusterError::Temporary(why) if why.contains("thinking")),
        "{error}"
    );
    cluster.shutdown().await;
    cluster.wait_ready(NAME, PATIENCE).await.unwrap_err();
}

#[tokio::test]
async fn installing_at_once_and_often_starts_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::new(scripted(dir.path(), "echo started; exec sleep 600")).unwrap();
    let mut installing = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let cluster = cluster.clone();
        installing.spawn(async move { cluster.install(&spec()).await.unwrap() });
    }
    let urls = installing.join_all().await;
    assert!(urls.iter().all(|url| *url == urls[0]), "{urls:?}");
    until("the start", async || {
        !cluster.logs(NAME, 1).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(cluster.logs(NAME, 100).await.unwrap(), ["started"]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn two_instances_that_are_both_starting_get_ports_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::new(scripted(dir.path(), "exec sleep 600")).unwrap();
    let first = cluster.install(&spec()).await.unwrap();
    let other = InstanceSpec {
        name: "openclaw-other".into(),
        ..spec()
    };
    let home = dir.path().join("instances/openclaw-other");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("port"), first.rsplit_once(':').unwrap().1).unwrap();
    assert_ne!(cluster.install(&other).await.unwrap(), first);
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_orphan_with_another_configuration_is_ended_and_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let settings = scripted(dir.path(), "exec sleep 600");
    let cluster = LocalCluster::new(settings.clone()).unwrap();
    cluster.install(&spec()).await.unwrap();
    let first = pid_of(&cluster).await;
    drop(cluster); // As if this process had been killed.
    let cluster = LocalCluster::new(settings).unwrap();
    let other_device = InstanceSpec {
        device_id: "d1".repeat(32),
        ..spec()
    };
    cluster.install(&other_device).await.unwrap();
    assert!(!lives(first));
    assert_ne!(pid_of(&cluster).await, first);
    cluster.destroy(NAME).await.unwrap();
}

#[tokio::test]
async fn an_orphan_can_be_stopped_and_destroyed_without_being_installed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = scripted(dir.path(), "exec sleep 600");
    let cluster = LocalCluster::new(settings.clone()).unwrap();
    cluster.install(&spec()).await.unwrap();
    let pid = pid_of(&cluster).await;
    drop(cluster);
    let cluster = LocalCluster::new(settings).unwrap();
    cluster.destroy(NAME).await.unwrap();
    assert!(!lives(pid));
    assert_eq!(cluster.status(NAME).await.phase, Phase::Gone);
}

#[tokio::test]
async fn no_name_reaches_beyond_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::new(scripted(dir.path(), "exit 1")).unwrap();
    fs::write(dir.path().join("instances/mine"), "").unwrap();
    for name in ["", ".", "..", "../instances", "a/../../instances"] {
        assert!(
            matches!(cluster.destroy(name).await, Err(ClusterError::Permanent(_))),
            "{name}"
        );
        assert!(
            cluster
                .install(&InstanceSpec {
                    name: name.into(),
                    ..spec()
                })
                .await
                .is_err(),
            "{name}"
        );
    }
    assert!(dir.path().join("instances/mine").exists());
}

#[tokio::test]
async fn what_is_missing_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LocalSettings {
        openclaw_dir: "/nowhere/openclaw".into(),
        ..scripted(dir.path(), "exit 1")
    };
    let error = LocalCluster::new(settings).unwrap_err().to_string();
    assert!(
        error.contains("OpenClaw is not at /nowhere/openclaw; run scripts/bootstrap"),
        "{error}"
    );
}
