//! `/instances`.

use super::{
    Secrets, name_of, secrets_aad, store,
    workflow::{Input, InstanceRef, Operation, WORKFLOW_TYPE},
};
use crate::{
    app::App,
    caller::{Caller, Permission},
    db::{TenantTx, violated_constraint},
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query},
    id::InstanceId,
    outbox,
    page::{Page, PageQuery},
    problem::{Problem, ProblemBody},
    tenants::{Claim, claim},
    worker::patience,
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Log lines an answer holds, at most.
const LOG_LINES_MAX: usize = 1000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(deploy_instance, list_instances))
        .routes(routes!(get_instance, destroy_instance))
        .routes(routes!(stop_instance))
        .routes(routes!(start_instance))
        .routes(routes!(restart_instance))
        .routes(routes!(read_logs))
}

/// The tenant's OpenClaw gateway.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub name: String,
    pub instance_type: String,
    pub version: String,
    pub driver: String,
    /// `provisioning`, `running`, `stopping`, `stopped`, `upgrading`, `error`, `destroying`, `destroyed` or `asleep`.
    pub status: String,
    /// What was asked for last: `running`, `stopped` or `destroyed`.
    pub desired: String,
    pub health: Option<Value>,
    pub error: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}

impl From<store::InstanceRow> for Instance {
    fn from(row: store::InstanceRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            instance_type: row.instance_type,
            version: row.version,
            driver: row.driver,
            status: row.status,
            desired: row.desired,
            health: row.health,
            error: row.error,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewInstance {}

/// Deploy the tenant's OpenClaw instance
///
/// Answers at once; the status turns from `provisioning` to `running` within a minute.
#[utoipa::path(post, path = "/instances", tag = "instances", request_body = NewInstance,
    responses((status = 202, body = Instance), (status = 409, body = ProblemBody)))]
async fn deploy_instance(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewInstance>,
) -> Result<(StatusCode, Json<Instance>), Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let id = match claim(&mut tx, "deploy_instance", key.as_deref(), &body.sha256).await? {
        Claim::Repeat(id) => InstanceId(id),
        Claim::New(id) => {
            let id = InstanceId(id);
            insert(&app, &mut tx, id, &caller.name).await?;
            begin(&app, &mut tx, id, Operation::Provision).await?;
            id
        }
    };
    let instance = find(&mut tx, id).await?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok((StatusCode::ACCEPTED, Json(instance.into())))
}

async fn insert(app: &App, tx: &mut TenantTx, id: InstanceId, by: &str) -> Result<(), Problem> {
    let secrets = zeroize::Zeroizing::new(
        serde_json::to_vec(&Secrets::generate()).map_err(|e| Problem::internal(&e))?,
    );
    let sealed = app
        .vault()
        .seal(tx, &secrets_aad(tx.tenant(), id), &secrets)
        .await?;
    let row = store::NewInstanceRow {
        id,
        name: &name_of(tx.tenant()),
        version: &app.config().instances.openclaw_version,
        driver: "local",
        data_key: sealed.data_key,
        encrypted: &sealed.bytes,
        created_by: by,
    };
    store::insert(tx, row)
        .await
        .map_err(|e| match violated_constraint(&e) {
            Some("tenant_instances_one_live" | "tenant_instances_name") => Problem::conflict(
                "instance_exists",
                "Your organization has an OpenClaw instance already. Use it, or destroy it first.",
            ),
            _ => e.into(),
        })
}

/// Writes down that a workflow is to bring the instance about. All of one instance bear one id, so that each waits for
/// the end of the one before it.
async fn begin(
    app: &App,
    tx: &mut TenantTx,
    id: InstanceId,
    operation: Operation,
) -> Result<(), Problem> {
    let input = Input {
        instance: InstanceRef {
            tenant: tx.tenant(),
            instance: id,
        },
        operation,
        patience: patience(app),
    };
    let workflow = format!("instance-{id}");
    outbox::push(
        tx,
        outbox::Kind::StartAgain,
        &workflow,
        WORKFLOW_TYPE,
        input,
    )
    .await?;
    Ok(())
}

/// List the instances
///
/// Destroyed ones too.
#[utoipa::path(get, path = "/instances", tag = "instances", params(PageQuery), responses((status = 200, body = Page<Instance>)))]
async fn list_instances(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Instance>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list(&mut tx, page).await?;
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        Instance::from,
    )))
}

