//! # Plugins
//!
//! ## What it is
//! WebAssembly components that teach the gateway a skill, or describe the credentials of one that does not do so itself.
//! A tenant installs one for itself alone; what it may do (actions, hosts, credentials) is read from the component and
//! shown to whoever installs it.
//!
//! ## Life
//! uploaded, or published and agreed to -> installed -> replaced by another version | removed. An installation pins
//! the digest. What is published, reviewed and revoked: [`crate::marketplace`].
//!
//! ## Always true
//! - A component that does not load, or whose manifest is not well-formed, is not stored
//!   (`intake`; what loads and what is stopped: `host/crates/plugin-host/tests/host`).
//! - What runs is what was installed: the bytes are found by their SHA-256, and hashed again when loaded.
//! - One tenant's plugin is not another's: rows are under row-level security. The bytes are stored once for all, and
//!   read by whoever brought them, installed them or sees a release of them.
//! - What is revoked is neither loaded nor called (`crate::marketplace::revocations`).
//! - What a later version may do more is agreed to anew (`consent`).
//!
//! ## To change
//! - What is checked at intake: [`Plugin::describe_all`], and `intake`.
//! - What is shown of a plugin: [`http::InstalledPlugin`], and `plugin_card` in `cli/plugin.rs`.

pub mod consent;
pub mod http;
pub mod installations;
pub mod intake;
pub mod schema;
mod store;

use crate::{
    app::App,
    db::TenantTx,
    id::{ReleaseId, TenantId},
    problem::{Problem, RETRY_AFTER_DEFAULT, Violation},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use tsunami_plugin_host::{
    LoadError, Plugin, PluginError, Schema, SchemaError, adapter::Manifest, credentials,
};
use zeroize::Zeroizing;

/// Departures from a schema that one answer lists.
pub const VIOLATIONS_SHOWN_MAX: usize = 20;

/// An installed skill, ready to be called.
#[derive(Clone)]
pub struct Installed {
    pub plugin: Arc<Plugin>,
    pub manifest: Arc<Manifest>,
    pub origin: Origin,
}

/// A component as a tenant has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub digest: String,
    /// The release that it came by; none for a file of the tenant's own.
    pub release: Option<ReleaseId>,
}

/// A credential that a skill's plugin names.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CredentialField {
    pub key: String,
    /// `bot_token`, `api_key`, `oauth_token`, `pat` or `secret`.
    pub kind: String,
    pub required: bool,
    pub label: String,
    pub help: String,
    pub placeholder: String,
    pub scopes: Vec<String>,
    /// Set where a person grants the token by signing in, rather than pasting it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OauthField>,
}

/// How a credential is had by signing in: OAuth 2.0, authorization code with PKCE. Whoever installs the plugin sees the
/// hosts here; an administrator agrees to them when the client is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OauthField {
    pub authorize_url: String,
    pub token_url: String,
    /// RFC 7009.
    pub revoke_url: Option<String>,
    pub scopes: Vec<String>,
    /// More parameters of the authorization request, each a name and a value.
    pub authorize_params: Vec<(String, String)>,
    /// Key of the credential that is the client's id.
    pub client_id: String,
    /// Key of the credential that is the client's secret; none for a public client.
    pub client_secret: Option<String>,
    /// `basic` or `body`.
    pub client_authentication: String,
}

impl From<credentials::Oauth> for OauthField {
    fn from(oauth: credentials::Oauth) -> Self {
        let client_authentication = match oauth.client_authentication {
            credentials::ClientAuthentication::Basic => "basic",
            credentials::ClientAuthentication::Body => "body",
        };
        Self {
            authorize_url: oauth.authorize_url,
            token_url: oauth.token_url,
            revoke_url: oauth.revoke_url,
            scopes: oauth.scopes,
            authorize_params: oauth.authorize_params,
            client_id: oauth.client_id,
            client_secret: oauth.client_secret,
            client_authentication: client_authentication.to_owned(),
        }
    }
}

