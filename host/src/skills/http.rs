//! `/skills/{skill}/{action}`, `/skill-calls`, `/skill-configs` and `/approvals`.

use super::{
    Advanced, CallFailure, CallRequest, CallStatus, Origin, Outcome, Who, WhoKind,
    activities::take_further,
    approvals::{self, Decision, Resolution, Which},
    configs::{self, RateLimit},
    deciding,
    dry_run::{DryRun, dry_run},
    router::{self, find},
    store,
};
use crate::{
    app::App,
    caller::{Caller, Permission, Role},
    extract::{IdempotencyKey, IfMatch, Json, Path, Query, etag},
    id::{ApprovalId, SkillCallId, SkillConfigId, TaskId, TenantId, TraceId},
    page::{Page, PageQuery, PageRequest},
    problem::{Problem, ProblemBody, RETRY_AFTER_DEFAULT},
    traces::{self, TraceStep},
};
use axum::{
    extract::State,
    http::{HeaderName, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// So long before its request is cut off a client is told of a call that goes on.
const TOLD_BEFORE: Duration = Duration::from_secs(5);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(call_skill))
        .routes(routes!(list_calls))
        .routes(routes!(get_call))
        .routes(routes!(trace_call))
        .routes(routes!(resolve_call))
        .routes(routes!(list_configs))
        .routes(routes!(get_config, update_config))
        .routes(routes!(list_approvals))
        .routes(routes!(get_approval))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct CallBody {
    /// What the action's `params_schema` describes.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub params: serde_json::Map<String, Value>,
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CallQuery {
    /// `true` shows what would happen, and does none of it.
    #[serde(default)]
    pub dry_run: bool,
}

/// A call of a skill.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct SkillCall {
    pub id: SkillCallId,
    pub task_id: Option<TaskId>,
    pub skill: String,
    pub action: String,
    pub params: Value,
    pub actor: String,
    pub status: CallStatus,
    pub approval_id: Option<ApprovalId>,
    pub plugin_digest: Option<String>,
    /// By their masks: `bot_token:****a3f2`.
    pub credentials_used: Value,
    /// In millionths of a US dollar, as the skill's configuration named it when the call began, for each time that a person
    /// had it sent; 0 where it names no cost of the action.
    /// Nothing of it is spent where the call failed and the service refused each request that left.
    pub expected_cost_micro_usd: i64,
    /// What the policies said of it; null where it did not come before them.
    pub policies: Option<Value>,
    pub output: Option<Value>,
    pub summary: Option<String>,
    pub error: Option<CallFailure>,
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

impl From<store::CallRow> for SkillCall {
    fn from(row: store::CallRow) -> Self {
        Self {
            status: row.status(),
            id: row.id,
            task_id: row.task_id,
            skill: row.skill_name,
            action: row.action,
            params: row.params,
            actor: row.actor,
            approval_id: row.approval_id,
            plugin_digest: row.plugin_digest,
            credentials_used: row.credentials_used,
            expected_cost_micro_usd: row.cost_micro_usd,
            policies: row.policy_verdict,
            output: row.output,
            summary: row.summary,
            error: row.error.and_then(|json| serde_json::from_value(json).ok()),
            started_at: row.started_at,
            finished_at: row.finished_at,
            created_at: row.created_at,
        }
    }
}

/// The call as it was made; or, of a dry run, what would happen.
#[derive(Serialize, ToSchema, Debug)]
#[serde(untagged)]
pub enum CallAnswer {
    Call(Box<SkillCall>),
    DryRun(Box<DryRun>),
}

/// Call a skill
///
/// Answers when the service has. Where a person must agree first, or the instance is away, answers 202 and the call
/// goes on by itself. With an Idempotency-Key, the same call sent again has no second effect and gets the same answer.
#[utoipa::path(post, path = "/skills/{skill}/{action}", tag = "skills",
    params(("skill" = String, Path), ("action" = String, Path), CallQuery), request_body = CallBody,
    responses((status = 200, body = CallAnswer, description = "Done; with `dry_run=true`, what would be done"), (status = 202, body = SkillCall),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody), (status = 502, body = ProblemBody), (status = 503, body = ProblemBody)))]
