//! # Skills
//!
//! ## What it is
//! The skill router: everything that an agent does outside goes through it, in seven steps. Beside it what the
//! tenant sets for a skill, the calls themselves, and the approvals that they wait for.
//!
//! ## Life
//! A call: queued -> awaiting_approval -> running -> succeeded | failed | rejected | cancelled, with
//! `outcome_unknown` where an instance died between sending and noting. [`router::advance`] takes a call as far as
//! it goes and may be run again at any point, by anybody, also by two at once.
//!
//! ## Always true
//! - One key, one effect: a request's row is committed before the request leaves, and the instance's journal answers
//!   a request that comes again (`tests/spine/killed.rs`; `a_direct_call_is_made_once_for_its_key`).
//! - A call of which a request may have left does not end as failed while nobody knows what became of it ([`ending`],
//!   `a_call_that_is_given_up_after_a_request_may_have_left_is_unknown`, `tests/spine/once.rs`).
//! - A process that was overtaken changes nothing ([`store::Turn`], `a_process_that_was_overtaken_changes_nothing`).
//! - A call that was refused is in a trace (`a_refused_call_is_in_its_trace_and_may_come_again_under_its_key`).
//! - An approval is for exactly one call: action, parameters, target, settings and plugin are in its fingerprint,
//!   which is computed again when the call goes on (`approvals::fingerprint`). It is used up in the transaction in
//!   which the call begins (`a_task_waits_for_its_approval_and_sends_one_message`).
//! - A request goes to no host that the manifest does not name, with no credential that the action does not name
//!   (`render`, `a_request_goes_to_declared_hosts_only`).
//! - A rate limit holds under concurrency: a use is numbered under a lock of the skill's count
//!   (`store::number_use`, `a_rate_limit_holds_under_concurrency`).
//! - A call is decided by what there is when it is written down, though that is kept in memory ([`standing`],
//!   `each_change_of_what_calls_are_decided_by_gives_the_tenant_another_stamp`).
//!
//! ## To change
//! - A step of the router: [`router::advance`], one function a step; steps 1 to 3 in [`deciding`], 6 and 7 in [`run`].
//! - A status of a call: the migration, [`CallStatus`], and `settled` in [`router`].
//! - A way for a call to end: `Run::end` of [`ending`] where it cannot go on, `Run::fail` of [`run`] where it is
//!   known that it did nothing.
//! - What a tenant can set for a skill: a column, `store::ConfigRow`, [`http::SkillConfig`] and its update,
//!   [`configs::check_call`]; what an approval is for must be in its fingerprint.

pub mod activities;
pub mod approvals;
pub mod configs;
mod deciding;
mod dry_run;
pub mod ending;
pub mod http;
mod recall;
mod render;
pub mod router;
mod run;
pub mod standing;
mod store;
#[cfg(test)]
mod tests;
mod trace;
pub mod workflow;

use crate::{
    app::App,
    db::TenantTx,
    id::{AgentId, ApiKeyId, ApprovalId, SkillCallId, TaskId, TenantId},
    problem::Problem,
    worker::patience,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use time::OffsetDateTime;

/// Where a call came from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Over the API.
    Direct,
    Task {
        task: TaskId,
        step: i32,
        agent: Option<AgentId>,
    },
}

/// Of the code of a failure: the service's own, in the plugin's words.
const CODE_CHARS_MAX: usize = 200;
/// Of the message of a failure.
const MESSAGE_CHARS_MAX: usize = 2000;

/// A call to make.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// One key, one effect.
    pub idempotency_key: String,
    pub skill: String,
    pub action: String,
    pub params: Value,
    /// Who asked, as traces name them.
    pub actor: String,
    /// The same, as policies see them.
    pub who: Who,
    pub origin: Origin,
}

