//! `/policies`, `/policy-decisions`, and for operators `/operator-policies`.

use super::{
    POLICIES_MAX, Strictness,
    replay::{self, ReplayReport, Trial},
    store::{self, PolicyRow},
};
use crate::{
    app::App,
    caller::{Caller, Operator, Permission},
    db::TenantTx,
    extract::{IdempotencyKey, IfMatch, Json, JsonWithDigest, Path, Query, etag},
    id::{PolicyDecisionId, PolicyId, SkillCallId, TenantId},
    page::{Page, PageRequest},
    plugins::{
        self, Origin,
        intake::{self, Described},
    },
    problem::{Problem, ProblemBody},
    tenants::{Claim, claim, claim_of_operator},
};
use axum::{
    body::Bytes,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tsunami_plugin_host::policy;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// Skills that one policy is for by name.
const SKILLS_MAX: usize = 64;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(add_policy_component))
        .routes(routes!(list_policies, create_policy))
        .routes(routes!(get_policy, update_policy, remove_policy))
        .routes(routes!(replay_policy))
        .routes(routes!(list_policy_decisions))
        .routes(routes!(add_operator_policy_component))
        .routes(routes!(list_operator_policies, create_operator_policy))
        .routes(routes!(
            get_operator_policy,
            update_operator_policy,
            remove_operator_policy
        ))
}

/// A component that is a policy, and what it says of itself.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct PolicyComponent {
    /// SHA-256 of the component.
    pub digest: String,
    pub name: String,
    pub title: String,
    pub summary: String,
    pub version: String,
    /// JSON Schema of its settings.
    pub settings_schema: Value,
    /// Settings that pass it.
    pub examples: Vec<Value>,
}

fn present_component(digest: String, manifest: policy::Manifest) -> PolicyComponent {
    let parse = |json: &str| serde_json::from_str(json).unwrap_or_default();
    PolicyComponent {
        digest,
        name: manifest.name,
        title: manifest.about.title,
        summary: manifest.about.summary,
        version: manifest.about.version,
        settings_schema: parse(&manifest.settings_schema),
        examples: manifest.examples.iter().map(|text| parse(text)).collect(),
    }
}

/// A policy in the chain.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Policy {
    pub id: PolicyId,
    /// `operator`: before every tenant's calls; or `tenant`.
    pub source: super::Source,
    /// Within its part of the chain, the lowest first.
    pub position: i32,
    /// As the component names itself.
    pub name: String,
    /// SHA-256 of the component that it is pinned to.
    pub digest: String,
    pub settings: Value,
    /// The skills that it is for; empty for all.
    pub skills: Vec<String>,
    pub enabled: bool,
    /// The `ETag`.
    pub version: i32,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}

