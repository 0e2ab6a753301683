#![doc = include_str!("../README.md")]

mod postgres;
mod temporal;

pub use postgres::{Postgres, PostgresSettings, Role};
pub use temporal::{Temporal, TemporalSettings};

use std::path::{Path, PathBuf};
use tsunami_process::last_lines;

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("{program} is not there; run scripts/bootstrap, or name the folder with its programs by {setting}")]
    Missing { program: PathBuf, setting: &'static str },
    #[error(transparent)]
    Process(#[from] tsunami_process::ProcessError),
    #[error("{what}: {cause}")]
    Io { what: String, cause: std::io::Error },
    #[error("{server} did not come up: {why}. The end of {}:\n{}", .log.display(), .lines.join("\n"))]
    NotUp { server: &'static str, why: String, log: PathBuf, lines: Vec<String> },
    #[error("PostgreSQL refused to be set up: {0}")]
    Sql(#[from] sqlx::Error),
}

/// Lines of a log that an error repeats.
const LOG_LINES_SHOWN: usize = 12;

fn not_up(server: &'static str, why: impl Into<String>, log: &Path) -> EmbeddedError {
    EmbeddedError::NotUp { server, why: why.into(), log: log.to_owned(), lines: last_lines(log, LOG_LINES_SHOWN) }
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> EmbeddedError {
    let what = what.into();
    move |cause| EmbeddedError::Io { what, cause }
}

fn must_exist(program: PathBuf, setting: &'static str) -> Result<PathBuf, EmbeddedError> {
    if program.exists() { Ok(program) } else { Err(EmbeddedError::Missing { program, setting }) }
}
