//! How a call ends that cannot go on.
//!
//! There is one rule. Where a request that may change something has left, or may have, and the plugin did not say what
//! the call came to, nobody knows: the call is `outcome_unknown`, whatever went wrong afterwards, and a person is asked.
//! An action that may be repeated without harm fails instead, as does a call of which nothing of the kind left.

use super::{
    CallFailure, CallStatus, Outcome,
    router::settled,
    run::{Run, waiting},
    store::{self, CallRow, End, Stands},
    trace::step_of,
};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    traces::{self, NewStep, StepType},
};
use axum::http::StatusCode;
use serde_json::{Value, json};

impl Run<'_> {
    /// Ends the call by the rule.
    pub(super) async fn end(&mut self, failure: CallFailure) -> Result<Outcome, Problem> {
        if self.is_open || self.has_acted {
            return self.unknown(failure).await;
        }
        self.fail(failure).await
    }

    /// Nobody knows whether the service acted.
    pub(super) async fn unknown(&mut self, cause: CallFailure) -> Result<Outcome, Problem> {
        let cause = cause.cleaned();
        let failure = unknown(&self.row, &cause);
        let end = End::badly(CallStatus::OutcomeUnknown, &failure);
        let shown = json!({ "status": "outcome_unknown", "error": failure, "cause": cause });
        if !self.finish(end, shown).await? {
            return self.overtaken().await;
        }
        Ok(Outcome::OutcomeUnknown {
            message: failure.message,
        })
    }

    /// Another process has gone on with the call: what it came to stands in the row.
    pub(super) async fn overtaken(&self) -> Result<Outcome, Problem> {
        let mut tx = self.app.db().tenant(self.tenant).await?;
        let row = store::call(&mut tx, self.row.id).await?;
        let outcome = row.as_ref().and_then(settled);
        Ok(outcome.unwrap_or_else(|| {
            waiting(
                "another process, which works on the call".into(),
                RETRY_AFTER_DEFAULT,
            )
        }))
    }
}

fn unknown(row: &CallRow, cause: &CallFailure) -> CallFailure {
    let message = format!(
        "Whether `{}` of `{}` was carried out is unknown: {}. Look at the service whether it happened, then say so with POST /api/v1/skill-calls/{}/resolve.",
        row.action,
        row.skill_name,
        cause.message.trim_end_matches('.'),
        row.id
    );
    CallFailure::new("outcome_unknown", message)
}

/// Ends a call by the rule, with the reason, where nobody tries it again.
pub async fn give_up(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
    problem: &Problem,
) -> Result<Outcome, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if let Some(outcome) = settled(&row) {
        return Ok(outcome);
    }
    let failure = CallFailure::from(problem);
    let may_have_acted = row.idempotent != Some(true) && store::may_have_sent(&mut tx, id).await?;
    if row.status() != CallStatus::Running {
        let end = End::badly(CallStatus::Failed, &failure);
        store::finish(&mut tx, id, Stands::NotBegun, end).await?;
        trace(&mut tx, &row, "failed", json!({ "error": failure })).await?;
        tx.commit().await?;
        return Ok(Outcome::Failed(failure));
    }
    let (status, told, outcome) = match may_have_acted {
        true => {
            let told = unknown(&row, &failure);
            let message = told.message.clone();
            let outcome = Outcome::OutcomeUnknown { message };
            (CallStatus::OutcomeUnknown, told, outcome)
        }
        false => {
            let outcome = Outcome::Failed(failure.clone());
            (CallStatus::Failed, failure.clone(), outcome)
        }
    };
    let ended = store::Ended {
        turn: row.turn(),
        reply: None,
        end: End::badly(status, &told),
        step: step(
            &row,
            status.as_str(),
            json!({ "error": told, "cause": failure }),
        ),
    };
    store::end(&mut tx, tenant, ended).await?;
    tx.commit().await?;
    Ok(outcome)
}

/// Whether a call was refused before it began. Its key may bring it again.
pub(super) fn was_refused(row: &CallRow) -> bool {
    let refused = row.error.as_ref().and_then(|e| e.get("refused_with"));
    let ended = matches!(row.status(), CallStatus::Rejected | CallStatus::Failed);
    ended && row.started_at.is_none() && refused.is_some()
}

/// Ends a call that was refused before it began, as it was written down in this transaction: an auditor finds it in its
/// trace.
pub(super) async fn refuse(
    app: &App,
    mut tx: TenantTx,
    row: &CallRow,
    problem: &Problem,
) -> Result<(), Problem> {
    if row.status() == CallStatus::Queued {
        let failure = CallFailure {
            refused_with: Some(problem.status().as_u16()),
            ..CallFailure::from(problem)
        };
        refused(app, &mut tx, row, CallStatus::Rejected, &failure).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Ends a call whose process is gone and that never began. Whoever made it was told nothing, so it is not made behind
/// their back: they may make it again, under the same key.
pub(super) async fn abandon(app: &App, tx: &mut TenantTx, row: &CallRow) -> Result<(), Problem> {
    let failure = CallFailure {
        retryable: true,
        refused_with: Some(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
        ..CallFailure::new(
            "abandoned",
            "The process that took the call ended before it began. Nothing was sent; make the call again.",
        )
    };
    refused(app, tx, row, CallStatus::Failed, &failure).await
}

async fn refused(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    status: CallStatus,
    failure: &CallFailure,
) -> Result<(), Problem> {
    let end = End::badly(status, failure);
    store::finish(tx, row.id, Stands::NotBegun, end).await?;
    // One key may be refused more than once.
    let at = app.clock().now().unix_timestamp_nanos();
    trace(
        tx,
        row,
        &format!("refused:{at}"),
        json!({ "error": failure }),
    )
    .await
}

async fn trace(tx: &mut TenantTx, row: &CallRow, key: &str, more: Value) -> Result<(), Problem> {
    traces::record(tx, step(row, key, more)).await?;
    Ok(())
}

/// The step that says how a call ended that nobody works on. Its key begins with the status.
fn step(row: &CallRow, key: &str, more: Value) -> NewStep {
    let status = key.split(':').next().unwrap_or(key);
    let mut details = json!({
        "skill": row.skill_name, "action": row.action, "actor": row.actor, "params": row.params, "status": status,
        "plugin_digest": row.plugin_digest, "credentials_used": row.credentials_used,
    });
    if let (Some(all), Value::Object(more)) = (details.as_object_mut(), more) {
        all.extend(more);
    }
    let key = format!("skill_call:{key}:{}", row.attempts);
    step_of(row, StepType::SkillCall, &key, details)
}
