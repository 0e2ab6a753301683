use crate::{
    db::TenantTx,
    id::{CredentialId, DataKeyId, GrantId, SkillConfigId},
    page::PageRequest,
};
use sqlx::Result;
use time::{Duration, OffsetDateTime};

/// `last_used_at` is written about this often.
const USE_NOTED_EVERY: Duration = Duration::minutes(1);

#[derive(Clone)]
pub struct CredentialRow {
    pub id: CredentialId,
    pub skill_config_id: SkillConfigId,
    pub credential_key: String,
    pub credential_type: String,
    pub data_key_id: DataKeyId,
    pub encrypted_value: Vec<u8>,
    pub version: i32,
    pub last_4: String,
    pub status: String,
    pub rejected_at: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub last_used_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    /// Of the sign-in that it was had by.
    pub grant_id: Option<GrantId>,
}

impl CredentialRow {
    /// The status as of now: one that ran out is expired whether or not anybody noted it.
    pub fn status_at(&self, now: OffsetDateTime) -> &str {
        if self.status == "active" && self.expires_at.is_some_and(|at| at <= now) {
            "expired"
        } else {
            &self.status
        }
    }

    /// Noted to the minute, so that a busy credential does not cost a write each call.
    pub fn use_is_unnoted(&self, now: OffsetDateTime) -> bool {
        self.last_used_at
            .is_none_or(|at| now - at > USE_NOTED_EVERY)
    }
}

