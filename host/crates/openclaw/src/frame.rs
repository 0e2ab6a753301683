//! Frames of protocol 4.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize)]
pub struct Request<'a, P> {
    r#type: &'static str,
    id: &'a str,
    method: &'a str,
    params: P,
}

impl<'a, P: Serialize> Request<'a, P> {
    pub fn new(id: &'a str, method: &'a str, params: P) -> Self {
        Self { r#type: "req", id, method, params }
    }
}

#[derive(Deserialize, Debug)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Incoming {
    Res(Response),
    Event(Event),
    #[serde(other)]
    Other,
}

#[derive(Deserialize, Debug)]
pub struct Response {
    pub id: String,
    pub ok: bool,
    #[serde(default)]
    pub payload: Value,
    #[serde(default)]
    pub error: Option<GatewayError>,
}

#[derive(Deserialize, Debug)]
pub struct Event {
    pub event: String,
    #[serde(default)]
    pub payload: Value,
}

/// How the gateway refuses.
#[derive(Deserialize, Debug, Clone, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayError {
    pub code: String,
    pub message: String,
    pub details: Value,
    pub retryable: bool,
    pub retry_after_ms: Option<u64>,
}

impl GatewayError {
    pub fn details_code(&self) -> &str {
        self.details.get("code").and_then(Value::as_str).unwrap_or_default()
    }
}
