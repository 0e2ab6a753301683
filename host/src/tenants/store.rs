use super::{OperatorKey, keys::NewKey};
use crate::{
    db::{SystemTx, TenantTx},
    id::{ApiKeyId, OperatorKeyId, TenantId, UserId},
    page::PageRequest,
};
use sqlx::{PgConnection, Result};
use time::OffsetDateTime;
use uuid::Uuid;

pub struct KeyRow {
    pub id: ApiKeyId,
    pub tenant_id: TenantId,
    pub user_id: Option<UserId>,
    pub name: String,
    pub prefix: String,
    pub secret_sha256: Vec<u8>,
    pub roles: Vec<String>,
    pub created_by: String,
    pub expires_at: Option<OffsetDateTime>,
    pub last_used_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
}

pub struct OperatorKeyRow {
    pub id: OperatorKeyId,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    pub last_used_at: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

pub struct TenantRow {
    pub id: TenantId,
    pub name: String,
    pub slug: String,
    pub created_at: OffsetDateTime,
}

pub struct UserRow {
    pub id: UserId,
    pub email: String,
    pub display_name: String,
    pub roles: Vec<String>,
    pub created_at: OffsetDateTime,
}

pub struct IdempotencyRow {
    pub request_sha256: Vec<u8>,
    pub resource_id: Uuid,
}

pub async fn find_key(connection: &mut PgConnection, prefix: &str) -> Result<Option<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        r#"select id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId", name, prefix,
                  secret_sha256, roles, created_by, expires_at, last_used_at, revoked_at, created_at
           from api_keys where prefix = $1"#,
        prefix
    )
    .fetch_optional(connection)
    .await
}

