//! Lists, a page at a time: `limit` and an opaque `cursor` in, `next_cursor` out.

use crate::problem::Problem;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::pin::pin;
use uuid::Uuid;

/// Entries a page, where the request does not say.
pub const LIMIT_DEFAULT: i64 = 50;
/// Entries a page, at most.
pub const LIMIT_MAX: i64 = 200;
/// What a page's entries hold of texts and JSON of strangers, in bytes of memory: beyond it the page ends, but not before
/// its first entry. An entry may have megabytes.
pub const BYTES_MAX: usize = 8 << 20;

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

    /// Takes rows as they come from the database until the page is full, by number or by bytes; the rest is not read.
    pub async fn take<R>(
        self,
        rows: impl Stream<Item = sqlx::Result<R>>,
        bytes: impl Fn(&R) -> usize,
    ) -> sqlx::Result<Taken<R>> {
        let limit = usize::try_from(self.limit).unwrap_or(0);
        let mut rows = pin!(rows);
        let mut taken = Taken {
            rows: Vec::new(),
            more: false,
        };
        let mut held = 0_usize;
        while let Some(row) = rows.next().await.transpose()? {
            held = held.saturating_add(bytes(&row));
            let full = taken.rows.len() == limit || held > BYTES_MAX;
            if full && !taken.rows.is_empty() {
                taken.more = true;
                break;
            }
            taken.rows.push(row);
        }
        Ok(taken)
    }
}

/// The rows of a page.
#[derive(Debug)]
pub struct Taken<R> {
    pub rows: Vec<R>,
    /// Whether others follow.
    pub more: bool,
}

/// What JSON takes in memory: many small values take more there than in their text.
pub fn json_bytes<'a>(values: impl IntoIterator<Item = &'a Value>) -> usize {
    values.into_iter().map(bytes_of).sum()
}

fn bytes_of(value: &Value) -> usize {
    let within = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes_of).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| size_of::<String>() + name.len() + bytes_of(value))
            .sum(),
    };
    size_of::<Value>() + within
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
        Self::taken(Taken { rows, more }, id, convert)
    }

    /// Makes a page of rows that [`PageRequest::take`] took.
    pub fn taken<R>(taken: Taken<R>, id: impl Fn(&R) -> Uuid, convert: impl FnMut(R) -> T) -> Self {
        let last = taken.rows.last().filter(|_| taken.more);
        let next_cursor = last.map(|row| BASE64_URL_SAFE_NO_PAD.encode(id(row).as_bytes()));
        Self {
            items: taken.rows.into_iter().map(convert).collect(),
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

    /// How many rows of such sizes a page takes, whether more follow, and how many were read for it.
    async fn page_of(limit: i64, sizes: &[usize]) -> (usize, bool, usize) {
        let read = std::cell::Cell::new(0);
        let rows = futures::stream::iter(sizes).map(|size| {
            read.set(read.get() + 1);
            Ok(*size)
        });
        let request = PageRequest::new(Some(limit), None).unwrap();
        let taken = request.take(rows, |size| *size).await.unwrap();
        (taken.rows.len(), taken.more, read.get())
    }

    #[tokio::test]
    async fn a_page_ends_where_its_bytes_do_and_the_rest_is_not_read() {
        assert_eq!(page_of(200, &[1 << 20; 8]).await, (8, false, 8));
        assert_eq!(page_of(200, &[1 << 20; 200]).await, (8, true, 9));
        assert_eq!(page_of(2, &[1; 3]).await, (2, true, 3));
        let huge = [BYTES_MAX * 2; 3];
        assert_eq!(page_of(50, &huge).await, (1, true, 2), "one in any case");
        assert_eq!(page_of(50, &huge[..1]).await, (1, false, 1));
    }

    #[test]
    fn many_small_values_weigh_more_than_their_text() {
        let lists = serde_json::json!(vec![serde_json::json!([]); 1000]);
        assert!(json_bytes([&lists]) > 3 * lists.to_string().len());
        assert_eq!(json_bytes(None), 0);
    }

    #[test]
    fn a_strange_cursor_or_limit_is_refused() {
        assert!(PageRequest::new(Some(0), None).is_err());
        assert!(PageRequest::new(Some(201), None).is_err());
        assert!(PageRequest::new(None, Some("../etc")).is_err());
    }
}
