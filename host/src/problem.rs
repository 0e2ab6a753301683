//! What a client is told when something is wrong: RFC 9457 problem details, with a stable `code` to
//! branch on, a `detail` that says what to do, and the `request_id` to quote.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;
use tsunami_plugin_host::is_unprintable;

tokio::task_local! {
    /// The id of the request being served; the outermost layer sets it.
    pub static REQUEST_ID: String;
}

/// A refusal or failure, as it goes out.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<Violation>,
    retry_after: Option<Duration>,
    extra: serde_json::Map<String, serde_json::Value>,
}

/// One thing wrong with the request, and where: a JSON Pointer (RFC 6901) into the body, or the name
/// of a parameter.
#[derive(Debug, Clone, Serialize, serde::Deserialize, utoipa::ToSchema, PartialEq)]
pub struct Violation {
    pub pointer: String,
    pub message: String,
}

/// The body, as the OpenAPI document describes it.
#[derive(Serialize, serde::Deserialize, Debug, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `about:blank`: nothing is to be had of it beyond the status. `code` says which problem it is.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    pub status: u16,
    /// Stable; branch on this.
    pub code: String,
    /// For people: what is wrong and what to do next.
    pub detail: String,
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// What else the code carries: the id of an operation that goes on, say.
    #[serde(default, flatten)]
    #[schema(ignore)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// The media type of every refusal.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How long a client should wait where we cannot know better.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            extra: serde_json::Map::new(),
        }
    }
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }
    /// For what is not there, and for what the caller may not know of: the two look alike.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!(
                "There is no such {what}. Check the id, and that the API key belongs to the right tenant."
            ),
        )
    }
    pub fn unavailable(what: &str, retry_after: Duration) -> Self {
        Self::not_now(&format!("{what} cannot be reached right now"), retry_after)
    }
    /// 503 for what goes at another moment; `why` is a sentence without its full stop.
    pub fn not_now(why: &str, retry_after: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            format!(
                "{why}. Nothing was lost; send the request again after the time in Retry-After."
            ),
        )
        .with_retry_after(retry_after)
    }
    /// A mistake of ours. The cause goes to the log under the request id, not to the client.
    pub fn internal(cause: &(dyn std::fmt::Display + '_)) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong on our side. Quote the request_id to the operator of this gateway.",
        )
    }
    /// 422 for one field of the body; `message` completes the sentence "the field ...".
    pub fn invalid_field(pointer: &str, message: &str) -> Self {
        Self::unprocessable("invalid_body", format!("{pointer} {message}.")).with_errors(vec![
            Violation {
                pointer: pointer.to_owned(),
                message: message.to_owned(),
            },
        ])
    }
    /// 422 unless `name` is a line (see [`Problem::check_line`]) without a key's prefix in it. Wherever a name is shown as
    /// who did something, the prefix of their key follows it; and a key pasted for a name would be shown to everybody.
    pub fn check_name(pointer: &str, name: &str, min: usize, max: usize) -> Result<(), Self> {
        Self::check_line(pointer, name, min, max)?;
        if keys_in(name) {
            let message = "has the prefix of a key in it (`tsk_` or `tso_`); leave that out: it is shown beside the name";
            return Err(Self::invalid_field(pointer, message));
        }
        Ok(())
    }
    /// 422 unless `text` has `min` to `max` characters, stands in one line, and shows as what it is.
    pub fn check_line(pointer: &str, text: &str, min: usize, max: usize) -> Result<(), Self> {
        Self::check_length(pointer, text, min, max)?;
        match text.chars().find(|c| c.is_control() || is_unprintable(*c)) {
            Some(c) => Err(Self::unprintable(pointer, c, "it must be one line of text")),
            None => Self::check_shows(pointer, text, min),
        }
    }
    fn check_shows(pointer: &str, text: &str, min: usize) -> Result<(), Self> {
        if min > 0 && text.chars().all(is_blank) {
            return Err(Self::invalid_field(pointer, "has no character that shows"));
        }
        Ok(())
    }
    /// 422 unless `text` has `min` to `max` characters, in any number of lines, and shows as what it is.
    pub fn check_text(pointer: &str, text: &str, min: usize, max: usize) -> Result<(), Self> {
        Self::check_length(pointer, text, min, max)?;
        match text.chars().find(|c| is_unprintable(*c)) {
            Some(c) => Err(Self::unprintable(
                pointer,
                c,
                "it must be text; of control characters it may have line feeds and tabs",
            )),
            None => Self::check_shows(pointer, text, min),
        }
    }
    fn unprintable(pointer: &str, c: char, wanted: &str) -> Self {
        let message = format!(
            "has the character U+{:04X}, which breaks the line, reorders it or is not shown; {wanted}",
            u32::from(c)
        );
        Self::invalid_field(pointer, &message)
    }
    fn check_length(pointer: &str, text: &str, min: usize, max: usize) -> Result<(), Self> {
        let chars = text.chars().count();
        if (min..=max).contains(&chars) {
            return Ok(());
        }
        Err(Self::invalid_field(
            pointer,
            &format!("has {chars} characters; it must have {min} to {max}"),
        ))
    }
    pub fn with_errors(mut self, errors: Vec<Violation>) -> Self {
        self.errors = errors;
        self
    }
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.extra.insert(name.to_owned(), value);
        self
    }
    pub fn code(&self) -> &'static str {
        self.code
    }
    pub fn detail(&self) -> &str {
        &self.detail
    }
    pub fn status(&self) -> StatusCode {
        self.status
    }
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
    /// Whether the same request may work later without being changed.
    pub fn is_unavailable(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Whether it shows as nothing: white space, or ignorable by default (Unicode, `Default_Ignorable_Code_Point`).
fn is_blank(c: char) -> bool {
    let is_ignorable = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}');
    // A pattern of Braille without a dot is no white space, and shows none.
    c.is_whitespace() || is_ignorable || c == '\u{2800}'
}

