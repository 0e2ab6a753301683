//! What the service answered.

use crate::{call::Stop, wit::exports::servicetsunami::plugin::skill_adapter::Reply as WitReply};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Characters of a strange body that an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

#[derive(Clone, Debug)]
pub struct Reply(WitReply);

impl From<WitReply> for Reply {
    fn from(reply: WitReply) -> Self {
        Self(reply)
    }
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.0.status
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.0.status)
    }

    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// `Retry-After` in seconds (RFC 9110, 10.2.3), as milliseconds.
    pub fn retry_after_ms(&self) -> Option<u64> {
        let seconds: u64 = self.header("retry-after")?.trim().parse().ok()?;
        Some(seconds.saturating_mul(1000))
    }

    /// The body as JSON; null where it is empty.
    pub fn json(&self) -> Result<Value, Stop> {
        if self.0.body.is_empty() {
            return Ok(Value::Null);
        }
        self.parse()
    }

    /// The body as JSON of this form.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Stop> {
        serde_json::from_slice(&self.0.body).map_err(|error| {
            let text: String = String::from_utf8_lossy(&self.0.body)
                .chars()
                .take(SHOWN_CHARS_MAX)
                .collect();
            Stop::unexpected(format!(
                "status {} with a body that cannot be read ({error}): {text}",
                self.0.status
            ))
        })
    }
}
