//! Gmail, over its REST API (<https://developers.google.com/workspace/gmail/api/reference/rest>).
//!
//! Messages are written here as they travel (`mime`) and handed over in base64url, and read from the tree of parts
//! that Gmail makes of them (`read`). Gmail drops no repeated message: only what reads, or sets what is set already,
//! is idempotent.

mod actions;
mod html;
mod mime;
mod read;
mod refusal;

use actions::{labels, mailbox, send};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    ClientAuthentication, Credential, CredentialKind, CredentialViolation, Oauth, Risk, Shape,
    Skill, about, action, export_skill,
};

/// Google's own API; the setting `base_url` names another.
const BASE_URL: &str = "https://gmail.googleapis.com";
const ACCESS_TOKEN: &str = "access_token";
const CLIENT_ID: &str = "client_id";
const CLIENT_SECRET: &str = "client_secret";
/// Everything here but deleting for good, which no action does.
const OAUTH_SCOPE: &str = "https://www.googleapis.com/auth/gmail.modify";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by name, in `Call::base_url`")]
struct Settings {
    /// Where Gmail's API is, for a proxy of your own.
    #[schemars(url, length(max = 500))]
    base_url: Option<String>,
}

pub fn skill() -> Skill {
    let skill = Skill::new("gmail", about!("Gmail", ["email"]))
        .host("gmail.googleapis.com")
        .settings::<Settings>()
        .host_setting("/base_url");
    filing(reading(sending(skill)))
}

