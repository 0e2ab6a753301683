//! Messages, files, polls and what can be done with them.

use crate::{
    CHAT_ID,
    api::{arguments, once, repeatable, upload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, FormField, Stop};

/// How Telegram reads the marks in a text.
#[derive(Deserialize, Serialize, JsonSchema)]
pub enum ParseMode {
    #[serde(rename = "HTML")]
    Html,
    MarkdownV2,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Button {
    #[schemars(length(min = 1, max = 100))]
    text: String,
    /// Where it leads.
    #[schemars(length(max = 2000), regex(pattern = r"^https?://\S+$"))]
    url: String,
}

/// A message's place.
#[derive(Serialize, JsonSchema)]
pub struct Sent {
    chat_id: String,
    message_id: i64,
    /// Of the file in it, where it has one: to send the file again.
    file_id: Option<String>,
}

fn sent(message: &Value) -> Result<Sent, Stop> {
    let (Some(chat), Some(message_id)) = (
        message["chat"]["id"].as_i64(),
        message["message_id"].as_i64(),
    ) else {
        return Err(Stop::unexpected("a message without `chat` or `message_id`"));
    };
    // A photo comes in several sizes, the largest last.
    let largest = message["photo"].as_array().and_then(|sizes| sizes.last());
    let file = largest.unwrap_or(&message["document"]);
    Ok(Sent {
        chat_id: chat.to_string(),
        message_id,
        file_id: file["file_id"].as_str().map(str::to_owned),
    })
}

fn reply_parameters(message_id: Option<i64>) -> Value {
    message_id.map_or(Value::Null, |id| json!({ "message_id": id }))
}

fn keyboard(buttons: &[Vec<Button>]) -> Value {
    match buttons.is_empty() {
        true => Value::Null,
        false => json!({ "inline_keyboard": buttons }),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// A chat's id (`-1001234567890`, `123456789`), or the name of a public channel or group (`@name`).
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    /// The message: up to 4,096 characters without its marks.
    #[schemars(length(min = 1, max = 16000))]
    text: String,
    /// Plain text unless set.
    parse_mode: Option<ParseMode>,
    /// Id of the message to reply to, in the same chat.
    reply_to_message_id: Option<i64>,
    /// Id of the topic in a group that has topics.
    message_thread_id: Option<i64>,
    /// Rows of buttons that open pages.
    #[serde(default)]
    #[schemars(length(max = 10), inner(length(min = 1, max = 8)))]
    buttons: Vec<Vec<Button>>,
    /// Shows no preview of the first link.
    disable_link_preview: Option<bool>,
    /// Arrives without a sound.
    disable_notification: Option<bool>,
    /// Cannot be forwarded or saved.
    protect_content: Option<bool>,
}

fn link_preview(disable: Option<bool>) -> Value {
    disable.map_or(Value::Null, |disable| json!({ "is_disabled": disable }))
}

pub fn send_message(call: &mut Call, params: SendMessage) -> Result<Done<Sent>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("text", json!(params.text)),
        ("parse_mode", json!(params.parse_mode)),
        (
            "reply_parameters",
            reply_parameters(params.reply_to_message_id),
        ),
        ("message_thread_id", json!(params.message_thread_id)),
        ("reply_markup", keyboard(&params.buttons)),
        (
            "link_preview_options",
            link_preview(params.disable_link_preview),
        ),
        ("disable_notification", json!(params.disable_notification)),
        ("protect_content", json!(params.protect_content)),
    ]);
    let message = sent(&once(call, "sendMessage", arguments)?)?;
    Ok(Done::new(message, format!("sent to {}", params.chat_id)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditMessage {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    message_id: i64,
    /// The new text: up to 4,096 characters without its marks.
    #[schemars(length(min = 1, max = 16000))]
    text: String,
    parse_mode: Option<ParseMode>,
    /// All buttons that it has from now on.
    #[serde(default)]
    #[schemars(length(max = 10), inner(length(min = 1, max = 8)))]
    buttons: Vec<Vec<Button>>,
    disable_link_preview: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Edited {
    chat_id: String,
    message_id: i64,
    /// Whether it said something else before.
    is_changed: bool,
}

pub fn edit_message(call: &mut Call, params: EditMessage) -> Result<Done<Edited>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("message_id", json!(params.message_id)),
        ("text", json!(params.text)),
        ("parse_mode", json!(params.parse_mode)),
        ("reply_markup", keyboard(&params.buttons)),
        (
            "link_preview_options",
            link_preview(params.disable_link_preview),
        ),
    ]);
    edited(
        call,
        "editMessageText",
        arguments,
        params.chat_id,
        params.message_id,
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditCaption {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    message_id: i64,
    /// The new caption: up to 1,024 characters without its marks. Empty takes it away.
    #[schemars(length(max = 4000))]
    caption: String,
    parse_mode: Option<ParseMode>,
}

pub fn edit_caption(call: &mut Call, params: EditCaption) -> Result<Done<Edited>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("message_id", json!(params.message_id)),
        ("caption", json!(params.caption)),
        ("parse_mode", json!(params.parse_mode)),
    ]);
    edited(
        call,
        "editMessageCaption",
        arguments,
        params.chat_id,
        params.message_id,
    )
}

