//! The skill router's seven steps.
//!
//! [`submit`] writes a call down; [`advance`] takes it as far as it goes. Advancing again is always safe: what was
//! decided, sent and answered is in the database before the next thing happens, and the instance's journal answers a
//! request that comes twice.

use super::{
    Advanced, CallFailure, CallRequest, CallStatus, Origin, Outcome, Who, WhoKind, approvals,
    configs, ending,
    render::{self, Mask, Place, Rendered},
    standing::{Skill, Standing},
    store::{self, Began, CallRow, ConfigRow, End, Stands, Submitted},
};
use crate::{
    app::App,
    db::{TenantTx, without_nul},
    id::{GrantId, SkillCallId, SkillConfigId, TenantId},
    instances::{self, Reachable},
    oauth,
    plugins::{self, Installed},
    policies::{self, Asks, Strictness, chain::Evaluated},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    traces::{self, NewStep, StepType, Subject},
    vault::{self, Closed, Opened, Renewal, Unusable},
};
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tsunami_openclaw::{
    Client,
    bridge::{Advice, ExecuteError, ExecuteRequest, HttpReply},
};
use tsunami_plugin_host::{
    Called, LogLine, PluginError,
    adapter::{self, Action, Failure, Reply, Step},
    policy,
};
use zeroize::Zeroizing;

/// How long a process may work on a call before another takes it up.
pub(super) const LEASE: Duration = Duration::from_secs(120);
/// How often a call is decided, where what it is decided by changes meanwhile.
const DECIDED_MAX: u32 = 5;
/// Attempts at a plugin that runs out of time.
const PLUGIN_ATTEMPTS: u32 = 3;
/// Attempts at reaching the instance before the call waits.
const REACH_ATTEMPTS: u32 = 2;
/// The longest pause that a service may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long the instance may take to say which journal it keeps.
const STATUS_WAIT: Duration = Duration::from_secs(10);
/// The code of a call that a policy stopped.
pub const POLICY_DENIED: &str = "policy_denied";
/// A plugin's output.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

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

async fn find(tx: &mut TenantTx, id: SkillCallId) -> Result<CallRow, Problem> {
    store::call(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))
}