async fn call_skill(
    State(app): State<App>,
    caller: Caller,
    Path((skill, action)): Path<(String, String)>,
    Query(query): Query<CallQuery>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<CallBody>,
) -> Result<Response, Problem> {
    caller.require(Permission::Act)?;
    let request = CallRequest {
        idempotency_key: format!(
            "direct:{}",
            key.unwrap_or_else(|| TraceId::fresh().to_string())
        ),
        skill,
        action,
        params: Value::Object(body.params),
        actor: caller.name.clone(),
        who: who(&caller),
        origin: Origin::Direct,
    };
    if query.dry_run {
        let shown: DryRun = dry_run(&app, caller.tenant, &request).await?;
        return Ok(Json(CallAnswer::DryRun(Box::new(shown))).into_response());
    }
    // It goes on though the client hangs up, or has waited long enough: what is sent must be noted.
    let key = request.idempotency_key.clone();
    let run = tokio::spawn(make(app.clone(), caller.tenant, request));
    let Ok(ran) = tokio::time::timeout(patience(&app), run).await else {
        return goes_on(&app, caller.tenant, &key).await;
    };
    let advanced = ran.map_err(|e| Problem::internal(&e))??;
    let row = match advanced.ended {
        Some(row) => *row,
        None => {
            let mut tx = app.db().tenant(caller.tenant).await?;
            find(&mut tx, advanced.call).await?
        }
    };
    answer(row.into(), &advanced.outcome)
}

/// How long a client waits for a call: less than its request may take, so that it is told of the call.
fn patience(app: &App) -> Duration {
    let request = Duration::from_secs(app.config().http.request_timeout_seconds.into());
    request.saturating_sub(TOLD_BEFORE).max(request / 2)
}

/// The answer to a call that takes longer than a client waits.
async fn goes_on(app: &App, tenant: TenantId, key: &str) -> Result<Response, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::call_by_key(&mut tx, key).await?.ok_or_else(|| {
        Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "call_not_begun",
            "The call has not begun yet, and may still. Look for it with GET /api/v1/skill-calls before you make it again, or make it with the same Idempotency-Key.",
        )
    })?;
    let waits = Outcome::Waiting {
        what: "the service".to_owned(),
        retry_after: RETRY_AFTER_DEFAULT,
    };
    let outcome = router::settled(&row).unwrap_or(waits);
    answer(SkillCall::from(row), &outcome)
}

/// Makes a call, and sees to it that somebody goes on where it has to wait.
async fn make(app: App, tenant: TenantId, request: CallRequest) -> Result<Advanced, Problem> {
    let advanced = router::make(&app, tenant, &request).await?;
    if let Outcome::Waiting { .. } = advanced.outcome {
        take_further(&app, tenant, advanced.call).await?;
    }
    Ok(advanced)
}

/// A person came with a key of their own; anything else is a program.
fn who(caller: &Caller) -> Who {
    Who {
        kind: match caller.user {
            Some(_) => WhoKind::Person,
            None => WhoKind::System,
        },
        id: caller
            .user
            .map_or_else(|| caller.key.to_string(), |user| user.to_string()),
        roles: caller
            .roles
            .iter()
            .map(|role| role.as_str().to_owned())
            .collect(),
        trust: 1.0,
        delegation_depth: 0,
        on_behalf_of: caller.name.clone(),
        on_behalf_of_key: Some(caller.key),
    }
}

fn answer(call: SkillCall, outcome: &Outcome) -> Result<Response, Problem> {
    match outcome {
        Outcome::Succeeded { .. } => Ok(Json(CallAnswer::Call(Box::new(call))).into_response()),
        Outcome::AwaitingApproval { .. } | Outcome::Waiting { .. } => {
            let location = [(
                HeaderName::from_static("location"),
                format!("/api/v1/skill-calls/{}", call.id),
            )];
            Ok((StatusCode::ACCEPTED, location, Json(call)).into_response())
        }
        Outcome::OutcomeUnknown { message } => {
            Err(
                Problem::new(StatusCode::BAD_GATEWAY, "outcome_unknown", message.as_str())
                    .with("call_id", call.id),
            )
        }
        Outcome::Failed(failure) if failure.code == deciding::POLICY_DENIED => Err(
            Problem::forbidden(deciding::POLICY_DENIED, failure.message.as_str())
                .with("call_id", call.id),
        ),
        Outcome::Failed(failure) => {
            let refused = failure.refused_with.map(StatusCode::from_u16);
            let (status, code) = match refused {
                Some(Ok(status)) => (status, "call_refused"),
                _ => (StatusCode::BAD_GATEWAY, "call_failed"),
            };
            Err(Problem::new(status, code, failure.message.as_str())
                .with("call_id", call.id)
                .with("failure", failure))
        }
    }
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CallsQuery {
    /// 1 to 200; 50 where it is left out.
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only these: `outcome_unknown` and `awaiting_approval` wait for a person.
    pub status: Option<CallStatus>,
    /// Only of this skill.
    pub skill: Option<String>,
    /// Only of this task.
    pub task_id: Option<TaskId>,
}

/// List the skill calls
#[utoipa::path(get, path = "/skill-calls", tag = "skills", params(CallsQuery), responses((status = 200, body = Page<SkillCall>)))]
async fn list_calls(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<CallsQuery>,
) -> Result<Json<Page<SkillCall>>, Problem> {
    caller.require(Permission::Read)?;
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let skill = query.skill.as_deref();
    let rows = store::list_calls(&mut tx, page, query.status, skill, query.task_id).await?;
    Ok(Json(Page::taken(
        rows,
        |row| row.id.uuid(),
        SkillCall::from,
    )))
}

/// One skill call
#[utoipa::path(get, path = "/skill-calls/{id}", tag = "skills", params(("id" = SkillCallId, Path)),
    responses((status = 200, body = SkillCall), (status = 404, body = ProblemBody)))]
