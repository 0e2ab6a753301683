//! Files and folders.

use crate::{
    api::{at, read, sparse, write},
    repository::Repository,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Request, Stop};

/// Bytes of a file that an answer carries: as base64, and escaped as JSON, it must stay below 1 MiB.
const FILE_BYTES_MAX: u64 = 500_000;
/// Entries of a folder that are listed; GitHub itself gives a thousand at most.
const ENTRIES_MAX: usize = 1000;

/// The folders of a path are segments of the URL; `.` and `..` are refused there.
fn contents(call: &Call, method: Method, repository: &Repository, path: &str) -> Request {
    let mut below = vec!["contents"];
    if path.is_empty() {
        return at(call, method, &repository.path(&below)).raw_path("/");
    }
    below.extend(path.split('/'));
    at(call, method, &repository.path(&below))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetFile {
    repository: Repository,
    /// From the repository's root: `docs/setup.md`.
    #[schemars(regex(pattern = crate::PATH), length(max = 1000))]
    path: String,
    /// Branch, tag or SHA; the default branch unless set.
    #[schemars(length(min = 1, max = 200))]
    r#ref: Option<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    path: String,
    sha: String,
    #[serde(default)]
    size: u64,
    html_url: Option<String>,
    #[serde(default)]
    content: Option<String>,
}

/// What the interface answers at a path: a file and the like, or what is in a folder.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawContents {
    Folder(Vec<RawEntry>),
    Entry(RawEntry),
}

#[derive(Serialize, JsonSchema)]
pub struct File {
    path: String,
    /// Of this version of the file: `put_file` and `delete_file` want it.
    sha: String,
    /// Bytes.
    size: u64,
    /// The file, where it is text.
    text: Option<String>,
    /// The file in base64, where it is no text.
    content_base64: Option<String>,
    html_url: Option<String>,
}

