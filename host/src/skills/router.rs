//! The skill router's seven steps.
//!
//! [`submit`] writes a call down; [`advance`] takes it as far as it goes. Steps 1 to 3 are in [`deciding`], 5 and the
//! beginning of a call here, 6 and 7 in [`run`](super::run). Advancing again is always safe: what was decided, sent and
//! answered is in the database before the next thing happens, and the instance's journal answers a request that comes
//! twice.

use super::{
    Advanced, CallFailure, CallRequest, CallStatus, Origin, Outcome, approvals, configs,
    deciding::{self, Decided, Prepared, action_of, asks_a_person, decide},
    ending,
    run::{Credentials, Run},
    standing::Standing,
    store::{self, Began, CallRow, ConfigRow, Submitted},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{GrantId, SkillCallId, TenantId},
    oauth, plugins,
    policies::{self, Strictness},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    vault::{Opened, Renewal, Unusable},
};
use axum::http::StatusCode;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How long a process may work on a call before another takes it up.
pub(super) const LEASE: Duration = Duration::from_secs(120);
/// How often a call is decided, where what it is decided by changes meanwhile.
const DECIDED_MAX: u32 = 5;

/// Writes a call down, or finds the one that bears the same key. Nobody else changes it until the transaction ends.
///
/// # Errors
/// 422 where the key came before with another call.
pub(crate) async fn submit(
    app: &App,
    tx: &mut TenantTx,
    id: SkillCallId,
    request: &CallRequest,
) -> Result<Submitted, Problem> {
    let draft = store::draft(id, request, app.clock().now());
    let submitted = store::submit(tx, draft, LEASE).await?;
    let row = &submitted.row;
    if row.request_sha256 != request.sha256() {
        return Err(Problem::unprocessable(
            "idempotency_key_reused",
            "This Idempotency-Key came before with another call. Use a new key for a new call.",
        ));
    }
    if ending::was_refused(row) {
        store::revive(tx, row.id, LEASE).await?;
        let row = find(tx, row.id).await?;
        return Ok(Submitted { row, stamps: None });
    }
    Ok(submitted)
}

pub(super) async fn find(tx: &mut TenantTx, id: SkillCallId) -> Result<CallRow, Problem> {
    store::call(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))
}

/// Where a call is taken up.
#[derive(Clone, Copy)]
enum Start<'a> {
    /// It was written down before.
    Written(SkillCallId),
    /// It is written down in the transaction in which it begins, as this.
    New(SkillCallId, &'a CallRequest),
}

/// Makes a call, and takes it as far as it goes. Where it is stopped before it begins it is written down with what
/// stopped it, so that an auditor finds it in its trace.
///
/// # Errors
/// 422 where the key came before with another call; what stopped the call, with its `call_id`.
pub async fn make(app: &App, tenant: TenantId, request: &CallRequest) -> Result<Advanced, Problem> {
    let id = SkillCallId::fresh();
    let problem = match go_on(app, tenant, Start::New(id, request), Renewal::First).await {
        Ok(advanced) => {
            if let Outcome::Waiting { retry_after, .. } = &advanced.outcome {
                keep_noting(app, tenant, advanced.call, *retry_after).await;
            }
            return Ok(advanced);
        }
        Err(problem) => problem,
    };
    let mut tx = app.db().tenant_followed(tenant).await?;
    let Submitted { row, .. } = submit(app, &mut tx, id, request).await?;
    if row.status() != CallStatus::Queued {
        // It was made before: what stops a new one does not concern it.
        drop(tx);
        return advance(app, tenant, row.id).await;
    }
    if let Err(unnoted) = ending::refuse(app, tx, &row, &problem).await {
        tracing::warn!(call = %row.id, %unnoted, "that a call was refused is not noted");
    }
    Err(problem.with("call_id", row.id))
}

/// Takes a call that was written down as far as it goes.
///
/// # Errors
/// What stopped it. The call is as it was, and may be advanced again.
pub async fn advance(app: &App, tenant: TenantId, id: SkillCallId) -> Result<Advanced, Problem> {
    let advanced = go_on(app, tenant, Start::Written(id), Renewal::First).await;
    let pause = match &advanced {
        Ok(Advanced {
            outcome: Outcome::Waiting { retry_after, .. },
            ..
        }) => Some(*retry_after),
        Ok(_) => None,
        Err(problem) => problem.retry_after(),
    };
    if let Some(pause) = pause {
        keep_noting(app, tenant, id, pause).await;
    }
    advanced
}