/// Who calls, as policies are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Who {
    pub kind: WhoKind,
    pub id: String,
    pub roles: Vec<String>,
    /// 0 to 1 for an agent; 1 for whoever came with a key.
    pub trust: f64,
    /// How many tasks up the chain of delegation it began.
    pub delegation_depth: u32,
    /// Whoever stands behind it: who created the task, or made the call. Such a person is not a second one.
    pub on_behalf_of: String,
    /// The key that this person came with; none in what was written down before keys were.
    #[serde(default)]
    pub on_behalf_of_key: Option<ApiKeyId>,
}

impl Who {
    /// Of a call from before it was written down who made it.
    fn nobody() -> Self {
        Self {
            kind: WhoKind::System,
            id: String::new(),
            roles: Vec::new(),
            trust: 0.0,
            delegation_depth: 0,
            on_behalf_of: String::new(),
            on_behalf_of_key: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhoKind {
    Person,
    Agent,
    System,
}

impl CallRequest {
    /// What the idempotency key is bound to.
    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(serde_json::json!([self.skill, self.action, self.params]).to_string()).into()
    }
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    Queued,
    AwaitingApproval,
    Running,
    OutcomeUnknown,
    Succeeded,
    Failed,
    Rejected,
    Cancelled,
}

impl CallStatus {
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::AwaitingApproval,
        Self::Running,
        Self::OutcomeUnknown,
        Self::Succeeded,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Running => "running",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }

    fn parse(text: &str) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|status| status.as_str() == text)
            .unwrap_or(Self::Queued)
    }
}

/// Why a call did not succeed, for good.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema, PartialEq)]
pub struct CallFailure {
    /// Stable: `channel_not_found`, `approval_expired`, `scope_denied`, ...
    pub code: String,
    /// For people: what happened and what to do.
    pub message: String,
    /// Whether the same call may work later.
    #[serde(default)]
    pub retryable: bool,
    /// The status that it was refused with, where it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_with: Option<u16>,
}

impl CallFailure {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            retryable: false,
            refused_with: None,
        }
    }
}

impl CallFailure {
    /// What a plugin or a service said, as it may be kept: jsonb holds no U+0000, and both have an end. Nothing is taken
    /// out without a trace: letters that come together then may spell what was masked while they stood apart.
    fn cleaned(self) -> Self {
        let clean = |text: String, max| text.replace('\0', "\u{fffd}").chars().take(max).collect();
        Self {
            code: clean(self.code, CODE_CHARS_MAX),
            message: clean(self.message, MESSAGE_CHARS_MAX),
            ..self
        }
    }
}

impl From<&Problem> for CallFailure {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code().to_owned(),
            message: problem.detail().to_owned(),
            retryable: problem.retry_after().is_some(),
            refused_with: None,
        }
    }
}

/// What the workflow of a call begins with.
fn workflow_input(app: &App, tenant: TenantId, call: SkillCallId) -> workflow::Input {
    workflow::Input {
        tenant,
        call,
        patience: patience(app),
    }
}

/// Ends the calls of a task that ends early, where they have not begun; the others go on without it.
pub async fn release_calls_of(tx: &mut TenantTx, task: TaskId) -> Result<(), sqlx::Error> {
    store::release_calls_of(tx, task).await
}

/// Where a call stands after it was taken as far as it goes.
#[derive(Debug, Clone)]
pub enum Outcome {
    Succeeded {
        output: Value,
        summary: String,
    },
    Failed(CallFailure),
    AwaitingApproval {
        approval: ApprovalId,
        expires_at: OffsetDateTime,
    },
    /// A person has to look, and say.
    OutcomeUnknown {
        message: String,
    },
    /// It goes on when what it needs is back; nothing is lost.
    Waiting {
        what: String,
        retry_after: Duration,
    },
}

/// A call and where it stands.
pub struct Advanced {
    pub call: SkillCallId,
    pub outcome: Outcome,
    /// As it is written down, where it was ended just now.
    ended: Option<Box<store::CallRow>>,
}

impl Advanced {
    fn at(call: SkillCallId, outcome: Outcome) -> Self {
        Self {
            call,
            outcome,
            ended: None,
        }
    }
}
