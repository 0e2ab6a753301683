//! `/skill-creds/oauth`.

use super::{
    Provider, field,
    flow::{self, NewClient, hosts, of_field},
    redirect_uri, store,
};
use crate::{
    app::App,
    caller::{Caller, Permission},
    extract::{Json, Query},
    id::GrantId,
    problem::{Problem, ProblemBody},
    vault::http::{Credential, load},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

const ISSUER_CHARS_MAX: usize = 1000;
/// An authorization, a token and a revocation endpoint.
const HOSTS_MAX: usize = 3;
const CODE_CHARS_MAX: usize = 32;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_oauth_client, register_oauth_client))
        .routes(routes!(start_sign_in))
        .routes(routes!(confirm_sign_in))
        // A page for browsers, which bring no key: not an operation of the API.
        .route("/skill-creds/oauth/callback", super::page::callback())
}

/// Which credential is meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FieldQuery {
    pub skill: String,
    /// `access_token`
    pub key: String,
}

/// Where the tenant's client is registered, for a credential that is had by signing in.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct OauthClient {
    pub skill: String,
    pub key: String,
    /// Whether there is one. Where there is none, the rest is as the plugin names it.
    pub registered: bool,
    pub issuer: Option<String>,
    pub authorize_url: String,
    pub token_url: String,
    pub revoke_url: Option<String>,
    /// Who is asked, and is to be agreed to.
    pub hosts: Vec<String>,
    /// To be registered at the provider, exactly as it stands here. Not set while the gateway does not know its own
    /// address.
    pub redirect_uri: Option<String>,
    pub scopes: Vec<String>,
    /// Whether the client has a secret, and is not a public one.
    pub has_secret: bool,
    pub agreed_by: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub agreed_at: Option<OffsetDateTime>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthClientRegistration {
    pub skill: String,
    pub key: String,
    #[schema(value_type = String)]
    pub client_id: Zeroizing<String>,
    /// It is encrypted, and never shown again. The stored one is kept where it is left out.
    #[schema(value_type = Option<String>, format = Password)]
    pub client_secret: Option<Zeroizing<String>>,
    /// A provider of your own, in the place of the plugin's: its endpoints are discovered (RFC 8414).
    pub issuer: Option<String>,
    /// The hosts of its endpoints, as a sign that you agree to them.
    pub hosts: Vec<String>,
}

/// The client of a credential that is had by signing in
///
/// Also before it is registered: with the hosts to agree to, and the redirect URI to register at the provider.
#[utoipa::path(get, path = "/skill-creds/oauth/client", tag = "vault", params(FieldQuery),
    responses((status = 200, body = OauthClient), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn get_oauth_client(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<FieldQuery>,
) -> Result<Json<OauthClient>, Problem> {
    caller.require(Permission::Manage)?;
    client(&app, &caller, &query.skill, &query.key)
        .await
        .map(Json)
}

async fn client(
    app: &App,
    caller: &Caller,
    skill: &str,
    key: &str,
) -> Result<OauthClient, Problem> {
    let mut tx = app.db().tenant(caller.tenant).await?;
    let config = flow::installed_config(&mut tx, skill).await?;
    let field = field(app, &mut tx, skill, key).await?;
    let row = store::client(&mut tx, config, key).await?;
    let provider: Provider = match &row {
        Some(row) => row.provider.0.clone(),
        None => of_field(&field),
    };
    Ok(OauthClient {
        skill: skill.to_owned(),
        key: key.to_owned(),
        registered: row.is_some(),
        hosts: hosts(&provider),
        issuer: provider.issuer,
        authorize_url: provider.authorize_url,
        token_url: provider.token_url,
        revoke_url: provider.revoke_url,
        redirect_uri: redirect_uri(app).ok(),
        scopes: field.scopes,
        has_secret: provider.client_secret_key.is_some(),
        agreed_by: row.as_ref().map(|row| row.agreed_by.clone()),
        agreed_at: row.map(|row| row.agreed_at),
    })
}

/// Register the client of a credential
///
/// Its id and secret are kept in the vault, as the credentials that the plugin names for them. Sign-ins that are
/// there stay as they are.
#[utoipa::path(put, path = "/skill-creds/oauth/client", tag = "vault", request_body = OauthClientRegistration,
    responses((status = 200, body = OauthClient), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn register_oauth_client(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<OauthClientRegistration>,
) -> Result<Json<OauthClient>, Problem> {
    caller.require(Permission::Manage)?;
    if let Some(issuer) = &new.issuer {
        Problem::check_line("/issuer", issuer, 1, ISSUER_CHARS_MAX)?;
    }
    if new.hosts.len() > HOSTS_MAX {
        return Err(Problem::invalid_field(
            "/hosts",
            &format!("names more than {HOSTS_MAX}"),
        ));
    }
    let client_secret = new.client_secret.as_ref();
    let registered = NewClient {
        skill: &new.skill,
        key: &new.key,
        client_id: &new.client_id,
        client_secret: client_secret.map(|secret| secret.as_str()),
        issuer: new.issuer.as_deref(),
        hosts: &new.hosts,
    };
    flow::register(&app, &caller, &registered).await?;
    client(&app, &caller, &new.skill, &new.key).await.map(Json)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInRequest {
    pub skill: String,
    pub key: String,
}

/// A sign-in that was begun.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct SignIn {
    pub id: GrantId,
    /// To be opened in the browser of whoever signs in. It is good once, and for nobody else.
    pub authorization_url: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// Begin a sign-in for a credential
///
/// The browser comes back to the gateway, which shows a code: confirm with it, within ten minutes.
#[utoipa::path(post, path = "/skill-creds/oauth/start", tag = "vault", request_body = SignInRequest,
    responses((status = 201, body = SignIn), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 429, body = ProblemBody)))]
async fn start_sign_in(
    State(app): State<App>,
    caller: Caller,
    Json(asked): Json<SignInRequest>,
) -> Result<(StatusCode, Json<SignIn>), Problem> {
    caller.require(Permission::Manage)?;
    let begun = flow::begin(&app, &caller, &asked.skill, &asked.key).await?;
    let answer = SignIn {
        id: begun.id,
        authorization_url: begun.authorization_url,
        expires_at: begun.expires_at,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    #[schema(value_type = String, format = Uuid)]
    pub sign_in_id: GrantId,
    /// What the page showed to whoever signed in: `7K2M-XQ4T`.
    pub code: String,
}

/// Confirm a sign-in
///
/// Only by whoever began it. What the provider gave comes to be the credential, in the place of the one that there was.
#[utoipa::path(post, path = "/skill-creds/oauth/confirm", tag = "vault", request_body = Confirmation,
    responses((status = 201, body = Credential), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn confirm_sign_in(
    State(app): State<App>,
    caller: Caller,
    Json(confirmed): Json<Confirmation>,
) -> Result<(StatusCode, Json<Credential>), Problem> {
    caller.require(Permission::Manage)?;
    Problem::check_line("/code", &confirmed.code, 1, CODE_CHARS_MAX)?;
    let id = flow::confirm(&app, &caller, confirmed.sign_in_id, &confirmed.code).await?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let credential = load(&app, &mut tx, id).await?;
    Ok((StatusCode::CREATED, Json(credential)))
}
