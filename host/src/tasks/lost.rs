//! Tasks whose workflow is gone though they have not ended: an operator terminated it, or its history was lost. What a task
//! came to stands in the database, and its activities find what they did before; so another workflow takes it up there.

use super::{
    activities::{End, end},
    input_of,
    store::{self, TaskRow},
    workflow::WORKFLOW_TYPE,
};
use crate::{
    app::App,
    db::TenantTx,
    id::{TaskId, TenantId},
    problem::Problem,
    worker::TASK_QUEUE,
};
use futures::{StreamExt, stream};
use std::time::Duration;
use tsunami_durable::{DurableError, StartRequest, Started};

/// How often such tasks are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Tasks that are looked at in one round.
const LOOK_BATCH: i64 = 50;
/// Tasks that Temporal is asked about at once.
const LOOKS_AT_ONCE_MAX: usize = 8;
/// How long a task stood still, and was not looked at, before it is.
const STILL_FOR: Duration = Duration::from_secs(60);
/// Workflows that a task may lose. One more is no accident: something ends each of them, and would end the next.
pub const TAKEN_UP_MAX: i32 = 5;

/// Looks for such tasks, for ever.
pub async fn look(app: App) {
    loop {
        if let Err(problem) = look_once(&app).await {
            tracing::warn!(%problem, "tasks: those whose workflow is gone were not looked for");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn look_once(app: &App) -> Result<(), Problem> {
    let mut tx = app.db().system().await?;
    let still = store::still(&mut tx, STILL_FOR, LOOK_BATCH).await?;
    tx.commit().await?;
    stream::iter(still)
        .for_each_concurrent(LOOKS_AT_ONCE_MAX, |(tenant, task)| async move {
            if let Err(problem) = look_at(app, tenant, task).await {
                tracing::warn!(%task, %problem, "task: whether its workflow runs was not found out");
            }
        })
        .await;
    Ok(())
}

async fn look_at(app: &App, tenant: TenantId, task: TaskId) -> Result<(), Problem> {
    let workflow = app.durable().describe(&task.to_string()).await;
    match workflow.map_err(not_told)? {
        Some(workflow) if !workflow.has_ended() => Ok(()),
        _ => take_up(app, tenant, task).await,
    }
}

/// Has another workflow take up a task whose workflow is gone, or ends the task where none may. Changes nothing where the
/// task has ended, or one runs by now.
pub async fn take_up(app: &App, tenant: TenantId, task: TaskId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let Some(row) = store::lock(&mut tx, task)
        .await?
        .filter(|row| !row.is_finished())
    else {
        return Ok(());
    };
    if let Some(parent) = row.parent_task_id {
        let parent = store::get(&mut tx, parent).await?;
        if parent.is_some_and(|parent| !parent.is_finished()) {
            // Its workflow starts those of its children, and is told how they end.
            return Ok(());
        }
    }
    if let Some(ending) = may_not_go_on(&row) {
        end(&mut tx, &row, &ending).await?;
        tx.commit().await?;
        return Ok(());
    }
    let request = request(app, &tx, &row)?;
    // The workflow that is started now changes the row.
    tx.commit().await?;
    match app.durable().start(request).await {
        Ok(Started::Now) => {
            tracing::warn!(%task, "task: its workflow was gone, another takes it up");
            let mut tx = app.db().tenant(tenant).await?;
            store::count_taken_up(&mut tx, task).await?;
            tx.commit().await?;
            Ok(())
        }
        Ok(Started::Before) | Err(DurableError::StillRunning) => Ok(()),
        Err(error) => Err(not_told(error)),
    }
}

fn may_not_go_on(row: &TaskRow) -> Option<End> {
    if row.cancel_requested_at.is_some() {
        return Some(End::CANCELLED);
    }
    if row.parent_task_id.is_some() {
        return Some(End::cancelled(
            "The task that delegated it has ended, and this one's workflow is gone.",
        ));
    }
    (row.taken_up >= TAKEN_UP_MAX).then(|| {
        End::failed(
            "The task's workflow ended before the task did, again and again: something terminates it in Temporal, or it fails there. To stop a task, cancel it with POST /api/v1/agent-tasks/{id}/cancel.",
        )
    })
}

fn request(app: &App, tx: &TenantTx, row: &TaskRow) -> Result<StartRequest, Problem> {
    let input = input_of(app, tx, row.id, row.delegation_depth);
    let input = serde_json::to_value(input).map_err(|e| Problem::internal(&e))?;
    let id = row.id.to_string();
    Ok(StartRequest::new(WORKFLOW_TYPE, &id, TASK_QUEUE, input)
        .of(tx.tenant())
        .following())
}

fn not_told(error: DurableError) -> Problem {
    tracing::debug!(%error, "tasks: Temporal did not answer");
    Problem::unavailable("Temporal", LOOK_INTERVAL)
}
