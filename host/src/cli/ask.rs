//! Questions to whoever runs a command.

use anyhow::{Context, ensure};
use clap::Args;
use std::io::{IsTerminal, Read, Write};

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

/// Reads a secret: on a terminal one line that is not shown, otherwise all of standard input.
pub fn secret(what: &str) -> anyhow::Result<String> {
    let mut input = std::io::stdin();
    let secret = if input.is_terminal() {
        eprint!("{what} (not shown): ");
        std::io::stderr().flush()?;
        let line = console::Term::stderr()
            .read_secure_line()
            .with_context(|| format!("cannot read the {what}"))?;
        eprintln!();
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
