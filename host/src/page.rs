//! Lists, a page at a time: `limit` and an opaque `cursor` in, `next_cursor` out.

use crate::problem::Problem;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Entries a page, where the request does not say.
pub const LIMIT_DEFAULT: i64 = 50;
/// Entries a page, at most.
pub const LIMIT_MAX: i64 = 200;

/// The query parameters of every list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries a page, 1 to 200; 50 where it is left out.
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Where a page begins and how long it is. Lists run from the newest to the oldest, by id.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    pub limit: i64,
    /// Only what is older than this.
    pub before: Option<Uuid>,
}

impl PageQuery {
    pub fn parse(&self) -> Result<PageRequest, Problem> {
        PageRequest::new(self.limit, self.cursor.as_deref())
    }
}

impl PageRequest {
    pub fn new(limit: Option<i64>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad_request(
                "invalid_query",
                format!("`limit` is {limit}; it must be 1 to {LIMIT_MAX}."),
            ));
        }
        let before = cursor.map(parse_cursor).transpose()?;
        Ok(Self { limit, before })
    }

    /// One more than the page holds, to know whether another follows.
    pub fn fetch(&self) -> i64 {
        self.limit + 1
    }
}

fn parse_cursor(text: &str) -> Result<Uuid, Problem> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| Uuid::from_slice(&bytes).ok())
        .ok_or_else(|| {
            Problem::bad_request(
                "invalid_cursor",
                "`cursor` is none of ours. Take `next_cursor` of the page before, unchanged.",
            )
        })
}

/// One page.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `rows`, which were fetched one beyond the limit.
    pub fn of<R>(
        mut rows: Vec<R>,
        page: PageRequest,
        id: impl Fn(&R) -> Uuid,
        convert: impl FnMut(R) -> T,
    ) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|row| BASE64_URL_SAFE_NO_PAD.encode(id(row).as_bytes()));
        Self {
            items: rows.into_iter().map(convert).collect(),
            next_cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_points_at_the_next_only_when_there_is_one() {
        let request = PageRequest::new(Some(2), None).unwrap();
        let ids: Vec<Uuid> = (0..3u128).map(Uuid::from_u128).collect();
        let page = Page::of(ids.clone(), request, |id| *id, |id| id);
        assert_eq!(page.items, ids[..2]);
        let next = PageRequest::new(None, page.next_cursor.as_deref()).unwrap();
        assert_eq!(next.before, Some(ids[1]));
        assert_eq!(
            Page::of(ids[..2].to_vec(), request, |id| *id, |id| id).next_cursor,
            None
        );
    }

    #[test]
    fn a_strange_cursor_or_limit_is_refused() {
        assert!(PageRequest::new(Some(0), None).is_err());
        assert!(PageRequest::new(Some(201), None).is_err());
        assert!(PageRequest::new(None, Some("../etc")).is_err());
    }
}
