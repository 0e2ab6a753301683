//! What the skill can do, an entry an action.

use serde_json::{Value, json};
use servicetsunami_plugin::Risk;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

pub struct Definition {
    pub name: &'static str,
    pub title: &'static str,
    pub summary: &'static str,
    pub risk: Risk,
    /// Slack's method, and how it is called.
    pub api_method: &'static str,
    pub method: Method,
    pub params: fn() -> Value,
    pub example: fn() -> Value,
    pub output: fn() -> Value,
    pub scope: &'static [(&'static str, &'static str)],
    /// The output, from Slack's reply.
    pub pick: fn(&Value) -> Value,
    /// The line for the trace, from the parameters and the reply.
    pub tell: fn(&Value, &Value) -> String,
}

const CHANNELS: &[(&str, &str)] = &[("channels", "/channel")];

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
            "properties": properties, "required": required })
}

fn channel() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 80, "description": "A channel by name (`#finance`) or id (`C024BE91L`)." })
}
fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 40000, "description": "The message, in Slack's mrkdwn." })
}
fn timestamp() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]+\\.[0-9]+$", "description": "A message's `ts`: its id within the channel." })
}
fn limit() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": 200 })
}
fn cursor() -> Value {
    json!({ "type": "string", "maxLength": 500, "description": "`next_cursor` of the page before." })
}
fn message_id() -> Value {
    object(
        json!({ "channel": { "type": "string" }, "ts": { "type": "string" } }),
        &["channel", "ts"],
    )
}
fn pick_message_id(body: &Value) -> Value {
    json!({ "channel": body["channel"], "ts": body["ts"] })
}
fn name_of(params: &Value, field: &str) -> String {
    params[field].as_str().unwrap_or("?").to_owned()
}
fn next_cursor(body: &Value) -> Value {
    match body["response_metadata"]["next_cursor"].as_str() {
        Some(cursor) if !cursor.is_empty() => json!(cursor),
        _ => Value::Null,
    }
}
fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

