//! Messages and reactions.

use crate::{
    CHANNEL_ID, TS,
    api::{Refused, list, next_cursor, optional, read, text, try_write, write, write_text},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use servicetsunami_plugin::{Call, Done, JsonSchema, Stop};

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
    /// The message, in Slack's mrkdwn; `&`, `<` and `>` as `&amp;`, `&lt;` and `&gt;`.
    #[schemars(length(min = 1, max = 40000))]
    text: String,
    /// `ts` of the message to reply to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TS))]
    thread_ts: Option<String>,
}

pub fn send_message(call: &mut Call, params: SendMessage) -> Result<Done<MessageId>, Stop> {
    let body = write_text(call, "chat.postMessage", &params)?;
    let summary = format!("sent to {}", params.channel);
    Ok(Done::new(message_id(&body), summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleMessage {
    /// A channel by name (`#finance`) or id (`C024BE91L`).
    #[schemars(length(min = 1, max = 80))]
    channel: String,
    /// The message, in Slack's mrkdwn.
    #[schemars(length(min = 1, max = 40000))]
    text: String,
    /// When, in seconds since 1970-01-01T00:00:00Z; within 120 days.
    post_at: u64,
    /// `ts` of the message to reply to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TS))]
    thread_ts: Option<String>,
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
    let body = write_text(call, "chat.scheduleMessage", &params)?;
    let scheduled = ScheduledMessage {
        channel: text(&body["channel"]),
        scheduled_message_id: text(&body["scheduled_message_id"]),
    };
    let summary = format!("scheduled for {}", params.channel);
    Ok(Done::new(scheduled, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelScheduledMessage {
    /// The channel's id, as the scheduled message has it.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    #[schemars(regex(pattern = r"^[A-Z0-9]{1,40}$"))]
    scheduled_message_id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Nothing {}

pub fn cancel_scheduled_message(
    call: &mut Call,
    params: CancelScheduledMessage,
) -> Result<Done<Nothing>, Stop> {
    write(call, "chat.deleteScheduledMessage", &params)?;
    let summary = format!("cancelled a message for {}", params.channel);
    Ok(Done::new(Nothing {}, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMessage {
    /// The channel's id, as the sent message has it.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = TS))]
    ts: String,
    /// The new text, in Slack's mrkdwn.
    #[schemars(length(min = 1, max = 40000))]
    text: String,
}

pub fn update_message(call: &mut Call, params: UpdateMessage) -> Result<Done<MessageId>, Stop> {
    let body = write_text(call, "chat.update", &params)?;
    let summary = format!("changed a message in {}", params.channel);
    Ok(Done::new(message_id(&body), summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteMessage {
    /// The channel's id, as the sent message has it.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = TS))]
    ts: String,
}

pub fn delete_message(call: &mut Call, params: DeleteMessage) -> Result<Done<MessageId>, Stop> {
    let body = write(call, "chat.delete", &params)?;
    let summary = format!("deleted a message in {}", params.channel);
    Ok(Done::new(message_id(&body), summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetPermalink {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = TS))]
    message_ts: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Permalink {
    /// For people: it opens Slack at the message.
    permalink: String,
}

pub fn get_permalink(call: &mut Call, params: GetPermalink) -> Result<Done<Permalink>, Stop> {
    let body = read(call, "chat.getPermalink", &params)?;
    let found = Permalink {
        permalink: text(&body["permalink"]),
    };
    let summary = found.permalink.clone();
    Ok(Done::new(found, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddReaction {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// The message's `ts`.
    #[schemars(regex(pattern = TS))]
    timestamp: String,
    /// The emoji's name, without colons.
    #[schemars(regex(pattern = r"^[a-z0-9_+'-]{1,100}$"))]
    name: String,
}

/// A reaction that is there already is as good as one that was added.
pub fn add_reaction(call: &mut Call, params: AddReaction) -> Result<Done<Nothing>, Stop> {
    let summary = match try_write(call, "reactions.add", &params) {
        Ok(_) => format!("reacted with {}", params.name),
        Err(Refused::Code(code, _)) if code == "already_reacted" => {
            format!("had reacted with {}", params.name)
        }
        Err(refused) => return Err(refused.into()),
    };
    Ok(Done::new(Nothing {}, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadHistory {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Messages on a page; 100 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    /// Only messages after this `ts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TS))]
    oldest: Option<String>,
    /// Only messages before this `ts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TS))]
    latest: Option<String>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadThread {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// `ts` of the thread's first message.
    #[schemars(regex(pattern = TS))]
    ts: String,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Messages on a page; 100 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Message {
    ts: String,
    /// Id of whoever wrote it; none for a message of Slack's own.
    user: Option<String>,
    /// In Slack's mrkdwn.
    text: String,
    /// Set in a thread: `ts` of its first message.
    thread_ts: Option<String>,
    /// Set on a thread's first message.
    reply_count: Option<u64>,
    /// Files that were shared with it.
    files: Vec<File>,
}

#[derive(Serialize, JsonSchema)]
pub struct File {
    id: String,
    name: String,
    permalink: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Messages {
    /// A channel's newest first, a thread's oldest first.
    messages: Vec<Message>,
    next_cursor: Option<String>,
}

fn message(value: &Value) -> Message {
    Message {
        ts: text(&value["ts"]),
        user: optional(&value["user"]),
        text: text(&value["text"]),
        thread_ts: optional(&value["thread_ts"]),
        reply_count: value["reply_count"].as_u64(),
        files: list(&value["files"]).iter().map(file).collect(),
    }
}

fn file(value: &Value) -> File {
    File {
        id: text(&value["id"]),
        name: text(&value["name"]),
        permalink: optional(&value["permalink"]),
    }
}

fn messages(body: &Value) -> Messages {
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
