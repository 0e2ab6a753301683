//! What the skill can do, an action after the other.

use crate::{BASE_URL, BOT_TOKEN, accepted};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Stop, get, post};

/// Calls one of Slack's methods with a body of JSON.
fn write(call: &mut Call, method: &str, body: &impl Serialize) -> Result<Value, Stop> {
    let url = format!("{}/{method}", call.base_url(BASE_URL));
    let reply = call.send(post(url).bearer(BOT_TOKEN).json(body))?;
    accepted(&reply)
}

/// Calls one of Slack's methods that take their arguments in the query.
fn read(call: &mut Call, method: &str, arguments: &impl Serialize) -> Result<Value, Stop> {
    let arguments = serde_json::to_value(arguments).unwrap_or_default();
    let url = format!("{}/{method}", call.base_url(BASE_URL));
    let mut request = get(url).bearer(BOT_TOKEN);
    for (name, value) in arguments.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        request = request.query(name, text);
    }
    let reply = call.send(request)?;
    accepted(&reply)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn next_cursor(body: &Value) -> Option<String> {
    optional(&body["response_metadata"]["next_cursor"])
}

fn is_none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

/// A message's place: its channel, and its `ts`, which is its id there.
#[derive(Serialize, JsonSchema)]
pub struct MessageId {
    channel: String,
    ts: String,
}

