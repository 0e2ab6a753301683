//! What must reach Temporal is first written here, in the transaction of the state that it follows
//! from; so a task that was answered with 201 is started though we died before telling Temporal.
//!
//! Delivery is at least once. Starting is idempotent by workflow id, and a signal only says "look
//! again": the activity that follows reads the truth from the database. What is started again under one id may be
//! started once more where we died before we noted it: it brings about a state, and doing so twice changes nothing.

use crate::{
    app::App,
    db::{SystemTx, TenantTx},
    id::TenantId,
    problem::Problem,
};
use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tsunami_durable::{DurableError, StartRequest};

/// Entries taken at once.
const BATCH: i64 = 50;
/// How often the relay looks where nothing woke it.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause between two attempts at one entry.
const RETRY_SECONDS_MAX: f64 = 30.0;

/// One thing to tell Temporal.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Once for ever under this id.
    Start,
    /// When the one before it under this id has ended.
    StartAgain,
    Signal,
    Cancel,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::StartAgain => "start_again",
            Self::Signal => "signal",
            Self::Cancel => "cancel",
        }
    }
}

/// Writes an entry; it is sent soon after the transaction commits. `name` is the workflow's type, the
/// signal's name or the reason of the cancellation.
pub async fn push(
    tx: &mut TenantTx,
    kind: Kind,
    workflow_id: &str,
    name: &str,
    payload: impl Serialize,
) -> Result<(), sqlx::Error> {
    let payload = serde_json::to_value(payload).map_err(|e| sqlx::Error::Encode(e.into()))?;
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into outbox (tenant_id, kind, workflow_id, name, payload) values ($1, $2, $3, $4, $5)",
        tenant.uuid(),
        kind.as_str(),
        workflow_id,
        name,
        payload,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Called where a workflow is gone that was to be told something: whatever it looked after may need another, and the
/// entry is kept until it has one.
pub type Bereaved = fn(App, TenantId, String) -> BoxFuture<'static, Result<(), Problem>>;

/// Sends what is due, for ever. One task a worker process runs it; several may run at once.
pub async fn relay(app: App, bereaved: Bereaved) {
    loop {
        let sent = match deliver_due(&app, bereaved).await {
            Ok(sent) => sent,
            Err(error) => {
                tracing::warn!(%error, "outbox: the database cannot be reached, trying again");
                0
            }
        };
        if sent < BATCH {
            tokio::select! {
                () = app.outbox_wake().notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}

struct Entry {
    id: i64,
    tenant: TenantId,
    kind: String,
    workflow_id: String,
    name: String,
    payload: Value,
    attempts: i32,
}

async fn deliver_due(app: &App, bereaved: Bereaved) -> Result<i64, sqlx::Error> {
    let mut tx = app.db().system().await?;
    let entries = due(&mut tx).await?;
    let count = i64::try_from(entries.len()).unwrap_or(BATCH);
    // Of each workflow there is one entry at most, so their order does not matter.
    let sent = join_all(entries.iter().map(|entry| send(app, entry, bereaved))).await;
    for (entry, sent) in entries.iter().zip(sent) {
        match sent {
            Ok(()) => forget(&mut tx, entry.id).await?,
            Err(error) => postpone(&mut tx, entry, &error).await?,
        }
    }
    tx.commit().await?;
    Ok(count)
}

/// The due entries, locked; entries of one workflow in the order in which they were written.
async fn due(tx: &mut SystemTx) -> Result<Vec<Entry>, sqlx::Error> {
    sqlx::query_as!(
        Entry,
        r#"select id, tenant_id as "tenant: TenantId", kind, workflow_id, name, payload, attempts from outbox o
         where next_attempt_at <= now()
           and not exists (select from outbox earlier where earlier.workflow_id = o.workflow_id and earlier.id < o.id)
         order by id limit $1 for update skip locked"#,
        BATCH,
    )
    .fetch_all(&mut **tx)
    .await
}

async fn send(app: &App, entry: &Entry, bereaved: Bereaved) -> Result<(), DurableError> {
    let durable = app.durable();
    let start = || {
        StartRequest::new(
            &entry.name,
            &entry.workflow_id,
            crate::worker::TASK_QUEUE,
            entry.payload.clone(),
        )
    };
    let sent = match entry.kind.as_str() {
        "start" => durable.start(start()).await.map(|_| ()),
        "start_again" => durable.start(start().following()).await.map(|_| ()),
        "signal" => {
            durable
                .signal(&entry.workflow_id, &entry.name, entry.payload.clone())
                .await
        }
        _ => durable.cancel(&entry.workflow_id, &entry.name).await,
    };
    match sent {
        // It ended meanwhile, was terminated, or the server forgot it: nobody is left to tell.
        Err(DurableError::NotFound | DurableError::AlreadyClosed) => {
            tracing::info!(
                workflow_id = entry.workflow_id,
                kind = entry.kind,
                "outbox: the workflow has ended already"
            );
            bereaved(app.clone(), entry.tenant, entry.workflow_id.clone())
                .await
                .map_err(|problem| DurableError::Unavailable(problem.to_string()))
        }
        other => other,
    }
}

async fn forget(tx: &mut SystemTx, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from outbox where id = $1", id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn postpone(
    tx: &mut SystemTx,
    entry: &Entry,
    error: &DurableError,
) -> Result<(), sqlx::Error> {
    tracing::warn!(workflow_id = entry.workflow_id, kind = entry.kind, %error, "outbox: not delivered yet");
    let pause = 0.5 * 2f64.powi(entry.attempts.clamp(0, 16));
    sqlx::query!(
        "update outbox set attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => $2) where id = $1",
        entry.id,
        pause.min(RETRY_SECONDS_MAX),
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
