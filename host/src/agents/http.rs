//! `/agents`.

use super::{Backend, store};
use crate::{
    app::App,
    caller::{Caller, Permission},
    db::{TenantTx, violated_constraint},
    extract::{IdempotencyKey, Json, JsonWithDigest, Path, Query},
    id::AgentId,
    page::{Page, PageQuery},
    problem::{Problem, ProblemBody},
    tenants::{Claim, claim},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Capabilities or skills of one agent, at most.
const LIST_MAX: usize = 64;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_agent, list_agents))
        .routes(routes!(get_agent, update_agent))
        .routes(routes!(relate_agents))
}

/// One who does the work.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct Agent {
    pub id: AgentId,
    pub name: String,
    pub description: String,
    pub capabilities: Vec<String>,
    pub backend: Backend,
    /// 0 to 1.
    pub trust: f64,
    /// `active` or `paused`.
    pub status: String,
    pub skills: Vec<AgentSkill>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}

/// How good an agent is at a skill; it learns from each use.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct AgentSkill {
    pub skill: String,
    /// 0 to 1.
    pub proficiency: f64,
    pub times_used: i64,
    pub times_failed: i64,
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default = "openclaw")]
    pub backend: Backend,
    /// 0 to 1; 0.5 where it is left out.
    pub trust: Option<f64>,
    #[serde(default)]
    pub skills: Vec<NewAgentSkill>,
}

fn openclaw() -> Backend {
    Backend::Openclaw
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewAgentSkill {
    pub skill: String,
    /// 0 to 1.
    pub proficiency: f64,
}

/// Create an agent
#[utoipa::path(post, path = "/agents", tag = "agents", request_body = NewAgent,
    responses((status = 201, body = Agent), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn create_agent(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonWithDigest<NewAgent>,
) -> Result<(StatusCode, Json<Agent>), Problem> {
    caller.require(Permission::Manage)?;
    let new = body.value;
    check(&new)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let id = match claim(&mut tx, "create_agent", key.as_deref(), &body.sha256).await? {
        Claim::Repeat(id) => AgentId(id),
        Claim::New(id) => {
            let id = AgentId(id);
            let row = store::NewAgentRow {
                id,
                name: &new.name,
                description: &new.description,
                capabilities: &new.capabilities,
                backend: new.backend,
                trust: new.trust.unwrap_or(0.5),
            };
            store::insert(&mut tx, row)
                .await
                .map_err(|e| match violated_constraint(&e) {
                    Some("agents_name_taken") => Problem::conflict(
                        "name_taken",
                        format!("An agent is called `{}` already.", new.name),
                    ),
                    _ => e.into(),
                })?;
            for skill in &new.skills {
                store::set_skill(&mut tx, id, &skill.skill, skill.proficiency).await?;
            }
            id
        }
    };
    let agent = load(&mut tx, id).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(agent)))
}

/// List the agents
#[utoipa::path(get, path = "/agents", tag = "agents", params(PageQuery), responses((status = 200, body = Page<Agent>)))]
async fn list_agents(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Agent>>, Problem> {
    caller.require(Permission::Read)?;
    let page = query.parse()?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let rows = store::list(&mut tx, page).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let skills = store::skills_of(&mut tx, &ids).await?;
    Ok(Json(Page::of(
        rows,
        page,
        |row| row.id.uuid(),
        |row| present(row, &skills),
    )))
}

/// One agent
#[utoipa::path(get, path = "/agents/{id}", tag = "agents", params(("id" = AgentId, Path)),
    responses((status = 200, body = Agent), (status = 404, body = ProblemBody)))]
async fn get_agent(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<AgentId>,
) -> Result<Json<Agent>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    Ok(Json(load(&mut tx, id).await?))
}

#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct AgentUpdate {
    /// A paused agent gets no new task.
    pub paused: Option<bool>,
    #[serde(default)]
    pub skills: Vec<NewAgentSkill>,
}

