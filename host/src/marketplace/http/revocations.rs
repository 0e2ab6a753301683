//! `/marketplace/revocations`, `/marketplace/notices`, and who was affected.

use super::visible_release;
use crate::{
    app::App,
    caller::{Caller, Operator, Party, Permission},
    extract::{Json, Path, Query},
    id::{InstallationId, ReleaseId, RevocationId, SkillCallId, TaskId, TenantId},
    marketplace::{
        PartyTx,
        store::{self, AffectedRow, AffectedTenantRow, NoticeRow, RevocationRow},
    },
    page::{Page, PageQuery, PageRequest},
    problem::{Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(revoke_component, list_revocations))
        .routes(routes!(release_affected))
        .routes(routes!(digest_affected))
        .routes(routes!(list_notices))
}

/// What is not run any more.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Revocation {
    pub id: RevocationId,
    pub digest: String,
    /// Where one release is revoked, and not the component.
    pub release_id: Option<ReleaseId>,
    pub release: Option<String>,
    pub reason: String,
    /// `operator` or `publisher`.
    pub by: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}

impl From<RevocationRow> for Revocation {
    fn from(row: RevocationRow) -> Self {
        let by = match row.release_id {
            Some(_) => "publisher",
            None => "operator",
        };
        Self {
            id: row.id,
            digest: row.digest,
            release_id: row.release_id,
            release: row.release_name,
            reason: row.reason,
            by: by.to_owned(),
            at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewRevocation {
    /// SHA-256 of the component.
    pub digest: String,
    /// 1 to 2000 characters. Tenants read it.
    pub reason: String,
}

/// Revoke a component
///
/// For operators: whatever it came by, also as a file of a tenant's own, no host loads or calls it any more, within 10
/// seconds. There is no way back. A component that is not there yet can be revoked too.
#[utoipa::path(post, path = "/marketplace/revocations", tag = "marketplace", security(("operator_key" = [])), request_body = NewRevocation,
    responses((status = 201, body = Revocation), (status = 422, body = ProblemBody)))]
async fn revoke_component(
    State(app): State<App>,
    operator: Operator,
    Json(new): Json<NewRevocation>,
) -> Result<(StatusCode, Json<Revocation>), Problem> {
    check_digest(&new.digest)?;
    Problem::check_line("/reason", &new.reason, 1, 2000)?;
    let by = Party::Operator(operator).name();
    let mut tx = app.db().system().await?;
    store::revoke(&mut tx, &new.digest, None, &new.reason, &by).await?;
    let row = store::revocation_of_digest(&mut tx, &new.digest)
        .await?
        .ok_or_else(|| Problem::internal(&"a revocation vanished"))?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

fn check_digest(digest: &str) -> Result<(), Problem> {
    if digest.len() == 64
        && digest
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(());
    }
    Err(Problem::invalid_field(
        "/digest",
        "must be a SHA-256: 64 digits of lower-case hexadecimal",
    ))
}

/// List what is revoked
#[utoipa::path(get, path = "/marketplace/revocations", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(PageQuery), responses((status = 200, body = Page<Revocation>)))]
async fn list_revocations(
    State(app): State<App>,
    party: Party,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Revocation>>, Problem> {
    party.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let rows = store::revocations(&mut tx, page).await?;
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        Revocation::from,
    )))
}

/// What a component was used for. A tenant sees its own calls, an operator how many calls each tenant made.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Affected {
    pub digest: String,
    pub calls: Vec<AffectedCall>,
    pub tenants: Vec<AffectedTenant>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct AffectedCall {
    pub id: SkillCallId,
    pub task_id: Option<TaskId>,
    pub skill: String,
    pub action: String,
    pub status: String,
    pub actor: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<OffsetDateTime>,
}

