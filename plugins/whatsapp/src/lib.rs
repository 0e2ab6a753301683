//! WhatsApp, over Meta's Cloud API (<https://developers.facebook.com/documentation/business-messaging/whatsapp>).
//!
//! Meta drops no repeated message: only what reads, or sets what is set already, is idempotent. That a message was
//! taken on does not mean that it arrives; webhooks tell that, which are not this adapter's.

mod api;
mod business;
mod messages;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Call, Credential, CredentialKind, Risk, Shape, Skill, Stop, about, action, export_skill,
};

/// Meta's Graph API; the setting `base_url` names another.
const BASE_URL: &str = "https://graph.facebook.com";
/// Meta keeps a version for two years; the setting `api_version` names another.
const API_VERSION: &str = "v26.0";
const ACCESS_TOKEN: &str = "access_token";

/// A person's number with its country code.
const PERSON: &str = r"^\+?[1-9][0-9]{4,19}$";
/// Of anything that Meta keeps.
const ID: &str = r"^[0-9]{5,25}$";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by name, in `Call::setting`")]
struct Settings {
    /// Id of the business number that messages come from, unless the call names another.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
    /// Id of the WhatsApp Business Account, for its templates and numbers.
    #[schemars(regex(pattern = ID))]
    business_account_id: Option<String>,
    /// The Graph API's version: `v26.0`.
    #[schemars(regex(pattern = r"^v[0-9]{2}\.[0-9]$"))]
    api_version: Option<String>,
    /// Where the Graph API is, for a proxy of your own.
    #[schemars(url, length(max = 500))]
    base_url: Option<String>,
}

/// The number that a call is about.
fn phone_number(call: &Call, named: Option<&str>) -> Result<String, Stop> {
    of_call_or_setting(call, named, "phone_number_id")
}

fn business_account(call: &Call, named: Option<&str>) -> Result<String, Stop> {
    of_call_or_setting(call, named, "business_account_id")
}

fn of_call_or_setting(call: &Call, named: Option<&str>, key: &str) -> Result<String, Stop> {
    let id = named.or(call.setting(key)).map(str::to_owned);
    id.ok_or_else(|| {
        Stop::invalid(
            format!("/{key}"),
            format!("is missing: name it here, or set `{key}` for the skill (WhatsApp Manager, API setup)"),
        )
    })
}

/// What Meta answers where there is nothing else to say.
fn done(reply: &Value) -> Result<(), Stop> {
    match reply["success"] == true {
        true => Ok(()),
        false => Err(Stop::unexpected("a reply without `success`")),
    }
}

pub fn skill() -> Skill {
    let skill = Skill::new("whatsapp", about!("WhatsApp", ["messaging"]))
        .host("graph.facebook.com")
        .host("lookaside.fbsbx.com")
        .settings::<Settings>()
        .host_setting("/base_url");
    looking_after(media(sending(skill)))
}

