//! `/marketplace/publishers`.

use super::{must_own, visible_publisher};
use crate::{
    app::App,
    caller::{Party, Permission},
    db::violated_constraint,
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query, bound_to},
    id::{PublisherId, PublisherKeyId},
    marketplace::{
        PartyTx,
        store::{self, KeyRow, PublisherRow, SignedRelease},
    },
    page::{Page, PageQuery},
    plugins::consent::ConsentIdentity,
    problem::{Problem, ProblemBody},
    tenants::Claim,
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tsunami_provenance::{PublicKey, is_namespace};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Publishers of one tenant.
const PUBLISHERS_MAX: i64 = 10;
/// Keys of one publisher, retired ones too.
const KEYS_MAX: usize = 100;
/// Releases of a key that are named; the others are counted.
const SIGNED_NAMED_MAX: i64 = 200;
/// Namespaces that would pass for the gateway's own.
const RESERVED: [&str; 6] = [
    "servicetsunami",
    "tsunami",
    "operator",
    "marketplace",
    "official",
    "plugins",
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_publisher, list_publishers))
        .routes(routes!(get_publisher, update_publisher))
        .routes(routes!(add_publisher_key))
        .routes(routes!(get_publisher_key))
        .routes(routes!(retire_publisher_key))
        .routes(routes!(revoke_publisher_key))
}

/// Whoever publishes plugins, under a namespace.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Publisher {
    pub id: PublisherId,
    /// `acme` of `acme/slack`
    pub namespace: String,
    pub name: String,
    /// Whether it is the caller's own.
    pub own: bool,
    /// Who signs its components by Sigstore besides, where that is recorded: then every release has that bundle.
    pub sigstore: Option<ConsentIdentity>,
    pub keys: Vec<PublisherKey>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// An ed25519 key that releases are signed with.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct PublisherKey {
    pub id: PublisherKeyId,
    pub name: String,
    /// 32 bytes in base64.
    pub public_key: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// It signs nothing new since then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retired_at: Option<OffsetDateTime>,
    /// What it signed is not run any more since then.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<OffsetDateTime>,
}

/// What a key signed, and where that is.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Signed {
    pub releases: i64,
    /// Tenants that have one of them installed now.
    pub tenants: i64,
    /// At most 200, the newest first.
    pub newest: Vec<SignedRelease>,
}

/// A key, and how far its revocation reaches.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct KeyWithSigned {
    #[serde(flatten)]
    pub key: PublisherKey,
    pub signed: Signed,
}

/// The publisher of a key that was revoked, and what does not run any more.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct KeyRevoked {
    #[serde(flatten)]
    pub publisher: Publisher,
    pub signed: Signed,
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewPublisher {
    /// 2 to 39 lower-case letters, digits and dashes, a letter first. Unique in this gateway, and never changed.
    pub namespace: String,
    /// 1 to 200 characters.
    pub name: String,
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct PublisherChange {
    pub name: Option<String>,
    /// The exact identity. A tenant records it once; only an operator changes it, or takes it away with `null`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<ConsentIdentity>)]
    pub sigstore: Option<Option<ConsentIdentity>>,
}

/// Tells `null` from what is not there.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewPublisherKey {
    /// Which key it is: `release machine`.
    pub name: String,
    /// 32 bytes in base64; `tsunami plugin keygen` prints it.
    pub public_key: String,
}

/// Register a publisher
///
/// It belongs to the caller's tenant, or to the operators.
#[utoipa::path(post, path = "/marketplace/publishers", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), request_body = NewPublisher,
    responses((status = 201, body = Publisher), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_publisher(
    State(app): State<App>,
    party: Party,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewPublisher>,
) -> Result<(StatusCode, Json<Publisher>), Problem> {
    party.require(Permission::Manage)?;
    let new = body.value;
    check_namespace(&new.namespace, &party)?;
    Problem::check_name("/name", &new.name, 1, 200)?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let id = match tx
        .claim("create_publisher", key.as_deref(), &body.sha256)
        .await?
    {
        Claim::Repeat(id) => PublisherId(id),
        Claim::New(id) => {
            insert(&mut tx, &party, PublisherId(id), &new).await?;
            PublisherId(id)
        }
    };
    let row = visible_publisher(&mut tx, id).await?;
    let publisher = present(&mut tx, &party, row).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(publisher)))
}

