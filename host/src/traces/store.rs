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
pub async fn insert(tx: &mut TenantTx, step: &NewStep) -> Result<bool> {
    let (task, call) = match step.subject {
        Subject::Task(task) => (Some(task.uuid()), step.call.map(SkillCallId::uuid)),
        Subject::Call(call) => (None, Some(call.uuid())),
    };
    sqlx::query_scalar!(
        r#"select record_step($1, $2, $3, $4, $5, $6, $7, $8) as "new!""#,
        TraceId::fresh().uuid(),
        task,
        call,
        step.step_type.as_str(),
        step.key,
        step.agent.map(AgentId::uuid),
        step.details,
        step.duration_ms(),
    )
    .fetch_one(&mut **tx)
    .await
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
