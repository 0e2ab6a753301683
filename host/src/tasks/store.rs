use super::NewTask;
use crate::{
    db::{SystemTx, TenantTx},
    id::{AgentId, ApiKeyId, MessageId, TaskId, TenantId},
    page::{PageRequest, Taken, json_bytes},
};
use serde_json::{Value, json};
use sqlx::Result;
use std::time::Duration;
use time::OffsetDateTime;

pub struct TaskRow {
    pub id: TaskId,
    pub objective: String,
    pub status: String,
    pub priority: String,
    pub requested_agent_id: Option<AgentId>,
    pub agent_id: Option<AgentId>,
    pub parent_task_id: Option<TaskId>,
    pub delegation_depth: i32,
    pub capabilities: Vec<String>,
    pub plan: Value,
    pub waiting_for: Option<Value>,
    pub output: Option<Value>,
    pub error: Option<Value>,
    pub confidence: Option<f64>,
    pub tokens_used: i64,
    pub cost_micro_usd: i64,
    pub created_by: String,
    pub created_by_key: Option<ApiKeyId>,
    pub cancel_requested_at: Option<OffsetDateTime>,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub taken_up: i32,
}

impl TaskRow {
    fn json_bytes(&self) -> usize {
        let more = [&self.waiting_for, &self.output, &self.error];
        json_bytes([&self.plan]) + json_bytes(more.into_iter().flatten()) + self.objective.len()
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}

macro_rules! task_query {
    ($where:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            TaskRow,
            r#"select id as "id: TaskId", objective, status, priority, requested_agent_id as "requested_agent_id: AgentId", agent_id as "agent_id: AgentId",
                      parent_task_id as "parent_task_id: TaskId", delegation_depth, capabilities, plan, waiting_for, output, error, confidence,
                      tokens_used, cost_micro_usd, created_by, created_by_key as "created_by_key: ApiKeyId", cancel_requested_at, started_at, finished_at, created_at, taken_up
               from agent_tasks where "# + $where
            $(, $arg)*
        )
    };
}

