//! Measures the gateway beside the bare parts it stands on, in one run on one machine: `make bench`.
//!
//! - `bridge`: one outside call straight over the tenant's gateway connection, through the skill router, and over the
//!   API;
//! - `tasks`: a task of one skill call, and a bare Temporal workflow with as many activities on the same server;
//! - `memory`: what `tsunami dev` itself takes, idle and with many tenants;
//! - `revoke`: how long a plugin that an operator revokes is still called, on two hosts.
//!
//! What is compared takes turns in rounds, so that a noise of the machine hits both; differences and ratios are those
//! within a round, and the table shows their median. Nothing is asserted of a time. What is asserted is that each
//! call arrived once and each task completed: a figure of work that was not done would be none.

mod bridge;
mod measure;
mod memory;
mod report;
mod revoke;
mod site;
mod tasks;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use report::Report;
use site::Site;
use std::{path::PathBuf, process::ExitCode};
use tsunami::app::COMPILE_COMMAND;

#[derive(Parser)]
#[command(
    name = "bench",
    about = "Measures the gateway beside the bare parts it stands on."
)]
struct Args {
    /// Fewer calls, tasks and tenants: for a look. The figures are coarse.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "bridge,tasks,memory,revoke"
    )]
    only: Vec<Part>,
    /// Where the figures go, as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Bridge,
    Tasks,
    Memory,
    Revoke,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Size {
    pub rounds: usize,
    /// Calls of one way in one round: one after the other, and many in flight.
    pub calls: [usize; 2],
    /// The same for tasks and workflows.
    pub tasks: [usize; 2],
    pub tenants: usize,
}

const FULL: Size = Size {
    rounds: 10,
    calls: [150, 640],
    tasks: [20, 96],
    tenants: 1000,
};
const QUICK: Size = Size {
    rounds: 3,
    calls: [50, 320],
    tasks: [5, 32],
    tenants: 100,
};

fn main() -> ExitCode {
    // The host compiles plugins in processes of its own program, which is this one here.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(COMPILE_COMMAND) {
        return tsunami_plugin_host::compile_worker(arguments);
    }
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(interruptible(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let size = if args.quick { QUICK } else { FULL };
    let mut report = Report::new(args.quick)?;
    let wanted = |part| args.only.contains(&part);
    if wanted(Part::Memory) {
        report.memory = Some(memory::measure(&size).await?);
    }
    if wanted(Part::Revoke) {
        report.revoke = Some(revoke::measure(&size).await?);
    }
    if wanted(Part::Bridge) || wanted(Part::Tasks) {
        let (bridge, tasks) = (wanted(Part::Bridge), wanted(Part::Tasks));
        let measured = site::with(move |site| measure_on(site, size, bridge, tasks)).await?;
        (report.bridge, report.tasks) = measured;
    }
    print!("{report}");
    let json = serde_json::to_vec_pretty(&report)?;
    std::fs::write(&args.json, json).with_context(|| {
        format!(
            "cannot write {}; choose another place with --json",
            args.json.display()
        )
    })?;
    println!("\nThe same as JSON: {}", args.json.display());
    Ok(())
}

async fn measure_on(
    site: Site,
    size: Size,
    bridge: bool,
    tasks: bool,
) -> anyhow::Result<(Option<bridge::Figures>, Option<tasks::Figures>)> {
    let mut figures = (None, None);
    if bridge {
        figures.0 = Some(bridge::measure(&site, &size).await?);
    }
    if tasks {
        figures.1 = Some(tasks::measure(&site, &size).await?);
    }
    Ok(figures)
}

/// Until it is done or Ctrl-C is pressed; what it holds is dropped, and so stopped.
pub async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            anyhow::bail!("interrupted")
        }
    }
}
