//! GitHub, over its REST interface (<https://docs.github.com/rest>), and GitHub Enterprise Server over its own.
//!
//! Nearly every action is about one repository, and names it in one parameter, so that a tenant may restrict it:
//! `repository: owner/name`. Searches too: what a caller gives as words stays words (see `search`).

mod api;
mod files;
mod issues;
mod page;
mod people;
mod pulls;
mod releases;
mod repositories;
mod repository;
mod search;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    ActionBuilder, Call, Credential, CredentialKind, Done, Risk, Serialize, Shape, Skill, Stop,
    about, action, export_skill,
};

/// GitHub's own; the setting `base_url` names that of an Enterprise Server.
const BASE_URL: &str = "https://api.github.com";
const TOKEN: &str = "token";
const TIME: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$";
/// SHA-1, or SHA-256 in the repositories that use it.
const SHA: &str = "^[0-9a-f]{40}([0-9a-f]{24})?$";
/// No slash at either end, and none twice.
const PATH: &str = "^[^/]+(/[^/]+)*$";
const LOGIN: &str = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}(\[bot\])?$";
/// A commit, for examples.
const SOME_SHA: &str = "6dcb09b5b57875f334f61aebed695e2e4193db5e";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by name, in `Call::base_url`")]
struct Settings {
    /// Where the REST interface of a GitHub Enterprise Server is: `https://github.example.com/api/v3`.
    #[schemars(url, length(max = 500))]
    base_url: Option<String>,
}

pub fn skill() -> Skill {
    let skill = Skill::new(
        "github",
        about!("GitHub", ["development", "version-control"]),
    )
    .host("api.github.com")
    .settings::<Settings>()
    .host_setting("/base_url");
    [
        repository_actions(),
        file_actions(),
        issue_actions(),
        pull_request_actions(),
        release_actions(),
    ]
    .into_iter()
    .flatten()
    .fold(skill, Skill::action)
}

/// An action on one repository, which a tenant may restrict.
fn on_repository<P, O>(
    name: &'static str,
    run: fn(&mut Call, P) -> Result<Done<O>, Stop>,
) -> ActionBuilder
where
    P: serde::de::DeserializeOwned + JsonSchema + 'static,
    O: Serialize + JsonSchema + 'static,
{
    action(name, run)
        .scope("repositories", "/repository")
        .credential(TOKEN)
}

