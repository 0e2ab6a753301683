//! `/marketplace/components`, `/marketplace/releases` and `/marketplace/search`.

use super::{must_own, visible_release};
use crate::{
    app::App,
    caller::{Party, Permission},
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query},
    id::{PublisherId, PublisherKeyId, ReleaseId, TenantId},
    marketplace::{
        PartyTx, installations, publishing,
        store::{self, ReleaseFilter, ReleaseRow},
        turn,
    },
    page::{Page, PageRequest},
    plugins::{
        consent::{ConsentAction, ConsentCredential, ConsentIdentity, Powers},
        installations::Serves,
        intake::{self, Described},
    },
    problem::{Problem, ProblemBody},
};
use axum::{
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tsunami_provenance::SIGNATURE_BYTES;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Words that are searched for at once.
const WORDS_MAX: usize = 10;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(bring_component))
        .routes(routes!(publish_release, list_releases))
        .routes(routes!(search_marketplace))
        .routes(routes!(get_release, update_release))
        .routes(routes!(download_component))
}

/// A component, and what it says of itself.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Component {
    /// SHA-256.
    pub digest: String,
    pub size_bytes: usize,
    /// `skill-adapter`, `credential-schema`, `routing-policy`
    pub kinds: Vec<String>,
    /// Under which it is published: that of its skill or policy, or `{skill}-credentials`.
    pub name: String,
    /// The skill that it is installed for, and what it does for it; none for a routing policy alone.
    pub skill: Option<String>,
    pub serves: Option<Serves>,
    pub version: String,
    /// The version of the contract that it is built for.
    pub contract: String,
    pub title: String,
    pub summary: String,
    pub licence: String,
    pub categories: Vec<String>,
    pub hosts: Vec<String>,
    pub host_settings: Vec<String>,
    pub actions: Vec<ConsentAction>,
    pub credentials: Vec<ConsentCredential>,
}

impl From<&Described> for Component {
    fn from(described: &Described) -> Self {
        let powers = Powers::of(described);
        let place = described.place().ok();
        Self {
            digest: described.digest.clone(),
            size_bytes: described.size_bytes,
            kinds: described.kinds.clone(),
            name: described.name.clone(),
            skill: place.map(|(skill, _)| skill.to_owned()),
            serves: place.map(|(_, serves)| serves),
            version: described.about.version.clone(),
            contract: publishing::contract().to_owned(),
            title: described.about.title.clone(),
            summary: described.about.summary.clone(),
            licence: described.about.licence.clone(),
            categories: described.about.categories.clone(),
            hosts: powers.hosts,
            host_settings: powers.host_settings,
            actions: powers.actions,
            credentials: powers.credentials,
        }
    }
}

