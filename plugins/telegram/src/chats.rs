//! What comes in, and who is where.

use crate::{
    CHAT_ID,
    api::{arguments, download, repeatable},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, Stop};

/// A file of this size, in base64 and JSON, fits an answer of 1 MiB.
const FILE_BYTES_MAX: u64 = 750_000;
/// Text of one update, in bytes: a message has 4,096 characters, of up to four bytes.
const TEXT_BYTES_MAX: usize = 16_384;
/// Updates of a page where nothing else is said: with the longest texts, all fit an answer.
const UPDATES_DEFAULT: u32 = 30;
/// Kinds of files that a message can hold, by the names that Telegram gives them.
const FILES: [&str; 7] = [
    "document",
    "video",
    "audio",
    "voice",
    "animation",
    "video_note",
    "sticker",
];

fn optional(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn id_text(value: &Value) -> Option<String> {
    value.as_i64().map(|id| id.to_string())
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Message,
    EditedMessage,
    ChannelPost,
    EditedChannelPost,
    CallbackQuery,
    MyChatMember,
    ChatMember,
    Poll,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetUpdates {
    /// `next_cursor` of the page before. Telegram forgets that page when it is asked for the next one.
    #[schemars(range(min = 1))]
    cursor: Option<i64>,
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    /// Only these kinds from now on; Telegram keeps the choice until another one is made.
    #[schemars(length(min = 1, max = 8))]
    kinds: Option<Vec<Kind>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Updates {
    /// Oldest first.
    updates: Vec<Update>,
    /// None where there were no updates.
    next_cursor: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct Update {
    update_id: i64,
    /// `message`, `channel_post`, ...; of other kinds nothing but this is given.
    kind: String,
    message: Option<Message>,
}

#[derive(Serialize, JsonSchema)]
pub struct Message {
    message_id: i64,
    chat_id: String,
    /// Of a group or channel.
    chat_title: Option<String>,
    /// `private`, `group`, `supergroup`, `channel`
    chat_type: Option<String>,
    /// In seconds since 1970-01-01T00:00:00Z.
    date: Option<u64>,
    from: Option<Person>,
    /// Its text, or the caption of its file.
    text: Option<String>,
    message_thread_id: Option<i64>,
    reply_to_message_id: Option<i64>,
    file: Option<File>,
}

#[derive(Serialize, JsonSchema)]
pub struct Person {
    id: String,
    name: String,
    username: Option<String>,
    is_bot: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct File {
    /// For `get_file`, and to send it again.
    file_id: String,
    /// `photo`, `document`, `voice`, ...
    kind: String,
    file_name: Option<String>,
    mime_type: Option<String>,
    bytes: Option<u64>,
}

fn person(value: &Value) -> Option<Person> {
    let names = [&value["first_name"], &value["last_name"]];
    let names: Vec<_> = names.iter().filter_map(|name| name.as_str()).collect();
    Some(Person {
        id: id_text(&value["id"])?,
        name: names.join(" "),
        username: optional(&value["username"]),
        is_bot: value["is_bot"] == true,
    })
}

fn file(message: &Value) -> Option<File> {
    let photo = message["photo"].as_array().and_then(|sizes| sizes.last());
    let photo = photo.map(|photo| ("photo", photo));
    let other = || {
        FILES
            .iter()
            .find_map(|kind| Some((*kind, message.get(kind)?)))
    };
    let (kind, value) = photo.or_else(other)?;
    Some(File {
        file_id: optional(&value["file_id"])?,
        kind: kind.to_owned(),
        file_name: optional(&value["file_name"]),
        mime_type: optional(&value["mime_type"]),
        bytes: value["file_size"].as_u64(),
    })
}

fn message(value: &Value) -> Option<Message> {
    let text = value["text"].as_str().or(value["caption"].as_str());
    Some(Message {
        message_id: value["message_id"].as_i64()?,
        chat_id: id_text(&value["chat"]["id"])?,
        chat_title: optional(&value["chat"]["title"]),
        chat_type: optional(&value["chat"]["type"]),
        date: value["date"].as_u64(),
        from: person(&value["from"]),
        text: text
            .and_then(|text| text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)))
            .map(str::to_owned),
        message_thread_id: value["message_thread_id"].as_i64(),
        reply_to_message_id: value["reply_to_message"]["message_id"].as_i64(),
        file: file(value),
    })
}

/// An update has its id and one more field, which is named for what happened.
fn update(value: &Value) -> Result<Update, Stop> {
    let update_id = value["update_id"]
        .as_i64()
        .ok_or_else(|| Stop::unexpected("an update without `update_id`"))?;
    let mut fields = value.as_object().into_iter().flatten();
    let what = fields.find(|(name, _)| *name != "update_id");
    Ok(Update {
        update_id,
        kind: what.map(|(name, _)| name.clone()).unwrap_or_default(),
        message: what.and_then(|(name, content)| match name.as_str() {
            "callback_query" => message(&content["message"]),
            _ => message(content),
        }),
    })
}

pub fn get_updates(call: &mut Call, params: GetUpdates) -> Result<Done<Updates>, Stop> {
    let arguments = arguments([
        ("offset", json!(params.cursor)),
        ("limit", json!(params.limit.unwrap_or(UPDATES_DEFAULT))),
        ("timeout", json!(0)),
        ("allowed_updates", json!(params.kinds)),
    ]);
    let result = repeatable(call, "getUpdates", arguments)?;
    let items = result
        .as_array()
        .ok_or_else(|| Stop::unexpected("updates that are no list"))?;
    let updates = items.iter().map(update).collect::<Result<Vec<_>, _>>()?;
    let page = Updates {
        next_cursor: updates
            .iter()
            .map(|update| update.update_id.saturating_add(1))
            .max(),
        updates,
    };
    let summary = format!("{} updates", page.updates.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetFile {
    /// As updates and sent messages give it.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{10,500}$"))]
    file_id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Content {
    /// The last part of its path at Telegram, with the ending that it should have.
    file_name: String,
    /// The file in base64.
    content_base64: String,
    bytes: usize,
}

/// Two requests: where it is, and the bytes.
pub fn get_file(call: &mut Call, params: GetFile) -> Result<Done<Content>, Stop> {
    let place = repeatable(
        call,
        "getFile",
        arguments([("file_id", json!(params.file_id))]),
    )?;
    let path = place["file_path"]
        .as_str()
        .ok_or_else(|| Stop::unexpected("a file without `file_path`"))?;
    check_size(place["file_size"].as_u64().unwrap_or_default())?;
    let content = download(call, path)?;
    let bytes = content.len();
    check_size(u64::try_from(bytes).unwrap_or(u64::MAX))?;
    let content = Content {
        file_name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        content_base64: BASE64_STANDARD.encode(content),
        bytes,
    };
    Ok(Done::new(content, format!("read a file of {bytes} bytes")))
}

fn check_size(bytes: u64) -> Result<(), Stop> {
    match bytes > FILE_BYTES_MAX {
        true => Err(Stop::refused(
            "file_too_large",
            format!(
                "the file has {bytes} bytes; {FILE_BYTES_MAX} can be handed over: have a person open it in Telegram"
            ),
        )),
        false => Ok(()),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneChat {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Chat {
    chat_id: String,
    /// `private`, `group`, `supergroup`, `channel`
    kind: String,
    /// Of a group or channel; a person's name otherwise.
    title: String,
    username: Option<String>,
    description: Option<String>,
    /// Whether it has topics.
    is_forum: bool,
    pinned_message_id: Option<i64>,
}

pub fn get_chat(call: &mut Call, params: OneChat) -> Result<Done<Chat>, Stop> {
    let chat = repeatable(
        call,
        "getChat",
        arguments([("chat_id", json!(params.chat_id))]),
    )?;
    let names = person(&chat).map(|person| person.name);
    let chat = Chat {
        chat_id: id_text(&chat["id"]).ok_or_else(|| Stop::unexpected("a chat without `id`"))?,
        kind: optional(&chat["type"]).unwrap_or_default(),
        title: optional(&chat["title"]).or(names).unwrap_or_default(),
        username: optional(&chat["username"]),
        description: optional(&chat["description"]).or(optional(&chat["bio"])),
        is_forum: chat["is_forum"] == true,
        pinned_message_id: chat["pinned_message"]["message_id"].as_i64(),
    };
    let summary = format!("the chat {}", chat.title);
    Ok(Done::new(chat, summary))
}

#[derive(Serialize, JsonSchema)]
pub struct Members {
    members: Vec<Member>,
}

#[derive(Serialize, JsonSchema)]
pub struct Member {
    person: Option<Person>,
    /// `creator`, `administrator`, `member`, `restricted`, `left`, `kicked`
    status: String,
    /// What stands beside the name.
    title: Option<String>,
}

fn member(value: &Value) -> Result<Member, Stop> {
    Ok(Member {
        person: person(&value["user"]),
        status: optional(&value["status"])
            .ok_or_else(|| Stop::unexpected("a member without `status`"))?,
        title: optional(&value["custom_title"]),
    })
}

pub fn list_administrators(call: &mut Call, params: OneChat) -> Result<Done<Members>, Stop> {
    let arguments = arguments([("chat_id", json!(params.chat_id))]);
    let result = repeatable(call, "getChatAdministrators", arguments)?;
    let items = result
        .as_array()
        .ok_or_else(|| Stop::unexpected("administrators that are no list"))?;
    let members = items.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    let summary = format!("{} administrators of {}", members.len(), params.chat_id);
    Ok(Done::new(Members { members }, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetMember {
    #[schemars(regex(pattern = CHAT_ID))]
    chat_id: String,
    /// The person's id.
    #[schemars(range(min = 1))]
    user_id: i64,
}

pub fn get_member(call: &mut Call, params: GetMember) -> Result<Done<Member>, Stop> {
    let arguments = arguments([
        ("chat_id", json!(params.chat_id)),
        ("user_id", json!(params.user_id)),
    ]);
    let member = member(&repeatable(call, "getChatMember", arguments)?)?;
    let summary = format!("{} in {}", member.status, params.chat_id);
    Ok(Done::new(member, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetMe {}

pub fn get_me(call: &mut Call, _: GetMe) -> Result<Done<Person>, Stop> {
    let result = repeatable(call, "getMe", Map::new())?;
    let me = person(&result).ok_or_else(|| Stop::unexpected("a bot without `id`"))?;
    let summary = format!("the bot @{}", me.username.as_deref().unwrap_or(&me.name));
    Ok(Done::new(me, summary))
}
