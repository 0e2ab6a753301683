//! Media, templates, numbers and the profile of the business.

use crate::{
    ID,
    api::{download, read, remove, upload, write},
    business_account, done,
    messages::Nothing,
    phone_number,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, FormField, Stop};

/// Where Meta keeps media: the token goes there, and to no other host that a reply may name.
const MEDIA_URL: &str = "https://lookaside.fbsbx.com/";
/// A file of this size, in base64 and JSON, fits an answer of 1 MiB.
const MEDIA_BYTES_MAX: u64 = 750_000;
/// Entries of a page where nothing else is said.
const LIMIT_DEFAULT: u32 = 25;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn id(value: &Value) -> Result<String, Stop> {
    optional(value).ok_or_else(|| Stop::unexpected("a reply without an `id`"))
}

/// The entries of a page, and the cursor of the next one: Meta names a cursor even where nothing follows.
fn page(reply: &Value) -> Result<(&[Value], Option<String>), Stop> {
    let entries = reply["data"]
        .as_array()
        .ok_or_else(|| Stop::unexpected("a page without `data`"))?;
    let follows = reply["paging"]["next"].is_string();
    let cursor = optional(&reply["paging"]["cursors"]["after"]).filter(|_| follows);
    Ok((entries, cursor))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadMedia {
    /// With its ending: `q4.pdf`.
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r#"^[^/\\;"\x00-\x1f\x7f]+$"#)
    )]
    file_name: String,
    /// `image/png`, `application/pdf`, `audio/ogg`, ...: a type that WhatsApp takes.
    #[schemars(
        length(max = 127),
        regex(pattern = r"^[a-z]+/[A-Za-z0-9.+-]+(; ?codecs=[a-z0-9]+)?$")
    )]
    content_type: String,
    /// The file in base64, about 700 kB.
    #[schemars(length(min = 4, max = 1000000))]
    content_base64: String,
    /// Id of the business number that it is for; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Uploaded {
    /// For `send_media` and `send_template`; Meta keeps the file for 30 days.
    media_id: String,
    bytes: usize,
}

