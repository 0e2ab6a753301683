//! Issues and their comments. A pull request is an issue too: it can be labelled and commented on as one.

use crate::{
    api::{at, read, read_page, sparse, write},
    page::{Cursor, page},
    people::{Login, cut, excerpt, name_of, names_of},
    repository::Repository,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};

/// Characters of a comment that a list repeats.
const COMMENT_CHARS_MAX: usize = 4000;

#[derive(Deserialize)]
pub struct RawIssue {
    number: u64,
    title: String,
    state: String,
    state_reason: Option<String>,
    html_url: String,
    user: Option<Login>,
    #[serde(default)]
    assignees: Vec<Login>,
    #[serde(default)]
    labels: Vec<RawLabel>,
    milestone: Option<RawMilestone>,
    #[serde(default)]
    comments: u64,
    created_at: Option<String>,
    updated_at: Option<String>,
    closed_at: Option<String>,
    body: Option<String>,
    pull_request: Option<serde::de::IgnoredAny>,
    /// Only where issues of several repositories may come.
    pub repository_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLabel {
    Name(String),
    Label { name: Option<String> },
}

#[derive(Deserialize)]
struct RawMilestone {
    title: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Issue {
    number: u64,
    title: String,
    /// `open` or `closed`
    state: String,
    /// `completed`, `not_planned`, `duplicate`, `reopened`
    state_reason: Option<String>,
    html_url: String,
    author: Option<String>,
    assignees: Vec<String>,
    labels: Vec<String>,
    milestone: Option<String>,
    /// How many there are.
    comments: u64,
    is_pull_request: bool,
    created_at: Option<String>,
    updated_at: Option<String>,
    closed_at: Option<String>,
    /// In Markdown; in a list, its beginning.
    body: Option<String>,
}

impl RawIssue {
    pub fn listed(self) -> Issue {
        let mut issue = Issue::from(self);
        issue.body = excerpt(issue.body);
        issue
    }