pub fn get_file(call: &mut Call, params: GetFile) -> Result<Done<File>, Stop> {
    let request = contents(call, Method::Get, &params.repository, &params.path)
        .query_opt("ref", params.r#ref);
    let entry = match read(call, request)? {
        RawContents::Entry(entry) if entry.kind == "file" => entry,
        RawContents::Entry(entry) => {
            let what = format!("{} is a {}, not a file", params.path, entry.kind);
            return Err(Stop::refused("not_a_file", what));
        }
        RawContents::Folder(_) => {
            let what = format!("{} is a folder; see list_directory", params.path);
            return Err(Stop::refused("not_a_file", what));
        }
    };
    let file = file(entry)?;
    let summary = format!(
        "{} of {}, {} bytes",
        file.path, params.repository, file.size
    );
    Ok(Done::new(file, summary))
}

fn file(entry: RawEntry) -> Result<File, Stop> {
    if entry.size > FILE_BYTES_MAX {
        let what = format!(
            "{} has {} bytes; files of up to {FILE_BYTES_MAX} can be read",
            entry.path, entry.size
        );
        return Err(Stop::refused("file_too_large", what));
    }
    let mut base64 = entry.content.unwrap_or_default();
    base64.retain(|c| !c.is_ascii_whitespace());
    let bytes = BASE64_STANDARD
        .decode(&base64)
        .map_err(|error| Stop::unexpected(format!("the file is no base64: {error}")))?;
    let (text, content_base64) = match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => (Some(text), None),
        _ => (None, Some(base64)),
    };
    Ok(File {
        path: entry.path,
        sha: entry.sha,
        size: entry.size,
        text,
        content_base64,
        html_url: entry.html_url,
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListDirectory {
    repository: Repository,
    /// From the repository's root; the root itself unless set.
    #[schemars(regex(pattern = crate::PATH), length(max = 1000))]
    path: Option<String>,
    /// Branch, tag or SHA; the default branch unless set.
    #[schemars(length(min = 1, max = 200))]
    r#ref: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Entry {
    name: String,
    path: String,
    /// `file`, `dir`, `symlink` or `submodule`
    kind: String,
    /// Bytes of a file.
    size: u64,
    sha: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Directory {
    entries: Vec<Entry>,
}

pub fn list_directory(call: &mut Call, params: ListDirectory) -> Result<Done<Directory>, Stop> {
    let path = params.path.unwrap_or_default();
    let request =
        contents(call, Method::Get, &params.repository, &path).query_opt("ref", params.r#ref);
    let RawContents::Folder(raw) = read(call, request)? else {
        let what = format!("{path} is no folder; see get_file");
        return Err(Stop::refused("not_a_folder", what));
    };
    let entry = |raw: RawEntry| Entry {
        name: raw.name,
        path: raw.path,
        kind: raw.kind,
        size: raw.size,
        sha: raw.sha,
    };
    let entries: Vec<Entry> = raw.into_iter().take(ENTRIES_MAX).map(entry).collect();
    let summary = format!("{} entries of {}", entries.len(), params.repository);
    Ok(Done::new(Directory { entries }, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutFile {
    repository: Repository,
    /// From the repository's root: `docs/setup.md`.
    #[schemars(regex(pattern = crate::PATH), length(max = 1000))]
    path: String,
    /// The branch to commit to.
    #[schemars(length(min = 1, max = 200))]
    branch: String,
    /// Of the commit.
    #[schemars(length(min = 1, max = 5000))]
    message: String,
    /// The whole file, where it is text. Either this or `content_base64`.
    #[schemars(length(max = 700_000))]
    text: Option<String>,
    /// The whole file in base64. Either this or `text`.
    #[schemars(length(max = 1_000_000))]
    content_base64: Option<String>,
    /// To change a file: the `sha` that `get_file` gave, so that nobody's change in between is lost. Without it, the
    /// file must be new.
    #[schemars(regex(pattern = crate::SHA))]
    sha: Option<String>,
}

#[derive(Deserialize)]
struct RawCommitted {
    content: Option<RawEntry>,
    commit: RawFileCommit,
}

#[derive(Deserialize)]
struct RawFileCommit {
    sha: String,
    html_url: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Committed {
    path: String,
    /// Of the file as it is now; none where it was deleted.
    sha: Option<String>,
    commit_sha: String,
    commit_url: Option<String>,
}

pub fn put_file(call: &mut Call, params: PutFile) -> Result<Done<Committed>, Stop> {
    let body = sparse(json!({
        "message": params.message,
        "content": content(&params)?,
        "branch": params.branch,
        "sha": params.sha,
    }));
    let request = contents(call, Method::Put, &params.repository, &params.path).json(&body);
    let raw: RawCommitted = write(call, request)?;
    let summary = format!("{} committed to {}", params.path, params.branch);
    Ok(Done::new(committed(params.path, raw), summary))
}

fn content(params: &PutFile) -> Result<String, Stop> {
    match (&params.text, &params.content_base64) {
        (Some(text), None) => Ok(BASE64_STANDARD.encode(text)),
        (None, Some(base64)) => match BASE64_STANDARD.decode(base64) {
            Ok(_) => Ok(base64.clone()),
            Err(error) => Err(Stop::invalid(
                "/content_base64",
                format!("is no base64: {error}"),
            )),
        },
        _ => Err(Stop::invalid(
            "/text",
            "give either `text` or `content_base64`",
        )),
    }
}

fn committed(path: String, raw: RawCommitted) -> Committed {
    Committed {
        path,
        sha: raw.content.map(|content| content.sha),
        commit_sha: raw.commit.sha,
        commit_url: raw.commit.html_url,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteFile {
    repository: Repository,
    /// From the repository's root: `docs/setup.md`.
    #[schemars(regex(pattern = crate::PATH), length(max = 1000))]
    path: String,
    /// The branch to commit to.
    #[schemars(length(min = 1, max = 200))]
    branch: String,
    /// Of the commit.
    #[schemars(length(min = 1, max = 5000))]
    message: String,
    /// The file's `sha`, as `get_file` gave it.
    #[schemars(regex(pattern = crate::SHA))]
    sha: String,
}

pub fn delete_file(call: &mut Call, params: DeleteFile) -> Result<Done<Committed>, Stop> {
    let body = json!({ "message": params.message, "sha": params.sha, "branch": params.branch });
    let request = contents(call, Method::Delete, &params.repository, &params.path).json(&body);
    let raw: RawCommitted = write(call, request)?;
    let summary = format!("{} deleted from {}", params.path, params.branch);
    Ok(Done::new(committed(params.path, raw), summary))
}