/// What a call needs, checked.
pub(super) struct Prepared {
    pub skill: Arc<Skill>,
    pub installed: Installed,
    pub action: Action,
    pub instance: Reachable,
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

/// A call, and what was decided of it as things stood. Nothing of that is written down yet.
struct Decided {
    stamps: String,
    prepared: Prepared,
    evaluated: Evaluated,
}

/// Steps 1 to 3: the instance, what the tenant set, and the policies.
async fn decide(
    app: &App,
    tenant: TenantId,
    row: &CallRow,
    standing: Arc<Standing>,
) -> Result<Decided, Problem> {
    let prepared = prepare(app, tenant, row, &standing).await?;
    let config = &prepared.skill.config;
    let (action, instance) = (&prepared.action, Some(&prepared.instance));
    let facts = facts(app, config, action, &row.params, who(row), instance);
    let evaluated = policies::evaluate(app, tenant, &standing.chain, facts).await?;
    Ok(Decided {
        stamps: standing.stamps.clone(),
        prepared,
        evaluated,
    })
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
    if let Some(outcome) = gate(app, &mut tx, &row, &decided).await? {
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

/// The opened credentials of a call.
pub(super) struct Credentials {
    /// Those that its action names.
    named: Vec<Opened>,
    /// Of other actions of the skill: what replies are searched for, besides.
    kept_back: Vec<Opened>,
}

impl Credentials {
    fn open(
        app: &App,
        closed: &Closed,
        action: &Action,
        renewal: Renewal,
    ) -> Result<Result<Self, Unusable>, Problem> {
        let named = closed.open(app, &action.credentials, renewal)?;
        let kept_back = closed.open_to_mask(&action.credentials)?;
        Ok(named.map(|named| Self { named, kept_back }))
    }
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

/// The call's action, as the plugin describes it.
fn action_of(installed: &Installed, row: &CallRow) -> Option<Action> {
    let mut actions = installed.manifest.actions.iter();
    actions.find(|action| action.name == row.action).cloned()
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

/// Steps 1 and 2: the instance, and what the tenant set for the skill.
async fn prepare(
    app: &App,
    tenant: TenantId,
    row: &CallRow,
    standing: &Standing,
) -> Result<Prepared, Problem> {
    let instance = instances::reach(app, tenant, standing.instance.as_ref()).await?;
    let (skill, installed, action) = check(app, tenant, row, standing).await?;
    Ok(Prepared {
        skill,
        installed,
        action,
        instance,
    })
}

/// Step 2: what the tenant set for the skill.
async fn check(
    app: &App,
    tenant: TenantId,
    row: &CallRow,
    standing: &Standing,
) -> Result<(Arc<Skill>, Installed, Action), Problem> {
    let skill = standing.skill.clone().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "skill_not_installed",
            format!(
                "The skill `{}` is not installed. Install its plugin with POST /api/v1/plugins.",
                row.skill_name
            ),
        )
    })?;
    let installed = plugins::ready(app, tenant, &skill.plugin).await?;
    let action = action_of(&installed, row).ok_or_else(|| unknown_action(&installed, row))?;
    let config = &skill.config;
    configs::check_call(app, tenant, config, &installed, &action, &row.params).await?;
    Ok((skill, installed, action))
}

/// What the rules say now of a call that was made before.
pub(super) struct Judged {
    /// Under these; see [`store::stamps`].
    pub stamps: String,
    pub skill: Arc<Skill>,
    /// What whoever has it sent again must be, where a policy or the tenant asks for somebody.
    pub asks: Asks,
    pub asks_a_person: bool,
}

/// Steps 2 and 3 for a call that a person wants sent again; none where its outcome is not unknown. Its instance may be
/// away: it is waited for.
///
/// # Errors
/// What stops a new call of this kind now: the skill or its action switched off, scopes, a policy.
pub(super) async fn judge_again(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
) -> Result<Option<Judged>, Problem> {
    let mut tx = app.db().tenant(tenant).await?;
    let row = find(&mut tx, id).await?;
    if row.status() != CallStatus::OutcomeUnknown {
        return Ok(None);
    }
    let standings = app.standings();
    let standing = standings.now(app.vault(), &mut tx, &row.skill_name).await?;
    drop(tx);
    let (skill, _, action) = check(app, tenant, &row, &standing).await?;
    let instance = instances::reach(app, tenant, standing.instance.as_ref()).await;
    let (config, instance) = (&skill.config, instance.as_ref().ok());
    let facts = facts(app, config, &action, &row.params, who(&row), instance);
    let verdict = policies::evaluate(app, tenant, &standing.chain, facts)
        .await?
        .verdict;
    if !verdict.denials.is_empty() {
        let reasons = verdict.denials.join("; ");
        return Err(Problem::forbidden(
            POLICY_DENIED,
            format!("A policy denies the call by now: {reasons}."),
        ));
    }
    Ok(Some(Judged {
        stamps: standing.stamps.clone(),
        asks_a_person: asks_a_person(config, &action.name),
        asks: verdict.asks,
        skill,
    }))
}

fn unknown_action(installed: &Installed, row: &CallRow) -> Problem {
    let known: Vec<_> = installed
        .manifest
        .actions
        .iter()
        .map(|a| a.name.as_str())
        .collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_action",
        format!(
            "The skill `{}` has no action `{}`. It has {}.",
            row.skill_name,
            row.action,
            known.join(", ")
        ),
    )
}

/// Who made the call, where that was written down.
pub(super) fn who(row: &CallRow) -> Option<Who> {
    serde_json::from_value(row.actor_context.clone()?).ok()
}

/// What policies are told of a call.
pub(super) fn facts(
    app: &App,
    config: &ConfigRow,
    action: &Action,
    params: &Value,
    who: Option<Who>,
    instance: Option<&Reachable>,
) -> policies::Facts {
    let who = who.unwrap_or_else(Who::nobody);
    let instances = instance.map(|instance| policy::Instance {
        id: instance.id.to_string(),
        labels: vec![("name".to_owned(), instance.name.clone())],
        in_flight: 0,
        latency_p50_ms: None,
    });
    policies::Facts {
        skill: config.skill_name.clone(),
        action: action.name.clone(),
        risk: action.risk,
        params: params.clone(),
        scopes: configs::scope_values(action, params),
        cost_micro_usd: configs::cost(app, config, &action.name),
        actor: policy::Actor {
            kind: match who.kind {
                WhoKind::Person => policy::ActorKind::Person,
                WhoKind::Agent => policy::ActorKind::Agent,
                WhoKind::System => policy::ActorKind::System,
            },
            id: who.id,
            roles: who.roles,
            trust: who.trust,
            delegation_depth: who.delegation_depth,
        },
        instances: instances.into_iter().collect(),
        window_seconds: configs::rate_limit(config).map_or(3600, |limit| limit.per_seconds),
        now_ms: app.clock().now_unix_ms(),
    }
}

/// Step 3, people: whether one must agree first. Also where an approval is taken up, once, if it is still for this.
async fn gate(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    decided: &Decided,
) -> Result<Option<Outcome>, Problem> {
    let prepared = &decided.prepared;
    let config = &prepared.skill.config;
    let verdict = &decided.evaluated.verdict;
    if verdict.strictness == Strictness::Deny {
        policies::chain::record(tx, row.id, &decided.evaluated).await?;
        return denied(tx, row, &verdict.denials).await.map(Some);
    }
    // Who was asked decides, also where nobody would be asked any more.
    let was_asked = row.approval_id.is_some();
    if !asks_a_person(config, &row.action) && !was_asked && verdict.strictness == Strictness::Allow
    {
        return Ok(None);
    }
    let outcome = match approvals::take_up(app, tx, row, prepared, &verdict.asks).await? {
        approvals::Taken::Granted => return Ok(None),
        approvals::Taken::Waiting {
            approval,
            expires_at,
        } => Outcome::AwaitingApproval {
            approval,
            expires_at,
        },
        approvals::Taken::Refused(failure) => Outcome::Failed(failure),
    };
    policies::chain::record(tx, row.id, &decided.evaluated).await?;
    Ok(Some(outcome))
}

/// Whether the tenant wants a person to agree to the action.
fn asks_a_person(config: &ConfigRow, action: &str) -> bool {
    config.requires_approval || config.approval_actions.iter().any(|asked| asked == action)
}

/// A policy said no: the call ends, with its reason.
async fn denied(tx: &mut TenantTx, row: &CallRow, reasons: &[String]) -> Result<Outcome, Problem> {
    let failure = CallFailure::new(
        POLICY_DENIED,
        format!("A policy denies the call: {}.", reasons.join("; ")),
    )
    .cleaned();
    let end = store::End::badly(CallStatus::Rejected, &failure);
    if store::finish(tx, row.id, Stands::NotBegun, end).await? {
        let details = json!({
            "skill": row.skill_name, "action": row.action, "actor": row.actor, "status": "denied",
            "policies": row.policy_verdict, "error": failure,
        });
        record(
            tx,
            row,
            StepType::SkillCall,
            "skill_call:denied",
            details,
            None,
        )
        .await?;
    }
    Ok(Outcome::Failed(failure))
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

/// Steps 6 and 7 of one call.
pub(super) struct Run<'a> {
    pub app: &'a App,
    pub tenant: TenantId,
    pub row: CallRow,
    pub installed: Installed,
    pub action: Action,
    /// What sending needs: there once it was needed.
    pub instance: Option<Reachable>,
    credentials: Option<Credentials>,
    /// The first request, where it was noted with the call's beginning.
    ready: Option<Ready>,
    /// A request that may change something may have left, and no reply to it is here.
    pub is_open: bool,
    /// A request that may change something was answered.
    pub has_acted: bool,
    /// The reply that came last, until the next write keeps it. If it is lost before that, the instance's journal gives
    /// it again.
    unkept: Option<(i32, Value)>,
    began: Instant,
    log: Vec<LogLine>,
    /// In this attempt, the one under way included.
    requests_made: usize,
}

/// A request that can leave.
struct Ready {
    rendered: Rendered,
    /// What the instance notes it in.
    journal: String,
    /// It may change something.
    acts: bool,
}

/// What became of one request.
pub(super) enum Sent {
    Reply(Value),
    Stop(Outcome),
}

impl<'a> Run<'a> {
    fn new(
        app: &'a App,
        tenant: TenantId,
        row: CallRow,
        installed: Installed,
        action: Action,
    ) -> Self {
        Self {
            app,
            tenant,
            row,
            installed,
            action,
            instance: None,
            credentials: None,
            ready: None,
            is_open: false,
            has_acted: false,
            unkept: None,
            began: Instant::now(),
            log: Vec::new(),
            requests_made: 0,
        }
    }

