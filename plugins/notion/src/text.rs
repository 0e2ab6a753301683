//! Rich text: Notion's texts are lists of pieces, of which we write plain ones and read the plain side.

use serde::Deserialize;
use serde_json::{Value, json};

/// What one piece may hold, in UTF-16 units, as Notion counts.
const PIECE_UNITS_MAX: usize = 2000;

#[derive(Deserialize)]
pub struct RawPiece {
    #[serde(default)]
    plain_text: String,
}

pub fn plain(pieces: &[RawPiece]) -> String {
    pieces.iter().map(|p| p.plain_text.as_str()).collect()
}

/// The same of a piece of JSON: empty where it is no rich text.
pub fn plain_of(pieces: &Value) -> String {
    let pieces = pieces.as_array().map_or(&[][..], Vec::as_slice);
    pieces
        .iter()
        .filter_map(|piece| piece["plain_text"].as_str())
        .collect()
}

/// A text in as many pieces as it needs.
pub fn rich(text: &str) -> Value {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(end_of_piece(rest));
        pieces.push(json!({ "type": "text", "text": { "content": piece } }));
        rest = after;
    }
    Value::Array(pieces)
}

fn end_of_piece(text: &str) -> usize {
    let mut units = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > PIECE_UNITS_MAX {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_comes_in_pieces_that_notion_takes() {
        let lengths = |text: &str| -> Vec<usize> {
            let pieces = rich(text);
            let pieces = pieces.as_array().expect("pieces");
            let content = |p: &Value| {
                p["text"]["content"]
                    .as_str()
                    .map(|t| t.encode_utf16().count())
            };
            pieces.iter().filter_map(content).collect()
        };
        assert_eq!(lengths(""), [0_usize; 0]);
        assert_eq!(lengths(&"a".repeat(2000)), [2000]);
        assert_eq!(lengths(&"a".repeat(4001)), [2000, 2000, 1]);
        assert_eq!(
            lengths(&format!("a{}", "😀".repeat(1000))),
            [1999, 2],
            "no character is torn"
        );
    }
}
