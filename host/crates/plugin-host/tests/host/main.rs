//! The plugin host with real components and real compilations, each in a process of its own: this program again.
//! The plugins come from `scripts/plugins`.

mod artifacts;
mod bombs;
mod confinement;
mod fairness;
mod generated;
mod golden;
mod hostile;
mod image;
mod neutral;
mod sandbox;
mod stage;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(stage::COMPILE) => return tsunami_plugin_host::compile_worker(arguments),
        Some(generated::GENERATE) => return generated::generate(arguments),
        _ => {}
    }
    let trials = [
        artifacts::trials(),
        confinement::trials(),
        fairness::trials(),
        generated::trials(),
        golden::trials(),
        hostile::trials(),
        neutral::trials(),
        sandbox::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
