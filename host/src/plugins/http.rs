//! `/plugins`: what is installed. Installing is the marketplace's (`marketplace/http/installations.rs`).

use super::{
    CredentialField,
    installations::{self, Serves},
    intake::SchemaFacts,
    store,
};
use crate::{
    app::App,
    caller::{Caller, Permission},
    db::TenantTx,
    extract::{Json, Path, Query},
    id::{InstallationId, ReleaseId},
    page::{Page, PageQuery},
    problem::{Problem, ProblemBody},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use time::OffsetDateTime;
use tsunami_plugin_host::{
    adapter::{Action, Manifest},
    types::{About, Risk},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_plugins))
        .routes(routes!(get_plugin, update_plugin, remove_plugin))
}

/// A plugin that is installed for the tenant, and what it may do.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct InstalledPlugin {
    pub id: InstallationId,
    pub skill: String,
    pub serves: Serves,
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
    /// The release that it came by; none for a file of the tenant's own.
    pub release: Option<InstalledRelease>,
    /// What was agreed to, of a release.
    pub agreed: Option<InstalledConsent>,
    /// Whether later versions take its place by themselves, as long as they may do no more.
    pub auto_upgrade: bool,
    /// The installation that a rollback goes back to.
    pub previous_id: Option<InstallationId>,
    pub notices: Vec<PluginNotice>,
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct InstalledRelease {
    pub id: ReleaseId,
    /// `acme/slack@1.2.0`
    pub full_name: String,
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct InstalledConsent {
    pub sha256: String,
    pub by: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// The text.
    pub consent: serde_json::Value,
}

/// Something to know of an installed plugin.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct PluginNotice {
    /// `revoked`, `yanked`, `upgrade_available`, `credentials_not_described` or `unused`.
    pub code: String,
    pub message: String,
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
    Ok(Json(Page::taken(rows, |row| row.id.uuid(), present)))
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

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct PluginChange {
    pub auto_upgrade: bool,
}

/// Let a plugin upgrade by itself, or not
///
/// A later version that may do more than was agreed to is never installed without somebody who agrees.
#[utoipa::path(patch, path = "/plugins/{id}", tag = "plugins", params(("id" = InstallationId, Path)), request_body = PluginChange,
    responses((status = 200, body = InstalledPlugin), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn update_plugin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
    Json(change): Json<PluginChange>,
) -> Result<Json<InstalledPlugin>, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let before = find(&mut tx, id).await?;
    if change.auto_upgrade && before.release.is_none() {
        return Err(Problem::conflict(
            "not_published",
            "This plugin is a file of your organization's own; there is no publisher whose later versions could take its place.",
        ));
    }
    store::set_auto_upgrade(&mut tx, id, change.auto_upgrade).await?;
    let changed = find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Json(changed))
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Leftover {
    /// It is there when the skill is installed again.
    #[default]
    Keep,
    Delete,
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RemoveQuery {
    /// What becomes of the skill's credentials; `keep` where it is left out.
    #[serde(default)]
    #[param(inline)]
    credentials: Leftover,
    /// What becomes of its configuration, which credentials belong to; `keep` where it is left out.
    #[serde(default)]
    #[param(inline)]
    configuration: Leftover,
}

/// Remove a plugin
///
/// Calls that are under way finish. What stays of the skill's credentials and configuration is there when it is
/// installed again.
#[utoipa::path(delete, path = "/plugins/{id}", tag = "plugins", params(("id" = InstallationId, Path), RemoveQuery),
    responses((status = 200, body = InstalledPlugin), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn remove_plugin(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<InstallationId>,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<InstalledPlugin>, Problem> {
    caller.require(Permission::Manage)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let skill = find(&mut tx, id).await?.skill;
    installations::lock(&mut tx, &skill).await?;
    store::remove(&mut tx, id).await?;
    let removed = find(&mut tx, id).await?;
    if query.credentials == Leftover::Delete || query.configuration == Leftover::Delete {
        forget(&mut tx, &skill, &query).await?;
    }
    tx.commit().await?;
    Ok(Json(removed))
}

/// Deletes what a skill leaves behind, where nobody needs it any more.
async fn forget(tx: &mut TenantTx, skill: &str, query: &RemoveQuery) -> Result<(), Problem> {
    if query.credentials == Leftover::Keep {
        return Err(Problem::bad_request(
            "invalid_query",
            "Credentials belong to the skill's configuration: with `configuration=delete` goes `credentials=delete`.",
        ));
    }
    if store::is_installed(tx, skill).await? {
        return Err(Problem::conflict(
            "skill_installed",
            format!(
                "Another plugin is installed for `{skill}`, and needs what would be deleted. Remove that one first."
            ),
        ));
    }
    let under_way = store::calls_under_way(tx, skill).await?;
    if under_way > 0 {
        return Err(Problem::conflict(
            "calls_under_way",
            format!(
                "{under_way} calls of `{skill}` are under way and need its credentials. Remove the plugin with `credentials=keep`, or wait until they have ended."
            ),
        ));
    }
    store::delete_credentials(tx, skill).await?;
    if query.configuration == Leftover::Delete {
        store::delete_config(tx, skill).await?;
    }
    Ok(())
}

/// One installation of the tenant's.
pub async fn find(tx: &mut TenantTx, id: InstallationId) -> Result<InstalledPlugin, Problem> {
    store::get(tx, id)
        .await?
        .map(present)
        .ok_or_else(|| Problem::not_found("plugin"))
}

fn notices(row: &store::InstallationRow, manifest: Option<&Manifest>) -> Vec<PluginNotice> {
    let notice = |code: &str, message: String| PluginNotice {
        code: code.to_owned(),
        message,
    };
    let mut notices = Vec::new();
    if let Some(reason) = &row.revoke_reason {
        let told = format!("It was revoked and is not run any more: {reason}");
        notices.push(notice("revoked", told));
    } else if row.key_revoked_at.is_some() {
        let told = "Its publisher revoked the key that it was signed with; it is not run any more.";
        notices.push(notice("revoked", told.to_owned()));
    }
    if let Some(reason) = &row.yank_reason {
        let told = format!("It was withdrawn, and nobody else can install it any more: {reason}");
        notices.push(notice("yanked", told));
    }
    if row.removed_at.is_none() {
        notices.extend(credentials_notice(row, manifest));
    }
    if let Some(newest) = row.newest.as_ref().filter(|_| row.removed_at.is_none()) {
        let told = format!("Version {newest} can be installed.");
        notices.push(notice("upgrade_available", told));
    }
    notices
}

/// What a skill and the plugin that describes its credentials lack of each other.
fn credentials_notice(
    row: &store::InstallationRow,
    manifest: Option<&Manifest>,
) -> Option<PluginNotice> {
    let described = row.described_elsewhere.as_deref();
    let describes_itself = row.kinds.iter().any(|kind| kind == "credential-schema");
    let (code, message) = match row.serves {
        Serves::Credentials if described.is_some() => (
            "unused",
            "The plugin that carries the skill's calls out describes its credentials itself now. Remove this one.".to_owned(),
        ),
        Serves::Skill if !describes_itself => {
            let actions = manifest.map_or(&[][..], |m| &m.actions);
            let lacking = undescribed(actions, described.unwrap_or_default())?;
            let next = match described {
                Some(_) => "Upgrade the credential schema of this skill, or install another in its place",
                None => "Install a credential schema for this skill",
            };
            (
                "credentials_not_described",
                format!("No plugin describes these credentials that it needs, so they cannot be stored: {lacking}. {next}."),
            )
        }
        Serves::Credentials | Serves::Skill => return None,
    };
    Some(PluginNotice {
        code: code.to_owned(),
        message,
    })
}

/// The keys that actions name beside those that are described.
fn undescribed(actions: &[Action], described: &[String]) -> Option<String> {
    let named = actions.iter().flat_map(|action| &action.credentials);
    let lacking: BTreeSet<_> = named.filter(|key| !described.contains(key)).collect();
    let lacking: Vec<_> = lacking.into_iter().map(|key| format!("`{key}`")).collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}

fn present(mut row: store::InstallationRow) -> InstalledPlugin {
    // It was well-formed when it was stored; one that is not any more shows as empty.
    let manifest: Option<Manifest> = row
        .manifest
        .take()
        .and_then(|json| serde_json::from_value(json).ok());
    let notices = notices(&row, manifest.as_ref());
    let schema: Option<SchemaFacts> = row
        .credential_schema
        .and_then(|json| serde_json::from_value(json).ok());
    let about = manifest.as_ref().map(|m| &m.about);
    let about = about.or(schema.as_ref().map(|s| &s.about));
    let of_about = |part: fn(&About) -> &String| about.map(part).cloned().unwrap_or_default();
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
        serves: row.serves,
        title: of_about(|about| &about.title),
        summary: of_about(|about| &about.summary),
        version: of_about(|about| &about.version),
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
        release: row
            .release_id
            .zip(row.release_name)
            .map(|(id, full_name)| InstalledRelease { id, full_name }),
        agreed: match (
            row.consent_sha256,
            row.agreed_by,
            row.agreed_at,
            row.consent,
        ) {
            (Some(sha256), Some(by), Some(at), Some(consent)) => Some(InstalledConsent {
                sha256,
                by,
                at,
                consent,
            }),
            _ => None,
        },
        auto_upgrade: row.auto_upgrade,
        previous_id: row.previous_id,
        notices,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn credentials_that_no_plugin_describes_are_named_once() {
        let list = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let action = |keys: &[&str]| Action {
            credentials: list(keys),
            ..testing::action()
        };
        let actions = [action(&["api_key", "secret"]), action(&["api_key"])];
        let undescribed = |described: &[&str]| undescribed(&actions, &list(described));
        assert_eq!(undescribed(&[]).as_deref(), Some("`api_key`, `secret`"));
        assert_eq!(
            undescribed(&["api_key", "other"]).as_deref(),
            Some("`secret`")
        );
        assert_eq!(undescribed(&["secret", "api_key"]), None);
    }
}
