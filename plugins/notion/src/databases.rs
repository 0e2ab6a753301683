//! Databases, their data sources (the tables of a database), and searching for either and for pages.

use crate::{
    api::{Id, RawList, at, read, sparse},
    pages::{Page, RawPage},
    properties,
    text::{RawPiece, plain},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};
use std::collections::BTreeMap;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetDatabase {
    database_id: Id,
}

#[derive(Deserialize)]
struct RawDatabase {
    id: String,
    #[serde(default)]
    title: Vec<RawPiece>,
    #[serde(default)]
    description: Vec<RawPiece>,
    url: Option<String>,
    #[serde(default)]
    in_trash: bool,
    #[serde(default)]
    data_sources: Vec<DataSourceName>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
pub struct DataSourceName {
    id: String,
    name: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Database {
    id: String,
    title: String,
    description: String,
    url: Option<String>,
    in_trash: bool,
    /// Its tables: query them by their ids.
    data_sources: Vec<DataSourceName>,
}

pub fn get_database(call: &mut Call, params: GetDatabase) -> Result<Done<Database>, Stop> {
    let request = at(
        call,
        Method::Get,
        &["databases", params.database_id.as_str()],
    );
    let raw: RawDatabase = read(call, request)?;
    let database = Database {
        id: raw.id,
        title: plain(&raw.title),
        description: plain(&raw.description),
        url: raw.url,
        in_trash: raw.in_trash,
        data_sources: raw.data_sources,
    };
    let summary = format!("{} data sources", database.data_sources.len());
    Ok(Done::new(database, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetDataSource {
    data_source_id: Id,
}

#[derive(Deserialize)]
struct RawDataSource {
    id: String,
    #[serde(default)]
    title: Vec<RawPiece>,
    url: Option<String>,
    #[serde(default)]
    parent: Value,
    #[serde(default)]
    properties: BTreeMap<String, RawProperty>,
}

#[derive(Deserialize)]
struct RawProperty {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
pub struct Property {
    /// What a value is given and read as: `title`, `rich_text`, `status`, `date`, ...
    kind: String,
    /// Names of the options of a select, multi-select or status.
    options: Option<Vec<String>>,
    /// The data source that a relation leads to.
    related_data_source_id: Option<String>,
}

impl From<RawProperty> for Property {
    fn from(raw: RawProperty) -> Self {
        let content = raw.fields.get(&raw.kind).unwrap_or(&Value::Null);
        let name = |option: &Value| option["name"].as_str().map(str::to_owned);
        Self {
            options: content["options"]
                .as_array()
                .map(|options| options.iter().filter_map(name).collect()),
            related_data_source_id: content["data_source_id"].as_str().map(str::to_owned),
            kind: raw.kind,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct DataSource {
    id: String,
    title: String,
    url: Option<String>,
    database_id: Option<String>,
    /// What its rows have, by name.
    properties: BTreeMap<String, Property>,
}

pub fn get_data_source(call: &mut Call, params: GetDataSource) -> Result<Done<DataSource>, Stop> {
    let path = ["data_sources", params.data_source_id.as_str()];
    let request = at(call, Method::Get, &path);
    let raw: RawDataSource = read(call, request)?;
    let found = DataSource {
        id: raw.id,
        title: plain(&raw.title),
        url: raw.url,
        database_id: raw.parent["database_id"].as_str().map(str::to_owned),
        properties: raw
            .properties
            .into_iter()
            .map(|(name, property)| (name, property.into()))
            .collect(),
    };
    let summary = format!("{}, {} properties", found.title, found.properties.len());
    Ok(Done::new(found, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Ascending,
    Descending,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sort {
    /// A property by name. Either this or `timestamp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    property: Option<String>,
    /// Either this or `property`.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    direction: Direction,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Timestamp {
    CreatedTime,
    LastEditedTime,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryDataSource {
    data_source_id: Id,
    /// As Notion writes it: `{"property": "Status", "status": {"equals": "Done"}}`; several under `and` or `or`. See
    /// <https://developers.notion.com/reference/filter-data-source-entries>.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 10))]
    filter: Option<Map<String, Value>>,
    /// The first one counts most.
    #[schemars(length(min = 1, max = 10))]
    sorts: Option<Vec<Sort>>,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Rows on a page.
    #[serde(default = "crate::on_a_page")]
    #[schemars(range(min = 1, max = 100))]
    page_size: u8,
}

/// A row of a data source, or a data source itself, where one holds others.
#[derive(Deserialize)]
struct RawObject {
    object: String,
    id: String,
    url: Option<String>,
    #[serde(default)]
    title: Vec<RawPiece>,
    last_edited_time: Option<String>,
    #[serde(default)]
    properties: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
pub struct Rows {
    pages: Vec<Page>,
    next_cursor: Option<String>,
}

pub fn query_data_source(call: &mut Call, params: QueryDataSource) -> Result<Done<Rows>, Stop> {
    let sorts = params.sorts.as_deref().unwrap_or_default();
    if let Some(at) = sorts
        .iter()
        .position(|sort| sort.property.is_some() == sort.timestamp.is_some())
    {
        let what = "give either `property` or `timestamp`";
        return Err(Stop::invalid(format!("/sorts/{at}"), what));
    }
    let body = sparse(json!({
        "filter": params.filter,
        "sorts": params.sorts,
        "start_cursor": params.cursor,
        "page_size": params.page_size,
        "result_type": "page",
    }));
    let path = ["data_sources", params.data_source_id.as_str(), "query"];
    let request = at(call, Method::Post, &path).json(&body);
    let raw: RawList<RawPage> = read(call, request)?;
    let rows = Rows {
        pages: raw.results.into_iter().map(Page::from).collect(),
        next_cursor: raw.next_cursor,
    };
    let summary = format!("{} pages", rows.pages.len());
    Ok(Done::new(rows, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Page,
    DataSource,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Words of the title; everything that the connection may see unless set.
    #[schemars(length(min = 1, max = 500))]
    query: Option<String>,
    /// Both unless set.
    kind: Option<Kind>,
    /// By the last change: the newest first (`descending`), or the oldest. By relevance unless set.
    last_edited: Option<Direction>,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Entries on a page.
    #[serde(default = "crate::on_a_page")]
    #[schemars(range(min = 1, max = 100))]
    page_size: u8,
}

#[derive(Serialize, JsonSchema)]
pub struct Found {
    /// `page` or `data_source`
    kind: String,
    id: String,
    title: String,
    url: Option<String>,
    last_edited_time: Option<String>,
}

impl From<RawObject> for Found {
    fn from(raw: RawObject) -> Self {
        let title = match raw.object.as_str() {
            "page" => properties::title(&raw.properties),
            _ => plain(&raw.title),
        };
        Self {
            kind: raw.object,
            id: raw.id,
            title,
            url: raw.url,
            last_edited_time: raw.last_edited_time,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct FoundList {
    results: Vec<Found>,
    next_cursor: Option<String>,
}

pub fn search(call: &mut Call, params: Search) -> Result<Done<FoundList>, Stop> {
    let filter = |kind| json!({ "property": "object", "value": kind });
    let sort = |direction| json!({ "timestamp": "last_edited_time", "direction": direction });
    let body = sparse(json!({
        "query": params.query,
        "filter": params.kind.map(filter),
        "sort": params.last_edited.map(sort),
        "start_cursor": params.cursor,
        "page_size": params.page_size,
    }));
    let request = at(call, Method::Post, &["search"]).json(&body);
    let raw: RawList<RawObject> = read(call, request)?;
    let found = FoundList {
        results: raw.results.into_iter().map(Found::from).collect(),
        next_cursor: raw.next_cursor,
    };
    let summary = format!("{} found", found.results.len());
    Ok(Done::new(found, summary))
}
