//! The bridge's methods (`plugins/openclaw-bridge`), typed.

use crate::{CallError, Client};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

/// What a call may take beyond the request's own time-out: the way there and back, and the journal.
const MARGIN: Duration = Duration::from_secs(10);
const STATUS_DEADLINE: Duration = Duration::from_secs(10);

/// A request to carry out once. Credentials stand in `request` already; `digest` is over the request with
/// references in their place.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteRequest {
    pub call_id: String,
    /// SHA-256 in hexadecimal.
    pub digest: String,
    /// Sent before, perhaps by a process that is gone.
    pub resend: bool,
    /// The journal that it was first sent to.
    pub journal_id: Option<String>,
    /// Perform it though an earlier attempt's outcome is unknown.
    pub retry_unknown: bool,
    pub timeout_ms: u64,
    pub max_response_bytes: u64,
    /// `allow` or `refuse` addresses that are not on the public internet.
    pub private_network: &'static str,
    /// Values that must not come back.
    pub secrets: Vec<Zeroizing<String>>,
    pub request: HttpRequest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    pub method: &'static str,
    pub url: Zeroizing<String>,
    pub headers: Vec<(String, Zeroizing<String>)>,
    pub body_base64: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for ExecuteRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExecuteRequest({})", self.call_id)
    }
}

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteReply {
    pub journal_id: String,
    /// The first answer to a call that was sent again.
    pub replayed: bool,
    pub reply: HttpReply,
    pub duration_ms: u64,
}

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
pub struct HttpReply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body_base64: String,
    pub truncated: bool,
    pub digest: String,
}

impl HttpReply {
    pub fn body(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.body_base64).unwrap_or_default()
    }
}

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// It did not happen; sending the same again is safe, later.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The instance cannot be reached, or did not answer; sending the same again is safe, the journal decides.
    #[error("the instance did not answer: {0}")]
    Unreachable(String),
    /// It may have happened, and cannot be found out from here.
    #[error("whether the request was carried out is unknown: {0}")]
    OutcomeUnknown(String),
    /// Trying the same again will not help.
    #[error("the instance refused: {0}")]
    Refused(String),
}

#[derive(Deserialize, Debug, Clone)]
#[serde(rename_all = "camelCase")]
pub struct BridgeStatus {
    pub bridge_version: String,
    pub journal_id: String,
    pub boot_id: String,
    pub in_flight: u32,
    pub journal_entries: u64,
}

impl Client {
    /// Has the instance carry out a request, once.
    pub async fn execute(&self, request: &ExecuteRequest) -> Result<ExecuteReply, ExecuteError> {
        let deadline = Duration::from_millis(request.timeout_ms) + MARGIN;
        let answer = self.call("servicetsunami.execute", request, deadline).await.map_err(explain)?;
        serde_json::from_value(answer).map_err(|e| ExecuteError::Refused(format!("its answer is not the bridge's: {e}")))
    }

    pub async fn bridge_status(&self) -> Result<BridgeStatus, CallError> {
        let answer = self.call("servicetsunami.status", serde_json::json!({}), STATUS_DEADLINE).await?;
        serde_json::from_value(answer).map_err(|_| CallError::NotConnected("the bridge answers in another version".into()))
    }
}

fn explain(error: CallError) -> ExecuteError {
    match error {
        CallError::Refused(refused) => match refused.details_code.as_str() {
            "NOT_SENT" | "BUSY" => ExecuteError::NotSent(refused.message),
            "OUTCOME_UNKNOWN" | "REPLY_NOT_KEPT" => ExecuteError::OutcomeUnknown(refused.message),
            _ if refused.retryable => ExecuteError::Unreachable(refused.message),
            code => ExecuteError::Refused(format!("{} {code}: {}", refused.code, refused.message)),
        },
        CallError::Unwritable => ExecuteError::Refused(error.to_string()),
        other => ExecuteError::Unreachable(other.to_string()),
    }
}