fn sending(skill: Skill) -> Skill {
    skill
        .action(
            action("send_message", send::send_message)
                .title("Send a message")
                .summary("Sends an e-mail in plain text, HTML or both, with attachments, or as an answer within a conversation.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("recipients", "/cc")
                .scope("recipients", "/bcc")
                .scope("senders", "/from/address")
                .credential(ACCESS_TOKEN)
                .example("In plain text", || json!({ "to": ["ada@example.com"], "subject": "Q4", "text": "The summary is ready." }))
                .example("In HTML with a file", || json!({
                    "to": ["ada@example.com"], "cc": ["grace@example.com"], "bcc": ["archive@example.com"],
                    "from": { "address": "office@example.com", "name": "Büro" },
                    "subject": "Übersicht Q4", "text": "See the table.", "html": "<p>See the <b>table</b>.</p>",
                    "attachments": [{ "file_name": "q4.csv", "content_type": "text/csv", "content_base64": "bW9udGgscmV2ZW51ZQo=" }],
                }))
                .example("Answer a message", || json!({ "to": ["ada@example.com"], "text": "Thanks!", "reply_to_message_id": "18c2f0a1b2c3d4e5" })),
        )
        .action(
            action("create_draft", send::create_draft)
                .title("Write a draft")
                .summary("Puts a message into the drafts, for a person or `send_draft` to send.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("recipients", "/cc")
                .scope("recipients", "/bcc")
                .scope("senders", "/from/address")
                .credential(ACCESS_TOKEN)
                .example("A draft", || json!({ "to": ["ada@example.com"], "subject": "Q4", "text": "The summary is nearly ready." }))
                .example("A draft of an answer", || json!({ "to": ["ada@example.com"], "text": "I shall look.", "reply_to_message_id": "18c2f0a1b2c3d4e5" })),
        )
        .action(
            action("update_draft", send::update_draft)
                .title("Change a draft")
                .summary("Replaces all that a draft says.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("recipients", "/message/to")
                .scope("recipients", "/message/cc")
                .scope("recipients", "/message/bcc")
                .scope("senders", "/message/from/address")
                .credential(ACCESS_TOKEN)
                .example("Another text", || json!({ "draft_id": "r-8123456789", "message": { "to": ["ada@example.com"], "subject": "Q4", "text": "It is ready." } })),
        )
        .action(
            action("send_draft", send::send_draft)
                .title("Send a draft")
                .summary("Sends a draft, after reading that it goes to the named recipients and nobody else.")
                .risk(Risk::Write)
                .scope("recipients", "/recipients")
                .credential(ACCESS_TOKEN)
                .example("Send it", || json!({ "draft_id": "r-8123456789", "recipients": ["ada@example.com"] })),
        )
        .action(
            action("list_drafts", send::list_drafts)
                .title("List drafts")
                .summary("The drafts of the mailbox, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(ACCESS_TOKEN)
                .example("Drafts about Q4", || json!({ "query": "subject:Q4", "limit": 20 })),
        )
}

fn reading(skill: Skill) -> Skill {
    skill
        .action(
            action("search_messages", mailbox::search_messages)
                .title("Search messages")
                .summary("The messages that Gmail's search finds, newest first, each with sender, subject and beginning, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(ACCESS_TOKEN)
                .example("Unread this week", || json!({ "query": "is:unread newer_than:7d", "limit": 5 }))
                .example("In two labels", || json!({ "label_ids": ["INBOX", "STARRED"], "include_spam_trash": false })),
        )
        .action(
            action("get_message", mailbox::get_message)
                .title("Read a message")
                .summary("One message: its headers, its text, and what is attached.")
                .credential(ACCESS_TOKEN)
                .example("As text", || json!({ "message_id": "18c2f0a1b2c3d4e5" }))
                .example("With its HTML", || json!({ "message_id": "18c2f0a1b2c3d4e5", "include_html": true })),
        )
        .action(
            action("get_attachment", mailbox::get_attachment)
                .title("Read an attachment")
                .summary("The content of an attached file of up to 750 kB, in base64.")
                .credential(ACCESS_TOKEN)
                .example("A file", || json!({ "message_id": "18c2f0a1b2c3d4e5", "attachment_id": "ANGjdJ8x_Qw-1" })),
        )
        .action(
            action("list_threads", mailbox::list_threads)
                .title("List conversations")
                .summary("The conversations that Gmail's search finds, newest first, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .credential(ACCESS_TOKEN)
                .example("With one person", || json!({ "query": "from:ada@example.com", "limit": 20 })),
        )
        .action(
            action("get_thread", mailbox::get_thread)
                .title("Read a conversation")
                .summary("All messages of a conversation with their texts, oldest first.")
                .credential(ACCESS_TOKEN)
                .example("A conversation", || json!({ "thread_id": "18c2f0a1b2c3d4e5" })),
        )
        .action(
            action("get_profile", mailbox::get_profile)
                .title("Whose mailbox")
                .summary("The mailbox's address and size: a way to try the credential out.")
                .credential(ACCESS_TOKEN)
                .example("Whose", || json!({})),
        )
}

fn filing(skill: Skill) -> Skill {
    skill
        .action(
            action("list_labels", labels::list_labels)
                .title("List labels")
                .summary("All labels of the mailbox with their ids, Gmail's own among them.")
                .credential(ACCESS_TOKEN)
                .example("All", || json!({})),
        )
        .action(
            action("create_label", labels::create_label)
                .title("Make a label")
                .summary("Adds a label to the mailbox.")
                .risk(Risk::Write)
                .scope("label_names", "/name")
                .credential(ACCESS_TOKEN)
                .example("Within another one", || json!({ "name": "Invoices/2026" })),
        )
        .action(
            action("label_message", labels::label_message)
                .title("Label a message")
                .summary("Adds labels to a message and removes others: files, archives, stars, marks as read.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("labels", "/add_label_ids")
                .scope("labels", "/remove_label_ids")
                .credential(ACCESS_TOKEN)
                .example("Mark as read", || json!({ "message_id": "18c2f0a1b2c3d4e5", "remove_label_ids": ["UNREAD"] }))
                .example("File and archive", || json!({ "message_id": "18c2f0a1b2c3d4e5", "add_label_ids": ["Label_7"], "remove_label_ids": ["INBOX"] })),
        )
        .action(
            action("label_thread", labels::label_thread)
                .title("Label a conversation")
                .summary("Adds labels to all messages of a conversation and removes others.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("labels", "/add_label_ids")
                .scope("labels", "/remove_label_ids")
                .credential(ACCESS_TOKEN)
                .example("Archive it", || json!({ "thread_id": "18c2f0a1b2c3d4e5", "remove_label_ids": ["INBOX"] })),
        )
        .action(
            action("trash_message", mailbox::trash_message)
                .title("Move a message to the trash")
                .summary("Gmail deletes what is in the trash after 30 days; until then it can be taken out.")
                .risk(Risk::Destructive)
                .idempotent(true)
                .credential(ACCESS_TOKEN)
                .example("Throw away", || json!({ "message_id": "18c2f0a1b2c3d4e5" })),
        )
        .action(
            action("untrash_message", mailbox::untrash_message)
                .title("Take a message out of the trash")
                .summary("Puts a message back where it was before it was thrown away.")
                .risk(Risk::Write)
                .idempotent(true)
                .credential(ACCESS_TOKEN)
                .example("Put back", || json!({ "message_id": "18c2f0a1b2c3d4e5" })),
        )
}

pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new(ACCESS_TOKEN, CredentialKind::OauthToken, "Google access token")
            .help("Sign in with Google, with the client below. A token that is pasted here works for an hour.")
            .placeholder("ya29....")
            .scopes(&[OAUTH_SCOPE])
            .oauth(oauth())
            .shape(Shape {
                length: 20..=2048,
                ..Shape::default()
            }),
        Credential::new(CLIENT_ID, CredentialKind::Secret, "OAuth client id")
            .optional()
            .help("Google Cloud console: APIs & Services, Credentials, OAuth client ID of the type Web application.")
            .placeholder("123456789012-abc.apps.googleusercontent.com")
            .shape(Shape {
                length: 20..=256,
                ..Shape::default()
            })
            .check(|value| match value.ends_with(".apps.googleusercontent.com") {
                true => Ok(()),
                false => Err(CredentialViolation::WrongKind),
            }),
        Credential::new(CLIENT_SECRET, CredentialKind::Secret, "OAuth client secret")
            .optional()
            .help("Shown once, where the OAuth client was made.")
            .placeholder("GOCSPX-...")
            .shape(Shape {
                length: 10..=256,
                ..Shape::default()
            }),
    ]
}

/// <https://developers.google.com/identity/protocols/oauth2/web-server>. Google gives a refresh token only where
/// `access_type` asks for it, and again only where `prompt` makes the person agree anew.
fn oauth() -> Oauth {
    Oauth {
        authorize_url: "https://accounts.google.com/o/oauth2/v2/auth".into(),
        token_url: "https://oauth2.googleapis.com/token".into(),
        revoke_url: Some("https://oauth2.googleapis.com/revoke".into()),
        scopes: vec![OAUTH_SCOPE.into()],
        authorize_params: vec![
            ("access_type".into(), "offline".into()),
            ("prompt".into(), "consent".into()),
        ],
        client_id: CLIENT_ID.into(),
        client_secret: Some(CLIENT_SECRET.into()),
        client_authentication: ClientAuthentication::Body,
    }
}

export_skill!(skill, credentials);

#[cfg(test)]
mod tests;