/// One instance
#[utoipa::path(get, path = "/instances/{id}", tag = "instances", params(("id" = InstanceId, Path)),
    responses((status = 200, body = Instance), (status = 404, body = ProblemBody)))]
async fn get_instance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstanceId>,
) -> Result<Json<Instance>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(find(&mut tx, id).await?.into()))
}

/// Stop an instance
///
/// Its data stays.
#[utoipa::path(post, path = "/instances/{id}/stop", tag = "instances", params(("id" = InstanceId, Path)),
    responses((status = 202, body = Instance), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn stop_instance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstanceId>,
) -> Result<(StatusCode, Json<Instance>), Problem> {
    change(&app, &caller, id, Operation::Stop).await
}

/// Start an instance that was stopped, or has failed
#[utoipa::path(post, path = "/instances/{id}/start", tag = "instances", params(("id" = InstanceId, Path)),
    responses((status = 202, body = Instance), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn start_instance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstanceId>,
) -> Result<(StatusCode, Json<Instance>), Problem> {
    change(&app, &caller, id, Operation::Provision).await
}

/// Restart an instance
#[utoipa::path(post, path = "/instances/{id}/restart", tag = "instances", params(("id" = InstanceId, Path)),
    responses((status = 202, body = Instance), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn restart_instance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstanceId>,
) -> Result<(StatusCode, Json<Instance>), Problem> {
    change(&app, &caller, id, Operation::Restart).await
}

/// Destroy an instance
///
/// Its data goes with it.
#[utoipa::path(delete, path = "/instances/{id}", tag = "instances", params(("id" = InstanceId, Path)),
    responses((status = 202, body = Instance), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn destroy_instance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstanceId>,
) -> Result<(StatusCode, Json<Instance>), Problem> {
    change(&app, &caller, id, Operation::Destroy).await
}

async fn change(
    app: &App,
    caller: &Caller,
    id: InstanceId,
    operation: Operation,
) -> Result<(StatusCode, Json<Instance>), Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    // Whoever comes second waits here, and finds the status that the first has set.
    let row = store::get_for_update(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("instance"))?;
    let (allowed, status, desired): (&[&str], _, _) = match operation {
        Operation::Provision => (&["stopped", "error"], "provisioning", "running"),
        Operation::Stop => (&["running", "error"], "stopping", "stopped"),
        Operation::Restart => (&["running", "error"], "provisioning", "running"),
        Operation::Destroy => (&["running", "stopped", "error"], "destroying", "destroyed"),
    };
    if !allowed.contains(&row.status.as_str()) {
        return Err(Problem::conflict(
            "wrong_status",
            format!(
                "The instance is {}; this needs it to be {}. Wait, and look again.",
                row.status,
                allowed.join(" or ")
            ),
        ));
    }
    store::set_desired(&mut tx, id, status, desired).await?;
    begin(app, &mut tx, id, operation).await?;
    let row = find(&mut tx, id).await?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok((StatusCode::ACCEPTED, Json(row.into())))
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// 1 to 1000; 100 where it is left out.
    pub lines: Option<usize>,
}

/// The last lines of an instance's log.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Logs {
    pub lines: Vec<String>,
}

/// Read an instance's log
#[utoipa::path(get, path = "/instances/{id}/logs", tag = "instances", params(("id" = InstanceId, Path), LogsQuery),
    responses((status = 200, body = Logs), (status = 404, body = ProblemBody)))]
async fn read_logs(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstanceId>,
    Query(query): Query<LogsQuery>,
) -> Result<Json<Logs>, Problem> {
    caller.require(Permission::Manage)?;
    let lines = query.lines.unwrap_or(100);
    if !(1..=LOG_LINES_MAX).contains(&lines) {
        return Err(Problem::bad_request(
            "invalid_query",
            format!("`lines` is {lines}; it must be 1 to {LOG_LINES_MAX}."),
        ));
    }
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = find(&mut tx, id).await?;
    tx.commit().await?;
    let lines = app
        .cluster()
        .logs(&row.name, lines)
        .await
        .map_err(|e| Problem::internal(&e))?;
    Ok(Json(Logs { lines }))
}

async fn find(tx: &mut TenantTx, id: InstanceId) -> Result<store::InstanceRow, Problem> {
    store::get(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("instance"))
}
