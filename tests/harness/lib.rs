//! What the black-box tests share: a gateway of their own, a company that uses it, and a recorder that stands
//! where an outside service would.
//!
//! Everything else is real: `tsunami dev` with PostgreSQL, Temporal, wasmtime and OpenClaw. The tests see only
//! what a user sees: the API, the files, and, where a claim is about them, the tables.

pub mod api;
pub mod chameleon;
pub mod company;
pub mod gateway;
pub mod host;
pub mod ports;
pub mod processes;
pub mod provider;
pub mod publisher;
pub mod recorder;
pub mod stage;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long anything may take that the tests wait for: a machine with two busy cores is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at whether something has come about.
pub const LOOK: Duration = Duration::from_millis(10);

/// The project's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the tests lie in the project's folder")
}

/// Where `scripts/bootstrap` put its programs.
pub fn tools() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    std::env::var_os("TSUNAMI_TOOLS_DIR").map_or_else(|| repository().join(".tools"), PathBuf::from)
}

/// A plugin as `scripts/plugins` built it.
pub fn component(name: &str) -> Vec<u8> {
    let path = repository().join(format!("plugins/target/wasm32-wasip2/release/{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build it with scripts/plugins", path.display())
    })
}

/// Looks until `found` gives something; fails, with what it was waiting for, when patience is over.
pub async fn eventually<T, F>(what: &str, mut found: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: not within {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(LOOK).await;
    }
}
