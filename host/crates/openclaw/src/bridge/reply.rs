//! What the bridge answers.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteReply {
    /// The call's id.
    pub call_id: String,
    /// The journal that remembers it. To be given when the call is sent again.
    pub journal_id: String,
    /// Whether another sending of this call performed it.
    pub replayed: bool,
    /// The service's answer, masked.
    pub reply: HttpReply,
    /// Of the exchange, with the journal. Zero when it comes from the journal.
    #[serde(rename = "durationMs", deserialize_with = "from_milliseconds")]
    pub duration: Duration,
}

/// A service's answer, masked. Redirects are answers.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// In order, as they came. Empty when the body was not kept.
    pub headers: Vec<(String, String)>,
    /// `None` if it was not kept in the journal: too large, too old, or a secret.
    #[serde(rename = "bodyBase64", deserialize_with = "from_base64")]
    pub body: Option<Vec<u8>>,
    /// Whether the body was larger than asked for, or in a coding that cannot be masked; it is empty then.
    pub truncated: bool,
    /// Of this reply: `sha256:` and hex.
    pub digest: String,
}

impl fmt::Debug for HttpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpReply")
            .field("status", &self.status)
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .field("truncated", &self.truncated)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

fn from_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    struct Base64;
    impl<'de> Visitor<'de> for Base64 {
        type Value = Option<Vec<u8>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64 or null")
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_str(self)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            STANDARD
                .decode(text)
                .map(Some)
                .map_err(|_| E::custom("not base64"))
        }
    }
    deserializer.deserialize_option(Base64)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_reply_is_read_with_its_body_and_without() {
        let reply = |body: Value| {
            json!({"callId": "c", "journalId": "j", "replayed": false, "durationMs": 12,
                   "reply": {"status": 201, "headers": [["a", "b"]], "bodyBase64": body, "truncated": false, "digest": "sha256:00"}})
        };
        let read = |body| serde_json::from_str::<ExecuteReply>(&reply(body).to_string());
        assert_eq!(read(json!("e30=")).unwrap().reply.body.unwrap(), b"{}");
        assert_eq!(read(Value::Null).unwrap().reply.body, None);
        assert_eq!(
            read(Value::Null).unwrap().duration,
            Duration::from_millis(12)
        );
        assert!(read(json!("e30")).is_err());
        assert!(read(json!(1)).is_err());
    }
}
