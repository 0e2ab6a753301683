//! Labels: Gmail's folders, and its marks such as `UNREAD` and `STARRED`.

use super::{
    ID, LINE, id,
    mailbox::{Filed, filed},
    once, posting, reading, repeatable,
};
use crate::read;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use servicetsunami_plugin::{Call, Done, Stop};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelMessage {
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    message_id: String,
    /// Ids of labels: `STARRED`, `Label_7`.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    add_label_ids: Vec<String>,
    /// Ids of labels: `UNREAD` marks as read, `INBOX` archives.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    remove_label_ids: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelThread {
    #[schemars(length(min = 1, max = 100), regex(pattern = ID))]
    thread_id: String,
    /// Ids of labels: `STARRED`, `Label_7`.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    add_label_ids: Vec<String>,
    /// Ids of labels: `UNREAD` marks as read, `INBOX` archives.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    remove_label_ids: Vec<String>,
}

/// The trash has an action of its own, which says how much harm it can do.
fn change(add: &[String], remove: &[String]) -> Result<Value, Stop> {
    if add.is_empty() && remove.is_empty() {
        return Err(Stop::invalid(
            "/add_label_ids",
            "name a label to add, or one to remove in `remove_label_ids`",
        ));
    }
    if let Some(index) = add.iter().position(|label| label == "TRASH") {
        return Err(Stop::invalid(
            format!("/add_label_ids/{index}"),
            "moves to the trash: use `trash_message` for that",
        ));
    }
    Ok(json!({ "addLabelIds": add, "removeLabelIds": remove }))
}

pub fn label_message(call: &mut Call, params: LabelMessage) -> Result<Done<Filed>, Stop> {
    let change = change(&params.add_label_ids, &params.remove_label_ids)?;
    let request = posting(call, "messages")
        .path(&params.message_id)
        .raw_path("/modify");
    let message = filed(&repeatable(call, request.json(&change))?)?;
    Ok(Done::new(message, "changed the labels of a message"))
}

#[derive(Serialize, JsonSchema)]
pub struct LabelledThread {
    thread_id: String,
    /// Ids of the messages in it.
    message_ids: Vec<String>,
}

pub fn label_thread(call: &mut Call, params: LabelThread) -> Result<Done<LabelledThread>, Stop> {
    let change = change(&params.add_label_ids, &params.remove_label_ids)?;
    let request = posting(call, "threads")
        .path(&params.thread_id)
        .raw_path("/modify");
    let body = repeatable(call, request.json(&change))?;
    let thread = LabelledThread {
        thread_id: id(&body["id"])?,
        message_ids: read::list(&body["messages"])
            .iter()
            .map(|m| read::text(&m["id"]))
            .collect(),
    };
    Ok(Done::new(thread, "changed the labels of a conversation"))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListLabels {}

#[derive(Serialize, JsonSchema)]
pub struct Labels {
    labels: Vec<Label>,
}

#[derive(Serialize, JsonSchema)]
pub struct Label {
    /// What the other actions know it by: `Label_7`.
    id: String,
    name: String,
    /// Whether it is one of Gmail's own.
    is_system: bool,
}

fn label(value: &Value) -> Label {
    Label {
        id: read::text(&value["id"]),
        name: read::text(&value["name"]),
        is_system: value["type"] == "system",
    }
}

pub fn list_labels(call: &mut Call, _: ListLabels) -> Result<Done<Labels>, Stop> {
    let request = reading(call, "labels");
    let body = repeatable(call, request)?;
    let labels = Labels {
        labels: read::list(&body["labels"]).iter().map(label).collect(),
    };
    let summary = format!("{} labels", labels.labels.len());
    Ok(Done::new(labels, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLabel {
    /// `Invoices`; with a slash it lies within another one: `Invoices/2026`.
    #[schemars(length(min = 1, max = 225), regex(pattern = LINE))]
    name: String,
    /// Whether it stands in the list of labels; it does unless set.
    is_listed: Option<bool>,
}

pub fn create_label(call: &mut Call, params: CreateLabel) -> Result<Done<Label>, Stop> {
    let body = json!({
        "name": params.name,
        "labelListVisibility": if params.is_listed == Some(false) { "labelHide" } else { "labelShow" },
        "messageListVisibility": "show",
    });
    let request = posting(call, "labels");
    let body = once(call, request.json(&body))?;
    id(&body["id"])?;
    Ok(Done::new(
        label(&body),
        format!("made the label {}", params.name),
    ))
}
