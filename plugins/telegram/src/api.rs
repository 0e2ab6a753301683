//! The Bot API's manners (<https://core.telegram.org/bots/api#making-requests>): the token stands in the path, and a
//! reply is `{ok, result}` or `{ok, error_code, description, parameters}`.

use crate::{BASE_URL, BOT_TOKEN};
use serde_json::{Map, Value};
use servicetsunami_plugin::{Call, FormField, Reply, Request, Stop, get, post};

/// Waited where Telegram asks to slow down without saying for how long, and after an outage, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 5_000;

/// Arguments of a method; those that are null are left out.
pub fn arguments<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn at(call: &Call, verb: fn(String) -> Request, root: &str) -> Request {
    verb(format!("{}{root}/bot", call.base_url(BASE_URL))).path_credential(BOT_TOKEN)
}

/// Calls a method that only reads, or sets what may be set twice: after an outage it can be called again.
pub fn repeatable(
    call: &mut Call,
    method: &str,
    arguments: Map<String, Value>,
) -> Result<Value, Stop> {
    let request = at(call, post, "").raw_path(format!("/{method}"));
    let reply = call.send(request.json(&arguments))?;
    match reply.status() {
        500.. => Err(Stop::later(
            reply.status().to_string(),
            "Telegram has an outage",
            RETRY_AFTER_DEFAULT_MS,
        )),
        _ => accepted(&reply),
    }
}

/// Calls a method that changes something.
pub fn once(call: &mut Call, method: &str, arguments: Map<String, Value>) -> Result<Value, Stop> {
    let request = at(call, post, "").raw_path(format!("/{method}"));
    let reply = call.send(request.json(&arguments))?;
    accepted(&reply)
}

/// Calls a method with a file.
pub fn upload(
    call: &mut Call,
    method: &str,
    arguments: Map<String, Value>,
    file: FormField,
) -> Result<Value, Stop> {
    let mut fields: Vec<FormField> = arguments
        .iter()
        .map(|(name, value)| match value.as_str() {
            Some(text) => FormField::text(name, text),
            None => FormField::text(name, value),
        })
        .collect();
    fields.push(file);
    let request = at(call, post, "").raw_path(format!("/{method}"));
    let reply = call.send(request.form(fields))?;
    accepted(&reply)
}

/// The bytes at a path that `getFile` gave.
pub fn download(call: &mut Call, path: &str) -> Result<Vec<u8>, Stop> {
    let mut request = at(call, get, "/file");
    for segment in path.split('/') {
        if matches!(segment, "" | "." | "..") {
            return Err(Stop::unexpected(format!(
                "the file's path `{path}`, which cannot be fetched; a Bot API server of your own must not run with --local"
            )));
        }
        request = request.path(segment);
    }
    let reply = call.send(request)?;
    match reply.status() {
        200..300 => Ok(reply.body().to_vec()),
        // The token was good for `getFile`, so it is the file that is not there.
        404 => Err(Stop::refused(
            "404",
            "Telegram has the file no longer; ask whoever sent it to send it again",
        )),
        _ => Err(refused(&reply)),
    }
}

fn accepted(reply: &Reply) -> Result<Value, Stop> {
    let body = reply.json()?;
    match (&body["ok"], body.get("result")) {
        (Value::Bool(true), Some(result)) => Ok(result.clone()),
        _ => Err(refused(reply)),
    }
}

fn refused(reply: &Reply) -> Stop {
    let body = match reply.json() {
        Ok(body) => body,
        Err(stop) => return stop,
    };
    let (Some(code), Some(said)) = (body["error_code"].as_u64(), body["description"].as_str())
    else {
        return Stop::unexpected(format!(
            "status {} without `ok` or `error_code`",
            reply.status()
        ));
    };
    let parameters = &body["parameters"];
    match code {
        // A token that is not even formed like one makes the path unknown.
        401 | 404 => Stop::credential_rejected(
            code.to_string(),
            format!(
                "Telegram does not accept the bot token ({said}); store the one that @BotFather gives"
            ),
        ),
        429 => {
            let seconds = parameters["retry_after"]
                .as_u64()
                .map(|s| s.saturating_mul(1000));
            let pause = seconds
                .or(reply.retry_after_ms())
                .unwrap_or(RETRY_AFTER_DEFAULT_MS);
            Stop::later("429", format!("Telegram asks to slow down ({said})"), pause)
        }
        500.. => Stop::unexpected(format!("{code}: {said}")),
        _ => Stop::refused(code.to_string(), explained(said, parameters)),
    }
}

/// What to do about the errors that people meet; Telegram tells them apart by their words alone.
fn explained(said: &str, parameters: &Value) -> String {
    if let Some(chat) = parameters["migrate_to_chat_id"].as_i64() {
        return format!("{said}: the group has the chat id {chat} now; use that one");
    }
    let hints = [
        (
            "chat not found",
            "the bot knows no such chat: add it to the group or channel, or have the person write to it first",
        ),
        ("bot was blocked", "the person has to unblock the bot"),
        (
            "can't initiate conversation",
            "the person has to write to the bot first",
        ),
        ("not a member", "add the bot to the chat"),
        ("was kicked", "add the bot to the chat again"),
        (
            "not enough rights",
            "make the bot an administrator who may do that",
        ),
        (
            "have no rights",
            "make the bot an administrator who may do that",
        ),
        (
            "can't parse entities",
            "escape what `parse_mode` gives a meaning to, or leave `parse_mode` out",
        ),
        (
            "too long",
            "a message has 4,096 characters and a caption 1,024 at most: split it",
        ),
        ("file is too big", "bots can fetch files of up to 20 MB"),
        (
            "webhook is active",
            "updates go to a webhook; remove it with deleteWebhook to read them here",
        ),
        (
            "terminated by other getUpdates",
            "something else reads this bot's updates; use a bot of its own",
        ),
        (
            "message to be replied not found",
            "there is no message with the id in `reply_to_message_id`",
        ),
        (
            "can't be deleted",
            "a bot deletes its own messages within 48 hours, and others' as an administrator",
        ),
        ("can't be edited", "a bot changes only its own messages"),
    ];
    match hints.iter().find(|(words, _)| said.contains(words)) {
        Some((_, hint)) => format!("{said}: {hint}"),
        None => said.to_owned(),
    }
}
