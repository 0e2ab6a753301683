//! Pages, and their content as Markdown.

use crate::{
    api::{Id, at, read, sparse, write},
    properties::{self, NewValue},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};
use std::collections::BTreeMap;

/// Bytes of a page's Markdown that an answer carries: escaped as JSON, it must stay below 1 MiB.
const MARKDOWN_BYTES_MAX: usize = 600_000;

#[derive(Deserialize)]
pub struct RawPage {
    id: String,
    url: Option<String>,
    created_time: Option<String>,
    last_edited_time: Option<String>,
    #[serde(default)]
    in_trash: bool,
    #[serde(default)]
    parent: Value,
    #[serde(default)]
    properties: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
pub struct Page {
    id: String,
    title: String,
    url: Option<String>,
    in_trash: bool,
    created_time: Option<String>,
    last_edited_time: Option<String>,
    /// `page_id`, `data_source_id`, `block_id` or `workspace`
    parent_kind: Option<String>,
    parent_id: Option<String>,
    /// Plain values by name; of a page outside of databases, only the title.
    properties: BTreeMap<String, Value>,
}

impl From<RawPage> for Page {
    fn from(raw: RawPage) -> Self {
        let kind = raw.parent["type"].as_str();
        Self {
            title: properties::title(&raw.properties),
            parent_id: kind
                .and_then(|kind| raw.parent[kind].as_str())
                .map(Into::into),
            parent_kind: kind.map(Into::into),
            id: raw.id,
            url: raw.url,
            in_trash: raw.in_trash,
            created_time: raw.created_time,
            last_edited_time: raw.last_edited_time,
            properties: properties::read(raw.properties),
        }
    }
}

impl Page {
    /// What the trace calls it.
    fn name(&self) -> &str {
        if self.title.is_empty() {
            &self.id
        } else {
            &self.title
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnePage {
    page_id: Id,
}

pub fn get_page(call: &mut Call, params: OnePage) -> Result<Done<Page>, Stop> {
    let request = at(call, Method::Get, &["pages", params.page_id.as_str()]);
    let page: Page = read::<RawPage>(call, request)?.into();
    let summary = page.name().to_owned();
    Ok(Done::new(page, summary))
}

#[derive(Deserialize)]
struct RawMarkdown {
    markdown: String,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    unknown_block_ids: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Content {
    markdown: String,
    /// Whether the page is longer than what is shown.
    truncated: bool,
    /// Blocks that Notion could not show: `list_blocks` may.
    unknown_block_ids: Vec<String>,
}

impl From<RawMarkdown> for Content {
    fn from(raw: RawMarkdown) -> Self {
        let mut content = Self {
            markdown: raw.markdown,
            truncated: raw.truncated,
            unknown_block_ids: raw.unknown_block_ids,
        };
        if content.markdown.len() > MARKDOWN_BYTES_MAX {
            let end = content.markdown.floor_char_boundary(MARKDOWN_BYTES_MAX);
            content.markdown.truncate(end);
            content.truncated = true;
        }
        content
    }
}

pub fn read_page(call: &mut Call, params: OnePage) -> Result<Done<Content>, Stop> {
    let path = ["pages", params.page_id.as_str(), "markdown"];
    let request = at(call, Method::Get, &path);
    let content: Content = read::<RawMarkdown>(call, request)?.into();
    let summary = format!("{} characters", content.markdown.chars().count());
    Ok(Done::new(content, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePage {
    /// The page that it is put under.
    parent_page_id: Id,
    #[schemars(length(min = 1, max = 2000))]
    title: String,
    /// The content.
    #[schemars(length(min = 1, max = 200_000))]
    markdown: Option<String>,
    /// An emoji.
    #[schemars(length(min = 1, max = 20))]
    icon: Option<String>,
}

pub fn create_page(call: &mut Call, params: CreatePage) -> Result<Done<Page>, Stop> {
    let parent = json!({ "type": "page_id", "page_id": params.parent_page_id });
    let properties = properties::written(Some(params.title), None);
    create(call, parent, properties, params.markdown, params.icon)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRow {
    /// The data source (the table of a database) that it becomes a row of.
    data_source_id: Id,
    #[schemars(length(min = 1, max = 2000))]
    title: String,
    /// By their names.
    #[schemars(extend("maxProperties" = 100))]
    properties: Option<BTreeMap<String, NewValue>>,
    /// The content of its page.
    #[schemars(length(min = 1, max = 200_000))]
    markdown: Option<String>,
    /// An emoji.
    #[schemars(length(min = 1, max = 20))]
    icon: Option<String>,
}

pub fn create_row(call: &mut Call, params: CreateRow) -> Result<Done<Page>, Stop> {
    let parent = json!({ "type": "data_source_id", "data_source_id": params.data_source_id });
    let properties = properties::written(Some(params.title), params.properties);
    create(call, parent, properties, params.markdown, params.icon)
}

fn create(
    call: &mut Call,
    parent: Value,
    properties: Option<Value>,
    markdown: Option<String>,
    icon: Option<String>,
) -> Result<Done<Page>, Stop> {
    let body = sparse(json!({
        "parent": parent,
        "properties": properties,
        "markdown": markdown,
        "icon": icon.map(emoji),
    }));
    let request = at(call, Method::Post, &["pages"]).json(&body);
    let page: Page = write::<RawPage>(call, request)?.into();
    let summary = format!("{} created", page.name());
    Ok(Done::new(page, summary))
}

pub fn emoji(emoji: String) -> Value {
    json!({ "type": "emoji", "emoji": emoji })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePage {
    page_id: Id,
    #[schemars(length(min = 1, max = 2000))]
    title: Option<String>,
    /// By their names; those that are not named stay.
    #[schemars(extend("maxProperties" = 100))]
    properties: Option<BTreeMap<String, NewValue>>,
    /// An emoji.
    #[schemars(length(min = 1, max = 20))]
    icon: Option<String>,
}

pub fn update_page(call: &mut Call, params: UpdatePage) -> Result<Done<Page>, Stop> {
    let body = sparse(json!({
        "properties": properties::written(params.title, params.properties),
        "icon": params.icon.map(emoji),
    }));
    if body.as_object().is_none_or(Map::is_empty) {
        let what = "nothing is to be changed: give `title`, `properties` or `icon`";
        return Err(Stop::invalid("", what));
    }
    let page = patch(call, &params.page_id, &body)?;
    let summary = format!("{} changed", page.name());
    Ok(Done::new(page, summary))
}

pub fn trash_page(call: &mut Call, params: OnePage) -> Result<Done<Page>, Stop> {
    let page = patch(call, &params.page_id, &json!({ "in_trash": true }))?;
    let summary = format!("{} put into the trash", page.name());
    Ok(Done::new(page, summary))
}

pub fn restore_page(call: &mut Call, params: OnePage) -> Result<Done<Page>, Stop> {
    let page = patch(call, &params.page_id, &json!({ "in_trash": false }))?;
    let summary = format!("{} taken out of the trash", page.name());
    Ok(Done::new(page, summary))
}

fn patch(call: &mut Call, id: &Id, body: &Value) -> Result<Page, Stop> {
    let request = at(call, Method::Patch, &["pages", id.as_str()]).json(body);
    Ok(write::<RawPage>(call, request)?.into())
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Start,
    #[default]
    End,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddToPage {
    page_id: Id,
    /// What is added.
    #[schemars(length(min = 1, max = 200_000))]
    markdown: String,
    /// At the end unless set.
    #[serde(default)]
    place: Place,
}

pub fn add_to_page(call: &mut Call, params: AddToPage) -> Result<Done<Content>, Stop> {
    let place = match params.place {
        Place::Start => "start",
        Place::End => "end",
    };
    let body = json!({
        "type": "insert_content",
        "insert_content": { "content": params.markdown, "position": { "type": place } },
    });
    let content = change(call, &params.page_id, &body)?;
    Ok(Done::new(content, format!("added at the {place}")))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// The Markdown that stands there, as `read_page` shows it; it must stand there once, unless `all` is set.
    #[schemars(length(min = 1, max = 20_000))]
    old: String,
    #[schemars(length(max = 100_000))]
    new: String,
    /// Whether each of several is replaced.
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditPage {
    page_id: Id,
    #[schemars(length(min = 1, max = 100))]
    replacements: Vec<Replacement>,
}

/// Pages below this one are never deleted by it: Notion refuses that, unless it is allowed.
pub fn edit_page(call: &mut Call, params: EditPage) -> Result<Done<Content>, Stop> {
    let update = |r: Replacement| {
        let mut update = json!({ "old_str": r.old, "new_str": r.new });
        if r.all {
            update["replace_all_matches"] = json!(true);
        }
        update
    };
    let updates: Vec<Value> = params.replacements.into_iter().map(update).collect();
    let summary = format!("{} replacements", updates.len());
    let body =
        json!({ "type": "update_content", "update_content": { "content_updates": updates } });
    let content = change(call, &params.page_id, &body)?;
    Ok(Done::new(content, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplacePage {
    page_id: Id,
    /// The whole content.
    #[schemars(length(max = 200_000))]
    markdown: String,
    /// Whether pages and databases in it that the new content does not mention go into the trash; unless set, Notion
    /// refuses.
    #[serde(default)]
    delete_children: bool,
}

pub fn replace_page(call: &mut Call, params: ReplacePage) -> Result<Done<Content>, Stop> {
    let mut replacement = json!({ "new_str": params.markdown });
    if params.delete_children {
        replacement["allow_deleting_content"] = json!(true);
    }
    let body = json!({ "type": "replace_content", "replace_content": replacement });
    let content = change(call, &params.page_id, &body)?;
    Ok(Done::new(content, "content replaced"))
}

fn change(call: &mut Call, id: &Id, body: &Value) -> Result<Content, Stop> {
    let path = ["pages", id.as_str(), "markdown"];
    let request = at(call, Method::Patch, &path).json(body);
    Ok(write::<RawMarkdown>(call, request)?.into())
}