/// Bring a component
///
/// The body is the component itself. It is checked and stored under its SHA-256, and published by
/// `POST /marketplace/releases`. The same once more changes nothing.
#[utoipa::path(post, path = "/marketplace/components", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "A WebAssembly component"),
    responses((status = 200, body = Component), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn bring_component(
    State(app): State<App>,
    party: Party,
    request: Request,
) -> Result<Json<Component>, Problem> {
    party.require(Permission::Manage)?;
    let (bytes, described) = intake::read_described(&app, turn(&party), request).await?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    tx.keep(&described, &bytes).await?;
    tx.commit().await?;
    Ok(Json(Component::from(&described)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// For every tenant of this gateway.
    Public,
    /// For the tenants that are listed.
    Private,
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewRelease {
    /// The publisher's namespace. Name and version are those that the component gives itself.
    pub publisher: String,
    /// SHA-256 of the component, which was brought before, or is pulled from `oci`.
    pub digest: String,
    /// Where the component is, in the layout that `wkg` writes: `registry/repository@sha256:...`. A tag is resolved
    /// once, now.
    #[serde(default)]
    pub oci: Option<String>,
    /// The key that signed.
    pub key_id: PublisherKeyId,
    /// Over the statement of `tsunami plugin publish`, in base64.
    pub signature: String,
    /// A Sigstore bundle over the component; needed where the publisher's identity is recorded, and refused where not.
    #[serde(default)]
    pub sigstore_bundle: Option<Value>,
    pub visibility: Visibility,
    /// Whom a private release is for.
    #[serde(default)]
    pub tenants: Vec<TenantId>,
}

/// A published version of a plugin.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Release {
    pub id: ReleaseId,
    /// `acme/slack@1.2.0`
    pub full_name: String,
    pub publisher_id: PublisherId,
    pub publisher: String,
    pub name: String,
    pub version: String,
    /// Not offered as the newest.
    pub prerelease: bool,
    /// Whether the caller published it.
    pub own: bool,
    /// `submitted`, `approved`, `rejected`, `yanked` or `revoked`.
    pub state: String,
    /// Why it was rejected, yanked or revoked.
    pub state_reason: Option<String>,
    pub visibility: Visibility,
    pub kinds: Vec<String>,
    pub title: String,
    pub summary: String,
    pub licence: String,
    pub categories: Vec<String>,
    pub homepage: Option<String>,
    pub digest: String,
    pub contract: String,
    /// Installations and downloads of this version.
    pub downloads: i64,
    /// Who signed the component by Sigstore besides.
    pub sigstore: Option<ConsentIdentity>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// Of one release alone, not in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub details: Option<ReleaseDetails>,
}

/// All that there is to know of a release.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ReleaseDetails {
    /// Markdown.
    pub readme: String,
    pub component: Component,
    pub key_id: PublisherKeyId,
    /// In base64.
    pub signature: String,
    /// `upload` or `oci`.
    pub source_kind: String,
    /// By digest, where it was pulled.
    pub source: Option<String>,
    /// What the conformance check of `tsunami plugin check` found here, when it was published.
    pub conformance: Option<Value>,
    /// Installations and downloads of all versions.
    pub downloads_of_plugin: i64,
    /// For the publisher and operators: whom a private release is for.
    pub tenants: Vec<TenantId>,
    /// For the publisher and operators.
    pub submitted_by: Option<String>,
    pub reviewed_by: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reviewed_at: Option<OffsetDateTime>,
}

/// Publish a release
///
/// It is signed by the publisher, and reviewed by an operator before anybody installs it; an operator's own is approved
/// at once. A version that is published never changes.
#[utoipa::path(post, path = "/marketplace/releases", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), request_body = NewRelease,
    responses((status = 201, body = Release), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn publish_release(
    State(app): State<App>,
    party: Party,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewRelease>,
) -> Result<(StatusCode, Json<Release>), Problem> {
    party.require(Permission::Manage)?;
    let new = body.value;
    let signature = BASE64_STANDARD
        .decode(&new.signature)
        .ok()
        .filter(|bytes| bytes.len() == SIGNATURE_BYTES)
        .ok_or_else(|| {
            let must = format!("must be {SIGNATURE_BYTES} bytes in base64");
            Problem::invalid_field("/signature", &must)
        })?;
    let submission = publishing::Submission {
        publisher: new.publisher,
        digest: new.digest,
        oci: new.oci,
        key: new.key_id,
        signature,
        sigstore_bundle: new.sigstore_bundle.map(|bundle| bundle.to_string()),
        is_public: new.visibility == Visibility::Public,
        tenants: new.tenants,
    };
    let claim = (key.as_deref(), &body.sha256);
    let id = Box::pin(publishing::publish(&app, &party, submission, claim)).await?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let row = visible_release(&mut tx, id).await?;
    let release = present_whole(&mut tx, &party, row).await?;
    Ok((StatusCode::CREATED, Json(release)))
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReleasesQuery {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Only of this namespace.
    publisher: Option<String>,
    /// Only versions of this plugin.
    name: Option<String>,
    version: Option<String>,
    /// Only what is `submitted`, `approved` or `rejected`.
    state: Option<String>,
}

/// List releases
///
/// All versions that the caller sees: its own, those that are for it, and those that it once installed. Operators see
/// all; `state=submitted` are those that wait for them.
#[utoipa::path(get, path = "/marketplace/releases", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(ReleasesQuery), responses((status = 200, body = Page<Release>)))]
async fn list_releases(
    State(app): State<App>,
    party: Party,
    Query(query): Query<ReleasesQuery>,
) -> Result<Json<Page<Release>>, Problem> {
    party.require(Permission::Read)?;
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let filter = ReleaseFilter {
        namespace: query.publisher.as_deref(),
        name: query.name.as_deref(),
        version: query.version.as_deref(),
        state: query.state.as_deref(),
    };
    if let Some(state) = filter.state
        && !["submitted", "approved", "rejected"].contains(&state)
    {
        return Err(Problem::bad_request(
            "invalid_query",
            format!("`state` is `{state}`; it must be submitted, approved or rejected."),
        ));
    }
    let mut tx = PartyTx::begin(&app, &party).await?;
    let rows = store::releases(&mut tx, &filter, page).await?;
    Ok(Json(Page::taken(
        rows,
        |row| row.id.uuid(),
        |row| present(&party, row),
    )))
}

#[derive(Deserialize, IntoParams, Debug)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    limit: Option<i64>,
    cursor: Option<String>,
    /// Words, or the beginnings of words: of name, title, summary, categories and readme. All must be there.
    q: Option<String>,
    /// `messaging`
    category: Option<String>,
    /// `skill-adapter`, `credential-schema` or `routing-policy`
    kind: Option<String>,
}

/// Search the marketplace
///
/// The newest version of each plugin that can be installed, the latest first.
#[utoipa::path(get, path = "/marketplace/search", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(SearchQuery), responses((status = 200, body = Page<Release>)))]
async fn search_marketplace(
    State(app): State<App>,
    party: Party,
    Query(query): Query<SearchQuery>,
) -> Result<Json<Page<Release>>, Problem> {
    party.require(Permission::Read)?;
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let words = query.q.as_deref().map(prefixes).transpose()?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let (category, kind) = (query.category.as_deref(), query.kind.as_deref());
    let rows = store::search(&mut tx, words.as_deref(), category, kind, page).await?;
    Ok(Json(Page::taken(
        rows,
        |row| row.id.uuid(),
        |row| present(&party, row),
    )))
}

/// The words of a search, as PostgreSQL reads them: `slack:* & message:*`.
fn prefixes(text: &str) -> Result<String, Problem> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| format!("{}:*", word.to_lowercase()))
        .collect();
    if (1..=WORDS_MAX).contains(&words.len()) {
        return Ok(words.join(" & "));
    }
    Err(Problem::bad_request(
        "invalid_query",
        format!(
            "`q` has {} words; it must have 1 to {WORDS_MAX}.",
            words.len()
        ),
    ))
}

/// One release, with all that there is to know of it
#[utoipa::path(get, path = "/marketplace/releases/{id}", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path)),
    responses((status = 200, body = Release), (status = 404, body = ProblemBody)))]