pub async fn key_of_any_tenant(tx: &mut SystemTx, id: ApiKeyId) -> Result<Option<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        r#"select id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId", name, prefix,
                  secret_sha256, roles, created_by, expires_at, last_used_at, revoked_at, created_at
           from api_keys where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn touch_key(
    connection: &mut PgConnection,
    id: ApiKeyId,
    now: OffsetDateTime,
) -> Result<()> {
    sqlx::query!(
        "update api_keys set last_used_at = $2 where id = $1",
        id.uuid(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn find_operator_key(
    connection: &mut PgConnection,
    prefix: &str,
) -> Result<Option<OperatorKeyRow>> {
    sqlx::query_as!(
        OperatorKeyRow,
        r#"select id as "id: OperatorKeyId", name, secret_sha256, last_used_at, expires_at, revoked_at from operator_keys where prefix = $1"#,
        prefix
    )
    .fetch_optional(connection)
    .await
}

pub async fn touch_operator_key(
    connection: &mut PgConnection,
    id: OperatorKeyId,
    now: OffsetDateTime,
) -> Result<()> {
    sqlx::query!(
        "update operator_keys set last_used_at = $2 where id = $1",
        id.uuid(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn insert_operator_key(
    tx: &mut SystemTx,
    id: OperatorKeyId,
    name: &str,
    key: &NewKey,
    expires_at: Option<OffsetDateTime>,
) -> Result<()> {
    sqlx::query!(
        "insert into operator_keys (id, name, prefix, secret_sha256, expires_at) values ($1, $2, $3, $4, $5)",
        id.uuid(),
        name,
        key.prefix,
        key.secret_sha256.as_slice(),
        expires_at
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn list_operator_keys(tx: &mut SystemTx, max: i64) -> Result<Vec<OperatorKey>> {
    sqlx::query_as!(
        OperatorKey,
        "select name, prefix, created_at, last_used_at, expires_at, revoked_at from operator_keys order by id desc limit $1",
        max
    )
    .fetch_all(&mut **tx)
    .await
}

/// Gives the name of the key; none where there is none of this prefix.
pub async fn revoke_operator_key(
    tx: &mut SystemTx,
    prefix: &str,
    now: OffsetDateTime,
) -> Result<Option<String>> {
    sqlx::query_scalar!(
        "update operator_keys set revoked_at = coalesce(revoked_at, $2) where prefix = $1 returning name",
        prefix,
        now
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn insert_tenant(
    tx: &mut SystemTx,
    id: TenantId,
    name: &str,
    slug: &str,
) -> Result<TenantRow> {
    sqlx::query_as!(
        TenantRow,
        r#"insert into tenants (id, name, slug) values ($1, $2, $3)
           returning id as "id: TenantId", name, slug, created_at"#,
        id.uuid(),
        name,
        slug
    )
    .fetch_one(&mut **tx)
    .await
}

pub async fn list_tenants(tx: &mut SystemTx, page: PageRequest) -> Result<Vec<TenantRow>> {
    sqlx::query_as!(
        TenantRow,
        r#"select id as "id: TenantId", name, slug, created_at from tenants
           where ($1::uuid is null or id < $1) order by id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

/// The caller's own tenant: row-level security shows no other.
pub async fn own_tenant(tx: &mut TenantTx) -> Result<TenantRow> {
    sqlx::query_as!(
        TenantRow,
        r#"select id as "id: TenantId", name, slug, created_at from tenants"#
    )
    .fetch_one(&mut **tx)
    .await
}

pub struct KeyInsert<'a> {
    pub id: ApiKeyId,
    pub user: Option<UserId>,
    pub name: &'a str,
    pub key: &'a NewKey,
    pub roles: &'a [String],
    pub created_by: &'a str,
    pub created_by_key: ApiKeyId,
    pub expires_at: Option<OffsetDateTime>,
}

pub async fn insert_key(tx: &mut TenantTx, new: KeyInsert<'_>) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into api_keys (id, tenant_id, user_id, name, prefix, secret_sha256, roles, created_by, expires_at, created_by_key)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        new.id.uuid(),
        tenant.uuid(),
        new.user.map(UserId::uuid),
        new.name,
        new.key.prefix,
        new.key.secret_sha256.as_slice(),
        new.roles,
        new.created_by,
        new.expires_at,
        new.created_by_key.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The key from which this one descends, and the user of that: up to the first key with a user, or to one that nobody
/// of the tenant made.
pub async fn origin_of_key(
    tx: &mut TenantTx,
    id: ApiKeyId,
) -> Result<Option<(ApiKeyId, Option<UserId>)>> {
    let found = sqlx::query!(
        r#"with recursive line as (
               select id, user_id, created_by_key from api_keys where id = $1
               union
               select k.id, k.user_id, k.created_by_key from line join api_keys k on k.id = line.created_by_key
               where line.user_id is null)
           select id as "id!: ApiKeyId", user_id as "user_id: UserId" from line
           where user_id is not null or created_by_key is null"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(found.map(|row| (row.id, row.user_id)))
}

/// A key in the line from which another descends.
pub struct Ancestor {
    pub id: ApiKeyId,
    pub user: Option<UserId>,
    pub roles: Vec<String>,
}

/// A key, who made it, who made that, and so on.
pub async fn line_of_key(tx: &mut TenantTx, id: ApiKeyId) -> Result<Vec<Ancestor>> {
    // Ids follow the time: whoever made a key has an older one.
    sqlx::query_as!(
        Ancestor,
        r#"with recursive line as (
               select id, user_id, roles, created_by_key from api_keys where id = $1
               union
               select k.id, k.user_id, k.roles, k.created_by_key from line join api_keys k on k.id = line.created_by_key)
           select id as "id!: ApiKeyId", user_id as "user: UserId", roles as "roles!" from line order by id desc"#,
        id.uuid()
    )
    .fetch_all(&mut **tx)
    .await
}

/// Which of these keys name a user who did not make them with a key of their own.
pub async fn in_anothers_name(tx: &mut TenantTx, keys: &[Uuid]) -> Result<Vec<ApiKeyId>> {
    sqlx::query_scalar!(
        r#"select k.id as "id: ApiKeyId" from api_keys k where k.id = any ($1) and k.user_id is not null
           and not exists (select from api_keys m where m.id = k.created_by_key and m.user_id = k.user_id)"#,
        keys
    )
    .fetch_all(&mut **tx)
    .await
}

/// An owner's key of a tenant where nobody could make it: it was just made, or its last key is lost.
pub async fn insert_owner_key(
    tx: &mut SystemTx,
    id: ApiKeyId,
    tenant: TenantId,
    name: &str,
    key: &NewKey,
    created_by: &str,
) -> Result<()> {
    sqlx::query!(
        "insert into api_keys (id, tenant_id, name, prefix, secret_sha256, roles, created_by)
         values ($1, $2, $3, $4, $5, array['owner'], $6)",
        id.uuid(),
        tenant.uuid(),
        name,
        key.prefix,
        key.secret_sha256.as_slice(),
        created_by
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn get_key(tx: &mut TenantTx, id: ApiKeyId) -> Result<Option<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        r#"select id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId", name, prefix,
                  secret_sha256, roles, created_by, expires_at, last_used_at, revoked_at, created_at
           from api_keys where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

/// Of one user, where one is named.
pub async fn list_keys(
    tx: &mut TenantTx,
    page: PageRequest,
    user: Option<UserId>,
) -> Result<Vec<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        r#"select id as "id: ApiKeyId", tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId", name, prefix,
                  secret_sha256, roles, created_by, expires_at, last_used_at, revoked_at, created_at
           from api_keys where ($1::uuid is null or id < $1) and ($3::uuid is null or user_id = $3) order by id desc limit $2"#,
        page.before,
        page.fetch(),
        user.map(UserId::uuid)
    )
    .fetch_all(&mut **tx)
    .await
}

pub async fn revoke_key(tx: &mut TenantTx, id: ApiKeyId, now: OffsetDateTime) -> Result<()> {
    sqlx::query!(
        "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1",
        id.uuid(),
        now
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn insert_user(
    tx: &mut TenantTx,
    id: UserId,
    email: &str,
    display_name: &str,
    roles: &[String],
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into users (id, tenant_id, email, display_name, roles) values ($1, $2, $3, $4, $5)",
        id.uuid(),
        tenant.uuid(),
        email,
        display_name,
        roles
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn get_user(tx: &mut TenantTx, id: UserId) -> Result<Option<UserRow>> {
    sqlx::query_as!(
        UserRow,
        r#"select id as "id: UserId", email, display_name, roles, created_at from users where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list_users(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<UserRow>> {
    sqlx::query_as!(
        UserRow,
        r#"select id as "id: UserId", email, display_name, roles, created_at from users
           where ($1::uuid is null or id < $1) order by id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

/// Keeps an `Idempotency-Key` for a thing that is about to be made; what it was kept for before, where it was.
pub async fn claim(
    tx: &mut TenantTx,
    operation: &str,
    key: &str,
    sha256: &[u8; 32],
    resource: Uuid,
) -> Result<Option<IdempotencyRow>> {
    let tenant = tx.tenant();
    let kept = sqlx::query!(
        "insert into idempotency_keys (tenant_id, operation, key, request_sha256, resource_id)
         values ($1, $2, $3, $4, $5) on conflict do nothing",
        tenant.uuid(),
        operation,
        key,
        sha256.as_slice(),
        resource
    )
    .execute(&mut **tx)
    .await?;
    if kept.rows_affected() == 1 {
        return Ok(None);
    }
    let earlier = sqlx::query_as!(
        IdempotencyRow,
        "select request_sha256, resource_id from idempotency_keys where operation = $1 and key = $2",
        operation,
        key
    );
    earlier.fetch_one(&mut **tx).await.map(Some)
}

/// The same of an operator.
pub async fn claim_of_operator(
    tx: &mut SystemTx,
    operation: &str,
    key: &str,
    sha256: &[u8; 32],
    resource: Uuid,
) -> Result<Option<IdempotencyRow>> {
    let kept = sqlx::query!(
        "insert into operator_idempotency_keys (operation, key, request_sha256, resource_id)
         values ($1, $2, $3, $4) on conflict do nothing",
        operation,
        key,
        sha256.as_slice(),
        resource
    )
    .execute(&mut **tx)
    .await?;
    if kept.rows_affected() == 1 {
        return Ok(None);
    }
    let earlier = sqlx::query_as!(
        IdempotencyRow,
        "select request_sha256, resource_id from operator_idempotency_keys where operation = $1 and key = $2",
        operation,
        key
    );
    earlier.fetch_one(&mut **tx).await.map(Some)
}
