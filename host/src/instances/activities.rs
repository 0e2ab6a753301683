//! The steps of an instance's life. Each may run again: it brings about a state.

use super::{
    spec_of, store,
    workflow::{Input, InstanceRef, Operation},
};
use crate::{
    app::App,
    db::TenantTx,
    id::TenantId,
    problem::{Problem, RETRY_AFTER_DEFAULT},
    worker::carry_out,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tsunami_cluster::{ClusterError, Phase};

/// How long the handshake with a gateway that says it is ready may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(60);
/// How long the bridge may take to say how it is.
const STATUS_WAIT: Duration = Duration::from_secs(10);

pub struct InstanceActivities {
    pub app: App,
}

#[activities]
impl InstanceActivities {
    #[activity(name = "instances.generate_values")]
    pub async fn generate_values(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, set_status(&self.app, &of, "provisioning")).await
    }

    #[activity(name = "instances.helm_install")]
    pub async fn helm_install(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, install(&self.app, &of)).await
    }

    #[activity(name = "instances.wait_ready")]
    pub async fn wait_ready(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, wait_until_ready(&self.app, &of)).await
    }

    #[activity(name = "instances.health_check")]
    pub async fn health_check(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, shake_hands(&self.app, &of)).await
    }

    #[activity(name = "instances.register")]
    pub async fn register(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, register_running(&self.app, &of)).await
    }

    #[activity(name = "instances.scale_down")]
    pub async fn scale_down(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, stop(&self.app, &of)).await
    }

    #[activity(name = "instances.helm_uninstall")]
    pub async fn helm_uninstall(
        self: Arc<Self>,
        ctx: ActivityContext,
        of: InstanceRef,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, destroy(&self.app, &of)).await
    }

    /// Undoes what a failed operation left behind, and says so in the row.
    #[activity(name = "instances.give_up")]
    pub async fn give_up(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Input,
    ) -> Result<(), ActivityError> {
        carry_out(&ctx, &self.app, note_failure(&self.app, &input)).await
    }
}

async fn find(tx: &mut TenantTx, of: &InstanceRef) -> Result<store::InstanceRow, Problem> {
    store::get(tx, of.instance)
        .await?
        .ok_or_else(|| Problem::not_found("instance"))
}

/// The row as it is now. What follows may take a minute, and must not hold a connection meanwhile.
async fn row_of(app: &App, of: &InstanceRef) -> Result<store::InstanceRow, Problem> {
    let mut tx = app.db().tenant(of.tenant).await?;
    let row = find(&mut tx, of).await?;
    tx.commit().await?;
    Ok(row)
}

async fn set_status(app: &App, of: &InstanceRef, status: &str) -> Result<(), Problem> {
    let mut tx = app.db().tenant(of.tenant).await?;
    store::set_status(&mut tx, of.instance, status, None).await?;
    tx.commit().await?;
    Ok(())
}

async fn install(app: &App, of: &InstanceRef) -> Result<(), Problem> {
    let mut tx = app.db().tenant(of.tenant).await?;
    let row = find(&mut tx, of).await?;
    let spec = spec_of(app, &mut tx, &row).await?;
    tx.commit().await?;
    let url = app
        .cluster()
        .install(&spec)
        .await
        .map_err(cluster_problem)?;
    let mut tx = app.db().tenant(of.tenant).await?;
    store::set_url(&mut tx, of.instance, &url).await?;
    tx.commit().await?;
    Ok(())
}

async fn wait_until_ready(app: &App, of: &InstanceRef) -> Result<(), Problem> {
    let mut tx = app.db().tenant(of.tenant).await?;
    let row = find(&mut tx, of).await?;
    let spec = spec_of(app, &mut tx, &row).await?;
    tx.commit().await?;
    // Where another process installed it, or this one was restarted since, it is taken over here.
    app.cluster()
        .install(&spec)
        .await
        .map_err(cluster_problem)?;
    let at_most = Duration::from_secs(app.config().instances.ready_timeout_seconds.into());
    app.cluster()
        .wait_ready(&row.name, at_most)
        .await
        .map_err(cluster_problem)
}