async fn get_call(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<SkillCallId>,
) -> Result<Json<SkillCall>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(find(&mut tx, id).await?.into()))
}

/// The trace of a call that was made without a task
#[utoipa::path(get, path = "/skill-calls/{id}/trace", tag = "skills", params(("id" = SkillCallId, Path)),
    responses((status = 200, body = Vec<TraceStep>), (status = 404, body = ProblemBody)))]
async fn trace_call(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<SkillCallId>,
) -> Result<Json<Vec<TraceStep>>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    find(&mut tx, id).await?;
    Ok(Json(traces::of_call(&mut tx, id).await?))
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct ResolveBody {
    pub resolution: Resolution,
    /// What was found, for the trace.
    pub note: Option<String>,
}

/// Say what became of a call whose outcome is unknown
///
/// `done`: it happened; the call counts as succeeded. `try_again`: it did not; the call is sent again.
#[utoipa::path(post, path = "/skill-calls/{id}/resolve", tag = "skills", params(("id" = SkillCallId, Path)), request_body = ResolveBody,
    responses((status = 200, body = SkillCall), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn resolve_call(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<SkillCallId>,
    Json(body): Json<ResolveBody>,
) -> Result<Json<SkillCall>, Problem> {
    check_note(body.note.as_deref())?;
    let row = approvals::resolve(&app, &caller, id, body.resolution, body.note.as_deref()).await?;
    Ok(Json(row.into()))
}

/// What a tenant sets for a skill.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct SkillConfig {
    pub id: SkillConfigId,
    pub skill: String,
    pub enabled: bool,
    /// Every action of the skill waits for a person.
    pub requires_approval: bool,
    /// These actions do, though the skill as a whole does not.
    pub approval_actions: Vec<String>,
    pub disabled_actions: Vec<String>,
    /// How long a person has to decide.
    pub approval_ttl_seconds: i32,
    /// Who may decide; empty for whoever may approve at all.
    pub approver_roles: Vec<String>,
    pub rate_limit: Option<RateLimit>,
    /// By scope, the values that are allowed: `{"channels": ["#finance"]}`. A scope that is not named is open.
    pub allowed_scopes: Value,
    /// What a call of an action costs, in millionths of a US dollar: `{"send_text": 5000}`. Policies are told, and what
    /// was called counts as spent.
    pub costs: BTreeMap<String, u64>,
    /// The plugin's settings.
    pub settings: Value,
    /// The `ETag`.
    pub version: i32,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}

