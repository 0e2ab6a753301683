//! Comments, and the people of the workspace.

use crate::{
    api::{Id, RawList, at, read, write},
    text::{RawPiece, plain},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateComment {
    page_id: Id,
    /// The comment.
    #[schemars(length(min = 1, max = 20_000))]
    markdown: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyToComment {
    /// The thread, as `list_comments` shows it.
    discussion_id: Id,
    /// The comment.
    #[schemars(length(min = 1, max = 20_000))]
    markdown: String,
}

#[derive(Deserialize)]
struct RawComment {
    id: String,
    discussion_id: Option<String>,
    created_time: Option<String>,
    created_by: Option<RawPerson>,
    #[serde(default)]
    rich_text: Vec<RawPiece>,
}

#[derive(Deserialize)]
struct RawPerson {
    id: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Comment {
    id: String,
    /// The thread that it belongs to.
    discussion_id: Option<String>,
    created_time: Option<String>,
    /// Id of whoever wrote it.
    created_by: Option<String>,
    /// Without its formatting.
    text: String,
}

impl From<RawComment> for Comment {
    fn from(raw: RawComment) -> Self {
        Self {
            id: raw.id,
            discussion_id: raw.discussion_id,
            created_time: raw.created_time,
            created_by: raw.created_by.map(|person| person.id),
            text: plain(&raw.rich_text),
        }
    }
}

pub fn create_comment(call: &mut Call, params: CreateComment) -> Result<Done<Comment>, Stop> {
    let parent = json!({ "type": "page_id", "page_id": params.page_id });
    comment(
        call,
        &json!({ "parent": parent, "markdown": params.markdown }),
    )
}

pub fn reply_to_comment(call: &mut Call, params: ReplyToComment) -> Result<Done<Comment>, Stop> {
    comment(
        call,
        &json!({ "discussion_id": params.discussion_id, "markdown": params.markdown }),
    )
}

fn comment(call: &mut Call, body: &Value) -> Result<Done<Comment>, Stop> {
    let request = at(call, Method::Post, &["comments"]).json(body);
    let comment: Comment = write::<RawComment>(call, request)?.into();
    Ok(Done::new(comment, "commented"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListComments {
    /// A page, or a block of one.
    block_id: Id,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Comments on a page.
    #[serde(default = "crate::on_a_page")]
    #[schemars(range(min = 1, max = 100))]
    page_size: u8,
}

#[derive(Serialize, JsonSchema)]
pub struct Comments {
    /// Open ones, the oldest first.
    comments: Vec<Comment>,
    next_cursor: Option<String>,
}

pub fn list_comments(call: &mut Call, params: ListComments) -> Result<Done<Comments>, Stop> {
    let request = at(call, Method::Get, &["comments"])
        .query("block_id", params.block_id.as_str())
        .query_opt("start_cursor", params.cursor)
        .query("page_size", params.page_size);
    let raw: RawList<RawComment> = read(call, request)?;
    let page = Comments {
        comments: raw.results.into_iter().map(Comment::from).collect(),
        next_cursor: raw.next_cursor,
    };
    let summary = format!("{} comments", page.comments.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUsers {
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// People on a page.
    #[serde(default = "crate::on_a_page")]
    #[schemars(range(min = 1, max = 100))]
    page_size: u8,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetUser {
    user_id: Id,
}

#[derive(Deserialize)]
struct RawUser {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    person: Option<RawMail>,
}

#[derive(Deserialize)]
struct RawMail {
    email: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct User {
    id: String,
    name: Option<String>,
    /// `person` or `bot`
    kind: Option<String>,
    /// Where the connection may see it.
    email: Option<String>,
}

impl From<RawUser> for User {
    fn from(raw: RawUser) -> Self {
        Self {
            id: raw.id,
            name: raw.name,
            kind: raw.kind,
            email: raw.person.and_then(|person| person.email),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Users {
    users: Vec<User>,
    next_cursor: Option<String>,
}

pub fn list_users(call: &mut Call, params: ListUsers) -> Result<Done<Users>, Stop> {
    let request = at(call, Method::Get, &["users"])
        .query_opt("start_cursor", params.cursor)
        .query("page_size", params.page_size);
    let raw: RawList<RawUser> = read(call, request)?;
    let page = Users {
        users: raw.results.into_iter().map(User::from).collect(),
        next_cursor: raw.next_cursor,
    };
    let summary = format!("{} people", page.users.len());
    Ok(Done::new(page, summary))
}

pub fn get_user(call: &mut Call, params: GetUser) -> Result<Done<User>, Stop> {
    let request = at(call, Method::Get, &["users", params.user_id.as_str()]);
    let user: User = read::<RawUser>(call, request)?.into();
    let summary = user.name.clone().unwrap_or_else(|| user.id.clone());
    Ok(Done::new(user, summary))
}