/// Telegram refuses a change that changes nothing; here it is done.
fn edited(
    call: &mut Call,
    method: &str,
    arguments: Map<String, Value>,
    chat_id: String,
    message_id: i64,
) -> Result<Done<Edited>, Stop> {
    let is_changed = match repeatable(call, method, arguments) {
        Err(stop) if says(&stop, "message is not modified") => false,
        answer => answer.map(|_| true)?,
    };
    let summary = format!("changed a message in {chat_id}");
    Ok(Done::new(
        Edited {
            chat_id,
            message_id,
            is_changed,
        },
        summary,
    ))
}

fn says(stop: &Stop, words: &str) -> bool {
    matches!(stop, Stop::Fail(servicetsunami_plugin::Failure::Refused(refusal)) if refusal.message.contains(words))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneMessage {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    message_id: i64,
}

#[derive(Serialize, JsonSchema)]
pub struct Nothing {}

pub fn delete_message(call: &mut Call, params: OneMessage) -> Result<Done<Nothing>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("message_id", json!(params.message_id)),
    ]);
    once(call, "deleteMessage", arguments)?;
    Ok(Done::new(
        Nothing {},
        format!("deleted a message in {}", params.chat_id),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardMessage {
    /// Where to.
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    /// Where it is.
    #[schemars(regex(pattern = CHAT_ID))]
    from_chat_id: String,
    message_id: i64,
    message_thread_id: Option<i64>,
    disable_notification: Option<bool>,
}

pub fn forward_message(call: &mut Call, params: ForwardMessage) -> Result<Done<Sent>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("from_chat_id", json!(params.from_chat_id)),
        ("message_id", json!(params.message_id)),
        ("message_thread_id", json!(params.message_thread_id)),
        ("disable_notification", json!(params.disable_notification)),
    ]);
    let message = sent(&once(call, "forwardMessage", arguments)?)?;
    Ok(Done::new(
        message,
        format!("forwarded to {}", params.chat_id),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendFile {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    /// A URL that Telegram fetches (photos up to 5 MB, other files up to 20 MB), or the `file_id` of a file that
    /// Telegram has already. Either this or `content_base64`.
    #[schemars(
        length(max = 2000),
        regex(pattern = r"^(https?://\S+|[A-Za-z0-9_-]{10,})$")
    )]
    file: Option<String>,
    /// The file in base64, about 700 kB.
    #[schemars(length(min = 4, max = 1000000))]
    content_base64: Option<String>,
    /// With its ending: `q4.pdf`. Needed beside `content_base64`.
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r#"^[^/\\;"\x00-\x1f\x7f]+$"#)
    )]
    file_name: Option<String>,
    /// Up to 1,024 characters without its marks.
    #[schemars(length(min = 1, max = 4000))]
    caption: Option<String>,
    parse_mode: Option<ParseMode>,
    reply_to_message_id: Option<i64>,
    message_thread_id: Option<i64>,
    disable_notification: Option<bool>,
    protect_content: Option<bool>,
}

pub fn send_photo(call: &mut Call, params: SendFile) -> Result<Done<Sent>, Stop> {
    send_file(call, "sendPhoto", "photo", params)
}

pub fn send_document(call: &mut Call, params: SendFile) -> Result<Done<Sent>, Stop> {
    send_file(call, "sendDocument", "document", params)
}

fn send_file(
    call: &mut Call,
    method: &str,
    field: &str,
    params: SendFile,
) -> Result<Done<Sent>, Stop> {
    let file = file_of(&params)?;
    let mut arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("caption", json!(params.caption)),
        ("parse_mode", json!(params.parse_mode)),
        (
            "reply_parameters",
            reply_parameters(params.reply_to_message_id),
        ),
        ("message_thread_id", json!(params.message_thread_id)),
        ("disable_notification", json!(params.disable_notification)),
        ("protect_content", json!(params.protect_content)),
    ]);
    let result = match file {
        File::Elsewhere(place) => {
            arguments.insert(field.into(), json!(place));
            once(call, method, arguments)?
        }
        File::Here(name, content) => {
            let part = FormField::file(field, name, "application/octet-stream", content);
            upload(call, method, arguments, part)?
        }
    };
    let message = sent(&result)?;
    Ok(Done::new(
        message,
        format!("sent a file to {}", params.chat_id),
    ))
}

