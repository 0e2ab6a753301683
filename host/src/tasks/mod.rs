//! # Tasks
//!
//! ## What it is
//! Something that an agent is to get done: an objective in words, with a plan of steps (skill, action, parameters)
//! or without one. A task is a durable workflow: it survives whatever is killed, waits for people for days, and
//! leaves a trace.
//!
//! ## Life
//! queued -> thinking -> executing -> completed | failed | cancelled, with `waiting_input` while a person is asked and
//! `delegated` while child tasks run. [`workflow::TaskExecutionWorkflow`] moves it, through [`activities`].
//!
//! ## Always true
//! - A task that was answered with 201 is started, whoever dies (`outbox`, `tests/spine/killed.rs`).
//! - A task that has not ended has a workflow, or is given another: where one was terminated or its history lost, the next
//!   takes the task up where the database says that it stands ([`lost`], `tests/spine/terminated.rs`).
//! - A status and the trace step that reports it are written in one transaction.
//! - A finished task does not change again (`store::set_status`).
//! - A step's outside effect happens once: its call has a key of its own (`skills::router`, `tests/spine/killed.rs`).
//! - A live view ends with its task, with its key, and with the process (`tests/database/live.rs`).
//! - A task that is rejected or cancelled before its call begins sends nothing (`a_rejected_task_sends_nothing`,
//!   `a_cancelled_task_sends_nothing`).
//!
//! ## To change
//! - A backend: [`backend`], the one place that runs a step.
//! - The order of the activities: [`workflow`] alone. Tasks that are under way replay it, so a step that is added or
//!   moved breaks them.
//! - What a plan can say: [`Plan`], its `check`, and the activity that reads it.

pub mod activities;
mod backend;
pub mod http;
pub mod lost;
mod store;
pub mod workflow;

use crate::{
    app::App,
    db::TenantTx,
    id::{AgentId, ApiKeyId, TaskId},
    outbox,
    problem::Problem,
    worker::patience,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

/// Steps of one plan.
pub const STEPS_MAX: usize = 50;
/// Child tasks of one task.
pub const CHILDREN_MAX: usize = 10;
/// How deep tasks may delegate.
pub const DELEGATION_DEPTH_MAX: i32 = 3;
/// Bytes of one step's parameters, as JSON. A task's row is read whole, and its plan once for each step.
pub const STEP_PARAMS_BYTES_MAX: usize = 256 << 10;
/// The same of all steps of a plan and of the tasks that it delegates.
pub const PLAN_PARAMS_BYTES_MAX: usize = 512 << 10;

/// What a task is to do, step by step.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Skill calls, one after the other; each must succeed before the next.
    pub steps: Vec<PlannedStep>,
    /// Tasks for other agents, all at once, after the steps.
    #[schema(no_recursion)]
    pub delegate: Vec<DelegatedTask>,
}

/// One skill call.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    pub skill: String,
    pub action: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub params: Map<String, Value>,
}

/// A task that is handed to another agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DelegatedTask {
    pub objective: String,
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default)]
    #[schema(no_recursion)]
    pub plan: Plan,
}

impl Plan {
    pub fn check(&self, pointer: &str, depth: i32) -> Result<(), Problem> {
        let too_many = |what: &str, count: usize, max: usize| {
            Problem::invalid_field(
                &format!("{pointer}/{what}"),
                &format!("has {count} entries; it may have {max}"),
            )
        };
        if self.steps.len() > STEPS_MAX {
            return Err(too_many("steps", self.steps.len(), STEPS_MAX));
        }
        if self.delegate.len() > CHILDREN_MAX {
            return Err(too_many("delegate", self.delegate.len(), CHILDREN_MAX));
        }
        if !self.delegate.is_empty() && depth >= DELEGATION_DEPTH_MAX {
            return Err(Problem::invalid_field(
                &format!("{pointer}/delegate"),
                &format!(
                    "is {depth} tasks deep; tasks delegate at most {DELEGATION_DEPTH_MAX} deep"
                ),
            ));
        }
        for (i, step) in self.steps.iter().enumerate() {
            Problem::check_line(&format!("{pointer}/steps/{i}/skill"), &step.skill, 1, 64)?;
            Problem::check_line(&format!("{pointer}/steps/{i}/action"), &step.action, 1, 64)?;
            let at = format!("{pointer}/steps/{i}/params");
            check_bytes(&at, step.params_bytes(), STEP_PARAMS_BYTES_MAX)?;
        }
        for (i, child) in self.delegate.iter().enumerate() {
            let at = format!("{pointer}/delegate/{i}");
            Problem::check_text(&format!("{at}/objective"), &child.objective, 1, 4000)?;
            child.plan.check(&format!("{at}/plan"), depth + 1)?;
        }
        check_bytes(pointer, self.params_bytes(), PLAN_PARAMS_BYTES_MAX)
    }