fn present(row: PolicyRow, source: super::Source) -> Policy {
    Policy {
        id: row.id,
        source,
        position: row.position,
        name: row.name,
        digest: row.digest,
        settings: row.settings,
        skills: row.skills,
        enabled: row.enabled,
        version: row.version,
        created_by: row.created_by,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct PolicyChain {
    /// In the order in which they are asked: the operator's first.
    pub items: Vec<Policy>,
}

/// A policy to put into the chain.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewPolicy {
    /// Of a component that was brought (`POST /policies/components`), or of a release.
    pub digest: String,
    /// What the component's `settings_schema` describes.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
    /// The skills that it is for; all where it is left out.
    #[serde(default)]
    pub skills: Vec<String>,
    /// Within its part of the chain, the lowest first; 100 where it is left out.
    #[serde(default = "hundred")]
    pub position: i32,
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn hundred() -> i32 {
    100
}
fn yes() -> bool {
    true
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyUpdate {
    /// Another component of the same name.
    pub digest: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub settings: Option<Map<String, Value>>,
    pub skills: Option<Vec<String>>,
    pub position: Option<i32>,
    pub enabled: Option<bool>,
}

// ---- what both kinds have in common ---------------------------------------------------------------------------------

async fn described_body(
    app: &App,
    tenant: TenantId,
    request: Request,
) -> Result<(Bytes, Described), Problem> {
    let (bytes, described) = intake::read_described(app, tenant, request).await?;
    if described.policy.is_none() {
        return Err(Problem::unprocessable(
            "invalid_policy",
            format!(
                "This is no policy: the component exports {} and no routing-policy.",
                described.kinds.join(", ")
            ),
        ));
    }
    Ok((bytes, described))
}

fn added(described: Described) -> Result<(StatusCode, Json<PolicyComponent>), Problem> {
    let manifest = described
        .policy
        .ok_or_else(|| Problem::internal(&"a component that is no policy"))?;
    let component = present_component(described.digest, manifest);
    Ok((StatusCode::CREATED, Json(component)))
}

/// Lets a tenant keep the component of a policy of its own, whatever becomes of those of others.
async fn adopt(tx: &mut TenantTx, digest: &str) -> Result<(), Problem> {
    let is_given = store::is_operators(tx, digest).await?;
    intake::adopt(tx, digest, is_given).await
}

async fn new_row(
    app: &App,
    tenant: TenantId,
    connection: &mut PgConnection,
    id: PolicyId,
    new: NewPolicy,
    by: &str,
    now: OffsetDateTime,
) -> Result<PolicyRow, Problem> {
    check_skills(&new.skills)?;
    let settings = Value::Object(new.settings);
    intake::refuse_revoked(connection, &new.digest).await?;
    let manifest = manifest_of(connection, &new.digest).await?;
    check_settings(app, tenant, &manifest, &settings).await?;
    Ok(PolicyRow {
        id,
        position: new.position,
        name: manifest.name.clone(),
        digest: new.digest,
        settings,
        skills: new.skills,
        enabled: new.enabled,
        version: 1,
        created_by: by.to_owned(),
        created_at: now,
        updated_at: now,
    })
}

async fn apply(
    app: &App,
    tenant: TenantId,
    connection: &mut PgConnection,
    row: &mut PolicyRow,
    update: PolicyUpdate,
) -> Result<(), Problem> {
    if let Some(skills) = update.skills {
        check_skills(&skills)?;
        row.skills = skills;
    }
    row.position = update.position.unwrap_or(row.position);
    row.enabled = update.enabled.unwrap_or(row.enabled);
    if let Some(digest) = update.digest {
        intake::refuse_revoked(connection, &digest).await?;
        row.digest = digest;
    }
    if let Some(settings) = update.settings {
        row.settings = Value::Object(settings);
    }
    let manifest = manifest_of(connection, &row.digest).await?;
    if manifest.name != row.name {
        return Err(Problem::invalid_field(
            "/digest",
            "is another policy; add that one beside this one",
        ));
    }
    check_settings(app, tenant, &manifest, &row.settings).await
}

async fn manifest_of(
    connection: &mut PgConnection,
    digest: &str,
) -> Result<policy::Manifest, Problem> {
    let described = intake::find(connection, digest).await?;
    described.and_then(|found| found.policy).ok_or_else(|| {
        Problem::invalid_field(
            "/digest",
            "is of no policy that you brought or that is published for you; bring its component first",
        )
    })
}

fn check_skills(skills: &[String]) -> Result<(), Problem> {
    let shaped = |skill: &String| {
        (1..=64).contains(&skill.len())
            && skill
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if skills.len() <= SKILLS_MAX && skills.iter().all(shaped) {
        return Ok(());
    }
    Err(Problem::invalid_field(
        "/skills",
        "must be at most 64 names of skills: lower-case letters, digits and dashes",
    ))
}

/// Refuses settings that are not what the policy's schema says.
async fn check_settings(
    app: &App,
    tenant: TenantId,
    manifest: &policy::Manifest,
    settings: &Value,
) -> Result<(), Problem> {
    let schema = plugins::compiled(app, tenant, &manifest.settings_schema).await?;
    let schema = schema.map_err(|e| {
        Problem::unprocessable(
            "invalid_manifest",
            format!("The policy's settings schema {e}."),
        )
    })?;
    let violations = plugins::violations(app, tenant, &schema, settings, "/settings").await?;
    if violations.is_empty() {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "invalid_settings",
        "The settings are not what the policy takes; `errors` says where.",
    )
    .with_errors(violations))
}

fn too_many() -> Problem {
    Problem::conflict(
        "too_many_policies",
        format!("There are {POLICIES_MAX} policies already; remove one first."),
    )
}

fn is_full(rows: &[PolicyRow]) -> bool {
    i64::try_from(rows.len()).unwrap_or(i64::MAX) >= POLICIES_MAX
}

fn changed_meanwhile() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "changed_meanwhile",
        "Somebody changed the policy since you read it. Read it again, and change that.",
    )
}

fn tagged(policy: Policy) -> Response {
    ([etag(policy.version)], Json(policy)).into_response()
}

// ---- of a tenant ----------------------------------------------------------------------------------------------------

/// Bring a policy's component
///
/// The body is the component itself. It is checked and stored; `POST /policies` puts it into the chain.
#[utoipa::path(post, path = "/policies/components", tag = "policies",
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "A WebAssembly component"),
    responses((status = 201, body = PolicyComponent), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn add_policy_component(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<PolicyComponent>), Problem> {
    caller.require(Permission::Manage)?;
    let (bytes, described) = described_body(&app, caller.tenant, request).await?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    intake::bring(&mut tx, &described, &bytes).await?;
    tx.commit().await?;
    added(described)
}

/// The chain of policies
///
/// In the order in which they are asked. The strictest answer holds: deny, then ask, then allow.
#[utoipa::path(get, path = "/policies", tag = "policies", responses((status = 200, body = PolicyChain)))]
async fn list_policies(
    State(app): State<App>,
    caller: Caller,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Json<PolicyChain>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let operators = store::operators_of_all(&mut tx).await?;
    let own = store::tenant::all(&mut tx).await?;
    let items = operators
        .into_iter()
        .map(|row| present(row, super::Source::Operator))
        .chain(
            own.into_iter()
                .map(|row| present(row, super::Source::Tenant)),
        );
    Ok(Json(PolicyChain {
        items: items.collect(),
    }))
}

/// Takes nothing: an unknown parameter is refused.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// Put a policy into the chain
///
/// It is asked from the next call on. `POST /policies/replay` shows before what it would have decided.
#[utoipa::path(post, path = "/policies", tag = "policies", request_body = NewPolicy,
    responses((status = 201, body = Policy), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_policy(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewPolicy>,
) -> Result<(StatusCode, Response), Problem> {
    caller.require(Permission::Manage)?;
    let new = body.value;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let id = match claim(&mut tx, "create_policy", key.as_deref(), &body.sha256).await? {
        Claim::New(id) => PolicyId(id),
        Claim::Repeat(id) => {
            let row = store::tenant::get(&mut tx, PolicyId(id)).await?;
            let row = row.ok_or_else(|| Problem::not_found("policy"))?;
            let policy = present(row, super::Source::Tenant);
            return Ok((StatusCode::CREATED, tagged(policy)));
        }
    };
    adopt(&mut tx, &new.digest).await?;
    let (by, now) = (&caller.name, app.clock().now());
    let row = new_row(&app, caller.tenant, &mut tx, id, new, by, now).await?;
    if is_full(&store::tenant::all(&mut tx).await?) {
        return Err(too_many());
    }
    store::insert_tenant(&mut tx, &row).await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        tagged(present(row, super::Source::Tenant)),
    ))
}

