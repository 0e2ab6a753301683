//! What is in the mailbox.

use super::{ID, id, posting, reading, repeatable};
use crate::read::{self, BASE64_URL, Message, Summary};
use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use servicetsunami_plugin::{Call, Done, Failure, Request, Stop};

/// Messages whose headers one call can ask for, each with a request of its own: the gateway makes 32 for a call.
const DETAILED_MAX: u32 = 25;
/// Messages of a page where nothing else is said.
const LIMIT_DEFAULT: u32 = 10;
/// Text of one message, in bytes, and of its HTML: escaped as JSON, both fit the 1 MiB of an answer.
const TEXT_BYTES_MAX: usize = 100_000;
/// Text of a whole conversation, in bytes, and of one message in it.
const THREAD_BYTES_MAX: usize = 300_000;
const THREAD_MESSAGE_BYTES_MAX: usize = 30_000;
/// A file of this size, in base64 and JSON, fits an answer of 1 MiB.
const ATTACHMENT_BYTES_MAX: usize = 750_000;
/// What a list needs to know of a message.
const SUMMARY_FIELDS: &str = "id,threadId,labelIds,snippet,internalDate,payload/headers";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchMessages {
    /// What to look for, as in Gmail's search field: `from:ada@example.com is:unread newer_than:7d`.
    #[schemars(length(min = 1, max = 2000))]
    query: Option<String>,
    /// Only messages that have all of these labels: `INBOX`, `UNREAD`, or an id that `list_labels` gives.
    #[serde(default)]
    #[schemars(length(max = 20), inner(length(min = 1, max = 200)))]
    label_ids: Vec<String>,
    /// Whether spam and trash are searched as well.
    include_spam_trash: Option<bool>,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Messages of a page; 10 unless set.
    #[schemars(range(min = 1, max = 25))]
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Messages {
    /// Newest first.
    messages: Vec<Summary>,
    next_cursor: Option<String>,
    /// About how many there are in all.
    estimated_total: Option<u64>,
}

/// Gmail's list names ids alone, so each message is asked for as well.
pub fn search_messages(call: &mut Call, params: SearchMessages) -> Result<Done<Messages>, Stop> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT).min(DETAILED_MAX);
    let request = found(reading(call, "messages"), params, limit);
    let body = repeatable(call, request)?;
    let mut messages = Vec::new();
    for item in read::list(&body["messages"]) {
        let mut request = reading(call, "messages")
            .path(id(&item["id"])?)
            .query("format", "metadata")
            .query("fields", SUMMARY_FIELDS);
        for name in ["From", "To", "Subject", "Date"] {
            request = request.query("metadataHeaders", name);
        }
        match repeatable(call, request) {
            Err(Stop::Fail(Failure::Refused(refusal))) if refusal.code == "notFound" => {} // deleted meanwhile
            message => messages.push(read::summary(&message?)),
        }
    }
    let page = Messages {
        messages,
        next_cursor: read::optional(&body["nextPageToken"]),
        estimated_total: body["resultSizeEstimate"].as_u64(),
    };
    let summary = format!("{} messages", page.messages.len());
    Ok(Done::new(page, summary))
}