enum File<'x> {
    Elsewhere(&'x str),
    Here(&'x str, Vec<u8>),
}

fn file_of(params: &SendFile) -> Result<File<'_>, Stop> {
    match (&params.file, &params.content_base64, &params.file_name) {
        (Some(file), None, None) if is_place(file) => Ok(File::Elsewhere(file)),
        // A Bot API server that runs with --local would read `file:///etc/passwd` for whoever asks.
        (Some(_), None, None) => Err(Stop::invalid(
            "/file",
            "must be an http(s) URL or a `file_id`",
        )),
        (None, Some(content), Some(name)) => {
            if name.chars().any(|c| c.is_control() || "/\\;\"".contains(c)) {
                return Err(Stop::invalid(
                    "/file_name",
                    "may not hold slashes, quotation marks, semicolons and control characters",
                ));
            }
            let content = BASE64_STANDARD.decode(content).map_err(|error| {
                Stop::invalid("/content_base64", format!("is no base64: {error}"))
            })?;
            Ok(File::Here(name, content))
        }
        (None, Some(_), None) => Err(Stop::invalid(
            "/file_name",
            "name the file that is in `content_base64`",
        )),
        _ => Err(Stop::invalid(
            "/file",
            "give either `file`, or `content_base64` with `file_name`",
        )),
    }
}

fn is_place(file: &str) -> bool {
    let is_id = file
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let is_url = ["https://", "http://"]
        .iter()
        .any(|scheme| file.starts_with(scheme));
    is_id || (is_url && !file.chars().any(|c| c.is_whitespace() || c.is_control()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendLocation {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    #[schemars(range(min = -90, max = 90))]
    latitude: f64,
    #[schemars(range(min = -180, max = 180))]
    longitude: f64,
    /// How exact it is, in metres.
    #[schemars(range(min = 0, max = 1500))]
    horizontal_accuracy: Option<f64>,
    reply_to_message_id: Option<i64>,
    message_thread_id: Option<i64>,
    disable_notification: Option<bool>,
}

pub fn send_location(call: &mut Call, params: SendLocation) -> Result<Done<Sent>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("latitude", json!(params.latitude)),
        ("longitude", json!(params.longitude)),
        ("horizontal_accuracy", json!(params.horizontal_accuracy)),
        (
            "reply_parameters",
            reply_parameters(params.reply_to_message_id),
        ),
        ("message_thread_id", json!(params.message_thread_id)),
        ("disable_notification", json!(params.disable_notification)),
    ]);
    let message = sent(&once(call, "sendLocation", arguments)?)?;
    Ok(Done::new(
        message,
        format!("sent a place to {}", params.chat_id),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendPoll {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    #[schemars(length(min = 1, max = 300))]
    question: String,
    /// What can be answered.
    #[schemars(length(min = 2, max = 12), inner(length(min = 1, max = 100)))]
    options: Vec<String>,
    /// Whether nobody sees who voted for what; so unless set.
    is_anonymous: Option<bool>,
    allows_multiple_answers: Option<bool>,
    message_thread_id: Option<i64>,
    disable_notification: Option<bool>,
}

pub fn send_poll(call: &mut Call, params: SendPoll) -> Result<Done<Sent>, Stop> {
    let options: Vec<Value> = params
        .options
        .iter()
        .map(|text| json!({ "text": text }))
        .collect();
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("question", json!(params.question)),
        ("options", json!(options)),
        ("is_anonymous", json!(params.is_anonymous)),
        (
            "allows_multiple_answers",
            json!(params.allows_multiple_answers),
        ),
        ("message_thread_id", json!(params.message_thread_id)),
        ("disable_notification", json!(params.disable_notification)),
    ]);
    let message = sent(&once(call, "sendPoll", arguments)?)?;
    Ok(Done::new(
        message,
        format!("sent a poll to {}", params.chat_id),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetReaction {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    message_id: i64,
    /// One of the emoji that Telegram takes as a reaction: 👍, 👀, 🎉, ... None takes the bot's reaction away.
    #[schemars(length(min = 1, max = 10))]
    emoji: Option<String>,
}

pub fn set_reaction(call: &mut Call, params: SetReaction) -> Result<Done<Nothing>, Stop> {
    let reaction: Vec<Value> = params
        .emoji
        .iter()
        .map(|emoji| json!({ "type": "emoji", "emoji": emoji }))
        .collect();
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("message_id", json!(params.message_id)),
        ("reaction", json!(reaction)),
    ]);
    repeatable(call, "setMessageReaction", arguments)?;
    Ok(Done::new(
        Nothing {},
        format!("reacted to a message in {}", params.chat_id),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinMessage {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    message_id: i64,
    /// Tells nobody.
    disable_notification: Option<bool>,
}

pub fn pin_message(call: &mut Call, params: PinMessage) -> Result<Done<Nothing>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("message_id", json!(params.message_id)),
        ("disable_notification", json!(params.disable_notification)),
    ]);
    once(call, "pinChatMessage", arguments)?;
    Ok(Done::new(
        Nothing {},
        format!("pinned a message in {}", params.chat_id),
    ))
}

pub fn unpin_message(call: &mut Call, params: OneMessage) -> Result<Done<Nothing>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("message_id", json!(params.message_id)),
    ]);
    once(call, "unpinChatMessage", arguments)?;
    Ok(Done::new(
        Nothing {},
        format!("unpinned a message in {}", params.chat_id),
    ))
}