/// A name as a part of a JSON Pointer (RFC 6901).
pub fn pointer_part(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Whether the prefix of a key begins somewhere: not in the middle of a word.
fn keys_in(name: &str) -> bool {
    let name = name.to_lowercase();
    ["tsk_", "tso_"].iter().any(|tag| {
        name.match_indices(tag)
            .any(|(at, _)| !name[..at].ends_with(char::is_alphanumeric))
    })
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            r#type: "about:blank".to_owned(),
            title: self
                .status
                .canonical_reason()
                .unwrap_or_default()
                .to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            request_id: REQUEST_ID.try_with(Clone::clone).unwrap_or_default(),
            errors: self.errors,
            extra: self.extra,
        };
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, text).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if crate::db::is_unavailable(&error) {
            tracing::warn!(%error, "the database cannot be reached");
            return Self::unavailable("The database", RETRY_AFTER_DEFAULT);
        }
        if crate::db::is_rolled_back(&error) {
            tracing::warn!(%error, "two transactions met");
            let why = "Another request was changing the same things, and this one was taken back";
            return Self::not_now(why, Duration::from_secs(1));
        }
        if crate::db::is_timed_out(&error) {
            tracing::warn!(%error, "the database took too long");
            let what = "What this request needs of the database, within its time,";
            return Self::unavailable(what, RETRY_AFTER_DEFAULT);
        }
        Self::internal(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_shows_as_what_it_is() {
        for text in [
            "a\nb",
            "a\tb",
            "a\rb",
            "\u{1b}[2J",
            "\u{202e}cod",
            "a\u{2028}b",
            "\u{7f}",
        ] {
            assert!(
                Problem::check_line("/name", text, 1, 200).is_err(),
                "{text:?}"
            );
        }
        assert!(Problem::check_line("/name", "Zoë — 東京 (night) 🌙", 1, 200).is_ok());
        for text in ["", " ", "\u{200b}", "\u{3164}\u{2800}\u{fe0f}", "\u{e0020}"] {
            assert!(
                Problem::check_line("/name", text, 1, 200).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_text_may_have_lines_and_nothing_else_that_is_not_shown() {
        assert!(Problem::check_text("/note", "one\n\ttwo", 0, 200).is_ok());
        for text in ["a\rb", "\u{1b}[2J", "\u{2066}", "\0"] {
            assert!(
                Problem::check_text("/note", text, 0, 200).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_name_pretends_no_key() {
        for name in [
            "Ada (tsk_0123456789ab)",
            "TSO_0123",
            "x（tsk_1",
            "tsk_1_secret",
        ] {
            assert!(
                Problem::check_name("/name", name, 1, 200).is_err(),
                "{name}"
            );
        }
        assert!(Problem::check_name("/name", "Ada (night shift), jetsk_i", 1, 200).is_ok());
    }

    #[tokio::test]
    async fn a_problem_without_a_page_of_its_own_is_named_after_its_status() {
        let response = Problem::conflict("name_taken", "Choose another name.").into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await;
        let body: ProblemBody = serde_json::from_slice(&bytes.unwrap()).unwrap();
        assert_eq!(
            (
                body.r#type.as_str(),
                body.title.as_str(),
                body.code.as_str()
            ),
            ("about:blank", "Conflict", "name_taken")
        );
    }
}
