//! The marketplace over its API, on a real PostgreSQL; nothing is called through an instance here
//! (`tests/spine/marketplace.rs` does that). Each story has a database of its own.

mod installing;
mod publishing;
mod requests;
mod revoking;
mod seeing;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use std::{panic::AssertUnwindSafe, process::ExitCode, sync::Arc};
use tokio::runtime::Runtime;
use tsunami::app::COMPILE_COMMAND;
use world::Server;

type Stories = Vec<Trial>;

/// What all stories stand on.
struct Stage {
    runtime: Runtime,
    server: Server,
}

fn story<F>(
    stories: &mut Stories,
    stage: &Arc<Stage>,
    name: &str,
    story: impl FnOnce(Arc<Stage>) -> F + Send + 'static,
) where
    F: Future<Output = ()>,
{
    let stage = stage.clone();
    stories.push(Trial::test(name, move || {
        let told = AssertUnwindSafe(|| stage.runtime.block_on(story(stage.clone())));
        std::panic::catch_unwind(told).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Failed::from(text.unwrap_or_else(|| "it panicked".to_owned()))
        })
    }));
}

fn main() -> ExitCode {
    // The host compiles plugins in processes of its own program, which is this one here.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(COMPILE_COMMAND) {
        return tsunami_plugin_host::compile_worker(arguments);
    }
    let arguments = Arguments::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start());
    let stage = Arc::new(Stage { runtime, server });
    let mut stories = Vec::new();
    for of in [
        publishing::stories,
        requests::stories,
        installing::stories,
        revoking::stories,
        seeing::stories,
    ] {
        of(&mut stories, &stage);
    }
    let conclusion = libtest_mimic::run(&arguments, stories);
    if let Some(stage) = Arc::into_inner(stage) {
        stage.runtime.block_on(stage.server.stop());
    }
    conclusion.exit_code()
}