async fn insert(
    tx: &mut PartyTx,
    party: &Party,
    id: PublisherId,
    new: &NewPublisher,
) -> Result<(), Problem> {
    if let Some(tenant) = party.tenant()
        && store::publishers_of(tx, tenant).await? >= PUBLISHERS_MAX
    {
        return Err(Problem::conflict(
            "too_many_publishers",
            format!(
                "Your organization has {PUBLISHERS_MAX} publishers, which is the most. Publish under one of them."
            ),
        ));
    }
    let owner = party.tenant();
    store::insert_publisher(tx, id, owner, &new.namespace, &new.name, &party.name())
        .await
        .map_err(|e| match violated_constraint(&e) {
            Some("publishers_namespace_taken") => Problem::conflict(
                "namespace_taken",
                format!(
                    "The namespace `{}` is taken. Choose another.",
                    new.namespace
                ),
            ),
            _ => e.into(),
        })
}

fn check_namespace(namespace: &str, party: &Party) -> Result<(), Problem> {
    if !is_namespace(namespace) {
        return Err(Problem::invalid_field(
            "/namespace",
            "must be 2 to 39 lower-case letters, digits and dashes, a letter first",
        ));
    }
    if party.tenant().is_some() && RESERVED.contains(&namespace) {
        return Err(Problem::conflict(
            "namespace_taken",
            format!("The namespace `{namespace}` is the operators'. Choose another."),
        ));
    }
    Ok(())
}

/// List the publishers
///
/// The caller's own, and those that have a release for it.
#[utoipa::path(get, path = "/marketplace/publishers", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(PageQuery), responses((status = 200, body = Page<Publisher>)))]
async fn list_publishers(
    State(app): State<App>,
    party: Party,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Publisher>>, Problem> {
    party.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let rows = store::publishers(&mut tx, page).await?;
    let listed = Page::of(rows, page, |row| row.id.uuid(), |row| row);
    let mut items = Vec::new();
    for row in listed.items {
        items.push(present(&mut tx, &party, row).await?);
    }
    Ok(Json(Page {
        items,
        next_cursor: listed.next_cursor,
    }))
}

/// One publisher, with its keys
#[utoipa::path(get, path = "/marketplace/publishers/{id}", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = PublisherId, Path)),
    responses((status = 200, body = Publisher), (status = 404, body = ProblemBody)))]
async fn get_publisher(
    State(app): State<App>,
    party: Party,
    Path(id): Path<PublisherId>,
) -> Result<Json<Publisher>, Problem> {
    party.require(Permission::Read)?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let row = visible_publisher(&mut tx, id).await?;
    present(&mut tx, &party, row).await.map(Json)
}

