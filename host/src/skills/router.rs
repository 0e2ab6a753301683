//! The skill router's seven steps.
//!
//! [`submit`] writes a call down; [`advance`] takes it as far as it goes. Advancing again is always safe: what was
//! decided, sent and answered is in the database before the next thing happens, and the instance's journal answers a
//! request that comes twice.

use super::{
    Advanced, CallFailure, CallRequest, CallStatus, Origin, Outcome, Who, WhoKind, approvals,
    configs,
    render::{self, Place, Rendered},
    store::{self, CallRow, ConfigRow},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId},
    instances::{self, Reachable},
    plugins::{self, Installed},
    policies::{self, Strictness, chain::Evaluated},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    traces::{self, NewStep, StepType, Subject},
    vault::{self, Opened},
};
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tsunami_openclaw::bridge::{Advice, ExecuteError, ExecuteRequest, HttpReply};
use tsunami_plugin_host::{
    LogLine, PluginError,
    adapter::{self, Action, Failure, Reply, Step},
    policy,
};
use zeroize::Zeroizing;

/// How long a process may work on a call before another takes it up.
const LEASE: Duration = Duration::from_secs(120);
/// Attempts at reaching the instance before the call waits.
const REACH_ATTEMPTS: u32 = 2;
/// How often a plugin that used up its time is called again before the call ends.
const PLUGIN_REPEATS_MAX: u32 = 3;
/// How old a request may be that the instance's journal is asked about: it forgets after 7 days.
const JOURNAL_TRUSTED_FOR: time::Duration = time::Duration::days(6);
/// The longest pause that a service may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long the instance may take to say which journal it keeps.
const STATUS_WAIT: Duration = Duration::from_secs(10);
/// The code of a call that a policy stopped.
pub const POLICY_DENIED: &str = "policy_denied";
/// A plugin's output.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Writes a call down, or finds the one that bears the same key. [`Db::tenant_followed`](crate::db::Db::tenant_followed)
/// will do for it: nothing comes of a call before [`advance`] has committed.
///
/// # Errors
/// 422 where the key came before with another call.
pub async fn submit(tx: &mut TenantTx, request: &CallRequest) -> Result<CallRow, Problem> {
    let sha256 = request.sha256();
    let row = store::submit(tx, SkillCallId::fresh(), request, &sha256).await?;
    if row.request_sha256 != sha256 {
        return Err(Problem::unprocessable(
            "idempotency_key_reused",
            "This Idempotency-Key came before with another call. Use a new key for a new call.",
        ));
    }
    Ok(row)
}

/// A call, and what the policies said of it.
struct Decided {
    row: CallRow,
    evaluated: Evaluated,
}

/// What a call needs, checked.
pub(super) struct Prepared {
    pub config: ConfigRow,
    pub installed: Installed,
    pub instance: Reachable,
}

impl Prepared {
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.installed
            .manifest
            .actions
            .iter()
            .find(|action| action.name == name)
    }
}

