//! What Notion answers, as its documentation shows it, and what becomes of it.

use crate::{BLOCK, DATA_SOURCE, DATABASE, DISCUSSION, PAGE, PERSON, TOKEN, credentials, skill};
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Credential, CredentialViolation, Failure, Refusal,
    testing::{Conversation, examples_run},
};

fn get_page() -> Conversation {
    Conversation::new(skill, "get_page", json!({ "page_id": PAGE }))
}

fn create_page() -> Conversation {
    let params = json!({ "parent_page_id": PAGE, "title": "Plan" });
    Conversation::new(skill, "create_page", params)
}

fn refused(status: u16, headers: &[(&str, &str)], code: &str, message: &str) -> Refusal {
    let body = json!({ "object": "error", "status": status, "code": code, "message": message, "request_id": "1" });
    create_page()
        .reply_with(status, headers, body.to_string())
        .refusal()
}

/// A page, as Notion shows one.
fn page() -> Value {
    json!({
        "object": "page", "id": PAGE, "created_time": "2026-01-05T19:51:00.000Z", "last_edited_time": "2026-01-06T19:51:00.000Z",
        "created_by": { "object": "user", "id": PERSON }, "cover": null, "icon": { "type": "emoji", "emoji": "🥬" },
        "parent": { "type": "data_source_id", "data_source_id": DATA_SOURCE, "database_id": DATABASE },
        "archived": false, "in_trash": false, "url": "https://www.notion.so/Tuscan-kale-598337872cf94fdf8782e53db20768a5", "public_url": null,
        "properties": {
            "Name": { "id": "title", "type": "title", "title": [{ "type": "text", "text": { "content": "Tuscan kale" }, "plain_text": "Tuscan kale" }] },
            "In stock": { "id": "%3C%5D", "type": "checkbox", "checkbox": true },
        },
    })
}

#[test]
fn every_example_runs() {
    examples_run(skill);
}

#[test]
fn a_request_names_the_version_and_the_token() {
    let request = get_page().request();
    assert_eq!(
        request.line(),
        format!("GET https://api.notion.com/v1/pages/{PAGE}")
    );
    assert_eq!(
        request.header("notion-version").as_deref(),
        Some("2025-09-03")
    );
    assert_eq!(
        request.header("authorization").as_deref(),
        Some("Bearer {token}")
    );
    let proxied = get_page()
        .settings(json!({ "base_url": "https://proxy.example.com/v1/" }))
        .request();
    assert_eq!(
        proxied.line(),
        format!("GET https://proxy.example.com/v1/pages/{PAGE}")
    );
}

#[test]
fn an_id_is_an_id_and_no_path() {
    for wrong in [
        "",
        "me",
        "../users/me",
        "598337872cf94fdf8782e53db20768a",
        "598337872cf94fdf8782e53db20768a5x",
        "zz98337872cf94fdf8782e53db20768a5",
    ] {
        let call = Conversation::new(skill, "get_page", json!({ "page_id": wrong }));
        assert!(
            matches!(call.step(), Err(Failure::InvalidParams(_))),
            "{wrong}"
        );
    }
    let short = json!({ "page_id": "598337872CF94fdf8782e53db20768a5" });
    assert!(Conversation::new(skill, "get_page", short).step().is_ok());
}

#[test]
fn a_page_is_shown_with_plain_properties() {
    let done = get_page().reply(200, page()).finish();
    assert_eq!(done.summary, "Tuscan kale");
    assert_eq!(
        done.output,
        json!({
            "id": PAGE, "title": "Tuscan kale", "url": "https://www.notion.so/Tuscan-kale-598337872cf94fdf8782e53db20768a5",
            "in_trash": false, "created_time": "2026-01-05T19:51:00.000Z", "last_edited_time": "2026-01-06T19:51:00.000Z",
            "parent_kind": "data_source_id", "parent_id": DATA_SOURCE,
            "properties": { "Name": "Tuscan kale", "In stock": true },
        })
    );
    let partial = get_page()
        .reply(200, json!({ "object": "page", "id": PAGE }))
        .finish();
    assert_eq!(partial.summary, PAGE, "what may not be seen has no title");
}

#[test]
fn a_page_is_read_as_markdown_up_to_a_limit() {
    let read = |markdown: String| {
        let body = json!({ "object": "page_markdown", "id": PAGE, "markdown": markdown, "truncated": false, "unknown_block_ids": [BLOCK] });
        let mut call = Conversation::new(skill, "read_page", json!({ "page_id": PAGE }));
        call.reply(200, body).finish().output
    };
    assert_eq!(
        read("# Kale\n".into()),
        json!({ "markdown": "# Kale\n", "truncated": false, "unknown_block_ids": [BLOCK] })
    );
    let long = read("é".repeat(400_000));
    assert_eq!(long["truncated"], true);
    assert_eq!(long["markdown"].as_str().map(str::len), Some(600_000));
}

