//! Messages to one person each.

use crate::{ID, PERSON, api::write, phone_number};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, Stop};

/// A message that Meta took on. Whether it arrived is told by webhooks alone.
#[derive(Serialize, JsonSchema)]
pub struct Sent {
    /// `wamid....`
    message_id: String,
    /// The person's id at WhatsApp: mostly the number.
    wa_id: Option<String>,
    /// `accepted`, or `held_for_quality_assessment` and `paused` for a template.
    status: Option<String>,
}

/// Sends content of this kind, as a reply where it answers a message.
fn send(
    call: &mut Call,
    from: Option<&str>,
    to: &str,
    reply_to: Option<&str>,
    kind: &str,
    content: Value,
) -> Result<Done<Sent>, Stop> {
    let from = phone_number(call, from)?;
    let mut body = Map::from_iter([
        ("messaging_product".to_owned(), json!("whatsapp")),
        ("recipient_type".to_owned(), json!("individual")),
        ("to".to_owned(), json!(to)),
        ("type".to_owned(), json!(kind)),
        (kind.to_owned(), content),
    ]);
    if let Some(message_id) = reply_to {
        body.insert("context".into(), json!({ "message_id": message_id }));
    }
    let reply = write(call, &from, "/messages", &body.into())?;
    let message = &reply["messages"][0];
    let Some(message_id) = message["id"].as_str() else {
        return Err(Stop::unexpected("a sent message without an `id`"));
    };
    let sent = Sent {
        message_id: message_id.to_owned(),
        wa_id: reply["contacts"][0]["wa_id"].as_str().map(str::to_owned),
        status: message["message_status"].as_str().map(str::to_owned),
    };
    Ok(Done::new(sent, format!("sent to {to}")))
}

