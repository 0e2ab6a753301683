//! What is thought of a release: by operators who review it, and by its publisher.

use super::{
    Reason, must_own,
    releases::{Release, present_whole},
    visible_release,
};
use crate::{
    app::App,
    caller::{Operator, Party, Permission},
    extract::{Json, Path},
    id::ReleaseId,
    marketplace::{PartyTx, store},
    problem::{Problem, ProblemBody},
};
use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(approve_release))
        .routes(routes!(reject_release))
        .routes(routes!(yank_release, unyank_release))
        .routes(routes!(revoke_release))
}

/// Approve a release
///
/// For operators. Tenants that it is for can install it from now on.
#[utoipa::path(post, path = "/marketplace/releases/{id}/approve", tag = "marketplace", security(("operator_key" = [])), params(("id" = ReleaseId, Path)),
    responses((status = 200, body = Release), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn approve_release(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<ReleaseId>,
) -> Result<Json<Release>, Problem> {
    decide(&app, operator, id, "approved", None).await
}

/// Reject a release
///
/// For operators. The publisher reads the reason, and publishes a higher version.
#[utoipa::path(post, path = "/marketplace/releases/{id}/reject", tag = "marketplace", security(("operator_key" = [])), params(("id" = ReleaseId, Path)), request_body = Reason,
    responses((status = 200, body = Release), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn reject_release(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<ReleaseId>,
    Json(reason): Json<Reason>,
) -> Result<Json<Release>, Problem> {
    reason.check()?;
    decide(&app, operator, id, "rejected", Some(&reason.reason)).await
}

async fn decide(
    app: &App,
    operator: Operator,
    id: ReleaseId,
    state: &str,
    reason: Option<&str>,
) -> Result<Json<Release>, Problem> {
    let party = Party::Operator(operator);
    let mut tx = app.db().system().await?;
    store::lock_release(&mut tx, id).await?;
    let row = store::release(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("release"))?;
    if let Some(reason) = row.revoked().filter(|_| state == "approved") {
        return Err(Problem::conflict(
            "plugin_revoked",
            format!(
                "{} is not run any more: {reason}. Have a higher version published.",
                row.full_name()
            ),
        ));
    }
    // The same decision again changes nothing.
    if row.state == "submitted" {
        store::review(&mut tx, id, state, reason, &party.name()).await?;
    } else if row.state != state {
        return Err(Problem::conflict(
            "already_decided",
            format!(
                "This release is {} already. Yank or revoke it, or have a higher version published.",
                row.state
            ),
        ));
    }
    let mut tx = PartyTx::Operator(tx);
    let row = visible_release(&mut tx, id).await?;
    let release = present_whole(&mut tx, &party, row).await?;
    tx.commit().await?;
    Ok(Json(release))
}

/// Yank a release
///
/// For its publisher, and for operators. Where it is installed it stays and warns; nobody else installs it any more.
#[utoipa::path(post, path = "/marketplace/releases/{id}/yank", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path)), request_body = Reason,
    responses((status = 200, body = Release), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn yank_release(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
    Json(reason): Json<Reason>,
) -> Result<Json<Release>, Problem> {
    party.require(Permission::Manage)?;
    reason.check()?;
    let by = party.name();
    change(&app, &party, id, async |tx, _| {
        store::yank(tx, id, &by, &reason.reason).await
    })
    .await
}

/// Take a yank back
#[utoipa::path(delete, path = "/marketplace/releases/{id}/yank", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path)),
    responses((status = 200, body = Release), (status = 404, body = ProblemBody)))]
async fn unyank_release(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
) -> Result<Json<Release>, Problem> {
    party.require(Permission::Manage)?;
    change(&app, &party, id, async |tx, _| store::unyank(tx, id).await).await
}

/// Revoke a release
///
/// No host loads or calls it any more, within 10 seconds, and there is no way back. A publisher revokes this release;
/// an operator revokes the component, whatever it came by.
#[utoipa::path(post, path = "/marketplace/releases/{id}/revoke", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path)), request_body = Reason,
    responses((status = 200, body = Release), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn revoke_release(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
    Json(reason): Json<Reason>,
) -> Result<Json<Release>, Problem> {
    party.require(Permission::Manage)?;
    reason.check()?;
    let (scope, by) = (party.tenant().map(|_| id), party.name());
    change(&app, &party, id, async |tx, digest| {
        store::revoke(tx, digest, scope, &reason.reason, &by).await
    })
    .await
}

async fn change(
    app: &App,
    party: &Party,
    id: ReleaseId,
    change: impl AsyncFnOnce(&mut PartyTx, &str) -> Result<(), sqlx::Error>,
) -> Result<Json<Release>, Problem> {
    let mut tx = PartyTx::begin(app, party).await?;
    let row = visible_release(&mut tx, id).await?;
    must_own(party, row.owner_tenant_id)?;
    change(&mut tx, &row.digest).await?;
    let row = visible_release(&mut tx, id).await?;
    let release = present_whole(&mut tx, party, row).await?;
    tx.commit().await?;
    Ok(Json(release))
}