    async fn carry_out(mut self, known: Vec<store::RequestRow>) -> Result<Advanced, Problem> {
        let outcome = self.take_steps(known).await;
        // Nothing was written after the last reply: the call waits for something.
        if self.unkept.is_some()
            && let Some(tx) = self.writing().await?
        {
            self.written(tx).await?;
        }
        let outcome = outcome?;
        let (call, has_ended) = (self.row.id, self.row.finished_at.is_some());
        let ended = has_ended.then(|| Box::new(self.row));
        Ok(Advanced {
            call,
            outcome,
            ended,
        })
    }

    fn invocation(&self) -> adapter::Invocation {
        adapter::Invocation {
            action: self.row.action.clone(),
            params: self.row.params.to_string(),
            settings: self.settings().to_string(),
            idempotency_key: self.row.id.to_string(),
            now: u64::try_from(self.row.created_at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
        }
    }

    fn settings(&self) -> Value {
        self.row.settings.clone().unwrap_or_else(|| json!({}))
    }

    /// What a new call begins with, where that is a request that can leave. Nothing is written, and whatever went wrong
    /// is found again by the steps.
    async fn first_request(&mut self) -> Option<Ready> {
        let invocation = Arc::new(self.invocation());
        let called = self.ask(&invocation, &Arc::default()).await.ok()?;
        let Ok(Step::Perform(request)) = called.value else {
            return None;
        };
        let rendered = self.rendered(&request).ok()?;
        let journal = self.journal_id().await?;
        self.log = called.log;
        Some(Ready {
            rendered,
            journal,
            acts: self.acts(&request),
        })
    }

    async fn take_steps(&mut self, mut known: Vec<store::RequestRow>) -> Result<Outcome, Problem> {
        let invocation = Arc::new(self.invocation());
        let mut replies: Arc<Vec<Reply>> = Arc::default();
        let is_open = known.iter().any(|request| request.reply.is_none());
        self.is_open = is_open && !self.action.idempotent;
        loop {
            if let Err(problem) = self.app.revocations().check(&self.installed.origin) {
                return self.stopped_by(problem).await;
            }
            let sent = match self.ready.take() {
                Some(first) => {
                    self.requests_made = 1;
                    self.send(0, first).await?
                }
                None => self.step(&invocation, &replies, &mut known).await?,
            };
            let reply = match sent {
                Sent::Reply(reply) => reply,
                Sent::Stop(outcome) => return Ok(outcome),
            };
            if reply["truncated"] == true {
                return self.fail_without_answer(&reply).await;
            }
            Arc::make_mut(&mut replies).push(to_reply(&reply));
        }
    }

    /// What the plugin wants next, done.
    async fn step(
        &mut self,
        invocation: &Arc<adapter::Invocation>,
        replies: &Arc<Vec<Reply>>,
        known: &mut Vec<store::RequestRow>,
    ) -> Result<Sent, Problem> {
        let step = match self.next_step(invocation, replies).await? {
            Ok(step) => step,
            Err(stopped) => return Ok(Sent::Stop(stopped)),
        };
        let request = match step {
            Ok(Step::Finish(outcome)) => return self.succeed(&outcome).await.map(Sent::Stop),
            Ok(Step::Perform(request)) => request,
            Err(failure) => return self.fail_as(failure).await.map(Sent::Stop),
        };
        let steps_max = usize::try_from(self.app.config().skills.steps_max).unwrap_or(usize::MAX);
        if replies.len() >= steps_max {
            let failure = CallFailure::new(
                "too_many_steps",
                format!("The plugin asks for more than {steps_max} requests in one call."),
            );
            return self.end(failure).await.map(Sent::Stop);
        }
        self.requests_made = replies.len() + 1;
        let seq = i32::try_from(replies.len()).unwrap_or(i32::MAX);
        let acts = self.acts(&request);
        let earlier = known.iter().position(|r| r.seq == seq);
        match earlier.map(|at| known.swap_remove(at)) {
            Some(mut answered) if answered.reply.is_some() => {
                self.has_acted |= acts;
                Ok(Sent::Reply(answered.reply.take().unwrap_or_default()))
            }
            // The same id is never sent from here again: what became of it is asked.
            Some(open) => match self.recall(&open, acts).await? {
                Some(sent) => Ok(sent),
                None => self.perform(&request, seq).await,
            },
            None => self.perform(&request, seq).await,
        }
    }

    /// Whether the request may change something: what only reads has the safe methods of HTTP (RFC 9110, 9.2.1), or
    /// belongs to an action that may be repeated.
    fn acts(&self, request: &adapter::Request) -> bool {
        let is_safe = matches!(request.method, adapter::Method::Get | adapter::Method::Head);
        !is_safe && !self.action.idempotent
    }

    /// What the plugin wants next. A plugin that runs out of time is asked again: the machine may be busy, and the same
    /// question has the same answer.
    async fn next_step(
        &mut self,
        invocation: &Arc<adapter::Invocation>,
        replies: &Arc<Vec<Reply>>,
    ) -> Result<Result<Result<Step, Failure>, Outcome>, Problem> {
        let mut attempt = 1;
        loop {
            let answer = self.ask(invocation, replies).await;
            // Revoked while its turn was waited for, and so not asked.
            if answer.is_err()
                && let Err(problem) = self.app.revocations().check(&self.installed.origin)
            {
                return self.stopped_by(problem).await.map(Err);
            }
            match answer {
                Ok(called) => {
                    self.log = called.log;
                    return Ok(Ok(called.value));
                }
                Err(PluginError::Timeout(_)) if attempt < PLUGIN_ATTEMPTS => attempt += 1,
                Err(error) if error.is_transient() => {
                    return Ok(Err(waiting(error.to_string(), RETRY_AFTER_DEFAULT)));
                }
                Err(error) => {
                    let failure =
                        CallFailure::new("plugin_failed", format!("The plugin failed: {error}."));
                    return self.end(failure).await.map(Err);
                }
            }
        }
    }

    async fn ask(
        &self,
        invocation: &Arc<adapter::Invocation>,
        replies: &Arc<Vec<Reply>>,
    ) -> Result<Called<Result<Step, Failure>>, PluginError> {
        let (asked, given) = (invocation.clone(), replies.clone());
        let plugin = &self.installed.plugin;
        plugins::ask(self.app, self.tenant, plugin, move |plugin| {
            plugin.next(&asked, &given)
        })
        .await
    }

    /// The instance, where the call does not have it yet.
    pub(super) async fn reach(&mut self) -> Result<Option<Outcome>, Problem> {
        if self.instance.is_some() {
            return Ok(None);
        }
        let mut tx = self.app.db().tenant(self.tenant).await?;
        let row = instances::live(&mut tx).await?;
        drop(tx);
        match instances::reach(self.app, self.tenant, row.as_ref()).await {
            Ok(instance) => self.instance = Some(instance),
            Err(problem) => return self.stopped_by(problem).await.map(Some),
        }
        Ok(None)
    }

    /// The credentials, where the call does not have them yet.
    async fn open(&mut self) -> Result<Option<Outcome>, Problem> {
        if self.credentials.is_some() {
            return Ok(None);
        }
        let mut opened = self.open_now(Renewal::First).await?;
        if let Err(Unusable::Due(grant)) = opened {
            if let Err(problem) = oauth::renew_for_use(self.app, self.tenant, grant).await {
                return self.stopped_by(problem).await.map(Some);
            }
            opened = self.open_now(Renewal::Tried).await?;
        }
        match opened {
            Ok(credentials) => self.credentials = Some(credentials),
            Err(unusable) => {
                let failure = CallFailure::new(unusable.code(), unusable.to_string());
                return self.end(failure).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn open_now(&self, renewal: Renewal) -> Result<Result<Credentials, Unusable>, Problem> {
        let (app, action) = (self.app, &self.action);
        let mut tx = app.db().tenant(self.tenant).await?;
        let closed = app.vault().closed(&mut tx, self.config()?).await?;
        let opened = Credentials::open(app, &closed, action, renewal)?;
        if opened.is_ok() {
            closed.note_use(&mut tx, app, &action.credentials).await?;
        }
        tx.commit().await?;
        Ok(opened)
    }

    fn config(&self) -> Result<SkillConfigId, Problem> {
        self.row
            .skill_config_id
            .ok_or_else(|| Problem::internal(&"a call began without a configuration"))
    }

    /// What is away is waited for; what is wrong ends the call.
    async fn stopped_by(&mut self, problem: Problem) -> Result<Outcome, Problem> {
        match problem.retry_after() {
            Some(pause) => Ok(waiting(problem.detail().to_owned(), pause)),
            None if problem.status().is_client_error() => {
                self.end(CallFailure::from(&problem)).await
            }
            None => Err(problem),
        }
    }

    async fn perform(&mut self, request: &adapter::Request, seq: i32) -> Result<Sent, Problem> {
        if let Some(stopped) = self.reach().await? {
            return Ok(Sent::Stop(stopped));
        }
        if let Some(stopped) = self.open().await? {
            return Ok(Sent::Stop(stopped));
        }
        let rendered = match self.rendered(request) {
            Ok(rendered) => rendered,
            Err(why) => {
                return self
                    .end(CallFailure::new(
                        "request_refused",
                        format!("The gateway refuses the request: {why}."),
                    ))
                    .await
                    .map(Sent::Stop);
            }
        };
        let Some(journal) = self.journal_id().await else {
            return Ok(Sent::Stop(waiting(
                "the OpenClaw instance".into(),
                RETRY_AFTER_DEFAULT,
            )));
        };
        // It may have been long since the plugin was asked.
        if let Err(problem) = self.app.revocations().check(&self.installed.origin) {
            return self.stopped_by(problem).await.map(Sent::Stop);
        }
        // Before anything leaves: whoever comes after us finds that it may have.
        let (turn, digest) = (self.row.turn(), &rendered.digest);
        let Some(mut tx) = self.writing().await? else {
            return self.overtaken().await.map(Sent::Stop);
        };
        let noted = store::sending(&mut tx, turn, seq, digest, &journal, LEASE).await?;
        self.written(tx).await?;
        if !noted {
            return self.overtaken().await.map(Sent::Stop);
        }
        let ready = Ready {
            rendered,
            journal,
            acts: self.acts(request),
        };
        self.send(seq, ready).await
    }

    fn rendered(&self, request: &adapter::Request) -> Result<Rendered, String> {
        let settings = self.settings();
        let place = Place {
            manifest: &self.installed.manifest,
            settings: &settings,
            private_hosts: &self.app.config().skills.private_network_hosts,
            credentials: self.credentials.as_ref().map_or(&[], |c| &c.named),
            kept_back: self.credentials.as_ref().map_or(&[], |c| &c.kept_back),
        };
        render::render(request, &place)
    }

    /// The journal of the instance's disk, known since the first call over this connection.
    async fn journal_id(&self) -> Option<String> {
        let instance = self.instance.as_ref()?;
        let client = &instance.client;
        let hello = client.hello();
        let key = (
            instance.id,
            hello
                .as_ref()
                .map(|h| h.server.boot_id.clone())
                .unwrap_or_default(),
        );
        if hello.is_some()
            && let Some(id) = self.app.journals().get(&key).await
        {
            return Some(id);
        }
        let status = client
            .bridge_status(STATUS_WAIT)
            .await
            .inspect_err(|error| tracing::info!(%error, "instance is not reached"))
            .ok()?;
        if hello.is_some() {
            self.app
                .journals()
                .insert(key, status.journal_id.clone())
                .await;
        }
        Some(status.journal_id)
    }

    /// Sends a request that was noted.
    async fn send(&mut self, seq: i32, ready: Ready) -> Result<Sent, Problem> {
        let limits = &self.app.config().skills;
        let Ready {
            rendered,
            journal,
            acts,
        } = ready;
        self.is_open = acts;
        let Rendered {
            request,
            digest,
            secrets,
            private_network,
            ..
        } = rendered;
        let mut execute = ExecuteRequest {
            call_id: wire_id(&self.row, self.row.attempts, seq),
            digest,
            resend: false,
            journal_id: Some(journal),
            sent_ago: Duration::ZERO,
            retry_unknown: false,
            timeout: Duration::from_secs(limits.request_timeout_seconds.into()),
            max_response_bytes: limits.reply_bytes_max,
            private_network,
            secrets: secrets
                .iter()
                .map(|secret| SecretString::from(secret.as_str()))
                .collect(),
            journal_reply: true,
            request,
        };
        let first_sent = Instant::now();
        let mut attempt = 1;
        loop {
            execute.sent_ago = first_sent.elapsed();
            let error = match self.client()?.execute(&execute).await {
                Ok(reply) => return Ok(self.take_reply(seq, &reply.reply, &secrets, acts)),
                Err(error) => error,
            };
            match (error.advice(), &error) {
                // It may be repeated: it only reads, or the service drops the repetition, which bears the same key.
                (Advice::AskPerson, _) if !acts && !execute.retry_unknown => {
                    execute.resend = true;
                    execute.retry_unknown = true;
                }
                (Advice::AskPerson, _) => {
                    let cause = CallFailure::new("outcome_unknown", error.to_string());
                    return self.unknown(cause).await.map(Sent::Stop);
                }
                (advice, ExecuteError::NotSent { .. }) => {
                    self.is_open = false;
                    let message = format!(
                        "The service was not reached, and nothing was sent: {}",
                        sentence(&error)
                    );
                    let failure = CallFailure {
                        retryable: advice == Advice::SendAgain,
                        ..CallFailure::new("service_unreachable", message)
                    };
                    let pause =
                        Duration::from_secs(self.app.config().tasks.retry_initial_seconds.into());
                    if advice == Advice::SendAgain
                        && let Some(waits) = self.try_later(&failure, pause).await?
                    {
                        return Ok(Sent::Stop(waits));
                    }
                    return self.end(failure).await.map(Sent::Stop);
                }
                (Advice::GiveUp, _) => {
                    // This sending did nothing; an earlier one may have.
                    self.is_open = acts && execute.resend;
                    return self
                        .end(CallFailure::new(
                            "instance_refused",
                            format!(
                                "The OpenClaw instance refused the request: {}",
                                sentence(&error)
                            ),
                        ))
                        .await
                        .map(Sent::Stop);
                }
                (Advice::SendAgain | Advice::AskAgain, _) if attempt >= REACH_ATTEMPTS => {
                    tracing::info!(call = %self.row.id, %error, "instance does not answer; the call waits");
                    return Ok(Sent::Stop(waiting(
                        "the OpenClaw instance".into(),
                        RETRY_AFTER_DEFAULT,
                    )));
                }
                (advice, _) => {
                    attempt += 1;
                    execute.resend |= advice == Advice::AskAgain;
                }
            }
        }
    }

    pub(super) fn client(&self) -> Result<&Client, Problem> {
        let instance = self.instance.as_ref();
        instance
            .map(|instance| &instance.client)
            .ok_or_else(|| Problem::internal(&"a request was to leave without an instance"))
    }

    pub(super) fn take_reply(
        &mut self,
        seq: i32,
        reply: &HttpReply,
        secrets: &[Zeroizing<String>],
        acts: bool,
    ) -> Sent {
        let mask = Mask::of(secrets);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&mask.apply(bytes)).into_owned();
        let headers: Vec<_> = reply
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), text(value.clone().into_bytes())))
            .collect();
        let body = mask.apply(reply.body.clone().unwrap_or_default());
        let mut kept = without_nul(
            json!({ "status": reply.status, "headers": headers, "truncated": reply.truncated || reply.body.is_none() }),
        );
        // jsonb holds no U+0000, and no bytes.
        match String::from_utf8(body) {
            Ok(text) if !text.contains('\0') => kept["body"] = json!(text),
            Ok(text) => kept["body_base64"] = json!(BASE64_STANDARD.encode(text)),
            Err(bytes) => kept["body_base64"] = json!(BASE64_STANDARD.encode(bytes.into_bytes())),
        }
        self.unkept = Some((seq, kept.clone()));
        self.is_open = false;
        self.has_acted |= acts;
        Sent::Reply(kept)
    }

