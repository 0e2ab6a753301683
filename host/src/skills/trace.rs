//! What a call leaves in a trace.

use super::store::CallRow;
use crate::{
    db::TenantTx,
    traces::{self, NewStep, StepType, Subject},
};
use serde_json::Value;
use std::time::Duration;

/// Writes a step of a call into the trace of its task, or into its own.
pub(super) async fn record(
    tx: &mut TenantTx,
    row: &CallRow,
    step_type: StepType,
    key: &str,
    details: Value,
    duration: Option<Duration>,
) -> Result<(), sqlx::Error> {
    let step = step_of(row, step_type, key, details);
    traces::record(tx, NewStep { duration, ..step }).await?;
    Ok(())
}

pub(super) fn step_of(row: &CallRow, step_type: StepType, key: &str, details: Value) -> NewStep {
    let (subject, key) = match row.task_id {
        Some(task) => (Subject::Task(task), format!("{key}:{}", row.id)),
        None => (Subject::Call(row.id), key.to_owned()),
    };
    NewStep {
        subject,
        step_type,
        key,
        call: Some(row.id),
        agent: row.agent_id,
        details,
        duration: None,
    }
}
