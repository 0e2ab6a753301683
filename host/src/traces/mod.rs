//! # Traces
//!
//! ## What it is
//! What happened, step by step: each step of a task or of a skill call, with who did it, what it was
//! about and how long it took. A credential stands in it by its mask (`bot_token:****a3f2`).
//!
//! ## Life
//! A step is written in the transaction of the state that it reports, and never changed.
//!
//! ## Always true
//! - An activity that runs again writes no step twice: the step's key is unique in its task
//!   (`tests/spine/killed.rs`).
//! - Steps of one task are numbered without gaps or repeats, and none is lost, whoever writes them at once: the number
//!   is taken under a lock of the task's trace (`two_writers_at_once_lose_no_step`).
//! - The application role may add steps and read them; it may not change or delete them (the migration revokes it).
//!
//! ## To change
//! - A kind of step: [`StepType`], the check in the migration, and `gist` in `cli/commands.rs`, which shows it.

pub mod live;
mod store;

use crate::{
    db::TenantTx,
    id::{AgentId, SkillCallId, TaskId, TraceId},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use time::OffsetDateTime;

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepType {
    Dispatched,
    MemoryRecall,
    Executing,
    SkillCall,
    Delegated,
    ApprovalRequested,
    ApprovalGranted,
    ApprovalRejected,
    Completed,
    Failed,
    Cancelled,
}

impl StepType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispatched => "dispatched",
            Self::MemoryRecall => "memory_recall",
            Self::Executing => "executing",
            Self::SkillCall => "skill_call",
            Self::Delegated => "delegated",
            Self::ApprovalRequested => "approval_requested",
            Self::ApprovalGranted => "approval_granted",
            Self::ApprovalRejected => "approval_rejected",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing follows in the trace.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Whose trace a step is in: a task's, or that of a skill call made without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    Task(TaskId),
    Call(SkillCallId),
}

/// A step to write.
#[derive(Debug)]
pub struct NewStep {
    pub subject: Subject,
    pub step_type: StepType,
    /// Names the step within its subject; a second one with the same key is not written.
    pub key: String,
    pub call: Option<SkillCallId>,
    pub agent: Option<AgentId>,
    pub details: Value,
    pub duration: Option<Duration>,
}

impl NewStep {
    pub fn duration_ms(&self) -> Option<i32> {
        let duration = self.duration?;
        Some(i32::try_from(duration.as_millis()).unwrap_or(i32::MAX))
    }
}

/// One step, as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TraceStep {
    pub id: TraceId,
    /// 1 for the first step of the task.
    pub step_order: i32,
    pub step_type: String,
    pub task_id: Option<TaskId>,
    /// The skill call that the step is about.
    pub call_id: Option<SkillCallId>,
    pub agent_id: Option<AgentId>,
    pub details: Value,
    pub duration_ms: Option<i32>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// Writes a step, unless one with its key is there. Says whether it was new.
pub async fn record(tx: &mut TenantTx, step: NewStep) -> Result<bool, sqlx::Error> {
    store::insert(tx, &step).await
}

/// The steps of a task after number `after`, in order.
pub async fn of_task(
    tx: &mut TenantTx,
    task: TaskId,
    after: i32,
    limit: i64,
) -> Result<Vec<TraceStep>, sqlx::Error> {
    store::of_task(tx, task, after, limit).await
}

/// The steps of a call that was made without a task, in order.
pub async fn of_call(tx: &mut TenantTx, call: SkillCallId) -> Result<Vec<TraceStep>, sqlx::Error> {
    store::of_call(tx, call).await
}
