//! `tsunami plugin check`: whether a component keeps the contract, and what to mend.

use super::project::Project;
use crate::{
    app::COMPILE_COMMAND,
    cli::commands::{Output, show},
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tsunami_plugin_check::{Golden, Report, check};
use tsunami_plugin_host::{Compiler, Limits, LoadError, Plugin, PluginHost, TenantKey};

/// Of one call under the check: more than a gateway gives, for a developer's machine may be busy.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Of one compilation, by the clock on the wall, for the same reason.
const COMPILE_PATIENCE: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub struct Check {
    /// The component: a `.wasm` file.
    pub file: PathBuf,
    /// A folder of recorded exchanges; `golden` in the project that it was built in, where there is one.
    #[arg(long)]
    pub golden: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// Says whether a component keeps the contract; fails where it does not.
pub fn check_file(args: &Check) -> anyhow::Result<()> {
    let golden = args.golden.clone().or_else(|| beside(&args.file));
    let report = examine(&args.file, golden.as_deref())?;
    let value = serde_json::to_value(&report)?;
    show(&args.output, &value, |_| report.to_string())?;
    if !report.conforms {
        bail!("{} does not conform", args.file.display());
    }
    Ok(())
}

pub fn examine(file: &Path, golden: Option<&Path>) -> anyhow::Result<Report> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let golden = match golden {
        Some(folder) => recorded(folder)?,
        None => Vec::new(),
    };
    apart(move || Ok(check(load(&bytes)?, &bytes, &golden)))
}

/// A plugin is called on a thread of its own: what it prints must not wait on the async runtime.
pub fn apart<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let done = std::thread::spawn(work).join();
    done.map_err(|_| anyhow::anyhow!("calling the plugin came to grief"))?
}

/// Loads a component into the sandbox that a gateway has. Not on an async thread.
pub fn load(component: &[u8]) -> anyhow::Result<Result<Arc<Plugin>, LoadError>> {
    let mut limits = Limits::default();
    limits.small.call_timeout = CALL_TIMEOUT;
    limits.large.call_timeout = CALL_TIMEOUT;
    let compiler = Compiler::this_program([COMPILE_COMMAND])?.patient(COMPILE_PATIENCE);
    let host = PluginHost::new(limits, compiler, None)
        .map_err(|e| anyhow::anyhow!("the plugin sandbox cannot be set up: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(host.load(TenantKey(0), component.to_vec())))
}

/// `golden` in the project that the component was built in.
fn beside(component: &Path) -> Option<PathBuf> {
    let golden = Project::around(component)?.golden();
    golden.is_dir().then_some(golden)
}

pub fn recorded(folder: &Path) -> anyhow::Result<Vec<Golden>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    paths.iter().map(|path| read_golden(path)).collect()
}

fn read_golden(path: &Path) -> anyhow::Result<Golden> {
    let value: Value = serde_json::from_slice(&fs::read(path)?)
        .with_context(|| format!("{} is no JSON", path.display()))?;
    let golden: Golden = serde_json::from_value(value)
        .with_context(|| format!("{} is no recorded exchange", path.display()))?;
    let file = path.file_name().unwrap_or_default();
    Ok(Golden {
        file: file.to_string_lossy().into_owned(),
        ..golden
    })
}
