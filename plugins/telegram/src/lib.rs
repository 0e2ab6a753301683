//! Telegram, over its Bot API (<https://core.telegram.org/bots/api>).
//!
//! The token stands in the path of each request. Telegram drops no repeated message: only what reads, or sets what
//! is set already, is idempotent.

mod api;
mod chats;
mod messages;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Credential, CredentialKind, CredentialViolation, Risk, Shape, Skill, about, action,
    export_skill,
};

/// Telegram's own server; the setting `base_url` names another.
const BASE_URL: &str = "https://api.telegram.org";
const BOT_TOKEN: &str = "bot_token";

/// A chat: its id, or the name of a public one. Without leading zeros, so that each chat is written in one way.
const CHAT_ID: &str = r"^(@[A-Za-z0-9_]{4,32}|-?[1-9][0-9]{0,19})$";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by name, in `Call::base_url`")]
struct Settings {
    /// Where the Bot API is, for a server or proxy of your own.
    #[schemars(url, length(max = 500))]
    base_url: Option<String>,
}

pub fn skill() -> Skill {
    let skill = Skill::new("telegram", about!("Telegram", ["messaging"]))
        .host("api.telegram.org")
        .settings::<Settings>()
        .host_setting("/base_url");
    reading(changing(sending(skill)))
}