fn sending(skill: Skill) -> Skill {
    skill
        .action(
            action("send_text", messages::send_text)
                .title("Send a text")
                .summary("Writes to a person who wrote within the last 24 hours; to others, send a template.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("A text", || json!({ "to": "+16505551234", "text": "Your order is ready.", "phone_number_id": "106540352242922" }))
                .example("Reply with a link", || json!({ "to": "+16505551234", "text": "See https://example.com/q4", "preview_url": true, "reply_to_message_id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz", "phone_number_id": "106540352242922" })),
        )
        .action(
            action("send_template", messages::send_template)
                .title("Send a template")
                .summary("Writes to a person at any time with a template that Meta approved. It may cost money.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("templates", "/name")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("Without anything to fill in", || json!({ "to": "+16505551234", "name": "hello_world", "language": "en_US", "phone_number_id": "106540352242922" }))
                .example("Filled in", || json!({
                    "to": "+16505551234", "name": "order_shipped", "language": "de",
                    "header": { "document": { "link": "https://example.com/invoice.pdf", "file_name": "invoice.pdf" } },
                    "body": [{ "text": "Ada" }, { "text": "4711" }],
                    "buttons": [{ "index": 0, "kind": "url", "value": "4711" }, { "index": 1, "kind": "quick_reply", "value": "stop" }],
                    "phone_number_id": "106540352242922",
                }))
                .example("With names and a code", || json!({
                    "to": "+16505551234", "name": "autumn_sale", "language": "en",
                    "header": { "text": { "text": "Autumn", "name": "season" } },
                    "body": [{ "text": "25%", "name": "discount" }],
                    "buttons": [{ "index": 0, "kind": "copy_code", "value": "25OFF" }],
                    "phone_number_id": "106540352242922",
                })),
        )
        .action(
            action("send_media", messages::send_media)
                .title("Send a file")
                .summary("Sends an image, video, audio, document or sticker, from a link or uploaded before, to a person who wrote within the last 24 hours.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("An image from a link", || json!({ "to": "+16505551234", "kind": "image", "link": "https://example.com/chart.png", "caption": "Q4", "phone_number_id": "106540352242922" }))
                .example("An uploaded document", || json!({ "to": "+16505551234", "kind": "document", "media_id": "1013859600285441", "file_name": "q4.pdf", "reply_to_message_id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz", "phone_number_id": "106540352242922" }))
                .example("Audio", || json!({ "to": "+16505551234", "kind": "audio", "media_id": "1013859600285441", "phone_number_id": "106540352242922" })),
        )
        .action(
            action("send_buttons", messages::send_buttons)
                .title("Ask with buttons")
                .summary("Sends a text with up to three answers to tap, to a person who wrote within the last 24 hours.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("Yes or no", || json!({
                    "to": "+16505551234", "text": "Does Friday suit you?", "footer": "Example Ltd",
                    "buttons": [{ "id": "yes", "title": "Yes" }, { "id": "no", "title": "No" }],
                    "phone_number_id": "106540352242922",
                })),
        )
        .action(
            action("send_location", messages::send_location)
                .title("Send a place")
                .summary("Sends a point on the map to a person who wrote within the last 24 hours.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("The office", || json!({ "to": "+16505551234", "latitude": 52.52, "longitude": 13.405, "name": "Office", "address": "Alexanderplatz 1, Berlin", "phone_number_id": "106540352242922" })),
        )
        .action(
            action("send_reaction", messages::send_reaction)
                .title("React to a message")
                .summary("Sets the business's reaction to a message, or takes it away.")
                .risk(Risk::Write)
                .scope("recipients", "/to")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("Agree", || json!({ "to": "+16505551234", "message_id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz", "emoji": "👍", "phone_number_id": "106540352242922" })),
        )
        .action(
            action("mark_read", messages::mark_read)
                .title("Mark as read")
                .summary("Shows the person that a message was read, and if wanted that an answer is being written.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("Read", || json!({ "message_id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz", "phone_number_id": "106540352242922" }))
                .example("Read, and writing", || json!({ "message_id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz", "show_typing": true, "phone_number_id": "106540352242922" })),
        )
}

fn media(skill: Skill) -> Skill {
    skill
        .action(
            action("upload_media", business::upload_media)
                .title("Upload a file")
                .summary("Puts a file of up to 700 kB where messages can use it, for 30 days.")
                .risk(Risk::Write)
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("A document", || json!({ "file_name": "q4.txt", "content_type": "text/plain", "content_base64": "UTQgaXMgZG9uZQ==", "phone_number_id": "106540352242922" })),
        )
        .action(
            action("get_media", business::get_media)
                .title("Look a file up")
                .summary("A file's type, size, and the link that works for 5 minutes.")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("A file", || json!({ "media_id": "1013859600285441" }))
                .example("A file of this number alone", || json!({ "media_id": "1013859600285441", "phone_number_id": "106540352242922" })),
        )
        .action(
            action("download_media", business::download_media)
                .title("Read a file")
                .summary("The content of a file of up to 750 kB that somebody sent, in base64.")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("A file", || json!({ "media_id": "1013859600285441" })),
        )
        .action(
            action("delete_media", business::delete_media)
                .title("Delete a file")
                .summary("Deletes an uploaded file; messages that were sent keep it.")
                .risk(Risk::Destructive)
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("Delete", || json!({ "media_id": "1013859600285441", "phone_number_id": "106540352242922" })),
        )
}

fn looking_after(skill: Skill) -> Skill {
    skill
        .action(
            action("list_templates", business::list_templates)
                .title("List templates")
                .summary("The templates of the account, with what is to be filled in, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("business_accounts", "/business_account_id")
                .credential(ACCESS_TOKEN)
                .example("The approved ones", || json!({ "status": "APPROVED", "limit": 20, "business_account_id": "102290129340398" }))
                .example("By name", || json!({ "name": "order", "cursor": "MjQZD", "business_account_id": "102290129340398" })),
        )
        .action(
            action("list_phone_numbers", business::list_phone_numbers)
                .title("List numbers")
                .summary("The business numbers of the account, with names and quality, a page at a time.")
                .pages("/cursor", "/next_cursor")
                .scope("business_accounts", "/business_account_id")
                .credential(ACCESS_TOKEN)
                .example("All", || json!({ "business_account_id": "102290129340398" })),
        )
        .action(
            action("get_profile", business::get_profile)
                .title("Read the profile")
                .summary("What people see of the business.")
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("The profile", || json!({ "phone_number_id": "106540352242922" })),
        )
        .action(
            action("update_profile", business::update_profile)
                .title("Change the profile")
                .summary("Changes what people see of the business; what is not named stays.")
                .risk(Risk::Write)
                .idempotent(true)
                .scope("phone_numbers", "/phone_number_id")
                .credential(ACCESS_TOKEN)
                .example("Opening hours", || json!({ "about": "Mo-Fr 9-17", "websites": ["https://example.com"], "phone_number_id": "106540352242922" })),
        )
}

pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new(ACCESS_TOKEN, CredentialKind::ApiKey, "Access token")
            .help("Of a system user in Meta Business Settings, made for your app, without an end. The one on the app's page ends after a day.")
            .placeholder("EAAG...")
            .scopes(&["whatsapp_business_messaging", "whatsapp_business_management"])
            .shape(Shape {
                prefixes: vec!["EAA"],
                length: 30..=1024,
                allows: |c| c.is_ascii_alphanumeric(),
            }),
    ]
}

export_skill!(skill, credentials);

#[cfg(test)]
mod tests;
