//! Questions to whoever runs a command.

use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write, stdin};

/// A terminal hands over no more of one line, and says nothing of what it leaves out.
const TERMINAL_LINE_BYTES_MAX: usize = 4095;

#[derive(Args)]
pub struct Yes {
    /// Do it without being asked.
    #[arg(long)]
    pub yes: bool,
}

impl Yes {
    /// Goes on only where somebody says so: of what cannot be taken back.
    ///
    /// # Errors
    /// Where they do not, or nobody is there to be asked.
    pub fn or_ask(&self, question: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        ensure!(
            std::io::stdin().is_terminal(),
            "{question} Nobody is here to be asked, and nothing was done: say so with --yes"
        );
        ensure!(asked(question)?, "nothing was done");
        Ok(())
    }
}

/// Asks a question that is answered by y or n; anything else is no.
pub fn asked(question: &str) -> anyhow::Result<bool> {
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Keeps the terminal from showing what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> nix::Result<Self> {
        let shown = tcgetattr(stdin())?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to show.
        let _ = tcsetattr(stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

/// Reads a secret: on a terminal one line that is not shown, otherwise all of standard input.
pub fn secret(what: &str) -> anyhow::Result<String> {
    let mut input = stdin();
    let secret = if input.is_terminal() {
        eprint!("{what} (not shown): ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        let hidden = Hidden::begin().context("the terminal cannot be kept from showing it")?;
        let read = input.read_line(&mut line);
        drop(hidden);
        eprintln!();
        read.with_context(|| format!("cannot read the {what}"))?;
        ensure!(
            line.len() < TERMINAL_LINE_BYTES_MAX,
            "a terminal cuts lines at {TERMINAL_LINE_BYTES_MAX} bytes; write the {what} to standard input: < FILE"
        );
        line
    } else {
        let mut all = String::new();
        input
            .read_to_string(&mut all)
            .with_context(|| format!("the {what} on standard input is no text"))?;
        all
    };
    let secret = secret.trim();
    ensure!(!secret.is_empty(), "the {what} is empty");
    Ok(secret.to_owned())
}
