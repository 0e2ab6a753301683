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

/// Entries that are sent at once.
const BATCH: usize = 50;
/// Of one tenant, at most: what comes for another while they are sent waits for no more than these.
const TENANT_BATCH: usize = 16;
/// Tenants whose entries are looked at together.
const TENANTS: usize = 50;
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

/// Sends what is due, for ever, of each tenant in turn. One task a worker process runs it; several may run at once.
pub async fn relay(app: App, bereaved: Bereaved) {
    let mut round = Round::default();
    loop {
        if let Err(error) = deliver_due(&app, &mut round, bereaved).await {
            tracing::warn!(%error, "outbox: the database cannot be reached, trying again");
            round = Round::default();
        }
        if round.after.is_none() && std::mem::take(&mut round.sent) == 0 {
            tokio::select! {
                () = app.outbox_wake().notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}

/// One time through all tenants.
#[derive(Debug, Default)]
struct Round {
    /// Whose turn was last; none before the first tenant, and after the last.
    after: Option<TenantId>,
    /// Entries so far, whether they could be delivered or not.
    sent: usize,
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

async fn deliver_due(app: &App, round: &mut Round, bereaved: Bereaved) -> Result<(), sqlx::Error> {
    let mut tx = app.db().system().await?;
    let (entries, after) = next(&mut tx, round.after).await?;
    // Of each workflow there is one entry at most, so their order does not matter.
    let sent = join_all(entries.iter().map(|entry| send(app, entry, bereaved))).await;
    for (entry, sent) in entries.iter().zip(sent) {
        match sent {
            Ok(()) => forget(&mut tx, entry.id).await?,
            Err(error) => postpone(&mut tx, entry, &error).await?,
        }
    }
    tx.commit().await?;
    round.after = after;
    round.sent += entries.len();
    Ok(())
}

/// What is sent next, and whose turn was the last of it; none where nobody comes after.
async fn next(
    tx: &mut SystemTx,
    after: Option<TenantId>,
) -> Result<(Vec<Entry>, Option<TenantId>), sqlx::Error> {
    let tenants = tenants(tx, after).await?;
    let entries = due(tx, &tenants).await?;
    let last = if entries.len() == BATCH {
        entries.iter().map(|entry| entry.tenant).max()
    } else {
        tenants.get(TENANTS - 1).copied()
    };
    Ok((entries, last))
}

/// The next tenants that have entries. Each is one step in the index, however many entries it has.
async fn tenants(tx: &mut SystemTx, after: Option<TenantId>) -> Result<Vec<TenantId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"with recursive waiting as (
             (select tenant_id, 1 as nth from outbox
              where tenant_id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid) order by tenant_id limit 1)
             union all
             select (select o.tenant_id from outbox o where o.tenant_id > w.tenant_id order by o.tenant_id limit 1), nth + 1
             from waiting w where w.tenant_id is not null and nth < $2)
           select tenant_id as "tenant_id!: TenantId" from waiting where tenant_id is not null order by nth"#,
        after.map(TenantId::uuid),
        i32::try_from(TENANTS).unwrap_or(i32::MAX),
    )
    .fetch_all(&mut **tx)
    .await
}

/// What is due of these tenants, locked, of one after the other; entries of one workflow in the order in which they were
/// written. No more is locked than is given.
async fn due(tx: &mut SystemTx, tenants: &[TenantId]) -> Result<Vec<Entry>, sqlx::Error> {
    let tenants: Vec<_> = tenants.iter().map(|tenant| tenant.uuid()).collect();
    sqlx::query_as!(
        Entry,
        r#"select e.id as "id!", e.tenant_id as "tenant!: TenantId", e.kind as "kind!", e.workflow_id as "workflow_id!",
                  e.name as "name!", e.payload as "payload!", e.attempts as "attempts!"
           from unnest($1::uuid[]) w (tenant_id) cross join lateral (
               select o.* from outbox o
               where o.tenant_id = w.tenant_id and o.next_attempt_at <= now()
                 and not exists (select from outbox earlier where earlier.workflow_id = o.workflow_id and earlier.id < o.id)
               order by o.next_attempt_at, o.id limit $2 for update skip locked) e
           limit $3"#,
        &tenants,
        i64::try_from(TENANT_BATCH).unwrap_or(i64::MAX),
        i64::try_from(BATCH).unwrap_or(i64::MAX),
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
        .of(entry.tenant)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ground;

    async fn push_many(ground: &Ground, tenant: TenantId, number: usize) {
        let mut tx = ground.app.db().tenant(tenant).await.unwrap();
        for n in 0..number {
            let workflow = format!("{tenant} {n}");
            for name in ["first", "second"] {
                push(&mut tx, Kind::Signal, &workflow, name, ())
                    .await
                    .unwrap();
            }
        }
        tx.commit().await.unwrap();
    }

    fn of(entries: &[Entry]) -> Vec<(TenantId, usize)> {
        let tenants = entries.chunk_by(|a, b| a.tenant == b.tenant);
        tenants.map(|own| (own[0].tenant, own.len())).collect()
    }

    #[tokio::test]
    async fn each_tenants_entries_are_taken_in_turn_and_by_one_relay() {
        let ground = Ground::new().await;
        let mut tenants = vec![ground.tenant];
        for n in 0..5 {
            let id = TenantId::fresh();
            let insert =
                format!("insert into tenants (id, name, slug) values ('{id}', 'T', 't{n}')");
            ground.write(&insert).await;
            tenants.push(id);
        }
        let (many, few) = (3 * TENANT_BATCH, 1);
        for (tenant, number) in tenants.iter().zip([many, few, many, many, many, few]) {
            push_many(&ground, *tenant, number).await;
        }
        let t = |n: usize, number| (tenants[n], number);

        let mut first = ground.app.db().system().await.unwrap();
        let (taken, after) = next(&mut first, None).await.unwrap();
        assert!(taken.iter().all(|entry| entry.name == "first"));
        assert_eq!(of(&taken), [t(0, 16), t(1, 1), t(2, 16), t(3, 16), t(4, 1)]);
        let (taken, end) = next(&mut first, after).await.unwrap();
        assert_eq!((of(&taken), end), (vec![t(5, 1)], None));
        // What one has locked another leaves to it.
        let mut second = ground.app.db().system().await.unwrap();
        let (taken, _) = next(&mut second, None).await.unwrap();
        assert_eq!(of(&taken), [t(0, 16), t(2, 16), t(3, 16), t(4, 2)]);
        drop(first);
        drop(second);

        let postponed = "update outbox set next_attempt_at = now() + interval '1 hour'";
        ground.write(postponed).await;
        let mut first = ground.app.db().system().await.unwrap();
        let (taken, end) = next(&mut first, None).await.unwrap();
        assert_eq!((of(&taken), end), (vec![], None));
    }
}
