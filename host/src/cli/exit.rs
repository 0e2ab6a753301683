//! What the program ends with: scripts branch on it.

use std::process::ExitCode;

/// As `tsunami --help` has it. A wrong command line ends with clap's own 2.
pub const HELP: &str = "Exit codes:
  0  done
  1  it failed, or was refused
  2  the command line is wrong
  3  it waits for a person, who has to approve or to look
  4  it goes on by itself
  5  nobody knows whether the service acted; a person has to look";

/// Why a command has not done what was asked for, though nothing failed. Its text says what to type next.
#[derive(Debug, thiserror::Error)]
pub enum Unended {
    #[error("{0}")]
    WaitsForPerson(String),
    #[error("{0}")]
    GoesOn(String),
    #[error("{0}")]
    OutcomeUnknown(String),
}

impl Unended {
    fn code(&self) -> u8 {
        match self {
            Self::WaitsForPerson(_) => 3,
            Self::GoesOn(_) => 4,
            Self::OutcomeUnknown(_) => 5,
        }
    }
}

/// Tells on standard error why a command did not do what was asked for.
pub fn told(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Unended>() {
        Some(unended) => {
            eprintln!("{unended}");
            ExitCode::from(unended.code())
        }
        None => {
            eprintln!("tsunami: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help_and_in_the_readme() {
        let readme = include_str!("../../../README.md");
        for line in HELP.lines().skip(1) {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            assert!(
                readme.contains(&format!("| {code} | {meaning} |")),
                "{line}"
            );
        }
        let all = [
            Unended::WaitsForPerson(String::new()),
            Unended::GoesOn(String::new()),
            Unended::OutcomeUnknown(String::new()),
        ];
        for unended in all {
            let line = format!("\n  {}  ", unended.code());
            assert!(HELP.contains(&line), "{line}");
        }
    }
}