pub const ACTIONS: &[Definition] = &[
    Definition {
        name: "send_message",
        title: "Send a message",
        summary: "Posts a message to a channel, or as a reply into a thread.",
        risk: Risk::Write,
        api_method: "chat.postMessage",
        method: Method::Post,
        params: || {
            object(
                json!({ "channel": channel(), "text": text(), "thread_ts": timestamp() }),
                &["channel", "text"],
            )
        },
        example: || json!({ "channel": "#finance", "text": "The Q4 summary is ready." }),
        output: message_id,
        scope: CHANNELS,
        pick: pick_message_id,
        tell: |params, _| format!("sent to {}", name_of(params, "channel")),
    },
    Definition {
        name: "schedule_message",
        title: "Schedule a message",
        summary: "Has Slack post a message at a later time, within 120 days.",
        risk: Risk::Write,
        api_method: "chat.scheduleMessage",
        method: Method::Post,
        params: || {
            object(
                json!({ "channel": channel(), "text": text(), "post_at": { "type": "integer", "minimum": 0, "description": "Seconds since 1970-01-01T00:00:00Z." } }),
                &["channel", "text", "post_at"],
            )
        },
        example: || json!({ "channel": "#finance", "text": "Reminder: close the books.", "post_at": 1_800_000_000 }),
        output: || {
            object(
                json!({ "channel": { "type": "string" }, "scheduled_message_id": { "type": "string" } }),
                &["scheduled_message_id"],
            )
        },
        scope: CHANNELS,
        pick: |body| json!({ "channel": body["channel"], "scheduled_message_id": body["scheduled_message_id"] }),
        tell: |params, _| format!("scheduled for {}", name_of(params, "channel")),
    },
    Definition {
        name: "update_message",
        title: "Change a message",
        summary: "Replaces the text of a message that the bot sent.",
        risk: Risk::Write,
        api_method: "chat.update",
        method: Method::Post,
        params: || {
            object(
                json!({ "channel": channel(), "ts": timestamp(), "text": text() }),
                &["channel", "ts", "text"],
            )
        },
        example: || json!({ "channel": "C024BE91L", "ts": "1401383885.000061", "text": "The Q4 summary, corrected." }),
        output: message_id,
        scope: CHANNELS,
        pick: pick_message_id,
        tell: |params, _| format!("changed a message in {}", name_of(params, "channel")),
    },
    Definition {
        name: "delete_message",
        title: "Delete a message",
        summary: "Deletes a message that the bot sent.",
        risk: Risk::Destructive,
        api_method: "chat.delete",
        method: Method::Post,
        params: || {
            object(
                json!({ "channel": channel(), "ts": timestamp() }),
                &["channel", "ts"],
            )
        },
        example: || json!({ "channel": "C024BE91L", "ts": "1401383885.000061" }),
        output: message_id,
        scope: CHANNELS,
        pick: pick_message_id,
        tell: |params, _| format!("deleted a message in {}", name_of(params, "channel")),
    },
    Definition {
        name: "add_reaction",
        title: "React to a message",
        summary: "Adds an emoji to a message.",
        risk: Risk::Write,
        api_method: "reactions.add",
        method: Method::Post,
        params: || {
            object(
                json!({ "channel": channel(), "timestamp": timestamp(), "name": { "type": "string", "pattern": "^[a-z0-9_+-]{1,100}$", "description": "The emoji's name, without colons." } }),
                &["channel", "timestamp", "name"],
            )
        },
        example: || json!({ "channel": "C024BE91L", "timestamp": "1401383885.000061", "name": "white_check_mark" }),
        output: || object(json!({}), &[]),
        scope: CHANNELS,
        pick: |_| json!({}),
        tell: |params, _| format!("reacted with {}", name_of(params, "name")),
    },
    Definition {
        name: "open_conversation",
        title: "Open a direct message",
        summary: "Opens a direct message with one person or several, to send to.",
        risk: Risk::Write,
        api_method: "conversations.open",
        method: Method::Post,
        params: || {
            object(
                json!({ "users": { "type": "string", "minLength": 1, "maxLength": 200, "description": "User ids, separated by commas." } }),
                &["users"],
            )
        },
        example: || json!({ "users": "U024BE7LH" }),
        output: || object(json!({ "channel": { "type": "string" } }), &["channel"]),
        scope: &[("users", "/users")],
        pick: |body| json!({ "channel": body["channel"]["id"] }),
        tell: |params, _| format!("opened a conversation with {}", name_of(params, "users")),
    },
    Definition {
        name: "list_channels",
        title: "List channels",
        summary: "The channels that the bot can see, a page at a time.",
        risk: Risk::Read,
        api_method: "conversations.list",
        method: Method::Get,
        params: || {
            object(
                json!({ "cursor": cursor(), "limit": limit(), "exclude_archived": { "type": "boolean" }, "types": { "type": "string", "pattern": "^(public_channel|private_channel|mpim|im)(,(public_channel|private_channel|mpim|im))*$" } }),
                &[],
            )
        },
        example: || json!({ "limit": 100, "exclude_archived": true }),
        output: || {
            object(
                json!({ "channels": { "type": "array", "items": { "type": "object" } }, "next_cursor": { "type": ["string", "null"] } }),
                &["channels"],
            )
        },
        scope: &[],
        pick: |body| {
            let channels: Vec<Value> = body["channels"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|c| json!({ "id": c["id"], "name": c["name"], "is_private": c["is_private"], "is_member": c["is_member"] }))
                .collect();
            json!({ "channels": channels, "next_cursor": next_cursor(body) })
        },
        tell: |_, body| format!("{} channels", count(&body["channels"])),
    },
    Definition {
        name: "read_history",
        title: "Read a channel",
        summary: "The latest messages of a channel, newest first, a page at a time.",
        risk: Risk::Read,
        api_method: "conversations.history",
        method: Method::Get,
        params: || {
            object(
                json!({ "channel": channel(), "cursor": cursor(), "limit": limit(), "oldest": timestamp(), "latest": timestamp() }),
                &["channel"],
            )
        },
        example: || json!({ "channel": "C024BE91L", "limit": 20 }),
        output: || {
            object(
                json!({ "messages": { "type": "array", "items": { "type": "object" } }, "next_cursor": { "type": ["string", "null"] } }),
                &["messages"],
            )
        },
        scope: CHANNELS,
        pick: |body| {
            let messages: Vec<Value> = body["messages"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|m| json!({ "ts": m["ts"], "user": m["user"], "text": m["text"], "thread_ts": m["thread_ts"] }))
                .collect();
            json!({ "messages": messages, "next_cursor": next_cursor(body) })
        },
        tell: |params, body| {
            format!(
                "{} messages of {}",
                count(&body["messages"]),
                name_of(params, "channel")
            )
        },
    },
    Definition {
        name: "find_user_by_email",
        title: "Find a person",
        summary: "The member with this e-mail address.",
        risk: Risk::Read,
        api_method: "users.lookupByEmail",
        method: Method::Get,
        params: || {
            object(
                json!({ "email": { "type": "string", "format": "email", "maxLength": 320 } }),
                &["email"],
            )
        },
        example: || json!({ "email": "ada@example.com" }),
        output: || {
            object(
                json!({ "id": { "type": "string" }, "name": { "type": "string" }, "real_name": { "type": ["string", "null"] } }),
                &["id"],
            )
        },
        scope: &[],
        pick: |body| json!({ "id": body["user"]["id"], "name": body["user"]["name"], "real_name": body["user"]["real_name"] }),
        tell: |_, body| {
            format!(
                "found {}",
                body["user"]["name"].as_str().unwrap_or("nobody")
            )
        },
    },
];