/// Change a publisher's name, or record who signs for it by Sigstore
#[utoipa::path(patch, path = "/marketplace/publishers/{id}", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = PublisherId, Path)), request_body = PublisherChange,
    responses((status = 200, body = Publisher), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn update_publisher(
    State(app): State<App>,
    party: Party,
    Path(id): Path<PublisherId>,
    Json(change): Json<PublisherChange>,
) -> Result<Json<Publisher>, Problem> {
    party.require(Permission::Manage)?;
    if let Some(name) = &change.name {
        Problem::check_name("/name", name, 1, 200)?;
    }
    let mut tx = PartyTx::begin(&app, &party).await?;
    let mut row = visible_publisher(&mut tx, id).await?;
    must_own(&party, row.owner_tenant_id)?;
    if let Some(name) = change.name {
        row.name = name;
    }
    if let Some(identity) = change.sigstore {
        record_identity(&party, &mut row, identity)?;
    }
    store::update_publisher(&mut tx, &row).await?;
    let publisher = present(&mut tx, &party, row).await?;
    tx.commit().await?;
    Ok(Json(publisher))
}

fn record_identity(
    party: &Party,
    row: &mut PublisherRow,
    identity: Option<ConsentIdentity>,
) -> Result<(), Problem> {
    // Whoever gets at a tenant's key must not be able to sign as somebody else.
    if party.tenant().is_some() && row.sigstore_subject.is_some() {
        return Err(Problem::conflict(
            "identity_recorded",
            "Who signs for this publisher is recorded already. An operator of this gateway changes it.",
        ));
    }
    if let Some(identity) = &identity {
        Problem::check_line("/sigstore/subject", &identity.subject, 1, 1000)?;
        Problem::check_line("/sigstore/issuer", &identity.issuer, 1, 1000)?;
    }
    let (subject, issuer) = identity.map(|i| (i.subject, i.issuer)).unzip();
    row.sigstore_subject = subject;
    row.sigstore_issuer = issuer;
    Ok(())
}

/// Register a key
#[utoipa::path(post, path = "/marketplace/publishers/{id}/keys", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])), params(("id" = PublisherId, Path)), request_body = NewPublisherKey,
    responses((status = 201, body = Publisher), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn add_publisher_key(
    State(app): State<App>,
    party: Party,
    Path(id): Path<PublisherId>,
    IdempotencyKey(idempotency): IdempotencyKey,
    body: JsonWithDigest<NewPublisherKey>,
) -> Result<(StatusCode, Json<Publisher>), Problem> {
    party.require(Permission::Manage)?;
    let bound = bound_to(id.uuid(), &body.sha256);
    let new = body.value;
    Problem::check_name("/name", &new.name, 1, 200)?;
    let key = PublicKey::parse(&new.public_key).map_err(|e| {
        Problem::unprocessable("invalid_key", format!("`public_key` cannot be used: {e}."))
    })?;
    let mut tx = PartyTx::begin(&app, &party).await?;
    let row = visible_publisher(&mut tx, id).await?;
    must_own(&party, row.owner_tenant_id)?;
    let claimed = tx.claim("add_publisher_key", idempotency.as_deref(), &bound);
    let Claim::New(key_id) = claimed.await? else {
        return Ok((
            StatusCode::CREATED,
            Json(present(&mut tx, &party, row).await?),
        ));
    };
    if store::keys(&mut tx, id).await?.len() >= KEYS_MAX {
        return Err(Problem::conflict(
            "too_many_keys",
            format!("The publisher has {KEYS_MAX} keys, which is the most."),
        ));
    }
    store::insert_key(
        &mut tx,
        PublisherKeyId(key_id),
        id,
        &new.name,
        &key.to_bytes(),
        &party.name(),
    )
    .await
    .map_err(|e| match violated_constraint(&e) {
        Some("publisher_keys_key_taken") => {
            Problem::conflict("key_taken", "The publisher has this key already.")
        }
        _ => e.into(),
    })?;
    let publisher = present(&mut tx, &party, row).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(publisher)))
}

/// One key, with what it signed
///
/// For its publisher and for operators: how far its revocation would reach.
#[utoipa::path(get, path = "/marketplace/publishers/{id}/keys/{key}", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])),
    params(("id" = PublisherId, Path), ("key" = PublisherKeyId, Path)),
    responses((status = 200, body = KeyWithSigned), (status = 404, body = ProblemBody)))]
async fn get_publisher_key(
    State(app): State<App>,
    party: Party,
    Path((id, key)): Path<(PublisherId, PublisherKeyId)>,
) -> Result<Json<KeyWithSigned>, Problem> {
    party.require(Permission::Read)?;
    let row = own_key(&app, &party, id, key).await?;
    let signed = signed(&app, key).await?;
    Ok(Json(KeyWithSigned {
        key: row.into(),
        signed,
    }))
}

async fn own_key(
    app: &App,
    party: &Party,
    id: PublisherId,
    key: PublisherKeyId,
) -> Result<KeyRow, Problem> {
    let mut tx = PartyTx::begin(app, party).await?;
    let row = visible_publisher(&mut tx, id).await?;
    must_own(party, row.owner_tenant_id)?;
    let keys = store::keys(&mut tx, id).await?;
    keys.into_iter()
        .find(|row| row.id == key)
        .ok_or_else(|| Problem::not_found("key of this publisher"))
}

