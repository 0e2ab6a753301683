//! Messages that leave, and drafts of them.

use super::{ADDRESS, ID, LINE, id, once, posting, putting, reading, repeatable};
use crate::{
    mime::{self, Answered},
    read,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, Stop};

/// `References` grows with each answer: of a long conversation the first message and the last ones are named.
const REFERENCES_MAX: usize = 20;
/// A subject that is taken over from the message answered, in bytes.
const SUBJECT_BYTES_MAX: usize = 900;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Plain addresses: `ada@example.com`.
    #[serde(default)]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 3, max = 254),
            regex(pattern = ADDRESS)
        )
    )]
    pub to: Vec<String>,
    #[serde(default)]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 3, max = 254),
            regex(pattern = ADDRESS)
        )
    )]
    pub cc: Vec<String>,
    /// Who gets it without the others seeing so.
    #[serde(default)]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 3, max = 254),
            regex(pattern = ADDRESS)
        )
    )]
    pub bcc: Vec<String>,
    /// Whom it comes from; the mailbox's own address unless set. Gmail takes the addresses that it knows under "Send
    /// mail as".
    pub from: Option<Sender>,
    /// In one line. An answer without one takes over the subject of the message that it answers.
    #[schemars(length(max = 900), regex(pattern = LINE))]
    pub subject: Option<String>,
    /// The message in plain text.
    #[schemars(length(max = 500000))]
    pub text: Option<String>,
    /// The message in HTML; with `text` beside it, readers choose.
    #[schemars(length(max = 500000))]
    pub html: Option<String>,
    /// Id, in this mailbox, of the message that this one answers: it joins that conversation. Whom it goes to is said
    /// in `to` all the same.
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    pub reply_to_message_id: Option<String>,
    /// About 540 kB together: they travel in the call.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub attachments: Vec<Attachment>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    #[schemars(
        length(min = 3, max = 254),
        regex(pattern = ADDRESS)
    )]
    pub address: String,
    /// What readers see beside the address.
    #[schemars(length(min = 1, max = 200), regex(pattern = LINE))]
    pub name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// With its ending: `q4.pdf`.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^[^/\\\x00-\x1f\x7f]+$"))]
    pub file_name: String,
    /// `application/pdf`; `application/octet-stream` unless set.
    #[schemars(
        length(max = 127),
        regex(pattern = r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$")
    )]
    pub content_type: Option<String>,
    /// The file in base64.
    #[schemars(length(max = 740000))]
    pub content_base64: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Sent {
    pub id: String,
    pub thread_id: String,
    pub label_ids: Vec<String>,
}

fn sent(message: &Value) -> Result<Sent, Stop> {
    Ok(Sent {
        id: id(&message["id"])?,
        thread_id: read::text(&message["threadId"]),
        label_ids: read::texts(&message["labelIds"]),
    })
}

/// Gmail's `Message` with the mail in it. Asks for the message that it answers first.
fn written(call: &mut Call, mail: &Mail, at: &str) -> Result<Value, Stop> {
    let answered = match &mail.reply_to_message_id {
        Some(id) => Some(answered(call, id)?),
        None => None,
    };
    let seed = call.idempotency_key().to_owned();
    let raw = mime::raw(mail, answered.as_ref(), at, call.now_ms(), &seed)?;
    let mut message = Map::from_iter([("raw".to_owned(), json!(raw))]);
    if let Some(answered) = answered {
        message.insert("threadId".into(), json!(answered.thread_id));
    }
    Ok(message.into())
}

/// What an answer has to say of the message that it answers (RFC 5322, 3.6.4).
fn answered(call: &mut Call, message_id: &str) -> Result<Answered, Stop> {
    let mut request = reading(call, "messages")
        .path(message_id)
        .query("format", "metadata");
    for name in ["Message-ID", "References", "In-Reply-To", "Subject"] {
        request = request.query("metadataHeaders", name);
    }
    let original = repeatable(call, request)?;
    let ids = |name| -> Vec<String> {
        read::headers(&original, name)
            .flat_map(message_ids)
            .collect()
    };
    let mut references = ids("References");
    if references.is_empty() {
        references = ids("In-Reply-To");
    }
    references.extend(ids("Message-ID").into_iter().take(1));
    if references.len() > REFERENCES_MAX {
        references.drain(1..references.len() - REFERENCES_MAX + 1);
    }
    let subject = read::headers(&original, "Subject")
        .next()
        .unwrap_or_default();
    Ok(Answered {
        thread_id: id(&original["threadId"])?,
        references,
        subject: answer_to(subject),
    })
}

