//! `/tenants` (operators), `/tenant`, `/users` and `/api-keys`.

use super::{Claim, claim, claim_of_operator, keys, store};
use crate::{
    app::App,
    caller::{Caller, Operator, Permission, Role},
    db::{TenantTx, violated_constraint},
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query, bound_to},
    id::{ApiKeyId, TenantId, UserId},
    page::{Page, PageQuery},
    problem::{Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_tenant, list_tenants))
        .routes(routes!(create_owner_key))
        .routes(routes!(get_own_tenant))
        .routes(routes!(create_user, list_users))
        .routes(routes!(get_user))
        .routes(routes!(create_key, list_keys))
        .routes(routes!(get_key, revoke_key))
}

/// An organization.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub slug: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

impl From<store::TenantRow> for Tenant {
    fn from(row: store::TenantRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            slug: row.slug,
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// 1 to 200 characters.
    pub name: String,
    /// Lower-case letters, digits and single dashes; at most 63. Unique in this gateway.
    pub slug: String,
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct CreatedTenant {
    pub tenant: Tenant,
    /// The first owner's key. It is shown this once and stored nowhere.
    pub owner_key: String,
}

/// Create a tenant
///
/// For operators. The answer holds the first owner's API key, once.
#[utoipa::path(post, path = "/tenants", tag = "tenants", security(("operator_key" = [])), request_body = NewTenant,
    responses((status = 201, body = CreatedTenant), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_tenant(
    State(app): State<App>,
    operator: Operator,
    Json(new): Json<NewTenant>,
) -> Result<(StatusCode, Json<CreatedTenant>), Problem> {
    Problem::check_name("/name", &new.name, 1, 200)?;
    check_slug(&new.slug)?;
    let mut tx = app.db().system().await?;
    let row = store::insert_tenant(&mut tx, TenantId::fresh(), &new.name, &new.slug)
        .await
        .map_err(|e| match violated_constraint(&e) {
            Some("tenants_slug_taken") => Problem::conflict(
                "slug_taken",
                format!(
                    "Another tenant is called `{}`. Choose another slug.",
                    new.slug
                ),
            ),
            _ => e.into(),
        })?;
    let key = keys::NewKey::generate(keys::Kind::Tenant);
    let by = format!("operator {}", operator.name);
    store::insert_owner_key(&mut tx, ApiKeyId::fresh(), row.id, "first owner", &key, &by).await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        Json(CreatedTenant {
            tenant: row.into(),
            owner_key: key.text().to_owned(),
        }),
    ))
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewOwnerKey {
    /// How the tenant's people see it in their list; 1 to 200 characters.
    pub name: Option<String>,
}

/// Make a tenant an owner's key anew
///
/// For operators, where the first one was lost. The answer holds the key itself, once. The tenant's people see it in
/// their list, with the operator who made it, and can revoke it.
#[utoipa::path(post, path = "/tenants/{id}/owner-keys", tag = "tenants", security(("operator_key" = [])), params(("id" = TenantId, Path)), request_body = NewOwnerKey,
    responses((status = 201, body = CreatedApiKey), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_owner_key(
    State(app): State<App>,
    operator: Operator,
    Path(tenant): Path<TenantId>,
    IdempotencyKey(idempotency): IdempotencyKey,
    body: JsonWithDigest<NewOwnerKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>), Problem> {
    let bound = bound_to(tenant.uuid(), &body.sha256);
    let new = body.value;
    let name = new.name.as_deref().unwrap_or("owner, made anew");
    Problem::check_name("/name", name, 1, 200)?;
    let mut tx = app.db().system().await?;
    let claimed =
        claim_of_operator(&mut tx, "create_owner_key", idempotency.as_deref(), &bound).await?;
    let id = match claimed {
        Claim::New(id) => ApiKeyId(id),
        Claim::Repeat(id) => {
            let row = store::key_of_any_tenant(&mut tx, ApiKeyId(id))
                .await?
                .ok_or_else(|| Problem::not_found("API key"))?;
            return Ok((
                StatusCode::CREATED,
                Json(CreatedApiKey {
                    api_key: ApiKey::of(row, &[]),
                    secret: None,
                }),
            ));
        }
    };
    let key = keys::NewKey::generate(keys::Kind::Tenant);
    let by = format!("operator {}", operator.name);
    store::insert_owner_key(&mut tx, id, tenant, name, &key, &by)
        .await
        .map_err(|e| match violated_constraint(&e) {
            Some("api_keys_tenant_id_fkey") => Problem::not_found("tenant"),
            _ => e.into(),
        })?;
    let row = store::key_of_any_tenant(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::internal(&"a key vanished"))?;
    tx.commit().await?;
    tracing::warn!(%tenant, operator = operator.name, operator_key = %operator.key, key = key.prefix, "an operator made an owner's key");
    Ok((
        StatusCode::CREATED,
        Json(CreatedApiKey {
            api_key: ApiKey::of(row, &[]),
            secret: Some(key.text().to_owned()),
        }),
    ))
}

/// List the tenants
///
/// For operators.
#[utoipa::path(get, path = "/tenants", tag = "tenants", security(("operator_key" = [])), params(PageQuery), responses((status = 200, body = Page<Tenant>)))]
async fn list_tenants(
    State(app): State<App>,
    _: Operator,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Tenant>>, Problem> {
    let page = query.parse()?;
    let mut tx = app.db().system().await?;
    let rows = store::list_tenants(&mut tx, page).await?;
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        Tenant::from,
    )))
}

/// The caller's own tenant
#[utoipa::path(get, path = "/tenant", tag = "tenants", responses((status = 200, body = Tenant)))]
async fn get_own_tenant(State(app): State<App>, caller: Caller) -> Result<Json<Tenant>, Problem> {
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(store::own_tenant(&mut tx).await?.into()))
}

