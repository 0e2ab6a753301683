//! `POST /plugins`, and what becomes of an installation of something published.

use crate::{
    app::App,
    caller::{Caller, Permission},
    db::TenantTx,
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query, bound_to, is_json},
    id::{InstallationId, ReleaseId},
    marketplace::installations::{self, Person},
    plugins::{
        Origin,
        consent::{Change, Consent},
        http::{self as plugins, InstalledPlugin},
        installations::{self as installed, Install, Serves},
        intake,
    },
    problem::{Problem, ProblemBody},
    tenants::{Claim, claim},
};
use axum::{
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(install_plugin))
        .routes(routes!(get_consent))
        .routes(routes!(get_upgrade, upgrade_plugin))
        .routes(routes!(roll_back_plugin))
}

/// What is to be installed: a release, or again a file that the tenant brought before.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewInstallation {
    /// `acme/slack@1.2.0`, or `acme/slack` for the newest; or a release's id.
    #[serde(default)]
    pub release: Option<String>,
    /// SHA-256 of a component that the tenant brought.
    #[serde(default)]
    pub digest: Option<String>,
    /// Needed for a release.
    #[serde(default)]
    pub consent: Option<ConsentGiven>,
    /// Whether later versions take its place by themselves, as long as they may do no more than this one.
    #[serde(default)]
    pub auto_upgrade: bool,
}

/// That somebody read what a plugin may do, and agrees.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct ConsentGiven {
    /// `consent_sha256` of what they read.
    pub sha256: String,
}

/// Install a plugin
///
/// Either the body is the component itself: it is checked, stored and pinned by its digest. Or it is JSON that names a
/// release, and says that somebody agrees to what it may do; without that the answer is 409 `consent_required`, with
/// what there is to agree to. Either takes the place of the version that the skill had. A skill that is new gets a
/// configuration: enabled, without approval. A component that exports a credential schema alone stands beside the one that
/// carries the skill's calls out (`serves`: `credentials`), where that does not describe its credentials itself.
#[utoipa::path(post, path = "/plugins", tag = "plugins",
    request_body(content((Vec<u8> = "application/wasm"), (NewInstallation = "application/json")), description = "A WebAssembly component, or what to install"),
    responses((status = 201, body = InstalledPlugin), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn install_plugin(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    request: Request,
) -> Result<(StatusCode, Json<InstalledPlugin>), Problem> {
    caller.require(Permission::Manage)?;
    let id = if is_json(request.headers())? {
        let body = JsonWithDigest::from_request(request, &app).await?;
        Box::pin(install_known(&app, &caller, key.as_deref(), body)).await?
    } else {
        Box::pin(install_file(&app, &caller, key.as_deref(), request)).await?
    };
    let mut tx = app.db().tenant(caller.tenant).await?;
    let installed = plugins::find(&mut tx, id).await?;
    Ok((StatusCode::CREATED, Json(installed)))
}

/// A file of the tenant's own. Whoever uploads it has it before them, and the answer says what it may do.
async fn install_file(
    app: &App,
    caller: &Caller,
    key: Option<&str>,
    request: Request,
) -> Result<InstallationId, Problem> {
    let (bytes, described) = intake::read_described(app, caller.tenant, request).await?;
    let place = described.place()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let sha256 = Sha256::digest(&bytes).into();
    match claim(&mut tx, "install_plugin", key, &sha256).await? {
        Claim::Repeat(id) => Ok(InstallationId(id)),
        Claim::New(id) => {
            let origin = intake::bring(&mut tx, &described, &bytes).await?;
            put_own(&mut tx, InstallationId(id), place, &origin, &caller.name).await?;
            tx.commit().await?;
            Ok(InstallationId(id))
        }
    }
}

async fn put_own(
    tx: &mut TenantTx,
    id: InstallationId,
    (skill, serves): (&str, Serves),
    origin: &Origin,
    by: &str,
) -> Result<(), Problem> {
    installed::lock(tx, skill).await?;
    let new = Install {
        id,
        skill,
        serves,
        origin,
        agreed: None,
        by,
        auto_upgrade: false,
        previous: None,
    };
    installed::install(tx, new).await
}

async fn install_known(
    app: &App,
    caller: &Caller,
    key: Option<&str>,
    body: JsonWithDigest<NewInstallation>,
) -> Result<InstallationId, Problem> {
    let new = body.value;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let id = match claim(&mut tx, "install_plugin", key, &body.sha256).await? {
        Claim::Repeat(id) => return Ok(InstallationId(id)),
        Claim::New(id) => InstallationId(id),
    };
    let release = match (&new.release, &new.digest) {
        (Some(release), None) => release,
        (None, Some(digest)) => {
            install_again(app, &mut tx, id, digest, &caller.name).await?;
            tx.commit().await?;
            return Ok(id);
        }
        _ => {
            return Err(Problem::invalid_field(
                "/release",
                "must be given, or `digest` in its place, and not both",
            ));
        }
    };
    let release: ReleaseId = match release.parse() {
        Ok(id) => id,
        Err(_) => installations::resolve(&mut tx, &release.parse()?).await?,
    };
    let person = Person {
        name: &caller.name,
        agrees_to: new.consent.as_ref().map(|consent| consent.sha256.as_str()),
    };
    installations::install(app, &mut tx, id, release, person, new.auto_upgrade).await?;
    tx.commit().await?;
    installations::count_download(app, release).await;
    Ok(id)
}

/// A file that the tenant brought before.
async fn install_again(
    app: &App,
    tx: &mut TenantTx,
    id: InstallationId,
    digest: &str,
    by: &str,
) -> Result<(), Problem> {
    let origin = Origin {
        digest: digest.to_owned(),
        release: None,
    };
    let described = intake::find(tx, digest).await?;
    let (Some(described), true) = (described, installed::had(tx, &origin).await?) else {
        return Err(Problem::not_found(
            "component that your organization brought",
        ));
    };
    app.revocations().admit(tx, &origin).await?;
    put_own(tx, id, described.place()?, &origin, by).await
}

/// What there is to agree to.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ConsentAsked {
    /// What comes back with the installation.
    pub consent_sha256: String,
    pub consent: Consent,
}