async fn shake_hands(app: &App, of: &InstanceRef) -> Result<(), Problem> {
    let mut tx = app.db().tenant(of.tenant).await?;
    let row = find(&mut tx, of).await?;
    let client = app.gateways().client(app, &mut tx, &row).await?;
    tx.commit().await?;
    let unavailable = |e: &dyn std::fmt::Display| {
        Problem::unavailable(&format!("The OpenClaw gateway ({e})"), RETRY_AFTER_DEFAULT)
    };
    client
        .wait_ready(HANDSHAKE_WAIT)
        .await
        .map_err(|e| unavailable(&e))?;
    client
        .bridge_status(STATUS_WAIT)
        .await
        .map_err(|e| unavailable(&e))?;
    Ok(())
}

async fn register_running(app: &App, of: &InstanceRef) -> Result<(), Problem> {
    let health = health_of(app, of.tenant).await;
    let mut tx = app.db().tenant(of.tenant).await?;
    store::set_status(&mut tx, of.instance, "running", None).await?;
    store::set_health(&mut tx, of.instance, &health).await?;
    tx.commit().await?;
    Ok(())
}

async fn stop(app: &App, of: &InstanceRef) -> Result<(), Problem> {
    let row = row_of(app, of).await?;
    app.gateways().forget(&row).await;
    app.cluster()
        .stop(&row.name)
        .await
        .map_err(cluster_problem)?;
    if row.desired != "stopped" {
        return Ok(()); // It is started again, and must not look as if it were free for something else.
    }
    set_status(app, of, "stopped").await
}

async fn destroy(app: &App, of: &InstanceRef) -> Result<(), Problem> {
    let row = row_of(app, of).await?;
    app.gateways().forget(&row).await;
    app.cluster()
        .destroy(&row.name)
        .await
        .map_err(cluster_problem)?;
    set_status(app, of, "destroyed").await
}

async fn note_failure(app: &App, input: &Input) -> Result<(), Problem> {
    let of = &input.instance;
    let row = row_of(app, of).await?;
    let logs = app
        .cluster()
        .logs(&row.name, 5)
        .await
        .unwrap_or_default()
        .join(" | ");
    if input.operation == Operation::Provision {
        app.gateways().forget(&row).await;
        app.cluster()
            .stop(&row.name)
            .await
            .map_err(cluster_problem)?;
    }
    let error = format!(
        "{:?} did not succeed. The end of its log: {logs}",
        input.operation
    );
    let mut tx = app.db().tenant(of.tenant).await?;
    store::set_status(&mut tx, of.instance, "error", Some(&error)).await?;
    tx.commit().await?;
    Ok(())
}

fn cluster_problem(error: ClusterError) -> Problem {
    match error {
        ClusterError::Temporary(text) => {
            Problem::unavailable(&format!("The instance ({text})"), RETRY_AFTER_DEFAULT)
        }
        ClusterError::Permanent(text) => Problem::internal(&text),
    }
}

/// A snapshot of how the tenant's instance is.
pub async fn health_of(app: &App, tenant: TenantId) -> Value {
    let now = app.clock().now();
    let last_check = now
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default();
    let looked = async {
        let mut tx = app.db().tenant(tenant).await?;
        let Some(row) = store::live(&mut tx).await? else {
            return Ok(None);
        };
        let client = app.gateways().client(app, &mut tx, &row).await?;
        tx.commit().await?;
        Ok::<_, Problem>(Some((row, client)))
    };
    let Ok(Some((row, client))) = looked.await else {
        return json!({ "last_check": last_check, "healthy": false });
    };
    let status = app.cluster().status(&row.name).await;
    let bridge = client.bridge_status(STATUS_WAIT).await;
    json!({
        "last_check": last_check,
        "healthy": status.phase == Phase::Running && bridge.is_ok(),
        "phase": status.phase,
        "memory_bytes": status.memory_bytes,
        "detail": status.detail,
        "version": client.hello().map(|hello| hello.server.version.clone()),
        "journal_entries": bridge.as_ref().ok().map(|b| b.journal_entries),
        "problem": bridge.err().map(|e| e.to_string()),
    })
}
