//! `/agent-tasks`.

use super::{NewTask, Plan, create, store, store::Message};
use crate::{
    agents,
    app::App,
    caller::{Caller, Permission},
    db::TenantTx,
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query, only},
    id::{AgentId, ApprovalId, TaskId},
    outbox,
    page::{Page, PageQuery, PageRequest},
    problem::{Problem, ProblemBody},
    skills::{
        approvals::{self, Decision, Which},
        http::{Approval, check_note},
    },
    tenants::{self, Claim, claim},
    traces::{
        self, TraceStep,
        live::{self, NoPlace},
    },
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{convert::Infallible, time::Duration};
use time::OffsetDateTime;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Trace steps that one answer holds.
const TRACE_STEPS_MAX: i64 = 1000;
/// A live view looks this often though nothing woke it.
const LIVE_POLL: Duration = Duration::from_secs(15);
/// Events that wait for a slow reader.
const LIVE_BUFFER: usize = 64;
/// How long a reader may take nothing, until its view is ended.
const LIVE_READER_WAIT: Duration = Duration::from_secs(60);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_task, list_tasks))
        .routes(routes!(get_task))
        .routes(routes!(read_trace))
        .routes(routes!(read_messages))
        .routes(routes!(approve_task))
        .routes(routes!(reject_task))
        .routes(routes!(cancel_task))
}

/// How urgent a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    Normal,
    High,
    Urgent,
}

impl Priority {
    fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    Queued,
    Thinking,
    Executing,
    WaitingInput,
    Delegated,
    Completed,
    Failed,
    Cancelled,
}

impl TaskStatus {
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Thinking,
        Self::Executing,
        Self::WaitingInput,
        Self::Delegated,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Thinking => "thinking",
            Self::Executing => "executing",
            Self::WaitingInput => "waiting_input",
            Self::Delegated => "delegated",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Something that an agent is to get done.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct AgentTask {
    pub id: TaskId,
    pub objective: String,
    #[schema(value_type = TaskStatus)]
    pub status: String,
    pub priority: String,
    pub agent_id: Option<AgentId>,
    pub parent_task_id: Option<TaskId>,
    pub capabilities: Vec<String>,
    pub plan: Value,
    /// What a person is asked, or what is away.
    pub waiting_for: Option<Value>,
    pub output: Option<Value>,
    pub error: Option<Value>,
    pub confidence: Option<f64>,
    pub tokens_used: i64,
    /// What its calls had cost when it ended, in millionths of a US dollar; without the tasks that it delegated.
    pub cost_micro_usd: i64,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cancel_requested_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

impl From<store::TaskRow> for AgentTask {
    fn from(row: store::TaskRow) -> Self {
        Self {
            id: row.id,
            objective: row.objective,
            status: row.status,
            priority: row.priority,
            agent_id: row.agent_id,
            parent_task_id: row.parent_task_id,
            capabilities: row.capabilities,
            plan: row.plan,
            waiting_for: row.waiting_for,
            output: row.output,
            error: row.error,
            confidence: row.confidence,
            tokens_used: row.tokens_used,
            cost_micro_usd: row.cost_micro_usd,
            created_by: row.created_by,
            cancel_requested_at: row.cancel_requested_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewAgentTask {
    /// What is to be done, in words. 1 to 4000 characters.
    pub objective: String,
    pub priority: Option<Priority>,
    /// Leaves the choice to the dispatcher where it is left out.
    pub agent_id: Option<AgentId>,
    /// What the agent should be able to do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default)]
    pub plan: Plan,
}

/// Create a task
///
/// It starts at once and goes on by itself; follow it by its trace.
#[utoipa::path(post, path = "/agent-tasks", tag = "tasks", request_body = NewAgentTask,
    responses((status = 201, body = AgentTask), (status = 422, body = ProblemBody)))]
async fn create_task(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewAgentTask>,
) -> Result<(StatusCode, Json<AgentTask>), Problem> {
    caller.require(Permission::Act)?;
    let new = body.value;
    check(&new)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    if let Some(agent) = new.agent_id
        && !agents::exists(&mut tx, agent).await?
    {
        return Err(Problem::invalid_field(
            "/agent_id",
            "is no agent of this tenant",
        ));
    }
    let id = match claim(&mut tx, "create_task", key.as_deref(), &body.sha256).await? {
        Claim::Repeat(id) => TaskId(id),
        Claim::New(id) => {
            let task = NewTask {
                id: TaskId(id),
                objective: &new.objective,
                priority: new.priority.unwrap_or(Priority::Normal).as_str(),
                agent: new.agent_id,
                parent: None,
                depth: 0,
                capabilities: &new.capabilities,
                plan: &new.plan,
                created_by: &caller.name,
                created_by_key: Some(caller.key),
            };
            create(&app, &mut tx, &task).await?;
            TaskId(id)
        }
    };
    let task = find(&mut tx, id).await?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok((StatusCode::CREATED, Json(task.into())))
}

fn check(new: &NewAgentTask) -> Result<(), Problem> {
    Problem::check_text("/objective", &new.objective, 1, 4000)?;
    if new.capabilities.len() > 64 {
        return Err(Problem::invalid_field(
            "/capabilities",
            "may have 64 entries",
        ));
    }
    for (i, capability) in new.capabilities.iter().enumerate() {
        Problem::check_line(&format!("/capabilities/{i}"), capability, 1, 100)?;
    }
    new.plan.check("/plan", 0)
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TasksQuery {
    /// 1 to 200; 50 where it is left out.
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only these.
    pub status: Option<TaskStatus>,
    pub agent_id: Option<AgentId>,
    pub priority: Option<Priority>,
}

/// List the tasks
#[utoipa::path(get, path = "/agent-tasks", tag = "tasks", params(TasksQuery), responses((status = 200, body = Page<AgentTask>)))]
async fn list_tasks(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<TasksQuery>,
) -> Result<Json<Page<AgentTask>>, Problem> {
    caller.require(Permission::Read)?;
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let filter = store::Filter {
        status: query.status.map(TaskStatus::as_str),
        agent: query.agent_id,
        priority: query.priority.map(Priority::as_str),
    };
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list(&mut tx, page, &filter).await?;
    Ok(Json(Page::taken(
        rows,
        |row| row.id.uuid(),
        AgentTask::from,
    )))
}

/// One task
#[utoipa::path(get, path = "/agent-tasks/{id}", tag = "tasks", params(("id" = TaskId, Path)),
    responses((status = 200, body = AgentTask), (status = 404, body = ProblemBody)))]
async fn get_task(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TaskId>,
) -> Result<Json<AgentTask>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(find(&mut tx, id).await?.into()))
}