/// One policy
#[utoipa::path(get, path = "/policies/{id}", tag = "policies", params(("id" = PolicyId, Path)),
    responses((status = 200, body = Policy), (status = 404, body = ProblemBody)))]
async fn get_policy(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<PolicyId>,
) -> Result<Response, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = store::tenant::get(&mut tx, id).await?;
    let row = row.ok_or_else(|| Problem::not_found("policy"))?;
    Ok(tagged(present(row, super::Source::Tenant)))
}

/// Change a policy
///
/// With `If-Match`, only where nobody changed it since. It holds from the next call on.
#[utoipa::path(patch, path = "/policies/{id}", tag = "policies", params(("id" = PolicyId, Path)), request_body = PolicyUpdate,
    responses((status = 200, body = Policy), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 412, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn update_policy(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<PolicyId>,
    IfMatch(seen): IfMatch,
    Json(update): Json<PolicyUpdate>,
) -> Result<Response, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = store::tenant::get(&mut tx, id).await?;
    let mut row = row.ok_or_else(|| Problem::not_found("policy"))?;
    if let Some(digest) = &update.digest {
        adopt(&mut tx, digest).await?;
    }
    apply(&app, caller.tenant, &mut tx, &mut row, update).await?;
    if !store::tenant::update(&mut tx, &row, seen).await? {
        return Err(changed_meanwhile());
    }
    let row = store::tenant::get(&mut tx, id).await?;
    let row = row.ok_or_else(|| Problem::not_found("policy"))?;
    tx.commit().await?;
    Ok(tagged(present(row, super::Source::Tenant)))
}