#[test]
fn what_is_new_has_the_parent_that_its_action_names() {
    let page = create_page().request().json();
    assert_eq!(
        page["parent"],
        json!({ "type": "page_id", "page_id": PAGE })
    );
    let params = json!({ "data_source_id": DATA_SOURCE, "title": "Plan", "markdown": "# Plan" });
    let row = Conversation::new(skill, "create_row", params.clone());
    assert_eq!(
        row.request().json()["parent"],
        json!({ "type": "data_source_id", "data_source_id": DATA_SOURCE })
    );
    let step = Conversation::new(skill, "create_page", params).step();
    assert!(matches!(step, Err(Failure::InvalidParams(_))));
}

#[test]
fn a_property_of_an_unknown_type_is_refused() {
    for wrong in [
        json!({ "Status": "Done" }),
        json!({ "Total": { "rollup": 3 } }),
        json!({ "Status": { "status": "Done", "select": "Done" } }),
    ] {
        let params = json!({ "page_id": PAGE, "properties": wrong });
        let step = Conversation::new(skill, "update_page", params).step();
        assert!(matches!(step, Err(Failure::InvalidParams(_))), "{step:?}");
    }
    let nothing = Conversation::new(skill, "update_page", json!({ "page_id": PAGE }));
    assert!(matches!(nothing.step(), Err(Failure::InvalidParams(_))));
}

#[test]
fn pages_within_a_page_are_deleted_only_where_it_is_said() {
    let body = |params| {
        Conversation::new(skill, "replace_page", params)
            .request()
            .json()
    };
    let careful = body(json!({ "page_id": PAGE, "markdown": "x" }));
    assert_eq!(careful["replace_content"], json!({ "new_str": "x" }));
    let bold = body(json!({ "page_id": PAGE, "markdown": "x", "delete_children": true }));
    assert_eq!(
        bold["replace_content"],
        json!({ "new_str": "x", "allow_deleting_content": true })
    );
    let edit = json!({ "page_id": PAGE, "replacements": [{ "old": "a", "new": "" }] });
    let edit = Conversation::new(skill, "edit_page", edit).request().json();
    assert_eq!(
        edit["update_content"],
        json!({ "content_updates": [{ "old_str": "a", "new_str": "" }] })
    );
}