async fn keep_noting(app: &App, tenant: TenantId, id: SkillCallId, pause: Duration) {
    if let Err(problem) = keep(app, tenant, id, pause).await {
        tracing::info!(call = %id, %problem, "the lease of a call that waits was not extended");
    }
}

/// Whoever was told to wait comes back; until then nobody else need take the call up.
async fn keep(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
    pause: Duration,
) -> Result<(), Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    store::extend_lease(&mut tx, id, pause + LEASE).await?;
    tx.commit().await?;
    Ok(())
}

async fn go_on(
    app: &App,
    tenant: TenantId,
    mut start: Start<'_>,
    mut renewal: Renewal,
) -> Result<Advanced, Problem> {
    let mut last = match start {
        Start::New(_, request) => app.standings().last(tenant, &request.skill).await,
        Start::Written(_) => None,
    };
    for _ in 0..DECIDED_MAX {
        let is_of_before = last.is_some();
        let (row, decided) = match take_up(app, tenant, start, last.take()).await? {
            TakenUp::ToDecide(row, standing) => match decide(app, tenant, &row, standing).await {
                // It may be wrong only by what has changed since.
                Err(_) if is_of_before => continue,
                decided => (row, decided?),
            },
            TakenUp::Running(row) => return resume(app, tenant, row).await,
            TakenUp::Ended(advanced) => return Ok(advanced),
        };
        match settle(app, tenant, start, row, decided, renewal).await? {
            Settled::Begun(run) => return Box::pin(run.carry_out(Vec::new())).await,
            Settled::Ended(advanced) => return Ok(advanced),
            Settled::Due(grant) => {
                oauth::renew_for_use(app, tenant, grant).await?;
                renewal = Renewal::Tried;
            }
            Settled::Written(id) => start = Start::Written(id),
            Settled::Changed => {}
        }
    }
    Err(Problem::unavailable(
        "The skill, which is being changed again and again,",
        RETRY_AFTER_DEFAULT,
    ))
}

/// Where a call stands that is taken up.
enum TakenUp {
    ToDecide(CallRow, Arc<Standing>),
    Running(CallRow),
    Ended(Advanced),
}

/// Reads what a call is decided by, and the call where it was written down. The transaction is over before anything is
/// asked of a plugin: whatever time one takes, it holds no connection. Where `last` is given nothing is read.
async fn take_up(
    app: &App,
    tenant: TenantId,
    start: Start<'_>,
    last: Option<Arc<Standing>>,
) -> Result<TakenUp, Problem> {
    let draft = |id, request| store::draft(id, request, app.clock().now());
    if let (Start::New(id, request), Some(standing)) = (start, last) {
        return Ok(TakenUp::ToDecide(draft(id, request), standing));
    }
    let mut tx = app.db().tenant(tenant).await?;
    let row = match start {
        Start::New(id, request) => draft(id, request),
        Start::Written(id) => find(&mut tx, id).await?,
    };
    if let Some(outcome) = settled(&row) {
        return Ok(TakenUp::Ended(Advanced::at(row.id, outcome)));
    }
    if row.status() == CallStatus::Running {
        return Ok(TakenUp::Running(row));
    }
    let standings = app.standings();
    let standing = standings.now(app.vault(), &mut tx, &row.skill_name).await?;
    Ok(TakenUp::ToDecide(row, standing))
}

/// What came of writing down what was decided.
enum Settled<'a> {
    Begun(Box<Run<'a>>),
    Ended(Advanced),
    /// A credential is to be renewed first.
    Due(GrantId),
    /// The call was written down before, or is running: it is taken up as that.
    Written(SkillCallId),
    /// Something that it was decided by has changed meanwhile.
    Changed,
}

