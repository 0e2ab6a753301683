//! Steps 6 and 7 of the router: the requests of one call, and what becomes of them.

use super::{
    Advanced, CallFailure, CallStatus, Outcome,
    render::{self, Mask, Place, Rendered},
    router::LEASE,
    store::{self, CallRow, End},
    trace::{record, step_of},
};
use crate::{
    app::App,
    db::{TenantTx, without_nul},
    id::{SkillConfigId, TenantId},
    instances::{self, Reachable},
    json, oauth,
    plugins::{self, Installed},
    problem::{Problem, RETRY_AFTER_DEFAULT},
    traces::{NewStep, StepType},
    vault::{self, Closed, Opened, Renewal, Unusable},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
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
};
use zeroize::Zeroizing;

/// Attempts at a plugin that runs out of time.
const PLUGIN_ATTEMPTS: u32 = 3;
/// Attempts at reaching the instance before the call waits.
const REACH_ATTEMPTS: u32 = 2;
/// The longest pause that a service may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long the instance may take to say which journal it keeps.
const STATUS_WAIT: Duration = Duration::from_secs(10);
/// A plugin's output.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// The opened credentials of a call.
pub(super) struct Credentials {
    /// Those that its action names.
    pub named: Vec<Opened>,
    /// Of other actions of the skill: what replies are searched for, besides.
    kept_back: Vec<Opened>,
}

impl Credentials {
    pub fn open(
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

/// Steps 6 and 7 of one call.
pub(super) struct Run<'a> {
    pub app: &'a App,
    pub tenant: TenantId,
    pub row: CallRow,
    pub installed: Installed,
    pub action: Action,
    /// What sending needs: there once it was needed.
    pub instance: Option<Reachable>,
    pub credentials: Option<Credentials>,
    /// The first request, where it was noted with the call's beginning.
    pub ready: Option<Ready>,
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
pub(super) struct Ready {
    pub rendered: Rendered,
    /// What the instance notes it in.
    pub journal: String,
    /// It may change something.
    acts: bool,
}

/// A request that is being sent.
struct Sending {
    execute: ExecuteRequest,
    /// What its reply is searched for.
    secrets: Vec<Zeroizing<String>>,
    /// It may change something.
    acts: bool,
    attempt: u32,
}

/// What became of one request.
pub(super) enum Sent {
    Reply(Value),
    Stop(Outcome),
}

impl<'a> Run<'a> {
    pub fn new(
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

    pub async fn carry_out(mut self, known: Vec<store::RequestRow>) -> Result<Advanced, Problem> {
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
    pub async fn first_request(&mut self) -> Option<Ready> {
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
            Ok(Step::Finish(outcome)) => return self.succeed(outcome).await.map(Sent::Stop),
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

    /// Sends a request that was noted, and sends it again where that can do no harm.
    async fn send(&mut self, seq: i32, ready: Ready) -> Result<Sent, Problem> {
        let mut sending = self.sending(seq, ready);
        self.is_open = sending.acts;
        let first_sent = Instant::now();
        loop {
            sending.execute.sent_ago = first_sent.elapsed();
            let error = match self.client()?.execute(&sending.execute).await {
                Ok(reply) => {
                    return Ok(self.take_reply(seq, &reply.reply, &sending.secrets, sending.acts));
                }
                Err(error) => error,
            };
            if let Some(stopped) = self.without_reply(&mut sending, &error).await? {
                return Ok(Sent::Stop(stopped));
            }
        }
    }

    fn sending(&self, seq: i32, ready: Ready) -> Sending {
        let limits = &self.app.config().skills;
        let Rendered {
            request,
            digest,
            secrets,
            private_network,
            ..
        } = ready.rendered;
        let execute = ExecuteRequest {
            call_id: wire_id(&self.row, self.row.attempts, seq),
            digest,
            resend: false,
            journal_id: Some(ready.journal),
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
        Sending {
            execute,
            secrets,
            acts: ready.acts,
            attempt: 1,
        }
    }

    /// What a request without a reply comes to; `None` where it is sent again.
    async fn without_reply(
        &mut self,
        sending: &mut Sending,
        error: &ExecuteError,
    ) -> Result<Option<Outcome>, Problem> {
        let Sending {
            execute,
            acts,
            attempt,
            ..
        } = sending;
        match (error.advice(), error) {
            // It may be repeated: it only reads, or the service drops the repetition, which bears the same key.
            (Advice::AskPerson, _) if !*acts && !execute.retry_unknown => {
                execute.resend = true;
                execute.retry_unknown = true;
                Ok(None)
            }
            (Advice::AskPerson, _) => {
                let cause = CallFailure::new("outcome_unknown", error.to_string());
                self.unknown(cause).await.map(Some)
            }
            (advice, ExecuteError::NotSent { .. }) => {
                self.is_open = false;
                let may_try_later = advice == Advice::SendAgain;
                self.not_sent(error, may_try_later).await.map(Some)
            }
            (Advice::GiveUp, _) => {
                // This sending did nothing; an earlier one may have.
                self.is_open = *acts && execute.resend;
                let message = format!(
                    "The OpenClaw instance refused the request: {}",
                    sentence(error)
                );
                let failure = CallFailure::new("instance_refused", message);
                self.end(failure).await.map(Some)
            }
            (Advice::SendAgain | Advice::AskAgain, _) if *attempt >= REACH_ATTEMPTS => {
                tracing::info!(call = %self.row.id, %error, "instance does not answer; the call waits");
                let what = "the OpenClaw instance".into();
                Ok(Some(waiting(what, RETRY_AFTER_DEFAULT)))
            }
            (advice, _) => {
                *attempt += 1;
                execute.resend |= advice == Advice::AskAgain;
                Ok(None)
            }
        }
    }

    async fn not_sent(
        &mut self,
        error: &ExecuteError,
        may_try_later: bool,
    ) -> Result<Outcome, Problem> {
        let message = format!(
            "The service was not reached, and nothing was sent: {}",
            sentence(error)
        );
        let failure = CallFailure {
            retryable: may_try_later,
            ..CallFailure::new("service_unreachable", message)
        };
        let pause = Duration::from_secs(self.app.config().tasks.retry_initial_seconds.into());
        if may_try_later && let Some(waits) = self.try_later(&failure, pause).await? {
            return Ok(waits);
        }
        self.end(failure).await
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

    async fn succeed(&mut self, outcome: adapter::Outcome) -> Result<Outcome, Problem> {
        if outcome.output.len() > OUTPUT_BYTES_MAX {
            return self
                .end(CallFailure::new(
                    "output_too_large",
                    format!("The plugin's output is larger than {OUTPUT_BYTES_MAX} bytes."),
                ))
                .await;
        }
        let (bytes, text) = (outcome.output.len(), outcome.output);
        let read = move || json::read_output(text.as_bytes()).map(without_nul);
        let read = json::worked_on(bytes, read).await;
        let output = match read.map_err(|error| Problem::internal(&error))? {
            Ok(output) => output,
            Err(error) => {
                let message = format!("The plugin's output is no JSON that can be taken: {error}.");
                return self.end(CallFailure::new("plugin_failed", message)).await;
            }
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