/// A person of the tenant's.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub display_name: String,
    pub roles: Vec<Role>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

impl From<store::UserRow> for User {
    fn from(row: store::UserRow) -> Self {
        Self {
            id: row.id,
            email: row.email,
            display_name: row.display_name,
            roles: roles_of(&row.roles),
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub email: String,
    #[serde(default)]
    pub display_name: String,
    pub roles: Vec<Role>,
}

/// Add a person
#[utoipa::path(post, path = "/users", tag = "tenants", request_body = NewUser,
    responses((status = 201, body = User), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_user(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewUser>,
) -> Result<(StatusCode, Json<User>), Problem> {
    caller.require(Permission::ManagePeople)?;
    let new = body.value;
    Problem::check_line("/email", &new.email, 3, 320)?;
    Problem::check_name("/display_name", &new.display_name, 0, 200)?;
    if !new.email.contains('@') {
        return Err(Problem::invalid_field(
            "/email",
            "must be an e-mail address: name@company.com",
        ));
    }
    check_roles(&caller, &new.roles)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let id = match claim(&mut tx, "create_user", key.as_deref(), &body.sha256).await? {
        Claim::Repeat(id) => UserId(id),
        Claim::New(id) => {
            let roles = role_names(&new.roles);
            store::insert_user(&mut tx, UserId(id), &new.email, &new.display_name, &roles)
                .await
                .map_err(|e| match violated_constraint(&e) {
                    Some("users_email_taken") => Problem::conflict(
                        "email_taken",
                        "A user with this address is there already.",
                    ),
                    _ => e.into(),
                })?;
            UserId(id)
        }
    };
    let row = store::get_user(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("user"))?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

/// List the tenant's people
#[utoipa::path(get, path = "/users", tag = "tenants", params(PageQuery), responses((status = 200, body = Page<User>)))]
async fn list_users(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<User>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list_users(&mut tx, page).await?;
    Ok(Json(Page::of(rows, page, |row| row.id.uuid(), User::from)))
}

/// One person
#[utoipa::path(get, path = "/users/{id}", tag = "tenants", params(("id" = UserId, Path)),
    responses((status = 200, body = User), (status = 404, body = ProblemBody)))]
async fn get_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<Json<User>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = store::get_user(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("user"))?;
    Ok(Json(row.into()))
}

/// A key that a program or a person comes with. The secret is never shown again.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: String,
    /// The part that the key can be known by.
    pub prefix: String,
    pub roles: Vec<Role>,
    pub user_id: Option<UserId>,
    /// It names a user who did not make it with a key of their own: `created_by` saw it too.
    pub in_anothers_name: bool,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

impl ApiKey {
    async fn present(tx: &mut TenantTx, row: store::KeyRow) -> Result<Self, Problem> {
        let named = store::in_anothers_name(tx, &[row.id.uuid()]).await?;
        Ok(Self::of(row, &named))
    }

    fn of(row: store::KeyRow, in_anothers_name: &[ApiKeyId]) -> Self {
        Self {
            in_anothers_name: in_anothers_name.contains(&row.id),
            id: row.id,
            name: row.name,
            prefix: row.prefix,
            roles: roles_of(&row.roles),
            user_id: row.user_id,
            created_by: row.created_by,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
            created_at: row.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    pub name: String,
    /// No role that the caller lacks; owners may give any.
    pub roles: Vec<Role>,
    pub user_id: Option<UserId>,
    #[serde(
        default,
        deserialize_with = "crate::extract::moment::option::deserialize"
    )]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<OffsetDateTime>,
}

#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct CreatedApiKey {
    pub api_key: ApiKey,
    /// The key itself, shown this once; absent where the request was a repeat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret: Option<String>,
}

/// Create an API key
///
/// The answer holds the key itself, once.
#[utoipa::path(post, path = "/api-keys", tag = "tenants", request_body = NewApiKey,
    responses((status = 201, body = CreatedApiKey), (status = 422, body = ProblemBody)))]