/// Writes the call down with what was decided of it, if that still holds: a new one whole, as it was `taken_up`, another
/// as it is under its lock.
async fn settle<'a>(
    app: &'a App,
    tenant: TenantId,
    start: Start<'_>,
    taken_up: CallRow,
    decided: Decided,
    renewal: Renewal,
) -> Result<Settled<'a>, Problem> {
    if let Start::New(..) = start
        && let Some(settled) = begin_at_once(app, tenant, taken_up, &decided).await?
    {
        return Ok(settled);
    }
    // What is decided here is on the disk before it has a consequence: the next commit comes before a request leaves.
    let mut tx = app.db().tenant_followed(tenant).await?;
    let (row, stamps) = match start {
        Start::New(id, request) => {
            let Submitted { row, stamps } = submit(app, &mut tx, id, request).await?;
            let Some(stamps) = stamps else {
                tx.commit().await?;
                return Ok(Settled::Written(row.id));
            };
            (row, stamps)
        }
        Start::Written(id) => {
            let row = store::lock_call(&mut tx, id).await?;
            let row = row.ok_or_else(|| Problem::not_found("skill call"))?;
            if !matches!(
                row.status(),
                CallStatus::Queued | CallStatus::AwaitingApproval
            ) {
                return Ok(Settled::Written(row.id));
            }
            (row, store::stamps(&mut tx).await?)
        }
    };
    if stamps != decided.stamps {
        return Ok(Settled::Changed);
    }
    let row = CallRow {
        policy_verdict: Some(decided.evaluated.verdict.shown.clone()),
        ..row
    };
    if let Some(outcome) = deciding::gate(app, &mut tx, &row, &decided).await? {
        tx.commit_to_disk().await?;
        app.outbox_wake().notify_one();
        return Ok(Settled::Ended(Advanced::at(row.id, outcome)));
    }
    // Step 5: the credentials that the action names, and nothing else.
    let Prepared { skill, action, .. } = &decided.prepared;
    let credentials = match Credentials::open(app, &skill.credentials, action, renewal)? {
        Ok(credentials) => credentials,
        // Nothing of the call is kept, nor locked, while the provider is asked: all is decided again after that.
        Err(Unusable::Due(grant)) if renewal == Renewal::First => return Ok(Settled::Due(grant)),
        Err(unusable) => return Err(Problem::conflict(unusable.code(), unusable.to_string())),
    };
    skill
        .credentials
        .note_use(&mut tx, app, &action.credentials)
        .await?;
    let row = begin(app, &mut tx, &row, &decided, &credentials.named).await?;
    tx.commit().await?;
    let Prepared {
        installed,
        action,
        instance,
        ..
    } = decided.prepared;
    let mut run = Run::new(app, tenant, row, installed, action);
    run.instance = Some(instance);
    run.credentials = Some(credentials);
    Ok(Settled::Begun(Box::new(run)))
}

/// Begins a new call that nobody need agree to, and whose first request can leave: with that request, in one round trip.
/// `None` where it is not as simple as that; then nothing is written. The plugin is asked before the call is counted:
/// what it answers has no effect, and is the same whenever it is asked.
async fn begin_at_once<'a>(
    app: &'a App,
    tenant: TenantId,
    draft: CallRow,
    decided: &Decided,
) -> Result<Option<Settled<'a>>, Problem> {
    let Decided {
        stamps,
        prepared,
        evaluated,
    } = decided;
    let Prepared {
        skill,
        installed,
        action,
        instance,
    } = prepared;
    let keys = &action.credentials;
    let is_agreed = evaluated.verdict.strictness == Strictness::Allow
        && !asks_a_person(&skill.config, &action.name);
    if !is_agreed || skill.credentials.has_unnoted_use(app, keys) {
        return Ok(None);
    }
    let Ok(credentials) = Credentials::open(app, &skill.credentials, action, Renewal::First)?
    else {
        return Ok(None);
    };
    let row = CallRow {
        status: CallStatus::Running.as_str().to_owned(),
        skill_config_id: Some(skill.config.id),
        instance_id: Some(instance.id),
        plugin_digest: Some(installed.plugin.digest().to_owned()),
        settings: Some(skill.config.settings.clone()),
        credentials_used: masks(&credentials.named),
        idempotent: Some(action.idempotent),
        policy_verdict: Some(evaluated.verdict.shown.clone()),
        cost_micro_usd: evaluated.expected_cost(),
        ..draft
    };
    let mut run = Run::new(app, tenant, row, installed.clone(), action.clone());
    run.instance = Some(instance.clone());
    run.credentials = Some(credentials);
    let Some(first) = run.first_request().await else {
        return Ok(None);
    };
    // It may have been long since the plugin was looked up.
    app.revocations().check(&installed.origin)?;
    let decisions = evaluated.decisions_json(&HashMap::new())?;
    let beginning = store::Beginning {
        row: &run.row,
        stamps,
        limit: configs::rate_limit(&skill.config),
        policy_input: &evaluated.input_json()?,
        decisions: decisions.as_ref(),
        request_digest: &first.rendered.digest,
        journal: &first.journal,
        lease: LEASE,
    };
    let mut connection = app.db().tenant_at_once(tenant).await?;
    let began = store::begin_new(&mut connection, tenant, beginning).await?;
    connection.done();
    match began {
        Began::Now {
            started_at,
            counted_at,
        } => {
            run.row.started_at = Some(started_at);
            run.row.rate_counted_at = Some(counted_at);
            run.ready = Some(first);
            Ok(Some(Settled::Begun(Box::new(run))))
        }
        Began::Changed => Ok(Some(Settled::Changed)),
        Began::Written => Ok(None),
        Began::Limited(wait) => Err(rate_limited(&skill.config, wait)),
    }
}

