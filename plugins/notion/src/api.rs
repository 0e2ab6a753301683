//! How Notion is called, and what its answers mean.

use crate::{BASE_URL, TOKEN};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use servicetsunami_plugin::{Call, Method, Reply, Request, Stop};
use std::borrow::Cow;

/// The version that Notion's own client asks for.
const NOTION_VERSION: &str = "2025-09-03";
/// Waited where Notion asks to slow down without saying for how long, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 10_000;
/// Waited where Notion is out of order, in milliseconds.
const RETRY_AFTER_TROUBLE_MS: u64 = 15_000;
/// Waited where two changes met, in milliseconds.
const RETRY_AFTER_CONFLICT_MS: u64 = 2_000;

/// Pages, databases, data sources, blocks and people have one: with dashes, or as it stands in an address, without.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Id(String);

impl Id {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.chars().filter(|c| *c != '-').count();
        let is_plain = text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        if digits == 32 && is_plain && text.len() <= 36 {
            Ok(Self(text))
        } else {
            Err(format!(
                "`{text}` is no id: it has 32 digits, as at the end of a page's address"
            ))
        }
    }
}

impl JsonSchema for Id {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$" })
    }
}

/// A request to this path, a segment after the other.
pub fn at(call: &Call, method: Method, segments: &[&str]) -> Request {
    let base = Request::new(method, call.base_url(BASE_URL));
    segments
        .iter()
        .fold(base, |request, segment| request.path(segment))
        .bearer(TOKEN)
        .header("Notion-Version", NOTION_VERSION)
}

/// Asks for something. Notion's trouble is no harm here: the same call may be made again.
pub fn read<T: DeserializeOwned>(call: &mut Call, request: Request) -> Result<T, Stop> {
    let reply = call.send(request)?;
    if is_trouble(&reply) {
        return Err(Stop::later(
            "service_unavailable",
            format!("Notion is out of order (status {})", reply.status()),
            RETRY_AFTER_TROUBLE_MS,
        ));
    }
    accepted(reply)
}

/// Has something done.
pub fn write<T: DeserializeOwned>(call: &mut Call, request: Request) -> Result<T, Stop> {
    let reply = call.send(request)?;
    if is_trouble(&reply) {
        return Err(Stop::unexpected(format!(
            "Notion is out of order (status {}) and may have done it nevertheless; look before it is called again",
            reply.status()
        )));
    }
    accepted(reply)
}

/// Not 529, which says that nothing was done.
fn is_trouble(reply: &Reply) -> bool {
    (500..529).contains(&reply.status())
}

fn accepted<T: DeserializeOwned>(reply: Reply) -> Result<T, Stop> {
    if reply.is_success() {
        reply.parse()
    } else {
        Err(refusal(&reply))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: String,
    message: String,
}

fn refusal(reply: &Reply) -> Stop {
    let said: Refusal = serde_json::from_slice(reply.body()).unwrap_or_default();
    let (code, message) = (said.code.as_str(), said.message.as_str());
    let pause = |default| reply.retry_after_ms().unwrap_or(default);
    match (reply.status(), code) {
        (401, _) => Stop::credential_rejected(
            "unauthorized",
            "Notion does not accept the token; store a new one",
        ),
        (429, _) => Stop::later(
            "rate_limited",
            "Notion's rate limit is reached",
            pause(RETRY_AFTER_DEFAULT_MS),
        ),
        (529, _) => Stop::later(
            "service_overload",
            "Notion has too much to do",
            pause(RETRY_AFTER_TROUBLE_MS),
        ),
        (409, _) => Stop::later(
            "conflict_error",
            format!("somebody changed it at the same time: {message}"),
            pause(RETRY_AFTER_CONFLICT_MS),
        ),
        (403, _) => Stop::refused(
            "restricted_resource",
            format!(
                "the connection lacks a capability for this; give it more where it was made: {message}"
            ),
        ),
        (404, _) => Stop::refused(
            "object_not_found",
            "Notion knows no such thing, or the connection may not see it: in Notion, open the page, and under its menu add the connection",
        ),
        (status, "") => Stop::unexpected(format!("status {status}")),
        (_, code) => Stop::refused(code, message),
    }
}

/// A body without the fields that are not set.
pub fn sparse(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

/// A page of a list.
#[derive(Deserialize)]
pub struct RawList<T> {
    pub results: Vec<T>,
    pub next_cursor: Option<String>,
}