/// What a release may do
///
/// All that somebody agrees to who installs it.
#[utoipa::path(get, path = "/marketplace/releases/{id}/consent", tag = "marketplace", params(("id" = ReleaseId, Path)),
    responses((status = 200, body = ConsentAsked), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn get_consent(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ReleaseId>,
) -> Result<Json<ConsentAsked>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let consent = installations::consent_to(&app, &mut tx, id).await?;
    Ok(Json(ConsentAsked {
        consent_sha256: consent.sha256(),
        consent,
    }))
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UpgradeQuery {
    /// `1.3.0`; the newest where it is left out.
    to: Option<String>,
}

/// What another version would change.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct UpgradePlan {
    /// `acme/slack@1.2.0`
    pub from: Option<String>,
    /// The same where there is nothing to upgrade to.
    pub to: Option<String>,
    pub release_id: Option<ReleaseId>,
    /// Against what was agreed to.
    pub changes: Vec<Change>,
    /// Whether somebody has to agree anew.
    pub needs_consent: bool,
    pub consent_sha256: Option<String>,
    pub consent: Option<Consent>,
}

/// What an upgrade would change
#[utoipa::path(get, path = "/plugins/{id}/upgrade", tag = "plugins", params(("id" = InstallationId, Path), UpgradeQuery),
    responses((status = 200, body = UpgradePlan), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn get_upgrade(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
    Query(query): Query<UpgradeQuery>,
) -> Result<Json<UpgradePlan>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = installed::find(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("plugin"))?;
    let upgrade = installations::upgrade_of(&app, &mut tx, &row, query.to.as_deref()).await?;
    Ok(Json(match upgrade {
        Some(upgrade) => UpgradePlan {
            from: row.release_name,
            to: Some(upgrade.to()),
            release_id: Some(upgrade.release_id()),
            needs_consent: upgrade.grows(),
            consent_sha256: Some(upgrade.consent.sha256()),
            changes: upgrade.changes,
            consent: Some(upgrade.consent),
        },
        None => UpgradePlan {
            from: row.release_name.clone(),
            to: row.release_name,
            release_id: row.release_id,
            needs_consent: false,
            consent_sha256: None,
            changes: Vec::new(),
            consent: None,
        },
    }))
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// `1.3.0`; the newest where it is left out.
    #[serde(default)]
    pub to: Option<String>,
    /// Needed where the version may do more than was agreed to.
    #[serde(default)]
    pub consent: Option<ConsentGiven>,
}

/// Upgrade a plugin
///
/// Puts another version of it in its place. Where that may do more, the answer is 409 `consent_required` with what is
/// more, until somebody agrees. Calls under way finish with the version that they began with. Answers with the
/// installation that is live then; where there is nothing newer, that is the same.
#[utoipa::path(post, path = "/plugins/{id}/upgrade", tag = "plugins", params(("id" = InstallationId, Path)), request_body = UpgradeRequest,
    responses((status = 200, body = InstalledPlugin), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn upgrade_plugin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<UpgradeRequest>,
) -> Result<Json<InstalledPlugin>, Problem> {
    caller.require(Permission::Manage)?;
    let asked = body.value;
    let bound = bound_to(id.uuid(), &body.sha256);
    let mut tx = app.db().tenant(caller.tenant).await?;
    let new = match claim(&mut tx, "upgrade_plugin", key.as_deref(), &bound).await? {
        Claim::Repeat(new) => {
            let found = installed::find(&mut tx, InstallationId(new)).await?;
            // Where there was nothing to upgrade to, nothing new was made.
            let live = found.map_or(id, |row| row.id);
            return Ok(Json(plugins::find(&mut tx, live).await?));
        }
        Claim::New(new) => InstallationId(new),
    };
    let person = Person {
        name: &caller.name,
        agrees_to: asked
            .consent
            .as_ref()
            .map(|consent| consent.sha256.as_str()),
    };
    let upgrade =
        installations::upgrade(&app, &mut tx, new, id, asked.to.as_deref(), person).await?;
    let live = if upgrade.is_some() { new } else { id };
    let plugin = plugins::find(&mut tx, live).await?;
    tx.commit().await?;
    if let Some(upgrade) = upgrade {
        installations::count_download(&app, upgrade.release_id()).await;
    }
    Ok(Json(plugin))
}

/// Roll a plugin back
///
/// Puts the version in its place that was there before, with what was agreed to then. It no longer upgrades by itself.
#[utoipa::path(post, path = "/plugins/{id}/rollback", tag = "plugins", params(("id" = InstallationId, Path)),
    responses((status = 200, body = InstalledPlugin), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn roll_back_plugin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let new = InstallationId::fresh();
    installations::roll_back(&mut tx, new, id, &caller.name).await?;
    let plugin = plugins::find(&mut tx, new).await?;
    tx.commit().await?;
    Ok(Json(plugin))
}
