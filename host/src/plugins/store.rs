use super::{Origin, installations::Serves};
use crate::{
    db::TenantTx,
    id::{InstallationId, PluginVersionId, ReleaseId, SkillConfigId},
    page::{PageRequest, Taken, json_bytes},
};
use serde_json::Value;
use sqlx::{PgConnection, Result};
use time::OffsetDateTime;

pub struct InstallationRow {
    pub id: InstallationId,
    pub skill_name: String,
    pub serves: Serves,
    pub kinds: Vec<String>,
    pub digest: String,
    pub version_id: PluginVersionId,
    pub previous_id: Option<InstallationId>,
    pub manifest: Option<Value>,
    pub credential_schema: Option<Value>,
    pub credential_fields: Value,
    /// The keys that another plugin describes, which is installed for the skill to describe its credentials.
    pub described_elsewhere: Option<Vec<String>>,
    pub installed_by: String,
    pub installed_at: OffsetDateTime,
    pub removed_at: Option<OffsetDateTime>,
    pub consent: Option<Value>,
    pub consent_sha256: Option<String>,
    pub agreed_by: Option<String>,
    pub agreed_at: Option<OffsetDateTime>,
    pub auto_upgrade: bool,
    pub release_id: Option<ReleaseId>,
    pub release_name: Option<String>,
    pub yank_reason: Option<String>,
    pub revoke_reason: Option<String>,
    pub key_revoked_at: Option<OffsetDateTime>,
    /// The newest version that could be installed instead.
    pub newest: Option<String>,
}

impl InstallationRow {
    fn json_bytes(&self) -> usize {
        let told = [&self.manifest, &self.credential_schema, &self.consent];
        json_bytes([&self.credential_fields]) + json_bytes(told.into_iter().flatten())
    }
}

/// The plugin that is installed for a skill: what it is, and what it came by.
pub async fn installed(tx: &mut TenantTx, skill: &str) -> Result<Option<Origin>> {
    sqlx::query_as!(
        Origin,
        r#"select i.digest, v.release_id as "release: ReleaseId"
           from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id
           where i.skill_name = $1 and i.serves = 'skill' and i.removed_at is null"#,
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

/// The plugin that describes a skill's credentials: its own, or else the one that is installed for that.
pub async fn credentials_origin(tx: &mut TenantTx, skill: &str) -> Result<Option<Origin>> {
    sqlx::query_as!(
        Origin,
        r#"select i.digest, v.release_id as "release: ReleaseId"
           from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id
           join plugin_components c on c.digest = i.digest
           where i.skill_name = $1 and i.removed_at is null and 'credential-schema' = any (c.kinds)
           order by i.serves desc limit 1"#,
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

/// Whether the plugin that carries a skill's calls out describes its credentials too.
pub async fn describes_itself(tx: &mut TenantTx, skill: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from plugin_installations i join plugin_components c on c.digest = i.digest
               where i.skill_name = $1 and i.serves = 'skill' and i.removed_at is null
                 and 'credential-schema' = any (c.kinds)) as "is!""#,
        skill
    )
    .fetch_one(&mut **tx)
    .await
}

/// What the tenant's latest installation of a digest came by, removed or not.
pub async fn origin(tx: &mut TenantTx, digest: &str) -> Result<Option<Origin>> {
    sqlx::query_as!(
        Origin,
        r#"select i.digest, v.release_id as "release: ReleaseId"
           from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id
           where i.digest = $1 order by i.id desc limit 1"#,
        digest
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn component(tx: &mut PgConnection, digest: &str) -> Result<Option<Vec<u8>>> {
    sqlx::query_scalar!(
        "select bytes from plugin_components where digest = $1",
        digest
    )
    .fetch_optional(tx)
    .await
}

/// The credentials of a skill, as they are described; none where nothing is installed for it.
pub async fn credential_fields(tx: &mut TenantTx, skill: &str) -> Result<Option<Value>> {
    sqlx::query_scalar!(
        "select c.credential_fields from plugin_installations i join plugin_components c on c.digest = i.digest
         where i.skill_name = $1 and i.removed_at is null
         order by 'credential-schema' = any (c.kinds) desc, i.serves desc limit 1",
        skill
    )
    .fetch_optional(&mut **tx)
    .await
}

/// What a component says of itself, as it is stored with it.
pub struct NewComponent<'a> {
    pub digest: &'a str,
    pub bytes: &'a [u8],
    pub kinds: &'a [String],
    pub manifest: Option<Value>,
    pub credential_fields: Value,
    pub credential_schema: Option<Value>,
    pub policy_manifest: Option<Value>,
}

/// Stores a component, unless somebody brought the same before.
pub async fn insert_component(tx: &mut PgConnection, new: NewComponent<'_>) -> Result<()> {
    sqlx::query!(
        "insert into plugin_components (digest, bytes, kinds, manifest, credential_fields, credential_schema, policy_manifest)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        new.digest,
        new.bytes,
        new.kinds,
        new.manifest,
        new.credential_fields,
        new.credential_schema,
        new.policy_manifest
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn uploads(tx: &mut TenantTx) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from plugin_versions where release_id is null"#
    )
    .fetch_one(&mut **tx)
    .await
}

/// The tenant's version of a digest: what lets it read the component.
pub async fn ensure_version(tx: &mut TenantTx, origin: &Origin) -> Result<PluginVersionId> {
    let tenant = tx.tenant();
    let release = origin.release.map(ReleaseId::uuid);
    sqlx::query!(
        "insert into plugin_versions (id, tenant_id, digest, release_id) values ($1, $2, $3, $4)
         on conflict (tenant_id, digest, release_id) do nothing",
        PluginVersionId::fresh().uuid(),
        tenant.uuid(),
        origin.digest,
        release
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query_scalar!(
        r#"select id as "id: PluginVersionId" from plugin_versions
           where digest = $1 and release_id is not distinct from $2"#,
        origin.digest,
        release
    )
    .fetch_one(&mut **tx)
    .await
}

/// Whether the tenant brought this file, or had this release.
pub async fn has_version(tx: &mut TenantTx, origin: &Origin) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from plugin_versions where digest = $1 and release_id is not distinct from $2) as "has!""#,
        origin.digest,
        origin.release.map(ReleaseId::uuid)
    )
    .fetch_one(&mut **tx)
    .await
}

/// Why the operator had a digest stopped.
pub async fn revoked(tx: &mut PgConnection, digest: &str) -> Result<Option<String>> {
    sqlx::query_scalar!(
        "select reason from plugin_revocations where digest = $1 and release_id is null",
        digest
    )
    .fetch_optional(tx)
    .await
}

/// Whether releases of a digest that the tenant sees are revoked, themselves or by their keys.
pub async fn is_release_revoked(tx: &mut TenantTx, digest: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from plugin_releases r where r.digest = $1
                 and (exists (select from plugin_revocations x where x.release_id = r.id)
                      or exists (select from publisher_keys k where k.id = r.key_id and k.revoked_at is not null))) as "is!""#,
        digest
    )
    .fetch_one(&mut **tx)
    .await
}

