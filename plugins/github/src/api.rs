//! How GitHub is called, and what its answers mean.

use crate::{BASE_URL, TOKEN, page::next_cursor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use servicetsunami_plugin::{Call, Method, Reply, Request, Stop};
use std::time::UNIX_EPOCH;

/// The version of the interface: the one that every supported GitHub Enterprise Server knows too.
const API_VERSION: &str = "2022-11-28";
/// GitHub refuses requests without it.
const USER_AGENT: &str = "servicetsunami-gateway";
/// Waited at a secondary rate limit where GitHub does not say for how long: a minute, as it asks for.
const RETRY_AFTER_DEFAULT_MS: u64 = 60_000;
/// Waited where GitHub is out of order, in milliseconds.
const RETRY_AFTER_TROUBLE_MS: u64 = 15_000;
/// Of the mistakes that GitHub finds in a request, as many are repeated.
const MISTAKES_MAX: usize = 5;

/// A request to this path, a segment after the other.
pub fn at<S: AsRef<str>>(call: &Call, method: Method, segments: &[S]) -> Request {
    let mut request = Request::new(method, call.base_url(BASE_URL));
    for segment in segments {
        request = request.path(segment);
    }
    request
        .bearer(TOKEN)
        .header("Accept", "application/vnd.github+json")
        .header("X-GitHub-Api-Version", API_VERSION)
        .header("User-Agent", USER_AGENT)
}

/// Asks for something. GitHub's trouble is no harm here: the same call may be made again.
pub fn read<T: DeserializeOwned>(call: &mut Call, request: Request) -> Result<T, Stop> {
    ask(call, request)?.parse()
}

/// Asks for a page of a list; the second is the cursor of the next one.
pub fn read_page<T: DeserializeOwned>(
    call: &mut Call,
    request: Request,
) -> Result<(T, Option<String>), Stop> {
    let reply = ask(call, request)?;
    let next = next_cursor(reply.header("link"));
    Ok((reply.parse()?, next))
}

fn ask(call: &mut Call, request: Request) -> Result<Reply, Stop> {
    let reply = call.send(request)?;
    if reply.status() >= 500 {
        return Err(Stop::later(
            "service_unavailable",
            format!("GitHub is out of order (status {})", reply.status()),
            RETRY_AFTER_TROUBLE_MS,
        ));
    }
    accepted(call, reply)
}

/// Has something done, and gives what GitHub says of it.
pub fn write<T: DeserializeOwned>(call: &mut Call, request: Request) -> Result<T, Stop> {
    tell(call, request)?.parse()
}

/// Has something done.
pub fn tell(call: &mut Call, request: Request) -> Result<Reply, Stop> {
    let reply = call.send(request)?;
    if reply.status() >= 500 {
        return Err(Stop::unexpected(format!(
            "GitHub is out of order (status {}) and may have done it nevertheless; look before it is called again",
            reply.status()
        )));
    }
    accepted(call, reply)
}

/// A body without the fields that are not set.
pub fn sparse(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

fn accepted(call: &Call, reply: Reply) -> Result<Reply, Stop> {
    if reply.is_success() {
        return Ok(reply);
    }
    Err(refusal(&reply, call.now_ms()))
}

/// What GitHub says where it refuses.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    message: String,
    errors: Vec<Value>,
}

fn refusal(reply: &Reply, now_ms: u64) -> Stop {
    let said: Refusal = serde_json::from_slice(reply.body()).unwrap_or_default();
    let message = said.message.as_str();
    match reply.status() {
        401 => Stop::credential_rejected(
            "bad_credentials",
            "GitHub does not accept the token; it may have expired: store a new one",
        ),
        403 | 429 if is_rate_limit(reply, message) => Stop::later(
            "rate_limited",
            "GitHub's rate limit is reached",
            pause_ms(reply, now_ms),
        ),
        403 => Stop::refused("forbidden", forbidden(reply, message)),
        404 => Stop::refused(
            "not_found",
            "GitHub knows no such thing, or does not let the token see it",
        ),
        405 => Stop::refused("not_allowed", message),
        409 => Stop::refused(
            "conflict",
            format!("it is not as the call expects: {message}"),
        ),
        410 => Stop::refused(
            "gone",
            format!("it is not there any more, or switched off: {message}"),
        ),
        422 => Stop::refused("invalid", invalid(message, &said.errors)),
        301 | 302 | 307 | 308 => Stop::refused(
            "moved",
            "the repository was renamed or moved to another owner: use its new name",
        ),
        status if message.is_empty() => Stop::unexpected(format!("status {status}")),
        status => Stop::unexpected(format!("status {status}: {message}")),
    }
}

/// Primary limits leave no request; secondary ones say when to come back, or only in words.
fn is_rate_limit(reply: &Reply, message: &str) -> bool {
    reply.status() == 429
        || reply.header("x-ratelimit-remaining") == Some("0")
        || reply.header("retry-after").is_some()
        || message.to_ascii_lowercase().contains("rate limit")
}

fn pause_ms(reply: &Reply, now_ms: u64) -> u64 {
    if let Some(pause) = reply.retry_after_ms() {
        return pause;
    }
    let number = |name| reply.header(name)?.trim().parse::<u64>().ok();
    match (number("x-ratelimit-remaining"), number("x-ratelimit-reset")) {
        (Some(0), Some(reset_seconds)) => {
            // By GitHub's own clock: the call may have been made long before.
            let now_ms = date_ms(reply).unwrap_or(now_ms);
            reset_seconds
                .saturating_mul(1000)
                .saturating_sub(now_ms)
                .max(1000)
        }
        _ => RETRY_AFTER_DEFAULT_MS,
    }
}

fn date_ms(reply: &Reply) -> Option<u64> {
    let date = httpdate::parse_http_date(reply.header("date")?).ok()?;
    u64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn forbidden(reply: &Reply, message: &str) -> String {
    let mut text = format!("GitHub does not let the token do this: {message}");
    if let Some(permissions) = reply.header("x-accepted-github-permissions") {
        text.push_str(&format!("; it needs the permissions {permissions}"));
    }
    if let Some(sso) = reply.header("x-github-sso") {
        text.push_str(&format!(
            "; the organisation wants the token authorised for single sign-on ({sso})"
        ));
    }
    text
}

fn invalid(message: &str, errors: &[Value]) -> String {
    let mistakes: Vec<String> = errors.iter().take(MISTAKES_MAX).map(mistake).collect();
    if mistakes.is_empty() {
        message.to_owned()
    } else {
        format!("{message}: {}", mistakes.join("; "))
    }
}

/// `base is invalid`, or the sentence that GitHub has for it.
fn mistake(error: &Value) -> String {
    let word = |name: &str| error[name].as_str().unwrap_or_default();
    if let Some(sentence) = error.as_str().or_else(|| error["message"].as_str()) {
        return sentence.to_owned();
    }
    let field = word("field");
    match word("code") {
        "missing" => format!("{} `{field}` does not exist", word("resource")),
        "missing_field" => format!("`{field}` is missing"),
        "already_exists" => format!("{} with this `{field}` exists already", word("resource")),
        code => format!("`{field}` is {code}"),
    }
}
