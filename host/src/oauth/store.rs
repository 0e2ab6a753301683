use super::{Provider, Status};
use crate::{
    db::{SystemTx, TenantTx},
    id::{
        ApiKeyId, CredentialId, DataKeyId, GrantId, OauthClientId, SkillConfigId, TenantId, UserId,
    },
    vault::SealedValue,
};
use sqlx::{Result, types::Json};
use time::OffsetDateTime;

pub struct ClientRow {
    pub provider: Json<Provider>,
    pub agreed_by: String,
    pub agreed_at: OffsetDateTime,
}

pub async fn client(
    tx: &mut TenantTx,
    config: SkillConfigId,
    key: &str,
) -> Result<Option<ClientRow>> {
    sqlx::query_as!(
        ClientRow,
        r#"select provider as "provider: Json<Provider>", agreed_by, agreed_at
           from oauth_clients where skill_config_id = $1 and credential_key = $2"#,
        config.uuid(),
        key
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn put_client(
    tx: &mut TenantTx,
    config: SkillConfigId,
    key: &str,
    provider: &Provider,
    by: &str,
    now: OffsetDateTime,
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into oauth_clients (id, tenant_id, skill_config_id, credential_key, provider, agreed_by, agreed_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (skill_config_id, credential_key)
         do update set provider = excluded.provider, agreed_by = excluded.agreed_by, agreed_at = excluded.agreed_at",
        OauthClientId::fresh().uuid(),
        tenant.uuid(),
        config.uuid(),
        key,
        Json(provider) as _,
        by,
        now
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub struct NewGrant<'a> {
    pub id: GrantId,
    pub config: SkillConfigId,
    pub key: &'a str,
    pub provider: &'a Provider,
    pub redirect_uri: &'a str,
    pub by: &'a str,
    pub by_key: ApiKeyId,
    pub by_user: Option<UserId>,
    pub state_sha256: &'a [u8],
    pub sealed: &'a SealedValue,
    pub expires_at: OffsetDateTime,
}

pub async fn insert(tx: &mut TenantTx, new: NewGrant<'_>) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into oauth_grants
             (id, tenant_id, skill_config_id, credential_key, status, provider, redirect_uri, started_by, started_by_key, started_by_user,
              state_sha256, data_key_id, sealed, expires_at, due_at)
         values ($1, $2, $3, $4, 'asked', $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
        new.id.uuid(),
        tenant.uuid(),
        new.config.uuid(),
        new.key,
        Json(new.provider) as _,
        new.redirect_uri,
        new.by,
        new.by_key.uuid(),
        new.by_user.map(UserId::uuid),
        new.state_sha256,
        new.sealed.data_key.uuid(),
        new.sealed.bytes,
        new.expires_at
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How many sign-ins are on their way.
pub async fn open_sign_ins(tx: &mut TenantTx) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from oauth_grants where status in ('asked', 'exchanging', 'granted')"#
    )
    .fetch_one(&mut **tx)
    .await
}

/// A grant and its tenant, by the state that a browser brought.
pub async fn by_state(
    tx: &mut SystemTx,
    state_sha256: &[u8],
) -> Result<Option<(GrantId, TenantId)>> {
    let found = sqlx::query!(
        r#"select id as "id: GrantId", tenant_id as "tenant_id: TenantId" from oauth_grants where state_sha256 = $1"#,
        state_sha256
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(found.map(|row| (row.id, row.tenant_id)))
}

/// What the sweep has to look at, the longest due first.
pub async fn due(
    tx: &mut SystemTx,
    now: OffsetDateTime,
    max: i64,
) -> Result<Vec<(GrantId, TenantId)>> {
    let rows = sqlx::query!(
        r#"select id as "id: GrantId", tenant_id as "tenant_id: TenantId" from oauth_grants
           where due_at <= $1 and (leased_until is null or leased_until <= $1) order by due_at limit $2"#,
        now,
        max
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.tenant_id))
        .collect())
}

pub struct GrantRow {
    pub id: GrantId,
    /// None where the skill was removed with its configuration.
    pub skill_config_id: Option<SkillConfigId>,
    pub credential_key: String,
    pub credential_id: Option<CredentialId>,
    pub status: String,
    pub provider: Json<Provider>,
    pub redirect_uri: String,
    pub started_by_key: ApiKeyId,
    pub started_by_user: Option<UserId>,
    pub confirm_sha256: Option<Vec<u8>>,
    pub confirm_attempts: i32,
    pub data_key_id: Option<DataKeyId>,
    pub sealed: Option<Vec<u8>>,
    pub sealed_version: i32,
    pub fence: i32,
    pub leased_until: Option<OffsetDateTime>,
    pub expires_at: Option<OffsetDateTime>,
    pub due_at: Option<OffsetDateTime>,
    pub failures: i32,
}

impl GrantRow {
    pub fn status(&self) -> Status {
        Status::parse(&self.status)
    }

    pub fn is_leased(&self, now: OffsetDateTime) -> bool {
        self.leased_until.is_some_and(|until| until > now)
    }
}

/// The skill that a configuration is of.
pub async fn skill_of(tx: &mut TenantTx, config: SkillConfigId) -> Result<Option<String>> {
    let id = config.uuid();
    let skill = sqlx::query_scalar!("select skill_name from skill_configs where id = $1", id);
    skill.fetch_optional(&mut **tx).await
}

/// The configuration that a grant is for.
pub async fn config_of(tx: &mut TenantTx, id: GrantId) -> Result<Option<SkillConfigId>> {
    let config = sqlx::query_scalar!(
        r#"select skill_config_id as "id: SkillConfigId" from oauth_grants where id = $1"#,
        id.uuid()
    );
    Ok(config.fetch_optional(&mut **tx).await?.flatten())
}

/// A grant, which nobody else changes until the transaction ends.
pub async fn lock(tx: &mut TenantTx, id: GrantId) -> Result<Option<GrantRow>> {
    sqlx::query_as!(
        GrantRow,
        r#"select id as "id: GrantId", skill_config_id as "skill_config_id: SkillConfigId", credential_key,
                  credential_id as "credential_id: CredentialId", status, provider as "provider: Json<Provider>", redirect_uri,
                  started_by_key as "started_by_key: ApiKeyId", started_by_user as "started_by_user: UserId",
                  confirm_sha256, confirm_attempts, data_key_id as "data_key_id: DataKeyId", sealed, sealed_version, fence,
                  leased_until, expires_at, due_at, failures
           from oauth_grants where id = $1 for update"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

/// Takes the grant for one process, until then; gives the number under which it may write.
pub async fn lease(tx: &mut TenantTx, id: GrantId, until: OffsetDateTime) -> Result<i32> {
    sqlx::query_scalar!(
        "update oauth_grants set fence = fence + 1, leased_until = $2, updated_at = now() where id = $1 returning fence",
        id.uuid(),
        until
    )
    .fetch_one(&mut **tx)
    .await
}

/// What becomes of a grant. Whoever held it lets it go.
pub struct Step<'a> {
    pub status: Status,
    pub expires_at: Option<OffsetDateTime>,
    pub due_at: Option<OffsetDateTime>,
    pub failures: i32,
    pub error: Option<&'a str>,
}

pub async fn step(tx: &mut TenantTx, id: GrantId, step: Step<'_>) -> Result<()> {
    sqlx::query!(
        "update oauth_grants set status = $2, expires_at = $3, due_at = $4, failures = $5, error = $6, leased_until = null,
                                 updated_at = now()
         where id = $1",
        id.uuid(),
        step.status.as_str(),
        step.expires_at,
        step.due_at,
        step.failures,
        step.error
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Puts tokens, or the verifier, in; `None` takes them out.
pub async fn seal(
    tx: &mut TenantTx,
    id: GrantId,
    sealed: Option<&SealedValue>,
    version: i32,
) -> Result<()> {
    sqlx::query!(
        "update oauth_grants set data_key_id = $2, sealed = $3, sealed_version = $4, updated_at = now() where id = $1",
        id.uuid(),
        sealed.map(|sealed| sealed.data_key.uuid()),
        sealed.map(|sealed| sealed.bytes.as_slice()),
        version
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn ask_to_confirm(tx: &mut TenantTx, id: GrantId, sha256: &[u8]) -> Result<()> {
    sqlx::query!(
        "update oauth_grants set confirm_sha256 = $2, updated_at = now() where id = $1",
        id.uuid(),
        sha256
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn count_confirmation(tx: &mut TenantTx, id: GrantId) -> Result<()> {
    sqlx::query!(
        "update oauth_grants set confirm_attempts = confirm_attempts + 1, updated_at = now() where id = $1",
        id.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn belongs_to(tx: &mut TenantTx, id: GrantId, credential: CredentialId) -> Result<()> {
    sqlx::query!(
        "update oauth_grants set credential_id = $2, confirm_sha256 = null, updated_at = now() where id = $1",
        id.uuid(),
        credential.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends the grants that a new one of the same client takes the place of, without a word to the provider.
pub async fn supersede(
    tx: &mut TenantTx,
    config: SkillConfigId,
    key: &str,
    token_url: &str,
    client_id: &str,
) -> Result<()> {
    sqlx::query!(
        "update oauth_grants set status = 'ended', due_at = null, sealed = null, data_key_id = null, error = 'superseded', updated_at = now()
         where skill_config_id = $1 and credential_key = $2 and status in ('active', 'to_renew')
           and provider ->> 'token_url' = $3 and provider ->> 'client_id' = $4",
        config.uuid(),
        key,
        token_url,
        client_id
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets one of which nothing came.
pub async fn forget(tx: &mut TenantTx, id: GrantId) -> Result<()> {
    sqlx::query!("delete from oauth_grants where id = $1", id.uuid())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
