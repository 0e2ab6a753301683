//! `/skill-creds`.

use super::{CredentialType, NewValue, SealedValue, VALUE_BYTES_MAX, credential_aad, store};
use crate::{
    app::App,
    caller::{Caller, Permission},
    db::TenantTx,
    extract::{IdempotencyKey, Json, Path, Query},
    id::CredentialId,
    page::{Page, PageQuery},
    plugins,
    problem::{Problem, ProblemBody},
    tenants::{Claim, claim},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(store_credential, list_credentials))
        .routes(routes!(get_credential, revoke_credential))
}

/// A credential, as far as it is ever shown.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Credential {
    pub id: CredentialId,
    pub skill: String,
    /// `bot_token`
    pub key: String,
    pub r#type: String,
    /// Its last four characters; nothing of a short one.
    pub last_4: String,
    /// `active`, `expired` or `revoked`.
    pub status: String,
    /// Counts up each time that a value is stored under this key.
    pub version: i32,
    /// When the service last refused it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub rejected_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    pub skill: String,
    /// One of the keys that the skill's plugin names.
    pub key: String,
    /// The value. It is encrypted, and never shown again.
    #[schema(value_type = String, format = Password)]
    pub value: Zeroizing<String>,
    pub r#type: Option<CredentialType>,
    #[serde(
        default,
        deserialize_with = "crate::extract::moment::option::deserialize"
    )]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<OffsetDateTime>,
}

/// Store a credential
///
/// Replaces the one that the skill has under this key.
#[utoipa::path(post, path = "/skill-creds", tag = "vault", request_body = NewCredential,
    responses((status = 201, body = Credential), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn store_credential(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    Json(new): Json<NewCredential>,
) -> Result<(StatusCode, Json<Credential>), Problem> {
    caller.require(Permission::Manage)?;
    check_value(&app, &new)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let config = store::config_of_skill(&mut tx, &new.skill)
        .await?
        .ok_or_else(|| Problem::not_found("skill; install its plugin first"))?;
    let fields = plugins::credential_fields(&mut tx, &new.skill).await?;
    let Some(field) = fields.iter().find(|field| field.key == new.key) else {
        let known: Vec<_> = fields.iter().map(|field| field.key.as_str()).collect();
        let why = match known.as_slice() {
            [] => "is none of the skill's credentials: no plugin describes any".to_owned(),
            known => format!("is none of the skill's credentials: {}", known.join(", ")),
        };
        return Err(Problem::invalid_field("/key", &why));
    };
    plugins::check_credential(&app, &mut tx, &new.skill, &new.key, &new.value).await?;
    let request = digest_without_value(&new);
    let id = match claim(&mut tx, "store_credential", key.as_deref(), &request).await? {
        Claim::Repeat(id) => {
            let id = CredentialId(id);
            must_be_the_same(&app, &mut tx, id, &new.value).await?;
            id
        }
        Claim::New(id) => {
            let id = CredentialId(id);
            let kept = NewValue {
                config,
                key: &new.key,
                kind: match new.r#type {
                    Some(given) => given.as_str(),
                    None => &field.kind,
                },
                value: &new.value,
                expires_at: new.expires_at,
                grant: None,
            };
            app.vault().keep(&mut tx, id, &kept).await?;
            id
        }
    };
    let credential = load(&app, &mut tx, id).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(credential)))
}

/// What an Idempotency-Key is bound to, without the value: a digest of a weak secret gives it away.
fn digest_without_value(new: &NewCredential) -> [u8; 32] {
    let kind = new.r#type.map(CredentialType::as_str);
    let expires_at = new.expires_at.map(OffsetDateTime::unix_timestamp);
    Sha256::digest(json!([new.skill, new.key, kind, expires_at]).to_string()).into()
}

/// Refuses a repeated request with another value: the stored one is opened and compared.
async fn must_be_the_same(
    app: &App,
    tx: &mut TenantTx,
    id: CredentialId,
    value: &str,
) -> Result<(), Problem> {
    let row = store::get(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("credential"))?;
    let sealed = SealedValue {
        data_key: row.data_key_id,
        bytes: row.encrypted_value,
    };
    let about = credential_aad(tx.tenant(), id, row.version);
    let stored = app.vault().open(tx, &about, &sealed).await?;
    if stored.as_slice() == value.as_bytes() {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "idempotency_key_reused",
        "This Idempotency-Key came before with another value. Use a new key for a new request.",
    ))
}

fn check_value(app: &App, new: &NewCredential) -> Result<(), Problem> {
    if new.value.is_empty() || new.value.len() > VALUE_BYTES_MAX {
        return Err(Problem::invalid_field(
            "/value",
            &format!("must have 1 to {VALUE_BYTES_MAX} bytes"),
        ));
    }
    if new.expires_at.is_some_and(|at| at <= app.clock().now()) {
        return Err(Problem::invalid_field("/expires_at", "is in the past"));
    }
    Ok(())
}

/// List the credentials
#[utoipa::path(get, path = "/skill-creds", tag = "vault", params(PageQuery), responses((status = 200, body = Page<Credential>)))]
async fn list_credentials(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Credential>>, Problem> {
    caller.require(Permission::Manage)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list(&mut tx, page).await?;
    let configs: Vec<_> = rows.iter().map(|row| row.skill_config_id).collect();
    let skills = store::skill_of_config(&mut tx, &configs).await?;
    let now = app.clock().now();
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        |row| {
            let skill = skills
                .iter()
                .find(|(id, _)| *id == row.skill_config_id)
                .map(|(_, name)| name.clone())
                .unwrap_or_default();
            present(row, skill, now)
        },
    )))
}

/// One credential
#[utoipa::path(get, path = "/skill-creds/{id}", tag = "vault", params(("id" = CredentialId, Path)),
    responses((status = 200, body = Credential), (status = 404, body = ProblemBody)))]
async fn get_credential(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<CredentialId>,
) -> Result<Json<Credential>, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(load(&app, &mut tx, id).await?))
}

/// Revoke a credential
///
/// The next call that needs it fails. Revoking again changes nothing.
#[utoipa::path(delete, path = "/skill-creds/{id}", tag = "vault", params(("id" = CredentialId, Path)),
    responses((status = 200, body = Credential), (status = 404, body = ProblemBody)))]
async fn revoke_credential(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<CredentialId>,
) -> Result<Json<Credential>, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    store::revoke(&mut tx, id).await?;
    let credential = load(&app, &mut tx, id).await?;
    tx.commit().await?;
    Ok(Json(credential))
}

/// A credential, as it is shown.
pub async fn load(app: &App, tx: &mut TenantTx, id: CredentialId) -> Result<Credential, Problem> {
    let row = store::get(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("credential"))?;
    let skills = store::skill_of_config(tx, &[row.skill_config_id]).await?;
    let skill = skills
        .into_iter()
        .next()
        .map(|(_, name)| name)
        .unwrap_or_default();
    Ok(present(row, skill, app.clock().now()))
}

fn present(row: store::CredentialRow, skill: String, now: OffsetDateTime) -> Credential {
    Credential {
        status: row.status_at(now).to_owned(),
        id: row.id,
        skill,
        key: row.credential_key,
        r#type: row.credential_type,
        last_4: row.last_4,
        version: row.version,
        rejected_at: row.rejected_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        created_at: row.created_at,
    }
}
