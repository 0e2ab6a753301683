use super::revocations::Known;
use crate::{
    db::{SystemTx, TenantTx},
    id::{
        InstallationId, PublisherId, PublisherKeyId, ReleaseId, RevocationId, SkillCallId, TaskId,
        TenantId,
    },
    page::{PageRequest, Taken, json_bytes},
};
use serde_json::Value;
use sqlx::{PgConnection, Result};
use time::OffsetDateTime;

// ---- publishers -----------------------------------------------------------------------------------------------------

pub struct PublisherRow {
    pub id: PublisherId,
    pub owner_tenant_id: Option<TenantId>,
    pub namespace: String,
    pub name: String,
    pub sigstore_subject: Option<String>,
    pub sigstore_issuer: Option<String>,
    pub created_at: OffsetDateTime,
}

macro_rules! publisher_query {
    ($where:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            PublisherRow,
            r#"select id as "id: PublisherId", owner_tenant_id as "owner_tenant_id: TenantId", namespace, name,
                      sigstore_subject, sigstore_issuer, created_at
               from publishers where "# + $where
            $(, $arg)*
        )
    };
}

pub async fn insert_publisher(
    tx: &mut PgConnection,
    id: PublisherId,
    owner: Option<TenantId>,
    namespace: &str,
    name: &str,
    by: &str,
) -> Result<()> {
    sqlx::query!(
        "insert into publishers (id, owner_tenant_id, namespace, name, created_by) values ($1, $2, $3, $4, $5)",
        id.uuid(),
        owner.map(TenantId::uuid),
        namespace,
        name,
        by
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn publishers_of(tx: &mut PgConnection, owner: TenantId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from publishers where owner_tenant_id = $1"#,
        owner.uuid()
    )
    .fetch_one(tx)
    .await
}

pub async fn publisher(tx: &mut PgConnection, id: PublisherId) -> Result<Option<PublisherRow>> {
    publisher_query!("id = $1", id.uuid())
        .fetch_optional(tx)
        .await
}

pub async fn publisher_by_namespace(
    tx: &mut PgConnection,
    namespace: &str,
) -> Result<Option<PublisherRow>> {
    publisher_query!("namespace = $1", namespace)
        .fetch_optional(tx)
        .await
}

pub async fn publishers(tx: &mut PgConnection, page: PageRequest) -> Result<Vec<PublisherRow>> {
    publisher_query!(
        "($1::uuid is null or id < $1) order by id desc limit $2",
        page.before,
        page.fetch()
    )
    .fetch_all(tx)
    .await
}

pub async fn update_publisher(tx: &mut PgConnection, row: &PublisherRow) -> Result<()> {
    sqlx::query!(
        "update publishers set name = $2, sigstore_subject = $3, sigstore_issuer = $4 where id = $1",
        row.id.uuid(),
        row.name,
        row.sigstore_subject,
        row.sigstore_issuer
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub struct KeyRow {
    pub id: PublisherKeyId,
    pub name: String,
    pub public_key: Vec<u8>,
    pub created_at: OffsetDateTime,
    pub retired_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

pub async fn keys(tx: &mut PgConnection, publisher: PublisherId) -> Result<Vec<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        r#"select id as "id: PublisherKeyId", name, public_key, created_at, retired_at, revoked_at
           from publisher_keys where publisher_id = $1 order by id"#,
        publisher.uuid()
    )
    .fetch_all(tx)
    .await
}

pub async fn insert_key(
    tx: &mut PgConnection,
    id: PublisherKeyId,
    publisher: PublisherId,
    name: &str,
    public_key: &[u8],
    by: &str,
) -> Result<()> {
    sqlx::query!(
        "insert into publisher_keys (id, publisher_id, name, public_key, created_by) values ($1, $2, $3, $4, $5)",
        id.uuid(),
        publisher.uuid(),
        name,
        public_key,
        by
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// `false` where the publisher has no such key.
pub async fn retire_key(
    tx: &mut PgConnection,
    publisher: PublisherId,
    key: PublisherKeyId,
) -> Result<bool> {
    let done = sqlx::query!(
        "update publisher_keys set retired_at = coalesce(retired_at, now()) where id = $1 and publisher_id = $2",
        key.uuid(),
        publisher.uuid()
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// `false` where the publisher has no such key.
pub async fn revoke_key(
    tx: &mut PgConnection,
    publisher: PublisherId,
    key: PublisherKeyId,
) -> Result<bool> {
    let done = sqlx::query!(
        "update publisher_keys set revoked_at = coalesce(revoked_at, now()), retired_at = coalesce(retired_at, now())
         where id = $1 and publisher_id = $2",
        key.uuid(),
        publisher.uuid()
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How many releases a key signed, and how many tenants have one of them installed.
pub async fn reach_of_key(tx: &mut SystemTx, key: PublisherKeyId) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select (select count(*) from plugin_releases where key_id = $1) as "releases!",
                  (select count(distinct i.tenant_id) from plugin_installations i
                   join plugin_versions v on v.id = i.plugin_version_id join plugin_releases r on r.id = v.release_id
                   where r.key_id = $1 and i.removed_at is null) as "tenants!""#,
        key.uuid()
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok((row.releases, row.tenants))
}

/// A release of a key, as people see it.
#[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema, Debug)]
pub struct SignedRelease {
    pub id: ReleaseId,
    /// `acme/slack@1.2.0`
    pub name: String,
    /// Tenants that have it installed now.
    pub tenants: i64,
}

/// The newest of them, each with how many tenants have it installed.
pub async fn signed_with(
    tx: &mut SystemTx,
    key: PublisherKeyId,
    limit: i64,
) -> Result<Vec<SignedRelease>> {
    sqlx::query_as!(
        SignedRelease,
        r#"select r.id as "id: ReleaseId", r.namespace || '/' || r.name || '@' || r.version as "name!",
                  (select count(distinct i.tenant_id) from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id
                   where v.release_id = r.id and i.removed_at is null) as "tenants!"
           from plugin_releases r where r.key_id = $1 order by r.id desc limit $2"#,
        key.uuid(),
        limit
    )
    .fetch_all(&mut **tx)
    .await
}

// ---- releases -------------------------------------------------------------------------------------------------------

pub struct NewRelease<'a> {
    pub id: ReleaseId,
    pub publisher: PublisherId,
    pub owner: Option<TenantId>,
    pub namespace: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    pub version_numbers: &'a [i64],
    pub prerelease: bool,
    pub digest: &'a str,
    pub contract: &'a str,
    pub kinds: &'a [String],
    pub title: &'a str,
    pub summary: &'a str,
    pub licence: &'a str,
    pub categories: &'a [String],
    pub homepage: Option<&'a str>,
    pub readme: &'a str,
    pub key: PublisherKeyId,
    pub signature: &'a [u8],
    pub sigstore: Option<Value>,
    pub sigstore_bundle: Option<&'a str>,
    pub source: Option<&'a str>,
    pub visibility: &'a str,
    pub conformance: Value,
    pub by: &'a str,
    /// An operator's own need no look of an operator's.
    pub approved_by: Option<&'a str>,
}

pub async fn insert_release(tx: &mut PgConnection, new: NewRelease<'_>) -> Result<()> {
    let state = if new.approved_by.is_some() {
        "approved"
    } else {
        "submitted"
    };
    let named = format!(
        "{} {} {} {}",
        new.namespace,
        new.name,
        new.title,
        new.categories.join(" ")
    );
    sqlx::query!(
        "insert into plugin_releases (id, publisher_id, owner_tenant_id, namespace, name, version, version_numbers, prerelease, digest,
             contract, kinds, title, summary, licence, categories, homepage, readme, key_id, signature, sigstore, sigstore_bundle,
             source_kind, source, visibility, conformance, submitted_by, state, reviewed_by, reviewed_at, words)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
             case when $22::text is null then 'upload' else 'oci' end, $22, $23, $24, $25, $26, $27,
             case when $27::text is not null then now() end,
             setweight(to_tsvector('simple', $28), 'A') || setweight(to_tsvector('simple', $13), 'B') || setweight(to_tsvector('simple', $17), 'D'))",
        new.id.uuid(),
        new.publisher.uuid(),
        new.owner.map(TenantId::uuid),
        new.namespace,
        new.name,
        new.version,
        new.version_numbers,
        new.prerelease,
        new.digest,
        new.contract,
        new.kinds,
        new.title,
        new.summary,
        new.licence,
        new.categories,
        new.homepage,
        new.readme,
        new.key.uuid(),
        new.signature,
        new.sigstore,
        new.sigstore_bundle,
        new.source,
        new.visibility,
        new.conformance,
        new.by,
        state,
        new.approved_by,
        named
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[derive(Debug)]
pub struct ReleaseRow {
    pub id: ReleaseId,
    pub publisher_id: PublisherId,
    pub owner_tenant_id: Option<TenantId>,
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub prerelease: bool,
    pub digest: String,
    pub contract: String,
    pub kinds: Vec<String>,
    pub title: String,
    pub summary: String,
    pub licence: String,
    pub categories: Vec<String>,
    pub homepage: Option<String>,
    pub readme: String,
    pub key_id: PublisherKeyId,
    pub signature: Vec<u8>,
    pub sigstore: Option<Value>,
    pub source_kind: String,
    pub source: Option<String>,
    pub visibility: String,
    pub state: String,
    pub state_reason: Option<String>,
    pub reviewed_by: Option<String>,
    pub reviewed_at: Option<OffsetDateTime>,
    pub yanked_at: Option<OffsetDateTime>,
    pub yank_reason: Option<String>,
    pub revoke_reason: Option<String>,
    /// When its publisher took back the key that it is signed with.
    pub key_revoked_at: Option<OffsetDateTime>,
    pub conformance: Option<Value>,
    pub downloads: i64,
    pub submitted_by: String,
    pub created_at: OffsetDateTime,
}

impl ReleaseRow {
    fn bytes_of_strangers(&self) -> usize {
        let json = [&self.sigstore, &self.conformance];
        json_bytes(json.into_iter().flatten()) + self.readme.len() + self.summary.len()
    }

    /// Why no host runs it any more.
    pub fn revoked(&self) -> Option<String> {
        let by_key = self
            .key_revoked_at
            .map(|_| "its publisher has revoked the key that it is signed with".to_owned());
        self.revoke_reason.clone().or(by_key)
    }

    /// `acme/slack@1.2.0`
    pub fn full_name(&self) -> String {
        format!("{}/{}@{}", self.namespace, self.name, self.version)
    }
}

macro_rules! release_query {
    ($where:literal $(, $arg:expr)*) => {
        sqlx::query_as!(
            ReleaseRow,
            r#"select r.id as "id: ReleaseId", r.publisher_id as "publisher_id: PublisherId", r.owner_tenant_id as "owner_tenant_id: TenantId",
                      r.namespace, r.name, r.version, r.prerelease, r.digest, r.contract, r.kinds, r.title, r.summary, r.licence,
                      r.categories, r.homepage, r.readme, r.key_id as "key_id: PublisherKeyId", r.signature, r.sigstore, r.source_kind,
                      r.source, r.visibility, r.state, r.state_reason, r.reviewed_by, r.reviewed_at, r.yanked_at, r.yank_reason,
                      (select x.reason from plugin_revocations x
                       where x.digest = r.digest and (x.release_id is null or x.release_id = r.id) limit 1) as "revoke_reason?",
                      (select k.revoked_at from publisher_keys k where k.id = r.key_id) as "key_revoked_at?",
                      r.conformance, r.downloads, r.submitted_by, r.created_at
               from plugin_releases r where "# + $where
            $(, $arg)*
        )
    };
}

pub async fn release(tx: &mut PgConnection, id: ReleaseId) -> Result<Option<ReleaseRow>> {
    release_query!("r.id = $1", id.uuid())
        .fetch_optional(tx)
        .await
}

pub async fn release_named(
    tx: &mut PgConnection,
    namespace: &str,
    name: &str,
    version: &str,
) -> Result<Option<ReleaseRow>> {
    release_query!(
        "r.namespace = $1 and r.name = $2 and r.version = $3",
        namespace,
        name,
        version
    )
    .fetch_optional(tx)
    .await
}

/// The last one that was published under a name.
pub async fn last_release(
    tx: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<ReleaseRow>> {
    release_query!(
        "r.namespace = $1 and r.name = $2 order by r.id desc limit 1",
        namespace,
        name
    )
    .fetch_optional(tx)
    .await
}

/// The newest version that may be installed and is no prerelease.
pub async fn newest_release(
    tx: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<ReleaseRow>> {
    release_query!(
        "r.namespace = $1 and r.name = $2 and r.state = 'approved' and r.yanked_at is null and not r.prerelease
         and not is_revoked(r.digest, r.id, r.key_id)
         order by r.version_numbers desc limit 1",
        namespace,
        name
    )
    .fetch_optional(tx)
    .await
}

/// What releases are asked for.
#[derive(Debug, Default)]
pub struct ReleaseFilter<'a> {
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub version: Option<&'a str>,
    pub state: Option<&'a str>,
}

pub async fn releases(
    tx: &mut PgConnection,
    filter: &ReleaseFilter<'_>,
    page: PageRequest,
) -> Result<Taken<ReleaseRow>> {
    let rows = release_query!(
        "($1::uuid is null or r.id < $1) and ($3::text is null or r.namespace = $3) and ($4::text is null or r.name = $4)
         and ($5::text is null or r.version = $5) and ($6::text is null or r.state = $6)
         order by r.id desc limit $2",
        page.before,
        page.fetch(),
        filter.namespace,
        filter.name,
        filter.version,
        filter.state
    )
    .fetch(tx);
    page.take(rows, ReleaseRow::bytes_of_strangers).await
}

/// The newest version of each plugin that can be installed and fits, the newest first.
pub async fn search(
    tx: &mut PgConnection,
    words: Option<&str>,
    category: Option<&str>,
    kind: Option<&str>,
    page: PageRequest,
) -> Result<Taken<ReleaseRow>> {
    let rows = release_query!(
        "r.state = 'approved' and r.yanked_at is null and not r.prerelease
         and ($1::uuid is null or r.id < $1)
         and ($3::text is null or r.words @@ to_tsquery('simple', $3))
         and ($4::text is null or $4 = any(r.categories)) and ($5::text is null or $5 = any(r.kinds))
         and not is_revoked(r.digest, r.id, r.key_id)
         and not exists (select from plugin_releases n
             where n.publisher_id = r.publisher_id and n.name = r.name and n.state = 'approved' and n.yanked_at is null
               and not n.prerelease and n.version_numbers > r.version_numbers
               and not is_revoked(n.digest, n.id, n.key_id))
         order by r.id desc limit $2",
        page.before,
        page.fetch(),
        words,
        category,
        kind
    )
    .fetch(tx);
    page.take(rows, ReleaseRow::bytes_of_strangers).await
}

/// All installs and downloads of a plugin, over its versions.
pub async fn downloads(tx: &mut PgConnection, publisher: PublisherId, name: &str) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(downloads), 0)::int8 as "sum!" from plugin_releases where publisher_id = $1 and name = $2"#,
        publisher.uuid(),
        name
    )
    .fetch_one(tx)
    .await
}

pub async fn count_download(tx: &mut SystemTx, id: ReleaseId) -> Result<()> {
    sqlx::query!(
        "update plugin_releases set downloads = downloads + 1 where id = $1",
        id.uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn review(
    tx: &mut SystemTx,
    id: ReleaseId,
    state: &str,
    reason: Option<&str>,
    by: &str,
) -> Result<()> {
    sqlx::query!(
        "update plugin_releases set state = $2, state_reason = $3, reviewed_by = $4, reviewed_at = now() where id = $1",
        id.uuid(),
        state,
        reason,
        by
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Locks a release, so that two who decide about it do so one after the other.
pub async fn lock_release(tx: &mut PgConnection, id: ReleaseId) -> Result<()> {
    sqlx::query!(
        "select 1 as one from plugin_releases where id = $1 for update",
        id.uuid()
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

pub async fn yank(tx: &mut PgConnection, id: ReleaseId, by: &str, reason: &str) -> Result<()> {
    sqlx::query!(
        "update plugin_releases set yanked_at = coalesce(yanked_at, now()), yanked_by = $2, yank_reason = $3 where id = $1",
        id.uuid(),
        by,
        reason
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn unyank(tx: &mut PgConnection, id: ReleaseId) -> Result<()> {
    sqlx::query!(
        "update plugin_releases set yanked_at = null, yanked_by = null, yank_reason = null where id = $1",
        id.uuid()
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn set_visibility(tx: &mut PgConnection, id: ReleaseId, visibility: &str) -> Result<()> {
    sqlx::query!(
        "update plugin_releases set visibility = $2 where id = $1",
        id.uuid(),
        visibility
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Hands a release in again: an operator has to approve it anew.
pub async fn submit_again(tx: &mut PgConnection, id: ReleaseId) -> Result<()> {
    sqlx::query!(
        "update plugin_releases set state = 'submitted' where id = $1 and state = 'approved'",
        id.uuid()
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn audience(tx: &mut PgConnection, id: ReleaseId) -> Result<Vec<TenantId>> {
    sqlx::query_scalar!(
        r#"select tenant_id as "tenant_id: TenantId" from release_audience where release_id = $1 order by tenant_id"#,
        id.uuid()
    )
    .fetch_all(tx)
    .await
}

pub async fn set_audience(
    tx: &mut PgConnection,
    id: ReleaseId,
    owner: Option<TenantId>,
    tenants: &[TenantId],
) -> Result<()> {
    sqlx::query!(
        "delete from release_audience where release_id = $1",
        id.uuid()
    )
    .execute(&mut *tx)
    .await?;
    let tenants: Vec<_> = tenants.iter().map(|tenant| tenant.uuid()).collect();
    sqlx::query!(
        "insert into release_audience (release_id, owner_tenant_id, tenant_id)
         select $1, $2, tenant from (select distinct unnest($3::uuid[]) as tenant) t",
        id.uuid(),
        owner.map(TenantId::uuid),
        &tenants
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub struct SignedRow {
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub digest: String,
    pub contract: String,
    pub signature: Vec<u8>,
    pub key_id: PublisherKeyId,
    pub public_key: Vec<u8>,
}

pub async fn signed_release(tx: &mut TenantTx, id: ReleaseId) -> Result<Option<SignedRow>> {
    sqlx::query_as!(
        SignedRow,
        r#"select r.namespace, r.name, r.version, r.digest, r.contract, r.signature, r.key_id as "key_id: PublisherKeyId", k.public_key
           from plugin_releases r join publisher_keys k on k.id = r.key_id where r.id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

// ---- revocations ----------------------------------------------------------------------------------------------------

pub struct RevocationRow {
    pub id: RevocationId,
    pub digest: String,
    pub release_id: Option<ReleaseId>,
    pub release_name: Option<String>,
    pub reason: String,
    pub created_at: OffsetDateTime,
}

/// Nothing happens where it is revoked already.
pub async fn revoke(
    tx: &mut PgConnection,
    digest: &str,
    release: Option<ReleaseId>,
    reason: &str,
    by: &str,
) -> Result<()> {
    sqlx::query!(
        "insert into plugin_revocations (id, digest, release_id, reason, revoked_by) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
        RevocationId::fresh().uuid(),
        digest,
        release.map(ReleaseId::uuid),
        reason,
        by
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// By name and by digest alone: whose release it was is not everybody's to see.
pub async fn revocations(tx: &mut PgConnection, page: PageRequest) -> Result<Vec<RevocationRow>> {
    sqlx::query_as!(
        RevocationRow,
        r#"select x.id as "id: RevocationId", x.digest, r.id as "release_id?: ReleaseId",
                  r.namespace || '/' || r.name || '@' || r.version as "release_name?", x.reason, x.created_at
           from plugin_revocations x left join plugin_releases r on r.id = x.release_id
           where (x.release_id is null or r.id is not null) and ($1::uuid is null or x.id < $1) order by x.id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(tx)
    .await
}

pub async fn revocation_of_digest(
    tx: &mut PgConnection,
    digest: &str,
) -> Result<Option<RevocationRow>> {
    sqlx::query_as!(
        RevocationRow,
        r#"select id as "id: RevocationId", digest, release_id as "release_id?: ReleaseId", null::text as "release_name?", reason, created_at
           from plugin_revocations where digest = $1 and release_id is null"#,
        digest
    )
    .fetch_optional(tx)
    .await
}

/// How much there is on the list; it only grows.
pub async fn revocation_counts(tx: &mut SystemTx) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select (select count(*) from plugin_revocations) as "revocations!",
                  (select count(*) from publisher_keys where revoked_at is not null) as "keys!""#
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok((row.revocations, row.keys))
}

pub async fn known_revocations(tx: &mut SystemTx, counts: (i64, i64)) -> Result<Known> {
    let mut known = Known {
        counts,
        ..Known::default()
    };
    let rows = sqlx::query!(
        r#"select digest, release_id as "release_id: ReleaseId", reason from plugin_revocations"#
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in rows {
        match row.release_id {
            Some(release) => known.releases.insert(release, row.reason),
            None => known.digests.insert(row.digest, row.reason),
        };
    }
    let keys = sqlx::query_scalar!(
        r#"select id as "id: PublisherKeyId" from publisher_keys where revoked_at is not null"#
    )
    .fetch_all(&mut **tx)
    .await?;
    known.keys = keys.into_iter().collect();
    Ok(known)
}

// ---- what a digest did, and what becomes of installations -------------------------------------------------------------

pub struct AffectedRow {
    pub id: SkillCallId,
    pub task_id: Option<TaskId>,
    pub skill_name: String,
    pub action: String,
    pub status: String,
    pub actor: String,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

/// The tenant's calls that a digest carried out.
pub async fn affected(
    tx: &mut TenantTx,
    digest: &str,
    page: PageRequest,
) -> Result<Vec<AffectedRow>> {
    sqlx::query_as!(
        AffectedRow,
        r#"select id as "id: SkillCallId", task_id as "task_id: TaskId", skill_name, action, status, actor, created_at, finished_at
           from skill_calls where plugin_digest = $1 and ($2::uuid is null or id < $2) order by id desc limit $3"#,
        digest,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

pub struct AffectedTenantRow {
    pub tenant_id: TenantId,
    pub slug: String,
    pub calls: i64,
    pub first_at: OffsetDateTime,
    pub last_at: OffsetDateTime,
    pub installed: bool,
}

/// How often each tenant called it; tenants that only installed it are there too.
pub async fn affected_tenants(
    tx: &mut SystemTx,
    digest: &str,
    page: PageRequest,
) -> Result<Vec<AffectedTenantRow>> {
    sqlx::query_as!(
        AffectedTenantRow,
        r#"select t.id as "tenant_id: TenantId", t.slug, coalesce(c.calls, 0) as "calls!",
                  coalesce(c.first_at, i.first_at) as "first_at!", coalesce(c.last_at, i.last_at) as "last_at!",
                  coalesce(i.live, false) as "installed!"
           from tenants t
           left join (select tenant_id, count(*) as calls, min(created_at) as first_at, max(created_at) as last_at
                      from skill_calls where plugin_digest = $1 group by tenant_id) c on c.tenant_id = t.id
           left join (select tenant_id, min(installed_at) as first_at, max(installed_at) as last_at, bool_or(removed_at is null) as live
                      from plugin_installations where digest = $1 group by tenant_id) i on i.tenant_id = t.id
           where (c.tenant_id is not null or i.tenant_id is not null) and ($2::uuid is null or t.id < $2)
           order by t.id desc limit $3"#,
        digest,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

pub struct NoticeRow {
    pub id: InstallationId,
    pub skill_name: String,
    pub digest: String,
    pub release_id: Option<ReleaseId>,
    pub release_name: Option<String>,
    pub live: bool,
    pub revoke_reason: Option<String>,
    pub revoked_at: Option<OffsetDateTime>,
    pub key_revoked_at: Option<OffsetDateTime>,
    pub yank_reason: Option<String>,
    pub yanked_at: Option<OffsetDateTime>,
    pub calls: i64,
}

/// Of what the tenant has or had, the last installation of each: what is revoked, and what is yanked and still there.
pub async fn notices(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<NoticeRow>> {
    sqlx::query_as!(
        NoticeRow,
        r#"select i.id as "id: InstallationId", i.skill_name, i.digest, v.release_id as "release_id: ReleaseId",
                  r.namespace || '/' || r.name || '@' || r.version as "release_name?", i.removed_at is null as "live!",
                  x.reason as "revoke_reason?", x.created_at as "revoked_at?", k.revoked_at as "key_revoked_at?",
                  case when r.yanked_at is not null then coalesce(r.yank_reason, '') end as "yank_reason?", r.yanked_at as "yanked_at?",
                  (select count(*) from skill_calls c where c.plugin_digest = i.digest) as "calls!"
           from plugin_installations i
           join plugin_versions v on v.id = i.plugin_version_id
           left join plugin_releases r on r.id = v.release_id
           left join publisher_keys k on k.id = r.key_id
           left join lateral (select reason, created_at from plugin_revocations x
               where x.digest = i.digest and (x.release_id is null or x.release_id = v.release_id)
               order by x.created_at limit 1) x on true
           where (x.reason is not null or k.revoked_at is not null or (r.yanked_at is not null and i.removed_at is null))
             and not exists (select from plugin_installations later
                             where later.plugin_version_id = i.plugin_version_id and later.id > i.id)
             and ($1::uuid is null or i.id < $1) order by i.id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

/// Installations that upgrade by themselves and have something newer to go to.
pub async fn auto_upgrades(
    tx: &mut SystemTx,
    after: Option<InstallationId>,
    limit: i64,
) -> Result<Vec<(TenantId, InstallationId)>> {
    let rows = sqlx::query!(
        r#"select i.tenant_id as "tenant_id: TenantId", i.id as "id: InstallationId"
           from plugin_installations i
           join plugin_versions v on v.id = i.plugin_version_id
           join plugin_releases r on r.id = v.release_id
           where i.auto_upgrade and i.removed_at is null and ($1::uuid is null or i.id > $1)
             and exists (select from plugin_releases n
                         where n.publisher_id = r.publisher_id and n.name = r.name and n.state = 'approved'
                           and n.yanked_at is null and not n.prerelease and n.version_numbers > r.version_numbers
                           and not is_revoked(n.digest, n.id, n.key_id))
           order by i.id limit $2"#,
        after.map(InstallationId::uuid),
        limit
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.tenant_id, row.id))
        .collect())
}