fn repository_actions() -> Vec<ActionBuilder> {
    vec![
        action("list_repositories", repositories::list_repositories)
            .title("List repositories")
            .summary("The repositories that the token's owner has access to, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .credential(TOKEN)
            .example("What was pushed to last", || json!({ "sort": "pushed", "per_page": 20 }))
            .example("The next page of it", || json!({ "sort": "pushed", "per_page": 20, "cursor": "page=2" })),
        action("list_organization_repositories", repositories::list_organization_repositories)
            .title("List an organisation's repositories")
            .summary("The repositories of an organisation that the token may see, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .scope("organizations", "/organization")
            .credential(TOKEN)
            .example("By name", || json!({ "organization": "octo-org", "sort": "full_name" }))
            .example("The next page of the newest", || json!({ "organization": "octo-org", "per_page": 50, "cursor": "page=2" })),
        on_repository("get_repository", repositories::get_repository)
            .title("Look at a repository")
            .summary("A repository's description, default branch and state.")
            .example("By name", || json!({ "repository": "octo-org/hello-world" })),
        on_repository("list_branches", repositories::list_branches)
            .title("List branches")
            .summary("The branches of a repository, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("The second page", || json!({ "repository": "octo-org/hello-world", "cursor": "page=2" }))
            .example("Protected ones", || json!({ "repository": "octo-org/hello-world", "protected": true, "per_page": 50 })),
        on_repository("create_branch", repositories::create_branch)
            .title("Create a branch")
            .summary("Creates a branch where another one stands.")
            .risk(Risk::Write)
            .idempotent(true)
            .scope("branches", "/branch")
            .example("From main", || json!({ "repository": "octo-org/hello-world", "branch": "docs/setup", "from": "main" })),
        on_repository("list_commits", repositories::list_commits)
            .title("List commits")
            .summary("The commits of a branch, the newest first, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Of a file, since a day", || json!({ "repository": "octo-org/hello-world", "ref": "main", "path": "docs/setup.md", "since": "2026-01-31T00:00:00Z" }))
            .example("Of somebody, in a month, the next page", || json!({ "repository": "octo-org/hello-world", "author": "octocat", "since": "2026-01-01T00:00:00Z", "until": "2026-01-31T23:59:59Z", "per_page": 50, "cursor": "page=2" })),
    ]
}

fn file_actions() -> Vec<ActionBuilder> {
    vec![
        on_repository("get_file", files::get_file)
            .title("Read a file")
            .summary("A file of at most 500 kB, as text or as base64.")
            .example("From the default branch", || json!({ "repository": "octo-org/hello-world", "path": "README.md" }))
            .example("From a branch", || json!({ "repository": "octo-org/hello-world", "path": "docs/set up.md", "ref": "docs/setup" })),
        on_repository("list_directory", files::list_directory)
            .title("List a folder")
            .summary("What is in a folder of a repository.")
            .example("The root", || json!({ "repository": "octo-org/hello-world" }))
            .example("A folder of a branch", || json!({ "repository": "octo-org/hello-world", "path": "docs", "ref": "main" })),
        on_repository("put_file", files::put_file)
            .title("Create or change a file")
            .summary("Commits one file to a branch.")
            .risk(Risk::Write)
            .idempotent(true)
            .scope("branches", "/branch")
            .example("A new file", || json!({ "repository": "octo-org/hello-world", "path": "docs/setup.md", "branch": "docs/setup", "message": "docs: how to set it up", "text": "# Setup\n" }))
            .example("A new version", || json!({ "repository": "octo-org/hello-world", "path": "dot.gif", "branch": "docs/setup", "message": "A smaller dot", "content_base64": "R0lGODlhAQABAAAAACw=", "sha": SOME_SHA })),
        on_repository("delete_file", files::delete_file)
            .title("Delete a file")
            .summary("Commits the deletion of one file to a branch.")
            .risk(Risk::Destructive)
            .idempotent(true)
            .scope("branches", "/branch")
            .example("Delete it", || json!({ "repository": "octo-org/hello-world", "path": "docs/old.md", "branch": "docs/setup", "message": "docs: the old page goes", "sha": SOME_SHA })),
        on_repository("search_code", search::search_code)
            .title("Search files")
            .summary("Files of a repository's default branch with these words in them, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("In a folder", || json!({ "repository": "octo-org/hello-world", "text": "retry_after", "path": "src/http", "extension": "rs", "language": "rust" }))
            .example("The next page", || json!({ "repository": "octo-org/hello-world", "text": "todo", "per_page": 50, "cursor": "page=2" })),
    ]
}

fn issue_actions() -> Vec<ActionBuilder> {
    vec![
        on_repository("create_issue", issues::create_issue)
            .title("Open an issue")
            .summary("Opens an issue, with labels and whoever it is assigned to.")
            .risk(Risk::Write)
            .example("A bug", || json!({ "repository": "octo-org/hello-world", "title": "The setup fails on ARM", "body": "Steps: ...", "labels": ["bug"], "assignees": ["octocat"], "milestone": 3 })),
        on_repository("update_issue", issues::update_issue)
            .title("Change an issue")
            .summary("Changes an issue or pull request: its texts, labels, assignees; closes or reopens it.")
            .risk(Risk::Write)
            .idempotent(true)
            .example("Close it", || json!({ "repository": "octo-org/hello-world", "number": 1347, "state": "closed", "state_reason": "not_planned" }))
            .example("Hand it over", || json!({ "repository": "octo-org/hello-world", "number": 1347, "assignees": ["hubot"], "labels": ["bug", "arm"], "milestone": 4 }))
            .example("Say it better", || json!({ "repository": "octo-org/hello-world", "number": 1347, "title": "The setup fails on 32-bit ARM", "body": "Steps: ..." })),
        on_repository("get_issue", issues::get_issue)
            .title("Read an issue")
            .summary("An issue or pull request, with its whole text.")
            .example("By number", || json!({ "repository": "octo-org/hello-world", "number": 1347 })),
        on_repository("list_issues", issues::list_issues)
            .title("List issues")
            .summary("The issues of a repository, the newest first, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Open bugs", || json!({ "repository": "octo-org/hello-world", "state": "open", "labels": ["bug", "arm"], "since": "2026-01-31T00:00:00Z", "per_page": 50 }))
            .example("What somebody has to do, the next page", || json!({ "repository": "octo-org/hello-world", "assignee": "hubot", "creator": "octocat", "cursor": "page=2" })),
        on_repository("search_issues", search::search_issues)
            .title("Search issues and pull requests")
            .summary("Issues or pull requests of a repository, by words and by their properties, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Open issues about something", || json!({ "repository": "octo-org/hello-world", "text": "setup fails", "state": "open", "label": "help wanted", "sort": "updated" }))
            .example("Pull requests of somebody", || json!({ "repository": "octo-org/hello-world", "kind": "pull_request", "author": "octocat", "updated_since": "2026-01-31" }))
            .example("What somebody has to do, the next page", || json!({ "repository": "octo-org/hello-world", "assignee": "hubot", "per_page": 50, "cursor": "page=2" })),
        on_repository("add_labels", issues::add_labels)
            .title("Label an issue")
            .summary("Adds labels to an issue or pull request, and leaves those that it has.")
            .risk(Risk::Write)
            .idempotent(true)
            .example("Two labels", || json!({ "repository": "octo-org/hello-world", "number": 1347, "labels": ["bug", "arm"] })),
        on_repository("create_comment", issues::create_comment)
            .title("Comment on an issue")
            .summary("Comments on an issue or pull request.")
            .risk(Risk::Write)
            .example("An answer", || json!({ "repository": "octo-org/hello-world", "number": 1347, "body": "Fixed on `main`." })),
        on_repository("list_comments", issues::list_comments)
            .title("Read comments")
            .summary("The comments on an issue or pull request, the oldest first, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("The first page", || json!({ "repository": "octo-org/hello-world", "number": 1347, "per_page": 20 }))
            .example("What is new, the next page", || json!({ "repository": "octo-org/hello-world", "number": 1347, "since": "2026-01-31T09:00:00Z", "cursor": "page=2" })),
    ]
}

fn pull_request_actions() -> Vec<ActionBuilder> {
    vec![
        on_repository("list_pull_requests", pulls::list_pull_requests)
            .title("List pull requests")
            .summary("The pull requests of a repository, the newest first, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Open ones into main", || json!({ "repository": "octo-org/hello-world", "state": "open", "base": "main" }))
            .example("All of a branch, the next page", || json!({ "repository": "octo-org/hello-world", "state": "all", "head": "octo-org:docs/setup", "per_page": 50, "cursor": "page=2" })),
        on_repository("get_pull_request", pulls::get_pull_request)
            .title("Look at a pull request")
            .summary("A pull request, its branches, and whether it can be merged.")
            .example("By number", || json!({ "repository": "octo-org/hello-world", "number": 1347 })),
        on_repository("list_pull_request_files", pulls::list_pull_request_files)
            .title("Read what a pull request changes")
            .summary("The files that a pull request changes, with their diffs, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("The first page", || json!({ "repository": "octo-org/hello-world", "number": 1347, "per_page": 20 }))
            .example("The next page", || json!({ "repository": "octo-org/hello-world", "number": 1347, "per_page": 20, "cursor": "page=2" })),
        on_repository("list_checks", pulls::list_checks)
            .title("See whether checks are green")
            .summary("The checks of a commit, branch or pull request's head, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Of a commit", || json!({ "repository": "octo-org/hello-world", "ref": SOME_SHA }))
            .example("Of a branch, the next page", || json!({ "repository": "octo-org/hello-world", "ref": "docs/setup", "per_page": 50, "cursor": "page=2" })),
        on_repository("create_pull_request", pulls::create_pull_request)
            .title("Open a pull request")
            .summary("Proposes to merge one branch into another.")
            .risk(Risk::Write)
            .example("A draft", || json!({ "repository": "octo-org/hello-world", "title": "docs: how to set it up", "head": "docs/setup", "base": "main", "body": "Closes #1347.", "draft": true })),
        on_repository("review_pull_request", pulls::review_pull_request)
            .title("Review a pull request")
            .summary("Approves a pull request, asks for changes, or comments on it and its lines.")
            .risk(Risk::Write)
            .example("Approve it", || json!({ "repository": "octo-org/hello-world", "number": 1347, "verdict": "approve" }))
            .example("Ask for changes", || json!({ "repository": "octo-org/hello-world", "number": 1347, "verdict": "request_changes", "body": "Nearly there.", "comments": [{ "path": "docs/setup.md", "line": 12, "body": "Which version?" }], "commit_sha": SOME_SHA })),
        on_repository("merge_pull_request", pulls::merge_pull_request)
            .title("Merge a pull request")
            .summary("Merges a pull request; one that is merged already stays as it is.")
            .risk(Risk::Destructive)
            .idempotent(true)
            .example("Squash what was looked at", || json!({ "repository": "octo-org/hello-world", "number": 1347, "merge_method": "squash", "head_sha": SOME_SHA, "commit_title": "docs: how to set it up (#1347)", "commit_message": "For everybody." })),
    ]
}

fn release_actions() -> Vec<ActionBuilder> {
    vec![
        on_repository("list_releases", releases::list_releases)
            .title("List releases")
            .summary("The releases of a repository, the newest first, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("The first ten", || json!({ "repository": "octo-org/hello-world", "per_page": 10 }))
            .example("The next ten", || json!({ "repository": "octo-org/hello-world", "per_page": 10, "cursor": "page=2" })),
        on_repository("create_release", releases::create_release)
            .title("Publish a release")
            .summary("Publishes a release, or prepares it as a draft; whoever watches the repository is told.")
            .risk(Risk::Destructive)
            .example("With notes by GitHub", || json!({ "repository": "octo-org/hello-world", "tag": "v1.4.0", "target": "main", "name": "1.4.0", "generate_release_notes": true }))
            .example("A draft", || json!({ "repository": "octo-org/hello-world", "tag": "v2.0.0-rc.1", "body": "What is new: ...", "draft": true, "prerelease": true })),
        on_repository("run_workflow", releases::run_workflow)
            .title("Run a workflow")
            .summary("Starts a workflow of GitHub Actions, which may build, publish or deploy.")
            .risk(Risk::Destructive)
            .scope("workflows", "/workflow")
            .example("Deploy", || json!({ "repository": "octo-org/hello-world", "workflow": "deploy.yml", "ref": "main", "inputs": { "environment": "staging" } })),
        on_repository("list_workflow_runs", releases::list_workflow_runs)
            .title("List runs of workflows")
            .summary("The runs of a repository's workflows, the newest first, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Of a workflow", || json!({ "repository": "octo-org/hello-world", "workflow": "deploy.yml", "branch": "main" }))
            .example("What failed, the next page", || json!({ "repository": "octo-org/hello-world", "status": "failure", "per_page": 20, "cursor": "page=2" })),
    ]
}

pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new(TOKEN, CredentialKind::Pat, "Access token")
            .help("A personal access token: Settings, Developer settings, Fine-grained tokens. Choose the repositories, and the permissions whose actions you use. The token of a GitHub App's installation works as well.")
            .placeholder("github_pat_...")
            .scopes(&[
                "Metadata: read",
                "Contents: read and write",
                "Issues: read and write",
                "Pull requests: read and write",
                "Checks: read",
                "Actions: read and write",
            ])
            .shape(Shape {
                prefixes: vec!["github_pat_", "ghp_", "gho_", "ghu_", "ghs_"],
                length: 20..=1024,
                ..Shape::default()
            }),
    ]
}

export_skill!(skill, credentials);
