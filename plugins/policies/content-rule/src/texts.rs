//! The texts within parameters.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// Longest place in settings, and in a message, in characters.
const PLACE_CHARS_MAX: usize = 200;

/// Where texts are looked for: a JSON Pointer (RFC 6901) to one, or to a list or an object that holds some; `*` for
/// everywhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Place(String);

impl Place {
    pub fn everywhere() -> Self {
        Self(String::new())
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::everywhere());
        }
        let escaped = text.replace("~0", "").replace("~1", "");
        let shaped = text.starts_with('/') && !escaped.contains('~');
        if shaped && text.chars().count() <= PLACE_CHARS_MAX {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(PLACE_CHARS_MAX).collect();
        Err(format!(
            "`{shown}` is no JSON Pointer of at most {PLACE_CHARS_MAX} characters: write one as in `/text`, or `*` for all texts"
        ))
    }
}

impl JsonSchema for Place {
    fn schema_name() -> Cow<'static, str> {
        "Place".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(\\*|(/([^~]|~[01])*))$", "maxLength": PLACE_CHARS_MAX })
    }
}

/// What counts as a text besides strings and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Ignored,
    /// The names of an object's fields, since a free-form map can say something in them; but for those of the
    /// parameters themselves, which the action's schema sets.
    Read,
}

/// Where the first text is that `wanted` takes, among those at some places.
pub fn find(
    params: &Value,
    places: &[Place],
    names: Names,
    wanted: &mut dyn FnMut(&str) -> bool,
) -> Option<String> {
    places.iter().find_map(|place| {
        let value = params.pointer(&place.0)?;
        let names_here = if place.0.is_empty() {
            Names::Ignored
        } else {
            names
        };
        let mut tokens = find_in(value, names_here, names, wanted)?;
        tokens.reverse();
        let path: String = tokens.iter().map(|token| format!("/{token}")).collect();
        Some(
            format!("{}{path}", place.0)
                .chars()
                .take(PLACE_CHARS_MAX)
                .collect(),
        )
    })
}

/// The tokens of the JSON Pointer, the last one first. As deep as serde_json reads: 127 levels.
fn find_in(
    value: &Value,
    names_here: Names,
    names: Names,
    wanted: &mut dyn FnMut(&str) -> bool,
) -> Option<Vec<String>> {
    let below = |token: String, value: &Value, wanted: &mut dyn FnMut(&str) -> bool| {
        let mut tokens = find_in(value, names, names, wanted)?;
        tokens.push(token);
        Some(tokens)
    };
    match value {
        Value::Null | Value::Bool(_) => None,
        Value::Number(number) => wanted(&number.to_string()).then(Vec::new),
        Value::String(text) => wanted(text).then(Vec::new),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| below(index.to_string(), item, wanted))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            // A name that was found is not repeated.
            if names_here == Names::Read && wanted(name) {
                return Some(Vec::new());
            }
            below(escaped(name), field, wanted)
        }),
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