    /// A transaction in which the reply that came last is kept, whatever else is written in it; [`Run::written`] ends
    /// it. `None` where another process has gone on with the call.
    pub(super) async fn writing(&mut self) -> Result<Option<TenantTx>, Problem> {
        let mut tx = self.app.db().tenant_by_keys(self.tenant).await?;
        if let Some((seq, reply)) = &self.unkept
            && !store::replied(&mut tx, self.row.turn(), *seq, reply).await?
        {
            return Ok(None);
        }
        Ok(Some(tx))
    }

    pub(super) async fn written(&mut self, tx: TenantTx) -> Result<(), Problem> {
        tx.commit().await?;
        self.unkept = None;
        Ok(())
    }

    async fn succeed(&mut self, outcome: &adapter::Outcome) -> Result<Outcome, Problem> {
        if outcome.output.len() > OUTPUT_BYTES_MAX {
            return self
                .end(CallFailure::new(
                    "output_too_large",
                    format!("The plugin's output is larger than {OUTPUT_BYTES_MAX} bytes."),
                ))
                .await;
        }
        let Ok(output) = serde_json::from_str(&outcome.output).map(without_nul) else {
            return self
                .end(CallFailure::new(
                    "plugin_failed",
                    "The plugin's output is no JSON.",
                ))
                .await;
        };
        let summary: String = outcome
            .summary
            .replace('\0', "\u{fffd}")
            .chars()
            .take(500)
            .collect();
        let end = End {
            status: CallStatus::Succeeded,
            output: Some(&output),
            summary: Some(&summary),
            error: None,
        };
        let shown = json!({ "status": "succeeded", "summary": summary, "result": output });
        if !self.finish(end, shown).await? {
            return self.overtaken().await;
        }
        Ok(Outcome::Succeeded { output, summary })
    }

