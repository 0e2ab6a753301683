//! The skill router's seven steps.
//!
//! [`submit`] writes a call down; [`advance`] takes it as far as it goes. Advancing again is always safe: what was
//! decided, sent and answered is in the database before the next thing happens, and the instance's journal answers a
//! request that comes twice.

use super::{
    Advanced, CallFailure, CallRequest, CallStatus, Origin, Outcome, approvals, configs,
    render::{self, Place, Rendered},
    store::{self, CallRow, ConfigRow},
};
use crate::{
    app::App,
    db::TenantTx,
    id::{SkillCallId, TenantId},
    instances::{self, Reachable},
    plugins::{self, Installed},
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
    LogLine,
    adapter::{self, Action, Failure, Reply, Step},
};
use zeroize::Zeroizing;

/// How long a process may work on a call before another takes it up.
const LEASE: Duration = Duration::from_secs(120);
/// Attempts at reaching the instance before the call waits.
const REACH_ATTEMPTS: u32 = 2;
/// The longest pause that a service may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long the instance may take to say which journal it keeps.
const STATUS_WAIT: Duration = Duration::from_secs(10);
/// A plugin's output.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Writes a call down, or finds the one that bears the same key.
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
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if let Some(outcome) = settled(&row) {
        return Ok(Advanced { call: id, outcome });
    }
    let begun = row.status() == CallStatus::Running;
    let prepared = prepare(app, &mut tx, &row, begun).await?;
    if !begun && let Some(outcome) = gate(app, &mut tx, &row, &prepared).await? {
        tx.commit().await?;
        app.outbox_wake().notify_one();
        return Ok(Advanced { call: id, outcome });
    }
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
    if begun {
        store::extend_lease(&mut tx, id, LEASE).await?;
    } else {
        begin(app, &mut tx, &row, &prepared, &opened).await?;
    }
    let row = store::call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    let replies = store::requests(&mut tx, id).await?;
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

/// Step 3: whether a person must agree first. Also where an approval is taken up, once, if it is still for this.
async fn gate(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    prepared: &Prepared,
) -> Result<Option<Outcome>, Problem> {
    let config = &prepared.config;
    if !config.requires_approval && !config.approval_actions.contains(&row.action) {
        return Ok(None);
    }
    match approvals::take_up(app, tx, row, prepared).await? {
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

/// The call is on its way: the rate limit is counted, and what it runs with is written down.
async fn begin(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    prepared: &Prepared,
    opened: &[Opened],
) -> Result<(), Problem> {
    if row.rate_counted_at.is_none()
        && let Some(limit) = configs::rate_limit(&prepared.config)
    {
        let counted = store::count_use(
            tx,
            prepared.config.id,
            row.id,
            limit.max_actions,
            Duration::from_secs(limit.per_seconds),
        )
        .await?;
        if let Err(wait) = counted {
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
    store::begin(tx, row.id, begin).await?;
    Ok(())
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
        loop {
            let (asked, given) = (invocation.clone(), std::mem::take(&mut replies));
            let plugin = &self.prepared.installed.plugin;
            let called = plugins::call(self.app, self.tenant, plugin, move |plugin| {
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
                Err(error) => {
                    return self
                        .fail(CallFailure::new(
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
                    .fail(CallFailure::new(
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
                Some(reply) => Sent::Reply(reply),
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
                    self.fail(CallFailure::new(
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
        let earlier = known.iter().find(|r| r.seq == seq);
        if earlier.is_none() {
            // Before anything leaves: whoever comes after us finds that it may have.
            let mut tx = self.app.db().tenant(self.tenant).await?;
            store::sending(&mut tx, self.row.id, seq, &rendered.digest, &journal).await?;
            store::extend_lease(&mut tx, self.row.id, LEASE).await?;
            tx.commit().await?;
        }
        let journal_id = earlier
            .and_then(|r| r.journal_id.clone())
            .unwrap_or(journal);
        self.send(seq, rendered, journal_id, earlier.is_some())
            .await
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
            retry_unknown: self.row.retry_unknown,
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
                        _ => self.fail(failure).await,
                    };
                    return stopped.map(Sent::Stop);
                }
                (Advice::GiveUp, _) => {
                    return self
                        .fail(CallFailure::new(
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
        let mut tx = self.app.db().tenant(self.tenant).await?;
        store::replied(&mut tx, self.row.id, seq, &kept).await?;
        if self.row.retry_unknown {
            store::retry_used(&mut tx, self.row.id).await?;
            self.row.retry_unknown = false;
        }
        tx.commit().await?;
        Ok(kept)
    }

    async fn succeed(&mut self, outcome: &adapter::Outcome) -> Result<Outcome, Problem> {
        if outcome.output.len() > OUTPUT_BYTES_MAX {
            return self
                .fail(CallFailure::new(
                    "output_too_large",
                    format!("The plugin's output is larger than {OUTPUT_BYTES_MAX} bytes."),
                ))
                .await;
        }
        let text = outcome.output.replace("\\u0000", "\u{fffd}");
        let Ok(output) = serde_json::from_str::<Value>(&text) else {
            return self
                .fail(CallFailure::new(
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

    async fn fail(&mut self, failure: CallFailure) -> Result<Outcome, Problem> {
        let mut tx = self.app.db().tenant(self.tenant).await?;
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
            Failure::UnexpectedReply(what) => CallFailure::new(
                "unexpected_reply",
                format!("The service answered in a way that the plugin does not know: {what}."),
            ),
        };
        self.fail(failure.cleaned()).await
    }

    /// The service answered, and its answer is not there: it was too large.
    async fn fail_without_answer(&mut self, reply: &Value) -> Result<Outcome, Problem> {
        let message = format!(
            "The service answered with status {}, and its answer is larger than what is kept of one. Where the action changes something, look at the service before it is called again.",
            reply["status"]
        );
        self.fail(CallFailure::new("reply_too_large", message))
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
        store::next_attempt(&mut tx, self.row.id).await?;
        let details = json!({ "status": "refused", "error": failure, "attempt": attempt, "retry_after_seconds": pause.as_secs() });
        self.trace(&mut tx, details).await?;
        tx.commit().await?;
        Ok(waiting(failure.message, pause.min(PAUSE_MAX)))
    }

    async fn unknown(&mut self, why: &str) -> Result<Outcome, Problem> {
        let message = format!(
            "Whether `{}` of `{}` was carried out is unknown: {why}. Look at the service whether it happened, then say so with POST /api/v1/skill-calls/{}/resolve.",
            self.row.action, self.row.skill_name, self.row.id
        );
        let failure = CallFailure::new("outcome_unknown", &message);
        let mut tx = self.app.db().tenant(self.tenant).await?;
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

/// Ends a call that cannot go on, with the reason: for a task, whose call is not made again.
pub async fn give_up(
    app: &App,
    tenant: TenantId,
    id: SkillCallId,
    problem: &Problem,
) -> Result<CallFailure, Problem> {
    let failure = CallFailure::from(problem);
    let mut tx = app.db().tenant(tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if store::finish(&mut tx, id, CallStatus::Failed, None, None, Some(&failure)).await? {
        let details = json!({ "skill": row.skill_name, "action": row.action, "actor": row.actor, "status": "failed", "error": failure });
        record(
            &mut tx,
            &row,
            StepType::SkillCall,
            "skill_call:failed",
            details,
            None,
        )
        .await?;
    }
    tx.commit().await?;
    Ok(failure)
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