fn sending(skill: Skill) -> Skill {
    skill
        .action(
            action("send_message", messages::send_message)
                .title("Send a message")
                .summary("Sends a text to a chat, a topic, or as a reply.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Tell a group", || json!({ "chat_id": "-1001234567890", "text": "The Q4 summary is ready." }))
                .example("Reply with marks and a button", || json!({
                    "chat_id": "@finance_news", "text": "<b>Q4</b> is closed", "parse_mode": "HTML", "reply_to_message_id": 42,
                    "message_thread_id": 7, "buttons": [[{ "text": "Open", "url": "https://example.com/q4" }]],
                    "disable_link_preview": true, "disable_notification": true, "protect_content": true,
                })),
        )
        .action(
            action("send_photo", messages::send_photo)
                .title("Send a photo")
                .summary("Sends an image from a URL, one that Telegram has already, or one of up to 700 kB from here.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("From a URL", || json!({ "chat_id": "-1001234567890", "file": "https://example.com/chart.png", "caption": "Q4" }))
                .example("From here", || json!({ "chat_id": "-1001234567890", "content_base64": "iVBORw0KGgo=", "file_name": "chart.png", "reply_to_message_id": 42, "protect_content": false })),
        )
        .action(
            action("send_document", messages::send_document)
                .title("Send a file")
                .summary("Sends a file from a URL, one that Telegram has already, or one of up to 700 kB from here.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("One that Telegram has", || json!({ "chat_id": "123456789", "file": "BQACAgIAAxkBAAIBQ2" }))
                .example("From here", || json!({ "chat_id": "123456789", "content_base64": "bW9udGgscmV2ZW51ZQo=", "file_name": "q4.csv", "caption": "<i>Q4</i>", "parse_mode": "HTML" })),
        )
        .action(
            action("send_location", messages::send_location)
                .title("Send a place")
                .summary("Sends a point on the map.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Where we meet", || json!({ "chat_id": "123456789", "latitude": 52.52, "longitude": 13.405, "horizontal_accuracy": 30.0 })),
        )
        .action(
            action("send_poll", messages::send_poll)
                .title("Send a poll")
                .summary("Asks a chat a question with fixed answers.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("A choice", || json!({ "chat_id": "-1001234567890", "question": "Lunch?", "options": ["Yes", "No"], "is_anonymous": false, "allows_multiple_answers": false })),
        )
        .action(
            action("forward_message", messages::forward_message)
                .title("Forward a message")
                .summary("Sends a message of one chat on to another, with who wrote it.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .scope("chats", "/from_chat_id")
                .credential(BOT_TOKEN)
                .example("To a group", || json!({ "chat_id": "-1001234567890", "from_chat_id": "123456789", "message_id": 42 })),
        )
}

fn changing(skill: Skill) -> Skill {
    skill
        .action(
            action("edit_message", messages::edit_message)
                .title("Change a message")
                .summary("Replaces the text and the buttons of a message that the bot sent.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Correct a message", || json!({ "chat_id": "-1001234567890", "message_id": 42, "text": "The Q4 summary, corrected." })),
        )
        .action(
            action("edit_caption", messages::edit_caption)
                .title("Change a caption")
                .summary("Replaces what stands below a photo or a file that the bot sent.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Correct a caption", || json!({ "chat_id": "-1001234567890", "message_id": 42, "caption": "*Q4*", "parse_mode": "MarkdownV2" })),
        )
        .action(
            action("delete_message", messages::delete_message)
                .title("Delete a message")
                .summary("Deletes a message for everybody: the bot's own within 48 hours, others' as an administrator.")
                .risk(Risk::Destructive)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Take a message back", || json!({ "chat_id": "-1001234567890", "message_id": 42 })),
        )
        .action(
            action("set_reaction", messages::set_reaction)
                .title("React to a message")
                .summary("Sets the bot's reaction to a message, or takes it away.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Agree", || json!({ "chat_id": "-1001234567890", "message_id": 42, "emoji": "👍" }))
                .example("No reaction", || json!({ "chat_id": "-1001234567890", "message_id": 42 })),
        )
        .action(
            action("pin_message", messages::pin_message)
                .title("Pin a message")
                .summary("Keeps a message at the top of the chat.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Without telling anybody", || json!({ "chat_id": "-1001234567890", "message_id": 42, "disable_notification": true })),
        )
        .action(
            action("unpin_message", messages::unpin_message)
                .title("Unpin a message")
                .summary("Takes a message from the top of the chat.")
                .risk(Risk::Write)
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Unpin", || json!({ "chat_id": "-1001234567890", "message_id": 42 })),
        )
}

fn reading(skill: Skill) -> Skill {
    skill
        .action(
            action("get_updates", chats::get_updates)
                .title("Read what came in")
                .summary("What was written to the bot in the last 24 hours, oldest first, a page at a time. Telegram forgets a page when it is asked for the next one.")
                .risk(Risk::Write)
                .idempotent(true)
                .pages("/cursor", "/next_cursor")
                .credential(BOT_TOKEN)
                .example("The first ones", || json!({}))
                .example("The next ones", || json!({ "cursor": 874_199_392, "limit": 20, "kinds": ["message", "channel_post"] })),
        )
        .action(
            action("get_file", chats::get_file)
                .title("Read a file")
                .summary("The content of a file of up to 750 kB that somebody sent, in base64.")
                .credential(BOT_TOKEN)
                .example("A file", || json!({ "file_id": "BQACAgIAAxkBAAIBQ2" })),
        )
        .action(
            action("get_chat", chats::get_chat)
                .title("Look a chat up")
                .summary("A chat's kind, title and description.")
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("By name", || json!({ "chat_id": "@finance_news" })),
        )
        .action(
            action("list_administrators", chats::list_administrators)
                .title("List a chat's administrators")
                .summary("Who runs a group or channel.")
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("Of a group", || json!({ "chat_id": "-1001234567890" })),
        )
        .action(
            action("get_member", chats::get_member)
                .title("Look a member up")
                .summary("Whether a person is in a group or channel, and as what.")
                .scope("chats", "/chat_id")
                .credential(BOT_TOKEN)
                .example("A person", || json!({ "chat_id": "-1001234567890", "user_id": 123_456_789 })),
        )
        .action(
            action("get_me", chats::get_me)
                .title("Which bot")
                .summary("The bot's name and id: a way to try the token out.")
                .credential(BOT_TOKEN)
                .example("Which", || json!({})),
        )
}

pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new(BOT_TOKEN, CredentialKind::BotToken, "Bot token")
            .help("@BotFather in Telegram gives it: /newbot for a new bot, /token for one that you have.")
            .placeholder("123456789:AAF...")
            .shape(Shape {
                length: 30..=100,
                allows: |c| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-'),
                ..Shape::default()
            })
            .check(check_token),
    ]
}

/// The bot's id, a colon, and what is secret.
fn check_token(token: &str) -> Result<(), CredentialViolation> {
    let is_secret = |secret: &str| secret.len() >= 30 && !secret.contains(':');
    match token.split_once(':') {
        Some((id, secret)) if id.parse::<u64>().is_ok() && is_secret(secret) => Ok(()),
        _ => Err(CredentialViolation::WrongKind),
    }
}

export_skill!(skill, credentials);

#[cfg(test)]
mod tests;
