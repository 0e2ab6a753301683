//! # Agents
//!
//! ## What it is
//! Those who do the work: each has capabilities, a backend that it runs on, a degree of trust, skills with
//! a proficiency that is learned from what came of each use, relationships, and memories.
//!
//! ## Life
//! An administrator creates an agent, pauses and resumes it. The dispatcher picks the best for each task;
//! what it did changes its skills and leaves a memory.
//!
//! ## Always true
//! - A paused agent is picked for nothing (`a_paused_agent_is_never_picked`).
//! - The pick is a pure function of what the database holds, and its reasons stand in the trace
//!   (`the_more_proficient_agent_wins`, `the_older_agent_wins_a_tie`).
//! - A score is between 0 and 1 (`a_score_is_between_zero_and_one`).
//!
//! ## To change
//! - How agents are ranked: [`score`] alone.
//! - What is remembered, and how it is found again: [`remember`], [`recall`]; the search is in `store`.

pub mod http;
mod store;

use crate::{
    db::TenantTx,
    id::{AgentId, TaskId},
};
use serde::{Deserialize, Serialize};

/// Memories that a task starts with, at most.
pub const MEMORIES_RECALLED_MAX: i64 = 5;
/// Memories below this are not recalled.
pub const MEMORY_IMPORTANCE_MIN: f64 = 0.3;

/// What an agent runs on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Outside actions, through the skill router.
    Openclaw,
    /// Reasoning.
    Adk,
    /// Data operations.
    Mcp,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openclaw => "openclaw",
            Self::Adk => "adk",
            Self::Mcp => "mcp",
        }
    }
    pub fn parse(text: &str) -> Self {
        match text {
            "adk" => Self::Adk,
            "mcp" => Self::Mcp,
            _ => Self::Openclaw,
        }
    }
}

/// What the dispatcher knows of an agent.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: AgentId,
    pub name: String,
    pub backend: Backend,
    pub capabilities: Vec<String>,
    pub trust: f64,
    pub active: bool,
    /// Skill and proficiency.
    pub skills: Vec<(String, f64)>,
    /// Trust of the agent that delegates, towards this one.
    pub relationship_trust: Option<f64>,
}

/// What a task asks of an agent.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub capabilities: Vec<String>,
    pub skills: Vec<String>,
}

/// How well a candidate fits, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub score: f64,
    pub capabilities_matched: Vec<String>,
    pub skills_matched: Vec<String>,
}

/// Half of the score is what the task asks for and the agent has (capabilities, then proficiency in the
/// skills of the plan), three tenths what is trusted of it, two tenths the relationship to who delegates.
pub fn score(wanted: &Wanted, candidate: &Candidate) -> Score {
    let capabilities_matched: Vec<String> = wanted
        .capabilities
        .iter()
        .filter(|c| candidate.capabilities.contains(c))
        .cloned()
        .collect();
    let proficiency = |skill: &String| {
        candidate
            .skills
            .iter()
            .find(|(name, _)| name == skill)
            .map(|(_, p)| *p)
    };
    let skills_matched: Vec<String> = wanted
        .skills
        .iter()
        .filter(|s| proficiency(s).is_some())
        .cloned()
        .collect();
    let share = |matched: f64, of: usize| if of == 0 { 1.0 } else { matched / of as f64 };
    let capability_part = share(capabilities_matched.len() as f64, wanted.capabilities.len());
    let skill_part = share(
        wanted.skills.iter().filter_map(proficiency).sum(),
        wanted.skills.len(),
    );
    let relationship_part = candidate.relationship_trust.unwrap_or(0.5);
    let total = 0.25 * capability_part
        + 0.25 * skill_part
        + 0.3 * candidate.trust
        + 0.2 * relationship_part;
    Score {
        score: (total * 1000.0).round() / 1000.0,
        capabilities_matched,
        skills_matched,
    }
}