/// A task's trace
///
/// With `Accept: text/event-stream`, live: each step as an event whose id is its number, until the task ends.
/// `Last-Event-ID` goes on after a step; 204 says that nothing comes after it, and not to ask again.
#[utoipa::path(get, path = "/agent-tasks/{id}/trace", tag = "tasks", params(("id" = TaskId, Path)),
    responses((status = 200, description = "The steps so far; as a stream, each step's JSON as the data of an event",
            content((Vec<TraceStep> = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "The task has ended, and `Last-Event-ID` is its last step."),
        (status = 404, body = ProblemBody)))]
async fn read_trace(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TaskId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let task = find(&mut tx, id).await?;
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !accepts.contains("text/event-stream") {
        return Ok(Json(traces::of_task(&mut tx, id, 0, TRACE_STEPS_MAX).await?).into_response());
    }
    let last_event = only(&headers, "last-event-id")?.and_then(|v| v.to_str().ok());
    let after = match last_event {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Problem::bad_request(
                "invalid_last_event_id",
                "Last-Event-ID must be the id of an event of this stream: a number.",
            )
        })?,
    };
    // A browser that was at the end comes back by itself, for ever, unless it is told not to.
    let nothing_follows = last_event.is_some()
        && task.is_finished()
        && traces::of_task(&mut tx, id, after, 1).await?.is_empty();
    tx.commit().await?;
    if nothing_follows {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = app.live().place(caller.tenant).map_err(no_place)?;
    let (events, stream) = tokio::sync::mpsc::channel::<Result<Event, Infallible>>(LIVE_BUFFER);
    tokio::spawn(async move {
        tokio::select! {
            () = follow(&app, &caller, id, after, &events) => {}
            () = app.live().ended() => {}
        }
        drop(place);
    });
    Ok(Sse::new(ReceiverStream::new(stream))
        .keep_alive(KeepAlive::default())
        .into_response())
}

fn no_place(why: NoPlace) -> Problem {
    match why {
        NoPlace::OfTenant(each) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_live_views",
            format!(
                "{each} live views of your organization are open, as many as may be. Close some, or read the trace without `Accept: text/event-stream`."
            ),
        )
        .with_retry_after(LIVE_POLL),
        NoPlace::OfAll => Problem::unavailable("A place for a live view", LIVE_POLL),
    }
}

/// Sends each step as it is written, until the task has ended and all was sent, until the key is no longer valid, or
/// until nobody reads.
async fn follow(
    app: &App,
    caller: &Caller,
    id: TaskId,
    mut after: i32,
    events: &tokio::sync::mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut watch = app.live().watch();
    loop {
        match look(app, caller, id, after).await {
            Ok(Look::KeyEnded) => return,
            Ok(Look::Steps { steps, finished }) => {
                let all = steps.len() < TRACE_STEPS_MAX as usize;
                for step in steps {
                    after = step.step_order;
                    let sent = tokio::time::timeout(LIVE_READER_WAIT, events.send(event_of(&step)));
                    if !matches!(sent.await, Ok(Ok(()))) {
                        return;
                    }
                }
                match (all, finished) {
                    (true, true) => return,
                    (true, false) => {}
                    (false, _) => continue,
                }
            }
            // Where the database is away, the reader waits with us.
            Err(problem) => tracing::debug!(%problem, task = %id, "live trace: not read now"),
        }
        tokio::select! {
            () = live::changed(&mut watch, id.uuid(), LIVE_POLL) => {}
            () = events.closed() => return,
        }
    }
}

