//! Blocks: what a page consists of.

use crate::{
    api::{Id, RawList, at, read, sparse, write},
    pages::emoji,
    text::{plain_of, rich},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListBlocks {
    /// A page, or a block with blocks in it.
    block_id: Id,
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Blocks on a page.
    #[serde(default = "crate::on_a_page")]
    #[schemars(range(min = 1, max = 100))]
    page_size: u8,
}

#[derive(Deserialize)]
struct RawBlock {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    has_children: bool,
    /// Among them one named as the kind is.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
pub struct Block {
    id: String,
    /// `paragraph`, `heading_1`, `to_do`, `child_page`, ...
    kind: String,
    /// Without its formatting; the title of a page or database; the expression of an equation.
    text: String,
    /// Whether a to-do is done.
    checked: Option<bool>,
    /// Of an image, file, bookmark, ...
    url: Option<String>,
    /// Whether there are blocks in it: list them by its id.
    has_children: bool,
}

impl From<RawBlock> for Block {
    fn from(raw: RawBlock) -> Self {
        let content = raw.fields.get(&raw.kind).unwrap_or(&Value::Null);
        Self {
            text: text(content),
            checked: content["checked"].as_bool(),
            url: url(content),
            id: raw.id,
            kind: raw.kind,
            has_children: raw.has_children,
        }
    }
}

fn text(content: &Value) -> String {
    if let Some(cells) = content["cells"].as_array() {
        let cells: Vec<String> = cells.iter().map(plain_of).collect();
        return cells.join(" | ");
    }
    for named in ["title", "expression"] {
        if let Some(text) = content[named].as_str() {
            return text.to_owned();
        }
    }
    match plain_of(&content["rich_text"]) {
        text if text.is_empty() => plain_of(&content["caption"]),
        text => text,
    }
}

fn url(content: &Value) -> Option<String> {
    let places = [
        &content["url"],
        &content["external"]["url"],
        &content["file"]["url"],
    ];
    places
        .into_iter()
        .find_map(Value::as_str)
        .map(str::to_owned)
}

#[derive(Serialize, JsonSchema)]
pub struct Blocks {
    blocks: Vec<Block>,
    next_cursor: Option<String>,
}

pub fn list_blocks(call: &mut Call, params: ListBlocks) -> Result<Done<Blocks>, Stop> {
    let path = ["blocks", params.block_id.as_str(), "children"];
    let request = at(call, Method::Get, &path)
        .query_opt("start_cursor", params.cursor)
        .query("page_size", params.page_size);
    let raw: RawList<RawBlock> = read(call, request)?;
    let page = Blocks {
        blocks: raw.results.into_iter().map(Block::from).collect(),
        next_cursor: raw.next_cursor,
    };
    let summary = format!("{} blocks", page.blocks.len());
    Ok(Done::new(page, summary))
}

#[derive(Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Paragraph,
    #[serde(rename = "heading_1")]
    Heading1,
    #[serde(rename = "heading_2")]
    Heading2,
    #[serde(rename = "heading_3")]
    Heading3,
    BulletedListItem,
    NumberedListItem,
    ToDo,
    Toggle,
    Quote,
    Callout,
    Code,
    Divider,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBlock {
    kind: Kind,
    /// Plain; of all but a divider.
    #[serde(default)]
    #[schemars(length(max = 20_000))]
    text: String,
    /// Of a to-do.
    checked: Option<bool>,
    /// Of code: `rust`, `python`, ...; `plain text` unless set.
    #[schemars(regex(pattern = "^[a-z0-9+#/ .&-]{1,40}$"))]
    language: Option<String>,
    /// An emoji of a callout.
    #[schemars(length(min = 1, max = 20))]
    icon: Option<String>,
}

impl NewBlock {
    fn into_json(self) -> Value {
        let kind = json!(self.kind);
        let language = match self.kind {
            Kind::Code => Some(self.language.unwrap_or_else(|| "plain text".into())),
            _ => None,
        };
        let content = match self.kind {
            Kind::Divider => json!({}),
            kind => sparse(json!({
                "rich_text": rich(&self.text),
                "checked": self.checked.filter(|_| kind == Kind::ToDo),
                "language": language,
                "icon": self.icon.filter(|_| kind == Kind::Callout).map(emoji),
            })),
        };
        let mut block = json!({ "type": kind });
        if let Some(name) = kind.as_str() {
            block[name] = content;
        }
        block
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppendBlocks {
    /// A page, or a block that may have blocks in it.
    block_id: Id,
    #[schemars(length(min = 1, max = 100))]
    blocks: Vec<NewBlock>,
    /// The block that they are put after; at the end unless set.
    after_block_id: Option<Id>,
}

#[derive(Serialize, JsonSchema)]
pub struct Appended {
    /// Of the new blocks, in their order.
    block_ids: Vec<String>,
}

#[derive(Deserialize)]
struct RawId {
    id: String,
}

pub fn append_blocks(call: &mut Call, params: AppendBlocks) -> Result<Done<Appended>, Stop> {
    let count = params.blocks.len();
    let children: Vec<Value> = params.blocks.into_iter().map(NewBlock::into_json).collect();
    let body = sparse(json!({ "children": children, "after": params.after_block_id }));
    let path = ["blocks", params.block_id.as_str(), "children"];
    let request = at(call, Method::Patch, &path).json(&body);
    let raw: RawList<RawId> = write(call, request)?;
    // In the middle of a page, Notion answers with the blocks behind the new ones as well.
    let block_ids = raw
        .results
        .into_iter()
        .take(count)
        .map(|block| block.id)
        .collect();
    Ok(Done::new(
        Appended { block_ids },
        format!("{count} blocks added"),
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteBlock {
    block_id: Id,
}

#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    id: String,
}

pub fn delete_block(call: &mut Call, params: DeleteBlock) -> Result<Done<Deleted>, Stop> {
    let request = at(call, Method::Delete, &["blocks", params.block_id.as_str()]);
    let raw: RawId = write(call, request)?;
    let summary = format!("{} put into the trash", raw.id);
    Ok(Done::new(Deleted { id: raw.id }, summary))
}