    /// The call did not do what it was to do, and that is known.
    pub(super) async fn fail(&mut self, failure: CallFailure) -> Result<Outcome, Problem> {
        let failure = failure.cleaned();
        let end = End::badly(CallStatus::Failed, &failure);
        let shown = json!({ "status": "failed", "error": failure });
        if !self.finish(end, shown).await? {
            return self.overtaken().await;
        }
        Ok(Outcome::Failed(failure))
    }

    /// Ends the call, and tells of it in its trace; `false` where another process has gone on with it.
    pub(super) async fn finish(&mut self, end: End<'_>, shown: Value) -> Result<bool, Problem> {
        let details = self.details(shown);
        let ended = store::Ended {
            turn: self.row.turn(),
            reply: self.unkept.as_ref().map(|(seq, reply)| (*seq, reply)),
            end,
            step: NewStep {
                duration: Some(self.began.elapsed()),
                ..step_of(
                    &self.row,
                    StepType::SkillCall,
                    &self.step_key(&details),
                    details,
                )
            },
        };
        let mut connection = self.app.db().tenant_at_once(self.tenant).await?;
        let ended_at = store::end(&mut connection, self.tenant, ended).await?;
        connection.done();
        let Some(at) = ended_at else {
            return Ok(false);
        };
        self.unkept = None;
        self.row.status = end.status.as_str().to_owned();
        self.row.output = end.output.cloned();
        self.row.summary = end.summary.map(str::to_owned);
        self.row.error = end.error.and_then(|e| serde_json::to_value(e).ok());
        self.row.finished_at = (end.status != CallStatus::OutcomeUnknown).then_some(at);
        Ok(true)
    }

