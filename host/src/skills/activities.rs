//! Taking a call further, as a workflow's step.

use super::{
    CallFailure, Outcome, router, store,
    workflow::{Input, WORKFLOW_TYPE, Waits},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId, TraceId},
    outbox,
    problem::{Problem, RETRY_AFTER_DEFAULT},
    worker::{self, keep_alive, retry_or_fail},
};
use std::{sync::Arc, time::Duration};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use time::OffsetDateTime;

/// Until another may take up a call that a workflow has.
const LEASE: Duration = Duration::from_secs(120);
/// A call that was written down and did not begin within this never will.
const QUEUED_MAX: Duration = Duration::from_secs(3600);
/// How often calls that nobody works on are looked for.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(10);
const RECLAIM_BATCH: i64 = 50;
/// Added to an approval's time to live, so that it has run out when the wait ends.
const EXPIRY_MARGIN: Duration = Duration::from_secs(1);

pub struct SkillActivities {
    pub app: App,
}

#[activities]
impl SkillActivities {
    #[activity(name = "skills.advance")]
    pub async fn advance(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: Input,
    ) -> Result<Waits, ActivityError> {
        let advance = router::advance(&self.app, input.tenant, input.call);
        let advanced = Box::pin(keep_alive(&ctx, advance)).await;
        let waits = match advanced {
            Ok(advanced) => Ok(waits_for(&self.app, input.call, &advanced.outcome)),
            // Away, or too much for now: it is waited for.
            Err(problem) if problem.is_unavailable() || problem.retry_after().is_some() => {
                Ok(Waits::ForAWhile {
                    pause: problem.retry_after().unwrap_or(RETRY_AFTER_DEFAULT),
                })
            }
            // What stops it otherwise stops it for good: there is nobody left to tell it to.
            Err(problem)
                if problem.status().is_client_error()
                    || worker::is_last_attempt(&ctx, &self.app) =>
            {
                router::give_up(&self.app, input.tenant, input.call, &problem)
                    .await
                    .map(|outcome| waits_for(&self.app, input.call, &outcome))
            }
            Err(problem) => Err(problem),
        };
        let waits = match waits {
            // While it waits here, nobody else has to take it up.
            Ok(Waits::ForAWhile { pause }) => keep(&self.app, &input, pause)
                .await
                .map(|()| Waits::ForAWhile { pause }),
            other => other,
        };
        retry_or_fail(&ctx, &self.app, waits)
    }
}

/// Holds the call for as long as its workflow sleeps, and some.
async fn keep(app: &App, input: &Input, pause: Duration) -> Result<(), Problem> {
    let mut tx = app.db().tenant(input.tenant).await?;
    store::extend_lease(&mut tx, input.call, pause + LEASE).await?;
    Ok(tx.commit().await?)
}

/// What a workflow has to wait for before it takes the call further.
pub fn waits_for(app: &App, call: SkillCallId, outcome: &Outcome) -> Waits {
    match outcome {
        Outcome::Succeeded { .. } | Outcome::Failed(_) => Waits::ForNothing,
        Outcome::AwaitingApproval {
            approval,
            expires_at,
        } => {
            let left: time::Duration =
                *expires_at - app.clock().now().max(OffsetDateTime::UNIX_EPOCH);
            let at_most = Duration::try_from(left).unwrap_or_default() + EXPIRY_MARGIN;
            Waits::ForApproval {
                approval: *approval,
                at_most,
            }
        }
        Outcome::OutcomeUnknown { .. } => Waits::ForResolution { call },
        Outcome::Waiting { retry_after, .. } => Waits::ForAWhile {
            pause: *retry_after,
        },
    }
}

/// Takes up calls that were made over the API by a process that is gone, for ever.
pub async fn reclaim(app: App) {
    loop {
        if let Err(problem) = reclaim_once(&app).await {
            tracing::warn!(%problem, "skills: abandoned calls were not looked for");
        }
        tokio::time::sleep(RECLAIM_INTERVAL).await;
    }
}

async fn reclaim_once(app: &App) -> Result<(), Problem> {
    let abandoned = store::abandoned(&mut app.db().system().await?, RECLAIM_BATCH).await?;
    for (tenant, call) in abandoned {
        let mut tx = app.db().tenant(tenant).await?;
        if let Some(times) = store::take_up(&mut tx, call, LEASE).await? {
            see_through(app, tx, call, &format!("call-{call}-{times}")).await?;
        }
    }
    let system = &mut app.db().system().await?;
    for (tenant, call) in store::never_begun(system, QUEUED_MAX, RECLAIM_BATCH).await? {
        let mut tx = app.db().tenant(tenant).await?;
        let why = "The call did not begin within an hour after it was written down: the gateway ended, or nobody came again. Nothing was sent.";
        store::forget_queued(&mut tx, call, &CallFailure::new("never_begun", why)).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Has a workflow see a call through that this process cannot.
pub async fn take_further(app: &App, tenant: TenantId, call: SkillCallId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    store::extend_lease(&mut tx, call, LEASE).await?;
    see_through(app, tx, call, &format!("call-{call}-{}", TraceId::fresh())).await
}

async fn see_through(
    app: &App,
    mut tx: TenantTx,
    call: SkillCallId,
    workflow: &str,
) -> Result<(), Problem> {
    let input = super::workflow_input(app, tx.tenant(), call);
    outbox::push(&mut tx, outbox::Kind::Start, workflow, WORKFLOW_TYPE, input).await?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok(())
}