fn message_id(body: &Value) -> MessageId {
    MessageId {
        channel: text(&body["channel"]),
        ts: text(&body["ts"]),
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// A channel by name (`#finance`) or id (`C024BE91L`), or a person's id.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// The message, in Slack's mrkdwn.
    #[schemars(length(min = 1, max = 40000))]
    text: String,
    /// `ts` of the message to reply to.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    thread_ts: Option<String>,
}

pub fn send_message(call: &mut Call, params: SendMessage) -> Result<Done<MessageId>, Stop> {
    let body = write(call, "chat.postMessage", &params)?;
    Ok(Done::new(
        message_id(&body),
        format!("sent to {}", params.channel),
    ))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleMessage {
    /// A channel by name (`#finance`) or id (`C024BE91L`).
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    #[schemars(length(min = 1, max = 40000))]
    text: String,
    /// When, in seconds since 1970-01-01T00:00:00Z; within 120 days.
    post_at: u64,
}

#[derive(Serialize, JsonSchema)]
pub struct ScheduledMessage {
    channel: String,
    scheduled_message_id: String,
}

pub fn schedule_message(
    call: &mut Call,
    params: ScheduleMessage,
) -> Result<Done<ScheduledMessage>, Stop> {
    let body = write(call, "chat.scheduleMessage", &params)?;
    let scheduled = ScheduledMessage {
        channel: text(&body["channel"]),
        scheduled_message_id: text(&body["scheduled_message_id"]),
    };
    Ok(Done::new(
        scheduled,
        format!("scheduled for {}", params.channel),
    ))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMessage {
    /// The channel's id, as the sent message has it.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    ts: String,
    /// The new text.
    #[schemars(length(min = 1, max = 40000))]
    text: String,
}

pub fn update_message(call: &mut Call, params: UpdateMessage) -> Result<Done<MessageId>, Stop> {
    let body = write(call, "chat.update", &params)?;
    let summary = format!("changed a message in {}", params.channel);
    Ok(Done::new(message_id(&body), summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteMessage {
    /// The channel's id.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    ts: String,
}

pub fn delete_message(call: &mut Call, params: DeleteMessage) -> Result<Done<MessageId>, Stop> {
    let body = write(call, "chat.delete", &params)?;
    let summary = format!("deleted a message in {}", params.channel);
    Ok(Done::new(message_id(&body), summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddReaction {
    /// The channel's id.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    timestamp: String,
    /// The emoji's name, without colons.
    #[schemars(regex(pattern = r"^[a-z0-9_+-]{1,100}$"))]
    name: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Nothing {}

pub fn add_reaction(call: &mut Call, params: AddReaction) -> Result<Done<Nothing>, Stop> {
    write(call, "reactions.add", &params)?;
    Ok(Done::new(
        Nothing {},
        format!("reacted with {}", params.name),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenConversation {
    /// Ids of the people to talk to: one for a direct message, up to eight for a group.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 30)))]
    users: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Conversation {
    /// The conversation's id: send to it as to a channel.
    channel: String,
}

pub fn open_conversation(
    call: &mut Call,
    params: OpenConversation,
) -> Result<Done<Conversation>, Stop> {
    let users = params.users.join(",");
    let body = write(call, "conversations.open", &json!({ "users": users }))?;
    let opened = Conversation {
        channel: text(&body["channel"]["id"]),
    };
    Ok(Done::new(
        opened,
        format!("opened a conversation with {users}"),
    ))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinChannel {
    /// The id of a public channel.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Channel {
    id: String,
    name: String,
    is_private: bool,
    /// Whether the bot is in it.
    is_member: bool,
    topic: Option<String>,
}

fn channel(value: &Value) -> Channel {
    Channel {
        id: text(&value["id"]),
        name: text(&value["name"]),
        is_private: value["is_private"] == true,
        is_member: value["is_member"] == true,
        topic: optional(&value["topic"]["value"]),
    }
}

pub fn join_channel(call: &mut Call, params: JoinChannel) -> Result<Done<Channel>, Stop> {
    let body = write(call, "conversations.join", &params)?;
    let joined = channel(&body["channel"]);
    let summary = format!("joined {}", joined.name);
    Ok(Done::new(joined, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTopic {
    /// The channel's id.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    #[schemars(length(max = 250))]
    topic: String,
}

pub fn set_topic(call: &mut Call, params: SetTopic) -> Result<Done<Nothing>, Stop> {
    write(call, "conversations.setTopic", &params)?;
    Ok(Done::new(
        Nothing {},
        format!("set the topic of {}", params.channel),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadFile {
    /// The id of the channel to share it in.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// With its ending: `q4.csv`.
    #[schemars(length(min = 1, max = 200))]
    file_name: String,
    /// The file in base64.
    #[schemars(length(min = 4, max = 1000000))]
    content_base64: String,
    #[schemars(length(min = 1, max = 200))]
    title: Option<String>,
    /// The message that goes with it.
    #[schemars(length(min = 1, max = 4000))]
    comment: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct UploadedFile {
    file_id: String,
    bytes: usize,
}

/// Three requests: where to, the bytes, and sharing it (<https://docs.slack.dev/messaging/working-with-files>).
pub fn upload_file(call: &mut Call, params: UploadFile) -> Result<Done<UploadedFile>, Stop> {
    let content = BASE64_STANDARD
        .decode(&params.content_base64)
        .map_err(|error| Stop::invalid("/content_base64", format!("is no base64: {error}")))?;
    let bytes = content.len();
    let place = read(
        call,
        "files.getUploadURLExternal",
        &json!({ "filename": params.file_name, "length": bytes }),
    )?;
    let (url, file_id) = (text(&place["upload_url"]), text(&place["file_id"]));
    let reply = call.send(post(url).bytes("application/octet-stream", content))?;
    if !reply.is_success() {
        return Err(Stop::unexpected(format!(
            "status {} where the file was uploaded",
            reply.status()
        )));
    }
    let mut share = Map::new();
    let title = params.title.as_ref().unwrap_or(&params.file_name);
    share.insert("files".into(), json!([{ "id": file_id, "title": title }]));
    share.insert("channel_id".into(), json!(params.channel));
    if let Some(comment) = &params.comment {
        share.insert("initial_comment".into(), json!(comment));
    }
    write(call, "files.completeUploadExternal", &share)?;
    let summary = format!("{} shared in {}", params.file_name, params.channel);
    Ok(Done::new(UploadedFile { file_id, bytes }, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListChannels {
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    #[serde(default, skip_serializing_if = "is_none")]
    exclude_archived: Option<bool>,
    /// `public_channel`, `private_channel`, `mpim`, `im`, separated by commas; public channels unless set.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(regex(
        pattern = r"^(public_channel|private_channel|mpim|im)(,(public_channel|private_channel|mpim|im))*$"
    ))]
    types: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Channels {
    channels: Vec<Channel>,
    next_cursor: Option<String>,
}

pub fn list_channels(call: &mut Call, params: ListChannels) -> Result<Done<Channels>, Stop> {
    let body = read(call, "conversations.list", &params)?;
    let page = Channels {
        channels: list(&body["channels"]).iter().map(channel).collect(),
        next_cursor: next_cursor(&body),
    };
    let summary = format!("{} channels", page.channels.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadHistory {
    /// The channel's id.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    /// Only messages after this `ts`.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    oldest: Option<String>,
    /// Only messages before this `ts`.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    latest: Option<String>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadThread {
    /// The channel's id.
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// `ts` of the thread's first message.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    ts: String,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Message {
    ts: String,
    /// Id of whoever wrote it; none for a message of Slack's own.
    user: Option<String>,
    text: String,
    thread_ts: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Messages {
    /// A channel's newest first, a thread's oldest first.
    messages: Vec<Message>,
    next_cursor: Option<String>,
}

fn messages(body: &Value) -> Messages {
    let message = |value: &Value| Message {
        ts: text(&value["ts"]),
        user: optional(&value["user"]),
        text: text(&value["text"]),
        thread_ts: optional(&value["thread_ts"]),
    };
    Messages {
        messages: list(&body["messages"]).iter().map(message).collect(),
        next_cursor: next_cursor(body),
    }
}

pub fn read_history(call: &mut Call, params: ReadHistory) -> Result<Done<Messages>, Stop> {
    let page = messages(&read(call, "conversations.history", &params)?);
    let summary = format!("{} messages of {}", page.messages.len(), params.channel);
    Ok(Done::new(page, summary))
}

pub fn read_thread(call: &mut Call, params: ReadThread) -> Result<Done<Messages>, Stop> {
    let page = messages(&read(call, "conversations.replies", &params)?);
    let summary = format!(
        "{} messages of a thread in {}",
        page.messages.len(),
        params.channel
    );
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindUser {
    #[schemars(email, length(max = 320))]
    email: String,
}

#[derive(Serialize, JsonSchema)]
pub struct User {
    id: String,
    name: String,
    real_name: Option<String>,
    is_bot: bool,
    /// Whether the account is switched off.
    deleted: bool,
}

fn user(value: &Value) -> User {
    User {
        id: text(&value["id"]),
        name: text(&value["name"]),
        real_name: optional(&value["real_name"]),
        is_bot: value["is_bot"] == true,
        deleted: value["deleted"] == true,
    }
}

pub fn find_user_by_email(call: &mut Call, params: FindUser) -> Result<Done<User>, Stop> {
    let body = read(call, "users.lookupByEmail", &params)?;
    let found = user(&body["user"]);
    let summary = format!("found {}", found.name);
    Ok(Done::new(found, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUsers {
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Users {
    users: Vec<User>,
    next_cursor: Option<String>,
}

pub fn list_users(call: &mut Call, params: ListUsers) -> Result<Done<Users>, Stop> {
    let body = read(call, "users.list", &params)?;
    let page = Users {
        users: list(&body["members"]).iter().map(user).collect(),
        next_cursor: next_cursor(&body),
    };
    let summary = format!("{} people", page.users.len());
    Ok(Done::new(page, summary))
}
