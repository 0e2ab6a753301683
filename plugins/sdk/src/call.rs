//! One call, as the function of an action sees it.

use crate::{
    Failure, Method, Part, Refusal, Request, Violation,
    reply::Reply,
    wit::exports::servicetsunami::plugin::skill_adapter::{Outcome, Request as WitRequest, Step},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::VecDeque;

/// Why an action's function returns before it is done: it waits for a reply, or it cannot go on. Hand it up with `?`.
#[derive(Debug)]
pub enum Stop {
    Perform(Box<WitRequest>),
    Fail(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

impl Stop {
    /// The service said no: with its own code, and words that say what to do.
    pub fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::refusal(code, message, None, false)
    }

    /// Nothing happened, and the same call may work later, in milliseconds.
    pub fn later(code: impl Into<String>, message: impl Into<String>, after_ms: u64) -> Self {
        Self::refusal(code, message, Some(after_ms), false)
    }

    /// The service does not accept the credential.
    pub fn credential_rejected(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::refusal(code, message, None, true)
    }

    /// The parameter at this JSON Pointer cannot be used.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Fail(Failure::InvalidParams(vec![Violation {
            pointer: pointer.into(),
            message: message.into(),
        }]))
    }

    /// The service answered in a way that is not known.
    pub fn unexpected(what: impl Into<String>) -> Self {
        Self::Fail(Failure::UnexpectedReply(what.into()))
    }

    fn refusal(
        code: impl Into<String>,
        message: impl Into<String>,
        retry_after_ms: Option<u64>,
        credential_rejected: bool,
    ) -> Self {
        Self::Fail(Failure::Refused(Refusal {
            code: code.into(),
            message: message.into(),
            retry_after_ms,
            credential_rejected,
        }))
    }
}

/// What an action came to: its output, and one line for the trace.
#[derive(Debug)]
pub struct Done<O> {
    pub output: O,
    pub summary: String,
}

impl<O> Done<O> {
    pub fn new(output: O, summary: impl Into<String>) -> Self {
        Self {
            output,
            summary: summary.into(),
        }
    }
}

/// One call. The function of an action runs from its start each time a reply has come, and is given again the
/// replies that it had: so [`Call::send`] reads like a call that waits.
#[derive(Debug)]
pub struct Call {
    action: String,
    settings: Value,
    replies: VecDeque<Reply>,
    idempotency_key: String,
    now_ms: u64,
}

impl Call {
    pub(crate) fn new(
        action: String,
        settings: Value,
        replies: VecDeque<Reply>,
        idempotency_key: String,
        now_ms: u64,
    ) -> Self {
        Self {
            action,
            settings,
            replies,
            idempotency_key,
            now_ms,
        }
    }

    /// The action's name.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// Has the request carried out and gives its reply.
    pub fn send(&mut self, request: Request) -> Result<Reply, Stop> {
        match self.replies.pop_front() {
            Some(reply) => Ok(reply),
            None => Err(Stop::Perform(Box::new(request.into_wit()?))),
        }
    }

    /// The tenant's settings for the skill, which pass the skill's schema.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, Stop> {
        serde_json::from_value(self.settings.clone())
            .map_err(|e| Stop::invalid("", format!("the skill's settings cannot be used: {e}")))
    }

    /// A setting that is a text.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// Where the service is: the setting `base_url`, or this one, without a slash at its end.
    pub fn base_url(&self, default: &str) -> String {
        self.setting("base_url")
            .unwrap_or(default)
            .trim_end_matches('/')
            .to_owned()
    }

    /// The same for every retry of this call: for services that drop a repeated request.
    pub fn idempotency_key(&self) -> &str {
        &self.idempotency_key
    }

    /// When the call was made, in milliseconds since 1970-01-01T00:00:00Z. It stays the same while it is retried.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }
}

/// What the gateway is told.
pub(crate) fn to_step<O: Serialize>(done: Result<Done<O>, Stop>) -> Result<Step, Failure> {
    match done {
        Ok(done) => {
            let output = serde_json::to_string(&done.output).map_err(|e| {
                Failure::UnexpectedReply(format!("the output cannot be written as JSON: {e}"))
            })?;
            Ok(Step::Finish(Outcome {
                output,
                summary: done.summary,
            }))
        }
        Err(Stop::Perform(request)) => Ok(Step::Perform(*request)),
        Err(Stop::Fail(failure)) => Err(failure),
    }
}

/// A request's text without its credentials, for tests and messages: `Bearer {bot_token}`.
pub(crate) fn shown(parts: &[Part]) -> String {
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Part::Credential(key) => format!("{{{key}}}"),
            Part::Basic(_) => "{basic}".to_owned(),
        })
        .collect()
}

pub(crate) fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
    }
}
