//! The whole gateway in this process, as `tsunami dev` starts it, with one company that can act: so that the bare
//! parts can be asked over the gateway's own connections.

use crate::interruptible;
use anyhow::Context;
use serde_json::json;
use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;
use tsunami::{
    app::App,
    cli::dev::{DevArgs, Stack},
    id::TenantId,
};
use tsunami_tests::{api::Api, company::Company, ports, recorder::Recorder, repository};

/// Looks like a bot token.
pub const TOKEN: &str = "xoxb-314159265358-979323846264-benchBENCHbenchBENCHbenc";
pub const SKILL: &str = "slack";
pub const ACTION: &str = "send_message";
pub const CHANNEL: &str = "#finance";
pub const MESSAGE: &str = "Q4 summary: revenue up 12 %, costs flat.";
/// So many that a measurement does not reach it; each call counts its uses within the window.
const RATE_MAX: u32 = 10_000;
const RATE_SECONDS: u32 = 1;

#[derive(Clone)]
pub struct Site {
    pub app: App,
    pub tenant: TenantId,
    pub company: Company,
    pub recorder: Recorder,
}

/// Starts it, has `work` done on it, and stops it, whatever came of the work.
pub async fn with<T, F>(work: impl FnOnce(Site) -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let folder = folder()?;
    let args = DevArgs {
        data_dir: folder.path().join("data"),
        tools_dir: repository().join(".tools"),
        listen: "127.0.0.1:0".to_owned(),
        private_hosts: ports::private_hosts().to_vec(),
    };
    eprintln!("bench: starting PostgreSQL, Temporal, the gateway and an OpenClaw instance");
    let interrupted = async {
        // Where it cannot be listened for, nobody stops it.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let stack = Stack::start(&args, None, true, interrupted).await?;
    let (app, url, key) = (stack.app.clone(), stack.url(), stack.operator_key.clone());
    // In a task: a panic in it must not leave the servers running.
    let done = tokio::spawn(async move { work(Site::prepare(app, &url, &key).await?).await });
    let done = interruptible(async { done.await.context("it broke off")? }).await;
    eprintln!("bench: stopping");
    stack.stop().await;
    done
}

/// On the disk that holds the project: another one, or one in memory, would be another speed.
pub fn folder() -> anyhow::Result<TempDir> {
    let target = repository().join("target");
    std::fs::create_dir_all(&target)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-data-")
        .permissions(Permissions::from_mode(0o711))
        .tempdir_in(&target);
    folder.with_context(|| format!("cannot make a folder in {}", Path::display(&target)))
}

impl Site {
    async fn prepare(app: App, url: &str, operator_key: &str) -> anyhow::Result<Self> {
        let operator = Api::new(url, operator_key);
        let recorder = Recorder::start().await;
        let mut company = Company::found_by(&operator, "bench").await;
        company.equip(&recorder.url, TOKEN).await;
        let limit =
            json!({ "rate_limit": { "max_actions": RATE_MAX, "per_seconds": RATE_SECONDS } });
        company.configure(SKILL, &limit).await;
        company.deploy().await;
        Ok(Self {
            app,
            tenant: TenantId(company.id.parse()?),
            company,
            recorder,
        })
    }
}