    /// In the words of the service, through the plugin.
    async fn fail_as(&mut self, failure: Failure) -> Result<Outcome, Problem> {
        let failure = match failure {
            Failure::InvalidParams(violations) => {
                let told: Vec<_> = violations
                    .iter()
                    .map(|v| format!("{} {}", v.pointer, v.message))
                    .collect();
                CallFailure::new(
                    "invalid_params",
                    format!("The parameters cannot be used: {}.", told.join("; ")),
                )
            }
            Failure::Refused(refusal) => {
                if refusal.credential_rejected {
                    let mut tx = self.app.db().tenant(self.tenant).await?;
                    vault::note_rejected(&mut tx, self.config()?, &self.action.credentials).await?;
                    tx.commit().await?;
                }
                let pause = refusal.retry_after_ms.map(Duration::from_millis);
                let failure = CallFailure {
                    retryable: pause.is_some(),
                    ..CallFailure::new(&refusal.code, refusal.message)
                };
                if let Some(pause) = pause
                    && let Some(waits) = self.try_later(&failure.clone().cleaned(), pause).await?
                {
                    return Ok(waits);
                }
                failure
            }
            Failure::UnexpectedReply(what) => {
                let message =
                    format!("The service answered in a way that the plugin does not know: {what}.");
                let failure = CallFailure::new("unexpected_reply", message);
                return self.end(failure).await;
            }
        };
        // Whatever was answered, the plugin knows what it means: the service said no.
        self.fail(failure).await
    }