/// Take a policy out of the chain
#[utoipa::path(delete, path = "/policies/{id}", tag = "policies", params(("id" = PolicyId, Path)),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn remove_policy(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<PolicyId>,
) -> Result<StatusCode, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    if !store::tenant::remove(&mut tx, id).await? {
        return Err(Problem::not_found("policy"));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A policy to try over calls that were made.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct ReplayBody {
    /// Of a component that was brought (`POST /policies/components`), or of a release.
    pub digest: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
    /// Only calls of these skills; all where it is left out.
    #[serde(default)]
    pub skills: Vec<String>,
    /// Calls since then.
    #[serde(deserialize_with = "crate::extract::moment::deserialize")]
    #[schema(value_type = String, format = DateTime)]
    pub since: OffsetDateTime,
    /// At most so many, the newest first: 1 to 5,000.
    #[serde(default = "all")]
    pub calls_max: i64,
}

fn all() -> i64 {
    replay::CALLS_MAX
}

/// Try a policy over calls that were made
///
/// Runs it over what was recorded of them, and shows which decisions would have been others. Nothing is changed.
#[utoipa::path(post, path = "/policies/replay", tag = "policies", request_body = ReplayBody,
    responses((status = 200, body = ReplayReport), (status = 422, body = ProblemBody)))]
async fn replay_policy(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<ReplayBody>,
) -> Result<Json<ReplayReport>, Problem> {
    caller.require(Permission::Manage)?;
    check_skills(&body.skills)?;
    if !(1..=replay::CALLS_MAX).contains(&body.calls_max) {
        return Err(Problem::invalid_field("/calls_max", "must be 1 to 5000"));
    }
    let mut tx = app.db().tenant(caller.tenant).await?;
    let settings = Value::Object(body.settings);
    let manifest = manifest_of(&mut tx, &body.digest).await?;
    check_settings(&app, caller.tenant, &manifest, &settings).await?;
    let origin = intake::origin(&mut tx, &body.digest).await?;
    let trial = Trial {
        name: manifest.name.clone(),
        origin: origin.unwrap_or(Origin {
            digest: body.digest,
            release: None,
        }),
        settings,
        skills: body.skills,
        since: body.since,
        calls_max: body.calls_max,
    };
    drop(tx);
    replay::replay(&app, caller.tenant, &trial).await.map(Json)
}

/// An answer of a policy, as it was given.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct PolicyDecision {
    pub id: PolicyDecisionId,
    pub call_id: SkillCallId,
    pub source: String,
    pub policy_id: Uuid,
    pub policy: String,
    pub digest: String,
    /// What it was given.
    pub input: Value,
    pub decision: String,
    /// What it said, whole.
    pub answer: Value,
    pub reason: String,
    pub duration_us: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: OffsetDateTime,
}