/// What a live view finds.
enum Look {
    Steps {
        steps: Vec<TraceStep>,
        finished: bool,
    },
    KeyEnded,
}

async fn look(app: &App, caller: &Caller, id: TaskId, after: i32) -> Result<Look, Problem> {
    let mut tx = app.db().tenant(caller.tenant).await?;
    if !tenants::is_valid(&mut tx, caller.key, app.clock().now()).await? {
        return Ok(Look::KeyEnded);
    }
    // First, so that the steps of a task that ends just now are whole.
    let had_finished = find(&mut tx, id).await?.is_finished();
    let steps = traces::of_task(&mut tx, id, after, TRACE_STEPS_MAX).await?;
    let finishes = |step: &TraceStep| {
        matches!(
            step.step_type.as_str(),
            "completed" | "failed" | "cancelled"
        )
    };
    let finished = had_finished || steps.iter().any(finishes);
    Ok(Look::Steps { steps, finished })
}

fn event_of(step: &TraceStep) -> Result<Event, Infallible> {
    Ok(Event::default()
        .id(step.step_order.to_string())
        .event(&step.step_type)
        .json_data(step)
        .unwrap_or_default())
}

/// A task's messages
///
/// Newest first.
#[utoipa::path(get, path = "/agent-tasks/{id}/messages", tag = "tasks", params(("id" = TaskId, Path), PageQuery),
    responses((status = 200, body = Page<Message>), (status = 404, body = ProblemBody)))]
async fn read_messages(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Message>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    find(&mut tx, id).await?;
    let rows = store::messages(&mut tx, id, page).await?;
    Ok(Json(Page::taken(
        rows,
        |message| message.id.uuid(),
        |message| message,
    )))
}

#[derive(Deserialize, ToSchema, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct TaskDecision {
    /// Which approval; the one that the task waits for where it is left out.
    pub approval_id: Option<ApprovalId>,
    /// For the trace.
    pub note: Option<String>,
}

/// Approve what a task waits for
#[utoipa::path(post, path = "/agent-tasks/{id}/approve", tag = "tasks", params(("id" = TaskId, Path)), request_body = TaskDecision,
    responses((status = 200, body = Approval), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn approve_task(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Json(body): Json<TaskDecision>,
) -> Result<Json<Approval>, Problem> {
    decide(&app, &caller, id, true, body).await
}

/// Reject what a task waits for
#[utoipa::path(post, path = "/agent-tasks/{id}/reject", tag = "tasks", params(("id" = TaskId, Path)), request_body = TaskDecision,
    responses((status = 200, body = Approval), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn reject_task(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TaskId>,
    Json(body): Json<TaskDecision>,
) -> Result<Json<Approval>, Problem> {
    decide(&app, &caller, id, false, body).await
}

async fn decide(
    app: &App,
    caller: &Caller,
    id: TaskId,
    approve: bool,
    body: TaskDecision,
) -> Result<Json<Approval>, Problem> {
    caller.require(Permission::Approve)?;
    check_note(body.note.as_deref())?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    find(&mut tx, id).await?;
    tx.commit().await?;
    let which = body.approval_id.map_or(Which::PendingOf(id), |approval| {
        Which::ApprovalOf(id, approval)
    });
    let approval = approvals::decide(
        app,
        caller,
        which,
        &Decision {
            approve,
            note: body.note,
        },
    )
    .await?;
    Ok(Json(approval.into()))
}

/// Cancel a task
///
/// What was sent is not taken back; nothing further is sent. Cancelling again changes nothing.
#[utoipa::path(post, path = "/agent-tasks/{id}/cancel", tag = "tasks", params(("id" = TaskId, Path)),
    responses((status = 202, body = AgentTask), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn cancel_task(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<TaskId>,
) -> Result<(StatusCode, Json<AgentTask>), Problem> {
    caller.require(Permission::Act)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = find(&mut tx, id).await?;
    if row.is_finished() && row.status != "cancelled" {
        return Err(Problem::conflict(
            "task_finished",
            format!("The task is {} already.", row.status),
        ));
    }
    if row.cancel_requested_at.is_none() {
        store::request_cancel(&mut tx, id, app.clock().now()).await?;
        outbox::push(
            &mut tx,
            outbox::Kind::Cancel,
            &id.to_string(),
            &format!("cancelled by {}", caller.key),
            (),
        )
        .await?;
    }
    let row = find(&mut tx, id).await?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok((StatusCode::ACCEPTED, Json(row.into())))
}

async fn find(tx: &mut TenantTx, id: TaskId) -> Result<store::TaskRow, Problem> {
    store::get(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("task"))
}
