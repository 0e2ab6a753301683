use super::{CallFailure, CallRequest, CallStatus, Origin, configs::RateLimit};
use crate::{
    db::{SystemTx, TenantTx, as_kept},
    id::{
        AgentId, ApiKeyId, ApprovalId, InstanceId, SkillCallId, SkillConfigId, TaskId, TenantId,
        TraceId,
    },
    page::{PageRequest, Taken, json_bytes},
    traces::{NewStep, Subject},
};
use serde_json::Value;
use sqlx::{PgConnection, Result};
use std::time::Duration;
use time::OffsetDateTime;

pub struct ConfigRow {
    pub id: SkillConfigId,
    pub skill_name: String,
    pub enabled: bool,
    pub requires_approval: bool,
    pub approval_actions: Vec<String>,
    pub disabled_actions: Vec<String>,
    pub approval_ttl_seconds: i32,
    pub approver_roles: Vec<String>,
    pub rate_limit: Option<Value>,
    pub allowed_scopes: Value,
    /// See [`super::configs::cost`].
    pub costs: Value,
    pub settings: Value,
    pub version: i32,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

pub async fn config(tx: &mut TenantTx, skill: &str) -> Result<Option<ConfigRow>> {
    sqlx::query_as!(
        ConfigRow,
        r#"select id as "id: SkillConfigId", skill_name, enabled, requires_approval, approval_actions, disabled_actions, approval_ttl_seconds,
                  approver_roles, rate_limit, allowed_scopes, costs, settings, version, created_at, updated_at
           from skill_configs where skill_name = $1"#,
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn config_by_id(tx: &mut TenantTx, id: SkillConfigId) -> Result<Option<ConfigRow>> {
    sqlx::query_as!(
        ConfigRow,
        r#"select id as "id: SkillConfigId", skill_name, enabled, requires_approval, approval_actions, disabled_actions, approval_ttl_seconds,
                  approver_roles, rate_limit, allowed_scopes, costs, settings, version, created_at, updated_at
           from skill_configs where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list_configs(tx: &mut TenantTx, page: PageRequest) -> Result<Taken<ConfigRow>> {
    let rows = sqlx::query_as!(
        ConfigRow,
        r#"select id as "id: SkillConfigId", skill_name, enabled, requires_approval, approval_actions, disabled_actions, approval_ttl_seconds,
                  approver_roles, rate_limit, allowed_scopes, costs, settings, version, created_at, updated_at
           from skill_configs where ($1::uuid is null or id < $1) order by id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch(&mut **tx);
    page.take(rows, |row| {
        json_bytes([&row.allowed_scopes, &row.costs, &row.settings])
    })
    .await
}

/// Writes all that can be set; `false` where the version is not the one that the client has seen.
pub async fn update_config(tx: &mut TenantTx, row: &ConfigRow, seen: Option<i32>) -> Result<bool> {
    let updated = sqlx::query!(
        "update skill_configs set enabled = $2, requires_approval = $3, approval_actions = $4, disabled_actions = $5, approval_ttl_seconds = $6,
                approver_roles = $7, rate_limit = $8, allowed_scopes = $9, settings = $10, costs = $11, version = version + 1, updated_at = now()
         where id = $1 and ($12::int is null or version = $12)",
        row.id.uuid(),
        row.enabled,
        row.requires_approval,
        &row.approval_actions,
        &row.disabled_actions,
        row.approval_ttl_seconds,
        &row.approver_roles,
        row.rate_limit,
        row.allowed_scopes,
        row.settings,
        row.costs,
        seen
    )
    .execute(&mut **tx)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// A use of a skill, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    number: i64,
    at: OffsetDateTime,
}

/// Numbers one use more of the skill; how long it has to wait, where the limit leaves no room for it: then the
/// transaction is not to be committed. Others that use the skill wait until the transaction ends.
pub async fn number_use(
    tx: &mut TenantTx,
    skill: &str,
    limit: Option<RateLimit>,
) -> Result<std::result::Result<Use, Duration>> {
    let per = limit.map_or(Duration::ZERO, RateLimit::per);
    let used = sqlx::query!(
        r#"select number as "number!", moment as "at!", wait from number_use($1, $2, $3)"#,
        skill,
        limit.map(|limit| limit.max_actions),
        per.as_secs_f64()
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(match used.wait {
        Some(wait) => Err(Duration::from_secs_f64(wait)),
        None => Ok(Use {
            number: used.number,
            at: used.at,
        }),
    })
}

/// What changes when something changes that the tenant's calls are decided by.
pub async fn stamps(tx: &mut TenantTx) -> Result<String> {
    sqlx::query_scalar!(r#"select current_stamps() as "stamps!""#)
        .fetch_one(&mut **tx)
        .await
}

pub struct CallRow {
    pub id: SkillCallId,
    pub task_id: Option<TaskId>,
    pub task_step: Option<i32>,
    pub agent_id: Option<AgentId>,
    pub actor: String,
    pub idempotency_key: String,
    pub request_sha256: Vec<u8>,
    pub skill_name: String,
    pub action: String,
    pub params: Value,
    pub status: String,
    pub skill_config_id: Option<SkillConfigId>,
    pub instance_id: Option<InstanceId>,
    pub plugin_digest: Option<String>,
    pub settings: Option<Value>,
    pub approval_id: Option<ApprovalId>,
    pub actor_context: Option<Value>,
    pub policy_verdict: Option<Value>,
    pub detached: bool,
    pub attempts: i32,
    pub refusals: i32,
    pub idempotent: Option<bool>,
    pub rate_counted_at: Option<OffsetDateTime>,
    /// What it was expected to cost when it began, in millionths of a US dollar; 0 where nobody knows.
    pub cost_micro_usd: i64,
    pub credentials_used: Value,
    pub output: Option<Value>,
    pub summary: Option<String>,
    pub error: Option<Value>,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
}

impl CallRow {
    fn json_bytes(&self) -> usize {
        let kept = [&self.settings, &self.actor_context, &self.policy_verdict];
        let ended = [&self.output, &self.error];
        let told = self.summary.as_ref().map_or(0, String::len);
        json_bytes([&self.params]) + json_bytes(kept.into_iter().chain(ended).flatten()) + told
    }

    pub fn status(&self) -> CallStatus {
        CallStatus::parse(&self.status)
    }

    pub fn turn(&self) -> Turn {
        Turn {
            call: self.id,
            attempts: self.attempts,
        }
    }
}

/// A running call, as whoever works on it knows it. Where it was begun anew meanwhile, or has ended, it is somebody
/// else's: what is written under an old turn changes nothing, and is answered with `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub call: SkillCallId,
    pub attempts: i32,
}

macro_rules! call_query {
    ($where:literal $(, $arg:expr)*) => {
        call_query!("select " => " from skill_calls where " + $where $(, $arg)*)
    };
    // What stands before the columns, and after them.
    ($before:literal => $after:literal $(+ $more:literal)? $(, $arg:expr)*) => {
        sqlx::query_as!(
            CallRow,
            $before + r#"id as "id: SkillCallId", task_id as "task_id: TaskId", task_step, agent_id as "agent_id: AgentId", actor, idempotency_key,
                      request_sha256, skill_name, action, params, status, skill_config_id as "skill_config_id: SkillConfigId",
                      instance_id as "instance_id: InstanceId", plugin_digest, settings, approval_id as "approval_id: ApprovalId",
                      actor_context, policy_verdict,
                      detached, attempts, refusals, idempotent, rate_counted_at, cost_micro_usd, credentials_used, output, summary, error, started_at, finished_at, created_at"# + $after $(+ $more)?
            $(, $arg)*
        )
    };
}

/// A call that was submitted.
pub struct Submitted {
    pub row: CallRow,
    /// See [`stamps`]; of the moment at which a new call was written.
    pub stamps: Option<String>,
}

/// A call as it is before it is written down. It comes back from the database the same, so that what is asked of the
/// plugin is the same whenever the call is taken up.
pub fn draft(id: SkillCallId, request: &CallRequest, now: OffsetDateTime) -> CallRow {
    let (task_id, task_step, agent_id) = match request.origin {
        Origin::Direct => (None, None, None),
        Origin::Task { task, step, agent } => (Some(task), Some(step), agent),
    };
    CallRow {
        id,
        task_id,
        task_step,
        agent_id,
        actor: request.actor.clone(),
        idempotency_key: request.idempotency_key.clone(),
        request_sha256: request.sha256().to_vec(),
        skill_name: request.skill.clone(),
        action: request.action.clone(),
        params: as_kept(request.params.clone()),
        status: CallStatus::Queued.as_str().to_owned(),
        skill_config_id: None,
        instance_id: None,
        plugin_digest: None,
        settings: None,
        approval_id: None,
        actor_context: serde_json::to_value(&request.who).ok(),
        policy_verdict: None,
        detached: false,
        attempts: 0,
        refusals: 0,
        idempotent: None,
        rate_counted_at: None,
        cost_micro_usd: 0,
        credentials_used: Value::Array(Vec::new()),
        output: None,
        summary: None,
        error: None,
        started_at: None,
        finished_at: None,
        created_at: now.truncate_to_microsecond(),
    }
}

/// Writes a new call, or finds the one that bears the same key. Nobody else changes it until the transaction ends.
pub async fn submit(tx: &mut TenantTx, draft: CallRow, lease: Duration) -> Result<Submitted> {
    let tenant = tx.tenant();
    let inserted = sqlx::query!(
        r#"insert into skill_calls (id, tenant_id, task_id, task_step, agent_id, actor, idempotency_key, request_sha256, skill_name, action, params,
                                    status, actor_context, leased_until, created_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'queued', $12, now() + make_interval(secs => $13), $14)
           on conflict on constraint skill_calls_idempotency do nothing
           returning current_stamps() as "stamps!""#,
        draft.id.uuid(),
        tenant.uuid(),
        draft.task_id.map(TaskId::uuid),
        draft.task_step,
        draft.agent_id.map(AgentId::uuid),
        draft.actor,
        draft.idempotency_key,
        draft.request_sha256,
        draft.skill_name,
        draft.action,
        draft.params,
        draft.actor_context,
        lease.as_secs_f64(),
        draft.created_at
    )
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(written) = inserted {
        return Ok(Submitted {
            row: draft,
            stamps: Some(written.stamps),
        });
    }
    let row = call_query!("idempotency_key = $1 for update", draft.idempotency_key)
        .fetch_one(&mut **tx)
        .await?;
    Ok(Submitted { row, stamps: None })
}

pub async fn call(tx: &mut TenantTx, id: SkillCallId) -> Result<Option<CallRow>> {
    call_query!("id = $1", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

pub async fn call_by_key(tx: &mut TenantTx, key: &str) -> Result<Option<CallRow>> {
    call_query!("idempotency_key = $1", key)
        .fetch_optional(&mut **tx)
        .await
}

/// The same, and nobody else changes it until the transaction ends.
pub async fn lock_call(tx: &mut TenantTx, id: SkillCallId) -> Result<Option<CallRow>> {
    call_query!("id = $1 for update", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

pub async fn list_calls(
    tx: &mut TenantTx,
    page: PageRequest,
    status: Option<CallStatus>,
    skill: Option<&str>,
    task: Option<TaskId>,
) -> Result<Taken<CallRow>> {
    let rows = call_query!(
        "($1::uuid is null or id < $1) and ($3::text is null or status = $3) and ($4::text is null or skill_name = $4)
         and ($5::uuid is null or task_id = $5) order by id desc limit $2",
        page.before,
        page.fetch(),
        status.map(CallStatus::as_str),
        skill,
        task.map(TaskId::uuid)
    )
    .fetch(&mut **tx);
    page.take(rows, CallRow::json_bytes).await
}

pub struct Begin<'a> {
    pub config: SkillConfigId,
    pub instance: InstanceId,
    pub digest: &'a str,
    pub settings: &'a Value,
    pub credentials_used: Value,
    pub idempotent: bool,
    pub policy_input: &'a Value,
    pub policy_verdict: &'a Value,
    /// None where it was counted before.
    pub used: Option<Use>,
    pub lease: Duration,
}

/// Begins a call, and counts it.
pub async fn begin(tx: &mut TenantTx, id: SkillCallId, begin: Begin<'_>) -> Result<CallRow> {
    call_query!(
        "update skill_calls set status = 'running', skill_config_id = $2, instance_id = $3, plugin_digest = $4, settings = $5, credentials_used = $6,
                started_at = coalesce(started_at, now()), rate_counted_at = coalesce(rate_counted_at, $11), rate_number = coalesce(rate_number, $12),
                leased_until = now() + make_interval(secs => $7),
                idempotent = $8, policy_input = $9, policy_verdict = $10, cost_micro_usd = case when started_at is null then expected_cost($9) else cost_micro_usd end
         where id = $1 returning " => "",
        id.uuid(),
        begin.config.uuid(),
        begin.instance.uuid(),
        begin.digest,
        begin.settings,
        begin.credentials_used,
        begin.lease.as_secs_f64(),
        begin.idempotent,
        begin.policy_input,
        begin.policy_verdict,
        begin.used.map(|used| used.at),
        begin.used.map(|used| used.number)
    )
    .fetch_one(&mut **tx)
    .await
}

/// What a new call begins with: what it was decided by, and the request that is about to leave.
pub struct Beginning<'a> {
    /// As it is written down: it runs.
    pub row: &'a CallRow,
    /// Under these it was decided; see [`stamps`].
    pub stamps: &'a str,
    pub limit: Option<RateLimit>,
    pub policy_input: &'a Value,
    pub decisions: Option<&'a Value>,
    pub request_digest: &'a str,
    pub journal: &'a str,
    pub lease: Duration,
}

/// What came of beginning a new call. Unless it began, nothing is written.
pub enum Began {
    /// At this moment; it was counted at the other.
    Now {
        started_at: OffsetDateTime,
        counted_at: OffsetDateTime,
    },
    /// Something that it was decided by has changed.
    Changed,
    /// A call that bears its key is there already.
    Written,
    /// The skill was used too often: it has to wait that long.
    Limited(Duration),
}

/// Writes a new call down as one that runs, with its first request as one that may have left, in one round trip.
pub async fn begin_new(
    connection: &mut PgConnection,
    tenant: TenantId,
    beginning: Beginning<'_>,
) -> Result<Began> {
    let Beginning { row, limit, .. } = beginning;
    let per = limit.map_or(Duration::ZERO, RateLimit::per);
    let came = sqlx::query!(
        r#"select came_to as "came_to!", wait, began_at, counted_at from begin_call(
               of_tenant => $1, stamps_seen => $2, uses_max => $3, per_seconds => $4, lease_seconds => $5,
               call => $6, of_task => $7, step => $8, of_agent => $9, who => $10, who_as => $11, key => $12, request => $13,
               skill => $14, asked => $15, asked_with => $16, made_at => $17,
               config => $18, instance => $19, digest => $20, set_to => $21, credentials => $22, repeatable => $23,
               input => $24, verdict => $25, decisions => $26, request_digest => $27, journal => $28)"#,
        tenant.uuid(),
        beginning.stamps,
        limit.map(|limit| limit.max_actions),
        per.as_secs_f64(),
        beginning.lease.as_secs_f64(),
        row.id.uuid(),
        row.task_id.map(TaskId::uuid),
        row.task_step,
        row.agent_id.map(AgentId::uuid),
        row.actor,
        row.actor_context,
        row.idempotency_key,
        row.request_sha256,
        row.skill_name,
        row.action,
        row.params,
        row.created_at,
        row.skill_config_id.map(SkillConfigId::uuid),
        row.instance_id.map(InstanceId::uuid),
        row.plugin_digest,
        row.settings,
        row.credentials_used,
        row.idempotent,
        beginning.policy_input,
        row.policy_verdict,
        beginning.decisions,
        beginning.request_digest,
        beginning.journal
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(
        match (came.came_to.as_str(), came.began_at, came.counted_at) {
            ("begun", Some(started_at), Some(counted_at)) => Began::Now {
                started_at,
                counted_at,
            },
            ("limited", ..) => {
                Began::Limited(Duration::from_secs_f64(came.wait.unwrap_or_default()))
            }
            ("written", ..) => Began::Written,
            _ => Began::Changed,
        },
    )
}

/// Says that somebody works on the call, or comes back to it, until then.
pub async fn extend_lease(tx: &mut TenantTx, id: SkillCallId, lease: Duration) -> Result<()> {
    sqlx::query!(
        "update skill_calls set leased_until = greatest(leased_until, now() + make_interval(secs => $2))
         where id = $1 and status in ('queued', 'running')",
        id.uuid(),
        lease.as_secs_f64()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn await_approval(
    tx: &mut TenantTx,
    id: SkillCallId,
    approval: ApprovalId,
) -> Result<()> {
    sqlx::query!(
        "update skill_calls set status = 'awaiting_approval', approval_id = $2 where id = $1",
        id.uuid(),
        approval.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Where a call must stand to be ended that does not run.
#[derive(Debug, Clone, Copy)]
pub enum Stands {
    /// Written down, and not begun.
    NotBegun,
    Unknown,
}

impl Stands {
    fn statuses(self) -> Vec<String> {
        let statuses: &[CallStatus] = match self {
            Self::NotBegun => &[CallStatus::Queued, CallStatus::AwaitingApproval],
            Self::Unknown => &[CallStatus::OutcomeUnknown],
        };
        statuses.iter().map(|s| s.as_str().to_owned()).collect()
    }
}

/// What a call ends with.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub status: CallStatus,
    pub output: Option<&'a Value>,
    pub summary: Option<&'a str>,
    pub error: Option<&'a CallFailure>,
}

impl<'a> End<'a> {
    pub fn badly(status: CallStatus, error: &'a CallFailure) -> Self {
        Self {
            status,
            output: None,
            summary: None,
            error: Some(error),
        }
    }
}

/// Ends a call that does not run, and whatever approval of it is still open; `false` where it does not stand there.
pub async fn finish(
    tx: &mut TenantTx,
    id: SkillCallId,
    stands: Stands,
    end: End<'_>,
) -> Result<bool> {
    let error = end.error.and_then(|e| serde_json::to_value(e).ok());
    let done = sqlx::query!(
        r#"with ended as (
             update skill_calls set status = $2, output = $3, summary = $4, error = $5, finished_at = now(), leased_until = null
             where id = $1 and status = any($6) returning id),
           closed as (
             update approvals set status = 'expired', decided_at = coalesce(decided_at, now())
             where call_id = $1 and exists (select from ended) and status in ('pending', 'approved'))
           select exists (select from ended) as "done!""#,
        id.uuid(),
        end.status.as_str(),
        end.output,
        end.summary,
        error,
        &stands.statuses()
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(done.done)
}

/// The end of a call that runs.
pub struct Ended<'a> {
    pub turn: Turn,
    /// The number and the content of the reply that came last, where it is not kept yet.
    pub reply: Option<(i32, &'a Value)>,
    pub end: End<'a>,
    /// What tells of it in the trace.
    pub step: NewStep,
}

/// Ends a call that runs, keeps its last reply, and writes the step that tells of it; nothing of that, and `None`, where
/// the call does not run in this turn any more. In one round trip, also where the connection is in no transaction.
pub async fn end(
    connection: &mut PgConnection,
    tenant: TenantId,
    ended: Ended<'_>,
) -> Result<Option<OffsetDateTime>> {
    let Ended {
        turn,
        reply,
        end,
        step,
    } = ended;
    let error = end.error.and_then(|e| serde_json::to_value(e).ok());
    let task = match step.subject {
        Subject::Task(task) => Some(task.uuid()),
        Subject::Call(_) => None,
    };
    sqlx::query_scalar!(
        r#"select end_call(of_tenant => $1, call => $2, attempt => $3, reply_seq => $4, last_reply => $5,
                           ends_as => $6, ends_with => $7, told => $8, failure => $9,
                           step => $10, of_task => $11, step_key => $12, of_agent => $13, what => $14, took_ms => $15)"#,
        tenant.uuid(),
        turn.call.uuid(),
        turn.attempts,
        reply.map(|(seq, _)| seq),
        reply.map(|(_, reply)| reply),
        end.status.as_str(),
        end.output,
        end.summary,
        error,
        TraceId::fresh().uuid(),
        task,
        step.key,
        step.agent.map(AgentId::uuid),
        step.details,
        step.duration_ms()
    )
    .fetch_one(connection)
    .await
}

/// A person said: send it again. What is sent again has ids of its own, so the consent is used up with this.
pub async fn try_again(tx: &mut TenantTx, id: SkillCallId, lease: Duration) -> Result<()> {
    sqlx::query!(
        "with again as (
             update skill_calls set status = 'running', attempts = attempts + 1, refusals = 0, error = null, finished_at = null,
                    cost_micro_usd = cost_micro_usd + expected_cost(policy_input), leased_until = now() + make_interval(secs => $2)
             where id = $1 and status = 'outcome_unknown' returning id)
         delete from skill_call_requests where call_id = $1 and exists (select from again)
           and seq >= (select coalesce(min(seq) filter (where status <> 'finished'), max(seq)) from skill_call_requests where call_id = $1)",
        id.uuid(),
        lease.as_secs_f64()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Nothing of the attempt happened: the call begins anew, with other ids for its requests.
pub async fn next_attempt(tx: &mut TenantTx, turn: Turn) -> Result<bool> {
    let done = sqlx::query!(
        "with anew as (
             update skill_calls set attempts = attempts + 1, refusals = refusals + 1
             where id = $1 and attempts = $2 and status = 'running' returning id),
         gone as (delete from skill_call_requests where call_id = $1 and exists (select from anew))
         select id from anew",
        turn.call.uuid(),
        turn.attempts
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(done.is_some())
}

/// One request did not leave, or may be repeated: it goes out under another id, and the replies before it stand.
pub async fn send_anew(tx: &mut TenantTx, turn: Turn, seq: i32) -> Result<bool> {
    let done = sqlx::query!(
        "with anew as (
             update skill_calls set attempts = attempts + 1
             where id = $1 and attempts = $2 and status = 'running' returning id),
         gone as (delete from skill_call_requests where call_id = $1 and exists (select from anew) and seq = $3 and status <> 'finished')
         select id from anew",
        turn.call.uuid(),
        turn.attempts,
        seq
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(done.is_some())
}

/// Ends the calls of a task of which nothing can have left, and detaches the others from it.
pub async fn release_calls_of(tx: &mut TenantTx, task: TaskId) -> Result<()> {
    sqlx::query!(
        "with cancelled as (
             update skill_calls c set status = 'cancelled', finished_at = now(), leased_until = null
             where task_id = $1 and (status in ('queued', 'awaiting_approval')
                or status = 'running' and not exists (select from skill_call_requests r where r.call_id = c.id)) returning id)
         update approvals set status = 'expired', decided_at = coalesce(decided_at, now())
         where call_id in (select id from cancelled) and status in ('pending', 'approved')",
        task.uuid()
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "update skill_calls set detached = true where task_id = $1 and status in ('running', 'outcome_unknown')",
        task.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub struct RequestRow {
    pub seq: i32,
    /// The call's attempt under which it was sent.
    pub attempt: Option<i32>,
    pub digest: String,
    pub journal_id: Option<String>,
    pub reply: Option<Value>,
    pub sent_seconds_ago: f64,
}

pub async fn requests(tx: &mut TenantTx, call: SkillCallId) -> Result<Vec<RequestRow>> {
    sqlx::query_as!(
        RequestRow,
        r#"select seq, attempt, digest, journal_id, reply, extract(epoch from clock_timestamp() - sent_at)::float8 as "sent_seconds_ago!"
           from skill_call_requests where call_id = $1 order by seq"#,
        call.uuid()
    )
    .fetch_all(&mut **tx)
    .await
}

/// Whether a request of the call may have left, answered or not.
pub async fn may_have_sent(tx: &mut TenantTx, call: SkillCallId) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from skill_call_requests where call_id = $1) as "any!""#,
        call.uuid()
    )
    .fetch_one(&mut **tx)
    .await
}

/// Notes that a request is about to leave, and that the call is being worked on: its lease is extended where half of it
/// is gone, as each change of it changes all indexes of the call.
pub async fn sending(
    tx: &mut TenantTx,
    turn: Turn,
    seq: i32,
    digest: &str,
    journal: &str,
    lease: Duration,
) -> Result<bool> {
    let tenant = tx.tenant();
    let noted = sqlx::query!(
        "with ours as (
             select id from skill_calls where id = $2 and attempts = $3 and status = 'running' for no key update),
           held as (
             update skill_calls set leased_until = now() + make_interval(secs => $7)
             where id = $2 and exists (select from ours) and leased_until < now() + make_interval(secs => $7::float8 / 2))
         insert into skill_call_requests (tenant_id, call_id, attempt, seq, digest, journal_id, status)
         select $1, id, $3, $4, $5, $6, 'sending' from ours
         on conflict do nothing",
        tenant.uuid(),
        turn.call.uuid(),
        turn.attempts,
        seq,
        digest,
        journal,
        lease.as_secs_f64()
    )
    .execute(&mut **tx)
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// Keeps a reply; one that was kept before stays.
pub async fn replied(tx: &mut TenantTx, turn: Turn, seq: i32, reply: &Value) -> Result<bool> {
    let ours = sqlx::query!(
        "with ours as (
             select id from skill_calls where id = $1 and attempts = $2 and status = 'running' for no key update),
         kept as (
             update skill_call_requests set status = 'finished', reply = $4, finished_at = now()
             where call_id = $1 and exists (select from ours) and seq = $3 and status <> 'finished')
         select id from ours",
        turn.call.uuid(),
        turn.attempts,
        seq,
        reply
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(ours.is_some())
}

/// Calls that were made over the API, or whose task has ended, and that nobody works on any more.
pub async fn abandoned(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, SkillCallId)>> {
    let rows = sqlx::query!(
        r#"select tenant_id as "tenant: TenantId", id as "id: SkillCallId" from skill_calls
           where status in ('queued', 'running') and (task_id is null or detached)
             and coalesce(leased_until, created_at + interval '2 minutes') < now() order by leased_until limit $1"#,
        limit
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.tenant, row.id)).collect())
}

/// Takes such a call, for as long as the lease; nothing where somebody else came first.
pub async fn take_abandoned(
    tx: &mut TenantTx,
    id: SkillCallId,
    lease: Duration,
) -> Result<Option<CallRow>> {
    let taken = sqlx::query!(
        "update skill_calls set leased_until = now() + make_interval(secs => $2)
         where id = $1 and status in ('queued', 'running') and (task_id is null or detached)
           and coalesce(leased_until, created_at + interval '2 minutes') < now()",
        id.uuid(),
        lease.as_secs_f64()
    )
    .execute(&mut **tx)
    .await?;
    match taken.rows_affected() {
        0 => Ok(None),
        _ => call(tx, id).await,
    }
}

/// A call that was refused before it began is made again under its key: nothing of it has happened.
pub async fn revive(tx: &mut TenantTx, id: SkillCallId, lease: Duration) -> Result<()> {
    sqlx::query!(
        "update skill_calls set status = 'queued', error = null, finished_at = null, leased_until = now() + make_interval(secs => $2)
         where id = $1 and status in ('rejected', 'failed') and started_at is null and error ? 'refused_with'",
        id.uuid(),
        lease.as_secs_f64()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub struct ApprovalRow {
    pub id: ApprovalId,
    pub task_id: Option<TaskId>,
    pub call_id: SkillCallId,
    pub workflow_id: String,
    pub status: String,
    pub fingerprint: Vec<u8>,
    pub request: Value,
    pub reason: String,
    pub roles: Vec<String>,
    pub role_sets: Value,
    pub second_person: bool,
    pub on_behalf_of_key: Option<ApiKeyId>,
    pub requested_by: String,
    pub expires_at: OffsetDateTime,
    pub decided_by: Option<String>,
    /// Those that they had then; none in what was decided before these were written down.
    pub decided_with_roles: Option<Vec<String>>,
    pub decided_at: Option<OffsetDateTime>,
    pub note: Option<String>,
    pub created_at: OffsetDateTime,
}

macro_rules! approval_query {
    ($where:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            ApprovalRow,
            r#"select id as "id: ApprovalId", task_id as "task_id: TaskId", call_id as "call_id: SkillCallId", workflow_id, status, fingerprint,
                      request, reason, roles, role_sets, second_person, on_behalf_of_key as "on_behalf_of_key: ApiKeyId", requested_by, expires_at,
                      decided_by, decided_with_roles, decided_at, note, created_at
               from approvals where "# + $where
            $(, $arg)*
        )
    };
}

pub struct NewApproval<'a> {
    pub id: ApprovalId,
    pub task: Option<TaskId>,
    pub call: SkillCallId,
    pub workflow_id: &'a str,
    pub fingerprint: &'a [u8; 32],
    pub request: &'a Value,
    pub reason: &'a str,
    pub roles: &'a [String],
    pub role_sets: &'a Value,
    pub second_person: bool,
    pub on_behalf_of: &'a str,
    pub on_behalf_of_key: Option<ApiKeyId>,
    pub requested_by: &'a str,
    pub expires_at: OffsetDateTime,
}

pub async fn insert_approval(tx: &mut TenantTx, new: NewApproval<'_>) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into approvals (id, tenant_id, task_id, call_id, workflow_id, status, fingerprint, request, reason, roles, requested_by, expires_at,
                                role_sets, second_person, on_behalf_of, on_behalf_of_key)
         values ($1, $2, $3, $4, $5, 'pending', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        new.id.uuid(),
        tenant.uuid(),
        new.task.map(TaskId::uuid),
        new.call.uuid(),
        new.workflow_id,
        new.fingerprint.as_slice(),
        new.request,
        new.reason,
        new.roles,
        new.requested_by,
        new.expires_at,
        new.role_sets,
        new.second_person,
        new.on_behalf_of,
        new.on_behalf_of_key.map(ApiKeyId::uuid)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn lock_approval(tx: &mut TenantTx, id: ApprovalId) -> Result<Option<ApprovalRow>> {
    approval_query!("id = $1 for update", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

pub async fn approval(tx: &mut TenantTx, id: ApprovalId) -> Result<Option<ApprovalRow>> {
    approval_query!("id = $1", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

/// The one that the task waits for; where it waits for none, the last one.
pub async fn latest_of_task(tx: &mut TenantTx, task: TaskId) -> Result<Option<ApprovalRow>> {
    approval_query!(
        "task_id = $1 order by status = 'pending' desc, id desc limit 1",
        task.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list_approvals(
    tx: &mut TenantTx,
    page: PageRequest,
    status: Option<&str>,
) -> Result<Taken<ApprovalRow>> {
    let rows = approval_query!("($1::uuid is null or id < $1) and ($3::text is null or status = $3) order by id desc limit $2", page.before, page.fetch(), status)
        .fetch(&mut **tx);
    page.take(rows, |row| json_bytes([&row.request, &row.role_sets]))
        .await
}

/// A person who decides.
pub struct Decider<'a> {
    pub name: &'a str,
    pub roles: &'a [String],
}

pub async fn decide_approval(
    tx: &mut TenantTx,
    id: ApprovalId,
    status: &str,
    by: Option<Decider<'_>>,
    note: Option<&str>,
    at: OffsetDateTime,
) -> Result<()> {
    sqlx::query!(
        "update approvals set status = $2, decided_by = coalesce($3, decided_by), note = coalesce($4, note), decided_at = coalesce(decided_at, $5),
                decided_with_roles = coalesce($6, decided_with_roles)
         where id = $1",
        id.uuid(),
        status,
        by.as_ref().map(|by| by.name),
        note,
        at,
        by.as_ref().map(|by| by.roles)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
