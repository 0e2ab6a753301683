use super::{Link, Source};
use crate::{
    db::{SystemTx, TenantTx},
    id::{PolicyDecisionId, PolicyId, ReleaseId, SkillCallId},
    page::{PageRequest, Taken, json_bytes},
    plugins::Origin,
};
use serde_json::Value;
use sqlx::Result;
use time::OffsetDateTime;
use uuid::Uuid;

/// The policies that are on for a skill, the operator's first.
pub async fn chain(tx: &mut TenantTx, skill: &str) -> Result<Vec<Link>> {
    let rows = sqlx::query!(
        r#"select true as "operator!", id as "id!", position as "position!", name as "name!", digest as "digest!", settings as "settings!",
                  null::uuid as "release: ReleaseId"
           from operator_policies where enabled and (skills = '{}' or $1 = any (skills))
           union all
           select false, id, position, name, digest, settings,
                  (select v.release_id from plugin_versions v where v.digest = policies.digest order by v.release_id nulls first limit 1)
           from policies where enabled and (skills = '{}' or $1 = any (skills))
           order by 1 desc, 3, 2"#,
        skill
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Link {
            source: if row.operator {
                Source::Operator
            } else {
                Source::Tenant
            },
            id: row.id,
            name: row.name,
            origin: Origin {
                digest: row.digest,
                release: row.release,
            },
            settings: row.settings,
        })
        .collect())
}

pub struct UsageRow {
    pub calls: Option<i64>,
    pub day: Option<i64>,
    pub month: Option<i64>,
}

/// Calls of the skill within a window, and the tenant's spend, at this moment.
pub async fn usage(tx: &mut TenantTx, skill: &str, window_seconds: u64) -> Result<UsageRow> {
    usage_at(tx, skill, window_seconds, None).await
}

/// The same as it was at a moment; the spend by what is known now of the calls that had begun by then.
pub async fn usage_at(
    tx: &mut TenantTx,
    skill: &str,
    window_seconds: u64,
    at: Option<OffsetDateTime>,
) -> Result<UsageRow> {
    #[expect(clippy::cast_precision_loss, reason = "a window of at most 30 days")]
    let window = window_seconds as f64;
    sqlx::query_as!(
        UsageRow,
        r#"with moment as (select coalesce($3::timestamptz, clock_timestamp()) as at)
           select (select coalesce(last - first + 1, 0) from uses_within($1, $2, moment.at)) as calls,
                  spent.day, spent.month
           from moment, spent_until($3) as spent"#,
        skill,
        window,
        at
    )
    .fetch_one(&mut **tx)
    .await
}

pub async fn note_verdict(
    tx: &mut TenantTx,
    call: SkillCallId,
    input: &Value,
    verdict: &Value,
) -> Result<()> {
    sqlx::query!(
        "update skill_calls set policy_input = $2, policy_verdict = $3 where id = $1",
        call.uuid(),
        input,
        verdict
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What each policy last said of a call.
pub async fn last_answers(tx: &mut TenantTx, call: SkillCallId) -> Result<Vec<(Uuid, Value)>> {
    let rows = sqlx::query!(
        "select distinct on (policy_id) policy_id, answer from policy_decisions where call_id = $1 order by policy_id, id desc",
        call.uuid()
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.policy_id, row.answer))
        .collect())
}