impl From<credentials::Field> for CredentialField {
    fn from(field: credentials::Field) -> Self {
        let kind = match field.kind {
            credentials::Kind::ApiKey => "api_key",
            credentials::Kind::OauthToken => "oauth_token",
            credentials::Kind::BotToken => "bot_token",
            credentials::Kind::Pat => "pat",
            credentials::Kind::Secret => "secret",
        };
        Self {
            key: field.key,
            kind: kind.to_owned(),
            required: field.required,
            label: field.label,
            help: field.help,
            placeholder: field.placeholder,
            scopes: field.scopes,
            oauth: field.oauth.map(OauthField::from),
        }
    }
}

/// Whose turn it is where an operator brings a component: no tenant's.
pub const OPERATOR: TenantId = TenantId(uuid::Uuid::nil());

/// Loads a component: from memory, as it was compiled before, or compiled now in a process of its own.
pub async fn load(app: &App, tenant: TenantId, bytes: Vec<u8>) -> Result<Arc<Plugin>, LoadError> {
    app.plugin_host().load(tenant.into(), bytes).await
}

/// Calls into a plugin when it is the tenant's turn, away from the async threads and within the tenant's limits.
/// A tenant's plugin that uses up its time costs the tenant's own calls their turn, and not those of others.
///
/// # Errors
/// The plugin's; [`PluginError::Busy`] where too many calls wait already.
pub async fn call<T: Send + 'static>(
    app: &App,
    tenant: TenantId,
    plugin: &Arc<Plugin>,
    work: impl FnOnce(&Plugin) -> T + Send + 'static,
) -> Result<T, PluginError> {
    let (limits, own) = (app.plugin_limits(tenant), app.clone());
    let work = move |plugin: &Plugin| stands(&own, plugin).map(|()| work(plugin));
    let called = app.plugin_host().call(tenant.into(), &limits, plugin, work);
    called.await.flatten()
}

/// One answer of a plugin, with the same turns and limits; a quick one comes on the thread that asks
/// ([`tsunami_plugin_host::PluginHost::ask`]).
///
/// # Errors
/// As [`call`].
pub async fn ask<T: Send + 'static>(
    app: &App,
    tenant: TenantId,
    plugin: &Arc<Plugin>,
    question: impl Fn(&Plugin) -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    let (limits, own) = (app.plugin_limits(tenant), app.clone());
    let question = move |plugin: &Plugin| {
        stands(&own, plugin)?;
        question(plugin)
    };
    let host = app.plugin_host();
    host.ask(tenant.into(), &limits, plugin, question).await
}

/// Looked at when the turn has come: it may have been long in coming.
fn stands(app: &App, plugin: &Plugin) -> Result<(), PluginError> {
    match app.revocations().is_revoked(plugin.digest()) {
        false => Ok(()),
        true => Err(PluginError::Trap(
            "the operator has revoked this component".to_owned(),
        )),
    }
}

/// Where a value, which stands at `place` of a request, departs from a schema of a plugin's. Strangers wrote the schema:
/// it is looked for when it is the tenant's turn, as their plugins are called
/// (`turns::a_schema_is_applied_when_it_is_the_tenants_turn`).
pub async fn violations(
    app: &App,
    tenant: TenantId,
    schema: &Arc<Schema>,
    value: &Value,
    place: &str,
) -> Result<Vec<Violation>, Problem> {
    let found = if schema.is_short_work(value) {
        let limits = app.plugin_limits(tenant);
        let look = || schema.violations(value, VIOLATIONS_SHOWN_MAX);
        let looked = app.plugin_host().work_at_once(tenant.into(), &limits, look);
        looked.await.map_err(|error| not_described(&error))?
    } else {
        let (schema, value) = (schema.clone(), value.clone());
        let look = move || schema.violations(&value, VIOLATIONS_SHOWN_MAX);
        in_turn(app, tenant, look).await?
    };
    let placed = found.into_iter().map(|found| Violation {
        pointer: format!("{place}{}", found.pointer),
        message: found.message,
    });
    Ok(placed.collect())
}