/// The best of the candidates that are active; the older agent where two are equal.
pub fn best<'a>(wanted: &Wanted, candidates: &'a [Candidate]) -> Option<(&'a Candidate, Score)> {
    candidates
        .iter()
        .filter(|candidate| candidate.active)
        .map(|candidate| (candidate, score(wanted, candidate)))
        .min_by(|(a, sa), (b, sb)| sb.score.total_cmp(&sa.score).then(a.id.cmp(&b.id)))
}

/// Every agent of the tenant, as the dispatcher sees it; `delegated_by` is the agent that hands work on.
pub async fn candidates(
    tx: &mut TenantTx,
    delegated_by: Option<AgentId>,
) -> Result<Vec<Candidate>, sqlx::Error> {
    store::candidates(tx, delegated_by).await
}

/// Whether the tenant has this agent.
pub async fn exists(tx: &mut TenantTx, id: AgentId) -> Result<bool, sqlx::Error> {
    Ok(store::get(tx, id).await?.is_some())
}

/// A memory, as it is handed to a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memory {
    pub content: String,
    pub importance: f64,
    pub relevance: f64,
}

/// What the agent remembers that bears on `text`, the most relevant first.
pub async fn recall(
    tx: &mut TenantTx,
    agent: AgentId,
    text: &str,
) -> Result<Vec<Memory>, sqlx::Error> {
    store::recall(
        tx,
        agent,
        text,
        MEMORY_IMPORTANCE_MIN,
        MEMORIES_RECALLED_MAX,
    )
    .await
}

/// Remembers what came of a task, once a task.
pub async fn remember(
    tx: &mut TenantTx,
    agent: AgentId,
    task: TaskId,
    content: &str,
    importance: f64,
) -> Result<(), sqlx::Error> {
    let bounded: String = content.chars().take(4000).collect();
    store::insert_memory(tx, agent, task, &bounded, importance).await
}

/// Moves the proficiency in a skill a tenth of the way to what came of its last use, and counts it.
pub async fn learn(
    tx: &mut TenantTx,
    agent: AgentId,
    skill: &str,
    succeeded: bool,
) -> Result<(), sqlx::Error> {
    store::learn(tx, agent, skill, succeeded).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(n: u128, capabilities: &[&str], skills: &[(&str, f64)], trust: f64) -> Candidate {
        Candidate {
            id: AgentId(uuid::Uuid::from_u128(n)),
            name: n.to_string(),
            backend: Backend::Openclaw,
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            trust,
            active: true,
            skills: skills.iter().map(|(s, p)| ((*s).to_owned(), *p)).collect(),
            relationship_trust: None,
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            capabilities: vec!["data_analysis".into()],
            skills: vec!["slack".into()],
        }
    }

    #[test]
    fn the_more_proficient_agent_wins() {
        let all = [
            candidate(1, &["data_analysis"], &[("slack", 0.2)], 0.5),
            candidate(2, &["data_analysis"], &[("slack", 0.9)], 0.5),
        ];
        let (picked, score) = best(&wanted(), &all).unwrap();
        assert_eq!(picked.name, "2");
        assert_eq!(score.capabilities_matched, ["data_analysis"]);
        assert_eq!(score.skills_matched, ["slack"]);
    }

    #[test]
    fn a_paused_agent_is_never_picked() {
        let mut only = candidate(1, &["data_analysis"], &[("slack", 1.0)], 1.0);
        only.active = false;
        assert!(best(&wanted(), &[only]).is_none());
    }

    #[test]
    fn the_older_agent_wins_a_tie() {
        let all = [candidate(2, &[], &[], 0.5), candidate(1, &[], &[], 0.5)];
        assert_eq!(best(&wanted(), &all).unwrap().0.name, "1");
    }

    #[test]
    fn a_score_is_between_zero_and_one() {
        let best_case = Candidate {
            relationship_trust: Some(1.0),
            ..candidate(1, &["data_analysis"], &[("slack", 1.0)], 1.0)
        };
        let worst_case = Candidate {
            relationship_trust: Some(0.0),
            ..candidate(1, &[], &[], 0.0)
        };
        assert_eq!(score(&wanted(), &best_case).score, 1.0);
        assert_eq!(score(&wanted(), &worst_case).score, 0.0);
    }
}