/// Takes a call as far as it goes.
///
/// # Errors
/// What stopped it before anything was sent. The call is as it was, and may be advanced again.
pub async fn advance(app: &App, tenant: TenantId, id: SkillCallId) -> Result<Advanced, Problem> {
    // What is decided here is on the disk before it has a consequence: the next commit comes before a request leaves.
    let mut tx = app.db().tenant_followed(tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if let Some(outcome) = settled(&row) {
        return Ok(Advanced { call: id, outcome });
    }
    let begun = row.status() == CallStatus::Running;
    let prepared = prepare(app, &mut tx, &row, begun).await?;
    let row = if begun {
        row
    } else {
        let decided = decided(app, &mut tx, row, &prepared).await?;
        if let Some(outcome) = gate(app, &mut tx, &decided, &prepared).await? {
            tx.commit_to_disk().await?;
            app.outbox_wake().notify_one();
            return Ok(Advanced { call: id, outcome });
        }
        decided.row
    };
    // Step 5: the credentials that the action names, and nothing else.
    let action = prepared
        .action(&row.action)
        .ok_or_else(|| Problem::internal(&"the action vanished"))?
        .clone();
    let opened = app
        .vault()
        .open_for_call(&mut tx, app, prepared.config.id, &action.credentials)
        .await?
        .map_err(|unusable| Problem::conflict(unusable.code(), unusable.to_string()))?;
    let (row, replies) = if begun {
        store::extend_lease(&mut tx, id, LEASE).await?;
        (row, store::requests(&mut tx, id).await?)
    } else {
        let row = begin(app, &mut tx, &row, &prepared, &opened).await?;
        (row, Vec::new())
    };
    tx.commit().await?;
    let mut run = Run {
        app,
        tenant,
        row,
        prepared,
        action,
        opened,
        began: Instant::now(),
        log: Vec::new(),
        requests_made: 0,
        may_have_acted: false,
    };
    let outcome = run.carry_out(replies).await?;
    Ok(Advanced { call: id, outcome })
}

fn settled(row: &CallRow) -> Option<Outcome> {
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
    tx: &mut TenantTx,
    row: &CallRow,
    begun: bool,
) -> Result<Prepared, Problem> {
    let instance = instances::for_call(app, tx).await?;
    let config = store::config(tx, &row.skill_name).await?;
    let installed = match (&row.plugin_digest, begun) {
        (Some(digest), true) => Some(plugins::pinned(app, tx, digest).await?),
        _ => plugins::installed(app, tx, &row.skill_name).await?,
    };
    let (Some(config), Some(installed)) = (config, installed) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "skill_not_installed",
            format!(
                "The skill `{}` is not installed. Install its plugin with POST /api/v1/plugins.",
                row.skill_name
            ),
        ));
    };
    let prepared = Prepared {
        config,
        installed,
        instance,
    };
    if !begun {
        let action = prepared
            .action(&row.action)
            .ok_or_else(|| unknown_action(&prepared, row))?;
        configs::check_call(
            app,
            &prepared.config,
            &prepared.installed,
            action,
            &row.params,
        )
        .await?;
    }
    Ok(prepared)
}

fn unknown_action(prepared: &Prepared, row: &CallRow) -> Problem {
    let known: Vec<_> = prepared
        .installed
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

/// Step 3, the policies: asks the chain, and writes down what it said.
async fn decided(
    app: &App,
    tx: &mut TenantTx,
    row: CallRow,
    prepared: &Prepared,
) -> Result<Decided, Problem> {
    let action = prepared
        .action(&row.action)
        .ok_or_else(|| unknown_action(prepared, &row))?;
    let facts = facts(
        app,
        &prepared.config,
        action,
        &row.params,
        who(&row),
        Some(&prepared.instance),
    );
    let evaluated = policies::evaluate(app, tx, facts).await?;
    policies::chain::record(tx, row.id, &evaluated).await?;
    let row = CallRow {
        policy_verdict: Some(evaluated.verdict.shown.clone()),
        ..row
    };
    Ok(Decided { row, evaluated })
}

/// Step 3, people: whether one must agree first. Also where an approval is taken up, once, if it is still for this.
async fn gate(
    app: &App,
    tx: &mut TenantTx,
    decided: &Decided,
    prepared: &Prepared,
) -> Result<Option<Outcome>, Problem> {
    let (row, config) = (&decided.row, &prepared.config);
    let verdict = &decided.evaluated.verdict;
    if verdict.strictness == Strictness::Deny {
        return denied(tx, row, &verdict.denials).await.map(Some);
    }
    let configured = config.requires_approval || config.approval_actions.contains(&row.action);
    // Who was asked decides, also where nobody would be asked any more.
    let was_asked = row.approval_id.is_some();
    if !configured && !was_asked && verdict.strictness == Strictness::Allow {
        return Ok(None);
    }
    match approvals::take_up(app, tx, row, prepared, &verdict.asks).await? {
        approvals::Taken::Granted => Ok(None),
        approvals::Taken::Waiting {
            approval,
            expires_at,
        } => Ok(Some(Outcome::AwaitingApproval {
            approval,
            expires_at,
        })),
        approvals::Taken::Refused(failure) => Ok(Some(Outcome::Failed(failure))),
    }
}

/// A policy said no: the call ends, with its reason.
async fn denied(tx: &mut TenantTx, row: &CallRow, reasons: &[String]) -> Result<Outcome, Problem> {
    let failure = CallFailure::new(
        POLICY_DENIED,
        format!("A policy denies the call: {}.", reasons.join("; ")),
    )
    .cleaned();
    if store::finish(tx, row.id, CallStatus::Rejected, None, None, Some(&failure)).await? {
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

/// The call is on its way: the rate limit is counted, and what it runs with is written down.
async fn begin(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    prepared: &Prepared,
    opened: &[Opened],
) -> Result<CallRow, Problem> {
    if row.rate_counted_at.is_none()
        && let Some(limit) = configs::rate_limit(&prepared.config)
    {
        let room = store::room_for_use(
            tx,
            prepared.config.id,
            limit.max_actions,
            Duration::from_secs(limit.per_seconds),
        )
        .await?;
        if let Err(wait) = room {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                format!("The skill `{}` was used {} times within {} s, which is its limit. Wait, or raise it in the skill's configuration.", row.skill_name, limit.max_actions, limit.per_seconds),
            )
            .with_retry_after(wait));
        }
    }
    approvals::use_up(app, tx, row).await?;
    let masks = opened.iter().map(|c| c.mask.clone()).collect::<Vec<_>>();
    let begin = store::Begin {
        config: prepared.config.id,
        instance: prepared.instance.id,
        digest: prepared.installed.plugin.digest(),
        settings: &prepared.config.settings,
        credentials_used: json!(masks),
        lease: LEASE,
    };
    Ok(store::begin(tx, row.id, begin).await?)
}

/// Steps 6 and 7 of one call.
struct Run<'a> {
    app: &'a App,
    tenant: TenantId,
    row: CallRow,
    prepared: Prepared,
    action: Action,
    opened: Vec<Opened>,
    began: Instant,
    log: Vec<LogLine>,
    /// In this attempt, the one under way included.
    requests_made: usize,
    /// Whether a request that could change something has left, or may have. From then on the call does not simply fail.
    may_have_acted: bool,
}

