use super::{Backend, Candidate, Memory};
use crate::{
    db::TenantTx,
    id::{AgentId, MemoryId, TaskId},
    page::PageRequest,
};
use sqlx::Result;
use time::OffsetDateTime;

pub struct AgentRow {
    pub id: AgentId,
    pub name: String,
    pub description: String,
    pub capabilities: Vec<String>,
    pub backend: String,
    pub trust: f64,
    pub status: String,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

pub struct SkillRow {
    pub agent_id: AgentId,
    pub skill_name: String,
    pub proficiency: f64,
    pub times_used: i64,
    pub times_failed: i64,
}

pub struct NewAgentRow<'a> {
    pub id: AgentId,
    pub name: &'a str,
    pub description: &'a str,
    pub capabilities: &'a [String],
    pub backend: Backend,
    pub trust: f64,
}

pub async fn insert(tx: &mut TenantTx, new: NewAgentRow<'_>) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into agents (id, tenant_id, name, description, capabilities, backend, trust, status)
         values ($1, $2, $3, $4, $5, $6, $7, 'active')",
        new.id.uuid(),
        tenant.uuid(),
        new.name,
        new.description,
        new.capabilities,
        new.backend.as_str(),
        new.trust
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_status(tx: &mut TenantTx, id: AgentId, status: &str) -> Result<()> {
    sqlx::query!(
        "update agents set status = $2, updated_at = now() where id = $1",
        id.uuid(),
        status
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_skill(
    tx: &mut TenantTx,
    agent: AgentId,
    skill: &str,
    proficiency: f64,
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into agent_skills (tenant_id, agent_id, skill_name, proficiency) values ($1, $2, $3, $4)
         on conflict (agent_id, skill_name) do update set proficiency = excluded.proficiency",
        tenant.uuid(),
        agent.uuid(),
        skill,
        proficiency
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn set_relationship(
    tx: &mut TenantTx,
    from: AgentId,
    to: AgentId,
    kind: &str,
    trust: f64,
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into agent_relationships (tenant_id, from_agent_id, to_agent_id, relationship_type, trust) values ($1, $2, $3, $4, $5)
         on conflict (from_agent_id, to_agent_id, relationship_type) do update set trust = excluded.trust",
        tenant.uuid(),
        from.uuid(),
        to.uuid(),
        kind,
        trust
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut TenantTx, id: AgentId) -> Result<Option<AgentRow>> {
    sqlx::query_as!(
        AgentRow,
        r#"select id as "id: AgentId", name, description, capabilities, backend, trust, status, created_at, updated_at
           from agents where id = $1"#,
        id.uuid()
    )
    .fetch_optional(&mut **tx)
    .await
}

pub async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<AgentRow>> {
    sqlx::query_as!(
        AgentRow,
        r#"select id as "id: AgentId", name, description, capabilities, backend, trust, status, created_at, updated_at
           from agents where ($1::uuid is null or id < $1) order by id desc limit $2"#,
        page.before,
        page.fetch()
    )
    .fetch_all(&mut **tx)
    .await
}

pub async fn skills_of(tx: &mut TenantTx, agents: &[AgentId]) -> Result<Vec<SkillRow>> {
    let ids: Vec<_> = agents.iter().map(|id| id.uuid()).collect();
    sqlx::query_as!(
        SkillRow,
        r#"select agent_id as "agent_id: AgentId", skill_name, proficiency, times_used, times_failed
           from agent_skills where agent_id = any($1) order by skill_name"#,
        &ids
    )
    .fetch_all(&mut **tx)
    .await
}

pub async fn candidates(
    tx: &mut TenantTx,
    delegated_by: Option<AgentId>,
) -> Result<Vec<Candidate>> {
    let rows = sqlx::query!(
        r#"select a.id as "id: AgentId", a.name, a.backend, a.capabilities, a.trust, a.status,
                  array(select s.skill_name from agent_skills s where s.agent_id = a.id order by s.skill_name) as "skills!",
                  array(select s.proficiency from agent_skills s where s.agent_id = a.id order by s.skill_name) as "proficiencies!",
                  (select max(r.trust) from agent_relationships r where r.from_agent_id = $1 and r.to_agent_id = a.id) as relationship_trust
           from agents a"#,
        delegated_by.map(AgentId::uuid)
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Candidate {
            id: row.id,
            name: row.name,
            backend: Backend::parse(&row.backend),
            capabilities: row.capabilities,
            trust: row.trust,
            active: row.status == "active",
            skills: row.skills.into_iter().zip(row.proficiencies).collect(),
            relationship_trust: row.relationship_trust,
        })
        .collect())
}

/// Words of the text, any of which may match; the rank grows with the importance of the memory.
pub async fn recall(
    tx: &mut TenantTx,
    agent: AgentId,
    text: &str,
    importance_min: f64,
    limit: i64,
) -> Result<Vec<Memory>> {
    sqlx::query_as!(
        Memory,
        r#"with wanted as (
               select coalesce(string_agg(quote_literal(word), ' | '), '') as query
               from unnest(tsvector_to_array(to_tsvector('simple', $2))) as word
           )
           select content, importance, (ts_rank_cd(words, wanted.query::tsquery) * importance)::float8 as "relevance!"
           from agent_memories, wanted
           where agent_id = $1 and importance >= $3 and words @@ wanted.query::tsquery
           order by 3 desc, created_at desc limit $4"#,
        agent.uuid(),
        text,
        importance_min,
        limit
    )
    .fetch_all(&mut **tx)
    .await
}

pub async fn insert_memory(
    tx: &mut TenantTx,
    agent: AgentId,
    task: TaskId,
    content: &str,
    importance: f64,
) -> Result<()> {
    let tenant = tx.tenant();
    sqlx::query!(
        "insert into agent_memories (id, tenant_id, agent_id, task_id, content, importance) values ($1, $2, $3, $4, $5, $6)
         on conflict do nothing",
        MemoryId::fresh().uuid(),
        tenant.uuid(),
        agent.uuid(),
        task.uuid(),
        content,
        importance
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn learn(tx: &mut TenantTx, agent: AgentId, skill: &str, succeeded: bool) -> Result<()> {
    let tenant = tx.tenant();
    let outcome = f64::from(u8::from(succeeded));
    sqlx::query!(
        "insert into agent_skills (tenant_id, agent_id, skill_name, proficiency, times_used, times_failed, last_used_at)
         values ($1, $2, $3, 0.45 + $4::float8 * 0.1, 1, $5, now())
         on conflict (agent_id, skill_name) do update set
             proficiency = agent_skills.proficiency * 0.9 + $4::float8 * 0.1,
             times_used = agent_skills.times_used + 1,
             times_failed = agent_skills.times_failed + $5,
             last_used_at = now()",
        tenant.uuid(),
        agent.uuid(),
        skill,
        outcome,
        i64::from(!succeeded)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
