//! Sees to it that what should run does: a round over all instances, every so often.

use super::{activities::health_of, spec_of, store, store::InstanceRow};
use crate::{
    app::App,
    id::{InstanceId, TenantId},
    problem::Problem,
};
use futures::{StreamExt, stream};
use std::time::Duration;
use tsunami_cluster::{ClusterError, Phase};

/// Instances that are brought back at once: a start takes a processor for 10 s or more.
const STARTS_AT_ONCE_MAX: usize = 4;
/// How long one that is being started holds its place among those. It goes on after that.
const START_TURN: Duration = Duration::from_secs(30);
/// Instances whose health is looked at at once.
const LOOKS_AT_ONCE_MAX: usize = 16;

/// A round every `instances.health_interval_seconds`, for ever. The first one brings back what ran before the process
/// was ended.
pub async fn keep(app: App) {
    let every = Duration::from_secs(app.config().instances.health_interval_seconds.into());
    loop {
        if let Err(problem) = round(&app).await {
            tracing::warn!(%problem, "instances: no round was made");
        }
        tokio::time::sleep(every).await;
    }
}

/// Brings back what should run and does not, and looks how all are. One that fails keeps no other one down.
pub async fn round(app: &App) -> Result<(), Problem> {
    let all = store::all_to_run(&mut app.db().system().await?).await?;
    stream::iter(&all)
        .for_each_concurrent(STARTS_AT_ONCE_MAX, |(tenant, id)| async move {
            if let Err(problem) = bring_back(app, *tenant, *id).await {
                tracing::warn!(instance = %id, %problem, "instance was not brought back");
            }
        })
        .await;
    stream::iter(&all)
        .for_each_concurrent(LOOKS_AT_ONCE_MAX, |(tenant, id)| async move {
            if let Err(problem) = look_at(app, *tenant, *id).await {
                tracing::warn!(instance = %id, %problem, "instance was not looked at");
            }
        })
        .await;
    Ok(())
}

fn should_run(row: &InstanceRow) -> bool {
    let lost = row.status == "error" && row.lost_since.is_some();
    row.desired == "running" && (row.status == "running" || lost)
}

/// Starts or takes over the instance's gateway, unless it is kept by this process already.
async fn bring_back(app: &App, tenant: TenantId, id: InstanceId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::get(&mut tx, id).await?.filter(should_run) else {
        return Ok(()); // Somebody asked for something else meanwhile.
    };
    let spec = spec_of(app, &mut tx, &row).await;
    tx.commit().await?;
    let installed = match spec {
        Ok(spec) => install(app, &spec).await.map_err(|e| e.to_string()),
        Err(problem) if problem.is_unavailable() => return Err(problem),
        Err(problem) => Err(format!("its secrets do not open: {}", problem.detail())),
    };
    match installed {
        Ok(url) => note_back(app, tenant, id, &url).await,
        Err(why) => note_lost(app, tenant, id, &why).await,
    }
}

async fn install(app: &App, spec: &tsunami_cluster::InstanceSpec) -> Result<String, ClusterError> {
    let cluster = app.cluster();
    let phase = cluster.status(&spec.name).await.phase;
    let url = cluster.install(spec).await?;
    if matches!(phase, Phase::Stopped | Phase::Gone) {
        match cluster.wait_ready(&spec.name, START_TURN).await {
            // Its keeper goes on, and its health says how it is.
            Ok(()) | Err(ClusterError::Temporary(_)) => {}
            Err(refused) => return Err(refused),
        }
    }
    Ok(url)
}

async fn note_back(app: &App, tenant: TenantId, id: InstanceId, url: &str) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::get_for_update(&mut tx, id).await? else {
        return Ok(());
    };
    if should_run(&row) {
        if row.internal_url.as_deref() != Some(url) {
            store::set_url(&mut tx, id, url).await?;
        }
        if row.status != "running" {
            store::set_status(&mut tx, id, "running", None).await?;
            tracing::info!(instance = row.name, "instance is back");
        }
        tx.commit().await?;
        return Ok(());
    }
    tx.commit().await?;
    // It was ended while we brought it back. What is still on its way is left to its workflow.
    let ended = match row.status.as_str() {
        "stopped" => app.cluster().stop(&row.name).await,
        "destroyed" => app.cluster().destroy(&row.name).await,
        _ => Ok(()),
    };
    ended.map_err(|e| Problem::internal(&e))
}

async fn note_lost(app: &App, tenant: TenantId, id: InstanceId, why: &str) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::get_for_update(&mut tx, id).await?.filter(should_run) else {
        return Ok(());
    };
    tracing::error!(instance = row.name, why, "instance does not come back");
    let error = format!("It does not come back, and is tried again by itself: {why}");
    store::set_lost(&mut tx, id, &error).await?;
    tx.commit().await?;
    Ok(())
}

async fn look_at(app: &App, tenant: TenantId, id: InstanceId) -> Result<(), Problem> {
    let health = health_of(app, tenant).await;
    let mut tx = app.db().tenant(tenant).await?;
    store::set_health(&mut tx, id, &health).await?;
    tx.commit().await?;
    Ok(())
}
