//! `tsunami plugin`: what is installed, what is published, and what is done about a bad one. A file a reader.

mod cards;
mod install;
mod lock;
mod publish;
mod release;

mod review;

pub use release::{is_digest, release_to_use};

use super::{api::Api, commands::Output, kit};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum PluginCommand {
    #[command(flatten)]
    Local(Local),
    /// Build, check and install a plugin with each change of its sources, and call it.
    Dev(kit::Dev),
    #[command(flatten)]
    Installing(install::Installing),
    #[command(flatten)]
    Publishing(publish::Publishing),
    #[command(flatten)]
    Reviewing(review::Reviewing),
}

/// What needs no gateway.
#[derive(Subcommand)]
pub enum Local {
    /// Begin a plugin: a project that builds, passes its tests and conforms.
    New(kit::New),
    /// Check whether a component keeps the contract, and what to mend.
    Check(kit::Check),
    /// Play a plugin's recorded calls, and show what goes otherwise.
    Test(kit::Test),
    /// Make a key to sign releases with; prints the public half.
    Keygen {
        /// Where to write it. Nobody else may read the file.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

pub async fn run(command: PluginCommand) -> anyhow::Result<()> {
    let api = Api::from_environment;
    match command {
        PluginCommand::Local(command) => local(&command),
        PluginCommand::Dev(dev) => kit::dev(&dev, &api()?).await,
        PluginCommand::Installing(command) => install::run(command, &api()?).await,
        PluginCommand::Publishing(command) => publish::run(command, &api()?).await,
        PluginCommand::Reviewing(command) => review::run(command, &api()?).await,
    }
}

fn local(command: &Local) -> anyhow::Result<()> {
    match command {
        Local::New(new) => kit::new(new),
        Local::Check(check) => kit::check_file(check),
        Local::Test(test) => kit::test(test),
        Local::Keygen { file, output } => publish::keygen(file, output),
    }
}