/// What became of one request.
enum Sent {
    Reply(Value),
    Stop(Outcome),
}

impl Run<'_> {
    async fn carry_out(&mut self, mut known: Vec<store::RequestRow>) -> Result<Outcome, Problem> {
        let invocation = Arc::new(adapter::Invocation {
            action: self.row.action.clone(),
            params: self.row.params.to_string(),
            settings: self
                .row
                .settings
                .clone()
                .unwrap_or_else(|| json!({}))
                .to_string(),
            idempotency_key: self.row.id.to_string(),
            now: u64::try_from(self.row.created_at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
        });
        let steps_max = usize::try_from(self.app.config().skills.steps_max).unwrap_or(usize::MAX);
        let mut replies: Vec<Reply> = Vec::new();
        let mut slow = 0;
        loop {
            let (asked, given) = (invocation.clone(), std::mem::take(&mut replies));
            let called = plugins::call(self.app, &self.prepared.installed.plugin, move |plugin| {
                (plugin.next(&asked, &given), given)
            });
            let answer = called.await.and_then(|(answer, given)| {
                replies = given;
                answer
            });
            let step = match answer {
                Ok(called) => {
                    self.log = called.log;
                    called.value
                }
                Err(error) if error.is_transient() => {
                    return Ok(waiting(error.to_string(), RETRY_AFTER_DEFAULT));
                }
                // It is a pure function: on a busy machine it may only have had no turn.
                Err(PluginError::Timeout(_)) if slow < PLUGIN_REPEATS_MAX => {
                    slow += 1;
                    continue;
                }
                Err(error) => {
                    return self
                        .stop(CallFailure::new(
                            "plugin_failed",
                            format!("The plugin failed: {error}."),
                        ))
                        .await;
                }
            };
            let request = match step {
                Ok(Step::Finish(outcome)) => return self.succeed(&outcome).await,
                Ok(Step::Perform(request)) => request,
                Err(failure) => return self.fail_as(failure).await,
            };
            if replies.len() >= steps_max {
                return self
                    .stop(CallFailure::new(
                        "too_many_steps",
                        format!("The plugin asks for more than {steps_max} requests in one call."),
                    ))
                    .await;
            }
            let seq = replies.len();
            self.requests_made = seq + 1;
            let sent = match known
                .iter_mut()
                .find(|r| usize::try_from(r.seq) == Ok(seq))
                .and_then(|r| r.reply.take())
            {
                Some(reply) => {
                    self.note_leaving(&request);
                    Sent::Reply(reply)
                }
                None => {
                    self.perform(&request, i32::try_from(seq).unwrap_or(i32::MAX), &known)
                        .await?
                }
            };
            match sent {
                Sent::Reply(reply) if reply["truncated"] == true => {
                    return self.fail_without_answer(&reply).await;
                }
                Sent::Reply(reply) => replies.push(to_reply(&reply)),
                Sent::Stop(outcome) => return Ok(outcome),
            }
        }
    }

    async fn perform(
        &mut self,
        request: &adapter::Request,
        seq: i32,
        known: &[store::RequestRow],
    ) -> Result<Sent, Problem> {
        let earlier = known.iter().find(|r| r.seq == seq);
        if let Some(earlier) = earlier {
            self.note_leaving(request);
            if self.app.clock().now() - earlier.sent_at > JOURNAL_TRUSTED_FOR {
                let why =
                    "it was sent so long ago that the instance has forgotten what became of it";
                return self.unknown(why).await.map(Sent::Stop);
            }
        }
        let settings = self.row.settings.clone().unwrap_or_else(|| json!({}));
        let place = Place {
            manifest: &self.prepared.installed.manifest,
            settings: &settings,
            private_hosts: &self.app.config().skills.private_network_hosts,
            credentials: &self.opened,
        };
        let rendered = match render::render(request, &place) {
            Ok(rendered) => rendered,
            Err(why) => {
                return Ok(Sent::Stop(
                    self.stop(CallFailure::new(
                        "request_refused",
                        format!("The gateway refuses the request: {why}."),
                    ))
                    .await?,
                ));
            }
        };
        let Some(journal) = self.journal_id().await else {
            return Ok(Sent::Stop(waiting(
                "the OpenClaw instance".into(),
                RETRY_AFTER_DEFAULT,
            )));
        };
        if earlier.is_none() {
            // Before anything leaves: whoever comes after us finds that it may have.
            let mut tx = self.app.db().tenant(self.tenant).await?;
            if !store::holds(&mut tx, self.row.id, self.row.attempts).await? {
                return Ok(Sent::Stop(taken_over()));
            }
            store::sending(&mut tx, self.row.id, seq, &rendered.digest, &journal).await?;
            if seq > 0 {
                // The first one leaves right after the lease was taken.
                store::extend_lease(&mut tx, self.row.id, LEASE).await?;
            }
            tx.commit().await?;
        }
        let journal_id = earlier
            .and_then(|r| r.journal_id.clone())
            .unwrap_or(journal);
        let acted_before = self.may_have_acted;
        self.note_leaving(request);
        self.send(seq, rendered, journal_id, earlier.is_some(), acted_before)
            .await
    }

    /// A request that could change something is about to leave, or left before.
    fn note_leaving(&mut self, request: &adapter::Request) {
        let reads = matches!(request.method, adapter::Method::Get | adapter::Method::Head);
        self.may_have_acted |= !reads && !self.action.idempotent;
    }

    /// The journal of the instance's disk, known since the first call over this connection.
    async fn journal_id(&self) -> Option<String> {
        let client = &self.prepared.instance.client;
        let hello = client.hello();
        let key = (
            self.prepared.instance.id,
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

    async fn send(
        &mut self,
        seq: i32,
        rendered: Rendered,
        journal_id: String,
        resend: bool,
        acted_before: bool,
    ) -> Result<Sent, Problem> {
        let limits = &self.app.config().skills;
        let Rendered {
            request,
            digest,
            secrets,
            private_network,
            ..
        } = rendered;
        let mut execute = ExecuteRequest {
            call_id: format!("{}:{}:{seq}", self.row.id, self.row.attempts),
            digest,
            resend,
            journal_id: Some(journal_id),
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
        let mut attempt = 1;
        loop {
            let error = match self.prepared.instance.client.execute(&execute).await {
                Ok(reply) => {
                    return self
                        .keep_reply(seq, &reply.reply, &secrets)
                        .await
                        .map(Sent::Reply);
                }
                Err(error) => error,
            };
            match (error.advice(), &error) {
                // The service itself drops the repetition: it bears the same key.
                (Advice::AskPerson, _) if self.action.idempotent && !execute.retry_unknown => {
                    execute.retry_unknown = true
                }
                (Advice::AskPerson, _) => {
                    return self.unknown(&error.to_string()).await.map(Sent::Stop);
                }
                (advice, ExecuteError::NotSent { .. }) => {
                    self.may_have_acted = acted_before;
                    let message =
                        format!("The service was not reached, and nothing was sent: {error}.");
                    let failure = CallFailure {
                        retryable: advice == Advice::SendAgain,
                        ..CallFailure::new("service_unreachable", message)
                    };
                    let pause =
                        Duration::from_secs(self.app.config().tasks.retry_initial_seconds.into());
                    let stopped = match advice {
                        Advice::SendAgain => self.try_later(failure, pause).await,
                        _ => self.stop(failure).await,
                    };
                    return stopped.map(Sent::Stop);
                }
                (Advice::GiveUp, _) => {
                    // Refused before it was performed, unless it was there before.
                    self.may_have_acted = acted_before || execute.resend;
                    return self
                        .stop(CallFailure::new(
                            "instance_refused",
                            format!("The OpenClaw instance refused the request: {error}."),
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
                (Advice::SendAgain | Advice::AskAgain, _) => {
                    attempt += 1;
                    execute.resend = true;
                }
            }
        }
    }

    async fn keep_reply(
        &mut self,
        seq: i32,
        reply: &HttpReply,
        secrets: &[Zeroizing<String>],
    ) -> Result<Value, Problem> {
        let text =
            |bytes: Vec<u8>| String::from_utf8_lossy(&render::mask(bytes, secrets)).into_owned();
        let headers: Vec<_> = reply
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), text(value.clone().into_bytes())))
            .collect();
        let body = render::mask(reply.body.clone().unwrap_or_default(), secrets);
        let mut kept = json!({ "status": reply.status, "headers": headers, "truncated": reply.truncated || reply.body.is_none() });
        // jsonb holds no U+0000, and no bytes.
        match String::from_utf8(body) {
            Ok(text) if !text.contains('\0') => kept["body"] = json!(text),
            Ok(text) => kept["body_base64"] = json!(BASE64_STANDARD.encode(text)),
            Err(bytes) => kept["body_base64"] = json!(BASE64_STANDARD.encode(bytes.into_bytes())),
        }
        // If this is lost, the instance's journal gives the reply again.
        let mut tx = self.app.db().tenant_followed(self.tenant).await?;
        if store::holds(&mut tx, self.row.id, self.row.attempts).await? {
            store::replied(&mut tx, self.row.id, seq, &kept).await?;
        }
        tx.commit().await?;
        Ok(kept)
    }

    async fn succeed(&mut self, outcome: &adapter::Outcome) -> Result<Outcome, Problem> {
        if outcome.output.len() > OUTPUT_BYTES_MAX {
            return self
                .stop(CallFailure::new(
                    "output_too_large",
                    format!("The plugin's output is larger than {OUTPUT_BYTES_MAX} bytes."),
                ))
                .await;
        }
        let Ok(output) = serde_json::from_str::<Value>(&outcome.output).map(without_nul) else {
            return self
                .stop(CallFailure::new(
                    "plugin_failed",
                    "The plugin's output is no JSON.",
                ))
                .await;
        };
        let summary: String = outcome
            .summary
            .replace('\0', "")
            .chars()
            .take(500)
            .collect();
        let mut tx = self.app.db().tenant(self.tenant).await?;
        if !store::holds(&mut tx, self.row.id, self.row.attempts).await? {
            return Ok(taken_over());
        }
        if store::finish(
            &mut tx,
            self.row.id,
            CallStatus::Succeeded,
            Some(&output),
            Some(&summary),
            None,
        )
        .await?
        {
            self.trace(
                &mut tx,
                json!({ "status": "succeeded", "summary": summary, "result": output }),
            )
            .await?;
        }
        tx.commit().await?;
        Ok(Outcome::Succeeded { output, summary })
    }

    /// Ends a call that cannot go on. Where it may have changed something, it does not claim that it failed.
    async fn stop(&mut self, failure: CallFailure) -> Result<Outcome, Problem> {
        if self.may_have_acted {
            return self.unknown(failure.message.trim_end_matches('.')).await;
        }
        self.fail(failure).await
    }

    /// Ends a call of which it is known that it did not succeed: nothing left, or the service said no.
    async fn fail(&mut self, failure: CallFailure) -> Result<Outcome, Problem> {
        let mut tx = self.app.db().tenant(self.tenant).await?;
        if !store::holds(&mut tx, self.row.id, self.row.attempts).await? {
            return Ok(taken_over());
        }
        if store::finish(
            &mut tx,
            self.row.id,
            CallStatus::Failed,
            None,
            None,
            Some(&failure),
        )
        .await?
        {
            self.trace(&mut tx, json!({ "status": "failed", "error": failure }))
                .await?;
        }
        tx.commit().await?;
        Ok(Outcome::Failed(failure))
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
                    vault::note_rejected(
                        &mut tx,
                        self.prepared.config.id,
                        &self.action.credentials,
                    )
                    .await?;
                    tx.commit().await?;
                }
                let pause = refusal.retry_after_ms.map(Duration::from_millis);
                let failure = CallFailure {
                    retryable: pause.is_some(),
                    ..CallFailure::new(&refusal.code, refusal.message)
                };
                if let Some(pause) = pause {
                    return self.try_later(failure.cleaned(), pause).await;
                }
                failure
            }
            Failure::UnexpectedReply(what) => {
                let message =
                    format!("The service answered in a way that the plugin does not know: {what}.");
                let failure = CallFailure::new("unexpected_reply", message);
                return self.stop(failure.cleaned()).await;
            }
        };
        self.fail(failure.cleaned()).await
    }

    /// The service answered, and its answer is not there: it was too large.
    async fn fail_without_answer(&mut self, reply: &Value) -> Result<Outcome, Problem> {
        let message = format!(
            "The service answered with status {}, and its answer is larger than what is kept of one. Where the action changes something, look at the service before it is called again.",
            reply["status"]
        );
        self.stop(CallFailure::new("reply_too_large", message))
            .await
    }

    /// Begins anew after a pause, where nothing happened, somebody waits, and it was not tried too often.
    async fn try_later(
        &mut self,
        failure: CallFailure,
        pause: Duration,
    ) -> Result<Outcome, Problem> {
        let attempts_max = self.app.config().tasks.attempts_max;
        let attempt = u32::try_from(self.row.attempts)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let is_waited_for = self.row.task_id.is_some() && !self.row.detached;
        let nothing_happened = self.requests_made <= 1 || self.action.idempotent;
        if attempt >= attempts_max || !is_waited_for || !nothing_happened {
            return self.fail(failure).await;
        }
        let mut tx = self.app.db().tenant(self.tenant).await?;
        if !store::holds(&mut tx, self.row.id, self.row.attempts).await? {
            return Ok(taken_over());
        }
        store::next_attempt(&mut tx, self.row.id).await?;
        let details = json!({ "status": "refused", "error": failure, "attempt": attempt, "retry_after_seconds": pause.as_secs() });
        self.trace(&mut tx, details).await?;
        tx.commit().await?;
        Ok(waiting(failure.message, pause.min(PAUSE_MAX)))
    }

    async fn unknown(&mut self, why: &str) -> Result<Outcome, Problem> {
        let message = unknown_message(&self.row, why);
        let failure = CallFailure::new("outcome_unknown", &message);
        let mut tx = self.app.db().tenant(self.tenant).await?;
        if !store::holds(&mut tx, self.row.id, self.row.attempts).await? {
            return Ok(taken_over());
        }
        if store::outcome_unknown(&mut tx, self.row.id, &failure).await? {
            self.trace(
                &mut tx,
                json!({ "status": "outcome_unknown", "error": failure }),
            )
            .await?;
        }
        tx.commit().await?;
        Ok(Outcome::OutcomeUnknown { message })
    }

    /// Step 7, in the transaction of what it reports.
    async fn trace(&self, tx: &mut TenantTx, result: Value) -> Result<(), sqlx::Error> {
        let mut details = json!({
            "skill": self.row.skill_name,
            "action": self.row.action,
            "actor": self.row.actor,
            "instance": self.prepared.instance.name,
            "plugin_digest": self.row.plugin_digest,
            "policies": self.row.policy_verdict,
            "credentials_used": self.row.credentials_used,
            "llm_model": null, "tokens_used": 0, "cost_micro_usd": 0,
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut details, result) {
            all.extend(more);
        }
        if !self.log.is_empty() {
            details["plugin_log"] = json!(self.log);
        }
        record(
            tx,
            &self.row,
            StepType::SkillCall,
            &format!(
                "skill_call:{}:{}",
                details["status"].as_str().unwrap_or_default(),
                self.row.attempts
            ),
            details,
            Some(self.began.elapsed()),
        )
        .await
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
    let (subject, key) = match row.task_id {
        Some(task) => (Subject::Task(task), format!("{key}:{}", row.id)),
        None => (Subject::Call(row.id), key.to_owned()),
    };
    traces::record(
        tx,
        NewStep {
            subject,
            step_type,
            key: &key,
            call: Some(row.id),
            agent: row.agent_id,
            details,
            duration,
        },
    )
    .await?;
    Ok(())
}

fn waiting(what: String, retry_after: Duration) -> Outcome {
    Outcome::Waiting { what, retry_after }
}

/// Another process has taken the call further meanwhile: what this one knows is of an earlier attempt.
fn taken_over() -> Outcome {
    waiting("another worker has the call".into(), RETRY_AFTER_DEFAULT)
}

/// jsonb holds no U+0000.
pub(super) fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(all) => all.into_iter().map(without_nul).collect(),
        Value::Object(all) => all
            .into_iter()
            .map(|(name, value)| (name.replace('\0', "\u{fffd}"), without_nul(value)))
            .collect(),
        other => other,
    }
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

/// Ends a call that cannot go on, with the reason. Where a request of it may have left, nobody knows what became of
/// it, and a person is asked.
pub async fn give_up(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
    problem: &Problem,
) -> Result<Outcome, Problem> {
    let failure = CallFailure::from(problem);
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if let Some(outcome) = settled(&row) {
        return Ok(outcome);
    }
    let details = |status: &str, failure: &CallFailure| json!({ "skill": row.skill_name, "action": row.action, "actor": row.actor, "status": status, "error": failure });
    let left =
        row.status() == CallStatus::Running && !store::requests(&mut tx, id).await?.is_empty();
    let outcome = if left {
        let message = unknown_message(&row, failure.message.trim_end_matches('.'));
        let failure = CallFailure::new("outcome_unknown", &message);
        store::outcome_unknown(&mut tx, id, &failure).await?;
        let key = format!("skill_call:outcome_unknown:{}", row.attempts);
        let told = details("outcome_unknown", &failure);
        record(&mut tx, &row, StepType::SkillCall, &key, told, None).await?;
        Outcome::OutcomeUnknown { message }
    } else {
        store::finish(&mut tx, id, CallStatus::Failed, None, None, Some(&failure)).await?;
        let told = details("failed", &failure);
        record(
            &mut tx,
            &row,
            StepType::SkillCall,
            "skill_call:failed",
            told,
            None,
        )
        .await?;
        Outcome::Failed(failure)
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Ends a call that was refused before it began; one that has begun goes on.
pub async fn refuse(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
    problem: &Problem,
) -> Result<(), Problem> {
    let failure = CallFailure::from(problem);
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if row.status() != CallStatus::Queued {
        return Ok(());
    }
    store::finish(
        &mut tx,
        id,
        CallStatus::Rejected,
        None,
        None,
        Some(&failure),
    )
    .await?;
    let details = json!({ "skill": row.skill_name, "action": row.action, "actor": row.actor, "status": "refused", "error": failure });
    record(
        &mut tx,
        &row,
        StepType::SkillCall,
        "skill_call:refused",
        details,
        None,
    )
    .await?;
    Ok(tx.commit().await?)
}

fn unknown_message(row: &CallRow, why: &str) -> String {
    format!(
        "Whether `{}` of `{}` was carried out is unknown: {why}. Look at the service whether it happened, then say so with POST /api/v1/skill-calls/{}/resolve.",
        row.action, row.skill_name, row.id
    )
}

/// The workflow that takes a call through its waits.
pub fn workflow_of(row: &CallRow) -> String {
    match row.task_id {
        Some(task) => task.to_string(),
        None => format!("call-{}", row.id),
    }
}

/// A request for a call of a task's step: the same for every attempt.
pub fn task_key(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Direct => None,
        Origin::Task { task, step, .. } => Some(format!("task:{task}:{step}")),
    }
}
