//! What the bridge is asked to do. Secrets are written straight into the frame, which is wiped.

use std::{fmt, time::Duration};

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{
    Serialize, Serializer,
    ser::{SerializeSeq, SerializeTuple},
};

/// One HTTP exchange to perform, at most once for its call id.
///
/// Credentials are in the request already; its `Debug` shows none of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteRequest {
    /// Unique for one intended effect: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    pub call_id: String,
    /// Whether this id may have been sent before.
    pub resend: bool,
    /// The journal that was seen when the call was first sent. With `resend`, a lost disk is noticed by it.
    pub journal_id: Option<String>,
    /// How long ago the call was first sent. With `resend`, a journal that forgot calls of that age is noticed by it.
    #[serde(rename = "sentAgoMs", serialize_with = "milliseconds")]
    pub sent_ago: Duration,
    /// Perform the call though an earlier attempt's outcome is unknown: for idempotent actions, or when a
    /// person said so.
    pub retry_unknown: bool,
    /// Of the request with credentials as references; the same id with another digest is refused.
    pub digest: String,
    /// For the exchange. At most 300 s.
    #[serde(rename = "timeoutMs", serialize_with = "milliseconds")]
    pub timeout: Duration,
    /// Of the reply's body; beyond it the body is withheld. At most 16 MiB.
    pub max_response_bytes: u32,
    /// Values to mask in whatever comes back, in any usual encoding.
    #[serde(serialize_with = "exposed_list")]
    pub secrets: Vec<SecretString>,
    /// Whether addresses off the public internet may be reached.
    pub private_network: PrivateNetwork,
    /// Whether the reply may be kept in the journal. Not if it is itself a secret, such as a new token.
    pub journal_reply: bool,
    /// What to send.
    pub request: HttpRequest,
}

/// Asks what became of a call, without having it performed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecallRequest {
    /// As it was sent.
    pub call_id: String,
    /// As it was sent.
    pub digest: String,
    /// As it was sent.
    pub journal_id: Option<String>,
    /// How long ago the call was first sent.
    #[serde(rename = "sentAgoMs", serialize_with = "milliseconds")]
    pub sent_ago: Duration,
}

/// Rule for addresses off the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PrivateNetwork {
    /// Nothing is sent to them.
    Refuse,
    /// They are services like any other.
    Allow,
}

/// An HTTP request with its credentials in place.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// `http://` or `https://`, without user and password.
    #[serde(serialize_with = "exposed")]
    pub url: SecretString,
    /// In order; a name may come twice. What belongs to the connection is the bridge's.
    #[serde(serialize_with = "exposed_headers")]
    pub headers: Vec<(String, SecretString)>,
    /// At most 8 MiB.
    #[serde(rename = "bodyBase64", serialize_with = "exposed_body")]
    pub body: Option<SecretSlice<u8>>,
}

impl fmt::Debug for ExecuteRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteRequest")
            .field("call_id", &self.call_id)
            .field("resend", &self.resend)
            .field("retry_unknown", &self.retry_unknown)
            .field("digest", &self.digest)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body_bytes = self.body.as_ref().map(|body| body.expose_secret().len());
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("body_bytes", &body_bytes)
            .finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// About how many bytes it takes as JSON, so that it is written into one buffer of the right size.
    pub(super) fn size_hint(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.expose_secret().len() + 8)
            .sum();
        let body = self
            .body
            .as_ref()
            .map_or(0, |body| body.expose_secret().len().div_ceil(3) * 4);
        self.url.expose_secret().len() + headers + body
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn exposed_list<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(ExposeSecret::expose_secret))
}

fn exposed_headers<S: Serializer>(
    headers: &[(String, SecretString)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    struct Pair<'a>(&'a str, &'a str);
    impl Serialize for Pair<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut pair = serializer.serialize_tuple(2)?;
            pair.serialize_element(self.0)?;
            pair.serialize_element(self.1)?;
            pair.end()
        }
    }
    let mut list = serializer.serialize_seq(Some(headers.len()))?;
    for (name, value) in headers {
        list.serialize_element(&Pair(name, value.expose_secret()))?;
    }
    list.end()
}

fn exposed_body<S: Serializer>(
    body: &Option<SecretSlice<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match body {
        Some(body) => serializer.collect_str(&Base64Display::new(body.expose_secret(), &STANDARD)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> ExecuteRequest {
        ExecuteRequest {
            call_id: "call-1".into(),
            resend: true,
            journal_id: Some("journal-1".into()),
            sent_ago: Duration::from_millis(1500),
            retry_unknown: false,
            digest: "sha256:00".into(),
            timeout: Duration::from_secs(30),
            max_response_bytes: 1024,
            secrets: vec!["canary-token".into()],
            private_network: PrivateNetwork::Refuse,
            journal_reply: true,
            request: HttpRequest {
                method: "POST".into(),
                url: "https://example.com/?key=canary-token".into(),
                headers: vec![("authorization".into(), "Bearer canary-token".into())],
                body: Some(b"{\"a\":\"\xff\"}".to_vec().into()),
            },
        }
    }

    #[test]
    fn a_request_has_the_form_that_the_bridge_reads() {
        assert_eq!(
            serde_json::to_value(request()).unwrap(),
            json!({
                "callId": "call-1",
                "resend": true,
                "journalId": "journal-1",
                "sentAgoMs": 1500,
                "retryUnknown": false,
                "digest": "sha256:00",
                "timeoutMs": 30_000,
                "maxResponseBytes": 1024,
                "secrets": ["canary-token"],
                "privateNetwork": "refuse",
                "journalReply": true,
                "request": {
                    "method": "POST",
                    "url": "https://example.com/?key=canary-token",
                    "headers": [["authorization", "Bearer canary-token"]],
                    "bodyBase64": base64::Engine::encode(&STANDARD, b"{\"a\":\"\xff\"}"),
                },
            })
        );
    }

    #[test]
    fn a_question_has_the_form_that_the_bridge_reads() {
        let recall = RecallRequest {
            call_id: "call-1".into(),
            digest: "sha256:00".into(),
            journal_id: None,
            sent_ago: Duration::from_secs(2),
        };
        assert_eq!(
            serde_json::to_value(recall).unwrap(),
            json!({ "callId": "call-1", "digest": "sha256:00", "journalId": null, "sentAgoMs": 2000 })
        );
    }

    #[test]
    fn debug_output_shows_no_credential() {
        let shown = format!("{:?}", request());
        assert!(shown.contains("call-1"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
