//! What the skill can do.

pub mod labels;
pub mod mailbox;
pub mod send;

use crate::{
    ACCESS_TOKEN, BASE_URL,
    refusal::{self, accepted},
};
use serde_json::Value;
use servicetsunami_plugin::{Call, Request, Stop, get, post, put};

/// A plain address; `mime` looks closer.
const ADDRESS: &str = r"^[^\s@<>,;:()\x22]+@[^\s@<>,;:()\x22]+$";
/// Of a message, a conversation, a draft.
const ID: &str = r"^[A-Za-z0-9_-]+$";
const LINE: &str = r"^[^\x00-\x1f\x7f]*$";

/// A request under `users/me`; more segments of the path are added to it.
fn at(call: &Call, verb: fn(String) -> Request, path: &str) -> Request {
    verb(format!(
        "{}/gmail/v1/users/me/{path}",
        call.base_url(BASE_URL)
    ))
    .bearer(ACCESS_TOKEN)
}

fn reading(call: &Call, path: &str) -> Request {
    at(call, get, path)
}

fn posting(call: &Call, path: &str) -> Request {
    at(call, post, path)
}

fn putting(call: &Call, path: &str) -> Request {
    at(call, put, path)
}

/// Of what only reads, or sets what may be set twice: after an outage it can be asked for again.
fn repeatable(call: &mut Call, request: Request) -> Result<Value, Stop> {
    let reply = call.send(request)?;
    match reply.status() {
        500.. => Err(refusal::outage(&reply)),
        _ => accepted(&reply, call.now_ms()),
    }
}

/// Of what may happen twice if it is asked for twice.
fn once(call: &mut Call, request: Request) -> Result<Value, Stop> {
    let reply = call.send(request)?;
    accepted(&reply, call.now_ms())
}

/// An id that every later step depends on.
fn id(value: &Value) -> Result<String, Stop> {
    match value.as_str() {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => Err(Stop::unexpected("a reply without an `id`")),
    }
}
