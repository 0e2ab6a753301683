//! How Slack is called, and what its answers mean.
//!
//! Arguments travel as Slack's own Python client sends them: those of a method that reads in the query, those of one
//! that writes as a form, those of one that takes text with structure as JSON. `check/` holds us to it.

use crate::{BASE_URL, BOT_TOKEN};
use serde::Serialize;
use serde_json::Value;
use servicetsunami_plugin::{Call, Reply, Request, Stop, get, post};

/// Waited where Slack asks to slow down without saying for how long, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 30_000;
/// Waited where Slack is out of order, in milliseconds.
const RETRY_AFTER_TROUBLE_MS: u64 = 15_000;
/// Of Slack's remarks on the arguments, as many are repeated.
const REMARKS_MAX: usize = 5;

/// A method that reads. Slack's trouble is no harm here: the same call may be made again.
pub fn read(call: &mut Call, method: &str, arguments: &impl Serialize) -> Result<Value, Stop> {
    let mut request = get(url(call, method));
    for (name, value) in spelt(arguments)? {
        request = request.query(&name, value);
    }
    harmless(send(call, request))
}

/// A method that writes nothing that anybody sees.
pub fn prepare(call: &mut Call, method: &str, arguments: &impl Serialize) -> Result<Value, Stop> {
    harmless(try_write(call, method, arguments))
}

/// A method that writes.
pub fn write(call: &mut Call, method: &str, arguments: &impl Serialize) -> Result<Value, Stop> {
    Ok(try_write(call, method, arguments)?)
}

/// A method that writes, for an action to which some refusals are as good as a success.
pub fn try_write(
    call: &mut Call,
    method: &str,
    arguments: &impl Serialize,
) -> Result<Value, Refused> {
    let fields = spelt(arguments)?;
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let request = post(url(call, method)).form_urlencoded(&fields);
    send(call, request)
}

/// A method that writes a message's text.
pub fn write_text(
    call: &mut Call,
    method: &str,
    arguments: &impl Serialize,
) -> Result<Value, Stop> {
    let request = post(url(call, method)).json(arguments);
    Ok(send(call, request)?)
}

fn send(call: &mut Call, request: Request) -> Result<Value, Refused> {
    let reply = call.send(request.bearer(BOT_TOKEN))?;
    accepted(&reply)
}

fn url(call: &Call, method: &str) -> String {
    format!("{}/{method}", call.base_url(BASE_URL))
}

/// Arguments as texts: what is no text itself is written as JSON.
fn spelt(arguments: &impl Serialize) -> Result<Vec<(String, String)>, Stop> {
    let arguments = serde_json::to_value(arguments)
        .map_err(|error| Stop::unexpected(format!("arguments cannot be written: {error}")))?;
    let Value::Object(arguments) = arguments else {
        return Err(Stop::unexpected("arguments are an object"));
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(arguments
        .into_iter()
        .map(|(name, value)| (name, text(value)))
        .collect())
}

/// Why a method did not do what it was asked for.
pub enum Refused {
    /// Slack's own code, and what it means for the call.
    Code(String, Stop),
    /// Slack is out of order, and may have done it nevertheless.
    Trouble(String),
    Stop(Stop),
}

impl From<Stop> for Refused {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Code(_, stop) | Refused::Stop(stop) => stop,
            Refused::Trouble(code) => Self::unexpected(format!(
                "Slack is out of order ({code}) and may have done it nevertheless; look before it is called again"
            )),
        }
    }
}

/// Where it does no harm to call again, Slack's trouble is no more than a pause.
fn harmless(answer: Result<Value, Refused>) -> Result<Value, Stop> {
    match answer {
        Err(Refused::Trouble(code)) => Err(Stop::later(
            "service_unavailable",
            format!("Slack is out of order ({code})"),
            RETRY_AFTER_TROUBLE_MS,
        )),
        other => Ok(other?),
    }
}

fn slow_down(reply: &Reply) -> Stop {
    let wait = reply.retry_after_ms().unwrap_or(RETRY_AFTER_DEFAULT_MS);
    Stop::later("ratelimited", "Slack asks to slow down", wait)
}