pub async fn insert(tx: &mut TenantTx, new: &NewTask<'_>) -> Result<()> {
    let tenant = tx.tenant();
    let plan = serde_json::to_value(new.plan).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query!(
        "insert into agent_tasks (id, tenant_id, objective, status, priority, requested_agent_id, parent_task_id, delegation_depth, capabilities, plan, created_by, created_by_key)
         values ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11)",
        new.id.uuid(),
        tenant.uuid(),
        new.objective,
        new.priority,
        new.agent.map(AgentId::uuid),
        new.parent.map(TaskId::uuid),
        new.depth,
        new.capabilities,
        plan,
        new.created_by,
        new.created_by_key.map(ApiKeyId::uuid)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut TenantTx, id: TaskId) -> Result<Option<TaskRow>> {
    task_query!("id = $1", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

/// The same, and nobody else changes it until the transaction ends.
pub async fn lock(tx: &mut TenantTx, id: TaskId) -> Result<Option<TaskRow>> {
    task_query!("id = $1 for update", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

pub struct Filter<'a> {
    pub status: Option<&'a str>,
    pub agent: Option<AgentId>,
    pub priority: Option<&'a str>,
}

pub async fn list(
    tx: &mut TenantTx,
    page: PageRequest,
    filter: &Filter<'_>,
) -> Result<Taken<TaskRow>> {
    let rows = task_query!(
        "($1::uuid is null or id < $1) and ($3::text is null or status = $3) and ($4::uuid is null or agent_id = $4)
         and ($5::text is null or priority = $5) order by id desc limit $2",
        page.before,
        page.fetch(),
        filter.status,
        filter.agent.map(AgentId::uuid),
        filter.priority
    )
    .fetch(&mut **tx);
    page.take(rows, TaskRow::json_bytes).await
}

pub async fn agent_of_parent(tx: &mut TenantTx, task: TaskId) -> Result<Option<AgentId>> {
    sqlx::query_scalar!(
        r#"select p.agent_id as "agent_id?: AgentId" from agent_tasks t join agent_tasks p on p.id = t.parent_task_id where t.id = $1"#,
        task.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
    .map(Option::flatten)
}

pub async fn dispatched(tx: &mut TenantTx, task: TaskId, agent: AgentId) -> Result<()> {
    sqlx::query!(
        "update agent_tasks set status = 'thinking', agent_id = $2, started_at = coalesce(started_at, now()), updated_at = now()
         where id = $1 and status in ('queued', 'thinking')",
        task.uuid(),
        agent.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A finished task does not change again; `false` where it is one.
pub async fn set_status(
    tx: &mut TenantTx,
    task: TaskId,
    status: &str,
    waiting_for: Option<&Value>,
) -> Result<bool> {
    let set = sqlx::query!(
        "update agent_tasks set status = $2, waiting_for = $3, updated_at = now()
         where id = $1 and status not in ('completed', 'failed', 'cancelled')",
        task.uuid(),
        status,
        waiting_for
    )
    .execute(&mut **tx)
    .await?;
    Ok(set.rows_affected() == 1)
}

/// Whether a step of a task may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayBegin {
    Yes,
    /// Somebody has cancelled the task, and its workflow will hear of it.
    Cancelled,
    /// The task has ended.
    Ended,
}

/// Says that a step is being carried out, and locks the task: whoever cancels it at the same time is seen here, or comes
/// after what is begun in this transaction.
pub async fn executing(tx: &mut TenantTx, task: TaskId) -> Result<MayBegin> {
    let cancelled = sqlx::query_scalar!(
        r#"update agent_tasks set status = 'executing', waiting_for = null, updated_at = now()
           where id = $1 and status not in ('completed', 'failed', 'cancelled')
           returning cancel_requested_at is not null as "cancelled!""#,
        task.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(match cancelled {
        Some(false) => MayBegin::Yes,
        Some(true) => MayBegin::Cancelled,
        None => MayBegin::Ended,
    })
}

/// Ends it well; what it cost, in millionths of a US dollar, where it had not ended before.
pub async fn complete(
    tx: &mut TenantTx,
    task: TaskId,
    output: &Value,
    confidence: f64,
) -> Result<Option<i64>> {
    sqlx::query_scalar!(
        "update agent_tasks set status = 'completed', output = $2, confidence = $3, waiting_for = null, cost_micro_usd = spent_for_task(id),
                finished_at = now(), updated_at = now()
         where id = $1 and status not in ('completed', 'failed', 'cancelled') returning cost_micro_usd",
        task.uuid(),
        output,
        confidence
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn fail(
    tx: &mut TenantTx,
    task: TaskId,
    status: &str,
    output: &Value,
    error: &Value,
) -> Result<()> {
    sqlx::query!(
        "update agent_tasks set status = $2, output = $3, error = $4, waiting_for = null, cost_micro_usd = spent_for_task(id), finished_at = now(), updated_at = now()
         where id = $1 and status not in ('completed', 'failed', 'cancelled')",
        task.uuid(),
        status,
        output,
        error
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn request_cancel(tx: &mut TenantTx, task: TaskId, at: OffsetDateTime) -> Result<()> {
    sqlx::query!("update agent_tasks set cancel_requested_at = coalesce(cancel_requested_at, $2), updated_at = now() where id = $1", task.uuid(), at)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Tasks that have not ended, and that stood still and were not looked at for `still_for`; now they are. Not those whose
/// parent has not ended: it looks after them.
pub async fn still(
    tx: &mut SystemTx,
    still_for: Duration,
    limit: i64,
) -> Result<Vec<(TenantId, TaskId)>> {
    let rows = sqlx::query!(
        r#"update agent_tasks set looked_at = now() where id in (
               select t.id from agent_tasks t left join agent_tasks p on p.id = t.parent_task_id
               where t.status not in ('completed', 'failed', 'cancelled')
                 and (p.id is null or p.status in ('completed', 'failed', 'cancelled'))
                 and greatest(t.updated_at, t.looked_at) < now() - make_interval(secs => $1)
               order by coalesce(t.looked_at, t.created_at) limit $2 for update of t skip locked)
           returning tenant_id as "tenant: TenantId", id as "id: TaskId""#,
        still_for.as_secs_f64(),
        limit
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.tenant, row.id)).collect())
}

pub async fn count_taken_up(tx: &mut TenantTx, task: TaskId) -> Result<()> {
    sqlx::query!(
        "update agent_tasks set taken_up = taken_up + 1, updated_at = now() where id = $1",
        task.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub struct CallOfTask {
    pub task_step: Option<i32>,
    pub skill_name: String,
    pub action: String,
    pub status: String,
    pub summary: Option<String>,
    pub output: Option<Value>,
}

pub async fn calls_of(tx: &mut TenantTx, task: TaskId) -> Result<Vec<CallOfTask>> {
    sqlx::query_as!(
        CallOfTask,
        "select task_step, skill_name, action, status, summary, output from skill_calls where task_id = $1 order by task_step",
        task.uuid()
    )
    .fetch_all(&mut **tx)
    .await
}

pub async fn children_of(tx: &mut TenantTx, task: TaskId) -> Result<Vec<Value>> {
    let rows = sqlx::query!(
        r#"select id as "id: TaskId", objective, status, output, error from agent_tasks where parent_task_id = $1 order by id"#,
        task.uuid()
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| json!({ "task_id": row.id, "objective": row.objective, "status": row.status, "output": row.output, "error": row.error })).collect())
}

#[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema, Debug)]
pub struct Message {
    pub id: MessageId,
    pub agent_id: Option<AgentId>,
    /// `system`, `agent`, `tool` or `person`.
    pub role: String,
    pub content: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

pub async fn insert_message(
    tx: &mut TenantTx,
    task: TaskId,
    agent: Option<AgentId>,
    key: &str,
    role: &str,
    content: &str,
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into agent_messages (id, tenant_id, task_id, agent_id, message_key, role, content) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        MessageId::fresh().uuid(),
        tenant.uuid(),
        task.uuid(),
        agent.map(AgentId::uuid),
        key,
        role,
        content
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn messages(
    tx: &mut TenantTx,
    task: TaskId,
    page: PageRequest,
) -> Result<Taken<Message>> {
    let rows = sqlx::query_as!(
        Message,
        r#"select id as "id: MessageId", agent_id as "agent_id: AgentId", role, content, created_at from agent_messages
           where task_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3"#,
        task.uuid(),
        page.before,
        page.fetch()
    )
    .fetch(&mut **tx);
    page.take(rows, |message| message.content.len()).await
}