async fn create_key(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>), Problem> {
    caller.require(Permission::ManagePeople)?;
    let new = body.value;
    Problem::check_name("/name", &new.name, 1, 200)?;
    check_roles(&caller, &new.roles)?;
    if new.expires_at.is_some_and(|at| at <= app.clock().now()) {
        return Err(Problem::invalid_field(
            "/expires_at",
            "is in the past; leave it out for a key that does not expire",
        ));
    }
    let mut tx = app.db().tenant(caller.tenant).await?;
    if let Some(user) = new.user_id
        && store::get_user(&mut tx, user).await?.is_none()
    {
        return Err(Problem::invalid_field(
            "/user_id",
            "is no user of this tenant",
        ));
    }
    let mut secret = None;
    let id = match claim(&mut tx, "create_api_key", key.as_deref(), &body.sha256).await? {
        Claim::Repeat(id) => ApiKeyId(id),
        Claim::New(id) => {
            let made = keys::NewKey::generate(keys::Kind::Tenant);
            let roles = role_names(&new.roles);
            let insert = store::KeyInsert {
                id: ApiKeyId(id),
                user: new.user_id,
                name: &new.name,
                key: &made,
                roles: &roles,
                created_by: &caller.name,
                created_by_key: caller.key,
                expires_at: new.expires_at,
            };
            store::insert_key(&mut tx, insert).await?;
            secret = Some(made.text().to_owned());
            ApiKeyId(id)
        }
    };
    let row = store::get_key(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("API key"))?;
    let api_key = ApiKey::present(&mut tx, row).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(CreatedApiKey { api_key, secret })))
}

/// List the API keys
///
/// Without the role to manage people, those of one's own user.
#[utoipa::path(get, path = "/api-keys", tag = "tenants", params(PageQuery), responses((status = 200, body = Page<ApiKey>)))]
async fn list_keys(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ApiKey>>, Problem> {
    let page = query.parse()?;
    let of = whose_keys(&caller)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list_keys(&mut tx, page, of).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.id.uuid()).collect();
    let named = store::in_anothers_name(&mut tx, &ids).await?;
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        |row| ApiKey::of(row, &named),
    )))
}

/// One API key
#[utoipa::path(get, path = "/api-keys/{id}", tag = "tenants", params(("id" = ApiKeyId, Path)),
    responses((status = 200, body = ApiKey), (status = 404, body = ProblemBody)))]
async fn get_key(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ApiKeyId>,
) -> Result<Json<ApiKey>, Problem> {
    let of = whose_keys(&caller)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = find_key(&mut tx, id, of).await?;
    ApiKey::present(&mut tx, row).await.map(Json)
}

/// Revoke an API key
///
/// It is refused from the next request on. Revoking again changes nothing. Anybody revokes the keys of their own user.
#[utoipa::path(delete, path = "/api-keys/{id}", tag = "tenants", params(("id" = ApiKeyId, Path)),
    responses((status = 200, body = ApiKey), (status = 404, body = ProblemBody)))]
async fn revoke_key(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<ApiKeyId>,
) -> Result<Json<ApiKey>, Problem> {
    let of = whose_keys(&caller)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = find_key(&mut tx, id, of).await?;
    if of.is_none() && roles_of(&row.roles).contains(&Role::Owner) && !caller.is_owner() {
        return Err(Problem::forbidden(
            "missing_role",
            "Only an owner revokes an owner's key.",
        ));
    }
    store::revoke_key(&mut tx, id, app.clock().now()).await?;
    let row = find_key(&mut tx, id, of).await?;
    let key = ApiKey::present(&mut tx, row).await?;
    tx.commit().await?;
    Ok(Json(key))
}

/// Whose keys somebody may see and revoke: `None` is everybody's. A person sees those that others made in their name.
fn whose_keys(caller: &Caller) -> Result<Option<UserId>, Problem> {
    match (caller.may(Permission::ManagePeople), caller.user) {
        (true, _) => Ok(None),
        (false, Some(user)) => Ok(Some(user)),
        (false, None) => caller.require(Permission::ManagePeople).map(|()| None),
    }
}

async fn find_key(
    tx: &mut TenantTx,
    id: ApiKeyId,
    of: Option<UserId>,
) -> Result<store::KeyRow, Problem> {
    store::get_key(tx, id)
        .await?
        .filter(|row| of.is_none_or(|user| row.user_id == Some(user)))
        .ok_or_else(|| Problem::not_found("API key"))
}

fn check_roles(caller: &Caller, roles: &[Role]) -> Result<(), Problem> {
    if roles.is_empty() {
        return Err(Problem::invalid_field(
            "/roles",
            "must name at least one role",
        ));
    }
    match roles
        .iter()
        .find(|role| !caller.is_owner() && !caller.roles.contains(role))
    {
        Some(role) => Err(Problem::forbidden(
            "missing_role",
            format!(
                "You cannot give the role {}, which you lack. Ask an owner.",
                role.as_str()
            ),
        )),
        None => Ok(()),
    }
}

fn check_slug(slug: &str) -> Result<(), Problem> {
    let shaped = !slug.is_empty()
        && slug.len() <= 63
        && slug.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
    if shaped {
        Ok(())
    } else {
        Err(Problem::invalid_field(
            "/slug",
            "must be lower-case letters, digits and single dashes, at most 63: `acme-labs`",
        ))
    }
}

fn role_names(roles: &[Role]) -> Vec<String> {
    roles.iter().map(|role| role.as_str().to_owned()).collect()
}

fn roles_of(names: &[String]) -> Vec<Role> {
    names.iter().filter_map(|name| Role::parse(name)).collect()
}