/// A schema of a plugin's, compiled when it is the tenant's turn.
pub async fn compiled(
    app: &App,
    tenant: TenantId,
    schema: &str,
) -> Result<Result<Arc<Schema>, SchemaError>, Problem> {
    let schema = schema.to_owned();
    in_turn(app, tenant, move || Schema::compile(&schema).map(Arc::new)).await
}

async fn in_turn<T: Send + 'static>(
    app: &App,
    tenant: TenantId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let limits = app.plugin_limits(tenant);
    let worked = app.plugin_host().work(tenant.into(), &limits, work).await;
    worked.map_err(|error| not_described(&error))
}

pub fn busy() -> Problem {
    Problem::unavailable("The plugin sandbox", RETRY_AFTER_DEFAULT)
}

/// Where a component does not load at this moment, and that is not its own fault.
fn not_loaded_now(error: &LoadError) -> Option<Problem> {
    if !error.is_transient() {
        return None;
    }
    tracing::warn!(%error, "a plugin does not load now");
    let why = format!("The plugin cannot be loaded right now: {error}");
    Some(Problem::not_now(&why, RETRY_AFTER_DEFAULT))
}

fn not_described(error: &PluginError) -> Problem {
    if error.is_transient() {
        busy()
    } else {
        Problem::internal(error)
    }
}

/// The plugin that is installed for a skill, loaded.
pub async fn installed(
    app: &App,
    tx: &mut TenantTx,
    skill: &str,
) -> Result<Option<Installed>, Problem> {
    match store::installed(tx, skill).await? {
        Some(origin) => admitted(app, tx, origin).await.map(Some),
        None => Ok(None),
    }
}

/// What is installed for a skill.
pub async fn installed_origin(
    tx: &mut TenantTx,
    skill: &str,
) -> Result<Option<Origin>, sqlx::Error> {
    store::installed(tx, skill).await
}

/// A plugin that the tenant has, loaded, unless it is not run any more. A transaction is opened only where something of
/// it is not at hand.
pub async fn ready(app: &App, tenant: TenantId, origin: &Origin) -> Result<Installed, Problem> {
    if app.revocations().knows(origin)
        && let Some(installed) = at_hand(app, origin).await
    {
        app.revocations().check(origin)?;
        return Ok(installed);
    }
    let mut tx = app.db().tenant(tenant).await?;
    admitted(app, &mut tx, origin.clone()).await
}

async fn at_hand(app: &App, origin: &Origin) -> Option<Installed> {
    let digest = origin.digest.as_str();
    Some(Installed {
        manifest: app.manifests().get(digest).await?,
        plugin: app.plugin_host().loaded(digest).await?,
        origin: origin.clone(),
    })
}

/// The plugin with this digest, loaded: what a call that is under way began with.
pub async fn pinned(app: &App, tx: &mut TenantTx, digest: &str) -> Result<Installed, Problem> {
    match store::origin(tx, digest).await? {
        Some(origin) => admitted(app, tx, origin).await,
        None => Err(Problem::internal(
            &"a call is pinned to a plugin that was never installed",
        )),
    }
}

/// Loaded, unless it is not run any more.
async fn admitted(app: &App, tx: &mut TenantTx, origin: Origin) -> Result<Installed, Problem> {
    app.revocations().admit(tx, &origin).await?;
    if let Some(installed) = at_hand(app, &origin).await {
        return Ok(installed);
    }
    let plugin = loaded(app, tx, &origin.digest).await?;
    let described = call(app, tx.tenant(), &plugin, Plugin::describe)
        .await
        .flatten();
    let manifest = Arc::new(described.map_err(|e| not_described(&e))?.value);
    app.manifests()
        .insert(origin.digest.clone(), manifest.clone())
        .await;
    Ok(Installed {
        plugin,
        manifest,
        origin,
    })
}

