//! Properties of pages: what a database has in its columns. Notion nests each value in an object of its type; here a
//! value is given with its type, and read as the plain value that it is.

use crate::{
    api::Id,
    text::{plain_of, rich},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::JsonSchema;
use std::collections::BTreeMap;

/// A value with its type, as `get_data_source` names it: `{"status": "Done"}`. Null empties it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NewValue {
    Title(#[schemars(length(max = 20000))] String),
    RichText(#[schemars(length(max = 20000))] String),
    Number(Option<f64>),
    /// The name of an option; a new one comes into being.
    Select(#[schemars(length(min = 1, max = 100))] Option<String>),
    /// Names of options; new ones come into being.
    MultiSelect(#[schemars(length(max = 100), inner(length(min = 1, max = 100)))] Vec<String>),
    /// The name of an option that there is.
    Status(#[schemars(length(min = 1, max = 100))] Option<String>),
    Date(Option<NewDate>),
    /// Ids.
    People(#[schemars(length(max = 100))] Vec<Id>),
    Checkbox(bool),
    Url(#[schemars(length(min = 1, max = 2000))] Option<String>),
    Email(#[schemars(length(min = 1, max = 200))] Option<String>),
    PhoneNumber(#[schemars(length(min = 1, max = 200))] Option<String>),
    /// Ids of pages.
    Relation(#[schemars(length(max = 100))] Vec<Id>),
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDate {
    /// A day (`2026-01-31`), or a time (`2026-01-31T09:00:00+01:00`).
    #[schemars(length(min = 10, max = 40))]
    start: String,
    /// Of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 10, max = 40))]
    end: Option<String>,
}

impl NewValue {
    fn into_json(self) -> Value {
        match self {
            Self::Title(text) => json!({ "title": rich(&text) }),
            Self::RichText(text) => json!({ "rich_text": rich(&text) }),
            Self::Number(number) => json!({ "number": number }),
            Self::Select(name) => json!({ "select": name.map(option) }),
            Self::MultiSelect(names) => {
                json!({ "multi_select": names.into_iter().map(option).collect::<Vec<_>>() })
            }
            Self::Status(name) => json!({ "status": name.map(option) }),
            Self::Date(date) => json!({ "date": date }),
            Self::People(ids) => json!({ "people": references(ids) }),
            Self::Checkbox(is_set) => json!({ "checkbox": is_set }),
            Self::Url(url) => json!({ "url": url }),
            Self::Email(email) => json!({ "email": email }),
            Self::PhoneNumber(number) => json!({ "phone_number": number }),
            Self::Relation(ids) => json!({ "relation": references(ids) }),
        }
    }
}

fn option(name: String) -> Value {
    json!({ "name": name })
}

fn references(ids: Vec<Id>) -> Vec<Value> {
    ids.into_iter().map(|id| json!({ "id": id })).collect()
}

/// Values by the names of their properties, and the title, whose property has the id `title` whatever its name is.
pub fn written(title: Option<String>, values: Option<BTreeMap<String, NewValue>>) -> Option<Value> {
    let mut all = Map::new();
    for (name, value) in values.unwrap_or_default() {
        all.insert(name, value.into_json());
    }
    if let Some(title) = title {
        all.insert("title".into(), NewValue::Title(title).into_json());
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

/// The title among the properties of a page.
pub fn title(properties: &Map<String, Value>) -> String {
    properties
        .values()
        .find(|property| property["type"] == "title")
        .map(|property| plain_of(&property["title"]))
        .unwrap_or_default()
}

/// Plain values by the names of their properties.
pub fn read(properties: Map<String, Value>) -> BTreeMap<String, Value> {
    properties
        .into_iter()
        .map(|(name, property)| {
            let value = plain_value(&property);
            (name, value)
        })
        .collect()
}

/// Of a property, of a formula or of an item of a rollup: they name their type, and have the value under its name.
fn plain_value(property: &Value) -> Value {
    let kind = property["type"].as_str().unwrap_or_default();
    let value = &property[kind];
    match kind {
        "title" | "rich_text" => json!(plain_of(value)),
        "select" | "status" => value["name"].clone(),
        "multi_select" => each(value, |option| option["name"].clone()),
        "relation" => each(value, |page| page["id"].clone()),
        "people" => each(value, person),
        "created_by" | "last_edited_by" => person(value),
        "files" => each(value, file),
        "date" if value["end"].is_null() => value["start"].clone(),
        "date" => json!({ "start": value["start"], "end": value["end"] }),
        "formula" => plain_value(value),
        "rollup" if value["type"] == "array" => each(&value["array"], plain_value),
        "rollup" => plain_value(value),
        "unique_id" => match value["prefix"].as_str() {
            Some(prefix) => json!(format!("{prefix}-{}", value["number"])),
            None => value["number"].clone(),
        },
        "verification" => value["state"].clone(),
        // number, checkbox, url, email, phone_number, created_time, ...: plain already; an unknown one stays as it is
        _ => value.clone(),
    }
}

fn each(list: &Value, plain: fn(&Value) -> Value) -> Value {
    list.as_array()
        .map_or(Value::Null, |list| list.iter().map(plain).collect())
}

fn person(value: &Value) -> Value {
    json!({ "id": value["id"], "name": value["name"] })
}

fn file(value: &Value) -> Value {
    let url = [&value["external"]["url"], &value["file"]["url"]]
        .into_iter()
        .find(|url| url.is_string());
    json!({ "name": value["name"], "url": url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_plain() {
        let text = json!([{ "type": "text", "plain_text": "Q4 " }, { "type": "mention", "plain_text": "plan" }]);
        for (property, plain) in [
            (
                json!({ "id": "title", "type": "title", "title": text }),
                json!("Q4 plan"),
            ),
            (json!({ "type": "rich_text", "rich_text": [] }), json!("")),
            (json!({ "type": "number", "number": 3.5 }), json!(3.5)),
            (json!({ "type": "select", "select": null }), json!(null)),
            (
                json!({ "type": "status", "status": { "id": "1", "name": "Done", "color": "green" } }),
                json!("Done"),
            ),
            (
                json!({ "type": "multi_select", "multi_select": [{ "name": "a" }, { "name": "b" }] }),
                json!(["a", "b"]),
            ),
            (
                json!({ "type": "date", "date": { "start": "2026-01-31", "end": null, "time_zone": null } }),
                json!("2026-01-31"),
            ),
            (
                json!({ "type": "date", "date": { "start": "2026-01-31", "end": "2026-02-01" } }),
                json!({ "start": "2026-01-31", "end": "2026-02-01" }),
            ),
            (json!({ "type": "date", "date": null }), json!(null)),
            (
                json!({ "type": "people", "people": [{ "object": "user", "id": "u1", "name": "Ada" }, { "object": "user", "id": "u2" }] }),
                json!([{ "id": "u1", "name": "Ada" }, { "id": "u2", "name": null }]),
            ),
            (
                json!({ "type": "relation", "relation": [{ "id": "p1" }], "has_more": false }),
                json!(["p1"]),
            ),
            (
                json!({ "type": "formula", "formula": { "type": "string", "string": "late" } }),
                json!("late"),
            ),
            (
                json!({ "type": "rollup", "rollup": { "type": "number", "number": 2, "function": "sum" } }),
                json!(2),
            ),
            (
                json!({ "type": "rollup", "rollup": { "type": "array", "array": [{ "type": "number", "number": 1 }], "function": "show_original" } }),
                json!([1]),
            ),
            (
                json!({ "type": "files", "files": [{ "name": "a.pdf", "type": "external", "external": { "url": "https://x/a.pdf" } }] }),
                json!([{ "name": "a.pdf", "url": "https://x/a.pdf" }]),
            ),
            (
                json!({ "type": "unique_id", "unique_id": { "prefix": "ENG", "number": 12 } }),
                json!("ENG-12"),
            ),
            (
                json!({ "type": "unique_id", "unique_id": { "prefix": null, "number": 12 } }),
                json!(12),
            ),
            (
                json!({ "type": "created_by", "created_by": { "object": "user", "id": "u1" } }),
                json!({ "id": "u1", "name": null }),
            ),
            (
                json!({ "type": "created_time", "created_time": "2026-01-31T09:00:00.000Z" }),
                json!("2026-01-31T09:00:00.000Z"),
            ),
            (json!({ "type": "checkbox", "checkbox": true }), json!(true)),
            (json!({ "type": "button", "button": {} }), json!({})),
            (json!("strange"), json!(null)),
        ] {
            assert_eq!(plain_value(&property), plain, "{property}");
        }
    }

    #[test]
    fn a_value_is_written_in_an_object_of_its_type() {
        let id = "b55c9c91384d452b81dbd1ef79372b75";
        for (given, sent) in [
            (
                json!({ "rich_text": "x" }),
                json!({ "rich_text": [{ "type": "text", "text": { "content": "x" } }] }),
            ),
            (json!({ "number": null }), json!({ "number": null })),
            (
                json!({ "select": "High" }),
                json!({ "select": { "name": "High" } }),
            ),
            (
                json!({ "multi_select": ["a"] }),
                json!({ "multi_select": [{ "name": "a" }] }),
            ),
            (json!({ "status": null }), json!({ "status": null })),
            (
                json!({ "date": { "start": "2026-01-31" } }),
                json!({ "date": { "start": "2026-01-31" } }),
            ),
            (
                json!({ "people": [id] }),
                json!({ "people": [{ "id": id }] }),
            ),
            (json!({ "checkbox": false }), json!({ "checkbox": false })),
            (json!({ "url": "https://x" }), json!({ "url": "https://x" })),
            (json!({ "email": "a@x" }), json!({ "email": "a@x" })),
            (
                json!({ "phone_number": "1" }),
                json!({ "phone_number": "1" }),
            ),
            (
                json!({ "relation": [id] }),
                json!({ "relation": [{ "id": id }] }),
            ),
        ] {
            let value: NewValue = serde_json::from_value(given.clone()).expect("a value");
            assert_eq!(value.into_json(), sent, "{given}");
        }
    }

    #[test]
    fn the_title_goes_by_its_id() {
        assert_eq!(
            written(Some("Plan".into()), None),
            Some(
                json!({ "title": { "title": [{ "type": "text", "text": { "content": "Plan" } }] } })
            )
        );
        assert_eq!(written(None, None), None);
    }
}
