//! `/plugins`.

use super::{CredentialField, check, store};
use crate::{
    app::App,
    caller::{Caller, Permission},
    db::TenantTx,
    extract::{IdempotencyKey, Json, Path, Query, read_body},
    id::InstallationId,
    page::{Page, PageQuery},
    problem::{Problem, ProblemBody},
    tenants::{Claim, claim},
};
use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tsunami_plugin_host::{adapter::Manifest, types::Risk};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(install_plugin, list_plugins))
        .routes(routes!(get_plugin, remove_plugin))
}

/// A plugin that is installed for the tenant, and what it may do.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct InstalledPlugin {
    pub id: InstallationId,
    pub skill: String,
    pub title: String,
    pub summary: String,
    pub version: String,
    /// SHA-256 of the component; the installation is pinned to it.
    pub digest: String,
    /// Where its requests may go.
    pub hosts: Vec<String>,
    /// Settings whose URLs it may go to as well, as JSON Pointers.
    pub host_settings: Vec<String>,
    pub actions: Vec<PluginAction>,
    pub credentials: Vec<CredentialField>,
    pub installed_by: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub installed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub removed_at: Option<OffsetDateTime>,
}

/// Something that a skill can do.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct PluginAction {
    pub name: String,
    pub title: String,
    pub summary: String,
    /// `read`, `write` or `destructive`.
    pub risk: String,
    /// JSON Schema of the parameters.
    pub params_schema: serde_json::Value,
    pub output_schema: serde_json::Value,
    pub examples: Vec<ActionExample>,
    pub credentials: Vec<String>,
    /// What a tenant may restrict, and where it stands in the parameters.
    pub scopes: Vec<ActionScope>,
    /// Whether it may be repeated without a second effect.
    pub idempotent: bool,
    /// Set where it answers a page at a time.
    pub pagination: Option<ActionPagination>,
}

/// Parameters that the action takes.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ActionExample {
    pub title: String,
    pub params: serde_json::Value,
}

/// Where the place in a long list stands: put what is at `next` of the output at `cursor` of the parameters.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ActionPagination {
    pub cursor: String,
    pub next: String,
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ActionScope {
    pub name: String,
    pub pointer: String,
}

/// Install a plugin
///
/// The body is the component itself. It is checked, stored and pinned by its digest, in the place of the version
/// that the skill had. A skill that is new gets a configuration: enabled, without approval.
#[utoipa::path(post, path = "/plugins", tag = "plugins",
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "A WebAssembly component"),
    responses((status = 201, body = InstalledPlugin), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn install_plugin(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    request: Request,
) -> Result<(StatusCode, Json<InstalledPlugin>), Problem> {
    caller.require(Permission::Manage)?;
    let max = usize::try_from(app.config().plugins.component_bytes_max).unwrap_or(usize::MAX);
    let bytes = read_body(request, max).await?;
    let checked = check(&app, caller.tenant, bytes.to_vec()).await?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let id = match claim(
        &mut tx,
        "install_plugin",
        key.as_deref(),
        &Sha256::digest(&bytes).into(),
    )
    .await?
    {
        Claim::Repeat(id) => InstallationId(id),
        Claim::New(id) => {
            let manifest =
                serde_json::to_value(&checked.manifest).map_err(|e| Problem::internal(&e))?;
            let fields =
                serde_json::to_value(&checked.fields).map_err(|e| Problem::internal(&e))?;
            let digest = checked.plugin.digest();
            let version = store::insert_version(&mut tx, digest, &bytes, manifest, fields).await?;
            store::install(
                &mut tx,
                InstallationId(id),
                version,
                &checked.manifest.skill,
                digest,
                &caller.name,
            )
            .await?;
            store::ensure_config(&mut tx, &checked.manifest.skill).await?;
            InstallationId(id)
        }
    };
    let installed = find(&mut tx, id).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(installed)))
}

/// List the installed plugins
#[utoipa::path(get, path = "/plugins", tag = "plugins", params(PageQuery), responses((status = 200, body = Page<InstalledPlugin>)))]
async fn list_plugins(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<InstalledPlugin>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list(&mut tx, page).await?;
    Ok(Json(Page::of(rows, page, |row| row.id.uuid(), present)))
}

/// One installed plugin
#[utoipa::path(get, path = "/plugins/{id}", tag = "plugins", params(("id" = InstallationId, Path)),
    responses((status = 200, body = InstalledPlugin), (status = 404, body = ProblemBody)))]
async fn get_plugin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(find(&mut tx, id).await?))
}

/// Remove a plugin
///
/// The skill's configuration and credentials stay, for when it is installed again.
#[utoipa::path(delete, path = "/plugins/{id}", tag = "plugins", params(("id" = InstallationId, Path)),
    responses((status = 200, body = InstalledPlugin), (status = 404, body = ProblemBody)))]
async fn remove_plugin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    store::remove(&mut tx, id).await?;
    let removed = find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Json(removed))
}

async fn find(tx: &mut TenantTx, id: InstallationId) -> Result<InstalledPlugin, Problem> {
    store::get(tx, id)
        .await?
        .map(present)
        .ok_or_else(|| Problem::not_found("plugin"))
}

fn present(row: store::InstallationRow) -> InstalledPlugin {
    // It was well-formed when it was stored; one that is not any more shows as empty.
    let manifest: Option<Manifest> = row
        .manifest
        .and_then(|json| serde_json::from_value(json).ok());
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let actions = manifest
        .iter()
        .flat_map(|m| &m.actions)
        .map(|action| PluginAction {
            name: action.name.clone(),
            title: action.title.clone(),
            summary: action.summary.clone(),
            risk: risk_name(action.risk).to_owned(),
            params_schema: parse(&action.params_schema),
            output_schema: parse(&action.output_schema),
            examples: action
                .examples
                .iter()
                .map(|example| ActionExample {
                    title: example.title.clone(),
                    params: parse(&example.params),
                })
                .collect(),
            pagination: action.pagination.as_ref().map(|p| ActionPagination {
                cursor: p.cursor.clone(),
                next: p.next.clone(),
            }),
            credentials: action.credentials.clone(),
            scopes: action
                .scopes
                .iter()
                .map(|s| ActionScope {
                    name: s.name.clone(),
                    pointer: s.pointer.clone(),
                })
                .collect(),
            idempotent: action.idempotent,
        });
    InstalledPlugin {
        id: row.id,
        actions: actions.collect(),
        skill: row.skill_name,
        title: manifest
            .as_ref()
            .map(|m| m.about.title.clone())
            .unwrap_or_default(),
        summary: manifest
            .as_ref()
            .map(|m| m.about.summary.clone())
            .unwrap_or_default(),
        version: manifest
            .as_ref()
            .map(|m| m.about.version.clone())
            .unwrap_or_default(),
        hosts: manifest
            .as_ref()
            .map(|m| m.hosts.clone())
            .unwrap_or_default(),
        host_settings: manifest
            .as_ref()
            .map(|m| m.host_settings.clone())
            .unwrap_or_default(),
        digest: row.digest,
        credentials: serde_json::from_value(row.credential_fields).unwrap_or_default(),
        installed_by: row.installed_by,
        installed_at: row.installed_at,
        removed_at: row.removed_at,
    }
}

/// As the API names it.
pub fn risk_name(risk: Risk) -> &'static str {
    match risk {
        Risk::Read => "read",
        Risk::Write => "write",
        Risk::Destructive => "destructive",
    }
}
