//! Pull requests, what they change, and whether their checks are green.

use crate::{
    api::{at, read, read_page, sparse, tell, write},
    issues::AnyState,
    page::{Cursor, page},
    people::{Login, cut, excerpt, name_of, names_of},
    repository::Repository,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};

/// Characters of the change of one file that a list repeats.
const PATCH_CHARS_MAX: usize = 5000;

#[derive(Deserialize)]
struct RawPull {
    number: u64,
    title: String,
    state: String,
    #[serde(default)]
    draft: bool,
    html_url: String,
    user: Option<Login>,
    #[serde(default)]
    requested_reviewers: Vec<Login>,
    head: RawEnd,
    base: RawEnd,
    #[serde(default)]
    merged: Option<bool>,
    merged_at: Option<String>,
    mergeable: Option<bool>,
    mergeable_state: Option<String>,
    merge_commit_sha: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    changed_files: Option<u64>,
    additions: Option<u64>,
    deletions: Option<u64>,
    body: Option<String>,
}

#[derive(Deserialize)]
struct RawEnd {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Pull {
    number: u64,
    title: String,
    /// `open` or `closed`
    state: String,
    draft: bool,
    merged: bool,
    html_url: String,
    author: Option<String>,
    requested_reviewers: Vec<String>,
    /// The branch with the change.
    head: String,
    head_sha: String,
    /// The branch that it is to be merged into.
    base: String,
    /// Whether it can be merged without conflicts; none in a list, and while GitHub works it out: ask again.
    mergeable: Option<bool>,
    /// `clean`, `blocked`, `behind`, `dirty`, `unstable`, ...; none in a list.
    mergeable_state: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    changed_files: Option<u64>,
    additions: Option<u64>,
    deletions: Option<u64>,
    /// In Markdown; in a list, its beginning.
    body: Option<String>,
}

impl From<RawPull> for Pull {
    fn from(raw: RawPull) -> Self {
        Self {
            number: raw.number,
            title: raw.title,
            state: raw.state,
            draft: raw.draft,
            merged: raw.merged.unwrap_or(raw.merged_at.is_some()),
            html_url: raw.html_url,
            author: name_of(raw.user),
            requested_reviewers: names_of(raw.requested_reviewers),
            head: raw.head.branch,
            head_sha: raw.head.sha,
            base: raw.base.branch,
            mergeable: raw.mergeable,
            mergeable_state: raw.mergeable_state,
            created_at: raw.created_at,
            updated_at: raw.updated_at,
            changed_files: raw.changed_files,
            additions: raw.additions,
            deletions: raw.deletions,
            body: raw.body,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPulls {
    repository: Repository,
    /// Open ones unless set.
    state: Option<AnyState>,
    /// Only of this branch: `owner:branch`.
    #[schemars(length(min = 1, max = 300))]
    head: Option<String>,
    /// Only into this branch.
    #[schemars(length(min = 1, max = 200))]
    base: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Pull requests on a page; 30 unless set.
    #[schemars(range(min = 1, max = 50))]
    per_page: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
pub struct Pulls {
    /// The newest first.
    pull_requests: Vec<Pull>,
    next_cursor: Option<String>,
}

pub fn list_pull_requests(call: &mut Call, params: ListPulls) -> Result<Done<Pulls>, Stop> {
    let request = at(call, Method::Get, &params.repository.path(&["pulls"]))
        .query_opt("state", params.state.map(AnyState::name))
        .query_opt("head", params.head)
        .query_opt("base", params.base);
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawPull>>(call, request)?;
    let listed = |raw| {
        let mut pull = Pull::from(raw);
        pull.body = excerpt(pull.body);
        pull
    };
    let pull_requests: Vec<Pull> = raw.into_iter().map(listed).collect();
    let summary = format!(
        "{} pull requests of {}",
        pull_requests.len(),
        params.repository
    );
    Ok(Done::new(
        Pulls {
            pull_requests,
            next_cursor,
        },
        summary,
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetPull {
    repository: Repository,
    #[schemars(range(min = 1))]
    number: u64,
}

pub fn get_pull_request(call: &mut Call, params: GetPull) -> Result<Done<Pull>, Stop> {
    let pull: Pull = get(call, &params.repository, params.number)?.into();
    let summary = format!("{}#{}: {}", params.repository, params.number, pull.title);
    Ok(Done::new(pull, summary))
}

fn get(call: &mut Call, repository: &Repository, number: u64) -> Result<RawPull, Stop> {
    let number = number.to_string();
    let request = at(call, Method::Get, &repository.path(&["pulls", &number]));
    read(call, request)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPullFiles {
    repository: Repository,
    #[schemars(range(min = 1))]
    number: u64,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Files on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawChange {
    filename: String,
    previous_filename: Option<String>,
    status: String,
    #[serde(default)]
    additions: u64,
    #[serde(default)]
    deletions: u64,
    patch: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Change {
    path: String,
    /// Where it was renamed.
    previous_path: Option<String>,
    /// `added`, `removed`, `modified`, `renamed`, ...
    status: String,
    additions: u64,
    deletions: u64,
    /// As unified diff, cut after 5,000 characters; none of a binary file.
    patch: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Changes {
    files: Vec<Change>,
    next_cursor: Option<String>,
}

pub fn list_pull_request_files(
    call: &mut Call,
    params: ListPullFiles,
) -> Result<Done<Changes>, Stop> {
    let number = params.number.to_string();
    let path = params.repository.path(&["pulls", &number, "files"]);
    let request = page(at(call, Method::Get, &path), params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawChange>>(call, request)?;
    let change = |raw: RawChange| Change {
        path: raw.filename,
        previous_path: raw.previous_filename,
        status: raw.status,
        additions: raw.additions,
        deletions: raw.deletions,
        patch: cut(raw.patch, PATCH_CHARS_MAX),
    };
    let files: Vec<Change> = raw.into_iter().map(change).collect();
    let summary = format!(
        "{} files changed by {}#{number}",
        files.len(),
        params.repository
    );
    Ok(Done::new(Changes { files, next_cursor }, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePull {
    repository: Repository,
    #[schemars(length(min = 1, max = 256))]
    title: String,
    /// The branch with the change; of a fork, `owner:branch`.
    #[schemars(length(min = 1, max = 300))]
    head: String,
    /// The branch that it is to be merged into: `main`.
    #[schemars(length(min = 1, max = 200))]
    base: String,
    /// In Markdown.
    #[schemars(length(max = 65536))]
    body: Option<String>,
    draft: Option<bool>,
}

pub fn create_pull_request(call: &mut Call, params: CreatePull) -> Result<Done<Pull>, Stop> {
    let repository = &params.repository;
    let body = sparse(json!({
        "title": params.title,
        "head": params.head,
        "base": params.base,
        "body": params.body,
        "draft": params.draft,
    }));
    let request = at(call, Method::Post, &repository.path(&["pulls"])).json(&body);
    let pull: Pull = write::<RawPull>(call, request)?.into();
    let summary = format!("{repository}#{} opened", pull.number);
    Ok(Done::new(pull, summary))
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approve,
    RequestChanges,
    Comment,
}

impl Verdict {
    fn event(self) -> &'static str {
        match self {
            Self::Approve => "APPROVE",
            Self::RequestChanges => "REQUEST_CHANGES",
            Self::Comment => "COMMENT",
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LineComment {
    /// The file, from the repository's root.
    #[schemars(length(min = 1, max = 1000))]
    path: String,
    /// The line in the file as the pull request leaves it; it must be part of the change shown.
    #[schemars(range(min = 1))]
    line: u64,
    /// In Markdown.
    #[schemars(length(min = 1, max = 65536))]
    body: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewPull {
    repository: Repository,
    #[schemars(range(min = 1))]
    number: u64,
    verdict: Verdict,
    /// In Markdown; needed unless it is an approval.
    #[schemars(length(min = 1, max = 65536))]
    body: Option<String>,
    /// Remarks on single lines.
    #[schemars(length(min = 1, max = 50))]
    comments: Option<Vec<LineComment>>,
    /// The commit that was looked at: `head_sha` of the pull request.
    #[schemars(regex(pattern = crate::SHA))]
    commit_sha: Option<String>,
}

#[derive(Deserialize)]
struct RawReview {
    id: u64,
    html_url: Option<String>,
    state: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Review {
    id: u64,
    /// `APPROVED`, `CHANGES_REQUESTED`, `COMMENTED`
    state: String,
    html_url: Option<String>,
}

pub fn review_pull_request(call: &mut Call, params: ReviewPull) -> Result<Done<Review>, Stop> {
    if params.body.is_none() && !matches!(params.verdict, Verdict::Approve) {
        return Err(Stop::invalid("/body", "is needed unless it is an approval"));
    }
    let number = params.number.to_string();
    let body = sparse(json!({
        "event": params.verdict.event(),
        "body": params.body,
        "comments": params.comments,
        "commit_id": params.commit_sha,
    }));
    let path = params.repository.path(&["pulls", &number, "reviews"]);
    let request = at(call, Method::Post, &path).json(&body);
    let raw: RawReview = write(call, request)?;
    let summary = format!("{}#{number} reviewed: {}", params.repository, raw.state);
    let review = Review {
        id: raw.id,
        state: raw.state,
        html_url: raw.html_url,
    };
    Ok(Done::new(review, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeMethod {
    Merge,
    Squash,
    Rebase,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergePull {
    repository: Repository,
    #[schemars(range(min = 1))]
    number: u64,
    /// As the repository has it unless set.
    merge_method: Option<MergeMethod>,
    /// The commit that was approved, `head_sha` of the pull request: a newer one is not merged.
    #[schemars(regex(pattern = crate::SHA))]
    head_sha: Option<String>,
    #[schemars(length(min = 1, max = 256))]
    commit_title: Option<String>,
    #[schemars(length(max = 65536))]
    commit_message: Option<String>,
}

#[derive(Deserialize)]
struct RawMerge {
    sha: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Merge {
    /// Of the merge commit.
    sha: String,
}

/// A pull request is merged once: where GitHub says that it cannot be, it may be because it is.
pub fn merge_pull_request(call: &mut Call, params: MergePull) -> Result<Done<Merge>, Stop> {
    let number = params.number.to_string();
    let body = sparse(json!({
        "merge_method": params.merge_method,
        "sha": params.head_sha,
        "commit_title": params.commit_title,
        "commit_message": params.commit_message,
    }));
    let path = params.repository.path(&["pulls", &number, "merge"]);
    let request = at(call, Method::Put, &path).json(&body);
    let (sha, summary) = match tell(call, request) {
        Ok(reply) => (
            reply.parse::<RawMerge>()?.sha,
            format!("{}#{number} merged", params.repository),
        ),
        Err(stop) if is_refused_as(&stop, "not_allowed") => {
            let pull = get(call, &params.repository, params.number)?;
            match pull.merge_commit_sha {
                Some(sha) if pull.merged == Some(true) => (
                    sha,
                    format!("{}#{number} was merged already", params.repository),
                ),
                _ => return Err(stop),
            }
        }
        Err(stop) => return Err(stop),
    };
    Ok(Done::new(Merge { sha }, summary))
}

fn is_refused_as(stop: &Stop, code: &str) -> bool {
    matches!(stop, Stop::Fail(servicetsunami_plugin::Failure::Refused(refusal)) if refusal.code == code)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListChecks {
    repository: Repository,
    /// Branch, tag or SHA: `head_sha` of a pull request.
    #[schemars(length(min = 1, max = 200))]
    r#ref: String,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Checks on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawChecks {
    total_count: u64,
    check_runs: Vec<Check>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
pub struct Check {
    id: u64,
    name: String,
    /// `queued`, `in_progress`, `completed`, ...
    status: String,
    /// `success`, `failure`, `neutral`, `cancelled`, `timed_out`, `action_required`, `skipped`, ...
    conclusion: Option<String>,
    html_url: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Checks {
    total_count: u64,
    checks: Vec<Check>,
    next_cursor: Option<String>,
}

pub fn list_checks(call: &mut Call, params: ListChecks) -> Result<Done<Checks>, Stop> {
    let path = params
        .repository
        .path(&["commits", &params.r#ref, "check-runs"]);
    let request = page(at(call, Method::Get, &path), params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<RawChecks>(call, request)?;
    let good = ["success", "neutral", "skipped"];
    let open = raw
        .check_runs
        .iter()
        .filter(|check| {
            !check
                .conclusion
                .as_deref()
                .is_some_and(|c| good.contains(&c))
        })
        .count();
    let summary = format!("{} checks, {open} of them not green", raw.check_runs.len());
    let checks = Checks {
        total_count: raw.total_count,
        checks: raw.check_runs,
        next_cursor,
    };
    Ok(Done::new(checks, summary))
}
