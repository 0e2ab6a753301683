//! Notion, over its API (<https://developers.notion.com/reference>).
//!
//! Pages are read and written as the Markdown that Notion itself speaks; single blocks can be as well. The rows of a
//! database are pages whose properties are given with their types and read as plain values (see `properties`).

mod api;
mod blocks;
mod databases;
mod pages;
mod people;
mod properties;
#[cfg(test)]
mod tests;
mod text;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    ActionBuilder, Credential, CredentialKind, Risk, Shape, Skill, about, action, export_skill,
};

/// Notion's own; the setting `base_url` names another.
const BASE_URL: &str = "https://api.notion.com/v1";
const TOKEN: &str = "token";
/// Ids, for examples.
const PAGE: &str = "59833787-2cf9-4fdf-8782-e53db20768a5";
const BLOCK: &str = "9bc30ad4-9373-46a5-84ab-0a7845ee52e6";
const DATABASE: &str = "d9824bdc84454327be8b5b47500af6ce";
const DATA_SOURCE: &str = "248104cd-477e-80fd-b757-e945d38000bd";
const PERSON: &str = "6794760a-1f15-45cd-9c65-0dfe42f5135a";
const DISCUSSION: &str = "ce18f8c6-ef2a-427f-b416-43531fc7c117";

/// Entries on a page of a list, unless the caller asks for another number.
fn on_a_page() -> u8 {
    25
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by name, in `Call::base_url`")]
struct Settings {
    /// Where Notion's API is, with its version: `https://proxy.example.com/v1`.
    #[schemars(url, length(max = 500))]
    base_url: Option<String>,
}

pub fn skill() -> Skill {
    let skill = Skill::new("notion", about!("Notion", ["documents", "databases"]))
        .host("api.notion.com")
        .settings::<Settings>()
        .host_setting("/base_url");
    [
        page_actions(),
        block_actions(),
        database_actions(),
        people_actions(),
    ]
    .into_iter()
    .flatten()
    .map(|action| action.credential(TOKEN))
    .fold(skill, Skill::action)
}

fn page_actions() -> Vec<ActionBuilder> {
    vec![
        action("search", databases::search)
            .title("Search")
            .summary("Pages and data sources by their titles, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("Pages about something", || json!({ "query": "Q4 plan", "kind": "page" }))
            .example("What changed last", || json!({ "last_edited": "descending", "page_size": 50, "cursor": PAGE })),
        action("get_page", pages::get_page)
            .title("Look at a page")
            .summary("A page's title, place and properties.")
            .scope("pages", "/page_id")
            .example("By id", || json!({ "page_id": PAGE })),
        action("read_page", pages::read_page)
            .title("Read a page")
            .summary("The content of a page as Markdown.")
            .scope("pages", "/page_id")
            .example("By id", || json!({ "page_id": PAGE })),
        action("create_page", pages::create_page)
            .title("Create a page")
            .summary("Creates a page under another one, with its content as Markdown.")
            .risk(Risk::Write)
            .scope("pages", "/parent_page_id")
            .example("Under a page", || json!({ "parent_page_id": PAGE, "title": "Q4 plan", "markdown": "## Goals\n\n- [ ] Close the books\n", "icon": "📈" }))
            .example("With nothing on it", || json!({ "parent_page_id": PAGE, "title": "Minutes" })),
        action("create_row", pages::create_row)
            .title("Create a row")
            .summary("Creates a page as a row of a data source, with its properties, and its content as Markdown.")
            .risk(Risk::Write)
            .scope("data_sources", "/data_source_id")
            .example("With properties", || json!({ "data_source_id": DATA_SOURCE, "title": "Close the books", "properties": {
                "Status": { "status": "In progress" }, "Due": { "date": { "start": "2026-01-31" } }, "Team": { "multi_select": ["Finance"] },
                "Owner": { "people": [PERSON] }, "Points": { "number": 3 } } })),
        action("update_page", pages::update_page)
            .title("Change a page's properties")
            .summary("Changes a page's title, icon and properties; those that are not named stay.")
            .risk(Risk::Write)
            .idempotent(true)
            .scope("pages", "/page_id")
            .example("Tick it off", || json!({ "page_id": PAGE, "properties": { "Status": { "status": "Done" }, "Done": { "checkbox": true } } }))
            .example("Other values", || json!({ "page_id": PAGE, "title": "Close the books of Q4", "icon": "✅", "properties": {
                "Note": { "rich_text": "As agreed." }, "Priority": { "select": "High" }, "Link": { "url": "https://example.com/q4" },
                "Contact": { "email": "ada@example.com" }, "Phone": { "phone_number": null }, "Plan": { "relation": [PAGE] },
                "Week": { "date": { "start": "2026-01-26", "end": "2026-01-30" } } } })),
        action("add_to_page", pages::add_to_page)
            .title("Add to a page")
            .summary("Adds Markdown at the end or at the start of a page.")
            .risk(Risk::Write)
            .scope("pages", "/page_id")
            .example("At the end", || json!({ "page_id": PAGE, "markdown": "## Decisions\n\n1. Close on Friday.\n" }))
            .example("At the start", || json!({ "page_id": PAGE, "markdown": "> Closed on Friday.\n", "place": "start" })),
        action("edit_page", pages::edit_page)
            .title("Edit a page")
            .summary("Replaces passages of a page by others.")
            .risk(Risk::Write)
            .scope("pages", "/page_id")
            .example("Two passages", || json!({ "page_id": PAGE, "replacements": [{ "old": "- [ ] Close the books", "new": "- [x] Close the books" }, { "old": "draft", "new": "final", "all": true }] })),
        action("replace_page", pages::replace_page)
            .title("Replace a page's content")
            .summary("Replaces the whole content of a page.")
            .risk(Risk::Destructive)
            .idempotent(true)
            .scope("pages", "/page_id")
            .example("A new text", || json!({ "page_id": PAGE, "markdown": "# Q4\n\nClosed.\n" }))
            .example("With the pages in it", || json!({ "page_id": PAGE, "markdown": "Moved.\n", "delete_children": true })),
        action("trash_page", pages::trash_page)
            .title("Put a page into the trash")
            .summary("Takes a page away, with all that is in it; see `restore_page`.")
            .risk(Risk::Destructive)
            .idempotent(true)
            .scope("pages", "/page_id")
            .example("By id", || json!({ "page_id": PAGE })),
        action("restore_page", pages::restore_page)
            .title("Take a page out of the trash")
            .summary("Brings back a page that is in the trash.")
            .risk(Risk::Write)
            .idempotent(true)
            .scope("pages", "/page_id")
            .example("By id", || json!({ "page_id": PAGE })),
    ]
}

fn block_actions() -> Vec<ActionBuilder> {
    vec![
        action("list_blocks", blocks::list_blocks)
            .title("List blocks")
            .summary("What a page or block consists of, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .scope("pages", "/block_id")
            .example("Of a page", || json!({ "block_id": PAGE }))
            .example("The next page", || json!({ "block_id": PAGE, "page_size": 100, "cursor": BLOCK })),
        action("append_blocks", blocks::append_blocks)
            .title("Append blocks")
            .summary("Adds blocks to a page, or to a block that may have some in it: a toggle, a list's item.")
            .risk(Risk::Write)
            .scope("pages", "/block_id")
            .example("A few of them", || json!({ "block_id": PAGE, "blocks": [
                { "kind": "heading_2", "text": "Closing" }, { "kind": "paragraph", "text": "What is left:" },
                { "kind": "to_do", "text": "Close the books", "checked": false }, { "kind": "callout", "text": "By Friday", "icon": "⏰" },
                { "kind": "code", "text": "SELECT 1;", "language": "sql" }, { "kind": "divider" }] }))
            .example("After a block", || json!({ "block_id": PAGE, "after_block_id": BLOCK, "blocks": [{ "kind": "bulleted_list_item", "text": "One more" }] })),
        action("delete_block", blocks::delete_block)
            .title("Delete a block")
            .summary("Puts a block into the trash, with all that is in it.")
            .risk(Risk::Destructive)
            .idempotent(true)
            .scope("pages", "/block_id")
            .example("By id", || json!({ "block_id": BLOCK })),
    ]
}

fn database_actions() -> Vec<ActionBuilder> {
    vec![
        action("get_database", databases::get_database)
            .title("Look at a database")
            .summary("A database's title, and its data sources: the tables that are in it.")
            .scope("databases", "/database_id")
            .example("By id", || json!({ "database_id": DATABASE })),
        action("get_data_source", databases::get_data_source)
            .title("Look at a data source")
            .summary("The properties that the rows of a data source have, with their types and options.")
            .scope("data_sources", "/data_source_id")
            .example("By id", || json!({ "data_source_id": DATA_SOURCE })),
        action("query_data_source", databases::query_data_source)
            .title("Query a data source")
            .summary("Rows of a data source by their properties, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .scope("data_sources", "/data_source_id")
            .example("What is open, the next due first", || json!({ "data_source_id": DATA_SOURCE, "filter": { "and": [
                { "property": "Status", "status": { "does_not_equal": "Done" } }, { "property": "Due", "date": { "next_week": {} } }] },
                "sorts": [{ "property": "Due", "direction": "ascending" }, { "timestamp": "created_time", "direction": "descending" }] }))
            .example("All, the next page", || json!({ "data_source_id": DATA_SOURCE, "page_size": 100, "cursor": PAGE })),
    ]
}

fn people_actions() -> Vec<ActionBuilder> {
    vec![
        action("create_comment", people::create_comment)
            .title("Comment on a page")
            .summary("Begins a thread of comments on a page.")
            .risk(Risk::Write)
            .scope("pages", "/page_id")
            .example(
                "On a page",
                || json!({ "page_id": PAGE, "markdown": "Is this **final**?" }),
            ),
        action("reply_to_comment", people::reply_to_comment)
            .title("Answer a comment")
            .summary("Adds a comment to a thread.")
            .risk(Risk::Write)
            .scope("discussions", "/discussion_id")
            .example(
                "In a thread",
                || json!({ "discussion_id": DISCUSSION, "markdown": "Yes, it is." }),
            ),
        action("list_comments", people::list_comments)
            .title("Read comments")
            .summary("The open comments on a page or block, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .scope("pages", "/block_id")
            .example("On a page", || json!({ "block_id": PAGE }))
            .example(
                "The next page",
                || json!({ "block_id": PAGE, "page_size": 50, "cursor": BLOCK }),
            ),
        action("list_users", people::list_users)
            .title("List people")
            .summary("The people and bots of the workspace, a page at a time.")
            .pages("/cursor", "/next_cursor")
            .example("The first page", || json!({}))
            .example(
                "The next page",
                || json!({ "page_size": 100, "cursor": PERSON }),
            ),
        action("get_user", people::get_user)
            .title("Look at a person")
            .summary("A person's or bot's name and e-mail address.")
            .example("By id", || json!({ "user_id": PERSON })),
    ]
}

pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new(TOKEN, CredentialKind::ApiKey, "Integration token")
            .help("Of an internal connection: in Notion, Settings, Connections, Develop or manage integrations. Then add the connection to each page that it may see, under the page's menu.")
            .placeholder("ntn_...")
            .scopes(&[
                "Read content",
                "Update content",
                "Insert content",
                "Read comments",
                "Insert comments",
                "Read user information including email addresses",
            ])
            .shape(Shape {
                prefixes: vec!["ntn_", "secret_"],
                length: 20..=512,
                ..Shape::default()
            }),
    ]
}

export_skill!(skill, credentials);