/// The ids in a header, without angle brackets. What another mailbox wrote there is no header of ours: only what
/// looks like an id is taken over.
fn message_ids(value: &str) -> impl Iterator<Item = String> {
    value
        .split('<')
        .skip(1)
        .filter_map(|piece| piece.split_once('>'))
        .map(|(id, _)| id)
        .filter(|id| (1..=250).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
        .map(str::to_owned)
}

/// `Re: ` once, in one line.
fn answer_to(subject: &str) -> String {
    let line: String = subject
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let line = read::cut(line.trim(), SUBJECT_BYTES_MAX);
    match line.get(..3) {
        Some(begin) if begin.eq_ignore_ascii_case("re:") => line.to_owned(),
        _ => format!("Re: {line}"),
    }
}

pub fn send_message(call: &mut Call, mail: Mail) -> Result<Done<Sent>, Stop> {
    if mail.to.is_empty() && mail.cc.is_empty() && mail.bcc.is_empty() {
        return Err(Stop::invalid(
            "/to",
            "name whom the message goes to, here or in `cc` or `bcc`",
        ));
    }
    let message = written(call, &mail, "")?;
    let request = posting(call, "messages/send");
    let sent = sent(&once(call, request.json(&message))?)?;
    let summary = format!("sent to {}", whom(&mail));
    Ok(Done::new(sent, summary))
}

/// The first recipient by name, the others by number.
fn whom(mail: &Mail) -> String {
    let mut all = mail.to.iter().chain(&mail.cc).chain(&mail.bcc);
    match (all.next(), all.count()) {
        (Some(first), 0) => first.clone(),
        (Some(first), others) => format!("{first} and {others} more"),
        (None, _) => "nobody yet".into(),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Draft {
    /// For `send_draft`.
    pub draft_id: String,
    /// Id of the message in it; another one after each change.
    pub message_id: String,
    pub thread_id: String,
}

fn draft(value: &Value) -> Result<Draft, Stop> {
    Ok(Draft {
        draft_id: id(&value["id"])?,
        message_id: read::text(&value["message"]["id"]),
        thread_id: read::text(&value["message"]["threadId"]),
    })
}

pub fn create_draft(call: &mut Call, mail: Mail) -> Result<Done<Draft>, Stop> {
    let message = written(call, &mail, "")?;
    let request = posting(call, "drafts");
    let draft = draft(&once(call, request.json(&json!({ "message": message })))?)?;
    let summary = format!("a draft to {}", whom(&mail));
    Ok(Done::new(draft, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateDraft {
    /// As `create_draft` and `list_drafts` give it.
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    draft_id: String,
    /// What it says from now on: all of it.
    message: Mail,
}

pub fn update_draft(call: &mut Call, params: UpdateDraft) -> Result<Done<Draft>, Stop> {
    let message = written(call, &params.message, "/message")?;
    let request = putting(call, "drafts").path(&params.draft_id);
    let draft = draft(&repeatable(
        call,
        request.json(&json!({ "message": message })),
    )?)?;
    let summary = format!("changed the draft to {}", whom(&params.message));
    Ok(Done::new(draft, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendDraft {
    /// As `create_draft` and `list_drafts` give it.
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    draft_id: String,
    /// Everybody that the draft goes to. It is read first, and sent only if it names them and nobody else.
    #[schemars(
        length(min = 1, max = 300),
        inner(
            length(min = 3, max = 254),
            regex(pattern = ADDRESS)
        )
    )]
    recipients: Vec<String>,
}

pub fn send_draft(call: &mut Call, params: SendDraft) -> Result<Done<Sent>, Stop> {
    let request = reading(call, "drafts")
        .path(&params.draft_id)
        .query("format", "metadata");
    let draft = repeatable(call, request)?;
    check_recipients(&draft["message"], &params.recipients)?;
    let request = posting(call, "drafts/send");
    let sent = sent(&once(
        call,
        request.json(&json!({ "id": params.draft_id })),
    )?)?;
    let summary = format!("sent the draft to {}", params.recipients.join(", "));
    Ok(Done::new(sent, summary))
}

/// A draft's headers may be anybody's writing, so nothing is made of names, comments and quotes: whatever has an `@`
/// in it counts as a recipient, and must be one that was named. What cannot be read this way is not sent.
fn check_recipients(message: &Value, named: &[String]) -> Result<(), Stop> {
    if let Some(index) = named.iter().position(|address| !mime::is_address(address)) {
        return Err(Stop::invalid(
            format!("/recipients/{index}"),
            "is no plain e-mail address like ada@example.com",
        ));
    }
    let is_delimiter =
        |c: char| c.is_whitespace() || c.is_control() || "<>,;:()[]\"'\\".contains(c);
    let mut found: Vec<&str> = Vec::new();
    for name in ["To", "Cc", "Bcc"] {
        for value in read::headers(message, name) {
            found.extend(value.split(is_delimiter).filter(|word| word.contains('@')));
        }
    }
    if found.is_empty() {
        return Err(Stop::refused(
            "no_recipients",
            "the draft goes to nobody yet: change it with update_draft",
        ));
    }
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    if let Some(other) = found
        .iter()
        .find(|word| !named.iter().any(|n| same(n, word)))
    {
        return Err(Stop::refused(
            "other_recipients",
            format!(
                "the draft goes to {other} as well, whom `recipients` does not name; nothing was sent"
            ),
        ));
    }
    if let Some(missing) = named
        .iter()
        .find(|n| !found.iter().any(|word| same(n, word)))
    {
        return Err(Stop::refused(
            "other_recipients",
            format!(
                "the draft does not go to {missing}, whom `recipients` names; nothing was sent"
            ),
        ));
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListDrafts {
    /// What to look for, as in Gmail's search field.
    #[schemars(length(min = 1, max = 2000))]
    query: Option<String>,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Drafts {
    drafts: Vec<Draft>,
    next_cursor: Option<String>,
}

pub fn list_drafts(call: &mut Call, params: ListDrafts) -> Result<Done<Drafts>, Stop> {
    let request = reading(call, "drafts")
        .query_opt("q", params.query)
        .query_opt("pageToken", params.cursor)
        .query_opt("maxResults", params.limit);
    let body = repeatable(call, request)?;
    let drafts = read::list(&body["drafts"])
        .iter()
        .map(draft)
        .collect::<Result<Vec<_>, _>>()?;
    let page = Drafts {
        drafts,
        next_cursor: read::optional(&body["nextPageToken"]),
    };
    let summary = format!("{} drafts", page.drafts.len());
    Ok(Done::new(page, summary))
}