pub async fn current_data_key(tx: &mut TenantTx) -> Result<Option<DataKeyId>> {
    sqlx::query_scalar!(
        r#"select id as "id: DataKeyId" from tenant_data_keys where retired_at is null"#
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn wrapped_data_key(tx: &mut TenantTx, id: DataKeyId) -> Result<Option<String>> {
    sqlx::query_scalar!(
        "select wrapped from tenant_data_keys where id = $1",
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn insert_data_key(tx: &mut TenantTx, id: DataKeyId, wrapped: &str) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into tenant_data_keys (id, tenant_id, wrapped) values ($1, $2, $3) on conflict do nothing",
        id.uuid(),
        tenant.uuid(),
        wrapped
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The newest credential of each key, revoked ones too: they say why a call fails.
pub async fn latest(tx: &mut TenantTx, config: SkillConfigId) -> Result<Vec<CredentialRow>> {
    sqlx::query_as!(
        CredentialRow,
        r#"select distinct on (credential_key)
                  id as "id: CredentialId", skill_config_id as "skill_config_id: SkillConfigId", credential_key, credential_type,
                  data_key_id as "data_key_id: DataKeyId", encrypted_value, version, last_4, status, rejected_at, expires_at,
                  last_used_at, created_at, grant_id as "grant_id: GrantId"
           from skill_credentials where skill_config_id = $1
           order by credential_key, (status = 'revoked'), id desc"#,
        config.uuid()
    )
    .fetch_all(&mut **tx)
    .await
}

/// Notes a use. Where somebody is at it, nothing is to be noted, nor waited for.
pub async fn touch(
    tx: &mut TenantTx,
    config: SkillConfigId,
    keys: &[String],
    now: OffsetDateTime,
) -> Result<()> {
    sqlx::query!(
        "update skill_credentials set last_used_at = $3 where id in (
             select id from skill_credentials where skill_config_id = $1 and credential_key = any($2) and status = 'active'
             for update skip locked)",
        config.uuid(),
        keys,
        now
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn note_rejected(
    tx: &mut TenantTx,
    config: SkillConfigId,
    keys: &[String],
) -> Result<()> {
    sqlx::query!(
        "update skill_credentials set rejected_at = now() where skill_config_id = $1 and credential_key = any($2) and status = 'active'",
        config.uuid(),
        keys
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub struct NewCredentialRow<'a> {
    pub id: CredentialId,
    pub config: SkillConfigId,
    pub key: &'a str,
    pub kind: &'a str,
    pub data_key: DataKeyId,
    pub encrypted: &'a [u8],
    pub version: i32,
    pub last_4: &'a str,
    pub expires_at: Option<OffsetDateTime>,
    pub grant: Option<GrantId>,
}

pub async fn insert(tx: &mut TenantTx, new: NewCredentialRow<'_>) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into skill_credentials
             (id, tenant_id, skill_config_id, credential_key, credential_type, data_key_id, encrypted_value, version, last_4, status, expires_at, grant_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', $10, $11)",
        new.id.uuid(),
        tenant.uuid(),
        new.config.uuid(),
        new.key,
        new.kind,
        new.data_key.uuid(),
        new.encrypted,
        new.version,
        new.last_4,
        new.expires_at,
        new.grant.map(GrantId::uuid)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Makes whoever would change a skill's credentials wait until the transaction ends. It is no lock of a row: calls lock
/// that of the configuration when they hold credentials already.
pub async fn lock_of_skill(tx: &mut TenantTx, config: SkillConfigId) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('credentials of ' || $1::uuid::text, 0))",
        config.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends the credentials that a new one replaces; gives the highest version that there was. Where one was had by
/// signing in, that ends with it: what is left of it, at the provider, is the sweep's. The sign-in is locked first, as
/// whoever renews it does.
pub async fn retire(tx: &mut TenantTx, config: SkillConfigId, key: &str) -> Result<i32> {
    sqlx::query!(
        "select 1 as one from oauth_grants where id in (
             select grant_id from skill_credentials where skill_config_id = $1 and credential_key = $2 and status <> 'revoked')
         order by id for update",
        config.uuid(),
        key
    )
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query!(
        "with revoked as (
             update skill_credentials set status = 'revoked', updated_at = now()
             where skill_config_id = $1 and credential_key = $2 and status <> 'revoked' returning grant_id)
         update oauth_grants set status = 'ending', due_at = now(), failures = 0, updated_at = now()
         where id in (select grant_id from revoked) and status in ('active', 'to_renew')",
        config.uuid(),
        key
    )
    .execute(&mut **tx)
    .await?;
    let highest = sqlx::query_scalar!(
        r#"select coalesce(max(version), 0) as "highest!" from skill_credentials where skill_config_id = $1 and credential_key = $2"#,
        config.uuid(),
        key
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(highest)
}

pub async fn get(tx: &mut TenantTx, id: CredentialId) -> Result<Option<CredentialRow>> {
    sqlx::query_as!(
        CredentialRow,
        r#"select id as "id: CredentialId", skill_config_id as "skill_config_id: SkillConfigId", credential_key, credential_type,
                  data_key_id as "data_key_id: DataKeyId", encrypted_value, version, last_4, status, rejected_at, expires_at,
                  last_used_at, created_at, grant_id as "grant_id: GrantId"
           from skill_credentials where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<CredentialRow>> {
    sqlx::query_as!(
        CredentialRow,
        r#"select id as "id: CredentialId", skill_config_id as "skill_config_id: SkillConfigId", credential_key, credential_type,
                  data_key_id as "data_key_id: DataKeyId", encrypted_value, version, last_4, status, rejected_at, expires_at,
                  last_used_at, created_at, grant_id as "grant_id: GrantId"
           from skill_credentials where ($1::uuid is null or id < $1) order by id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

/// Ends a credential, and the sign-in that it was had by, which is locked first.
pub async fn revoke(tx: &mut TenantTx, id: CredentialId) -> Result<()> {
    sqlx::query!(
        "select 1 as one from oauth_grants where id = (select grant_id from skill_credentials where id = $1) for update",
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    sqlx::query!(
        "with revoked as (
             update skill_credentials set status = 'revoked', updated_at = now()
             where id = $1 and status <> 'revoked' returning grant_id)
         update oauth_grants set status = 'ending', due_at = now(), failures = 0, updated_at = now()
         where id in (select grant_id from revoked) and status in ('active', 'to_renew')",
        id.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub struct Renewed<'a> {
    pub data_key: DataKeyId,
    pub encrypted: &'a [u8],
    pub version: i32,
    pub last_4: &'a str,
    pub expires_at: Option<OffsetDateTime>,
}

/// Another value in the place of one that was renewed; says whether it is still in use.
pub async fn renew(tx: &mut TenantTx, id: CredentialId, renewed: Renewed<'_>) -> Result<bool> {
    let done = sqlx::query!(
        "update skill_credentials set data_key_id = $2, encrypted_value = $3, version = $4, last_4 = $5, expires_at = $6,
                                      rejected_at = null, updated_at = now()
         where id = $1 and status = 'active'",
        id.uuid(),
        renewed.data_key.uuid(),
        renewed.encrypted,
        renewed.version,
        renewed.last_4,
        renewed.expires_at
    )
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// It can be renewed no more.
pub async fn expire(tx: &mut TenantTx, id: CredentialId) -> Result<()> {
    sqlx::query!(
        "update skill_credentials set status = 'expired', updated_at = now() where id = $1 and status = 'active'",
        id.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The configuration that a skill's credentials belong to.
pub async fn config_of_skill(tx: &mut TenantTx, skill: &str) -> Result<Option<SkillConfigId>> {
    sqlx::query_scalar!(
        r#"select id as "id: SkillConfigId" from skill_configs where skill_name = $1"#,
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn skill_of_config(
    tx: &mut TenantTx,
    configs: &[SkillConfigId],
) -> Result<Vec<(SkillConfigId, String)>> {
    let ids: Vec<_> = configs.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select id as "id: SkillConfigId", skill_name from skill_configs where id = any($1)"#,
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.skill_name))
        .collect())
}
