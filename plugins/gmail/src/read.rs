//! A message as Gmail gives it (`users.messages`, format `full` or `metadata`), for whoever reads it.

use crate::html;
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// Of one body, in bytes, before it becomes text: what is longer is cut.
const BODY_BYTES_MAX: usize = 200_000;
/// Parts of one message that are looked at.
const PARTS_MAX: usize = 500;
/// Of one header, in bytes: a message to a thousand people names them all in `To`.
const HEADER_BYTES_MAX: usize = 5_000;
/// Attachments of one message that are listed.
const ATTACHMENTS_MAX: usize = 100;

/// base64url with or without padding: Gmail gives both.
pub const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn optional(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(text).collect()
}

/// Values of the headers of this name.
pub fn headers<'x>(message: &'x Value, name: &str) -> impl Iterator<Item = &'x str> {
    list(&message["payload"]["headers"])
        .iter()
        .filter(move |header| {
            header["name"]
                .as_str()
                .is_some_and(|n| n.eq_ignore_ascii_case(name))
        })
        .filter_map(|header| header["value"].as_str())
}

fn header(message: &Value, name: &str) -> Option<String> {
    headers(message, name)
        .next()
        .filter(|value| !value.is_empty())
        .map(|value| cut(value, HEADER_BYTES_MAX).to_owned())
}

/// What a list shows of a message.
#[derive(Serialize, JsonSchema)]
pub struct Summary {
    pub id: String,
    pub thread_id: String,
    pub label_ids: Vec<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub subject: Option<String>,
    /// As the sender's machine wrote it.
    pub date: Option<String>,
    /// When Gmail took it in, in milliseconds since 1970-01-01T00:00:00Z.
    pub received_at_ms: Option<u64>,
    /// The beginning of its text.
    pub snippet: String,
}

pub fn summary(message: &Value) -> Summary {
    Summary {
        id: text(&message["id"]),
        thread_id: text(&message["threadId"]),
        label_ids: texts(&message["labelIds"]),
        from: header(message, "From"),
        to: header(message, "To"),
        subject: header(message, "Subject"),
        date: header(message, "Date"),
        received_at_ms: message["internalDate"]
            .as_str()
            .and_then(|ms| ms.parse().ok()),
        snippet: html::unescaped(message["snippet"].as_str().unwrap_or_default()),
    }
}

/// A message whole.
#[derive(Serialize, JsonSchema)]
pub struct Message {
    #[serde(flatten)]
    pub summary: Summary,
    pub cc: Option<String>,
    /// Only of a message that this mailbox sent.
    pub bcc: Option<String>,
    pub reply_to: Option<String>,
    /// `Message-ID` (RFC 5322): what other mailboxes know it by.
    pub message_id: Option<String>,
    /// Its plain text; made from the HTML where it has none.
    pub text: String,
    /// Whether the text goes on.
    pub is_text_cut: bool,
    /// Its HTML, where it was asked for.
    pub html: Option<String>,
    pub attachments: Vec<Attached>,
}

#[derive(Serialize, JsonSchema)]
pub struct Attached {
    /// For `get_attachment`. Gmail gives another one each time the message is read; each stays valid.
    pub attachment_id: String,
    pub file_name: String,
    pub content_type: String,
    pub bytes: u64,
}

/// With at most so many bytes of text, and of HTML where it is wanted.
pub fn message(value: &Value, wants_html: bool, text_bytes_max: usize) -> Message {
    let bodies = Bodies::of(&value["payload"]);
    let body = match bodies.plain.is_empty() {
        true => html::to_text(&bodies.html),
        false => bodies.plain,
    };
    let shown = cut(&body, text_bytes_max);
    Message {
        summary: summary(value),
        cc: header(value, "Cc"),
        bcc: header(value, "Bcc"),
        reply_to: header(value, "Reply-To"),
        message_id: header(value, "Message-ID"),
        is_text_cut: bodies.is_cut || shown.len() < body.len(),
        text: shown.to_owned(),
        html: (wants_html && !bodies.html.is_empty())
            .then(|| cut(&bodies.html, text_bytes_max).to_owned()),
        attachments: bodies.attachments,
    }
}

#[derive(Default)]
struct Bodies {
    plain: String,
    html: String,
    is_cut: bool,
    attachments: Vec<Attached>,
}

impl Bodies {
    /// In the order in which they stand; a message within the message is an attachment, and not looked into.
    fn of(payload: &Value) -> Self {
        let mut bodies = Self::default();
        let mut waiting = vec![payload];
        for _ in 0..PARTS_MAX {
            let Some(part) = waiting.pop() else { break };
            let kind = part["mimeType"].as_str().unwrap_or_default();
            let file_name = part["filename"].as_str().unwrap_or_default();
            let attachment_id = part["body"]["attachmentId"].as_str();
            if !file_name.is_empty() || attachment_id.is_some() {
                bodies.attach(part, file_name, kind, attachment_id.unwrap_or_default());
                continue;
            }
            match kind {
                "text/plain" => bodies.is_cut |= read_into(&mut bodies.plain, part),
                "text/html" => bodies.is_cut |= read_into(&mut bodies.html, part),
                "message/rfc822" => {}
                _ => waiting.extend(list(&part["parts"]).iter().rev()),
            }
        }
        bodies
    }

    fn attach(&mut self, part: &Value, file_name: &str, kind: &str, id: &str) {
        if self.attachments.len() < ATTACHMENTS_MAX {
            self.attachments.push(Attached {
                attachment_id: id.to_owned(),
                file_name: file_name.to_owned(),
                content_type: kind.to_owned(),
                bytes: part["body"]["size"].as_u64().unwrap_or_default(),
            });
        }
    }
}

/// Adds a part's text, which Gmail gives in UTF-8 whatever its `charset` says, and tells whether it was cut.
fn read_into(body: &mut String, part: &Value) -> bool {
    let data = part["body"]["data"].as_str().unwrap_or_default();
    let left = BODY_BYTES_MAX.saturating_sub(body.len());
    // Four characters are three bytes; more of them would be decoded for nothing.
    let characters = left.div_ceil(3) * 4;
    let Some(begin) = data.get(..characters.min(data.len())) else {
        return true;
    };
    let bytes = BASE64_URL.decode(begin).unwrap_or_default();
    if !body.is_empty() && !bytes.is_empty() {
        body.push('\n');
    }
    let text = String::from_utf8_lossy(&bytes);
    body.extend(
        text.chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t')),
    );
    characters < data.len()
}

/// The beginning of a text, in whole characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or_default()
}