#[test]
fn blocks_are_read_as_plain_text() {
    let text = |text: &str| json!([{ "type": "text", "plain_text": text }]);
    let block = |kind: &str, content: Value| json!({ "object": "block", "id": BLOCK, "type": kind, "has_children": false, "in_trash": false, kind: content });
    let body = json!({ "object": "list", "results": [
        block("heading_2", json!({ "rich_text": text("Lacinato kale"), "color": "default" })),
        block("to_do", json!({ "rich_text": text("Buy"), "checked": true })),
        block("child_page", json!({ "title": "Recipes" })),
        block("image", json!({ "type": "external", "external": { "url": "https://x/kale.png" }, "caption": text("Kale") })),
        block("table_row", json!({ "cells": [text("a"), text("b")] })),
        block("equation", json!({ "expression": "e=mc^2" })),
        block("divider", json!({})),
        { "object": "block", "id": BLOCK, "type": "unsupported", "has_children": true, "unsupported": {} },
    ], "next_cursor": "c2", "has_more": true });
    let mut call = Conversation::new(skill, "list_blocks", json!({ "block_id": PAGE }));
    let output = call.reply(200, body).finish().output;
    assert_eq!(output["next_cursor"], "c2");
    let shown: Vec<(&str, &str)> = output["blocks"]
        .as_array()
        .expect("blocks")
        .iter()
        .map(|b| {
            (
                b["kind"].as_str().unwrap_or_default(),
                b["text"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("heading_2", "Lacinato kale"),
            ("to_do", "Buy"),
            ("child_page", "Recipes"),
            ("image", "Kale"),
            ("table_row", "a | b"),
            ("equation", "e=mc^2"),
            ("divider", ""),
            ("unsupported", "")
        ]
    );
    assert_eq!(output["blocks"][1]["checked"], true);
    assert_eq!(output["blocks"][3]["url"], "https://x/kale.png");
    assert_eq!(output["blocks"][7]["has_children"], true);
}

#[test]
fn the_new_blocks_are_named_and_not_those_behind_them() {
    let params = json!({ "block_id": PAGE, "after_block_id": BLOCK, "blocks": [{ "kind": "quote", "text": "x" }] });
    let mut call = Conversation::new(skill, "append_blocks", params);
    let list = json!({ "object": "list", "results": [{ "object": "block", "id": "new" }, { "object": "block", "id": "old" }], "next_cursor": null });
    let done = call.reply(200, list).finish();
    assert_eq!(done.output, json!({ "block_ids": ["new"] }));
}

#[test]
fn a_block_has_only_what_its_kind_has() {
    let params = json!({ "block_id": PAGE, "blocks": [
        { "kind": "paragraph", "text": "x", "checked": true, "language": "rust", "icon": "⏰" }, { "kind": "code", "text": "x" }, { "kind": "divider", "text": "x" }] });
    let request = Conversation::new(skill, "append_blocks", params).request();
    let text = json!([{ "type": "text", "text": { "content": "x" } }]);
    assert_eq!(
        request.json()["children"],
        json!([
            { "type": "paragraph", "paragraph": { "rich_text": text } },
            { "type": "code", "code": { "rich_text": text, "language": "plain text" } },
            { "type": "divider", "divider": {} }
        ])
    );
}

#[test]
fn a_data_source_shows_what_its_rows_have() {
    let mut call = Conversation::new(
        skill,
        "get_data_source",
        json!({ "data_source_id": DATA_SOURCE }),
    );
    let body = json!({ "object": "data_source", "id": DATA_SOURCE, "title": [{ "plain_text": "Tasks" }], "url": "https://www.notion.so/x",
        "parent": { "type": "database_id", "database_id": DATABASE },
        "properties": {
            "Name": { "id": "title", "name": "Name", "type": "title", "title": {} },
            "Status": { "id": "s", "name": "Status", "type": "status", "status": { "options": [{ "id": "1", "name": "Open", "color": "red" }, { "id": "2", "name": "Done", "color": "green" }], "groups": [] } },
            "Plan": { "id": "r", "name": "Plan", "type": "relation", "relation": { "database_id": DATABASE, "data_source_id": DATA_SOURCE, "type": "single_property" } },
        } });
    assert_eq!(
        call.reply(200, body).finish().output,
        json!({ "id": DATA_SOURCE, "title": "Tasks", "url": "https://www.notion.so/x", "database_id": DATABASE, "properties": {
            "Name": { "kind": "title", "options": null, "related_data_source_id": null },
            "Status": { "kind": "status", "options": ["Open", "Done"], "related_data_source_id": null },
            "Plan": { "kind": "relation", "options": null, "related_data_source_id": DATA_SOURCE },
        } })
    );
    let mut call = Conversation::new(skill, "get_database", json!({ "database_id": DATABASE }));
    let body = json!({ "object": "database", "id": DATABASE, "title": [], "description": [], "url": null, "in_trash": false,
        "data_sources": [{ "id": DATA_SOURCE, "name": "Tasks" }] });
    assert_eq!(
        call.reply(200, body).finish().output["data_sources"],
        json!([{ "id": DATA_SOURCE, "name": "Tasks" }])
    );
}

#[test]
fn a_query_leads_from_page_to_page() {
    let query = |cursor: Option<&str>| {
        let mut params = json!({ "data_source_id": DATA_SOURCE });
        if let Some(cursor) = cursor {
            params["cursor"] = json!(cursor);
        }
        Conversation::new(skill, "query_data_source", params)
    };
    let list = |next: Value| json!({ "object": "list", "results": [page()], "next_cursor": next, "has_more": !next.is_null(), "type": "page_or_data_source" });
    let first = query(None).reply(200, list(json!("c2"))).finish();
    assert_eq!(first.output["next_cursor"], "c2");
    let next = query(Some("c2"));
    assert_eq!(
        next.request().json(),
        json!({ "start_cursor": "c2", "page_size": 25, "result_type": "page" })
    );
    let last = query(Some("c2")).reply(200, list(Value::Null)).finish();
    assert_eq!(last.output["next_cursor"], Value::Null);
    assert_eq!(last.output["pages"][0]["properties"]["In stock"], true);
}

#[test]
fn a_sort_is_by_one_thing() {
    for wrong in [
        json!([{ "direction": "ascending" }]),
        json!([{ "property": "Due", "timestamp": "created_time", "direction": "ascending" }]),
    ] {
        let params = json!({ "data_source_id": DATA_SOURCE, "sorts": wrong });
        let failure = Conversation::new(skill, "query_data_source", params).failure();
        assert!(
            matches!(&failure, Failure::InvalidParams(v) if v[0].pointer == "/sorts/0"),
            "{failure:?}"
        );
    }
}

#[test]
fn a_search_finds_pages_and_data_sources() {
    let mut call = Conversation::new(skill, "search", json!({ "query": "kale" }));
    let source = json!({ "object": "data_source", "id": DATA_SOURCE, "title": [{ "plain_text": "Vegetables" }], "properties": {}, "url": null });
    let body = json!({ "object": "list", "results": [page(), source, { "object": "page", "id": PAGE }], "next_cursor": null, "has_more": false });
    let output = call.reply(200, body).finish().output;
    let titles: Vec<_> = ["0", "1", "2"]
        .iter()
        .map(|at| output.pointer(&format!("/results/{at}/title")).cloned())
        .collect();
    assert_eq!(
        titles,
        [
            Some(json!("Tuscan kale")),
            Some(json!("Vegetables")),
            Some(json!(""))
        ]
    );
}

#[test]
fn comments_and_people_are_shown() {
    let comment = json!({ "object": "comment", "id": "c1", "parent": { "type": "page_id", "page_id": PAGE }, "discussion_id": DISCUSSION,
        "created_time": "2026-01-31T09:00:00.000Z", "created_by": { "object": "user", "id": PERSON }, "rich_text": [{ "plain_text": "Yes" }] });
    let shown = json!({ "id": "c1", "discussion_id": DISCUSSION, "created_time": "2026-01-31T09:00:00.000Z", "created_by": PERSON, "text": "Yes" });
    let mut list = Conversation::new(skill, "list_comments", json!({ "block_id": PAGE }));
    let body = json!({ "object": "list", "results": [comment], "next_cursor": null });
    assert_eq!(
        list.reply(200, body).finish().output["comments"],
        json!([shown])
    );
    let mut users = Conversation::new(skill, "list_users", json!({}));
    let body = json!({ "object": "list", "next_cursor": null, "results": [
        { "object": "user", "id": PERSON, "type": "person", "name": "Ada", "person": { "email": "ada@example.com" } },
        { "object": "user", "id": BLOCK, "type": "bot", "name": null, "bot": {} }] });
    assert_eq!(
        users.reply(200, body).finish().output["users"],
        json!([{ "id": PERSON, "name": "Ada", "kind": "person", "email": "ada@example.com" }, { "id": BLOCK, "name": null, "kind": "bot", "email": null }])
    );
}

#[test]
fn refusals_come_in_notions_own_words() {
    assert!(refused(401, &[], "unauthorized", "API token is invalid.").credential_rejected);
    let validation = refused(
        400,
        &[],
        "validation_error",
        "body failed validation: body.properties.Due should be an object",
    );
    assert_eq!(validation.code, "validation_error");
    assert!(validation.message.contains("Due should be an object"));
    let hidden = refused(404, &[], "object_not_found", "Could not find page");
    assert!(
        hidden.message.contains("add the connection"),
        "{}",
        hidden.message
    );
    let restricted = refused(403, &[], "restricted_resource", "Insufficient permissions");
    assert!(!restricted.credential_rejected && restricted.retry_after_ms.is_none());
}

#[test]
fn pauses_are_as_long_as_notion_says() {
    let pause =
        |status, headers: &[(&str, &str)], code| refused(status, headers, code, "m").retry_after_ms;
    assert_eq!(
        pause(429, &[("Retry-After", "3")], "rate_limited"),
        Some(3000)
    );
    assert_eq!(pause(429, &[], "rate_limited"), Some(10_000));
    assert_eq!(
        pause(529, &[("retry-after", "60")], "service_overload"),
        Some(60_000),
        "nothing was done, whatever was asked for"
    );
    assert_eq!(pause(409, &[], "conflict_error"), Some(2000));
}

#[test]
fn notions_trouble_is_a_pause_only_where_nothing_can_have_happened() {
    for status in [500, 502, 503, 504] {
        let reading = get_page().reply_with(status, &[], "<html>").refusal();
        assert_eq!(reading.retry_after_ms, Some(15_000));
        let writing = create_page().reply_with(status, &[], "<html>").failure();
        assert!(
            matches!(&writing, Failure::UnexpectedReply(what) if what.contains("look before")),
            "{writing:?}"
        );
    }
    let mut search = Conversation::new(skill, "search", json!({}));
    let refusal = search.reply_with(503, &[], "").refusal();
    assert!(refusal.retry_after_ms.is_some(), "a search changes nothing");
}

#[test]
fn a_strange_reply_is_said_to_be_strange() {
    for (status, body) in [
        (200, "<html>"),
        (200, ""),
        (200, "[]"),
        (200, r#"{"id":7}"#),
        (418, "tea"),
    ] {
        let failure = get_page().reply_with(status, &[], body).failure();
        assert!(matches!(failure, Failure::UnexpectedReply(_)), "{body}");
    }
}

#[test]
fn a_token_is_checked_by_its_shape() {
    let check = |value: &str| Credential::check_among(&credentials(), TOKEN, value);
    assert_eq!(check("ntn_12345678901abcdefghijkl"), Ok(()));
    assert_eq!(check("secret_12345678901abcdefghijkl"), Ok(()));
    assert_eq!(
        check("ghp_12345678901abcdefghijkl"),
        Err(CredentialViolation::WrongPrefix)
    );
    assert_eq!(check("ntn_1"), Err(CredentialViolation::TooShort));
}