/// Counts other tenants' installations, and so spans them; whose they are is not told.
async fn signed(app: &App, key: PublisherKeyId) -> Result<Signed, Problem> {
    let mut tx = app.db().system().await?;
    let (releases, tenants) = store::reach_of_key(&mut tx, key).await?;
    let newest = store::signed_with(&mut tx, key, SIGNED_NAMED_MAX).await?;
    Ok(Signed {
        releases,
        tenants,
        newest,
    })
}

/// Retire a key
///
/// It signs nothing new; what it signed stays good.
#[utoipa::path(post, path = "/marketplace/publishers/{id}/keys/{key}/retire", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])),
    params(("id" = PublisherId, Path), ("key" = PublisherKeyId, Path)),
    responses((status = 200, body = Publisher), (status = 404, body = ProblemBody)))]
async fn retire_publisher_key(
    State(app): State<App>,
    party: Party,
    Path((id, key)): Path<(PublisherId, PublisherKeyId)>,
) -> Result<Json<Publisher>, Problem> {
    change_key(&app, &party, id, async |tx| {
        store::retire_key(tx, id, key).await
    })
    .await
}

/// Revoke a key
///
/// For a key that somebody else got at: what it signed is not run any more, on any host, within 10 seconds. There is
/// no way back. The answer names what it signed, and in how many tenants that is installed.
#[utoipa::path(post, path = "/marketplace/publishers/{id}/keys/{key}/revoke", tag = "marketplace", security(("api_key" = []), ("operator_key" = [])),
    params(("id" = PublisherId, Path), ("key" = PublisherKeyId, Path)),
    responses((status = 200, body = KeyRevoked), (status = 404, body = ProblemBody)))]
async fn revoke_publisher_key(
    State(app): State<App>,
    party: Party,
    Path((id, key)): Path<(PublisherId, PublisherKeyId)>,
) -> Result<Json<KeyRevoked>, Problem> {
    party.require(Permission::Manage)?;
    // Before: what cannot be told should not have been done.
    own_key(&app, &party, id, key).await?;
    let signed = signed(&app, key).await?;
    let Json(publisher) = change_key(&app, &party, id, async |tx| {
        store::revoke_key(tx, id, key).await
    })
    .await?;
    Ok(Json(KeyRevoked { publisher, signed }))
}

async fn change_key(
    app: &App,
    party: &Party,
    id: PublisherId,
    change: impl AsyncFnOnce(&mut PartyTx) -> Result<bool, sqlx::Error>,
) -> Result<Json<Publisher>, Problem> {
    party.require(Permission::Manage)?;
    let mut tx = PartyTx::begin(app, party).await?;
    let row = visible_publisher(&mut tx, id).await?;
    must_own(party, row.owner_tenant_id)?;
    if !change(&mut tx).await? {
        return Err(Problem::not_found("key of this publisher"));
    }
    let publisher = present(&mut tx, party, row).await?;
    tx.commit().await?;
    Ok(Json(publisher))
}

async fn present(tx: &mut PartyTx, party: &Party, row: PublisherRow) -> Result<Publisher, Problem> {
    let keys = store::keys(tx, row.id).await?;
    Ok(Publisher {
        id: row.id,
        own: row.owner_tenant_id == party.tenant(),
        namespace: row.namespace,
        name: row.name,
        sigstore: row
            .sigstore_subject
            .zip(row.sigstore_issuer)
            .map(|(subject, issuer)| ConsentIdentity { subject, issuer }),
        keys: keys.into_iter().map(PublisherKey::from).collect(),
        created_at: row.created_at,
    })
}

impl From<KeyRow> for PublisherKey {
    fn from(row: KeyRow) -> Self {
        let key = PublicKey::from_bytes(&row.public_key);
        Self {
            id: row.id,
            name: row.name,
            public_key: key.map(|key| key.to_string()).unwrap_or_default(),
            created_at: row.created_at,
            retired_at: row.retired_at,
            revoked_at: row.revoked_at,
        }
    }
}