/// An object without what is null.
fn object<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<Map<_, _>>()
        .into()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendText {
    /// The person's number with its country code: `+16505551234`.
    #[schemars(regex(pattern = PERSON))]
    to: String,
    #[schemars(length(min = 1, max = 4096))]
    text: String,
    /// Shows a preview of the first link.
    preview_url: Option<bool>,
    /// Id of the message that this one answers.
    #[schemars(length(min = 1, max = 500))]
    reply_to_message_id: Option<String>,
    /// Id of the business number that sends; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

pub fn send_text(call: &mut Call, params: SendText) -> Result<Done<Sent>, Stop> {
    let content = object([
        ("body", json!(params.text)),
        ("preview_url", json!(params.preview_url)),
    ]);
    send(
        call,
        params.phone_number_id.as_deref(),
        &params.to,
        params.reply_to_message_id.as_deref(),
        "text",
        content,
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendTemplate {
    /// The person's number with its country code: `+16505551234`.
    #[schemars(regex(pattern = PERSON))]
    to: String,
    /// The template's name.
    #[schemars(regex(pattern = r"^[a-z0-9_]{1,512}$"))]
    name: String,
    /// `en_US`, `de`: a language in which it is approved.
    #[schemars(regex(pattern = r"^[a-z]{2,3}(_[A-Za-z]{2,4})?$"))]
    language: String,
    /// What fills the header in, where it has something to fill in.
    header: Option<Header>,
    /// What fills the body in.
    #[serde(default)]
    #[schemars(length(max = 50))]
    body: Vec<Filling>,
    /// What fills the buttons in.
    #[serde(default)]
    #[schemars(length(max = 10))]
    buttons: Vec<ButtonValue>,
    #[schemars(length(min = 1, max = 500))]
    reply_to_message_id: Option<String>,
    /// Id of the business number that sends; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filling {
    /// Takes the place of `{{1}}`, `{{2}}`, ... in order, or of `{{name}}`.
    #[schemars(length(min = 1, max = 1024))]
    text: String,
    /// `name`, where the template's places have names.
    #[schemars(regex(pattern = r"^[a-z0-9_]{1,100}$"))]
    name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Header {
    Text(Filling),
    Image(File),
    Video(File),
    Document(File),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// A URL that Meta fetches.
    #[schemars(length(max = 2000), regex(pattern = r"^https?://\S+$"))]
    link: Option<String>,
    /// As `upload_media` gives it. Either this or `link`.
    #[schemars(regex(pattern = ID))]
    media_id: Option<String>,
    /// What the person sees, of a document: `q4.pdf`.
    #[schemars(length(min = 1, max = 240))]
    file_name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ButtonValue {
    /// Which one, from 0 on.
    #[schemars(range(min = 0, max = 9))]
    index: u8,
    kind: ButtonKind,
    /// The end of the URL, what the webhook is told when it is tapped, or the code.
    #[schemars(length(min = 1, max = 2000))]
    value: String,
}

#[derive(Deserialize, Serialize, Clone, Copy, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ButtonKind {
    Url,
    QuickReply,
    CopyCode,
}

pub fn send_template(call: &mut Call, params: SendTemplate) -> Result<Done<Sent>, Stop> {
    let mut components = Vec::new();
    if let Some(header) = &params.header {
        components.push(json!({ "type": "header", "parameters": [header_value(header)?] }));
    }
    if !params.body.is_empty() {
        let values: Vec<Value> = params.body.iter().map(text_value).collect();
        components.push(json!({ "type": "body", "parameters": values }));
    }
    components.extend(params.buttons.iter().map(button));
    let content = object([
        ("name", json!(params.name)),
        ("language", json!({ "code": params.language })),
        (
            "components",
            if components.is_empty() {
                Value::Null
            } else {
                components.into()
            },
        ),
    ]);
    send(
        call,
        params.phone_number_id.as_deref(),
        &params.to,
        params.reply_to_message_id.as_deref(),
        "template",
        content,
    )
}

fn text_value(value: &Filling) -> Value {
    object([
        ("type", json!("text")),
        ("parameter_name", json!(value.name)),
        ("text", json!(value.text)),
    ])
}

fn header_value(header: &Header) -> Result<Value, Stop> {
    let (kind, file) = match header {
        Header::Text(value) => return Ok(text_value(value)),
        Header::Image(file) => ("image", file),
        Header::Video(file) => ("video", file),
        Header::Document(file) => ("document", file),
    };
    let at = format!("/header/{kind}");
    let name = file.file_name.as_deref();
    let content = media(
        kind,
        file.link.as_deref(),
        file.media_id.as_deref(),
        None,
        name,
        &at,
    )?;
    Ok(json!({ "type": kind, kind: content }))
}

fn button(button: &ButtonValue) -> Value {
    let parameter = match button.kind {
        ButtonKind::Url => json!({ "type": "text", "text": button.value }),
        ButtonKind::QuickReply => json!({ "type": "payload", "payload": button.value }),
        ButtonKind::CopyCode => json!({ "type": "coupon_code", "coupon_code": button.value }),
    };
    json!({ "type": "button", "sub_type": button.kind, "index": button.index, "parameters": [parameter] })
}

#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

impl MediaKind {
    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMedia {
    /// The person's number with its country code: `+16505551234`.
    #[schemars(regex(pattern = PERSON))]
    to: String,
    kind: MediaKind,
    /// A URL that Meta fetches.
    #[schemars(length(max = 2000), regex(pattern = r"^https?://\S+$"))]
    link: Option<String>,
    /// As `upload_media` gives it. Either this or `link`.
    #[schemars(regex(pattern = ID))]
    media_id: Option<String>,
    /// Not of audio and stickers.
    #[schemars(length(min = 1, max = 1024))]
    caption: Option<String>,
    /// What the person sees, of a document: `q4.pdf`.
    #[schemars(length(min = 1, max = 240))]
    file_name: Option<String>,
    #[schemars(length(min = 1, max = 500))]
    reply_to_message_id: Option<String>,
    /// Id of the business number that sends; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

pub fn send_media(call: &mut Call, params: SendMedia) -> Result<Done<Sent>, Stop> {
    let kind = params.kind.name();
    let content = media(
        kind,
        params.link.as_deref(),
        params.media_id.as_deref(),
        params.caption.as_deref(),
        params.file_name.as_deref(),
        "",
    )?;
    send(
        call,
        params.phone_number_id.as_deref(),
        &params.to,
        params.reply_to_message_id.as_deref(),
        kind,
        content,
    )
}

/// A file by link or by id, with what its kind can have beside it.
fn media(
    kind: &str,
    link: Option<&str>,
    media_id: Option<&str>,
    caption: Option<&str>,
    file_name: Option<&str>,
    at: &str,
) -> Result<Value, Stop> {
    if link.is_some() == media_id.is_some() {
        return Err(Stop::invalid(
            format!("{at}/link"),
            "give either `link` or `media_id`",
        ));
    }
    if caption.is_some() && matches!(kind, "audio" | "sticker") {
        return Err(Stop::invalid(
            format!("{at}/caption"),
            format!("a message of the kind {kind} has no caption"),
        ));
    }
    if file_name.is_some() && kind != "document" {
        return Err(Stop::invalid(
            format!("{at}/file_name"),
            "only a document has a file name",
        ));
    }
    Ok(object([
        ("link", json!(link)),
        ("id", json!(media_id)),
        ("caption", json!(caption)),
        ("filename", json!(file_name)),
    ]))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendButtons {
    /// The person's number with its country code: `+16505551234`.
    #[schemars(regex(pattern = PERSON))]
    to: String,
    #[schemars(length(min = 1, max = 1024))]
    text: String,
    /// Small, below the text.
    #[schemars(length(min = 1, max = 60))]
    footer: Option<String>,
    /// What the person can tap: up to three.
    #[schemars(length(min = 1, max = 3))]
    buttons: Vec<ReplyButton>,
    #[schemars(length(min = 1, max = 500))]
    reply_to_message_id: Option<String>,
    /// Id of the business number that sends; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyButton {
    /// What the webhook is told when it is tapped.
    #[schemars(length(min = 1, max = 256))]
    id: String,
    #[schemars(length(min = 1, max = 20))]
    title: String,
}

pub fn send_buttons(call: &mut Call, params: SendButtons) -> Result<Done<Sent>, Stop> {
    let buttons: Vec<Value> = params
        .buttons
        .iter()
        .map(|button| json!({ "type": "reply", "reply": { "id": button.id, "title": button.title } }))
        .collect();
    let footer = params
        .footer
        .map_or(Value::Null, |text| json!({ "text": text }));
    let content = object([
        ("type", json!("button")),
        ("body", json!({ "text": params.text })),
        ("footer", footer),
        ("action", json!({ "buttons": buttons })),
    ]);
    send(
        call,
        params.phone_number_id.as_deref(),
        &params.to,
        params.reply_to_message_id.as_deref(),
        "interactive",
        content,
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendLocation {
    /// The person's number with its country code: `+16505551234`.
    #[schemars(regex(pattern = PERSON))]
    to: String,
    #[schemars(range(min = -90, max = 90))]
    latitude: f64,
    #[schemars(range(min = -180, max = 180))]
    longitude: f64,
    #[schemars(length(min = 1, max = 200))]
    name: Option<String>,
    #[schemars(length(min = 1, max = 500))]
    address: Option<String>,
    #[schemars(length(min = 1, max = 500))]
    reply_to_message_id: Option<String>,
    /// Id of the business number that sends; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

pub fn send_location(call: &mut Call, params: SendLocation) -> Result<Done<Sent>, Stop> {
    let content = object([
        ("latitude", json!(params.latitude)),
        ("longitude", json!(params.longitude)),
        ("name", json!(params.name)),
        ("address", json!(params.address)),
    ]);
    send(
        call,
        params.phone_number_id.as_deref(),
        &params.to,
        params.reply_to_message_id.as_deref(),
        "location",
        content,
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendReaction {
    /// Whose message it is: the number with its country code.
    #[schemars(regex(pattern = PERSON))]
    to: String,
    /// `wamid....`, of a message of the last 30 days.
    #[schemars(length(min = 1, max = 500))]
    message_id: String,
    /// One emoji; empty takes the reaction away.
    #[schemars(length(max = 20))]
    emoji: String,
    /// Id of the business number that reacts; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

pub fn send_reaction(call: &mut Call, params: SendReaction) -> Result<Done<Sent>, Stop> {
    let content = json!({ "message_id": params.message_id, "emoji": params.emoji });
    send(
        call,
        params.phone_number_id.as_deref(),
        &params.to,
        None,
        "reaction",
        content,
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkRead {
    /// `wamid....`, as the webhook told it; those before it in the chat count as read too.
    #[schemars(length(min = 1, max = 500))]
    message_id: String,
    /// Shows the person that an answer is being written, for up to 25 seconds.
    show_typing: Option<bool>,
    /// Id of the business number that it came to; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Nothing {}

pub fn mark_read(call: &mut Call, params: MarkRead) -> Result<Done<Nothing>, Stop> {
    let from = phone_number(call, params.phone_number_id.as_deref())?;
    let typing = match params.show_typing {
        Some(true) => json!({ "type": "text" }),
        _ => Value::Null,
    };
    let body = object([
        ("messaging_product", json!("whatsapp")),
        ("status", json!("read")),
        ("message_id", json!(params.message_id)),
        ("typing_indicator", typing),
    ]);
    crate::done(&write(call, &from, "/messages", &body)?)?;
    Ok(Done::new(Nothing {}, "marked a message as read"))
}