/// Of one call, as `record_decisions` of the database takes them.
pub async fn insert_decisions(
    tx: &mut TenantTx,
    call: SkillCallId,
    decisions: &Value,
) -> Result<()> {
    sqlx::query!("select record_decisions($1, $2)", call.uuid(), decisions)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub struct DecisionRow {
    pub id: PolicyDecisionId,
    pub call_id: SkillCallId,
    pub source: String,
    pub policy_id: Uuid,
    pub name: String,
    pub digest: String,
    pub input: Value,
    pub decision: String,
    pub answer: Value,
    pub reason: String,
    pub duration_us: i64,
    pub decided_at: OffsetDateTime,
}

pub async fn list_decisions(
    tx: &mut TenantTx,
    page: PageRequest,
    call: Option<SkillCallId>,
    decision: Option<&str>,
) -> Result<Taken<DecisionRow>> {
    let rows = sqlx::query_as!(
        DecisionRow,
        r#"select id as "id: PolicyDecisionId", call_id as "call_id: SkillCallId", source, policy_id, name, digest, input, decision, answer, reason,
                  duration_us, decided_at
           from policy_decisions
           where ($1::uuid is null or id < $1) and ($3::uuid is null or call_id = $3) and ($4::text is null or decision = $4)
           order by id desc limit $2"#,
        page.before,
        page.fetch(),
        call.map(SkillCallId::uuid),
        decision
    )
    .fetch(&mut **tx);
    page.take(rows, |row| json_bytes([&row.input, &row.answer]))
        .await
}

pub struct PolicyRow {
    pub id: PolicyId,
    pub position: i32,
    pub name: String,
    pub digest: String,
    pub settings: Value,
    pub skills: Vec<String>,
    pub enabled: bool,
    pub version: i32,
    pub created_by: String,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

macro_rules! policy_queries {
    ($module:ident, $table:literal, $tx:ident) => {
        pub mod $module {
            use super::{PolicyId, PolicyRow, Result};
            use crate::db::$tx;

            pub async fn all(tx: &mut $tx) -> Result<Vec<PolicyRow>> {
                sqlx::query_as!(
                    PolicyRow,
                    r#"select id as "id: PolicyId", position, name, digest, settings, skills, enabled, version, created_by, created_at, updated_at
                       from "# + $table + " order by position, id"
                )
                .fetch_all(&mut **tx)
                .await
            }

            pub async fn get(tx: &mut $tx, id: PolicyId) -> Result<Option<PolicyRow>> {
                sqlx::query_as!(
                    PolicyRow,
                    r#"select id as "id: PolicyId", position, name, digest, settings, skills, enabled, version, created_by, created_at, updated_at
                       from "# + $table + " where id = $1",
                    id.uuid()
                )
                .fetch_optional(&mut **tx)
                .await
            }

            /// `false` where the version is not the one that the client has seen.
            pub async fn update(tx: &mut $tx, row: &PolicyRow, seen: Option<i32>) -> Result<bool> {
                let done = sqlx::query!(
                    "update " + $table + " set position = $2, digest = $3, settings = $4, skills = $5, enabled = $6, version = version + 1, updated_at = now()
                     where id = $1 and ($7::int is null or version = $7)",
                    row.id.uuid(),
                    row.position,
                    row.digest,
                    row.settings,
                    &row.skills,
                    row.enabled,
                    seen
                )
                .execute(&mut **tx)
                .await?;
                Ok(done.rows_affected() == 1)
            }

            pub async fn remove(tx: &mut $tx, id: PolicyId) -> Result<bool> {
                let done = sqlx::query!("delete from " + $table + " where id = $1", id.uuid())
                    .execute(&mut **tx)
                    .await?;
                Ok(done.rows_affected() == 1)
            }
        }
    };
}

policy_queries!(tenant, "policies", TenantTx);
policy_queries!(operator, "operator_policies", SystemTx);

/// The operator's policies, as a tenant may see them.
pub async fn operators_of_all(tx: &mut TenantTx) -> Result<Vec<PolicyRow>> {
    sqlx::query_as!(
        PolicyRow,
        r#"select id as "id: PolicyId", position, name, digest, settings, skills, enabled, version, created_by, created_at, updated_at
           from operator_policies order by position, id"#
    )
    .fetch_all(&mut **tx)
    .await
}

/// Whether the operator's chain has a component, so that every tenant may read it.
pub async fn is_operators(tx: &mut TenantTx, digest: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from operator_policies where digest = $1) as "is!""#,
        digest
    )
    .fetch_one(&mut **tx)
    .await
}

pub async fn insert_tenant(tx: &mut TenantTx, row: &PolicyRow) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into policies (id, tenant_id, position, name, digest, settings, skills, enabled, created_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        row.id.uuid(),
        tenant.uuid(),
        row.position,
        row.name,
        row.digest,
        row.settings,
        &row.skills,
        row.enabled,
        row.created_by
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn insert_operator(tx: &mut SystemTx, row: &PolicyRow) -> Result<()> {
    sqlx::query!(
        "insert into operator_policies (id, position, name, digest, settings, skills, enabled, created_by) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        row.id.uuid(),
        row.position,
        row.name,
        row.digest,
        row.settings,
        &row.skills,
        row.enabled,
        row.created_by
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A call that was decided, as it was decided.
pub struct DecidedRow {
    pub input: Value,
    pub created_at: OffsetDateTime,
    /// Answers of the policies that there were then.
    pub decisions: Value,
}

/// Calls since a moment, the newest first.
pub async fn decided_since(
    tx: &mut TenantTx,
    since: OffsetDateTime,
    skills: &[String],
    limit: i64,
) -> Result<Vec<SkillCallId>> {
    sqlx::query_scalar!(
        r#"select id as "id: SkillCallId" from skill_calls
           where policy_input is not null and created_at >= $1 and ($2::text[] = '{}' or skill_name = any ($2))
           order by created_at desc limit $3"#,
        since,
        skills,
        limit
    )
    .fetch_all(&mut **tx)
    .await
}

/// What the policies were given of a call, and what each last said.
pub async fn decided(tx: &mut TenantTx, call: SkillCallId) -> Result<Option<DecidedRow>> {
    sqlx::query_as!(
        DecidedRow,
        r#"select c.policy_input as "input!", c.created_at,
                  coalesce((select jsonb_agg(jsonb_build_object('name', d.name, 'source', d.source, 'decision', d.decision))
                            from (select distinct on (policy_id) name, source, decision from policy_decisions
                                  where call_id = c.id order by policy_id, id desc) d), '[]') as "decisions!"
           from skill_calls c where c.id = $1 and c.policy_input is not null"#,
        call.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}