/// The newest release of a digest that the tenant may use.
pub async fn newest_release(tx: &mut TenantTx, digest: &str) -> Result<Option<ReleaseId>> {
    sqlx::query_scalar!(
        r#"select r.id as "id: ReleaseId" from plugin_releases r
           where r.digest = $1 and r.state = 'approved' and r.yanked_at is null
             and not is_revoked(r.digest, r.id, r.key_id)
           order by r.id desc limit 1"#,
        digest
    )
    .fetch_optional(&mut **tx)
    .await
}

pub struct Installing<'a> {
    pub id: InstallationId,
    pub version: PluginVersionId,
    pub skill: &'a str,
    pub serves: Serves,
    pub digest: &'a str,
    pub by: &'a str,
    /// The installation to go back to; where it is not set, the one that is replaced.
    pub previous: Option<Option<InstallationId>>,
    pub consent: Option<Value>,
    pub consent_sha256: Option<&'a str>,
    pub agreed_by: Option<&'a str>,
    pub agreed_at: Option<OffsetDateTime>,
    pub auto_upgrade: bool,
}

/// Makes those who install a plugin for one skill wait for each other.
pub async fn lock_skill(tx: &mut TenantTx, skill: &str) -> Result<()> {
    let name = format!("plugin-installation {} {skill}", tx.tenant());
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1, 0))",
        name
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Puts a version in the place of the one that is installed.
pub async fn install(tx: &mut TenantTx, new: Installing<'_>) -> Result<()> {
    let tenant = tx.tenant();
    let replaced = sqlx::query_scalar!(
        r#"update plugin_installations set removed_at = now()
           where skill_name = $1 and serves = $2 and removed_at is null returning id as "id: InstallationId""#,
        new.skill,
        new.serves as Serves
    )
    .fetch_optional(&mut **tx)
    .await?;
    sqlx::query!(
        "insert into plugin_installations (id, tenant_id, plugin_version_id, skill_name, digest, installed_by, previous_id,
             consent, consent_sha256, agreed_by, agreed_at, auto_upgrade, serves)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        new.id.uuid(),
        tenant.uuid(),
        new.version.uuid(),
        new.skill,
        new.digest,
        new.by,
        new.previous.unwrap_or(replaced).map(InstallationId::uuid),
        new.consent,
        new.consent_sha256,
        new.agreed_by,
        new.agreed_at,
        new.auto_upgrade,
        new.serves as Serves
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

pub async fn set_auto_upgrade(tx: &mut TenantTx, id: InstallationId, on: bool) -> Result<()> {
    sqlx::query!(
        "update plugin_installations set auto_upgrade = $2 where id = $1 and removed_at is null",
        id.uuid(),
        on
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Calls of a skill that have begun and not ended; whoever takes one up needs its configuration and credentials.
pub async fn calls_under_way(tx: &mut TenantTx, skill: &str) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from skill_calls
           where skill_name = $1 and status in ('running', 'outcome_unknown')"#,
        skill
    )
    .fetch_one(&mut **tx)
    .await
}

/// Deletes all credentials of a skill, revoked ones too. The sign-ins that some were had by end on their own: the sweep
/// has their providers revoke the tokens. The locks are taken in the order of all who change credentials: that
/// of the skill (`vault::lock_of_skill`), then sign-ins, then credentials.
pub async fn delete_credentials(tx: &mut TenantTx, skill: &str) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('credentials of ' || id::text, 0)) from skill_configs where skill_name = $1",
        skill
    )
    .execute(&mut **tx)
    .await?;
    // Nothing came of these yet.
    sqlx::query!(
        "delete from oauth_grants where status = 'asked' and skill_config_id = (select id from skill_configs where skill_name = $1)",
        skill
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "update oauth_grants set credential_id = null, confirm_sha256 = null, updated_at = now(),
                status = case when status = 'ended' then 'ended' else 'ending' end,
                due_at = case when status = 'ended' then null when status = 'ending' then due_at else now() end,
                failures = case when status = 'ending' then failures else 0 end
         where skill_config_id = (select id from skill_configs where skill_name = $1)",
        skill
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "delete from skill_credentials where skill_config_id = (select id from skill_configs where skill_name = $1)",
        skill
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// And the configuration, with the clients that were registered for it. Sign-ins that end do not need it.
pub async fn delete_config(tx: &mut TenantTx, skill: &str) -> Result<()> {
    sqlx::query!(
        "delete from oauth_clients where skill_config_id = (select id from skill_configs where skill_name = $1)",
        skill
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "update oauth_grants set skill_config_id = null where skill_config_id = (select id from skill_configs where skill_name = $1)",
        skill
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!("delete from skill_configs where skill_name = $1", skill)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

macro_rules! installation_query {
    ($where:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            InstallationRow,
            r#"select i.id as "id: InstallationId", i.skill_name, i.serves as "serves: Serves", c.kinds, i.digest, i.plugin_version_id as "version_id: PluginVersionId",
                      i.previous_id as "previous_id: InstallationId", c.manifest as "manifest?",
                      c.credential_schema as "credential_schema?", c.credential_fields,
                      (select array(select field->>'key' from jsonb_array_elements(d.credential_fields) field)
                       from plugin_installations o join plugin_components d on d.digest = o.digest
                       where o.skill_name = i.skill_name and o.serves <> i.serves and o.removed_at is null
                         and 'credential-schema' = any (d.kinds) limit 1) as "described_elsewhere?",
                      i.installed_by, i.installed_at, i.removed_at, i.consent, i.consent_sha256, i.agreed_by, i.agreed_at,
                      i.auto_upgrade, v.release_id as "release_id: ReleaseId",
                      r.namespace || '/' || r.name || '@' || r.version as "release_name?",
                      case when r.yanked_at is not null then coalesce(r.yank_reason, '') end as "yank_reason?",
                      (select x.reason from plugin_revocations x
                       where x.digest = i.digest and (x.release_id is null or x.release_id = v.release_id) limit 1) as "revoke_reason?",
                      k.revoked_at as "key_revoked_at?",
                      (select n.version from plugin_releases n
                       where n.publisher_id = r.publisher_id and n.name = r.name and n.state = 'approved' and n.yanked_at is null
                         and not n.prerelease and n.version_numbers > r.version_numbers
                         and not is_revoked(n.digest, n.id, n.key_id)
                       order by n.version_numbers desc limit 1) as "newest?"
               from plugin_installations i
               join plugin_versions v on v.id = i.plugin_version_id
               join plugin_components c on c.digest = i.digest
               left join plugin_releases r on r.id = v.release_id
               left join publisher_keys k on k.id = r.key_id
               where "# + $where
            $(, $arg)*
        )
    };
}

pub async fn get(tx: &mut TenantTx, id: InstallationId) -> Result<Option<InstallationRow>> {
    installation_query!("i.id = $1", id.uuid())
        .fetch_optional(&mut **tx)
        .await
}

/// Whether anything is installed for a skill.
pub async fn is_installed(tx: &mut TenantTx, skill: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from plugin_installations where skill_name = $1 and removed_at is null) as "is!""#,
        skill
    )
    .fetch_one(&mut **tx)
    .await
}

pub async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Taken<InstallationRow>> {
    let rows = installation_query!(
        "i.removed_at is null and ($1::uuid is null or i.id < $1) order by i.id desc limit $2",
        page.before,
        page.fetch()
    )
    .fetch(&mut **tx);
    page.take(rows, InstallationRow::json_bytes).await
}

/// A component's kinds and what it says of itself, where the caller may read it.
pub struct ComponentRow {
    pub digest: String,
    pub kinds: Vec<String>,
    pub manifest: Option<Value>,
    pub credential_fields: Value,
    pub credential_schema: Option<Value>,
    pub policy_manifest: Option<Value>,
    pub size_bytes: i32,
}

pub async fn component_facts(tx: &mut PgConnection, digest: &str) -> Result<Option<ComponentRow>> {
    sqlx::query_as!(
        ComponentRow,
        r#"select digest, kinds, manifest, credential_fields, credential_schema, policy_manifest, octet_length(bytes) as "size_bytes!"
           from plugin_components where digest = $1"#,
        digest
    )
    .fetch_optional(tx)
    .await
}