pub fn upload_media(call: &mut Call, params: UploadMedia) -> Result<Done<Uploaded>, Stop> {
    let from = phone_number(call, params.phone_number_id.as_deref())?;
    for (key, value) in [
        ("/file_name", &params.file_name),
        ("/content_type", &params.content_type),
    ] {
        if value.chars().any(char::is_control) {
            return Err(Stop::invalid(key, "holds a control character"));
        }
    }
    let content = BASE64_STANDARD
        .decode(&params.content_base64)
        .map_err(|error| Stop::invalid("/content_base64", format!("is no base64: {error}")))?;
    let bytes = content.len();
    let fields = vec![
        FormField::text("messaging_product", "whatsapp"),
        FormField::text("type", &params.content_type),
        FormField::file("file", &params.file_name, &params.content_type, content),
    ];
    let reply = upload(call, &from, "/media", fields)?;
    let uploaded = Uploaded {
        media_id: id(&reply["id"])?,
        bytes,
    };
    Ok(Done::new(
        uploaded,
        format!("uploaded {}", params.file_name),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneMedia {
    /// As `upload_media` or the webhook gives it.
    #[schemars(regex(pattern = ID))]
    media_id: String,
    /// Id of the business number that it belongs to: Meta refuses it to any other. The setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

impl OneMedia {
    /// Unlike elsewhere, the number may be left open.
    fn owner(&self, call: &Call) -> [(&'static str, Option<String>); 1] {
        let owner = self
            .phone_number_id
            .as_deref()
            .or(call.setting("phone_number_id"));
        [("phone_number_id", owner.map(str::to_owned))]
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Media {
    media_id: String,
    /// Works for 5 minutes, and with the access token only: see `download_media`.
    url: String,
    mime_type: String,
    bytes: u64,
    sha256: Option<String>,
}

fn media(call: &mut Call, params: &OneMedia) -> Result<Media, Stop> {
    let owner = params.owner(call);
    let reply = read(call, &params.media_id, "", &owner)?;
    Ok(Media {
        media_id: params.media_id.clone(),
        url: optional(&reply["url"]).ok_or_else(|| Stop::unexpected("a file without `url`"))?,
        mime_type: text(&reply["mime_type"]),
        // Documented as a number, seen as a text.
        bytes: reply["file_size"]
            .as_u64()
            .or_else(|| reply["file_size"].as_str()?.parse().ok())
            .unwrap_or_default(),
        sha256: optional(&reply["sha256"]),
    })
}

pub fn get_media(call: &mut Call, params: OneMedia) -> Result<Done<Media>, Stop> {
    let media = media(call, &params)?;
    let summary = format!("a file of {} bytes", media.bytes);
    Ok(Done::new(media, summary))
}

#[derive(Serialize, JsonSchema)]
pub struct Content {
    mime_type: String,
    /// The file in base64.
    content_base64: String,
    bytes: usize,
}

/// Two requests: where it is, and the bytes.
pub fn download_media(call: &mut Call, params: OneMedia) -> Result<Done<Content>, Stop> {
    let media = media(call, &params)?;
    check_size(media.bytes)?;
    if !media.url.starts_with(MEDIA_URL) {
        return Err(Stop::unexpected(
            "a file's `url` at a host that is not known for media",
        ));
    }
    let content = download(call, &media.url)?;
    let bytes = content.len();
    check_size(u64::try_from(bytes).unwrap_or(u64::MAX))?;
    let content = Content {
        mime_type: media.mime_type,
        content_base64: BASE64_STANDARD.encode(content),
        bytes,
    };
    Ok(Done::new(content, format!("read a file of {bytes} bytes")))
}

fn check_size(bytes: u64) -> Result<(), Stop> {
    match bytes > MEDIA_BYTES_MAX {
        true => Err(Stop::refused(
            "file_too_large",
            format!(
                "the file has {bytes} bytes; {MEDIA_BYTES_MAX} can be handed over: have a person open it"
            ),
        )),
        false => Ok(()),
    }
}

pub fn delete_media(call: &mut Call, params: OneMedia) -> Result<Done<Nothing>, Stop> {
    let owner = params.owner(call);
    done(&remove(call, &params.media_id, &owner)?)?;
    Ok(Done::new(Nothing {}, "deleted a file"))
}

#[derive(Deserialize, Serialize, Clone, Copy, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Approved,
    Pending,
    Rejected,
    Paused,
    Disabled,
    InAppeal,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTemplates {
    /// Only those in this state.
    status: Option<Status>,
    /// Only those with this in their name.
    #[schemars(length(min = 1, max = 512))]
    name: Option<String>,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 1000))]
    cursor: Option<String>,
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// Id of the WhatsApp Business Account; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    business_account_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Templates {
    templates: Vec<Template>,
    next_cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Template {
    id: String,
    name: String,
    language: String,
    /// `APPROVED`, `PENDING`, ...
    status: String,
    /// `MARKETING`, `UTILITY`, `AUTHENTICATION`
    category: String,
    /// Whether its places are `NAMED` or `POSITIONAL`.
    parameter_format: Option<String>,
    components: Vec<Component>,
}

#[derive(Serialize, JsonSchema)]
pub struct Component {
    /// `HEADER`, `BODY`, `FOOTER`, `BUTTONS`
    kind: String,
    /// Of a header: `TEXT`, `IMAGE`, `VIDEO`, `DOCUMENT`, `LOCATION`.
    format: Option<String>,
    /// With `{{1}}` or `{{name}}` where something is to be filled in.
    text: Option<String>,
    buttons: Vec<Button>,
}

#[derive(Serialize, JsonSchema)]
pub struct Button {
    /// `QUICK_REPLY`, `URL`, `PHONE_NUMBER`, `COPY_CODE`, ...
    kind: String,
    text: String,
    /// With `{{1}}` at its end, where something is to be filled in.
    url: Option<String>,
}

fn template(value: &Value) -> Template {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let button = |value: &Value| Button {
        kind: text(&value["type"]),
        text: text(&value["text"]),
        url: optional(&value["url"]),
    };
    let component = |value: &Value| Component {
        kind: text(&value["type"]),
        format: optional(&value["format"]),
        text: optional(&value["text"]),
        buttons: list(&value["buttons"]).iter().map(button).collect(),
    };
    Template {
        id: text(&value["id"]),
        name: text(&value["name"]),
        language: text(&value["language"]),
        status: text(&value["status"]),
        category: text(&value["category"]),
        parameter_format: optional(&value["parameter_format"]),
        components: list(&value["components"]).iter().map(component).collect(),
    }
}

pub fn list_templates(call: &mut Call, params: ListTemplates) -> Result<Done<Templates>, Stop> {
    let account = business_account(call, params.business_account_id.as_deref())?;
    let status = params.status.and_then(|status| optional(&json!(status)));
    let query = [
        (
            "fields",
            Some("id,name,language,status,category,parameter_format,components".to_owned()),
        ),
        ("status", status),
        ("name", params.name),
        (
            "limit",
            Some(params.limit.unwrap_or(LIMIT_DEFAULT).to_string()),
        ),
        ("after", params.cursor),
    ];
    let reply = read(call, &account, "/message_templates", &query)?;
    let (entries, next_cursor) = page(&reply)?;
    let page = Templates {
        templates: entries.iter().map(template).collect(),
        next_cursor,
    };
    let summary = format!("{} templates", page.templates.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPhoneNumbers {
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 1000))]
    cursor: Option<String>,
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// Id of the WhatsApp Business Account; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    business_account_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct PhoneNumbers {
    phone_numbers: Vec<PhoneNumber>,
    next_cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct PhoneNumber {
    phone_number_id: String,
    display_phone_number: String,
    /// What people see as the sender.
    verified_name: Option<String>,
    /// `GREEN`, `YELLOW`, `RED`, `UNKNOWN`
    quality_rating: Option<String>,
}

pub fn list_phone_numbers(
    call: &mut Call,
    params: ListPhoneNumbers,
) -> Result<Done<PhoneNumbers>, Stop> {
    let account = business_account(call, params.business_account_id.as_deref())?;
    let query = [
        (
            "fields",
            Some("id,display_phone_number,verified_name,quality_rating".to_owned()),
        ),
        (
            "limit",
            Some(params.limit.unwrap_or(LIMIT_DEFAULT).to_string()),
        ),
        ("after", params.cursor),
    ];
    let reply = read(call, &account, "/phone_numbers", &query)?;
    let (entries, next_cursor) = page(&reply)?;
    let number = |value: &Value| PhoneNumber {
        phone_number_id: text(&value["id"]),
        display_phone_number: text(&value["display_phone_number"]),
        verified_name: optional(&value["verified_name"]),
        quality_rating: optional(&value["quality_rating"]),
    };
    let page = PhoneNumbers {
        phone_numbers: entries.iter().map(number).collect(),
        next_cursor,
    };
    let summary = format!("{} numbers", page.phone_numbers.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetProfile {
    /// Id of the business number; the setting's unless set.
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Profile {
    about: Option<String>,
    address: Option<String>,
    description: Option<String>,
    email: Option<String>,
    websites: Vec<String>,
    vertical: Option<String>,
    profile_picture_url: Option<String>,
}

pub fn get_profile(call: &mut Call, params: GetProfile) -> Result<Done<Profile>, Stop> {
    let from = phone_number(call, params.phone_number_id.as_deref())?;
    let fields = "about,address,description,email,profile_picture_url,websites,vertical".to_owned();
    let reply = read(
        call,
        &from,
        "/whatsapp_business_profile",
        &[("fields", Some(fields))],
    )?;
    let (entries, _) = page(&reply)?;
    let profile = entries
        .first()
        .ok_or_else(|| Stop::unexpected("a profile without an entry in `data`"))?;
    let websites = profile["websites"].as_array().into_iter().flatten();
    let profile = Profile {
        about: optional(&profile["about"]),
        address: optional(&profile["address"]),
        description: optional(&profile["description"]),
        email: optional(&profile["email"]),
        websites: websites.map(text).collect(),
        vertical: optional(&profile["vertical"]),
        profile_picture_url: optional(&profile["profile_picture_url"]),
    };
    Ok(Done::new(profile, "the business profile"))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateProfile {
    /// The line below the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 139))]
    about: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    email: Option<String>,
    /// All of them: up to two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 2),
        inner(length(max = 256), regex(pattern = r"^https?://\S+$"))
    )]
    websites: Option<Vec<String>>,
    /// Id of the business number; the setting's unless set.
    #[serde(skip_serializing)]
    #[schemars(regex(pattern = ID))]
    phone_number_id: Option<String>,
}

pub fn update_profile(call: &mut Call, params: UpdateProfile) -> Result<Done<Nothing>, Stop> {
    let from = phone_number(call, params.phone_number_id.as_deref())?;
    let mut body: Map<String, Value> = match json!(params) {
        Value::Object(fields) if !fields.is_empty() => fields,
        _ => {
            return Err(Stop::invalid(
                "",
                "name something to change: `about`, `address`, `description`, ...",
            ));
        }
    };
    body.insert("messaging_product".into(), json!("whatsapp"));
    done(&write(
        call,
        &from,
        "/whatsapp_business_profile",
        &body.into(),
    )?)?;
    Ok(Done::new(Nothing {}, "changed the business profile"))
}