    /// The service answered, and its answer is not there: it was too large.
    async fn fail_without_answer(&mut self, reply: &Value) -> Result<Outcome, Problem> {
        let message = format!(
            "The service answered with status {}, and its answer is larger than what is kept of one.",
            reply["status"]
        );
        self.end(CallFailure::new("reply_too_large", message)).await
    }

    /// Begins anew after a pause, where nothing happened, somebody waits, and it was not tried too often; `None` where
    /// the call is not made again.
    async fn try_later(
        &mut self,
        failure: &CallFailure,
        pause: Duration,
    ) -> Result<Option<Outcome>, Problem> {
        let attempts_max = self.app.config().tasks.attempts_max;
        let attempt = u32::try_from(self.row.refusals)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let is_waited_for = self.row.task_id.is_some() && !self.row.detached;
        let nothing_happened = self.requests_made <= 1 || self.action.idempotent;
        if attempt >= attempts_max || !is_waited_for || !nothing_happened {
            return Ok(None);
        }
        // What came back before goes with the attempt.
        self.unkept = None;
        let mut tx = self.app.db().tenant(self.tenant).await?;
        if !store::next_attempt(&mut tx, self.row.turn()).await? {
            drop(tx);
            return self.overtaken().await.map(Some);
        }
        let details = json!({ "status": "refused", "error": failure, "attempt": attempt, "retry_after_seconds": pause.as_secs() });
        self.trace(&mut tx, details).await?;
        tx.commit().await?;
        Ok(Some(waiting(failure.message.clone(), pause.min(PAUSE_MAX))))
    }