    fn is_pull_request(&self) -> bool {
        self.pull_request.is_some()
    }
}

impl From<RawIssue> for Issue {
    fn from(raw: RawIssue) -> Self {
        let is_pull_request = raw.is_pull_request();
        Self {
            number: raw.number,
            title: raw.title,
            state: raw.state,
            state_reason: raw.state_reason,
            html_url: raw.html_url,
            author: name_of(raw.user),
            assignees: names_of(raw.assignees),
            labels: names(raw.labels),
            milestone: raw.milestone.map(|milestone| milestone.title),
            comments: raw.comments,
            is_pull_request,
            created_at: raw.created_at,
            updated_at: raw.updated_at,
            closed_at: raw.closed_at,
            body: raw.body,
        }
    }
}

fn names(labels: Vec<RawLabel>) -> Vec<String> {
    let name = |label| match label {
        RawLabel::Name(name) => Some(name),
        RawLabel::Label { name } => name,
    };
    labels.into_iter().filter_map(name).collect()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIssue {
    repository: Repository,
    #[schemars(length(min = 1, max = 256))]
    title: String,
    /// In Markdown.
    #[schemars(length(max = 65536))]
    body: Option<String>,
    /// Names of labels; new ones come into being.
    #[schemars(length(max = 100), inner(length(min = 1, max = 50)))]
    labels: Option<Vec<String>>,
    /// Logins.
    #[schemars(length(max = 10), inner(length(min = 1, max = 100)))]
    assignees: Option<Vec<String>>,
    /// The milestone's number.
    #[schemars(range(min = 1))]
    milestone: Option<u64>,
}

pub fn create_issue(call: &mut Call, params: CreateIssue) -> Result<Done<Issue>, Stop> {
    let repository = &params.repository;
    let body = sparse(json!({
        "title": params.title,
        "body": params.body,
        "labels": params.labels,
        "assignees": params.assignees,
        "milestone": params.milestone,
    }));
    let request = at(call, Method::Post, &repository.path(&["issues"])).json(&body);
    let issue: Issue = write::<RawIssue>(call, request)?.into();
    let summary = format!("{repository}#{} opened", issue.number);
    Ok(Done::new(issue, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Open,
    Closed,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    Completed,
    NotPlanned,
    Reopened,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateIssue {
    repository: Repository,
    /// Of the issue or pull request.
    #[schemars(range(min = 1))]
    number: u64,
    #[schemars(length(min = 1, max = 256))]
    title: Option<String>,
    /// In Markdown; it replaces the old text.
    #[schemars(length(max = 65536))]
    body: Option<String>,
    state: Option<State>,
    /// Why it is closed or opened.
    state_reason: Option<StateReason>,
    /// They replace the old ones; see `add_labels`.
    #[schemars(length(max = 100), inner(length(min = 1, max = 50)))]
    labels: Option<Vec<String>>,
    /// Logins; they replace the old ones.
    #[schemars(length(max = 10), inner(length(min = 1, max = 100)))]
    assignees: Option<Vec<String>>,
    /// The milestone's number.
    #[schemars(range(min = 1))]
    milestone: Option<u64>,
}

pub fn update_issue(call: &mut Call, params: UpdateIssue) -> Result<Done<Issue>, Stop> {
    let repository = &params.repository;
    let body = sparse(json!({
        "title": params.title,
        "body": params.body,
        "state": params.state,
        "state_reason": params.state_reason,
        "labels": params.labels,
        "assignees": params.assignees,
        "milestone": params.milestone,
    }));
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Stop::invalid(
            "",
            "nothing is to be changed: give `title`, `body`, `state`, ...",
        ));
    }
    let number = params.number.to_string();
    let request = at(call, Method::Patch, &repository.path(&["issues", &number])).json(&body);
    let issue: Issue = write::<RawIssue>(call, request)?.into();
    let summary = format!("{repository}#{number} changed");
    Ok(Done::new(issue, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetIssue {
    repository: Repository,
    /// Of the issue or pull request.
    #[schemars(range(min = 1))]
    number: u64,
}

pub fn get_issue(call: &mut Call, params: GetIssue) -> Result<Done<Issue>, Stop> {
    let number = params.number.to_string();
    let path = params.repository.path(&["issues", &number]);
    let request = at(call, Method::Get, &path);
    let issue: Issue = read::<RawIssue>(call, request)?.into();
    let summary = format!("{}#{number}: {}", params.repository, issue.title);
    Ok(Done::new(issue, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnyState {
    Open,
    Closed,
    All,
}

impl AnyState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::All => "all",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListIssues {
    repository: Repository,
    /// Open ones unless set.
    state: Option<AnyState>,
    /// Only issues with all of these labels.
    #[schemars(length(min = 1, max = 10), inner(regex(pattern = "^[^,]{1,50}$")))]
    labels: Option<Vec<String>>,
    /// A login; `none` for nobody, `*` for anybody.
    #[schemars(length(min = 1, max = 100))]
    assignee: Option<String>,
    /// The author's login.
    #[schemars(length(min = 1, max = 100))]
    creator: Option<String>,
    /// Only issues that were changed after this time: `2026-01-31T09:00:00Z`.
    #[schemars(regex(pattern = crate::TIME))]
    since: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Entries on a page, 30 unless set. Pull requests are among them, and left out: a page may hold fewer.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
pub struct Issues {
    /// The newest first.
    issues: Vec<Issue>,
    next_cursor: Option<String>,
}

pub fn list_issues(call: &mut Call, params: ListIssues) -> Result<Done<Issues>, Stop> {
    let request = at(call, Method::Get, &params.repository.path(&["issues"]))
        .query_opt("state", params.state.map(AnyState::name))
        .query_opt("labels", params.labels.map(|labels| labels.join(",")))
        .query_opt("assignee", params.assignee)
        .query_opt("creator", params.creator)
        .query_opt("since", params.since);
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawIssue>>(call, request)?;
    let issues: Vec<Issue> = raw
        .into_iter()
        .filter(|raw| !raw.is_pull_request())
        .map(RawIssue::listed)
        .collect();
    let summary = format!("{} issues of {}", issues.len(), params.repository);
    Ok(Done::new(
        Issues {
            issues,
            next_cursor,
        },
        summary,
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddLabels {
    repository: Repository,
    /// Of the issue or pull request.
    #[schemars(range(min = 1))]
    number: u64,
    /// New ones come into being.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 50)))]
    labels: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Labels {
    /// All that it has now.
    labels: Vec<String>,
}

pub fn add_labels(call: &mut Call, params: AddLabels) -> Result<Done<Labels>, Stop> {
    let number = params.number.to_string();
    let path = params.repository.path(&["issues", &number, "labels"]);
    let request = at(call, Method::Post, &path).json(&json!({ "labels": params.labels }));
    let labels = names(write::<Vec<RawLabel>>(call, request)?);
    let summary = format!("{}#{number} labelled", params.repository);
    Ok(Done::new(Labels { labels }, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateComment {
    repository: Repository,
    /// Of the issue or pull request.
    #[schemars(range(min = 1))]
    number: u64,
    /// In Markdown.
    #[schemars(length(min = 1, max = 65536))]
    body: String,
}

#[derive(Deserialize)]
struct RawComment {
    id: u64,
    html_url: String,
    user: Option<Login>,
    created_at: Option<String>,
    updated_at: Option<String>,
    body: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Comment {
    id: u64,
    html_url: String,
    author: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    /// In Markdown; cut after 4,000 characters.
    body: Option<String>,
}

impl From<RawComment> for Comment {
    fn from(raw: RawComment) -> Self {
        Self {
            id: raw.id,
            html_url: raw.html_url,
            author: name_of(raw.user),
            created_at: raw.created_at,
            updated_at: raw.updated_at,
            body: cut(raw.body, COMMENT_CHARS_MAX),
        }
    }
}

pub fn create_comment(call: &mut Call, params: CreateComment) -> Result<Done<Comment>, Stop> {
    let number = params.number.to_string();
    let path = params.repository.path(&["issues", &number, "comments"]);
    let request = at(call, Method::Post, &path).json(&json!({ "body": params.body }));
    let comment: Comment = write::<RawComment>(call, request)?.into();
    let summary = format!("commented on {}#{number}", params.repository);
    Ok(Done::new(comment, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListComments {
    repository: Repository,
    /// Of the issue or pull request.
    #[schemars(range(min = 1))]
    number: u64,
    /// Only comments that were changed after this time: `2026-01-31T09:00:00Z`.
    #[schemars(regex(pattern = crate::TIME))]
    since: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Comments on a page; 30 unless set.
    #[schemars(range(min = 1, max = 50))]
    per_page: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
pub struct Comments {
    /// The oldest first.
    comments: Vec<Comment>,
    next_cursor: Option<String>,
}

pub fn list_comments(call: &mut Call, params: ListComments) -> Result<Done<Comments>, Stop> {
    let number = params.number.to_string();
    let path = params.repository.path(&["issues", &number, "comments"]);
    let request = at(call, Method::Get, &path).query_opt("since", params.since);
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawComment>>(call, request)?;
    let comments: Vec<Comment> = raw.into_iter().map(Comment::from).collect();
    let summary = format!(
        "{} comments on {}#{number}",
        comments.len(),
        params.repository
    );
    Ok(Done::new(
        Comments {
            comments,
            next_cursor,
        },
        summary,
    ))
}
