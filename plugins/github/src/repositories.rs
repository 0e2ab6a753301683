//! Repositories, their branches and commits.

use crate::{
    api::{at, read, read_page, write},
    page::{Cursor, page},
    people::{Login, name_of},
    repository::Repository,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Request, Stop};

#[derive(Deserialize, Serialize, JsonSchema)]
pub struct RepositoryInfo {
    /// `owner/name`
    full_name: String,
    description: Option<String>,
    html_url: String,
    private: bool,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    fork: bool,
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default)]
    language: Option<String>,
    /// Issues and pull requests together.
    #[serde(default)]
    open_issues_count: Option<u64>,
    #[serde(default)]
    pushed_at: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetRepository {
    repository: Repository,
}

pub fn get_repository(
    call: &mut Call,
    params: GetRepository,
) -> Result<Done<RepositoryInfo>, Stop> {
    let request = at(call, Method::Get, &params.repository.path(&[]));
    let found: RepositoryInfo = read(call, request)?;
    let summary = found.full_name.clone();
    Ok(Done::new(found, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryOrder {
    Created,
    Updated,
    Pushed,
    FullName,
}

impl RepositoryOrder {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Pushed => "pushed",
            Self::FullName => "full_name",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRepositories {
    /// By name unless set; by time, the newest first.
    sort: Option<RepositoryOrder>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Repositories on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListOrganizationRepositories {
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$"))]
    organization: String,
    /// By the time of creation unless set; by time, the newest first.
    sort: Option<RepositoryOrder>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Repositories on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
pub struct Repositories {
    repositories: Vec<RepositoryInfo>,
    next_cursor: Option<String>,
}

pub fn list_repositories(
    call: &mut Call,
    params: ListRepositories,
) -> Result<Done<Repositories>, Stop> {
    let request = at(call, Method::Get, &["user", "repos"])
        .query_opt("sort", params.sort.map(RepositoryOrder::name));
    repositories(call, page(request, params.cursor, params.per_page))
}

pub fn list_organization_repositories(
    call: &mut Call,
    params: ListOrganizationRepositories,
) -> Result<Done<Repositories>, Stop> {
    let request = at(call, Method::Get, &["orgs", &params.organization, "repos"])
        .query_opt("sort", params.sort.map(RepositoryOrder::name));
    repositories(call, page(request, params.cursor, params.per_page))
}

fn repositories(call: &mut Call, request: Request) -> Result<Done<Repositories>, Stop> {
    let (repositories, next_cursor) = read_page::<Vec<RepositoryInfo>>(call, request)?;
    let summary = format!("{} repositories", repositories.len());
    let page = Repositories {
        repositories,
        next_cursor,
    };
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListBranches {
    repository: Repository,
    /// Only protected ones, or only others.
    protected: Option<bool>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Branches on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawBranch {
    name: String,
    commit: Sha,
    #[serde(default)]
    protected: bool,
}

#[derive(Deserialize)]
struct Sha {
    sha: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Branch {
    name: String,
    /// Of its newest commit.
    sha: String,
    protected: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Branches {
    branches: Vec<Branch>,
    next_cursor: Option<String>,
}

pub fn list_branches(call: &mut Call, params: ListBranches) -> Result<Done<Branches>, Stop> {
    let request = at(call, Method::Get, &params.repository.path(&["branches"]))
        .query_opt("protected", params.protected);
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawBranch>>(call, request)?;
    let branch = |raw: RawBranch| Branch {
        name: raw.name,
        sha: raw.commit.sha,
        protected: raw.protected,
    };
    let page = Branches {
        branches: raw.into_iter().map(branch).collect(),
        next_cursor,
    };
    let summary = format!("{} branches of {}", page.branches.len(), params.repository);
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBranch {
    repository: Repository,
    /// The new branch.
    #[schemars(length(min = 1, max = 200))]
    branch: String,
    /// The branch that it begins at: `main`.
    #[schemars(length(min = 1, max = 200))]
    from: String,
}

#[derive(Deserialize)]
struct RawRef {
    object: Sha,
}

#[derive(Serialize, JsonSchema)]
pub struct CreatedBranch {
    branch: String,
    /// Of the commit that it begins at.
    sha: String,
}

/// Two requests: where the other branch stands, and the new one there.
pub fn create_branch(call: &mut Call, params: CreateBranch) -> Result<Done<CreatedBranch>, Stop> {
    let repository = &params.repository;
    let from = format!("heads/{}", params.from);
    let request = at(call, Method::Get, &repository.path(&["git", "ref", &from]));
    let begin: RawRef = read(call, request)?;
    let body = json!({ "ref": format!("refs/heads/{}", params.branch), "sha": begin.object.sha });
    let request = at(call, Method::Post, &repository.path(&["git", "refs"])).json(&body);
    let made: RawRef = write(call, request)?;
    let summary = format!("{} created in {repository}", params.branch);
    let created = CreatedBranch {
        branch: params.branch,
        sha: made.object.sha,
    };
    Ok(Done::new(created, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListCommits {
    repository: Repository,
    /// Branch, tag or SHA to begin at; the default branch unless set.
    #[schemars(length(min = 1, max = 200))]
    r#ref: Option<String>,
    /// Only commits that changed this file or folder.
    #[schemars(length(min = 1, max = 1000))]
    path: Option<String>,
    /// Login or e-mail address.
    #[schemars(length(min = 1, max = 320))]
    author: Option<String>,
    /// Only commits after this time: `2026-01-31T09:00:00Z`.
    #[schemars(regex(pattern = crate::TIME))]
    since: Option<String>,
    /// Only commits before this time.
    #[schemars(regex(pattern = crate::TIME))]
    until: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Commits on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawCommit {
    sha: String,
    html_url: String,
    commit: RawCommitDetails,
    author: Option<Login>,
}

#[derive(Deserialize)]
struct RawCommitDetails {
    message: String,
    author: Option<RawSignature>,
}

#[derive(Deserialize)]
struct RawSignature {
    name: Option<String>,
    date: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Commit {
    sha: String,
    /// Its first line.
    title: String,
    /// Login, or the name in the commit where GitHub knows no account.
    author: Option<String>,
    date: Option<String>,
    html_url: String,
}

impl From<RawCommit> for Commit {
    fn from(raw: RawCommit) -> Self {
        let (name, date) = raw
            .commit
            .author
            .map_or((None, None), |author| (author.name, author.date));
        Self {
            sha: raw.sha,
            title: raw.commit.message.lines().next().unwrap_or_default().into(),
            author: name_of(raw.author).or(name),
            date,
            html_url: raw.html_url,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Commits {
    /// The newest first.
    commits: Vec<Commit>,
    next_cursor: Option<String>,
}

pub fn list_commits(call: &mut Call, params: ListCommits) -> Result<Done<Commits>, Stop> {
    let request = at(call, Method::Get, &params.repository.path(&["commits"]))
        .query_opt("sha", params.r#ref)
        .query_opt("path", params.path)
        .query_opt("author", params.author)
        .query_opt("since", params.since)
        .query_opt("until", params.until);
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawCommit>>(call, request)?;
    let page = Commits {
        commits: raw.into_iter().map(Commit::from).collect(),
        next_cursor,
    };
    let summary = format!("{} commits of {}", page.commits.len(), params.repository);
    Ok(Done::new(page, summary))
}
