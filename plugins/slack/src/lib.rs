//! Slack, over its Web API (<https://docs.slack.dev/reference/methods>).
//!
//! Slack answers 200 with `ok: false` and an `error` where it refuses, and 429 with `Retry-After` where a method
//! is called too often. It drops no repeated `chat.postMessage`, so of the actions that write only those are idempotent
//! that set what may be set already.

mod api;
mod channels;
mod files;
mod messages;
mod people;

use channels as ch;
use messages as msg;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Credential, CredentialKind, Risk, Shape, Skill, about, action, export_skill,
};

/// Slack's own API; the setting `base_url` names another.
const BASE_URL: &str = "https://slack.com/api";
const BOT_TOKEN: &str = "bot_token";
/// A channel, a group or a direct message.
const CHANNEL_ID: &str = "^[CDG][A-Z0-9]{1,30}$";
const USER_ID: &str = "^[UW][A-Z0-9]{1,30}$";
/// When a message was sent, which is its id in its channel.
const TS: &str = r"^[0-9]{1,12}\.[0-9]{1,9}$";

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
            action("send_message", msg::send_message)
                .title("Send a message")
                .summary("Posts a message to a channel, or as a reply into a thread.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Tell a channel", || json!({ "channel": "#finance", "text": "The Q4 summary is ready." }))
                .example("Reply in a thread", || json!({ "channel": "C024BE91L", "text": "Thanks!", "thread_ts": "1401383885.000061" })),
        )
        .action(
            action("schedule_message", msg::schedule_message)
                .title("Schedule a message")
                .summary("Has Slack post a message at a later time, within 120 days.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Remind a channel", || json!({ "channel": "#finance", "text": "Reminder: close the books.", "post_at": 1_800_000_000 }))
                .example("Into a thread", || json!({ "channel": "C024BE91L", "text": "Any news?", "post_at": 1_800_000_000, "thread_ts": "1401383885.000061" })),
        )
        .action(
            action("cancel_scheduled_message", msg::cancel_scheduled_message)
                .title("Cancel a scheduled message")
                .summary("Takes back a message that Slack has not posted yet.")
                .risk(Risk::Destructive)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Take a reminder back", || json!({ "channel": "C024BE91L", "scheduled_message_id": "Q1298393284" })),
        )
        .action(
            action("update_message", msg::update_message)
                .title("Change a message")
                .summary("Replaces the text of a message that the bot sent.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Correct a message", || json!({ "channel": "C024BE91L", "ts": "1401383885.000061", "text": "The Q4 summary, corrected." })),
        )
        .action(
            action("delete_message", msg::delete_message)
                .title("Delete a message")
                .summary("Deletes a message that the bot sent.")
                .risk(Risk::Destructive)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Take a message back", || json!({ "channel": "C024BE91L", "ts": "1401383885.000061" })),
        )
        .action(
            action("get_permalink", msg::get_permalink)
                .title("Link to a message")
                .summary("The address at which people open a message.")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Of a message", || json!({ "channel": "C024BE91L", "message_ts": "1401383885.000061" })),
        )
        .action(
            action("add_reaction", msg::add_reaction)
                .title("React to a message")
                .summary("Adds an emoji to a message.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Tick a message off", || json!({ "channel": "C024BE91L", "timestamp": "1401383885.000061", "name": "white_check_mark" })),
        )
        .action(
            action("open_conversation", ch::open_conversation)
                .title("Open a direct message")
                .summary("Opens a direct message with one person or several, to send to.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("users", "/users")
                .credential(BOT_TOKEN)
                .example("With one person", || json!({ "users": ["U024BE7LH"] })),
        )
        .action(
            action("create_channel", ch::create_channel)
                .title("Create a channel")
                .summary("Creates a public or private channel, with the bot in it.")
                .risk(Risk::Write)
                .credential(BOT_TOKEN)
                .example("A public channel", || json!({ "name": "q4-closing" }))
                .example("A private one", || json!({ "name": "board-prep", "is_private": true })),
        )
        .action(
            action("invite_to_channel", ch::invite_to_channel)
                .title("Invite people to a channel")
                .summary("Makes people members of a channel that the bot is in.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .scope("users", "/users")
                .credential(BOT_TOKEN)
                .example("Two people", || json!({ "channel": "C024BE91L", "users": ["U024BE7LH", "U0G9QF9C6"] })),
        )
        .action(
            action("join_channel", ch::join_channel)
                .title("Join a channel")
                .summary("Makes the bot a member of a public channel.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Join", || json!({ "channel": "C024BE91L" })),
        )
        .action(
            action("set_topic", ch::set_topic)
                .title("Set a channel's topic")
                .summary("Replaces the topic of a channel that the bot is in.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("A new topic", || json!({ "channel": "C024BE91L", "topic": "Closing Q4" })),
        )
        .action(
            action("upload_file", files::upload_file)
                .title("Upload a file")
                .summary("Shares a file in a channel, with a message.")
                .risk(Risk::Write)
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("A table as text", || json!({ "channel": "C024BE91L", "file_name": "q4.csv", "content": "month,revenue\n", "comment": "The Q4 figures" }))
                .example("Bytes, into a thread", || json!({ "channel": "C024BE91L", "file_name": "dot.gif", "content_base64": "R0lGODlhAQABAAAAACw=", "title": "A dot", "thread_ts": "1401383885.000061" })),
        )
        .action(
            action("list_channels", ch::list_channels)
                .title("List channels")
                .summary("The channels that the bot can see, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(BOT_TOKEN)
                .example("Private ones and groups", || json!({ "types": ["private_channel", "mpim"] }))
                .example("The first hundred", || json!({ "limit": 100, "exclude_archived": true }))
                .example("The next hundred", || json!({ "limit": 100, "exclude_archived": true, "cursor": "dGVhbTpDMDYxRkE1UEI=" })),
        )
        .action(
            action("get_channel", ch::get_channel)
                .title("Look at a channel")
                .summary("A channel's name, topic, purpose and number of members.")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("By id", || json!({ "channel": "C024BE91L" })),
        )
        .action(
            action("list_members", ch::list_members)
                .title("List who is in a channel")
                .summary("The ids of a channel's members, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("The first page", || json!({ "channel": "C024BE91L", "limit": 100 }))
                .example("The next page", || json!({ "channel": "C024BE91L", "limit": 100, "cursor": "dXNlcjpVMDYxTkZUVDI=" })),
        )
        .action(
            action("read_history", msg::read_history)
                .title("Read a channel")
                .summary("The latest messages of a channel, newest first, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("Between two messages, the next page", || json!({ "channel": "C024BE91L", "oldest": "1401383885.000061", "latest": "1401383999.000200", "cursor": "bmV4dF90czoxNTEyMDg1ODYxMDAwNTQz" }))
                .example("The last twenty", || json!({ "channel": "C024BE91L", "limit": 20 })),
        )
        .action(
            action("read_thread", msg::read_thread)
                .title("Read a thread")
                .summary("The messages of a thread, oldest first, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("channels", "/channel")
                .credential(BOT_TOKEN)
                .example("A thread", || json!({ "channel": "C024BE91L", "ts": "1401383885.000061" }))
                .example("The next page of it", || json!({ "channel": "C024BE91L", "ts": "1401383885.000061", "limit": 50, "cursor": "bmV4dF90czoxNTEyMDg1ODYxMDAwNTQz" })),
        )
        .action(
            action("find_user_by_email", people::find_user_by_email)
                .title("Find a person")
                .summary("The member with this e-mail address.")
                .credential(BOT_TOKEN)
                .example("By address", || json!({ "email": "ada@example.com" })),
        )
        .action(
            action("get_user", people::get_user)
                .title("Look at a person")
                .summary("The member with this id: name, title, e-mail address, time zone.")
                .credential(BOT_TOKEN)
                .example("By id", || json!({ "user": "U024BE7LH" })),
        )
        .action(
            action("list_users", people::list_users)
                .title("List people")
                .summary("The members of the workspace, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(BOT_TOKEN)
                .example("The first page", || json!({ "limit": 100 }))
                .example("The next page", || json!({ "limit": 100, "cursor": "dXNlcjpVMDYxTkZUVDI=" })),
        )
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
                "channels:manage",
                "groups:read",
                "groups:history",
                "groups:write",
                "im:history",
                "im:write",
                "mpim:history",
                "mpim:write",
                "files:write",
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
    use serde_json::Value;
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
        let params =
            json!({ "limit": 50, "exclude_archived": true, "types": ["public_channel", "im"] });
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
        let params = json!({ "channel": "C1", "file_name": "a.csv", "content_base64": "aGVsbG8=", "thread_ts": "1.2" });
        let mut call = Conversation::new(skill, "upload_file", params);
        let place = call.request();
        assert_eq!(
            (place.line().as_str(), place.body().as_str()),
            (
                "POST https://slack.com/api/files.getUploadURLExternal",
                "filename=a.csv&length=5"
            )
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
        let share = call.request().body();
        assert_eq!(
            share,
            "channel_id=C1&files=%5B%7B%22id%22%3A%22F1%22%2C%22title%22%3A%22a.csv%22%7D%5D&thread_ts=1.2"
        );
        let done = call.reply(200, json!({ "ok": true })).finish();
        assert_eq!(done.output, json!({ "file_id": "F1", "bytes": 5 }));
    }

    #[test]
    fn a_file_comes_as_text_or_as_base64() {
        let step = |content: Value| {
            let mut params = json!({ "channel": "C1", "file_name": "a.csv" });
            params
                .as_object_mut()
                .expect("an object")
                .extend(content.as_object().expect("an object").clone());
            Conversation::new(skill, "upload_file", params).step()
        };
        assert!(step(json!({ "content": "a,b" })).is_ok());
        for wrong in [
            json!({}),
            json!({ "content": "a", "content_base64": "YQ==" }),
            json!({ "content_base64": "no base64!" }),
        ] {
            assert!(
                matches!(step(wrong.clone()), Err(Failure::InvalidParams(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_there_already_is_as_good_as_done() {
        let outcome = |action, params, code| {
            let mut call = Conversation::new(skill, action, params);
            call.reply(200, json!({ "ok": false, "error": code }));
            call.step().is_ok()
        };
        let reaction = || json!({ "channel": "C1", "timestamp": "1.2", "name": "eyes" });
        assert!(outcome("add_reaction", reaction(), "already_reacted"));
        assert!(!outcome("add_reaction", reaction(), "invalid_name"));
        let invited = |users| json!({ "channel": "C1", "users": users });
        let code = "already_in_channel";
        assert!(outcome("invite_to_channel", invited(json!(["U1"])), code));
        assert!(
            !outcome("invite_to_channel", invited(json!(["U1", "U2"])), code),
            "the other one may have been left out"
        );
    }

    #[test]
    fn slacks_trouble_is_a_pause_only_where_nothing_can_have_happened() {
        let after = |action, params, status, body: Value| {
            let mut call = Conversation::new(skill, action, params);
            call.reply(status, body).failure()
        };
        let trouble = || json!({ "ok": false, "error": "internal_error" });
        for (status, body) in [(200, trouble()), (503, json!("sorry"))] {
            let reading = after("get_user", json!({ "user": "U1" }), status, body.clone());
            assert!(
                matches!(&reading, Failure::Refused(refusal) if refusal.retry_after_ms.is_some()),
                "{reading:?}"
            );
            let sending = json!({ "channel": "C1", "text": "x" });
            let writing = after("send_message", sending, status, body);
            assert!(
                matches!(&writing, Failure::UnexpectedReply(_)),
                "{writing:?}"
            );
        }
    }

    #[test]
    fn what_people_need_to_know_of_a_channel_and_a_message_is_handed_on() {
        let mut call = Conversation::new(skill, "get_channel", json!({ "channel": "C1" }));
        let body = json!({ "ok": true, "channel": { "id": "C1", "name": "finance", "is_private": false, "is_archived": false,
            "is_member": true, "topic": { "value": "Q4" }, "purpose": { "value": "" }, "num_members": 12 } });
        assert_eq!(
            call.reply(200, body).finish().output,
            json!({ "id": "C1", "name": "finance", "is_private": false, "is_archived": false, "is_member": true,
                "topic": "Q4", "purpose": null, "members": 12 })
        );
        let mut call = Conversation::new(skill, "read_history", json!({ "channel": "C1" }));
        let body = json!({ "ok": true, "messages": [
            { "type": "message", "user": "U1", "text": "hello", "ts": "1.2", "thread_ts": "1.2", "reply_count": 3,
              "files": [{ "id": "F1", "name": "a.csv", "permalink": "https://x.slack.com/files/a.csv", "url_private": "https://files.slack.com/a" }] },
            { "type": "message", "subtype": "bot_message", "text": "", "ts": "1.1" }], "has_more": true,
            "response_metadata": { "next_cursor": "bmV4dA==" } });
        assert_eq!(
            call.reply(200, body).finish().output,
            json!({ "messages": [
                { "ts": "1.2", "user": "U1", "text": "hello", "thread_ts": "1.2", "reply_count": 3,
                  "files": [{ "id": "F1", "name": "a.csv", "permalink": "https://x.slack.com/files/a.csv" }] },
                { "ts": "1.1", "user": null, "text": "", "thread_ts": null, "reply_count": null, "files": [] }],
                "next_cursor": "bmV4dA==" })
        );
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
        let remarks = json!({ "ok": false, "error": "invalid_arguments", "response_metadata": { "messages": ["[ERROR] missing required field: text"] } });
        assert_eq!(
            refusal(200, &[], remarks).message,
            "Slack refused: invalid_arguments; [ERROR] missing required field: text"
        );
        let permission = refusal(200, &[], json!({ "ok": false, "error": "no_permission" }));
        assert!(
            !permission.credential_rejected,
            "the token is good, and may not do this"
        );
        for (status, body) in [
            (429, json!({})),
            (200, json!({ "ok": false, "error": "rate_limited" })),
        ] {
            let pause = refusal(status, &[("Retry-After", "7")], body);
            assert_eq!(pause.retry_after_ms, Some(7000));
        }
    }

    #[test]
    fn a_strange_reply_is_said_to_be_strange() {
        let mut call = Conversation::new(skill, "list_channels", json!({}));
        assert!(matches!(
            call.reply_with(200, &[], "<html>").failure(),
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