impl From<AffectedRow> for AffectedCall {
    fn from(row: AffectedRow) -> Self {
        Self {
            id: row.id,
            task_id: row.task_id,
            skill: row.skill_name,
            action: row.action,
            status: row.status,
            actor: row.actor,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct AffectedTenant {
    pub tenant_id: TenantId,
    pub slug: String,
    pub calls: i64,
    /// The first call, or the installation where there was none.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub first_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_at: OffsetDateTime,
    /// Whether it is installed now.
    pub installed: bool,
}

impl From<AffectedTenantRow> for AffectedTenant {
    fn from(row: AffectedTenantRow) -> Self {
        Self {
            tenant_id: row.tenant_id,
            slug: row.slug,
            calls: row.calls,
            first_at: row.first_at,
            last_at: row.last_at,
            installed: row.installed,
        }
    }
}

/// What a release was used for
///
/// All executions of its component: those of the caller's tenant, or for an operator how many each tenant has.
#[utoipa::path(get, path = "/marketplace/releases/{id}/affected", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path), PageQuery),
    responses((status = 200, body = Affected), (status = 404, body = ProblemBody)))]
async fn release_affected(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Affected>, Problem> {
    party.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let row = visible_release(&mut tx, id).await?;
    affected(&mut tx, row.digest, page).await.map(Json)
}

/// What a component was used for
///
/// As for a release, of a component that may have come by none.
#[utoipa::path(get, path = "/marketplace/digests/{digest}/affected", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("digest" = String, Path), PageQuery),
    responses((status = 200, body = Affected), (status = 422, body = ProblemBody)))]
async fn digest_affected(
    State(app): State<App>,
    party: Party,
    Path(digest): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Affected>, Problem> {
    party.require(Permission::Read)?;
    check_digest(&digest)?;
    let page = query.parse()?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    affected(&mut tx, digest, page).await.map(Json)
}

async fn affected(
    tx: &mut PartyTx,
    digest: String,
    page: PageRequest,
) -> Result<Affected, Problem> {
    let mut found = Affected {
        digest,
        calls: Vec::new(),
        tenants: Vec::new(),
        next_cursor: None,
    };
    match tx {
        PartyTx::Tenant(tx) => {
            let rows = store::affected(tx, &found.digest, page).await?;
            let listed = Page::of(rows, page, |row| row.id.uuid(), AffectedCall::from);
            (found.calls, found.next_cursor) = (listed.items, listed.next_cursor);
        }
        PartyTx::Operator(tx) => {
            let rows = store::affected_tenants(tx, &found.digest, page).await?;
            let listed = Page::of(rows, page, |row| row.tenant_id.uuid(), AffectedTenant::from);
            (found.tenants, found.next_cursor) = (listed.items, listed.next_cursor);
        }
    }
    Ok(found)
}

/// Something that a tenant should know of a plugin that it has, or had.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Notice {
    /// `revoked` or `yanked`.
    pub code: String,
    pub message: String,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<OffsetDateTime>,
    pub installation_id: InstallationId,
    /// Whether it is installed now.
    pub installed: bool,
    pub skill: String,
    pub digest: String,
    pub release_id: Option<ReleaseId>,
    pub release: Option<String>,
    /// Calls that it carried out; `/marketplace/digests/{digest}/affected` lists them.
    pub calls: i64,
}

impl From<NoticeRow> for Notice {
    fn from(row: NoticeRow) -> Self {
        let what = row
            .release_name
            .clone()
            .unwrap_or_else(|| format!("The plugin for `{}`", row.skill_name));
        let (code, message, at) = match (row.revoke_reason, row.key_revoked_at) {
            (Some(reason), _) => (
                "revoked",
                format!("{what} was revoked and is not run any more: {reason}"),
                row.revoked_at,
            ),
            (None, Some(at)) => (
                "revoked",
                format!(
                    "The publisher of {what} revoked the key that signed it; it is not run any more."
                ),
                Some(at),
            ),
            (None, None) => {
                let reason = row.yank_reason.unwrap_or_default();
                (
                    "yanked",
                    format!("{what} was withdrawn by its publisher: {reason}"),
                    row.yanked_at,
                )
            }
        };
        Self {
            code: code.to_owned(),
            message,
            at,
            installation_id: row.id,
            installed: row.live,
            skill: row.skill_name,
            digest: row.digest,
            release_id: row.release_id,
            release: row.release_name,
            calls: row.calls,
        }
    }
}

/// List the notices
///
/// Of the plugins that the tenant has or had: what is revoked, and what is yanked and still installed.
#[utoipa::path(get, path = "/marketplace/notices", tag = "marketplace", params(PageQuery), responses((status = 200, body = Page<Notice>)))]
async fn list_notices(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Notice>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::notices(&mut tx, page).await?;
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        Notice::from,
    )))
}
