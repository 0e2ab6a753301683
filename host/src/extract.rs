//! Axum's extractors, with refusals that a client can act on: every one is a [`Problem`].

use crate::{
    json::{self, Strict},
    pace::TooSlow,
    problem::{Problem, Violation, pointer_part},
};
use axum::{
    body::HttpBody,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::LengthLimitError;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::{error::Error, iter::successors};

/// The largest JSON body of an ordinary request, in bytes. (A plugin's file has its own limit.)
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// A JSON body, in and out.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        JsonWithDigest::read(request)
            .await
            .map(|body| Self(body.value))
    }
}

/// A JSON body together with what an Idempotency-Key binds to: the SHA-256 of its canonical form.
#[derive(Debug)]
pub struct JsonWithDigest<T> {
    pub value: T,
    pub sha256: [u8; 32],
}

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for JsonWithDigest<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Self::read(request).await
    }
}

impl<T: DeserializeOwned + Send + 'static> JsonWithDigest<T> {
    async fn read(request: Request) -> Result<Self, Problem> {
        must_be_json(request.headers())?;
        let bytes = read_body(request, BODY_BYTES_MAX).await?;
        json::worked_on(bytes.len(), move || Self::parse(&bytes))
            .await
            .map_err(|error| Problem::internal(&error))?
    }

    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if std::str::from_utf8(bytes).is_err() {
            return Err(Problem::bad_request(
                "invalid_json",
                "The body is not UTF-8. Send JSON text encoded as UTF-8.",
            ));
        }
        let json = json::read(bytes).map_err(|e| {
            Problem::bad_request(
                "invalid_json",
                format!(
                    "The body is not JSON that can be taken: {e}. Check it with a JSON parser and send it again."
                ),
            )
        })?;
        if let Some(pointer) = find_nul(&json) {
            return Err(invalid_body(
                pointer,
                "must not contain the character U+0000".to_owned(),
            ));
        }
        let sha256 = Sha256::digest(json.to_string()).into();
        let value = serde_path_to_error::deserialize(Strict(json)).map_err(|e| {
            let pointer = to_pointer(e.path());
            invalid_body(pointer, without_value(&e.into_inner().to_string()))
        })?;
        Ok(Self { value, sha256 })
    }
}

/// What an Idempotency-Key binds to where the path names a thing too: the same body for another is another request.
pub fn bound_to(id: uuid::Uuid, body_sha256: &[u8; 32]) -> [u8; 32] {
    let bound = Sha256::new().chain_update(id.as_bytes());
    bound.chain_update(body_sha256).finalize().into()
}

/// Serde repeats a text of the wrong kind; it may be a credential in the wrong place.
fn without_value(message: &str) -> String {
    for (before, after) in [
        ("string \"", "\", expected"),
        ("unknown variant `", "`, expected"),
    ] {
        if let Some((start, end)) = message.find(before).zip(message.rfind(after))
            && start < end
        {
            let kind = before.trim_end_matches(['"', '`', ' ']);
            return format!("{}{kind}{}", &message[..start], &message[end + 1..]);
        }
    }
    message.to_owned()
}

fn invalid_body(pointer: String, message: String) -> Problem {
    let place = if pointer.is_empty() {
        "The body".to_owned()
    } else {
        format!("The body at {pointer}")
    };
    Problem::unprocessable(
        "invalid_body",
        format!("{place} is not what this operation takes: {message}. /openapi.json describes it."),
    )
    .with_errors(vec![Violation { pointer, message }])
}

/// An error, and what lies behind it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// A header that means one thing: of several, whoever stands between could have read another than we do.
///
/// # Errors
/// 400 where it came more than once.
pub fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Problem::bad_request(
            "repeated_header",
            format!("The header `{name}` came more than once. Send it once."),
        )),
    }
}

/// Reads at most `max` bytes, whatever Content-Length says; nothing where that says more.
pub async fn read_body(request: Request, max: usize) -> Result<axum::body::Bytes, Problem> {
    must_be_plain(request.headers())?;
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!(
                "The body is larger than the {max} bytes that this operation takes. Send less."
            ),
        )
    };
    let body = request.into_body();
    if usize::try_from(body.size_hint().lower()).map_or(true, |bytes| bytes > max) {
        return Err(too_large());
    }
    axum::body::to_bytes(body, max).await.map_err(|error| {
        if causes(&error).any(|error| error.is::<TooSlow>()) {
            return Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                "The body came too slowly, and nothing was done. Send it at once, over a faster connection, or send less.",
            );
        }
        if causes(&error).any(|error| error.is::<LengthLimitError>()) {
            return too_large();
        }
        Problem::bad_request(
            "body_cut_off",
            "The body was cut off, or is not of the form that its headers say; nothing was done. Send it whole.",
        )
    })
}

fn must_be_plain(headers: &HeaderMap) -> Result<(), Problem> {
    let lists = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut encodings = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    let is_none = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    if encodings.all(|coding| is_none(coding.trim_ascii())) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_content_encoding",
        "Bodies are taken as they are. Send this one without compression, and without the header `Content-Encoding`.",
    ))
}

/// Whether the body is JSON, as its header says.
///
/// # Errors
/// 400 where it says so twice.
pub fn is_json(headers: &HeaderMap) -> Result<bool, Problem> {
    let content_type = only(headers, header::CONTENT_TYPE.as_str())?
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_suffixed = essence.starts_with("application/") && essence.ends_with("+json");
    Ok(essence == "application/json" || is_suffixed)
}

fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    if is_json(headers)? {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "Send the body as JSON, with the header `Content-Type: application/json`.",
    ))
}

/// PostgreSQL stores no U+0000, neither in `text` nor in `jsonb`.
fn find_nul(json: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    match json {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(i, item)| find_nul(item).map(|rest| format!("/{i}{rest}"))),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            if name.contains('\0') {
                return Some(String::new());
            }
            find_nul(value).map(|rest| format!("/{}{rest}", pointer_part(name)))
        }),
        _ => None,
    }
}

fn to_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", pointer_part(key)),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// Path parameters. An id that is none of ours is not there: 404, whatever is wrong with it.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Path(value) = axum::extract::Path::from_request_parts(parts, state).await.map_err(|e| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("There is nothing at this path: {}. Ids are UUIDs; names hold no control characters.", e.body_text()),
            )
        })?;
        if parts.uri.path().contains("%00") {
            return Err(Problem::not_found("thing"));
        }
        Ok(Self(value))
    }
}

/// Query parameters; an unknown one is refused, so that a typing mistake does not widen a list.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Problem::bad_request(
                "invalid_query",
                "A query parameter holds the character U+0000; leave it out.",
            ));
        }
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|e| {
                Problem::bad_request(
                    "invalid_query",
                    format!("{}. /openapi.json lists the parameters.", e.body_text()),
                )
            })
    }
}

/// The `Idempotency-Key` header: repeats of a request that bear the same key have one effect.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

/// The longest key, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 200;

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = only(&parts.headers, "idempotency-key")? else {
            return Ok(Self(None));
        };
        let key = value.to_str().unwrap_or_default().trim();
        if key.is_empty()
            || key.len() > IDEMPOTENCY_KEY_CHARS_MAX
            || key.chars().any(|c| c.is_control())
        {
            return Err(Problem::bad_request(
                "invalid_idempotency_key",
                format!(
                    "Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters; a UUID serves well."
                ),
            ));
        }
        Ok(Self(Some(key.to_owned())))
    }
}

/// `If-Match` of an update: the version that the client has seen.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub Option<i32>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = only(&parts.headers, header::IF_MATCH.as_str())? else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        let digits = quoted.filter(|tag| tag.bytes().all(|byte| byte.is_ascii_digit()));
        let version = digits.and_then(|version| version.parse().ok());
        version.map(|version| Self(Some(version))).ok_or_else(|| {
            Problem::bad_request(
                "invalid_if_match",
                "If-Match must be the ETag that the last answer carried, quotes included.",
            )
        })
    }
}

/// The `ETag` of a thing with a version.
pub fn etag(version: i32) -> (header::HeaderName, String) {
    (header::ETAG, format!("\"{version}\""))
}

/// Moments as requests name them: RFC 3339, kept in UTC. Where the offset takes one out of the years that there are, as
/// with `9999-12-31T23:59:59-01:00`, it is refused: nothing could work with it.
pub mod moment {
    use serde::{Deserializer, de::Error};
    use time::{OffsetDateTime, UtcOffset};

    /// # Errors
    /// It is no moment.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OffsetDateTime, D::Error> {
        in_utc(time::serde::rfc3339::deserialize(from)?)
    }

    fn in_utc<E: Error>(moment: OffsetDateTime) -> Result<OffsetDateTime, E> {
        moment.checked_to_offset(UtcOffset::UTC).ok_or_else(|| {
            E::custom("the moment is out of range: in UTC its year has to be 9999 or before")
        })
    }

    /// The same, where there may be none.
    pub mod option {
        use super::{Deserializer, OffsetDateTime, in_utc};

        /// # Errors
        /// It is no moment.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<OffsetDateTime>, D::Error> {
            let moment = time::serde::rfc3339::option::deserialize(from)?;
            moment.map(in_utc).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nul_is_found_wherever_it_hides() {
        assert_eq!(
            find_nul(&json!({"a": ["x", {"b/c": "\0"}]})),
            Some("/a/1/b~1c".into())
        );
        assert_eq!(find_nul(&json!({"a\0": 1})), Some(String::new()));
        assert_eq!(find_nul(&json!({"a": [1, true, null, "fine"]})), None);
    }

    #[derive(Debug, serde::Deserialize)]
    struct Named {
        name: String,
    }

    /// The length of the name that is read, or the status and code of the refusal.
    async fn named(body: String) -> Result<usize, (u16, &'static str)> {
        let request = Request::post("/")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into());
        let read = Json::<Named>::from_request(request.unwrap(), &()).await;
        read.map(|Json(named)| named.name.len())
            .map_err(|told| (told.status().as_u16(), told.code()))
    }

    #[tokio::test]
    async fn a_body_is_one_object_of_so_many_values_whose_names_stand_once() {
        assert_eq!(named(r#"{"name":"Ada"}"#.to_owned()).await, Ok(3));
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 19));
        assert_eq!(named(long).await, Ok(1 << 19), "on another thread");
        assert_eq!(
            named(r#"["Ada"]"#.to_owned()).await,
            Err((422, "invalid_body"))
        );
        let twice = r#"{"name":"Ada","name":"Bob"}"#.to_owned();
        assert_eq!(named(twice).await, Err((400, "invalid_json")));
        let many = format!(r#"{{"name":"Ada","more":[0{}]}}"#, ",0".repeat(500_000 - 1));
        assert_eq!(named(many).await, Err((400, "invalid_json")));
    }
}
