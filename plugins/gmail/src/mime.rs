//! A message as it travels (RFC 5322, MIME). `mail-builder` writes encoded words (RFC 2047), parameters (RFC 2231)
//! and transfer encodings; which headers there are, and what may stand in them, is decided here.

use crate::actions::send::{Attachment, Mail, Sender};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use mail_builder::{
    headers::{
        Header, HeaderType, address::Address, content_type::ContentType, date::Date,
        message_id::MessageId, text::Text,
    },
    mime::{BodyPart, MimePart},
};
use servicetsunami_plugin::Stop;

/// A message in base64url: together with the rest of the request it fits the 1 MiB that a plugin may answer with.
const RAW_BYTES_MAX: usize = 1_000_000;
/// RFC 5321, 4.5.3.1.3, without the angle brackets.
const ADDRESS_BYTES_MAX: usize = 254;
/// RFC 5322, 2.1.1: the longest line, which a subject becomes where somebody unfolds it.
const HEADER_BYTES_MAX: usize = 998;
/// Gmail takes 25 MB in any number of files; this many fit a request.
const ATTACHMENTS_MAX: usize = 20;

/// The message that this one answers.
pub struct Answered {
    pub thread_id: String,
    /// Without angle brackets, oldest first; the last one is that of the message itself.
    pub references: Vec<String>,
    pub subject: String,
}

/// The message in base64url, for Gmail's `raw`. `at` is where its parameters begin: "" or `/message`.
pub fn raw(
    mail: &Mail,
    answered: Option<&Answered>,
    at: &str,
    now_ms: u64,
    seed: &str,
) -> Result<String, Stop> {
    let mut out = headers(mail, answered, at, now_ms)?;
    body(mail, at, seed)?.write_part(&mut out);
    let raw = BASE64_URL_SAFE.encode(out);
    if raw.len() > RAW_BYTES_MAX {
        return Err(Stop::invalid(
            format!("{at}/attachments"),
            format!(
                "make the message {} bytes long as it travels, encoded; {RAW_BYTES_MAX} is the most: send a link to a large file",
                raw.len()
            ),
        ));
    }
    Ok(raw)
}

fn headers(
    mail: &Mail,
    answered: Option<&Answered>,
    at: &str,
    now_ms: u64,
) -> Result<Vec<u8>, Stop> {
    let mut out = Vec::new();
    header(&mut out, "Date", Date::new(seconds(now_ms)));
    if let Some(from) = &mail.from {
        header(&mut out, "From", sender(from, at)?);
    }
    for (name, key, addresses) in [
        ("To", "to", &mail.to),
        ("Cc", "cc", &mail.cc),
        ("Bcc", "bcc", &mail.bcc),
    ] {
        if !addresses.is_empty() {
            header(
                &mut out,
                name,
                recipients(addresses, &format!("{at}/{key}"))?,
            );
        }
    }
    let subject = match (&mail.subject, answered) {
        (Some(subject), _) => one_line(subject, &format!("{at}/subject"))?,
        (None, Some(answered)) => &answered.subject,
        (None, None) => "",
    };
    header(&mut out, "Subject", Text::new(subject));
    if let Some((last, _)) = answered.and_then(|answered| answered.references.split_last()) {
        header(&mut out, "In-Reply-To", MessageId::new(last.as_str()));
    }
    if let Some(answered) = answered.filter(|answered| !answered.references.is_empty()) {
        let all = answered.references.iter().map(String::as_str);
        header(&mut out, "References", MessageId::new_list(all));
    }
    header(&mut out, "MIME-Version", Text::new("1.0"));
    Ok(out)
}

fn header<'x>(out: &mut Vec<u8>, name: &str, value: impl Into<HeaderType<'x>>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value.into().write_header(out, name.len() + 2);
}

fn seconds(now_ms: u64) -> i64 {
    i64::try_from(now_ms / 1000).unwrap_or_default()
}

fn sender<'x>(from: &'x Sender, at: &str) -> Result<Address<'x>, Stop> {
    let address = address(&from.address, &format!("{at}/from/address"))?;
    let name = match &from.name {
        Some(name) => Some(one_line(name, &format!("{at}/from/name"))?),
        None => None,
    };
    Ok(Address::new_address(name, address))
}

fn recipients<'x>(addresses: &'x [String], at: &str) -> Result<Address<'x>, Stop> {
    let mut list = Vec::with_capacity(addresses.len());
    for (index, text) in addresses.iter().enumerate() {
        let address = address(text, &format!("{at}/{index}"))?;
        list.push(Address::new_address(None::<&str>, address));
    }
    Ok(Address::new_list(list))
}

