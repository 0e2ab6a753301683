use super::{NewStep, Subject, TraceStep};
use crate::{
    db::TenantTx,
    id::{AgentId, SkillCallId, TaskId, TraceId},
};
use sqlx::Result;

/// Steps of a call that are shown: the first ones.
const CALL_STEPS_MAX: i64 = 1000;

/// The number is taken under a lock of the trace, held until the transaction ends: two writers at once take
/// consecutive numbers. Only a step whose key is there already is dropped; any other conflict is an error.
pub async fn insert(tx: &mut TenantTx, step: &NewStep<'_>) -> Result<bool> {
    let tenant = tx.tenant();
    let (task, call) = match step.subject {
        Subject::Task(task) => (Some(task.uuid()), step.call.map(SkillCallId::uuid)),
        Subject::Call(call) => (None, Some(call.uuid())),
    };
    let duration_ms = step
        .duration
        .map(|d| i32::try_from(d.as_millis()).unwrap_or(i32::MAX));
    let inserted = sqlx::query!(
        "insert into execution_traces (id, tenant_id, task_id, call_id, step_type, step_order, step_key, agent_id, details, duration_ms)
         values ($1, $2, $3, $4, $5, next_step_order($3, $4), $6, $7, $8, $9)
         on conflict (coalesce(task_id, call_id), step_key) do nothing",
        TraceId::fresh().uuid(),
        tenant.uuid(),
        task,
        call,
        step.step_type.as_str(),
        step.key,
        step.agent.map(AgentId::uuid),
        step.details,
        duration_ms,
    )
    .execute(&mut **tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub async fn of_task(
    tx: &mut TenantTx,
    task: TaskId,
    after: i32,
    limit: i64,
) -> Result<Vec<TraceStep>> {
    sqlx::query_as!(
        TraceStep,
        r#"select id as "id: TraceId", step_order, step_type, task_id as "task_id: TaskId", call_id as "call_id: SkillCallId",
                  agent_id as "agent_id: AgentId", details, duration_ms, created_at
           from execution_traces where task_id = $1 and step_order > $2 order by step_order limit $3"#,
        task.uuid(),
        after,
        limit
    )
    .fetch_all(&mut **tx)
    .await
}

pub async fn of_call(tx: &mut TenantTx, call: SkillCallId) -> Result<Vec<TraceStep>> {
    sqlx::query_as!(
        TraceStep,
        r#"select id as "id: TraceId", step_order, step_type, task_id as "task_id: TaskId", call_id as "call_id: SkillCallId",
                  agent_id as "agent_id: AgentId", details, duration_ms, created_at
           from execution_traces where task_id is null and call_id = $1 order by step_order limit $2"#,
        call.uuid(),
        CALL_STEPS_MAX
    )
    .fetch_all(&mut **tx)
    .await
}