/// What `messages.list` and `threads.list` have in common.
fn found(mut request: Request, params: SearchMessages, limit: u32) -> Request {
    request = request
        .query_opt("q", params.query)
        .query_opt("includeSpamTrash", params.include_spam_trash)
        .query_opt("pageToken", params.cursor)
        .query("maxResults", limit);
    for label in params.label_ids {
        request = request.query("labelIds", label);
    }
    request
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetMessage {
    /// As `search_messages` and `get_thread` give it.
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    message_id: String,
    /// Whether to give the HTML as well, beside the text.
    include_html: Option<bool>,
}

pub fn get_message(call: &mut Call, params: GetMessage) -> Result<Done<Message>, Stop> {
    let request = reading(call, "messages")
        .path(&params.message_id)
        .query("format", "full");
    let body = repeatable(call, request)?;
    id(&body["id"])?;
    let message = read::message(&body, params.include_html == Some(true), TEXT_BYTES_MAX);
    let summary = format!("read {}", subject(&message.summary));
    Ok(Done::new(message, summary))
}

fn subject(message: &Summary) -> String {
    match &message.subject {
        Some(subject) => format!("\"{}\"", read::cut(subject, 100)),
        None => "a message without a subject".into(),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetAttachment {
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    message_id: String,
    /// As `get_message` and `get_thread` give it.
    #[schemars(length(min = 1, max = 2000), regex(pattern = r"^[A-Za-z0-9_=-]+$"))]
    attachment_id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Content {
    /// The file in base64.
    content_base64: String,
    bytes: usize,
}

pub fn get_attachment(call: &mut Call, params: GetAttachment) -> Result<Done<Content>, Stop> {
    let request = reading(call, "messages")
        .path(&params.message_id)
        .raw_path("/attachments")
        .path(&params.attachment_id);
    let body = repeatable(call, request)?;
    let data = body["data"]
        .as_str()
        .ok_or_else(|| Stop::unexpected("an attachment without `data`"))?;
    let content = BASE64_URL.decode(data).map_err(|error| {
        Stop::unexpected(format!("an attachment that is no base64url: {error}"))
    })?;
    let bytes = content.len();
    if bytes > ATTACHMENT_BYTES_MAX {
        return Err(Stop::refused(
            "attachment_too_large",
            format!(
                "the file has {bytes} bytes; {ATTACHMENT_BYTES_MAX} can be handed over: have a person open it in Gmail"
            ),
        ));
    }
    let content = Content {
        content_base64: BASE64_STANDARD.encode(content),
        bytes,
    };
    Ok(Done::new(
        content,
        format!("read an attachment of {bytes} bytes"),
    ))
}

#[derive(Serialize, JsonSchema)]
pub struct Threads {
    threads: Vec<ThreadSummary>,
    next_cursor: Option<String>,
    /// About how many there are in all.
    estimated_total: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub struct ThreadSummary {
    thread_id: String,
    /// The beginning of its newest message.
    snippet: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListThreads {
    /// What to look for, as in Gmail's search field.
    #[schemars(length(min = 1, max = 2000))]
    query: Option<String>,
    /// Only conversations with a message that has all of these labels.
    #[serde(default)]
    #[schemars(length(max = 20), inner(length(min = 1, max = 200)))]
    label_ids: Vec<String>,
    /// Whether spam and trash are searched as well.
    include_spam_trash: Option<bool>,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Conversations of a page; 10 unless set.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
}

pub fn list_threads(call: &mut Call, params: ListThreads) -> Result<Done<Threads>, Stop> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    let search = SearchMessages {
        query: params.query,
        label_ids: params.label_ids,
        include_spam_trash: params.include_spam_trash,
        cursor: params.cursor,
        limit: None,
    };
    let request = found(reading(call, "threads"), search, limit);
    let body = repeatable(call, request)?;
    let summary = |thread: &Value| ThreadSummary {
        thread_id: read::text(&thread["id"]),
        snippet: crate::html::unescaped(thread["snippet"].as_str().unwrap_or_default()),
    };
    let page = Threads {
        threads: read::list(&body["threads"]).iter().map(summary).collect(),
        next_cursor: read::optional(&body["nextPageToken"]),
        estimated_total: body["resultSizeEstimate"].as_u64(),
    };
    let summary = format!("{} conversations", page.threads.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetThread {
    /// As `list_threads` and every message give it.
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    thread_id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Thread {
    thread_id: String,
    /// Oldest first. Texts are cut where the conversation is long; `get_message` gives them whole.
    messages: Vec<Message>,
}

pub fn get_thread(call: &mut Call, params: GetThread) -> Result<Done<Thread>, Stop> {
    let request = reading(call, "threads")
        .path(&params.thread_id)
        .query("format", "full");
    let body = repeatable(call, request)?;
    let mut left = THREAD_BYTES_MAX;
    let mut messages = Vec::new();
    for value in read::list(&body["messages"]) {
        let message = read::message(value, false, left.min(THREAD_MESSAGE_BYTES_MAX));
        left = left.saturating_sub(message.text.len());
        messages.push(message);
    }
    let thread = Thread {
        thread_id: id(&body["id"])?,
        messages,
    };
    let summary = match thread.messages.first() {
        Some(first) => format!(
            "read {} messages of {}",
            thread.messages.len(),
            subject(&first.summary)
        ),
        None => "an empty conversation".into(),
    };
    Ok(Done::new(thread, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrashMessage {
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    message_id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Filed {
    id: String,
    thread_id: String,
    /// Those that it has now.
    label_ids: Vec<String>,
}

pub fn filed(message: &Value) -> Result<Filed, Stop> {
    Ok(Filed {
        id: id(&message["id"])?,
        thread_id: read::text(&message["threadId"]),
        label_ids: read::texts(&message["labelIds"]),
    })
}

pub fn trash_message(call: &mut Call, params: TrashMessage) -> Result<Done<Filed>, Stop> {
    let request = posting(call, "messages")
        .path(&params.message_id)
        .raw_path("/trash");
    let message = filed(&repeatable(call, request)?)?;
    Ok(Done::new(message, "moved a message to the trash"))
}

pub fn untrash_message(call: &mut Call, params: TrashMessage) -> Result<Done<Filed>, Stop> {
    let request = posting(call, "messages")
        .path(&params.message_id)
        .raw_path("/untrash");
    let message = filed(&repeatable(call, request)?)?;
    Ok(Done::new(message, "took a message out of the trash"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetProfile {}

#[derive(Serialize, JsonSchema)]
pub struct Profile {
    email_address: String,
    messages_total: u64,
    threads_total: u64,
}

pub fn get_profile(call: &mut Call, _: GetProfile) -> Result<Done<Profile>, Stop> {
    let request = reading(call, "profile");
    let body = repeatable(call, request)?;
    let profile = Profile {
        email_address: id(&body["emailAddress"])?,
        messages_total: body["messagesTotal"].as_u64().unwrap_or_default(),
        threads_total: body["threadsTotal"].as_u64().unwrap_or_default(),
    };
    let summary = format!("the mailbox of {}", profile.email_address);
    Ok(Done::new(profile, summary))
}
