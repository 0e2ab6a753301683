//! Against the real Temporal development server.

mod common;

use common::{PATIENCE, kill_hard, signal, start_elsewhere, tools, until_another, until_gone};
use nix::sys::signal::Signal;
use std::{net::TcpListener, path::Path, process::Command};
use tsunami_embedded::{Kept, Temporal, TemporalSettings};

fn settings(dir: &Path) -> TemporalSettings {
    TemporalSettings {
        program: tools().join("temporal/bin/temporal"),
        dir: dir.join("temporal"),
    }
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// What the CLI says to `arguments`, asked of the server at `url`.
fn ask(dir: &Path, url: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(settings(dir).program);
    command
        .args(arguments)
        .args(["--address", url.trim_start_matches("http://")]);
    let answer = command.env_clear().env("HOME", dir).output().unwrap();
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    String::from_utf8_lossy(&answer.stdout).into_owned()
}

fn start_workflow(dir: &Path, url: &str) {
    ask(
        dir,
        url,
        &[
            "workflow",
            "start",
            "--type",
            "test",
            "--task-queue",
            "test",
            "--workflow-id",
            "kept",
        ],
    );
}

fn assert_workflow_is_there(dir: &Path, url: &str) {
    assert!(ask(dir, url, &["workflow", "describe", "--workflow-id", "kept"]).contains("kept"));
}

#[tokio::test]
async fn a_server_keeps_its_workflows_and_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    let url = server.url();
    start_workflow(dir.path(), &url);
    let first = server.process().pid();
    server.stop().await;
    until_gone(first).await;

    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    assert_eq!(server.url(), url);
    assert_workflow_is_there(dir.path(), &url);
    server.stop().await;

    let _other_program = TcpListener::bind(("127.0.0.1", port(&url))).unwrap();
    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    assert_ne!(server.url(), url);
    assert_workflow_is_there(dir.path(), &server.url());
    server.stop().await;
}

#[tokio::test]
async fn a_server_whose_starter_was_killed_is_taken_over_once_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut starter = start_elsewhere("temporal", &settings(dir.path()).dir, None);
    start_workflow(dir.path(), &starter.address);
    let refused = Temporal::start(&settings(dir.path()))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!("(process {})", starter.child.id())),
        "{refused}"
    );
    kill_hard(&mut starter);

    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    assert_eq!(
        (server.process().pid(), server.url()),
        (starter.server_pid, starter.address.clone())
    );
    drop(server); // And once more, when it was killed as well.
    signal(starter.server_pid, Signal::SIGKILL);
    until_gone(starter.server_pid).await;
    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    assert_ne!(server.process().pid(), starter.server_pid);
    assert_workflow_is_there(dir.path(), &server.url());
    server.stop().await;
}

#[tokio::test]
async fn a_frozen_server_is_ended_and_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut starter = start_elsewhere("temporal", &settings(dir.path()).dir, None);
    start_workflow(dir.path(), &starter.address);
    kill_hard(&mut starter);
    signal(starter.server_pid, Signal::SIGSTOP);
    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    assert_ne!(server.process().pid(), starter.server_pid);
    until_gone(starter.server_pid).await;
    assert_workflow_is_there(dir.path(), &server.url());
    server.stop().await;
}

#[tokio::test]
async fn a_missing_program_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let settings = TemporalSettings {
        program: "/nowhere/temporal".into(),
        ..settings(dir.path())
    };
    let error = Temporal::start(&settings).await.unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/temporal") && error.contains("TSUNAMI_TOOLS_DIR"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_come_up_shows_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    std::fs::create_dir_all(&settings.dir).unwrap();
    std::fs::write(
        settings.dir.join("temporal.db"),
        "not a database at all".repeat(100),
    )
    .unwrap();
    let error = Temporal::start(&settings).await.unwrap_err().to_string();
    assert!(
        error.contains("temporal.log") && error.contains("not a database"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_kept_comes_back_on_its_port_until_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Temporal::start(&settings(dir.path())).await.unwrap();
    let (url, first) = (server.url(), server.process().pid());
    start_workflow(dir.path(), &url);
    let pid_file = settings(dir.path()).dir.join("pid");
    let kept = Kept::keep(server);
    signal(first, Signal::SIGKILL);
    let second = until_another(&pid_file, first).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port(&url))).is_err() {
        assert!(std::time::Instant::now() < deadline, "it does not answer");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_workflow_is_there(dir.path(), &url);
    kept.stop().await;
    until_gone(second).await;
    assert!(!pid_file.exists());
}