impl From<store::DecisionRow> for PolicyDecision {
    fn from(row: store::DecisionRow) -> Self {
        Self {
            id: row.id,
            call_id: row.call_id,
            source: row.source,
            policy_id: row.policy_id,
            policy: row.name,
            digest: row.digest,
            input: row.input,
            decision: row.decision,
            answer: row.answer,
            reason: row.reason,
            duration_us: row.duration_us,
            decided_at: row.decided_at,
        }
    }
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DecisionsQuery {
    /// 1 to 200; 50 where it is left out.
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only of this call.
    pub call_id: Option<SkillCallId>,
    /// Only these: `allow`, `ask` or `deny`.
    pub decision: Option<Strictness>,
}

/// List what the policies decided
#[utoipa::path(get, path = "/policy-decisions", tag = "policies", params(DecisionsQuery), responses((status = 200, body = Page<PolicyDecision>)))]
async fn list_policy_decisions(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<DecisionsQuery>,
) -> Result<Json<Page<PolicyDecision>>, Problem> {
    caller.require(Permission::Read)?;
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let decision = query.decision.map(Strictness::as_str);
    let rows = store::list_decisions(&mut tx, page, query.call_id, decision).await?;
    Ok(Json(Page::taken(
        rows,
        |row| row.id.uuid(),
        PolicyDecision::from,
    )))
}

// ---- of the operator ------------------------------------------------------------------------------------------------

/// Bring a policy's component, for every tenant
#[utoipa::path(post, path = "/operator-policies/components", tag = "operators", security(("operator_key" = [])),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "A WebAssembly component"),
    responses((status = 201, body = PolicyComponent), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn add_operator_policy_component(
    State(app): State<App>,
    _: Operator,
    request: Request,
) -> Result<(StatusCode, Json<PolicyComponent>), Problem> {
    let (bytes, described) = described_body(&app, plugins::OPERATOR, request).await?;
    let mut tx = app.db().system().await?;
    intake::keep(&mut tx, &described, &bytes).await?;
    tx.commit().await?;
    added(described)
}

/// The operator's part of the chain
#[utoipa::path(get, path = "/operator-policies", tag = "operators", security(("operator_key" = [])), responses((status = 200, body = PolicyChain)))]
async fn list_operator_policies(
    State(app): State<App>,
    _: Operator,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Json<PolicyChain>, Problem> {
    let mut tx = app.db().system().await?;
    let rows = store::operator::all(&mut tx).await?;
    let items = rows
        .into_iter()
        .map(|row| present(row, super::Source::Operator));
    Ok(Json(PolicyChain {
        items: items.collect(),
    }))
}

/// Put a policy before every tenant's calls
#[utoipa::path(post, path = "/operator-policies", tag = "operators", security(("operator_key" = [])), request_body = NewPolicy,
    responses((status = 201, body = Policy), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_operator_policy(
    State(app): State<App>,
    operator: Operator,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewPolicy>,
) -> Result<(StatusCode, Response), Problem> {
    let new = body.value;
    let mut tx = app.db().system().await?;
    let operation = "create_operator_policy";
    let id = match claim_of_operator(&mut tx, operation, key.as_deref(), &body.sha256).await? {
        Claim::New(id) => PolicyId(id),
        Claim::Repeat(id) => {
            let row = store::operator::get(&mut tx, PolicyId(id)).await?;
            let row = row.ok_or_else(|| Problem::not_found("policy"))?;
            let policy = present(row, super::Source::Operator);
            return Ok((StatusCode::CREATED, tagged(policy)));
        }
    };
    let (by, now) = (&operator.name, app.clock().now());
    let row = new_row(&app, plugins::OPERATOR, &mut tx, id, new, by, now).await?;
    if is_full(&store::operator::all(&mut tx).await?) {
        return Err(too_many());
    }
    store::insert_operator(&mut tx, &row).await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        tagged(present(row, super::Source::Operator)),
    ))
}

/// One of the operator's policies
#[utoipa::path(get, path = "/operator-policies/{id}", tag = "operators", security(("operator_key" = [])), params(("id" = PolicyId, Path)),
    responses((status = 200, body = Policy), (status = 404, body = ProblemBody)))]
async fn get_operator_policy(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<PolicyId>,
) -> Result<Response, Problem> {
    let mut tx = app.db().system().await?;
    let row = store::operator::get(&mut tx, id).await?;
    let row = row.ok_or_else(|| Problem::not_found("policy"))?;
    Ok(tagged(present(row, super::Source::Operator)))
}

/// Change one of the operator's policies
#[utoipa::path(patch, path = "/operator-policies/{id}", tag = "operators", security(("operator_key" = [])), params(("id" = PolicyId, Path)), request_body = PolicyUpdate,
    responses((status = 200, body = Policy), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 412, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn update_operator_policy(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<PolicyId>,
    IfMatch(seen): IfMatch,
    Json(update): Json<PolicyUpdate>,
) -> Result<Response, Problem> {
    let mut tx = app.db().system().await?;
    let row = store::operator::get(&mut tx, id).await?;
    let mut row = row.ok_or_else(|| Problem::not_found("policy"))?;
    apply(&app, plugins::OPERATOR, &mut tx, &mut row, update).await?;
    if !store::operator::update(&mut tx, &row, seen).await? {
        return Err(changed_meanwhile());
    }
    let row = store::operator::get(&mut tx, id).await?;
    let row = row.ok_or_else(|| Problem::not_found("policy"))?;
    tx.commit().await?;
    Ok(tagged(present(row, super::Source::Operator)))
}

/// Take one of the operator's policies out of every chain
#[utoipa::path(delete, path = "/operator-policies/{id}", tag = "operators", security(("operator_key" = [])), params(("id" = PolicyId, Path)),
    responses((status = 204), (status = 404, body = ProblemBody)))]
async fn remove_operator_policy(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<PolicyId>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db().system().await?;
    if !store::operator::remove(&mut tx, id).await? {
        return Err(Problem::not_found("policy"));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