/// The body of a reply that says `ok`; the refusal in Slack's own words otherwise.
fn accepted(reply: &Reply) -> Result<Value, Refused> {
    if reply.status() == 429 {
        return Err(slow_down(reply).into());
    }
    if reply.status() >= 500 {
        return Err(Refused::Trouble(format!("status {}", reply.status())));
    }
    let body = reply.json()?;
    if body["ok"] == true {
        return Ok(body);
    }
    let Some(code) = body["error"].as_str() else {
        return Err(
            Stop::unexpected(format!("status {} without `ok` or `error`", reply.status())).into(),
        );
    };
    match code {
        "ratelimited" | "rate_limited" => Err(slow_down(reply).into()),
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => {
            Err(Refused::Trouble(code.into()))
        }
        _ => Err(Refused::Code(code.into(), meaning(code, &body))),
    }
}

fn meaning(code: &str, body: &Value) -> Stop {
    match code {
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            Stop::credential_rejected(
                code,
                format!("Slack does not accept the bot token ({code}); store a new one"),
            )
        }
        "missing_scope" => Stop::refused(code, missing_scope(body)),
        _ => Stop::refused(
            code,
            explain(code).map_or_else(|| said(code, body), Into::into),
        ),
    }
}

fn missing_scope(body: &Value) -> String {
    let needed = body["needed"].as_str().unwrap_or("another scope");
    format!("the bot token lacks the scope {needed}; add it to the Slack app and install it again")
}

/// What to do about the errors that people meet.
fn explain(code: &str) -> Option<&'static str> {
    Some(match code {
        "channel_not_found" => {
            "Slack knows no such channel, or the bot cannot see it; invite it with /invite"
        }
        "not_in_channel" => "the bot is not in the channel; invite it with /invite",
        "is_archived" => "the channel is archived",
        "msg_too_long" => "the text is longer than Slack takes (40,000 characters)",
        "no_text" => "the message has no text",
        "message_not_found" => "there is no such message; it may have been deleted",
        "thread_not_found" => "there is no such thread; `ts` is that of its first message",
        "cant_update_message" | "cant_delete_message" => {
            "the bot may change only messages that it sent itself"
        }
        "edit_window_closed" => "the message is too old to be changed in this workspace",
        "time_in_past" => "`post_at` is in the past",
        "time_too_far" => "`post_at` is more than 120 days away",
        "invalid_scheduled_message_id" => {
            "there is no such scheduled message; it may have been sent already"
        }
        "users_not_found" | "user_not_found" => {
            "Slack knows no such person, or the bot cannot see them"
        }
        "invalid_name" => "there is no emoji of this name in the workspace",
        "name_taken" => "there is a channel of this name already",
        "restricted_action" | "restricted_action_read_only_channel" => {
            "a rule of the workspace keeps the bot from it; ask whoever administers it"
        }
        "no_permission" | "not_allowed_token_type" => {
            "the bot token may not do this; look at the Slack app's scopes, and install it again"
        }
        "method_not_supported_for_channel_type" => {
            "Slack does not do this in a conversation of this kind"
        }
        "file_uploads_disabled" => "the workspace takes no files",
        "invalid_cursor" => "the cursor is not one of this list; begin without it",
        "team_added_to_org" => {
            "the workspace is being moved into an organisation; call again later"
        }
        _ => return None,
    })
}

/// Slack's code, and its remarks on the arguments where it makes some.
fn said(code: &str, body: &Value) -> String {
    let remarks: Vec<&str> = list(&body["response_metadata"]["messages"])
        .iter()
        .filter_map(Value::as_str)
        .take(REMARKS_MAX)
        .collect();
    if remarks.is_empty() {
        format!("Slack refused: {code}")
    } else {
        format!("Slack refused: {code}; {}", remarks.join("; "))
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn optional(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn next_cursor(body: &Value) -> Option<String> {
    optional(&body["response_metadata"]["next_cursor"])
}