impl From<store::ConfigRow> for SkillConfig {
    fn from(row: store::ConfigRow) -> Self {
        Self {
            rate_limit: configs::rate_limit(&row),
            id: row.id,
            skill: row.skill_name,
            enabled: row.enabled,
            requires_approval: row.requires_approval,
            approval_actions: row.approval_actions,
            disabled_actions: row.disabled_actions,
            approval_ttl_seconds: row.approval_ttl_seconds,
            approver_roles: row.approver_roles,
            allowed_scopes: row.allowed_scopes,
            costs: serde_json::from_value(row.costs).unwrap_or_default(),
            settings: row.settings,
            version: row.version,
            updated_at: row.updated_at,
        }
    }
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub struct SkillConfigUpdate {
    pub enabled: Option<bool>,
    pub requires_approval: Option<bool>,
    pub approval_actions: Option<Vec<String>>,
    pub disabled_actions: Option<Vec<String>>,
    /// 60 to 2,592,000.
    pub approval_ttl_seconds: Option<i32>,
    pub approver_roles: Option<Vec<Role>>,
    /// `null` removes it.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<RateLimit>)]
    pub rate_limit: Option<Option<RateLimit>>,
    /// By scope, the texts that are allowed.
    #[schema(value_type = Option<std::collections::BTreeMap<String, Vec<String>>>)]
    pub allowed_scopes: Option<serde_json::Map<String, Value>>,
    /// By action, 0 to 1,000,000,000,000 (a million US dollars).
    pub costs: Option<BTreeMap<String, u64>>,
    #[schema(value_type = Option<Object>)]
    pub settings: Option<serde_json::Map<String, Value>>,
}

/// Tells `null` from what is left out.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// List the skill configurations
#[utoipa::path(get, path = "/skill-configs", tag = "skills", params(PageQuery), responses((status = 200, body = Page<SkillConfig>)))]
async fn list_configs(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<SkillConfig>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list_configs(&mut tx, page).await?;
    Ok(Json(Page::taken(
        rows,
        |row| row.id.uuid(),
        SkillConfig::from,
    )))
}

/// One skill configuration
#[utoipa::path(get, path = "/skill-configs/{id}", tag = "skills", params(("id" = SkillConfigId, Path)),
    responses((status = 200, body = SkillConfig), (status = 404, body = ProblemBody)))]
async fn get_config(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<SkillConfigId>,
) -> Result<Response, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = store::config_by_id(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill configuration"))?;
    Ok(([etag(row.version)], Json(SkillConfig::from(row))).into_response())
}

/// Change a skill configuration
///
/// With `If-Match`, only where nobody changed it since. It holds from the next call on. Where the plugin is installed,
/// an action or a scope that it does not have is refused, unless the configuration named it before.
#[utoipa::path(patch, path = "/skill-configs/{id}", tag = "skills", params(("id" = SkillConfigId, Path)), request_body = SkillConfigUpdate,
    responses((status = 200, body = SkillConfig), (status = 404, body = ProblemBody), (status = 412, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn update_config(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<SkillConfigId>,
    IfMatch(seen): IfMatch,
    Json(update): Json<SkillConfigUpdate>,
) -> Result<Response, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let mut row = store::config_by_id(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill configuration"))?;
    let before = configs::Named::by(&row);
    apply(&mut row, update)?;
    configs::check(&app, &mut tx, &row, &before).await?;
    if !store::update_config(&mut tx, &row, seen).await? {
        return Err(Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            "Somebody changed the configuration since you read it. Read it again, and change that.",
        ));
    }
    let row = store::config_by_id(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill configuration"))?;
    tx.commit().await?;
    Ok(([etag(row.version)], Json(SkillConfig::from(row))).into_response())
}

fn apply(row: &mut store::ConfigRow, update: SkillConfigUpdate) -> Result<(), Problem> {
    if let Some(seconds) = update.approval_ttl_seconds {
        if !(60..=2_592_000).contains(&seconds) {
            return Err(Problem::invalid_field(
                "/approval_ttl_seconds",
                "must be 60 to 2592000",
            ));
        }
        row.approval_ttl_seconds = seconds;
    }
    if let Some(Some(limit)) = &update.rate_limit {
        limit.check()?;
    }
    if let Some(limit) = update.rate_limit {
        row.rate_limit = limit.and_then(|l| serde_json::to_value(l).ok());
    }
    if let Some(scopes) = update.allowed_scopes {
        let texts = |values: &Value| {
            let values = values.as_array();
            values.is_some_and(|values| values.iter().all(Value::is_string))
        };
        if let Some((name, _)) = scopes.iter().find(|(_, values)| !texts(values)) {
            return Err(Problem::invalid_field(
                &format!("/allowed_scopes/{name}"),
                "must be a list of the texts that are allowed",
            ));
        }
        row.allowed_scopes = Value::Object(scopes);
    }
    if let Some(costs) = update.costs {
        configs::check_costs(&costs)?;
        row.costs = json!(costs);
    }
    if let Some(settings) = update.settings {
        row.settings = Value::Object(settings);
    }
    if let Some(roles) = update.approver_roles {
        row.approver_roles = roles.iter().map(|role| role.as_str().to_owned()).collect();
    }
    row.enabled = update.enabled.unwrap_or(row.enabled);
    row.requires_approval = update.requires_approval.unwrap_or(row.requires_approval);
    row.approval_actions = update
        .approval_actions
        .unwrap_or_else(|| row.approval_actions.clone());
    row.disabled_actions = update
        .disabled_actions
        .unwrap_or_else(|| row.disabled_actions.clone());
    Ok(())
}

/// How far an approval has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    Pending,
    Approved,
    Rejected,
    Expired,
    /// Approved, and the call went ahead.
    Used,
}

impl ApprovalStatus {
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Used,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Used => "used",
        }
    }
}

