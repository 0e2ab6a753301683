//! A policy over calls that were made: which decisions would have been others, before it is switched on.

use super::{Answer, Link, Source, Strictness, chain, store};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId},
    plugins::Origin,
    problem::Problem,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tsunami_plugin_host::policy::Request;
use utoipa::ToSchema;
use uuid::Uuid;

/// Calls that one replay looks at.
pub const CALLS_MAX: i64 = 5000;
/// Changes that it lists; all are counted.
const CHANGES_SHOWN_MAX: usize = 200;
/// How long it may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The window of a skill without a rate limit, in seconds.
const WINDOW_SECONDS: u64 = 3600;

/// What is to be tried.
pub struct Trial {
    pub name: String,
    pub origin: Origin,
    pub settings: Value,
    pub skills: Vec<String>,
    pub since: OffsetDateTime,
    pub calls_max: i64,
}

/// What would have been other.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ReplayReport {
    /// Calls that were looked at.
    pub calls: usize,
    pub unchanged: usize,
    pub changed: usize,
    /// Whether there were more calls, or more time was needed, than one replay has.
    pub truncated: bool,
    /// Answers of the new policy alone.
    pub allowed: usize,
    pub asked: usize,
    pub denied: usize,
    /// The newest 200 calls whose decision as a whole would be another.
    pub changes: Vec<ReplayChange>,
}

/// A call whose decision would be another.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ReplayChange {
    pub call_id: SkillCallId,
    pub skill: String,
    pub action: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub called_at: OffsetDateTime,
    pub before: Strictness,
    pub after: Strictness,
    /// The new policy's.
    pub reason: String,
}

#[derive(Deserialize)]
struct Recorded {
    name: String,
    source: Source,
    decision: Strictness,
}

/// Runs a policy over recorded calls, in the place of the tenant's policy of the same name, where there was one.
///
/// One call after the other is read, and no connection held while the policy thinks: neither memory nor the pool is
/// taken by a tenant with many or large calls.
pub async fn replay(app: &App, tenant: TenantId, trial: &Trial) -> Result<ReplayReport, Problem> {
    let began = Instant::now();
    let mut tx = app.db().tenant(tenant).await?;
    let calls = store::decided_since(&mut tx, trial.since, &trial.skills, trial.calls_max + 1);
    let calls = calls.await?;
    drop(tx);
    let limit = usize::try_from(trial.calls_max).unwrap_or(usize::MAX);
    let mut report = ReplayReport {
        calls: 0,
        unchanged: 0,
        changed: 0,
        truncated: calls.len() > limit,
        allowed: 0,
        asked: 0,
        denied: 0,
        changes: Vec::new(),
    };
    for call in calls.into_iter().take(limit) {
        if began.elapsed() > TIME_MAX {
            report.truncated = true;
            break;
        }
        let mut tx = app.db().tenant(tenant).await?;
        let Some(row) = store::decided(&mut tx, call).await? else {
            continue;
        };
        let recorded: Vec<Recorded> =
            serde_json::from_value(row.decisions).map_err(|e| Problem::internal(&e))?;
        let input = input_then(&mut tx, row.input, &recorded, row.created_at).await?;
        drop(tx);
        let (skill, action) = (input.skill.clone(), input.action.clone());
        let answer = decide(app, tenant, trial, &input).await;
        let is_replaced = |r: &&Recorded| r.source == Source::Tenant && r.name == trial.name;
        let before = strictest(recorded.iter());
        let after = strictest(recorded.iter().filter(|r| !is_replaced(r))).max(answer.strictness());
        report.count(answer.strictness());
        if before == after {
            report.unchanged += 1;
            continue;
        }
        report.changed += 1;
        if report.changes.len() < CHANGES_SHOWN_MAX {
            report.changes.push(ReplayChange {
                call_id: call,
                skill,
                action,
                called_at: row.created_at,
                before,
                after,
                reason: answer.reason(),
            });
        }
    }
    Ok(report)
}

impl ReplayReport {
    fn count(&mut self, strictness: Strictness) {
        self.calls += 1;
        match strictness {
            Strictness::Allow => self.allowed += 1,
            Strictness::Ask => self.asked += 1,
            Strictness::Deny => self.denied += 1,
        }
    }
}

fn strictest<'a>(recorded: impl Iterator<Item = &'a Recorded>) -> Strictness {
    recorded
        .map(|r| r.decision)
        .max()
        .unwrap_or(Strictness::Allow)
}

/// What the policies were given then. Where there were none, nobody had looked up what was spent: it is looked up as
/// it was at that moment.
async fn input_then(
    tx: &mut TenantTx,
    input: Value,
    recorded: &[Recorded],
    at: OffsetDateTime,
) -> Result<Request, Problem> {
    let mut request: Request = serde_json::from_value(input).map_err(|e| Problem::internal(&e))?;
    if recorded.is_empty() {
        let usage = store::usage_at(tx, &request.skill, WINDOW_SECONDS, Some(at)).await?;
        let amount = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        request.usage.calls_in_window = amount(usage.calls);
        request.usage.day_spend_micro_usd = amount(usage.day);
        request.usage.month_spend_micro_usd = amount(usage.month);
    }
    Ok(request)
}

async fn decide(app: &App, tenant: TenantId, trial: &Trial, input: &Request) -> Answer {
    let link = Link {
        source: Source::Tenant,
        id: Uuid::nil(),
        name: trial.name.clone(),
        origin: trial.origin.clone(),
        settings: trial.settings.clone(),
    };
    let mut answers = chain::answers(app, tenant, &[link], input).await;
    answers.remove(0)
}