/// A plain address is one recipient and nothing else: what a tenant allows is compared with it.
fn address<'x>(text: &'x str, at: &str) -> Result<&'x str, Stop> {
    match is_address(text) {
        true => Ok(text),
        false => Err(Stop::invalid(
            at,
            format!(
                "`{}` is no plain e-mail address like ada@example.com: leave the name and the angle brackets out, and write an international domain in its xn-- form",
                text.escape_default()
            ),
        )),
    }
}

/// What HTML calls a valid e-mail address: RFC 5322's `dot-atom` at a domain, in ASCII, without comments and quotes.
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= ADDRESS_BYTES_MAX
        && local.split('.').all(is_atom)
        && domain.contains('.')
        && domain.split('.').all(is_label)
}

/// Text of a header: a line break in it would begin another header.
fn one_line<'x>(text: &'x str, at: &str) -> Result<&'x str, Stop> {
    if text.chars().any(char::is_control) {
        return Err(Stop::invalid(
            at,
            "holds a line break or another control character: write it in one line",
        ));
    }
    if text.len() > HEADER_BYTES_MAX {
        return Err(Stop::invalid(
            at,
            format!("is longer than {HEADER_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

fn body<'x>(mail: &'x Mail, at: &str, seed: &str) -> Result<MimePart<'x>, Stop> {
    let mut texts = Vec::new();
    for (kind, key, text) in [
        ("text/plain", "text", &mail.text),
        ("text/html", "html", &mail.html),
    ] {
        if let Some(text) = text {
            texts.push(MimePart::new(
                kind,
                body_text(text, &format!("{at}/{key}"))?,
            ));
        }
    }
    let boundary = |kind: &str| boundary(mail, kind, seed);
    let text = match (texts.pop(), texts.pop()) {
        (Some(html), Some(plain)) => multipart(
            "multipart/alternative",
            boundary("alternative"),
            vec![plain, html],
        ),
        (Some(only), _) => only,
        (None, _) => MimePart::new("text/plain", ""),
    };
    if mail.attachments.is_empty() {
        return Ok(text);
    }
    if mail.attachments.len() > ATTACHMENTS_MAX {
        return Err(Stop::invalid(
            format!("{at}/attachments"),
            format!("a message may have {ATTACHMENTS_MAX} attachments"),
        ));
    }
    let mut parts = vec![text];
    for (index, file) in mail.attachments.iter().enumerate() {
        parts.push(attachment(file, &format!("{at}/attachments/{index}"))?);
    }
    Ok(multipart("multipart/mixed", boundary("mixed"), parts))
}

fn body_text<'x>(text: &'x str, at: &str) -> Result<&'x str, Stop> {
    let is_allowed = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    match text.chars().all(is_allowed) {
        true => Ok(text),
        false => Err(Stop::invalid(
            at,
            "holds a control character besides tabs and line breaks",
        )),
    }
}

fn multipart<'x>(kind: &'static str, boundary: String, parts: Vec<MimePart<'x>>) -> MimePart<'x> {
    MimePart::new(
        ContentType::new(kind).attribute("boundary", boundary),
        BodyPart::Multipart(parts),
    )
}

/// The same for each retry of a call, and in no part: `=_` is in no base64 and no quoted-printable, and texts, which
/// may travel as they are, are searched for it.
fn boundary(mail: &Mail, kind: &str, seed: &str) -> String {
    let seed: String = seed
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(32)
        .collect();
    let mut boundary = format!("=_{kind}_{seed}");
    let stands_in = |text: &Option<String>, boundary: &str| {
        text.as_ref().is_some_and(|text| text.contains(boundary))
    };
    while stands_in(&mail.text, &boundary) || stands_in(&mail.html, &boundary) {
        boundary.push('_');
    }
    boundary
}

fn attachment<'x>(file: &'x Attachment, at: &str) -> Result<MimePart<'x>, Stop> {
    let content = BASE64_STANDARD
        .decode(&file.content_base64)
        .map_err(|e| Stop::invalid(format!("{at}/content_base64"), format!("is no base64: {e}")))?;
    let name = one_line(&file.file_name, &format!("{at}/file_name"))?;
    let kind = file
        .content_type
        .as_deref()
        .unwrap_or("application/octet-stream");
    if !is_content_type(kind) {
        return Err(Stop::invalid(
            format!("{at}/content_type"),
            "must be a type of one part without parameters: application/pdf",
        ));
    }
    Ok(MimePart::new(ContentType::new(kind), content).attachment(name))
}

/// `multipart/...` and `message/...` have parts of their own, which base64 may not hide (RFC 2046, 5).
fn is_content_type(kind: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    kind.len() <= 127
        && kind.split_once('/').is_some_and(|(main, sub)| {
            let main = main.to_ascii_lowercase();
            is_token(&main) && is_token(sub) && main != "multipart" && main != "message"
        })
}
