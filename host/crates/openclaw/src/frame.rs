//! Frames of the gateway protocol, version 4: JSON text, one object a message.
//!
//! `{"type":"req","id","method","params"}` to the gateway; `{"type":"res","id","ok","payload"|"error"}`
//! and `{"type":"event","event","payload"}` from it.

use std::{borrow::Cow, fmt, io::Write, ops::Range, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    error::{CallError, Refusal},
    secret_buffer::SecretBuffer,
};

/// The gateway closes a connection over a larger frame, and with it every call on it.
pub const MAX_PAYLOAD_BYTES: usize = 25 * 1024 * 1024;

/// Room for a frame without large values, so that common calls allocate once.
const COMMON_FRAME_BYTES: usize = 1024;

/// A request frame. `size_hint` is about how many bytes the parameters take.
pub(crate) fn request(
    id: u64,
    method: &str,
    params: &(impl Serialize + ?Sized),
    size_hint: usize,
) -> Result<SecretBuffer, serde_json::Error> {
    let mut frame = SecretBuffer::with_capacity(COMMON_FRAME_BYTES + size_hint);
    let io = serde_json::Error::io;
    write!(frame, r#"{{"type":"req","id":"{id}","method":"#).map_err(io)?;
    serde_json::to_writer(&mut frame, method)?;
    frame.write_all(br#","params":"#).map_err(io)?;
    serde_json::to_writer(&mut frame, params)?;
    frame.write_all(b"}").map_err(io)?;
    Ok(frame)
}

/// What an incoming frame is, as far as the connection needs to know it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    Answer(u64),
    Event(Cow<'a, str>),
    /// Nothing that we asked for, or not a frame at all.
    Other,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    event: Option<Cow<'a, str>>,
}

/// Answers can be large, so their id is read from the front, where the gateway puts it, and the rest is
/// left to the task that waits for it. Any other order of fields costs a full read, nothing else.
pub(crate) fn kind(text: &str) -> Kind<'_> {
    if let Some(id) = id_at_the_front(text) {
        return Kind::Answer(id);
    }
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else {
        return Kind::Other;
    };
    match (envelope.kind.as_ref(), envelope.id, envelope.event) {
        ("res", Some(id), _) => id.parse().map_or(Kind::Other, Kind::Answer),
        ("event", _, Some(event)) => Kind::Event(event),
        _ => Kind::Other,
    }
}

fn id_at_the_front(text: &str) -> Option<u64> {
    let (id, _) = text
        .strip_prefix(r#"{"type":"res","id":""#)?
        .split_once('"')?;
    id.parse().ok()
}

#[derive(Deserialize)]
struct Response<'a> {
    ok: bool,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<WireError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireError {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<Box<RawValue>>,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct DetailsCode {
    code: String,
}

/// The payload of a successful answer, within the text that arrived: nothing of it is copied.
pub struct Answer {
    text: Utf8Bytes,
    payload: Range<usize>,
}

impl Answer {
    /// Reads a `res` frame; an answer of `ok: false` is `CallError::Refused`.
    pub(crate) fn read(text: Utf8Bytes) -> Result<Self, CallError> {
        let response: Response<'_> = serde_json::from_str(&text)
            .map_err(|error| CallError::protocol("an answer", &error))?;
        if !response.ok {
            return Err(CallError::Refused(Box::new(refusal(response.error))));
        }
        let payload = response
            .payload
            .map_or(0..0, |payload| place_of(payload.get(), &text));
        Ok(Self { text, payload })
    }

    /// The payload as JSON text; `null` if there was none.
    #[must_use]
    pub fn json(&self) -> &str {
        if self.payload.is_empty() {
            "null"
        } else {
            &self.text[self.payload.clone()]
        }
    }

    /// The payload as a type of the caller's, which may borrow from the answer.
    ///
    /// # Errors
    /// `CallError::Protocol` if it has another shape; the text says where, and nothing of the payload.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CallError> {
        serde_json::from_str(self.json())
            .map_err(|error| CallError::protocol("an answer's payload", &error))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// Where `part`, which was borrowed from `whole`, stands in it.
fn place_of(part: &str, whole: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

fn refusal(error: Option<WireError>) -> Refusal {
    let Some(error) = error else {
        return Refusal {
            code: "UNKNOWN".into(),
            details_code: None,
            message: "the gateway gave no reason".into(),
            retryable: false,
            retry_after: None,
            details: None,
        };
    };
    let details_code = error
        .details
        .as_deref()
        .and_then(|details| serde_json::from_str::<DetailsCode>(details.get()).ok());
    Refusal {
        code: error.code,
        details_code: details_code.map(|details| details.code),
        message: error.message,
        retryable: error.retryable,
        retry_after: error.retry_after_ms.map(Duration::from_millis),
        details: error.details,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_request_is_one_object_with_the_fields_of_the_protocol() {
        let frame = request(7, "a \"method\"", &json!({"a": [1, "ü"]}), 0).unwrap();
        let frame: Value = serde_json::from_slice(frame.as_ref()).unwrap();
        assert_eq!(
            frame,
            json!({"type": "req", "id": "7", "method": "a \"method\"", "params": {"a": [1, "ü"]}})
        );
    }

    #[test]
    fn an_answer_is_recognized_in_any_order_of_its_fields() {
        assert_eq!(
            kind(r#"{"type":"res","id":"12","ok":true}"#),
            Kind::Answer(12)
        );
        assert_eq!(
            kind(r#"{ "ok":true, "id":"12", "type":"res"}"#),
            Kind::Answer(12)
        );
    }

    #[test]
    fn events_and_what_nobody_asked_for_are_told_apart() {
        assert_eq!(
            kind(r#"{"type":"event","event":"tick","payload":{"ts":1}}"#),
            Kind::Event("tick".into())
        );
        for text in [
            r#"{"type":"res","id":"not ours"}"#,
            r#"{"type":"res","id":12}"#,
            r#"{"type":"news"}"#,
            "[]",
            "hello",
            "",
        ] {
            assert_eq!(kind(text), Kind::Other, "{text}");
        }
    }

    #[test]
    fn a_payload_is_read_in_place() {
        let answer =
            Answer::read(r#"{"type":"res","id":"1","ok":true,"payload": {"a":"ü"} }"#.into())
                .unwrap();
        assert_eq!(answer.json(), r#"{"a":"ü"}"#);
        assert_eq!(answer.parse::<Value>().unwrap(), json!({"a": "ü"}));
    }

    #[test]
    fn an_answer_without_a_payload_is_null() {
        let answer = Answer::read(r#"{"type":"res","id":"1","ok":true}"#.into()).unwrap();
        assert_eq!(answer.parse::<Option<u8>>().unwrap(), None);
    }

    #[test]
    fn a_refusal_keeps_both_codes_and_the_time_to_wait() {
        let text = r#"{"type":"res","id":"1","ok":false,"error":{"code":"UNAVAILABLE","message":"busy","retryable":true,"retryAfterMs":250,"details":{"code":"TOO_MANY","n":64}}}"#;
        let Err(CallError::Refused(refusal)) = Answer::read(text.into()) else {
            panic!("not refused")
        };
        assert_eq!(
            (refusal.code.as_str(), refusal.details_code.as_deref()),
            ("UNAVAILABLE", Some("TOO_MANY"))
        );
        assert!(refusal.retryable);
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(250)));
        assert_eq!(
            refusal.details.unwrap().get(),
            r#"{"code":"TOO_MANY","n":64}"#
        );
    }

    #[test]
    fn an_error_about_a_payload_shows_nothing_of_it() {
        let answer =
            Answer::read(r#"{"type":"res","id":"1","ok":true,"payload":{"a":"canary"}}"#.into())
                .unwrap();
        #[derive(Debug, Deserialize)]
        struct Numbers {
            #[expect(dead_code, reason = "only its type matters here")]
            a: u8,
        }
        let error = answer.parse::<Numbers>().unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