/// What a person is asked to agree to.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Approval {
    pub id: ApprovalId,
    pub task_id: Option<TaskId>,
    pub call_id: SkillCallId,
    #[schema(value_type = ApprovalStatus)]
    pub status: String,
    /// Exactly what would be done: skill, action, parameters, settings, instance, plugin.
    pub request: Value,
    /// SHA-256 of it; the call goes on only while it is this.
    pub fingerprint: String,
    pub reason: String,
    /// Who may approve; empty for whoever may approve at all.
    pub roles: Vec<String>,
    /// What policies ask for: one role of each list.
    #[schema(value_type = Vec<Vec<String>>)]
    pub role_sets: Value,
    /// Whether a policy asks for somebody else than whoever asked.
    pub second_person: bool,
    pub requested_by: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
    pub decided_by: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub decided_at: Option<OffsetDateTime>,
    pub note: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

impl From<store::ApprovalRow> for Approval {
    fn from(row: store::ApprovalRow) -> Self {
        Self {
            id: row.id,
            task_id: row.task_id,
            call_id: row.call_id,
            status: row.status,
            request: row.request,
            fingerprint: hex::encode(row.fingerprint),
            reason: row.reason,
            roles: row.roles,
            role_sets: row.role_sets,
            second_person: row.second_person,
            requested_by: row.requested_by,
            expires_at: row.expires_at,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            note: row.note,
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApprovalsQuery {
    /// 1 to 200; 50 where it is left out.
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only these.
    pub status: Option<ApprovalStatus>,
}

/// List the approvals
#[utoipa::path(get, path = "/approvals", tag = "approvals", params(ApprovalsQuery), responses((status = 200, body = Page<Approval>)))]
async fn list_approvals(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ApprovalsQuery>,
) -> Result<Json<Page<Approval>>, Problem> {
    caller.require(Permission::Read)?;
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let status = query.status.map(ApprovalStatus::as_str);
    let rows = store::list_approvals(&mut tx, page, status).await?;
    Ok(Json(Page::taken(rows, |row| row.id.uuid(), Approval::from)))
}

/// One approval
#[utoipa::path(get, path = "/approvals/{id}", tag = "approvals", params(("id" = ApprovalId, Path)),
    responses((status = 200, body = Approval), (status = 404, body = ProblemBody)))]
async fn get_approval(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ApprovalId>,
) -> Result<Json<Approval>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = store::approval(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("approval"))?;
    Ok(Json(row.into()))
}

#[derive(Deserialize, ToSchema, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct DecisionBody {
    /// For the trace.
    pub note: Option<String>,
}

/// Approve
#[utoipa::path(post, path = "/approvals/{id}/approve", tag = "approvals", params(("id" = ApprovalId, Path)), request_body = DecisionBody,
    responses((status = 200, body = Approval), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ApprovalId>,
    Json(body): Json<DecisionBody>,
) -> Result<Json<Approval>, Problem> {
    decide(&app, &caller, id, true, body).await
}

/// Reject
#[utoipa::path(post, path = "/approvals/{id}/reject", tag = "approvals", params(("id" = ApprovalId, Path)), request_body = DecisionBody,
    responses((status = 200, body = Approval), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn reject(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ApprovalId>,
    Json(body): Json<DecisionBody>,
) -> Result<Json<Approval>, Problem> {
    decide(&app, &caller, id, false, body).await
}

async fn decide(
    app: &App,
    caller: &Caller,
    id: ApprovalId,
    approve: bool,
    body: DecisionBody,
) -> Result<Json<Approval>, Problem> {
    check_note(body.note.as_deref())?;
    let row = approvals::decide(
        app,
        caller,
        Which::Approval(id),
        &Decision {
            approve,
            note: body.note,
        },
    )
    .await?;
    Ok(Json(row.into()))
}

/// A note's length.
pub fn check_note(note: Option<&str>) -> Result<(), Problem> {
    Problem::check_text("/note", note.unwrap_or_default(), 0, 2000)
}
