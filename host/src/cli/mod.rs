//! The command line: the roles that the program plays, and the API's operations for people.

/// What the command line says in words holds names, reasons and errors that strangers wrote. So that none of them is
/// forgotten, in this module and all below it these stand before the standard library's, and write what may be shown.
macro_rules! println {
    () => { std::println!() };
    ($($said:tt)*) => { std::println!("{}", $crate::cli::commands::printable(&format!($($said)*))) };
}
macro_rules! eprintln {
    () => { std::eprintln!() };
    ($($said:tt)*) => { std::eprintln!("{}", $crate::cli::commands::printable(&format!($($said)*))) };
}
macro_rules! eprint {
    ($($said:tt)*) => { std::eprint!("{}", $crate::cli::commands::printable(&format!($($said)*))) };
}

mod api;
mod approval;
mod ask;
mod commands;
mod demo;
pub mod dev;
mod doctor;
mod exit;
mod kit;
mod operator_key;
mod people;
mod plugin;
mod policy;
mod rules;
mod serve;
mod sign_in;
mod skill;

use crate::{
    app,
    config::{Config, environment},
};
use clap::{CommandFactory, Parser, Subcommand};
use std::{
    io::{ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

#[derive(Parser)]
#[command(
    name = "tsunami",
    version,
    about = "ServiceTsunami Skills Gateway: lets AI agents act on outside services under your company's rules.",
    after_help = exit::HELP
)]
struct Cli {
    /// The configuration file (TOML). Environment variables `TSUNAMI_SECTION__SETTING` override it.
    #[arg(long, global = true, env = "TSUNAMI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on this machine, with nothing to configure: for trying out and for development.
    Dev(dev::DevArgs),
    /// Bring everything up and show the main job: a message to Slack, with an approval.
    Demo(dev::DevArgs),
    /// Serve the API.
    Serve,
    /// Do the durable work: workflows, activities, the outbox.
    Worker,
    /// Bring the database's schema up to date (as its owner: setting database.owner_url).
    Migrate,
    /// Check each thing that the gateway depends on, and say what to do.
    Doctor,
    /// The configuration in force.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the API's description, OpenAPI 3.1.
    Openapi,
    /// Keys of the people who run the gateway.
    OperatorKey {
        #[command(subcommand)]
        command: operator_key::OperatorKeyCommand,
    },
    /// Print a script that completes commands in your shell.
    Completion { shell: clap_complete::Shell },
    /// Compile one plugin from standard input to standard output. The gateway starts this by itself.
    #[command(name = app::COMPILE_COMMAND, hide = true)]
    CompilePlugin { limits: Vec<String> },
    #[command(flatten)]
    Api(commands::ApiCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every setting, with secrets masked.
    Show,
}

/// Guests may use [`tsunami_plugin_host::STACK_BYTES_MAX`] of the stack of the thread that asks them, whatever it is
/// in the middle of.
const THREAD_STACK_BYTES: usize = 4 << 20;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::CompilePlugin { limits } = cli.command {
        // Before anything else is there: it is one thread that holds nothing.
        return tsunami_plugin_host::compile_worker(limits.into_iter());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return exit::told(&error.into()),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::told(&error),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let load = || Config::load(cli.config.as_deref(), environment()?);
    // One TLS provider for everything; a second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        Command::Dev(args) => dev::dev(&args, cli.config.as_deref()).await,
        Command::Demo(args) => demo::demo(args, cli.config.as_deref()).await,
        Command::Serve => serve::serve(load()?).await,
        Command::Worker => serve::worker(load()?).await,
        Command::Migrate => serve::migrate(&load()?).await,
        Command::Doctor => doctor::doctor(load()?).await,
        Command::Config {
            command: ConfigCommand::Show,
        } => answer(load()?.show().as_bytes()),
        Command::Openapi => answer((crate::routes::openapi().to_pretty_json()? + "\n").as_bytes()),
        Command::CompilePlugin { .. } => unreachable!("`main` has carried it out"),
        Command::OperatorKey { command } => operator_key::operator_key(load()?, command).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tsunami", &mut script);
            answer(&script)
        }
        Command::Api(command) => commands::run(command).await,
    }
}

/// Writes what a command answers. Who reads it may stop, as `head` does.
fn answer(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands without commands of their own, by their names from `command` on.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, bool)>) {
        let path = format!("{path} {}", command.get_name());
        if !command.has_subcommands() {
            let takes_json = command.get_arguments().any(|arg| arg.get_id() == "json");
            found.push((path, takes_json));
            return;
        }
        for below in command.get_subcommands() {
            leaves(below, &path, found);
        }
    }

    #[test]
    fn every_operation_of_the_api_can_be_asked_to_answer_in_json() {
        let cli = Cli::command();
        let mut found = Vec::new();
        // `plugin dev` goes on until it is interrupted.
        for slice in [
            "tenant", "agent", "task", "instance", "cred", "plugin", "policy", "skill", "approval",
            "user", "key",
        ] {
            let command = cli.find_subcommand(slice).expect("the command");
            leaves(command, "tsunami", &mut found);
        }
        found.retain(|(name, _)| name != "tsunami plugin dev");
        assert!(found.len() > 25, "{found:?}");
        let without: Vec<_> = found.iter().filter(|(_, takes_json)| !takes_json).collect();
        assert!(without.is_empty(), "{without:?}");
    }
}
