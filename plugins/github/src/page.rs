//! Lists that come a page at a time. GitHub names the next page by a URL in the header `Link` (RFC 8288); our cursor is
//! the part of its query that says where: `page=2`, `after=Y3Vyc29y&page=2`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use servicetsunami_plugin::Request;
use std::borrow::Cow;

/// What a cursor may hold: places in a list, nothing that would make it another one.
const PLACES: [&str; 3] = ["page", "after", "before"];
const CURSOR_CHARS_MAX: usize = 500;

/// `next_cursor` of the page before.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor(Vec<(String, String)>);

impl TryFrom<String> for Cursor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let places = places(&text);
        if text.len() > CURSOR_CHARS_MAX || places.len() != text.split('&').count() {
            return Err("the cursor must be the `next_cursor` of the page before".into());
        }
        Ok(Self(places))
    }
}

impl JsonSchema for Cursor {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Cursor".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": CURSOR_CHARS_MAX })
    }
}

/// Asks for the page at the cursor: the first, where there is none.
pub fn page(request: Request, cursor: Option<Cursor>, per_page: Option<u8>) -> Request {
    let request = request.query_opt("per_page", per_page);
    let places = cursor.map_or(vec![], |cursor| cursor.0);
    places.into_iter().fold(request, |request, (name, value)| {
        request.query(&name, value)
    })
}

/// The cursor of the page that the header `Link` calls the next; none at the end.
pub fn next_cursor(link: Option<&str>) -> Option<String> {
    let next = link?
        .split(',')
        .find(|link| link.split(';').skip(1).any(|p| p.trim() == r#"rel="next""#))?;
    let url = next.trim().strip_prefix('<')?.split('>').next()?;
    let query = url.split_once('?')?.1;
    let places: Vec<&str> = query
        .split('&')
        .filter(|pair| PLACES.contains(&pair.split('=').next().unwrap_or_default()))
        .collect();
    (!places.is_empty()).then(|| places.join("&"))
}

/// The places in a query, decoded.
fn places(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, value)| PLACES.contains(name) && !value.is_empty())
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

/// Without percent-encoding; a `%` that encodes nothing stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = r#"<https://api.github.com/repositories/1300192/issues?state=open&per_page=2&page=1>; rel="prev", <https://api.github.com/repositories/1300192/issues?state=open&per_page=2&after=Y3Vyc29y%3D&page=3>; rel="next", <https://api.github.com/repositories/1300192/issues?page=50>; rel="last""#;

    #[test]
    fn the_next_page_is_named_by_its_places_alone() {
        assert_eq!(
            next_cursor(Some(LINK)).as_deref(),
            Some("after=Y3Vyc29y%3D&page=3")
        );
        assert_eq!(
            next_cursor(Some(r#"<https://x/y?page=1>; rel="prev""#)),
            None
        );
        assert_eq!(next_cursor(Some("nonsense, <>; rel=\"next\"")), None);
        assert_eq!(next_cursor(None), None);
    }

    #[test]
    fn a_cursor_takes_the_caller_to_a_page_and_nowhere_else() {
        let cursor = Cursor::try_from("after=Y3Vyc29y%3D&page=3".to_owned()).expect("a cursor");
        assert_eq!(
            cursor.0,
            [
                ("after".to_owned(), "Y3Vyc29y=".to_owned()),
                ("page".to_owned(), "3".to_owned())
            ]
        );
        for wrong in [
            "",
            "page",
            "page=",
            "q=secret",
            "page=2&q=secret",
            "page=2&&",
        ] {
            assert!(Cursor::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn odd_percent_signs_stay_as_they_are() {
        assert_eq!(decoded("100%25+%zz%4"), "100%+%zz%4");
    }
}
