//! Against the real PostgreSQL.

mod common;

use common::{PATIENCE, kill_hard, signal, start_elsewhere, tools, until_another, until_gone};
use nix::{sys::signal::Signal, unistd::Uid};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};
use tsunami_embedded::{EmbeddedError, Kept, Postgres, PostgresSettings, Role};

const OWNER: Role = Role {
    name: "test_owner",
    create_role: true,
};
const APP: Role = Role {
    name: "test_app",
    create_role: false,
};

/// A folder that others may pass through, as most are.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn settings(dir: &Path) -> PostgresSettings {
    PostgresSettings {
        install_dir: tools().join("postgres"),
        dir: dir.join("pg"),
        ephemeral: true,
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn number(url: &str, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&mut connect(url).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_server_keeps_its_data_from_start_to_start() {
    let dir = folder();
    let durable = PostgresSettings {
        ephemeral: false,
        ..settings(dir.path())
    };
    let server = Postgres::start(&durable).await.unwrap();
    for _twice in 0..2 {
        server.create_database("test", &[OWNER, APP]).await.unwrap();
    }
    let mut owner = connect(&server.url("test", OWNER.name)).await;
    owner
        .execute(
            "create table notes as select 42::bigint as answer; grant select on notes to test_app",
        )
        .await
        .unwrap();
    let encoding: String = sqlx::query_scalar("show server_encoding")
        .fetch_one(&mut owner)
        .await
        .unwrap();
    let fsync: String = sqlx::query_scalar("show fsync")
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert_eq!((encoding.as_str(), fsync.as_str()), ("UTF8", "on"));
    let first = server.pid();
    server.stop().await;
    until_gone(first).await;

    let server = Postgres::start(&durable).await.unwrap();
    assert_ne!(server.pid(), first);
    assert_eq!(
        number(&server.url("test", APP.name), "select answer from notes").await,
        42
    );
    server.drop_database("test").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_server_whose_starter_was_killed_is_taken_over() {
    let dir = folder();
    let mut starter = start_elsewhere("postgres", &settings(dir.path()).dir, None);
    connect(&starter.address)
        .await
        .execute("create table kept as select 1::bigint as one")
        .await
        .unwrap();
    let refused = Postgres::start(&settings(dir.path()))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!("(process {})", starter.child.id())),
        "{refused}"
    );
    kill_hard(&mut starter);

    let server = Postgres::start(&settings(dir.path())).await.unwrap();
    assert_eq!(server.pid(), starter.server_pid);
    assert_eq!(number(&starter.address, "select one from kept").await, 1);
    server.stop().await;
    until_gone(starter.server_pid).await;
}

#[tokio::test]
async fn a_server_that_was_killed_with_its_starter_recovers() {
    let dir = folder();
    let mut starter = start_elsewhere("postgres", &settings(dir.path()).dir, None);
    connect(&starter.address)
        .await
        .execute("create table kept as select 1::bigint as one")
        .await
        .unwrap();
    kill_hard(&mut starter);
    signal(starter.server_pid, Signal::SIGKILL);
    until_gone(starter.server_pid).await;
    // Its lock names a process that somebody else may have by now: this one, here.
    let lock = settings(dir.path()).dir.join("data/postmaster.pid");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(
        &lock,
        text.replacen(
            &starter.server_pid.to_string(),
            &std::process::id().to_string(),
            1,
        ),
    )
    .unwrap();

    let server = Postgres::start(&settings(dir.path())).await.unwrap();
    assert_eq!(
        number(&server.url("postgres", "postgres"), "select one from kept").await,
        1
    );
    server.stop().await;
}

#[tokio::test]
async fn a_frozen_server_is_ended_and_started_anew() {
    let dir = folder();
    let mut starter = start_elsewhere("postgres", &settings(dir.path()).dir, None);
    kill_hard(&mut starter);
    // On its way out already: it answers nobody, and waits for a session that does not end.
    let lingering = connect(&starter.address).await;
    signal(starter.server_pid, Signal::SIGTERM);
    let server = Postgres::start(&settings(dir.path())).await.unwrap();
    assert_ne!(server.pid(), starter.server_pid);
    drop(lingering);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_we_did_not_start_is_left_alone() {
    let dir = folder();
    let mut starter = start_elsewhere("postgres", &settings(dir.path()).dir, None);
    kill_hard(&mut starter);
    fs::remove_file(settings(dir.path()).dir.join("pid")).unwrap();
    let error = Postgres::start(&settings(dir.path())).await.unwrap_err();
    assert!(
        matches!(error, EmbeddedError::Occupied { pid, .. } if pid == starter.server_pid),
        "{error}"
    );
    number(&starter.address, "select 1::bigint").await;
    signal(starter.server_pid, Signal::SIGINT);
    until_gone(starter.server_pid).await;
}

#[tokio::test]
async fn a_data_folder_that_was_not_finished_is_made_anew() {
    let dir = folder();
    let home = settings(dir.path()).dir;
    fs::create_dir_all(home.join("data.new")).unwrap();
    fs::write(home.join("data.new/PG_VERSION"), "18\n").unwrap();
    let server = Postgres::start(&settings(dir.path())).await.unwrap();
    assert!(!home.join("data.new").exists());
    server.stop().await;
}

#[tokio::test]
async fn a_long_and_odd_path_is_no_obstacle() {
    let dir = folder();
    let deep = dir
        .path()
        .join("with space & 50%".repeat(4))
        .join("d".repeat(60));
    let server = Postgres::start(&settings(&deep)).await.unwrap();
    assert!(
        server.socket_dir().starts_with("/tmp") && !server.socket_dir().starts_with(dir.path())
    );
    assert_eq!(
        number(&server.url("postgres", "postgres"), "select 1::bigint").await,
        1
    );
    let sockets = server.socket_dir().to_owned();
    server.stop().await;
    fs::remove_dir_all(sockets).unwrap();
}

#[tokio::test]
async fn only_the_user_who_started_it_gets_in() {
    let dir = folder();
    let server = Postgres::start(&settings(dir.path())).await.unwrap();
    for private in [server.socket_dir(), server.data_dir()] {
        assert_eq!(
            fs::metadata(private).unwrap().mode() & 0o777,
            0o700,
            "{}",
            private.display()
        );
    }
    if Uid::effective().is_root() {
        assert_ne!(fs::metadata(server.data_dir()).unwrap().uid(), 0);
        // Even the user whom the server runs as, who reaches the socket, is nobody to it.
        let uid = fs::metadata(server.data_dir()).unwrap().uid();
        let psql = std::process::Command::new("setpriv")
            .args([&format!("--reuid={uid}"), "--clear-groups"])
            .arg(tools().join("postgres/bin/psql"))
            .arg(server.url("postgres", "postgres"))
            .args(["-c", "select 1"])
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&psql.stderr);
        assert!(
            complaint.contains("Peer authentication failed"),
            "{complaint}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn an_ordinary_user_runs_it_too() {
    if !Uid::effective().is_root() {
        return; // All the other tests show it.
    }
    const NOBODY: u32 = 65_534;
    let dir = folder();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut starter = start_elsewhere("postgres", &settings(dir.path()).dir, Some(NOBODY));
    assert_eq!(
        fs::metadata(format!("/proc/{}", starter.server_pid))
            .unwrap()
            .uid(),
        NOBODY
    );
    kill_hard(&mut starter);
    signal(starter.server_pid, Signal::SIGINT);
    until_gone(starter.server_pid).await;
}

/// Settings for a folder below the project's that only root can enter, and that folder.
fn out_of_reach() -> (tempfile::TempDir, PostgresSettings) {
    let private = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let install_dir = private.path().join("tools");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(tools().join("postgres").canonicalize().unwrap())
        .arg(&install_dir)
        .status()
        .unwrap();
    assert!(copied.success());
    let settings = PostgresSettings {
        install_dir,
        ..settings(private.path())
    };
    (private, settings)
}

/// As `make clean-tools` does, for tools of one's own.
fn clean(tools: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../scripts/bootstrap");
    let cleaned = std::process::Command::new(script)
        .arg("clean")
        .env("TSUNAMI_TOOLS_DIR", tools)
        .output()
        .unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    String::from_utf8_lossy(&cleaned.stderr).into_owned()
}

#[tokio::test]
async fn root_keeps_it_elsewhere_where_its_folder_is_out_of_reach() {
    if !Uid::effective().is_root() {
        return; // Whoever else starts it can reach it.
    }
    let (private, settings) = out_of_reach();
    let server = Postgres::start(&settings).await.unwrap();
    let data = server.data_dir().to_owned();
    let home = data.parent().unwrap();
    assert!(data.starts_with("/var/tmp"), "{}", data.display());
    let url = server.url("postgres", "postgres");
    connect(&url)
        .await
        .execute("create table kept as select 1::bigint as one")
        .await
        .unwrap();
    let first = server.pid();
    server.stop().await;
    let server = Postgres::start(&settings).await.unwrap();
    assert_ne!(server.pid(), first);
    assert_eq!(number(&url, "select one from kept").await, 1);

    // While its folder is there, so is the data; also with the server of a run that was killed.
    let second = server.pid();
    drop(server);
    assert!(clean(&private.path().join("none")).contains("keeps"));
    assert!(data.exists());

    // A folder with the same path is another one.
    fs::remove_dir_all(&settings.dir).unwrap();
    let server = Postgres::start(&settings).await.unwrap();
    until_gone(second).await;
    let begun_anew = "select count(*) from pg_class where relname = 'kept'";
    assert_eq!(number(&url, begun_anew).await, 0);
    server.stop().await;

    // And when the folder is gone for good, all of it goes.
    let programs = format!("{}-programs", home.display());
    assert!(Path::new(&programs).exists());
    fs::remove_dir_all(&settings.dir).unwrap();
    clean(&settings.install_dir);
    assert!(!home.exists() && !Path::new(&programs).exists());
}

#[tokio::test]
async fn a_server_that_is_kept_comes_back_with_its_data_until_it_is_stopped() {
    let dir = folder();
    let server = Postgres::start(&settings(dir.path())).await.unwrap();
    server.create_database("test", &[OWNER]).await.unwrap();
    let (url, first) = (server.url("test", OWNER.name), server.pid());
    let made = "create table notes as select 42::bigint as answer";
    connect(&url).await.execute(made).await.unwrap();
    let pid_file = settings(dir.path()).dir.join("pid");
    let kept = Kept::keep(server);
    signal(first, Signal::SIGKILL);
    let second = until_another(&pid_file, first).await;
    until_answers(&url).await;
    assert_eq!(number(&url, "select answer from notes").await, 42);
    kept.stop().await;
    until_gone(second).await;
    assert!(!pid_file.exists());
}

async fn until_answers(url: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(error) = PgConnection::connect(url).await {
        assert!(std::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn missing_programs_are_named_with_what_to_do() {
    let dir = folder();
    let settings = PostgresSettings {
        install_dir: "/nowhere".into(),
        ..settings(dir.path())
    };
    let error = Postgres::start(&settings).await.unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/bin/postgres") && error.contains("scripts/bootstrap"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_come_up_shows_the_end_of_its_log() {
    let dir = folder();
    Postgres::start(&settings(dir.path()))
        .await
        .unwrap()
        .stop()
        .await;
    fs::write(
        settings(dir.path()).dir.join("data/postgresql.auto.conf"),
        "no_such_setting = 1\n",
    )
    .unwrap();
    let error = Postgres::start(&settings(dir.path()))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("postgres.log") && error.contains("no_such_setting"),
        "{error}"
    );
}