/// How traces show them.
fn masks(opened: &[Opened]) -> Value {
    opened.iter().map(|c| c.mask.clone()).collect()
}

/// Takes up a call that was begun. What sending needs is looked at only where something is still to be sent.
async fn resume(app: &App, tenant: TenantId, row: CallRow) -> Result<Advanced, Problem> {
    let digest = row
        .plugin_digest
        .as_deref()
        .ok_or_else(|| Problem::internal(&"a call began without a plugin"))?;
    let mut tx = app.db().tenant(tenant).await?;
    let installed = plugins::pinned(app, &mut tx, digest).await?;
    let action =
        action_of(&installed, &row).ok_or_else(|| Problem::internal(&"the action vanished"))?;
    let requests = store::requests(&mut tx, row.id).await?;
    store::extend_lease(&mut tx, row.id, LEASE).await?;
    tx.commit().await?;
    let run = Run::new(app, tenant, row, installed, action);
    Box::pin(run.carry_out(requests)).await
}

pub(super) fn settled(row: &CallRow) -> Option<Outcome> {
    let failure = || {
        row.error
            .clone()
            .and_then(|e| serde_json::from_value(e).ok())
            .unwrap_or_else(|| CallFailure::new("failed", "The call failed."))
    };
    match row.status() {
        CallStatus::Succeeded => Some(Outcome::Succeeded {
            output: row.output.clone().unwrap_or_default(),
            summary: row.summary.clone().unwrap_or_default(),
        }),
        CallStatus::Failed | CallStatus::Rejected | CallStatus::Cancelled => {
            Some(Outcome::Failed(failure()))
        }
        CallStatus::OutcomeUnknown => Some(Outcome::OutcomeUnknown {
            message: failure().message,
        }),
        CallStatus::Queued | CallStatus::AwaitingApproval | CallStatus::Running => None,
    }
}

/// The call is on its way: the rate limit is counted, and what it runs with is written down, with what the policies
/// said.
async fn begin(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    decided: &Decided,
    opened: &[Opened],
) -> Result<CallRow, Problem> {
    let Decided {
        prepared,
        evaluated,
        ..
    } = decided;
    let config = &prepared.skill.config;
    let used = match row.rate_counted_at {
        Some(_) => None,
        None => Some(used(tx, config).await?),
    };
    approvals::use_up(app, tx, row).await?;
    policies::chain::record_answers(tx, row.id, evaluated).await?;
    let begin = store::Begin {
        config: config.id,
        instance: prepared.instance.id,
        digest: prepared.installed.plugin.digest(),
        settings: &config.settings,
        credentials_used: masks(opened),
        idempotent: prepared.action.idempotent,
        policy_input: &evaluated.input_json()?,
        policy_verdict: &evaluated.verdict.shown,
        used,
        lease: LEASE,
    };
    Ok(store::begin(tx, row.id, begin).await?)
}

/// Counts a use of the skill: also where there is no limit, so that a new one holds at once.
pub(super) async fn used(tx: &mut TenantTx, config: &ConfigRow) -> Result<store::Use, Problem> {
    let limit = configs::rate_limit(config);
    let used = store::number_use(tx, &config.skill_name, limit).await?;
    used.map_err(|wait| rate_limited(config, wait))
}

fn rate_limited(config: &ConfigRow, wait: Duration) -> Problem {
    let limit = configs::rate_limit(config);
    let (max, per) = limit.map_or((0, 0), |limit| (limit.max_actions, limit.per_seconds));
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        format!("The skill `{}` was used {max} times within {per} s, which is its limit. Wait, or raise it in the skill's configuration.", config.skill_name),
    )
    .with_retry_after(wait)
}

/// The workflow that takes a call through its waits: its task's, or one of its own. The latter ends where the outcome
/// is unknown, and what is begun anew after that has another.
pub fn workflow_of(row: &CallRow) -> String {
    match row.task_id.filter(|_| !row.detached) {
        Some(task) => task.to_string(),
        None if row.attempts == 0 => format!("call-{}", row.id),
        None => format!("call-{}-{}", row.id, row.attempts),
    }
}

/// A request for a call of a task's step: the same for every attempt.
pub fn task_key(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Direct => None,
        Origin::Task { task, step, .. } => Some(format!("task:{task}:{step}")),
    }
}