async fn get_release(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
) -> Result<Json<Release>, Problem> {
    party.require(Permission::Read)?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let row = visible_release(&mut tx, id).await?;
    present_whole(&mut tx, &party, row).await.map(Json)
}

/// Download a release's component
#[utoipa::path(get, path = "/marketplace/releases/{id}/component", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path)),
    responses((status = 200, content_type = "application/wasm", body = Vec<u8>), (status = 404, body = ProblemBody)))]
async fn download_component(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), Problem> {
    party.require(Permission::Read)?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let row = visible_release(&mut tx, id).await?;
    let bytes = intake::bytes(&mut tx, &row.digest)
        .await?
        .ok_or_else(|| Problem::internal(&"a release's component is not there"))?;
    tx.commit().await?;
    installations::count_download(&app, id).await;
    Ok(([(header::CONTENT_TYPE, "application/wasm")], bytes))
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct ReleaseChange {
    pub visibility: Visibility,
    #[serde(default)]
    pub tenants: Vec<TenantId>,
}

/// Change whom a release is for
///
/// Whoever has it installed keeps it. Where it is for others than before, a tenant's release is `submitted` again: an
/// operator approved it for those whom it was for then.
#[utoipa::path(patch, path = "/marketplace/releases/{id}", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = ReleaseId, Path)), request_body = ReleaseChange,
    responses((status = 200, body = Release), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn update_release(
    State(app): State<App>,
    party: Party,
    Path(id): Path<ReleaseId>,
    Json(change): Json<ReleaseChange>,
) -> Result<Json<Release>, Problem> {
    party.require(Permission::Manage)?;
    let is_public = change.visibility == Visibility::Public;
    publishing::check_audience(is_public, &change.tenants)?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    // An operator may approve it right now, for those whom it is for.
    store::lock_release(&mut tx, id).await?;
    let row = visible_release(&mut tx, id).await?;
    must_own(&party, row.owner_tenant_id)?;
    let before = store::audience(&mut tx, id).await?;
    let is_wider = row.visibility != "public"
        && (is_public || change.tenants.iter().any(|tenant| !before.contains(tenant)));
    if is_wider && party.tenant().is_some() {
        store::submit_again(&mut tx, id).await?;
    }
    let visibility = if is_public { "public" } else { "private" };
    store::set_visibility(&mut tx, id, visibility).await?;
    publishing::set_audience(&mut tx, id, row.owner_tenant_id, &change.tenants).await?;
    let row = visible_release(&mut tx, id).await?;
    let release = present_whole(&mut tx, &party, row).await?;
    tx.commit().await?;
    Ok(Json(release))
}

/// As lists show it.
pub(super) fn present(party: &Party, row: ReleaseRow) -> Release {
    let (state, reason) = match (row.revoked(), row.yanked_at) {
        (Some(reason), _) => ("revoked", Some(reason)),
        (None, Some(_)) => ("yanked", row.yank_reason.clone()),
        (None, None) => (row.state.as_str(), row.state_reason.clone()),
    };
    Release {
        id: row.id,
        full_name: row.full_name(),
        publisher_id: row.publisher_id,
        own: row.owner_tenant_id == party.tenant(),
        state: state.to_owned(),
        state_reason: reason,
        visibility: match row.visibility.as_str() {
            "public" => Visibility::Public,
            _ => Visibility::Private,
        },
        publisher: row.namespace,
        name: row.name,
        version: row.version,
        prerelease: row.prerelease,
        kinds: row.kinds,
        title: row.title,
        summary: row.summary,
        licence: row.licence,
        categories: row.categories,
        homepage: row.homepage,
        digest: row.digest,
        contract: row.contract,
        downloads: row.downloads,
        sigstore: row
            .sigstore
            .and_then(|json| serde_json::from_value(json).ok()),
        created_at: row.created_at,
        details: None,
    }
}

/// As it is shown by itself.
pub(super) async fn present_whole(
    tx: &mut PartyTx,
    party: &Party,
    row: ReleaseRow,
) -> Result<Release, Problem> {
    let described = intake::find(tx, &row.digest)
        .await?
        .ok_or_else(|| Problem::internal(&"a release's component is not there"))?;
    let mut component = Component::from(&described);
    // What it said when it was published; a schema of credentials alone is not asked again.
    component.name.clone_from(&row.name);
    component.version.clone_from(&row.version);
    component.title.clone_from(&row.title);
    component.summary.clone_from(&row.summary);
    component.licence.clone_from(&row.licence);
    component.categories.clone_from(&row.categories);
    let is_theirs = party
        .tenant()
        .is_none_or(|tenant| row.owner_tenant_id == Some(tenant));
    let details = ReleaseDetails {
        readme: row.readme.clone(),
        component,
        key_id: row.key_id,
        signature: BASE64_STANDARD.encode(&row.signature),
        source_kind: row.source_kind.clone(),
        source: row.source.clone(),
        conformance: row.conformance.clone(),
        downloads_of_plugin: store::downloads(tx, row.publisher_id, &row.name).await?,
        tenants: match is_theirs {
            true => store::audience(tx, row.id).await?,
            false => Vec::new(),
        },
        submitted_by: is_theirs.then(|| row.submitted_by.clone()),
        reviewed_by: row.reviewed_by.clone().filter(|_| is_theirs),
        reviewed_at: row.reviewed_at,
    };
    Ok(Release {
        details: Some(details),
        ..present(party, row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_words_and_never_a_query_of_its_own() {
        assert_eq!(prefixes("Slack  message").unwrap(), "slack:* & message:*");
        assert_eq!(prefixes("a' | !b:* & <-> (c)").unwrap(), "a:* & b:* & c:*");
        assert!(prefixes(" ' & ").is_err());
        assert!(prefixes(&"word ".repeat(11)).is_err());
    }
}