/// Change an agent
#[utoipa::path(patch, path = "/agents/{id}", tag = "agents", params(("id" = AgentId, Path)), request_body = AgentUpdate,
    responses((status = 200, body = Agent), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn update_agent(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<AgentId>,
    Json(update): Json<AgentUpdate>,
) -> Result<Json<Agent>, Problem> {
    caller.require(Permission::Manage)?;
    check_skills(&update.skills)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    load(&mut tx, id).await?;
    if let Some(paused) = update.paused {
        store::set_status(&mut tx, id, if paused { "paused" } else { "active" }).await?;
    }
    for skill in &update.skills {
        store::set_skill(&mut tx, id, &skill.skill, skill.proficiency).await?;
    }
    let agent = load(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Json(agent))
}

/// What one agent is to another.
#[derive(Deserialize, Serialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Relationship {
    pub to_agent_id: AgentId,
    pub relationship_type: RelationshipType,
    /// 0 to 1: how much of the delegating agent's trust goes along.
    pub trust: f64,
}

#[derive(Deserialize, Serialize, ToSchema, Debug, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum RelationshipType {
    DelegatesTo,
    ReportsTo,
    CollaboratesWith,
}

impl RelationshipType {
    fn as_str(self) -> &'static str {
        match self {
            Self::DelegatesTo => "delegates_to",
            Self::ReportsTo => "reports_to",
            Self::CollaboratesWith => "collaborates_with",
        }
    }
}

/// Relate an agent to another
#[utoipa::path(put, path = "/agents/{id}/relationships", tag = "agents", params(("id" = AgentId, Path)), request_body = Relationship,
    responses((status = 200, body = Relationship), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
async fn relate_agents(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<AgentId>,
    Json(relationship): Json<Relationship>,
) -> Result<Json<Relationship>, Problem> {
    caller.require(Permission::Manage)?;
    check_share("/trust", relationship.trust)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    load(&mut tx, id).await?;
    if relationship.to_agent_id == id
        || store::get(&mut tx, relationship.to_agent_id)
            .await?
            .is_none()
    {
        return Err(Problem::invalid_field(
            "/to_agent_id",
            "must be another agent of this tenant",
        ));
    }
    store::set_relationship(
        &mut tx,
        id,
        relationship.to_agent_id,
        relationship.relationship_type.as_str(),
        relationship.trust,
    )
    .await?;
    tx.commit().await?;
    Ok(Json(relationship))
}

async fn load(tx: &mut TenantTx, id: AgentId) -> Result<Agent, Problem> {
    let row = store::get(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("agent"))?;
    let skills = store::skills_of(tx, &[id]).await?;
    Ok(present(row, &skills))
}

fn present(row: store::AgentRow, skills: &[store::SkillRow]) -> Agent {
    Agent {
        skills: skills
            .iter()
            .filter(|skill| skill.agent_id == row.id)
            .map(|skill| AgentSkill {
                skill: skill.skill_name.clone(),
                proficiency: skill.proficiency,
                times_used: skill.times_used,
                times_failed: skill.times_failed,
            })
            .collect(),
        id: row.id,
        name: row.name,
        description: row.description,
        capabilities: row.capabilities,
        backend: Backend::parse(&row.backend),
        trust: row.trust,
        status: row.status,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn check(new: &NewAgent) -> Result<(), Problem> {
    Problem::check_name("/name", &new.name, 1, 200)?;
    Problem::check_text("/description", &new.description, 0, 4000)?;
    check_share("/trust", new.trust.unwrap_or(0.5))?;
    if new.capabilities.len() > LIST_MAX {
        return Err(Problem::invalid_field(
            "/capabilities",
            &format!(
                "has {} entries; it may have {LIST_MAX}",
                new.capabilities.len()
            ),
        ));
    }
    for (i, capability) in new.capabilities.iter().enumerate() {
        Problem::check_line(&format!("/capabilities/{i}"), capability, 1, 100)?;
    }
    check_skills(&new.skills)
}

fn check_skills(skills: &[NewAgentSkill]) -> Result<(), Problem> {
    if skills.len() > LIST_MAX {
        return Err(Problem::invalid_field(
            "/skills",
            &format!("has {} entries; it may have {LIST_MAX}", skills.len()),
        ));
    }
    for (i, skill) in skills.iter().enumerate() {
        Problem::check_line(&format!("/skills/{i}/skill"), &skill.skill, 1, 100)?;
        check_share(&format!("/skills/{i}/proficiency"), skill.proficiency)?;
    }
    Ok(())
}

fn check_share(pointer: &str, value: f64) -> Result<(), Problem> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(Problem::invalid_field(
            pointer,
            &format!("is {value}; it must be 0 to 1"),
        ))
    }
}