/// The component with this digest, from memory or from the database.
async fn loaded(app: &App, tx: &mut TenantTx, digest: &str) -> Result<Arc<Plugin>, Problem> {
    if let Some(plugin) = app.plugin_host().loaded(digest).await {
        return Ok(plugin);
    }
    let bytes = store::component(tx, digest)
        .await?
        .ok_or_else(|| Problem::internal(&"an installed plugin's component is not there"))?;
    let loaded = load(app, tx.tenant(), bytes).await;
    let plugin = loaded.map_err(|e| not_loaded_now(&e).unwrap_or_else(|| Problem::internal(&e)))?;
    if plugin.digest() != digest {
        return Err(Problem::internal(
            &"a stored plugin is not the one that was installed",
        ));
    }
    Ok(plugin)
}

/// The credentials of a skill, as its plugin describes them, or another that is installed for that.
///
/// # Errors
/// 404 where nothing is installed for the skill.
pub async fn credential_fields(
    tx: &mut TenantTx,
    skill: &str,
) -> Result<Vec<CredentialField>, Problem> {
    let fields = store::credential_fields(tx, skill)
        .await?
        .ok_or_else(|| Problem::not_found("skill; install its plugin first"))?;
    serde_json::from_value(fields).map_err(|e| Problem::internal(&e))
}

/// The same, of a plugin that still is run.
///
/// # Errors
/// 409 where it is not.
pub async fn admitted_fields(
    app: &App,
    tx: &mut TenantTx,
    skill: &str,
) -> Result<Vec<CredentialField>, Problem> {
    admit_credentials(app, tx, skill).await?;
    credential_fields(tx, skill).await
}

/// Whether the plugin that describes a skill's credentials, where one does, still is run.
///
/// # Errors
/// 409 where it is not.
pub async fn admit_credentials(app: &App, tx: &mut TenantTx, skill: &str) -> Result<(), Problem> {
    match store::credentials_origin(tx, skill).await? {
        Some(origin) => app.revocations().admit(tx, &origin).await,
        None => Ok(()),
    }
}

/// Has the plugin that describes a skill's credentials look at a value. The refusal says what is wrong and nothing of the value.
pub async fn check_credential(
    app: &App,
    tx: &mut TenantTx,
    skill: &str,
    key: &str,
    value: &str,
) -> Result<(), Problem> {
    let Some(origin) = store::credentials_origin(tx, skill).await? else {
        return Ok(());
    };
    app.revocations().admit(tx, &origin).await?;
    let plugin = loaded(app, tx, &origin.digest).await?;
    let (key, value) = (key.to_owned(), Zeroizing::new(value.to_owned()));
    let checked = ask(app, tx.tenant(), &plugin, move |plugin| {
        plugin.check(&key, &value)
    });
    let verdict = checked.await.map_err(|e| {
        Problem::unprocessable(
            "invalid_plugin",
            format!("The plugin could not check the value: {e}."),
        )
    })?;
    let message = match verdict {
        Ok(()) => return Ok(()),
        Err(credentials::Violation::Empty) => "is empty",
        Err(credentials::Violation::TooShort) => {
            "is too short for this kind of credential; it may have been cut off"
        }
        Err(credentials::Violation::TooLong) => "is too long for this kind of credential",
        Err(credentials::Violation::WrongPrefix) => {
            "does not begin as this kind of credential does; look at the placeholder in the schema"
        }
        Err(credentials::Violation::WrongCharacters) => {
            "holds characters that this kind of credential never has; look for spaces and line breaks"
        }
        Err(credentials::Violation::WrongKind) => "is another kind of credential",
    };
    Err(Problem::invalid_field("/value", message))
}
