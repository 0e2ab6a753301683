use crate::{
    db::TenantTx,
    id::{InstallationId, PluginVersionId, SkillConfigId},
    page::PageRequest,
};
use serde_json::Value;
use sqlx::Result;
use time::OffsetDateTime;

pub struct InstalledRow {
    pub digest: String,
}

pub struct InstallationRow {
    pub id: InstallationId,
    pub skill_name: String,
    pub digest: String,
    pub manifest: Option<Value>,
    pub credential_fields: Value,
    pub installed_by: String,
    pub installed_at: OffsetDateTime,
    pub removed_at: Option<OffsetDateTime>,
}

pub async fn installed(tx: &mut TenantTx, skill: &str) -> Result<Option<InstalledRow>> {
    sqlx::query_as!(
        InstalledRow,
        "select digest from plugin_installations where skill_name = $1 and removed_at is null",
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn component(tx: &mut TenantTx, digest: &str) -> Result<Vec<u8>> {
    sqlx::query_scalar!(
        "select component from plugin_versions where digest = $1",
        digest
    )
    .fetch_one(&mut **tx)
    .await
}

pub async fn credential_fields(tx: &mut TenantTx, skill: &str) -> Result<Option<Value>> {
    sqlx::query_scalar!(
        "select v.credential_fields from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id
         where i.skill_name = $1 and i.removed_at is null",
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn insert_version(
    tx: &mut TenantTx,
    digest: &str,
    component: &[u8],
    manifest: Value,
    fields: Value,
) -> Result<PluginVersionId> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into plugin_versions (id, tenant_id, digest, component, manifest, credential_fields) values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, digest) do nothing",
        PluginVersionId::fresh().uuid(),
        tenant.uuid(),
        digest,
        component,
        manifest,
        fields
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query_scalar!(
        r#"select id as "id: PluginVersionId" from plugin_versions where digest = $1"#,
        digest
    )
    .fetch_one(&mut **tx)
    .await
}

/// Puts a version in the place of the one that is installed.
pub async fn install(
    tx: &mut TenantTx,
    id: InstallationId,
    version: PluginVersionId,
    skill: &str,
    digest: &str,
    by: &str,
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!("update plugin_installations set removed_at = now() where skill_name = $1 and removed_at is null", skill)
        .execute(&mut **tx)
        .await?;
    sqlx::query!(
        "insert into plugin_installations (id, tenant_id, plugin_version_id, skill_name, digest, installed_by) values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        tenant.uuid(),
        version.uuid(),
        skill,
        digest,
        by
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The skill's configuration, made with defaults where there is none.
pub async fn ensure_config(tx: &mut TenantTx, skill: &str) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into skill_configs (id, tenant_id, skill_name, enabled, requires_approval) values ($1, $2, $3, true, false)
         on conflict on constraint skill_configs_skill_taken do nothing",
        SkillConfigId::fresh().uuid(),
        tenant.uuid(),
        skill
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn remove(tx: &mut TenantTx, id: InstallationId) -> Result<()> {
    sqlx::query!(
        "update plugin_installations set removed_at = now() where id = $1 and removed_at is null",
        id.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut TenantTx, id: InstallationId) -> Result<Option<InstallationRow>> {
    sqlx::query_as!(
        InstallationRow,
        r#"select i.id as "id: InstallationId", i.skill_name, i.digest, v.manifest, v.credential_fields, i.installed_by, i.installed_at, i.removed_at
           from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id where i.id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<InstallationRow>> {
    sqlx::query_as!(
        InstallationRow,
        r#"select i.id as "id: InstallationId", i.skill_name, i.digest, v.manifest, v.credential_fields, i.installed_by, i.installed_at, i.removed_at
           from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id
           where i.removed_at is null and ($1::uuid is null or i.id < $1) order by i.id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}
