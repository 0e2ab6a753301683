//! Questions to whoever runs a command.

use std::io::Write;

/// Asks a question that is answered by y or n; anything else is no.
pub fn asked(question: &str) -> anyhow::Result<bool> {
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
