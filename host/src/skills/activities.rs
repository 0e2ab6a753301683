//! Taking a call further, as a workflow's step.

use super::{
    CallStatus, Outcome, ending, router,
    store::{self, CallRow},
    workflow::{Input, WORKFLOW_TYPE, Waits},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId},
    outbox,
    problem::{Problem, RETRY_AFTER_DEFAULT},
    turns::Mover,
    worker::{self, carry_out_in_turn},
};
use std::{sync::Arc, time::Duration};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use time::OffsetDateTime;

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
        let last = worker::is_last_attempt(&ctx, &self.app);
        carry_out_in_turn(
            &ctx,
            &self.app,
            Mover::further(input.tenant, input.call.uuid()),
            Box::pin(advance(&self.app, &input, last)),
            |_| true,
        )
        .await
    }
}

async fn advance(app: &App, of: &Input, last_attempt: bool) -> Result<Waits, Problem> {
    let outcome = match router::advance(app, of.tenant, of.call).await {
        Ok(advanced) => advanced.outcome,
        // Away, or too much for now: it is waited for.
        Err(problem) if problem.is_unavailable() || problem.retry_after().is_some() => {
            return Ok(Waits::ForAWhile {
                pause: problem.retry_after().unwrap_or(RETRY_AFTER_DEFAULT),
            });
        }
        // What stops it otherwise stops it for good: there is nobody left to tell it to.
        Err(problem) if problem.status().is_client_error() || last_attempt => {
            ending::give_up(app, of.tenant, of.call, &problem).await?
        }
        Err(problem) => return Err(problem),
    };
    Ok(waits_for(app, of.call, &outcome))
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

/// Takes up calls that nobody works on any more, for ever: those that were made over the API, and those whose task has
/// ended.
pub async fn reclaim(app: App) {
    loop {
        if let Err(problem) = reclaim_once(&app).await {
            tracing::warn!(%problem, "skills: abandoned calls were not looked for");
        }
        tokio::time::sleep(RECLAIM_INTERVAL).await;
    }
}

pub(super) async fn reclaim_once(app: &App) -> Result<(), Problem> {
    let abandoned = store::abandoned(&mut app.db().system().await?, RECLAIM_BATCH).await?;
    for (tenant, call) in abandoned {
        let mut tx = app.db().tenant(tenant).await?;
        // Two at once: the second one finds it taken.
        if let Some(row) = store::take_abandoned(&mut tx, call, router::LEASE).await? {
            match row.status() {
                CallStatus::Queued => ending::abandon(app, &mut tx, &row).await?,
                _ => see_through(app, &mut tx, &row).await?,
            }
        }
        tx.commit().await?;
        app.outbox_wake().notify_one();
    }
    Ok(())
}

/// Has a workflow see a call through, where it is not done.
pub async fn take_further(app: &App, tenant: TenantId, call: SkillCallId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, call)
        .await?
        .filter(|row| row.status() == CallStatus::Running);
    if let Some(row) = row {
        see_through(app, &mut tx, &row).await?;
    }
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok(())
}

/// Has another workflow see a call through whose own is gone, where it waited for what was to be told to that one.
pub async fn succeed(app: &App, tenant: TenantId, call: SkillCallId) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, call).await?.filter(|row| {
        let goes_on = matches!(
            row.status(),
            CallStatus::AwaitingApproval | CallStatus::Running
        );
        goes_on && (row.task_id.is_none() || row.detached)
    });
    if let Some(row) = row {
        see_through(app, &mut tx, &row).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The workflow's id follows from the call, so that however often this is asked for, one runs.
pub(super) async fn see_through(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
) -> Result<(), Problem> {
    let input = super::workflow_input(app, tx.tenant(), row.id);
    let id = router::workflow_of(row);
    outbox::push(tx, outbox::Kind::StartAgain, &id, WORKFLOW_TYPE, input).await?;
    Ok(())
}
