//! Against real processes.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tsunami_process::{Exit, FolderLock, Process, Signal, Spec, last_lines};

const PATIENCE: Duration = Duration::from_secs(20);

fn spec(dir: &Path, script: &str) -> Spec {
    Spec {
        name: "test".into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("ONLY".into(), "this".into())],
        dir: dir.to_owned(),
        log_file: dir.join("log"),
        pid_file: dir.join("pid"),
        run_as: None,
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The line that the script wrote, once it is there.
async fn first_line(dir: &Path) -> String {
    let log = dir.join("log");
    until("a first line", || !last_lines(&log, 1).is_empty()).await;
    last_lines(&log, 1).remove(0)
}

#[tokio::test]
async fn a_child_gets_only_the_environment_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&spec(dir.path(), "/usr/bin/env")).unwrap();
    assert_eq!(process.wait().await, Exit::Code(0));
    let names: Vec<String> = last_lines(&dir.path().join("log"), 100)
        .iter()
        .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()))
        .collect();
    assert_eq!(names, ["ONLY"]);
}

#[tokio::test]
async fn how_a_process_ended_is_known() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        Process::spawn(&spec(dir.path(), "exit 78"))
            .unwrap()
            .wait()
            .await,
        Exit::Code(78)
    );
    let killed = Process::spawn(&spec(dir.path(), "kill -9 $$"))
        .unwrap()
        .wait()
        .await;
    assert_eq!(killed.to_string(), "it was ended by SIGKILL");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec {
        program: "/nowhere/postgres".into(),
        ..spec(dir.path(), "")
    };
    let error = Process::spawn(&spec).unwrap_err().to_string();
    assert!(
        error.contains("cannot start test (/nowhere/postgres)"),
        "{error}"
    );
    assert!(!dir.path().join("pid").exists());
}

#[tokio::test]
async fn stopping_ends_the_whole_group_though_it_does_not_listen() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&spec(
        dir.path(),
        "trap '' TERM; /bin/sleep 600 & echo $!; wait; /bin/sleep 600",
    ))
    .unwrap();
    let helper: i32 = first_line(dir.path()).await.parse().unwrap();
    let exit = process
        .stop(Signal::SIGTERM, Duration::from_millis(100))
        .await;
    assert_eq!(exit, Exit::Signal(Signal::SIGKILL as i32));
    assert!(!process.is_running() && !dir.path().join("pid").exists());
    until("the helper's end", || !lives(helper)).await;
}

#[tokio::test]
async fn a_helper_does_not_outlive_a_process_that_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&spec(dir.path(), "/bin/sleep 600 & echo $!")).unwrap();
    process.wait().await;
    let helper: i32 = first_line(dir.path()).await.parse().unwrap();
    until("the helper's end", || !lives(helper)).await;
}

#[tokio::test]
async fn a_process_that_listens_is_not_killed() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&spec(
        dir.path(),
        "trap 'echo bye; exit 3' TERM; echo up; while :; do /bin/sleep 0.01; done",
    ))
    .unwrap();
    first_line(dir.path()).await;
    assert_eq!(process.stop(Signal::SIGTERM, PATIENCE).await, Exit::Code(3));
    assert_eq!(last_lines(&dir.path().join("log"), 1), ["bye"]);
}

#[tokio::test]
async fn stopping_an_old_handle_leaves_the_successor_its_pid_file() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::spawn(&spec(dir.path(), "exit 0")).unwrap();
    first.wait().await;
    let second = Process::spawn(&spec(dir.path(), "exec /bin/sleep 600")).unwrap();
    first.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(second.is_running());
    assert_eq!(Process::find(&dir.path().join("pid")), Some(second.pid()));
    second.stop(Signal::SIGTERM, PATIENCE).await;
}

#[tokio::test]
async fn a_process_is_found_again_after_its_starter_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut starter = Command::new(example("process_starter"))
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(starter.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    starter.kill().unwrap();
    starter.wait().unwrap();

    let adopted = Process::adopt(&dir.path().join("pid")).expect("it still runs");
    assert_eq!(adopted.pid().to_string(), line.trim());
    assert!(adopted.is_running());
    adopted.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(Process::adopt(&dir.path().join("pid")).is_none());
}

#[tokio::test]
async fn the_end_of_an_adopted_process_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::spawn(&spec(dir.path(), "exec /bin/sleep 600")).unwrap();
    let adopted = Process::adopt(&dir.path().join("pid")).expect("found again");
    first.stop(Signal::SIGTERM, PATIENCE).await;
    tokio::time::timeout(PATIENCE, adopted.wait())
        .await
        .expect("noticed");
}

#[tokio::test]
async fn a_pid_file_that_names_no_living_process_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let process = Process::spawn(&spec(dir.path(), "exec /bin/sleep 600")).unwrap();
    let good = std::fs::read_to_string(&pid_file).unwrap();
    let cut_short = &good[..good.len() / 2];
    let reused = good.replacen("\"start\":\"", "\"start\":\"1", 1);
    for stale in [cut_short, &reused, ""] {
        std::fs::write(&pid_file, stale).unwrap();
        assert!(Process::adopt(&pid_file).is_none(), "{stale}");
        assert!(!pid_file.exists());
    }
    assert!(process.is_running(), "nobody was signalled");
    process.stop(Signal::SIGTERM, PATIENCE).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_usage_of_a_process_counts_its_helpers() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&spec(
        dir.path(),
        "/bin/sleep 600 & /bin/sleep 600 & echo $!; wait",
    ))
    .unwrap();
    first_line(dir.path()).await;
    until("three processes", || {
        process.usage().is_some_and(|usage| usage.processes == 3)
    })
    .await;
    let usage = process.usage().unwrap();
    assert!(
        usage.memory_bytes > 100_000 && usage.up < PATIENCE,
        "{usage:?}"
    );
    process.stop(Signal::SIGTERM, PATIENCE).await;
    assert_eq!(process.usage(), None);
}

#[test]
fn a_folder_is_used_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = FolderLock::take(dir.path()).unwrap();
    let refused = FolderLock::take(dir.path()).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("(process {})", std::process::id())),
        "{refused}"
    );
    drop(first);
    FolderLock::take(dir.path()).unwrap();
}

#[tokio::test]
async fn logs_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    Process::spawn(&spec(dir.path(), "echo x"))
        .unwrap()
        .wait()
        .await;
    let mode = dir
        .path()
        .join("log")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Whether a process of this number runs, and is not only waiting to be buried.
fn lives(pid: i32) -> bool {
    let state = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&state.stdout);
    !state.trim().is_empty() && !state.starts_with('Z')
}

/// Cargo builds examples beside the tests, unless it is told to build one test alone.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --examples",
        path.display()
    );
    path
}
