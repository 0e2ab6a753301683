//! Files.

use crate::{
    CHANNEL_ID, TS,
    api::{optional, prepare, write},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use servicetsunami_plugin::{Call, Done, JsonSchema, Stop, post};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadFile {
    /// The id of the channel to share it in.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// With its ending: `q4.csv`.
    #[schemars(length(min = 1, max = 200))]
    file_name: String,
    /// The file, where it is text. Either this or `content_base64`.
    #[schemars(length(min = 1, max = 700_000))]
    content: Option<String>,
    /// The file in base64. Either this or `content`.
    #[schemars(length(min = 4, max = 1_000_000))]
    content_base64: Option<String>,
    /// Shown instead of the file's name.
    #[schemars(length(min = 1, max = 200))]
    title: Option<String>,
    /// The message that goes with it.
    #[schemars(length(min = 1, max = 4000))]
    comment: Option<String>,
    /// `ts` of the message to reply to.
    #[schemars(regex(pattern = TS))]
    thread_ts: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct UploadedFile {
    file_id: String,
    bytes: usize,
}

#[derive(Serialize)]
struct Share<'a> {
    files: Vec<Titled<'a>>,
    channel_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_comment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<&'a str>,
}

#[derive(Serialize)]
struct Titled<'a> {
    id: &'a str,
    title: &'a str,
}

/// Three requests: where to, the bytes, and sharing it (<https://docs.slack.dev/messaging/working-with-files>).
pub fn upload_file(call: &mut Call, params: UploadFile) -> Result<Done<UploadedFile>, Stop> {
    let content = content(&params)?;
    let bytes = content.len();
    let length = json!({ "filename": params.file_name, "length": bytes });
    let place = prepare(call, "files.getUploadURLExternal", &length)?;
    let (Some(url), Some(file_id)) = (optional(&place["upload_url"]), optional(&place["file_id"]))
    else {
        return Err(Stop::unexpected("no place to upload the file to"));
    };
    let reply = call.send(post(url).bytes("application/octet-stream", content))?;
    if reply.status() != 200 {
        let what = format!("status {} where the file was uploaded", reply.status());
        return Err(Stop::unexpected(what));
    }
    let share = Share {
        files: vec![Titled {
            id: &file_id,
            title: params.title.as_ref().unwrap_or(&params.file_name),
        }],
        channel_id: &params.channel,
        initial_comment: params.comment.as_deref(),
        thread_ts: params.thread_ts.as_deref(),
    };
    write(call, "files.completeUploadExternal", &share)?;
    let summary = format!("{} shared in {}", params.file_name, params.channel);
    Ok(Done::new(UploadedFile { file_id, bytes }, summary))
}

fn content(params: &UploadFile) -> Result<Vec<u8>, Stop> {
    match (&params.content, &params.content_base64) {
        (Some(text), None) => Ok(text.clone().into_bytes()),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .map_err(|error| Stop::invalid("/content_base64", format!("is no base64: {error}"))),
        _ => Err(Stop::invalid(
            "/content",
            "give either `content` or `content_base64`",
        )),
    }
}
