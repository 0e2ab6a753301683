//! Slack, over its Web API (<https://docs.slack.dev/reference/methods>).
//!
//! Slack answers 200 with `ok: false` and an `error` where it refuses, and 429 with `Retry-After` where a method
//! is called too often. It drops no repeated `chat.postMessage`, so no action here is idempotent but those that
//! read, and those that set what is set already.

mod actions;

use actions as act;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Credential, CredentialKind, Reply, Risk, Shape, Skill, Stop, about, action, export_skill,
};

/// Slack's own API; the setting `base_url` names another.
const BASE_URL: &str = "https://slack.com/api";
const BOT_TOKEN: &str = "bot_token";
/// Waited where Slack asks to slow down without saying for how long, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 30_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by name, in `Call::base_url`")]
struct Settings {
    /// Where Slack's Web API is.
    #[schemars(url, length(max = 500))]
    base_url: Option<String>,
}

pub fn skill() -> Skill {
    Skill::new("slack", about!("Slack", ["messaging"]))
        .host("slack.com")
        .host("files.slack.com")
        .settings::<Settings>()
        .host_setting("/base_url")
        .action(
            action("send_message", act::send_message)
                .title("Send a message")
                .summary("Posts a message to a channel, or as a reply into a thread.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Tell a channel", json!({ "channel": "#finance", "text": "The Q4 summary is ready." }))
                .example("Reply in a thread", json!({ "channel": "C024BE91L", "text": "Thanks!", "thread_ts": "1401383885.000061" })),
        )
        .action(
            action("schedule_message", act::schedule_message)
                .title("Schedule a message")
                .summary("Has Slack post a message at a later time, within 120 days.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Remind a channel", json!({ "channel": "#finance", "text": "Reminder: close the books.", "post_at": 1_800_000_000 })),
        )
        .action(
            action("update_message", act::update_message)
                .title("Change a message")
                .summary("Replaces the text of a message that the bot sent.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Correct a message", json!({ "channel": "C024BE91L", "ts": "1401383885.000061", "text": "The Q4 summary, corrected." })),
        )
        .action(
            action("delete_message", act::delete_message)
                .title("Delete a message")
                .summary("Deletes a message that the bot sent.")
                .risk(Risk::Destructive)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Take a message back", json!({ "channel": "C024BE91L", "ts": "1401383885.000061" })),
        )
        .action(
            action("add_reaction", act::add_reaction)
                .title("React to a message")
                .summary("Adds an emoji to a message.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Tick a message off", json!({ "channel": "C024BE91L", "timestamp": "1401383885.000061", "name": "white_check_mark" })),
        )
        .action(
            action("open_conversation", act::open_conversation)
                .title("Open a direct message")
                .summary("Opens a direct message with one person or several, to send to.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("users", "/users")
                .credential(BOT_TOKEN)
                .example("With one person", json!({ "users": ["U024BE7LH"] })),
        )
        .action(
            action("join_channel", act::join_channel)
                .title("Join a channel")
                .summary("Makes the bot a member of a public channel.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Join", json!({ "channel": "C024BE91L" })),
        )
        .action(
            action("set_topic", act::set_topic)
                .title("Set a channel's topic")
                .summary("Replaces the topic of a channel that the bot is in.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("A new topic", json!({ "channel": "C024BE91L", "topic": "Closing Q4" })),
        )
        .action(
            action("upload_file", act::upload_file)
                .title("Upload a file")
                .summary("Shares a file in a channel, with a message.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("A small table", json!({ "channel": "C024BE91L", "file_name": "q4.csv", "content_base64": "bW9udGgscmV2ZW51ZQo=", "comment": "The Q4 figures" })),
        )
        .action(
            action("list_channels", act::list_channels)
                .title("List channels")
                .summary("The channels that the bot can see, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(BOT_TOKEN)
                .example("The first hundred", json!({ "limit": 100, "exclude_archived": true })),
        )
        .action(
            action("read_history", act::read_history)
                .title("Read a channel")
                .summary("The latest messages of a channel, newest first, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("The last twenty", json!({ "channel": "C024BE91L", "limit": 20 })),
        )
        .action(
            action("read_thread", act::read_thread)
                .title("Read a thread")
                .summary("The messages of a thread, oldest first, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("A thread", json!({ "channel": "C024BE91L", "ts": "1401383885.000061" })),
        )
        .action(
            action("find_user_by_email", act::find_user_by_email)
                .title("Find a person")
                .summary("The member with this e-mail address.")
                .credential(BOT_TOKEN)
                .example("By address", json!({ "email": "ada@example.com" })),
        )
        .action(
            action("list_users", act::list_users)
                .title("List people")
                .summary("The members of the workspace, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(BOT_TOKEN)
                .example("The first page", json!({ "limit": 100 })),
        )
}

/// The body of a reply that says `ok`; the refusal in Slack's own words otherwise.
fn accepted(reply: &Reply) -> Result<Value, Stop> {
    if reply.status() == 429 {
        let wait = reply.retry_after_ms().unwrap_or(RETRY_AFTER_DEFAULT_MS);
        return Err(Stop::later("ratelimited", "Slack asks to slow down", wait));
    }
    let body = reply.json()?;
    if body["ok"] == true {
        return Ok(body);
    }
    match body["error"].as_str() {
        Some("ratelimited") => Err(Stop::later(
            "ratelimited",
            "Slack asks to slow down",
            RETRY_AFTER_DEFAULT_MS,
        )),
        Some(code) if rejects_credential(code) => Err(Stop::credential_rejected(
            code,
            format!("Slack does not accept the bot token ({code}); store a new one"),
        )),
        Some(code) => Err(Stop::refused(code, explain(code, &body))),
        None => Err(Stop::unexpected(format!(
            "status {} without `ok` or `error`",
            reply.status()
        ))),
    }
}

fn rejects_credential(code: &str) -> bool {
    matches!(
        code,
        "invalid_auth"
            | "not_authed"
            | "account_inactive"
            | "token_revoked"
            | "token_expired"
            | "no_permission"
    )
}

/// What to do about the errors that people meet; Slack's own code for the others.
fn explain(code: &str, body: &Value) -> String {
    match code {
        "channel_not_found" => {
            "Slack knows no such channel, or the bot cannot see it; invite it with /invite".into()
        }
        "not_in_channel" => "the bot is not in the channel; invite it with /invite".into(),
        "is_archived" => "the channel is archived".into(),
        "missing_scope" => {
            let needed = body["needed"].as_str().unwrap_or("another scope");
            format!(
                "the bot token lacks the scope {needed}; add it to the Slack app and install it again"
            )
        }
        "msg_too_long" => "the text is longer than Slack takes (40,000 characters)".into(),
        other => format!("Slack refused: {other}"),
    }
}

pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new(BOT_TOKEN, CredentialKind::BotToken, "Bot token")
            .help("Of your Slack app: OAuth & Permissions, Bot User OAuth Token.")
            .placeholder("xoxb-...")
            .scopes(&[
                "chat:write",
                "channels:read",
                "channels:history",
                "channels:join",
                "channels:write.topic",
                "files:write",
                "im:write",
                "reactions:write",
                "users:read",
                "users:read.email",
            ])
            .shape(Shape {
                prefixes: vec!["xoxb-"],
                length: 20..=512,
                ..Shape::default()
            }),
    ]
}

export_skill!(skill, credentials);

#[cfg(test)]
mod tests {
    use super::*;
    use servicetsunami_plugin::{
        CredentialViolation, Failure,
        testing::{Conversation, examples_run},
    };

    #[test]
    fn a_message_is_posted_with_the_token_by_reference() {
        let params = json!({ "channel": "#finance", "text": "Q4 is done" });
        let request = Conversation::new(skill, "send_message", params.clone()).request();
        assert_eq!(
            request.line(),
            "POST https://slack.com/api/chat.postMessage"
        );
        assert_eq!(
            request.header("authorization").as_deref(),
            Some("Bearer {bot_token}")
        );
        assert_eq!(request.json(), params);
    }

    #[test]
    fn a_reading_action_asks_with_a_query() {
        let params = json!({ "limit": 50, "exclude_archived": true, "types": "public_channel,im" });
        let request = Conversation::new(skill, "list_channels", params)
            .settings(json!({ "base_url": "https://proxy.example/slack/" }))
            .request();
        assert_eq!(
            request.line(),
            "GET https://proxy.example/slack/conversations.list?exclude_archived=true&limit=50&types=public_channel%2Cim"
        );
    }

    #[test]
    fn a_sent_message_ends_the_call() {
        let mut call = Conversation::new(
            skill,
            "send_message",
            json!({ "channel": "#finance", "text": "x" }),
        );
        let done = call
            .reply(200, json!({ "ok": true, "channel": "C1", "ts": "1.2" }))
            .finish();
        assert_eq!(done.summary, "sent to #finance");
        assert_eq!(done.output, json!({ "channel": "C1", "ts": "1.2" }));
    }

    #[test]
    fn a_page_names_the_next_one_until_there_is_none() {
        let page = |cursor: &str| {
            let mut call = Conversation::new(skill, "list_channels", json!({}));
            let body = json!({ "ok": true, "channels": [{ "id": "C1", "name": "finance" }], "response_metadata": { "next_cursor": cursor } });
            call.reply(200, body).finish().output
        };
        assert_eq!(page("dXNlcjpV")["next_cursor"], "dXNlcjpV");
        assert_eq!(page("")["next_cursor"], Value::Null);
        assert_eq!(page("")["channels"][0]["name"], "finance");
    }

    #[test]
    fn a_file_takes_three_requests() {
        let params = json!({ "channel": "C1", "file_name": "a.csv", "content_base64": "aGVsbG8=" });
        let mut call = Conversation::new(skill, "upload_file", params);
        assert_eq!(
            call.request().line(),
            "GET https://slack.com/api/files.getUploadURLExternal?filename=a.csv&length=5"
        );
        call.reply(200, json!({ "ok": true, "upload_url": "https://files.slack.com/upload/v1/x", "file_id": "F1" }));
        let upload = call.request();
        assert_eq!(
            (upload.line().as_str(), upload.body().as_str()),
            ("POST https://files.slack.com/upload/v1/x", "hello")
        );
        assert_eq!(
            upload.header("authorization"),
            None,
            "the upload URL is the permission"
        );
        call.reply_with(200, &[], "OK - 5");
        assert_eq!(
            call.request().json()["files"],
            json!([{ "id": "F1", "title": "a.csv" }])
        );
        let done = call.reply(200, json!({ "ok": true })).finish();
        assert_eq!(done.output, json!({ "file_id": "F1", "bytes": 5 }));
    }

    #[test]
    fn what_slack_refuses_comes_in_its_own_words() {
        let refusal = |status, headers: &[(&str, &str)], body: Value| {
            let mut call = Conversation::new(
                skill,
                "send_message",
                json!({ "channel": "C1", "text": "x" }),
            );
            call.reply_with(status, headers, body.to_string()).refusal()
        };
        let gone = refusal(
            200,
            &[],
            json!({ "ok": false, "error": "channel_not_found" }),
        );
        assert_eq!(
            (
                gone.code.as_str(),
                gone.credential_rejected,
                gone.retry_after_ms
            ),
            ("channel_not_found", false, None)
        );
        assert!(
            refusal(200, &[], json!({ "ok": false, "error": "token_revoked" })).credential_rejected
        );
        assert!(
            refusal(
                200,
                &[],
                json!({ "ok": false, "error": "missing_scope", "needed": "chat:write" })
            )
            .message
            .contains("chat:write")
        );
        assert_eq!(
            refusal(429, &[("Retry-After", "7")], json!({})).retry_after_ms,
            Some(7000)
        );
    }

    #[test]
    fn a_strange_reply_is_said_to_be_strange() {
        let mut call = Conversation::new(skill, "list_channels", json!({}));
        assert!(matches!(
            call.reply_with(502, &[], "<html>").failure(),
            Failure::UnexpectedReply(_)
        ));
    }

    #[test]
    fn a_token_is_checked_by_its_shape() {
        let check = |value| Credential::check_among(&credentials(), BOT_TOKEN, value);
        assert_eq!(check("xoxb-1234567890-abcdefgh"), Ok(()));
        assert_eq!(
            check("xoxp-1234567890-abcdefgh"),
            Err(CredentialViolation::WrongPrefix)
        );
        assert_eq!(check("xoxb-1"), Err(CredentialViolation::TooShort));
        assert_eq!(
            check("xoxb-123456789012345\r\nX"),
            Err(CredentialViolation::WrongCharacters)
        );
        assert_eq!(check(""), Err(CredentialViolation::Empty));
    }

    #[test]
    fn every_example_runs() {
        examples_run(skill);
    }
}
