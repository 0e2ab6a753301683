//! Releases, and the workflows of GitHub Actions.

use crate::{
    api::{at, read_page, sparse, tell, write},
    page::{Cursor, page},
    people::{Login, excerpt, name_of},
    repository::Repository,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct RawRelease {
    id: u64,
    tag_name: String,
    name: Option<String>,
    html_url: String,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    prerelease: bool,
    author: Option<Login>,
    published_at: Option<String>,
    body: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Release {
    id: u64,
    tag: String,
    name: Option<String>,
    html_url: String,
    draft: bool,
    prerelease: bool,
    author: Option<String>,
    published_at: Option<String>,
    /// In Markdown; in a list, its beginning.
    body: Option<String>,
}

impl From<RawRelease> for Release {
    fn from(raw: RawRelease) -> Self {
        Self {
            id: raw.id,
            tag: raw.tag_name,
            name: raw.name,
            html_url: raw.html_url,
            draft: raw.draft,
            prerelease: raw.prerelease,
            author: name_of(raw.author),
            published_at: raw.published_at,
            body: raw.body,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListReleases {
    repository: Repository,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Releases on a page; 30 unless set.
    #[schemars(range(min = 1, max = 50))]
    per_page: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
pub struct Releases {
    /// The newest first.
    releases: Vec<Release>,
    next_cursor: Option<String>,
}

pub fn list_releases(call: &mut Call, params: ListReleases) -> Result<Done<Releases>, Stop> {
    let request = at(call, Method::Get, &params.repository.path(&["releases"]));
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<Vec<RawRelease>>(call, request)?;
    let listed = |raw| {
        let mut release = Release::from(raw);
        release.body = excerpt(release.body);
        release
    };
    let releases: Vec<Release> = raw.into_iter().map(listed).collect();
    let summary = format!("{} releases of {}", releases.len(), params.repository);
    Ok(Done::new(
        Releases {
            releases,
            next_cursor,
        },
        summary,
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRelease {
    repository: Repository,
    /// `v1.4.0`; it comes into being where it is new.
    #[schemars(length(min = 1, max = 200))]
    tag: String,
    /// Branch or SHA that a new tag is put on; the default branch unless set.
    #[schemars(length(min = 1, max = 200))]
    target: Option<String>,
    /// The tag unless set.
    #[schemars(length(min = 1, max = 200))]
    name: Option<String>,
    /// In Markdown.
    #[schemars(length(max = 100_000))]
    body: Option<String>,
    /// Whether GitHub writes the notes from the pull requests since the release before.
    generate_release_notes: Option<bool>,
    /// Whether it is prepared without being published.
    draft: Option<bool>,
    prerelease: Option<bool>,
}

pub fn create_release(call: &mut Call, params: CreateRelease) -> Result<Done<Release>, Stop> {
    let repository = &params.repository;
    let body = sparse(json!({
        "tag_name": params.tag,
        "target_commitish": params.target,
        "name": params.name,
        "body": params.body,
        "generate_release_notes": params.generate_release_notes,
        "draft": params.draft,
        "prerelease": params.prerelease,
    }));
    let request = at(call, Method::Post, &repository.path(&["releases"])).json(&body);
    let release: Release = write::<RawRelease>(call, request)?.into();
    let done = if release.draft {
        "drafted"
    } else {
        "published"
    };
    let summary = format!("{} of {repository} {done}", release.tag);
    Ok(Done::new(release, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunWorkflow {
    repository: Repository,
    /// The workflow's file (`deploy.yml`) or id. It must react to `workflow_dispatch`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,200}$"))]
    workflow: String,
    /// The branch or tag that it runs on.
    #[schemars(length(min = 1, max = 200))]
    r#ref: String,
    /// What the workflow asks for.
    #[schemars(extend("maxProperties" = 25))]
    inputs: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDispatched {
    workflow_run_id: Option<u64>,
    html_url: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Dispatched {
    /// Where GitHub tells; see `list_workflow_runs`.
    run_id: Option<u64>,
    html_url: Option<String>,
}

pub fn run_workflow(call: &mut Call, params: RunWorkflow) -> Result<Done<Dispatched>, Stop> {
    let path = params
        .repository
        .path(&["actions", "workflows", &params.workflow, "dispatches"]);
    let body = sparse(json!({ "ref": params.r#ref, "inputs": params.inputs }));
    let request = at(call, Method::Post, &path).json(&body);
    let reply = tell(call, request)?;
    let raw: RawDispatched = match reply.json()? {
        Value::Null => RawDispatched::default(),
        _ => reply.parse()?,
    };
    let summary = format!("{} runs on {}", params.workflow, params.r#ref);
    let dispatched = Dispatched {
        run_id: raw.workflow_run_id,
        html_url: raw.html_url,
    };
    Ok(Done::new(dispatched, summary))
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    Queued,
    InProgress,
    Completed,
    Success,
    Failure,
    Cancelled,
    TimedOut,
    ActionRequired,
    Waiting,
}

impl RunStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::ActionRequired => "action_required",
            Self::Waiting => "waiting",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRuns {
    repository: Repository,
    /// Only of this workflow: its file (`deploy.yml`) or id.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,200}$"))]
    workflow: Option<String>,
    #[schemars(length(min = 1, max = 200))]
    branch: Option<String>,
    status: Option<RunStatus>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Runs on a page; 30 unless set.
    #[schemars(range(min = 1, max = 50))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawRuns {
    total_count: u64,
    workflow_runs: Vec<RawRun>,
}

#[derive(Deserialize)]
struct RawRun {
    id: u64,
    name: Option<String>,
    display_title: Option<String>,
    html_url: String,
    status: Option<String>,
    conclusion: Option<String>,
    event: Option<String>,
    head_branch: Option<String>,
    head_sha: String,
    actor: Option<Login>,
    run_started_at: Option<String>,
    updated_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Run {
    id: u64,
    workflow: Option<String>,
    title: Option<String>,
    html_url: String,
    /// `queued`, `in_progress`, `completed`, ...
    status: Option<String>,
    /// `success`, `failure`, `cancelled`, ...
    conclusion: Option<String>,
    event: Option<String>,
    branch: Option<String>,
    head_sha: String,
    actor: Option<String>,
    started_at: Option<String>,
    updated_at: Option<String>,
}

impl From<RawRun> for Run {
    fn from(raw: RawRun) -> Self {
        Self {
            id: raw.id,
            workflow: raw.name,
            title: raw.display_title,
            html_url: raw.html_url,
            status: raw.status,
            conclusion: raw.conclusion,
            event: raw.event,
            branch: raw.head_branch,
            head_sha: raw.head_sha,
            actor: name_of(raw.actor),
            started_at: raw.run_started_at,
            updated_at: raw.updated_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Runs {
    total_count: u64,
    /// The newest first.
    runs: Vec<Run>,
    next_cursor: Option<String>,
}

pub fn list_workflow_runs(call: &mut Call, params: ListRuns) -> Result<Done<Runs>, Stop> {
    let path = match &params.workflow {
        Some(workflow) => params
            .repository
            .path(&["actions", "workflows", workflow, "runs"]),
        None => params.repository.path(&["actions", "runs"]),
    };
    let request = at(call, Method::Get, &path)
        .query_opt("branch", params.branch.as_deref())
        .query_opt("status", params.status.map(RunStatus::name));
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<RawRuns>(call, request)?;
    let runs: Vec<Run> = raw.workflow_runs.into_iter().map(Run::from).collect();
    let summary = format!("{} runs of {}", runs.len(), params.repository);
    let page = Runs {
        total_count: raw.total_count,
        runs,
        next_cursor,
    };
    Ok(Done::new(page, summary))
}
