//! What the host does with its database, on a real PostgreSQL: without Temporal, and without OpenClaw.
//!
//! One server for all stories, with a database for each. `cargo test -p tsunami --test database -- traces` runs some.

mod connections;
mod ground;
mod instances;
mod live;
mod oauth;
mod persons;
mod traces;
mod turns;

use ground::{Ground, Server};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{panic::AssertUnwindSafe, process::ExitCode, sync::Arc};

type Stories = Vec<Trial>;

/// A story with a database of its own.
fn story<F>(
    stories: &mut Stories,
    server: &Arc<Server>,
    name: &str,
    tell: impl FnOnce(Ground) -> F + Send + 'static,
) where
    F: Future<Output = ()>,
{
    let server = server.clone();
    let told = move || {
        server
            .runtime
            .block_on(async { tell(server.ground().await).await })
    };
    stories.push(Trial::test(name, move || {
        std::panic::catch_unwind(AssertUnwindSafe(told)).map_err(why)
    }));
}

fn why(panic: Box<dyn std::any::Any + Send>) -> Failed {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned()).into()
}

fn main() -> ExitCode {
    // The host compiles plugins in a process of its own, which is this program once more.
    let mut named = std::env::args().skip(1);
    if named.next().as_deref() == Some(tsunami::app::COMPILE_COMMAND) {
        return tsunami_plugin_host::compile_worker(named);
    }
    let arguments = Arguments::from_args();
    let server = Arc::new(Server::new());
    let mut stories = Vec::new();
    for of in [
        connections::stories,
        instances::stories,
        live::stories,
        oauth::stories,
        persons::stories,
        traces::stories,
        turns::stories,
    ] {
        of(&mut stories, &server);
    }
    let conclusion = libtest_mimic::run(&arguments, stories);
    server.stop();
    conclusion.exit_code()
}
