#![doc = include_str!("../README.md")]

mod kept;
mod place;
mod postgres;
mod temporal;

pub use kept::{Kept, Server};
pub use postgres::{Postgres, PostgresSettings, Role};
pub use temporal::{Temporal, TemporalSettings};

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tsunami_process::{Process, last_lines};

/// Lines of a log that an error repeats.
const LOG_LINES_SHOWN: usize = 12;
/// How long a server of our own may take until it answers: it may have to recover first.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server of an earlier run may take until it answers, before it is ended and started anew.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at whether a server answers.
const READY_POLL: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("{} is not there; run scripts/bootstrap, or name the folder with its programs by {setting}", program.display())]
    Missing {
        program: PathBuf,
        setting: &'static str,
    },
    #[error(transparent)]
    Process(#[from] tsunami_process::ProcessError),
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
    #[error("{server} did not come up: {why}. The end of {}:\n{}", .log.display(), .lines.join("\n"))]
    NotUp {
        server: &'static str,
        why: String,
        log: PathBuf,
        lines: Vec<String>,
    },
    #[error("PostgreSQL (process {pid}) runs on {} and was started by somebody else; end it: kill -INT {pid}", data.display())]
    Occupied { pid: i32, data: PathBuf },
    #[error("{} belongs to user {owner}; remove it, or choose another data folder", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("PostgreSQL refused to be set up: {0}")]
    Sql(#[from] sqlx::Error),
}

fn not_up(server: &'static str, why: impl Into<String>, log: &Path) -> EmbeddedError {
    EmbeddedError::NotUp {
        server,
        why: why.into(),
        log: log.to_owned(),
        lines: last_lines(log, LOG_LINES_SHOWN),
    }
}

fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedError {
    let what = what.into();
    move |cause| EmbeddedError::Io { what, cause }
}

fn must_exist(program: PathBuf, setting: &'static str) -> Result<PathBuf, EmbeddedError> {
    match program.canonicalize() {
        Ok(program) => Ok(program),
        Err(_) => Err(EmbeddedError::Missing { program, setting }),
    }
}

/// Waits until `answers` is `Ok`; its last error is in ours.
async fn until_ready<F>(
    server: &'static str,
    process: &Process,
    log: &Path,
    at_most: Duration,
    answers: impl Fn() -> F,
) -> Result<(), EmbeddedError>
where
    F: Future<Output = Result<(), String>>,
{
    let deadline = Instant::now() + at_most;
    loop {
        let why = match answers().await {
            Ok(()) if process.is_running() => return Ok(()),
            Ok(()) => "another program answers in its place".to_owned(),
            Err(why) => why,
        };
        if let Some(exit) = process.exit() {
            return Err(not_up(server, exit.to_string(), log));
        }
        if Instant::now() > deadline {
            let seconds = at_most.as_secs();
            return Err(not_up(
                server,
                format!("no answer within {seconds} s ({why})"),
                log,
            ));
        }
        tokio::time::sleep(READY_POLL).await;
    }
}
