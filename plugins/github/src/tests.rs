//! What GitHub answers, as its documentation shows it, and what becomes of it.

use crate::{TOKEN, credentials, skill};
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Credential, CredentialViolation, Failure, Refusal,
    testing::{Conversation, examples_run},
};

const REPOSITORY: &str = "octo-org/hello-world";

fn issue() -> Conversation {
    Conversation::new(
        skill,
        "get_issue",
        json!({ "repository": REPOSITORY, "number": 1347 }),
    )
}

fn comment() -> Conversation {
    Conversation::new(
        skill,
        "create_comment",
        json!({ "repository": REPOSITORY, "number": 1347, "body": "x" }),
    )
}

fn refused(status: u16, headers: &[(&str, &str)], body: Value) -> Refusal {
    comment()
        .reply_with(status, headers, body.to_string())
        .refusal()
}

#[test]
fn every_example_runs() {
    examples_run(skill);
}

#[test]
fn a_request_names_the_version_the_agent_and_the_token() {
    let request = issue().request();
    assert_eq!(
        request.line(),
        "GET https://api.github.com/repos/octo-org/hello-world/issues/1347"
    );
    for (name, value) in [
        ("authorization", "Bearer {token}"),
        ("accept", "application/vnd.github+json"),
        ("x-github-api-version", "2022-11-28"),
        ("user-agent", "servicetsunami-gateway"),
    ] {
        assert_eq!(request.header(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn an_enterprise_server_is_asked_where_it_is() {
    let request = issue()
        .settings(json!({ "base_url": "https://github.example.com/api/v3/" }))
        .request();
    assert_eq!(
        request.line(),
        "GET https://github.example.com/api/v3/repos/octo-org/hello-world/issues/1347"
    );
}

#[test]
fn a_path_stays_below_its_repository() {
    let get = |path: &str| {
        let params = json!({ "repository": REPOSITORY, "path": path });
        Conversation::new(skill, "get_file", params).step()
    };
    for path in [
        "../../../other/secret/contents/x",
        "docs/../..",
        "docs//x",
        "./x",
    ] {
        assert!(
            matches!(get(path), Err(Failure::InvalidParams(_))),
            "{path}"
        );
    }
    let params = json!({ "repository": REPOSITORY, "path": "a?b#c/%2e%2e/é" });
    assert_eq!(
        Conversation::new(skill, "get_file", params)
            .request()
            .line(),
        "GET https://api.github.com/repos/octo-org/hello-world/contents/a%3Fb%23c/%252e%252e/%C3%A9"
    );
}

#[test]
fn a_page_leads_to_the_next_one_and_the_last_to_none() {
    let list = |cursor: Option<&str>| {
        let mut params = json!({ "repository": REPOSITORY, "state": "all", "per_page": 1 });
        if let Some(cursor) = cursor {
            params["cursor"] = json!(cursor);
        }
        Conversation::new(skill, "list_issues", params)
    };
    let link = r#"<https://api.github.com/repositories/1296269/issues?state=all&per_page=1&after=Y3Vyc29yOnYyOpK&page=2>; rel="next""#;
    let body = json!([{ "number": 1, "title": "a", "state": "open", "html_url": "https://github.com/octo-org/hello-world/issues/1" }]);
    let page = list(None)
        .reply_with(200, &[("Link", link)], body.to_string())
        .finish();
    assert_eq!(page.output["next_cursor"], "after=Y3Vyc29yOnYyOpK&page=2");
    let next = list(page.output["next_cursor"].as_str());
    assert_eq!(
        next.request().line(),
        "GET https://api.github.com/repos/octo-org/hello-world/issues?state=all&per_page=1&after=Y3Vyc29yOnYyOpK&page=2"
    );
    let last = list(Some("page=2")).reply(200, body).finish();
    assert_eq!(last.output["next_cursor"], Value::Null);
}

#[test]
fn a_cursor_cannot_ask_for_something_else() {
    let params = json!({ "repository": REPOSITORY, "text": "x", "cursor": "page=2&q=secret" });
    let search = Conversation::new(skill, "search_issues", params);
    assert!(matches!(search.step(), Err(Failure::InvalidParams(_))));
}

#[test]
fn what_is_found_in_another_repository_is_dropped() {
    let found = |name: &str| {
        json!({ "number": 1, "title": "t", "state": "open", "html_url": "https://github.com/x",
        "repository_url": format!("https://api.github.com/repos/{name}") })
    };
    let params = json!({ "repository": REPOSITORY, "text": "x" });
    let body = json!({ "total_count": 3, "incomplete_results": false,
        "items": [found("Octo-Org/Hello-World"), found("other/secret"), found("evil/octo-org/hello-world")] });
    let done = Conversation::new(skill, "search_issues", params)
        .reply(200, body)
        .finish();
    assert_eq!(done.output["issues"].as_array().map(Vec::len), Some(1));

    let file = |name: &str| json!({ "path": "a.rs", "sha": "1", "html_url": "https://github.com/x", "repository": { "full_name": name } });
    let params = json!({ "repository": REPOSITORY, "text": "x" });
    let body = json!({ "total_count": 2, "incomplete_results": false, "items": [file("octo-org/hello-world"), file("other/secret")] });
    let done = Conversation::new(skill, "search_code", params)
        .reply(200, body)
        .finish();
    assert_eq!(done.output["files"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_issue_is_read_whole_and_listed_by_its_beginning() {
    let body = "é".repeat(400);
    let raw = json!({ "number": 1347, "title": "Found a bug", "state": "closed", "state_reason": "completed",
        "html_url": "https://github.com/octo-org/hello-world/issues/1347", "user": { "login": "octocat" },
        "assignees": [{ "login": "hubot" }], "labels": [{ "name": "bug" }, "arm"], "milestone": { "title": "v1.0" },
        "comments": 2, "created_at": "2026-04-22T13:33:48Z", "updated_at": "2026-04-22T13:33:49Z", "closed_at": null,
        "body": body, "url": "https://api.github.com/..." });
    let read = issue().reply(200, raw.clone()).finish();
    assert_eq!(read.summary, "octo-org/hello-world#1347: Found a bug");
    assert_eq!(
        read.output,
        json!({ "number": 1347, "title": "Found a bug", "state": "closed", "state_reason": "completed",
            "html_url": "https://github.com/octo-org/hello-world/issues/1347", "author": "octocat", "assignees": ["hubot"],
            "labels": ["bug", "arm"], "milestone": "v1.0", "comments": 2, "is_pull_request": false,
            "created_at": "2026-04-22T13:33:48Z", "updated_at": "2026-04-22T13:33:49Z", "closed_at": null, "body": body })
    );
    let mut pull = raw.clone();
    pull["pull_request"] = json!({ "url": "https://api.github.com/..." });
    let mut list = Conversation::new(skill, "list_issues", json!({ "repository": REPOSITORY }));
    let listed = list.reply(200, json!([raw, pull])).finish().output;
    assert_eq!(
        listed["issues"].as_array().map(Vec::len),
        Some(1),
        "a pull request is no issue here"
    );
    let beginning = listed["issues"][0]["body"]
        .as_str()
        .map(|b| b.chars().count());
    assert_eq!(beginning, Some(301));
}

#[test]
fn a_file_is_text_where_it_can_be() {
    let read = |content: &str, size: u64| {
        let params = json!({ "repository": REPOSITORY, "path": "a" });
        let body = json!({ "type": "file", "encoding": "base64", "size": size, "name": "a", "path": "a", "sha": "1", "content": content });
        Conversation::new(skill, "get_file", params)
            .reply(200, body)
            .step()
            .map(|step| format!("{step:?}"))
    };
    assert!(read("aGVs\nbG8=\n", 5).is_ok_and(|done| done.contains(r#"\"text\":\"hello\""#)));
    assert!(read("AAH/\n", 3).is_ok_and(|done| done.contains(r#"\"content_base64\":\"AAH/\""#)));
    let large = read("", 1_500_000);
    assert!(
        matches!(&large, Err(Failure::Refused(r)) if r.code == "file_too_large"),
        "{large:?}"
    );
    assert!(matches!(read("?", 1), Err(Failure::UnexpectedReply(_))));
}

#[test]
fn a_folder_is_no_file() {
    let folder = json!([{ "type": "dir", "name": "a", "path": "docs/a", "sha": "1", "size": 0, "html_url": null }]);
    let params = json!({ "repository": REPOSITORY, "path": "docs" });
    let mut file = Conversation::new(skill, "get_file", params.clone());
    assert_eq!(file.reply(200, folder.clone()).refusal().code, "not_a_file");
    let mut list = Conversation::new(skill, "list_directory", params);
    assert_eq!(
        list.reply(200, folder).finish().output["entries"],
        json!([{ "name": "a", "path": "docs/a", "kind": "dir", "size": 0, "sha": "1" }])
    );
}

#[test]
fn a_file_is_put_as_text_or_as_base64() {
    let put = |content: Value| {
        let mut params =
            json!({ "repository": REPOSITORY, "path": "a", "branch": "b", "message": "m" });
        for (name, value) in content.as_object().expect("an object") {
            params[name] = value.clone();
        }
        Conversation::new(skill, "put_file", params)
    };
    assert_eq!(
        put(json!({ "text": "hello" })).request().json(),
        json!({ "message": "m", "content": "aGVsbG8=", "branch": "b" })
    );
    for wrong in [
        json!({}),
        json!({ "text": "a", "content_base64": "YQ==" }),
        json!({ "content_base64": "?" }),
    ] {
        assert!(
            matches!(put(wrong.clone()).step(), Err(Failure::InvalidParams(_))),
            "{wrong}"
        );
    }
    let body = json!({ "content": { "type": "file", "name": "a", "path": "a", "sha": "2" }, "commit": { "sha": "3", "html_url": null } });
    assert_eq!(
        put(json!({ "text": "hello" }))
            .reply(201, body)
            .finish()
            .output,
        json!({ "path": "a", "sha": "2", "commit_sha": "3", "commit_url": null })
    );
}

#[test]
fn a_branch_begins_where_the_other_one_stands() {
    let params = json!({ "repository": REPOSITORY, "branch": "docs/setup", "from": "release/1" });
    let mut call = Conversation::new(skill, "create_branch", params);
    assert_eq!(
        call.request().line(),
        "GET https://api.github.com/repos/octo-org/hello-world/git/ref/heads%2Frelease%2F1"
    );
    call.reply(
        200,
        json!({ "ref": "refs/heads/release/1", "object": { "sha": "1" } }),
    );
    assert_eq!(
        call.request().json(),
        json!({ "ref": "refs/heads/docs/setup", "sha": "1" })
    );
    let done = call
        .reply(
            201,
            json!({ "ref": "refs/heads/docs/setup", "object": { "sha": "1" } }),
        )
        .finish();
    assert_eq!(done.output, json!({ "branch": "docs/setup", "sha": "1" }));
}

#[test]
fn what_is_merged_already_counts_as_merged() {
    let merge = || {
        let params = json!({ "repository": REPOSITORY, "number": 1 });
        let mut call = Conversation::new(skill, "merge_pull_request", params);
        call.reply(405, json!({ "message": "Pull Request is not mergeable" }));
        call
    };
    let pull = |merged: bool| {
        json!({ "number": 1, "title": "t", "state": "closed", "html_url": "https://github.com/x", "merged": merged,
            "merge_commit_sha": "7", "head": { "ref": "a", "sha": "1" }, "base": { "ref": "main", "sha": "2" } })
    };
    let mut merged = merge();
    assert_eq!(
        merged.request().line(),
        "GET https://api.github.com/repos/octo-org/hello-world/pulls/1"
    );
    assert_eq!(merged.reply(200, pull(true)).finish().output["sha"], "7");
    let refusal = merge().reply(200, pull(false)).refusal();
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        ("not_allowed", "Pull Request is not mergeable")
    );
}

#[test]
fn a_review_that_is_no_approval_says_why() {
    let review = |verdict: &str| {
        let params = json!({ "repository": REPOSITORY, "number": 1, "verdict": verdict });
        Conversation::new(skill, "review_pull_request", params).step()
    };
    assert!(review("approve").is_ok());
    assert!(matches!(
        review("request_changes"),
        Err(Failure::InvalidParams(_))
    ));
}

#[test]
fn a_change_of_nothing_is_refused() {
    let params = json!({ "repository": REPOSITORY, "number": 1 });
    let call = Conversation::new(skill, "update_issue", params);
    assert!(matches!(call.step(), Err(Failure::InvalidParams(_))));
}

#[test]
fn a_workflow_runs_whether_or_not_github_names_the_run() {
    let run = || {
        let params = json!({ "repository": REPOSITORY, "workflow": "deploy.yml", "ref": "main" });
        Conversation::new(skill, "run_workflow", params)
    };
    let silent = run().reply_with(204, &[], "").finish();
    assert_eq!(silent.output, json!({ "run_id": null, "html_url": null }));
    let named = run()
        .reply(
            200,
            json!({ "workflow_run_id": 5, "run_url": "x", "html_url": "https://github.com/x" }),
        )
        .finish();
    assert_eq!(
        named.output,
        json!({ "run_id": 5, "html_url": "https://github.com/x" })
    );
}

#[test]
fn a_token_that_github_does_not_accept_is_marked() {
    let gone = refused(
        401,
        &[],
        json!({ "message": "Bad credentials", "status": "401" }),
    );
    assert!(gone.credential_rejected);
    let scarce = refused(
        403,
        &[
            ("X-Accepted-GitHub-Permissions", "issues=write"),
            ("x-ratelimit-remaining", "4999"),
        ],
        json!({ "message": "Resource not accessible by personal access token" }),
    );
    assert!(!scarce.credential_rejected && scarce.retry_after_ms.is_none());
    assert!(
        scarce.message.contains("issues=write"),
        "{}",
        scarce.message
    );
    let sso = refused(
        403,
        &[(
            "X-GitHub-SSO",
            "required; url=https://github.com/orgs/octo-org/sso?authorization_request=A",
        )],
        json!({ "message": "Resource protected by organization SAML enforcement." }),
    );
    assert!(sso.message.contains("https://github.com/orgs/octo-org/sso"));
}

#[test]
fn rate_limits_are_a_pause_as_long_as_github_says() {
    let limited = || json!({ "message": "API rate limit exceeded for user ID 1." });
    let pause = |status, headers: &[(&str, &str)], body: Value| {
        refused(status, headers, body).retry_after_ms
    };
    let reset = [
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "1700000090"),
    ];
    // The call was made at 1,700,000,000 s, and GitHub's clock is a minute on.
    let with_date = [
        reset[0],
        reset[1],
        ("Date", "Tue, 14 Nov 2023 22:14:20 GMT"),
    ];
    assert_eq!(pause(403, &reset, limited()), Some(90_000));
    assert_eq!(pause(429, &with_date, limited()), Some(30_000));
    assert_eq!(
        pause(
            403,
            &[("Retry-After", "7")],
            json!({ "message": "You have exceeded a secondary rate limit." })
        ),
        Some(7000)
    );
    assert_eq!(
        pause(
            403,
            &[("x-ratelimit-remaining", "12")],
            json!({ "message": "You have exceeded a secondary rate limit." })
        ),
        Some(60_000)
    );
    assert_eq!(
        pause(
            429,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")],
            limited()
        ),
        Some(1000),
        "a clock that is behind leads to no hurry"
    );
}

#[test]
fn refusals_come_in_githubs_own_words() {
    let found = refused(404, &[], json!({ "message": "Not Found" }));
    assert_eq!(found.code, "not_found");
    let invalid = refused(
        422,
        &[],
        json!({ "message": "Validation Failed", "errors": [
            { "resource": "Issue", "field": "title", "code": "missing_field" },
            { "resource": "PullRequest", "code": "custom", "message": "A pull request already exists for octo-org:docs." },
            { "resource": "Label", "field": "name", "code": "already_exists" },
            "a sentence"] }),
    );
    assert_eq!(
        (invalid.code.as_str(), invalid.message.as_str()),
        (
            "invalid",
            "Validation Failed: `title` is missing; A pull request already exists for octo-org:docs.; Label with this `name` exists already; a sentence"
        )
    );
    let conflict = refused(409, &[], json!({ "message": "docs/a does not match 1" }));
    assert!(conflict.message.contains("does not match"));
    assert_eq!(
        refused(410, &[], json!({ "message": "Issues are disabled" })).code,
        "gone"
    );
    assert_eq!(
        refused(301, &[], json!({ "message": "Moved Permanently" })).code,
        "moved"
    );
}

#[test]
fn githubs_trouble_is_a_pause_only_where_nothing_can_have_happened() {
    let reading = issue().reply_with(502, &[], "<html>").refusal();
    assert_eq!(reading.retry_after_ms, Some(15_000));
    let writing = comment().reply_with(502, &[], "<html>").failure();
    assert!(matches!(writing, Failure::UnexpectedReply(what) if what.contains("look before")));
}

#[test]
fn a_strange_reply_is_said_to_be_strange() {
    for body in ["<html>", "", "[]", r#"{"number":"x"}"#] {
        let failure = issue().reply_with(200, &[], body).failure();
        assert!(matches!(failure, Failure::UnexpectedReply(_)), "{body}");
    }
    let teapot = comment().reply_with(418, &[], "").failure();
    assert!(matches!(teapot, Failure::UnexpectedReply(_)));
}

#[test]
fn a_token_is_checked_by_its_shape() {
    let check = |value: &str| Credential::check_among(&credentials(), TOKEN, value);
    for good in [
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11ABCDEFG0123456789_abcdef",
    ] {
        assert_eq!(check(good), Ok(()));
    }
    assert_eq!(
        check("xoxb-16C7e42F292c6912E7710c838347"),
        Err(CredentialViolation::WrongPrefix)
    );
    assert_eq!(check("ghp_1"), Err(CredentialViolation::TooShort));
    assert_eq!(
        check("ghp_16C7e42F292c6912E7710c83\n"),
        Err(CredentialViolation::WrongCharacters)
    );
}