    fn params_bytes(&self) -> usize {
        let steps = self.steps.iter().map(PlannedStep::params_bytes);
        let delegated = self.delegate.iter().map(|child| child.plan.params_bytes());
        steps.chain(delegated).sum()
    }

    /// The skills that the plan needs, each once.
    pub fn skills(&self) -> Vec<String> {
        let mut skills: Vec<String> = self.steps.iter().map(|step| step.skill.clone()).collect();
        skills.sort();
        skills.dedup();
        skills
    }
}

impl PlannedStep {
    fn params_bytes(&self) -> usize {
        serde_json::to_vec(&self.params).map_or(usize::MAX, |json| json.len())
    }
}

fn check_bytes(pointer: &str, bytes: usize, max: usize) -> Result<(), Problem> {
    if bytes <= max {
        return Ok(());
    }
    Err(Problem::invalid_field(
        pointer,
        &format!("has {bytes} bytes of parameters; it may have {max}"),
    ))
}

/// A task to create.
#[derive(Debug)]
pub struct NewTask<'a> {
    pub id: TaskId,
    pub objective: &'a str,
    pub priority: &'a str,
    pub agent: Option<AgentId>,
    pub parent: Option<TaskId>,
    pub depth: i32,
    pub capabilities: &'a [String],
    pub plan: &'a Plan,
    pub created_by: &'a str,
    pub created_by_key: Option<ApiKeyId>,
}

/// Writes a task down and, unless a parent starts it, that it is to be started.
async fn create(app: &App, tx: &mut TenantTx, new: &NewTask<'_>) -> Result<(), Problem> {
    store::insert(tx, new).await?;
    if new.parent.is_none() {
        let input = input_of(app, tx, new.id, new.depth);
        outbox::push(
            tx,
            outbox::Kind::Start,
            &new.id.to_string(),
            workflow::WORKFLOW_TYPE,
            input,
        )
        .await?;
    }
    Ok(())
}

fn input_of(app: &App, tx: &TenantTx, task: TaskId, depth: i32) -> workflow::Input {
    let limits = &app.config().tasks;
    let seconds = if depth > 0 {
        limits.chain_working_seconds_max
    } else {
        limits.working_seconds_max
    };
    workflow::Input {
        tenant: tx.tenant(),
        task,
        patience: patience(app),
        working_time_max: Duration::from_secs(seconds.into()),
        resume: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_limits() {
        let step = PlannedStep {
            skill: "slack".into(),
            action: "send_message".into(),
            params: Map::new(),
        };
        let plan = Plan {
            steps: vec![step.clone(); STEPS_MAX + 1],
            delegate: vec![],
        };
        assert!(plan.check("/plan", 0).is_err());
        let mut nested = Plan {
            steps: vec![step],
            delegate: vec![],
        };
        for _ in 0..=DELEGATION_DEPTH_MAX {
            nested = Plan {
                steps: vec![],
                delegate: vec![DelegatedTask {
                    objective: "x".into(),
                    capabilities: vec![],
                    plan: nested,
                }],
            };
        }
        assert!(nested.check("/plan", 0).is_err());
    }

    #[test]
    fn parameters_have_a_limit_a_step_and_one_a_plan() {
        let step = |bytes: usize| {
            let text = Value::String("x".repeat(bytes - r#"{"text":""}"#.len()));
            PlannedStep {
                skill: "slack".into(),
                action: "send_message".into(),
                params: Map::from_iter([("text".to_owned(), text)]),
            }
        };
        let plan = |steps: Vec<PlannedStep>, delegate| Plan { steps, delegate };
        let largest = step(STEP_PARAMS_BYTES_MAX);
        let two = plan(vec![largest.clone(), largest.clone()], vec![]);
        assert!(two.check("/plan", 0).is_ok());
        let told = plan(vec![step(STEP_PARAMS_BYTES_MAX + 1)], vec![]).check("/plan", 0);
        assert!(told.unwrap_err().detail().contains("/plan/steps/0/params"));
        let child = DelegatedTask {
            objective: "x".into(),
            capabilities: vec![],
            plan: plan(vec![largest.clone()], vec![]),
        };
        let told = plan(vec![largest.clone(), largest], vec![child]).check("/plan", 0);
        assert!(told.unwrap_err().detail().contains("may have 524288"));
    }

    #[test]
    fn a_plan_names_each_skill_once() {
        let step = |skill: &str| PlannedStep {
            skill: skill.into(),
            action: "a".into(),
            params: Map::new(),
        };
        let plan = Plan {
            steps: vec![step("slack"), step("github"), step("slack")],
            delegate: vec![],
        };
        assert_eq!(plan.skills(), ["github", "slack"]);
    }
}