    /// Step 7, in the transaction of what it reports.
    pub(super) async fn trace(&self, tx: &mut TenantTx, result: Value) -> Result<(), sqlx::Error> {
        let details = self.details(result);
        let key = self.step_key(&details);
        let duration = Some(self.began.elapsed());
        record(tx, &self.row, StepType::SkillCall, &key, details, duration).await
    }

    fn step_key(&self, details: &Value) -> String {
        let status = details["status"].as_str().unwrap_or_default();
        format!("skill_call:{status}:{}", self.row.attempts)
    }

    /// What the trace tells of the call, with its result.
    fn details(&self, result: Value) -> Value {
        let mut details = json!({
            "skill": self.row.skill_name,
            "action": self.row.action,
            "actor": self.row.actor,
            "instance": self.instance.as_ref().map(|instance| &instance.name),
            "plugin_digest": self.row.plugin_digest,
            "policies": self.row.policy_verdict,
            "credentials_used": self.row.credentials_used,
            "llm_model": null, "tokens_used": 0, "expected_cost_micro_usd": self.row.cost_micro_usd,
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut details, result) {
            all.extend(more);
        }
        if !self.log.is_empty() {
            details["plugin_log"] = json!(self.log);
        }
        details
    }
}

/// Writes a step of a call into the trace of its task, or into its own.
pub(super) async fn record(
    tx: &mut TenantTx,
    row: &CallRow,
    step_type: StepType,
    key: &str,
    details: Value,
    duration: Option<Duration>,
) -> Result<(), sqlx::Error> {
    let step = step_of(row, step_type, key, details);
    traces::record(tx, NewStep { duration, ..step }).await?;
    Ok(())
}

pub(super) fn step_of(row: &CallRow, step_type: StepType, key: &str, details: Value) -> NewStep {
    let (subject, key) = match row.task_id {
        Some(task) => (Subject::Task(task), format!("{key}:{}", row.id)),
        None => (Subject::Call(row.id), key.to_owned()),
    };
    NewStep {
        subject,
        step_type,
        key,
        call: Some(row.id),
        agent: row.agent_id,
        details,
        duration: None,
    }
}

/// The id under which the instance knows a request.
pub(super) fn wire_id(row: &CallRow, attempt: i32, seq: i32) -> String {
    format!("{}:{attempt}:{seq}", row.id)
}

/// With a full stop at its end; some who write an error put one there.
fn sentence(error: &ExecuteError) -> String {
    format!("{}.", error.to_string().trim_end_matches('.'))
}

pub(super) fn waiting(what: String, retry_after: Duration) -> Outcome {
    Outcome::Waiting { what, retry_after }
}

fn to_reply(kept: &Value) -> Reply {
    let headers = kept["headers"].as_array().into_iter().flatten();
    let body = match (kept["body"].as_str(), kept["body_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(encoded)) => BASE64_STANDARD.decode(encoded).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    Reply {
        status: kept["status"]
            .as_u64()
            .and_then(|s| u16::try_from(s).ok())
            .unwrap_or(0),
        headers: headers
            .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())))
            .collect(),
        body,
    }
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
