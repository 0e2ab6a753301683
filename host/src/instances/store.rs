use crate::{
    db::{SystemTx, TenantTx},
    id::{DataKeyId, InstanceId, TenantId},
    page::PageRequest,
};
use serde_json::Value;
use sqlx::Result;
use time::OffsetDateTime;

pub struct InstanceRow {
    pub id: InstanceId,
    pub instance_type: String,
    pub name: String,
    pub version: String,
    pub driver: String,
    pub status: String,
    pub desired: String,
    pub internal_url: Option<String>,
    pub health: Option<Value>,
    pub error: Option<String>,
    pub data_key_id: DataKeyId,
    pub encrypted_secrets: Vec<u8>,
    pub lost_since: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// The tenant's instance: the one that is not destroyed.
pub async fn live(tx: &mut TenantTx) -> Result<Option<InstanceRow>> {
    sqlx::query_as!(
        InstanceRow,
        r#"select id as "id: InstanceId", instance_type, name, version, driver, status, desired, internal_url, health, error,
                  data_key_id as "data_key_id: DataKeyId", encrypted_secrets, lost_since, created_at, updated_at
           from tenant_instances where status <> 'destroyed'"#
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn get(tx: &mut TenantTx, id: InstanceId) -> Result<Option<InstanceRow>> {
    sqlx::query_as!(
        InstanceRow,
        r#"select id as "id: InstanceId", instance_type, name, version, driver, status, desired, internal_url, health, error,
                  data_key_id as "data_key_id: DataKeyId", encrypted_secrets, lost_since, created_at, updated_at
           from tenant_instances where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

/// The same, and nobody else changes it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: InstanceId) -> Result<Option<InstanceRow>> {
    sqlx::query_as!(
        InstanceRow,
        r#"select id as "id: InstanceId", instance_type, name, version, driver, status, desired, internal_url, health, error,
                  data_key_id as "data_key_id: DataKeyId", encrypted_secrets, lost_since, created_at, updated_at
           from tenant_instances where id = $1 for update"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<InstanceRow>> {
    sqlx::query_as!(
        InstanceRow,
        r#"select id as "id: InstanceId", instance_type, name, version, driver, status, desired, internal_url, health, error,
                  data_key_id as "data_key_id: DataKeyId", encrypted_secrets, lost_since, created_at, updated_at
           from tenant_instances where ($1::uuid is null or id < $1) order by id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

pub struct NewInstanceRow<'a> {
    pub id: InstanceId,
    pub name: &'a str,
    pub version: &'a str,
    pub driver: &'a str,
    pub data_key: DataKeyId,
    pub encrypted: &'a [u8],
    pub created_by: &'a str,
}

pub async fn insert(tx: &mut TenantTx, new: NewInstanceRow<'_>) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into tenant_instances (id, tenant_id, instance_type, name, version, driver, status, desired, data_key_id, encrypted_secrets, created_by)
         values ($1, $2, 'openclaw', $3, $4, $5, 'provisioning', 'running', $6, $7, $8)",
        new.id.uuid(),
        tenant.uuid(),
        new.name,
        new.version,
        new.driver,
        new.data_key.uuid(),
        new.encrypted,
        new.created_by
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_status(
    tx: &mut TenantTx,
    id: InstanceId,
    status: &str,
    error: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "update tenant_instances set status = $2, error = $3, lost_since = null, updated_at = now() where id = $1",
        id.uuid(),
        status,
        error
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_desired(
    tx: &mut TenantTx,
    id: InstanceId,
    status: &str,
    desired: &str,
) -> Result<()> {
    sqlx::query!(
        "update tenant_instances set status = $2, desired = $3, error = null, lost_since = null, updated_at = now() where id = $1",
        id.uuid(),
        status,
        desired
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// It should run, and could not be brought back.
pub async fn set_lost(tx: &mut TenantTx, id: InstanceId, error: &str) -> Result<()> {
    sqlx::query!(
        "update tenant_instances set status = 'error', error = $2, lost_since = coalesce(lost_since, now()), updated_at = now() where id = $1",
        id.uuid(),
        error
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_url(tx: &mut TenantTx, id: InstanceId, url: &str) -> Result<()> {
    sqlx::query!(
        "update tenant_instances set internal_url = $2, updated_at = now() where id = $1",
        id.uuid(),
        url
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_health(tx: &mut TenantTx, id: InstanceId, health: &Value) -> Result<()> {
    sqlx::query!(
        "update tenant_instances set health = $2 where id = $1",
        id.uuid(),
        health
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Those that run, and those that should and are lost.
pub async fn all_to_run(tx: &mut SystemTx) -> Result<Vec<(TenantId, InstanceId)>> {
    let rows = sqlx::query!(
        r#"select tenant_id as "tenant: TenantId", id as "id: InstanceId" from tenant_instances
           where desired = 'running' and (status = 'running' or (status = 'error' and lost_since is not null))"#
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.tenant, row.id)).collect())
}
