//! The main job, and what must hold of it, on real parts.
//!
//! One gateway with two companies serves all stories that leave it whole; those that kill something have one of their
//! own. `cargo test -p tsunami-tests --test spine -- killed` runs some; `--list` names all.

mod approvals;
mod bad_input;
mod command_line;
mod crowd;
mod exfiltration;
mod hostile;
mod instance_killed;
mod isolation;
mod killed;
mod kit;
mod main_job;
mod marketplace;
mod oauth;
mod once;
mod outages;
mod policies;
mod secrets;
mod servers;
mod spellings;
mod start;
mod terminated;

use libtest_mimic::{Arguments, Failed, Trial};
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::{
    runtime::Runtime,
    sync::{Mutex, OnceCell},
};
use tsunami_tests::{company::Company, gateway::Gateway, recorder::Recorder};

/// Looks like a bot token, and is searched for wherever a credential must not be.
pub const CANARY: &str = "xoxb-271828182845-904523536028-CANARYsecretCANARYsecret";

/// What most stories are told on.
pub struct World {
    pub gateway: Gateway,
    pub slack: Recorder,
    pub acme: Company,
}

impl World {
    async fn make() -> Self {
        let gateway = Gateway::start().await;
        let slack = Recorder::start().await;
        let acme = Company::ready(&gateway, "acme", &slack, CANARY).await;
        Self {
            gateway,
            slack,
            acme,
        }
    }
}

struct Theatre {
    runtime: Runtime,
    world: OnceCell<Arc<World>>,
    /// Stories on the shared world change its settings, so they are told one after the other.
    turn: Mutex<()>,
}

type Stories = Vec<Trial>;

/// A story that needs the shared world, and leaves it whole.
fn shared<F>(
    stories: &mut Stories,
    theatre: &Arc<Theatre>,
    name: &str,
    story: impl FnOnce(Arc<World>) -> F + Send + 'static,
) where
    F: Future<Output = ()>,
{
    let theatre = theatre.clone();
    stories.push(Trial::test(name, move || {
        told(|| {
            theatre.runtime.block_on(async {
                let _turn = theatre.turn.lock().await;
                let made = theatre
                    .world
                    .get_or_init(|| async { Arc::new(World::make().await) });
                story(made.await.clone()).await;
            });
        })
    }));
}

/// A story with a gateway of its own, or none.
fn own<F>(
    stories: &mut Stories,
    theatre: &Arc<Theatre>,
    name: &str,
    story: impl FnOnce() -> F + Send + 'static,
) where
    F: Future<Output = ()>,
{
    let theatre = theatre.clone();
    stories.push(Trial::test(name, move || {
        told(|| theatre.runtime.block_on(story()))
    }));
}

fn told(story: impl FnOnce()) -> Result<(), Failed> {
    std::panic::catch_unwind(AssertUnwindSafe(story)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "it panicked".to_owned()).into()
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    let threads = std::env::var("RUST_TEST_THREADS");
    arguments.test_threads = arguments
        .test_threads
        .or_else(|| threads.ok()?.parse().ok());
    let theatre = Arc::new(Theatre {
        runtime: Runtime::new().expect("a runtime"),
        world: OnceCell::new(),
        turn: Mutex::new(()),
    });
    let mut stories = Vec::new();
    for of in [
        main_job::stories,
        isolation::stories,
        hostile::stories,
        exfiltration::stories,
        approvals::stories,
        once::stories,
        policies::stories,
        kit::stories,
        bad_input::stories,
        command_line::stories,
        marketplace::stories,
        oauth::stories,
        // After the others: what they left behind is searched too.
        secrets::stories,
        servers::stories,
        terminated::stories,
        crowd::stories,
        killed::stories,
        instance_killed::stories,
        outages::stories,
        start::stories,
    ] {
        of(&mut stories, &theatre);
    }
    let conclusion = libtest_mimic::run(&arguments, stories);
    // `exit` drops nothing: the gateway is stopped first.
    drop(theatre);
    conclusion.exit();
}
